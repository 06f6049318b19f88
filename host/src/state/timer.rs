//! Tells which keys are due at a time, without keeping all of them in order.
//!
//! Timers lie unordered in buckets of a few moments each; only a bucket that
//! time has reached is put in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

#[derive(Debug)]
pub struct Timers {
    /// Length of a bucket, in ms.
    width_ms: i64,
    far: BTreeMap<i64, Vec<(i64, u32)>>,
    /// Timers of buckets before this one are in `near`.
    opened: i64,
    near: BinaryHeap<Reverse<(i64, u32)>>,
}

impl Timers {
    /// `horizon_ms` is how far ahead timers are usually set.
    pub fn new(horizon_ms: i64) -> Self {
        Timers {
            width_ms: (horizon_ms / 8).max(1),
            far: BTreeMap::new(),
            opened: i64::MIN,
            near: BinaryHeap::new(),
        }
    }

    pub fn set(&mut self, due_ms: i64, id: u32) {
        let bucket = due_ms.div_euclid(self.width_ms);
        if bucket < self.opened {
            self.near.push(Reverse((due_ms, id)));
        } else {
            self.far.entry(bucket).or_default().push((due_ms, id));
        }
    }

    /// Takes the timers that are due.
    pub fn take(&mut self, now_ms: i64, due: &mut Vec<(i64, u32)>) {
        let now_bucket = now_ms.div_euclid(self.width_ms);
        while let Some(first) = self.far.first_entry()
            && *first.key() <= now_bucket
        {
            self.opened = first.key() + 1;
            for timer in first.remove() {
                if timer.0 <= now_ms {
                    due.push(timer);
                } else {
                    self.near.push(Reverse(timer));
                }
            }
        }
        while let Some(&Reverse(timer)) = self.near.peek()
            && timer.0 <= now_ms
        {
            due.push(timer);
            self.near.pop();
        }
    }

    /// A time before which no timer is due; calling [`Timers::take`] then brings
    /// the next one nearer.
    pub fn next(&self) -> Option<i64> {
        let near = self.near.peek().map(|Reverse((due, _))| *due);
        let far = self.far.first_key_value().map(|(bucket, timers)| {
            let first = timers.iter().map(|timer| timer.0).min();
            first.unwrap_or(bucket * self.width_ms)
        });
        near.into_iter().chain(far).min()
    }
}
