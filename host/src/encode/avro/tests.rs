//! What rows are encoded as: the bytes that another implementation, fastavro, writes.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use expect_test::{Expect, expect};

use super::*;
use crate::decode::Decoder;
use crate::encode::in_tests::{
    VALUES, columns_of, every_type, field, json_columns, list, nullable, record, symbols,
};
use crate::format::{AvroFormat, Format, MessageFormat};
use crate::json::render_columns;
use crate::schema::DataType as D;

const ORDER: &str = include_str!("tests/order.avsc");

fn order_columns() -> Schema {
    let entry = vec![field("key", D::Utf8), nullable("value", D::Int64)];
    let decimal = D::Decimal {
        precision: 12,
        scale: 2,
    };
    Schema::new(vec![
        field("id", D::Int32),
        field("price", decimal),
        nullable("note", D::Utf8),
        field("at", D::Timestamp),
        field("state", symbols(&["paid", "new"])),
        field("tags", list(field("item", D::Utf8))),
        field("counts", list(field("item", record(entry)))),
        nullable("place", record(vec![field("lat", D::Float64)])),
        field("ratio", D::Float32),
        field("big", D::UInt64),
    ])
}

#[test]
fn rows_are_written_as_others_write_them() {
    let columns = order_columns();
    let rows = json_columns(
        &columns,
        &[
            r#"{"id":7,"price":-12.5,"note":"żółw","at":"2024-02-29T12:30:45.123Z","state":"paid",
                "tags":["a","b"],"counts":[{"key":"x","value":1},{"key":"y"}],
                "place":{"lat":0.5},"ratio":1.5,"big":18446744073709551615}"#,
            r#"{"id":-1,"price":0,"at":-1,"state":"new","tags":[],"counts":[],"ratio":0.25,"big":0}"#,
        ],
    );
    let schema = AvroSchema::parse(ORDER, &[]).unwrap();
    let encoder = AvroEncoder::new(&schema, &columns).unwrap();
    let written = |row| {
        let mut out = Vec::new();
        encoder.write(&rows, row, &mut out).unwrap();
        out.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        written(0),
        "ffffffffffffcf2c060e000ec5bcc3b3c58277f09ed2da8da189060204026102620004027802020279000002\
         000000000000e03f04c5bc000000000000f83f1200ffffffffffffffff"
    );
    assert_eq!(
        written(1),
        "0000000000000000060102cf0f00000000000000000000d03f0200"
    );
}

#[test]
fn what_is_written_is_read_again_by_this_and_by_another_reader() {
    let columns = every_type();
    let nulls = |values: &str| {
        values
            .replace("\":", "_or_null\":")
            .replace("text_or_null", "text")
            .replace("ids_or_null", "ids")
    };
    let with_all = |values: &str| format!("{{{values},{}}}", nulls(values));
    let mut rows: Vec<String> = VALUES.iter().map(|values| with_all(values)).collect();
    rows.push(format!("{{{}}}", VALUES[0]));
    rows.push(format!(
        "{{{},\"list_or_null\":[null,{{}}],\"record_or_null\":{{\"ids\":[null]}}}}",
        VALUES[1]
    ));
    let texts: Vec<&str> = rows.iter().map(String::as_str).collect();
    let before = json_columns(&columns, &texts);
    let schema = schema_of(&columns, "8 things-x").unwrap();
    let encoder = AvroEncoder::new(&schema, &columns).unwrap();
    let mut written = Vec::new();
    let other = apache_avro::Schema::parse_str(schema.text()).unwrap();
    let reader = GenericDatumReader::builder(&other).build().unwrap();
    let writer = GenericDatumWriter::builder(&other).build().unwrap();
    for row in 0..rows.len() {
        let mut out = Vec::new();
        encoder.write(&before, row, &mut out).unwrap();
        let mut rest = &out[..];
        let value = reader.read_value(&mut rest).unwrap();
        assert!(matches!(value, Value::Record(_)) && rest.is_empty());
        // It writes the same bytes.
        assert_eq!(writer.write_value_to_vec(value).unwrap(), out);
        written.push(out);
    }
    let format = AvroFormat {
        schema: Some(schema),
        is_registered: false,
    };
    let format = Format::Message(MessageFormat::Avro(format)).into();
    let after = columns_of(&mut Decoder::new(&format, &columns), &written);
    for row in 0..rows.len() {
        assert_eq!(
            render_columns(&columns, &after, row),
            render_columns(&columns, &before, row)
        );
    }
    assert_eq!(before, after);
}

fn refused(schema: &str, columns: Vec<Field>, expected: Expect) {
    let schema = AvroSchema::parse(schema, &[]).unwrap();
    let why = AvroEncoder::new(&schema, &Schema::new(columns));
    expected.assert_eq(&why.expect_err("it does not fit"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let of = |written: &str| {
        format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{written}}}]}}"#)
    };
    let a = |data_type| vec![field("a", data_type)];
    refused(
        &of("\"int\""),
        a(D::Int64),
        expect!["`a` is int64, and int in the schema"],
    );
    refused(
        &of("\"string\""),
        vec![nullable("a", D::Utf8)],
        expect!["`a` is utf8?, and string in the schema"],
    );
    refused(
        &of("\"string\""),
        vec![field("b", D::Utf8)],
        expect!["the schema has no field `b`"],
    );
    refused(
        &of("\"string\""),
        vec![],
        expect!["rows have no `a`, which has no default in the schema"],
    );
    refused(
        &of(r#"["null","int"]"#),
        a(D::Utf8),
        expect!["`a` is utf8, and int in the schema"],
    );
    refused(
        &of(r#"{"type":"enum","name":"e","symbols":["x"]}"#),
        a(symbols(&["x", "y"])),
        expect!["`a` may be y, which is no symbol of the enum e"],
    );
    refused(
        &of(r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}"#),
        a(D::Decimal {
            precision: 4,
            scale: 2,
        }),
        expect!["`a` is decimal(4,2), and decimal(4,1) in the schema"],
    );
    refused(
        &of(r#"{"type":"record","name":"s","fields":[{"name":"b","type":"int"}]}"#),
        a(record(vec![nullable("b", D::Int32)])),
        expect!["`a.b` is int32?, and int in the schema"],
    );
    let dashed = Schema::new(vec![field("a-b", D::Utf8)]);
    expect!["`a-b` cannot be the name of a field in Avro, which has letters, digits and _"]
        .assert_eq(&schema_of(&dashed, "t").expect_err("no name"));
}

#[test]
fn a_time_that_is_too_far_away_is_no_value() {
    let text = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":{"type":"long","logicalType":"timestamp-nanos"}}]}"#;
    let schema = AvroSchema::parse(text, &[]).unwrap();
    let columns = Schema::new(vec![field("a", D::Timestamp)]);
    let encoder = AvroEncoder::new(&schema, &columns).unwrap();
    let rows = json_columns(&columns, &[r#"{"a":"9999-01-01T00:00:00Z"}"#]);
    expect!["9999-01-01T00:00:00Z is too far away for a time of the schema's unit"].assert_eq(
        &encoder
            .write(&rows, 0, &mut Vec::new())
            .expect_err("too far"),
    );
}
