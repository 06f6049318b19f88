//! Writes rows into parts in folders that their fields name. A part is complete once it has
//! its size or its age, when other folders need its place, and, where it cannot go on behind
//! a checkpoint, with the next one. It then waits under another name: its own it gets without
//! checkpoints at once, and with checkpoints when the one that has its last row is committed.
//!
//! Parts have numbers, whatever folder they are in. A restored run goes on with the numbers
//! of its checkpoint, and removes parts with later ones, so that a part has the same name
//! however often its rows come.

/// Parts in an object store.
pub(super) mod bucket;
/// Renders and compresses the rows of a part.
pub(super) mod encode;
/// Parts on this machine's disks.
pub(super) mod local;
/// The sink `file`, where its path has fields.
pub(super) mod sink;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use self::encode::{PartEncoder, PartFormat};
use super::folders::FolderNames;
use super::rolling::Roll;
use crate::batch::Batch;
use crate::checkpoint::snapshot::{PartSnapshot, PartsSnapshot, SinkSnapshot};
use crate::clock::Clock;
use crate::connector::text_rows::TextRows;
use crate::element::CheckpointId;
use crate::sink::{Ending, Sink, SinkError};

/// Parts of Parquet keep so many bytes of rows in memory, all together.
const GROUPS_BYTES: usize = 64 << 20;

/// Parts that are to be sent keep so many bytes in memory, all together.
const PIECES_BYTES: usize = 128 << 20;

/// Where parts are.
pub(super) trait Place: Send {
    /// A part that is being written.
    type Part: Send;

    /// Removes what the run does not go on from.
    fn begin(&mut self) -> Result<(), SinkError>;

    /// Begins a part, or goes on with one of the restored checkpoint.
    fn open(&mut self, part: &PartSnapshot) -> Result<Self::Part, SinkError>;

    fn write(&mut self, part: &mut Self::Part, bytes: &[u8]) -> Result<(), SinkError>;

    /// How many bytes it has.
    fn bytes(&self, part: &Self::Part) -> u64;

    /// How much of it is in memory.
    fn memory_bytes(&self, _: &Self::Part) -> usize {
        0
    }

    /// Makes what was written durable, and notes how much that is.
    fn keep(&mut self, part: &mut Self::Part, kept: &mut PartSnapshot) -> Result<(), SinkError>;

    /// As [`Place::keep`], of a part that gets no more. It may be done only with
    /// [`Place::settle`].
    fn complete(&mut self, part: Self::Part, kept: &mut PartSnapshot) -> Result<(), SinkError>;

    /// Whether no more parts are to be completed before those so far are settled.
    fn is_busy(&self) -> bool {
        false
    }

    /// Waits until all that was completed is durable.
    fn settle(&mut self, _: &mut [PartSnapshot]) -> Result<(), SinkError> {
        Ok(())
    }

    /// Gives complete parts their names. Those of the restored checkpoint may have theirs
    /// already.
    fn name(&mut self, parts: &[PartSnapshot], is_restored: bool) -> Result<(), SinkError>;
}

/// How rows become parts.
pub(super) struct Parts {
    pub node: String,
    pub folders: FolderNames,
    pub format: PartFormat,
    pub roll: Roll,
    /// How many parts are written at a time.
    pub open_max: usize,
    /// Whether a part goes on behind a checkpoint.
    pub goes_on: bool,
    pub is_checkpointed: bool,
    pub waits_for_commit: bool,
    pub clock: Arc<dyn Clock>,
}

pub(super) struct PartsSink<P: Place> {
    parts: Parts,
    place: P,
    open: HashMap<String, OpenPart<P::Part>>,
    /// The number of the next part.
    next: u64,
    /// Counts rows, by which parts know which of them got one last.
    rows: u64,
    /// Those of the restored checkpoint that are to go on.
    restored: Vec<PartSnapshot>,
    /// Complete parts with rows behind the last barrier.
    full: Vec<PartSnapshot>,
    /// Complete parts that wait for the commit of a checkpoint.
    staged: Vec<(CheckpointId, PartSnapshot)>,
    has_begun: bool,
    /// Whether anything may be changed: not before the commit that the start may have to
    /// wait for. No row comes before it.
    may_begin: bool,
    /// The rows being written, reused for their memory.
    text: TextRows,
}

struct OpenPart<T> {
    kept: PartSnapshot,
    part: T,
    encoder: PartEncoder,
    /// The number of the row that it got last.
    used: u64,
    /// Rows of the batch that are still to be written to it.
    rows: Vec<u32>,
}

impl<P: Place> PartsSink<P> {
    pub fn new(parts: Parts, place: P, restored: PartsSnapshot) -> Self {
        let staged = restored.complete.into_iter();
        PartsSink {
            may_begin: !parts.waits_for_commit,
            parts,
            place,
            open: HashMap::new(),
            next: restored.next,
            rows: 0,
            restored: restored.open,
            full: Vec::new(),
            staged: staged.map(|part| (CheckpointId::MIN, part)).collect(),
            has_begun: false,
            text: TextRows::default(),
        }
    }

