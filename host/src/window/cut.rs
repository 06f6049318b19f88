//! How windows of a fixed size cut time: into panes as long as the slide, of
//! which a window covers as many as make its size.
//!
//! Pane `p` is the time from `p * slide` on; window `w` is the one that ends
//! where pane `w` starts, so pane `p` is in the windows from `p + 1` on. All
//! begin at multiples of the slide since 1970, before it too.

use super::accumulators::Arrived;
use super::time::{Span, extent};
use crate::operator::Outbox;
use crate::plan::LATE_OUTPUT;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    slide_ms: i64,
    panes: i64,
    lateness_ms: i64,
}

impl Cut {
    /// `slide_ms` divides `size_ms`.
    pub fn new(size_ms: i64, slide_ms: i64, lateness_ms: i64) -> Self {
        Cut {
            slide_ms,
            panes: size_ms / slide_ms,
            lateness_ms,
        }
    }

    pub fn pane(self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.slide_ms)
    }

    /// The time of a pane.
    pub fn pane_span(self, pane: i64) -> Span {
        let start = pane * self.slide_ms;
        Span {
            start,
            end: start + self.slide_ms,
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
            start: (window - self.panes) * self.slide_ms,
            end: window * self.slide_ms,
        }
    }

    /// The last window that fires at this watermark.
    pub fn last_closed(self, watermark_ms: i64) -> i64 {
        watermark_ms.div_euclid(self.slide_ms)
    }

    /// Whether a row that comes now is not taken by this window any more.
    pub fn is_late(self, window: i64, watermark_ms: i64) -> bool {
        watermark_ms >= window * self.slide_ms + self.lateness_ms
    }

    /// The rows that are in time for one of their windows, and counts and puts
    /// out those that are not.
    pub fn in_time(
        self,
        arrived: Arrived,
        watermark_ms: i64,
        late_wanted: bool,
        out: &mut Outbox,
    ) -> Arrived {
        let (first, _) = extent(&arrived.times);
        if !self.is_late(self.first_window(self.pane(first)), watermark_ms) {
            return arrived;
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
        arrived.without(&late)
    }

    /// Tells, asked for each row in order, whether it is in another pane than
    /// the row before.
    pub fn pane_changes(self, times: &[i64], one_pane: bool) -> impl FnMut(usize) -> bool {
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
