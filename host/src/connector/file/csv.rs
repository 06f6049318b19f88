//! Writes rows as comma-separated values (RFC 4180) below a line of names.
//!
//! Null is an empty field and an empty text is `""`. Lists and records are
//! written as JSON.

use std::sync::Arc;

use super::part::Part;
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::schema::Schema;
use crate::sink::{Sink, SinkError};
use crate::text::write_text;

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
                if write_text(&mut self.value, column, row) {
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