    fn begin(&mut self) -> Result<(), SinkError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        self.place.begin()?;
        self.name_staged(CheckpointId::MIN)?;
        for kept in std::mem::take(&mut self.restored) {
            let part = OpenPart {
                part: self.place.open(&kept)?,
                encoder: self.encoder()?,
                used: self.rows,
                rows: Vec::new(),
                kept,
            };
            self.open.insert(part.kept.folder.clone(), part);
        }
        Ok(())
    }

    fn encoder(&self) -> Result<PartEncoder, SinkError> {
        let encoder = self.parts.format.encoder();
        encoder.map_err(|cause| cause.of_sink(&self.parts.node, "a part"))
    }

    /// Begins a part for a folder. If there are as many as may be, the one that has had no
    /// row for longest is complete.
    fn open_part(&mut self, folder: &str, batch: &Batch) -> Result<(), SinkError> {
        if self.open.len() >= self.parts.open_max {
            let idle = self
                .open
                .values()
                .min_by_key(|it| (it.used, it.kept.number));
            if let Some(folder) = idle.map(|it| it.kept.folder.clone()) {
                self.write_rows(&folder, batch)?;
                self.complete_part(&folder)?;
            }
        }
        let kept = PartSnapshot {
            number: self.next,
            folder: folder.to_owned(),
            began_ms: Some(self.parts.clock.now_ms()),
            ..PartSnapshot::default()
        };
        self.next += 1;
        let mut part = OpenPart {
            part: self.place.open(&kept)?,
            encoder: self.encoder()?,
            used: self.rows,
            rows: Vec::new(),
            kept,
        };
        let head = self.parts.format.head();
        let written = part.encoder.write_text(&head);
        written.map_err(|cause| cause.of_sink(&self.parts.node, folder))?;
        if let Some(bytes) = part.encoder.output() {
            self.place.write(&mut part.part, bytes)?;
            bytes.clear();
        }
        self.open.insert(folder.to_owned(), part);
        Ok(())
    }

    /// Writes the rows of the batch that wait for the part of this folder. Where they fill
    /// it, the next one begins.
    fn write_rows(&mut self, folder: &str, batch: &Batch) -> Result<(), SinkError> {
        let waiting = self.open.get_mut(folder);
        let rows = waiting.map(|it| std::mem::take(&mut it.rows));
        let rows = rows.unwrap_or_default();
        let mut rest = &rows[..];
        while !rest.is_empty() {
            if !self.open.contains_key(folder) {
                self.open_part(folder, batch)?;
            }
            let Some(open) = self.open.get_mut(folder) else {
                break;
            };
            let bytes_max = self.parts.roll.bytes.unwrap_or(u64::MAX);
            let room = bytes_max.saturating_sub(self.place.bytes(&open.part));
            let written = open.encoder.write(batch, rest, &self.text, room);
            let count = written.map_err(|cause| cause.of_sink(&self.parts.node, folder))?;
            rest = &rest[count..];
            if let Some(bytes) = open.encoder.output() {
                self.place.write(&mut open.part, bytes)?;
                bytes.clear();
            }
            let bytes = self.place.bytes(&open.part) + open.encoder.bytes_waiting();
            if bytes >= bytes_max {
                self.complete_part(folder)?;
            }
        }
        Ok(())
    }

    /// Completes the part of a folder.
    fn complete_part(&mut self, folder: &str) -> Result<(), SinkError> {
        let Some(mut open) = self.open.remove(folder) else {
            return Ok(());
        };
        let last = open.encoder.end();
        let last = last.map_err(|cause| cause.of_sink(&self.parts.node, folder))?;
        self.place.write(&mut open.part, &last)?;
        self.place.complete(open.part, &mut open.kept)?;
        self.full.push(open.kept);
        if self.parts.is_checkpointed && !self.place.is_busy() {
            return Ok(());
        }
        self.place.settle(&mut self.full)?;
        match self.parts.is_checkpointed {
            true => Ok(()),
            false => self.place.name(&std::mem::take(&mut self.full), false),
        }
    }

    fn complete_all(&mut self) -> Result<(), SinkError> {
        let mut open: Vec<_> = self.open.values().map(|it| &it.kept).collect();
        open.sort_by_key(|kept| kept.number);
        let folders: Vec<String> = open.iter().map(|kept| kept.folder.clone()).collect();
        folders.iter().try_for_each(|it| self.complete_part(it))
    }

    /// When a part is complete because of its age.
    fn due_ms(&self, kept: &PartSnapshot) -> Option<i64> {
        Some(kept.began_ms?.saturating_add(self.parts.roll.every_ms?))
    }

    fn complete_due(&mut self) -> Result<(), SinkError> {
        if self.parts.roll.every_ms.is_none() {
            return Ok(());
        }
        let now = self.parts.clock.now_ms();
        let parts = self.open.values().map(|it| &it.kept);
        let due = parts.filter(|kept| self.due_ms(kept).is_some_and(|due| due <= now));
        let mut due: Vec<(u64, String)> = due.map(|it| (it.number, it.folder.clone())).collect();
        due.sort();
        due.iter().try_for_each(|(_, it)| self.complete_part(it))
    }

    /// Has the largest parts write what they keep in memory, where that is much, or completes
    /// them.
    fn limit_memory(&mut self) -> Result<(), SinkError> {
        let waiting = |open: &OpenPart<P::Part>| open.encoder.memory_bytes();
        let mut all: usize = self.open.values().map(waiting).sum();
        while all > GROUPS_BYTES {
            let Some(largest) = self.open.values_mut().max_by_key(|it| waiting(it)) else {
                return Ok(());
            };
            all = all.saturating_sub(waiting(largest));
            let written = largest.encoder.end_group();
            written.map_err(|cause| cause.of_sink(&self.parts.node, &largest.kept.folder))?;
            if let Some(bytes) = largest.encoder.output() {
                self.place.write(&mut largest.part, bytes)?;
                bytes.clear();
            }
        }
        loop {
            let memory = |open: &OpenPart<P::Part>| self.place.memory_bytes(&open.part);
            if self.open.values().map(memory).sum::<usize>() <= PIECES_BYTES {
                return Ok(());
            }
            let largest = self.open.values().max_by_key(|it| memory(it));
            let Some(folder) = largest.map(|it| it.kept.folder.clone()) else {
                return Ok(());
            };
            self.complete_part(&folder)?;
        }
    }

    /// Gives their names to the parts that this checkpoint has.
    fn name_staged(&mut self, committed: CheckpointId) -> Result<(), SinkError> {
        let is_due = |(id, _): &mut (CheckpointId, PartSnapshot)| *id <= committed;
        let due = self.staged.extract_if(.., is_due).map(|(_, part)| part);
        let due: Vec<PartSnapshot> = due.collect();
        self.place.name(&due, committed == CheckpointId::MIN)
    }
}

