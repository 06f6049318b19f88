//! Hands rows to the program: for tests, and for `sluicebox test`. A topic in
//! memory has transactions, as a broker's has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::checkpoint::snapshot::{CheckpointId, SinkSnapshot};

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

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // A list of batches is as good after a panic elsewhere as before it.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Memory {
    topic: Arc<MemoryTopic>,
    is_transactional: bool,
    /// A barrier has passed and its checkpoint is not committed: rows behind it
    /// belong to the next transaction.
    is_waiting: bool,
    kept: Vec<Batch>,
}

impl Memory {
    pub fn new(topic: Arc<MemoryTopic>, is_transactional: bool) -> Self {
        Memory {
            topic,
            is_transactional,
            is_waiting: false,
            kept: Vec::new(),
        }
    }
}

impl Sink for Memory {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.is_waiting {
            self.kept.push(batch.clone());
        } else if self.is_transactional {
            self.topic.lock().open.push(batch.clone());
        } else {
            self.topic.lock().visible.push(batch.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.is_waiting = self.is_transactional;
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        self.is_waiting = false;
        self.topic.lock().open.append(&mut self.kept);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Batches that wait for a commit, at most.
const KEPT_MAX: usize = 16;
