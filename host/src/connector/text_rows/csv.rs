//! Renders rows as comma-separated values (RFC 4180), below a header if wanted.
//!
//! Null is an empty field and an empty text is `""`. Lists and records are
//! written as JSON.

use super::{TextFormat, TextRows};
use crate::batch::Batch;
use crate::format::CsvFormat;
use crate::schema::Schema;
use crate::text::write_text;

pub struct Csv {
    delimiter: u8,
    /// Empty without a header.
    head: Vec<u8>,
    /// The text of a value, before it is known whether it needs quotes.
    value: Vec<u8>,
}

impl Csv {
    pub fn new(schema: &Schema, format: CsvFormat) -> Self {
        let CsvFormat { header, delimiter } = format;
        let mut head = Vec::new();
        for (index, field) in schema.fields.iter().enumerate() {
            if index > 0 {
                head.push(delimiter);
            }
            quote(&mut head, field.name.as_bytes(), delimiter);
        }
        head.push(b'\n');
        if !header {
            head.clear();
        }
        Csv {
            delimiter,
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
                    rows.text.push(self.delimiter);
                }
                self.value.clear();
                if write_text(&mut self.value, column, row) {
                    quote(&mut rows.text, &self.value, self.delimiter);
                }
            }
            rows.end_row();
        }
    }
}

fn quote(out: &mut Vec<u8>, value: &[u8], delimiter: u8) {
    let special = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r') || *byte == delimiter;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::StringArray;

    use super::*;
    use crate::schema::{DataType, Field};

    #[test]
    fn tabs_may_separate_fields_below_a_header_or_none() {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let schema = Schema::new(vec![text("a"), text("b\tc")]);
        let batch = Batch {
            columns: vec![
                Arc::new(StringArray::from(vec![Some("x,y"), Some(""), None])),
                Arc::new(StringArray::from(vec!["1\t2", "of two\nlines", "\""])),
            ],
            schema: Arc::new(schema.clone()),
            times: vec![0; 3].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        for (header, head) in [(true, "a\t\"b\tc\"\n"), (false, "")] {
            let delimiter = b'\t';
            let mut csv = Csv::new(&schema, CsvFormat { header, delimiter });
            assert_eq!(csv.head(), head.as_bytes());
            let mut rows = TextRows::default();
            csv.write(&batch, &mut rows);
            let text = String::from_utf8(rows.text).expect("text");
            assert_eq!(text, "x,y\t\"1\t2\"\n\"\"\t\"of two\nlines\"\n\t\"\"\"\"\n");
        }
    }
}
