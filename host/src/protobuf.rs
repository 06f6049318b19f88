//! Schemas of Protobuf: what a library has read of their text, or of what `protoc` has made of
//! it, with their names resolved.

/// Files that everybody knows.
mod known;
/// Leaves out options of somebody's own.
mod options;

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
pub use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Syntax,
    Value,
};
use prost_reflect::{DescriptorPool, FileDescriptor};
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::guarded::guarded;
use crate::suggest;

/// Values of options may be nested so deep, and blocks of messages.
const NESTING_MAX: usize = 100;

/// What a file with the text of a schema is called that has no name of its own.
const NAMELESS: &str = "schema.proto";

/// A file, with those that it imports.
#[derive(Clone, Debug)]
pub struct ProtoFile {
    file: FileDescriptor,
    /// `None` where it was compiled.
    text: Option<Arc<str>>,
}

/// A message, with all that it names.
#[derive(Clone)]
pub struct ProtoSchema {
    message: MessageDescriptor,
    text: Option<Arc<str>>,
}

/// Two schemas are equal if they are of the same message of the same files.
impl PartialEq for ProtoSchema {
    fn eq(&self, other: &Self) -> bool {
        let files = |schema: &Self| schema.message.parent_pool().clone();
        self.message.full_name() == other.message.full_name()
            && files(self)
                .file_descriptor_protos()
                .eq(files(other).file_descriptor_protos())
    }
}

impl Eq for ProtoSchema {}

impl fmt::Debug for ProtoSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.message.parent_file();
        write!(
            f,
            "{} {:?}",
            self.message.full_name(),
            file.file_descriptor_proto()
        )
    }
}

impl ProtoFile {
    /// Reads a file of this name; `open` gives the text of those that it imports, other than
    /// those that come with Protobuf.
    pub fn parse(
        name: &str,
        text: &str,
        open: impl Fn(&str) -> Option<String> + 'static,
    ) -> Result<Self, String> {
        let root = source(name, text)?;
        compile(root, open).map(|file| ProtoFile {
            file,
            text: Some(text.into()),
        })
    }

    /// Reads what `protoc --descriptor_set_out` has written. The file is the last one: those
    /// that it imports come before it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let set = FileDescriptorSet::decode(bytes);
        let set = set.map_err(|_| "it is no descriptor set".to_owned())?;
        set.file.iter().try_for_each(check_syntax)?;
        let pool = checked(|| {
            DescriptorPool::from_file_descriptor_set(set)
                .map_err(|error| format!("its files do not fit together: {}", told(&error)))
        })?;
        let file = pool.files().last();
        let file = file.ok_or("it is a descriptor set without a file")?;
        Ok(ProtoFile { file, text: None })
    }

    /// Reads a schema of a registry, with what it imports by the names that it has for them.
    /// It is a text, or what `protoc` has made of it, in base64.
    pub fn read(text: &str, references: &[(String, String)]) -> Result<Self, String> {
        let references = references.to_vec();
        let open = move |name: &str| {
            let (_, text) = references.iter().find(|(known, _)| known == name)?;
            Some(text.clone())
        };
        compile(any_source(NAMELESS, text)?, open).map(|file| ProtoFile {
            file,
            text: Some(text.into()),
        })
    }

    /// The message of this name, or else the only one that the file has.
    pub fn message(&self, name: Option<&str>) -> Result<ProtoSchema, String> {
        let pool = self.file.parent_pool();
        let known: Vec<String> = self
            .file
            .messages()
            .map(|it| it.full_name().to_owned())
            .collect();
        let message = match name {
            Some(name) => pool.get_message_by_name(name).ok_or_else(|| {
                let all: Vec<_> = pool.all_messages().collect();
                let mut all: Vec<&str> = all.iter().map(MessageDescriptor::full_name).collect();
                // Their own names are what is expected.
                all.sort_by_key(|it| !known.iter().any(|own| own == it));
                let help = suggest::help(name, "messages", all);
                format!("it has no message `{name}`; {help}")
            })?,
            None => match &known[..] {
                [only] => pool.get_message_by_name(only).ok_or("it has no message")?,
                [] => return Err("it has no message".to_owned()),
                _ => {
                    return Err(format!(
                        "it has several messages, and `message` says not which: {}",
                        known.join(", ")
                    ));
                }
            },
        };
        Ok(ProtoSchema {
            message,
            text: self.text.clone(),
        })
    }

    /// The message at a place: the number of one of the file, and of one within it, and so on.
    /// Entries of maps, which are messages, too, do not count.
    pub fn message_at(&self, place: &[usize]) -> Option<ProtoSchema> {
        let (first, within) = place.split_first()?;
        let mut message = self.file.messages().nth(*first)?;
        for index in within {
            let mut children = message.child_messages().filter(|it| !it.is_map_entry());
            let child = children.nth(*index)?;
            drop(children);
            message = child;
        }
        Some(ProtoSchema {
            message,
            text: self.text.clone(),
        })
    }
}

