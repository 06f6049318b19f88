//! Writes rows in a text format into numbered files, one after another. Each is
//! complete once it has its size or its age, and then gets its name: with
//! checkpoints, as soon as the one that has its last row is committed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::beginning::{IfExists, PartOptions, not_gone_on_from};
use super::numbered::{Numbered, NumberedFile};
use super::opened::Compression;
use super::part::{PartFile, part_of};
use super::text_file::TextFile;
use super::written::{Staged, Written, is_not_ours, tell_of_replaced};
use crate::access::Access;
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::clock::Clock;
use crate::connector::text_rows::{TextFormat, TextRows};
use crate::element::CheckpointId;
use crate::paths::{create_folder_of, is_taken, sync_folder};
use crate::sink::{Ending, Sink, SinkError};

/// When a file is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Once it has so many bytes.
    pub bytes: Option<u64>,
    /// So long after its first row.
    pub every_ms: Option<i64>,
}

/// What is written where.
pub(super) struct Rolling<'a> {
    pub path: &'a Path,
    pub roll: Roll,
    pub compression: Compression,
    pub clock: Arc<dyn Clock>,
}

pub(super) struct RollingSink<F> {
    node: String,
    names: Numbered,
    roll: Roll,
    compression: Compression,
    clock: Arc<dyn Clock>,
    is_checkpointed: bool,
    format: F,
    /// The rows being written, reused for their memory.
    rows: TextRows,
    /// Of the file being written.
    number: u64,
    file: TextFile,
    /// When the first row was written to it.
    began_ms: Option<i64>,
    /// Complete files with rows behind the last barrier.
    full: Vec<u64>,
    /// Complete files that wait for the commit of a checkpoint.
    staged: Vec<Staged>,
    /// Files that are deleted before the first row: of an earlier run, or from
    /// behind the restored checkpoint.
    obsolete: Vec<NumberedFile>,
    has_begun: bool,
    /// Whether files may be changed: not before the commit that the start may have to
    /// wait for. No row comes before it.
    may_begin: bool,
    /// Which files are this pipeline's. Keeps other runs from writing any meanwhile.
    written: Written,
}

/// What a sink begins with.
struct Start {
    number: u64,
    file: TextFile,
    obsolete: Vec<NumberedFile>,
}

impl<F: TextFormat> RollingSink<F> {
    pub fn new(
        node: &str,
        rolling: Rolling<'_>,
        options: &PartOptions,
        format: F,
    ) -> Result<Self, SinkError> {
        let Rolling {
            path,
            roll,
            compression,
            clock,
        } = rolling;
        let names = Numbered::of(path);
        let refused = |cause: io::Error| SinkError::io(node, path.display(), &cause);
        let written =
            create_folder_of(path).and_then(|()| Written::open(&names, &options.pipeline));
        let written = written.map_err(refused)?;
        let there = names.find().map_err(refused)?;
        let last = there.last().and_then(|last| Access::of_path(&last.path));
        let options = &PartOptions {
            access: last.map(Access::of_next),
            ..options.clone()
        };
        let opening = Opening {
            node,
            names: &names,
            written: &written,
            compression,
            options,
        };
        let restored = options.restored.clone().unwrap_or_default();
        let start = match restored.number {
            Some(number) => opening.restored(number, &restored, there)?,
            None => opening.new_files(there)?,
        };
        let staged = Staged::restored(&restored, |name| names.folder.join(name));
        let sink = RollingSink {
            node: node.to_owned(),
            staged,
            names,
            roll,
            compression,
            clock,
            is_checkpointed: options.is_checkpointed,
            format,
            rows: TextRows::default(),
            number: start.number,
            file: start.file,
            began_ms: restored.began_ms,
            full: Vec::new(),
            obsolete: start.obsolete,
            has_begun: false,
            may_begin: !options.waits_for_commit,
            written,
        };
        Ok(sink)
    }

