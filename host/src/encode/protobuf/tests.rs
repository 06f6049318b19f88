//! What rows are encoded as: the bytes that another implementation, prost-reflect, writes.

use expect_test::{Expect, expect};
use prost::Message;
use prost_reflect::DynamicMessage;

use super::*;
use crate::decode::Decoder;
use crate::encode::in_tests::{
    VALUES, columns_of, every_type, field, json_columns, list, nullable, record, symbols,
};
use crate::format::{Format, MessageFormat, ProtobufFormat};
use crate::json::render_columns;
use crate::schema::DataType as D;

fn parsed(schema: &str) -> ProtoSchema {
    let file = ProtoFile::parse("test.proto", schema, |_| None).unwrap();
    file.message(None).unwrap()
}

/// Rows of JSON are written, by another implementation too, and read again.
fn round_trip(schema: &ProtoSchema, columns: &Schema, rows: &[&str]) -> Vec<Vec<u8>> {
    let before = json_columns(columns, rows);
    let encoder = ProtobufEncoder::new(schema, columns).unwrap();
    let mut written = Vec::new();
    for row in 0..rows.len() {
        let mut out = Vec::new();
        encoder.write(&before, row, &mut out).unwrap();
        let other = DynamicMessage::decode(schema.message().clone(), &out[..]).unwrap();
        assert_eq!(other.unknown_fields().count(), 0);
        assert_eq!(other.encode_to_vec(), out, "{other:?}");
        written.push(out);
    }
    let format = MessageFormat::Protobuf(ProtobufFormat {
        schema: Some(schema.clone()),
        message: None,
        is_registered: false,
    });
    let after = columns_of(
        &mut Decoder::new(&Format::Message(format).into(), columns),
        &written,
    );
    for row in 0..rows.len() {
        assert_eq!(
            render_columns(columns, &after, row),
            render_columns(columns, &before, row)
        );
    }
    assert_eq!(before, after);
    written
}

/// Every type of column that Protobuf has null for as well.
fn nullable_types(columns: &Schema) -> Schema {
    let has_list = |field: &&Field| field.nullable && field.name.starts_with("list");
    let fields = columns.fields.iter().filter(|field| !has_list(field));
    let fields = fields.map(|field| match &field.data_type {
        D::Record(_) if field.nullable => {
            let inner = vec![nullable("text", D::Utf8), field_of_ids()];
            nullable(&field.name, record(inner))
        }
        _ => field.clone(),
    });
    Schema::new(fields.collect())
}

fn field_of_ids() -> Field {
    field("ids", list(field("item", D::Int16)))
}

