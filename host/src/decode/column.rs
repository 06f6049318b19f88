//! Builds columns one row after another. The last row may turn out to be bad,
//! and is removed again.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{FieldRef, Fields};

use super::fault::{RowFault, excerpt};
use crate::decimal::{self, NotDecimal};
use crate::schema::{DataType, Field};
use crate::timestamp::{self, CutTimes, ReadTime, TimestampFormat};

/// One column. Its values and validity have as many entries as there are rows,
/// except while a value is being added.
#[derive(Clone, Debug)]
pub(super) struct ColumnBuilder {
    pub data_type: DataType,
    pub values: ValuesBuilder,
    rows: usize,
    /// Whether each row has a value; `None` if the column cannot have nulls.
    valid: Option<Vec<bool>>,
}

#[derive(Clone, Debug)]
pub(super) enum ValuesBuilder {
    Bool(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Timestamp(TimesBuilder),
    Decimal(Vec<i128>, DecimalDigits),
    Utf8(BytesBuilder),
    Symbol(BytesBuilder, Arc<[String]>),
    Bytes(BytesBuilder),
    List(Box<List>),
    Record(Box<RecordBuilder>),
}

/// Times in ms.
#[derive(Clone, Debug)]
pub(super) struct TimesBuilder {
    pub values: Vec<i64>,
    pub format: TimestampFormat,
    /// The values that were rounded down, in ascending order.
    cut: Vec<u32>,
    /// One of them, as it was written, and in ms.
    cut_example: Option<(String, i64)>,
}

/// How many digits a decimal has: all, and those behind the point.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecimalDigits {
    pub precision: u8,
    pub scale: u8,
    /// Where texts in JSON are the base64 of a whole number: how many of its digits are behind
    /// the point.
    pub unscaled: Option<i64>,
}

impl DecimalDigits {
    pub fn parse(self, text: &[u8]) -> Result<i128, NotDecimal> {
        decimal::parse(text, self.precision, self.scale)
    }

    /// Units of a number with so many digits behind the point.
    pub fn rescale(self, units: i128, scale: u8) -> Result<i128, NotDecimal> {
        decimal::rescale(units, scale, self.precision, self.scale)
    }
}

/// Texts or byte strings, one after another.
#[derive(Clone, Debug)]
pub(super) struct BytesBuilder {
    /// For texts always valid UTF-8, and cut between characters.
    pub data: Vec<u8>,
    offsets: Offsets,
}

#[derive(Clone, Debug)]
pub(super) struct List {
    pub element: ColumnBuilder,
    field: FieldRef,
    offsets: Offsets,
}

/// The end of each row's part of something, after a first zero: Arrow's own
/// layout, so that nothing is copied.
#[derive(Clone, Debug)]
struct Offsets(Vec<i32>);

#[derive(Clone, Debug)]
pub(super) struct RecordBuilder {
    pub fields: Vec<NamedColumn>,
    arrow: Fields,
    rows: usize,
}

#[derive(Clone, Debug)]
pub(super) struct NamedColumn {
    pub name: String,
    pub column: ColumnBuilder,
}

