//! Operators at work in a task: each takes elements and puts what comes of
//! them into an [`Outbox`].

/// Calls that survive a plugin's failures.
pub mod guard;
/// Filters and transforms.
pub mod transform;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::dead_letter::DeadLetter;
use crate::element::Inlet;

/// One operator of a task's chain. Which rows it gets together must not matter.
pub trait Operator: Send {
    /// A batch has come by `inlet`: which of the input ports, and which edge of it.
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError>;

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
    /// In the order in which they were put out, each with the index of its
    /// output port.
    pub batches: Vec<(usize, Batch)>,
    /// Rows given up, with everything needed to find and replay them.
    pub dead_letters: Vec<DeadLetter>,
    pub counts: Counts,
}

impl Outbox {
    /// Rows that the operator made, or lets through.
    pub fn put(&mut self, port: usize, batch: Batch) {
        self.counts.out += batch.rows() as u64;
        self.batches.push((port, batch));
    }

    /// Rows that came too late for every window they belong to, as they came
    /// in. They count as late, not as put out.
    pub fn put_late(&mut self, port: usize, batch: Batch) {
        self.batches.push((port, batch));
    }
}

/// Added up over a node's life and shown as progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows put out by all outputs together, late ones left out.
    pub out: u64,
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
    pub fault: Fault,
}