    /// Removes what the run does not go on from, and names what it had staged.
    fn begin(&mut self) -> Result<(), SinkError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        for file in self.obsolete.drain(..) {
            let deleted = self.written.delete(&file);
            deleted.map_err(|cause| SinkError::io(&self.node, file.path.display(), &cause))?;
        }
        if !self.file.is_empty() {
            self.begin_file()?;
        }
        self.name_staged(CheckpointId::MIN)
    }

    fn begin_file(&mut self) -> Result<(), SinkError> {
        let part = &mut self.file.part;
        let listed = self.written.begun(self.number, part.file());
        listed.map_err(|cause| part.error(cause))?;
        part.begin().map(drop)
    }

    /// Ends the file being written, which has this number.
    fn end_file(&mut self) -> Result<(), SinkError> {
        self.file.end()?;
        let part = &mut self.file.part;
        part.flush()?;
        let listed = self
            .written
            .completed(self.number, part.file(), part.text());
        listed.map_err(|cause| part.error(cause))
    }

    /// When the file being written is complete because of its age.
    fn due_ms(&self) -> Option<i64> {
        Some(self.began_ms?.saturating_add(self.roll.every_ms?))
    }

    fn roll_if_due(&mut self) -> Result<(), SinkError> {
        match self.due_ms() {
            Some(due) if due <= self.clock.now_ms() => self.roll(),
            _ => Ok(()),
        }
    }

    /// Completes the file being written, and opens the next one.
    fn roll(&mut self) -> Result<(), SinkError> {
        let number = self.number + 1;
        self.check_free(&self.names.path(number))?;
        let part = &self.file.part;
        let metadata = part.file().metadata();
        let metadata = metadata.map_err(|cause| part.error(cause))?;
        let next = open(
            &self.node,
            &self.names,
            &self.written,
            number,
            self.compression,
            Some(Access::of(&metadata)),
        )?;
        self.end_file()?;
        let mut file = std::mem::replace(&mut self.file, next);
        let full = std::mem::replace(&mut self.number, number);
        self.began_ms = None;
        let path = file.part.path().to_owned();
        if self.is_checkpointed {
            self.full.push(full);
            return file.part.finish_as(&part_of(&path));
        }
        self.check_free(&path)?;
        file.part.finish_as(&path)
    }

    /// Refuses to write over a file that somebody has made since the run began: what the
    /// sink replaces is deleted by then.
    fn check_free(&self, path: &Path) -> Result<(), SinkError> {
        match is_taken(path) {
            false => Ok(()),
            true => Err(SinkError::io(
                &self.node,
                path.display(),
                &is_not_ours(path),
            )),
        }
    }

    /// Has the complete files wait for the commit of this checkpoint.
    fn stage_full(&mut self, checkpoint: CheckpointId) {
        let full = self.full.drain(..);
        let staged = full.map(|number| self.written.staged(checkpoint, number));
        self.staged.extend(staged);
    }

    /// Gives their names to the files that this checkpoint has. What has been done
    /// already is skipped.
    fn name_staged(&mut self, committed: CheckpointId) -> Result<(), SinkError> {
        let is_due = |staged: &mut Staged| staged.checkpoint <= committed;
        let mut renamed = false;
        for staged in self.staged.extract_if(.., is_due) {
            let named = self.written.give_name(&staged);
            named.map_err(|cause| SinkError::io(&self.node, staged.to.display(), &cause))?;
            renamed = true;
        }
        if renamed {
            sync_folder(&self.names.folder)
                .map_err(|cause| SinkError::io(&self.node, self.names.folder.display(), &cause))?;
        }
        Ok(())
    }
}

impl<F: TextFormat> Sink for RollingSink<F> {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin()?;
        self.roll_if_due()?;
        self.rows.clear();
        self.format.write(batch, &mut self.rows);
        let bytes_max = self.roll.bytes.unwrap_or(u64::MAX);
        let (mut row, mut from) = (0, 0);
        while row < self.rows.ends.len() {
            if self.file.is_empty() {
                self.begin_file()?;
                self.file.write(&self.format.head())?;
                self.began_ms = Some(self.clock.now_ms());
            }
            // As many rows as fit, and one that fills the file. Compressed ones take
            // less, so that more may follow.
            let room = bytes_max.saturating_sub(self.file.part.bytes());
            let rest = &self.rows.ends[row..];
            let fitting = rest.partition_point(|end| ((end - from) as u64) < room);
            row += (fitting + 1).min(rest.len());
            let end = self.rows.ends[row - 1];
            self.file.write(&self.rows.text[from..end])?;
            from = end;
            if self.file.part.bytes() >= bytes_max {
                self.roll()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.may_begin {
            return Ok(());
        }
        self.begin()?;
        self.roll_if_due()?;
        self.file.flush()
    }

    fn flush_at_ms(&self) -> Option<i64> {
        self.due_ms().filter(|_| self.may_begin)
    }

    /// The next run goes on with another file, and readers may take this one away.
    fn complete(&mut self) -> Result<(), SinkError> {
        match self.has_begun && !self.file.is_empty() {
            true => self.roll(),
            false => Ok(()),
        }
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        if self.may_begin {
            self.begin()?;
            self.roll_if_due()?;
        }
        let mut kept = self.file.keep()?;
        self.stage_full(id);
        Staged::keep(&self.staged, name, &mut kept);
        Ok(SinkSnapshot {
            number: Some(self.number),
            began_ms: self.began_ms,
            obsolete: self.obsolete.iter().map(|it| name(&it.path)).collect(),
            ..kept
        })
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), SinkError> {
        self.may_begin = true;
        self.begin()?;
        self.name_staged(id)
    }

    /// All files are complete, also if the run is stopped: the next one goes on with
    /// another. With checkpoints, every row came before the last of them.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        self.begin()?;
        self.stage_full(CheckpointId::MAX);
        self.name_staged(CheckpointId::MAX)?;
        if self.file.is_empty() {
            return self.file.part.discard();
        }
        self.end_file()?;
        let path = self.file.part.path().to_owned();
        self.check_free(&path)?;
        self.file.part.finish_as(&path)
    }
}

