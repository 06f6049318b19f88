//! Decodes rows of Avro: values go straight from the bytes into their column.
//!
//! The schema that a row is written with is resolved against the columns once, which makes a
//! [`Program`]: what to read into which column, and what to skip. Rows of different schemas
//! may follow one another. What fields have where the rows have none (the defaults), and the
//! names that they had before (the aliases), are those of the schema of the pipeline's file.

/// Resolves a schema against columns.
mod program;
/// Reads values.
mod values;

use std::sync::Arc;

use arrow_array::ArrayRef;

use self::program::{Program, check_names};
use self::values::read_row;
use super::column::RecordBuilder;
use super::fault::RowFault;
use super::registered::{Registered, RegisteredSchema, Schemas, split};
use crate::avro::AvroSchema;
use crate::format::AvroFormat;
use crate::schema::{Field, Schema};
use crate::timestamp::{CutTimes, TimestampFormat};

/// Rows under construction.
#[derive(Clone, Debug)]
pub(super) struct AvroRows {
    rows: RecordBuilder,
    fields: Vec<Field>,
    /// What rows are read as, if the pipeline's file says.
    own: Option<AvroSchema>,
    schemas: Schemas<Arc<Program>, Arc<Program>>,
}

impl AvroRows {
    pub fn new(format: &AvroFormat, schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        let schemas = match (&format.schema, format.is_registered) {
            (Some(written), false) => {
                Schemas::one(Program::new(written, None, &schema.fields).map(Arc::new))
            }
            _ => Schemas::Registered(Registered::new()),
        };
        AvroRows {
            rows: RecordBuilder::new(&schema.fields, &mut timestamps.iter().cloned()),
            fields: schema.fields.clone(),
            own: format.schema.clone(),
            schemas,
        }
    }

    /// Adds a row; after an error, [`Self::truncate`] must follow.
    pub fn push(&mut self, row: &[u8]) -> Result<(), RowFault> {
        match &self.schemas {
            Schemas::One(Ok(program)) => read_row(program, row, &mut self.rows),
            Schemas::One(Err(why)) => Err(RowFault::new(why.as_str())),
            Schemas::Registered(schemas) => {
                let (id, row) = split(row)?;
                read_row(schemas.find(id)?, row, &mut self.rows)
            }
        }
    }

    /// Whether a row has to wait until its schema is learned.
    pub fn lacks(&self, row: &[u8]) -> Option<u32> {
        self.schemas.lacks(row)
    }

    /// Learns a schema, or why there is none of this number.
    pub fn learn(&mut self, id: u32, schema: Result<&RegisteredSchema, String>) {
        let program = schema.and_then(|schema| self.program(schema));
        self.schemas.learn(id, program);
    }

    fn program(&self, schema: &RegisteredSchema) -> Result<Arc<Program>, String> {
        let written = schema.avro()?;
        let program = Program::new(&written, self.own.as_ref(), &self.fields);
        program.map(Arc::new).map_err(|fault| fault.to_string())
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

/// Says why columns cannot be read of rows with the schema of the pipeline's file.
pub(super) fn check(format: &AvroFormat, fields: &[Field]) -> Result<(), RowFault> {
    let Some(schema) = &format.schema else {
        return Ok(());
    };
    // Those of a registry may have more fields.
    if !format.is_registered {
        check_names(schema, fields)?;
    }
    Program::new(schema, None, fields).map(drop)
}

#[cfg(test)]
mod tests;
