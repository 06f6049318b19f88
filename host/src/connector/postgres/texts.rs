//! Values as the server writes them in text, as JSON: that is what decoders read, and what
//! dead letters show.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use tokio_postgres::types::{Kind, Type};

use crate::json::write_json;
use crate::schema::{DataType, Field};

/// Whether values of a type of the server may be values of a field.
pub fn may_be(data_type: &DataType, of: &Type) -> bool {
    if let Kind::Domain(base) = of.kind() {
        return may_be(data_type, base);
    }
    let is_one_of = |types: &[Type]| types.contains(of);
    let is_number = || {
        is_one_of(&[
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::NUMERIC,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::OID,
        ])
    };
    match data_type {
        DataType::Bool => *of == Type::BOOL,
        DataType::Bytes => *of == Type::BYTEA,
        // All have a text.
        DataType::Utf8 | DataType::Symbol(_) => *of != Type::BYTEA,
        DataType::Timestamp => is_one_of(&[Type::TIMESTAMPTZ, Type::TIMESTAMP, Type::DATE]),
        DataType::Record(_) => is_one_of(&[Type::JSONB, Type::JSON]),
        DataType::List(element) => match of.kind() {
            Kind::Array(base) => match &element.data_type {
                nested @ DataType::List(_) => may_be(nested, of),
                data_type => may_be(data_type, base),
            },
            _ => is_one_of(&[Type::JSONB, Type::JSON]),
        },
        _ => is_number(),
    }
}

/// A row as JSON, of the names and the texts of its columns.
pub fn row<'t>(
    names: &[String],
    fields: &[Field],
    texts: impl Iterator<Item = Option<&'t str>>,
) -> Vec<u8> {
    let mut out = vec![b'{'];
    for ((field, name), text) in fields.iter().zip(names).zip(texts) {
        if out.len() > 1 {
            out.push(b',');
        }
        write_json(&mut out, name);
        out.push(b':');
        match text {
            Some(text) => write(&mut out, &field.data_type, text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    out
}

/// Appends a value. One that is none of the type becomes a text, which no decoder takes for
/// one.
fn write(out: &mut Vec<u8>, data_type: &DataType, text: &str) {
    match data_type {
        DataType::Bool => match text {
            "t" | "true" => out.extend_from_slice(b"true"),
            "f" | "false" => out.extend_from_slice(b"false"),
            other => write_json(out, &other),
        },
        DataType::Utf8 | DataType::Symbol(_) => write_json(out, &text),
        DataType::Bytes => match hex(text) {
            Some(bytes) => write_json(out, &BASE64_STANDARD.encode(bytes)),
            None => write_json(out, &text),
        },
        DataType::Timestamp => match rfc3339(text) {
            Some(time) => write_json(out, &time),
            None => write_json(out, &text),
        },
        DataType::List(element) if !text.starts_with('[') || text.contains("]={") => {
            let start = out.len();
            let behind = text.find('{').and_then(|open| {
                let array = text.as_bytes().get(open..)?;
                write_array(out, &element.data_type, array, DEPTH_MAX)
            });
            if behind.is_none_or(|rest| !rest.is_empty()) {
                out.truncate(start);
                write_json(out, &text);
            }
        }
        DataType::List(_) | DataType::Record(_) => write_given(out, text),
        _ if is_number(text) => out.extend_from_slice(text.as_bytes()),
        _ => write_json(out, &text),
    }
}

/// How deep arrays nest; the server has at most six dimensions.
const DEPTH_MAX: usize = 8;

/// JSON that the server has.
fn write_given(out: &mut Vec<u8>, text: &str) {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => out.extend_from_slice(text.as_bytes()),
        Err(_) => write_json(out, &text),
    }
}

/// Whether JSON has such a number.
fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// Appends `{1,NULL,"a"}` as a list, and returns what is behind it; `None` if it is none.
fn write_array<'t>(
    out: &mut Vec<u8>,
    element: &DataType,
    array: &'t [u8],
    depth: usize,
) -> Option<&'t [u8]> {
    let mut rest = array.strip_prefix(b"{").filter(|_| depth > 0)?;
    out.push(b'[');
    if let Some(behind) = rest.strip_prefix(b"}") {
        out.push(b']');
        return Some(behind);
    }
    loop {
        rest = match rest.first()? {
            b'{' => match element {
                DataType::List(inner) => write_array(out, &inner.data_type, rest, depth - 1)?,
                // An array of more dimensions than the field's list.
                _ => write_array(out, element, rest, depth - 1)?,
            },
            b'"' => {
                let (text, behind) = quoted(&rest[1..])?;
                write(out, element, &text);
                behind
            }
            _ => {
                let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
                match std::str::from_utf8(&rest[..end]).ok()? {
                    "NULL" => out.extend_from_slice(b"null"),
                    text => write(out, element, text),
                }
                &rest[end..]
            }
        };
        match rest.split_first()? {
            (b',', behind) => {
                out.push(b',');
                rest = behind;
            }
            (b'}', behind) => {
                out.push(b']');
                return Some(behind);
            }
            _ => return None,
        }
    }
}

