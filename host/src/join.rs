//! Joins the rows of two inputs that have the same key.
//!
//! A [`JoinOperator`] looks up the key of each row, and hands the rows to one of the
//! rules by which they match: [`interval`], [`windows`] or [`as_of`]. These keep the
//! rows of each side in a [`RowBuffer`](crate::state::rows::RowBuffer) for as long as a
//! row of the other side may match them.
//!
//! What a consumer may rely on: a pair comes out once, as soon as both rows are there. A
//! row of an outer side that matches none comes out once, when the watermark says that
//! no match can come, and never if it did match. A row whose key has a missing field
//! matches nothing, as in SQL. The order of joined rows is undefined.
//!
//! A row behind the watermark is late for intervals and as-of joins; one whose windows
//! have all ended, for windows. No row is matched with a late one.

/// Takes the last row of a side at or before one of the other.
mod as_of;
/// Matches rows within a time of one another.
mod interval;
/// Makes rows of pairs.
mod joined;
/// What a rule is by which rows match.
mod rule;
/// What is seen of its state.
mod show;
/// The tables of state.
pub mod tables;
#[cfg(test)]
mod tests;
/// Matches rows in the same window.
mod windows;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::NullBuffer;

use crate::batch::{Batch, gather, pick};
use crate::blame::Fault;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::clock::Clock;
use crate::element::{END_OF_TIME, Inlet};
use crate::operator::error::KeyedError;
use crate::operator::{Operator, OperatorError, Outbox};
use crate::plan::{JoinPlan, JoinSide, Matching, TimeDomain};
use crate::schema::Schema;
use crate::state::error::StateError;
use crate::state::key::{BatchKeys, KeyLayout};
use crate::state::look::{Look, Seen};
use crate::state::stored::{Restored, StoredTable};
use as_of::AsOf;
use interval::Interval;
use joined::Joined;
use rule::{Arrived, Joining, Lateness, Rule};
pub use show::show;
use windows::Windows;

pub struct JoinOperator {
    node: Arc<str>,
    sides: [SideColumns; 2],
    joining: Joining,
    rule: Box<dyn Rule>,
    time: TimeDomain,
    /// How far time has come in this domain.
    now_ms: i64,
    /// The newest event time of rows.
    newest_ms: Option<i64>,
    clock: Arc<dyn Clock>,
}

/// Where the columns of a side are, by edge.
struct SideColumns {
    columns: Vec<Vec<usize>>,
    key: Vec<Vec<usize>>,
    tombstone: Option<Vec<usize>>,
    late_output: Option<usize>,
}

impl JoinOperator {
    /// `stored` are the node's tables in the storage, in the order of
    /// [`tables::tables`]; none where the pipeline has no checkpoints.
    pub fn new(
        node: &str,
        plan: &JoinPlan,
        output: Arc<Schema>,
        batch_rows: usize,
        clock: Arc<dyn Clock>,
        stored: Vec<StoredTable>,
    ) -> Result<Self, OperatorError> {
        let layout = KeyLayout::new(&plan.key_schema);
        let joining = Joining {
            keys: BatchKeys::new(layout.clone()),
            layout,
            joined: Joined::new(plan, output, batch_rows),
        };
        let restored = stored.first().and_then(|stored| stored.restored);
        let stored = stored.into_iter();
        let refuse = |message: String| OperatorError {
            node: node.to_owned(),
            message,
            fault: Fault::CONFIG,
        };
        let layout = &joining.layout;
        let (rule, time): (Box<dyn Rule>, _) = match plan.rule.matching {
            Matching::Interval {
                before_ms,
                after_ms,
            } => {
                let interval = Interval::new(plan, layout, before_ms, after_ms, stored);
                (Box::new(interval), TimeDomain::Event)
            }
            Matching::Window(window) => {
                let windows = Windows::new(plan, layout, window, stored).map_err(refuse)?;
                (
                    Box::new(windows),
                    window.time().unwrap_or(TimeDomain::Event),
                )
            }
            Matching::AsOf(version) => {
                let as_of = AsOf::new(plan, layout, version, stored);
                (Box::new(as_of), TimeDomain::Event)
            }
        };
        let mut operator = JoinOperator {
            node: node.into(),
            sides: plan.sides.each_ref().map(SideColumns::new),
            joining,
            rule,
            time,
            now_ms: i64::MIN,
            newest_ms: None,
            clock,
        };
        let time_ms = restored.and_then(|restored| match restored.time_ms {
            // There may be more rows now. What has come out stays out.
            Some(END_OF_TIME) => operator.time_after_end(restored),
            time_ms => time_ms,
        });
        operator.newest_ms = restored.and_then(|restored| restored.newest_ms);
        if let Some(time_ms) = time_ms {
            operator.now_ms = time_ms;
            operator.rule.set_time(time_ms);
        }
        if restored.is_some() {
            let mut buffers = operator.rule.buffers().iter_mut();
            let restored = buffers.try_for_each(|buffer| buffer.restore());
            restored.map_err(|error| operator.failed(error))?;
        }
        Ok(operator)
    }

    /// The time to go on from after the input had ended.
    fn time_after_end(&self, restored: Restored) -> Option<i64> {
        match self.time {
            TimeDomain::Event => {
                let over = restored
                    .newest_ms
                    .map(|newest_ms| self.rule.over_at(newest_ms));
                over.flatten().or(restored.read_ms)
            }
            TimeDomain::Processing => Some(self.clock.now_ms()),
        }
    }

