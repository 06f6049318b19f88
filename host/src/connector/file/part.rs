//! A file that is written under a temporary name and renamed when it is
//! complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::snapshot::SinkSnapshot;
use crate::files::create_folder_of;
use crate::sink::SinkError;

/// A file being written as `<name>.part`, to be renamed to `<name>`.
pub(super) struct PartFile {
    node: String,
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    /// Length so far, with what is still buffered.
    bytes: u64,
}

impl PartFile {
    /// Creates the file, and its folder if needed. A part that an earlier run
    /// left is overwritten, except for its first `kept` bytes: they belong to
    /// the checkpoint that the run is restored from.
    pub fn create(node: &str, path: &Path, kept: Option<u64>) -> Result<Self, SinkError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let created = create_folder_of(&part).and_then(|()| {
            // An error now is better than one after hours of work.
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
            Ok(file) => Ok(PartFile {
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

    /// Makes everything written so far durable, and returns what a run needs to
    /// go on from this checkpoint.
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

    /// Makes the file durable, then gives it its name.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        let path = self.path.clone();
        self.finish_as(&path)
    }

    /// As [`Self::finish`], with another name.
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

    /// A handle to the file, for a writer that has its own buffer.
    pub fn file(&self) -> io::Result<File> {
        self.file.get_ref().try_clone()
    }

    pub fn error(&self, cause: io::Error) -> SinkError {
        SinkError::io(&self.node, self.part.display(), &cause)
    }
}

/// Opens the part, cut to its length at a checkpoint. If a later run finished
/// the file, it is renamed back first.
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
