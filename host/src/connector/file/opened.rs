//! A file that is being read: decompressed if it has to be, and closed while
//! others are read, since a process may have only so many files open. What decompresses it
//! stays, so that nothing is decompressed twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::digest::{self, digest, digest_of};
use super::mark::{FileId, FileMark, Seen};
use crate::descriptors;
use crate::paths::is_device;
use crate::source::looks;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// As in the config.
    pub const CHOICES: [(&str, Compression); 3] = [
        (Compression::None.name(), Compression::None),
        (Compression::Gzip.name(), Compression::Gzip),
        (Compression::Zstd.name(), Compression::Zstd),
    ];

    /// A file's name without what compression adds to it.
    pub fn uncompressed(path: &str) -> &str {
        match (Compression::of(Path::new(path)), path.rsplit_once('.')) {
            (Compression::Gzip | Compression::Zstd, Some((name, _))) => name,
            _ => path,
        }
    }

    /// What files with this compression begin with.
    pub fn mark(self) -> &'static [u8] {
        match self {
            Compression::None => b"",
            Compression::Gzip => looks::GZIP,
            Compression::Zstd => looks::ZSTD,
        }
    }

    /// By the file's name.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// A file at some place in its text. Offsets are bytes of the text, which is what
/// the file has once it is decompressed.
pub(super) struct OpenedFile {
    place: Place,
    pub compression: Compression,
    /// Bytes on the disk.
    pub size: u64,
    /// Where the next read begins.
    offset: u64,
    /// Bytes on the disk that were read.
    pub taken: u64,
    /// Whether it is known by its length and its end, since it never changes.
    is_whole: bool,
    text: Option<Text<DiskFile>>,
}

/// Which files of a task are open, the one that was read last at the end. They are known by
/// the numbers of their partitions.
pub(super) struct OpenFiles {
    open: VecDeque<usize>,
    open_max: usize,
}

/// How many files a task has open at a time, fewer where the process may not have as many
/// for all its tasks.
const OPEN_MAX: usize = 64;

impl OpenFiles {
    /// Nothing is open yet.
    pub fn new(tasks: usize) -> Self {
        OpenFiles {
            open: VecDeque::new(),
            open_max: descriptors::share(OPEN_MAX, tasks),
        }
    }

    /// Notes a file that was opened before any is read. Returns whether it may stay open.
    pub fn starts_with(&mut self, file: usize) -> bool {
        let has_room = self.open.len() < self.open_max;
        if has_room {
            self.open.push_back(file);
        }
        has_room
    }

    /// Notes that a file is read. Returns the one that was not read for longest, to be
    /// closed, if too many were open with this one.
    pub fn next(&mut self, file: usize) -> Option<usize> {
        self.open.retain(|&open| open != file);
        let is_full = self.open.len() >= self.open_max;
        let oldest = is_full.then(|| self.open.pop_front()).flatten();
        self.open.push_back(file);
        oldest
    }
}

/// Where a file is, and how it began when it was opened.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    id: FileId,
    seen: Seen,
    /// A digest of its first bytes on the disk, and how many they are: of the last of all
    /// bytes, if it never changes.
    first: (String, u64),
}

/// The bytes of a file on the disk. It is opened when it is read.
pub(super) struct DiskFile {
    place: Place,
    file: Option<File>,
    /// Where the next read begins.
    at: u64,
}

/// The text of a file or pipe, decompressed.
pub(super) enum Text<R: Read> {
    Plain(R),
    Gzip(Members<R>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Counted<R>>>>),
}

/// Data of gzip, one member behind the other, and the text in it.
pub(super) struct Members<R> {
    /// Absent only while the next one takes its place.
    member: Option<Box<GzDecoder<BufReader<Counted<R>>>>>,
}

/// Counts what was read.
pub(super) struct Counted<R> {
    source: R,
    bytes: u64,
}

impl OpenedFile {
    pub fn open(path: &Path, compression: Compression) -> io::Result<Self> {
        OpenedFile::open_as(path, compression, false)
    }