    fn failed(&self, error: StateError) -> OperatorError {
        KeyedError::from(error).of(&self.node)
    }

    /// Advances time to `now_ms`; it never goes back.
    fn advance(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if now_ms <= self.now_ms {
            return Ok(());
        }
        self.now_ms = now_ms;
        let advanced = self.rule.advance(&mut self.joining, now_ms, out);
        advanced.map_err(|error| self.failed(error))
    }

    /// Joins the rows of a batch that are in time.
    fn join(&mut self, inlet: Inlet, batch: &Batch, out: &mut Outbox) -> Result<(), StateError> {
        let side = &self.sides[inlet.port];
        let mut late = Vec::new();
        let mut rows = Vec::with_capacity(batch.rows());
        for (row, &time_ms) in batch.times.iter().enumerate() {
            let lateness = self.rule.lateness(time_ms, self.now_ms);
            out.counts.late += u64::from(lateness != Lateness::InTime);
            match lateness {
                Lateness::Late => late.push(row as u32),
                Lateness::InTime | Lateness::LateForSome => rows.push(row as u32),
            }
        }
        out.put_late(side.late_output, batch, &late);
        let key = pick(batch, &side.key[inlet.edge]);
        let nulls = key.iter().fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.nulls())
        });
        let has_key = |row: &u32| {
            let nulls = nulls.as_ref();
            nulls.is_none_or(|nulls| nulls.is_valid(*row as usize))
        };
        let (keyed, keyless): (Vec<u32>, Vec<u32>) = rows.into_iter().partition(has_key);
        let columns = pick(batch, &side.columns[inlet.edge]);
        let tombstone = side.tombstone.as_ref();
        let tombstone = tombstone.map(|columns| &batch.columns[columns[inlet.edge]]);
        let is_taken_back = |row: &u32| batch.is_taken_back(*row as usize);
        let arrived = |rows: &[u32]| Arrived {
            side: inlet.port,
            times: rows.iter().map(|&row| batch.times[row as usize]).collect(),
            key: gather(&key, rows),
            columns: gather(&columns, rows),
            deletes: match tombstone {
                Some(column) => Some(deletes(column, rows)),
                None => batch
                    .taken_back
                    .is_some()
                    .then(|| rows.iter().map(is_taken_back).collect()),
            },
        };
        if !keyless.is_empty() {
            self.rule
                .keyless(&mut self.joining, arrived(&keyless), out)?;
            out.counts.taken += keyless.len() as u64;
        }
        if !keyed.is_empty() {
            let arrived = arrived(&keyed);
            self.rule.rows(&mut self.joining, arrived, out)?;
            out.counts.taken += keyed.len() as u64;
        }
        for buffer in self.rule.buffers() {
            buffer.evict_excess();
        }
        Ok(())
    }
}

impl SideColumns {
    fn new(side: &JoinSide) -> Self {
        SideColumns {
            columns: side.columns.clone(),
            key: side.key.clone(),
            tombstone: side.tombstone.clone(),
            late_output: side.late_output,
        }
    }
}

/// Which of these rows delete the one before.
fn deletes(column: &ArrayRef, rows: &[u32]) -> Vec<bool> {
    let deletes = |column: &BooleanArray, row: u32| {
        column.is_valid(row as usize) && column.value(row as usize)
    };
    match column.as_boolean_opt() {
        Some(column) => rows.iter().map(|&row| deletes(column, row)).collect(),
        None => unreachable!("the planner has checked its type"),
    }
}

impl Operator for JoinOperator {
    fn rows(
        &mut self,
        inlet: Inlet,
        mut batch: Batch,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        match self.time {
            TimeDomain::Event => self.newest_ms = self.newest_ms.max(batch.newest_ms()),
            TimeDomain::Processing => {
                self.advance(self.clock.now_ms(), out)?;
                batch.times = vec![self.now_ms; batch.rows()].into();
            }
        }
        self.join(inlet, &batch, out)
            .map_err(|error| self.failed(error))
    }

    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.time == TimeDomain::Event || watermark_ms == END_OF_TIME {
            self.advance(watermark_ms, out)?;
        }
        Ok(())
    }

    fn watermark_out(&self, watermark_ms: i64) -> i64 {
        match watermark_ms {
            END_OF_TIME => END_OF_TIME,
            watermark_ms => self.rule.watermark_out(watermark_ms),
        }
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        let mut changes = Changes::default();
        let mut buffers = self.rule.buffers().iter_mut();
        let taken = buffers.try_for_each(|buffer| buffer.snapshot(&mut changes));
        taken.map_err(|error| self.failed(error))?;
        if let Some(buffer) = self.rule.buffers().first() {
            buffer.upkeep().count(&mut changes);
        }
        Ok(Some(OperatorSnapshot {
            time_ms: Some(self.now_ms).filter(|&now_ms| now_ms > i64::MIN),
            newest_ms: self.newest_ms,
            ended_ms: None,
            changes,
        }))
    }

    fn look(&mut self, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        let buffers = self.rule.buffers();
        let buffer = buffers.get(look.table);
        buffer.map_or(Ok(()), |buffer| buffer.look(look, seen))
    }

    fn is_full(&self) -> bool {
        self.rule.is_full()
    }

    fn wake_at(&self) -> Option<i64> {
        match self.time {
            TimeDomain::Processing => self.rule.next_end(),
            TimeDomain::Event => None,
        }
    }

    fn wake(&mut self, now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        match self.time {
            TimeDomain::Processing => self.advance(now_ms, out),
            TimeDomain::Event => Ok(()),
        }
    }
}
