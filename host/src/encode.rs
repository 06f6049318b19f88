//! Encodes rows of columns as messages whose bytes a schema explains.

/// Encodes Avro.
pub mod avro;
/// Encodes Protobuf.
pub mod protobuf;
/// Values of columns, and names in schemas.
mod values;

use arrow_array::ArrayRef;

use self::avro::AvroEncoder;
use self::protobuf::ProtobufEncoder;
use crate::avro::AvroSchema;
use crate::decode::{AVRO, PROTOBUF, RegisteredSchema};
use crate::format::MessageFormat;
use crate::protobuf::ProtoSchema;
use crate::schema::Schema;
use crate::varint;

/// How rows of certain columns are written, and with which schema.
#[derive(Clone, Debug)]
pub enum MessageEncoder {
    Avro(AvroSchema, AvroEncoder),
    Protobuf(ProtoSchema, ProtobufEncoder),
}

impl MessageEncoder {
    /// Without a schema, one is made of the columns, with this name. The error says why rows
    /// of these columns cannot be written.
    pub fn new(format: &MessageFormat, columns: &Schema, name: &str) -> Result<Self, String> {
        match format {
            MessageFormat::Avro(format) => {
                let schema = match &format.schema {
                    Some(schema) => schema.clone(),
                    None => avro::schema_of(columns, name)?,
                };
                let encoder = AvroEncoder::new(&schema, columns)?;
                Ok(MessageEncoder::Avro(schema, encoder))
            }
            MessageFormat::Protobuf(format) => {
                let schema = match &format.schema {
                    Some(schema) => schema.clone(),
                    None => protobuf::schema_of(columns, format.message.as_deref(), name)?,
                };
                let encoder = ProtobufEncoder::new(&schema, columns)?;
                Ok(MessageEncoder::Protobuf(schema, encoder))
            }
        }
    }

    /// Adds a row; the error says which value the schema has no room for.
    pub fn write(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            MessageEncoder::Avro(_, encoder) => encoder.write(columns, row, out),
            MessageEncoder::Protobuf(_, encoder) => encoder.write(columns, row, out),
        }
    }

    /// As the config calls the format.
    pub fn format(&self) -> &'static str {
        match self {
            MessageEncoder::Avro(..) => "avro",
            MessageEncoder::Protobuf(..) => "protobuf",
        }
    }

    /// As registries call the language of the schema.
    pub fn language(&self) -> &'static str {
        match self {
            MessageEncoder::Avro(..) => AVRO,
            MessageEncoder::Protobuf(..) => PROTOBUF,
        }
    }

    /// The schema as a registry gets it.
    pub fn schema_text(&self) -> Result<&str, String> {
        match self {
            MessageEncoder::Avro(schema, _) => Ok(schema.text()),
            MessageEncoder::Protobuf(schema, _) => schema.own_text(),
        }
    }

    /// Whether another schema says the same of rows.
    pub fn is_written_as(&self, other: &RegisteredSchema) -> bool {
        match self {
            MessageEncoder::Avro(schema, _) => {
                other.avro().is_ok_and(|other| other.is_written_as(schema))
            }
            MessageEncoder::Protobuf(schema, _) => other
                .protobuf()
                .is_ok_and(|other| schema.is_written_as(&other)),
        }
    }

    /// What messages have between the number of their schema and the row.
    pub fn write_place(&self, out: &mut Vec<u8>) {
        match self {
            MessageEncoder::Avro(..) => {}
            MessageEncoder::Protobuf(schema, _) => match &schema.place()[..] {
                [0] => out.push(0),
                place => {
                    let numbers = [place.len()].into_iter().chain(place.iter().copied());
                    for number in numbers {
                        varint::write(out, varint::zigzag(number as i64));
                    }
                }
            },
        }
    }
}

/// Rows and sinks for the tests of formats that have schemas.
#[cfg(test)]
mod in_tests;
