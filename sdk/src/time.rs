//! Event times and windows.

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

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
