//! Compares the schema of a message with the columns that it is read into.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::fault::RowFault;
use crate::decode::push::symbol_of;
use crate::protobuf::{
    Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
    ProtoSchema, Value, kind_name, type_name, wrapped,
};
use crate::schema::{DataType, Field};
use crate::varint;

/// How a row's values become those of the columns.
#[derive(Debug)]
pub(in crate::decode) struct Program(pub(super) ReadMessage);

/// How the fields of a message become those of a record.
#[derive(Debug)]
pub(super) struct ReadMessage {
    /// By their numbers, ascending: those that are read, and others that take their place.
    fields: Vec<ReadField>,
    /// Where in them small numbers are, if they are there.
    small: Vec<Option<u16>>,
    /// What each column has if the message does not have its field.
    pub absent: Vec<Absent>,
    /// What is read when all of its parts are known.
    pub merged: Vec<Merged>,
    /// How many values a message has that has none.
    pub width: usize,
}

#[derive(Debug)]
pub(super) struct ReadField {
    number: u32,
    pub column: usize,
    pub step: Step,
    /// The other fields of its `oneof`, of which only the last one counts.
    pub rivals: Vec<Rival>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Rival {
    Column(usize),
    Merged(usize),
}

#[derive(Debug)]
pub(super) enum Step {
    /// One value, the last one.
    Scalar(Scalar),
    /// Messages that are parts of one, by its place among those that are merged.
    Merged(usize),
    /// Elements of a list.
    List(Read),
    /// Entries of a map, as the fields of a record.
    Keys(Vec<Key>),
    /// It only takes the place of others.
    Skip,
}

/// A message of which there may be several parts.
#[derive(Debug)]
pub(super) struct Merged {
    pub number: u32,
    pub column: usize,
    pub read: Nested,
    /// Without a part, it is a message without fields: the value of a map's entry.
    pub is_always_there: bool,
}

/// How a key's value becomes a field's.
#[derive(Debug)]
pub(super) struct Key {
    pub read: Read,
    /// What an entry has that has no value.
    pub zero: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Read {
    Scalar(Scalar),
    Message(Nested),
}

/// How a message becomes a value of a column.
#[derive(Debug)]
pub(super) enum Nested {
    Record(ReadMessage),
    Timestamp,
    /// A number of seconds.
    Duration,
    /// A number of units, and how many of its digits are behind the point.
    Decimal,
    Date,
    /// A message of one value, which it may have not.
    Wrapper {
        read: Scalar,
        zero: Vec<u8>,
    },
}

/// How the bytes of a value are read.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Int32,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    SFixed32,
    SFixed64,
    Float,
    Double,
    Bool,
    Text,
    Bytes,
    /// As the name of its value.
    Enum(Arc<Names>),
}

/// The names of an enum's values in a column.
#[derive(Debug)]
pub(super) struct Names {
    pub of: String,
    /// By their numbers, ascending; or why it is none of the column.
    values: Vec<(i32, Result<Arc<str>, String>)>,
}

/// How the bytes of a value are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Length,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// What a column has of a message that does not have its field.
#[derive(Debug)]
pub(super) enum Absent {
    Null,
    /// It has to be there.
    Missing,
    /// As it would be written.
    Default(Scalar, Vec<u8>),
    /// The elements that there were.
    List,
    /// The entries that there were.
    Keys,
}

impl Program {
    /// The fault says why no columns can be made of any row.
    pub fn new(schema: &ProtoSchema, fields: &[Field]) -> Result<Self, RowFault> {
        message(schema.message(), fields).map(Program)
    }
}

/// Refuses columns that a message has no field for. They would be null in every row, which
/// nobody means who has the schema at hand.
pub(in crate::decode) fn check_names(
    schema: &MessageDescriptor,
    columns: &[Field],
) -> Result<(), RowFault> {
    for column in columns {
        let written = schema.get_field_by_name(&column.name);
        let written = written.ok_or_else(|| not_in(schema, &column.name))?;
        let (DataType::Record(fields), kind) = (element(&column.data_type), written.kind()) else {
            continue;
        };
        // The keys of a map that is read as a record are in no schema.
        let is_map = written.is_map() && matches!(column.data_type, DataType::Record(_));
        if let Kind::Message(message) = kind
            && !is_map
        {
            check_names(&message, fields).map_err(|fault| fault.within(&column.name))?;
        }
    }
    Ok(())
}

/// The type of a list's elements, or the type itself.
fn element(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(element) => &element.data_type,
        other => other,
    }
}

