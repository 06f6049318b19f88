//! Decides when a pipeline's states take too much memory, and what happens then.
//!
//! States may take two thirds of the budget: when they take more, tasks evict
//! some. The rest is for rows that were handed to a checkpoint and are not
//! written yet; when both fill the whole budget, tasks wait for that checkpoint.
//! Where rows touch large states, sources hand out few rows at a time: no checkpoint can
//! be made in the middle of a batch, and none of its states evicted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::checkpoint::requests::Requests;

/// The memory budget of one pipeline, shared by all its tasks.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    /// Taken by states.
    bytes: AtomicUsize,
    /// Taken by rows that a checkpoint has not written yet.
    unwritten: AtomicUsize,
    /// How many checkpoints were written, so that their rows can be read back.
    writes: AtomicU64,
    /// How many rows the states of each task have room for at a time.
    room: Mutex<Vec<Weak<AtomicUsize>>>,
    /// Grows with each batch, until the tasks know how large states are.
    rows_at_first: AtomicUsize,
    /// Where the budget asks for checkpoints.
    requests: Requests,
}

/// The memory that the states of all pipelines of a host may take together. Each
/// pipeline is granted a part of it for itself.
#[derive(Debug)]
pub struct HostMemory(Mutex<HostBytes>);

#[derive(Debug)]
struct HostBytes {
    /// Absent where there is no limit.
    max: Option<usize>,
    granted: usize,
}

/// How much memory a pipeline wants for its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedMemory {
    /// Its states grow with their keys.
    Unlimited,
    /// None where it keeps no states.
    Bytes(usize),
}

/// The memory that a host has granted to one pipeline. Dropping it gives the
/// memory back.
#[derive(Debug)]
pub struct MemoryGrant {
    memory: Arc<HostMemory>,
    bytes: usize,
}

/// A pipeline wants more memory than the host has left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    #[error(
        "pipeline `{pipeline}` wants {wanted} bytes of memory for its states, and {left} of the \
         host's {bytes_max} are left: give it less, or the host more"
    )]
    TooLittleLeft {
        pipeline: String,
        wanted: usize,
        left: usize,
        bytes_max: usize,
    },
    #[error(
        "pipeline `{pipeline}` has no limit of memory for its states, and its host has: add \
         [checkpoints] to its file, with which they are evicted to the disk, and `memory` of \
         [state]"
    )]
    Unlimited { pipeline: String },
}

/// What the states of one task take of the budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
    /// How many rows there is room for at a time.
    rows_max: Arc<AtomicUsize>,
}

/// Memory of rows that a checkpoint has not written yet. Dropping it gives the
/// memory back.
#[derive(Debug)]
pub struct Unwritten {
    budget: Arc<Budget>,
    bytes: usize,
}

/// How many rows the first batch has.
const ROWS_AT_FIRST: usize = 64;

/// What part of the budget the states of a batch may take; several batches are under way
/// at a time.
const BATCH_PART: usize = 32;
/// They may always take this much, however small the budget is.
const BATCH_BYTES_MIN: usize = 1 << 20;

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Budget::with_requests(Requests::default(), bytes_max)
    }

    /// A budget that requests a checkpoint when changed states fill it.
    pub fn with_requests(requests: Requests, bytes_max: usize) -> Self {
        Budget {
            bytes_max,
            bytes: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            writes: AtomicU64::new(0),
            room: Mutex::default(),
            rows_at_first: AtomicUsize::new(ROWS_AT_FIRST),
            requests,
        }
    }

    /// What states may take before tasks evict some.
    fn states_max(&self) -> usize {
        self.bytes_max / 3 * 2
    }

    /// What states and unwritten rows take together.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether tasks must wait until a checkpoint has been written.
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

    /// Counts a checkpoint that was written: its rows can be read back now.
    pub fn add_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// How many rows a source may hand out at a time.
    pub fn rows_max(&self) -> usize {
        let mut tasks = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| task.strong_count() > 0);
        if tasks.is_empty() {
            return usize::MAX;
        }
        let room = tasks.iter().filter_map(Weak::upgrade);
        let room = room.map(|rows| rows.load(Ordering::Relaxed));
        let at_first = self.rows_at_first.load(Ordering::Relaxed);
        let more = at_first.saturating_mul(2);
        self.rows_at_first.store(more, Ordering::Relaxed);
        room.min().unwrap_or(usize::MAX).min(at_first)
    }

    /// Requests a checkpoint now: changed states cannot be evicted before one.
    pub fn request_checkpoint(&self) {
        self.requests.memory_pressure();
    }
}

impl HostMemory {
    /// Without `bytes_max`, there is no limit.
    pub fn new(bytes_max: Option<usize>) -> Self {
        HostMemory(Mutex::new(HostBytes {
            max: bytes_max,
            granted: 0,
        }))
    }

