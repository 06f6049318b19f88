//! A followed file: a partition.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::digest::{digest, digest_of, start_of};
use super::super::mark::{FileId, FileMark, Head, LinkNames, Seen};
use super::folders::{ListedFile, Listing};
use super::growing::{GrowingFile, Read, Rows, begin_alike};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position};
use crate::paths::shown;
use crate::source::SourceError;
use crate::source::chunk::Chunk;

/// A file that was rotated away and has not changed for so long is at its end: what is there
/// of its last line is a row.
const QUIET: Duration = Duration::from_secs(5);

/// Without a head of so many bytes, a shorter file is not taken for a copy.
const HEAD_BYTES_SURE: usize = 1 << 10;

pub(super) struct FollowedFile {
    /// Identifies it in checkpoints: the name under which it was found, with a number behind
    /// it if others were known by that.
    pub name: Arc<str>,
    /// That name alone.
    pub base: String,
    /// Which file it is. Absent once that was cut: the rows are not in it any more.
    pub id: Option<FileId>,
    /// Where it is. Absent if it is in no folder that is looked at.
    pub path: Option<PathBuf>,
    /// Whether it still has the name under which it was found.
    pub is_home: bool,
    /// Whether the source's patterns match its name.
    pub matches: bool,
    /// The most bytes that it was seen to have.
    size: u64,
    seen: Option<Seen>,
    /// When something of it changed last.
    pub changed: Instant,
    /// Whether there may be something to read.
    pub is_behind: bool,
    /// What is there of it is all that is expected.
    is_complete: bool,
    /// All was read, and nothing more will come.
    pub is_over: bool,
    /// All has been handed out that was there at the start, or is not asked for.
    pub is_bootstrapped: bool,
    /// What the restored checkpoint has of it.
    pub restored: Option<PartitionSnapshot>,
    /// What it began with when it was found, until it is opened for the first time.
    pub beginning: Vec<u8>,
    /// While it is open.
    pub growing: Option<GrowingFile>,
    /// When it was read last, in reads.
    pub read_last: u64,
    closed: Closed,
}

/// What is known of a file while it is closed.
struct Closed {
    position: Position,
    mark: FileMark,
    /// How much of it was read. Behind the position there were only empty lines then.
    read_to: u64,
}

/// How another file relates to a followed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Other,
    /// It has all that was read.
    Whole,
    /// It has the beginning of what was read, and no more: a copy that was made, or is being
    /// made, before more was read.
    Part,
}

impl FollowedFile {
    /// A new file.
    pub fn new(name: String, base: String, found: &ListedFile, bootstraps: bool) -> Self {
        let position = Position {
            rows: Some(0),
            ..Position::default()
        };
        let mark = FileMark::parse(&digest_of(b""));
        FollowedFile::at(name, base, found, Closed::new(position, mark), bootstraps)
    }

    /// A file of the checkpoint.
    pub fn restored(
        known: &PartitionSnapshot,
        mark: FileMark,
        base: String,
        found: &ListedFile,
        bootstraps: bool,
    ) -> Self {
        let name = known.name.clone();
        let closed = Closed::new(known.position, mark);
        let mut file = FollowedFile::at(name, base, found, closed, bootstraps);
        // No followed file has ended: it may grow again.
        let state = match known.state {
            PartitionState::Ended => PartitionState::Idle,
            state => state,
        };
        file.restored = Some(PartitionSnapshot {
            state,
            ..known.clone()
        });
        file
    }

    fn at(
        name: String,
        base: String,
        found: &ListedFile,
        closed: Closed,
        bootstraps: bool,
    ) -> Self {
        FollowedFile {
            name: name.into(),
            base,
            id: Some(found.id),
            path: Some(found.path.clone()),
            is_home: true,
            matches: found.matches,
            size: found.size,
            seen: None,
            changed: Instant::now(),
            is_behind: true,
            is_complete: false,
            is_over: false,
            is_bootstrapped: !bootstraps,
            restored: None,
            beginning: Vec::new(),
            growing: None,
            read_last: 0,
            closed,
        }
    }

    /// Has it begin here, of which the caller knows that a row begins there.
    pub fn start_at(&mut self, offset: u64, file: &File) -> io::Result<()> {
        let mut start = start_of(file)?;
        start.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        let mut mark = self.closed.mark.clone();
        mark.read = digest(file, offset)?;
        mark.head = Head::of(&start);
        let position = Position {
            offset,
            ..self.closed.position
        };
        self.closed = Closed::new(position, mark);
        Ok(())
    }

    pub fn position(&self) -> Position {
        match &self.growing {
            Some(growing) => growing.position(),
            None => self.closed.position,
        }
    }

