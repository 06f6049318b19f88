//! Sources: what each kind of source says about itself, and the machinery that
//! all share.
//!
//! A source has partitions. Each is read in order, from an offset that a
//! checkpoint may have kept. A source hands out chunks of decoded rows; the
//! [`reader`] finds their event times, emits watermarks and handles bad rows. A
//! source itself never decides when event time advances, and never drops a row.

/// Compares checksums.
mod checksum;
/// Decoded rows of one partition.
pub mod chunk;
/// Finds the event time of each row.
pub mod event_time;
/// Says what looks like no text.
pub mod looks;
/// Keys in rows that are nearly the names of fields.
mod misspelt;
/// How many rows are handed out at a time.
pub mod pace;
/// Rows of a text that comes in pieces.
pub mod pieces;
/// Reads one task's part of a source.
pub mod reader;
/// Finds where rows end in text.
pub mod row_ends;
/// Tells of partitions that are silent and hold back windows.
pub mod silence;
/// Decides when event time advances.
pub mod watermark;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value as Json;

use self::chunk::{BadRow, Chunk};
use self::pace::Pace;
use crate::blame::Fault;
use crate::budget::Budget;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position, SourceSnapshot};
use crate::clock::Clock;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::format::{Format, RowFormat, TableChanges};
use crate::placement::Placement;
use crate::plan::GivenTime;
use crate::progress::Backlog;
use crate::schema::Schema;
use crate::stop::Stop;

/// How many rows of a partition are read in its turn, before the partition that
/// is furthest behind is chosen again.
pub const TURN_ROWS: u64 = 4_096;

/// A kind of source, as `type` names it.
#[derive(Clone, Copy)]
pub struct SourceKind {
    pub name: &'static str,
    /// Reads the keys that only this kind has. A key that it does not ask for
    /// is a mistake. `None` means that it has reported a mistake itself.
    pub read: fn(&mut Table<'_>, &mut Diagnostics) -> Option<Box<dyn SourceSettings>>,
}

/// What the pipeline's file says about a source.
pub trait SourceSettings: fmt::Debug + Send + Sync {
    /// The columns of its rows, each with its place in the pipeline's file.
    fn columns(&self) -> &[DeclaredColumn];

    /// The column with the event time, if the pipeline's file names none.
    fn event_time(&self) -> Option<&str> {
        None
    }

    /// Which event times its chunks have beside their rows, if they do.
    fn given_time(&self) -> Option<GivenTime> {
        self.changes().map(|_| GivenTime::Change)
    }

    /// What its rows are, if they are changes of a table. Then its chunks have their times.
    fn changes(&self) -> Option<&TableChanges> {
        None
    }

    /// How far behind the newest row a row may be, if the pipeline's file does
    /// not say.
    fn out_of_orderness_ms(&self) -> i64 {
        0
    }

    /// After how long without rows a partition is idle, in ms, if the pipeline's file
    /// does not say. Without it, none ever is.
    fn idle_after_ms(&self) -> Option<i64> {
        None
    }

    /// How far ahead of the clock a row's event time may be, in ms, if the
    /// pipeline's file does not say.
    fn ahead_ms_max(&self) -> Option<i64> {
        Some(AHEAD_MS_MAX)
    }

    /// Checks what the settings mean. `None` means that mistakes were reported.
    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>>;
}

/// Clocks of senders are wrong by less than a day.
const AHEAD_MS_MAX: i64 = 24 * 3_600_000;

/// What a connector has noticed that can run, but is probably not meant.
#[derive(Clone, Debug)]
pub struct Noticed {
    pub what: String,
    pub help: &'static str,
}

/// A source that has been checked and can be opened.
pub trait SourceConnector: Any + Send + Sync {
    fn describe(&self) -> Description;

    /// The number of partitions, which limits how many tasks read the source.
    /// `None` if it is known only once the source is open.
    fn partitions(&self) -> Option<usize>;

    /// Whether rows can be read again, so that a restart from a checkpoint
    /// loses none.
    fn is_replayable(&self) -> bool {
        true
    }

    /// Whether others send its rows, when they like, and nothing comes in between.
    fn may_be_quiet(&self) -> bool {
        false
    }

    /// Whether something is there at the start that has an end.
    fn can_bootstrap(&self) -> bool {
        true
    }

    /// How its rows are written in a file that replaces it in a test.
    fn row_format(&self) -> RowFormat {
        Format::Json.into()
    }

    /// How its rows are written where it reads them: all columns but those beside.
    fn payload_format(&self) -> RowFormat {
        self.row_format()
    }

