//! Writes rows as text, in whichever of the formats that can be cut anywhere
//! between two rows.

use super::part::Part;
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::sink::{Sink, SinkError};

/// How rows are written as text.
pub(super) trait Format: Send {
    /// What stands above all rows.
    fn head(&self) -> Vec<u8>;

    /// Appends the rows of a batch.
    fn write(&mut self, batch: &Batch, text: &mut Vec<u8>);
}

pub(super) struct Lines<F> {
    part: Part,
    format: F,
    /// What is being written, kept for its room.
    text: Vec<u8>,
}

impl<F: Format> Lines<F> {
    pub fn new(mut part: Part, format: F) -> Result<Self, SinkError> {
        if part.is_empty() {
            part.write(&format.head())?;
        }
        Ok(Lines {
            part,
            format,
            text: Vec::new(),
        })
    }
}

impl<F: Format> Sink for Lines<F> {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.text.clear();
        self.format.write(batch, &mut self.text);
        self.part.write(&self.text)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.part.flush()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.part.keep()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.part.finish()
    }
}
