//! Writes one row of columns as bytes, and reads it: the form of keys, and of states in
//! checkpoints. States of variable size in memory are [`packed`].
//!
//! The format, version 1. Fields follow one another in the schema's order. A
//! nullable field starts with a byte: 0 and nothing more when the value is
//! missing, else 1. Then the value: bool as one byte 0 or 1; integers, floats
//! and timestamps little-endian in their own width; decimals as their units, little-endian
//! in 16 bytes; texts and bytes as a length
//! and the bytes; a list as a length and its elements, each like a field; a
//! record as its members. A length is a LEB128 varint. A row has neither its types
//! nor its version: whoever keeps rows keeps those once for all of them.
//!
//! Equal values give equal bytes, so rows serve as keys. Floats are equal when
//! their bits are.

/// Rows in memory.
mod packed;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, ListArray, StringArray, StructArray, make_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::ArrowError;

use crate::schema::{DataType, Field};

/// Version of the format. A change to it needs a new number and a reader for the old one.
pub const VERSION: u8 = 1;

/// Bytes that are not a row of these fields, or columns of other types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RowError(String);

impl RowError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        RowError(message.into())
    }
}

/// Reads and writes rows of these fields.
#[derive(Clone, Debug)]
pub struct Codec {
    fields: Vec<Field>,
}