    /// Has a decoder of the payload format learn what it needs to decode a row. The error
    /// says why it cannot.
    fn teach(&self, _decoder: &mut Decoder, _row: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// How many of its last columns are of no keys in its rows.
    fn columns_beside_rows(&self) -> usize {
        0
    }

    /// What a dead letter of a row tells of the columns beside it, in order, as JSON. The
    /// error says why it does not tell one.
    fn told_beside_row(&self, _letter: &DeadLetter) -> Vec<Result<Json, String>> {
        Vec::new()
    }

    /// What was noticed when it was planned that can run, but is probably not meant.
    fn warnings(&self) -> &[Noticed] {
        &[]
    }

    /// Lets go of what its server keeps for it, of a pipeline that is not run any more. Says
    /// what that was; the error says why it cannot.
    fn release(&self) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    /// Opens one task's part. Must be called within a tokio runtime.
    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>>;

    /// Which of its partitions in a checkpoint it does not read any more, if another
    /// source can.
    fn not_read(&self, _known: &[SourceSnapshot]) -> Vec<PartitionSnapshot> {
        Vec::new()
    }
}

/// One task's partitions of a source, being read.
///
/// In a live input, rows arrive from outside while it is read, and partitions
/// may be added and forgotten. A live input never waits for one partition alone.
pub trait SourceInput: Send {
    /// How many partitions this task has.
    fn partitions(&self) -> usize;

    /// The name of a partition, and the position of its next row.
    fn partition(&self, partition: usize) -> (Arc<str>, Position);

    /// What the restored checkpoint has of a partition, if it knows it.
    fn restored<'a>(
        &'a self,
        partition: usize,
        context: &'a SourceContext,
    ) -> Option<&'a PartitionSnapshot> {
        context.restored(&self.partition(partition).0)
    }

    /// What the restored checkpoint has of partitions that have ended and are gone. One
    /// task of the source has them, and hands them on to the next checkpoint: they may
    /// come back.
    fn absent(&self) -> &[PartitionSnapshot] {
        &[]
    }

    /// What the checkpoint keeps beside this position of a partition, for the next run.
    fn kept(&self, _partition: usize, _position: Position) -> Option<String> {
        None
    }

    /// A digest of what precedes this position of a partition, by which a later
    /// run can tell whether the partition is still the same.
    fn digest(&mut self, _partition: usize, _position: Position) -> Option<String> {
        None
    }

    fn is_live(&self) -> bool {
        false
    }

    /// Reads the next rows of the first partition in `order` or, if the input
    /// is live, of the first one that has rows. The future may be dropped while
    /// it waits, and nothing is lost.
    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival>;

    /// Whether a partition has rows that are still to be returned, whatever they wait for: it
    /// is not idle, however long that takes.
    fn holds_rows(&self, _partition: usize) -> bool {
        false
    }

    /// The fraction of a bounded input that has been read, from 0 to 1.
    fn progress(&self) -> Option<f64> {
        None
    }

    /// How many messages wait to be read, if somebody finds that out beside it.
    fn backlog(&self) -> Option<Arc<Backlog>> {
        None
    }

    /// Rows of the last chunk are bad: they could not be decoded, or something else is wrong
    /// with them. What becomes of them is not the input's to decide.
    fn bad(&mut self, _partition: usize, _: &[BadRow]) {}

    /// Whether it wants to know which positions are committed.
    fn wants_commits(&self) -> bool {
        false
    }

    /// A checkpoint with these positions has been committed. Only inputs that want it are
    /// told.
    fn committed(&mut self, _: &[(Arc<str>, Position)]) {}

    /// How many messages were lost, since the last call, before they could be read.
    fn new_losses(&mut self) -> u64 {
        0
    }

    /// The address that a source listens on.
    fn address(&self) -> Option<SocketAddr> {
        None
    }
}

/// What an input returns at a time.
pub enum Arrival {
    /// Rows of a partition.
    Rows(usize, Box<Chunk>),
    /// No partition had rows for a time, perhaps that after which partitions are idle.
    Silence,
    /// All rows of a partition have been returned that were there at the start. Only live
    /// inputs say so, if they are asked to: in others, these are all until the end.
    Bootstrapped(usize),
    /// A partition has no more rows.
    End(usize),
    /// The partitions are known now, or some were added.
    Partitions,
    /// A partition has no more rows, and nothing is known of it any more: those behind it
    /// have moved up. Only live inputs say so.
    Forgotten(usize),
    /// No partition has more rows, and none will be added.
    Over,
}

impl Arrival {
    /// What a partition returned: rows, or its end.
    pub fn of(partition: usize, chunk: Option<Chunk>) -> Self {
        match chunk {
            Some(chunk) => Arrival::Rows(partition, Box::new(chunk)),
            None => Arrival::End(partition),
        }
    }
}

