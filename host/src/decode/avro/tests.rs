//! What rows of Avro decode to; the bytes were written by another implementation, fastavro.

use expect_test::{Expect, expect};

use super::*;
use crate::decode::RegisteredSchema;
use crate::decode::in_tests::{
    bytes, damage, decoded, decoder, field, framed, list, nullable, record,
};
use crate::format::MessageFormat;
use crate::schema::DataType as D;

/// A record of every type.
const ALL: &str = include_str!("tests/all.avsc");
const FULL: &str = "01feffffff0ffeffffffffffffffff010000c03f9a9999999999b9bf18c5bcc3b3c5827720f09f90a20400ff020202788cb50286f6c3cdbe6301aafcf8928cd3aab82f86f6c3cdbe6306ed297900000000000000964830303131323233332d343435352d363637372d383839392d61616262636364646565666661626364084f736c6f023333333333f34d400006020261020000000402610202620300020ef8bbc603";
const LEAST: &str = "00ffffffff0fffffffffffffffffff01000080ffffffffffffffef7f00000000f3e457ffdfe6a2e2a01c0001000200ffdc790d903f00014830303030303030302d303030302d303030302d303030302d303030303030303030303030000000000200000000040a736576656e00";

fn plain(schema: &str) -> MessageFormat {
    MessageFormat::Avro(AvroFormat {
        schema: Some(AvroSchema::parse(schema, &[]).unwrap()),
        is_registered: false,
    })
}

fn check(schema: &str, fields: Vec<Field>, rows: &[&str], expected: Expect) {
    let rows: Vec<Vec<u8>> = rows.iter().map(|row| bytes(row)).collect();
    let mut decoder = decoder(plain(schema), &[], &fields);
    let first = decoded(&mut decoder, &fields, &rows);
    let again = decoded(&mut decoder, &fields, &rows);
    assert_eq!(first, again, "a decoder keeps nothing of a block");
    expected.assert_eq(&first);
}

fn refused(schema: &str, fields: Vec<Field>, expected: Expect) {
    let format = AvroFormat {
        schema: Some(AvroSchema::parse(schema, &[]).unwrap()),
        is_registered: false,
    };
    let fault = super::check(&format, &fields).expect_err("it does not fit");
    expected.assert_eq(&fault.to_string());
}

fn all_fields() -> Vec<Field> {
    let geo = vec![field("lat", D::Float64), nullable("lon", D::Float64)];
    let place = vec![
        field("city", D::Utf8),
        nullable("geo", D::Record(geo.into())),
    ];
    let entry = vec![field("key", D::Utf8), field("value", D::Int64)];
    let colors: Vec<String> = vec!["green".into(), "red".into()];
    vec![
        field("bool", D::Bool),
        field("int", D::Int32),
        field("long", D::Int64),
        field("float", D::Float32),
        field("double", D::Float64),
        field("text", D::Utf8),
        field("bytes", D::Bytes),
        field("color", D::Symbol(colors.into())),
        nullable("maybe", D::Utf8),
        field("date", D::Timestamp),
        field("millis", D::Timestamp),
        field("micros", D::Timestamp),
        field("nanos", D::Timestamp),
        field("local", D::Timestamp),
        field(
            "price",
            D::Decimal {
                precision: 20,
                scale: 3,
            },
        ),
        field(
            "fixed_price",
            D::Decimal {
                precision: 16,
                scale: 2,
            },
        ),
        field("id", D::Utf8),
        field("hash", D::Bytes),
        field("place", D::Record(place.into())),
        field("tags", list(nullable("item", D::Utf8))),
        field("counts", list(field("item", D::Record(entry.into())))),
        field("time", D::Int32),
    ]
}

