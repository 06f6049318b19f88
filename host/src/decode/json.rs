//! Decides what a line of JSON says, by the schema: values go from the text
//! straight into their column.
//!
//! A parser of our own rather than a general one, since it knows what comes
//! next: the key that followed the last one in the row before, and a value of
//! that field's type. It reads all of JSON (RFC 8259), skips fields that the
//! schema does not have, and refuses a field that is given twice: one of the
//! two would be lost without a word.

mod scanner;

use std::sync::Arc;

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hashbrown::HashMap;

use self::scanner::{Fault, Key, Scanner};
use super::column::{Column, Record, Values};
use crate::plan::TimestampFormat;
use crate::schema::{DataType, Field, Schema};
use crate::timestamp;

/// Rows under construction, and how the next one is expected to look.
#[derive(Clone, Debug)]
pub struct JsonDecoder {
    rows: Record,
    shape: Shape,
    /// Unescaped text, and other things of a moment.
    scratch: Vec<u8>,
}

/// The keys of a record, and of the records in it: what the row before teaches
/// about the next one. Parallel to [`Record`].
#[derive(Clone, Debug)]
struct Shape {
    keys: Vec<Key>,
    by_name: Arc<HashMap<Vec<u8>, usize, foldhash::fast::RandomState>>,
    /// Which field came behind each one, the last time; the last entry is the
    /// record's start.
    next: Vec<usize>,
    nested: Vec<Option<Box<Shape>>>,
}

impl JsonDecoder {
    pub fn new(schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        JsonDecoder {
            rows: Record::new(&schema.fields, &mut timestamps.iter().copied()),
            shape: Shape::new(&schema.fields),
            scratch: Vec::new(),
        }
    }

    /// Adds the row `data[start..end]`; after an error it must be taken back.
    #[inline]
    pub fn push_row(&mut self, data: &[u8], start: usize, end: usize) -> Result<(), String> {
        let mut scanner = Scanner::new(data, start, end);
        let mut parser = Parser {
            scanner: &mut scanner,
            scratch: &mut self.scratch,
        };
        let parsed = parser
            .record(&mut self.rows, &mut self.shape)
            .and_then(|()| scanner.finish());
        parsed.map_err(|fault| fault.to_string())
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows.take()
    }
}

/// Adds one JSON value, as the field of another format has it.
pub(super) fn push_value(column: &mut Column, text: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner::new(text, 0, text.len());
    let mut shape = Shape::of_type(&column.data_type);
    let mut parser = Parser {
        scanner: &mut scanner,
        scratch: &mut Vec::new(),
    };
    parser.scanner.skip_space();
    let parsed = parser
        .value(column, &mut shape)
        .and_then(|()| scanner.finish());
    parsed.map_err(|fault| fault.to_string())
}

impl Shape {
    fn new(fields: &[Field]) -> Self {
        let start = fields.len();
        Shape {
            keys: fields.iter().map(|field| Key::new(&field.name)).collect(),
            by_name: Arc::new(
                fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| (field.name.clone().into_bytes(), index))
                    .collect(),
            ),
            next: (0..start).map(|index| index + 1).chain([0]).collect(),
            nested: fields
                .iter()
                .map(|field| Shape::of_type(&field.data_type))
                .collect(),
        }
    }

    /// Of the records in a type, which may be the elements of lists.
    fn of_type(data_type: &DataType) -> Option<Box<Shape>> {
        match data_type {
            DataType::Record(fields) => Some(Box::new(Shape::new(fields))),
            DataType::List(element) => Shape::of_type(&element.data_type),
            _ => None,
        }
    }
}

struct Parser<'p, 'd> {
    scanner: &'p mut Scanner<'d>,
    scratch: &'p mut Vec<u8>,
}

