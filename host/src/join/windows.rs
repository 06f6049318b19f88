//! Matches rows in the same window: tumbling, sliding or cumulating.
//!
//! A pair comes out once for each window that has both rows, with the time just before
//! the window's end. A row of an outer side comes out when a window ends in which
//! nothing has matched it, with the same time.
//!
//! Panes are those of [`Cut`]. Rows of earlier panes are in the first windows of a row,
//! rows of later panes in its last ones: a row's mark has how many of its first windows
//! have a match in the lower 16 bits, and how many of its last ones in the upper 16 bits.

use super::joined::{SideRows, in_order};
use super::rule::{Arrived, Joining, Lateness, Rule};
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::plan::{JoinPlan, LEFT, RIGHT, Window};
use crate::state::error::StateError;
use crate::state::key::KeyLayout;
use crate::state::rows::{BufferedRow, HandedOut, HandsOut, NewRows, Reach, RowBuffer};
use crate::state::stored::StoredTable;
use crate::window::cut::Cut;
use crate::window::time::TIME_MAX_MS;

pub(super) struct Windows {
    cut: Cut,
    /// By side: whether rows that match none come out.
    is_outer: [bool; 2],
    buffers: [RowBuffer; 2],
    /// Windows up to this one have ended.
    closed: i64,
}

impl Windows {
    /// `stored` are the tables of the left and right rows.
    pub fn new(
        plan: &JoinPlan,
        layout: &KeyLayout,
        window: Window,
        mut stored: impl Iterator<Item = StoredTable>,
    ) -> Result<Self, String> {
        let cut = Cut::of(window)
            .map_err(|problem| format!("rows cannot be joined by a {window}: {problem}"))?;
        let mut buffer = |side: usize| {
            let schema = &plan.sides[side].schema;
            let hands_out = HandsOut::Nothing;
            RowBuffer::new(
                schema,
                layout.clone(),
                stored.next(),
                hands_out,
                cut.slide_ms(),
            )
        };
        Ok(Windows {
            cut,
            is_outer: [LEFT, RIGHT].map(|side| plan.rule.kind.keeps(side)),
            buffers: [buffer(LEFT), buffer(RIGHT)],
            closed: i64::MIN,
        })
    }

    fn pane(&self, time_ms: i64) -> i64 {
        self.cut.pane(time_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS))
    }
}

/// The time of what comes out of a window.
fn time_of(cut: Cut, window: i64) -> i64 {
    cut.window_span(window).end.saturating_sub(1)
}

/// Notes in the mark of a row which of its windows have a match in another pane, which
/// shares some of them.
fn mark_match(mark: &mut u32, own: i64, other: i64, cut: Cut) {
    let shared = cut.windows_shared(own, other) as u32;
    let (mut first, mut last) = (*mark & 0xffff, *mark >> 16);
    if other <= own {
        first = first.max(shared);
    }
    if other >= own {
        last = last.max(shared);
    }
    *mark = last << 16 | first;
}

/// Whether a row has no match in the n-th of its windows, counted from 1.
fn is_alone(row: &BufferedRow, nth: i64, windows: i64) -> bool {
    let (first, last) = (i64::from(row.mark & 0xffff), i64::from(row.mark >> 16));
    nth > first && nth <= windows - last
}

impl Rule for Windows {
    fn buffers(&mut self) -> &mut [RowBuffer] {
        &mut self.buffers
    }

