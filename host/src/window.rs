//! Decides which rows belong together, and when their result is due.
//!
//! An [`AggregateOperator`] looks up the key of each row, finds the state of its
//! key and window, has the plugin fold the rows of a batch into their states in
//! one call, and emits results as windows fire. The kinds of windows decide
//! which state a row belongs to: [`tumbling`], [`sliding`], [`session`], [`count`] and
//! [`running`].
//!
//! What a plugin may rely on: the rows of a key and pane (or session, or count
//! window) are folded in the order in which they arrive; states are merged in
//! order of time, earlier ones first. Results are the same wherever batches are
//! cut. A row that the plugin rejects or fails on is lost: it opens no window and
//! extends no session.
//!
//! What a consumer may rely on: if a row within the allowed lateness corrects a
//! window that has fired, its whole result is emitted again, and the later result
//! counts. A corrected session may have another span: with a column for the timing of
//! results, the result of the former span is withdrawn. Sessions of a key never overlap:
//! a row that reaches a session whose result is final is late. Early results are emitted
//! for keys with rows since the last ones. The order of result rows is undefined.
//!
//! Event-time windows never read the clock; windows in processing time ignore
//! watermarks, except the end of time.

/// Calls the plugin: folds rows, merges states, emits results.
mod accumulators;
/// Windows of a fixed number of rows, or of all rows.
mod count;
/// The panes and windows of a fixed size that a time belongs to.
pub(crate) mod cut;
/// Keys with rows that no early result has shown.
mod early;
/// When sessions ended that are over.
mod ended;
/// What becomes of results.
mod changes;
/// What a kind of window is.
mod kind;
/// The panes that have a key.
mod leaves;
/// Where states are in rows, for what migrates them.
pub mod migrated;
/// Batches of results.
mod results;
/// No windows: a result after each row.
mod running;
/// Windows that end when a key has no rows for a time.
mod session;
/// What is seen of its state.
mod show;
/// Windows that overlap.
mod sliding;
/// The tables of state, and the layout of their rows.
pub mod tables;
#[cfg(test)]
mod tests;
/// Times and spans of windows.
pub(crate) mod time;
/// Merged panes of a key with many panes.
mod tree;
/// Windows that follow one another.
mod tumbling;

use std::sync::Arc;

use arrow_buffer::ScalarBuffer;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::clock::Clock;
use crate::element::{END_OF_TIME, Inlet};
use crate::logic::Factory;
use crate::operator::error::KeyedError;
use crate::operator::guard::CALL_BYTES_MAX;
use crate::operator::{Operator, OperatorError, Outbox};
use crate::plan::{AggregatePlan, Emit, TimeDomain, Window};
use crate::state::error::StateError;
use crate::state::look::{Look, Seen};
use crate::state::stored::StoredTable;
use crate::state::upkeep::Upkeep;
use crate::stop::Stop;
use accumulators::{Accumulators, Arrived};
use count::Counts;
use cut::Cut;
use kind::WindowKind;
use running::Running;
use session::{Periods, Sessions};
pub use show::show;
use sliding::Sliding;
pub use tables::tables;
use time::{SIZE_MAX_MS, held_back, within_reach};
use tumbling::Tumbling;

/// Folds rows by key and window.
pub struct AggregateOperator {
    node: Arc<str>,
    accumulators: Accumulators,
    windows: Box<dyn WindowKind>,
    time: TimeDomain,
    /// Whether late rows correct results.
    corrects: bool,
    /// How long after its end a window fires.
    hold_ms: i64,
    /// How far time has come in this domain.
    now_ms: i64,
    /// The newest event time of rows.
    newest_ms: Option<i64>,
    /// What that was when the inputs ended in an earlier run. Windows of rows up to then
    /// stay closed, however far time has come.
    ended_ms: Option<i64>,
    clock: Arc<dyn Clock>,
    early_every_ms: Option<i64>,
    /// When early results are due next: a period after the first row that they will
    /// show.
    early_at_ms: Option<i64>,
    upkeep: Upkeep,
}