    /// Sets the limit for what is granted from now on.
    pub fn limit(&self, bytes_max: Option<usize>) {
        self.lock().max = bytes_max;
    }

    /// Grants a pipeline the memory that it wants, or fails if too little is left.
    pub fn grant(
        self: &Arc<Self>,
        pipeline: &str,
        wanted: WantedMemory,
    ) -> Result<MemoryGrant, NoMemory> {
        let pipeline = pipeline.to_owned();
        let mut host = self.lock();
        let bytes = match wanted {
            WantedMemory::Bytes(bytes) => bytes,
            WantedMemory::Unlimited if host.max.is_none() => 0,
            WantedMemory::Unlimited => return Err(NoMemory::Unlimited { pipeline }),
        };
        if let Some(bytes_max) = host.max {
            let left = bytes_max.saturating_sub(host.granted);
            if bytes > left {
                return Err(NoMemory::TooLittleLeft {
                    pipeline,
                    wanted: bytes,
                    left,
                    bytes_max,
                });
            }
        }
        host.granted += bytes;
        Ok(MemoryGrant {
            memory: self.clone(),
            bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HostBytes> {
        // A panic in another thread cannot leave a number half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub fn new(budget: Arc<Budget>) -> Self {
        let rows_max = Arc::new(AtomicUsize::new(usize::MAX));
        // A panic in another thread cannot leave the list half changed.
        let mut room = budget.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.push(Arc::downgrade(&rows_max));
        drop(room);
        Share {
            budget,
            bytes: 0,
            rows_max,
        }
    }

    /// Records how many bytes of the task's states a row of a batch touches.
    pub fn set_row_bytes(&self, bytes: usize) {
        let batch_bytes = (self.budget.bytes_max / BATCH_PART).max(BATCH_BYTES_MIN);
        let room = batch_bytes / bytes.max(1);
        self.rows_max.store(room.max(1), Ordering::Relaxed);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Records that the task's states now take `bytes`. Returns how many of them
    /// the task must evict; each task evicts in proportion to what it takes.
    pub fn set(&mut self, bytes: usize) -> usize {
        let others = self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
        let all = others + bytes;
        let max = self.budget.states_max();
        if all <= max {
            return 0;
        }
        // Evicts an eighth more, so that the next batch does not evict again.
        let kept = max - max / 8;
        let share = bytes as f64 / all as f64;
        bytes - ((kept as f64 * share) as usize).min(bytes)
    }
}

impl Drop for MemoryGrant {
    fn drop(&mut self) {
        self.memory.lock().granted -= self.bytes;
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
    fn the_excess_is_shared_in_proportion() {
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
        use WantedMemory::{Bytes, Unlimited};
        let memory = Arc::new(HostMemory::new(Some(1_000)));
        let one = memory.grant("one", Bytes(700)).expect("there is room");
        let refused = memory.grant("two", Bytes(400)).expect_err("there is not");
        let refused = refused.to_string();
        assert!(
            refused.contains("`two` wants 400") && refused.contains("and 300 of"),
            "{refused}"
        );
        let _small = memory.grant("three", Bytes(300)).expect("there is room");
        drop(one);
        memory
            .grant("two", Bytes(400))
            .expect("there is room again");
        let refused = memory.grant("four", Unlimited).expect_err("it may grow");
        assert!(
            refused.to_string().contains("has no limit of memory"),
            "{refused}"
        );
        memory.grant("five", Bytes(0)).expect("it wants none");
        memory.limit(None);
        let _four = memory.grant("four", Unlimited).expect("there is no limit");
        let _six = memory
            .grant("six", Bytes(5_000))
            .expect("there is no limit");
        memory.limit(Some(2_000));
        let refused = memory
            .grant("seven", Bytes(1))
            .expect_err("nothing is left");
        assert!(refused.to_string().contains("and 0 of"), "{refused}");
    }

    #[test]
    fn unwritten_rows_count_until_they_are_written() {
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

    #[test]
    fn large_states_come_with_few_rows() {
        let budget = Arc::new(Budget::new(32 << 20));
        assert_eq!(budget.rows_max(), usize::MAX, "there are no states");
        let share = Share::new(budget.clone());
        let small = Share::new(budget.clone());
        assert_eq!(budget.rows_max(), ROWS_AT_FIRST);
        assert_eq!(budget.rows_max(), 2 * ROWS_AT_FIRST);
        share.set_row_bytes(100 << 10);
        small.set_row_bytes(10);
        assert_eq!(budget.rows_max(), 10);
        share.set_row_bytes(10 << 20);
        assert_eq!(budget.rows_max(), 1);
        drop(share);
        assert!(budget.rows_max() > ROWS_AT_FIRST);
    }
}