    /// By which a later run knows it.
    pub fn mark(&self) -> FileMark {
        let Some(growing) = &self.growing else {
            return FileMark {
                file: self.id.or(self.closed.mark.file),
                seen: self.seen,
                unread: Some(self.unread()),
                ..self.closed.mark.clone()
            };
        };
        let (read, head) = growing.marks();
        FileMark {
            read,
            head,
            file: self.id.or(self.closed.mark.file),
            all: None,
            seen: self.seen,
            links: LinkNames::default(),
            unread: Some(self.unread()),
        }
    }

    /// How many bytes were seen that were not handed out.
    pub fn unread(&self) -> u64 {
        let is_read = |growing: &GrowingFile| {
            !growing.has_rows() && growing.unfinished() == 0 && growing.read_at() >= self.size
        };
        match &self.growing {
            Some(growing) if is_read(growing) => 0,
            Some(growing) => self.size.max(growing.read_at()) - growing.position().offset,
            None => self.size.saturating_sub(self.closed.read_to),
        }
    }

    /// Notes that its place has something else by now.
    fn cut(&mut self) {
        self.closed.mark.file = self.id.take().or(self.closed.mark.file);
    }

    pub fn is_cut(&self) -> bool {
        self.id.is_none()
    }

    /// Whether it can be opened again: one that is gone cannot, nor one that was cut, of which
    /// something may be in memory that is nowhere else.
    pub fn can_be_opened(&self) -> bool {
        self.id.is_some() && self.path.is_some()
    }

    /// Notes where it is now, and whether it has changed.
    pub fn note(&mut self, listing: &Listing, folder: &Path) {
        let Some(id) = self.id else {
            return;
        };
        let now = match listing.find(id) {
            Some(found) => {
                if self.path.as_ref() != Some(&found.path) {
                    self.is_home = found.is_called(&self.base, folder);
                    self.path = Some(found.path.clone());
                }
                self.matches = found.matches;
                Some((found.seen, found.size))
            }
            None => {
                if self.path.take().is_some() {
                    // A folder that is changed just now may lack a file when it is read.
                    self.changed = Instant::now();
                }
                self.is_home = false;
                let open = self.growing.as_ref();
                let metadata = open.and_then(|growing| growing.file().metadata().ok());
                metadata.map(|metadata| (Seen::of(&metadata), metadata.len()))
            }
        };
        if let Some((seen, size)) = now
            && self.seen != Some(seen)
        {
            self.seen = Some(seen);
            // If it was cut since, which the next read finds out, this is not its size.
            let open = self.growing.as_ref();
            if open.is_none_or(|growing| growing.is_there().unwrap_or(false)) {
                self.size = self.size.max(size);
            }
            self.changed = Instant::now();
            self.is_behind = true;
            self.is_complete = false;
        }
    }

    pub fn is_quiet(&self) -> bool {
        !self.is_behind && self.changed.elapsed() >= QUIET
    }

    /// Takes what is there of the last line of a file that was rotated away for a row.
    pub fn complete(&mut self) {
        if !self.is_complete && self.unread() > 0 {
            self.is_complete = true;
            self.is_behind = true;
        }
    }

    /// Whether it is settled that nothing has what was read of it.
    pub fn is_given_up(&self) -> bool {
        self.is_cut() && self.is_complete
    }

    /// Nothing has what was read of it and could go on: the rows that are in memory are its
    /// last ones.
    pub fn give_up(&mut self) {
        self.is_complete = true;
        self.is_behind = true;
        if self.growing.is_none() {
            self.is_over = true;
        }
    }

    /// Goes on in a copy.
    pub fn go_on_in(&mut self, copy: &ListedFile) -> io::Result<()> {
        let (mut position, mut mark) = (self.position(), self.mark());
        if copy.size < position.offset {
            // It has less than was read, and nothing more to read.
            position = Position {
                offset: copy.size,
                rows: position.rows,
                ..Position::default()
            };
            let file = File::open(&copy.path)?;
            mark.read = digest(&file, copy.size)?;
            mark.head = Head::of(&start_of(&file)?);
        }
        self.growing = None;
        self.closed = Closed::new(position, mark);
        self.id = Some(copy.id);
        self.path = Some(copy.path.clone());
        self.is_home = false;
        self.matches = copy.matches;
        self.size = copy.size;
        self.seen = None;
        self.changed = Instant::now();
        self.is_behind = true;
        Ok(())
    }

    /// Whether another file begins like this one, as far as either goes, of which nothing was
    /// handed out yet.
    pub fn begins_as(&self, start: &[u8]) -> bool {
        match &self.growing {
            Some(growing) => growing.begins_as(start),
            None => begin_alike(&self.beginning, start),
        }
    }

