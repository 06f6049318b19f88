//! Where rows come from: what a kind of source has to say of itself, and the
//! machinery that all of them share.
//!
//! A source has partitions. Each is read in order, from a position that a
//! checkpoint may have kept. A source hands on chunks of decoded rows; the
//! [`reader`] finds their event times, tells watermarks, and puts bad rows
//! aside. A source itself never decides when time has advanced, and never drops
//! a row.

/// Rows of one partition, decoded.
pub mod chunk;
/// The event time of each row.
mod event_time;
/// One task's part of a source, at work.
pub mod reader;
/// Where rows end in a stream of text.
pub mod row_ends;
/// When event time has advanced.
pub mod watermark;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use self::chunk::Chunk;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position, SourceSnapshot};
use crate::clock::Clock;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::format::{Format, RowFormat};
use crate::placement::Placement;
use crate::schema::Schema;

/// How many rows of a partition are read before it is seen which one is behind.
pub const TURN_ROWS: u64 = 4_096;

/// A kind of source, as `type` names it.
#[derive(Clone, Copy)]
pub struct SourceKind {
    pub name: &'static str,
    /// Reads the keys that only this kind has. Keys that it does not ask for
    /// are mistakes; so is `None`, which it has explained.
    pub read: fn(&mut Table<'_>, &mut Diagnostics) -> Option<Box<dyn SourceSettings>>,
}

/// What a pipeline's author wrote of a source.
pub trait SourceSettings: fmt::Debug + Send + Sync {
    /// The columns of its rows, each with its place in the file.
    fn columns(&self) -> &[DeclaredColumn];

    /// The column that has the event time if the author names none.
    fn event_time(&self) -> Option<&str> {
        None
    }

    /// How far behind the newest row a row may come, if the author does not
    /// say it.
    fn out_of_orderness_ms(&self) -> i64 {
        0
    }

    /// Checks what the settings mean. `None` has been explained.
    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>>;
}

/// A source that is checked and can be opened.
pub trait SourceConnector: Any + Send + Sync {
    fn describe(&self) -> Description;

    /// How many partitions it has, and so how many tasks may read it at most.
    /// `None` where that is not known before it is opened.
    fn partitions(&self) -> Option<usize>;

    /// Whether earlier rows can be read again, so that a restart from a
    /// checkpoint loses none.
    fn is_replayable(&self) -> bool {
        true
    }

    /// How its rows are written in a file that is read in its stead.
    fn row_format(&self) -> RowFormat {
        Format::Json.into()
    }

    /// Opens what a task reads of it. Is called within a tokio runtime.
    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn Input>>;
}

/// One task's partitions of a source, being read.
///
/// A live input is one whose partitions get their rows from outside while it is
/// read, and may become more. It waits for no single one of them.
pub trait Input: Send {
    /// How many partitions this task has.
    fn partitions(&self) -> usize;

    /// The name of a partition, and the position of its next row.
    fn partition(&self, partition: usize) -> (Arc<str>, Position);

    fn is_live(&self) -> bool {
        false
    }

    /// The next rows of the first of these partitions or, if it is live, of the
    /// first that has some. May be dropped while it waits, and loses nothing.
    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival>;

    /// What part of a bounded input has been read, from 0 to 1.
    fn progress(&self) -> Option<f64> {
        None
    }

    /// A checkpoint is done in which the partitions had come so far. Only live
    /// inputs are told.
    fn committed(&mut self, _: &[(Arc<str>, Position)]) {}

    /// Where a source that others connect to listens.
    fn address(&self) -> Option<SocketAddr> {
        None
    }
}

/// What has come in, of one task's partitions.
pub enum Arrival {
    /// Rows of this partition.
    Rows(usize, Box<Chunk>),
    /// Nothing came for as long as a partition may be silent.
    Silence,
    /// This partition has no more rows.
    End(usize),
    /// It is known now which partitions there are, or there are more.
    Partitions,
    /// No partition has more rows, and none is to come.
    Over,
}

impl Arrival {
    /// What a partition has given: rows, or its end.
    pub fn of(partition: usize, chunk: Option<Chunk>) -> Self {
        match chunk {
            Some(chunk) => Arrival::Rows(partition, Box::new(chunk)),
            None => Arrival::End(partition),
        }
    }
}

/// Something of a source that has to be waited for.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// What a source needs to know of the task that reads it.
#[derive(Clone)]
pub struct SourceContext {
    pub node: Arc<str>,
    pub schema: Arc<Schema>,
    pub placement: Placement,
    pub batch_rows: usize,
    /// Blocks decoded at the same time, in order; one is decoded where it is read.
    pub decode_workers: usize,
    pub clock: Arc<dyn Clock>,
    /// How far it has come is part of the pipeline's transaction.
    pub is_transactional: bool,
    /// How far the source's tasks had come at the checkpoint that is restored.
    pub restored: Arc<[SourceSnapshot]>,
}

impl SourceContext {
    /// How far a partition had come, whichever task had it.
    pub fn restored(&self, partition: &str) -> Option<&PartitionSnapshot> {
        let mut partitions = self.restored.iter().flat_map(|task| &task.partitions);
        partitions.find(|known| known.name == partition)
    }

    /// The same task's own snapshot, if there were as many tasks.
    fn restored_task(&self) -> Option<&SourceSnapshot> {
        self.restored
            .get(self.placement.task)
            .filter(|_| self.restored.len() == self.placement.tasks)
    }

    /// A delimiter that is no character by itself would cut texts in the middle
    /// of one.
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

    /// The source cannot be opened.
    pub fn refuse(&self, message: impl Into<String>, fault: Fault) -> SourceError {
        SourceError::Open {
            node: self.node.to_string(),
            message: message.into(),
            fault,
        }
    }

    /// The source cannot be read any further: `what` failed.
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

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source `{node}`: {message}")]
    Open {
        node: String,
        message: String,
        fault: Fault,
    },
    #[error("source `{node}`: decoding {partition} broke off, which is a bug of ours: {cause}")]
    Bug {
        node: String,
        partition: String,
        cause: String,
    },
    /// What is outside does not give what was asked for.
    #[error("source `{node}`: {what}: {cause}")]
    Read {
        node: String,
        what: String,
        cause: String,
        fault: Fault,
    },
    #[error(
        "source `{node}`: {partition}, offset {offset}: {cause} \
         (`on_error` is \"fail\"; \"skip\" or \"dead_letter\" go on without the row)"
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
