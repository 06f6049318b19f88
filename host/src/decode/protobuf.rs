//! Decodes rows of Protobuf: values go straight from the bytes into their column.
//!
//! The schema of a message is compared with the columns once, which makes a [`Program`]: what
//! to do with a field of each number. With a registry, rows of different messages and schemas
//! may follow one another.

/// Compares a schema with columns.
mod program;
/// Reads values.
mod values;

use std::sync::Arc;

use arrow_array::ArrayRef;
use hashbrown::HashMap;

use self::program::{Program, check_names};
use self::values::{Parts, read_row};
use super::column::RecordBuilder;
use super::fault::RowFault;
use super::registered::{Registered, RegisteredSchema, Schemas, split};
use crate::format::ProtobufFormat;
use crate::protobuf::{ProtoFile, ProtoSchema};
use crate::schema::{Field, Schema};
use crate::timestamp::{CutTimes, TimestampFormat};
use crate::varint;

/// Rows under construction.
#[derive(Clone, Debug)]
pub(super) struct ProtobufRows {
    rows: RecordBuilder,
    expected: Expected,
    schemas: Schemas<Arc<Program>, WrittenFile>,
    /// Kept for its memory.
    parts: Vec<Parts>,
}

/// What rows are read as.
#[derive(Clone, Debug)]
struct Expected {
    fields: Vec<Field>,
    /// The schema of the pipeline's file.
    own: Option<ProtoSchema>,
    /// The name of the message.
    message: Option<String>,
}

/// A file of the registry, with the programs of its messages that have come.
#[derive(Clone, Debug)]
struct WrittenFile {
    file: ProtoFile,
    /// By the place of the message, as it is written.
    programs: HashMap<Vec<u8>, Result<Arc<Program>, Arc<str>>>,
}

/// So many places are remembered; a place can be written in many ways.
const PROGRAMS_MAX: usize = 1_000;

/// Messages are at most so deep within one another.
const PLACE_MAX: u64 = 64;

impl ProtobufRows {
    pub fn new(format: &ProtobufFormat, schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        let schemas = match (&format.schema, format.is_registered) {
            (Some(written), false) => {
                Schemas::one(Program::new(written, &schema.fields).map(Arc::new))
            }
            _ => Schemas::Registered(Registered::new()),
        };
        ProtobufRows {
            rows: RecordBuilder::new(&schema.fields, &mut timestamps.iter().cloned()),
            expected: Expected {
                fields: schema.fields.clone(),
                own: format.schema.clone(),
                message: format.message.clone(),
            },
            schemas,
            parts: Vec::new(),
        }
    }

    /// Adds a row; after an error, [`Self::truncate`] must follow.
    pub fn push(&mut self, row: &[u8]) -> Result<(), RowFault> {
        match &mut self.schemas {
            Schemas::One(Ok(program)) => read_row(program, row, &mut self.rows, &mut self.parts),
            Schemas::One(Err(why)) => Err(RowFault::new(why.as_str())),
            Schemas::Registered(schemas) => {
                let (id, row) = split(row)?;
                let written = schemas.find_mut(id)?;
                let (place, row) = split_place(row)?;
                let program = written
                    .program(place, &self.expected)
                    .map_err(|why| RowFault::new(format!("schema {id} of the registry: {why}")))?;
                read_row(program, row, &mut self.rows, &mut self.parts)
            }
        }
    }

    /// Whether a row has to wait until its schema is learned.
    pub fn lacks(&self, row: &[u8]) -> Option<u32> {
        self.schemas.lacks(row)
    }

    /// Learns a schema, or why there is none of this number.
    pub fn learn(&mut self, id: u32, schema: Result<&RegisteredSchema, String>) {
        let file = schema.and_then(RegisteredSchema::protobuf);
        let written = file.map(|file| WrittenFile {
            file,
            programs: HashMap::new(),
        });
        self.schemas.learn(id, written);
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
        self.schemas.tidy();
        self.rows.take()
    }
}

impl WrittenFile {
    /// How the message at a place is read.
    fn program(&mut self, place: &[u8], expected: &Expected) -> Result<&Program, &str> {
        if self.programs.len() >= PROGRAMS_MAX && !self.programs.contains_key(place) {
            self.programs.clear();
        }
        let programs = self.programs.entry_ref(place);
        match programs.or_insert_with(|| planned(&self.file, place, expected)) {
            Ok(program) => Ok(program),
            Err(why) => Err(why),
        }
    }
}

fn planned(file: &ProtoFile, place: &[u8], expected: &Expected) -> Result<Arc<Program>, Arc<str>> {
    let indexes = indexes(place);
    let written = file.message_at(&indexes);
    let written = written.ok_or_else(|| format!("it has no message at {indexes:?}"))?;
    let own = expected.own.as_ref();
    if let Some(name) = own.map(ProtoSchema::name).or(expected.message.as_deref())
        && name != written.name()
    {
        let found = written.name();
        return Err(format!("the message is {found}, and `message` is {name}").into());
    }
    let program = Program::new(own.unwrap_or(&written), &expected.fields);
    program
        .map(Arc::new)
        .map_err(|fault| fault.to_string().into())
}

/// The place of a row's message in its file, and the message.
fn split_place(row: &[u8]) -> Result<(&[u8], &[u8]), RowFault> {
    let (depth, mut length) = varint::read(row).ok_or_else(no_place)?;
    // As a number with a sign.
    if depth % 2 == 1 || depth / 2 > PLACE_MAX {
        return Err(no_place());
    }
    for _ in 0..depth / 2 {
        let (index, bytes) = varint::read(&row[length..]).ok_or_else(no_place)?;
        if index % 2 == 1 {
            return Err(no_place());
        }
        length += bytes;
    }
    Ok(row.split_at(length))
}

/// The numbers that a place has; nothing stands for the first message.
fn indexes(place: &[u8]) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut rest = place;
    while let Some((number, bytes)) = varint::read(rest) {
        numbers.push(usize::try_from(number / 2).unwrap_or(usize::MAX));
        rest = &rest[bytes..];
    }
    match numbers.get(1..) {
        Some(numbers @ [_, ..]) => numbers.to_owned(),
        _ => vec![0],
    }
}

#[cold]
fn no_place() -> RowFault {
    RowFault::new("expected the place of the message in its schema, found other bytes")
}

/// Says why columns cannot be read of rows with this schema.
pub(super) fn check(schema: &ProtoSchema, fields: &[Field]) -> Result<(), RowFault> {
    check_names(schema.message(), fields)?;
    Program::new(schema, fields).map(drop)
}

#[cfg(test)]
mod tests;
