//! What tests of formats share.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Decoded, Decoder};
use crate::batch::{Batch, NO_TIME};
use crate::format::{Format, MessageFormat, RowFormat};
use crate::json::{render_columns, render_row};
use crate::schema::{DataType as D, Field, Schema};
use crate::timestamp::TimestampFormat;

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

pub fn field(name: &str, data_type: D) -> Field {
    Field::new(name, data_type, false)
}

pub fn nullable(name: &str, data_type: D) -> Field {
    Field::new(name, data_type, true)
}

pub fn list(element: Field) -> D {
    D::List(Arc::new(element))
}

pub fn record(fields: Vec<Field>) -> D {
    D::Record(fields.into())
}

pub fn decoder(format: MessageFormat, timestamps: &[TimestampFormat], fields: &[Field]) -> Decoder {
    let rows = RowFormat {
        timestamp_formats: timestamps.to_vec(),
        ..Format::Message(format).into()
    };
    Decoder::new(&rows, &Schema::new(fields.to_vec()))
}

/// Good rows as JSON, the messages of bad ones, and the times that were cut.
pub fn decoded(decoder: &mut Decoder, fields: &[Field], rows: &[Vec<u8>]) -> String {
    let schema = Schema::new(fields.to_vec());
    let mut spans = Vec::new();
    let mut data = Vec::new();
    for row in rows {
        let start = data.len() as u32;
        data.extend_from_slice(row);
        spans.push((start, data.len() as u32));
    }
    let decoded = decoder.decode(&data, &spans);
    for (column, field) in decoded.columns.iter().zip(fields) {
        assert_eq!(*column.data_type(), field.data_type.to_arrow());
        assert_eq!(column.len(), decoded.rows);
    }
    let mut text = String::new();
    for row in 0..decoded.rows {
        writeln!(text, "{}", render_columns(&schema, &decoded.columns, row)).unwrap();
    }
    for bad in decoded.bad {
        writeln!(text, "row {}: {}", bad.row, bad.error).unwrap();
    }
    if let Some(cut) = decoded.cut_times {
        writeln!(text, "{} times were cut: {}", cut.values, cut.example).unwrap();
    }
    text
}

/// What is added and taken back, the time of each, and the messages of what is bad.
pub fn changes(decoded: Decoded, schema: &Schema) -> String {
    let changes = decoded.changes.expect("rows are changes");
    assert_eq!(changes.parents.len(), decoded.rows);
    assert!(changes.parents.is_sorted());
    let batch = Batch {
        schema: Arc::new(schema.clone()),
        columns: decoded.columns,
        times: changes.times,
        origin: None,
        watermarks: None,
        taken_back: Some(changes.taken_back),
    };
    assert_eq!(batch.rows(), decoded.rows);
    batch.to_arrow().expect("the types are those of the schema");
    let mut text = String::new();
    for row in 0..batch.rows() {
        let sign = if batch.is_taken_back(row) { '-' } else { '+' };
        let time = match batch.times[row] {
            NO_TIME => "no time".to_owned(),
            ms => ms.to_string(),
        };
        let parent = changes.parents[row];
        let _ = writeln!(text, "{parent} {sign}{} {time}", render_row(&batch, row));
    }
    for bad in decoded.bad {
        let _ = writeln!(text, "{}: {}", bad.row, bad.error);
    }
    text
}

/// A row behind the number of its schema.
pub fn framed(id: u32, row: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), row].concat()
}

/// Changes some bytes of a row, or cuts it off.
pub fn damage(row: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..row.len());
        match random.u8(..4) {
            0 => row[at] = random.u8(..),
            1 => row.truncate(at.max(1)),
            2 => row.insert(at, random.u8(..)),
            _ => row[at] ^= 1 << random.u8(..8),
        }
    }
}
