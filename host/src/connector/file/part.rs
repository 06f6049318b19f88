//! A file that is written under a temporary name and renamed when it is
//! complete. What is there already is never lost, unless the user says so.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::digest::digest;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::paths::{PART, create_folder_of, identity, remove};
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
    /// That checkpoint is not the last one.
    pub goes_back: bool,
    /// The next run goes on where this one is stopped.
    pub is_checkpointed: bool,
    /// What the checkpoint has of the file as that of a sink that was dropped.
    pub left_behind: Option<SinkSnapshot>,
    /// Until the run's first checkpoint is committed, the next run may start
    /// from another one, which knows the files as they are.
    pub waits_for_commit: bool,
    /// What a file begins with that rows can be appended to: the mark of its
    /// compression, or the line above all rows, or nothing.
    pub head: Vec<u8>,
    pub is_compressed: bool,
}

/// A file being written as `<name>.part`, to be renamed to `<name>`. A device or a
/// pipe is written directly.
pub(super) struct PartFile {
    node: String,
    path: PathBuf,
    /// Absent for a device or a pipe.
    part: Option<Part>,
    file: BufWriter<File>,
    /// Length so far, with what is still buffered.
    bytes: u64,
    is_checkpointed: bool,
    /// Whether the file takes the place of another one.
    replaces: bool,
    has_begun: bool,
}

/// The temporary file, locked for this run alone.
pub(super) struct Part {
    path: PathBuf,
    lock: File,
    /// What is still to be done before the first row is written.
    beginning: Option<Beginning>,
}

/// Until then, the files that there are stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// The part is cut to this length.
    Cut(u64),
    /// The finished file, cut to this length, becomes the part again.
    Unfinish(u64),
}

impl PartFile {
    /// Finds what the file begins with, and makes its folder if needed. Nothing
    /// that is there is changed before [`PartFile::begin`].
    pub fn open(node: &str, path: &Path, options: &PartOptions) -> Result<Self, SinkError> {
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
            replaces: match options.if_exists {
                IfExists::Replace => true,
                IfExists::Append => !options.is_checkpointed,
                IfExists::Fail => false,
            },
            has_begun: false,
        })
    }

    /// Cuts off what the file does not begin with. Returns whether it was still to
    /// be done.
    pub fn begin(&mut self) -> Result<bool, SinkError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(false);
        }
        let begun = self.part.as_mut().map_or(Ok(()), |part| {
            let mut file = self.file.get_ref();
            let bytes = match part.beginning.take() {
                None => return Ok(()),
                Some(Beginning::Cut(bytes)) => bytes,
                Some(Beginning::Unfinish(bytes)) => {
                    fs::rename(&self.path, &part.path)?;
                    bytes
                }
            };
            if file.metadata()?.len() != bytes {
                file.set_len(bytes)?;
            }
            file.seek(SeekFrom::End(0)).map(drop)
        });
        begun.map_err(|cause| self.error(cause))?;
        Ok(true)
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes += bytes.len() as u64;
        let written = self.file.write_all(bytes);
        written.map_err(|cause| self.error(cause))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last byte of what the file has begun with.
    pub fn last_byte(&self) -> Result<Option<u8>, SinkError> {
        let Some(last) = self.bytes.checked_sub(1).filter(|_| self.part.is_some()) else {
            return Ok(None);
        };
        let mut byte = [0];
        let read = self.file.get_ref().read_exact_at(&mut byte, last);
        read.map_err(|cause| self.error(cause))?;
        Ok(Some(byte[0]))
    }

    /// Whether a finished file is to become the part again.
    pub fn was_finished(&self) -> bool {
        let beginning = self.part.as_ref().and_then(|part| part.beginning);
        matches!(beginning, Some(Beginning::Unfinish(_)))
    }

    /// Makes everything written so far durable, and returns what a run needs to
    /// go on from this checkpoint.
    pub fn keep(&mut self) -> Result<SinkSnapshot, SinkError> {
        self.flush()?;
        if self.part.is_none() {
            return Ok(SinkSnapshot::default());
        }
        let file = self.file.get_ref();
        let kept = file.sync_data().and_then(|()| {
            let length = file.metadata()?.len();
            Ok((digest(file, self.bytes)?, length))
        });
        let (digest, length) = kept.map_err(|cause| self.error(cause))?;
        Ok(SinkSnapshot {
            bytes: Some(self.bytes),
            uncut_bytes: Some(length).filter(|_| self.was_finished()),
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
                part.path.display()
            );
            return self.flush();
        }
        let path = self.path.clone();
        if self.part.is_some() && !self.replaces && has_rows(&path) {
            return Err(SinkError::io(
                &self.node,
                path.display(),
                &not_gone_on_from(&path, IfExists::Append),
            ));
        }
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
            .and_then(|()| fs::rename(&part.path, path))
            .and_then(|()| self.file.get_ref().unlock());
        finished.map_err(|cause| self.error(cause))
    }

    /// Removes the temporary file, which has no row.
    pub fn discard(&mut self) -> Result<(), SinkError> {
        let removed = self.part.as_ref().map_or(Ok(()), |part| remove(&part.path));
        removed.map_err(|cause| self.error(cause))
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
        let part = self.part.as_ref().map(|part| &part.path);
        let path = part.unwrap_or(&self.path);
        SinkError::io(&self.node, path.display(), &cause)
    }
}

