//! What tasks hand over at a barrier, and get back when a pipeline is restored.
//!
//! Progress goes into the manifest. States are rows of the
//! [`storage`](super::storage): a task hands over those that have changed since
//! the last barrier.

use serde::{Deserialize, Serialize};

use super::changes::Changes;
use crate::element::{CheckpointId, NodeId};

/// What one task hands over.
#[derive(Debug)]
pub struct TaskSnapshot {
    pub checkpoint: CheckpointId,
    /// Which of its nodes' tasks it is.
    pub task: usize,
    pub nodes: Vec<(NodeId, NodeSnapshot)>,
}

#[derive(Debug)]
pub enum NodeSnapshot {
    Source(SourceSnapshot),
    Operator(OperatorSnapshot),
    Sink(SinkSnapshot),
}

/// How far one task of a source has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    pub partitions: Vec<PartitionSnapshot>,
    /// The partition whose turn it is, and how many rows it has had in it.
    pub turn: Option<(String, u64)>,
    /// The newest event time that the clock has given.
    pub ingested_ms: Option<i64>,
}

/// How far one partition has come. The checkpoint contains everything before this
/// position, and nothing after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionSnapshot {
    pub name: String,
    pub position: Position,
    /// The newest event time so far.
    pub newest_ms: Option<i64>,
    pub state: PartitionState,
    /// Of what was read last, if the connector can tell by it whether the
    /// partition is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What else the connector needs to go on, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// A place between two rows of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where the next row is: a byte of a file, a row's number, a Kafka offset; behind an
    /// entry of a Redis stream, the first number of its id; in PostgreSQL's log, the end of the
    /// last whole transaction.
    pub offset: u64,
    /// The second number of that id; how many rows of the next transaction are before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How many rows are before it, where that is not the offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// It is in the middle of a row that was too long and is being skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_in_row: bool,
    /// And in a quoted field of it, so that a line end does not end the row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_in_quotes: bool,
    /// Event time of row 0, of generated events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    #[default]
    // Its name in manifests.
    #[serde(rename = "speaking")]
    Active,
    Idle,
    Ended,
}

/// The progress and changed state of one task of an operator.
#[derive(Debug, Default)]
pub struct OperatorSnapshot {
    /// Its watermark, or processing time; all tasks have the same watermark.
    pub time_ms: Option<i64>,
    /// The newest event time of its rows so far, where it matters after their end.
    pub newest_ms: Option<i64>,
    /// The newest event time when all inputs ended in an earlier run, where windows stay
    /// closed that fired then.
    pub ended_ms: Option<i64>,
    pub changes: Changes,
}

/// How a sink numbers its rows, for those who may get some of them twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowNumbers {
    /// The same for all runs that go on from one another.
    pub series: String,
    /// Of the next row.
    pub next: u64,
}

/// What a sink needs after a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkSnapshot {
    /// Length of its file at the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The length of a finished file that is still to be cut to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncut_bytes: Option<u64>,
    /// A digest of these bytes, which shows whether a file is still the one that was
    /// written. In those of earlier versions, of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// A digest of the whole file that has the name until this one is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Complete files that are renamed once the checkpoint is committed: from, to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<(String, String)>,
    /// Digests of these files, in the same order. Earlier versions did not note them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged_digests: Vec<Option<String>>,
    /// Files of an earlier run that are deleted then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obsolete: Vec<String>,
    /// The number of its file, if it writes several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// When that file got its first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<i64>,
    /// If it numbers its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<RowNumbers>,
    /// If it writes parts in folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsSnapshot>,
}

/// What a sink that writes parts needs after a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartsSnapshot {
    /// The number of the next part.
    pub next: u64,
    /// Those that go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<PartSnapshot>,
    /// Complete ones, which get their names once the checkpoint is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complete: Vec<PartSnapshot>,
}

/// One part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSnapshot {
    pub number: u64,
    /// Where it is to be, below the folder that all of them are in.
    pub folder: String,
    /// Its length at the checkpoint.
    pub bytes: u64,
    /// A digest of these bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// When it got its first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<i64>,
    /// In an object store, the upload that becomes the part, and its pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<String>,
}
