//! Writes dead letters, a JSON object a line, appended to those of earlier
//! runs and of other pipelines.
//!
//! A line names its pipeline, and with checkpoints the one that it comes after. A
//! restored run takes back its own lines that come after the restored checkpoint,
//! wherever they are: pipelines that share a file move each other's lines.

/// Tells files of dead letters from those of others.
mod looks;
/// Reads dead letters back.
pub mod kept;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::looks::{is_letter, is_of_letters};
use super::SinkError;
use crate::access::Access;
use crate::dead_letter::DeadLetter;
use crate::devices::{self, DeviceWriter};
use crate::element::CheckpointId;
use crate::paths::{create_folder_of, is_device, remove, target};
use crate::stop::Stop;

/// Only the owner may read rows that others may not see elsewhere.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).read(true).mode(0o600);
    options.open(path)
}

/// Opens the file, or creates it. One that has other things than dead letters is
/// somebody's, who would find lines in it that do not belong there.
fn open_own(path: &Path) -> io::Result<File> {
    if is_special(path) {
        return devices::open(path);
    }
    devices::check_keeps_rows(path)?;
    Access::of_path(path).map_or(Ok(()), Access::check_appendable)?;
    let file = open_private(path)?;
    let mut is_own = false;
    locked(&file, |file| {
        is_own = is_of_letters(file)?;
        Ok(())
    })?;
    match is_own {
        true => Ok(file),
        false => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "it is there, and is no file of dead letters, to which alone more are added: move it \
             away",
        )),
    }
}

/// Opens what is there as it is opened for the first dead letter, or tries to make a
/// file where it would be.
fn try_path(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // A reader that waits for a writer would see the end of the pipe.
        Ok(_) if devices::is_named_pipe(path) => Ok(()),
        Ok(_) => {
            if !is_special(path) {
                try_aside(path)?;
            }
            open_own(path).map(drop)
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound && !is_device(path) => try_new(path),
        Err(cause) => Err(cause),
    }
}

/// Tries to make a file without a name, and looks at the names. Neither the file nor
/// its folders are made: perhaps no row is bad.
fn try_new(path: &Path) -> io::Result<()> {
    for folder in path.ancestors().skip(1) {
        match fs::metadata(folder) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
            Ok(_) => {
                try_aside(path)?;
                let aside = aside_of(path);
                let missing = [path, &aside].map(|path| path.strip_prefix(folder));
                for name in missing.iter().flatten().flat_map(|path| path.components()) {
                    try_name(&folder.join(name))?;
                }
                return match tempfile::tempfile_in(folder) {
                    Ok(_) => Ok(()),
                    Err(cause) => {
                        // Its code is lost, by which a lack of descriptors is known. Then
                        // the folder cannot be opened either.
                        if let Err(cause) = File::open(folder)
                            && cause.raw_os_error() == Some(libc::EMFILE)
                        {
                            return Err(cause);
                        }
                        let (folder, kind) = (folder.display(), cause.kind());
                        let message = format!("nothing can be made in the folder {folder}: {kind}");
                        Err(io::Error::new(kind, message))
                    }
                };
            }
        }
    }
    Ok(())
}

/// Whether lines can be put aside.
fn try_aside(path: &Path) -> io::Result<()> {
    let aside = aside_of(path);
    try_name(&aside)?;
    match aside.symlink_metadata() {
        Ok(found) if found.is_file() => check_aside(&aside, &File::open(&aside)?),
        Ok(_) => Err(is_not_aside(&aside)),
        Err(_) => Ok(()),
    }
}

