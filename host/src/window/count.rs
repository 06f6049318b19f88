//! Count windows: so many rows of a key, in the order in which they come. Time
//! plays no part, so no row is late. The span of a window is that of its rows.

use super::LoadError;
use super::accumulators::{Accumulators, Arrived, Ids, Results, Spans};
use super::groups::{Groups, NO_SLOT};
use super::rows::{EARLY, Reader, write_i64};
use super::time::Span;
use super::tracker::Tracker;
use crate::checkpoint::changes::Changes;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::row::RowError;
use crate::state::shelf::Chunk;

pub(super) struct Counts {
    size: u64,
    early_wanted: bool,
    keys: KeyTable,
    /// By key.
    entries: Vec<Entry>,
    /// Keys with rows that early results have not shown.
    early: Vec<u32>,
    batch_keys: BatchKeys,
    groups: Groups,
    tracker: Tracker,
    /// The storage has keys that are not here.
    has_cold: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    window: Option<Window>,
    early: bool,
}

/// The open window of a key.
#[derive(Clone, Copy, Debug)]
struct Window {
    rows: u64,
    first_ms: i64,
    last_ms: i64,
    slot: u32,
}

/// What a batch does, to be kept or taken back.
#[derive(Default)]
struct Assigned {
    /// Keys and their windows as they were before each row.
    before: Vec<(u32, Option<Window>)>,
    new_keys: Vec<u32>,
    new_slots: Vec<u32>,
    full: Vec<(u32, Window)>,
}

impl Counts {
    pub fn new(accumulators: &Accumulators, size: u64, early_wanted: bool) -> Self {
        Counts {
            size,
            early_wanted,
            keys: KeyTable::default(),
            entries: Vec::new(),
            early: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            tracker: Tracker::default(),
            has_cold: false,
        }
    }

