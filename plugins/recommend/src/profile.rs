use sluicebox_sdk::prelude::*;

/// What is kept of a user.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The latest items, oldest first.
    pub recent: Vec<Recent>,
    /// Items that are not recommended again, oldest first.
    pub seen: Vec<Text>,
    /// When the session began.
    pub session: Timestamp,
    /// When something happened last.
    pub last: Timestamp,
}

/// An item that a user interacted with.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Recent {
    pub item: Text,
    pub time: Timestamp,
    /// How popular it was then.
    pub popularity: f64,
}

impl Profile {
    /// Begins a session, if the last one is over.
    pub fn begin_session(&mut self, time: Timestamp, gap_ms: i64) {
        let idle_ms = time.0.saturating_sub(self.last.0);
        if self.recent.is_empty() || idle_ms > gap_ms {
            self.session = time;
        }
        self.last = time;
    }

    /// Items other than `item`, the latest first.
    pub fn others<'p>(&'p self, item: &'p str) -> impl Iterator<Item = &'p Recent> {
        let recent = self.recent.iter().rev();
        recent.filter(move |recent| recent.item != item)
    }

    /// Notes that an item was interacted with.
    pub fn note(&mut self, recent: Recent, recent_max: usize, seen_max: usize) {
        if !self.seen.contains(&recent.item) {
            push_bounded(&mut self.seen, recent.item.clone(), seen_max);
        }
        self.recent.retain(|other| other.item != recent.item);
        push_bounded(&mut self.recent, recent, recent_max);
    }
}

/// Adds a value, and removes the oldest ones if there are too many.
pub fn push_bounded<T>(values: &mut Vec<T>, value: T, values_max: usize) {
    values.push(value);
    let excess = values.len().saturating_sub(values_max);
    values.drain(..excess);
}
