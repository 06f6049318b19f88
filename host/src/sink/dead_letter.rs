//! Writes dead letters, a JSON object a line, appended to those of earlier
//! runs and of other pipelines.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SinkError;
use crate::dead_letter::DeadLetter;
use crate::files::create_folder_of;

/// Only the owner may read rows that others may not see elsewhere.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.create(true).read(true).append(true);
    options.mode(0o600).open(path)
}

/// A pipeline's file of dead letters.
pub struct DeadLetters {
    pipeline: String,
    path: PathBuf,
    file: File,
    /// What is written at once, reused for its memory.
    lines: Vec<u8>,
    /// Whether dead letters were written that may not be durable yet.
    is_new: bool,
}

/// What a checkpoint has of the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The pipeline's name at that time, which its lines begin with.
    pub pipeline: String,
    /// The length of the file.
    pub bytes: u64,
    /// Which file that is, as in the manifest.
    pub place: Option<String>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    pipeline: &'a str,
    #[serde(flatten)]
    dead_letter: &'a DeadLetter,
}

#[derive(Deserialize)]
struct Writer {
    pipeline: String,
}

impl DeadLetters {
    /// Opens or creates the file, and its folder. A restored run keeps what the
    /// checkpoint has of it, and what other pipelines have written since; its own
    /// later dead letters are written again.
    pub fn open(path: &Path, pipeline: &str, kept: Option<&Kept>) -> Result<Self, SinkError> {
        let opened = create_folder_of(path)
            .and_then(|()| open_private(path))
            .and_then(|file| {
                // Pipes and devices have nothing to cut.
                if file.metadata()?.is_file() {
                    while_locked(&file, |file| match kept {
                        Some(kept) => cut(file, kept),
                        None => end_line(file),
                    })?;
                }
                Ok(file)
            });
        match opened {
            Ok(file) => Ok(DeadLetters {
                pipeline: pipeline.to_owned(),
                path: path.to_owned(),
                file,
                lines: Vec::new(),
                is_new: true,
            }),
            Err(cause) => Err(failed(path, &cause)),
        }
    }

    /// Makes the file durable and returns its length.
    pub fn sync(&mut self) -> Result<u64, SinkError> {
        let synced = match std::mem::take(&mut self.is_new) {
            true => self.file.sync_data(),
            false => Ok(()),
        };
        let synced = synced.and_then(|()| self.file.metadata());
        synced
            .map(|metadata| metadata.len())
            .map_err(|cause| failed(&self.path, &cause))
    }

    /// Writes dead letters through to the file: whatever caused them may crash
    /// the process next.
    pub fn write(&mut self, dead_letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.is_new = true;
        let written = dead_letters.iter().try_for_each(|dead_letter| {
            let pipeline = &self.pipeline;
            let line = Line {
                pipeline,
                dead_letter,
            };
            serde_json::to_writer(&mut self.lines, &line)?;
            self.lines.push(b'\n');
            if self.lines.len() < WRITTEN_BYTES_MAX {
                return Ok(());
            }
            write_through(&self.file, &mut self.lines)
        });
        written
            .and_then(|()| write_through(&self.file, &mut self.lines))
            .map_err(|cause| failed(&self.path, &cause))
    }
}

/// More than this is written in several pieces.
const WRITTEN_BYTES_MAX: usize = 1 << 20;

fn write_through(file: &File, lines: &mut Vec<u8>) -> io::Result<()> {
    let written = while_locked(file, |mut file| file.write_all(lines));
    lines.clear();
    written
}

/// Another pipeline may write to the same file: its lines stay whole.
fn while_locked(file: &File, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    // Not every file system has locks.
    let is_locked = file.lock().is_ok();
    let done = work(file);
    if is_locked {
        file.unlock()?;
    }
    done
}

/// Cuts off the pipeline's own lines behind the bytes that are kept. What others
/// have written there stays, and so does a line that they have moved there.
fn cut(file: &File, kept: &Kept) -> io::Result<()> {
    let &Kept {
        ref pipeline,
        bytes: kept,
        ..
    } = kept;
    if file.metadata()?.len() <= kept {
        return end_line(file);
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut start = kept;
    if kept > 0 {
        reader.seek(SeekFrom::Start(kept - 1))?;
        start += reader.read_until(b'\n', &mut line)? as u64 - 1;
    }
    let mut others = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        // A line without an end is what a crash has left.
        if !line.ends_with(b"\n") {
            break;
        }
        let writer: Result<Writer, _> = serde_json::from_slice(&line);
        if writer.map_or(true, |writer| writer.pipeline != *pipeline) {
            others.extend_from_slice(&line);
        }
    }
    file.set_len(start)?;
    let mut file = file;
    file.write_all(&others)?;
    end_line(file)
}

/// Ends the last line, which a crash may have left without its end.
fn end_line(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    match last {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

fn failed(path: &Path, cause: &io::Error) -> SinkError {
    SinkError::io("dead_letters", path.display(), cause)
}
