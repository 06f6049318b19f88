//! Writes the dead letters of all tasks to the one file of the pipeline.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::checkpoint::barrier::DeadLetterMessage;
use crate::dead_letter::DeadLetter;
use crate::element::CheckpointId;
use crate::sink::SinkError;
use crate::sink::dead_letter::DeadLetters;

/// Writes the dead letters of all tasks to one file, which exists only once
/// there is one. Those of the next checkpoint wait until all tasks have passed
/// the barrier.
pub(super) struct DeadLetterWriter {
    pub path: Option<PathBuf>,
    /// Bytes of the file that are the checkpoint's that the run goes on from.
    pub kept: Option<u64>,
    /// The last barrier that all tasks have passed.
    pub passed: CheckpointId,
}

impl DeadLetterWriter {
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<DeadLetterMessage>,
    ) -> Result<(), SinkError> {
        let mut file = None;
        // What is behind the checkpoint has to go even if no dead letter comes.
        if self.kept.is_some() && self.path.as_ref().is_some_and(|path| path.exists()) {
            self.open(&mut file)?;
        }
        let mut ahead = Vec::new();
        while let Some(message) = messages.recv().await {
            match message {
                DeadLetterMessage::Written(passed, letters) if passed > self.passed => {
                    ahead.extend(letters);
                }
                DeadLetterMessage::Written(_, letters) => self.write(&mut file, &letters)?,
                DeadLetterMessage::Barrier(id, answer) => {
                    self.passed = id;
                    let bytes = self.sync(&mut file)?;
                    // Nobody waits for it when the run is being torn down.
                    let _ = answer.send(bytes);
                    self.write(&mut file, &std::mem::take(&mut ahead))?;
                }
            }
        }
        Ok(())
    }

    fn write(
        &self,
        file: &mut Option<DeadLetters>,
        letters: &[DeadLetter],
    ) -> Result<(), SinkError> {
        if letters.is_empty() {
            return Ok(());
        }
        self.open(file)?;
        match file {
            Some(file) => file.write(letters),
            None => Ok(()),
        }
    }

    fn open(&self, file: &mut Option<DeadLetters>) -> Result<(), SinkError> {
        if let (None, Some(path)) = (&file, &self.path) {
            *file = Some(DeadLetters::open(path, self.kept)?);
        }
        Ok(())
    }

    /// The length of the file, once all of it is on the disk.
    fn sync(&self, file: &mut Option<DeadLetters>) -> Result<u64, SinkError> {
        match (file, &self.path) {
            (Some(file), _) => file.sync(),
            // No dead letter yet: what is there is an earlier run's.
            (None, Some(path)) => Ok(std::fs::metadata(path).map_or(0, |found| found.len())),
            (None, None) => Ok(0),
        }
    }
}
