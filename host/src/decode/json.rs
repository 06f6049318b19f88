//! Decodes a line of JSON by the schema: values go from the text straight into
//! their column.
//!
//! This is not a general parser, and faster for it: it expects the key that
//! followed in the row before, and a value of that field's type. It reads all
//! of JSON (RFC 8259), skips fields that the schema does not have, and refuses
//! a field that is given twice, since one of the two values would be lost
//! silently.

/// Decodes changes as Debezium tells them.
mod debezium;
/// Reads rows of keys of messages.
mod keys;
/// Finds the members of a record.
mod members;
/// Reads the tokens of JSON.
mod scanner;

use std::sync::Arc;

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hashbrown::HashMap;

pub(super) use self::debezium::DebeziumRows;
use self::scanner::{JsonKey, Scanner};
use super::column::{ColumnBuilder, RecordBuilder, TimesBuilder, ValuesBuilder};
use super::fault::RowFault;
use crate::decimal;
use crate::schema::{DataType, Field, Schema};
use crate::timestamp::{CutTimes, TimeUnit, TimestampFormat};

/// Rows under construction, and the expected order of keys.
#[derive(Clone, Debug)]
pub(super) struct JsonRows {
    rows: RecordBuilder,
    shape: RecordShape,
    /// Unescaped texts and other temporary values.
    scratch: Vec<u8>,
}

/// The keys of a record, and of the records in it, in the order that earlier
/// rows had. Parallel to [`RecordBuilder`].
#[derive(Clone, Debug)]
struct RecordShape {
    keys: Vec<JsonKey>,
    by_name: Arc<HashMap<Vec<u8>, usize, foldhash::fast::RandomState>>,
    /// The field that followed each field last time; the last entry is the
    /// field that came first.
    next: Vec<usize>,
    nested: Vec<Option<Box<RecordShape>>>,
}

impl JsonRows {
    pub fn new(schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        JsonRows {
            rows: RecordBuilder::new(&schema.fields, &mut timestamps.iter().cloned()),
            shape: RecordShape::new(&schema.fields),
            scratch: Vec::new(),
        }
    }

    /// Adds the row `data[start..end]`; after an error, [`Self::truncate`] must
    /// follow.
    #[inline]
    pub fn push(&mut self, data: &[u8], start: usize, end: usize) -> Result<(), RowFault> {
        let scanner = Scanner::new(data, start, end);
        let mut parser = Parser {
            scanner,
            scratch: &mut self.scratch,
        };
        let at = scanner.skip_space(start);
        let at = parser.record(at, &mut self.rows, &mut self.shape)?;
        scanner.finish(at)
    }

    /// Adds a row without a value in any field.
    pub fn push_null(&mut self) {
        self.rows.push_null();
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        self.rows.take_cut_times()
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows.take()
    }
}

/// Adds one JSON value from its text, as a field of another format has it.
pub(super) fn push_value(column: &mut ColumnBuilder, text: &[u8]) -> Result<(), RowFault> {
    let scanner = Scanner::new(text, 0, text.len());
    let mut parser = Parser {
        scanner,
        scratch: &mut Vec::new(),
    };
    let mut shape = RecordShape::of_type(&column.data_type);
    let at = parser.value(scanner.skip_space(0), column, &mut shape)?;
    scanner.finish(at)
}

impl RecordShape {
    fn new(fields: &[Field]) -> Self {
        let start = fields.len();
        RecordShape {
            keys: fields
                .iter()
                .map(|field| JsonKey::new(&field.name))
                .collect(),
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
                .map(|field| RecordShape::of_type(&field.data_type))
                .collect(),
        }
    }

    /// The shape of the record in a type, which may be a list's element.
    fn of_type(data_type: &DataType) -> Option<Box<RecordShape>> {
        match data_type {
            DataType::Record(fields) => Some(Box::new(RecordShape::new(fields))),
            DataType::List(element) => RecordShape::of_type(&element.data_type),
            _ => None,
        }
    }
}

struct Parser<'p, 'd> {
    scanner: Scanner<'d>,
    scratch: &'p mut Vec<u8>,
}