impl ColumnBuilder {
    /// `formats` yields the formats of the timestamps, depth first.
    pub fn new(field: &Field, formats: &mut impl Iterator<Item = TimestampFormat>) -> Self {
        let values = match &field.data_type {
            DataType::Bool => ValuesBuilder::Bool(Vec::new()),
            DataType::Int8 => ValuesBuilder::Int8(Vec::new()),
            DataType::Int16 => ValuesBuilder::Int16(Vec::new()),
            DataType::Int32 => ValuesBuilder::Int32(Vec::new()),
            DataType::Int64 => ValuesBuilder::Int64(Vec::new()),
            DataType::UInt8 => ValuesBuilder::UInt8(Vec::new()),
            DataType::UInt16 => ValuesBuilder::UInt16(Vec::new()),
            DataType::UInt32 => ValuesBuilder::UInt32(Vec::new()),
            DataType::UInt64 => ValuesBuilder::UInt64(Vec::new()),
            DataType::Float32 => ValuesBuilder::Float32(Vec::new()),
            DataType::Float64 => ValuesBuilder::Float64(Vec::new()),
            DataType::Timestamp => ValuesBuilder::Timestamp(TimesBuilder {
                values: Vec::new(),
                format: formats.next().unwrap_or_default(),
                cut: Vec::new(),
                cut_example: None,
            }),
            &DataType::Decimal { precision, scale } => {
                let digits = DecimalDigits {
                    precision,
                    scale,
                    unscaled: None,
                };
                ValuesBuilder::Decimal(Vec::new(), digits)
            }
            DataType::Utf8 => ValuesBuilder::Utf8(BytesBuilder::new()),
            DataType::Symbol(symbols) => {
                ValuesBuilder::Symbol(BytesBuilder::new(), symbols.clone())
            }
            DataType::Bytes => ValuesBuilder::Bytes(BytesBuilder::new()),
            DataType::List(element) => ValuesBuilder::List(Box::new(List {
                element: ColumnBuilder::new(element, formats),
                field: Arc::new(element.to_arrow()),
                offsets: Offsets::new(),
            })),
            DataType::Record(fields) => {
                ValuesBuilder::Record(Box::new(RecordBuilder::new(fields, formats)))
            }
        };
        ColumnBuilder {
            data_type: field.data_type.clone(),
            values,
            rows: 0,
            valid: field.nullable.then(Vec::new),
        }
    }

    pub fn is_nullable(&self) -> bool {
        self.valid.is_some()
    }

    /// Ends the next row's value: what was added to the values belongs to it.
    #[inline]
    pub fn end_value(&mut self) {
        self.rows += 1;
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
    }