impl<P: Place> Sink for PartsSink<P> {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin()?;
        self.complete_due()?;
        self.text.clear();
        self.parts.format.render(batch, &mut self.text);
        for row in 0..batch.rows() {
            let folder = self.parts.folders.of(batch, row);
            if !self.open.contains_key(folder) {
                let folder = folder.to_owned();
                self.open_part(&folder, batch)?;
            }
            let folder = self.parts.folders.name();
            self.rows += 1;
            if let Some(open) = self.open.get_mut(folder) {
                open.used = self.rows;
                // A batch has fewer rows than u32 holds.
                open.rows.push(row as u32);
            }
        }
        let waiting = self.open.values().filter(|it| !it.rows.is_empty());
        let mut waiting: Vec<(u32, String)> = waiting
            .map(|it| (it.rows[0], it.kept.folder.clone()))
            .collect();
        waiting.sort();
        for (_, folder) in &waiting {
            self.write_rows(folder, batch)?;
        }
        self.limit_memory()
    }

    /// Parts can be seen when they have their names.
    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.may_begin {
            return Ok(());
        }
        self.begin()?;
        self.complete_due()
    }

    fn flush_at_ms(&self) -> Option<i64> {
        let parts = self.open.values().map(|it| &it.kept).chain(&self.restored);
        let due = parts.filter_map(|kept| self.due_ms(kept)).min();
        due.filter(|_| self.may_begin)
    }

    /// The next run goes on with other parts, and readers may take these away.
    fn complete(&mut self) -> Result<(), SinkError> {
        match self.has_begun {
            true => self.complete_all(),
            false => Ok(()),
        }
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        if self.may_begin {
            self.begin()?;
            self.complete_due()?;
        }
        if !self.parts.goes_on {
            self.complete_all()?;
        }
        self.place.settle(&mut self.full)?;
        // Those of the restored checkpoint, if the run has not begun.
        let mut kept = self.restored.clone();
        for open in self.open.values_mut() {
            let last = open.encoder.end();
            let last = last.map_err(|cause| cause.of_sink(&self.parts.node, &open.kept.folder))?;
            self.place.write(&mut open.part, &last)?;
            self.place.keep(&mut open.part, &mut open.kept)?;
            kept.push(open.kept.clone());
        }
        kept.sort_by_key(|part| part.number);
        self.staged.extend(self.full.drain(..).map(|it| (id, it)));
        let complete = self.staged.iter().map(|(_, part)| part.clone());
        Ok(SinkSnapshot {
            parts: Some(PartsSnapshot {
                next: self.next,
                open: kept,
                complete: complete.collect(),
            }),
            ..SinkSnapshot::default()
        })
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), SinkError> {
        self.may_begin = true;
        self.begin()?;
        self.name_staged(id)
    }

    /// All parts are complete, also if the run is stopped: the next one goes on with others.
    /// With checkpoints, every row came before the last of them.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        self.begin()?;
        self.complete_all()?;
        self.place.settle(&mut self.full)?;
        let full = self.full.drain(..);
        self.staged.extend(full.map(|it| (CheckpointId::MAX, it)));
        self.name_staged(CheckpointId::MAX)
    }
}
