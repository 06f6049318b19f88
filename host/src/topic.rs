//! A topic in memory, with transactions as a broker's has: for tests, and for
//! `sluicebox test`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;

/// Rows that a pipeline has put out, and those of a transaction that is open.
#[derive(Debug, Default)]
pub struct MemoryTopic {
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    visible: Vec<Batch>,
    open: Vec<Batch>,
}

impl MemoryTopic {
    /// What readers see.
    pub fn rows(&self) -> Vec<Batch> {
        self.lock().visible.clone()
    }

    /// The open transaction's rows become visible.
    pub fn commit(&self) {
        let mut rows = self.lock();
        let open = std::mem::take(&mut rows.open);
        rows.visible.extend(open);
    }

    /// The open transaction's rows are forgotten.
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

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // A list of batches is as good after a panic elsewhere as before it.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
