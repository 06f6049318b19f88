//! Takes, for each left row, the last row of its key on the right side: the right side
//! is a table that changes, and its rows are versions.
//!
//! As of event time, a left row waits until the watermark has passed it: then all
//! versions up to its time have come, and the last of them is the one. It comes out with
//! its own time. Only versions are kept that a row may still need: the last one at or
//! before the watermark, and those after it. Of versions with the same time, the one
//! that came last counts.
//!
//! With the latest version, a left row comes out at once, with the newest version by
//! event time that has come. So results depend on the order in which rows come. If the table
//! bootstraps, left rows wait until there is event time, which is when it is whole.
//!
//! A version may say that it deletes the one before it: then the key has none.

use super::interval::Panes;
use super::joined::SideRows;
use super::rule::{Arrived, Joining, Lateness, Rule};
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::plan::{JoinPlan, LEFT, RIGHT, Version};
use crate::state::error::StateError;
use crate::state::key::{KeyLayout, Selection};
use crate::state::rows::{DELETED, HandedOut, HandsOut, NewRows, RowBuffer, VERSIONS_PANE};
use crate::state::stored::StoredTable;

pub(super) struct AsOf {
    version: Version,
    /// Whether left rows without a version come out.
    is_outer: bool,
    /// Of versions, and of left rows if they wait.
    buffers: Vec<RowBuffer>,
    /// How far time has come.
    now_ms: i64,
}

const VERSIONS: usize = 0;

/// Of left rows that wait.
const PANES: Panes = Panes {
    length_ms: Some(PANE_MS),
};
const PANE_MS: i64 = 60_000;

impl AsOf {
    /// `stored` are the tables of versions, and of left rows if they wait.
    pub fn new(
        plan: &JoinPlan,
        layout: &KeyLayout,
        version: Version,
        mut stored: impl Iterator<Item = StoredTable>,
    ) -> Self {
        let mut buffer = |side: usize, hands_out| {
            let schema = &plan.sides[side].schema;
            RowBuffer::new(schema, layout.clone(), stored.next(), hands_out, PANE_MS)
        };
        let mut buffers = vec![buffer(RIGHT, HandsOut::Versions)];
        if version == Version::EventTime || plan.waits_for_table {
            buffers.push(buffer(LEFT, HandsOut::All));
        }
        AsOf {
            version,
            is_outer: plan.rule.kind.keeps(LEFT),
            buffers,
            now_ms: i64::MIN,
        }
    }

    fn take_versions(&mut self, joining: &mut Joining, arrived: Arrived) -> Result<(), StateError> {
        let keys = &mut joining.keys;
        let rows = arrived.times.len();
        keys.read(arrived.key, rows, |_| false)?;
        let marks = match arrived.deletes {
            Some(deletes) => deletes.into_iter().map(mark).collect(),
            None => vec![0; rows],
        };
        let versions = &mut self.buffers[VERSIONS];
        let new = NewRows {
            panes: &vec![VERSIONS_PANE; rows],
            times: &arrived.times,
            marks: &marks,
            columns: &arrived.columns,
        };
        if self.version == Version::EventTime {
            return versions.insert(keys, new);
        }
        // A row may be older than when its key was deleted: whether that is forgotten
        // must not depend on what memory has room for.
        versions.forget_replaced_of(keys, self.now_ms)?;
        versions.insert(keys, new)?;
        versions.keep_last(keys);
        Ok(())
    }
}

fn mark(deletes: bool) -> u32 {
    match deletes {
        true => DELETED,
        false => 0,
    }
}

/// Emits left rows with their versions. `keys` are those of the rows, by their places.
fn emit(
    joining: &mut Joining,
    versions: &mut RowBuffer,
    left: SideRows<'_>,
    rows: &[(u32, i64)],
    as_of: Option<&[i64]>,
    is_outer: bool,
    out: &mut Outbox,
) -> Result<(), StateError> {
    let Joining { keys, joined, .. } = joining;
    let mut pairs = joined.pairs([left, SideRows::Buffer(versions.columns())]);
    let mut alone = Vec::new();
    versions.versions(keys, as_of, |row, version, states| {
        let (place, time_ms) = rows[row];
        match version {
            Some(version) => {
                pairs.push(LEFT, place, version, time_ms);
                if pairs.is_full() {
                    joined.emit(&mut pairs, [left, SideRows::Buffer(states)], out)?;
                }
            }
            None if is_outer => alone.push((place, time_ms)),
            None => {}
        }
        Ok::<_, StateError>(())
    })?;
    let sides = [left, SideRows::Buffer(versions.columns())];
    joined.emit(&mut pairs, sides, out)?;
    joined.emit_alone(LEFT, left, alone.into_iter(), out)
}

