//! No windows: one state a key, and a result after each row.
//!
//! A state lives for ever, or for a time after its key's last row. Whether it
//! still lives when a row comes is told by the row's time, or by the watermark
//! where that is later: so it does not depend on when states are swept, nor on
//! where batches are cut.

use super::LoadError;
use super::accumulators::{Accumulators, Arrived};
use super::cold::Cold;
use super::groups::{Groups, NO_SLOT};
use super::rows::{Reader, write_i64};
use super::time::{SIZE_MAX_MS, TIME_MAX_MS};
use super::timer::Timers;
use super::tracker::Tracker;
use crate::checkpoint::changes::Changes;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::row::RowError;
use crate::state::shelf::Chunk;

pub(super) struct Running {
    /// How long a state lives after its key's last row.
    ttl_ms: Option<i64>,
    keys: KeyTable,
    /// By key.
    entries: Vec<Entry>,
    /// When to see whether a key's state is over.
    timers: Timers,
    batch_keys: BatchKeys,
    groups: Groups,
    tracker: Tracker,
    /// The storage has keys that are not here.
    has_cold: bool,
    cold: Cold,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// [`NO_SLOT`] for a key all of whose rows were lost.
    slot: u32,
    /// Event time of its newest row.
    newest_ms: i64,
    /// The timer that is set for the key. Others are void.
    due_ms: i64,
}

const NOTHING: Entry = Entry {
    slot: NO_SLOT,
    newest_ms: -TIME_MAX_MS,
    due_ms: NEVER,
};

/// No timer.
const NEVER: i64 = i64::MAX;

impl Running {
    pub fn new(accumulators: &Accumulators, ttl_ms: Option<i64>) -> Self {
        let ttl_ms = ttl_ms.map(|ttl_ms| ttl_ms.min(SIZE_MAX_MS));
        let horizon_ms = ttl_ms.unwrap_or(SIZE_MAX_MS);
        Running {
            ttl_ms,
            keys: KeyTable::default(),
            entries: Vec::new(),
            timers: Timers::new(horizon_ms),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            tracker: Tracker::default(),
            has_cold: false,
            cold: Cold::new(horizon_ms),
        }
    }

