//! Writes values as plain text, for text formats such as CSV.
//!
//! Timestamps are RFC 3339 in UTC, with milliseconds only where they are not
//! zero, and byte strings base64. Lists and records are JSON.

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::{json, timestamp};

/// Writes a value without quotes. Returns false and writes nothing for nulls.
pub fn write_text(out: &mut Vec<u8>, column: &ArrayRef, row: usize) -> bool {
    if column.is_null(row) {
        return false;
    }
    match column.data_type() {
        ArrowType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        ArrowType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        }
        ArrowType::Timestamp(_, _) => {
            let times = column.as_primitive_opt::<TimestampMillisecondType>();
            return times.is_some_and(|times| {
                timestamp::write(out, times.value(row));
                true
            });
        }
        ArrowType::Float32 | ArrowType::Float64 => {
            let start = out.len();
            json::write_value(out, column, row);
            // Words have no quotes here.
            if out.get(start) == Some(&b'"') {
                out.remove(start);
                out.pop();
            }
        }
        _ => json::write_value(out, column, row),
    }
    true
}

/// Appends a character, escaped if it could control a terminal.
pub fn push_printable(text: &mut String, character: char) {
    if character.is_control() {
        text.extend(character.escape_default());
    } else {
        text.push(character);
    }
}
