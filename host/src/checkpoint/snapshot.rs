//! What tasks hand over at a barrier, and are given back when a pipeline is
//! restored.
//!
//! Small things go into the manifest. States of keys are rows of the
//! [`storage`](super::storage), of which a task hands over those that have
//! changed since the barrier before.

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

/// How far one partition has come. Everything before is in the checkpoint, and
/// nothing behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionSnapshot {
    pub name: String,
    pub position: Position,
    /// The newest event time so far.
    pub newest_ms: Option<i64>,
    pub state: PartitionState,
}

/// A place between two rows of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where the next row is: a byte of a file, a row's number, a Kafka offset.
    pub offset: u64,
    /// How many rows are before it, where that is not the offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// It is in the middle of a row that was too long and given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_in_row: bool,
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

/// What one task of an operator knows.
#[derive(Debug, Default)]
pub struct OperatorSnapshot {
    /// How far time has come; the same for all tasks where it is event time.
    pub time_ms: Option<i64>,
    pub changes: Changes,
}

/// What a sink has to find again: how long its file was, for example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkSnapshot {
    /// Bytes of the file that are the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files written whole that get their names once the checkpoint is durable:
    /// from, to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<(String, String)>,
}