/// Whether the file system takes such a name.
fn try_name(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Whether it is a pipe, a device, or what the process was started with, which has nothing
/// to take back or to make durable.
pub fn is_special(path: &Path) -> bool {
    is_device(path) || fs::metadata(path).is_ok_and(|found| !found.is_file())
}

/// A pipeline's file of dead letters.
pub struct DeadLetters {
    writer: Writer,
    path: PathBuf,
    file: File,
    /// What is written at once, reused for its memory.
    lines: Vec<u8>,
    /// Whether dead letters were written that may not be durable yet.
    is_new: bool,
    stop: Stop,
}

/// Who writes dead letters, as lines say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub pipeline: String,
    /// When the pipeline started without a checkpoint, in ms since 1970: tells its
    /// checkpoints from those of an earlier life. Absent without checkpoints.
    pub started_ms: Option<i64>,
}

/// A line of the file. The order of its fields is relied upon.
#[derive(Serialize)]
struct Line<'a> {
    pipeline: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_ms: Option<i64>,
    /// The checkpoint that it comes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointId>,
    #[serde(flatten)]
    dead_letter: &'a DeadLetter,
}

impl DeadLetters {
    /// Tries whether dead letters can be written there, and changes nothing.
    pub fn try_path(path: &Path) -> Result<(), SinkError> {
        let tried = target(path).and_then(|path| try_path(&path));
        tried.map_err(|cause| failed(path, &cause))
    }

    /// Waits until somebody reads the dead letters, if they go to a named pipe: its reader
    /// does not see its end while the returned file is open.
    pub async fn wait_for_reader(path: &Path) -> Result<Option<File>, SinkError> {
        if !devices::is_named_pipe(path) {
            return Ok(None);
        }
        let opened = devices::open_with_reader(path, "dead letters").await;
        opened.map(Some).map_err(|cause| failed(path, &cause))
    }

    /// Opens or creates the file, and its folder. Pipelines that share it through links
    /// put lines aside in one place, so the links are followed first.
    pub fn open(path: &Path, writer: Writer) -> Result<Self, SinkError> {
        let opened = target(path).and_then(|path| {
            let file = open_to_add(&path)?;
            Ok((path, file))
        });
        match opened {
            Ok((path, file)) => Ok(DeadLetters {
                writer,
                path,
                file,
                lines: Vec::new(),
                is_new: true,
                stop: Stop::default(),
            }),
            Err(cause) => Err(failed(path, &cause)),
        }
    }

    /// Takes back the writer's lines that come after a checkpoint, or after a later
    /// one, and returns whether there were any.
    pub fn take_back(path: &Path, writer: &Writer, after: CheckpointId) -> Result<bool, SinkError> {
        if !path.exists() || is_special(path) {
            return Ok(false);
        }
        let mut taken_back = false;
        let done = target(path).and_then(|path| {
            let file = match open_own(&path) {
                // Somebody has another file there by now.
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => return Ok(()),
                opened => opened?,
            };
            while_locked(&file, &path, |file| {
                taken_back = take_back(file, &path, writer, after)?;
                Ok(())
            })
        });
        match done {
            Ok(()) => Ok(taken_back),
            Err(cause) => Err(failed(path, &cause)),
        }
    }

