//! No windows: one state a key for ever, and a result after each row.

use super::accumulators::{Accumulators, Arrived};
use super::groups::{Groups, NO_SLOT};
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};

pub(super) struct Running {
    keys: KeyTable,
    /// By key; [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    batch_keys: BatchKeys,
    groups: Groups,
}

impl Running {
    pub fn new(accumulators: &Accumulators) -> Self {
        Running {
            keys: KeyTable::default(),
            slots: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
        }
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        accumulators.read_keys(&mut self.batch_keys, arrived, |_| false)?;
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
        }
        self.groups.end();

        let (folded, results) = accumulators.fold_each(arrived, &self.groups, out)?;
        accumulators.store(&self.groups, &folded.states)?;
        if !folded.lost.is_empty() {
            for group in self.groups.left_empty(&folded.lost) {
                let id = founded[group as usize - self.groups.existing];
                self.slots[id as usize] = NO_SLOT;
                self.keys.remove(id);
                accumulators.release(self.groups.slots[group as usize]);
            }
        }
        accumulators.emit_each(arrived, results, out);
        Ok(())
    }
}