/// As in [`Scanner`], each method is given the place where its token begins,
/// and returns the place where it ends.
impl Parser<'_, '_> {
    fn record(
        &mut self,
        at: usize,
        record: &mut RecordBuilder,
        shape: &mut RecordShape,
    ) -> Result<usize, RowFault> {
        let scanner = self.scanner;
        let row = record.rows();
        let mut given = 0;
        // The start of the record has the last entry.
        let mut last = shape.keys.len();
        let Some(mut at) = scanner.take(at, b'{') else {
            return Err(scanner.unexpected(at, "a record"));
        };
        let mut more = scanner.peek(at) != Some(b'}');
        if !more {
            at += 1;
        }
        while more {
            let expected = shape.next[last];
            let index = match shape.keys.get(expected) {
                Some(key) if let Some(behind) = scanner.take_key(at, key) => {
                    at = behind;
                    Some(expected)
                }
                _ => {
                    let (behind, name) = scanner.other_key(at, self.scratch)?;
                    at = behind;
                    shape.by_name.get(name).copied()
                }
            };
            match index {
                Some(index) => {
                    shape.next[last] = index;
                    last = index;
                    let field = &mut record.fields[index];
                    if field.column.len() > row {
                        return Err(RowFault::new("is given twice").within(&field.name));
                    }
                    at = match self.value(at, &mut field.column, &mut shape.nested[index]) {
                        Ok(behind) => behind,
                        Err(fault) => return Err(fault.within(&field.name)),
                    };
                    given += 1;
                }
                None => at = scanner.skip_value(at, self.scratch)?,
            }
            (at, more) = scanner.next_item(at, b'}')?;
        }
        if given < record.fields.len() {
            record.fill_missing()?;
        }
        record.end();
        Ok(at)
    }

    /// Reads values of the commonest types inline; nulls and other types are
    /// handled out of line.
    #[inline(always)]
    fn value(
        &mut self,
        at: usize,
        column: &mut ColumnBuilder,
        nested: &mut Option<Box<RecordShape>>,
    ) -> Result<usize, RowFault> {
        let scanner = self.scanner;
        match &mut column.values {
            ValuesBuilder::Utf8(texts) if scanner.peek(at) == Some(b'"') => {
                let at = scanner.text_into(at, &mut texts.data)?;
                texts.end();
                column.end_value();
                Ok(at)
            }
            ValuesBuilder::Int64(values)
            | ValuesBuilder::Timestamp(TimesBuilder {
                values,
                format: TimestampFormat::Any | TimestampFormat::Number(TimeUnit::Milliseconds),
                ..
            }) if let Some((at, value)) = scanner.integer(at) => {
                values.push(value);
                column.end_value();
                Ok(at)
            }
            _ => self.other_value(at, column, nested),
        }
    }