fn not_in(schema: &MessageDescriptor, name: &str) -> RowFault {
    let fields: Vec<FieldDescriptor> = schema.fields().collect();
    RowFault::not_in_schema(name, fields.iter().map(FieldDescriptor::name))
}

impl ReadMessage {
    #[inline]
    pub fn find(&self, number: u32) -> Option<&ReadField> {
        match self.small.get(number as usize) {
            Some(at) => self.fields.get(usize::from((*at)?)),
            None => {
                let at = self.fields.binary_search_by_key(&number, |it| it.number);
                self.fields.get(at.ok()?)
            }
        }
    }
}

impl Names {
    fn new(it: &EnumDescriptor, wanted: &DataType) -> Self {
        let values = it.values();
        let values = values.map(|value| (value.number(), symbol_of(value.name(), None, wanted)));
        let mut values: Vec<_> = values.collect();
        // Of several names of one number, the first is meant.
        values.sort_by_key(|(number, _)| *number);
        values.dedup_by_key(|(number, _)| *number);
        Names {
            of: it.full_name().to_owned(),
            values,
        }
    }

    pub fn find(&self, number: i32) -> Option<&Result<Arc<str>, String>> {
        // Most begin at zero and leave no number out.
        let expected = usize::try_from(number)
            .ok()
            .and_then(|at| self.values.get(at));
        if let Some((known, name)) = expected
            && *known == number
        {
            return Some(name);
        }
        let at = self
            .values
            .binary_search_by_key(&number, |(known, _)| *known);
        at.ok().map(|at| &self.values[at].1)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}

impl Scalar {
    pub fn wire(&self) -> Wire {
        match self {
            Scalar::Int32
            | Scalar::Int64
            | Scalar::UInt32
            | Scalar::UInt64
            | Scalar::SInt32
            | Scalar::SInt64
            | Scalar::Bool
            | Scalar::Enum(_) => Wire::Varint,
            Scalar::Fixed32 | Scalar::SFixed32 | Scalar::Float => Wire::Fixed32,
            Scalar::Fixed64 | Scalar::SFixed64 | Scalar::Double => Wire::Fixed64,
            Scalar::Text | Scalar::Bytes => Wire::Length,
        }
    }
}

impl Wire {
    /// The kind that the lowest bits of a field's key name.
    pub fn of(key: u64) -> Option<Self> {
        Some(match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Length,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return None,
        })
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Varint => "a number of any length",
            Wire::Fixed64 => "8 bytes",
            Wire::Length => "bytes with their length",
            Wire::GroupStart | Wire::GroupEnd => "a group",
            Wire::Fixed32 => "4 bytes",
        }
    }
}

impl Nested {
    /// How many values it makes at least.
    pub fn width(&self) -> usize {
        match self {
            Nested::Record(read) => read.width,
            Nested::Timestamp
            | Nested::Duration
            | Nested::Decimal
            | Nested::Date
            | Nested::Wrapper { .. } => 1,
        }
    }
}

/// Numbers up to this one are found by their place.
const SMALL_MAX: u32 = 255;

