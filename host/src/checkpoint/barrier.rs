//! What the coordinator of checkpoints, the tasks and the writer of dead letters
//! tell each other about a barrier.

use tokio::sync::{mpsc, oneshot, watch};

use super::snapshot::TaskSnapshot;
use crate::dead_letter::DeadLetter;
use crate::element::{Barrier, CheckpointId};

/// What tasks tell the coordinator.
#[derive(Debug)]
pub enum Report {
    Snapshot(TaskSnapshot),
    /// A source's task has no more rows.
    Ended,
}

/// What the writer of dead letters is told.
pub enum DeadLetterMessage {
    /// Dead letters, and the last barrier in front of them.
    Written(CheckpointId, Vec<DeadLetter>),
    /// All tasks have passed this barrier. Answered with the length of the file
    /// that belongs to the checkpoint, once it is on the disk.
    Barrier(CheckpointId, oneshot::Sender<u64>),
}

/// A task's part in checkpoints.
#[derive(Clone)]
pub struct TaskCheckpoints {
    /// The barrier that sources are to start next. None with the number 0.
    pub trigger: watch::Receiver<Barrier>,
    pub reports: mpsc::UnboundedSender<Report>,
    /// The last checkpoint that is done.
    pub committed: watch::Receiver<CheckpointId>,
    /// The last barrier that has passed this task.
    pub passed: CheckpointId,
    /// The last checkpoint that the task's nodes were told to be done.
    pub heard: CheckpointId,
    /// The checkpoint that a run begins with, which has to be done before any
    /// row is read: it says where the run began.
    pub first: Option<CheckpointId>,
}
