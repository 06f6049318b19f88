//! Sinks: what each kind of sink says about itself, and what a sink at work has
//! to do.
//!
//! A sink takes batches of one schema until it is finished. At a barrier it
//! makes what it has written durable, and returns what a restored run needs.

/// Writes dead letters to their file.
pub mod dead_letter;
/// Rows that a sink goes on without.
mod refused;

pub use self::refused::{Refusals, RefusedRows, SentRows, describe_refused, read_on_error, shown};

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::{Participant, Participants};
use crate::clock::{Clock, SystemClock};
use crate::config::diagnostics::{Diagnostics, Span};
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::dead_letter::OnError;
use crate::element::CheckpointId;
use crate::paths::is_device;
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::source::SourceConnector;
use crate::stop::Stop;

/// A kind of sink, as `type` names it.
#[derive(Clone, Copy)]
pub struct SinkKind {
    pub name: &'static str,
    /// Reads the keys that only this kind has. A key that it does not ask for
    /// is a mistake. `None` means that it has reported a mistake itself.
    pub read: fn(&mut Table<'_>, &mut Diagnostics) -> Option<Box<dyn SinkSettings>>,
}

/// What the pipeline's file says about a sink.
pub trait SinkSettings: fmt::Debug + Send + Sync {
    /// Checks what the settings mean for rows of this schema, which is `None`
    /// if another mistake hides it. `None` means that mistakes were reported.
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>>;

    /// Where the settings say that a row which is taken back deletes what its key has in the
    /// sink's system; then none of its columns says so.
    fn deletes(&self) -> Option<Span> {
        None
    }

    /// The fields that the key is made of which its rows have in the sink's system.
    fn key_fields(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The transaction that its rows can be committed in, if any.
    fn transaction(&self) -> Option<SinkTransaction> {
        None
    }
}

/// A transaction that several sinks of a pipeline share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTransaction {
    /// The system's name, for messages: "Kafka".
    pub system: &'static str,
    /// Sinks with different owners cannot share a transaction.
    pub owner: String,
    /// The config keys that decide the owner, for messages.
    pub decided_by: &'static str,
}

/// A sink that has been checked and can be opened.
pub trait SinkConnector: Any + Send + Sync {
    fn describe(&self) -> Description;

    /// The best delivery guarantee that it can give.
    fn delivery(&self) -> Delivery;

    /// Why that is so, in a few words; none where nobody would ask.
    fn delivery_note(&self) -> &'static str {
        ""
    }

    /// Whether it gives that in a transaction of the pipeline, where the plan asks for it.
    fn is_transactional(&self) -> bool {
        false
    }

    /// What becomes of rows that it cannot write, or that the system outside refuses, if some
    /// can be refused without the others.
    fn on_error(&self) -> Option<OnError> {
        None
    }

    /// Whether rows are taken back that a run wrote behind the checkpoint that another one
    /// starts from. Otherwise they come twice.
    fn takes_rows_back(&self) -> bool {
        false
    }

    /// Whether it writes to the process's standard output.
    fn writes_stdout(&self) -> bool {
        false
    }

    /// The named pipe that it writes to, if it does. It is opened when somebody reads it.
    fn pipe(&self) -> Option<&Path> {
        None
    }

    /// Commits the rows of all the pipeline's sinks of this kind with each
    /// checkpoint, if their system can.
    fn participant(&self, _: &CommitContext<'_>) -> Option<Arc<dyn Participant>> {
        None
    }

    /// The statements that make what it writes to, in a run with this delivery guarantee,
    /// if its system has such.
    fn ddl(&self, _: Option<Delivery>) -> Vec<String> {
        Vec::new()
    }

    /// Opens the sink of a node for rows of this schema.
    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError>;
}

/// How a sink's input ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All rows have come.
    Complete,
    /// The run was asked to stop before that, or another revision of its plan goes on.
    Stopped,
}

/// What a participant in the commit has to know of the pipeline.
pub struct CommitContext<'a> {
    pub name: &'a str,
    pub checkpoint_interval_ms: u64,
    /// By the names of their nodes: a system may commit the positions of its own.
    pub sources: Vec<(&'a str, &'a dyn SourceConnector)>,
}