    fn is_full(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.upkeep().is_full())
    }

    fn set_time(&mut self, time_ms: i64) {
        self.closed = self.cut.last_closed(time_ms);
    }

    fn over_at(&self, row_ms: i64) -> Option<i64> {
        match self.is_outer {
            [false, false] => None,
            _ => Some(self.cut.over_at(row_ms)),
        }
    }

    fn lateness(&self, time_ms: i64, now_ms: i64) -> Lateness {
        let pane = self.pane(time_ms);
        if !self.cut.is_late(self.cut.first_window(pane), now_ms) {
            Lateness::InTime
        } else if self.cut.is_late(self.cut.last_window(pane), now_ms) {
            Lateness::Late
        } else {
            Lateness::LateForSome
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
        let panes: Vec<i64> = times.iter().map(|&time| self.pane(time)).collect();
        keys.read(key, times.len(), |row| {
            row > 0 && panes[row] != panes[row - 1]
        })?;
        let cut = self.cut;
        let reach = |&pane: &i64| Reach {
            panes: cut.first_pane(cut.first_window(pane))..=cut.last_window(pane) - 1,
            times: i64::MIN..=i64::MAX,
        };
        let reaches: Vec<Reach> = panes.iter().map(reach).collect();
        let mut marks = vec![0; times.len()];
        let own = SideRows::Batch(&columns);
        let [is_outer, other_is_outer] = [self.is_outer[side], self.is_outer[1 - side]];
        let first_open = cut.next_window(self.closed);
        let buffer = &mut self.buffers[1 - side];
        let mut pairs = joined.pairs(in_order(side, own, SideRows::Buffer(buffer.columns())));
        buffer.visit(keys, &reaches, |row, pane, found, states| {
            let own_pane = panes[row];
            if is_outer {
                mark_match(&mut marks[row], own_pane, pane, cut);
            }
            if other_is_outer {
                mark_match(&mut found.mark, pane, own_pane, cut);
            }
            let last_shared = cut.last_window(own_pane.min(pane));
            let shared = cut.windows(own_pane.max(pane), first_open);
            for window in shared.take_while(|&window| window <= last_shared) {
                pairs.push(side, row as u32, found.slot, time_of(cut, window));
                if pairs.is_full() {
                    let sides = in_order(side, own, SideRows::Buffer(states));
                    joined.emit(&mut pairs, sides, out)?;
                }
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
        if !self.is_outer[arrived.side] {
            return Ok(());
        }
        let this = &*self;
        let first_open = this.cut.next_window(this.closed);
        let rows = (0..).zip(&arrived.times).flat_map(|(row, &time_ms)| {
            let windows = this.cut.windows(this.pane(time_ms), first_open);
            windows.map(move |window| (row, time_of(this.cut, window)))
        });
        let own = SideRows::Batch(&arrived.columns);
        joining.joined.emit_alone(arrived.side, own, rows, out)
    }

    /// Emits what matches nothing in the windows that have ended, and forgets the panes
    /// whose windows all have.
    fn advance(
        &mut self,
        joining: &mut Joining,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        if now_ms == END_OF_TIME && self.is_outer == [false, false] {
            // More rows may come in a later run, and nothing is to come out now.
            return Ok(());
        }
        let (closed, last) = (self.closed, self.cut.last_closed(now_ms));
        if last <= closed {
            return Ok(());
        }
        let cut = self.cut;
        let (first_open, windows_max) = (cut.next_window(closed), cut.windows_max());
        for side in [LEFT, RIGHT] {
            if !self.is_outer[side] {
                continue;
            }
            let is_wanted = |row: &BufferedRow| {
                i64::from(row.mark & 0xffff) + i64::from(row.mark >> 16) < windows_max
            };
            let panes = cut.first_pane(first_open)..=last.saturating_sub(1);
            self.buffers[side].look_through(panes, is_wanted, |handed: HandedOut<'_>| {
                let windows = cut.windows_shared(handed.pane, handed.pane);
                let ended = cut.windows(handed.pane, first_open);
                let ended = ended.take_while(|&window| window <= last);
                let rows = handed.rows.iter().flat_map(|row| {
                    let is_alone =
                        |&window: &i64| is_alone(row, cut.nth(handed.pane, window), windows);
                    let alone = ended.clone().filter(is_alone);
                    alone.map(|window| (row.slot, time_of(cut, window)))
                });
                let own = SideRows::Buffer(handed.columns);
                joining.joined.emit_alone(side, own, rows, out)
            })?;
        }
        self.closed = last;
        for buffer in &mut self.buffers {
            buffer.forget(|pane| cut.last_window(pane) <= last);
        }
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        let next = self.cut.next_window(self.closed);
        let panes = self.buffers.iter();
        let first = panes
            .filter_map(|buffer| buffer.first_pane(self.cut.first_pane(next)))
            .min()?;
        let window = self.cut.first_window(first).max(next);
        Some(self.cut.window_span(window).end)
    }
}
