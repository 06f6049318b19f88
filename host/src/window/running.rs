//! No windows: one state a key for ever, and a result after each row.

use super::accumulators::{Accumulators, Arrived};
use super::groups::{Groups, NO_SLOT};
use super::tracker::Tracker;
use crate::checkpoint::snapshot::Changes;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::shelf::Chunk;

pub(super) struct Running {
    keys: KeyTable,
    /// By key; [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    batch_keys: BatchKeys,
    groups: Groups,
    tracker: Tracker,
    /// The storage has keys that are not here.
    has_cold: bool,
}

/// What a key takes here beside its entry in the table of keys.
const KEY_BYTES: usize = size_of::<u32>() + 1;

impl Running {
    pub fn new(accumulators: &Accumulators) -> Self {
        Running {
            keys: KeyTable::default(),
            slots: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            tracker: Tracker::default(),
            has_cold: false,
        }
    }

    /// What is here takes, in bytes, without the states.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.keys.len() * KEY_BYTES
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
            accumulators.release(std::mem::replace(&mut self.slots[id as usize], NO_SLOT));
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
        let slots = &self.slots;
        self.tracker.freeze(
            accumulators,
            &self.keys,
            0,
            changes,
            |id, wanted| {
                let slot = slots[id as usize];
                wanted.extend((slot != NO_SLOT).then_some(slot));
            },
            |_, states, row| row.extend(states.iter().copied().flatten()),
        )
    }

    /// Takes back what was frozen.
    pub fn thaw(
        &mut self,
        accumulators: &mut Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        let slots = accumulators.decode(chunk.rows().map(|(_, _, row)| row))?;
        for ((_, key, _), slot) in chunk.rows().zip(slots) {
            let upserted = self.keys.upsert_row(accumulators.layout(), key);
            let (id, _) = upserted.map_err(|error| accumulators.broken(&error))?;
            self.slots
                .resize(self.slots.len().max(id as usize + 1), NO_SLOT);
            self.slots[id as usize] = slot;
            self.tracker.set_stored(id);
        }
        Ok(())
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        accumulators.read_keys(&mut self.batch_keys, arrived, |_| false)?;
        if self.has_cold {
            let keys = &self.keys;
            let batch_keys = &self.batch_keys;
            let missing = |run| keys.find(batch_keys.key(run)).is_none().then_some(0);
            let chunk = accumulators.fetch(batch_keys, arrived, &self.tracker, missing)?;
            self.thaw(accumulators, &chunk)?;
        }
        self.groups.begin(accumulators.slots());
        let mut founded = Vec::new();
        for run in 0..self.batch_keys.runs() {
            let (id, is_new) = self.keys.upsert(self.batch_keys.key(run));
            if is_new {
                self.slots
                    .resize(self.slots.len().max(id as usize + 1), NO_SLOT);
            }
            let slot = &mut self.slots[id as usize];
            let group = if *slot == NO_SLOT {
                *slot = accumulators.allocate();
                founded.push(id);
                self.groups.of_new(*slot)
            } else {
                self.groups.of(*slot)
            };
            self.groups.push(&self.batch_keys.rows(run), group);
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
                self.slots[id as usize] = NO_SLOT;
                self.tracker.remove(accumulators, &self.keys, &[id])?;
                self.keys.remove(id);
                accumulators.release(self.groups.slots[group as usize]);
            }
        }
        accumulators.emit_each(arrived, results, out);
        Ok(())
    }
}
