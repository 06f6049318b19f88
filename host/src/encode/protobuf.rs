//! Encodes rows as Protobuf. The columns are compared with the schema once; what is then left
//! to go wrong is a time that no `Timestamp` tells, and two values where the schema has one.

use std::collections::HashMap;
use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef};

use super::values::{double, float, identifier, range, whole};
use crate::decimal;
use crate::protobuf::{
    Cardinality, FieldDescriptor, Kind, MessageDescriptor, ProtoFile, ProtoSchema, is_packed,
    type_name, wrapped,
};
use crate::schema::{DataType, Field, Schema};
use crate::timestamp;
use crate::varint;

/// How rows of certain columns are written.
#[derive(Clone, Debug)]
pub struct ProtobufEncoder(WriteMessage);

#[derive(Clone, Debug)]
struct WriteMessage {
    /// By their numbers.
    fields: Vec<WriteField>,
    /// Columns of which a row has a value of at most one.
    oneofs: Vec<Oneof>,
}

#[derive(Clone, Debug)]
struct Oneof {
    name: String,
    columns: Vec<(usize, String)>,
}

#[derive(Clone, Debug)]
struct WriteField {
    column: usize,
    number: u32,
    write: Write,
    /// A zero is not written: what is not there is zero.
    is_zero_absent: bool,
}

#[derive(Clone, Debug)]
enum Write {
    Varint,
    ZigZag,
    Fixed32,
    Fixed64,
    Float,
    Double,
    Bool,
    Text,
    Bytes,
    /// As a text.
    Decimal(u8),
    Enum(HashMap<String, i32>),
    Time,
    /// A message with the value as its field.
    Wrapped(Box<WriteField>),
    Message(WriteMessage),
    /// A message between two keys, as proto2 has them.
    Group(WriteMessage),
    List {
        element: Box<Write>,
        is_packed: bool,
    },
}

/// How the bytes of a value are found, as the lowest bits of a field's key.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

impl ProtobufEncoder {
    /// The error says why rows of these columns cannot be written with this schema.
    pub fn new(schema: &ProtoSchema, columns: &Schema) -> Result<Self, String> {
        message(schema.message(), &columns.fields, "").map(ProtobufEncoder)
    }

    /// Adds a row; the error says which value the schema has no room for.
    pub fn write(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.0.write(columns, row, out)
    }
}

fn message(
    schema: &MessageDescriptor,
    columns: &[Field],
    within: &str,
) -> Result<WriteMessage, String> {
    let absent = schema.fields().find(|field| {
        field.cardinality() == Cardinality::Required
            && columns.iter().all(|column| column.name != field.name())
    });
    if let Some(field) = absent {
        let name = field.name();
        return Err(format!(
            "rows have no `{within}{name}`, which the schema requires"
        ));
    }
    let mut fields = Vec::new();
    let mut oneofs: Vec<Oneof> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let name = format!("{within}{}", column.name);
        let field = schema.get_field_by_name(&column.name);
        let field = field.ok_or_else(|| format!("the schema has no field `{name}`"))?;
        fields.push(WriteField {
            column: at,
            number: field.number(),
            write: plan(&field, column, &name)?,
            is_zero_absent: !field.supports_presence(),
        });
        if let Some(oneof) = field.containing_oneof() {
            let member = (at, name);
            match oneofs.iter_mut().find(|it| it.name == oneof.name()) {
                Some(known) => known.columns.push(member),
                None => oneofs.push(Oneof {
                    name: oneof.name().to_owned(),
                    columns: vec![member],
                }),
            }
        }
    }
    fields.sort_by_key(|field| field.number);
    oneofs.retain(|oneof| oneof.columns.len() > 1);
    Ok(WriteMessage { fields, oneofs })
}

