//! Decides which keys of a table the next checkpoint writes, and which may be evicted
//! because the storage has their latest version.

use std::collections::HashSet;

/// Flags of each key of a table, by the key's number.
#[derive(Debug, Default)]
pub struct ChangedKeys {
    flags: Vec<u8>,
    /// Keys that have changed; some of them may have been removed.
    changed: Vec<u32>,
    /// Storage keys of rows that the next checkpoint deletes.
    deleted: Rows,
    /// Rows that the last checkpoint deletes, which may not be written yet.
    deleting: Rows,
    /// The clock algorithm's position.
    hand: usize,
    /// How many checkpoints had been written when changes were last handed over.
    /// After one more, these changes can be read back.
    handed_over_at: Option<u64>,
}

/// Storage keys of rows.
#[derive(Debug, Default)]
struct Rows {
    keys: HashSet<Box<[u8]>>,
    /// Bytes of the keys themselves.
    bytes: usize,
}

impl Rows {
    fn insert(&mut self, row: Vec<u8>) {
        let bytes = row.len();
        if self.keys.insert(row.into()) {
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, row: &[u8]) {
        if self.keys.remove(row) {
            self.bytes -= row.len();
        }
    }

    /// About what they take in memory.
    fn bytes(&self) -> usize {
        // Its place in the table, which is up to half empty, and what the allocator adds.
        const ROW: usize = 2 * (size_of::<Box<[u8]>>() + 1) + 16;
        self.bytes + self.keys.len() * ROW
    }
}

const CHANGED: u8 = 1;
/// The storage has a row of the key.
const STORED: u8 = 2;
/// The key was needed since the hand last passed it.
const USED: u8 = 4;

impl ChangedKeys {
    /// Notes that a key has changed.
    #[inline]
    pub fn touch(&mut self, id: u32) {
        let flags = self.flags(id);
        let was_changed = *flags & CHANGED != 0;
        *flags |= USED | CHANGED;
        if !was_changed {
            self.changed.push(id);
        }
    }

    /// Notes that the storage has the key's latest version.
    pub fn set_stored(&mut self, id: u32) {
        *self.flags(id) = STORED;
    }

    /// Notes that the key's latest version was read from the storage, since it is needed.
    pub fn set_read(&mut self, id: u32) {
        *self.flags(id) = STORED | USED;
    }

    /// Notes that the checkpoint writes the version that was handed over.
    pub fn add_stored(&mut self, id: u32) {
        *self.flags(id) |= STORED;
    }

    #[inline]
    fn flags(&mut self, id: u32) -> &mut u8 {
        let index = id as usize;
        if index >= self.flags.len() {
            self.flags.resize(index + 1, 0);
        }
        &mut self.flags[index]
    }

    /// Picks keys to evict: those whose latest version the storage has, least
    /// recently used first (the clock algorithm: Corbató, A paging experiment with
    /// the Multics system, 1968). `writes` is how many checkpoints have been
    /// written.
    pub fn victims(&mut self, writes: u64, count: usize) -> Vec<u32> {
        let mut victims = Vec::new();
        if self.handed_over_at.is_some_and(|before| writes <= before) {
            return victims;
        }
        // The last checkpoint has been written.
        self.deleting = Rows::default();
        // The first round clears every `USED`, so two rounds find all victims.
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

    /// Notes that a key was evicted.
    pub fn evict(&mut self, id: u32) {
        self.flags[id as usize] = 0;
    }

    /// About how many keys have changed, or were removed.
    pub fn count(&self) -> usize {
        self.changed.len() + self.deleted.keys.len()
    }

    /// How many rows are to be deleted, or may not be deleted yet.
    pub fn deletions(&self) -> usize {
        self.deleted.keys.len() + self.deleting.keys.len()
    }

    /// About what these take in memory.
    pub fn deletion_bytes(&self) -> usize {
        self.deleted.bytes() + self.deleting.bytes()
    }

    /// Whether a row of the storage is stale, since a checkpoint deletes it.
    pub fn is_deleted(&self, row: &[u8]) -> bool {
        self.deleted.keys.contains(row) || self.deleting.keys.contains(row)
    }

    /// Has the next checkpoint delete a row of the storage.
    pub fn delete(&mut self, row: Vec<u8>) {
        self.deleted.insert(row);
    }

    /// Withdraws the deletion of a row, since its key exists again.
    pub fn keep(&mut self, row: &[u8]) {
        if !self.deleted.keys.is_empty() {
            self.deleted.remove(row);
        }
    }

    /// Whether the storage has a row of any key in memory, or one that is to be deleted.
    pub fn has_stored(&self) -> bool {
        let mut flags = self.flags.iter();
        !self.deleted.keys.is_empty() || flags.any(|flags| flags & STORED != 0)
    }

    /// Clears the flags of removed keys, and returns those that have a row in the
    /// storage.
    pub fn forget(&mut self, ids: &[u32]) -> Vec<u32> {
        let mut stored = ids.to_vec();
        stored.retain(|&id| {
            let flags = self.flags.get_mut(id as usize);
            flags.is_some_and(|flags| std::mem::take(flags) & STORED != 0)
        });
        stored
    }

    /// Takes the keys that have changed, for a checkpoint, in the order of their
    /// numbers. Keys and states lie in memory in this order; in the order of the
    /// changes, each read would be a cache miss.
    pub fn hand_over(&mut self, writes: u64) -> Vec<u32> {
        self.handed_over_at = Some(writes);
        let flags = &mut self.flags;
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.retain(|&id| {
            let flags = &mut flags[id as usize];
            std::mem::replace(flags, *flags & !CHANGED) & CHANGED != 0
        });
        changed
    }

    /// Takes the rows to delete, for a checkpoint. They count as deleted until the
    /// next checkpoint.
    pub fn hand_over_deleted(&mut self) -> impl Iterator<Item = &[u8]> {
        self.deleting = std::mem::take(&mut self.deleted);
        self.deleting.keys.iter().map(|key| &**key)
    }
}