    /// What is here takes, in bytes, without the states.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.keys.len() * (size_of::<Entry>() + 1)
    }

    /// The storage has these keys, and maybe others, that are not here.
    pub fn set_cold(&mut self) {
        self.has_cold = true;
        // When they are over is seen at the first look.
        self.cold.add(i64::MIN);
    }

    pub fn changed(&self) -> usize {
        self.tracker.changed()
    }

    /// Gives up keys, as many as this, that the storage has.
    pub fn evict(&mut self, accumulators: &mut Accumulators, keys: usize) {
        for id in self.tracker.victims(accumulators, keys) {
            let entry = std::mem::replace(&mut self.entries[id as usize], NOTHING);
            accumulators.release(entry.slot);
            self.keys.remove(id);
            self.has_cold = true;
            if let Some(ttl_ms) = self.ttl_ms {
                self.cold.add(entry.newest_ms + ttl_ms);
            }
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
            |id, wanted| {
                let slot = entries[id as usize].slot;
                wanted.extend((slot != NO_SLOT).then_some(slot));
            },
            |id, states, row| {
                write_i64(entries[id as usize].newest_ms, row);
                row.extend(states.iter().copied().flatten());
            },
        )
    }

    /// Takes back what was frozen.
    pub fn thaw(
        &mut self,
        accumulators: &mut Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        let mut kept = Vec::with_capacity(chunk.len());
        for (_, _, row) in chunk.rows() {
            kept.push(read(row).map_err(|error| accumulators.broken(&error))?);
        }
        let slots = accumulators.decode(kept.iter().map(|&(_, state)| state))?;
        for (((_, key, _), (newest_ms, _)), slot) in chunk.rows().zip(&kept).zip(slots) {
            let id = accumulators.number(&mut self.keys, key)?;
            let entry = self.entry(id);
            entry.slot = slot;
            entry.newest_ms = *newest_ms;
            self.set_timer(id);
            self.tracker.set_stored(id);
        }
        Ok(())
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        accumulators.read_keys(&mut self.batch_keys, arrived, |_| false)?;
        if self.has_cold {
            let (keys, tracker) = (&self.keys, &self.tracker);
            let chunk = accumulators.fetch_missing(keys, &self.batch_keys, arrived, tracker)?;
            self.thaw(accumulators, &chunk)?;
        }
        self.groups.begin(accumulators.slots());
        let mut founded = Vec::new();
        let mut over = Vec::new();
        for run in 0..self.batch_keys.runs() {
            let (id, _) = self.keys.upsert_run(&self.batch_keys, run);
            self.entry(id);
            let rows = self.batch_keys.rows(run);
            match self.ttl_ms {
                None => {
                    let newest_ms = arrived.times[rows.clone()].iter().copied().max();
                    let entry = &mut self.entries[id as usize];
                    entry.newest_ms =
                        newest_ms.map_or(entry.newest_ms, |ms| ms.max(entry.newest_ms));
                    let group = self.group(accumulators, id, &mut founded);
                    self.groups.push(&rows, group);
                }
                Some(ttl_ms) => {
                    for row in rows {
                        let time_ms = arrived.times[row];
                        let entry = &mut self.entries[id as usize];
                        if entry.slot != NO_SLOT
                            && entry.newest_ms + ttl_ms < time_ms.max(watermark_ms)
                        {
                            over.push(std::mem::replace(&mut entry.slot, NO_SLOT));
                            entry.newest_ms = time_ms;
                        }
                        entry.newest_ms = entry.newest_ms.max(time_ms);
                        let group = self.group(accumulators, id, &mut founded);
                        self.groups.push(&(row..row + 1), group);
                    }
                    self.set_timer(id);
                }
            }
            if accumulators.shelf().is_some() {
                self.tracker.touch(id);
            }
        }
        self.groups.end();

        let (folded, results) = accumulators.fold_each(arrived, &self.groups, out)?;
        accumulators.store(&self.groups, &folded.states)?;
        if !folded.lost.is_empty() {
            for group in self.groups.left_empty(&folded.lost) {
                let id = founded[group as usize - self.groups.existing];
                let slot = self.groups.slots[group as usize];
                if self.entries[id as usize].slot == slot {
                    self.forget(accumulators, &[id])?;
                } else if !over.contains(&slot) {
                    accumulators.release(slot);
                }
            }
        }
        for slot in over {
            accumulators.release(slot);
        }
        accumulators.emit_each(arrived, results, out);
        Ok(())
    }

    /// Forgets the states that are over by then.
    pub fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
    ) -> Result<(), OperatorError> {
        let Some(ttl_ms) = self.ttl_ms else {
            return Ok(());
        };
        let mut due = Vec::new();
        self.timers.take(watermark_ms, &mut due);
        let mut gone = Vec::new();
        for (due_ms, id) in due {
            let entry = &mut self.entries[id as usize];
            if entry.due_ms != due_ms {
                continue;
            }
            entry.due_ms = NEVER;
            if entry.newest_ms + ttl_ms < watermark_ms {
                gone.push(id);
            } else {
                self.set_timer(id);
            }
        }
        self.forget(accumulators, &gone)?;
        self.sweep(accumulators, ttl_ms, watermark_ms)
    }

    /// The same for those that are not here.
    fn sweep(
        &mut self,
        accumulators: &Accumulators,
        ttl_ms: i64,
        watermark_ms: i64,
    ) -> Result<(), OperatorError> {
        let shelf = accumulators
            .shelf()
            .filter(|_| self.cold.is_due(watermark_ms));
        let Some(shelf) = shelf.cloned() else {
            return Ok(());
        };
        self.cold.clear();
        let loaded = shelf.load(|mut chunk| {
            let layout = accumulators.layout();
            chunk.retain(|row, key| self.tracker.is_cold(layout, &self.keys, row, key));
            let mut over = Vec::with_capacity(chunk.len());
            for (_, _, row) in chunk.rows() {
                let (newest_ms, _) = read(row).map_err(|error| accumulators.broken(&error))?;
                let is_over = newest_ms + ttl_ms < watermark_ms;
                if !is_over {
                    self.cold.add(newest_ms + ttl_ms);
                }
                over.push(is_over);
            }
            let mut over = over.into_iter();
            chunk.retain(|row, _| {
                if over.next() == Some(true) {
                    self.tracker.delete_row(row.to_vec());
                }
                false
            });
            Ok::<_, LoadError>(true)
        });
        loaded.map_err(|error| accumulators.load_failed(error))
    }

    fn entry(&mut self, id: u32) -> &mut Entry {
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, NOTHING);
        }
        &mut self.entries[index]
    }

    /// The group of a key's state; a new one if it has none.
    fn group(&mut self, accumulators: &mut Accumulators, id: u32, founded: &mut Vec<u32>) -> u32 {
        let slot = &mut self.entries[id as usize].slot;
        if *slot == NO_SLOT {
            *slot = accumulators.allocate();
            founded.push(id);
            self.groups.of_new(*slot)
        } else {
            self.groups.of(*slot)
        }
    }

    fn set_timer(&mut self, id: u32) {
        let Some(ttl_ms) = self.ttl_ms else { return };
        let entry = &mut self.entries[id as usize];
        if entry.due_ms == NEVER {
            entry.due_ms = entry.newest_ms + ttl_ms + 1;
            self.timers.set(entry.due_ms, id);
        }
    }

    fn forget(
        &mut self,
        accumulators: &mut Accumulators,
        ids: &[u32],
    ) -> Result<(), OperatorError> {
        self.tracker.remove(accumulators, &self.keys, ids)?;
        for &id in ids {
            let entry = std::mem::replace(&mut self.entries[id as usize], NOTHING);
            if entry.slot != NO_SLOT {
                accumulators.release(entry.slot);
            }
            self.keys.remove(id);
        }
        Ok(())
    }
}

/// The time of a key's newest row, and its state.
fn read(row: &[u8]) -> Result<(i64, &[u8]), RowError> {
    let mut reader = Reader(row);
    let newest_ms = reader.i64()?;
    Ok((newest_ms, reader.last_state()))
}
