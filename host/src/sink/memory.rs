//! Hands rows to the program: for tests, and for `sluicebox test`.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Sink, SinkError};
use crate::batch::Batch;

pub(super) struct Memory {
    rows: Arc<Mutex<Vec<Batch>>>,
}

impl Memory {
    pub fn new(rows: Arc<Mutex<Vec<Batch>>>) -> Self {
        Memory { rows }
    }
}

impl Sink for Memory {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        // A list of batches is as good after a panic elsewhere as before it.
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.push(batch.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
