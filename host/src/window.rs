//! Decides which rows belong together, and when their result is due.
//!
//! An [`AggregateOperator`] looks up the key of each row, finds the state of its
//! key and window, has the plugin fold the rows of a batch into their states in
//! one call, and puts out results as windows fire. The kinds of windows decide
//! which state a row belongs to: [`tumbling`], [`sliding`], [`session`], [`count`] and
//! [`running`].
//!
//! What a plugin may rely on: the rows of a key and pane (or session, or count
//! window) are folded in the order in which they arrive; states are merged in
//! order of time, earlier ones first. Results are the same wherever batches are
//! cut. A row that the plugin rejects or fails on leaves no trace: it opens no
//! window and extends no session.
//!
//! What a consumer may rely on: a window that fired and is corrected by a row
//! within the allowed lateness is put out again, whole, and the later result
//! holds. A corrected session may have another span than before: it supersedes
//! the results of its key that it overlaps. Early results are put out for the
//! keys that have had rows since the last ones. The order of rows is no part of
//! the result.
//!
//! Event-time windows never read the clock; windows in processing time never
//! look at the watermark, but for its end.

mod accumulators;
mod cold;
mod count;
mod cut;
mod groups;
mod leaves;
mod rows;
mod running;
mod session;
mod sliding;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
mod time;
mod timer;
mod tracker;
mod tree;
mod tumbling;

use std::sync::Arc;

use arrow_buffer::ScalarBuffer;

use crate::batch::Batch;
use crate::budget::Share;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::checkpoint::storage::StorageError;
use crate::clock::Clock;
use crate::element::END_OF_TIME;
use crate::operator::{Operator, OperatorError, Outbox};
use crate::plan::{AggregatePlan, TimeDomain, Window};
use crate::state::shelf::{Chunk, Shelf};
use accumulators::{Accumulators, Arrived};
use count::Counts;
use cut::Cut;
use running::Running;
use session::Sessions;
use sliding::Sliding;
pub use tables::tables;
use time::{SIZE_MAX_MS, within_reach};
use tumbling::Tumbling;

/// Rows folded by key and window.
pub struct AggregateOperator {
    accumulators: Accumulators,
    windows: Windows,
    time: TimeDomain,
    /// How far that time has come.
    now_ms: i64,
    clock: Arc<dyn Clock>,
    early_every_ms: Option<i64>,
    /// When early results are due next: a period after the first row that they
    /// will show.
    early_at_ms: Option<i64>,
    /// What this takes of the memory for states.
    share: Option<Share>,
}

enum Windows {
    Tumbling(Tumbling),
    Sliding(Sliding),
    Sessions(Sessions),
    Counts(Counts),
    Running(Running),
}

