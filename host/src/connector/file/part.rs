//! A file that is written under a temporary name and renamed when it is complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::beginning::{
    Base, Beginning, FileState, IfExists, PartOptions, There, was_changed_meanwhile,
};
use super::digest::{ReadText, RunningDigest};
use super::mark::FileId;
use super::opened::Compression;
use crate::access::Access;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::devices::{self, DeviceWriter};
use crate::paths::{PART, create_folder_of, is_device, remove, target};
use crate::sink::SinkError;
use crate::stop::Stop;

/// A file being written as `<name>.part`, to be renamed to `<name>`. A device or a
/// pipe is written directly.
pub(super) struct PartFile {
    node: String,
    path: PathBuf,
    /// Absent for a device or a pipe.
    part: Option<Part>,
    file: BufWriter<Output>,
    /// Of the file so far, with what is still buffered.
    digest: RunningDigest,
    compression: Compression,
    is_checkpointed: bool,
    /// Whether the file takes the place of whatever is there.
    replaces: bool,
    /// What has the name while this file grows.
    base: Option<Base>,
    /// Who may use it, where a file is there that says so.
    access: Option<Access>,
    has_begun: bool,
}

/// What rows are written to.
struct Output {
    file: File,
    /// Present for a device or a pipe.
    stop: Option<Stop>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = &self.file;
        match &self.stop {
            Some(stop) => DeviceWriter { file, stop }.write(bytes),
            None => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The temporary file, locked for this run alone.
struct Part {
    path: PathBuf,
    lock: File,
    /// What is still to be done before the first row is written.
    beginning: Option<Beginning>,
}

impl PartFile {
    /// Finds what the file begins with, and makes its folder if needed. Nothing
    /// that is there is changed before [`PartFile::begin`].
    pub fn open(node: &str, path: &Path, options: &PartOptions) -> Result<Self, SinkError> {
        let opened = open(node, path, options);
        let opened = opened.map_err(|cause| SinkError::of_file(node, path, &cause))?;
        let stop = opened.part.is_none().then(|| options.stop.clone());
        Ok(PartFile {
            node: node.to_owned(),
            path: opened.path,
            part: opened.part,
            file: buffered(opened.file, stop),
            digest: opened.digest,
            compression: options.compression,
            is_checkpointed: options.is_checkpointed,
            replaces: options.if_exists == IfExists::Replace,
            base: opened.base,
            access: opened.access,
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
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        if let Some(access) = self.access {
            access.give(&part.lock)?;
        }
        let bytes = match beginning {
            Beginning::Cut(bytes) => bytes,
            Beginning::Unfinish(bytes) => {
                part.check()?;
                fs::rename(&self.path, &part.path)?;
                part.lock = self.file.get_ref().file.try_clone()?;
                bytes
            }
            Beginning::Copy(bytes) => {
                let copy = part.lock.try_clone()?;
                if let Err(cause) = self.copy_base(&copy, bytes) {
                    // Half a copy is of no use, and a full disk needs the room.
                    copy.set_len(0)?;
                    return Err(cause);
                }
                self.file = buffered(copy, None);
                bytes
            }
        };
        let mut file = self.file();
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
        }
        file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Copies the beginning of the finished file, which is to be as it was when it was
    /// digested. Where the file system can, the two share their blocks.
    fn copy_base(&self, mut copy: &File, bytes: u64) -> io::Result<()> {
        let is_unchanged = || self.base_state() == FileState::of(&self.path, self.compression);
        copy.set_len(0)?;
        copy.rewind()?;
        let copied = io::copy(&mut self.file().take(bytes), &mut copy)?;
        match copied == bytes && is_unchanged() {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} was changed by somebody else while this run began to go on from it, and \
                     nothing was written: start the pipeline again when nobody else writes it",
                    self.path.display()
                ),
            )),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.digest.add(bytes);
        let written = self.file.write_all(bytes);
        written.map_err(|cause| self.error(cause))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    pub fn bytes(&self) -> u64 {
        self.digest.length()
    }

    /// A digest of the file so far.
    pub fn text(&self) -> ReadText {
        self.digest.text()
    }

    /// The last byte of what the file has begun with.
    pub fn last_byte(&self) -> Result<Option<u8>, SinkError> {
        let Some(last) = self.bytes().checked_sub(1).filter(|_| self.part.is_some()) else {
            return Ok(None);
        };
        let mut byte = [0];
        let read = self.file().read_exact_at(&mut byte, last);
        read.map_err(|cause| self.error(cause))?;
        Ok(Some(byte[0]))
    }

    fn beginning(&self) -> Option<Beginning> {
        self.part.as_ref()?.beginning
    }

    /// Whether a finished file is to become the part again.
    pub fn was_finished(&self) -> bool {
        matches!(self.beginning(), Some(Beginning::Unfinish(_)))
    }

    /// Whether a finished file is still to be copied, which is not worth the work while
    /// there is no row.
    pub fn is_to_be_copied(&self) -> bool {
        matches!(self.beginning(), Some(Beginning::Copy(_)))
    }

    /// Whether the file that has the name is still all of this one.
    fn is_finished(&self) -> bool {
        let all = self.base.as_ref().map(|base| base.state.bytes);
        self.is_to_be_copied() && all == Some(self.bytes())
    }

    /// Makes everything written so far durable, and returns what a run needs to
    /// go on from this checkpoint.
    pub fn keep(&mut self) -> Result<SinkSnapshot, SinkError> {
        self.flush()?;
        if self.part.is_none() {
            return Ok(SinkSnapshot::default());
        }
        self.check_part()?;
        let file = self.file();
        let kept = file.sync_data().and_then(|()| file.metadata());
        let length = kept.map_err(|cause| self.error(cause))?.len();
        let base = self.base.as_ref();
        Ok(SinkSnapshot {
            bytes: Some(self.bytes()),
            uncut_bytes: Some(length).filter(|_| self.was_finished()),
            digest: Some(self.text().to_string()),
            replaces: base.map(|base| base.text.to_string()),
            ..SinkSnapshot::default()
        })
    }

    pub fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.file.flush();
        flushed.map_err(|cause| self.error(cause))
    }

    /// Leaves the rows of a run that was stopped where they are: the file is not whole.
    pub fn stop(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        if self.is_to_be_copied() {
            return Ok(());
        }
        self.check_part()?;
        let Some(part) = &self.part else {
            return Ok(());
        };
        let (path, part) = (self.path.display(), part.path.display());
        match self.is_checkpointed {
            true => tracing::info!(
                "{path}: the run was stopped; the rows so far are in {part}, with which the next \
                 run goes on"
            ),
            false => tracing::warn!("{path}: the run was stopped; the rows so far are in {part}"),
        }
        Ok(())
    }

    /// Makes the file durable, then gives it its name.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        if self.is_finished() {
            return self.discard();
        }
        self.begin()?;
        let there = FileState::of(&self.path, self.compression);
        let is_other = there.is_some() && there != self.base_state();
        if let (Some(part), false, true) = (&self.part, self.replaces, is_other) {
            let cause = was_changed_meanwhile(&self.path, &part.path, self.is_checkpointed);
            return Err(SinkError::io(&self.node, self.path.display(), &cause));
        }
        let path = self.path.clone();
        if let Some(access) = Access::of_path(&path).filter(|_| self.part.is_some()) {
            let given = access.check_replaceable(&path);
            let given = given.and_then(|()| access.give(self.file()));
            given.map_err(|cause| self.error(cause))?;
        }
        self.finish_as(&path)
    }

    fn base_state(&self) -> Option<FileState> {
        self.base.as_ref().map(|base| base.state)
    }

    /// Makes the file durable, and renames it to `path`.
    pub fn finish_as(&mut self, path: &Path) -> Result<(), SinkError> {
        self.flush()?;
        self.check_part()?;
        let Some(part) = &self.part else {
            return Ok(());
        };
        let finished = self
            .file()
            .sync_all()
            .and_then(|()| fs::rename(&part.path, path))
            .and_then(|()| self.file().unlock());
        finished.map_err(|cause| self.error(cause))
    }

    /// Refuses to go on if the temporary file has lost its name, or another one has it.
    fn check_part(&self) -> Result<(), SinkError> {
        let checked = self.part.as_ref().map_or(Ok(()), Part::check);
        checked.map_err(|cause| self.error(cause))
    }

    /// Removes the temporary file, which has no row of its own.
    pub fn discard(&mut self) -> Result<(), SinkError> {
        let removed = self.part.as_ref().map_or(Ok(()), Part::remove);
        removed.map_err(|cause| self.error(cause))
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file.get_ref().file
    }

    pub fn error(&self, cause: io::Error) -> SinkError {
        let part = self.part.as_ref().map(|part| &part.path);
        SinkError::of_file(&self.node, part.unwrap_or(&self.path), &cause)
    }
}

