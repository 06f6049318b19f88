//! The messages about barriers between the coordinator, the tasks and the writer of
//! dead letters.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::replacement::Replacement;
use super::snapshot::TaskSnapshot;
use crate::dead_letter::DeadLetter;
use crate::element::{Barrier, CheckpointId};

/// What a task sends to the coordinator.
#[derive(Debug)]
pub enum Report {
    Snapshot(TaskSnapshot),
    /// The end of event time has come to a task, and all is done that is due by then.
    Ended,
}

/// What the writer of dead letters receives.
pub enum DeadLetterMessage {
    /// A task's dead letters, and the last barrier before them. The writer answers when
    /// they are in the file; not where they wait until other tasks have passed it.
    Written(CheckpointId, Vec<DeadLetter>, oneshot::Sender<()>),
    /// All tasks have passed this barrier. The writer syncs the checkpoint's dead
    /// letters to the disk, and answers with the length of the file.
    Barrier(CheckpointId, oneshot::Sender<u64>),
    /// The task with this number has no more dead letters. The writer answers when no
    /// task that ends with the same sources has any, and all are on the disk: only then
    /// may outputs be complete.
    Ended(usize, oneshot::Sender<()>),
}

/// How a task takes part in checkpoints.
#[derive(Clone)]
pub struct TaskCheckpoints {
    /// The barrier that sources send next. Number 0 means none.
    pub trigger: watch::Receiver<Barrier>,
    /// What replaces the logic of operators at a barrier of this purpose.
    pub replacement: watch::Receiver<Option<Arc<Replacement>>>,
    pub reports: mpsc::UnboundedSender<Report>,
    /// The last committed checkpoint.
    pub committed: watch::Receiver<CheckpointId>,
    /// The last barrier that this task has passed.
    pub last_passed: CheckpointId,
    /// The last commit that the task's nodes were told of.
    pub last_told: CheckpointId,
    /// The checkpoint that records the run's starting point. The task reads no row
    /// before it is committed.
    pub first: Option<CheckpointId>,
}
