//! Operators at work in a task: each takes elements and puts what comes of
//! them into an [`Outbox`].

/// Calls that survive a plugin's failures.
pub mod guard;
/// Filters and transforms.
pub mod transform;

use crate::batch::Batch;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::dead_letter::DeadLetter;

/// One operator of a task's chain. Which rows it gets together must not matter.
pub trait Operator: Send {
    /// `edge` is the index of the node's input that the batch came through.
    fn rows(&mut self, edge: usize, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError>;

    /// Event time has come to `watermark_ms` on all inputs
    /// ([`crate::element::END_OF_TIME`] when they have ended).
    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError>;

    /// What of its state has changed since the snapshot before. Nothing for an
    /// operator that has no state.
    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError>;

    /// No more should come before a checkpoint is done that is under way.
    fn is_full(&self) -> bool {
        false
    }

    /// When the operator next wants [`Operator::wake`], in ms of the clock.
    fn wake_at(&self) -> Option<i64>;

    /// Processing time has come to `now_ms`.
    fn wake(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError>;
}

/// What an operator gives in return for one element.
#[derive(Debug, Default)]
pub struct Outbox {
    pub rows: Vec<Batch>,
    /// Rows that came too late for every window they belong to (as they came in).
    pub late: Vec<Batch>,
    /// Rows given up, with everything needed to find and replay them.
    pub dead_letters: Vec<DeadLetter>,
    pub counts: Counts,
}

/// Added up over a node's life and shown as progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows late for at least one of their windows.
    pub late: u64,
    /// Rows that the plugin rejected with a reason.
    pub rejected: u64,
    /// Rows on which the plugin failed, and which were skipped or set aside.
    pub failed: u64,
}

/// The pipeline cannot go on: a row under `on_error = "fail"`, a plugin that
/// cannot be opened any more, a bug.
#[derive(Debug, thiserror::Error)]
#[error("operator `{node}`: {message}")]
pub struct OperatorError {
    pub node: String,
    pub message: String,
}
