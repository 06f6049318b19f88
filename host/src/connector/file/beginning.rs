//! Decides what a file begins with that a sink writes: nothing, what a run before has left
//! as its part, or a copy of the finished file. What is there already is never lost,
//! unless the user says so.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::digest::{ReadText, RunningDigest, WrittenText};
use super::mark::FileId;
use super::opened::{Compression, Text, check_whole};
use crate::access::Access;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::paths::is_taken;
use crate::stop::Stop;

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
    /// The restored checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// What it has of the file.
    pub restored: Option<SinkSnapshot>,
    /// That checkpoint, if it is not the last one.
    pub goes_back_to: Option<CheckpointId>,
    /// The next run goes on where this one is stopped.
    pub is_checkpointed: bool,
    /// So it does in another process.
    pub are_checkpoints_kept: bool,
    /// What the checkpoint has of the file as that of a sink that was dropped.
    pub left_behind: Option<SinkSnapshot>,
    /// Until the run's first checkpoint is committed, the next run may start
    /// from another one, which knows the files as they are.
    pub waits_for_commit: bool,
    /// What a file begins with that rows can be appended to: the mark of its
    /// compression, or the line above all rows, or nothing.
    pub head: Vec<u8>,
    pub compression: Compression,
    /// What waits for the reader of a pipe does not wait after that.
    pub stop: Stop,
    /// It is one of several, whose names the sink makes from its path.
    pub is_numbered: bool,
    /// Who may use the numbered files before it.
    pub access: Option<Access>,
}

/// Until then, the files that there are stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// The part is cut to this length.
    Cut(u64),
    /// The finished file, cut to this length, becomes the part again: a numbered one,
    /// some of whose rows come again.
    Unfinish(u64),
    /// So much of the finished file is copied to the part. It stays as it is until the
    /// part takes its place.
    Copy(u64),
}

/// A whole file that has the name while another one grows.
pub(super) struct Base {
    pub state: FileState,
    pub text: ReadText,
}

/// A file as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FileState {
    id: FileId,
    pub bytes: u64,
    changed: Option<SystemTime>,
}

impl FileState {
    /// `None` where nothing is there that could be lost.
    pub fn of(path: &Path, compression: Compression) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let has_text =
            metadata.is_file() && metadata.len() > 0 && !is_compressed_nothing(path, compression);
        has_text.then(|| FileState {
            id: FileId::of(&metadata),
            bytes: metadata.len(),
            changed: metadata.modified().ok(),
        })
    }
}

/// What there is of a file.
pub(super) struct There<'a> {
    /// The sink.
    node: &'a str,
    options: &'a PartOptions,
    path: &'a Path,
    /// The finished file, if it has rows.
    state: Option<FileState>,
    /// Its length; 0 if there is none.
    finished: u64,
    part: &'a Path,
    part_file: &'a File,
    /// Length of the part.
    unfinished: u64,
}

/// What a file begins with, its digest, and what has the name meanwhile.
pub(super) struct Start {
    pub beginning: Beginning,
    pub digest: RunningDigest,
    pub base: Option<Base>,
}

impl Start {
    fn nothing() -> Self {
        Start {
            beginning: Beginning::Cut(0),
            digest: RunningDigest::default(),
            base: None,
        }
    }
}

/// What is in a finished file.
struct Finished {
    base: Base,
    /// The digest of what a checkpoint has, if the file begins with it.
    start: Option<RunningDigest>,
}

impl<'a> There<'a> {
    pub fn find(
        node: &'a str,
        path: &'a Path,
        part: &'a Path,
        part_file: &'a File,
        options: &'a PartOptions,
    ) -> io::Result<Self> {
        let state = FileState::of(path, options.compression);
        Ok(There {
            node,
            options,
            path,
            state,
            finished: state.map_or(0, |state| state.bytes),
            part,
            part_file,
            unfinished: part_file.metadata()?.len(),
        })
    }