/// For formats that write themselves.
impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.add(bytes);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Rows are small.
fn buffered(file: File, stop: Option<Stop>) -> BufWriter<Output> {
    BufWriter::with_capacity(256 << 10, Output { file, stop })
}

impl Drop for PartFile {
    /// A process that is being started may have the file open for a moment longer. The
    /// lock of what the process was started with is somebody else's.
    fn drop(&mut self) {
        if self.part.is_some() {
            let _ = self.file().unlock();
        }
    }
}

impl Part {
    /// Locks the temporary file, and creates it if needed.
    fn of(path: PathBuf, access: Option<Access>) -> io::Result<Self> {
        let lock = open_own(&path, access)?;
        lock_for_this_run(&lock)?;
        let part = Part {
            path,
            lock,
            beginning: Some(Beginning::Cut(0)),
        };
        match part.has_name()? {
            true => Ok(part),
            // It was finished, or removed, just before it was locked.
            false => Err(is_being_written()),
        }
    }

    /// Whether it still has its name.
    fn has_name(&self) -> io::Result<bool> {
        let own = FileId::of(&self.lock.metadata()?);
        Ok(FileId::of_path(&self.path)? == Some(own))
    }

    fn check(&self) -> io::Result<()> {
        match self.has_name()? {
            true => Ok(()),
            false => Err(is_other_file(&self.path)),
        }
    }

