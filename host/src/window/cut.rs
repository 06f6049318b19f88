//! Decides which panes and windows of given sizes a time belongs to. A window covers
//! several panes, whose rows are in the same windows.
//!
//! Window `w` ends where pane `w` starts, and not every pane starts where a window ends.
//! Where the slide divides the size, a pane is as long as the slide: pane `p` starts at
//! `p * slide` after the alignment, and the first window of pane `p` is `p + 1`. Where it
//! does not, two panes follow each other in each slide: from where a window starts to
//! where another ends, and from there to where the next one starts. Cumulating windows
//! have panes as long as a step, and start where the longest of them do.
//!
//! In a time zone, panes start when clocks there show that, and days may have 23 or 25
//! hours.

use std::iter::StepBy;
use std::ops::{Range, RangeInclusive};

use super::accumulators::Arrived;
use super::time::{SIZE_MAX_MS, Span, TIME_MAX_MS, extent, held_back};
use crate::operator::Outbox;
use crate::plan::{Alignment, LATE_OUTPUT, Window};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    slide_ms: i64,
    /// Where a second pane starts in each slide; 0 if there is one pane.
    rest_ms: i64,
    /// How many panes a window covers; of cumulating windows, the longest.
    panes: i64,
    /// Whether windows of several sizes start together.
    cumulates: bool,
    lateness_ms: i64,
    /// How long after its end a window fires.
    hold_ms: i64,
    /// Windows up to this one fired when the inputs had ended. No row of a later run is in
    /// them, whatever the lateness.
    sealed: i64,
    alignment: Alignment,
}

impl Cut {
    /// The error says why there is none.
    pub fn of(window: Window) -> Result<Self, String> {
        let checked = |size_ms: i64, slide_ms: i64| match size_ms {
            size_ms if !(1..=SIZE_MAX_MS).contains(&size_ms) => Err(format!(
                "its size is {size_ms} ms; it must be at least 1 ms and at most {SIZE_MAX_MS}"
            )),
            size_ms if !(1..=size_ms).contains(&slide_ms) => Err(format!(
                "there is one every {slide_ms} ms; it must be at least 1 ms and at most {size_ms}"
            )),
            _ => Ok(()),
        };
        match window {
            Window::Tumbling {
                size_ms, alignment, ..
            } => checked(size_ms, size_ms).map(|()| Cut::tumbling(size_ms, alignment)),
            Window::Sliding {
                size_ms,
                slide_ms,
                alignment,
                ..
            } => checked(size_ms, slide_ms).map(|()| Cut::sliding(size_ms, slide_ms, alignment)),
            Window::Cumulate {
                size_ms,
                step_ms,
                alignment,
                ..
            } => {
                checked(size_ms, step_ms)?;
                if size_ms % step_ms != 0 {
                    return Err(format!(
                        "steps of {step_ms} ms do not add up to {size_ms} ms"
                    ));
                }
                Ok(Cut::cumulating(size_ms, step_ms, alignment))
            }
            Window::Session { .. } | Window::Count { .. } | Window::Running | Window::Global => {
                Err("its size is not given".to_owned())
            }
        }
    }

    pub fn tumbling(size_ms: i64, alignment: Alignment) -> Self {
        Cut::sliding(size_ms, size_ms, alignment)
    }

    /// The size is at least the slide.
    pub fn sliding(size_ms: i64, slide_ms: i64, alignment: Alignment) -> Self {
        let (slides, rest_ms) = (size_ms / slide_ms, size_ms % slide_ms);
        Cut {
            slide_ms,
            rest_ms,
            panes: match rest_ms {
                0 => slides,
                _ => 2 * slides + 1,
            },
            cumulates: false,
            lateness_ms: 0,
            hold_ms: 0,
            sealed: i64::MIN,
            alignment,
        }
    }