/// How the files are found that a sink begins with.
struct Opening<'a> {
    node: &'a str,
    names: &'a Numbered,
    written: &'a Written,
    compression: Compression,
    options: &'a PartOptions,
}

impl Opening<'_> {
    /// Goes on with the file of the checkpoint.
    fn restored(
        &self,
        number: u64,
        restored: &SinkSnapshot,
        there: Vec<NumberedFile>,
    ) -> Result<Start, SinkError> {
        // What else is there is looked at below.
        let options = PartOptions {
            if_exists: IfExists::Replace,
            is_numbered: true,
            ..self.options.clone()
        };
        let part = PartFile::open(self.node, &self.names.path(number), &options)?;
        // A later run may have completed it.
        let was_finished = part.was_finished();
        let is_new = restored.bytes == Some(0);
        let is_later = |it: &NumberedFile| match it.number == number {
            true if it.is_part => is_new,
            true => !was_finished,
            false => it.number > number,
        };
        let later: Vec<NumberedFile> = there.into_iter().filter(is_later).collect();
        for file in &later {
            // Later checkpoints knew it, if there were any.
            let is_known = file.is_part
                || self.options.goes_back_to.is_some()
                || restored.obsolete.contains(&name(&file.path));
            if !is_known && !self.options.waits_for_commit {
                let why = "it is there, and the checkpoint does not know it: move it away";
                return Err(refused(self.node, &file.path, why));
            }
        }
        self.check_ours(&later)?;
        Ok(Start {
            number,
            file: TextFile::new(part, self.compression),
            obsolete: self.without_part_of(number, later),
        })
    }

    /// Begins without a checkpoint. A file with its temporary name has rows that a
    /// checkpoint knew, or that a failed run has left: it is not written over either.
    fn new_files(&self, there: Vec<NumberedFile>) -> Result<Start, SinkError> {
        let has_rows = |it: &NumberedFile| {
            !it.is_part || fs::metadata(&it.path).is_ok_and(|found| found.len() > 0)
        };
        let if_exists = self.options.if_exists;
        let number = match there.iter().rfind(|it| has_rows(it)) {
            Some(last) if if_exists == IfExists::Fail => {
                let cause = not_gone_on_from(&last.path, if_exists);
                return Err(SinkError::io(self.node, last.path.display(), &cause));
            }
            Some(last) if if_exists == IfExists::Append => last.number + 1,
            _ => 1,
        };
        let going = match if_exists {
            IfExists::Replace => there,
            IfExists::Append | IfExists::Fail => Vec::new(),
        };
        self.check_ours(&going)?;
        let file = open(
            self.node,
            self.names,
            self.written,
            number,
            self.compression,
            self.options.access,
        )?;
        let obsolete = self.without_part_of(number, going);
        tell_of_replaced(self.node, &obsolete);
        Ok(Start {
            number,
            file,
            obsolete,
        })
    }

    /// Refuses to delete or write over files that others may have written.
    fn check_ours(&self, files: &[NumberedFile]) -> Result<(), SinkError> {
        self.written.check(files).map_err(|cause| {
            let pattern = self.names.pattern();
            SinkError::io(self.node, pattern.display(), &cause)
        })
    }

    /// The files without the temporary one that is written over.
    fn without_part_of(&self, number: u64, files: Vec<NumberedFile>) -> Vec<NumberedFile> {
        let others = files.into_iter();
        others
            .filter(|it| !(it.is_part && it.number == number))
            .collect()
    }
}

fn refused(node: &str, path: &Path, why: &str) -> SinkError {
    let cause = io::Error::new(ErrorKind::AlreadyExists, why);
    SinkError::io(node, path.display(), &cause)
}

/// Opens a file for new rows. What is there under its name is on its way out; what has
/// its temporary name is written over.
fn open(
    node: &str,
    names: &Numbered,
    written: &Written,
    number: u64,
    compression: Compression,
    access: Option<Access>,
) -> Result<TextFile, SinkError> {
    let path = names.path(number);
    let options = PartOptions {
        if_exists: IfExists::Replace,
        is_numbered: true,
        access,
        ..PartOptions::default()
    };
    let part = PartFile::open(node, &path, &options)?;
    let there = NumberedFile {
        number,
        is_part: true,
        path: part_of(&path),
    };
    let checked = written.check(&[there]);
    checked.map_err(|cause| SinkError::io(node, path.display(), &cause))?;
    Ok(TextFile::new(part, compression))
}

/// The name of a file, by which it is found if the folder is moved.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