    /// `is_whole` says that it never changes, and is known by its length and its end.
    pub fn open_as(path: &Path, compression: Compression, is_whole: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::other(
                "it is a folder; name the files in it, as in `*.jsonl`",
            ));
        }
        let first = match is_whole {
            true => metadata.len(),
            false => metadata.len().min(digest::BYTES),
        };
        let place = Place {
            path: path.to_owned(),
            id: FileId::of(&metadata),
            seen: Seen::of(&metadata),
            first: (digest(&file, first)?, first),
        };
        let disk = DiskFile {
            place: place.clone(),
            file: Some(file),
            at: 0,
        };
        Ok(OpenedFile {
            place,
            compression,
            size: metadata.len(),
            offset: 0,
            taken: 0,
            is_whole,
            text: Some(Text::of(disk, compression, !is_device(path))?),
        })
    }

    pub fn path(&self) -> &Path {
        &self.place.path
    }

    pub fn id(&self) -> FileId {
        self.place.id
    }

    pub fn is_compressed(&self) -> bool {
        self.compression != Compression::None
    }

    /// How it was when it was opened.
    pub fn seen(&self) -> Seen {
        self.place.seen
    }

    /// Frees its descriptor until it is read again.
    pub fn close(&mut self) {
        if let Some(text) = &mut self.text {
            text.source_mut().file = None;
        }
    }

    /// Frees its memory, too: nothing more is expected.
    pub fn release(&mut self) {
        self.text = None;
    }

    /// Reads at most this many bytes of the text, fewer only at its end, and adds
    /// them to the buffer.
    pub fn read(&mut self, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if self.text.is_none() {
            self.restart()?;
        }
        let Some(text) = &mut self.text else {
            return Ok(0);
        };
        let read = text.read(bytes as u64, buffer);
        if read.as_ref().map_or(true, |read| *read < bytes) {
            // What looks like an end, or damage, may come of a change.
            text.source_mut().check()?;
        }
        let read = read.map_err(|cause| text.damaged(cause, self.offset))?;
        self.offset += read as u64;
        self.taken = text.source_mut().at;
        Ok(read)
    }

    /// Goes to a place that was read before. Returns whether the text is that long.
    pub fn seek(&mut self, offset: u64) -> io::Result<bool> {
        if self.compression == Compression::None && offset > self.size {
            return Ok(false);
        }
        if self.compression != Compression::None && offset < self.offset {
            self.text = None;
            self.offset = 0;
            self.restart()?;
        }
        self.go_to(offset)?;
        Ok(self.offset == offset)
    }

    /// Goes to a place; in compressed text only forward, and at most to its end.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        if self.compression != Compression::None {
            return self.skip(offset - self.offset);
        }
        if let Some(Text::Plain(file)) = &mut self.text {
            file.at = offset;
        }
        self.offset = offset;
        Ok(())
    }

    /// A digest by which a later run can tell whether the file is still the one
    /// that was read up to here: of the last bytes before the place, or of a
    /// compressed file's first bytes and how many they are. An error if it is not the
    /// file any more that was opened.
    pub fn digest(&mut self, offset: u64) -> io::Result<String> {
        if self.is_known_by_bytes() {
            let (first, bytes) = &self.place.first;
            return Ok(format!("{first}@{bytes}"));
        }
        match &mut self.text {
            Some(Text::Plain(disk)) => {
                let was_open = disk.file.is_some();
                let digest = disk.check().and_then(|file| digest(file, offset));
                if !was_open {
                    disk.file = None;
                }
                digest
            }
            _ => digest(&self.place.open(offset)?, offset),
        }
    }

    /// Whether it is known by bytes on the disk, wherever it was read to.
    fn is_known_by_bytes(&self) -> bool {
        self.is_whole || self.is_compressed()
    }

    /// Opens it once more, if it is still as it was.
    pub fn reopen(&self) -> io::Result<File> {
        self.place.open(self.size)
    }

    /// Whether nothing has changed in it since a checkpoint with this mark was made.
    pub fn is_as(&self, mark: &FileMark) -> bool {
        let is_it = mark.file.is_some_and(|file| file.is(self.id()));
        is_it && mark.seen == Some(self.seen())
    }

    /// Whether it is still the file of which this digest was taken.
    pub fn is_same(&mut self, then: &str, offset: u64) -> io::Result<bool> {
        let Some((of_first, first)) = then.split_once('@') else {
            let is_long = !self.is_known_by_bytes() && offset <= self.size;
            return Ok(is_long && self.digest(offset)? == then);
        };
        let first = first.parse().unwrap_or(u64::MAX);
        let is_long = match self.is_whole {
            true => first == self.size,
            false => self.is_compressed() && first <= self.size,
        };
        Ok(is_long && digest(&File::open(self.path())?, first)? == of_first)
    }

    /// Whether it seems to have the text of which this digest was taken, perhaps
    /// compressed in another way.
    pub fn has_text_of(&mut self, then: &str, offset: u64) -> io::Result<bool> {
        if self.is_whole || then.contains('@') == self.is_compressed() {
            return self.is_same(then, offset);
        }
        if !self.is_compressed() {
            // There is no digest of the end of a compressed text.
            return Ok(self.size == offset);
        }
        let length = offset.min(digest::BYTES);
        let mut last = Vec::new();
        if self.seek(offset - length)? {
            self.read(length as usize, &mut last)?;
        }
        Ok(last.len() as u64 == length && digest_of(&last) == then)
    }

    /// Reads it again from its beginning to where it was left.
    fn restart(&mut self) -> io::Result<()> {
        let disk = DiskFile {
            place: self.place.clone(),
            file: None,
            at: 0,
        };
        let can_be_named = !is_device(self.path());
        self.text = Some(Text::of(disk, self.compression, can_be_named)?);
        let offset = std::mem::take(&mut self.offset);
        self.go_to(offset)
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut skipped = Vec::new();
        while bytes > 0 {
            skipped.clear();
            let read = self.read(bytes.min(SKIP_BYTES) as usize, &mut skipped)?;
            if read == 0 {
                break;
            }
            bytes -= read as u64;
        }
        Ok(())
    }
}