/// How a column is written as a field of the schema.
fn plan(field: &FieldDescriptor, column: &Field, name: &str) -> Result<Write, String> {
    let is_entry = field.parent_message().is_map_entry();
    let may_lack = field.supports_presence() && !is_entry;
    if column.nullable && (!may_lack || field.cardinality() == Cardinality::Required) {
        let help = match field.cardinality() {
            Cardinality::Optional if !is_entry => ": it would have to be `optional`",
            _ => "",
        };
        return Err(format!(
            "`{name}` may be null, which {} in the schema cannot be{help}",
            type_name(field)
        ));
    }
    let mismatch = || mismatch(name, column, &type_name(field));
    let value = |column: &Field, name: &str| {
        value(&field.kind(), column, name).map(|write| match write {
            Some(Write::Message(message)) if field.is_group() => Some(Write::Group(message)),
            write => write,
        })
    };
    if field.cardinality() != Cardinality::Repeated {
        return value(column, name)?.ok_or_else(mismatch);
    }
    let DataType::List(element) = &column.data_type else {
        return Err(mismatch());
    };
    let name = format!("{name}[]");
    if element.nullable {
        return Err(format!(
            "`{name}` may be null, which no element is in Protobuf"
        ));
    }
    let element = value(element, &name)?.ok_or_else(mismatch)?;
    Ok(Write::List {
        element: Box::new(element),
        is_packed: is_packed(field),
    })
}

/// How a value is written; `None` if it cannot be of this type.
fn value(kind: &Kind, column: &Field, name: &str) -> Result<Option<Write>, String> {
    use DataType as D;
    Ok(Some(match (&column.data_type, kind) {
        (D::Bool, Kind::Bool) => Write::Bool,
        (D::Float32, Kind::Float) => Write::Float,
        (D::Float32 | D::Float64, Kind::Double) => Write::Double,
        (D::Utf8 | D::Symbol(_), Kind::String | Kind::Bytes) => Write::Text,
        (D::Bytes, Kind::Bytes) => Write::Bytes,
        (D::Decimal { scale, .. }, Kind::String) => Write::Decimal(*scale),
        (D::Symbol(symbols), Kind::Enum(it)) => {
            let values = it.values();
            let numbers = values.map(|value| (value.name().to_owned(), value.number()));
            let numbers: HashMap<String, i32> = numbers.collect();
            if let Some(symbol) = symbols.iter().find(|symbol| !numbers.contains_key(*symbol)) {
                return Err(format!(
                    "`{name}` may be {symbol}, which is no value of {}",
                    it.full_name()
                ));
            }
            Write::Enum(numbers)
        }
        (D::Record(members), Kind::Message(it)) => {
            Write::Message(message(it, members, &format!("{name}."))?)
        }
        (D::Timestamp, Kind::Message(it)) if it.full_name() == "google.protobuf.Timestamp" => {
            Write::Time
        }
        (_, Kind::Message(it)) if let Some(wrapped) = wrapped(it) => {
            match value(&wrapped, column, name)? {
                Some(write) => Write::Wrapped(Box::new(WriteField {
                    column: 0,
                    number: 1,
                    write,
                    is_zero_absent: true,
                })),
                None => return Ok(None),
            }
        }
        (data_type, kind) => return Ok(whole_number(data_type, kind)),
    }))
}

/// How a whole number is written as one that is not smaller.
fn whole_number(data_type: &DataType, kind: &Kind) -> Option<Write> {
    use DataType as D;
    let (bits, is_signed) = match data_type {
        D::Int8 => (8, true),
        D::Int16 => (16, true),
        D::Int32 => (32, true),
        D::Int64 => (64, true),
        D::UInt8 => (8, false),
        D::UInt16 => (16, false),
        D::UInt32 => (32, false),
        D::UInt64 => (64, false),
        _ => return None,
    };
    let (written_bits, written_is_signed, write) = match kind {
        Kind::Int32 => (32, true, Write::Varint),
        Kind::Int64 => (64, true, Write::Varint),
        Kind::Uint32 => (32, false, Write::Varint),
        Kind::Uint64 => (64, false, Write::Varint),
        Kind::Sint32 => (32, true, Write::ZigZag),
        Kind::Sint64 => (64, true, Write::ZigZag),
        Kind::Fixed32 => (32, false, Write::Fixed32),
        Kind::Fixed64 => (64, false, Write::Fixed64),
        Kind::Sfixed32 => (32, true, Write::Fixed32),
        Kind::Sfixed64 => (64, true, Write::Fixed64),
        _ => return None,
    };
    let fits = match (is_signed, written_is_signed) {
        (true, false) => false,
        // The sign takes one.
        (false, true) => bits < written_bits,
        _ => bits <= written_bits,
    };
    fits.then_some(write)
}