#[test]
fn what_is_written_is_read_again_by_this_and_by_another_reader() {
    let columns = nullable_types(&every_type());
    let nulls = |values: &str| {
        values
            .replace("\":", "_or_null\":")
            .replace("text_or_null", "text")
            .replace("ids_or_null", "ids")
    };
    let mut rows: Vec<String> = VALUES
        .iter()
        .map(|values| format!("{{{values},{}}}", nulls(values)))
        .collect();
    rows.push(format!("{{{}}}", VALUES[0]));
    rows.push(format!(
        "{{{},\"record_or_null\":{{\"ids\":[]}}}}",
        VALUES[1]
    ));
    let texts: Vec<&str> = rows.iter().map(String::as_str).collect();
    let schema = schema_of(&columns, None, "8 things-x").unwrap();
    assert_eq!(schema.name(), "_8_things_x");
    round_trip(&schema, &columns, &texts);
    let named = schema_of(&columns, Some("shop.things.Thing"), "8 things-x").unwrap();
    assert_eq!(named.name(), "shop.things.Thing");
    let small = Schema::new(vec![
        nullable("at", D::Timestamp),
        field(
            "line",
            list(field("item", record(vec![field("sku", D::Utf8)]))),
        ),
        nullable("line_record", record(vec![])),
    ]);
    let schema = schema_of(&small, None, "orders").unwrap();
    expect![[r#"
        syntax = "proto3";
        import "google/protobuf/timestamp.proto";
        message orders {
          optional google.protobuf.Timestamp at = 1;
          message line_record_ {
            string sku = 1;
          }
          repeated line_record_ line = 2;
          message line_record_record {
          }
          optional line_record_record line_record = 3;
        }
    "#]]
    .assert_eq(schema.own_text().unwrap());
}

const ORDER: &str = r#"
    syntax = "proto2";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum State { PAID = 5; NEW = -1; }
    message Order {
      required int64 zig = 18;
      optional sint64 id = 1;
      optional fixed32 small = 2;
      optional sfixed64 large = 3;
      optional State state = 4;
      repeated int32 unpacked = 6;
      map<string, double> rates = 7;
      optional google.protobuf.Int64Value wrapped = 8;
      optional google.protobuf.StringValue price = 9;
      repeated google.protobuf.Timestamp times = 10;
      optional bytes text = 11;
      oneof either { string word = 12; double number = 13; }
      optional string other = 14 [default = "x"];
      optional string long = 15;
      repeated State states = 16;
    }
"#;

#[test]
fn rows_are_written_by_schemas_of_others() {
    let entry = record(vec![field("key", D::Utf8), field("value", D::Float64)]);
    let decimal = D::Decimal {
        precision: 12,
        scale: 2,
    };
    let state = symbols(&["PAID", "NEW"]);
    let columns = Schema::new(vec![
        nullable("price", decimal),
        nullable("wrapped", D::Int16),
        field("id", D::Int32),
        field("small", D::UInt16),
        nullable("large", D::Int64),
        field("state", state.clone()),
        field("unpacked", list(field("item", D::UInt8))),
        field("rates", list(field("item", entry))),
        field("times", list(field("item", D::Timestamp))),
        nullable("text", D::Utf8),
        nullable("word", D::Utf8),
        nullable("number", D::Float64),
        field("zig", D::UInt32),
        nullable("long", D::Utf8),
        field("states", list(field("item", state))),
    ]);
    let long = "a".repeat(20_000);
    let rows = [
        r#"{"price":-12.5,"wrapped":0,"id":-1,"small":65535,"large":-1,"state":"NEW","unpacked":[0,255],"rates":[{"key":"a","value":0.5}],
            "times":["2024-02-29T12:30:45.123Z",-1,0],"text":"ż","word":"","zig":4294967295,
            "states":["PAID","NEW"]}"#
            .to_owned(),
        format!(
            r#"{{"id":0,"small":0,"state":"PAID","unpacked":[],"rates":[{{"key":"","value":0}}],"times":[],
                "number":-0.0,"zig":0,"long":"{long}","states":[]}}"#
        ),
    ];
    let texts: Vec<&str> = rows.iter().map(String::as_str).collect();
    let schema = parsed(ORDER);
    let written = round_trip(&schema, &columns, &texts);
    let hex: String = written[0]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    expect!["080115ffff000019ffffffffffffffff20ffffffffffffffffff01300030ff013a0c0a016111000000000000e03f42004a080a062d31322e3530520b08f5f181af0610c0a9d33a521108ffffffffffffffffff0110c08faedc0352005a02c5bc62008001058001ffffffffffffffffff019001ffffffff0f"].assert_eq(&hex);
    let both = json_columns(
        &columns,
        &[&rows[0].replace("\"word\":\"\"", "\"word\":\"\",\"number\":1")],
    );
    let encoder = ProtobufEncoder::new(&schema, &columns).unwrap();
    let failed = encoder.write(&both, 0, &mut Vec::new());
    expect!["`word` and `number` have values, of which `either` of the schema has one"]
        .assert_eq(&failed.expect_err("there are two"));
    let far = json_columns(&columns, &[&rows[0].replace("-1,0]", "-99999999999999]")]);
    let failed = encoder.write(&far, 0, &mut Vec::new());
    expect!["-99999999999999 is too far away for a `Timestamp`"]
        .assert_eq(&failed.expect_err("it is too far"));
}

#[test]
fn groups_are_between_two_keys() {
    let schema = parsed(
        "syntax = \"proto2\"; message M {
            optional group One = 14 { optional int32 n = 1; }
            repeated group Some = 2 {
                required string text = 1;
                optional group Deep = 3 { optional int32 n = 1; }
            }
        }",
    );
    let inner = || record(vec![nullable("n", D::Int32)]);
    let element = record(vec![field("text", D::Utf8), nullable("deep", inner())]);
    let columns = Schema::new(vec![
        nullable("one", inner()),
        field("some", list(field("item", element))),
    ]);
    let rows = [
        r#"{"one":{"n":1},"some":[{"text":"a"},{"text":"","deep":{"n":2}}]}"#,
        r#"{"one":{},"some":[]}"#,
        r#"{"some":[]}"#,
    ];
    let written = round_trip(&schema, &columns, &rows);
    assert_eq!(written[1], [0x73, 0x74]);
}