    /// Adds a null row. In a column without nulls, as below a record that is
    /// null, the row has an empty value.
    pub fn push_null(&mut self) {
        self.rows += 1;
        if let Some(valid) = &mut self.valid {
            valid.push(false);
        }
        match &mut self.values {
            ValuesBuilder::Bool(values) => values.push(false),
            ValuesBuilder::Int8(values) => values.push(0),
            ValuesBuilder::Int16(values) => values.push(0),
            ValuesBuilder::Int32(values) => values.push(0),
            ValuesBuilder::Int64(values) => values.push(0),
            ValuesBuilder::Timestamp(times) => times.values.push(0),
            ValuesBuilder::UInt8(values) => values.push(0),
            ValuesBuilder::UInt16(values) => values.push(0),
            ValuesBuilder::UInt32(values) => values.push(0),
            ValuesBuilder::UInt64(values) => values.push(0),
            ValuesBuilder::Float32(values) => values.push(0.0),
            ValuesBuilder::Float64(values) => values.push(0.0),
            ValuesBuilder::Decimal(values, _) => values.push(0),
            ValuesBuilder::Utf8(bytes)
            | ValuesBuilder::Symbol(bytes, _)
            | ValuesBuilder::Bytes(bytes) => bytes.end(),
            ValuesBuilder::List(list) => list.end(),
            ValuesBuilder::Record(record) => record.push_null(),
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Removes all but the first `rows` rows, and any unfinished value.
    pub fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
        match &mut self.values {
            ValuesBuilder::Bool(values) => values.truncate(rows),
            ValuesBuilder::Int8(values) => values.truncate(rows),
            ValuesBuilder::Int16(values) => values.truncate(rows),
            ValuesBuilder::Int32(values) => values.truncate(rows),
            ValuesBuilder::Int64(values) => values.truncate(rows),
            ValuesBuilder::Timestamp(times) => times.truncate(rows),
            ValuesBuilder::UInt8(values) => values.truncate(rows),
            ValuesBuilder::UInt16(values) => values.truncate(rows),
            ValuesBuilder::UInt32(values) => values.truncate(rows),
            ValuesBuilder::UInt64(values) => values.truncate(rows),
            ValuesBuilder::Float32(values) => values.truncate(rows),
            ValuesBuilder::Float64(values) => values.truncate(rows),
            ValuesBuilder::Decimal(values, _) => values.truncate(rows),
            ValuesBuilder::Utf8(bytes)
            | ValuesBuilder::Symbol(bytes, _)
            | ValuesBuilder::Bytes(bytes) => {
                let end = bytes.offsets.truncate(rows);
                bytes.data.truncate(end);
            }
            ValuesBuilder::List(list) => {
                let end = list.offsets.truncate(rows);
                list.element.truncate(end);
            }
            ValuesBuilder::Record(record) => record.truncate(rows),
        }
    }

    /// Hands over the times in it, also those in lists and records.
    fn each_times(&mut self, each: &mut dyn FnMut(&mut TimesBuilder)) {
        match &mut self.values {
            ValuesBuilder::Timestamp(times) => each(times),
            ValuesBuilder::List(list) => list.element.each_times(each),
            ValuesBuilder::Record(record) => {
                for field in &mut record.fields {
                    field.column.each_times(each);
                }
            }
            _ => {}
        }
    }

    /// Takes the column built so far; what is left is empty, with the same
    /// capacity.
    pub fn take(&mut self) -> ArrayRef {
        self.rows = 0;
        let nulls = self.valid.as_mut().and_then(take_nulls);
        match &mut self.values {
            ValuesBuilder::Bool(values) => Arc::new(BooleanArray::new(take(values).into(), nulls)),
            ValuesBuilder::Int8(values) => primitive::<Int8Type>(values, nulls),
            ValuesBuilder::Int16(values) => primitive::<Int16Type>(values, nulls),
            ValuesBuilder::Int32(values) => primitive::<Int32Type>(values, nulls),
            ValuesBuilder::Int64(values) => primitive::<Int64Type>(values, nulls),
            ValuesBuilder::UInt8(values) => primitive::<UInt8Type>(values, nulls),
            ValuesBuilder::UInt16(values) => primitive::<UInt16Type>(values, nulls),
            ValuesBuilder::UInt32(values) => primitive::<UInt32Type>(values, nulls),
            ValuesBuilder::UInt64(values) => primitive::<UInt64Type>(values, nulls),
            ValuesBuilder::Float32(values) => primitive::<Float32Type>(values, nulls),
            ValuesBuilder::Float64(values) => primitive::<Float64Type>(values, nulls),
            ValuesBuilder::Timestamp(times) => {
                let values = ScalarBuffer::from(take(&mut times.values));
                let array = PrimitiveArray::<TimestampMillisecondType>::new(values, nulls);
                Arc::new(array.with_data_type(DataType::Timestamp.to_arrow()))
            }
            ValuesBuilder::Decimal(values, _) => {
                let values = ScalarBuffer::from(take(values));
                let array = PrimitiveArray::<Decimal128Type>::new(values, nulls);
                Arc::new(array.with_data_type(self.data_type.to_arrow()))
            }
            ValuesBuilder::Utf8(bytes) | ValuesBuilder::Symbol(bytes, _) => {
                let (offsets, data) = bytes.take();
                Arc::new(StringArray::new(offsets, data.into(), nulls))
            }
            ValuesBuilder::Bytes(bytes) => {
                let (offsets, data) = bytes.take();
                Arc::new(BinaryArray::new(offsets, data.into(), nulls))
            }
            ValuesBuilder::List(list) => {
                let offsets = list.offsets.take();
                let elements = list.element.take();
                Arc::new(ListArray::new(list.field.clone(), offsets, elements, nulls))
            }
            ValuesBuilder::Record(record) => {
                let rows = record.rows;
                let columns = record.take();
                let arrow = record.arrow.clone();
                // The length has to be given for records without fields.
                StructArray::try_new_with_length(arrow, columns, nulls, rows)
                    .map(|array| Arc::new(array) as ArrayRef)
                    .unwrap_or_else(|error| {
                        unreachable!("columns are built by their schema: {error}")
                    })
            }
        }
    }
}

impl TimesBuilder {
    /// Adds a time that was read from this text.
    pub fn push(&mut self, time: ReadTime, text: &[u8]) {
        if time.is_cut {
            self.cut.push(self.values.len() as u32);
            self.cut_example
                .get_or_insert_with(|| (excerpt(text), time.ms));
        }
        self.values.push(time.ms);
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        while self.cut.pop_if(|cut| *cut as usize >= rows).is_some() {}
        if self.cut.is_empty() {
            self.cut_example = None;
        }
    }
}

impl BytesBuilder {
    fn new() -> Self {
        BytesBuilder {
            data: Vec::new(),
            offsets: Offsets::new(),
        }
    }