impl ProtoSchema {
    pub fn message(&self) -> &MessageDescriptor {
        &self.message
    }

    pub fn name(&self) -> &str {
        self.message.full_name()
    }

    /// The file's text, which a registry gets. The error says why it cannot be all that it
    /// gets.
    pub fn own_text(&self) -> Result<&str, String> {
        let file = self.message.parent_file();
        let imports = file.dependencies().map(|it| it.name().to_owned());
        let mut imports = imports.filter(|name| !name.starts_with("google/protobuf/"));
        match (imports.next(), &self.text) {
            (Some(import), _) => Err(format!(
                "its file imports `{import}`, and a registry gets one file: have it define all \
                 that it names"
            )),
            (None, Some(text)) => Ok(text),
            (None, None) => Err(
                "a registry gets the text of a `.proto` file, and this one is \
                                 compiled"
                    .to_owned(),
            ),
        }
    }

    /// Where the message is in its file, for [`ProtoFile::message_at`].
    pub fn place(&self) -> Vec<usize> {
        let mut place = Vec::new();
        let mut message = self.message.clone();
        while let Some(parent) = message.parent_message() {
            let mut siblings = parent.child_messages().filter(|it| !it.is_map_entry());
            place.push(siblings.position(|it| it == message).unwrap_or_default());
            drop(siblings);
            message = parent;
        }
        let index = message
            .parent_file()
            .messages()
            .position(|it| it == message);
        place.push(index.unwrap_or_default());
        place.reverse();
        place
    }

    /// Whether rows of another file are the same bytes, and mean the same.
    pub fn is_written_as(&self, other: &ProtoFile) -> bool {
        let shape = |message: &MessageDescriptor| {
            let mut shape = String::new();
            write_shape(message, &mut BTreeSet::new(), &mut shape);
            shape
        };
        let other = other.message_at(&self.place());
        other.is_some_and(|other| shape(&self.message) == shape(&other.message))
    }
}

/// Writes all of a message that its bytes depend on.
fn write_shape(message: &MessageDescriptor, seen: &mut BTreeSet<String>, out: &mut String) {
    out.push_str(message.full_name());
    if !seen.insert(message.full_name().to_owned()) {
        return;
    }
    let mut fields: Vec<FieldDescriptor> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    for field in &fields {
        let oneof = field.containing_oneof();
        let oneof = oneof.as_ref().map_or("", |oneof| oneof.name());
        let _ = write!(
            out,
            "({} {} {oneof} {:?} {} {} ",
            field.number(),
            field.name(),
            field.cardinality(),
            field.supports_presence(),
            kind_name(&field.kind()),
        );
        match field.kind() {
            Kind::Message(message) => write_shape(&message, seen, out),
            Kind::Enum(it) => {
                let mut values: Vec<_> = it
                    .values()
                    .map(|it| (it.number(), it.name().to_owned()))
                    .collect();
                values.sort();
                let _ = write!(out, "{values:?}");
            }
            _ => {}
        }
        out.push(')');
    }
}

