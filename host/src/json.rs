//! Writes rows as JSON objects, nulls as null.
//!
//! Numbers that JSON does not have are words, such as `"Infinity"`.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType as ArrowType;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::batch::Batch;
use crate::schema::Schema;
use crate::{decimal, non_finite, timestamp};

/// A row of a batch as JSON.
pub fn render_row(batch: &Batch, row: usize) -> String {
    render_columns(&batch.schema, &batch.columns, row)
}

/// A row of columns with this schema as JSON.
pub(crate) fn render_columns(schema: &Schema, columns: &[ArrayRef], row: usize) -> String {
    let names = schema.fields.iter().map(|field| field.name.as_str());
    render(JsonColumns::new(names.zip(columns)), row)
}

/// The same with decimals in quotes, for readers that make floats of numbers.
pub(crate) fn render_exact_row(batch: &Batch, row: usize) -> String {
    render_exact_columns(&batch.schema, &batch.columns, row)
}

/// A row of columns with this schema, with decimals in quotes.
pub(crate) fn render_exact_columns(schema: &Schema, columns: &[ArrayRef], row: usize) -> String {
    let names = schema.fields.iter().map(|field| field.name.as_str());
    let mut columns = JsonColumns::new(names.zip(columns));
    columns.quote_decimals();
    render(columns, row)
}

/// A row of Arrow's own batches as JSON.
pub(crate) fn render_record(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema_ref();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    render(JsonColumns::new(names.zip(rows.columns())), row)
}

/// A value as JSON, as other text formats write lists and records.
pub(crate) fn write_value(out: &mut Vec<u8>, array: &ArrayRef, row: usize) {
    JsonColumn::new(array).write(out, row);
}

fn render(columns: JsonColumns<'_>, row: usize) -> String {
    let mut text = Vec::new();
    columns.write(&mut text, row);
    String::from_utf8(text).unwrap_or_else(|_| unreachable!("JSON is written as UTF-8"))
}

/// Columns with their types looked up once, not for each row.
pub(crate) struct JsonColumns<'a> {
    /// What precedes each value (comma, name and colon), and the value's column.
    fields: Vec<(Vec<u8>, JsonColumn<'a>)>,
}

/// The values of a column, and which rows have one.
struct JsonColumn<'a> {
    array: &'a dyn Array,
    values: JsonValues<'a>,
}

