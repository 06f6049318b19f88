//! Writes rows in a text format into one file. The file can be cut where a
//! checkpoint was made, so a checkpoint needs only its length.

use super::text_file::TextFile;
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::connector::text_rows::{TextFormat, TextRows};
use crate::element::CheckpointId;
use crate::sink::{Ending, Sink, SinkContext, SinkError};

pub(super) struct TextSink<F> {
    file: TextFile,
    format: F,
    /// The rows being written, reused for their memory.
    rows: TextRows,
    /// Whether the file may be changed: not before the commit that the start may have
    /// to wait for. No row comes before it.
    may_begin: bool,
}

impl<F: TextFormat> TextSink<F> {
    pub fn new(file: TextFile, format: F, context: &SinkContext) -> Self {
        TextSink {
            file,
            format,
            rows: TextRows::default(),
            may_begin: !context.waits_for_commit,
        }
    }

    /// Begins, unless that would only copy a finished file.
    fn begin_without_rows(&mut self) -> Result<(), SinkError> {
        match self.file.part.is_to_be_copied() {
            true => Ok(()),
            false => self.begin(),
        }
    }

    fn begin(&mut self) -> Result<(), SinkError> {
        if !self.file.part.begin()? {
            return Ok(());
        }
        if self.file.is_empty() {
            return self.file.write(&self.format.head());
        }
        self.file.end_line()
    }
}

impl<F: TextFormat> Sink for TextSink<F> {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin()?;
        self.rows.clear();
        self.format.write(batch, &mut self.rows);
        self.file.write(&self.rows.text)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if self.may_begin {
            self.begin_without_rows()?;
        }
        self.file.flush()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.file.keep()
    }

    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        self.may_begin = true;
        self.begin_without_rows()
    }

    fn finish(&mut self, ending: Ending) -> Result<(), SinkError> {
        self.begin_without_rows()?;
        self.file.finish(ending)
    }
}