    /// What is here takes, in bytes, without the states.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.keys.len() * (size_of::<Entry>() + 1)
    }

    /// The storage has keys that are not here.
    pub fn set_cold(&mut self) {
        self.has_cold = true;
    }

    pub fn changed(&self) -> usize {
        self.tracker.changed()
    }

    /// Gives up keys, as many as this, that the storage has.
    pub fn evict(&mut self, accumulators: &mut Accumulators, keys: usize) {
        for id in self.tracker.victims(accumulators, keys) {
            let entry = &mut self.entries[id as usize];
            if entry.early {
                self.tracker.spare(id);
                continue;
            }
            if let Some(window) = entry.window.take() {
                accumulators.release(window.slot);
            }
            self.keys.remove(id);
            self.has_cold = true;
        }
    }

    /// What has changed since the last checkpoint.
    pub fn freeze(
        &mut self,
        accumulators: &Accumulators,
        changes: &mut Changes,
    ) -> Result<(), OperatorError> {
        let entries = &self.entries;
        self.tracker.freeze(
            accumulators,
            &self.keys,
            0,
            changes,
            |id, wanted| wanted.extend(entries[id as usize].window.map(|window| window.slot)),
            |id, states, row| {
                let entry = &entries[id as usize];
                if let Some(window) = entry.window {
                    row.push(if entry.early { EARLY } else { 0 });
                    row.extend_from_slice(&window.rows.to_le_bytes());
                    write_i64(window.first_ms, row);
                    write_i64(window.last_ms, row);
                    row.extend(states.iter().copied().flatten());
                }
            },
        )
    }

    /// Takes back what was frozen.
    pub fn thaw(
        &mut self,
        accumulators: &mut Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        let mut states = Vec::with_capacity(chunk.len());
        let mut windows = Vec::with_capacity(chunk.len());
        for (_, _, row) in chunk.rows() {
            let mut reader = Reader(row);
            let window = read_window(&mut reader);
            windows.push(window.map_err(|error| accumulators.broken(&error))?);
            states.push(reader.last_state());
        }
        let slots = accumulators.decode(states.into_iter())?;
        for (((_, key, _), (flags, window)), slot) in chunk.rows().zip(windows).zip(slots) {
            let id = accumulators.number(&mut self.keys, key)?;
            let is_early = self.early_wanted && flags & EARLY != 0;
            if is_early {
                self.early.push(id);
            }
            let entry = Entry {
                window: Some(Window { slot, ..window }),
                early: is_early,
            };
            self.entries
                .resize(self.entries.len().max(id as usize + 1), Entry::default());
            self.entries[id as usize] = entry;
            self.tracker.set_stored(id);
        }
        Ok(())
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        mut arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        if self.has_cold && arrived.rows() > 0 {
            accumulators.read_keys(&mut self.batch_keys, &arrived, |_| false)?;
            let (keys, tracker) = (&self.keys, &self.tracker);
            let chunk = accumulators.fetch_missing(keys, &self.batch_keys, &arrived, tracker)?;
            self.thaw(accumulators, &chunk)?;
        }
        // Which rows belong together depends on all of them. When some turn out
        // to be lost, the rest is taken as if they had never come.
        while arrived.rows() > 0 {
            let assigned = self.assign(accumulators, &arrived)?;
            let folded = accumulators.fold(&arrived, &self.groups, out)?;
            if folded.lost.is_empty() {
                accumulators.store(&self.groups, &folded.states)?;
                return self.close(accumulators, &assigned.full, out);
            }
            self.take_back(accumulators, assigned)?;
            arrived = arrived.without(&folded.lost);
        }
        Ok(())
    }

    /// Puts out what is left when the input ends.
    pub fn end(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.close_open(accumulators, out)?;
        if !std::mem::take(&mut self.has_cold) {
            return Ok(());
        }
        let Some(shelf) = accumulators.shelf().cloned() else {
            return Ok(());
        };
        let loaded = shelf.load(|mut chunk| {
            // Those that were here have been put out, and their rows are stale.
            chunk.retain(|row, _| !self.tracker.is_gone(row));
            self.thaw(accumulators, &chunk)?;
            self.close_open(accumulators, out)?;
            Ok::<_, LoadError>(true)
        });
        loaded.map_err(|error| accumulators.load_failed(error))
    }

    /// Puts out the windows that are open, and forgets them.
    fn close_open(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let open = (0..).zip(&mut self.entries);
        let open: Vec<_> = open
            .filter_map(|(id, entry)| Some((id, entry.window.take()?)))
            .collect();
        self.close(accumulators, &open, out)
    }

    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Puts out what open windows have so far, those that have had rows since
    /// the last time.
    pub fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut open = Vec::new();
        for id in std::mem::take(&mut self.early) {
            let entry = &mut self.entries[id as usize];
            if std::mem::replace(&mut entry.early, false)
                && let Some(window) = entry.window
            {
                open.push((id, window));
            }
        }
        self.emit(accumulators, &open, out)
    }

    fn assign(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
    ) -> Result<Assigned, OperatorError> {
        accumulators.read_keys(&mut self.batch_keys, arrived, |_| false)?;
        self.groups.begin(accumulators.slots());
        let mut assigned = Assigned::default();
        for run in 0..self.batch_keys.runs() {
            let (id, is_new) = self.keys.upsert_run(&self.batch_keys, run);
            if is_new {
                assigned.new_keys.push(id);
                if id as usize == self.entries.len() {
                    self.entries.push(Entry::default());
                }
            }
            if accumulators.shelf().is_some() {
                self.tracker.touch(id);
            }
            let entry = &mut self.entries[id as usize];
            for row in self.batch_keys.rows(run) {
                let time = arrived.times[row];
                assigned.before.push((id, entry.window));
                let window = match &mut entry.window {
                    Some(window) => {
                        let group = self.groups.of(window.slot);
                        self.groups.of_row.push(group);
                        window
                    }
                    none => {
                        let slot = accumulators.allocate();
                        assigned.new_slots.push(slot);
                        let group = self.groups.of_new(slot);
                        self.groups.of_row.push(group);
                        none.insert(Window {
                            rows: 0,
                            first_ms: time,
                            last_ms: time,
                            slot,
                        })
                    }
                };
                window.rows += 1;
                window.first_ms = window.first_ms.min(time);
                window.last_ms = window.last_ms.max(time);
                if window.rows == self.size {
                    assigned.full.push((id, *window));
                    entry.window = None;
                }
            }
            if self.early_wanted && !std::mem::replace(&mut entry.early, true) {
                self.early.push(id);
            }
        }
        self.groups.end();
        Ok(assigned)
    }

    fn take_back(
        &mut self,
        accumulators: &mut Accumulators,
        assigned: Assigned,
    ) -> Result<(), OperatorError> {
        for (id, window) in assigned.before.into_iter().rev() {
            self.entries[id as usize].window = window;
        }
        for slot in assigned.new_slots {
            accumulators.release(slot);
        }
        for id in assigned.new_keys {
            self.forget(accumulators, id)?;
        }
        Ok(())
    }

    /// Puts out windows and forgets them.
    fn close(
        &mut self,
        accumulators: &mut Accumulators,
        windows: &[(u32, Window)],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.emit(accumulators, windows, out)?;
        for &(id, window) in windows {
            accumulators.release(window.slot);
            if self.entries[id as usize].window.is_none() {
                self.forget(accumulators, id)?;
            }
        }
        Ok(())
    }

    fn emit(
        &self,
        accumulators: &mut Accumulators,
        windows: &[(u32, Window)],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let ids: Vec<u32> = windows.iter().map(|(id, _)| *id).collect();
        let slots: Vec<u32> = windows.iter().map(|(_, window)| window.slot).collect();
        let spans: Vec<Span> = windows
            .iter()
            .map(|(_, window)| Span {
                start: window.first_ms,
                end: window.last_ms + 1,
            })
            .collect();
        let results = Results {
            slots: &slots,
            keys: &self.keys,
            ids: Ids::Each(&ids),
            spans: Spans::Each(&spans),
        };
        accumulators.emit(results, out)
    }

    fn forget(&mut self, accumulators: &Accumulators, id: u32) -> Result<(), OperatorError> {
        self.tracker.remove(accumulators, &self.keys, &[id])?;
        self.keys.remove(id);
        self.entries[id as usize].early = false;
        Ok(())
    }
}

/// The flags of a key, and its window but for the state.
fn read_window(row: &mut Reader<'_>) -> Result<(u8, Window), RowError> {
    let flags = row.flags()?;
    let window = Window {
        rows: row.i64()? as u64,
        first_ms: row.i64()?,
        last_ms: row.i64()?,
        slot: NO_SLOT,
    };
    Ok((flags, window))
}
