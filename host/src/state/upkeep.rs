//! Keeps the states of an operator within its share of the memory budget, and restores
//! as many as fit into it.

use super::error::StateError;
use super::keyed::KeyedPart;
use super::stored::StoredTable;
use super::table::StateTable;
use crate::budget::Share;
use crate::checkpoint::changes::Changes;

/// What one task's states of an operator may take.
pub struct Upkeep {
    /// Absent where the pipeline has no checkpoints: nothing can be evicted.
    share: Option<Share>,
}

impl Upkeep {
    /// `stored` is one of the operator's tables.
    pub fn new(stored: Option<&StoredTable>) -> Self {
        Upkeep {
            share: stored.map(|stored| Share::new(stored.budget.clone())),
        }
    }

    /// Restores a table of the last checkpoint. Reads as much as memory has room for, and
    /// what must be there; the rest is read back when needed.
    pub fn restore(
        &mut self,
        stored: &StoredTable,
        states: &mut StateTable,
        keyed: &mut dyn KeyedPart,
    ) -> Result<(), StateError> {
        let mut is_full = false;
        for mut scan in keyed.scans()? {
            while let Some(rows) = stored.next(&mut scan)? {
                is_full = is_full || self.excess(states, keyed) > 0;
                if !is_full {
                    keyed.restore(states, &rows)?;
                } else if !keyed.leave_evicted(states, rows)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// By how many bytes the states exceed their share.
    fn excess(&mut self, states: &StateTable, keyed: &dyn KeyedPart) -> usize {
        let Some(share) = &mut self.share else {
            return 0;
        };
        // Where all keys are in memory, a batch can have no more than these. What it reads
        // back comes on top, and may be as much for each of its rows.
        share.set_row_bytes(match keyed.has_evicted() {
            true => states.bytes_on_average(),
            false => states.bytes_a_row(),
        });
        share.set(states.bytes() + keyed.bytes())
    }

    /// Evicts states if they take too much memory, and requests a checkpoint where too
    /// many of them have changed to be evicted.
    pub fn evict_excess(&mut self, states: &mut StateTable, keyed: &mut dyn KeyedPart) {
        let excess = self.excess(states, keyed);
        if excess == 0 {
            return;
        }
        let keys = (keyed.keys_in_memory() + keyed.deletions()).max(1);
        let bytes_a_key = (self.share.as_ref().map_or(0, Share::bytes) / keys).max(1);
        keyed.evict(states, excess.div_ceil(bytes_a_key));
        let changed = keyed.changed();
        let still = self.excess(states, keyed);
        // A checkpoint of a few changed keys would not help.
        if still > 0
            && changed * 4 > keys
            && let Some(share) = &self.share
        {
            share.budget().request_checkpoint();
        }
    }

    /// Whether the operator must wait for the checkpoint in progress.
    pub fn is_full(&self) -> bool {
        let share = self.share.as_ref();
        share.is_some_and(|share| share.budget().is_full())
    }

    /// Counts what a snapshot holds until it is written.
    pub fn count(&self, changes: &mut Changes) {
        if let Some(share) = &self.share {
            changes.count_in(share.budget());
        }
    }
}
