//! Writes the dead letters of all tasks to the one file of the pipeline.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::checkpoint::barrier::DeadLetterMessage;
use crate::dead_letter::DeadLetter;
use crate::element::CheckpointId;
use crate::sink::SinkError;
use crate::sink::dead_letter::DeadLetters;

/// Makes the file when the first dead letter comes. Dead letters from after a
/// barrier wait until all tasks have passed it.
pub(super) struct DeadLetterWriter {
    pub pipeline: String,
    pub path: Option<PathBuf>,
    /// Length of the file at the checkpoint that the run starts from.
    pub bytes_kept: Option<u64>,
    /// The last barrier that all tasks have passed.
    pub passed: CheckpointId,
}

impl DeadLetterWriter {
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<DeadLetterMessage>,
    ) -> Result<(), SinkError> {
        let mut file = None;
        // Opening cuts off what follows the checkpoint, even if no dead letter comes.
        if self.bytes_kept.is_some() && self.path.as_ref().is_some_and(|path| path.exists()) {
            self.open(&mut file)?;
        }
        let mut ahead = Vec::new();
        while let Some(message) = messages.recv().await {
            match message {
                DeadLetterMessage::Written(passed, dead_letters) if passed > self.passed => {
                    ahead.extend(dead_letters);
                }
                DeadLetterMessage::Written(_, dead_letters) => {
                    self.write(&mut file, &dead_letters)?;
                }
                DeadLetterMessage::Barrier(id, answer) => {
                    self.passed = id;
                    let bytes = self.sync(&mut file)?;
                    // Nobody waits for the answer when the run is ending.
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
        dead_letters: &[DeadLetter],
    ) -> Result<(), SinkError> {
        if dead_letters.is_empty() {
            return Ok(());
        }
        self.open(file)?;
        match file {
            Some(file) => file.write(dead_letters),
            None => Ok(()),
        }
    }

    fn open(&self, file: &mut Option<DeadLetters>) -> Result<(), SinkError> {
        if let (None, Some(path)) = (&file, &self.path) {
            *file = Some(DeadLetters::open(path, &self.pipeline, self.bytes_kept)?);
        }
        Ok(())
    }

    /// Syncs the file to the disk, and returns its length.
    fn sync(&self, file: &mut Option<DeadLetters>) -> Result<u64, SinkError> {
        match (file, &self.path) {
            (Some(file), _) => file.sync(),
            // No dead letter yet: the file, if there is one, is an earlier run's.
            (None, Some(path)) => Ok(std::fs::metadata(path).map_or(0, |found| found.len())),
            (None, None) => Ok(0),
        }
    }
}