/// An element up to its closing quote, and what is behind it.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut element = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((String::from_utf8(element).ok()?, &text[at + 1..])),
            b'\\' => element.push(*bytes.next()?.1),
            other => element.push(*other),
        }
    }
    None
}

/// The bytes of `\x00ff`.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// `2024-02-29 10:00:00.5+00` with a T and minutes in its zone. What has no zone is in UTC, a
/// day is its first moment. `None` for times before the year 1, and for infinity.
fn rfc3339(text: &str) -> Option<String> {
    let (day, time) = match text.split_once(' ') {
        None => (text, "00:00:00"),
        Some((day, time)) => (day, time),
    };
    let is_day = day.len() == 10
        && day
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit());
    if !is_day || time.contains(' ') {
        return None;
    }
    let zone = time.find(['+', '-']).map(|at| &time[at..]);
    let end = match zone.map(str::len) {
        None => "Z",
        Some(3) => ":00",
        Some(_) => "",
    };
    Some(format!("{day}T{time}{end}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn written(data_type: &DataType, text: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, data_type, text);
        String::from_utf8(out).expect("JSON is text")
    }

    fn list(element: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", element, true)))
    }

    #[test]
    fn values_are_written_as_json() {
        for (data_type, text, expected) in [
            (DataType::Bool, "t", "true"),
            (DataType::Bool, "false", "false"),
            (DataType::Bool, "maybe", "\"maybe\""),
            (
                DataType::Int64,
                "-9223372036854775808",
                "-9223372036854775808",
            ),
            (DataType::Float64, "NaN", "\"NaN\""),
            (DataType::Float64, "-Infinity", "\"-Infinity\""),
            (DataType::Float64, "1e+300", "1e+300"),
            (DataType::Int64, "1,\"id\":2", "\"1,\\\"id\\\":2\""),
            (DataType::Utf8, "ü\"\\\n", "\"ü\\\"\\\\\\n\""),
            (DataType::Bytes, "\\x00ff0a", "\"AP8K\""),
            (DataType::Bytes, "\\x0", "\"\\\\x0\""),
            (
                DataType::Timestamp,
                "2024-02-29 10:00:00.5+00",
                "\"2024-02-29T10:00:00.5+00:00\"",
            ),
            (
                DataType::Timestamp,
                "2024-02-29 10:00:00",
                "\"2024-02-29T10:00:00Z\"",
            ),
            (
                DataType::Timestamp,
                "2024-02-29 10:00:00-05:30",
                "\"2024-02-29T10:00:00-05:30\"",
            ),
            (
                DataType::Timestamp,
                "2024-02-29",
                "\"2024-02-29T00:00:00Z\"",
            ),
            (DataType::Timestamp, "infinity", "\"infinity\""),
            (
                DataType::Timestamp,
                "0044-03-15 00:00:00+00 BC",
                "\"0044-03-15 00:00:00+00 BC\"",
            ),
            (
                DataType::Timestamp,
                "10000-01-01 00:00:00+00",
                "\"10000-01-01 00:00:00+00\"",
            ),
        ] {
            assert_eq!(written(&data_type, text), expected, "{text}");
        }
    }

    #[test]
    fn arrays_and_json_are_lists() {
        let texts = list(DataType::Utf8);
        let numbers = list(DataType::Int64);
        for (data_type, text, expected) in [
            (
                &texts,
                r#"{"a,b",NULL,"NULL","q\"\\",x}"#,
                r#"["a,b",null,"NULL","q\"\\","x"]"#,
            ),
            (&texts, "{}", "[]"),
            (&numbers, "{1,-2,NULL}", "[1,-2,null]"),
            (&numbers, "[0:1]={1,2}", "[1,2]"),
            (&numbers, "[1, null]", "[1, null]"),
            (
                &list(list(DataType::Int64)),
                "{{1,2},{3,4}}",
                "[[1,2],[3,4]]",
            ),
            (&list(DataType::Bytes), r#"{"\\x00ff"}"#, r#"["AP8="]"#),
            (&numbers, "{1,2", "\"{1,2\""),
            (&numbers, "{1}2", "\"{1}2\""),
            (&numbers, "[1", "\"[1\""),
        ] {
            assert_eq!(written(data_type, text), expected, "{text}");
        }
        let record = DataType::Record([Field::new("a", DataType::Int64, false)].into());
        assert_eq!(written(&record, r#"{"a": 1}"#), r#"{"a": 1}"#);
        assert_eq!(
            written(&record, r#"{"a": 1},"b":2"#),
            r#""{\"a\": 1},\"b\":2""#
        );
    }
}