/// Finds files that are imported.
struct Imports<F> {
    google: GoogleFileResolver,
    open: F,
}

impl<F: Fn(&str) -> Option<String>> FileResolver for Imports<F> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Ok(file) = self.google.open_file(name) {
            return Ok(file);
        }
        let text = (self.open)(name).or_else(|| known::text(name));
        let text = text.ok_or_else(|| protox::Error::file_not_found(name))?;
        any_source(name, &text).map_err(protox::Error::new)
    }
}

/// The file to begin with, before what it imports.
struct Root<R>(File, R);

/// Files with options of somebody's own, or without them.
struct Files<R> {
    files: Rc<R>,
    has_own_options: bool,
}

impl<R: FileResolver> FileResolver for Files<R> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = self.files.open_file(name)?;
        if self.has_own_options {
            return Ok(file);
        }
        let mut file = file.file_descriptor_proto().clone();
        options::leave_out_own(&mut file);
        Ok(file.into())
    }
}

impl<R: FileResolver> FileResolver for Root<R> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name == self.0.name() {
            true => Ok(self.0.clone()),
            false => self.1.open_file(name),
        }
    }
}

fn compile(
    root: File,
    open: impl Fn(&str) -> Option<String> + 'static,
) -> Result<FileDescriptor, String> {
    let name = root.name().to_owned();
    let google = GoogleFileResolver::new();
    let files = Rc::new(Root(root, Imports { google, open }));
    let compiled = |has_own_options: bool| {
        let files = files.clone();
        let mut compiler = Compiler::with_file_resolver(Files {
            files,
            has_own_options,
        });
        checked(|| {
            compiler.open_file(&name).map_err(|error| told(&error))?;
            let file = compiler.descriptor_pool().get_file_by_name(&name);
            file.ok_or_else(|| "it has no file".to_owned())
        })
    };
    // What is wrong with such options alone keeps nobody from reading rows.
    compiled(true).or_else(|why| compiled(false).map_err(|_| why))
}

/// A compiled schema may be damaged in ways that the library does not expect.
fn checked<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    guarded(read).unwrap_or_else(|| Err("it makes no sense".to_owned()))
}

/// A file of text, or of base64.
fn any_source(name: &str, text: &str) -> Result<File, String> {
    let Ok(bytes) = BASE64_STANDARD.decode(text.trim()) else {
        return source(name, text);
    };
    let file = File::decode_file_descriptor_proto(&bytes[..])
        .map_err(|error| format!("{name} is no file that is compiled: {error}"))?;
    let mut file = file.file_descriptor_proto().clone();
    check_syntax(&file)?;
    // Those that import it know it by this name.
    file.name = Some(name.to_owned());
    Ok(file.into())
}

fn source(name: &str, text: &str) -> Result<File, String> {
    if is_nested_deeper(text, NESTING_MAX) {
        return Err(format!(
            "{name} has blocks nested more than {NESTING_MAX} deep"
        ));
    }
    File::from_source(name, text).map_err(|error| {
        let is_edition = |line: &str| {
            let rest = line.trim_start().strip_prefix("edition");
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        match text.lines().any(is_edition) {
            true => in_edition(name),
            false => told(&error),
        }
    })
}

fn check_syntax(file: &FileDescriptorProto) -> Result<(), String> {
    match file.syntax() {
        "editions" => Err(in_edition(file.name())),
        _ => Ok(()),
    }
}

fn in_edition(name: &str) -> String {
    format!(
        "{name} is written in an edition: schemas in `syntax = \"proto2\"` and \"proto3\" are read, \
         editions are not"
    )
}

/// What the library says, with the place, in one line.
fn told(error: &dyn fmt::Debug) -> String {
    let text = format!("{error:?}");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Whether brackets are within one another more than so deep, outside of texts and comments:
/// what reads them calls itself for each.
fn is_nested_deeper(text: &str, max: usize) -> bool {
    let mut depth = 0usize;
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'/', [b'/', ..]) => skip_past(after, b"\n"),
            (b'#', _) => skip_past(after, b"\n"),
            (b'/', [b'*', comment @ ..]) => skip_past(comment, b"*/"),
            (quote @ (b'"' | b'\''), _) => skip_quoted(after, *quote),
            (b'{' | b'<' | b'[', _) => {
                depth += 1;
                after
            }
            (b'}' | b'>' | b']', _) => {
                depth = depth.saturating_sub(1);
                after
            }
            _ => after,
        };
        if depth > max {
            return true;
        }
    }
    false
}