impl AggregateOperator {
    pub fn new(
        node: &str,
        plan: &AggregatePlan,
        batch_rows: usize,
        clock: Arc<dyn Clock>,
        shelf: Option<Shelf>,
    ) -> Result<Self, OperatorError> {
        let accumulators = Accumulators::new(node, plan, batch_rows, shelf)?;
        let refuse = |message: String| OperatorError {
            node: node.to_owned(),
            message,
        };
        let size = |what: &str, size_ms: i64| {
            if (1..=SIZE_MAX_MS).contains(&size_ms) {
                Ok(size_ms)
            } else {
                Err(refuse(format!(
                    "a window's {what} is {size_ms} ms; it must be at least 1 ms and at most {SIZE_MAX_MS}"
                )))
            }
        };
        let lateness_ms = plan.allowed_lateness_ms.clamp(0, SIZE_MAX_MS);
        let early = plan.early_every_ms.is_some();
        let late_wanted = plan.late_wanted;
        let (windows, time) = match plan.window {
            Window::Tumbling { size_ms, time } => {
                let size_ms = size("size", size_ms)?;
                let cut = Cut::new(size_ms, size_ms, lateness_ms);
                let tumbling = Tumbling::new(&accumulators, cut, late_wanted, early);
                (Windows::Tumbling(tumbling), time)
            }
            Window::Sliding {
                size_ms,
                slide_ms,
                time,
            } => {
                let size_ms = size("size", size_ms)?;
                let slide_ms = size("slide", slide_ms)?;
                if size_ms % slide_ms != 0 {
                    return Err(refuse(format!(
                        "a window of {size_ms} ms cannot slide by {slide_ms} ms; the size must be a multiple of the slide"
                    )));
                }
                let cut = Cut::new(size_ms, slide_ms, lateness_ms);
                let sliding = Sliding::new(&accumulators, cut, late_wanted, early);
                (Windows::Sliding(sliding), time)
            }
            Window::Session { gap_ms, time } => {
                let gap_ms = size("gap", gap_ms)?;
                let sessions =
                    Sessions::new(&accumulators, gap_ms, lateness_ms, late_wanted, early);
                (Windows::Sessions(sessions), time)
            }
            Window::Count { size: 0 } => {
                return Err(refuse("a window must count at least 1 row".to_owned()));
            }
            Window::Count { size } => {
                let counts = Counts::new(&accumulators, size, early);
                (Windows::Counts(counts), TimeDomain::Event)
            }
            Window::Running => (
                Windows::Running(Running::new(&accumulators, plan.ttl_ms)),
                TimeDomain::Event,
            ),
        };
        let period = |every_ms| i64::try_from(every_ms).unwrap_or(i64::MAX).max(1);
        let budget = accumulators.shelf().map(|shelf| shelf.budget.clone());
        let mut operator = AggregateOperator {
            accumulators,
            windows,
            time,
            now_ms: i64::MIN,
            clock,
            early_every_ms: plan.early_every_ms.map(period),
            early_at_ms: None,
            share: budget.map(Share::new),
        };
        operator.restore()?;
        Ok(operator)
    }

    /// Goes on from the checkpoint, if there is one.
    fn restore(&mut self) -> Result<(), OperatorError> {
        let shelf = self.accumulators.shelf().cloned();
        let Some((shelf, restored)) = shelf.and_then(|shelf| {
            let restored = shelf.restored?;
            Some((shelf, restored))
        }) else {
            return Ok(());
        };
        if let Some(time_ms) = restored.time_ms {
            self.now_ms = time_ms;
            match &mut self.windows {
                Windows::Tumbling(tumbling) => tumbling.set_time(time_ms),
                Windows::Sliding(sliding) => sliding.set_time(time_ms),
                Windows::Sessions(_) | Windows::Counts(_) | Windows::Running(_) => {}
            }
        }
        // As much as memory has room for; the rest is read when it is needed.
        let mut is_full = false;
        let loaded = shelf.load(|chunk| {
            is_full = is_full || self.excess() > 0;
            match is_full {
                false => self.thaw(&chunk)?,
                true => self.set_cold(&chunk)?,
            }
            let reads_on = matches!(self.windows, Windows::Sliding(_) | Windows::Sessions(_));
            Ok(!is_full || reads_on)
        });
        loaded.map_err(|error| self.accumulators.load_failed(error))?;
        if is_full && let Windows::Tumbling(tumbling) = &mut self.windows {
            let panes = shelf.panes();
            for pane in panes.map_err(|error| self.accumulators.failed(&error))? {
                tumbling.set_cold(pane);
            }
        }
        self.arm_early();
        Ok(())
    }

    /// Takes back rows of state.
    fn thaw(&mut self, chunk: &Chunk) -> Result<(), OperatorError> {
        let accumulators = &mut self.accumulators;
        match &mut self.windows {
            Windows::Tumbling(tumbling) => tumbling.thaw(accumulators, chunk),
            Windows::Sliding(sliding) => sliding.thaw(accumulators, chunk),
            Windows::Sessions(sessions) => sessions.thaw(accumulators, chunk),
            Windows::Counts(counts) => counts.thaw(accumulators, chunk),
            Windows::Running(running) => running.thaw(accumulators, chunk),
        }
    }