#[test]
fn lists_are_packed_as_the_schema_says() {
    let columns = Schema::new(
        ["a", "b", "c"]
            .map(|name| field(name, list(field("item", D::Int8))))
            .into(),
    );
    let rows = json_columns(&columns, &[r#"{"a":[0,-1,127],"b":[1,2],"c":[]}"#]);
    let fields =
        "repeated sint32 a = 1; repeated sfixed32 b = 2 [packed = PACKED]; repeated int32 c = 3;";
    let written = |schema: &str| {
        let encoder = ProtobufEncoder::new(&parsed(schema), &columns);
        let mut out = Vec::new();
        encoder.unwrap().write(&rows, 0, &mut out).unwrap();
        out.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let of = |syntax: &str, packed: &str| {
        let fields = fields.replace("PACKED", packed);
        written(&format!("syntax = \"{syntax}\"; message M {{ {fields} }}"))
    };
    expect!["0a040001fe0115010000001502000000"].assert_eq(&of("proto3", "false"));
    expect!["0800080108fe0112080100000002000000"].assert_eq(&of("proto2", "true"));
}

fn refused(fields: &str, columns: Vec<Field>, expected: Expect) {
    let schema = parsed(&format!(
        "syntax = \"proto3\"; enum E {{ X = 0; }} message R {{ {fields} message S {{ int32 b = 1; }} }}"
    ));
    let why = ProtobufEncoder::new(&schema, &Schema::new(columns));
    expected.assert_eq(&why.expect_err("it does not fit"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let a = |data_type| vec![field("a", data_type)];
    let words = list(field("item", D::Utf8));
    refused(
        "int32 a = 1;",
        a(D::Int64),
        expect!["`a` is int64, and int32 in the schema"],
    );
    refused(
        "uint32 a = 1;",
        a(D::Int8),
        expect!["`a` is int8, and uint32 in the schema"],
    );
    refused(
        "int32 a = 1;",
        a(D::UInt32),
        expect!["`a` is uint32, and int32 in the schema"],
    );
    refused(
        "string a = 1;",
        vec![nullable("a", D::Utf8)],
        expect![
            "`a` may be null, which string in the schema cannot be: it would have to be `optional`"
        ],
    );
    refused(
        "repeated string a = 1;",
        vec![nullable("a", words.clone())],
        expect!["`a` may be null, which repeated string in the schema cannot be"],
    );
    refused(
        "repeated string a = 1;",
        a(list(nullable("item", D::Utf8))),
        expect!["`a[]` may be null, which no element is in Protobuf"],
    );
    refused(
        "string a = 1;",
        a(words),
        expect!["`a` is list<utf8>, and string in the schema"],
    );
    refused(
        "repeated string a = 1;",
        a(D::Utf8),
        expect!["`a` is utf8, and repeated string in the schema"],
    );
    refused(
        "string a = 1;",
        vec![field("b", D::Utf8)],
        expect!["the schema has no field `b`"],
    );
    refused(
        "int64 a = 1;",
        a(D::Timestamp),
        expect!["`a` is timestamp, and int64 in the schema"],
    );
    refused(
        "E a = 1;",
        a(symbols(&["X", "Y"])),
        expect!["`a` may be Y, which is no value of E"],
    );
    refused(
        "S a = 1;",
        a(record(vec![nullable("b", D::Int32)])),
        expect![
            "`a.b` may be null, which int32 in the schema cannot be: it would have to be `optional`"
        ],
    );
    let entry = record(vec![field("key", D::Utf8), nullable("value", D::Int64)]);
    refused(
        "map<string, int64> a = 1;",
        a(list(field("item", entry))),
        expect!["`a[].value` may be null, which int64 in the schema cannot be"],
    );
    let required = parsed("syntax = \"proto2\"; message R { required string a = 1; }");
    let why = ProtobufEncoder::new(&required, &Schema::new(vec![]));
    expect!["rows have no `a`, which the schema requires"]
        .assert_eq(&why.expect_err("it is required"));
    let made = |column| schema_of(&Schema::new(vec![column]), None, "t").expect_err("no schema");
    expect!["`a-b` cannot be the name of a field in Protobuf, which has letters, digits and _"]
        .assert_eq(&made(field("a-b", D::Utf8)));
    expect![
        "`a: list<utf8>?` cannot be in Protobuf, where lists and their elements are never null"
    ]
    .assert_eq(&made(nullable("a", list(field("item", D::Utf8)))));
    expect!["`a: list<list<utf8>>` cannot be in Protobuf, where no list is an element of a list"]
        .assert_eq(&made(field(
            "a",
            list(field("item", list(field("item", D::Utf8)))),
        )));
}