fn skip_past<'t>(text: &'t [u8], end: &[u8]) -> &'t [u8] {
    match memchr::memmem::find(text, end) {
        Some(at) => &text[at + end.len()..],
        None => &[],
    }
}

fn skip_quoted(mut text: &[u8], quote: u8) -> &[u8] {
    loop {
        text = match text {
            [] => return text,
            [b'\\', _, rest @ ..] => rest,
            [b'\n', rest @ ..] => return rest,
            [first, rest @ ..] if *first == quote => return rest,
            [_, rest @ ..] => rest,
        };
    }
}

/// The type of a field as schemas write it, for messages.
pub fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry)
            if field.is_map()
                && let (Some(key), Some(value)) = (entry.get_field(1), entry.get_field(2)) =>
        {
            format!(
                "map<{}, {}>",
                kind_name(&key.kind()),
                kind_name(&value.kind())
            )
        }
        kind => match field.cardinality() {
            Cardinality::Repeated => format!("repeated {}", kind_name(&kind)),
            Cardinality::Optional | Cardinality::Required => kind_name(&kind),
        },
    }
}

/// Whether the elements of a list are written behind one length.
pub fn is_packed(field: &FieldDescriptor) -> bool {
    // The library decides before it has read the options of a text.
    let options = field.field_descriptor_proto().options.as_ref();
    let given = options.and_then(|options| options.packed);
    let is_number = !matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_));
    is_number && given.unwrap_or(field.parent_file().syntax() == Syntax::Proto3)
}

/// The type of one value.
pub fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(it) => it.full_name().to_owned(),
        // As schemas write it.
        kind => format!("{kind:?}"),
    }
}

