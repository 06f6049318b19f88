//! How much memory a pipeline's states may take together, and whether they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared by all tasks of a run.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Checkpoints whose rows can be read back.
    writes: AtomicU64,
    /// Asks for a checkpoint.
    pressure: Arc<Notify>,
}

/// What one task takes of it.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes_max: usize, pressure: Arc<Notify>) -> Self {
        Budget {
            bytes_max,
            bytes: AtomicUsize::new(0),
            writes: AtomicU64::new(0),
            pressure,
        }
    }

    /// The rows of a checkpoint can be read back.
    pub fn add_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Asks for a checkpoint: until there is one, nothing that has changed can
    /// be given up.
    pub fn press(&self) {
        self.pressure.notify_one();
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

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The task now takes so much. Tells how much of it has to be given up,
    /// each task in proportion to what it takes.
    pub fn set(&mut self, bytes: usize) -> usize {
        let others = self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
        let all = others + bytes;
        let max = self.budget.bytes_max;
        if all <= max {
            return 0;
        }
        // A little more, so that it is not asked for with every batch.
        let kept = max - max / 8;
        let share = bytes as f64 / all as f64;
        bytes - ((kept as f64 * share) as usize).min(bytes)
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
        let budget = Arc::new(Budget::new(800, Arc::default()));
        let mut large = Share::new(budget.clone());
        let mut small = Share::new(budget.clone());
        assert_eq!(large.set(600), 0);
        assert_eq!(small.set(200), 0);
        assert_eq!(small.set(400), 400 - 280);
        assert_eq!(large.set(600), 600 - 420);
        drop(large);
        assert_eq!(small.set(800), 0);
    }
}
