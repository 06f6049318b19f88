//! What tests of messages with a schema share.

use arrow_array::ArrayRef;

use crate::decode::Decoder;
pub use crate::decode::in_tests::{field, list, nullable, record};
use crate::format::Format;
use crate::schema::{DataType as D, Field, Schema};

pub fn symbols(values: &[&str]) -> D {
    D::Symbol(values.iter().map(|value| (*value).to_owned()).collect())
}

pub fn columns_of(decoder: &mut Decoder, rows: &[Vec<u8>]) -> Vec<ArrayRef> {
    let mut spans = Vec::new();
    let mut start = 0;
    for row in rows {
        spans.push((start, start + row.len() as u32));
        start += row.len() as u32;
    }
    let decoded = decoder.decode(&rows.concat(), &spans);
    assert_eq!(decoded.bad, []);
    decoded.columns
}

/// Columns of these rows of JSON.
pub fn json_columns(schema: &Schema, rows: &[&str]) -> Vec<ArrayRef> {
    let rows: Vec<Vec<u8>> = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
    columns_of(&mut Decoder::new(&Format::Json.into(), schema), &rows)
}

/// Every type of column, as a schema is made of them.
pub fn every_type() -> Schema {
    let all = |nullable: bool| {
        let inner = vec![
            Field::new("text", D::Utf8, nullable),
            Field::new(
                "ids",
                list(Field::new("item", D::Int16, nullable)),
                nullable,
            ),
        ];
        vec![
            Field::new("bool", D::Bool, nullable),
            Field::new("int8", D::Int8, nullable),
            Field::new("int16", D::Int16, nullable),
            Field::new("int32", D::Int32, nullable),
            Field::new("int64", D::Int64, nullable),
            Field::new("uint8", D::UInt8, nullable),
            Field::new("uint16", D::UInt16, nullable),
            Field::new("uint32", D::UInt32, nullable),
            Field::new("uint64", D::UInt64, nullable),
            Field::new("float32", D::Float32, nullable),
            Field::new("float64", D::Float64, nullable),
            Field::new("utf8", D::Utf8, nullable),
            Field::new("bytes", D::Bytes, nullable),
            Field::new(
                "decimal",
                D::Decimal {
                    precision: 38,
                    scale: 10,
                },
                nullable,
            ),
            Field::new("timestamp", D::Timestamp, nullable),
            Field::new("symbol", symbols(&["a", "b_2"]), nullable),
            Field::new("words", symbols(&["a b", "ż"]), nullable),
            Field::new(
                "list",
                list(Field::new("item", record(inner.clone()), nullable)),
                nullable,
            ),
            Field::new("record", record(inner), nullable),
        ]
    };
    let mut fields = all(false);
    fields.extend(all(true).into_iter().map(|it| Field {
        name: format!("{}_or_null", it.name),
        ..it
    }));
    Schema::new(fields)
}

pub const VALUES: [&str; 3] = [
    r#""bool":true,"int8":127,"int16":32767,"int32":2147483647,"int64":9223372036854775807,
       "uint8":255,"uint16":65535,"uint32":4294967295,"uint64":18446744073709551615,
       "float32":3.4028235e38,"float64":1.7976931348623157e308,"utf8":"\u0000🐢","bytes":"AP8=",
       "decimal":9999999999999999999999999999.9999999999,"timestamp":"9999-12-31T23:59:59.999Z",
       "symbol":"b_2","words":"ż","list":[{"text":"x","ids":[1,-1]}],"record":{"text":"","ids":[]}"#,
    r#""bool":false,"int8":-128,"int16":-32768,"int32":-2147483648,"int64":-9223372036854775808,
       "uint8":0,"uint16":0,"uint32":0,"uint64":0,
       "float32":-1.17549435e-38,"float64":5e-324,"utf8":"","bytes":"",
       "decimal":-9999999999999999999999999999.9999999999,"timestamp":"0001-01-01T00:00:00Z",
       "symbol":"a","words":"a b","list":[],"record":{"text":"y","ids":[-32768]}"#,
    r#""bool":false,"int8":0,"int16":1,"int32":-1,"int64":63,"uint8":64,"uint16":128,"uint32":8192,
       "uint64":9223372036854775808,"float32":"-Infinity","float64":0.1,"utf8":"żółw","bytes":"AA==",
       "decimal":-0.0000000128,"timestamp":-1,"symbol":"a","words":"ż","list":[],
       "record":{"text":"y","ids":[]}"#,
];