fn mismatch(name: &str, column: &Field, written: &str) -> String {
    let mark = if column.nullable { "?" } else { "" };
    format!(
        "`{name}` is {}{mark}, and {written} in the schema",
        column.data_type
    )
}

impl WriteMessage {
    fn write(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        for oneof in &self.oneofs {
            let members = oneof.columns.iter();
            let mut given = members.filter(|(column, _)| columns[*column].is_valid(row));
            if let (Some((_, first)), Some((_, second))) = (given.next(), given.next()) {
                return Err(format!(
                    "`{first}` and `{second}` have values, of which `{}` of the schema has one",
                    oneof.name
                ));
            }
        }
        for field in &self.fields {
            field.write(&columns[field.column], row, out)?;
        }
        Ok(())
    }
}

impl WriteField {
    fn write(&self, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if array.is_null(row) {
            return Ok(());
        }
        let Write::List { element, is_packed } = &self.write else {
            let before = out.len();
            write_key(out, self.number, self.write.wire());
            let value = out.len();
            self.write.value(array, row, out)?;
            self.write.end(self.number, out);
            // A length, too, is zero only of what is empty.
            if self.is_zero_absent && out[value..].iter().all(|byte| *byte == 0) {
                out.truncate(before);
            }
            return Ok(());
        };
        let list = array.as_list::<i32>();
        let elements = range(list.value_offsets(), row);
        if elements.is_empty() {
            return Ok(());
        }
        if *is_packed {
            write_key(out, self.number, LENGTH);
            return with_length(out, |out| {
                let mut elements = elements;
                elements.try_for_each(|row| element.value(list.values(), row, out))
            });
        }
        for row in elements {
            write_key(out, self.number, element.wire());
            element.value(list.values(), row, out)?;
            element.end(self.number, out);
        }
        Ok(())
    }
}

impl Write {
    fn wire(&self) -> u32 {
        match self {
            Write::Varint | Write::ZigZag | Write::Bool | Write::Enum(_) => VARINT,
            Write::Fixed64 | Write::Double => FIXED64,
            Write::Fixed32 | Write::Float => FIXED32,
            Write::Text
            | Write::Bytes
            | Write::Decimal(_)
            | Write::Time
            | Write::Wrapped(_)
            | Write::Message(_)
            | Write::List { .. } => LENGTH,
            Write::Group(_) => GROUP_START,
        }
    }

    /// Ends a value whose end is written.
    fn end(&self, number: u32, out: &mut Vec<u8>) {
        if matches!(self, Write::Group(_)) {
            write_key(out, number, GROUP_END);
        }
    }

    fn value(&self, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Write::Varint => varint::write(out, whole(array, row).cast_unsigned()),
            Write::ZigZag => varint::write(out, varint::zigzag(whole(array, row))),
            Write::Fixed32 => out.extend_from_slice(&(whole(array, row) as u32).to_le_bytes()),
            Write::Fixed64 => out.extend_from_slice(&whole(array, row).to_le_bytes()),
            Write::Float => out.extend_from_slice(&float(array, row)),
            Write::Double => out.extend_from_slice(&double(array, row)),
            Write::Bool => out.push(u8::from(array.as_boolean().value(row))),
            Write::Text => write_bytes(out, array.as_string::<i32>().value(row).as_bytes()),
            Write::Bytes => write_bytes(out, array.as_binary::<i32>().value(row)),
            Write::Decimal(scale) => {
                let units = array.as_primitive::<Decimal128Type>().value(row);
                write_bytes(out, decimal::to_text(units, *scale).as_bytes());
            }
            Write::Enum(numbers) => {
                let symbol = array.as_string::<i32>().value(row);
                // All symbols of the column have a number.
                let number = numbers.get(symbol).copied().unwrap_or_default();
                varint::write(out, i64::from(number).cast_unsigned());
            }
            Write::Time => {
                let ms = array.as_primitive::<TimestampMillisecondType>().value(row);
                return with_length(out, |out| write_instant(out, ms));
            }
            Write::Wrapped(field) => {
                return with_length(out, |out| field.write(array, row, out));
            }
            Write::Message(message) => {
                let columns = array.as_struct().columns();
                return with_length(out, |out| message.write(columns, row, out));
            }
            Write::Group(message) => {
                return message.write(array.as_struct().columns(), row, out);
            }
            Write::List { .. } => return Err("a list is no element of a list".to_owned()),
        }
        Ok(())
    }
}