impl Codec {
    pub fn new(fields: Vec<Field>) -> Self {
        Codec { fields }
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Prepares the rows of these columns, one for each field.
    pub fn encoder(&self, columns: &[ArrayRef]) -> Result<Encoder, RowError> {
        if columns.len() != self.fields.len() {
            return Err(RowError(format!(
                "{} columns where there are {} fields",
                columns.len(),
                self.fields.len()
            )));
        }
        let columns = self.fields.iter().zip(columns);
        Ok(Encoder {
            columns: columns
                .map(|(field, column)| View::new(field, column))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Reads the columns of these rows, in order.
    pub fn decode<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, RowError> {
        let capacity = rows.size_hint().0;
        let mut columns: Vec<ColumnBuilder> = self
            .fields
            .iter()
            .map(|field| ColumnBuilder::new(field, capacity))
            .collect();
        for row in rows {
            let mut reader = Reader(row);
            for column in &mut columns {
                column.read(&mut reader)?;
            }
            if !reader.0.is_empty() {
                return Err(RowError(format!(
                    "{} bytes are left at the end of a row",
                    reader.0.len()
                )));
            }
        }
        columns.into_iter().map(ColumnBuilder::finish).collect()
    }
}

/// Columns that are to be written as rows.
pub struct Encoder {
    columns: Vec<View>,
}

impl Encoder {
    /// Appends the bytes of a row.
    pub fn encode(&self, row: usize, bytes: &mut Vec<u8>) {
        for column in &self.columns {
            column.write(row, bytes);
        }
    }
}

/// A column as the buffers of its values.
struct View {
    nullable: bool,
    nulls: Option<NullBuffer>,
    values: ViewValues,
}

enum ViewValues {
    Bits(BooleanBuffer),
    Fixed {
        width: usize,
        bytes: Buffer,
    },
    Packed {
        ends: OffsetBuffer<i32>,
        bytes: Buffer,
    },
    List {
        ends: OffsetBuffer<i32>,
        elements: Box<View>,
    },
    Record(Vec<View>),
}

impl View {
    fn new(field: &Field, column: &ArrayRef) -> Result<View, RowError> {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(View {
            nullable: field.nullable,
            nulls: nulls.cloned(),
            values: ViewValues::new(field, column)?,
        })
    }

    fn write(&self, row: usize, bytes: &mut Vec<u8>) {
        if self.nullable {
            let present = self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            bytes.push(u8::from(present));
            if !present {
                return;
            }
        }
        match &self.values {
            ViewValues::Bits(bits) => bytes.push(u8::from(bits.value(row))),
            ViewValues::Fixed { width, bytes: from } => {
                bytes.extend_from_slice(&from[row * width..(row + 1) * width]);
            }
            ViewValues::Packed { ends, bytes: from } => {
                let (start, end) = (ends[row] as usize, ends[row + 1] as usize);
                write_length(end - start, bytes);
                bytes.extend_from_slice(&from[start..end]);
            }
            ViewValues::List { ends, elements } => {
                let (start, end) = (ends[row] as usize, ends[row + 1] as usize);
                write_length(end - start, bytes);
                elements.write_all(start..end, bytes);
            }
            ViewValues::Record(members) => {
                for member in members {
                    member.write(row, bytes);
                }
            }
        }
    }

    /// Writes these rows, one after another.
    fn write_all(&self, rows: Range<usize>, bytes: &mut Vec<u8>) {
        match &self.values {
            // Large states are lists of numbers, which are copied in one go.
            ViewValues::Fixed { width, bytes: from } if !self.nullable => {
                bytes.extend_from_slice(&from[rows.start * width..rows.end * width]);
            }
            _ => rows.for_each(|row| self.write(row, bytes)),
        }
    }
}

impl ViewValues {
    fn new(field: &Field, column: &ArrayRef) -> Result<ViewValues, RowError> {
        let mismatch = || {
            RowError(format!(
                "column `{}` is {} where {} is expected",
                field.name,
                column.data_type(),
                field.data_type
            ))
        };
        Ok(match &field.data_type {
            DataType::Bool => {
                let column = column.as_boolean_opt().ok_or_else(mismatch)?;
                ViewValues::Bits(column.values().clone())
            }
            DataType::Utf8 | DataType::Symbol(_) => {
                let column = column.as_string_opt::<i32>().ok_or_else(mismatch)?;
                ViewValues::Packed {
                    ends: column.offsets().clone(),
                    bytes: column.values().clone(),
                }
            }
            DataType::Bytes => {
                let column = column.as_binary_opt::<i32>().ok_or_else(mismatch)?;
                ViewValues::Packed {
                    ends: column.offsets().clone(),
                    bytes: column.values().clone(),
                }
            }
            DataType::List(element) => {
                let column = column.as_list_opt::<i32>().ok_or_else(mismatch)?;
                ViewValues::List {
                    ends: column.offsets().clone(),
                    elements: Box::new(View::new(element, column.values())?),
                }
            }
            DataType::Record(fields) => {
                let column = column.as_struct_opt().ok_or_else(mismatch)?;
                if column.num_columns() != fields.len() {
                    return Err(mismatch());
                }
                let members = fields.iter().zip(column.columns());
                ViewValues::Record(
                    members
                        .map(|(field, column)| View::new(field, column))
                        .collect::<Result<_, _>>()?,
                )
            }
            fixed => {
                let width = fixed_width(fixed).ok_or_else(mismatch)?;
                ViewValues::Fixed {
                    width,
                    bytes: fixed_bytes(column, width).ok_or_else(mismatch)?,
                }
            }
        })
    }
}

/// A column that rows are being read into.
struct ColumnBuilder {
    field: Field,
    valid: Option<BooleanBufferBuilder>,
    values: BuilderValues,
    rows: usize,
}

enum BuilderValues {
    Bits(BooleanBufferBuilder),
    Fixed {
        width: usize,
        bytes: MutableBuffer,
    },
    Packed {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    List {
        ends: Vec<i32>,
        elements: Box<ColumnBuilder>,
    },
    Record(Vec<ColumnBuilder>),
}

impl ColumnBuilder {
    fn new(field: &Field, capacity: usize) -> Self {
        let values = match &field.data_type {
            DataType::Bool => BuilderValues::Bits(BooleanBufferBuilder::new(capacity)),
            DataType::Utf8 | DataType::Symbol(_) | DataType::Bytes => BuilderValues::Packed {
                ends: ends(capacity),
                bytes: Vec::new(),
            },
            DataType::List(element) => BuilderValues::List {
                ends: ends(capacity),
                elements: Box::new(ColumnBuilder::new(element, 0)),
            },
            DataType::Record(fields) => BuilderValues::Record(
                fields
                    .iter()
                    .map(|field| ColumnBuilder::new(field, capacity))
                    .collect(),
            ),
            fixed => {
                let width = fixed_width(fixed).unwrap_or_default();
                BuilderValues::Fixed {
                    width,
                    bytes: MutableBuffer::new(capacity * width),
                }
            }
        };
        ColumnBuilder {
            field: field.clone(),
            valid: field.nullable.then(|| BooleanBufferBuilder::new(capacity)),
            values,
            rows: 0,
        }
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), RowError> {
        if let Some(valid) = &mut self.valid {
            let present = reader.flag()?;
            valid.append(present);
            if !present {
                self.skip();
                return Ok(());
            }
        }
        self.rows += 1;
        match &mut self.values {
            BuilderValues::Bits(bits) => bits.append(reader.flag()?),
            BuilderValues::Fixed { width, bytes } => bytes.extend_from_slice(reader.take(*width)?),
            BuilderValues::Packed { ends, bytes } => {
                let length = reader.length()?;
                bytes.extend_from_slice(reader.take(length)?);
                ends.push(end(bytes.len())?);
            }
            BuilderValues::List { ends, elements } => {
                let length = reader.length()?;
                ends.push(end(elements.rows.saturating_add(length))?);
                elements.read_all(length, reader)?;
            }
            BuilderValues::Record(members) => {
                for member in members {
                    member.read(reader)?;
                }
            }
        }
        Ok(())
    }

    /// Reads this many rows, one after another.
    fn read_all(&mut self, rows: usize, reader: &mut Reader<'_>) -> Result<(), RowError> {
        match (&self.valid, &mut self.values) {
            (None, BuilderValues::Fixed { width, bytes }) => {
                bytes.extend_from_slice(reader.take(width.saturating_mul(rows))?);
                self.rows += rows;
            }
            _ => {
                for _ in 0..rows {
                    self.read(reader)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the placeholder of a missing value, whose validity is written already.
    fn skip(&mut self) {
        self.rows += 1;
        match &mut self.values {
            BuilderValues::Bits(bits) => bits.append(false),
            BuilderValues::Fixed { width, bytes } => bytes.extend_zeros(*width),
            BuilderValues::Packed { ends, .. } | BuilderValues::List { ends, .. } => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
            BuilderValues::Record(members) => {
                for member in members {
                    if let Some(valid) = &mut member.valid {
                        valid.append(false);
                    }
                    member.skip();
                }
            }
        }
    }

    fn finish(self) -> Result<ArrayRef, RowError> {
        let nulls = self
            .valid
            .map(|mut valid| NullBuffer::new(valid.finish()))
            .filter(|nulls| nulls.null_count() > 0);
        let invalid = |error: ArrowError| RowError(format!("`{}`: {error}", self.field.name));
        Ok(match self.values {
            BuilderValues::Bits(mut bits) => Arc::new(BooleanArray::new(bits.finish(), nulls)),
            BuilderValues::Fixed { bytes, .. } => {
                fixed_array(&self.field.data_type, self.rows, bytes.into(), nulls)?
            }
            BuilderValues::Packed { ends, bytes } => {
                let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
                let bytes = Buffer::from_vec(bytes);
                if self.field.data_type == DataType::Bytes {
                    Arc::new(BinaryArray::try_new(ends, bytes, nulls).map_err(invalid)?)
                } else {
                    Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(invalid)?)
                }
            }
            BuilderValues::List { ends, elements } => {
                let element = Arc::new(elements.field.to_arrow());
                let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
                let elements = elements.finish()?;
                Arc::new(ListArray::try_new(element, ends, elements, nulls).map_err(invalid)?)
            }
            BuilderValues::Record(members) => {
                let fields = members.iter().map(|member| member.field.to_arrow());
                let fields = fields.collect();
                let members: Vec<ArrayRef> = members
                    .into_iter()
                    .map(ColumnBuilder::finish)
                    .collect::<Result<_, _>>()?;
                Arc::new(
                    StructArray::try_new_with_length(fields, members, nulls, self.rows)
                        .map_err(invalid)?,
                )
            }
        })
    }
}

/// Appends a row of one text field.
pub(super) fn write_text(nullable: bool, text: Option<&[u8]>, bytes: &mut Vec<u8>) {
    if nullable {
        bytes.push(u8::from(text.is_some()));
    }
    if let Some(text) = text {
        write_length(text.len(), bytes);
        bytes.extend_from_slice(text);
    }
}

/// Reads the text of a row of one text field.
pub(super) fn read_text(nullable: bool, row: &[u8]) -> Result<Option<&[u8]>, RowError> {
    let mut reader = Reader(row);
    if nullable && !reader.flag()? {
        return match reader.0 {
            [] => Ok(None),
            rest => Err(RowError(format!(
                "{} bytes behind a missing text",
                rest.len()
            ))),
        };
    }
    let length = reader.length()?;
    let text = reader.take(length)?;
    match reader.0 {
        [] => Ok(Some(text)),
        rest => Err(RowError(format!("{} bytes behind a text", rest.len()))),
    }
}

/// Reads a row; has the bytes that are left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RowError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| RowError("a row ends in the middle of a value".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, RowError> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, RowError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(RowError(format!("{other} where 0 or 1 is expected"))),
        }
    }

    fn length(&mut self) -> Result<usize, RowError> {
        let mut length = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(length).map_err(|_| too_long());
            }
        }
        Err(too_long())
    }
}

/// The number of bytes of each value, for types of fixed width.
pub(super) fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some(1),
        DataType::Int16 | DataType::UInt16 => Some(2),
        DataType::Int32 | DataType::UInt32 | DataType::Float32 => Some(4),
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp => Some(8),
        DataType::Decimal { .. } => Some(16),
        DataType::Bool
        | DataType::Utf8
        | DataType::Bytes
        | DataType::Symbol(_)
        | DataType::List(_)
        | DataType::Record(_) => None,
    }
}

/// The values of a column, if each of them has this many bytes.
pub(super) fn fixed_bytes(column: &ArrayRef, width: usize) -> Option<Buffer> {
    if column.data_type().primitive_width() != Some(width) {
        return None;
    }
    let data = column.to_data();
    let values = data.buffers().first()?;
    Some(values.slice_with_length(data.offset() * width, data.len() * width))
}

/// The column of these values.
pub(super) fn fixed_array(
    data_type: &DataType,
    rows: usize,
    values: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, RowError> {
    ArrayData::builder(data_type.to_arrow())
        .len(rows)
        .add_buffer(values)
        .nulls(nulls)
        .build()
        .map(make_array)
        .map_err(|error| RowError(error.to_string()))
}

fn write_length(mut length: usize, bytes: &mut Vec<u8>) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn ends(capacity: usize) -> Vec<i32> {
    let mut ends = Vec::with_capacity(capacity + 1);
    ends.push(0);
    ends
}

fn end(length: usize) -> Result<i32, RowError> {
    i32::try_from(length).map_err(|_| too_long())
}

fn too_long() -> RowError {
    RowError("a column of rows is longer than 2 GiB".to_owned())
}