impl Drop for PartFile {
    /// A process that is being started may have the file open for a moment longer.
    fn drop(&mut self) {
        let _ = self.file.get_ref().unlock();
    }
}

impl Part {
    /// Locks the temporary file, and creates it if needed.
    pub fn of(path: PathBuf) -> io::Result<Self> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)?;
        lock_for_this_run(&lock)?;
        Ok(Part {
            path,
            lock,
            beginning: Some(Beginning::Cut(0)),
        })
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.lock.metadata()?.len())
    }
}

impl Drop for Part {
    /// If nothing was written to it, an empty file has served as the lock only.
    fn drop(&mut self) {
        if self.beginning.is_some() && self.bytes().is_ok_and(|bytes| bytes == 0) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.lock.unlock();
    }
}

/// The name under which a file is written.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(PART);
    PathBuf::from(part)
}

/// The path and part of the file, the file, and the length that it begins with.
fn open(path: &Path, options: &PartOptions) -> io::Result<(PathBuf, Option<Part>, File, u64)> {
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
    let mut part = Part::of(part_of(&path))?;
    let finished_bytes = found.map_or(0, |found| found.len());
    let restored = options.restored.as_ref();
    let beginning = match restored.filter(|restored| restored.bytes.is_some()) {
        Some(restored) => {
            let is_new = restored.bytes == Some(0) && !options.waits_for_commit;
            let is_foreign = (is_new || part.bytes()? > 0) && has_rows(&path);
            if is_foreign && options.if_exists != IfExists::Replace {
                return Err(not_gone_on_from(&path, options.if_exists));
            }
            restored_beginning(&path, &part, restored, options.goes_back)?
        }
        None => new_beginning(&path, &part, finished_bytes, options)?,
    };
    let (file, bytes) = match beginning {
        Beginning::Cut(bytes) => (part.lock.try_clone()?, bytes),
        Beginning::Unfinish(bytes) => {
            let file = File::options().read(true).write(true).open(&path)?;
            lock_for_this_run(&file)?;
            (file, bytes)
        }
    };
    part.beginning = Some(beginning);
    Ok((path, Some(part), file, bytes))
}

fn lock_for_this_run(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "another run is writing it",
        )),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// What a file begins with that no checkpoint knows. With checkpoints, a part has
/// rows that one of them knew, be it of another sink.
fn new_beginning(
    path: &Path,
    part: &Part,
    finished_bytes: u64,
    options: &PartOptions,
) -> io::Result<Beginning> {
    let part_bytes = match options.is_checkpointed {
        true => part.bytes()?,
        false => {
            check_unfinished(path, part, finished_bytes, options.if_exists)?;
            0
        }
    };
    let there = match (finished_bytes, part_bytes) {
        (0, 0) => return Ok(Beginning::Cut(0)),
        (0, _) => &part.path,
        _ => path,
    };
    match options.if_exists {
        IfExists::Replace => Ok(Beginning::Cut(0)),
        IfExists::Fail => Err(not_gone_on_from(there, IfExists::Fail)),
        IfExists::Append if !begins_with(there, &options.head)? => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "rows are to be appended to {}, which does not begin as they do: it has other \
                 columns, or another `compression`; move it away, or change that back",
                there.display()
            ),
        )),
        IfExists::Append if finished_bytes == 0 || part_bytes == 0 => {
            // Behind what the checkpoint has are rows that come again, unless it is the
            // last one of a finished file.
            let may_have_more = part_bytes > 0 || options.goes_back;
            let left = options.left_behind.as_ref().filter(|_| may_have_more);
            if let Some(left) = left.filter(|left| left.bytes.is_some()) {
                return restored_beginning(path, part, left, options.goes_back);
            }
            new_end(path, part, finished_bytes, options)
        }
        IfExists::Append => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "there are this file and {}, and rows can be appended to one of them only: move \
                 the other away",
                part.path.display()
            ),
        )),
    }
}

