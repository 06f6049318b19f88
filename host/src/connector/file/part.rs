//! A file that is written under a temporary name and renamed when it is
//! complete. What is there already is never lost, unless the user says so.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::digest::digest;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::files::{create_folder_of, identity};
use crate::sink::{Ending, SinkError};

/// What happens to a file that is there when a run starts without a checkpoint
/// that knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// The run stops.
    #[default]
    Fail,
    /// The file of this run takes its place when it is complete.
    Replace,
    /// Rows are added to it.
    Append,
}

/// How a file is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct PartOptions {
    pub if_exists: IfExists,
    /// What the restored checkpoint has of the file.
    pub restored: Option<SinkSnapshot>,
    /// The next run goes on where this one is stopped.
    pub is_checkpointed: bool,
}

/// A file being written as `<name>.part`, to be renamed to `<name>`. A device or a
/// pipe is written directly.
pub(super) struct PartFile {
    node: String,
    path: PathBuf,
    /// Absent for a device or a pipe.
    part: Option<PathBuf>,
    file: BufWriter<File>,
    /// Length so far, with what is still buffered.
    bytes: u64,
    is_checkpointed: bool,
}

impl PartFile {
    /// Creates the file, and its folder if needed. A part that an earlier run
    /// left is overwritten, except for what the restored checkpoint has of it.
    pub fn create(node: &str, path: &Path, options: &PartOptions) -> Result<Self, SinkError> {
        let opened = create_folder_of(path).and_then(|()| open(path, options));
        let (path, part, file, bytes) =
            opened.map_err(|cause| SinkError::io(node, path.display(), &cause))?;
        Ok(PartFile {
            node: node.to_owned(),
            path,
            part,
            file: BufWriter::with_capacity(256 << 10, file),
            bytes,
            is_checkpointed: options.is_checkpointed,
        })
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
        if self.part.is_none() {
            return Ok(SinkSnapshot::default());
        }
        let file = self.file.get_ref();
        let kept = file.sync_data().and_then(|()| digest(file, self.bytes));
        let digest = kept.map_err(|cause| self.error(cause))?;
        Ok(SinkSnapshot {
            bytes: Some(self.bytes),
            digest: Some(digest),
            ..SinkSnapshot::default()
        })
    }

    pub fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.file.flush();
        flushed.map_err(|cause| self.error(cause))
    }

    /// Makes the file durable, then gives it its name. A file that is not
    /// complete, and that no later run completes, keeps its temporary name.
    pub fn finish(&mut self, ending: Ending) -> Result<(), SinkError> {
        if let Some(part) = &self.part
            && ending == Ending::Stopped
            && !self.is_checkpointed
        {
            tracing::warn!(
                "{}: the run was stopped; the rows so far are in {}",
                self.path.display(),
                part.display()
            );
            return self.flush();
        }
        let path = self.path.clone();
        self.finish_as(&path)
    }

    /// Makes the file durable, and renames it to `path`.
    pub fn finish_as(&mut self, path: &Path) -> Result<(), SinkError> {
        self.flush()?;
        let Some(part) = &self.part else {
            return Ok(());
        };
        let finished = self
            .file
            .get_ref()
            .sync_all()
            .and_then(|()| fs::rename(part, path))
            .and_then(|()| self.file.get_ref().unlock());
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
        let path = self.part.as_ref().unwrap_or(&self.path);
        SinkError::io(&self.node, path.display(), &cause)
    }
}

impl Drop for PartFile {
    /// A process that is being started may have the file open for a moment longer.
    fn drop(&mut self) {
        let _ = self.file.get_ref().unlock();
    }
}

/// The name under which a file is written.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    PathBuf::from(part)
}

/// The path and part of the file, the file, and its length.
fn open(path: &Path, options: &PartOptions) -> io::Result<(PathBuf, Option<PathBuf>, File, u64)> {
    let found = fs::metadata(path).ok();
    // An error now is better than one after hours of work.
    if found.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(io::Error::new(
            ErrorKind::IsADirectory,
            "a folder has this name",
        ));
    }
    let is_special = found.as_ref().is_some_and(|found| !found.is_file());
    // A redirected `/dev/stdout` is a regular file, which the shell has opened.
    if is_special || path.starts_with("/dev") {
        let file = File::options().append(true).open(path)?;
        return Ok((path.to_owned(), None, file, 0));
    }
    // A link stays a link.
    let path = identity(path);
    let part = part_of(&path);
    let kept = options
        .restored
        .as_ref()
        .and_then(|restored| restored.bytes);
    if kept.is_none() && found.is_some_and(|found| found.len() > 0) {
        match options.if_exists {
            IfExists::Fail => {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "there is a file that no checkpoint of this pipeline has written: move it \
                     away, or write `if_exists = \"replace\"` or `if_exists = \"append\"`",
                ));
            }
            IfExists::Replace => {}
            IfExists::Append => {
                let mut file = lock_empty(&part)?;
                let bytes = io::copy(&mut File::open(&path)?, &mut file)?;
                return Ok((path, Some(part), file, bytes));
            }
        }
    }
    let file = match options.restored.as_ref().zip(kept) {
        Some((restored, bytes)) => reopen(&path, &part, bytes, restored.digest.as_deref())?,
        None => lock_empty(&part)?,
    };
    Ok((path, Some(part), file, kept.unwrap_or_default()))
}

/// Opens the part for this run alone.
fn lock(part: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(part)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "another run is writing it",
        )),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// The same, without what an earlier run has left in it.
fn lock_empty(part: &Path) -> io::Result<File> {
    let file = lock(part)?;
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Opens the part, cut to its length at a checkpoint, if it is still the file of
/// that checkpoint. If a later run finished the file, it is renamed back first.
fn reopen(path: &Path, part: &Path, bytes: u64, digest_then: Option<&str>) -> io::Result<File> {
    let is_finished = !part.exists() && path.exists();
    let file = if is_finished { path } else { part };
    if bytes > 0 {
        let found = fs::metadata(file).map_or(0, |found| found.len());
        if found < bytes {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "{} has {found} bytes, and had {bytes} at the checkpoint: put it back, or \
                     start without the checkpoint",
                    file.display()
                ),
            ));
        }
        let digest_now = digest(&File::open(file)?, bytes)?;
        if digest_then.is_some_and(|then| then != digest_now) {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "{} is not the file of the checkpoint: put that back, or start without the \
                     checkpoint",
                    file.display()
                ),
            ));
        }
        if is_finished {
            fs::rename(path, part)?;
        }
    }
    let mut file = lock(part)?;
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}
