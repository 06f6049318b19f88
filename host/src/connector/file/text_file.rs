//! A text file being written, compressed if it has to be.

use std::io;

use super::encoder::Encoder;
use super::opened::Compression;
use super::part::PartFile;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::sink::{Ending, SinkError};

pub(super) struct TextFile {
    pub part: PartFile,
    compression: Compression,
    encoder: Encoder,
}

impl TextFile {
    pub fn new(part: PartFile, compression: Compression) -> Self {
        TextFile {
            part,
            compression,
            encoder: Encoder::new(compression),
        }
    }

    /// Whether nothing was written, not even what is still being compressed.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty() && self.encoder.is_empty()
    }

    /// Ends the last line of text that the file begins with, if that has no end.
    pub fn end_line(&mut self) -> Result<(), SinkError> {
        if self.compression != Compression::None {
            return Ok(());
        }
        match self.part.last_byte()? {
            None | Some(b'\n') => Ok(()),
            Some(_) => self.write(b"\n"),
        }
    }

    pub fn write(&mut self, text: &[u8]) -> Result<(), SinkError> {
        let encoded = self.encoder.write(text);
        self.pass_on(encoded)
    }

    /// Makes what was written visible to readers.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        let encoded = self.encoder.flush();
        self.pass_on(encoded)?;
        self.part.flush()
    }

    /// Makes everything written so far durable, in such a way that the file can be
    /// cut here.
    pub fn keep(&mut self) -> Result<SinkSnapshot, SinkError> {
        self.end()?;
        self.part.keep()
    }

    pub fn finish(&mut self, ending: Ending) -> Result<(), SinkError> {
        if self.is_empty() {
            // No bytes at all are no compressed text.
            let begun = self.encoder.begin().map(drop);
            begun.map_err(|cause| self.part.error(cause))?;
        }
        self.end()?;
        match ending {
            Ending::Complete => self.part.finish(),
            Ending::Stopped => self.part.stop(),
        }
    }

    /// Ends the compressed piece, so that what follows begins another one.
    pub fn end(&mut self) -> Result<(), SinkError> {
        let last = self.encoder.end();
        let last = last.map_err(|cause| self.part.error(cause))?;
        self.part.write(&last)
    }

    /// Writes the bytes that are compressed.
    fn pass_on(&mut self, encoded: io::Result<()>) -> Result<(), SinkError> {
        encoded.map_err(|cause| self.part.error(cause))?;
        if let Some(bytes) = self.encoder.output() {
            self.part.write(bytes)?;
            bytes.clear();
        }
        Ok(())
    }
}
