//! Notes which keys have rows that no early result has shown.

use super::tables::EARLY;

/// The keys of one table for the next early results. Stays empty if the pipeline
/// wants none.
#[derive(Clone, Debug)]
pub(super) struct EarlyKeys {
    are_wanted: bool,
    /// By key: whether it has rows that were not shown.
    waiting: Vec<bool>,
    /// The waiting keys, and some that have been removed.
    ids: Vec<u32>,
}

impl EarlyKeys {
    pub fn new(are_wanted: bool) -> Self {
        EarlyKeys {
            are_wanted,
            waiting: Vec::new(),
            ids: Vec::new(),
        }
    }

    pub fn are_wanted(&self) -> bool {
        self.are_wanted
    }

    /// Notes that a key has rows that were not shown.
    pub fn note(&mut self, id: u32) {
        if !self.are_wanted {
            return;
        }
        let index = id as usize;
        if index >= self.waiting.len() {
            self.waiting.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.waiting[index], true) {
            self.ids.push(id);
        }
    }

    pub fn has(&self, id: u32) -> bool {
        self.waiting.get(id as usize) == Some(&true)
    }

    /// The flag in the key's row.
    pub fn flag(&self, id: u32) -> u8 {
        if self.has(id) { EARLY } else { 0 }
    }

    /// Notes that a key was removed.
    pub fn forget(&mut self, id: u32) {
        if let Some(waits) = self.waiting.get_mut(id as usize) {
            *waits = false;
        }
    }

    /// All waiting keys.
    pub fn ids(&self) -> Vec<u32> {
        let ids = self.ids.iter().copied();
        ids.filter(|&id| self.has(id)).collect()
    }

    /// Takes all waiting keys, for early results.
    pub fn take(&mut self) -> Vec<u32> {
        let mut ids = std::mem::take(&mut self.ids);
        ids.retain(|&id| std::mem::take(&mut self.waiting[id as usize]));
        ids
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
        self.ids.clear();
    }
}
