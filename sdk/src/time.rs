//! Event times and windows.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z.
///
/// A [`Duration`] can be added and subtracted; the result stays within the times that
/// there are.
///
/// ```
/// use std::time::Duration;
///
/// use sluicebox_sdk::Timestamp;
///
/// let hour = Duration::from_secs(3_600);
/// assert_eq!(Timestamp(1_000) + hour, Timestamp(3_601_000));
/// assert_eq!(Timestamp(1_000) - hour, Timestamp(-3_599_000));
/// assert_eq!(Timestamp(i64::MAX) + hour, Timestamp(i64::MAX));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(ms(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(ms(duration)))
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The window of a result: from `start` to just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first millisecond of the window.
    pub start: Timestamp,
    /// The first millisecond after it.
    pub end: Timestamp,
}

impl Window {
    /// All of time, the window of running aggregates.
    pub const ALL: Window = Window {
        start: Timestamp(i64::MIN),
        end: Timestamp(i64::MAX),
    };

    /// The length of the window in milliseconds.
    pub fn duration_ms(&self) -> i64 {
        self.end.0.saturating_sub(self.start.0)
    }
}
