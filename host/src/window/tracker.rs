//! Which keys have changed since the last checkpoint, and what becomes of their
//! rows of state.

use std::collections::HashSet;

use super::accumulators::Accumulators;
use crate::checkpoint::changes::Changes;
use crate::operator::OperatorError;
use crate::router;
use crate::state::key::{KeyLayout, KeyTable, Selection};

/// Of the keys of one table, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    flags: Vec<u8>,
    /// Keys that have changed; some of them may be gone.
    changed: Vec<u32>,
    /// Keys of rows that are to be deleted.
    deleted: HashSet<Vec<u8>>,
    /// Those of the last checkpoint, which may still be under way.
    deleting: HashSet<Vec<u8>>,
    /// The next key that may be given up.
    hand: usize,
    /// How many checkpoints had been written when keys were last handed over:
    /// after one more, those can be read back.
    frozen_at: Option<u64>,
}

const CHANGED: u8 = 1;
/// The storage has a row of the key.
const STORED: u8 = 2;
/// The key was needed since the hand last passed it.
const USED: u8 = 4;

/// Keys whose states are encoded at a time.
const CHUNK_KEYS: usize = 8192;

impl Tracker {
    /// Notes that a key has changed.
    #[inline]
    pub fn touch(&mut self, id: u32) {
        let index = id as usize;
        if index >= self.flags.len() {
            self.flags.resize(index + 1, 0);
        }
        let flags = &mut self.flags[index];
        *flags |= USED;
        if *flags & CHANGED == 0 {
            *flags |= CHANGED;
            self.changed.push(id);
        }
    }

    /// Notes that the storage has the key as it is.
    pub fn set_stored(&mut self, id: u32) {
        let index = id as usize;
        if index >= self.flags.len() {
            self.flags.resize(index + 1, 0);
        }
        self.flags[index] = STORED;
    }

    /// Keys that can be given up, since the storage has them as they are: those
    /// first that have not been needed for long (the clock algorithm: Corbató, A
    /// paging experiment with the Multics system, 1968).
    pub fn victims(&mut self, accumulators: &Accumulators, count: usize) -> Vec<u32> {
        let mut victims = Vec::new();
        let writes = accumulators.shelf().map(|shelf| shelf.budget.writes());
        if self.frozen_at.is_some() && writes <= self.frozen_at {
            return victims;
        }
        // The second time around, nothing is left that was needed.
        for _ in 0..2 * self.flags.len() {
            if victims.len() == count {
                break;
            }
            self.hand = (self.hand + 1) % self.flags.len();
            let flags = &mut self.flags[self.hand];
            if std::mem::replace(flags, *flags & !USED) & (USED | CHANGED | STORED) == STORED {
                *flags = 0;
                victims.push(self.hand as u32);
            }
        }
        victims
    }

    /// These keys are given up, which the storage has as they are.
    pub fn let_go(&mut self, ids: &[u32]) {
        for &id in ids {
            self.flags[id as usize] = 0;
        }
    }

    /// A victim is not given up.
    pub fn spare(&mut self, id: u32) {
        self.flags[id as usize] = STORED;
    }

    /// How many keys have changed, about.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Whether a row is to be deleted: what the storage has is stale.
    pub fn is_gone(&self, row: &[u8]) -> bool {
        self.deleted.contains(row) || self.deleting.contains(row)
    }

    /// Whether what the storage has of a key holds: it is not in memory, nor to
    /// be deleted.
    pub fn is_cold(&self, layout: &KeyLayout, keys: &KeyTable, row: &[u8], key: &[u8]) -> bool {
        !self.is_gone(row) && !matches!(keys.find_row(layout, key), Ok(Some(_)))
    }

    /// A row that nobody has in memory is to be deleted.
    pub fn delete_row(&mut self, row: Vec<u8>) {
        self.deleted.insert(row);
    }

    /// Whether the storage has a row of any key.
    pub fn has_stored(&self) -> bool {
        self.flags.iter().any(|flags| flags & STORED != 0)
    }

    /// Notes that these keys, which their table still has, are gone.
    pub fn remove(
        &mut self,
        accumulators: &Accumulators,
        keys: &KeyTable,
        ids: &[u32],
    ) -> Result<(), OperatorError> {
        let Some(shelf) = accumulators.shelf() else {
            return Ok(());
        };
        let mut stored = Vec::new();
        for &id in ids {
            if let Some(flags) = self.flags.get_mut(id as usize)
                && std::mem::take(flags) & STORED != 0
            {
                stored.push(id);
            }
        }
        let shards = shards(accumulators, keys, &stored)?;
        for (&id, shard) in stored.iter().zip(shards) {
            let mut row = Vec::new();
            shelf.write_key(0, shard, &[], &mut row);
            keys.encode(accumulators.layout(), id, &mut row);
            self.deleted.insert(row);
        }
        Ok(())
    }

    /// Hands over the rows of the keys that have changed. `slots` lists the
    /// states of a key; `write` is given them, encoded, and writes its row.
    pub fn freeze(
        &mut self,
        accumulators: &Accumulators,
        keys: &KeyTable,
        pane: i64,
        changes: &mut Changes,
        slots: impl Fn(u32, &mut Vec<u32>),
        write: impl Fn(u32, &[&[u8]], &mut Vec<u8>),
    ) -> Result<(), OperatorError> {
        let Some(shelf) = accumulators.shelf() else {
            return Ok(());
        };
        self.frozen_at = Some(shelf.budget.writes());
        let flags = &mut self.flags;
        let mut changed = std::mem::take(&mut self.changed);
        // In the order in which keys and states lie in memory: in the order in
        // which they have changed, each would be fetched by itself.
        changed.sort_unstable();
        changed.retain(|&id| {
            let flags = &mut flags[id as usize];
            std::mem::replace(flags, *flags & !CHANGED) & CHANGED != 0
        });
        let mut wanted = Vec::new();
        let mut ends = Vec::new();
        for ids in changed.chunks(CHUNK_KEYS) {
            wanted.clear();
            ends.clear();
            for &id in ids {
                slots(id, &mut wanted);
                ends.push(wanted.len());
            }
            let encoded = accumulators.encode(&wanted)?;
            let shards = shards(accumulators, keys, ids)?;
            let mut states = Vec::new();
            let mut start = 0;
            for ((&id, shard), &end) in ids.iter().zip(shards).zip(&ends) {
                states.clear();
                states.extend((start..end).map(|row| encoded.row(row)));
                start = end;
                if states.is_empty() {
                    continue;
                }
                flags[id as usize] |= STORED;
                changes.put(
                    |row| {
                        let first = row.len();
                        shelf.write_key(pane, shard, &[], row);
                        keys.encode(accumulators.layout(), id, row);
                        if !self.deleted.is_empty() {
                            self.deleted.remove(&row[first..]);
                        }
                    },
                    |row| write(id, &states, row),
                );
            }
        }
        self.deleting = std::mem::take(&mut self.deleted);
        for key in &self.deleting {
            changes.delete(|row| row.extend_from_slice(key));
        }
        Ok(())
    }
}

fn shards(
    accumulators: &Accumulators,
    keys: &KeyTable,
    ids: &[u32],
) -> Result<Vec<u32>, OperatorError> {
    let columns = keys
        .columns(accumulators.layout(), Selection::Each(ids))
        .map_err(|error| accumulators.broken(&error))?;
    Ok(router::shards(columns.iter(), ids.len()))
}