/// The type of the one value of a message that is there to be absent, such as
/// `google.protobuf.Int64Value`.
pub fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    const WRAPPERS: [&str; 9] = [
        "DoubleValue",
        "FloatValue",
        "Int64Value",
        "UInt64Value",
        "Int32Value",
        "UInt32Value",
        "BoolValue",
        "StringValue",
        "BytesValue",
    ];
    let name = message.full_name().strip_prefix("google.protobuf.")?;
    let field = message.get_field(1).filter(|_| WRAPPERS.contains(&name))?;
    Some(field.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ProtoFile {
        ProtoFile::read(text, &[]).expect("a schema")
    }

    #[test]
    fn schemas_are_the_same_whose_bytes_mean_the_same() {
        let schema = r#"
            syntax = "proto3";
            package a;
            message Other { map<string, Kind> kinds = 1; }
            enum Kind { X = 0; Y = 1; }
            message Tree {
              int64 id = 1;
              optional Kind kind = 2;
              repeated Tree children = 3;
              oneof either { string word = 4; bytes raw = 5; }
            }
        "#;
        let tree = parsed(schema).message(Some("a.Tree")).expect("it is there");
        assert_eq!(tree.place(), [1]);
        let again = schema.replace("int64 id = 1;", "").replace(
            "oneof",
            "reserved 7; int64 id = 1; // The first.
 oneof",
        );
        assert!(tree.is_written_as(&parsed(&again)));
        for (from, to) in [
            ("package a", "package b"),
            ("id = 1", "id = 9"),
            ("id = 1", "number = 1"),
            ("int64 id", "sint64 id"),
            ("optional Kind", "Kind"),
            ("repeated Tree", "Tree"),
            ("Y = 1", "Y = 2"),
            ("Y = 1", "Z = 1"),
            ("bytes raw = 5; }", "} bytes raw = 5;"),
            ("message Other { map<string, Kind> kinds = 1; }", ""),
        ] {
            let other = schema.replace(from, to);
            assert_ne!(other, schema, "{from}");
            assert!(!tree.is_written_as(&parsed(&other)), "{to}");
        }
    }

    #[test]
    fn places_of_messages_do_not_count_entries_of_maps() {
        let file = parsed(
            "syntax = \"proto3\"; message A { map<string, B> all = 1; message B { } message C { } }",
        );
        let place = |name| file.message(Some(name)).map(|it| it.place());
        assert_eq!(place("A.C"), Ok(vec![0, 1]));
        let at = |place: &[usize]| file.message_at(place).map(|it| it.name().to_owned());
        assert_eq!(at(&[0, 1]).as_deref(), Some("A.C"));
        assert_eq!(at(&[0, 2]), None);
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn schemas_are_not_nested_without_end() {
        let nested = |depth: usize| {
            let value = "{ a: ".repeat(depth) + "1" + &" }".repeat(depth);
            let text = format!(
                "syntax = \"proto2\"; import \"google/protobuf/descriptor.proto\"; \
                 message M {{ optional M a = 1; optional int32 b = 2; }} \
                 extend google.protobuf.FileOptions {{ optional M m = 50000; }} \
                 // {{{{{{\n /* {{{{ */ option (m) = {};",
                value.replace("a: 1", "b: 1")
            );
            ProtoFile::read(&text, &[]).map(drop)
        };
        assert_eq!(nested(90), Ok(()));
        let error = "schema.proto has blocks nested more than 100 deep";
        assert_eq!(nested(101), Err(error.to_owned()));
        assert_eq!(nested(1_000_000), Err(error.to_owned()));
    }

    /// As `protoc` compiles them, with all that an error may point at.
    #[test]
    fn editions_are_not_read_where_they_are_compiled() {
        let file = parsed("syntax = \"proto2\"; message M { optional int32 n = 1; }").file;
        let edition = FileDescriptorProto {
            syntax: Some("editions".to_owned()),
            ..file.file_descriptor_proto().clone()
        };
        let error = "schema.proto is written in an edition: schemas in `syntax = \"proto2\"` and \
                     \"proto3\" are read, editions are not";
        let as_base64 = BASE64_STANDARD.encode(edition.encode_to_vec());
        assert_eq!(
            ProtoFile::read(&as_base64, &[]).map(drop),
            Err(error.to_owned())
        );
        let set = FileDescriptorSet {
            file: vec![edition],
        };
        let decoded = ProtoFile::decode(&set.encode_to_vec());
        assert_eq!(decoded.map(drop), Err(error.to_owned()));
    }

    #[test]
    fn damaged_schemas_are_refused() {
        let text = "syntax = \"proto3\"; package a; message M { repeated M m = 1; map<int32, E> e = 2; \
                    oneof o { string s = 3; E f = 4; } enum E { X = 0; } }";
        let file = parsed(text).file;
        let bytes = file.encode_to_vec();
        let mut set = vec![0x0A];
        crate::varint::write(&mut set, bytes.len() as u64);
        set.extend_from_slice(&bytes);
        assert!(ProtoFile::decode(&set).is_ok());
        let mut random = fastrand::Rng::with_seed(42);
        for _ in 0..3_000 {
            let mut damaged = set.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..damaged.len());
                damaged[at] = random.u8(..);
            }
            if let Ok(file) = ProtoFile::decode(&damaged) {
                let fields = |schema: &ProtoSchema| {
                    schema
                        .message()
                        .fields()
                        .map(|it| type_name(&it))
                        .collect::<Vec<_>>()
                };
                let _ = file
                    .message(None)
                    .map(|schema| (fields(&schema), schema.place()));
            }
            let mut damaged = text.as_bytes().to_vec();
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
            let _ = ProtoFile::read(&String::from_utf8_lossy(&damaged), &[]);
        }
    }
}