    /// What the file begins with.
    pub fn start(mut self) -> io::Result<Start> {
        let restored = self.options.restored.as_ref();
        match restored.filter(|restored| restored.bytes.is_some()) {
            Some(restored) => self.restored(restored),
            None => self.found(),
        }
    }

    /// Whether the finished file is given up, whatever it is.
    fn may_be_lost(&self) -> bool {
        self.options.if_exists == IfExists::Replace
    }

    /// Whether one of the two files begins with all of the other one.
    fn are_alike(&self) -> io::Result<bool> {
        let both = self.finished.min(self.unfinished);
        let [mut finished, mut unfinished] = [(); 2].map(|()| RunningDigest::default());
        finished.add_file(&File::open(self.path)?, both)?;
        unfinished.add_file(self.part_file, both)?;
        Ok(finished.text() == unfinished.text())
    }

    /// Whether the part is a copy of the finished file, complete or not.
    fn is_copy(&self) -> io::Result<bool> {
        Ok(self.unfinished <= self.finished && (self.unfinished == 0 || self.are_alike()?))
    }

    /// Reads the finished file, if there is one.
    fn read_finished(&self, restored: &SinkSnapshot) -> io::Result<Option<Finished>> {
        let Some(state) = self.state else {
            return Ok(None);
        };
        let file = File::open(self.path)?;
        let start = known_start(&file, state.bytes, restored)?;
        let mut digest = start.clone().unwrap_or_default();
        digest.add_file(&file, state.bytes)?;
        let text = digest.text();
        let base = Base { state, text };
        Ok(Some(Finished { base, start }))
    }

