//! Writes the dead letters of all tasks to the one file of the pipeline.

use std::path::PathBuf;

use tokio::sync::{mpsc, watch};

use crate::checkpoint::barrier::DeadLetterMessage;
use crate::dead_letter::DeadLetter;
use crate::element::CheckpointId;
use crate::sink::SinkError;
use crate::sink::dead_letter::{DeadLetters, Kept};

/// Makes the file when the first dead letter comes. Dead letters from after a
/// barrier wait until all tasks have passed it.
pub(super) struct DeadLetterWriter {
    pub pipeline: String,
    pub path: Option<PathBuf>,
    /// What the checkpoint that the run starts from has of the file.
    pub kept: Option<Kept>,
    /// Another file, in which the kept dead letters are.
    pub path_before: Option<PathBuf>,
    /// The last barrier that all tasks have passed.
    pub passed: CheckpointId,
    /// The checkpoint before the first row, if there is one, and the last that was
    /// committed. Until then the next run may start from another one, so nothing is
    /// cut.
    pub first: Option<(CheckpointId, watch::Receiver<CheckpointId>)>,
}

impl DeadLetterWriter {
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<DeadLetterMessage>,
    ) -> Result<(), SinkError> {
        let mut file = None;
        if self.first.is_none() {
            self.cut(&mut file)?;
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
                    if let Some((first, mut committed)) = self.first.take() {
                        let waited = committed.wait_for(|&committed| committed >= first).await;
                        if waited.is_err() {
                            return Ok(());
                        }
                        self.cut(&mut file)?;
                    }
                    self.write(&mut file, &std::mem::take(&mut ahead))?;
                }
            }
        }
        Ok(())
    }

    /// Cuts off what follows the checkpoint, even if no dead letter comes.
    fn cut(&mut self, file: &mut Option<DeadLetters>) -> Result<(), SinkError> {
        if let Some(before) = self.path_before.take() {
            let kept = self.kept.take();
            if before.exists() {
                DeadLetters::open(&before, &self.pipeline, kept.as_ref())?;
            }
        }
        if self.kept.is_some() && self.path.as_ref().is_some_and(|path| path.exists()) {
            self.open(file)?;
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
            *file = Some(DeadLetters::open(path, &self.pipeline, self.kept.as_ref())?);
        }
        Ok(())
    }

    /// Syncs the file to the disk, and returns its length.
    fn sync(&self, file: &mut Option<DeadLetters>) -> Result<u64, SinkError> {
        match (file, &self.path) {
            (Some(file), _) => file.sync(),
            // No dead letter yet: the file, if there is one, is an earlier run's.
            (None, Some(path)) => {
                let found = std::fs::metadata(path).map_or(0, |found| found.len());
                let kept = self.kept.as_ref().filter(|_| self.path_before.is_none());
                Ok(kept.map_or(found, |kept| kept.bytes.min(found)))
            }
            (None, None) => Ok(0),
        }
    }
}