impl Place {
    /// Opens the file, of which this much was read.
    fn open(&self, read: u64) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if !FileId::of(&file.metadata()?).is(self.id) {
            let what = "it was replaced by another file while it was being read";
            return Err(changed(what.to_owned()));
        }
        self.check(&file, read)?;
        Ok(file)
    }

    /// Refuses a file that does not have any more what was read of it, as when logrotate
    /// copies and truncates it.
    fn check(&self, file: &File, read: u64) -> io::Result<()> {
        // Some that the system makes have no length.
        if self.first.1 == 0 {
            return Ok(());
        }
        if file.metadata()?.len() < read {
            return Err(changed(format!(
                "it is shorter than the {read} bytes that were read of it"
            )));
        }
        let (first, bytes) = &self.first;
        match digest(file, *bytes) {
            Ok(now) if now == *first => Ok(()),
            Err(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => Err(cause),
            _ => {
                let what = "it begins otherwise than when it was opened";
                Err(changed(what.to_owned()))
            }
        }
    }
}

/// Why a file cannot be read on: it is not the one any more that was opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Changed(String);

fn changed(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Changed(what))
}

impl DiskFile {
    fn opened(&mut self) -> io::Result<&File> {
        Ok(match &mut self.file {
            Some(file) => file,
            none => none.insert(self.place.open(self.at)?),
        })
    }

    /// The file, if it still has what was read of it.
    fn check(&mut self) -> io::Result<&File> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.place.open(self.at)?),
        };
        self.place.check(file, self.at)?;
        Ok(file)
    }
}