    /// What a file begins with that no checkpoint knows. With checkpoints, a part has
    /// rows that one of them knew, be it of another sink. Without, it may have all rows
    /// of runs with checkpoints.
    fn found(&mut self) -> io::Result<Start> {
        let options = self.options;
        if options.if_exists == IfExists::Replace {
            return Ok(Start::nothing());
        }
        let mut is_other = false;
        if options.if_exists == IfExists::Append && self.finished > 0 && self.unfinished > 0 {
            is_other = !self.are_alike()?;
            if !is_other && self.unfinished <= self.finished {
                // A copy, complete or not.
                self.unfinished = 0;
            }
        }
        let has_other_part = self.unfinished > 0 && !options.is_checkpointed;
        let found = match (self.finished, self.unfinished) {
            (0, 0) => return Ok(Start::nothing()),
            (0, _) if has_other_part => return Err(self.unfinished_only()),
            (0, _) => self.part,
            _ => self.path,
        };
        if options.if_exists == IfExists::Fail {
            return Err(not_gone_on_from(found, IfExists::Fail));
        }
        if is_other || has_other_part {
            return Err(self.two_files());
        }
        if !begins_with(found, &options.head)? {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "rows are to be appended to {}, which does not begin as they do: it has other \
                     columns, or another `compression`; move it away, or change that back",
                    found.display()
                ),
            ));
        }
        // Behind what the checkpoint has are rows that come again, unless it is the
        // last one of a finished file.
        let may_have_more = self.unfinished > 0 || options.goes_back_to.is_some();
        let left = options.left_behind.as_ref().filter(|_| may_have_more);
        match left.filter(|left| left.bytes.is_some()) {
            Some(left) => self.restored(left),
            None => self.end(),
        }
    }

    /// What a file begins with to all of which rows are appended.
    fn end(&self) -> io::Result<Start> {
        let compression = self.options.compression;
        if self.unfinished == 0 {
            self.check_one_name()?;
            check_whole(self.path, compression)?;
        }
        let all = SinkSnapshot {
            bytes: Some(self.finished),
            ..SinkSnapshot::default()
        };
        let finished = self.read_finished(&all)?;
        let (base, digest) = finished.map(|it| (it.base, it.start)).unzip();
        if self.unfinished == 0 {
            return Ok(Start {
                beginning: Beginning::Copy(self.finished),
                digest: digest.flatten().unwrap_or_default(),
                base,
            });
        }
        // What ends within its compressed data hides what follows.
        if compression != Compression::None {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} is there, and rows cannot be appended to compressed data that may not be \
                     complete: move it away",
                    self.part.display()
                ),
            ));
        }
        let mut digest = RunningDigest::default();
        digest.add_file(self.part_file, self.unfinished)?;
        Ok(Start {
            beginning: Beginning::Cut(self.unfinished),
            digest,
            base,
        })
    }

    /// What a file begins with of which a checkpoint has this: the part, or else the
    /// finished file, if that is still the one of the checkpoint. A later run may have
    /// finished it. What is behind the last checkpoint in a finished file is not from
    /// this pipeline.
    fn restored(&self, restored: &SinkSnapshot) -> io::Result<Start> {
        let of_part = known_start(self.part_file, self.unfinished, restored)?;
        let beginning = Beginning::Cut(restored.bytes.unwrap_or(0));
        if let (Some(digest), true) = (&of_part, self.may_be_lost()) {
            return Ok(Start {
                beginning,
                digest: digest.clone(),
                base: None,
            });
        }
        let finished = self.read_finished(restored)?;
        let Some(digest) = of_part else {
            return self.finished_before(restored, finished);
        };
        let is_known = match &finished {
            Some(finished) => self.is_own(finished, restored) || self.was_appended_to(restored)?,
            None => true,
        };
        if !is_known {
            return Err(not_gone_on_from(self.path, self.options.if_exists));
        }
        Ok(Start {
            beginning,
            digest,
            base: finished.map(|finished| finished.base),
        })
    }

    /// What a file begins with that a run has finished.
    fn finished_before(
        &self,
        restored: &SinkSnapshot,
        finished: Option<Finished>,
    ) -> io::Result<Start> {
        let bytes = restored.bytes.unwrap_or(0);
        let is_copy = self.is_copy()?;
        let Some((finished, digest)) = finished.and_then(|finished| {
            let start = finished.start.clone()?;
            Some((finished, start))
        }) else {
            let (file, found) = match is_copy {
                true => (self.path, self.finished),
                false => (self.part, self.unfinished),
            };
            let why = match found < bytes {
                // The part was made for the lock.
                _ if is_copy && !is_taken(file) => {
                    format!("is gone, and had {bytes} bytes at the checkpoint")
                }
                true => format!("has {found} bytes, and had {bytes} at the checkpoint"),
                false => "is not the file of the checkpoint".to_owned(),
            };
            return Err(self.refused(file, &why));
        };
        // A numbered file that is finished takes the place of its part.
        if !is_copy && (self.options.is_numbered || !self.may_be_lost()) {
            return Err(self.two_files());
        }
        if !self.is_own(&finished, restored) {
            let found = self.finished;
            let why = format!("has {found} bytes, and had {bytes} when this pipeline finished it");
            return Err(self.refused(self.path, &why));
        }
        Ok(match self.options.is_numbered {
            true => Start {
                beginning: Beginning::Unfinish(bytes),
                digest,
                base: None,
            },
            false => Start {
                beginning: Beginning::Copy(bytes),
                digest,
                base: Some(finished.base),
            },
        })
    }

    /// Whether a finished file is what this pipeline has made of it, or has found before
    /// it: what the checkpoint says, or what has become of that since.
    fn is_own(&self, finished: &Finished, restored: &SinkSnapshot) -> bool {
        let bytes = Some(finished.base.state.bytes);
        let may_have_grown = self.options.goes_back_to.is_some()
            || restored.bytes == bytes
            || restored.uncut_bytes == bytes;
        let replaces = restored.replaces.as_deref().and_then(ReadText::parse);
        (may_have_grown && finished.start.is_some()) || replaces == Some(finished.base.text)
    }

    /// Whether the finished file is one that the part begins with. Earlier versions did
    /// not note it in checkpoints.
    fn was_appended_to(&self, restored: &SinkSnapshot) -> io::Result<bool> {
        let is_of_earlier_version = !matches!(known(restored), Some(WrittenText::Whole(_)));
        let appends = self.options.if_exists == IfExists::Append;
        Ok(is_of_earlier_version && appends && self.are_alike()?)
    }

    /// Why a part is not written over that may be all there is.
    fn unfinished_only(&self) -> io::Error {
        let (path, part) = (self.path.display(), self.part.display());
        io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{part} is there, with rows of a run that did not end: delete it, or keep its \
                 rows by renaming it (to {path}, if they are to be there), or write \
                 `if_exists = \"replace\"`"
            ),
        )
    }

    /// Why a run does not go on with a file.
    fn refused(&self, file: &Path, why: &str) -> io::Error {
        let anew = match self.options.are_checkpoints_kept {
            true => format!(
                "start the sink without what the checkpoint has of it (`sluicebox run --drop {}`)",
                self.node
            ),
            // Every start does.
            false => "start the pipeline again".to_owned(),
        };
        let file = file.display();
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{file} {why}: put back the file of the checkpoint, or {anew}"),
        )
    }

    /// Refuses a file with several names: rows would be appended to what has this name.
    fn check_one_name(&self) -> io::Result<()> {
        let found = fs::metadata(self.path)?;
        if found.nlink() == 1 {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{} has another name (a hard link), which would keep what is there now, since a \
                 longer file takes the place of this name alone: remove the other name, or have \
                 this one lead to a copy",
                self.path.display()
            ),
        ))
    }

    /// Why nothing is appended to a finished file that has a part beside it.
    fn two_files(&self) -> io::Error {
        let (path, part) = (self.path.display(), self.part.display());
        io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "rows can be appended to one of two files only: {path} is finished, and {part} \
                 has rows of a run that did not end, which are not in the other. To append to \
                 {path}, delete {part}, or keep it under another name; to go on behind the rows \
                 in {part}, give it the name {path} when that is moved away"
            ),
        )
    }
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