    /// How another file relates to it.
    pub fn likeness(&self, file: &File) -> io::Result<Likeness> {
        let position = self.position();
        let start = start_of(file)?;
        let mark = self.mark();
        let begins_alike = match &self.growing {
            Some(growing) => growing.begins_as(&start),
            None => mark.head.length > 0 && mark.head.begins(&start),
        };
        if !begins_alike {
            return Ok(Likeness::Other);
        }
        let size = file.metadata()?.len();
        if size >= position.offset {
            let has_all = digest(file, position.offset)? == mark.read;
            return Ok(if has_all {
                Likeness::Whole
            } else {
                Likeness::Other
            });
        }
        let is_part = match &self.growing {
            Some(growing) if growing.is_there()? => {
                let then = digest(growing.file(), size);
                then.is_ok_and(|then| digest(file, size).is_ok_and(|now| now == then))
            }
            Some(_) => start.len() >= HEAD_BYTES_SURE,
            None => mark.head.length >= HEAD_BYTES_SURE,
        };
        Ok(if is_part {
            Likeness::Part
        } else {
            Likeness::Other
        })
    }

    /// Opens it, unless it is open. Returns whether it could be opened; if it is not where it
    /// was, the next look tells where it is.
    pub fn open(&mut self, rows: &Rows<'_>) -> io::Result<Result<bool, SourceError>> {
        let (Some(path), Some(id)) = (&self.path, self.id) else {
            self.is_behind &= self.growing.is_some();
            return Ok(Ok(self.growing.is_some()));
        };
        if self.growing.is_some() {
            return Ok(Ok(true));
        }
        let file = match File::open(path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Ok(false)),
            file => file?,
        };
        if !FileId::of(&file.metadata()?).is(id) {
            return Ok(Ok(false));
        }
        let Closed { position, mark, .. } = &self.closed;
        if !has_read_of(&file, *position, mark)? {
            self.cut();
            return Ok(Ok(true));
        }
        let name = self.name.clone();
        match GrowingFile::open(file, shown(path), name, *position, rows) {
            Ok(Ok(growing)) => {
                self.growing = Some(growing);
                self.beginning = Vec::new();
            }
            Ok(Err(error)) => return Ok(Err(error)),
            Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => self.cut(),
            Err(cause) => return Err(cause),
        }
        Ok(Ok(true))
    }

    /// Frees its descriptor and memory until it is read again.
    pub fn close(&mut self) {
        let (position, mark) = (self.position(), self.mark());
        if self.growing.is_some() {
            self.closed = Closed {
                read_to: match mark.unread {
                    Some(0) => self.size,
                    _ => position.offset,
                },
                ..Closed::new(position, mark)
            };
            self.growing = None;
        }
    }

    /// The next rows of a file that is open. `None` if there are none now.
    pub fn rows(&mut self, rows: &Rows<'_>) -> io::Result<Result<Option<Chunk>, SourceError>> {
        let Some(growing) = &mut self.growing else {
            return Ok(Ok(None));
        };
        loop {
            let complete = self.is_complete && growing.read_at() >= self.size;
            match growing.take(complete || self.id.is_none(), rows) {
                Ok(None) => {}
                found => return Ok(found),
            }
            let read = match self.id {
                Some(_) => growing.read(rows.context)?,
                None => Read::AtEnd,
            };
            match read {
                Read::More => self.size = self.size.max(growing.read_at()),
                Read::AtEnd => {
                    self.is_behind = false;
                    self.is_over |= self.id.is_none();
                    return Ok(Ok(None));
                }
                Read::Cut => {
                    self.cut();
                    return Ok(Ok(None));
                }
            }
        }
    }

    /// How many bytes were seen and are gone, now that it was cut.
    pub fn lost(&self) -> u64 {
        match &self.growing {
            Some(growing) => self.size.saturating_sub(growing.read_at()),
            None => self.unread(),
        }
    }
}

/// Whether a file has what was read of a known one.
pub(super) fn has_read_of(file: &File, position: Position, mark: &FileMark) -> io::Result<bool> {
    let offset = position.offset;
    if file.metadata()?.len() < offset {
        return Ok(false);
    }
    if offset == 0 {
        return Ok(true);
    }
    match digest(file, offset) {
        Ok(now) => Ok(now == mark.read && mark.head.begins(&start_of(file)?)),
        Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// As [`FollowedFile::likeness`], of a file of a checkpoint that was cut since.
pub(super) fn likeness_to(
    file: &File,
    position: Position,
    mark: &FileMark,
) -> io::Result<Likeness> {
    let size = file.metadata()?.len();
    Ok(match () {
        () if position.offset == 0 => Likeness::Other,
        () if size >= position.offset => match has_read_of(file, position, mark)? {
            true => Likeness::Whole,
            false => Likeness::Other,
        },
        () if mark.head.length >= HEAD_BYTES_SURE && mark.head.begins(&start_of(file)?) => {
            Likeness::Part
        }
        () => Likeness::Other,
    })
}

impl Closed {
    fn new(position: Position, mark: FileMark) -> Self {
        Closed {
            read_to: position.offset,
            position,
            mark,
        }
    }
}