impl AggregateOperator {
    /// `stored` are the node's tables in the storage, in the order of [`tables()`]; none
    /// where the pipeline has no checkpoints.
    pub fn new(
        node: &str,
        plan: &AggregatePlan,
        batch_rows: usize,
        clock: Arc<dyn Clock>,
        stored: Vec<StoredTable>,
        stop: &Stop,
    ) -> Result<Self, OperatorError> {
        let mut stored = stored.into_iter();
        let accumulators = Accumulators::new(node, plan, batch_rows, stored.next(), stop)?;
        let refuse = |message: String| OperatorError {
            node: node.to_owned(),
            message,
            fault: Fault::CONFIG,
        };
        let lateness_ms = plan.allowed_lateness_ms.clamp(0, SIZE_MAX_MS);
        let hold_ms = match (plan.window, plan.emit) {
            // Its results have times before the watermark, when the input ends.
            (Window::Global, _) => i64::MAX,
            (_, Emit::Change) => 0,
            (_, Emit::Final) => lateness_ms,
        };
        let cut_of = |window: Window| {
            let cut = Cut::of(window)
                .map_err(|problem| refuse(format!("there is no {window}: {problem}")))?;
            Ok(cut.correctable_for(lateness_ms).held_for(hold_ms))
        };
        let early = plan.early_every_ms.is_some();
        let late_wanted = plan.late_wanted;
        let (windows, time): (Box<dyn WindowKind>, _) = match plan.window {
            window @ Window::Tumbling { time, .. } => {
                let cut = cut_of(window)?;
                let mut tumbling = Tumbling::new(&accumulators, cut, late_wanted, early);
                if plan.discards {
                    tumbling = tumbling.discarding();
                }
                (Box::new(tumbling), time)
            }
            window @ (Window::Sliding { time, .. } | Window::Cumulate { time, .. }) => {
                let sliding = Sliding::new(&accumulators, cut_of(window)?, late_wanted, early);
                (Box::new(sliding), time)
            }
            Window::Session { gap_ms, time } => {
                if !(1..=SIZE_MAX_MS).contains(&gap_ms) {
                    return Err(refuse(format!(
                        "a session's gap is {gap_ms} ms; it must be at least 1 ms and at most \
                         {SIZE_MAX_MS}"
                    )));
                }
                let periods = Periods {
                    gap_ms,
                    hold_ms,
                    lateness_ms,
                };
                let sessions = Sessions::new(&accumulators, periods, stored.next(), plan);
                let sessions = sessions.map_err(|error| KeyedError::from(error).of(node))?;
                (Box::new(sessions), time)
            }
            Window::Count { size: 0 } => {
                return Err(refuse("a window must count at least 1 row".to_owned()));
            }
            Window::Count { size } => {
                let counts = Counts::new(&accumulators, size, early);
                (Box::new(counts), TimeDomain::Event)
            }
            Window::Global => {
                let counts = Counts::until_the_end(&accumulators, early, late_wanted);
                (Box::new(counts), TimeDomain::Event)
            }
            Window::Running => (
                Box::new(Running::new(&accumulators, plan.ttl_ms, early)),
                TimeDomain::Event,
            ),
        };
        let period = |every_ms| i64::try_from(every_ms).unwrap_or(i64::MAX).max(1);
        let upkeep = Upkeep::new(accumulators.table.stored.as_ref());
        let mut operator = AggregateOperator {
            node: node.into(),
            accumulators,
            windows,
            time,
            corrects: lateness_ms > 0 && plan.emit == Emit::Change,
            hold_ms,
            now_ms: i64::MIN,
            newest_ms: None,
            ended_ms: None,
            clock,
            early_every_ms: plan.early_every_ms.map(period),
            early_at_ms: None,
            upkeep,
        };
        operator.restore().map_err(|error| error.of(node))?;
        Ok(operator)
    }

    /// Restores the checkpoint, if there is one.
    fn restore(&mut self) -> Result<(), KeyedError> {
        let table = self.accumulators.table.clone();
        let Some(stored) = &table.stored else {
            return Ok(());
        };
        let Some(restored) = stored.restored else {
            return Ok(());
        };
        let time_ms = match (restored.time_ms, self.time) {
            // There may be more rows now.
            (Some(END_OF_TIME), TimeDomain::Event) => restored.read_ms,
            (Some(END_OF_TIME), TimeDomain::Processing) => Some(self.clock.now_ms()),
            (time_ms, _) => time_ms,
        };
        if let Some(time_ms) = time_ms {
            self.now_ms = time_ms;
            self.windows.set_time(time_ms);
        }
        if self.time == TimeDomain::Event {
            self.newest_ms = restored.newest_ms;
            self.ended_ms = restored.over_ms();
            if let Some(ended_ms) = self.ended_ms {
                self.windows.seal(ended_ms);
            }
        }
        let states = &mut self.accumulators.states;
        self.upkeep.restore(stored, states, self.windows.keyed())?;
        self.arm_early();
        Ok(())
    }

