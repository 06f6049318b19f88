//! Where rows go: each sink has its format and its place, and takes batches of
//! one schema until it is finished.
//!
//! Files grow under the name `<file>.part` and get their own name when the run
//! has ended well. A file of that name is therefore always whole, be it this
//! run's or the one before; a run that failed leaves its `.part` behind, and a
//! long one can be read there while it goes on, up to the last flush (Parquet
//! cannot: its index is written last). With checkpoints, a run that goes on
//! finds its `.part` and cuts it to what the checkpoint had; a Parquet file,
//! which cannot be cut, is one file a checkpoint that has rows.
//!
//! Text formats write timestamps as RFC 3339 in UTC, with milliseconds only
//! where they are not zero, and byte strings as base64.

mod blackhole;
mod console;
mod csv;
pub mod dead_letter;
mod file;
pub(crate) mod json_lines;
mod kafka;
mod memory;
mod parquet;

pub use memory::MemoryTopic;

use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::Batch;
use crate::checkpoint::snapshot::{CheckpointId, SinkSnapshot};
use crate::checkpoint::transaction::Participants;
use crate::checkpoint::transaction::kafka::KafkaTransaction;
use crate::plan::{SinkConnector, SinkFormat, SinkPlan};
use crate::schema::Schema;

/// A sink at work.
pub trait Sink: Send {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Makes what was written visible to those who look, as far as the format
    /// can. Called now and then.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Everything so far belongs to this checkpoint. What has to be found again
    /// by a run that goes on from it.
    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError>;

    /// The checkpoint is durable and, where the pipeline has a transaction,
    /// committed.
    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        Ok(())
    }

    /// Rows cannot be taken before the next [`Sink::committed`].
    fn is_full(&self) -> bool {
        false
    }

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
    #[error("sink `{node}`: cannot write to topic `{topic}` on {brokers}: {cause}")]
    Kafka {
        node: String,
        topic: String,
        brokers: String,
        cause: String,
    },
    #[error("sink `{node}`: cannot write to standard output: {cause}")]
    Console { node: String, cause: std::io::Error },
}

/// What a sink needs to know of the run.
#[derive(Default)]
pub struct SinkContext {
    /// There are checkpoints.
    pub is_checkpointed: bool,
    /// Those who take part in the commit of a checkpoint.
    pub participants: Participants,
    /// What was found at the checkpoint that the run goes on from.
    pub restored: Option<SinkSnapshot>,
}

/// Opens a node's sink for rows of this schema.
pub fn open(
    node: &str,
    plan: &SinkPlan,
    schema: &Arc<Schema>,
    context: &SinkContext,
) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match &plan.connector {
        SinkConnector::Blackhole => Box::new(blackhole::Blackhole),
        SinkConnector::Memory(topic) => {
            let is_transactional = !context.participants.is_empty();
            Box::new(memory::Memory::new(topic.clone(), is_transactional))
        }
        SinkConnector::Console { rows_max } => {
            Box::new(console::Console::new(node, schema, *rows_max))
        }
        SinkConnector::Kafka(kafka) => Box::new(kafka::Kafka::open(
            node,
            kafka,
            schema,
            context.participants.handle::<KafkaTransaction>(),
        )?),
        SinkConnector::File { path, format } => {
            let kept = context
                .restored
                .as_ref()
                .and_then(|restored| restored.bytes);
            let part = || file::Part::create(node, path, kept);
            match format {
                SinkFormat::Json => Box::new(json_lines::JsonLines::new(part()?, schema)),
                SinkFormat::Csv => Box::new(csv::Csv::new(part()?, schema)?),
                SinkFormat::Parquet if context.is_checkpointed => {
                    Box::new(parquet::Parts::new(node, path, schema, &context.restored)?)
                }
                SinkFormat::Parquet => Box::new(parquet::Parquet::new(part()?, schema)?),
            }
        }
    })
}

#[cfg(test)]
mod tests;
