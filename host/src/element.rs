//! The elements that travel between tasks, and the ids of nodes and checkpoints.

use serde::{Deserialize, Serialize};

use crate::batch::Batch;

/// Index of a node in its plan.
pub type NodeId = usize;

/// Where a batch comes into a node: an edge of one of its input ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inlet {
    /// Index of the node's input port.
    pub port: usize,
    /// Index among the edges that come into this port.
    pub edge: usize,
}

/// Checkpoints of a pipeline are numbered from 1 on.
pub type CheckpointId = u64;

/// What a channel carries. A watermark or barrier applies to everything that
/// follows it in the same channel.
#[derive(Clone, Debug)]
pub enum Element {
    Batch(Batch),
    /// No more rows with an event time before this one (ms) are expected. Rows
    /// that come nevertheless are late.
    Watermark(i64),
    /// This input is idle, and holds no watermark back until its next element.
    Idle,
    /// Everything before it belongs to this checkpoint, and nothing after it.
    Barrier(Barrier),
    /// Nothing follows. Every open window fires, unless the last barrier leaves
    /// them open.
    End,
}

/// Divides the rows of one checkpoint from those of the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Barrier {
    pub id: CheckpointId,
    pub purpose: Purpose,
}

/// Why a checkpoint is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The run begins, and records its starting point before it reads a row.
    Start,
    /// The checkpoint interval has passed.
    #[default]
    Interval,
    /// Changed states fill the memory budget.
    Pressure,
    /// Somebody requested a savepoint.
    Savepoint,
    /// Somebody asked the run to stop.
    Stop,
    /// This revision of the plan ends, and the next one continues from here.
    Swap,
    /// Operators call other logic from here on, in the same tasks.
    Replace,
    /// All inputs have ended.
    End,
}

impl Purpose {
    /// Whether the run ends with this checkpoint.
    pub fn is_last(self) -> bool {
        matches!(self, Purpose::Stop | Purpose::Swap | Purpose::End)
    }

    /// Whether a later run continues from here: then open windows may get more
    /// rows, and must not fire when this run ends.
    pub fn leaves_windows_open(self) -> bool {
        matches!(self, Purpose::Stop | Purpose::Swap)
    }

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Start => "start",
            Purpose::Interval => "interval",
            Purpose::Pressure => "memory pressure",
            Purpose::Savepoint => "savepoint",
            Purpose::Stop => "stop",
            Purpose::Swap => "swap",
            Purpose::Replace => "replacement",
            Purpose::End => "end",
        }
    }
}

/// The watermark of an input that has ended.
pub const END_OF_TIME: i64 = i64::MAX;
