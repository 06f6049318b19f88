//! Matches rows whose times are within bounds of one another.
//!
//! A left row at `t` matches right rows from `t - before` to `t + after`, both
//! inclusive. A row of a side is kept until the watermark has passed the last time at
//! which a row of the other side could match it; if its side is an outer one and nothing
//! has matched it, it comes out then, with its own time. A pair has the later time of
//! the two.
//!
//! Both sides are kept in panes of half the interval's length, or of a second if that is
//! longer; with one bound open, of half the other one, or of a minute if that is longer. A
//! side that is kept for ever has one pane.

use super::joined::{SideRows, in_order};
use super::rule::{Arrived, Joining, Lateness, Rule};
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::plan::{JoinPlan, LEFT, RIGHT};
use crate::state::error::StateError;
use crate::state::key::KeyLayout;
use crate::state::rows::{HandedOut, HandsOut, NewRows, Reach, RowBuffer};
use crate::state::stored::StoredTable;

pub(super) struct Interval {
    /// By side.
    waits: [Wait; 2],
    buffers: [RowBuffer; 2],
}

/// How long rows of a side wait for the other's.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// How far before and after a row the rows are that match it; `None` without a
    /// bound.
    back_ms: Option<i64>,
    ahead_ms: Option<i64>,
    panes: Panes,
    /// Whether rows that match none come out.
    is_outer: bool,
}

/// Panes of the same length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panes {
    /// `None` for a single pane.
    pub length_ms: Option<i64>,
}

const SHORTEST_MS: i64 = 1_000;
const SHORTEST_UNBOUNDED_MS: i64 = 60_000;

impl Interval {
    /// `stored` are the tables of the left and right rows.
    pub fn new(
        plan: &JoinPlan,
        layout: &KeyLayout,
        before_ms: Option<i64>,
        after_ms: Option<i64>,
        mut stored: impl Iterator<Item = StoredTable>,
    ) -> Self {
        let length_ms = match (before_ms, after_ms) {
            (Some(before_ms), Some(after_ms)) => {
                (before_ms.saturating_add(after_ms) / 2).max(SHORTEST_MS)
            }
            (Some(bound_ms), None) | (None, Some(bound_ms)) => {
                (bound_ms / 2).max(SHORTEST_UNBOUNDED_MS)
            }
            (None, None) => SHORTEST_UNBOUNDED_MS,
        };
        let wait = |side, back_ms, ahead_ms: Option<i64>| Wait {
            back_ms,
            ahead_ms,
            panes: Panes {
                length_ms: ahead_ms.map(|_| length_ms),
            },
            is_outer: plan.rule.kind.keeps(side),
        };
        let waits = [
            wait(LEFT, before_ms, after_ms),
            wait(RIGHT, after_ms, before_ms),
        ];
        let mut buffer = |side: usize| {
            let hands_out = match waits[side].is_outer {
                true => HandsOut::Unmarked,
                false => HandsOut::Nothing,
            };
            let schema = &plan.sides[side].schema;
            RowBuffer::new(schema, layout.clone(), stored.next(), hands_out, length_ms)
        };
        Interval {
            waits,
            buffers: [buffer(LEFT), buffer(RIGHT)],
        }
    }
}

impl Wait {
    /// The last time of rows that nothing can match any more, if there is one.
    fn passed(self, now_ms: i64) -> Option<i64> {
        match now_ms {
            // More rows may come in a later run: only what must come out goes.
            END_OF_TIME => self.is_outer.then_some(i64::MAX),
            now_ms => now_ms.checked_sub(self.ahead_ms?)?.checked_sub(1),
        }
    }

    /// Which rows of the other side match a row.
    fn reach(self, time_ms: i64, panes: Panes) -> Reach {
        let first = |back_ms| time_ms.saturating_sub(back_ms);
        let last = |ahead_ms| time_ms.saturating_add(ahead_ms);
        let first = self.back_ms.map_or(i64::MIN, first);
        let last = self.ahead_ms.map_or(i64::MAX, last);
        Reach {
            panes: panes.of(first)..=panes.of(last),
            times: first..=last,
        }
    }
}

impl Panes {
    pub fn of(self, time_ms: i64) -> i64 {
        self.length_ms
            .map_or(0, |length_ms| time_ms.div_euclid(length_ms))
    }

