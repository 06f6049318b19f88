//! Renders rows as comma-separated values (RFC 4180) below a header.
//!
//! Null is an empty field and an empty text is `""`. Lists and records are
//! written as JSON.

use super::{TextFormat, TextRows};
use crate::batch::Batch;
use crate::schema::Schema;
use crate::text::write_text;

pub struct Csv {
    head: Vec<u8>,
    /// The text of a value, before it is known whether it needs quotes.
    value: Vec<u8>,
}

impl Csv {
    pub fn new(schema: &Schema) -> Self {
        let mut head = Vec::new();
        for (index, field) in schema.fields.iter().enumerate() {
            if index > 0 {
                head.push(b',');
            }
            quote(&mut head, field.name.as_bytes());
        }
        head.push(b'\n');
        Csv {
            head,
            value: Vec::new(),
        }
    }
}

impl TextFormat for Csv {
    fn head(&self) -> Vec<u8> {
        self.head.clone()
    }

    fn write(&mut self, batch: &Batch, rows: &mut TextRows) {
        for row in 0..batch.rows() {
            for (index, column) in batch.columns.iter().enumerate() {
                if index > 0 {
                    rows.text.push(b',');
                }
                self.value.clear();
                if write_text(&mut self.value, column, row) {
                    quote(&mut rows.text, &self.value);
                }
            }
            rows.end_row();
        }
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