    /// Does not wait for the reader of a pipe once the run is asked to stop.
    pub fn until(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Makes the file durable and returns its length.
    pub fn sync(&mut self) -> Result<u64, SinkError> {
        let synced = match std::mem::take(&mut self.is_new) {
            true if !is_special(&self.path) => self.file.sync_data(),
            _ => Ok(()),
        };
        let synced = synced.and_then(|()| self.file.metadata());
        synced
            .map(|metadata| metadata.len())
            .map_err(|cause| failed(&self.path, &cause))
    }

    /// Goes on with a new file where this one was deleted, or renamed as logs are: what
    /// comes now is looked for under the name.
    fn keep_name(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        let is_it = |there: fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
        if !is_special(&self.path) && !fs::metadata(&self.path).is_ok_and(is_it) {
            self.file.sync_data()?;
            self.file = open_to_add(&self.path)?;
        }
        Ok(())
    }

    /// Why dead letters for a pipe were not written.
    pub fn unread(path: &Path) -> SinkError {
        let why = "nobody reads this pipe, and the run was asked to stop";
        failed(path, &io::Error::new(ErrorKind::BrokenPipe, why))
    }

    /// Writes dead letters that come after this checkpoint through to the file:
    /// whatever caused them may crash the process next.
    pub fn write(
        &mut self,
        after: CheckpointId,
        dead_letters: &[DeadLetter],
    ) -> Result<(), SinkError> {
        self.is_new = true;
        self.keep_name()
            .map_err(|cause| failed(&self.path, &cause))?;
        let written = dead_letters.iter().try_for_each(|dead_letter| {
            let Writer {
                pipeline,
                started_ms,
            } = &self.writer;
            let line = Line {
                pipeline,
                started_ms: *started_ms,
                checkpoint: started_ms.map(|_| after),
                dead_letter,
            };
            serde_json::to_writer(&mut self.lines, &line)?;
            self.lines.push(b'\n');
            if self.lines.len() < WRITTEN_BYTES_MAX {
                return Ok(());
            }
            write_through(&self.file, &self.path, &mut self.lines, &self.stop)
        });
        written
            .and_then(|()| write_through(&self.file, &self.path, &mut self.lines, &self.stop))
            .map_err(|cause| failed(&self.path, &cause))
    }
}

/// More than this is written in several pieces.
const WRITTEN_BYTES_MAX: usize = 1 << 20;

fn write_through(file: &File, path: &Path, lines: &mut Vec<u8>, stop: &Stop) -> io::Result<()> {
    let is_special = is_special(path);
    let written = while_locked(file, path, |mut file| match is_special {
        true => DeviceWriter { file, stop }.write_all(lines),
        false => file.write_all(lines),
    });
    lines.clear();
    written
}

/// Opens the file, and ends the line that a crash may have left without its end.
fn open_to_add(path: &Path) -> io::Result<File> {
    create_folder_of(path)?;
    let file = open_own(path)?;
    if !is_special(path) {
        while_locked(&file, path, end_line)?;
    }
    Ok(file)
}

/// Another pipeline may write to the same file: its lines stay whole. Pipes and
/// devices have nothing to lock.
fn while_locked(
    file: &File,
    path: &Path,
    work: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    if is_special(path) {
        return work(file);
    }
    locked(file, |file| {
        repair(file, path)?;
        work(file)
    })
}

fn locked(file: &File, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    // Not every file system has locks.
    let is_locked = file.lock().is_ok();
    let done = work(file);
    if is_locked {
        file.unlock()?;
    }
    done
}

/// Takes back the writer's lines after a checkpoint. The other lines behind the first
/// of them are put aside before they are moved, so that a crash loses none.
fn take_back(file: &File, path: &Path, writer: &Writer, after: CheckpointId) -> io::Result<bool> {
    let Some(own) = own_prefix(writer)? else {
        return Ok(false);
    };
    let is_taken_back = |line: &[u8]| {
        let number = line.strip_prefix(&*own);
        let number = number.map(|rest| rest.split(|byte| !byte.is_ascii_digit()).next());
        let number = number
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok());
        let number = number.and_then(|digits| digits.parse::<CheckpointId>().ok());
        // A line without an end is what a crash has left.
        number.is_some_and(|number| number >= after) || !line.ends_with(b"\n")
    };
    let mut lines = Lines::of(file)?;
    let mut first = 0;
    loop {
        match lines.next()? {
            None => return Ok(false),
            Some(line) if is_taken_back(line) => break,
            Some(line) => first += line.len() as u64,
        }
    }
    let mut aside = Aside::create(path)?;
    while let Some(line) = lines.next()? {
        if !is_taken_back(line) {
            aside.put(line)?;
        }
    }
    aside.complete(first)?;
    repair(file, path)?;
    Ok(true)
}