    /// Whether all of a pane is up to this time.
    pub fn is_over(self, pane: i64, up_to_ms: i64) -> bool {
        match up_to_ms.checked_add(1) {
            Some(next_ms) => self.length_ms.is_some() && pane < self.of(next_ms),
            None => true,
        }
    }
}

impl Rule for Interval {
    fn buffers(&mut self) -> &mut [RowBuffer] {
        &mut self.buffers
    }

    fn is_full(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.upkeep().is_full())
    }

    fn over_at(&self, row_ms: i64) -> Option<i64> {
        let outer = self.waits.iter().filter(|wait| wait.is_outer);
        let over = outer.map(|wait| match wait.ahead_ms {
            Some(ahead_ms) => row_ms.saturating_add(ahead_ms).saturating_add(1),
            None => i64::MAX,
        });
        over.max()
    }

    fn lateness(&self, time_ms: i64, now_ms: i64) -> Lateness {
        match time_ms < now_ms {
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
        let Arrived {
            side,
            times,
            key,
            columns,
            ..
        } = arrived;
        let Joining { keys, joined, .. } = joining;
        let (wait, other) = (self.waits[side], self.waits[1 - side]);
        let panes: Vec<i64> = times.iter().map(|&time| wait.panes.of(time)).collect();
        keys.read(key, times.len(), |row| {
            row > 0 && panes[row] != panes[row - 1]
        })?;
        let reach = |&time_ms: &i64| wait.reach(time_ms, other.panes);
        let reaches: Vec<Reach> = times.iter().map(reach).collect();
        let mut marks = vec![0; times.len()];
        let own = SideRows::Batch(&columns);
        let buffer = &mut self.buffers[1 - side];
        let mut pairs = joined.pairs(in_order(side, own, SideRows::Buffer(buffer.columns())));
        buffer.visit(keys, &reaches, |row, _, found, states| {
            marks[row] = 1;
            found.mark |= u32::from(other.is_outer);
            let time_ms = times[row].max(found.time_ms);
            pairs.push(side, row as u32, found.slot, time_ms);
            if pairs.is_full() {
                let sides = in_order(side, own, SideRows::Buffer(states));
                joined.emit(&mut pairs, sides, out)?;
            }
            Ok::<_, StateError>(())
        })?;
        let sides = in_order(side, own, SideRows::Buffer(buffer.columns()));
        joined.emit(&mut pairs, sides, out)?;
        let new = NewRows {
            panes: &panes,
            times: &times,
            marks: &marks,
            columns: &columns,
        };
        self.buffers[side].insert(keys, new)
    }

    fn keyless(
        &mut self,
        joining: &mut Joining,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        match self.waits[arrived.side].is_outer {
            true => {
                let own = SideRows::Batch(&arrived.columns);
                let rows = (0..).zip(arrived.times.iter().copied());
                joining.joined.emit_alone(arrived.side, own, rows, out)
            }
            false => Ok(()),
        }
    }

    fn advance(
        &mut self,
        joining: &mut Joining,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        for (side, wait) in self.waits.into_iter().enumerate() {
            let Some(up_to_ms) = wait.passed(now_ms) else {
                continue;
            };
            let buffer = &mut self.buffers[side];
            let last_pane = wait.panes.of(up_to_ms);
            let is_over = |pane| wait.panes.is_over(pane, up_to_ms);
            buffer.pass(up_to_ms, last_pane, is_over, |handed: HandedOut<'_>| {
                let own = SideRows::Buffer(handed.columns);
                let rows = handed.rows.iter().map(|row| (row.slot, row.time_ms));
                joining.joined.emit_alone(side, own, rows, out)
            })?;
        }
        Ok(())
    }

    /// Rows that match none come out this much later than others.
    fn watermark_out(&self, watermark_ms: i64) -> i64 {
        let outer = self.waits.iter().filter(|wait| wait.is_outer);
        let held = outer.map(|wait| match wait.ahead_ms {
            Some(ahead_ms) => watermark_ms.saturating_sub(ahead_ms),
            None => i64::MIN,
        });
        held.min().unwrap_or(watermark_ms)
    }
}