fn message(schema: &MessageDescriptor, columns: &[Field]) -> Result<ReadMessage, RowFault> {
    let mut read = HashMap::new();
    let mut absent = Vec::new();
    let mut merged = Vec::new();
    for (column, field) in columns.iter().enumerate() {
        let Some(written) = schema.get_field_by_name(&field.name) else {
            if !field.nullable {
                return Err(not_in(schema, &field.name));
            }
            absent.push(Absent::Null);
            continue;
        };
        let planned = step(&written, field).map_err(|fault| fault.within(&field.name))?;
        let (step, without) = match planned {
            Planned::Step(step, without) => (step, without),
            Planned::Message(read) => {
                merged.push(Merged {
                    number: written.number(),
                    column,
                    read,
                    is_always_there: schema.is_map_entry(),
                });
                (Step::Merged(merged.len() - 1), without(field))
            }
        };
        absent.push(without);
        read.insert(written.number(), (column, step));
    }
    let rivals = |written: &FieldDescriptor| -> Vec<Rival> {
        let others = written.containing_oneof();
        let others = others.iter().flat_map(OneofDescriptor::fields);
        let others = others.filter(|other| other.number() != written.number());
        let others = others.filter_map(|other| read.get(&other.number()));
        let others = others.map(|(column, step)| match step {
            Step::Merged(at) => Rival::Merged(*at),
            _ => Rival::Column(*column),
        });
        others.collect()
    };
    let fields = schema
        .fields()
        .map(|written| (written.number(), rivals(&written)));
    let fields: Vec<(u32, Vec<Rival>)> = fields.collect();
    let fields = fields.into_iter().filter_map(|(number, rivals)| {
        let (column, step) = match read.remove(&number) {
            Some(read) => read,
            None if rivals.is_empty() => return None,
            None => (0, Step::Skip),
        };
        Some(ReadField {
            number,
            column,
            step,
            rivals,
        })
    });
    let mut fields: Vec<ReadField> = fields.collect();
    fields.sort_by_key(|field| field.number);
    let largest = fields.last().map_or(0, |field| field.number);
    let mut small = vec![None; largest.min(SMALL_MAX) as usize + 1];
    for (at, field) in fields.iter().enumerate() {
        if let Some(small) = small.get_mut(field.number as usize) {
            *small = u16::try_from(at).ok();
        }
    }
    Ok(ReadMessage {
        fields,
        small,
        absent,
        merged,
        width: width(columns),
    })
}

enum Planned {
    Step(Step, Absent),
    Message(Nested),
}

/// How a field becomes a column.
fn step(written: &FieldDescriptor, field: &Field) -> Result<Planned, RowFault> {
    let wanted = &field.data_type;
    if let Kind::Message(entry) = written.kind()
        && written.is_map()
        && let DataType::Record(keys) = wanted
    {
        let (Some(Kind::String), Some(value)) =
            (entry.get_field(1).map(|key| key.kind()), entry.get_field(2))
        else {
            return Err(mismatch(&type_name(written), wanted));
        };
        let keys = keys.iter().map(|field| {
            let read = read(&value.kind(), field).map_err(|fault| fault.within(&field.name))?;
            let zero = encoded(&value.kind(), &value.kind().default_value());
            Ok(Key { read, zero })
        });
        let keys = keys.collect::<Result<_, RowFault>>()?;
        return Ok(Planned::Step(Step::Keys(keys), Absent::Keys));
    }
    match (written.cardinality(), wanted) {
        (Cardinality::Repeated, DataType::List(element)) => {
            let read = read(&written.kind(), element).map_err(|fault| fault.within("[]"))?;
            Ok(Planned::Step(Step::List(read), Absent::List))
        }
        (Cardinality::Repeated, _) => Err(mismatch(&type_name(written), wanted)),
        _ => match read(&written.kind(), field)? {
            Read::Message(nested) => Ok(Planned::Message(nested)),
            Read::Scalar(scalar) => {
                let has_default = written.field_descriptor_proto().default_value.is_some();
                let is_entry = written.parent_message().is_map_entry();
                let without = match has_default || is_entry || !written.supports_presence() {
                    true => Absent::Default(
                        scalar.clone(),
                        encoded(&written.kind(), &written.default_value()),
                    ),
                    false => without(field),
                };
                Ok(Planned::Step(Step::Scalar(scalar), without))
            }
        },
    }
}

/// What a column has that may have no value.
fn without(field: &Field) -> Absent {
    match field.nullable {
        true => Absent::Null,
        false => Absent::Missing,
    }
}

/// How a value becomes one of a column.
fn read(written: &Kind, field: &Field) -> Result<Read, RowFault> {
    if let Kind::Message(message) = written {
        return nested(message, field).map(Read::Message);
    }
    scalar(written, field).map(Read::Scalar)
}

