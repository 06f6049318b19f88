//! Roughly when evicted keys are due. A sweep reads all of them, so times are rounded
//! down to steps, and sweeps are few.

use std::collections::BTreeSet;

#[derive(Debug)]
pub struct Calendar {
    step_ms: i64,
    due: BTreeSet<i64>,
}

/// The time of a key that is never due.
pub const NEVER: i64 = i64::MAX;

impl Calendar {
    /// `horizon_ms` is how far ahead keys are usually due.
    pub fn new(horizon_ms: i64) -> Self {
        Calendar {
            step_ms: (horizon_ms / 4).max(1),
            due: BTreeSet::new(),
        }
    }

    pub fn add(&mut self, due_ms: i64) {
        if due_ms != NEVER {
            let step = due_ms.div_euclid(self.step_ms);
            self.due.insert(step.saturating_mul(self.step_ms));
        }
    }

    pub fn clear(&mut self) {
        self.due.clear();
    }

    /// A time before which no key is due.
    pub fn first(&self) -> Option<i64> {
        self.due.first().copied()
    }

    /// The last step in which a key is due.
    pub fn last(&self) -> Option<i64> {
        self.due.last().copied()
    }
}