impl Parser<'_, '_> {
    fn record(&mut self, record: &mut Record, shape: &mut Shape) -> Result<(), Fault> {
        let start = shape.keys.len();
        let row = record.rows();
        let mut given = 0;
        let mut last = start;
        self.scanner.skip_space();
        if !self.scanner.take(b'{') {
            return Err(self.scanner.unexpected("a record"));
        }
        self.scanner.skip_space();
        let mut more = !self.scanner.take(b'}');
        while more {
            match self.key(shape, last)? {
                Some(index) => {
                    shape.next[last] = index;
                    last = index;
                    let field = &mut record.fields[index];
                    if field.column.len() > row {
                        return Err(Fault::new("is given twice").within(&field.name));
                    }
                    self.value(&mut field.column, &mut shape.nested[index])
                        .map_err(|fault| fault.within(&field.name))?;
                    given += 1;
                }
                None => self.scanner.skip_value(self.scratch)?,
            }
            self.scanner.skip_space();
            more = self.scanner.take(b',');
            if more {
                self.scanner.skip_space();
            } else if !self.scanner.take(b'}') {
                return Err(self.scanner.unexpected("`,` or `}`"));
            }
        }
        if given < record.fields.len() {
            fill_missing(record)?;
        }
        record.end();
        Ok(())
    }

    /// Reads a key and its colon. `None` is a field that the schema has not.
    #[inline]
    fn key(&mut self, shape: &Shape, last: usize) -> Result<Option<usize>, Fault> {
        let expected = shape.next[last];
        if let Some(key) = shape.keys.get(expected)
            && self.scanner.take_key(key)
        {
            self.scanner.skip_space();
            return Ok(Some(expected));
        }
        self.other_key(shape)
    }

    fn other_key(&mut self, shape: &Shape) -> Result<Option<usize>, Fault> {
        if self.scanner.peek() != Some(b'"') {
            return Err(self.scanner.unexpected("a field's name in quotes"));
        }
        let name = self.scanner.text(self.scratch)?;
        let index = shape.by_name.get(name).copied();
        self.scanner.skip_space();
        if !self.scanner.take(b':') {
            return Err(self.scanner.unexpected("`:`"));
        }
        self.scanner.skip_space();
        Ok(index)
    }