    /// How many of these rows there are before the next late one, the first not
    /// counted. Each late row corrects its results by itself, so that how often they
    /// are emitted depends on the rows, and not on where batches are cut.
    fn before_late_row(&self, times: &[i64]) -> usize {
        if !self.corrects || times.len() <= 1 {
            return times.len();
        }
        let mut more = times[1..].iter();
        more.position(|&time_ms| time_ms < self.now_ms)
            .map_or(times.len(), |at| at + 1)
    }

    fn fold(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        let times = match self.time {
            TimeDomain::Event => {
                self.newest_ms = self.newest_ms.max(batch.newest_ms());
                within_reach(&batch.times)
            }
            TimeDomain::Processing => {
                self.advance(self.clock.now_ms(), out)?;
                within_reach(&ScalarBuffer::from(vec![self.now_ms; batch.rows()]))
            }
        };
        let arrived = Arrived {
            edge: inlet.edge,
            batch,
            times,
        };
        self.windows
            .rows(&mut self.accumulators, arrived, self.now_ms, out)
            .map_err(|error| error.of(&self.node))
    }

    fn arm_early(&mut self) {
        if let Some(every_ms) = self.early_every_ms
            && self.early_at_ms.is_none()
            && self.windows.has_early()
        {
            self.early_at_ms = Some(self.clock.now_ms().saturating_add(every_ms));
        }
    }

    /// Advances time to `now_ms`; it never goes back.
    fn advance(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if now_ms <= self.now_ms {
            return Ok(());
        }
        self.now_ms = now_ms;
        self.windows
            .advance(&mut self.accumulators, now_ms, out)
            .map_err(|error| error.of(&self.node))
    }
}

impl Operator for AggregateOperator {
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        let mut first = 0;
        while first < batch.rows() {
            let room = self.accumulators.states.room_for_rows(CALL_BYTES_MAX);
            let rows = room.min(batch.rows() - first);
            let rows = self.before_late_row(&batch.times[first..first + rows]);
            self.fold(inlet, batch.slice(first, rows), out)?;
            first += rows;
            let states = &mut self.accumulators.states;
            self.upkeep.evict_excess(states, self.windows.keyed());
        }
        self.arm_early();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        let mut changes = Changes::default();
        self.windows
            .keyed()
            .snapshot(&self.accumulators.states, &mut changes)
            .map_err(|error| KeyedError::from(error).of(&self.node))?;
        self.upkeep.count(&mut changes);
        Ok(Some(OperatorSnapshot {
            time_ms: Some(self.now_ms).filter(|&now_ms| now_ms > i64::MIN),
            newest_ms: self.newest_ms,
            ended_ms: self.ended_ms,
            changes,
        }))
    }

    fn replace(&mut self, factory: Arc<dyn Factory>) -> Result<(), OperatorError> {
        self.accumulators.replace(factory)
    }

    /// Its windows; the sessions that are over have no state.
    fn look(&mut self, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        match look.table {
            0 => self
                .windows
                .keyed()
                .look(&self.accumulators.states, look, seen),
            _ => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.upkeep.is_full()
    }

    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.time == TimeDomain::Event || watermark_ms == END_OF_TIME {
            self.advance(watermark_ms, out)?;
        }
        Ok(())
    }

    /// Results that were held are on time for what reads them.
    fn watermark_out(&self, watermark_ms: i64) -> i64 {
        held_back(watermark_ms, self.hold_ms)
    }

    fn wake_at(&self) -> Option<i64> {
        let end = match self.time {
            TimeDomain::Processing => self.windows.next_end(),
            TimeDomain::Event => None,
        };
        end.into_iter().chain(self.early_at_ms).min()
    }

    fn wake(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.early_at_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.early_at_ms = None;
            self.windows
                .early(&mut self.accumulators, out)
                .map_err(|error| error.of(&self.node))?;
        }
        if self.time == TimeDomain::Processing {
            self.advance(now_ms, out)?;
        }
        Ok(())
    }
}
