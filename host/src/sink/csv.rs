//! Writes rows as comma-separated values (RFC 4180) below a line of names.
//!
//! Null is an empty field and an empty text is `""`. Lists and records are
//! written as JSON.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::file::Part;
use super::{Sink, SinkError, json_lines};
use crate::batch::Batch;
use crate::checkpoint::snapshot::{CheckpointId, SinkSnapshot};
use crate::schema::Schema;
use crate::timestamp;

pub(super) struct Csv {
    part: Part,
    text: Vec<u8>,
    /// A value before it is seen whether it needs quotes.
    value: Vec<u8>,
}

impl Csv {
    pub fn new(mut part: Part, schema: &Arc<Schema>) -> Result<Self, SinkError> {
        let mut header = Vec::new();
        for (index, field) in schema.fields.iter().enumerate() {
            if index > 0 {
                header.push(b',');
            }
            quote(&mut header, field.name.as_bytes());
        }
        header.push(b'\n');
        if part.is_empty() {
            part.write(&header)?;
        }
        Ok(Csv {
            part,
            text: Vec::new(),
            value: Vec::new(),
        })
    }
}

impl Sink for Csv {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.text.clear();
        for row in 0..batch.rows() {
            for (index, column) in batch.columns.iter().enumerate() {
                if index > 0 {
                    self.text.push(b',');
                }
                self.value.clear();
                if write_value(&mut self.value, column, row) {
                    quote(&mut self.text, &self.value);
                }
            }
            self.text.push(b'\n');
        }
        self.part.write(&self.text)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.part.flush()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.part.keep()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.part.finish()
    }
}

/// A value as text, without quotes. False where there is none: for nulls, and
/// for numbers that text has not, as infinity.
pub(super) fn write_value(out: &mut Vec<u8>, column: &ArrayRef, row: usize) -> bool {
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
        _ => {
            let start = out.len();
            json_lines::write_value(out, column, row);
            if &out[start..] == b"null" {
                out.truncate(start);
                return false;
            }
        }
    }
    true
}

fn quote(out: &mut Vec<u8>, value: &[u8]) {
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !value.is_empty() && !value.iter().any(special) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &byte in value {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
