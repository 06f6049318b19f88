//! The one thing that travels between tasks, and the numbers that it goes by.

use serde::{Deserialize, Serialize};

use crate::batch::Batch;

/// A node of a plan.
pub type NodeId = usize;

/// By which way a batch comes into a node: an edge of one of its input ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inlet {
    /// Index of the node's input port.
    pub port: usize,
    /// Index among the edges that come into this port.
    pub edge: usize,
}

/// Checkpoints of a pipeline are numbered from 1 on.
pub type CheckpointId = u64;

/// What a channel carries. Time is data: an element holds for everything that
/// follows it in the same channel.
#[derive(Clone, Debug)]
pub enum Element {
    Batch(Batch),
    /// No row with an event time before this one is expected any more (ms).
    /// Rows that come all the same are late.
    Watermark(i64),
    /// This input is silent and must not hold time back until it speaks again.
    Idle,
    /// Everything before is in this checkpoint, and nothing behind.
    Barrier(Barrier),
    /// Nothing follows. Event time is over, and every open window fires, unless
    /// a barrier that leaves them open came last.
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
    /// The run begins, and says where before it reads a row.
    Start,
    /// It is time for one.
    #[default]
    Interval,
    /// Changed states fill the memory.
    Pressure,
    /// Somebody asked for one by a name.
    Savepoint,
    /// Somebody asked the run to end.
    Stop,
    /// The revision ends, and the next one goes on from here.
    Swap,
    /// All inputs have ended.
    End,
}

impl Purpose {
    /// Nothing follows it.
    pub fn is_last(self) -> bool {
        matches!(self, Purpose::Stop | Purpose::Swap | Purpose::End)
    }

    /// More rows may come to the windows that are open, so that these must not
    /// fire when the run ends.
    pub fn leaves_windows_open(self) -> bool {
        matches!(self, Purpose::Stop | Purpose::Swap)
    }

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Start => "start",
            Purpose::Interval => "interval",
            Purpose::Pressure => "memory pressure",
            Purpose::Savepoint => "savepoint",
            Purpose::Stop => "stop",
            Purpose::Swap => "swap",
            Purpose::End => "end",
        }
    }
}

/// The watermark of an input that has ended.
pub const END_OF_TIME: i64 = i64::MAX;
