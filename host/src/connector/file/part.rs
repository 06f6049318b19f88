//! A file that is written under a temporary name and renamed when it is
//! complete. What is there already is never lost, unless the user says so.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::digest::digest;
use super::mark::FileId;
use super::opened::{Compression, check_whole};
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::paths::{PART, STANDARD_OUTPUT, create_folder_of, is_device, remove, target};
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
    /// The pipeline's name.
    pub pipeline: String,
    pub if_exists: IfExists,
    /// What the restored checkpoint has of the file.
    pub restored: Option<SinkSnapshot>,
    /// That checkpoint, if it is not the last one.
    pub goes_back_to: Option<CheckpointId>,
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
    pub compression: Compression,
    /// It is one of several, whose names the sink makes from its path.
    pub is_numbered: bool,
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
    /// Whether the file takes the place of whatever is there.
    replaces: bool,
    /// What has the name while this file grows, and is in it.
    base: Option<FileState>,
    has_begun: bool,
}

/// The temporary file, locked for this run alone.
struct Part {
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
    /// The finished file, which has this length, is copied to the part, and stays as it is
    /// until the part takes its place.
    Copy(u64),
}

/// A file as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FileState {
    id: FileId,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl PartFile {
    /// Finds what the file begins with, and makes its folder if needed. Nothing
    /// that is there is changed before [`PartFile::begin`].
    pub fn open(node: &str, path: &Path, options: &PartOptions) -> Result<Self, SinkError> {
        let opened = open(path, options);
        let (path, part, file, bytes) =
            opened.map_err(|cause| SinkError::io(node, path.display(), &cause))?;
        let base = (options.if_exists == IfExists::Append).then(|| FileState::of(&path));
        Ok(PartFile {
            node: node.to_owned(),
            base: base.flatten(),
            path,
            part,
            file: buffered(file),
            bytes,
            is_checkpointed: options.is_checkpointed,
            replaces: options.if_exists == IfExists::Replace,
            has_begun: false,
        })
    }

    /// Cuts off what the file does not begin with. Returns whether it was still to
    /// be done.
    pub fn begin(&mut self) -> Result<bool, SinkError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(false);
        }
        let beginning = self.part.as_mut().and_then(|part| part.beginning.take());
        let begun = beginning.map_or(Ok(()), |beginning| self.begin_with(beginning));
        begun.map_err(|cause| self.error(cause))?;
        Ok(true)
    }

    fn begin_with(&mut self, beginning: Beginning) -> io::Result<()> {
        let Some(part) = &self.part else {
            return Ok(());
        };
        let bytes = match beginning {
            Beginning::Cut(bytes) => bytes,
            Beginning::Unfinish(bytes) => {
                fs::rename(&self.path, &part.path)?;
                bytes
            }
            Beginning::Copy(bytes) => {
                let mut copy = part.lock.try_clone()?;
                copy.set_len(0)?;
                copy.rewind()?;
                io::copy(&mut self.file.get_ref().take(bytes), &mut copy)?;
                self.file = buffered(copy);
                bytes
            }
        };
        let mut file = self.file.get_ref();
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
        }
        file.seek(SeekFrom::End(0)).map(drop)
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
        let is_base = self.base.is_some() && self.base == FileState::of(&path);
        if self.part.is_some() && !self.replaces && !is_base && has_rows(&path) {
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

    pub fn file(&self) -> &File {
        self.file.get_ref()
    }

    pub fn error(&self, cause: io::Error) -> SinkError {
        let part = self.part.as_ref().map(|part| &part.path);
        SinkError::of_file(&self.node, part.unwrap_or(&self.path), &cause)
    }
}

/// Rows are small.
fn buffered(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(256 << 10, file)
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(FileState {
            id: FileId::of(&metadata),
            bytes: metadata.len(),
            changed: metadata.modified().ok(),
        })
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
    fn of(path: PathBuf) -> io::Result<Self> {
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
    // What was redirected is a regular file, which the shell has opened.
    if is_special || is_device(path) {
        let file = match File::options().append(true).open(path) {
            // It may be a socket, which cannot be opened.
            Err(_) if path == Path::new(STANDARD_OUTPUT) => {
                File::from(io::stdout().as_fd().try_clone_to_owned()?)
            }
            opened => opened?,
        };
        return Ok((path.to_owned(), None, file, 0));
    }
    // A link stays a link. A numbered file's name is one of many that the sink makes.
    let path = match options.is_numbered {
        true => path.to_owned(),
        false => target(path)?,
    };
    create_folder_of(&path)?;
    let mut part = Part::of(part_of(&path))?;
    let there = There::find(&path, &part, options)?;
    let restored = options.restored.as_ref();
    let beginning = match restored.filter(|restored| restored.bytes.is_some()) {
        Some(restored) => {
            let is_new = restored.bytes == Some(0) && !options.waits_for_commit;
            let is_foreign = there.is_other || (is_new && has_rows(&path));
            if is_foreign && options.if_exists != IfExists::Replace {
                return Err(not_gone_on_from(&path, options.if_exists));
            }
            restored_beginning(&there, restored, options)?
        }
        None => new_beginning(&there, options)?,
    };
    let (file, bytes) = match beginning {
        Beginning::Cut(bytes) => (part.lock.try_clone()?, bytes),
        Beginning::Unfinish(bytes) => {
            let file = File::options().read(true).write(true).open(&path)?;
            lock_for_this_run(&file)?;
            (file, bytes)
        }
        Beginning::Copy(bytes) => (File::open(&path)?, bytes),
    };
    part.beginning = Some(beginning);
    Ok((path, Some(part), file, bytes))
}

/// What there is of a file.
struct There<'a> {
    path: &'a Path,
    part: &'a Path,
    /// Length of the finished file; 0 if there is none.
    finished: u64,
    /// Length of the part, if it has anything that the finished file has not.
    unfinished: u64,
    /// The finished file has what the part has not.
    is_other: bool,
}