    /// Leaves rows of state where they are.
    fn set_cold(&mut self, chunk: &Chunk) -> Result<(), OperatorError> {
        let accumulators = &self.accumulators;
        match &mut self.windows {
            // What panes there are is asked for by itself.
            Windows::Tumbling(_) => {}
            Windows::Sliding(sliding) => sliding.set_cold(accumulators, chunk)?,
            Windows::Sessions(sessions) => sessions.set_cold(accumulators, chunk)?,
            Windows::Counts(counts) => counts.set_cold(),
            Windows::Running(running) => running.set_cold(),
        }
        Ok(())
    }

    /// By how many bytes states take too much memory here.
    fn excess(&mut self) -> usize {
        let bytes = self.accumulators.bytes()
            + match &self.windows {
                Windows::Tumbling(tumbling) => tumbling.bytes(),
                Windows::Sliding(sliding) => sliding.bytes(),
                Windows::Sessions(sessions) => sessions.bytes(),
                Windows::Counts(counts) => counts.bytes(),
                Windows::Running(running) => running.bytes(),
            };
        match &mut self.share {
            Some(share) => share.set(bytes),
            None => 0,
        }
    }

    /// Gives up states that the storage has, if they take too much memory, and
    /// asks for a checkpoint where what has changed is in the way.
    fn shrink(&mut self) {
        if self.share.is_none() {
            return;
        }
        let excess = self.excess();
        if excess == 0 {
            return;
        }
        let slots = self.accumulators.slots_in_use().max(1);
        let bytes_a_key = (self.share.as_ref().map_or(0, Share::bytes) / slots).max(1);
        let keys = excess.div_ceil(bytes_a_key);
        let accumulators = &mut self.accumulators;
        let changed = match &mut self.windows {
            Windows::Tumbling(tumbling) => {
                tumbling.evict(accumulators, keys);
                tumbling.changed()
            }
            Windows::Sliding(sliding) => {
                sliding.evict(accumulators, keys);
                sliding.changed()
            }
            Windows::Sessions(sessions) => {
                sessions.evict(accumulators, keys);
                sessions.changed()
            }
            Windows::Counts(counts) => {
                counts.evict(accumulators, keys);
                counts.changed()
            }
            Windows::Running(running) => {
                running.evict(accumulators, keys);
                running.changed()
            }
        };
        let still = self.excess();
        // A checkpoint for a handful of keys would not help.
        if still > 0
            && changed * 4 > slots
            && let Some(share) = &self.share
        {
            share.budget().press();
        }
    }

    fn arm_early(&mut self) {
        if let Some(every_ms) = self.early_every_ms
            && self.early_at_ms.is_none()
            && self.has_early()
        {
            self.early_at_ms = Some(self.clock.now_ms().saturating_add(every_ms));
        }
    }

    /// Time has come to `now_ms`; it never goes back.
    fn advance(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if now_ms <= self.now_ms {
            return Ok(());
        }
        self.now_ms = now_ms;
        let accumulators = &mut self.accumulators;
        match &mut self.windows {
            Windows::Tumbling(tumbling) => tumbling.advance(accumulators, now_ms, out),
            Windows::Sliding(sliding) => sliding.advance(accumulators, now_ms, out),
            Windows::Sessions(sessions) => sessions.advance(accumulators, now_ms, out),
            Windows::Counts(counts) if now_ms == END_OF_TIME => counts.end(accumulators, out),
            Windows::Running(running) => running.advance(accumulators, now_ms),
            Windows::Counts(_) => Ok(()),
        }
    }

