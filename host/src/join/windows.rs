//! Matches rows in the same window, tumbling or sliding.
//!
//! A pair comes out once for each window that has both rows, with the time just before
//! the window's end. A row of an outer side comes out when a window ends in which
//! nothing has matched it, with the same time.
//!
//! Panes are those of [`Cut`]. A row's window is its pane plus 1 to n, where n is the
//! number of panes of a window. Rows of earlier panes are in its first windows, rows of
//! later panes in its last ones: a row's mark has how many of its first windows have a
//! match in the lower 16 bits, and how many of its last ones in the upper 16 bits.

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
use crate::window::time::{SIZE_MAX_MS, TIME_MAX_MS};

pub(super) struct Windows {
    cut: Cut,
    /// How many windows a row is in.
    windows: i64,
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
        let (size_ms, slide_ms, alignment) = match window {
            Window::Tumbling {
                size_ms, alignment, ..
            } => (size_ms, size_ms, alignment),
            Window::Sliding {
                size_ms,
                slide_ms,
                alignment,
                ..
            } => (size_ms, slide_ms, alignment),
            other => return Err(format!("rows cannot be joined by a {other}")),
        };
        if !(1..=SIZE_MAX_MS).contains(&size_ms) || slide_ms < 1 || size_ms % slide_ms != 0 {
            return Err(format!(
                "rows cannot be joined by a window of {size_ms} ms every {slide_ms} ms"
            ));
        }
        let mut buffer = |side: usize| {
            let schema = &plan.sides[side].schema;
            let hands_out = HandsOut::Nothing;
            RowBuffer::new(schema, layout.clone(), stored.next(), hands_out, slide_ms)
        };
        Ok(Windows {
            cut: Cut::new(size_ms, slide_ms, alignment),
            windows: size_ms / slide_ms,
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

/// Notes in the mark of a row which of its windows have a match in another pane.
fn mark_match(mark: &mut u32, own: i64, other: i64, windows: i64) {
    let shared = (windows - (own - other).abs()) as u32;
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

    fn over_at(&self, row_ms: i64) -> i64 {
        match self.is_outer {
            [false, false] => row_ms,
            _ => self.cut.over_at(row_ms),
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
        let windows = self.windows;
        let reach = |pane: &i64| Reach {
            panes: pane - (windows - 1)..=pane + (windows - 1),
            times: i64::MIN..=i64::MAX,
        };
        let reaches: Vec<Reach> = panes.iter().map(reach).collect();
        let mut marks = vec![0; times.len()];
        let own = SideRows::Batch(&columns);
        let [is_outer, other_is_outer] = [self.is_outer[side], self.is_outer[1 - side]];
        let (cut, first_open) = (self.cut, self.closed.saturating_add(1));
        let buffer = &mut self.buffers[1 - side];
        let mut pairs = joined.pairs(in_order(side, own, SideRows::Buffer(buffer.columns())));
        buffer.visit(keys, &reaches, |row, pane, found, states| {
            let own_pane = panes[row];
            if is_outer {
                mark_match(&mut marks[row], own_pane, pane, windows);
            }
            if other_is_outer {
                mark_match(&mut found.mark, pane, own_pane, windows);
            }
            let first = cut.first_window(own_pane.max(pane)).max(first_open);
            for window in first..=cut.last_window(own_pane.min(pane)) {
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
        let first_open = self.closed.saturating_add(1);
        let this = &*self;
        let rows = (0..).zip(&arrived.times).flat_map(|(row, &time_ms)| {
            let pane = this.pane(time_ms);
            let first = this.cut.first_window(pane).max(first_open);
            let windows = first..=this.cut.last_window(pane);
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
        let windows = self.windows;
        let first_pane = closed.saturating_add(1).saturating_sub(windows);
        for side in [LEFT, RIGHT] {
            if !self.is_outer[side] {
                continue;
            }
            let cut = self.cut;
            let is_wanted = |row: &BufferedRow| {
                i64::from(row.mark & 0xffff) + i64::from(row.mark >> 16) < windows
            };
            let panes = first_pane..=last.saturating_sub(1);
            self.buffers[side].look_through(panes, is_wanted, |handed: HandedOut<'_>| {
                // The first and the last window that ends now.
                let first = closed.saturating_sub(handed.pane).saturating_add(1).max(1);
                let last = last.saturating_sub(handed.pane).min(windows);
                let rows = handed.rows.iter().flat_map(|row| {
                    let alone = (first..=last).filter(|&nth| is_alone(row, nth, windows));
                    alone.map(|nth| (row.slot, time_of(cut, handed.pane + nth)))
                });
                let own = SideRows::Buffer(handed.columns);
                joining.joined.emit_alone(side, own, rows, out)
            })?;
        }
        self.closed = last;
        for buffer in &mut self.buffers {
            buffer.forget(|pane| pane.saturating_add(windows) <= last);
        }
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        let from = self.closed.saturating_sub(self.windows).saturating_add(1);
        let panes = self.buffers.iter();
        let first = panes.filter_map(|buffer| buffer.first_pane(from)).min()?;
        let window = self.cut.first_window(first).max(self.closed + 1);
        Some(self.cut.window_span(window).end)
    }
}
