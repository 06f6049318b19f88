//! Decides which panes and windows of a fixed size a time belongs to. A pane is as
//! long as the slide, and a window covers several panes.
//!
//! Pane `p` starts at `p * slide` after the alignment; window `w` ends where pane `w`
//! starts, so the first window of pane `p` is `p + 1`. In a time zone, panes start
//! when clocks there show that, and days may have 23 or 25 hours.

use std::ops::RangeInclusive;

use super::accumulators::Arrived;
use super::time::{Span, extent, held_back};
use crate::operator::Outbox;
use crate::plan::{Alignment, LATE_OUTPUT};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    slide_ms: i64,
    panes: i64,
    lateness_ms: i64,
    /// How long after its end a window fires.
    hold_ms: i64,
    alignment: Alignment,
}

impl Cut {
    /// `slide_ms` divides `size_ms`.
    pub fn new(size_ms: i64, slide_ms: i64, alignment: Alignment) -> Self {
        Cut {
            slide_ms,
            panes: size_ms / slide_ms,
            lateness_ms: 0,
            hold_ms: 0,
            alignment,
        }
    }

    pub fn correctable_for(self, lateness_ms: i64) -> Self {
        Cut {
            lateness_ms,
            ..self
        }
    }

    pub fn held_for(self, hold_ms: i64) -> Self {
        Cut { hold_ms, ..self }
    }

    pub fn pane(self, time_ms: i64) -> i64 {
        let Alignment { offset_ms, zone } = self.alignment;
        let Some(zone) = zone else {
            return time_ms.saturating_sub(offset_ms).div_euclid(self.slide_ms);
        };
        let local_ms = zone.local_ms(time_ms).saturating_sub(offset_ms);
        let pane = local_ms.div_euclid(self.slide_ms);
        // Where clocks are set at midnight, a day starts a little later or earlier.
        if self.start(pane) > time_ms {
            pane - 1
        } else if self.start(pane + 1) <= time_ms {
            pane + 1
        } else {
            pane
        }
    }

    /// Where a pane starts, and a window of the same number ends.
    fn start(self, pane: i64) -> i64 {
        let Alignment { offset_ms, zone } = self.alignment;
        let start_ms = pane.saturating_mul(self.slide_ms).saturating_add(offset_ms);
        zone.map_or(start_ms, |zone| zone.time_ms(start_ms))
    }

    /// The time of a pane.
    pub fn pane_span(self, pane: i64) -> Span {
        Span {
            start: self.start(pane),
            end: self.start(pane + 1),
        }
    }

    pub fn first_window(self, pane: i64) -> i64 {
        pane + 1
    }

    pub fn last_window(self, pane: i64) -> i64 {
        pane + self.panes
    }

    pub fn first_pane(self, window: i64) -> i64 {
        window - self.panes
    }

    pub fn window_span(self, window: i64) -> Span {
        Span {
            start: self.start(window - self.panes),
            end: self.start(window),
        }
    }

    /// The last window that fires at this watermark.
    pub fn last_closed(self, watermark_ms: i64) -> i64 {
        self.pane(held_back(watermark_ms, self.hold_ms))
    }

    /// When the last window of a row is over for good.
    pub fn over_at(self, row_ms: i64) -> i64 {
        let last = self.last_window(self.pane(row_ms));
        self.start(last).saturating_add(self.lateness_ms)
    }

    /// Whether a row of this window is late at this watermark.
    pub fn is_late(self, window: i64, watermark_ms: i64) -> bool {
        watermark_ms >= self.start(window).saturating_add(self.lateness_ms)
    }

    /// Returns the rows that are in time for one of their windows, if any, and
    /// the panes from the first to the last of them. Counts the others, and sends
    /// them to the output for late rows.
    pub(super) fn in_time(
        self,
        arrived: Arrived,
        watermark_ms: i64,
        late_wanted: bool,
        out: &mut Outbox,
    ) -> Option<(Arrived, RangeInclusive<i64>)> {
        let panes = self.panes(&arrived)?;
        if !self.is_late(self.first_window(*panes.start()), watermark_ms) {
            return Some((arrived, panes));
        }
        let mut late = Vec::new();
        for (row, &time) in arrived.times.iter().enumerate() {
            let pane = self.pane(time);
            if self.is_late(self.first_window(pane), watermark_ms) {
                out.counts.late += 1;
                if self.is_late(self.last_window(pane), watermark_ms) {
                    late.push(row as u32);
                }
            }
        }
        if late_wanted && !late.is_empty() {
            out.put_late(LATE_OUTPUT, arrived.batch.take(&late));
        }
        let arrived = arrived.without(&late);
        let panes = self.panes(&arrived)?;
        Some((arrived, panes))
    }

    /// The panes from a batch's first to its last, if it has rows.
    fn panes(self, arrived: &Arrived) -> Option<RangeInclusive<i64>> {
        let (first, last) = extent(&arrived.times);
        (first <= last).then(|| self.pane(first)..=self.pane(last))
    }

    /// A function that returns, called for each row in order, whether the row is in
    /// another pane than the previous one. `panes` are those that it can be in.
    pub fn pane_changes(
        self,
        times: &[i64],
        panes: &RangeInclusive<i64>,
    ) -> impl FnMut(usize) -> bool {
        let one_pane = panes.start() == panes.end();
        let mut span = Span::default();
        move |row| {
            if one_pane || span.has(times[row]) {
                return false;
            }
            span = self.pane_span(self.pane(times[row]));
            true
        }
    }
}