    #[inline]
    fn value(&mut self, column: &mut Column, nested: &mut Option<Box<Shape>>) -> Result<(), Fault> {
        if self.scanner.peek() == Some(b'n') {
            return self.null(column);
        }
        let scanner = &mut *self.scanner;
        match &mut column.values {
            Values::Utf8(texts) => {
                if scanner.peek() != Some(b'"') {
                    return Err(scanner.mismatch(&column.data_type));
                }
                scanner.text_into(&mut texts.data)?;
                texts.end();
            }
            Values::Symbol(texts, symbols) => {
                if scanner.peek() != Some(b'"') {
                    return Err(scanner.mismatch(&column.data_type));
                }
                let start = scanner.position();
                scanner.text_into(&mut texts.data)?;
                let found = texts.unfinished();
                if !symbols.iter().any(|symbol| symbol.as_bytes() == found) {
                    return Err(scanner.mismatch_at(start, &column.data_type));
                }
                texts.end();
            }
            Values::Int64(values) => {
                values.push(scanner.integer(&column.data_type, i64::MIN, i64::MAX)?);
            }
            Values::Int32(values) => {
                let value = scanner.integer(&column.data_type, i32::MIN.into(), i32::MAX.into())?;
                values.push(value as i32);
            }
            Values::Int16(values) => {
                let value = scanner.integer(&column.data_type, i16::MIN.into(), i16::MAX.into())?;
                values.push(value as i16);
            }
            Values::Int8(values) => {
                let value = scanner.integer(&column.data_type, i8::MIN.into(), i8::MAX.into())?;
                values.push(value as i8);
            }
            Values::UInt64(values) => {
                values.push(scanner.unsigned(&column.data_type)?);
            }
            Values::UInt32(values) => {
                let value = scanner.integer(&column.data_type, 0, u32::MAX.into())?;
                values.push(value as u32);
            }
            Values::UInt16(values) => {
                let value = scanner.integer(&column.data_type, 0, u16::MAX.into())?;
                values.push(value as u16);
            }
            Values::UInt8(values) => {
                let value = scanner.integer(&column.data_type, 0, u8::MAX.into())?;
                values.push(value as u8);
            }
            Values::Float64(values) => {
                values.push(scanner.float(&column.data_type)?);
            }
            Values::Float32(values) => {
                values.push(scanner.float(&column.data_type)?);
            }
            Values::Bool(values) => {
                let value = if scanner.take_literal(b"true") {
                    true
                } else if scanner.take_literal(b"false") {
                    false
                } else {
                    return Err(scanner.mismatch(&column.data_type));
                };
                values.push(value);
            }
            Values::Timestamp(values, format) => {
                let format = *format;
                values.push(self.timestamp(format)?);
            }
            Values::Bytes(bytes) => {
                if scanner.peek() != Some(b'"') {
                    return Err(scanner.mismatch(&column.data_type));
                }
                let start = scanner.position();
                let text = scanner.text(self.scratch)?;
                if BASE64_STANDARD.decode_vec(text, &mut bytes.data).is_err() {
                    return Err(scanner.expected_at(start, "bytes as base64"));
                }
                bytes.end();
            }
            Values::Record(record) => {
                let Some(shape) = nested else {
                    unreachable!("records have a shape");
                };
                if scanner.peek() != Some(b'{') {
                    return Err(scanner.mismatch(&column.data_type));
                }
                self.record(record, shape)?;
            }
            Values::List(list) => {
                if !scanner.take(b'[') {
                    return Err(scanner.mismatch(&column.data_type));
                }
                scanner.skip_space();
                let mut more = !scanner.take(b']');
                let mut index = 0;
                while more {
                    self.value(&mut list.element, nested)
                        .map_err(|fault| fault.at_element(index))?;
                    self.scanner.skip_space();
                    more = self.scanner.take(b',');
                    if more {
                        self.scanner.skip_space();
                    } else if !self.scanner.take(b']') {
                        return Err(self.scanner.unexpected("`,` or `]`"));
                    }
                    index += 1;
                }
                list.end();
            }
        }
        column.mark_valid();
        Ok(())
    }

    #[inline(never)]
    fn null(&mut self, column: &mut Column) -> Result<(), Fault> {
        let start = self.scanner.position();
        if !self.scanner.take_literal(b"null") {
            return Err(self.scanner.mismatch(&column.data_type));
        }
        if !column.is_nullable() {
            return Err(self.scanner.mismatch_at(start, &column.data_type));
        }
        column.push_null();
        Ok(())
    }

    fn timestamp(&mut self, format: TimestampFormat) -> Result<i64, Fault> {
        let scanner = &mut *self.scanner;
        let start = scanner.position();
        let read = if scanner.peek() == Some(b'"') {
            let text = scanner.text(self.scratch)?;
            match format {
                TimestampFormat::Any | TimestampFormat::Rfc3339 => timestamp::from_rfc3339(text),
                TimestampFormat::Ms | TimestampFormat::Seconds => None,
            }
        } else {
            match format {
                TimestampFormat::Any | TimestampFormat::Ms => scanner
                    .try_integer(i64::MIN, i64::MAX)
                    .or_else(|| timestamp::from_ms(scanner.number()?)),
                TimestampFormat::Seconds => scanner.number().and_then(timestamp::from_seconds),
                TimestampFormat::Rfc3339 => None,
            }
        };
        read.ok_or_else(|| scanner.expected_at(start, timestamp::expected(format)))
    }
}

/// Fields that the row does not have: null where that may be.
#[inline(never)]
fn fill_missing(record: &mut Record) -> Result<(), Fault> {
    let row = record.rows();
    for field in &mut record.fields {
        if field.column.len() > row {
            continue;
        }
        if !field.column.is_nullable() {
            return Err(Fault::new("is missing").within(&field.name));
        }
        field.column.push_null();
    }
    Ok(())
}
