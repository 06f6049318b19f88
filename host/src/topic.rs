//! A topic in memory with a broker's transactions, for tests and `sluicebox test`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;

/// The rows that a pipeline has written, visible or in the open transaction.
#[derive(Debug, Default)]
pub struct MemoryTopic {
    rows: Mutex<TopicRows>,
}

#[derive(Debug, Default)]
struct TopicRows {
    visible: Vec<Batch>,
    open: Vec<Batch>,
}

impl MemoryTopic {
    /// What readers see.
    pub fn rows(&self) -> Vec<Batch> {
        self.lock().visible.clone()
    }

    /// Makes the open transaction's rows visible.
    pub fn commit(&self) {
        let mut rows = self.lock();
        let open = std::mem::take(&mut rows.open);
        rows.visible.extend(open);
    }

    /// Drops the open transaction's rows.
    pub fn abort(&self) {
        self.lock().open.clear();
    }

    /// Adds rows that readers see at once.
    pub fn add_visible(&self, rows: impl IntoIterator<Item = Batch>) {
        self.lock().visible.extend(rows);
    }

    /// Adds rows to the open transaction.
    pub fn add_open(&self, rows: impl IntoIterator<Item = Batch>) {
        self.lock().open.extend(rows);
    }

    fn lock(&self) -> MutexGuard<'_, TopicRows> {
        // A panic elsewhere leaves a list of batches intact.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