#[test]
fn every_type_is_read() {
    check(
        ALL,
        all_fields(),
        &[FULL, LEAST],
        expect![[r#"
            {"bool":true,"int":2147483647,"long":9223372036854775807,"float":1.5,"double":-0.1,"text":"żółw 🐢","bytes":"AP8=","color":"green","maybe":"x","date":"2024-02-29T00:00:00Z","millis":"2024-02-29T12:30:45.123Z","micros":"1969-12-31T23:59:59.999Z","nanos":"2024-02-29T12:30:45.123Z","local":"2024-02-29T12:30:45.123Z","price":-12345.670,"fixed_price":1.50,"id":"00112233-4455-6677-8899-aabbccddeeff","hash":"YWJjZA==","place":{"city":"Oslo","geo":{"lat":59.9,"lon":null}},"tags":["a","",null],"counts":[{"key":"a","value":1},{"key":"b","value":-2}],"time":3723004}
            {"bool":false,"int":-2147483648,"long":-9223372036854775808,"float":"-Infinity","double":1.7976931348623157e+308,"text":"","bytes":"","color":"red","maybe":null,"date":"0001-01-01T00:00:00Z","millis":"0001-01-01T00:00:00Z","micros":"1970-01-01T00:00:00Z","nanos":"1969-12-31T23:59:59.999Z","local":"1970-01-01T00:00:00Z","price":0.000,"fixed_price":-99999999999999.99,"id":"00000000-0000-0000-0000-000000000000","hash":"AAAAAA==","place":{"city":"\u0000","geo":null},"tags":[],"counts":[],"time":0}
            3 times were cut: `-1 microseconds` of field `micros` was read as 1969-12-31T23:59:59.999Z
        "#]],
    );
}

#[test]
fn types_are_promoted_and_fields_may_be_left_out_and_in_any_order() {
    let color = field("color", D::Utf8);
    let counts = vec![nullable("b", D::Int16), nullable("c", D::Int64)];
    check(
        ALL,
        vec![
            field("time", D::Int64),
            field("counts", D::Record(counts.into())),
            color,
            field("long", D::Float64),
            field("float", D::Float64),
            field("text", D::Bytes),
            nullable("absent", D::Timestamp),
            field("micros", D::Int64),
            field(
                "int",
                D::Decimal {
                    precision: 12,
                    scale: 2,
                },
            ),
        ],
        &[FULL, LEAST],
        expect![[r#"
            {"time":3723004,"counts":{"b":-2,"c":null},"color":"green","long":9.223372036854776e+18,"float":1.5,"text":"xbzDs8WCdyDwn5Ci","absent":null,"micros":-1,"int":2147483647.00}
            {"time":0,"counts":{"b":null,"c":null},"color":"red","long":-9.223372036854776e+18,"float":"-Infinity","text":"","absent":null,"micros":0,"int":-2147483648.00}
        "#]],
    );
}

#[test]
fn a_field_that_no_record_has_is_refused_also_where_it_may_be_missing() {
    let nested = r#"{"type":"record","name":"Order","fields":[
        {"name":"id","type":"long"},
        {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
            {"name":"sku","type":"string"}]}}},
        {"name":"paid","type":["null",
            {"type":"record","name":"Card","fields":[{"name":"digits","type":"string"}]},
            {"type":"record","name":"Cash","fields":[{"name":"amount","type":"long"}]}]},
        {"name":"counts","type":{"type":"map","values":"long"}}]}"#;
    refused(
        nested,
        vec![nullable("idd", D::Int64)],
        expect![
            "field `idd` is missing in the schema; did you mean `id`? The fields are: id, lines, paid, counts"
        ],
    );
    let line = record(vec![nullable("skuu", D::Utf8)]);
    refused(
        nested,
        vec![field("lines", list(field("item", line)))],
        expect!["field `lines.skuu` is missing in the schema; did you mean `sku`?"],
    );
    let card = |name: &str| record(vec![nullable("digits", D::Utf8), nullable(name, D::Int64)]);
    refused(
        nested,
        vec![nullable("paid", card("amonut"))],
        expect![
            "field `paid.amonut` is missing in the schema; did you mean `amount`? The fields are: digits, amount"
        ],
    );
    let format = |is_registered: bool| AvroFormat {
        schema: Some(AvroSchema::parse(nested, &[]).unwrap()),
        is_registered,
    };
    // One of the records has it; the keys of a map are in no schema; and the schemas of a
    // registry may have more.
    let counts = record(vec![nullable("anything", D::Int64)]);
    let fields = [nullable("paid", card("amount")), field("counts", counts)];
    assert!(super::check(&format(false), &fields).is_ok());
    assert!(super::check(&format(true), &[nullable("idd", D::Int64)]).is_ok());
}

