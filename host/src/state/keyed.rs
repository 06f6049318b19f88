//! Keyed state: what an operator keeps for each key. Memory has it as far as there
//! is room, the storage has it as of the last checkpoint.
//!
//! [`KeyedStates`] numbers keys, notes which have changed, evicts keys that the
//! storage has as they are, reads them back in batches, hands changes over at a
//! checkpoint, restores them, and sweeps through keys that only the storage has
//! when they are due. What an entry is and how it becomes a row is said by
//! [`Entries`]; what it means is the business of whoever uses it.

use std::sync::Arc;

use super::calendar::{Calendar, NEVER};
use super::changed::ChangedKeys;
use super::error::StateError;
use super::key::{BatchKeys, KeyLayout, KeyTable, Selection};
use super::row::RowError;
use super::stored::{Scan, StoredRows, StoredTable};
use super::table::StateTable;
use crate::checkpoint::changes::Changes;
use crate::router;

/// What all keys of a table have in common.
pub struct KeyedTable {
    pub layout: KeyLayout,
    /// Where rows are kept, if they outlive the run.
    pub stored: Option<StoredTable>,
}

/// What an operator keeps for each key, by the key's number.
pub trait Entries {
    /// An entry as read from its row. Its states have no slots yet.
    type Entry;

    /// Bytes that an entry takes in memory, without its states.
    const BYTES: usize;

    /// Whether a restore must find out at once when keys are due that it leaves in
    /// the storage. Otherwise the first sweep does.
    const NEEDS_DUE: bool = false;

    /// Reads a row and appends its states to `states`.
    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError>;

    /// Writes the row of an entry with these states, which are in the order of
    /// [`Entries::slots`].
    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>);

    /// Lists the slots of an entry's states. A key without any has no row.
    fn slots(&self, id: u32, slots: &mut Vec<u32>);

    /// Takes an entry into memory; its states are in the next of `slots`.
    fn insert(&mut self, id: u32, entry: Self::Entry, slots: &mut dyn Iterator<Item = u32>);

    /// Removes an entry from memory and releases its slots.
    fn evict(&mut self, id: u32, states: &mut StateTable);

    /// Whether an entry has to stay in memory for now.
    fn is_pinned(&self, id: u32) -> bool;

    /// When an entry that was read is due.
    fn due_ms(&self, _entry: &Self::Entry) -> i64 {
        NEVER
    }

    /// When an entry is due.
    fn due_of(&self, _id: u32) -> i64 {
        NEVER
    }
}

/// The keys of a table, or of one pane of it, and what is kept for each.
pub struct KeyedStates<E> {
    pub entries: E,
    table: Arc<KeyedTable>,
    pane: i64,
    keys: KeyTable,
    changed: ChangedKeys,
    /// The storage has keys that are not in memory.
    has_evicted: bool,
    /// When those are due.
    calendar: Calendar,
}

/// What a checkpoint, a restore and the memory budget need of keyed state, whether
/// it is cut into panes or not.
pub trait KeyedPart {
    /// Bytes that keys and entries take in memory, without the states.
    fn bytes(&self) -> usize;

    /// About how many keys have changed since the last checkpoint.
    fn changed(&self) -> usize;

    /// Evicts up to so many keys: those that have not changed since they were stored.
    fn evict(&mut self, states: &mut StateTable, keys: usize);

    /// Writes what has changed since the last checkpoint into `changes`.
    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError>;

    /// Begins to read the rows of the last checkpoint.
    fn scans(&self) -> Result<Vec<Scan>, StateError>;

    /// Takes rows of the storage into memory.
    fn restore(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError>;

    /// Leaves rows in the storage. Tells whether it has to see the rows that follow.
    fn leave(&mut self, rows: &StoredRows) -> Result<bool, StateError>;
}

/// Keys whose states are encoded at a time.
const CHUNK_KEYS: usize = 8192;

impl<E: Entries> KeyedStates<E> {
    /// `horizon_ms` is how far ahead keys are usually due.
    pub fn new(table: Arc<KeyedTable>, pane: i64, horizon_ms: i64, entries: E) -> Self {
        KeyedStates {
            entries,
            table,
            pane,
            keys: KeyTable::default(),
            changed: ChangedKeys::default(),
            has_evicted: false,
            calendar: Calendar::new(horizon_ms),
        }
    }

