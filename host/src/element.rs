//! The one thing that travels between tasks, and the numbers that it goes by.

use crate::batch::Batch;

/// A node of a plan.
pub type NodeId = usize;

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
    Barrier(CheckpointId),
    /// Nothing follows. Event time is over: every open window fires.
    End,
}

/// The watermark of an input that has ended.
pub const END_OF_TIME: i64 = i64::MAX;
