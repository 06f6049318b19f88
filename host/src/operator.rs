//! What an operator is: it takes elements, and puts its output in an [`Outbox`].

/// Why keyed operators fail.
pub mod error;
/// Calls plugins, and isolates the rows that they fail on.
pub mod guard;
/// Filters and transforms.
pub mod transform;

use std::sync::Arc;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::dead_letter::DeadLetter;
use crate::element::{Element, Inlet};
use crate::logic::Factory;
use crate::state::error::StateError;
use crate::state::look::{Look, Seen};

/// One operator of a task's chain. Its results must not depend on where batches
/// are cut.
pub trait Operator: Send {
    /// Processes a batch that came by `inlet`.
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError>;

    /// Processes the watermark of all inputs
    /// ([`crate::element::END_OF_TIME`] when they have ended).
    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError>;

    /// Whether it has processed a part of what is due, and is to go on. In between,
    /// checkpoints are made and rows come, but the watermark is not passed on.
    fn has_more(&self) -> bool {
        false
    }

    /// Processes the next part of what is due.
    fn go_on(&mut self, _out: &mut Outbox) -> Result<(), OperatorError> {
        Ok(())
    }

    /// The watermark to pass on: no result that is still to come is before it.
    fn watermark_out(&self, watermark_ms: i64) -> i64 {
        watermark_ms
    }

    /// The changes of its state since the last snapshot; `None` for an operator
    /// without state.
    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError>;

    /// Calls other logic from now on, which takes, keeps and puts out the same. Called
    /// right after a snapshot.
    fn replace(&mut self, _: Arc<dyn Factory>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Whether its task must wait for the checkpoint in progress before it takes
    /// more rows.
    fn is_full(&self) -> bool {
        false
    }

    /// Shows rows of one of its tables of state, if it has any.
    fn look(&mut self, _look: &Look, _seen: &mut Seen) -> Result<(), StateError> {
        Ok(())
    }

    /// When to call [`Operator::wake`] next, in ms of the clock.
    fn wake_at(&self) -> Option<i64>;

    /// Processes the timers that are due at `now_ms` of processing time.
    fn wake(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError>;
}

/// An operator's output for one element.
#[derive(Default)]
pub struct Outbox<'a> {
    /// Output ports by index, and batches and watermarks, in order.
    pub elements: Vec<(usize, Element)>,
    pub dead_letters: Vec<DeadLetter>,
    pub counts: Counts,
    /// Bytes of rows and dead letters in it.
    bytes: usize,
    /// Takes what is in it when it is full; without, it holds everything.
    empty: Option<&'a mut Emptied<'a>>,
}

/// Takes elements with their ports, and dead letters.
pub type Emptied<'a> = dyn FnMut(Vec<(usize, Element)>, Vec<DeadLetter>) + 'a;

/// An outbox with more than this is full.
const FULL_BYTES: usize = 16 << 20;

impl<'a> Outbox<'a> {
    pub fn emptied_by(empty: &'a mut Emptied<'a>) -> Self {
        Outbox {
            empty: Some(empty),
            ..Outbox::default()
        }
    }

    /// Adds output rows.
    pub fn put(&mut self, port: usize, batch: Batch) {
        self.counts.out += batch.rows() as u64;
        self.put_rows(port, batch);
    }

    /// Adds output rows as batches of at most `rows_max`, which is not 0.
    pub fn put_in_parts(&mut self, port: usize, batch: Batch, rows_max: usize) {
        if batch.rows() <= rows_max {
            self.put(port, batch);
            return;
        }
        for start in (0..batch.rows()).step_by(rows_max) {
            let rows = rows_max.min(batch.rows() - start);
            self.put(port, batch.slice(start, rows));
        }
    }

    /// Counts input rows that are too late for all their windows, and adds them to the
    /// output that has such rows, if something reads it. They are no output of the
    /// operator.
    pub fn put_late(&mut self, port: Option<usize>, batch: &Batch, rows: &[u32]) {
        self.counts.too_late += rows.len() as u64;
        if let Some(port) = port
            && !rows.is_empty()
        {
            self.put_rows(port, batch.take(rows));
        }
    }

    fn put_rows(&mut self, port: usize, batch: Batch) {
        self.counts.put += batch.rows() as u64;
        self.bytes += batch.bytes();
        self.elements.push((port, Element::Batch(batch)));
        self.empty_if_full();
    }

    /// Adds a watermark or idleness.
    pub fn put_time(&mut self, port: usize, time: Element) {
        self.elements.push((port, time));
    }

    pub fn put_dead_letter(&mut self, dead_letter: DeadLetter) {
        let texts = [&dead_letter.payload, &dead_letter.row];
        self.bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
        self.bytes += size_of::<DeadLetter>();
        self.dead_letters.push(dead_letter);
        self.empty_if_full();
    }

    /// The batches in it, with their ports.
    pub fn into_batches(self) -> impl Iterator<Item = (usize, Batch)> {
        let elements = self.elements.into_iter();
        elements.filter_map(|(port, element)| match element {
            Element::Batch(batch) => Some((port, batch)),
            _ => None,
        })
    }

    fn empty_if_full(&mut self) {
        if self.bytes > FULL_BYTES
            && let Some(empty) = &mut self.empty
        {
            self.bytes = 0;
            let elements = std::mem::take(&mut self.elements);
            empty(elements, std::mem::take(&mut self.dead_letters));
        }
    }
}

/// Counts of rows, added to the node's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of all outputs together, without late ones.
    pub out: u64,
    /// Rows late for at least one of their windows.
    pub late: u64,
    /// Rows that the plugin rejected with a reason.
    pub rejected: u64,
    /// Rows on which the plugin failed, and which were skipped or became dead
    /// letters.
    pub failed: u64,
    /// Calls in which the plugin trapped or broke the contract, whatever became of their
    /// rows when they were repeated.
    pub failed_calls: u64,
    /// Input rows that are in a state or an answer of the operator.
    pub taken: u64,
    /// Input rows that a filter has left out.
    pub filtered: u64,
    /// Input rows that were late for all their windows.
    pub too_late: u64,
    /// Input rows that were rejected or failed on. Results and timers, which can fail
    /// as well, are not among them.
    pub lost: u64,
    /// How many more input rows wait for their time than before.
    pub held: i64,
    /// Rows of the operator's answers, where each answer is put out at once.
    pub made: u64,
    /// Those among them that have no valid event time.
    pub unmade: u64,
    /// Rows that were put out, late ones included.
    pub put: u64,
}

/// Why the run fails: a row under `on_error = "fail"`, a plugin that cannot be
/// opened any more, a bug.
#[derive(Debug, thiserror::Error)]
#[error("operator `{node}`: {message}")]
pub struct OperatorError {
    pub node: String,
    pub message: String,
    pub fault: Fault,
}