    /// Ends a value: the bytes since the last end belong to it.
    #[inline]
    pub fn end(&mut self) {
        self.offsets.push(self.data.len());
    }

    /// The bytes since the last end.
    #[inline]
    pub fn unfinished(&self) -> &[u8] {
        &self.data[self.offsets.last()..]
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Vec<u8>) {
        (self.offsets.take(), take(&mut self.data))
    }
}

impl List {
    /// How many elements there are since the last end.
    pub fn unfinished(&self) -> usize {
        self.element.len() - self.offsets.last()
    }

    /// Ends a list: the elements since the last end belong to it.
    pub fn end(&mut self) {
        self.offsets.push(self.element.len());
    }
}

impl Offsets {
    fn new() -> Self {
        Offsets(vec![0])
    }

    #[inline]
    fn last(&self) -> usize {
        self.0.last().map_or(0, |&end| end as usize)
    }

    #[inline]
    fn push(&mut self, end: usize) {
        // Decoded values are no larger than their block, which is far smaller
        // than i32 can count.
        self.0.push(end as i32);
    }

    /// Removes all but the first `rows` rows, and returns where the last one
    /// ends.
    fn truncate(&mut self, rows: usize) -> usize {
        self.0.truncate(rows + 1);
        self.last()
    }

    fn take(&mut self) -> OffsetBuffer<i32> {
        let offsets = take(&mut self.0);
        self.0.push(0);
        OffsetBuffer::new(offsets.into())
    }
}

impl RecordBuilder {
    pub fn new(fields: &[Field], formats: &mut impl Iterator<Item = TimestampFormat>) -> Self {
        RecordBuilder {
            fields: fields
                .iter()
                .map(|field| NamedColumn {
                    name: field.name.clone(),
                    column: ColumnBuilder::new(field, formats),
                })
                .collect(),
            arrow: fields.iter().map(Field::to_arrow).collect(),
            rows: 0,
        }
    }

    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Ends a row; every field must have its value.
    #[inline]
    pub fn end(&mut self) {
        self.rows += 1;
    }

    /// Fills fields that the row does not have with null, if they may be null.
    #[inline(never)]
    pub fn fill_missing(&mut self) -> Result<(), RowFault> {
        for field in &mut self.fields {
            if field.column.len() > self.rows {
                continue;
            }
            if !field.column.is_nullable() {
                return Err(RowFault::new("is missing").within(&field.name));
            }
            field.column.push_null();
        }
        Ok(())
    }

    /// Adds a row without a value in any field.
    pub fn push_null(&mut self) {
        for field in &mut self.fields {
            field.column.push_null();
        }
        self.rows += 1;
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        for field in &mut self.fields {
            field.column.truncate(rows);
        }
    }

    /// The times that were rounded down since the last call.
    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        let mut all: Option<CutTimes> = None;
        for NamedColumn { name, column } in &mut self.fields {
            column.each_times(&mut |times| {
                let values = std::mem::take(&mut times.cut).len() as u64;
                let example = times.cut_example.take().filter(|_| values > 0);
                match (&mut all, example) {
                    (Some(all), _) => all.values += values,
                    (None, Some((text, ms))) => {
                        let read = timestamp::to_text(ms);
                        let example = format!("`{text}` of field `{name}` was read as {read}");
                        all = Some(CutTimes { values, example });
                    }
                    (None, None) => {}
                }
            });
        }
        all
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        self.fields
            .iter_mut()
            .map(|field| field.column.take())
            .collect()
    }
}

fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len() + values.len() / 16;
    std::mem::replace(values, Vec::with_capacity(room))
}

fn take_nulls(valid: &mut Vec<bool>) -> Option<NullBuffer> {
    let nulls = NullBuffer::from(take(valid));
    (nulls.null_count() > 0).then_some(nulls)
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(take(values).into(), nulls))
}