fn scalar(written: &Kind, field: &Field) -> Result<Scalar, RowFault> {
    use DataType as D;
    let wanted = &field.data_type;
    let is_number = wanted.is_number();
    let is_whole_or_time = is_number || *wanted == D::Timestamp;
    Ok(match (written, wanted) {
        (Kind::Int32, _) if is_whole_or_time => Scalar::Int32,
        (Kind::Int64, _) if is_whole_or_time => Scalar::Int64,
        (Kind::Uint32, _) if is_whole_or_time => Scalar::UInt32,
        (Kind::Uint64, _) if is_whole_or_time => Scalar::UInt64,
        (Kind::Sint32, _) if is_whole_or_time => Scalar::SInt32,
        (Kind::Sint64, _) if is_whole_or_time => Scalar::SInt64,
        (Kind::Fixed32, _) if is_whole_or_time => Scalar::Fixed32,
        (Kind::Fixed64, _) if is_whole_or_time => Scalar::Fixed64,
        (Kind::Sfixed32, _) if is_whole_or_time => Scalar::SFixed32,
        (Kind::Sfixed64, _) if is_whole_or_time => Scalar::SFixed64,
        (Kind::Float, D::Float32 | D::Float64) => Scalar::Float,
        (Kind::Double, D::Float64) => Scalar::Double,
        (Kind::Bool, D::Bool) => Scalar::Bool,
        (Kind::String, D::Utf8 | D::Symbol(_) | D::Timestamp | D::Decimal { .. })
        | (Kind::Bytes, D::Utf8 | D::Symbol(_)) => Scalar::Text,
        (Kind::String | Kind::Bytes, D::Bytes) => Scalar::Bytes,
        (Kind::Enum(it), D::Utf8 | D::Symbol(_)) => Scalar::Enum(Arc::new(Names::new(it, wanted))),
        // Its number.
        (Kind::Enum(_), _) if is_number => Scalar::Int32,
        _ => return Err(mismatch(&kind_name(written), wanted)),
    })
}

fn nested(written: &MessageDescriptor, field: &Field) -> Result<Nested, RowFault> {
    let wanted = &field.data_type;
    match (written.full_name(), wanted) {
        (_, DataType::Record(fields)) => message(written, fields).map(Nested::Record),
        ("google.protobuf.Timestamp", DataType::Timestamp) => Ok(Nested::Timestamp),
        ("google.protobuf.Duration", _) if wanted.is_number() => Ok(Nested::Duration),
        ("confluent.type.Decimal", _) if wanted.is_number() => Ok(Nested::Decimal),
        ("google.type.Date", DataType::Timestamp) => Ok(Nested::Date),
        _ if let Some(wrapped) = wrapped(written) => Ok(Nested::Wrapper {
            read: scalar(&wrapped, field)?,
            zero: encoded(&wrapped, &wrapped.default_value()),
        }),
        _ => Err(mismatch(written.full_name(), wanted)),
    }
}

/// A value as it would be written.
fn encoded(kind: &Kind, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match (kind, value) {
        (Kind::Sint32, Value::I32(value)) => {
            varint::write(&mut out, varint::zigzag((*value).into()));
        }
        (Kind::Sint64, Value::I64(value)) => varint::write(&mut out, varint::zigzag(*value)),
        (Kind::Sfixed32, Value::I32(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Kind::Sfixed64, Value::I64(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Kind::Fixed32, Value::U32(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Kind::Fixed64, Value::U64(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (_, Value::Bool(value)) => out.push(u8::from(*value)),
        (_, Value::I32(value) | Value::EnumNumber(value)) => {
            varint::write(&mut out, i64::from(*value).cast_unsigned());
        }
        (_, Value::I64(value)) => varint::write(&mut out, value.cast_unsigned()),
        (_, Value::U32(value)) => varint::write(&mut out, (*value).into()),
        (_, Value::U64(value)) => varint::write(&mut out, *value),
        (_, Value::F32(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (_, Value::F64(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (_, Value::String(text)) => {
            varint::write(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        (_, Value::Bytes(bytes)) => {
            varint::write(&mut out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        // A message without fields.
        (_, Value::Message(_) | Value::List(_) | Value::Map(_)) => {}
    }
    out
}

fn width(columns: &[Field]) -> usize {
    let width_of = |field: &Field| match &field.data_type {
        DataType::Record(fields) => width(fields),
        _ => 1,
    };
    columns.iter().map(width_of).sum::<usize>() + 1
}

#[cold]
fn mismatch(written: &str, wanted: &DataType) -> RowFault {
    RowFault::new(format!(
        "is {wanted} in `fields`, and {written} in the schema"
    ))
}
