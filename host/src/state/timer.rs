//! Timers of keys: which keys are due at a time.
//!
//! Timers lie unsorted in buckets of time; only a bucket that time has reached is
//! sorted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::calendar::NEVER;

/// Timers by the numbers of their keys, in one domain of time.
#[derive(Clone, Debug)]
pub struct Timers {
    /// Length of a bucket, in ms.
    width_ms: i64,
    far: BTreeMap<i64, Bucket>,
    /// Timers of buckets before this one are in `near`.
    opened: i64,
    near: BinaryHeap<Reverse<(i64, u32)>>,
}

/// Unsorted timers.
#[derive(Clone, Debug)]
struct Bucket {
    first_ms: i64,
    timers: Vec<(i64, u32)>,
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
            let bucket = self.far.entry(bucket).or_insert(Bucket {
                first_ms: due_ms,
                timers: Vec::new(),
            });
            bucket.first_ms = bucket.first_ms.min(due_ms);
            bucket.timers.push((due_ms, id));
        }
    }

    /// Takes the timers that are due, unsorted. A caller that needs an order must
    /// sort them by time and key, not by number: a key may have another number after
    /// a restore.
    pub fn take(&mut self, now_ms: i64, due: &mut Vec<(i64, u32)>) {
        let now_bucket = now_ms.div_euclid(self.width_ms);
        while let Some(first) = self.far.first_entry()
            && *first.key() <= now_bucket
        {
            self.opened = first.key() + 1;
            for timer in first.remove().timers {
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

    /// Takes the keys whose timers are due, where timers can be out of date: only one at
    /// the time that the key's entry has noted counts, which is cleared then.
    pub fn take_noted<E>(
        &mut self,
        now_ms: i64,
        entries: &mut [E],
        noted_ms: impl Fn(&mut E) -> &mut i64,
    ) -> Vec<u32> {
        let mut due = Vec::new();
        self.take(now_ms, &mut due);
        let mut ids = Vec::with_capacity(due.len());
        for (due_ms, id) in due {
            let noted_ms = noted_ms(&mut entries[id as usize]);
            if *noted_ms == due_ms {
                *noted_ms = NEVER;
                ids.push(id);
            }
        }
        ids
    }

    /// When the first timer is due.
    pub fn next(&self) -> Option<i64> {
        let near = self.near.peek().map(|Reverse((due, _))| *due);
        let far = self.far.values().next().map(|bucket| bucket.first_ms);
        near.into_iter().chain(far).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is set and taken in turn, with buckets of any length.
        #[test]
        fn each_timer_is_taken_once_when_it_is_due(
            horizon_ms in 1i64..400,
            steps in proptest::collection::vec(
                (proptest::collection::vec(-500i64..1_000, 0..6), -500i64..1_000),
                1..12,
            ),
        ) {
            let mut timers = Timers::new(horizon_ms);
            let mut expected: Vec<(i64, u32)> = Vec::new();
            let mut id = 0;
            let mut now_ms = i64::MIN;
            for (dues, then_ms) in steps {
                for due_ms in dues {
                    timers.set(due_ms, id);
                    expected.push((due_ms, id));
                    id += 1;
                }
                expected.sort_unstable();
                prop_assert_eq!(timers.next(), expected.first().map(|timer| timer.0));
                now_ms = now_ms.max(then_ms);
                let mut due = Vec::new();
                timers.take(now_ms, &mut due);
                due.sort_unstable();
                let left = expected.split_off(expected.partition_point(|timer| timer.0 <= now_ms));
                prop_assert_eq!(due, std::mem::replace(&mut expected, left));
            }
        }
    }
}