    fn early(&mut self, out: &mut Outbox) -> Result<(), OperatorError> {
        let accumulators = &mut self.accumulators;
        match &mut self.windows {
            Windows::Tumbling(tumbling) => tumbling.early(accumulators, out),
            Windows::Sliding(sliding) => sliding.early(accumulators, out),
            Windows::Sessions(sessions) => sessions.early(accumulators, out),
            Windows::Counts(counts) => counts.early(accumulators, out),
            Windows::Running(_) => Ok(()),
        }
    }

    fn has_early(&self) -> bool {
        match &self.windows {
            Windows::Tumbling(tumbling) => tumbling.has_early(),
            Windows::Sliding(sliding) => sliding.has_early(),
            Windows::Sessions(sessions) => sessions.has_early(),
            Windows::Counts(counts) => counts.has_early(),
            Windows::Running(_) => false,
        }
    }
}

/// Why state could not be taken back.
enum LoadError {
    Operator(OperatorError),
    Storage(StorageError),
}

impl From<OperatorError> for LoadError {
    fn from(error: OperatorError) -> Self {
        LoadError::Operator(error)
    }
}

impl From<StorageError> for LoadError {
    fn from(error: StorageError) -> Self {
        LoadError::Storage(error)
    }
}

impl Operator for AggregateOperator {
    fn rows(&mut self, edge: usize, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let times = match self.time {
            TimeDomain::Event => within_reach(&batch.times),
            TimeDomain::Processing => {
                self.advance(self.clock.now_ms(), out)?;
                within_reach(&ScalarBuffer::from(vec![self.now_ms; batch.rows()]))
            }
        };
        let arrived = Arrived { edge, batch, times };
        let accumulators = &mut self.accumulators;
        match &mut self.windows {
            Windows::Tumbling(tumbling) => {
                tumbling.rows(accumulators, arrived, self.now_ms, out)?;
            }
            Windows::Sliding(sliding) => sliding.rows(accumulators, arrived, self.now_ms, out)?,
            Windows::Sessions(sessions) => {
                sessions.rows(accumulators, arrived, self.now_ms, out)?;
            }
            Windows::Counts(counts) => counts.rows(accumulators, arrived, out)?,
            Windows::Running(running) => {
                running.rows(accumulators, &arrived, self.now_ms, out)?;
            }
        }
        self.arm_early();
        self.shrink();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        let mut changes = Changes::default();
        let accumulators = &self.accumulators;
        match &mut self.windows {
            Windows::Tumbling(tumbling) => tumbling.freeze(accumulators, &mut changes)?,
            Windows::Sliding(sliding) => sliding.freeze(accumulators, &mut changes)?,
            Windows::Sessions(sessions) => sessions.freeze(accumulators, &mut changes)?,
            Windows::Counts(counts) => counts.freeze(accumulators, &mut changes)?,
            Windows::Running(running) => running.freeze(accumulators, &mut changes)?,
        }
        if let Some(share) = &self.share {
            changes.count_in(share.budget());
        }
        Ok(Some(OperatorSnapshot {
            time_ms: Some(self.now_ms).filter(|&now_ms| now_ms > i64::MIN),
            changes,
        }))
    }

    fn is_full(&self) -> bool {
        let share = self.share.as_ref();
        share.is_some_and(|share| share.budget().is_full())
    }

    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.time == TimeDomain::Event || watermark_ms == END_OF_TIME {
            self.advance(watermark_ms, out)?;
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<i64> {
        let end = match (&self.windows, self.time) {
            (Windows::Tumbling(tumbling), TimeDomain::Processing) => tumbling.next_end(),
            (Windows::Sliding(sliding), TimeDomain::Processing) => sliding.next_end(),
            (Windows::Sessions(sessions), TimeDomain::Processing) => sessions.next_end(),
            _ => None,
        };
        end.into_iter().chain(self.early_at_ms).min()
    }

    fn wake(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.early_at_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.early_at_ms = None;
            self.early(out)?;
        }
        if self.time == TimeDomain::Processing {
            self.advance(now_ms, out)?;
        }
        Ok(())
    }
}