    /// `step_ms` divides `size_ms`.
    pub fn cumulating(size_ms: i64, step_ms: i64, alignment: Alignment) -> Self {
        Cut {
            cumulates: true,
            ..Cut::sliding(size_ms, step_ms, alignment)
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

    /// Closes the windows of rows up to this time for good.
    pub fn sealed_for(self, newest_ms: i64) -> Self {
        let newest_ms = newest_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS);
        Cut {
            sealed: self.last_window(self.pane(newest_ms)),
            ..self
        }
    }

    pub fn sealed(self) -> i64 {
        self.sealed
    }

    pub fn pane(self, time_ms: i64) -> i64 {
        let Alignment { offset_ms, zone } = self.alignment;
        let Some(zone) = zone else {
            return self.pane_after(time_ms.saturating_sub(offset_ms));
        };
        let pane = self.pane_after(zone.local_ms(time_ms).saturating_sub(offset_ms));
        // Where clocks are set at midnight, a day starts a little later or earlier.
        if self.start(pane) > time_ms {
            pane - 1
        } else if self.start(pane + 1) <= time_ms {
            pane + 1
        } else {
            pane
        }
    }

    /// The pane at a time since the alignment.
    fn pane_after(self, since_ms: i64) -> i64 {
        let slide = since_ms.div_euclid(self.slide_ms);
        if self.rest_ms == 0 {
            return slide;
        }
        let is_second = since_ms.rem_euclid(self.slide_ms) >= self.rest_ms;
        2 * slide + i64::from(is_second)
    }

    /// Where a pane starts, and a window of the same number ends.
    fn start(self, pane: i64) -> i64 {
        let Alignment { offset_ms, zone } = self.alignment;
        let (slide, rest_ms) = match self.rest_ms {
            0 => (pane, 0),
            rest_ms => (pane.div_euclid(2), pane.rem_euclid(2) * rest_ms),
        };
        let start_ms = slide.saturating_mul(self.slide_ms);
        let start_ms = start_ms.saturating_add(rest_ms).saturating_add(offset_ms);
        zone.map_or(start_ms, |zone| zone.time_ms(start_ms))
    }

    /// How many panes there are from the end of a window to that of the next.
    fn stride(self) -> i64 {
        if self.rest_ms == 0 { 1 } else { 2 }
    }

    /// Whether a window starts before the pane, but in the same slide: 0 or 1.
    fn behind_start(self, pane: i64) -> i64 {
        pane.rem_euclid(self.stride())
    }

    /// The time of a pane.
    pub fn pane_span(self, pane: i64) -> Span {
        Span {
            start: self.start(pane),
            end: self.start(pane + 1),
        }
    }

    pub fn first_window(self, pane: i64) -> i64 {
        pane + 1 + self.behind_start(pane)
    }

    pub fn last_window(self, pane: i64) -> i64 {
        match self.cumulates {
            true => (pane.div_euclid(self.panes) + 1) * self.panes,
            false => pane + self.panes - self.behind_start(pane),
        }
    }

    /// The windows of a pane from a given one on.
    pub fn windows(self, pane: i64, from: i64) -> StepBy<RangeInclusive<i64>> {
        let first = self.first_window(pane).max(from);
        (first..=self.last_window(pane)).step_by(self.stride() as usize)
    }

    /// Which of the windows of a pane it is, counted from 1.
    pub fn nth(self, pane: i64, window: i64) -> i64 {
        (window - self.first_window(pane)) / self.stride() + 1
    }

    /// How many windows a pane has at most.
    pub fn windows_max(self) -> i64 {
        (self.panes + self.stride() - 1) / self.stride()
    }

    pub fn slide_ms(self) -> i64 {
        self.slide_ms
    }

    /// How many windows two panes share.
    pub fn windows_shared(self, one: i64, other: i64) -> i64 {
        let first = self.first_window(one.max(other));
        let last = self.last_window(one.min(other));
        ((last - first).div_euclid(self.stride()) + 1).max(0)
    }

    pub fn next_window(self, window: i64) -> i64 {
        window.saturating_add(self.stride())
    }

    pub fn first_pane(self, window: i64) -> i64 {
        match self.cumulates {
            true => {
                let longest = window.saturating_sub(1).div_euclid(self.panes);
                longest.saturating_mul(self.panes)
            }
            false => window.saturating_sub(self.panes),
        }
    }

    /// The panes that the window before covers, and this one does not.
    pub fn leaving_panes(self, window: i64) -> Range<i64> {
        self.first_pane(window - self.stride())..self.first_pane(window)
    }

    pub fn window_span(self, window: i64) -> Span {
        Span {
            start: self.start(self.first_pane(window)),
            end: self.start(window),
        }
    }

    /// The last window that fires at this watermark.
    pub fn last_closed(self, watermark_ms: i64) -> i64 {
        let pane = self.pane(held_back(watermark_ms, self.hold_ms));
        // Of two panes, it is the second that starts where a window ends.
        let behind_end = self.behind_start(pane.saturating_add(1));
        pane.saturating_sub(behind_end)
    }

    /// When the last window of a row is over for good.
    pub fn over_at(self, row_ms: i64) -> i64 {
        let last = self.last_window(self.pane(row_ms));
        self.start(last).saturating_add(self.lateness_ms)
    }

    /// Whether a row of this window is late at this watermark, or after the end.
    pub fn is_late(self, window: i64, watermark_ms: i64) -> bool {
        window <= self.sealed || watermark_ms >= self.start(window).saturating_add(self.lateness_ms)
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
        out.put_late(late_wanted.then_some(LATE_OUTPUT), &arrived.batch, &late);
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