impl<'a> There<'a> {
    fn find(path: &'a Path, part: &'a Part, options: &PartOptions) -> io::Result<Self> {
        let finished = fs::metadata(path).map_or(0, |found| found.len());
        let mut there = There {
            path,
            part: &part.path,
            finished,
            unfinished: part.bytes()?,
            is_other: false,
        };
        if finished == 0 || there.unfinished == 0 {
            return Ok(there);
        }
        let both = finished.min(there.unfinished);
        let is_alike = options.if_exists == IfExists::Append
            && digest(&File::open(path)?, both)? == digest(&part.lock, both)?;
        there.is_other = !is_alike;
        if is_alike && there.unfinished <= finished {
            // A copy, complete or not.
            there.unfinished = 0;
        }
        Ok(there)
    }
}

pub(super) fn lock_for_this_run(file: &File) -> io::Result<()> {
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
/// rows that one of them knew, be it of another sink. Without, it may have all rows of
/// runs with checkpoints.
fn new_beginning(there: &There<'_>, options: &PartOptions) -> io::Result<Beginning> {
    let has_other_part = there.unfinished > 0 && !options.is_checkpointed;
    let found = match (there.finished, there.unfinished) {
        (0, 0) => return Ok(Beginning::Cut(0)),
        (0, _) => there.part,
        _ => there.path,
    };
    match options.if_exists {
        IfExists::Replace => Ok(Beginning::Cut(0)),
        IfExists::Fail if there.finished == 0 && has_other_part => Err(unfinished(there)),
        IfExists::Fail => Err(not_gone_on_from(found, IfExists::Fail)),
        IfExists::Append if there.finished == 0 && has_other_part => Err(unfinished(there)),
        IfExists::Append if there.is_other || has_other_part => Err(two_files(there)),
        IfExists::Append if !begins_with(found, &options.head)? => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "rows are to be appended to {}, which does not begin as they do: it has other \
                 columns, or another `compression`; move it away, or change that back",
                found.display()
            ),
        )),
        IfExists::Append => {
            // Behind what the checkpoint has are rows that come again, unless it is the
            // last one of a finished file.
            let may_have_more = there.unfinished > 0 || options.goes_back_to.is_some();
            let left = options.left_behind.as_ref().filter(|_| may_have_more);
            if let Some(left) = left.filter(|left| left.bytes.is_some()) {
                return restored_beginning(there, left, options);
            }
            new_end(there, options)
        }
    }
}

/// Why a part is not written over that may be all there is.
fn unfinished(there: &There<'_>) -> io::Error {
    let (path, part) = (there.path.display(), there.part.display());
    io::Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "{part} is there, with rows of a run that did not end: delete it, or keep its rows \
             by renaming it (to {path}, if they are to be there), or write \
             `if_exists = \"replace\"`"
        ),
    )
}

/// Why nothing is appended to a finished file that has a part beside it.
fn two_files(there: &There<'_>) -> io::Error {
    let (path, part) = (there.path.display(), there.part.display());
    io::Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "rows can be appended to one of two files only: {path} is finished, and {part} has \
             rows of a run that did not end, which are not in the other. To append to {path}, \
             delete {part}, or keep it under another name; to go on behind the rows in {part}, \
             give it the name {path} when that is moved away"
        ),
    )
}

/// What a file begins with to all of which rows are appended.
fn new_end(there: &There<'_>, options: &PartOptions) -> io::Result<Beginning> {
    if there.unfinished == 0 {
        check_whole(there.path, options.compression)?;
        return Ok(Beginning::Copy(there.finished));
    }
    // What ends within its compressed data hides what follows.
    if options.compression != Compression::None {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} is there, and rows cannot be appended to compressed data that may not be \
                 complete: move it away",
                there.part.display()
            ),
        ));
    }
    Ok(Beginning::Cut(there.unfinished))
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
    there: &There<'_>,
    restored: &SinkSnapshot,
    options: &PartOptions,
) -> io::Result<Beginning> {
    let Some(bytes @ 1..) = restored.bytes else {
        return Ok(Beginning::Cut(0));
    };
    // A finished file that has more than an older checkpoint would be taken for another
    // one when the part has grown again.
    let is_part = there.unfinished > 0 && (there.is_other || there.finished <= bytes);
    let is_finished = !is_part && there.path.exists();
    let file = if is_part { there.part } else { there.path };
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
    let may_be_longer = options.goes_back_to.is_some() || restored.uncut_bytes == Some(found);
    if is_finished && found > bytes && !may_be_longer {
        return Err(refused(format!(
            "has {found} bytes, and had {bytes} when this pipeline finished it"
        )));
    }
    Ok(match is_finished {
        true if options.if_exists == IfExists::Append && found == bytes => Beginning::Copy(bytes),
        true => Beginning::Unfinish(bytes),
        false => Beginning::Cut(bytes),
    })
}
