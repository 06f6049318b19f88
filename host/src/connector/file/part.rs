//! A file that has its own name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::snapshot::SinkSnapshot;
use crate::files::create_folder_of;
use crate::sink::SinkError;

/// `<name>.part`, to become `<name>`.
pub(super) struct Part {
    node: String,
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    /// What the part has, written through or not.
    bytes: u64,
}

impl Part {
    /// Makes the folder too if there is none. What an earlier run has left
    /// under the part's name is written over, but for the bytes that are
    /// `kept`: they belong to the checkpoint that the run goes on from.
    pub fn create(node: &str, path: &Path, kept: Option<u64>) -> Result<Self, SinkError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let created = create_folder_of(&part).and_then(|()| {
            // Said now and not after hours of work.
            if path.is_dir() {
                return Err(io::Error::new(
                    io::ErrorKind::IsADirectory,
                    "a folder has this name",
                ));
            }
            match kept {
                Some(bytes) => reopen(path, &part, bytes),
                None => File::create(&part),
            }
        });
        match created {
            Ok(file) => Ok(Part {
                node: node.to_owned(),
                path: path.to_owned(),
                part,
                file: BufWriter::with_capacity(256 << 10, file),
                bytes: kept.unwrap_or_default(),
            }),
            Err(cause) => Err(SinkError::io(node, path.display(), &cause)),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes += bytes.len() as u64;
        let written = self.file.write_all(bytes);
        written.map_err(|cause| self.error(cause))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What was written so far is on the disk when this is done, and is what a
    /// run that goes on from this checkpoint finds.
    pub fn keep(&mut self) -> Result<SinkSnapshot, SinkError> {
        self.flush()?;
        let synced = self.file.get_ref().sync_data();
        synced.map_err(|cause| self.error(cause))?;
        Ok(SinkSnapshot {
            bytes: Some(self.bytes),
            ..SinkSnapshot::default()
        })
    }

    pub fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.file.flush();
        flushed.map_err(|cause| self.error(cause))
    }

    /// Everything is on the disk before the file has its name.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        let path = self.path.clone();
        self.finish_as(&path)
    }

    /// The same, under another name.
    pub fn finish_as(&mut self, path: &Path) -> Result<(), SinkError> {
        self.flush()?;
        let finished = self
            .file
            .get_ref()
            .sync_all()
            .and_then(|()| fs::rename(&self.part, path));
        finished.map_err(|cause| self.error(cause))
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for a writer that buffers by itself.
    pub fn file(&self) -> io::Result<File> {
        self.file.get_ref().try_clone()
    }

    pub fn error(&self, cause: io::Error) -> SinkError {
        SinkError::io(&self.node, self.part.display(), &cause)
    }
}

/// The part as it was at a checkpoint. A run that has ended since has given the
/// file its name.
fn reopen(path: &Path, part: &Path, bytes: u64) -> io::Result<File> {
    if !part.exists() && path.exists() {
        fs::rename(path, part)?;
    }
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(part)?;
    let found = file.metadata()?.len();
    if found < bytes {
        return Err(io::Error::other(format!(
            "{} has {found} bytes, and had {bytes} at the checkpoint: put it back, or start \
             without the checkpoint",
            part.display()
        )));
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}
