//! Encodes rows as Avro. The columns are compared with the schema once; what is then left to
//! go wrong is a time that the schema's unit cannot tell.

use std::collections::HashMap;

use apache_avro::schema::{RecordField, UuidSchema};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMillisecondType, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use serde_json::{Value as Json, json};

use super::values::{double, float, identifier, range, whole};
use crate::avro::{
    AvroSchema, AvroType, ByteSize, RecordSchema, byte_size, type_name, write_bytes, write_long,
};
use crate::schema::{DataType, Field, Schema};
use crate::timestamp;

/// How rows of certain columns are written.
#[derive(Clone, Debug)]
pub struct AvroEncoder(Vec<WriteField>);

/// A field of a record, in the order of the schema.
#[derive(Clone, Debug)]
enum WriteField {
    Column(usize, Write),
    /// The default of a field that is no column.
    Default(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Write {
    Bool,
    Whole,
    Float,
    Double,
    /// Times in a unit of which ms have so many.
    Time(i64),
    Text,
    Bytes,
    Enum(HashMap<String, i64>),
    Decimal {
        size: ByteSize,
        /// What a number of units of the column is multiplied with.
        factor: i128,
    },
    List(Box<Write>),
    /// Records of a key and a value as a map.
    Entries(Box<Write>),
    Record(Vec<WriteField>),
    /// The places of null and of the value among a union's types.
    Union {
        null: Option<i64>,
        value: i64,
        write: Box<Write>,
    },
}

impl AvroEncoder {
    /// The error says why rows of these columns cannot be written with this schema.
    pub fn new(schema: &AvroSchema, columns: &Schema) -> Result<Self, String> {
        match schema.root() {
            AvroType::Record(record) => {
                fields(schema, record, &columns.fields, "").map(AvroEncoder)
            }
            other => Err(format!("the schema is {} and no record", type_name(other))),
        }
    }

    /// Adds a row; the error says which value the schema has no room for.
    pub fn write(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        write_fields(&self.0, columns, row, out)
    }
}

fn fields(
    schema: &AvroSchema,
    record: &RecordSchema,
    columns: &[Field],
    within: &str,
) -> Result<Vec<WriteField>, String> {
    let unread = columns.iter().find(|column| {
        let mut fields = record.fields.iter();
        !fields.any(|field| field.name == column.name)
    });
    if let Some(Field { name, .. }) = unread {
        return Err(format!("the schema has no field `{within}{name}`"));
    }
    let write = |field: &RecordField| {
        let name = &field.name;
        let column = columns.iter().position(|column| column.name == *name);
        match (column, &field.default) {
            (Some(at), _) => {
                let name = format!("{within}{name}");
                let write = plan(schema, &field.schema, &columns[at], &name)?;
                Ok(WriteField::Column(at, write))
            }
            (None, Some(default)) => {
                let mut bytes = Vec::new();
                schema.write_default(&field.schema, default, &mut bytes)?;
                Ok(WriteField::Default(bytes))
            }
            (None, None) => Err(format!(
                "rows have no `{within}{name}`, which has no default in the schema"
            )),
        }
    };
    record.fields.iter().map(write).collect()
}

/// How a column is written as a type of the schema.
fn plan(
    schema: &AvroSchema,
    written: &AvroType,
    column: &Field,
    name: &str,
) -> Result<Write, String> {
    use AvroType as A;
    use DataType as D;
    let written = schema.resolve(written);
    let mismatch = || {
        let mark = if column.nullable { "?" } else { "" };
        Err(format!(
            "`{name}` is {}{mark}, and {} in the schema",
            column.data_type,
            type_name(written)
        ))
    };
    if let A::Union(union) = written {
        let place = |at: usize| i64::try_from(at).unwrap_or(i64::MAX);
        let variants = || union.variants().iter().enumerate();
        let null = variants().find(|(_, it)| matches!(it, A::Null));
        if column.nullable && null.is_none() {
            return mismatch();
        }
        let present = Field::new(&column.name, column.data_type.clone(), false);
        let others = variants().filter(|(_, it)| !matches!(it, A::Null));
        let mut planned = others.map(|(at, it)| (at, plan(schema, it, &present, name)));
        let (first, good) = match planned.next() {
            Some((at, Ok(write))) => (None, Some((at, write))),
            Some((_, Err(why))) => (Some(why), None),
            None => return mismatch(),
        };
        let good = good.or_else(|| planned.find_map(|(at, it)| Some((at, it.ok()?))));
        return match (good, first) {
            (Some((at, write)), _) => Ok(Write::Union {
                null: null.map(|(at, _)| place(at)),
                value: place(at),
                write: Box::new(write),
            }),
            (None, Some(why)) if union.variants().len() <= 2 => Err(why),
            (None, _) => mismatch(),
        };
    }
    if column.nullable {
        return mismatch();
    }
    Ok(match (&column.data_type, written) {
        (D::Bool, A::Boolean) => Write::Bool,
        (D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16, A::Int | A::Long)
        | (D::Int64 | D::UInt32, A::Long) => Write::Whole,
        (D::Float32, A::Float) => Write::Float,
        (D::Float32 | D::Float64, A::Double) => Write::Double,
        (D::Timestamp, A::TimestampMillis | A::LocalTimestampMillis) => Write::Time(1),
        (D::Timestamp, A::TimestampMicros | A::LocalTimestampMicros) => Write::Time(1_000),
        (D::Timestamp, A::TimestampNanos | A::LocalTimestampNanos) => Write::Time(1_000_000),
        (D::Utf8 | D::Symbol(_), A::String | A::Bytes | A::Uuid(UuidSchema::String)) => Write::Text,
        (D::Symbol(symbols), A::Enum(it)) => {
            let numbers = it.symbols.iter().cloned().zip(0..);
            let numbers: HashMap<String, i64> = numbers.collect();
            if let Some(symbol) = symbols.iter().find(|symbol| !numbers.contains_key(*symbol)) {
                return Err(format!(
                    "`{name}` may be {symbol}, which is no symbol of {}",
                    type_name(written)
                ));
            }
            Write::Enum(numbers)
        }
        (D::Bytes, A::Bytes) => Write::Bytes,
        (D::UInt64, A::Decimal(it)) if let Some(size) = byte_size(written) => {
            decimal(20, 0, it.precision, it.scale, size).map_or_else(mismatch, Ok)?
        }
        (&D::Decimal { precision, scale }, A::Decimal(it))
            if let Some(size) = byte_size(written) =>
        {
            let planned = decimal(precision, scale, it.precision, it.scale, size);
            planned.map_or_else(mismatch, Ok)?
        }
        (D::List(element), A::Array(array)) => Write::List(Box::new(plan(
            schema,
            &array.items,
            element,
            &format!("{name}[]"),
        )?)),
        (D::List(element), A::Map(map)) => match &element.data_type {
            D::Record(members) if let [key, value] = &**members => {
                let is_entry = key.name == "key"
                    && matches!(key.data_type, D::Utf8 | D::Symbol(_))
                    && !key.nullable
                    && value.name == "value"
                    && !element.nullable;
                if !is_entry {
                    return mismatch();
                }
                let name = format!("{name}[].value");
                Write::Entries(Box::new(plan(schema, &map.types, value, &name)?))
            }
            _ => return mismatch(),
        },
        (D::Record(members), A::Record(record)) => {
            Write::Record(fields(schema, record, members, &format!("{name}."))?)
        }
        _ => return mismatch(),
    })
}

/// How decimals are written as others, without a digit lost.
fn decimal(
    precision: u8,
    scale: u8,
    written_precision: usize,
    written_scale: usize,
    size: ByteSize,
) -> Option<Write> {
    let behind = u32::try_from(written_scale.checked_sub(scale.into())?).ok()?;
    if usize::from(precision) + behind as usize > written_precision.min(38) {
        return None;
    }
    let factor = 10_i128.checked_pow(behind)?;
    Some(Write::Decimal { size, factor })
}

fn write_fields(
    fields: &[WriteField],
    columns: &[ArrayRef],
    row: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for field in fields {
        match field {
            WriteField::Column(column, write) => write.value(&columns[*column], row, out)?,
            WriteField::Default(bytes) => out.extend_from_slice(bytes),
        }
    }
    Ok(())
}

impl Write {
    fn value(&self, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Write::Bool => out.push(u8::from(array.as_boolean().value(row))),
            Write::Whole => write_long(out, whole(array, row)),
            Write::Float => out.extend_from_slice(&float(array, row)),
            Write::Double => out.extend_from_slice(&double(array, row)),
            Write::Time(per_ms) => {
                let ms = array.as_primitive::<TimestampMillisecondType>().value(row);
                let time = ms.checked_mul(*per_ms).ok_or_else(|| {
                    let time = timestamp::to_text(ms);
                    format!("{time} is too far away for a time of the schema's unit")
                })?;
                write_long(out, time);
            }
            Write::Text => write_bytes(out, array.as_string::<i32>().value(row).as_bytes()),
            Write::Bytes => write_bytes(out, array.as_binary::<i32>().value(row)),
            Write::Enum(numbers) => {
                let symbol = array.as_string::<i32>().value(row);
                // All symbols of the column have a number.
                write_long(out, numbers.get(symbol).copied().unwrap_or_default());
            }
            Write::Decimal { size, factor } => {
                let units = match array.data_type() {
                    ArrowType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
                    _ => array.as_primitive::<Decimal128Type>().value(row),
                };
                // The digits of the schema have room for it.
                let bytes = units.wrapping_mul(*factor).to_be_bytes();
                match size {
                    ByteSize::Any => write_bytes(out, shortest(&bytes)),
                    ByteSize::Fixed(size) => {
                        let sign = if units < 0 { 0xFF } else { 0 };
                        let shown = &bytes[bytes.len().saturating_sub(*size)..];
                        out.resize(out.len() + size.saturating_sub(shown.len()), sign);
                        out.extend_from_slice(shown);
                    }
                }
            }
            Write::List(write) => {
                let list = array.as_list::<i32>();
                let elements = range(list.value_offsets(), row);
                write_count(out, elements.len());
                for element in elements.clone() {
                    write.value(list.values(), element, out)?;
                }
                if !elements.is_empty() {
                    write_long(out, 0);
                }
            }
            Write::Entries(write) => {
                let list = array.as_list::<i32>();
                let entries = list.values().as_struct();
                let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
                let elements = range(list.value_offsets(), row);
                write_count(out, elements.len());
                for element in elements.clone() {
                    write_bytes(out, keys.value(element).as_bytes());
                    write.value(values, element, out)?;
                }
                if !elements.is_empty() {
                    write_long(out, 0);
                }
            }
            Write::Record(fields) => write_fields(fields, array.as_struct().columns(), row, out)?,
            Write::Union { null, value, write } => match null {
                Some(null) if array.is_null(row) => write_long(out, *null),
                _ => {
                    write_long(out, *value);
                    write.value(array, row, out)?;
                }
            },
        }
        Ok(())
    }
}

fn write_count(out: &mut Vec<u8>, count: usize) {
    write_long(out, i64::try_from(count).unwrap_or(i64::MAX));
}

/// The bytes of a number without those in front that only repeat its sign.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let repeats = |pair: &[u8]| match pair {
        [0, second] => second & 0x80 == 0,
        [0xFF, second] => second & 0x80 != 0,
        _ => false,
    };
    let repeated = bytes.windows(2).take_while(|pair| repeats(pair)).count();
    &bytes[repeated..]
}