#[test]
fn what_does_not_fit_is_refused() {
    refused(
        ALL,
        vec![field("text", D::Int64)],
        expect!["field `text` is int64 in `fields`, and string in the schema"],
    );
    refused(
        ALL,
        vec![field("long", D::Bool)],
        expect!["field `long` is bool in `fields`, and long in the schema"],
    );
    refused(
        ALL,
        vec![field("absent", D::Utf8)],
        expect![
            "field `absent` is missing in the schema; the fields are: bool, int, long, float, double, text, bytes, color, maybe, date, millis, micros, nanos, local, price, fixed_price, id, hash, place, tags, counts, either, time"
        ],
    );
    refused(
        ALL,
        vec![field("double", D::Float32)],
        expect!["field `double` is float32 in `fields`, and double in the schema"],
    );
    refused(
        ALL,
        vec![field("price", D::Bytes)],
        expect!["field `price` is bytes in `fields`, and decimal(18,2) in the schema"],
    );
    refused(
        ALL,
        vec![field("either", D::Bool)],
        expect!["field `either` is bool in `fields`, and long in the schema"],
    );
    let geo = vec![field("lat", D::Utf8)];
    let place = vec![field("geo", D::Record(geo.into()))];
    refused(
        ALL,
        vec![field("place", D::Record(place.into()))],
        expect!["field `place.geo.lat` is utf8 in `fields`, and double in the schema"],
    );
    refused(
        ALL,
        vec![field("tags", list(field("item", D::Int8)))],
        expect!["field `tags.[]` is int8 in `fields`, and string in the schema"],
    );
    refused(
        r#"{"type":"array","items":"int"}"#,
        vec![field("a", D::Int8), field("b", D::Int8)],
        expect!["the schema is array<int> and no record: it is read into one field"],
    );
}