impl Read for DiskFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let read = self.opened()?.read_at(buffer, at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads a compressed file to its end: what is behind a piece that was cut off cannot be
/// read.
pub(super) fn check_whole(path: &Path, compression: Compression) -> io::Result<()> {
    if compression == Compression::None {
        return Ok(());
    }
    let file = File::open(path)?;
    Text::of(file, compression, true)
        .and_then(Text::read_whole)
        .map_err(|cause| {
            let message = format!(
                "rows cannot be appended to {}, since nobody could read them: {cause}; repair it, \
                 or move it away",
                path.display()
            );
            io::Error::new(cause.kind(), message)
        })
}

/// How much is decompressed at a time on the way to a place.
const SKIP_BYTES: u64 = 1 << 20;

impl<R: Read> Text<R> {
    /// Refuses what does not begin as compressed data does.
    pub fn of(source: R, compression: Compression, can_be_named: bool) -> io::Result<Self> {
        if compression == Compression::None {
            return Ok(Text::Plain(source));
        }
        let mut data = BufReader::new(Counted { source, bytes: 0 });
        let start = data.fill_buf()?;
        if !begins_as(start, compression) {
            let (format, look) = (compression.name(), looks::name_of(start));
            let advice = match looks::other_format(start) {
                Some(look) => look.advice(can_be_named),
                None => "`compression = \"none\"` reads it as it is".to_owned(),
            };
            let message = format!(
                "it is not {format}, as its name or `compression` says, and looks like {look}: \
                 {advice}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(match compression {
            Compression::Zstd => Text::Zstd(Box::new(zstd::Decoder::with_buffer(data)?)),
            Compression::None | Compression::Gzip => Text::Gzip(Members {
                member: Some(Box::new(GzDecoder::new(data))),
            }),
        })
    }

    fn source_mut(&mut self) -> &mut R {
        match self {
            Text::Plain(source) => source,
            Text::Gzip(text) => &mut text.data().get_mut().source,
            Text::Zstd(text) => &mut text.get_mut().get_mut().source,
        }
    }

    /// Reads to the end.
    fn read_whole(mut self) -> io::Result<()> {
        let mut buffer = vec![0; SKIP_BYTES as usize];
        let mut offset = 0;
        loop {
            match self.read_some(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => offset += read as u64,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.damaged(cause, offset)),
            }
        }
    }

    pub fn read(&mut self, bytes: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Text::Plain(file) => file.take(bytes).read_to_end(buffer),
            Text::Gzip(text) => text.take(bytes).read_to_end(buffer),
            Text::Zstd(text) => text.take(bytes).read_to_end(buffer),
        }
    }

    /// What is wrong with compressed data, and where, if that is why it cannot be read.
    /// `offset` is where the text ends that was read.
    pub fn damaged(&self, cause: io::Error, offset: u64) -> io::Error {
        let is_of_data = matches!(
            cause.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::Other
        );
        let (format, place) = match self {
            Text::Gzip(Members {
                member: Some(member),
            }) => ("gzip", place(member.get_ref())),
            Text::Zstd(text) => ("zstd", place(text.get_ref())),
            Text::Plain(_) | Text::Gzip(_) => return cause,
        };
        if !is_of_data {
            return cause;
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "its {format} data is damaged, or ends too early, about byte {place}, which is \
                 behind byte {offset} of the text: {cause}"
            ),
        )
    }

    /// Reads what there is, and waits only if there is nothing; 0 is the end.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Text::Plain(file) => file.read(buffer),
            Text::Gzip(text) => text.read(buffer),
            Text::Zstd(text) => text.read(buffer),
        }
    }
}

impl<R: Read> Members<R> {
    fn data(&mut self) -> &mut BufReader<Counted<R>> {
        let member = self.member.as_mut();
        member.expect("one is always there").get_mut()
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let data = member.get_mut();
            let rest = data.fill_buf()?;
            if rest.is_empty() {
                return Ok(0);
            }
            if !begins_as(rest, Compression::Gzip) {
                let look = looks::name_of(rest);
                let at = place(data);
                let message = format!(
                    "behind its gzip data, from byte {at} on, is what looks like {look}: cut it \
                     off, or give it a file of its own"
                );
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            let ended = self.member.take();
            self.member = ended.map(|ended| Box::new(GzDecoder::new(ended.into_inner())));
        }
        Ok(0)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// How much of the data was taken out of the buffer.
fn place<R>(data: &BufReader<Counted<R>>) -> u64 {
    data.get_ref().bytes - data.buffer().len() as u64
}

/// Whether it may be compressed in this way, as far as it is there.
fn begins_as(start: &[u8], compression: Compression) -> bool {
    let mark = compression.mark();
    let known = start.len().min(mark.len());
    let is_skippable = |start: &[u8]| {
        compression == Compression::Zstd && matches!(start, [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..])
    };
    start[..known] == mark[..known] || is_skippable(start)
}
