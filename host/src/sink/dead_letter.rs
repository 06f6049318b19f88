//! Writes dead letters: one JSON object a line, behind those of earlier runs.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::SinkError;
use super::file::create_folder_of;
pub use super::json_lines::render_row;
use crate::operator::DeadLetter;

/// A pipeline's file of dead letters.
pub struct DeadLetters {
    node: String,
    path: PathBuf,
    file: BufWriter<File>,
}

impl DeadLetters {
    /// Opens or makes the file, and its folder.
    pub fn open(path: &Path) -> Result<Self, SinkError> {
        let node = "dead_letters".to_owned();
        let opened = create_folder_of(path)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(path));
        match opened {
            Ok(file) => Ok(DeadLetters {
                node,
                path: path.to_owned(),
                file: BufWriter::new(file),
            }),
            Err(cause) => Err(SinkError::File {
                node,
                path: path.to_owned(),
                cause,
            }),
        }
    }

    /// They are in the file when this is done: what is worth a dead letter may
    /// be what ends the process next.
    pub fn write(&mut self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let written = letters
            .iter()
            .try_for_each(|letter| {
                serde_json::to_writer(&mut self.file, letter)?;
                self.file.write_all(b"\n")
            })
            .and_then(|()| self.file.flush());
        written.map_err(|cause| SinkError::File {
            node: self.node.clone(),
            path: self.path.clone(),
            cause,
        })
    }
}