/// The result of a source operation that has to wait.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// What a source needs to know about the task that reads it.
#[derive(Clone)]
pub struct SourceContext {
    pub node: Arc<str>,
    pub schema: Arc<Schema>,
    pub placement: Placement,
    pub batch_rows: usize,
    /// May allow fewer rows at a time.
    pub budget: Arc<Budget>,
    /// So may this.
    pub pace: Arc<Pace>,
    /// How many blocks are decoded at the same time; with one, in the reading
    /// task.
    pub decode_workers: usize,
    pub clock: Arc<dyn Clock>,
    /// Whether the source's offsets are committed in the pipeline's
    /// transaction.
    pub is_transactional: bool,
    /// Whether to say when all has been read that is there at the start.
    pub bootstraps: bool,
    /// Whether the run makes checkpoints.
    pub is_checkpointed: bool,
    /// Whether they outlive the process, so that the next one goes on from them.
    pub are_checkpoints_kept: bool,
    /// Snapshots of all tasks of this source in the restored checkpoint.
    pub restored: Arc<[SourceSnapshot]>,
    /// What that has of partitions that other sources do not read any more.
    pub left_by_others: Arc<[LeftPartition]>,
    /// Asks the run to end.
    pub stop: Stop,
}

/// A partition of a checkpoint that the source of this name does not read any more.
#[derive(Clone, Debug)]
pub struct LeftPartition {
    pub source: Arc<str>,
    pub snapshot: PartitionSnapshot,
}

impl SourceContext {
    /// How many rows to hand out at a time, at least one.
    pub fn rows_max(&self) -> usize {
        let rows = self.budget.rows_max().min(self.pace.rows_max());
        self.batch_rows.min(rows).max(1)
    }

    /// The columns of rows, without so many that come after them and tell what messages have
    /// besides.
    pub fn columns_in_rows(&self, beside: usize) -> Schema {
        let in_rows = self.schema.fields.len().saturating_sub(beside);
        Schema {
            fields: self.schema.fields[..in_rows].to_vec(),
        }
    }

    /// The snapshot of a partition, whichever task it was read by.
    pub fn restored(&self, partition: &str) -> Option<&PartitionSnapshot> {
        let mut partitions = self.restored.iter().flat_map(|task| &task.partitions);
        partitions.find(|known| known.name == partition)
    }

    /// What lets the source begin anew, for messages about what it has read so far.
    pub fn beginning_anew(&self) -> String {
        match self.are_checkpoints_kept {
            true => format!(
                "drop what the checkpoint knows of this source (`sluicebox run --drop {}`)",
                self.node
            ),
            // Every start does.
            false => "start the pipeline again".to_owned(),
        }
    }

    /// This task's own snapshot, if the number of tasks has not changed.
    fn restored_task(&self) -> Option<&SourceSnapshot> {
        self.restored
            .get(self.placement.task)
            .filter(|_| self.restored.len() == self.placement.tasks)
    }

    /// Refuses a delimiter that would split characters, quoted fields or lines.
    pub fn check_delimiter(&self, format: &Format) -> Result<(), SourceError> {
        match format {
            Format::Csv(csv) if !csv.delimiter.is_ascii() || b"\"\r\n".contains(&csv.delimiter) => {
                Err(self.refuse(
                    "the CSV delimiter has to be an ASCII character, and neither a quote nor a \
                     line end",
                    Fault::CONFIG,
                ))
            }
            _ => Ok(()),
        }
    }

    /// An error on opening the source.
    pub fn refuse(&self, message: impl Into<String>, fault: Fault) -> SourceError {
        SourceError::Open {
            node: self.node.to_string(),
            message: message.into(),
            fault,
        }
    }

    /// An error on reading the source: `what` failed.
    pub fn failed(
        &self,
        what: impl Into<String>,
        cause: impl fmt::Display,
        fault: Fault,
    ) -> SourceError {
        SourceError::Read {
            node: self.node.to_string(),
            what: what.into(),
            cause: cause.to_string(),
            fault,
        }
    }
}

/// Why a source cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source `{node}`: {message}")]
    Open {
        node: String,
        message: String,
        fault: Fault,
    },
    #[error("source `{node}`: decoding {partition} panicked, which is a bug in Sluicebox: {cause}")]
    Bug {
        node: String,
        partition: String,
        cause: String,
    },
    /// The system outside did not return what was asked for.
    #[error("source `{node}`: {what}: {cause}")]
    Read {
        node: String,
        what: String,
        cause: String,
        fault: Fault,
    },
    #[error(
        "source `{node}`: {partition}, offset {offset}: {cause} \
         (`on_error` is \"fail\"; \"skip\" or \"dead_letter\" continue without the row)"
    )]
    Row {
        node: String,
        partition: String,
        offset: u64,
        cause: String,
    },
}

impl SourceError {
    pub fn fault(&self) -> Fault {
        match self {
            SourceError::Open { fault, .. } | SourceError::Read { fault, .. } => *fault,
            SourceError::Bug { .. } => Fault::BUG,
            SourceError::Row { .. } => Fault::ROW,
        }
    }
}