    pub fn pane(&self) -> i64 {
        self.pane
    }

    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// The entries, to be changed, and their keys.
    pub fn parts(&mut self) -> (&mut E, &KeyTable) {
        (&mut self.entries, &self.keys)
    }

    /// The number of a run's key, which is about to change, and whether it is new.
    #[inline]
    pub fn upsert_run(&mut self, batch: &BatchKeys, run: usize) -> (u32, bool) {
        let (id, is_new) = self.keys.upsert_run(batch, run);
        self.touch(id);
        (id, is_new)
    }

    /// Notes that a key changes.
    #[inline]
    pub fn touch(&mut self, id: u32) {
        if self.table.stored.is_some() {
            self.changed.touch(id);
        }
    }

    /// Removes keys whose entries are empty, and has the next checkpoint delete
    /// their rows.
    pub fn remove(&mut self, ids: &[u32]) -> Result<(), StateError> {
        if let Some(stored) = &self.table.stored {
            let had_row = self.changed.forget(ids);
            if !had_row.is_empty() {
                let shards = shards(&self.table.layout, &self.keys, &had_row)?;
                for (&id, shard) in had_row.iter().zip(shards) {
                    let mut row = Vec::new();
                    stored.write_key(self.pane, shard, &[], &mut row);
                    self.keys.encode(&self.table.layout, id, &mut row);
                    self.changed.delete(row);
                }
            }
        }
        for &id in ids {
            self.keys.remove(id);
        }
        Ok(())
    }

    /// Has the next checkpoint delete rows whose keys are not in memory.
    pub fn delete(&mut self, rows: &StoredRows) {
        for row in rows.places() {
            self.delete_row(row);
        }
    }

    pub fn delete_row(&mut self, row: &[u8]) {
        self.changed.delete(row.to_vec());
    }

    /// Evicts these keys, except those that have to stay in memory.
    pub fn evict_keys(&mut self, states: &mut StateTable, ids: &[u32]) {
        for &id in ids {
            if self.entries.is_pinned(id) {
                self.changed.set_stored(id);
                continue;
            }
            self.changed.evict(id);
            self.has_evicted = true;
            self.calendar.add(self.entries.due_of(id));
            self.entries.evict(id, states);
            self.keys.remove(id);
        }
    }

    /// Whether the storage has keys that are not in memory.
    pub fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    /// Whether the storage has any rows of these keys.
    pub fn has_stored(&self) -> bool {
        self.has_evicted || self.changed.has_stored()
    }

    /// A time before which no key that only the storage has is due.
    pub fn first_due_ms(&self) -> Option<i64> {
        self.calendar.first()
    }

    /// The last time at which such a key is due.
    pub fn last_due_ms(&self) -> Option<i64> {
        self.calendar.last()
    }

    /// Reads the keys of a batch back that only the storage has: those of the runs
    /// for which `is_wanted` says so.
    pub fn read_back(
        &mut self,
        states: &mut StateTable,
        batch: &BatchKeys,
        mut is_wanted: impl FnMut(usize) -> bool,
    ) -> Result<(), StateError> {
        let Some(stored) = self.table.stored.as_ref().filter(|_| self.has_evicted) else {
            return Ok(());
        };
        let mut wanted = WantedRows::default();
        let mut shards = None;
        for run in 0..batch.runs() {
            if self.keys.find_run(batch, run).is_some() || !is_wanted(run) {
                continue;
            }
            let shards = shards
                .get_or_insert_with(|| router::shards(batch.columns().iter(), batch.all_rows()));
            let start = wanted.bytes.len();
            let shard = shards[batch.rows(run).start];
            stored.write_key(self.pane, shard, &[], &mut wanted.bytes);
            self.table.layout.encode(batch.key(run), &mut wanted.bytes);
            match self.changed.is_deleted(&wanted.bytes[start..]) {
                true => wanted.bytes.truncate(start),
                false => wanted.end_row(start),
            }
        }
        let rows = stored.fetch(&wanted.sorted())?;
        self.insert(states, &rows)
    }