/// What the writer's lines begin with, up to the checkpoint's number.
fn own_prefix(writer: &Writer) -> io::Result<Option<Vec<u8>>> {
    let Some(started_ms) = writer.started_ms else {
        return Ok(None);
    };
    let pipeline = serde_json::to_string(&writer.pipeline)?;
    let prefix = format!("{{\"pipeline\":{pipeline},\"started_ms\":{started_ms},\"checkpoint\":");
    Ok(Some(prefix.into_bytes()))
}

/// The lines of a file, with their ends.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn of(file: &File) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Lines {
            reader: BufReader::with_capacity(256 << 10, file),
            line: Vec::new(),
        })
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(&self.line))
    }
}

/// Lines put aside, in a file of their own: the lines, and then where they belong,
/// how long they are, and a mark. Without these it is not complete.
struct Aside {
    file: BufWriter<File>,
    bytes: u64,
}

const ASIDE_MARK: [u8; 8] = *b"is whole";

/// What follows the lines: two numbers of 64 bits, little-endian, and the mark.
const ASIDE_END: usize = 24;

impl Aside {
    fn create(path: &Path) -> io::Result<Self> {
        let aside = aside_of(path);
        remove(&aside)?;
        Ok(Aside {
            file: BufWriter::with_capacity(256 << 10, open_private(&aside)?),
            bytes: 0,
        })
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }

    /// The end is written when the lines are durable, so that it stands for them.
    fn complete(mut self, first: u64) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        self.file.write_all(&first.to_le_bytes())?;
        self.file.write_all(&self.bytes.to_le_bytes())?;
        self.file.write_all(&ASIDE_MARK)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// Where the lines in a complete file belong, and how many bytes they are.
    fn check(file: &File) -> io::Result<Option<(u64, u64)>> {
        let length = file.metadata()?.len();
        let Some(lines) = length.checked_sub(ASIDE_END as u64) else {
            return Ok(None);
        };
        let mut end = [0; ASIDE_END];
        file.read_exact_at(&mut end, lines)?;
        let number = |at: usize| end[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let (first, bytes) = (number(0), number(8));
        let is_complete = bytes == lines && end.ends_with(&ASIDE_MARK);
        Ok(is_complete.then_some((first, bytes)))
    }
}

/// Moves lines that were put aside to where they belong. All who write to the file do
/// this first, so nothing follows them yet, however often it is begun.
fn repair(file: &File, path: &Path) -> io::Result<()> {
    let aside = aside_of(path);
    let mut lines = match File::open(&aside) {
        Ok(lines) => lines,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause),
    };
    check_aside(&aside, &lines)?;
    if let Some((first, bytes)) = Aside::check(&lines)? {
        lines.seek(SeekFrom::Start(0))?;
        file.set_len(first.min(file.metadata()?.len()))?;
        let mut file = file;
        io::copy(&mut lines.take(bytes), &mut file)?;
        file.sync_data()?;
    }
    fs::remove_file(&aside)
}

/// Refuses a file that has the name of lines that are put aside, and is somebody's.
fn check_aside(aside: &Path, file: &File) -> io::Result<()> {
    let is_own = Aside::check(file)?.is_some() || file.metadata()?.len() == 0;
    match is_own || is_letter(file, 0)? {
        true => Ok(()),
        false => Err(is_not_aside(aside)),
    }
}

fn is_not_aside(aside: &Path) -> io::Error {
    let message = format!(
        "{} is there, and is no file of dead letters, which are put aside there when some are \
         taken back: move it away",
        aside.display()
    );
    io::Error::new(ErrorKind::AlreadyExists, message)
}

/// Where lines are put aside.
pub fn aside_of(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".aside");
    PathBuf::from(aside)
}

/// Ends the last line, which a crash may have left without its end.
fn end_line(mut file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.read_exact_at(&mut last, metadata.len() - 1)?;
    match last {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

fn failed(path: &Path, cause: &io::Error) -> SinkError {
    SinkError::of_file("dead_letters", path, cause)
}