/// A sink at work.
pub trait Sink: Send {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Makes what was written visible to readers, as far as the format allows.
    /// Called from time to time.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// No row comes any more, and without checkpoints no barrier either: as [`Sink::flush`],
    /// for all that waits.
    fn drain(&mut self) -> Result<(), SinkError> {
        self.flush()
    }

    /// Rows that were refused since the last call, and without which the sink goes on.
    fn take_refused(&mut self) -> RefusedRows {
        RefusedRows::default()
    }

    /// When the sink is to be flushed although no row comes, in ms of its clock.
    fn flush_at_ms(&self) -> Option<i64> {
        None
    }

    /// The next barrier is the run's last one, and no row comes behind it.
    fn complete(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Everything written so far belongs to this checkpoint: makes it durable,
    /// and returns what a restored run needs.
    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError>;

    /// The checkpoint is durable and, if the pipeline has a transaction,
    /// committed.
    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether the sink takes no rows before the next [`Sink::committed`].
    fn is_full(&self) -> bool {
        false
    }

    /// The input has ended.
    fn finish(&mut self, ending: Ending) -> Result<(), SinkError>;
}

/// What a sink needs to know about the run.
pub struct SinkContext {
    /// The pipeline's name.
    pub pipeline: String,
    /// Whether the run makes checkpoints.
    pub is_checkpointed: bool,
    /// Whether these are there after the process has ended.
    pub are_checkpoints_kept: bool,
    /// The run makes a checkpoint before its first row. Until that is committed,
    /// the next run may start from another one: nothing outside may change before
    /// [`Sink::committed`]. No row comes before that.
    pub waits_for_commit: bool,
    /// The systems that take part in the commit of checkpoints.
    pub participants: Participants,
    /// The restored checkpoint, and the sink's snapshot in it.
    pub checkpoint: Option<CheckpointId>,
    pub restored: Option<SinkSnapshot>,
    /// That checkpoint, if it is not the last one: what is outside may be newer.
    pub goes_back_to: Option<CheckpointId>,
    /// That of a sink which wrote to the same place in the same way, and was dropped.
    pub left_behind: Option<SinkSnapshot>,
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Asks the run to end.
    pub stop: Stop,
}

impl Default for SinkContext {
    /// Of a run without checkpoints, by the machine's clock.
    fn default() -> Self {
        SinkContext {
            pipeline: String::new(),
            is_checkpointed: false,
            are_checkpoints_kept: false,
            waits_for_commit: false,
            participants: Participants::default(),
            checkpoint: None,
            restored: None,
            goes_back_to: None,
            left_behind: None,
            clock: Arc::new(SystemClock),
            stop: Stop::default(),
        }
    }
}

impl SinkContext {
    /// What a sink writes its transactional rows with, such as a producer, if its
    /// system takes part in the commit.
    pub fn transaction<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.participants.handle::<T>()
    }
}

/// Why a sink cannot continue.
#[derive(Debug, thiserror::Error)]
#[error("sink `{node}`: cannot write {what}: {cause}")]
pub struct SinkError {
    pub node: String,
    /// What was being written, or where to: a file, "to topic `carts` on …".
    pub what: String,
    pub cause: String,
    pub fault: Fault,
    /// What was written was for a process that does not read any more, as behind
    /// `| head`.
    pub reader_is_gone: bool,
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
            reader_is_gone: false,
        }
    }

    /// A pipe that the process was started with has no reader any more, and never gets
    /// another one.
    pub fn reader_is_gone(node: &str, what: impl fmt::Display) -> Self {
        SinkError {
            reader_is_gone: true,
            ..SinkError::new(node, what, "its reader is gone", Fault::OUTSIDE_LASTING)
        }
    }

    /// An error of the file, device or pipe with this path.
    pub fn of_file(node: &str, path: &Path, cause: &io::Error) -> Self {
        // A named pipe may get another reader.
        match cause.kind() == io::ErrorKind::BrokenPipe && is_device(path) {
            true => SinkError::reader_is_gone(node, path.display()),
            false => SinkError::io(node, path.display(), cause),
        }
    }

    /// An operating system error, which also says who is to blame.
    pub fn io(node: &str, what: impl fmt::Display, cause: &io::Error) -> Self {
        SinkError::new(node, what, cause, Fault::of_io(cause))
    }
}
