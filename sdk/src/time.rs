//! Points in event time, and the windows between them.

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The rows that a result is about: from `start` to just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// In the window.
    pub start: Timestamp,
    /// The first millisecond after it.
    pub end: Timestamp,
}

impl Window {
    /// All of time, as running aggregates see it.
    pub const ALL: Window = Window {
        start: Timestamp(i64::MIN),
        end: Timestamp(i64::MAX),
    };

    /// How long the window is, in milliseconds.
    pub fn duration_ms(&self) -> i64 {
        self.end.0.saturating_sub(self.start.0)
    }
}