impl Rule for AsOf {
    fn buffers(&mut self) -> &mut [RowBuffer] {
        &mut self.buffers
    }

    fn is_full(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.upkeep().is_full())
    }

    fn set_time(&mut self, time_ms: i64) {
        self.now_ms = time_ms;
    }

    fn over_at(&self, row_ms: i64) -> Option<i64> {
        (self.version == Version::EventTime).then(|| row_ms.saturating_add(1))
    }

    fn lateness(&self, time_ms: i64, now_ms: i64) -> Lateness {
        match self.version == Version::EventTime && time_ms < now_ms {
            true => Lateness::Late,
            false => Lateness::InTime,
        }
    }

    fn rows(
        &mut self,
        joining: &mut Joining,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        if arrived.side == RIGHT {
            return self.take_versions(joining, arrived);
        }
        let times = &arrived.times;
        let waits = self.version == Version::EventTime || self.now_ms == i64::MIN;
        if let ([_, waiting], true) = (self.buffers.as_mut_slice(), waits) {
            let panes: Vec<i64> = times.iter().map(|&time| PANES.of(time)).collect();
            joining.keys.read(arrived.key, times.len(), |row| {
                row > 0 && panes[row] != panes[row - 1]
            })?;
            let new = NewRows {
                panes: &panes,
                times,
                marks: &vec![0; times.len()],
                columns: &arrived.columns,
            };
            return waiting.insert(&joining.keys, new);
        }
        joining.keys.read(arrived.key, times.len(), |_| false)?;
        let rows: Vec<(u32, i64)> = (0..).zip(times.iter().copied()).collect();
        let left = SideRows::Batch(&arrived.columns);
        let versions = &mut self.buffers[VERSIONS];
        emit(joining, versions, left, &rows, None, self.is_outer, out)
    }

    fn keyless(
        &mut self,
        joining: &mut Joining,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        if arrived.side == RIGHT || !self.is_outer {
            return Ok(());
        }
        let own = SideRows::Batch(&arrived.columns);
        let rows = (0..).zip(arrived.times.iter().copied());
        joining.joined.emit_alone(LEFT, own, rows, out)
    }

    fn advance(
        &mut self,
        joining: &mut Joining,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        self.now_ms = now_ms;
        let is_outer = self.is_outer;
        let as_of_time = self.version == Version::EventTime;
        if let [versions, waiting] = self.buffers.as_mut_slice() {
            // A row at the watermark may still get a version of its time.
            let up_to_ms = match now_ms {
                END_OF_TIME => i64::MAX,
                now_ms if as_of_time => now_ms - 1,
                _ => i64::MAX,
            };
            let is_over = |pane| PANES.is_over(pane, up_to_ms);
            let last_pane = PANES.of(up_to_ms);
            waiting.pass(up_to_ms, last_pane, is_over, |handed: HandedOut<'_>| {
                let ids = Selection::Each(handed.ids);
                let key = handed.keys.columns(&joining.layout, ids)?;
                joining.keys.read(key, handed.rows.len(), |_| false)?;
                let times: Vec<i64> = handed.rows.iter().map(|row| row.time_ms).collect();
                let rows = handed.rows.iter().map(|row| (row.slot, row.time_ms));
                let rows: Vec<(u32, i64)> = rows.collect();
                let left = SideRows::Buffer(handed.columns);
                let as_of = as_of_time.then_some(times.as_slice());
                emit(joining, versions, left, &rows, as_of, is_outer, out)?;
                versions.evict_excess();
                Ok::<_, StateError>(())
            })?;
        }
        self.buffers[VERSIONS].forget_replaced(now_ms)
    }
}