/// Why a file does not take the place of another one, which is not what it was when this
/// one was begun.
pub(super) fn was_changed_meanwhile(path: &Path, part: &Path, is_checkpointed: bool) -> io::Error {
    let (path, part) = (path.display(), part.display());
    let then = match is_checkpointed {
        true => "start the pipeline again".to_owned(),
        false => format!("give {part} its name"),
    };
    let message = format!(
        "{path} was written by somebody else while this run wrote {part}, which has all rows \
         and does not take its place: move {path} away, then {then}"
    );
    io::Error::new(ErrorKind::AlreadyExists, message)
}

/// Whether this is what a sink without rows writes where empty files are no compressed
/// ones.
fn is_compressed_nothing(path: &Path, compression: Compression) -> bool {
    if compression == Compression::None {
        return false;
    }
    let text = File::open(path).and_then(|file| Text::of(file, compression, true));
    let first = text.and_then(|mut text| text.read(1, &mut Vec::new()));
    first.is_ok_and(|read| read == 0)
}

fn begins_with(path: &Path, mark: &[u8]) -> io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?
        .take(mark.len() as u64)
        .read_to_end(&mut first)?;
    Ok(first == mark)
}

/// The digest of what a checkpoint has, if a file of this length begins with it.
fn known_start(
    file: &File,
    length: u64,
    restored: &SinkSnapshot,
) -> io::Result<Option<RunningDigest>> {
    let bytes = restored.bytes.unwrap_or(0);
    if length < bytes {
        return Ok(None);
    }
    let mut digest = RunningDigest::default();
    digest.add_file(file, bytes)?;
    let is_known = known(restored).map_or(Ok(true), |known| known.is(file, &digest))?;
    Ok(is_known.then_some(digest))
}

/// What a checkpoint knows of the text of a file.
fn known(restored: &SinkSnapshot) -> Option<WrittenText> {
    restored.digest.as_deref().map(WrittenText::parse)
}
