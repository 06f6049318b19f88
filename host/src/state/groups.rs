//! Numbers the groups of a batch, one for each state that its rows are folded into.
//! Groups with an existing state come first, as the plugin expects.

use std::ops::Range;

/// The groups of the current batch.
#[derive(Debug, Default)]
pub struct Groups {
    /// The group of each row.
    pub of_row: Vec<u32>,
    /// The slot of each group: first `existing` ones that have a state, then new ones.
    pub slots: Vec<u32>,
    pub existing: usize,
    new: Vec<u32>,
    /// For each slot, the batch in which it was last seen, and its group there.
    seen: Vec<(u32, u32)>,
    batch: u32,
}

/// Marks the number of a new group until [`Groups::end`], when the number of existing
/// groups is known.
const NEW: u32 = 1 << 31;

/// Stands for no slot.
pub const NO_SLOT: u32 = u32::MAX;

impl Groups {
    /// Starts a batch. `slots` is how many slots the table has.
    pub fn begin(&mut self, slots: usize) {
        self.of_row.clear();
        self.slots.clear();
        self.new.clear();
        if self.batch == u32::MAX {
            self.seen.clear();
            self.batch = 0;
        }
        self.batch += 1;
        if self.seen.len() < slots {
            self.seen.resize(slots, (0, 0));
        }
    }

    /// The group of a slot that has a state, or was made new in this batch.
    #[inline]
    pub fn of(&mut self, slot: u32) -> u32 {
        let seen = &mut self.seen[slot as usize];
        if seen.0 != self.batch {
            *seen = (self.batch, self.slots.len() as u32);
            self.slots.push(slot);
        }
        seen.1
    }

    /// The group of a slot that was just allocated.
    #[inline]
    pub fn of_new(&mut self, slot: u32) -> u32 {
        let index = slot as usize;
        if index >= self.seen.len() {
            self.seen.resize(index + 1, (0, 0));
        }
        let group = NEW | self.new.len() as u32;
        self.seen[index] = (self.batch, group);
        self.new.push(slot);
        group
    }

    #[inline]
    pub fn push(&mut self, rows: &Range<usize>, group: u32) {
        if rows.len() == 1 {
            self.of_row.push(group);
        } else {
            self.of_row.resize(self.of_row.len() + rows.len(), group);
        }
    }

    /// Ends a batch, and gives groups their final numbers.
    pub fn end(&mut self) {
        self.existing = self.slots.len();
        if self.new.is_empty() {
            return;
        }
        let existing = self.existing as u32;
        for group in &mut self.of_row {
            if *group & NEW != 0 {
                *group = existing + (*group & !NEW);
            }
        }
        self.slots.append(&mut self.new);
    }

    /// The last row of each group.
    pub fn last_rows(&self) -> Vec<u32> {
        let mut rows = vec![0; self.slots.len()];
        for (row, &group) in (0..).zip(&self.of_row) {
            rows[group as usize] = row;
        }
        rows
    }

    /// The number of a slot's group, once the batch has ended.
    pub fn number(&self, slot: u32) -> Option<u32> {
        let at = self.slots.iter().position(|&other| other == slot)?;
        Some(at as u32)
    }

    /// The new groups that have only `lost` rows: index among the new groups, and
    /// slot.
    pub fn left_empty(&self, lost: &[u32]) -> Vec<(usize, u32)> {
        let mut rows = vec![0u32; self.slots.len() - self.existing];
        let mut lost = lost.iter().peekable();
        for (row, &group) in self.of_row.iter().enumerate() {
            if lost.next_if(|&&lost| lost as usize == row).is_some() {
                continue;
            }
            if let Some(group) = (group as usize).checked_sub(self.existing) {
                rows[group] += 1;
            }
        }
        let new = self.slots[self.existing..].iter().zip(rows).enumerate();
        new.filter(|(_, (_, rows))| *rows == 0)
            .map(|(at, (&slot, _))| (at, slot))
            .collect()
    }
}