enum JsonValues<'a> {
    Bool(&'a arrow_array::BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal {
        units: &'a [i128],
        scale: u8,
        /// What is before and behind each.
        quote: &'static str,
    },
    Timestamp(&'a [i64]),
    Utf8(&'a arrow_array::StringArray),
    Bytes(&'a arrow_array::BinaryArray),
    List(&'a [i32], Box<JsonColumn<'a>>),
    Record(JsonColumns<'a>),
    /// A type that no pipeline has.
    Unknown,
}

impl<'a> JsonColumns<'a> {
    pub fn new(fields: impl Iterator<Item = (&'a str, &'a ArrayRef)>) -> Self {
        let fields = fields
            .enumerate()
            .map(|(index, (name, array))| {
                let mut front = Vec::new();
                if index > 0 {
                    front.push(b',');
                }
                write_json(&mut front, &name);
                front.push(b':');
                (front, JsonColumn::new(array))
            })
            .collect();
        JsonColumns { fields }
    }

    fn quote_decimals(&mut self) {
        for (_, column) in &mut self.fields {
            column.quote_decimals();
        }
    }

    pub fn write(&self, out: &mut Vec<u8>, row: usize) {
        out.push(b'{');
        for (front, column) in &self.fields {
            out.extend_from_slice(front);
            column.write(out, row);
        }
        out.push(b'}');
    }
}

impl<'a> JsonColumn<'a> {
    fn new(array: &'a ArrayRef) -> Self {
        let values = match array.data_type() {
            ArrowType::Boolean => JsonValues::Bool(array.as_boolean()),
            ArrowType::Int8 => JsonValues::Int8(array.as_primitive::<Int8Type>().values()),
            ArrowType::Int16 => JsonValues::Int16(array.as_primitive::<Int16Type>().values()),
            ArrowType::Int32 => JsonValues::Int32(array.as_primitive::<Int32Type>().values()),
            ArrowType::Int64 => JsonValues::Int64(array.as_primitive::<Int64Type>().values()),
            ArrowType::UInt8 => JsonValues::UInt8(array.as_primitive::<UInt8Type>().values()),
            ArrowType::UInt16 => JsonValues::UInt16(array.as_primitive::<UInt16Type>().values()),
            ArrowType::UInt32 => JsonValues::UInt32(array.as_primitive::<UInt32Type>().values()),
            ArrowType::UInt64 => JsonValues::UInt64(array.as_primitive::<UInt64Type>().values()),
            ArrowType::Float32 => JsonValues::Float32(array.as_primitive::<Float32Type>().values()),
            ArrowType::Float64 => JsonValues::Float64(array.as_primitive::<Float64Type>().values()),
            ArrowType::Decimal128(_, scale) => JsonValues::Decimal {
                units: array.as_primitive::<Decimal128Type>().values(),
                scale: scale.unsigned_abs(),
                quote: "",
            },
            ArrowType::Timestamp(_, _) => array
                .as_primitive_opt::<TimestampMillisecondType>()
                .map_or(JsonValues::Unknown, |array| {
                    JsonValues::Timestamp(array.values())
                }),
            ArrowType::Utf8 => JsonValues::Utf8(array.as_string()),
            ArrowType::Binary => JsonValues::Bytes(array.as_binary()),
            ArrowType::List(_) => {
                let list = array.as_list::<i32>();
                JsonValues::List(
                    list.value_offsets(),
                    Box::new(JsonColumn::new(list.values())),
                )
            }
            ArrowType::Struct(fields) => {
                let names = fields.iter().map(|field| field.name().as_str());
                JsonValues::Record(JsonColumns::new(names.zip(array.as_struct().columns())))
            }
            _ => JsonValues::Unknown,
        };
        JsonColumn { array, values }
    }

    fn quote_decimals(&mut self) {
        match &mut self.values {
            JsonValues::Decimal { quote, .. } => *quote = "\"",
            JsonValues::List(_, elements) => elements.quote_decimals(),
            JsonValues::Record(columns) => columns.quote_decimals(),
            _ => {}
        }
    }

    fn write(&self, out: &mut Vec<u8>, row: usize) {
        if self.array.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.values {
            JsonValues::Bool(values) => write_json(out, &values.value(row)),
            JsonValues::Int8(values) => write_json(out, &values[row]),
            JsonValues::Int16(values) => write_json(out, &values[row]),
            JsonValues::Int32(values) => write_json(out, &values[row]),
            JsonValues::Int64(values) => write_json(out, &values[row]),
            JsonValues::UInt8(values) => write_json(out, &values[row]),
            JsonValues::UInt16(values) => write_json(out, &values[row]),
            JsonValues::UInt32(values) => write_json(out, &values[row]),
            JsonValues::UInt64(values) => write_json(out, &values[row]),
            JsonValues::Float32(values) => match non_finite::word(values[row].into()) {
                Some(word) => write_json(out, word),
                None => write_json(out, &values[row]),
            },
            JsonValues::Float64(values) => match non_finite::word(values[row]) {
                Some(word) => write_json(out, word),
                None => write_json(out, &values[row]),
            },
            // All digits: who reads them as a number of another type decides about rounding.
            JsonValues::Decimal {
                units,
                scale,
                quote,
            } => {
                out.extend_from_slice(quote.as_bytes());
                decimal::write(out, units[row], *scale);
                out.extend_from_slice(quote.as_bytes());
            }
            // Years that RFC 3339 cannot write are numbers, of ms.
            JsonValues::Timestamp(values) if !timestamp::is_plausible(values[row]) => {
                write_json(out, &values[row]);
            }
            JsonValues::Timestamp(values) => {
                out.push(b'"');
                timestamp::write(out, values[row]);
                out.push(b'"');
            }
            JsonValues::Utf8(values) => write_json(out, values.value(row)),
            JsonValues::Bytes(values) => {
                out.push(b'"');
                out.extend_from_slice(BASE64_STANDARD.encode(values.value(row)).as_bytes());
                out.push(b'"');
            }
            JsonValues::List(offsets, elements) => {
                out.push(b'[');
                for element in offsets[row]..offsets[row + 1] {
                    if element > offsets[row] {
                        out.push(b',');
                    }
                    elements.write(out, element as usize);
                }
                out.push(b']');
            }
            JsonValues::Record(columns) => columns.write(out, row),
            JsonValues::Unknown => out.extend_from_slice(b"null"),
        }
    }
}

/// Whether a text is a value of JSON other than a text in quotes, and no more than one.
pub(crate) fn is_bare_value(text: &[u8]) -> bool {
    match text {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => true,
        [] | [b'"', ..] => false,
        text => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
    }
}

pub(crate) fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing to memory does not fail, and these values are all JSON has.
    serde_json::to_writer(out, value)
        .unwrap_or_else(|error| unreachable!("a plain value is JSON: {error}"));
}