    /// Begins to go through the keys that only the storage has.
    pub fn scan(&self) -> Option<Scan> {
        let stored = self.table.stored.as_ref().filter(|_| self.has_evicted)?;
        Some(stored.scan(self.pane))
    }

    /// Begins to go through those keys if any may be due by then. The caller reads
    /// the sweep to its end, which finds out anew when the rest are due.
    pub fn sweep(&mut self, now_ms: i64) -> Option<Scan> {
        if self.calendar.first().is_none_or(|due_ms| due_ms > now_ms) {
            return None;
        }
        let scan = self.scan()?;
        self.has_evicted = false;
        self.calendar.clear();
        Some(scan)
    }

    /// The next rows of a scan, without rows whose keys are in memory or deleted.
    pub fn next(&self, scan: &mut Scan) -> Result<Option<StoredRows>, StateError> {
        let Some(stored) = &self.table.stored else {
            return Ok(None);
        };
        let Some(mut rows) = stored.next(scan)? else {
            return Ok(None);
        };
        let keys = rows.rows().map(|(_, key, _)| key);
        let mut is_here = self.keys.has_rows(&self.table.layout, keys)?.into_iter();
        rows.retain(|row| is_here.next() == Some(false) && !self.changed.is_deleted(row));
        Ok(Some(rows))
    }

    /// The next rows of a sweep that are due by then. The others stay in the
    /// storage.
    pub fn next_due(
        &mut self,
        sweep: &mut Scan,
        now_ms: i64,
    ) -> Result<Option<StoredRows>, StateError> {
        let Some(mut rows) = self.next(sweep)? else {
            return Ok(None);
        };
        let mut is_due = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            let due_ms = self
                .entries
                .due_ms(&self.entries.read(row, &mut Vec::new())?);
            is_due.push(due_ms <= now_ms);
            if due_ms > now_ms {
                self.has_evicted = true;
                self.calendar.add(due_ms);
            }
        }
        let mut is_due = is_due.into_iter();
        rows.retain(|_| is_due.next() == Some(true));
        Ok(Some(rows))
    }

    /// Removes all keys, whose entries are empty, and keeps the allocated memory.
    pub fn clear(&mut self, pane: i64) {
        self.pane = pane;
        self.keys.clear();
        self.changed = ChangedKeys::default();
        self.has_evicted = false;
        self.calendar.clear();
    }

    /// Notes that only the storage has the keys of the pane.
    pub fn set_evicted(&mut self) {
        self.has_evicted = true;
        // The first sweep finds out when they are due.
        self.calendar.add(i64::MIN);
    }

    /// Takes rows of the storage into memory.
    pub fn insert(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError> {
        let mut encoded = Vec::with_capacity(rows.len());
        let mut entries = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            entries.push(self.entries.read(row, &mut encoded)?);
        }
        let mut slots = states.decode(encoded.into_iter())?.into_iter();
        for ((_, key, _), entry) in rows.rows().zip(entries) {
            let (id, _) = self.keys.upsert_row(&self.table.layout, key)?;
            self.entries.insert(id, entry, &mut slots);
            self.changed.set_stored(id);
        }
        Ok(())
    }
}

impl<E: Entries> KeyedPart for KeyedStates<E> {
    fn bytes(&self) -> usize {
        self.keys.bytes() + self.keys.len() * E::BYTES
    }

    fn changed(&self) -> usize {
        self.changed.count()
    }

