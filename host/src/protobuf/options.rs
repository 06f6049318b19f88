//! Leaves out options of somebody's own: no byte of a message depends on them, and a registry
//! takes schemas whose options nothing declares.

use prost_reflect::prost_types::uninterpreted_option::NamePart;
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};

/// Keeps those of Protobuf itself, such as `packed`, which have no name in brackets. Each kind of
/// declaration has a type of options of its own.
macro_rules! keep_known {
    ($declaration:expr) => {
        if let Some(options) = &mut $declaration.options {
            let is_own = |part: &NamePart| part.is_extension;
            options
                .uninterpreted_option
                .retain(|it| !it.name.first().is_some_and(is_own));
        }
    };
}

pub(super) fn leave_out_own(file: &mut FileDescriptorProto) {
    keep_known!(file);
    file.message_type.iter_mut().for_each(of_message);
    file.enum_type.iter_mut().for_each(of_enum);
    file.extension.iter_mut().for_each(of_field);
    for service in &mut file.service {
        keep_known!(service);
        for method in &mut service.method {
            keep_known!(method);
        }
    }
}

/// Blocks of a schema are nested only so deep that this may call itself.
fn of_message(message: &mut DescriptorProto) {
    keep_known!(message);
    message.field.iter_mut().for_each(of_field);
    message.extension.iter_mut().for_each(of_field);
    message.enum_type.iter_mut().for_each(of_enum);
    message.nested_type.iter_mut().for_each(of_message);
    for oneof in &mut message.oneof_decl {
        keep_known!(oneof);
    }
    for range in &mut message.extension_range {
        keep_known!(range);
    }
}

fn of_field(field: &mut FieldDescriptorProto) {
    keep_known!(field);
}

fn of_enum(it: &mut EnumDescriptorProto) {
    keep_known!(it);
    for value in &mut it.value {
        keep_known!(value);
    }
}

#[cfg(test)]
mod tests {
    use crate::protobuf::{Kind, ProtoFile, is_packed};

    #[test]
    fn a_schema_whose_options_nobody_declares_is_read() {
        let text = r#"syntax = "proto3";
            option (file) = "x";
            message M {
                option (message).deeply.nested = { a: 1 b { c: [1, 2] } };
                repeated int32 packed = 1 [(field).tags = "PII", packed = false];
                oneof one { option (oneof) = 1; string a = 2 [deprecated = true]; }
                map<string, E> entries = 3 [(field) = {}];
                message In { option (message) = {}; int64 n = 1; }
            }
            enum E { option (of_enum) = {}; NONE = 0 [(value) = 1]; }
            service S { option (of_service) = {}; rpc R (M) returns (M) { option (method) = {}; } }"#;
        let file = ProtoFile::read(text, &[]).expect("a schema");
        let message = file.message(Some("M")).expect("a message");
        let field = |name: &str| message.message().get_field_by_name(name).expect("a field");
        assert!(!is_packed(&field("packed")));
        assert!(field("entries").is_map());
        assert!(matches!(field("a").kind(), Kind::String));
    }

    #[test]
    fn what_else_is_wrong_is_told_as_it_was() {
        let text = "syntax = \"proto3\";\nmessage M { B b = 1 [(field) = 1]; }";
        let why = ProtoFile::read(text, &[]).expect_err("there is no B");
        assert!(
            why.starts_with("schema.proto:2:13: name 'B' is not defined"),
            "{why}"
        );
    }
}