    #[inline(never)]
    fn other_value(
        &mut self,
        at: usize,
        column: &mut ColumnBuilder,
        nested: &mut Option<Box<RecordShape>>,
    ) -> Result<usize, RowFault> {
        let scanner = self.scanner;
        if column.is_nullable()
            && let Some(at) = scanner.take_literal(at, b"null")
        {
            column.push_null();
            return Ok(at);
        }
        let is_text = scanner.peek(at) == Some(b'"');
        let data_type = &column.data_type;
        let mismatch = || scanner.mismatch(at, data_type);
        let behind = match &mut column.values {
            ValuesBuilder::Int64(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Int32(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Int16(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Int8(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::UInt64(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::UInt32(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::UInt16(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::UInt8(values) => {
                let (behind, value) = whole(scanner, at, data_type)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Float64(values) => {
                let (behind, value) = scanner.float(at).ok_or_else(mismatch)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Float32(values) => {
                let (behind, value) = scanner.float(at).ok_or_else(mismatch)?;
                values.push(value);
                behind
            }
            ValuesBuilder::Bool(values) => {
                let (behind, value) = if let Some(behind) = scanner.take_literal(at, b"true") {
                    (behind, true)
                } else if let Some(behind) = scanner.take_literal(at, b"false") {
                    (behind, false)
                } else {
                    return Err(mismatch());
                };
                values.push(value);
                behind
            }
            ValuesBuilder::Timestamp(times) => read_time(scanner, at, times, self.scratch)?,
            ValuesBuilder::Decimal(values, digits) => {
                let (behind, read) = if is_text {
                    let (behind, text) = scanner.text(at, self.scratch)?;
                    (behind, digits.read_text(text))
                } else if digits.unscaled.is_some() && scanner.peek(at) == Some(b'{') {
                    let digits = *digits;
                    self.scaled_decimal(at, digits)?
                } else {
                    let number = scanner.number(at).ok_or_else(mismatch)?;
                    (at + number.len(), digits.parse(number))
                };
                values.push(read.map_err(|why| mismatch().because(&why))?);
                behind
            }
            ValuesBuilder::Utf8(texts) => {
                if !is_text {
                    return Err(mismatch());
                }
                let behind = scanner.text_into(at, &mut texts.data)?;
                texts.end();
                behind
            }
            ValuesBuilder::Symbol(texts, symbols) => {
                if !is_text {
                    return Err(mismatch());
                }
                let behind = scanner.text_into(at, &mut texts.data)?;
                let found = texts.unfinished();
                if !symbols.iter().any(|symbol| symbol.as_bytes() == found) {
                    return Err(mismatch());
                }
                texts.end();
                behind
            }
            ValuesBuilder::Bytes(bytes) => {
                if !is_text {
                    return Err(mismatch());
                }
                let (behind, text) = scanner.text(at, self.scratch)?;
                if BASE64_STANDARD.decode_vec(text, &mut bytes.data).is_err() {
                    return Err(scanner.not_a(at, "bytes as base64"));
                }
                bytes.end();
                behind
            }
            ValuesBuilder::Record(record) => {
                if scanner.peek(at) != Some(b'{') {
                    return Err(mismatch());
                }
                let Some(shape) = nested else {
                    unreachable!("every record has a shape");
                };
                self.record(at, record, shape)?
            }
            ValuesBuilder::List(list) => {
                let Some(mut at) = scanner.take(at, b'[') else {
                    return Err(mismatch());
                };
                let mut more = scanner.peek(at) != Some(b']');
                if !more {
                    at += 1;
                }
                let mut index = 0;
                while more {
                    at = self
                        .value(at, &mut list.element, nested)
                        .map_err(|fault| fault.at_element(index))?;
                    (at, more) = scanner.next_item(at, b']')?;
                    index += 1;
                }
                list.end();
                at
            }
        };
        column.end_value();
        Ok(behind)
    }
}

/// A whole number that the type can hold, also one that is written with a fraction or an
/// exponent: `5`, `5.0`, `5e3`.
fn whole<N: TryFrom<i128>>(
    scanner: Scanner<'_>,
    at: usize,
    data_type: &DataType,
) -> Result<(usize, N), RowFault> {
    let mismatch = || scanner.mismatch(at, data_type);
    let (behind, value) = match scanner.integer(at) {
        Some((behind, value)) => (behind, i128::from(value)),
        None => {
            let number = scanner.number(at).ok_or_else(mismatch)?;
            let value = decimal::whole(number).map_err(|why| mismatch().because(&why))?;
            (at + number.len(), value)
        }
    };
    let value = N::try_from(value).map_err(|_| mismatch())?;
    Ok((behind, value))
}

/// Adds a time, and returns where it ends.
fn read_time(
    scanner: Scanner<'_>,
    at: usize,
    times: &mut TimesBuilder,
    scratch: &mut Vec<u8>,
) -> Result<usize, RowFault> {
    let (behind, text, read) = if scanner.peek(at) == Some(b'"') {
        let (behind, text) = scanner.text(at, scratch)?;
        (behind, text, times.format.read_text(text))
    } else {
        let number = scanner.number(at).unwrap_or_default();
        let read = times.format.read_number(number);
        (at + number.len(), number, read)
    };
    match read {
        Some(time) => {
            times.push(time, text);
            Ok(behind)
        }
        None => Err(scanner.not_a(at, &times.format.expected())),
    }
}