    fn evict(&mut self, states: &mut StateTable, keys: usize) {
        if let Some(stored) = &self.table.stored {
            let victims = self.changed.victims(stored.budget.writes(), keys);
            self.evict_keys(states, &victims);
        }
    }

    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError> {
        let KeyedTable { layout, stored } = &*self.table;
        let Some(stored) = stored else { return Ok(()) };
        let mut slots = Vec::new();
        let mut ends = Vec::new();
        for ids in self
            .changed
            .hand_over(stored.budget.writes())
            .chunks(CHUNK_KEYS)
        {
            slots.clear();
            ends.clear();
            for &id in ids {
                self.entries.slots(id, &mut slots);
                ends.push(slots.len());
            }
            let encoded = states.encode(&slots)?;
            let mut of_key = Vec::new();
            let mut start = 0;
            let shards = shards(layout, &self.keys, ids)?;
            for ((&id, shard), &end) in ids.iter().zip(shards).zip(&ends) {
                of_key.clear();
                of_key.extend((start..end).map(|row| encoded.row(row)));
                start = end;
                if of_key.is_empty() {
                    continue;
                }
                self.changed.add_stored(id);
                changes.put(
                    |row| {
                        let first = row.len();
                        stored.write_key(self.pane, shard, &[], row);
                        self.keys.encode(layout, id, row);
                        self.changed.keep(&row[first..]);
                    },
                    |row| self.entries.write(id, &of_key, row),
                );
            }
        }
        for key in self.changed.hand_over_deleted() {
            changes.delete(|row| row.extend_from_slice(key));
        }
        Ok(())
    }

    fn scans(&self) -> Result<Vec<Scan>, StateError> {
        let stored = self.table.stored.iter();
        Ok(stored.map(|stored| stored.scan(self.pane)).collect())
    }

    fn restore(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError> {
        self.insert(states, rows)
    }

    fn leave(&mut self, rows: &StoredRows) -> Result<bool, StateError> {
        if rows.is_empty() {
            return Ok(true);
        }
        if !E::NEEDS_DUE {
            self.set_evicted();
            return Ok(false);
        }
        self.has_evicted = true;
        for (_, _, row) in rows.rows() {
            let entry = self.entries.read(row, &mut Vec::new())?;
            self.calendar.add(self.entries.due_ms(&entry));
        }
        Ok(true)
    }
}

/// Storage keys of the rows that a batch needs.
#[derive(Default)]
struct WantedRows {
    bytes: Vec<u8>,
    rows: Vec<WantedRow>,
}

/// Where a storage key is in the bytes, and its first bytes behind what all have
/// in common: keys differ there nearly always, so that few are compared whole.
struct WantedRow {
    prefix: u128,
    start: usize,
    end: usize,
}

impl WantedRows {
    /// Takes the bytes from `start` on as a row.
    fn end_row(&mut self, start: usize) {
        /// Table, kind and pane, which are the same for all.
        const COMMON: usize = 13;
        let end = self.bytes.len();
        let mut prefix = [0; size_of::<u128>()];
        let rest = &self.bytes[start + COMMON..end];
        let length = rest.len().min(prefix.len());
        prefix[..length].copy_from_slice(&rest[..length]);
        self.rows.push(WantedRow {
            prefix: u128::from_be_bytes(prefix),
            start,
            end,
        });
    }

    /// The keys in order, each once.
    fn sorted(&mut self) -> Vec<&[u8]> {
        let bytes = &self.bytes;
        let key = |row: &WantedRow| &bytes[row.start..row.end];
        self.rows.sort_unstable_by(|one, other| {
            let by_prefix = one.prefix.cmp(&other.prefix);
            by_prefix.then_with(|| key(one).cmp(key(other)))
        });
        let mut keys: Vec<&[u8]> = self.rows.iter().map(key).collect();
        keys.dedup();
        keys
    }
}

/// The shard of each key.
fn shards(layout: &KeyLayout, keys: &KeyTable, ids: &[u32]) -> Result<Vec<u32>, RowError> {
    let columns = keys.columns(layout, Selection::Each(ids))?;
    Ok(router::shards(columns.iter(), ids.len()))
}
