//! Where rows go: what a kind of sink has to say of itself, and what is asked of
//! one at work.
//!
//! A sink takes batches of one schema until it is finished. At a barrier it
//! makes what it has durable, and says what a run that goes on must find again.

/// Dead letters on their way to their file.
pub mod dead_letter;

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::Participants;
use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::element::CheckpointId;
use crate::plan::state::Delivery;
use crate::schema::Schema;

/// A kind of sink, as `type` names it.
#[derive(Clone, Copy)]
pub struct SinkKind {
    pub name: &'static str,
    /// Reads the keys that only this kind has. Keys that it does not ask for
    /// are mistakes; so is `None`, which it has explained.
    pub read: fn(&mut Table<'_>, &mut Diagnostics) -> Option<Box<dyn SinkSettings>>,
}

/// What a pipeline's author wrote of a sink.
pub trait SinkSettings: fmt::Debug + Send + Sync {
    /// Checks what the settings mean for rows of these columns, which are
    /// absent where a mistake hides them. `None` has been explained.
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>>;

    /// The transaction that its rows can be committed in.
    fn transaction(&self) -> Option<SinkTransaction> {
        None
    }
}

/// A transaction that several sinks of a pipeline take part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTransaction {
    /// Whose it is: "Kafka".
    pub system: &'static str,
    /// Sinks for which this differs cannot be in one transaction.
    pub owner: String,
    /// The keys that decide the owner, for messages.
    pub decided_by: &'static str,
}

/// A sink that is checked and can be opened.
pub trait SinkConnector: Any + Send + Sync {
    fn describe(&self) -> Description;

    /// The best that it can do about rows that come again after a failure.
    fn delivery(&self) -> Delivery;

    /// Opens a node's sink for rows of this schema.
    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError>;
}

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

impl SinkContext {
    /// What a sink of this kind sends its rows with, if its system takes part in
    /// the commit.
    pub fn transaction<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.participants.handle::<T>()
    }
}

/// Why a sink cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("sink `{node}`: cannot write {what}: {cause}")]
pub struct SinkError {
    pub node: String,
    /// What is written, or where: a file, "to topic `carts` on …".
    pub what: String,
    pub cause: String,
    pub fault: Fault,
}

impl SinkError {
    pub fn new(
        node: &str,
        what: impl fmt::Display,
        cause: impl fmt::Display,
        fault: Fault,
    ) -> Self {
        SinkError {
            node: node.to_owned(),
            what: what.to_string(),
            cause: cause.to_string(),
            fault,
        }
    }

    /// The operating system's error says whose it is.
    pub fn io(node: &str, what: impl fmt::Display, cause: &io::Error) -> Self {
        SinkError::new(node, what, cause, Fault::of_io(cause))
    }
}