/// Refuses to write over a part that a run without checkpoints has found, unless it is
/// what such a run, when it failed, has left beside a finished file to which it was to
/// append. It may have all rows of runs with checkpoints.
fn check_unfinished(
    path: &Path,
    part: &Part,
    finished_bytes: u64,
    if_exists: IfExists,
) -> io::Result<()> {
    let part_bytes = part.bytes()?;
    let is_finished = finished_bytes > 0;
    if part_bytes == 0 || if_exists == IfExists::Replace {
        return Ok(());
    }
    if is_finished {
        let is_copy = part_bytes >= finished_bytes
            && digest(&File::open(path)?, finished_bytes)? == digest(&part.lock, finished_bytes)?;
        // With `fail`, the finished file is refused.
        if is_copy || if_exists == IfExists::Fail {
            return Ok(());
        }
    }
    let (path, part) = (path.display(), part.path.display());
    Err(io::Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "{part} is there, with rows of a run that did not end: delete it, or keep its rows \
             by renaming it (to {path}, if they are to be there), or write \
             `if_exists = \"replace\"`"
        ),
    ))
}

/// What a file begins with to all of which rows are appended.
fn new_end(
    path: &Path,
    part: &Part,
    finished_bytes: u64,
    options: &PartOptions,
) -> io::Result<Beginning> {
    if finished_bytes == 0 {
        // What ends within its compressed data hides what follows.
        if options.is_compressed {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} is there, and rows cannot be appended to compressed data that may not be \
                     complete: move it away",
                    part.path.display()
                ),
            ));
        }
        return Ok(Beginning::Cut(part.bytes()?));
    }
    if options.is_checkpointed {
        return Ok(Beginning::Unfinish(finished_bytes));
    }
    // Should the run fail, the file is as it was.
    part.lock.set_len(0)?;
    let bytes = io::copy(&mut File::open(path)?, &mut &part.lock)?;
    Ok(Beginning::Cut(bytes))
}

/// Why a run stops at a file that is there.
pub(super) fn not_gone_on_from(path: &Path, if_exists: IfExists) -> io::Error {
    let choices = match if_exists {
        IfExists::Fail => "`if_exists = \"replace\"` or `if_exists = \"append\"`",
        _ => "`if_exists = \"replace\"`",
    };
    io::Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "{} is there, and this run does not go on from it: move it away, or write {choices}",
            path.display()
        ),
    )
}

fn has_rows(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

fn begins_with(path: &Path, mark: &[u8]) -> io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?
        .take(mark.len() as u64)
        .read_to_end(&mut first)?;
    Ok(first == mark)
}

/// What a file begins with of which a checkpoint has this, if it is still the file of
/// that checkpoint. A later run may have finished it. What is behind the
/// last checkpoint in a finished file is not from this pipeline.
fn restored_beginning(
    path: &Path,
    part: &Part,
    restored: &SinkSnapshot,
    goes_back: bool,
) -> io::Result<Beginning> {
    let Some(bytes @ 1..) = restored.bytes else {
        return Ok(Beginning::Cut(0));
    };
    let is_part = part.bytes()? > 0;
    let is_finished = !is_part && path.exists();
    let file = if is_part { &part.path } else { path };
    let refused = |what: String| {
        io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "{} {what}: put back the file of the checkpoint, or start the sink without what \
                 the checkpoint has of it (`sluicebox run --drop` with its name)",
                file.display()
            ),
        )
    };
    let found = fs::metadata(file).map_or(0, |found| found.len());
    if found < bytes {
        return Err(refused(format!(
            "has {found} bytes, and had {bytes} at the checkpoint"
        )));
    }
    let digest_now = digest(&File::open(file)?, bytes)?;
    let digest_then = restored.digest.as_ref();
    if digest_then.is_some_and(|then| *then != digest_now) {
        return Err(refused("is not the file of the checkpoint".to_owned()));
    }
    let may_be_longer = goes_back || restored.uncut_bytes == Some(found);
    if is_finished && found > bytes && !may_be_longer {
        return Err(refused(format!(
            "has {found} bytes, and had {bytes} when this pipeline finished it"
        )));
    }
    Ok(match is_finished {
        true => Beginning::Unfinish(bytes),
        false => Beginning::Cut(bytes),
    })
}
