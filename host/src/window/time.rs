//! Times and spans of windows, within bounds where sums do not overflow.

use arrow_buffer::ScalarBuffer;

use crate::element::END_OF_TIME;

/// Windows clamp times to this distance from 1970 (146 million years), and their
/// sizes to a quarter of it, so that sums never overflow.
pub(crate) const TIME_MAX_MS: i64 = 1 << 62;
pub(crate) const SIZE_MAX_MS: i64 = 1 << 60;

/// The time at which what is held for so long is due; at the end of time, everything
/// is.
pub(crate) fn held_back(watermark_ms: i64, hold_ms: i64) -> i64 {
    match watermark_ms {
        END_OF_TIME => END_OF_TIME,
        _ => watermark_ms.saturating_sub(hold_ms),
    }
}

/// A window: `start` is in it, `end` is not. In ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub start: i64,
    pub end: i64,
}

impl Span {
    pub fn has(&self, time_ms: i64) -> bool {
        self.start <= time_ms && time_ms < self.end
    }
}

/// The earliest and the latest of these times, of which there is at least one.
pub(crate) fn extent(times: &[i64]) -> (i64, i64) {
    times
        .iter()
        .fold((i64::MAX, i64::MIN), |(first, last), &time| {
            (first.min(time), last.max(time))
        })
}

/// The times, clamped to [`TIME_MAX_MS`].
pub(crate) fn within_reach(times: &ScalarBuffer<i64>) -> ScalarBuffer<i64> {
    let (first, last) = extent(times);
    if first >= -TIME_MAX_MS && last <= TIME_MAX_MS {
        return times.clone();
    }
    times
        .iter()
        .map(|time| (*time).clamp(-TIME_MAX_MS, TIME_MAX_MS))
        .collect()
}
