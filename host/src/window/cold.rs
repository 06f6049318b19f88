//! Keys that the storage has and that are not in memory: when to look at them
//! again, roughly. Each look reads all of them, so it is taken in steps.

use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) struct Cold {
    step_ms: i64,
    due: BTreeSet<i64>,
}

impl Cold {
    /// `horizon_ms` is how far ahead keys are usually due.
    pub fn new(horizon_ms: i64) -> Self {
        Cold {
            step_ms: (horizon_ms / 4).max(1),
            due: BTreeSet::new(),
        }
    }

    /// A key is due at that time, or never.
    pub fn add(&mut self, due_ms: i64) {
        self.due
            .insert(due_ms.div_euclid(self.step_ms).saturating_mul(self.step_ms));
    }

    /// There are none any more, as far as is known.
    pub fn clear(&mut self) {
        self.due.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// A time before which none is due.
    pub fn next(&self) -> Option<i64> {
        self.due.first().copied()
    }

    pub fn is_due(&self, now_ms: i64) -> bool {
        self.next().is_some_and(|due| due <= now_ms)
    }
}