    /// Another file that has its name stays.
    fn remove(&self) -> io::Result<()> {
        match self.has_name()? {
            true => remove(&self.path),
            false => Ok(()),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.lock.metadata()?.len())
    }
}

impl Drop for Part {
    /// If nothing was written to it, an empty file has served as the lock only.
    fn drop(&mut self) {
        if self.beginning.is_some() && self.bytes().is_ok_and(|bytes| bytes == 0) {
            let _ = self.remove();
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

/// Opens a file of the pipeline's own, or creates it: for its owner alone, if it is to get
/// the access of another one. A link is not written through, whatever it leads to.
pub(super) fn open_own(path: &Path, access: Option<Access>) -> io::Result<File> {
    let why = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => "is a link, and what it leads to would be changed",
        Ok(found) if !found.is_file() => "is not a file",
        Ok(found) if found.nlink() > 1 => {
            "has another name (a hard link), and what is there would be changed, too"
        }
        _ => {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true);
            options.custom_flags(libc::O_NOFOLLOW);
            if access.is_some() {
                options.mode(0o600);
            }
            return options.open(path);
        }
    };
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("{} {why}: delete it, or move it away", path.display()),
    ))
}

/// How a [`PartFile`] starts.
struct Opened {
    path: PathBuf,
    part: Option<Part>,
    file: File,
    /// Of what the file begins with.
    digest: RunningDigest,
    base: Option<Base>,
    access: Option<Access>,
}

fn open(node: &str, path: &Path, options: &PartOptions) -> io::Result<Opened> {
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
        let file = devices::open(path)?;
        if devices::is_named_pipe(path) {
            lock_for_this_run(&file)?;
        }
        return Ok(Opened {
            path: path.to_owned(),
            part: None,
            file,
            digest: RunningDigest::default(),
            base: None,
            access: None,
        });
    }
    // A link stays a link. A numbered file's name is one of many that the sink makes.
    let path = match options.is_numbered {
        true => path.to_owned(),
        false => target(path)?,
    };
    create_folder_of(&path)?;
    let replaced = Access::of_path(&path);
    if let Some(replaced) = replaced.filter(|_| !options.is_numbered) {
        replaced.check_replaceable(&path)?;
    }
    let mut access = replaced.or(options.access);
    let mut part = Part::of(part_of(&path), access)?;
    if replaced.is_none() && part.bytes()? > 0 {
        // It goes on as it is.
        access = None;
    }
    let start = There::find(node, &path, &part.path, &part.lock, options)?.start()?;
    let file = match start.beginning {
        Beginning::Cut(_) => part.lock.try_clone()?,
        Beginning::Unfinish(_) => {
            let file = File::options().read(true).write(true).open(&path)?;
            lock_for_this_run(&file)?;
            file
        }
        Beginning::Copy(_) => File::open(&path)?,
    };
    part.beginning = Some(start.beginning);
    Ok(Opened {
        path,
        part: Some(part),
        file,
        digest: start.digest,
        base: start.base,
        access,
    })
}

pub(super) fn lock_for_this_run(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(is_being_written()),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

fn is_being_written() -> io::Error {
    io::Error::new(ErrorKind::ResourceBusy, "another run is writing it")
}

/// Why a file does not get its name.
pub(super) fn is_other_file(part: &Path) -> io::Error {
    let message = format!(
        "{} was removed, or replaced by another file, while this run wrote it, so nothing was \
         renamed: put it back if it was moved; otherwise the rows in it are gone, and are to be \
         written again",
        part.display()
    );
    io::Error::new(ErrorKind::InvalidData, message)
}