fn write_key(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint::write(out, (u64::from(number) << 3) | u64::from(wire));
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes something behind its length.
fn with_length(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    // Most lengths have one byte.
    let start = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    match u8::try_from(length) {
        Ok(byte @ ..0x80) => out[start] = byte,
        _ => {
            let mut prefix = Vec::new();
            varint::write(&mut prefix, length as u64);
            out.splice(start..=start, prefix);
        }
    }
    Ok(())
}

/// From the year 1 to the end of 9999, in s.
const INSTANTS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

fn write_instant(out: &mut Vec<u8>, ms: i64) -> Result<(), String> {
    let (seconds, nanos) = (ms.div_euclid(1_000), ms.rem_euclid(1_000) * 1_000_000);
    if !INSTANTS.contains(&seconds) {
        let time = timestamp::to_text(ms);
        return Err(format!("{time} is too far away for a `Timestamp`"));
    }
    for (number, value) in [(1, seconds), (2, nanos)] {
        if value != 0 {
            write_key(out, number, VARINT);
            varint::write(out, value.cast_unsigned());
        }
    }
    Ok(())
}

/// A schema that has exactly these columns. The error says which field cannot be one of
/// Protobuf.
pub fn schema_of(
    columns: &Schema,
    message: Option<&str>,
    topic: &str,
) -> Result<ProtoSchema, String> {
    let (package, name) = match message {
        Some(message) => message.rsplit_once('.').unwrap_or(("", message)),
        None => ("", topic),
    };
    let mut text = "syntax = \"proto3\";\n".to_owned();
    if !package.is_empty() {
        let _ = writeln!(text, "package {package};");
    }
    if columns.fields.iter().any(has_time) {
        text.push_str("import \"google/protobuf/timestamp.proto\";\n");
    }
    write_message(&mut text, &columns.fields, &identifier(name), "")?;
    let file = ProtoFile::read(&text, &[])?;
    file.message(message)
}

fn has_time(field: &Field) -> bool {
    match &field.data_type {
        DataType::Timestamp => true,
        DataType::List(element) => has_time(element),
        DataType::Record(fields) => fields.iter().any(has_time),
        _ => false,
    }
}

fn write_message(
    out: &mut String,
    fields: &[Field],
    name: &str,
    indent: &str,
) -> Result<(), String> {
    let _ = writeln!(out, "{indent}message {name} {{");
    let inner = format!("{indent}  ");
    for (number, field) in (1..).zip(fields) {
        if identifier(&field.name) != field.name {
            return Err(format!(
                "`{}` cannot be the name of a field in Protobuf, which has letters, digits and _",
                field.name
            ));
        }
        let (label, element) = match (&field.data_type, field.nullable) {
            (DataType::List(element), false) if !element.nullable => ("repeated ", &**element),
            (DataType::List(_), _) => {
                return Err(format!(
                    "`{field}` cannot be in Protobuf, where lists and their elements are never null"
                ));
            }
            (_, true) => ("optional ", field),
            (_, false) => ("", field),
        };
        let written = match &element.data_type {
            DataType::Record(members) => {
                // A name that no field has.
                let mut nested = format!("{}_record", field.name);
                while fields.iter().any(|field| field.name == nested) {
                    nested.push('_');
                }
                write_message(out, members, &nested, &inner)?;
                nested
            }
            DataType::List(_) => {
                return Err(format!(
                    "`{field}` cannot be in Protobuf, where no list is an element of a list"
                ));
            }
            data_type => scalar_of(data_type).to_owned(),
        };
        // There are numbers that nobody may have.
        let number = match number {
            19_000.. => number + 1_000,
            number => number,
        };
        let _ = writeln!(out, "{inner}{label}{written} {} = {number};", field.name);
    }
    let _ = writeln!(out, "{indent}}}");
    Ok(())
}

fn scalar_of(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Bool => "bool",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Bytes => "bytes",
        DataType::Timestamp => "google.protobuf.Timestamp",
        DataType::Utf8
        | DataType::Symbol(_)
        | DataType::Decimal { .. }
        | DataType::List(_)
        | DataType::Record(_) => "string",
    }
}

#[cfg(test)]
mod tests;
