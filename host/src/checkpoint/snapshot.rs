//! What tasks hand over at a barrier, and are given back when a pipeline is
//! restored.
//!
//! Small things go into the manifest. States of keys are rows of the
//! [`storage`](super::storage), of which a task hands over those that have
//! changed since the barrier before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::NodeId;
use crate::state::budget::{Budget, Frozen};

/// Checkpoints of a pipeline are numbered from 1 on.
pub type CheckpointId = u64;

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
    Speaking,
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

/// Rows of state that have changed. A key occurs once at most; ranges are
/// deleted before rows are put.
#[derive(Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    puts: Vec<Put>,
    deletes: Vec<(usize, usize)>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Says that they take memory.
    frozen: Option<Frozen>,
}

#[derive(Clone, Copy, Debug)]
struct Put {
    start: usize,
    value: usize,
    end: usize,
}

impl Changes {
    /// Writes a row's key, then its value, behind the bytes given.
    pub fn put(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let middle = self.bytes.len();
        value(&mut self.bytes);
        self.puts.push(Put {
            start,
            value: middle,
            end: self.bytes.len(),
        });
    }

    pub fn delete(&mut self, key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        self.deletes.push((start, self.bytes.len()));
    }

    /// Deletes rows whose keys are in `from..to`.
    pub fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        self.ranges.push((from, to));
    }

    pub fn puts(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.puts.iter().map(|put| {
            (
                &self.bytes[put.start..put.value],
                &self.bytes[put.value..put.end],
            )
        })
    }

    pub fn deletes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.deletes
            .iter()
            .map(|&(start, end)| &self.bytes[start..end])
    }

    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.ranges
            .iter()
            .map(|(from, to)| (from.as_slice(), to.as_slice()))
    }

    /// Has them counted until they are written. To write them takes about as
    /// much again as to know where they are.
    pub fn count_in(&mut self, budget: &Arc<Budget>) {
        let places = size_of_val(&*self.puts) + size_of_val(&*self.deletes);
        self.frozen = Some(budget.freeze(self.bytes.len() + 3 * places));
    }

    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty() && self.ranges.is_empty()
    }
}