/// A schema that has exactly these columns. The error says which field cannot be one of Avro.
pub fn schema_of(columns: &Schema, name: &str) -> Result<AvroSchema, String> {
    let record = record_of(&columns.fields, &identifier(name))?;
    AvroSchema::parse(&record.to_string(), &[])
}

fn record_of(fields: &[Field], name: &str) -> Result<Json, String> {
    let fields = fields.iter().map(|field| {
        if identifier(&field.name) != field.name {
            return Err(format!(
                "`{}` cannot be the name of a field in Avro, which has letters, digits and _",
                field.name
            ));
        }
        let written = type_of(field, &format!("{name}_{}", field.name))?;
        Ok(match field.nullable {
            true => json!({ "name": field.name, "type": written, "default": null }),
            false => json!({ "name": field.name, "type": written }),
        })
    });
    let fields: Vec<Json> = fields.collect::<Result<_, String>>()?;
    Ok(json!({ "type": "record", "name": name, "fields": fields }))
}

/// The type of a column; `name` is that of its type, if it needs one.
fn type_of(field: &Field, name: &str) -> Result<Json, String> {
    let written = match &field.data_type {
        DataType::Bool => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            json!("int")
        }
        DataType::Int64 | DataType::UInt32 => json!("long"),
        // A long has not all of them.
        DataType::UInt64 => decimal_of(20, 0),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 => json!("string"),
        DataType::Bytes => json!("bytes"),
        DataType::Decimal { precision, scale } => decimal_of(*precision, *scale),
        DataType::Timestamp => json!({ "type": "long", "logicalType": "timestamp-millis" }),
        DataType::Symbol(symbols) if symbols.iter().all(|it| identifier(it) == *it) => {
            json!({ "type": "enum", "name": name, "symbols": &**symbols })
        }
        DataType::Symbol(_) => json!("string"),
        DataType::List(element) => json!({ "type": "array", "items": type_of(element, name)? }),
        DataType::Record(fields) => record_of(fields, name)?,
    };
    Ok(match field.nullable {
        true => json!(["null", written]),
        false => written,
    })
}

fn decimal_of(precision: u8, scale: u8) -> Json {
    json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
}

#[cfg(test)]
mod tests;
