//! Where rows go: each sink has its format and its place, and takes batches of
//! one schema until it is finished.
//!
//! Files grow under the name `<file>.part` and get their own name when the run
//! has ended well. A file of that name is therefore always whole, be it this
//! run's or the one before; a run that failed leaves its `.part` behind, and a
//! long one can be read there while it goes on, up to the last flush (Parquet
//! cannot: its index is written last).
//!
//! Text formats write timestamps as RFC 3339 in UTC, with milliseconds only
//! where they are not zero, and byte strings as base64.

mod blackhole;
mod console;
mod csv;
pub mod dead_letter;
mod file;
pub(crate) mod json_lines;
mod memory;
mod parquet;

use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::Batch;
use crate::plan::{SinkConnector, SinkFormat, SinkPlan};
use crate::schema::Schema;

/// A sink at work.
pub trait Sink: Send {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Makes what was written visible to those who look, as far as the format
    /// can. Called now and then.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// The input has ended and nothing follows.
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// Why a sink cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("sink `{node}`: cannot write {}: {cause}", path.display())]
    File {
        node: String,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("sink `{node}`: cannot write {} as Parquet: {cause}", path.display())]
    Parquet {
        node: String,
        path: PathBuf,
        cause: ::parquet::errors::ParquetError,
    },
    #[error("sink `{node}`: cannot write to standard output: {cause}")]
    Console { node: String, cause: std::io::Error },
}

/// Opens a node's sink for rows of this schema.
pub fn open(node: &str, plan: &SinkPlan, schema: &Arc<Schema>) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match &plan.connector {
        SinkConnector::Blackhole => Box::new(blackhole::Blackhole),
        SinkConnector::Memory(rows) => Box::new(memory::Memory::new(rows.clone())),
        SinkConnector::Console { rows_max } => {
            Box::new(console::Console::new(node, schema, *rows_max))
        }
        SinkConnector::File { path, format } => {
            let part = file::Part::create(node, path)?;
            match format {
                SinkFormat::Json => Box::new(json_lines::JsonLines::new(part, schema)),
                SinkFormat::Csv => Box::new(csv::Csv::new(part, schema)?),
                SinkFormat::Parquet => Box::new(parquet::Parquet::new(part, schema)?),
            }
        }
    })
}

#[cfg(test)]
mod tests;
