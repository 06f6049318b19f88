//! When evicted keys are due, as far as it is known without reading them: the first and
//! the last of them. A sweep reads all, and finds out anew.

#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    first_ms: i64,
    last_ms: i64,
}

/// The time of a key that is never due.
pub const NEVER: i64 = i64::MAX;

impl Default for Calendar {
    fn default() -> Self {
        Calendar {
            first_ms: NEVER,
            last_ms: i64::MIN,
        }
    }
}

impl Calendar {
    pub fn add(&mut self, due_ms: i64) {
        if due_ms != NEVER {
            self.first_ms = self.first_ms.min(due_ms);
            self.last_ms = self.last_ms.max(due_ms);
        }
    }

    pub fn clear(&mut self) {
        *self = Calendar::default();
    }

    /// A time before which no key is due, if any is.
    pub fn first(&self) -> Option<i64> {
        Some(self.first_ms).filter(|&first_ms| first_ms != NEVER)
    }

    /// The last time at which a key is due, or was.
    pub fn last(&self) -> Option<i64> {
        self.first().map(|_| self.last_ms)
    }
}
