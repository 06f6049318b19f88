//! Writes dead letters, a JSON object a line, appended to those of earlier
//! runs.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::SinkError;
use crate::dead_letter::DeadLetter;
use crate::files::create_folder_of;

/// Only the owner may read rows that others may not see elsewhere.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

/// A pipeline's file of dead letters.
pub struct DeadLetters {
    node: String,
    path: PathBuf,
    file: BufWriter<File>,
    /// Whether dead letters were written that may not be durable yet.
    is_new: bool,
}

impl DeadLetters {
    /// Opens or creates the file, and its folder. A restored run keeps the
    /// file's first `kept` bytes, which the checkpoint has; later dead letters
    /// are written again.
    pub fn open(path: &Path, kept: Option<u64>) -> Result<Self, SinkError> {
        let node = "dead_letters".to_owned();
        let opened = create_folder_of(path)
            .and_then(|()| open_private(path))
            .and_then(|file| {
                let found = file.metadata()?.len();
                if let Some(kept) = kept.filter(|&kept| kept < found) {
                    file.set_len(kept)?;
                }
                Ok(file)
            });
        match opened {
            Ok(file) => Ok(DeadLetters {
                node,
                path: path.to_owned(),
                file: BufWriter::new(file),
                is_new: true,
            }),
            Err(cause) => Err(SinkError::io(&node, path.display(), &cause)),
        }
    }

    /// Makes the file durable and returns its length.
    pub fn sync(&mut self) -> Result<u64, SinkError> {
        let file = self.file.get_ref();
        let synced = match std::mem::take(&mut self.is_new) {
            true => file.sync_data(),
            false => Ok(()),
        };
        let synced = synced.and_then(|()| file.metadata());
        synced
            .map(|metadata| metadata.len())
            .map_err(|cause| SinkError::io(&self.node, self.path.display(), &cause))
    }

    /// Writes dead letters through to the file: whatever caused them may crash
    /// the process next.
    pub fn write(&mut self, dead_letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.is_new = true;
        let written = dead_letters
            .iter()
            .try_for_each(|dead_letter| {
                serde_json::to_writer(&mut self.file, dead_letter)?;
                self.file.write_all(b"\n")
            })
            .and_then(|()| self.file.flush());
        written.map_err(|cause| SinkError::io(&self.node, self.path.display(), &cause))
    }
}
