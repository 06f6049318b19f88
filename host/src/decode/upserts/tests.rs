//! What messages with keys decode to, however they are cut into blocks; and that no bytes can
//! cause a panic.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::avro::AvroSchema;
use crate::decode::in_tests::{bytes, changes, field, framed, nullable};
use crate::decode::{AVRO, Decoder, PROTOBUF, RegisteredSchema, check_columns};
use crate::format::{AvroFormat, CsvFormat, Format, MessageFormat, ProtobufFormat, TableChanges};
use crate::protobuf::ProtoFile;
use crate::schema::{DataType as D, Field};
use crate::timestamp::TimestampFormat;

/// A message: its key, its payload, and its timestamp.
type Message<'m> = (Option<&'m [u8]>, Option<&'m [u8]>, i64);

fn upserting(format: Format, key_format: KeyFormat, key: &[&str]) -> RowFormat {
    let key = key.iter().map(|&name| name.to_owned()).collect();
    RowFormat {
        upserts: Some(Upserts {
            changes: TableChanges { key: Some(key) },
            key_format,
        }),
        ..format.into()
    }
}

/// Decodes messages as one block, and in blocks of any other size, which has to be the same
/// but for the numbers of messages.
fn decode(decoder: &mut Decoder, fields: &[Field], messages: &[Message<'_>]) -> String {
    let schema = Schema::new(fields.to_vec());
    let mut block = |messages: &[Message<'_>]| {
        let (mut data, mut spans) = (Vec::new(), Vec::new());
        for (key, payload, _) in messages {
            let start = data.len() as u32;
            data.extend_from_slice(payload.or(*key).unwrap_or_default());
            spans.push((start, data.len() as u32));
        }
        let beside = |message: usize| {
            let (key, payload, time_ms) = messages[message];
            Beside {
                key,
                is_tombstone: payload.is_none(),
                time_ms: Some(time_ms),
            }
        };
        changes(decoder.decode_messages(&data, &spans, beside), &schema)
    };
    let whole = block(messages);
    // A line begins with the number of its message; those of what is bad come last.
    let sorted = |text: &str, of_blocks: usize| {
        let lines = text.lines().map(|line| {
            let (number, rest) = line.split_at(line.find([' ', ':']).expect("a number"));
            (
                of_blocks + number.parse::<usize>().expect("a number"),
                rest.to_owned(),
            )
        });
        lines.collect::<Vec<_>>()
    };
    let mut expected = sorted(&whole, 0);
    expected.sort();
    for size in 1..messages.len() {
        let blocks = messages.chunks(size).enumerate();
        let blocks = blocks.flat_map(|(index, messages)| sorted(&block(messages), index * size));
        let mut blocks: Vec<(usize, String)> = blocks.collect();
        blocks.sort();
        assert_eq!(blocks, expected, "in blocks of {size}");
    }
    whole
}

fn check(format: &RowFormat, fields: &[Field], messages: &[Message<'_>], expected: Expect) {
    let mut decoder = Decoder::new(format, &Schema::new(fields.to_vec()));
    expected.assert_eq(&decode(&mut decoder, fields, messages));
}

fn items() -> Vec<Field> {
    vec![
        nullable("name", D::Utf8),
        field("id", D::Int64),
        nullable("at", D::Timestamp),
    ]
}

#[test]
fn the_key_is_that_of_the_message() {
    let messages: [Message<'_>; 11] = [
        (Some(b"1"), Some(br#"{"name":"one","at":5}"#), 100),
        // What the payload says of the key is not read.
        (Some(b"2"), Some(br#"{"id":"x","name":"two"}"#), 90),
        (Some(b"1"), None, 110),
        (Some(b"1"), Some(b"{}"), 120),
        (Some(b"2"), Some(b" null "), 130),
        (None, Some(b"{}"), 140),
        (Some(b"x"), Some(b"{}"), 150),
        (Some(b"\xff"), None, 160),
        (Some(b"3"), Some(b"{\"name\":"), 170),
        (Some(b"3"), Some(b"{\"name\":\"\xff\"}"), 175),
        (Some(b"4"), None, i64::MAX),
    ];
    check(
        &upserting(Format::Json, KeyFormat::Text, &["id"]),
        &items(),
        &messages,
        expect![[r#"
            0 +{"name":"one","id":1,"at":"1970-01-01T00:00:00.005Z"} 100
            1 +{"name":"two","id":2,"at":null} 90
            2 -{"name":null,"id":1,"at":null} 110
            3 +{"name":null,"id":1,"at":null} 120
            4 -{"name":null,"id":2,"at":null} 130
            5: expected a message with a key, which says whose place its row takes, found one without
            6: the message's key, as text: expected int64, found `x`
            7: the message's key, as text: byte 0: expected UTF-8 text, found other bytes
            8: field `name`: expected utf8, found the end of the row
            9: byte 9: expected UTF-8 text, found other bytes
            10: the message's timestamp: expected one in ms in the years 1 to 9999, found 9223372036854775807
        "#]],
    );
}

#[test]
fn a_message_without_a_time_is_bad() {
    let format = upserting(Format::Json, KeyFormat::Text, &["id"]);
    let schema = Schema::new(items());
    let beside = |_| Beside {
        key: Some(b"1"),
        ..Beside::default()
    };
    let decoded = Decoder::new(&format, &schema).decode_messages(b"{}", &[(0, 2)], beside);
    expect![[r#"
        0: the message's timestamp: expected one in ms in the years 1 to 9999, found none
    "#]]
    .assert_eq(&changes(decoded, &schema));
}

/// The row of nothing but a key, as a text.
fn key_alone(data_type: D, key: &[u8]) -> String {
    let format = upserting(Format::Json, KeyFormat::Text, &["key"]);
    let fields = [field("key", data_type), nullable("more", D::Utf8)];
    let mut decoder = Decoder::new(&format, &Schema::new(fields.to_vec()));
    decode(&mut decoder, &fields, &[(Some(key), None, 7)])
}

#[test]
fn texts_and_bytes_are_as_they_are_and_everything_else_is_json() {
    let symbols: Vec<String> = vec!["a".to_owned(), "b".to_owned()];
    let decimal = D::Decimal {
        precision: 9,
        scale: 2,
    };
    let keys: [(D, &[u8]); 14] = [
        (D::Utf8, b""),
        (D::Utf8, b" \"tea\" "),
        (D::Utf8, b"{\"other\":1}"),
        (D::Bytes, b"\xff\0{}"),
        (D::Symbol(symbols.clone().into()), b"b"),
        (D::Symbol(symbols.into()), b"c"),
        (D::Bool, b"true"),
        (D::UInt64, b"18446744073709551615"),
        (D::Int8, b"128"),
        (decimal.clone(), b"-12.50"),
        (decimal, b"12.505"),
        (D::Timestamp, b"\"2024-01-31T12:00:00.5Z\""),
        (D::Timestamp, b"1700000000000"),
        (D::Float64, b"1.5 2"),
    ];
    let read = keys.map(|(data_type, key)| key_alone(data_type, key));
    expect![[r#"
        0 -{"key":"","more":null} 7
        0 -{"key":" \"tea\" ","more":null} 7
        0 -{"key":"{\"other\":1}","more":null} 7
        0 -{"key":"/wB7fQ==","more":null} 7
        0 -{"key":"b","more":null} 7
        0: the message's key, as text: expected a|b, found `c`
        0 -{"key":true,"more":null} 7
        0 -{"key":18446744073709551615,"more":null} 7
        0: the message's key, as text: expected int8, found 128
        0 -{"key":-12.50,"more":null} 7
        0: the message's key, as text: expected decimal(9,2), found 12.505, which has more than 2 digits after the point; it is not rounded
        0 -{"key":"2024-01-31T12:00:00.500Z","more":null} 7
        0 -{"key":"2023-11-14T22:13:20Z","more":null} 7
        0: the message's key, as text: byte 4: expected the end of the row, found `2`
    "#]].assert_eq(&read.concat());
}

#[test]
fn keys_of_other_formats_are_no_texts() {
    let keys: [&[u8]; 4] = [
        b"{\"key\":\"tea\"}",
        b"{\"schema\":null,\"payload\":\"tea\"}",
        b"\0\0\0\0\x05\x06tea",
        b"{\"key",
    ];
    let read = keys.map(|key| key_alone(D::Utf8, key));
    expect![[r#"
        0: the message's key, as text: expected the text of `key`, found JSON with it, as `key_format = "json"` reads it
        0: the message's key, as text: expected the text of `key`, found JSON with it, as `key_format = "json"` reads it
        0: the message's key, as text: expected the text of `key`, found a zero byte and the number of a schema, as `key_format = "avro"` or `"protobuf"` reads it
        0 -{"key":"{\"key","more":null} 7
    "#]].assert_eq(&read.concat());
}

#[test]
fn keys_are_json_with_or_without_an_envelope() {
    let messages: [Message<'_>; 12] = [
        (Some(br#"{"id":1}"#), Some(br#"{"name":"one"}"#), 1),
        (Some(br#" {"more":[],"id":1} "#), None, 2),
        (
            Some(br#"{"schema":{"type":"struct"},"payload":{"id":2}}"#),
            None,
            3,
        ),
        (Some(br#"{"schema":{"type":"int64"},"payload":3}"#), None, 4),
        (Some(b"4"), None, 5),
        (Some(b"null"), None, 6),
        (Some(b"{}"), None, 7),
        (Some(br#"{"schema":null,"payload":null}"#), None, 8),
        (Some(br#"{"id":1,"id":2}"#), None, 9),
        (Some(br#"{"id":"1"}"#), None, 10),
        (Some(b"4 5"), None, 11),
        (Some(br#"{"payload":4} 5"#), None, 12),
    ];
    check(
        &upserting(Format::Json, KeyFormat::Json, &["id"]),
        &items(),
        &messages,
        expect![[r#"
            0 +{"name":"one","id":1,"at":null} 1
            1 -{"name":null,"id":1,"at":null} 2
            2 -{"name":null,"id":2,"at":null} 3
            3 -{"name":null,"id":3,"at":null} 4
            4 -{"name":null,"id":4,"at":null} 5
            5: the message's key, as json: field `id`: expected int64, found null
            6: the message's key, as json: field `id` is missing
            7: the message's key, as json: field `id` is missing
            8: the message's key, as json: field `id` is given twice
            9: the message's key, as json: field `id`: expected int64, found "1"
            10: the message's key, as json: byte 2: expected the end of the row, found `5`
            11: the message's key, as json: byte 14: expected the end of the row, found `5`
        "#]],
    );
}

#[test]
fn keys_of_several_fields_are_read_under_their_names_and_formats() {
    let format = RowFormat {
        names: vec![("shop".to_owned(), "shop_id".to_owned())],
        timestamp_formats: vec![TimestampFormat::Days, TimestampFormat::Any],
        ..upserting(Format::Json, KeyFormat::Json, &["shop", "day"])
    };
    let fields = [
        field("day", D::Timestamp),
        nullable("cents", D::Int64),
        field("shop", D::Utf8),
        nullable("at", D::Timestamp),
    ];
    let messages: [Message<'_>; 4] = [
        (
            Some(br#"{"shop_id":"a","day":19000}"#),
            Some(br#"{"cents":5,"at":1000,"day":"x"}"#),
            1,
        ),
        (Some(br#"{"day":19000,"shop_id":"a"}"#), None, 2),
        (Some(br#"{"shop":"a","day":19000}"#), None, 3),
        (Some(b"19000"), None, 4),
    ];
    check(
        &format,
        &fields,
        &messages,
        expect![[r#"
        0 +{"day":"2022-01-08T00:00:00Z","cents":5,"shop":"a","at":"1970-01-01T00:00:01Z"} 1
        1 -{"day":"2022-01-08T00:00:00Z","cents":null,"shop":"a","at":null} 2
        2: the message's key, as json: field `shop_id` is missing
        3: the message's key, as json: byte 0: expected a record, found `19000`
    "#]],
    );
}

#[test]
fn a_key_may_be_all_that_a_row_has() {
    let format = upserting(Format::Json, KeyFormat::Json, &["payload"]);
    let fields = [field("payload", D::Utf8)];
    let messages: [Message<'_>; 3] = [
        (Some(br#"{"payload":"a"}"#), Some(b"{}"), 1),
        (Some(b"\"b\""), Some(b"{\"n\":1}"), 2),
        (Some(b"\"a\""), None, 3),
    ];
    check(
        &format,
        &fields,
        &messages,
        expect![[r#"
        0 +{"payload":"a"} 1
        1 +{"payload":"b"} 2
        2 -{"payload":"a"} 3
    "#]],
    );
}

#[test]
fn payloads_are_csv_without_the_key() {
    let format = upserting(Format::Csv(CsvFormat::default()), KeyFormat::Text, &["id"]);
    let messages: [Message<'_>; 4] = [
        (Some(b"1"), Some(b"one,5\n"), 1),
        (Some(b"1"), Some(b",\n"), 2),
        (Some(b"1"), None, 3),
        (Some(b"1"), Some(b"one,1,5"), 4),
    ];
    check(
        &format,
        &items(),
        &messages,
        expect![[r#"
        0 +{"name":"one","id":1,"at":"1970-01-01T00:00:00.005Z"} 1
        1 +{"name":null,"id":1,"at":null} 2
        2 -{"name":null,"id":1,"at":null} 3
        3: expected 2 fields, found 3
    "#]],
    );
}

fn avro(text: &str) -> RegisteredSchema {
    RegisteredSchema {
        language: AVRO.to_owned(),
        text: text.to_owned(),
        references: Vec::new(),
    }
}

#[test]
fn keys_and_payloads_name_schemas_of_a_registry() {
    let payload = MessageFormat::Avro(AvroFormat {
        schema: None,
        is_registered: true,
    });
    let format = upserting(Format::Message(payload), KeyFormat::Avro, &["id"]);
    let mut decoder = Decoder::new(&format, &Schema::new(items()));
    let keys = [
        framed(1, &bytes("0e")),
        framed(1, &bytes("10")),
        framed(3, b""),
    ];
    let row = framed(2, &bytes("0e0661626302"));
    assert_eq!(decoder.lacks_of_key(&keys[0]), Some(1));
    assert_eq!(decoder.lacks(&row), Some(2));
    let key = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#;
    let value = r#"{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},
        {"name":"name","type":"string"},{"name":"x","type":"long"}]}"#;
    decoder.learn(1, Ok(&avro(key)));
    decoder.learn(2, Ok(&avro(value)));
    decoder.learn(3, Err("nobody has it".to_owned()));
    assert_eq!(decoder.lacks_of_key(&keys[0]), None);
    assert_eq!(decoder.lacks(&row), None);
    let messages: [Message<'_>; 6] = [
        (Some(&keys[0]), Some(&row), 1),
        (Some(&keys[1]), Some(&row), 2),
        (Some(&keys[0]), None, 3),
        (Some(&keys[2]), None, 4),
        (Some(b"7"), Some(&row), 5),
        (Some(&keys[0]), Some(b"{}"), 6),
    ];
    let read = decode(&mut decoder, &items(), &messages);
    expect![[r#"
        0 +{"name":"abc","id":7,"at":null} 1
        1 +{"name":"abc","id":8,"at":null} 2
        2 -{"name":null,"id":7,"at":null} 3
        3: the message's key, as avro: schema 3 of the registry: nobody has it
        4: the message's key, as avro: expected a zero byte and the four of a schema's number, found the byte 55 (without `registry`, messages have no such beginning)
        5: expected a zero byte and the four of a schema's number, found the byte 123 (without `registry`, messages have no such beginning)
    "#]].assert_eq(&read);
}

#[test]
fn a_schema_need_not_have_the_key() {
    let text = r#"{"type":"record","name":"Item","fields":[{"name":"name","type":"string"}]}"#;
    let payload = MessageFormat::Avro(AvroFormat {
        schema: Some(AvroSchema::parse(text, &[]).unwrap()),
        is_registered: false,
    });
    let format = upserting(Format::Message(payload), KeyFormat::Text, &["id"]);
    let fields = [nullable("name", D::Utf8), field("id", D::Int64)];
    let schema = Schema::new(fields.to_vec());
    assert_eq!(check_columns(&format, &schema), Ok(()));
    let more = [&fields[..], &[nullable("more", D::Utf8)]].concat();
    expect!["field `more` is missing in the schema; the fields are: name"]
        .assert_eq(&check_columns(&format, &Schema::new(more)).unwrap_err());
    let row = bytes("06616263");
    check(
        &format,
        &fields,
        &[(Some(b"7"), Some(&row), 1), (Some(b"7"), None, 2)],
        expect![[r#"
            0 +{"name":"abc","id":7} 1
            1 -{"name":null,"id":7} 2
        "#]],
    );
}

#[test]
fn an_empty_payload_of_protobuf_is_a_row() {
    let text = "syntax = \"proto3\"; message Item { string name = 1; int64 id = 2; }";
    let file = ProtoFile::parse("item.proto", text, |_: &str| None).unwrap();
    let payload = MessageFormat::Protobuf(ProtobufFormat {
        schema: Some(file.message(None).unwrap()),
        message: None,
        is_registered: false,
    });
    let format = upserting(Format::Message(payload), KeyFormat::Protobuf, &["id"]);
    let fields = [field("id", D::Int64), nullable("name", D::Utf8)];
    let mut decoder = Decoder::new(&format, &Schema::new(fields.to_vec()));
    let key = "syntax = \"proto3\"; message Key { int64 id = 1; }";
    decoder.learn(
        1,
        Ok(&RegisteredSchema {
            language: PROTOBUF.to_owned(),
            ..avro(key)
        }),
    );
    let key = framed(1, &bytes("000807"));
    let row = bytes("0a0361626310ff01");
    let messages: [Message<'_>; 3] = [
        (Some(&key), Some(&row), 1),
        (Some(&key), Some(b""), 2),
        (Some(&key), None, 3),
    ];
    let read = decode(&mut decoder, &fields, &messages);
    expect![[r#"
        0 +{"id":7,"name":"abc"} 1
        1 +{"id":7,"name":""} 2
        2 -{"id":7,"name":null} 3
    "#]]
    .assert_eq(&read);
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        json in "[{}\\[\\]\":,a-d0-9 nul]{0,20}",
        payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        is_json in any::<bool>(),
        time_ms in prop::option::of(any::<i64>()),
        data_type in prop::sample::select(vec![D::Utf8, D::Bytes, D::Int64, D::Bool, D::Timestamp]),
        key_format in prop::sample::select(vec![
            KeyFormat::Text, KeyFormat::Json, KeyFormat::Avro, KeyFormat::Protobuf,
        ]),
    ) {
        let key = match is_json {
            true => Some(json.into_bytes()),
            false => key,
        };
        let format = upserting(Format::Json, key_format, &["a"]);
        let schema = Schema::new(vec![nullable("b", D::Int64), field("a", data_type)]);
        let mut decoder = Decoder::new(&format, &schema);
        let data = payload.clone().or(key.clone()).unwrap_or_default();
        let spans = [(0, data.len() as u32)];
        let decoded = decoder.decode_messages(&data, &spans, |_| Beside {
            key: key.as_deref(),
            is_tombstone: payload.is_none(),
            time_ms,
        });
        prop_assert_eq!(decoded.rows + decoded.bad.len(), 1);
        prop_assert!(decoded.columns.iter().all(|column| column.len() == decoded.rows));
    }
}