#[test]
fn values_that_columns_have_no_room_for_are_bad_rows() {
    let small = field("int", D::Int8);
    check(
        ALL,
        vec![field("maybe", D::Utf8), small, nullable("either", D::Int64)],
        &[FULL, LEAST],
        expect![[r#"
            row 0: field `int`: expected int8, found 2147483647
            row 1: field `int`: expected int8, found -2147483648
        "#]],
    );
    let colors: Vec<String> = vec!["green".into(), "blue".into()];
    check(
        ALL,
        vec![
            field("color", D::Symbol(colors.into())),
            field(
                "fixed_price",
                D::Decimal {
                    precision: 4,
                    scale: 1,
                },
            ),
        ],
        &[FULL, LEAST],
        expect![[r#"
            {"color":"green","fixed_price":1.5}
            row 1: field `color`: expected green|blue, found red
        "#]],
    );
}

#[test]
fn numbers_and_texts_are_times_in_the_formats_of_columns() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"s","type":"long"},{"name":"ms","type":"long"},{"name":"text","type":"string"}]}"#;
    let fields = vec![
        field("s", D::Timestamp),
        field("ms", D::Timestamp),
        field("text", D::Timestamp),
    ];
    let formats = [
        TimestampFormat::Number(crate::timestamp::TimeUnit::Seconds),
        TimestampFormat::Any,
        TimestampFormat::Rfc3339,
    ];
    let mut row = Vec::new();
    crate::avro::write_long(&mut row, 1_700_000_000);
    crate::avro::write_long(&mut row, 1);
    crate::avro::write_bytes(&mut row, b"2024-01-01T10:00:00.0015Z");
    let mut other = row.clone();
    other.pop();
    let length = other.len();
    other[length - 1] = b'x';
    other.push(b'y');
    let mut in_us = Vec::new();
    crate::avro::write_long(&mut in_us, 0);
    crate::avro::write_long(&mut in_us, 1_709_208_000_123_456);
    let mut decoder = decoder(plain(schema), &formats, &fields);
    expect![[r#"
        {"s":"2023-11-14T22:13:20Z","ms":"1970-01-01T00:00:00.001Z","text":"2024-01-01T10:00:00.001Z"}
        row 1: field `text`: expected a time as RFC 3339, found `2024-01-01T10:00:00.001xy`
        row 2: field `ms`: expected a time in ms in the years 1 to 9999, found 1709208000123456 (`timestamp(us)`, `timestamp(ns)` and `timestamp(days)` are other units)
        1 times were cut: `2024-01-01T10:00:00.0015Z` of field `text` was read as 2024-01-01T10:00:00.001Z
    "#]]
    .assert_eq(&decoded(&mut decoder, &fields, &[row, other, in_us]));
}

fn avro(text: &str) -> RegisteredSchema {
    RegisteredSchema {
        language: "AVRO".to_owned(),
        text: text.to_owned(),
        references: Vec::new(),
    }
}

#[test]
fn rows_of_several_schemas_may_follow_one_another() {
    let own = r#"{"type":"record","name":"Order","fields":[
        {"name":"id","type":"long"},
        {"name":"buyer","type":"string","aliases":["user","customer"]},
        {"name":"amount","type":"double","default":2.5},
        {"name":"state","type":{"type":"enum","name":"State","symbols":["new","other"],"default":"other"}},
        {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
            {"name":"sku","type":"string"},{"name":"n","type":"int","default":1}]}},
         "default":[{"sku":"none"}]}]}"#;
    let states: Vec<String> = vec!["new".into(), "other".into()];
    let line = vec![field("sku", D::Utf8), field("n", D::Int32)];
    let fields = vec![
        field("id", D::Int64),
        field("buyer", D::Utf8),
        field("amount", D::Float64),
        field("state", D::Symbol(states.into())),
        field("lines", list(field("item", D::Record(line.into())))),
        nullable("note", D::Utf8),
    ];
    let format = MessageFormat::Avro(AvroFormat {
        schema: Some(AvroSchema::parse(own, &[]).unwrap()),
        is_registered: true,
    });
    let mut decoder = decoder(format, &[], &fields);
    // The first version, and one with fields added, removed, renamed and in another order.
    let first = r#"{"type":"record","name":"Order","fields":[
        {"name":"id","type":"int"},{"name":"user","type":"string"},
        {"name":"state","type":{"type":"enum","name":"State","symbols":["new","gone"]}},
        {"name":"old","type":{"type":"map","values":"bytes"}}]}"#;
    let second = r#"{"type":"record","name":"Order","fields":[
        {"name":"note","type":["string","null"]},{"name":"amount","type":"float"},
        {"name":"customer","type":"bytes"},{"name":"id","type":"long"},
        {"name":"state","type":{"type":"enum","name":"State","symbols":["other"]}},
        {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
            {"name":"x","type":"null"},{"name":"sku","type":"string"}]}}}]}"#;
    let one = framed(1, &bytes("0e06616e6e02020001780202ff00"));
    let one = [one[..5].to_vec(), bytes("0e06616e6e02020278020000")].concat();
    let two = framed(2, &bytes("00047a7a0000c03f0662656e0800040674656102780000"));
    let rows = [
        one.clone(),
        two.clone(),
        one,
        framed(3, b""),
        b"{}".to_vec(),
    ];
    assert_eq!(decoder.lacks(&rows[0]), Some(1));
    assert_eq!(decoder.lacks(&rows[4]), None);
    decoder.learn(1, Ok(&avro(first)));
    decoder.learn(2, Ok(&avro(second)));
    decoder.learn(3, Err("nobody has it".to_owned()));
    assert!(rows.iter().all(|row| decoder.lacks(row).is_none()));
    expect![[r#"
        {"id":7,"buyer":"ann","amount":2.5,"state":"other","lines":[{"sku":"none","n":1}],"note":null}
        {"id":7,"buyer":"ann","amount":2.5,"state":"other","lines":[{"sku":"none","n":1}],"note":null}
        row 1: expected the end of the row at byte 22, found 1 more
        row 3: schema 3 of the registry: nobody has it
        row 4: expected a zero byte and the four of a schema's number, found the byte 123 (without `registry`, messages have no such beginning)
    "#]]
    .assert_eq(&decoded(&mut decoder, &fields, &rows));
}

#[test]
fn schemas_that_no_row_can_be_read_with_say_why() {
    let fields = vec![field("id", D::Int64)];
    let format = MessageFormat::Avro(AvroFormat {
        schema: None,
        is_registered: true,
    });
    let mut decoder = decoder(format, &[], &fields);
    let text = r#"{"type":"record","name":"r","fields":[{"name":"id","type":"string"}]}"#;
    decoder.learn(1, Ok(&avro(text)));
    decoder.learn(2, Ok(&avro("{")));
    let protobuf = RegisteredSchema {
        language: "PROTOBUF".to_owned(),
        ..avro("")
    };
    decoder.learn(3, Ok(&protobuf));
    let named = RegisteredSchema {
        references: vec![(
            "shop.Id".to_owned(),
            r#"{"type":"record","name":"shop.Id","fields":[{"name":"id","type":"long"}]}"#
                .to_owned(),
        )],
        ..avro(r#"["null","shop.Id"]"#)
    };
    decoder.learn(4, Ok(&named));
    let rows: Vec<Vec<u8>> = vec![
        framed(1, b""),
        framed(2, b""),
        framed(3, b""),
        framed(4, &bytes("0208")),
        framed(4, &bytes("00")),
        framed(4, &bytes("04")),
        vec![1, 0, 0, 0, 1],
        vec![0, 0, 0],
        vec![],
    ];
    expect![[r#"
        {"id":4}
        row 0: schema 1 of the registry: field `id` is int64 in `fields`, and string in the schema
        row 1: schema 2 of the registry: it is no Avro schema: Failed to parse schema from JSON
        row 2: schema 3 of the registry: it is of PROTOBUF, and `format` is "avro"
        row 4: field `id`: expected int64, found null
        row 5: expected the number of one of a union's 2 types, found 2
        row 6: expected a zero byte and the four of a schema's number, found the byte 1 (without `registry`, messages have no such beginning)
        row 7: expected a zero byte and the four of a schema's number, found a message of 3 bytes (without `registry`, messages have no such beginning)
        row 8: expected a zero byte and the four of a schema's number, found an empty message (without `registry`, messages have no such beginning)
    "#]]
    .assert_eq(&decoded(&mut decoder, &fields, &rows));
}

/// A record that contains itself, and lists of nothing.
const NESTED: &str = r#"{"type":"record","name":"Node","fields":[
    {"name":"id","type":"long"},
    {"name":"next","type":["null","Node"]},
    {"name":"nothing","type":{"type":"array","items":"null"}},
    {"name":"all","type":{"type":"array","items":"Node"}}]}"#;

#[test]
fn bad_bytes_are_bad_rows() {
    let fields = vec![
        field("id", D::Int64),
        field(
            "all",
            list(field("item", D::Record(vec![field("id", D::Int64)].into()))),
        ),
    ];
    let mut rows = vec![
        "02000000",
        "020208000000 0000",
        // Nothing, too little, too much.
        "",
        "02",
        "0200000000",
        // A type that there is not, a negative one.
        "0204",
        "0201",
        // A number that is too long.
        "ffffffffffffffffffff01",
        // More elements than there can be, and more than i64 has.
        "0200feffffffffffffffff01",
        "0200ffffffffffffffffff0102",
        // A list of 1000 nulls, which has no bytes.
        "0200d00f0000",
        // A block with its length, one with a negative, one with a huge.
        "02000003040e00000000 00",
        "020000010300",
        "02000001feffffffffffffffff0100",
    ]
    .into_iter()
    .map(|row| bytes(&row.replace(' ', "")))
    .collect::<Vec<_>>();
    // A record within a record, and so on.
    rows.push(vec![2; 1_000]);
    let mut decoder = decoder(plain(NESTED), &[], &fields);
    expect![[r#"
        {"id":1,"all":[]}
        {"id":1,"all":[]}
        {"id":1,"all":[]}
        row 2: field `id`: expected a number, found the end of the row
        row 3: expected a number, found the end of the row
        row 4: expected the end of the row at byte 4, found 1 more
        row 5: expected the number of one of a union's 2 types, found 2
        row 6: expected the number of one of a union's 2 types, found -1
        row 7: field `id`: expected a number of 64 bits, found a longer one
        row 8: expected a list, found one of 9223372036854775807 elements in a row of 12 bytes
        row 9: expected a list, found one of 9223372036854775808 elements in a row of 13 bytes
        row 11: field `all[1]`: expected a number, found the end of the row
        row 12: field `all`: expected the length of a block of a list, found -2
        row 13: field `all[0]`: expected a number, found the end of the row
        row 14: a record that is not read is nested more than 64 deep
    "#]]
    .assert_eq(&decoded(&mut decoder, &fields, &rows));
    check(
        r#"{"type":"record","name":"r","fields":[{"name":"a","type":"string"}]}"#,
        vec![field("a", D::Utf8)],
        &["04c3a9", "04c328", "01", "08aa", "feffffffffffffffff01"],
        expect![[r#"
            {"a":"é"}
            row 1: field `a`: byte 0: expected UTF-8 text, found other bytes
            row 2: field `a`: expected the length of a text, found -1
            row 3: field `a`: expected a text of 4 bytes, found the end of the row after 1
            row 4: field `a`: expected a text of 9223372036854775807 bytes, found the end of the row after 0
        "#]],
    );
}

#[test]
fn a_default_within_itself_is_refused() {
    let own = r#"{"type":"record","name":"Node","fields":[
        {"name":"id","type":"long"},{"name":"next","type":"Node","default":{"id":1}}]}"#;
    // Other readers of schemas may refuse it at once.
    let Ok(own) = AvroSchema::parse(own, &[]) else {
        return;
    };
    let mut out = Vec::new();
    let value = serde_json::json!({ "id": 1 });
    let written = own.write_default(own.root(), &value, &mut out);
    expect![[r#""#]].assert_eq(&written.expect_err("it has no end"));
}

#[test]
fn symbols_and_defaults_take_no_more_room_than_rows_may_have() {
    let symbol = "s".repeat(1 << 12);
    let schema = format!(
        r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{{"type":"array","items":
           {{"type":"enum","name":"e","symbols":["{symbol}"]}}}}}}]}}"#
    );
    let mut row = Vec::new();
    crate::avro::write_long(&mut row, 10_000);
    row.resize(row.len() + 10_001, 0);
    let fields = vec![field("a", list(field("item", D::Utf8)))];
    let mut decoder = decoder(plain(&schema), &[], &fields);
    expect![[r#"
        row 0: field `a[55]`: a row of 10004 bytes has symbols and defaults of more than 225600 bytes
    "#]]
    .assert_eq(&decoded(&mut decoder, &fields, &[row]));
}

#[test]
fn no_bytes_cause_a_panic() {
    let fields = all_fields();
    let mut decoder = decoder(plain(ALL), &[], &fields);
    let nested = vec![field("id", D::Int64)];
    let mut nested_decoder = crate::decode::in_tests::decoder(plain(NESTED), &[], &nested);
    let good = [bytes(FULL), bytes(LEAST)];
    let mut random = fastrand::Rng::with_seed(37);
    let mut bad = 0;
    for _ in 0..20_000 {
        let mut row = good[random.usize(..2)].clone();
        damage(&mut row, &mut random);
        let expected = decoded(&mut decoder, &fields, &[row.clone(), good[0].clone()]);
        assert!(expected.contains("żółw"), "its neighbour is lost: {row:?}");
        bad += usize::from(expected.contains("row 0: "));
        decoded(&mut nested_decoder, &nested, &[row]);
    }
    assert!(bad > 10_000, "only {bad} rows were bad");
}
