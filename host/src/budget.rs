//! How much memory a pipeline's states may take together, and whether they do.
//!
//! States in use get two thirds of it: when they take more, some are evicted.
//! The rest is for what was handed to a checkpoint and is not written yet; when
//! both together take all of it, tasks wait for that checkpoint.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::requests::Requests;

/// Shared by all tasks of a pipeline.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    /// Of states.
    bytes: AtomicUsize,
    /// Of rows on their way to the storage.
    unwritten: AtomicUsize,
    /// Checkpoints whose rows can be read back.
    writes: AtomicU64,
    /// Where checkpoints are asked for.
    requests: Requests,
}

/// The memory that the states of all pipelines of a host may take together. Each
/// pipeline has a part of it to itself.
#[derive(Debug)]
pub struct HostMemory {
    bytes_max: usize,
    given: Mutex<usize>,
}

/// The part of a host's memory that one pipeline has, while it lives.
#[derive(Debug)]
pub struct Part {
    memory: Arc<HostMemory>,
    bytes: usize,
}

/// A pipeline wants more memory than is left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pipeline `{pipeline}` wants {wanted} bytes of memory for its states, and {left} of the \
     host's {bytes_max} are left: give it less, or the host more"
)]
pub struct NoMemory {
    pub pipeline: String,
    pub wanted: usize,
    pub left: usize,
    pub bytes_max: usize,
}

/// What one task takes of it.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

/// What rows take that are on their way to the storage, while it lives.
#[derive(Debug)]
pub struct Unwritten {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Budget::asking(Requests::default(), bytes_max)
    }

    /// A budget that asks there for a checkpoint when changed states fill it.
    pub fn asking(requests: Requests, bytes_max: usize) -> Self {
        Budget {
            bytes_max,
            bytes: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            writes: AtomicU64::new(0),
            requests,
        }
    }

    /// For states, the rest aside.
    fn states_max(&self) -> usize {
        self.bytes_max / 3 * 2
    }

    /// What states and rows on their way to the storage take.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// No more should come before a checkpoint is done.
    pub fn is_full(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > 0 && self.bytes() >= self.bytes_max
    }

    pub fn count_unwritten(self: &Arc<Self>, bytes: usize) -> Unwritten {
        self.unwritten.fetch_add(bytes, Ordering::Relaxed);
        Unwritten {
            budget: self.clone(),
            bytes,
        }
    }

    /// The rows of a checkpoint can be read back.
    pub fn add_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Asks for a checkpoint now: until there is one, nothing that has changed
    /// can be evicted.
    pub fn press(&self) {
        self.requests.press();
    }
}

impl HostMemory {
    pub fn new(bytes_max: usize) -> Self {
        HostMemory {
            bytes_max,
            given: Mutex::default(),
        }
    }

    /// Gives a pipeline its part.
    pub fn part(self: &Arc<Self>, pipeline: &str, wanted: usize) -> Result<Part, NoMemory> {
        // A number is whole after a panic elsewhere.
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.bytes_max - *given;
        if wanted > left {
            return Err(NoMemory {
                pipeline: pipeline.to_owned(),
                wanted,
                left,
                bytes_max: self.bytes_max,
            });
        }
        *given += wanted;
        Ok(Part {
            memory: self.clone(),
            bytes: wanted,
        })
    }
}

impl Share {
    pub fn new(budget: Arc<Budget>) -> Self {
        Share { budget, bytes: 0 }
    }

    /// What the task takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The task now takes so much. Tells how much of it has to be evicted,
    /// each task in proportion to what it takes.
    pub fn set(&mut self, bytes: usize) -> usize {
        let others = self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
        let all = others + bytes;
        let max = self.budget.states_max();
        if all <= max {
            return 0;
        }
        // A little more, so that it is not asked for with every batch.
        let kept = max - max / 8;
        let share = bytes as f64 / all as f64;
        bytes - ((kept as f64 * share) as usize).min(bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let given = self.memory.given.lock();
        *given.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.budget
            .unwritten
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_shared_out() {
        let budget = Arc::new(Budget::new(1_200));
        let mut large = Share::new(budget.clone());
        let mut small = Share::new(budget.clone());
        assert_eq!(large.set(600), 0);
        assert_eq!(small.set(200), 0);
        assert_eq!(small.set(400), 400 - 280);
        assert_eq!(large.set(600), 600 - 420);
        drop(large);
        assert_eq!(small.set(800), 0);
    }

    #[test]
    fn pipelines_have_no_more_together_than_the_host_has() {
        let memory = Arc::new(HostMemory::new(1_000));
        let one = memory.part("one", 700).expect("there is room");
        let refused = memory.part("two", 400).expect_err("there is not");
        assert_eq!(refused.left, 300);
        assert!(refused.to_string().contains("`two` wants 400"), "{refused}");
        let _small = memory.part("three", 300).expect("there is room");
        drop(one);
        memory.part("two", 400).expect("there is room again");
    }

    #[test]
    fn what_is_being_written_counts_until_it_is() {
        let budget = Arc::new(Budget::new(1_200));
        let mut share = Share::new(budget.clone());
        share.set(1_300);
        assert!(!budget.is_full(), "no checkpoint would make room");
        let unwritten = budget.count_unwritten(100);
        assert!(budget.is_full());
        drop(unwritten);
        share.set(700);
        let unwritten = budget.count_unwritten(500);
        assert!(budget.is_full());
        share.set(699);
        assert!(!budget.is_full());
        drop(unwritten);
    }
}
