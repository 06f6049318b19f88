//! Keyed state: the entry that an operator keeps for each key. The storage has all
//! entries as of the last checkpoint, memory has as many as there is room for.
//!
//! [`KeyedStates`] numbers keys, notes changed ones, evicts unchanged ones, reads
//! them back in batches, snapshots and restores, and sweeps through evicted keys
//! when they are due. An operator defines its entries and their rows by
//! [`Entries`].

use std::sync::Arc;

use super::calendar::{Calendar, NEVER};
use super::changed::ChangedKeys;
use super::error::StateError;
use super::key::{BatchKeys, KeyLayout, KeyTable, Selection};
use super::look::{Look, Place, Seen, SeenRow, WantedKey, Within};
use super::row::RowError;
use super::stored::{PANE_PREFIX, Scan, StoredRows, StoredTable};
use super::table::StateTable;
use crate::checkpoint::changes::Changes;
use crate::shard;

/// A table of keyed state, which all its panes share.
pub struct KeyedTable {
    pub layout: KeyLayout,
    /// The table in the storage; absent where the pipeline has no checkpoints.
    pub stored: Option<StoredTable>,
}

/// The entries of an operator, by the number of their key.
pub trait Entries {
    /// An entry that was read from its row, before its states get slots.
    type Entry;

    /// Bytes that an entry takes in memory, without its states.
    const BYTES: usize;

    /// Whether a restore must read when the keys are due that it leaves in the
    /// storage. Otherwise the first sweep does.
    const NEEDS_DUE: bool = false;

    /// Reads a row and appends its states to `states`.
    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError>;

    /// Writes the row of an entry. `states` are in the order of [`Entries::slots`].
    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>);

    /// Lists the slots of an entry's states. An entry without any gets no row, unless
    /// [`Entries::has_row`].
    fn slots(&self, id: u32, slots: &mut Vec<u32>);

    /// Whether an entry without states gets a row.
    fn has_row(&self, _id: u32) -> bool {
        false
    }

    /// Adds an entry to memory; its states are in the next of `slots`.
    fn insert(&mut self, id: u32, entry: Self::Entry, slots: &mut dyn Iterator<Item = u32>);

    /// Removes an entry from memory and releases its slots.
    fn evict(&mut self, id: u32, states: &mut StateTable);

    /// Whether an entry must not be evicted now.
    fn is_pinned(&self, id: u32) -> bool;

    /// Whether there can be pinned entries in the storage: those of an earlier run.
    fn may_be_pinned(&self) -> bool {
        false
    }

    /// Whether an entry that was read from its row was pinned when that was written. A
    /// restore reads it into memory, however full that is.
    fn was_pinned(&self, _entry: &Self::Entry) -> bool {
        false
    }

    /// Bytes that entries take besides [`Entries::BYTES`].
    fn bytes(&self) -> usize {
        0
    }

    /// When an entry is due that was read from its row.
    fn due_ms(&self, _entry: &Self::Entry) -> i64 {
        NEVER
    }

    /// When an entry in memory is due.
    fn due_of(&self, _id: u32) -> i64 {
        NEVER
    }

    /// When an entry is due by the clock, if it depends on that as well.
    fn processing_due_ms(&self, _entry: &Self::Entry) -> i64 {
        NEVER
    }

    /// The same of an entry in memory.
    fn processing_due_of(&self, _id: u32) -> i64 {
        NEVER
    }
}

/// How far time has come for entries that are due.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// In the operator's time, in ms.
    pub time_ms: i64,
    /// By the clock, in ms.
    pub processing_ms: i64,
}

/// For entries that do not depend on the clock.
impl From<i64> for Reached {
    fn from(time_ms: i64) -> Self {
        Reached {
            time_ms,
            processing_ms: i64::MIN,
        }
    }
}

/// The keys and entries of a table, or of one pane of it.
pub struct KeyedStates<E> {
    pub entries: E,
    table: Arc<KeyedTable>,
    pane: i64,
    keys: KeyTable,
    changed: ChangedKeys,
    /// Whether the storage has keys that are not in memory.
    has_evicted: bool,
    /// Whether it has some that the sweep in progress has passed.
    has_passed: bool,
    /// Whether a sweep is in progress: what it has not passed is in no calendar.
    is_swept: bool,
    /// When these are due.
    calendar: Calendar,
    /// When these are due by the clock.
    processing_calendar: Calendar,
    ahead: Ahead,
}

/// How far ahead of time a sweep reads keys back. It reads all rows to find those that are
/// due, so the farther ahead, the fewer sweeps there are; but what it reads back needs
/// memory.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    ms: i64,
    /// It never gets more than this.
    ms_max: i64,
    /// What the sweep in progress has read back that is not due yet.
    bytes: usize,
}

/// What part of the memory budget a sweep may fill with keys that are not due yet.
const AHEAD_PART: usize = 32;

impl Ahead {
    fn new(horizon_ms: i64) -> Self {
        Ahead {
            ms: (horizon_ms / 16).max(1),
            ms_max: (horizon_ms / 4).max(1),
            bytes: 0,
        }
    }

    fn of(&self, now: Reached) -> Reached {
        Reached {
            time_ms: now.time_ms.saturating_add(self.ms),
            processing_ms: now.processing_ms.saturating_add(self.ms),
        }
    }

    /// After a sweep: the next one reads as far ahead as there is room for.
    fn settle(&mut self, bytes_max: usize) {
        if self.bytes >= bytes_max {
            self.ms = (self.ms / 2).max(1);
        } else if self.bytes < bytes_max / 4 {
            self.ms = self.ms.saturating_mul(2).min(self.ms_max);
        }
        self.bytes = 0;
    }
}

/// What checkpoints, restores and the memory budget need of keyed state, with or
/// without panes.
pub trait KeyedPart {
    /// Bytes that keys and entries take in memory, without the states.
    fn bytes(&self) -> usize;

    /// How many keys are in memory.
    fn keys_in_memory(&self) -> usize;

    /// About how many keys have changed since the last checkpoint, or were removed.
    fn changed(&self) -> usize;

    /// How many keys were removed whose rows are still to be deleted from the storage.
    fn deletions(&self) -> usize;

    /// Whether the storage has keys that are not in memory.
    fn has_evicted(&self) -> bool;

    /// Evicts at most `keys` keys that have not changed since they were stored.
    fn evict(&mut self, states: &mut StateTable, keys: usize);

    /// Adds what has changed since the last checkpoint to `changes`.
    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError>;

    /// Starts scans of all rows of the last checkpoint.
    fn scans(&self) -> Result<Vec<Scan>, StateError>;

    /// Reads rows of the storage into memory.
    fn restore(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError>;

    /// Leaves rows evicted at a restore, but for those that must be in memory. Returns
    /// whether it needs the rest of the scan, too.
    fn leave_evicted(
        &mut self,
        states: &mut StateTable,
        rows: StoredRows,
    ) -> Result<bool, StateError>;

    /// Shows rows as the next checkpoint would write them, those in the storage included.
    fn look(&self, states: &StateTable, look: &Look, seen: &mut Seen) -> Result<(), StateError>;
}

/// How many keys' states are encoded at a time, and about how many bytes.
const CHUNK_KEYS: usize = 8192;
const CHUNK_BYTES: usize = 4 << 20;

impl<E: Entries> KeyedStates<E> {
    /// `horizon_ms` is how far ahead keys are usually due, in the unit of their times.
    pub fn new(table: Arc<KeyedTable>, pane: i64, horizon_ms: i64, entries: E) -> Self {
        KeyedStates {
            entries,
            table,
            pane,
            keys: KeyTable::default(),
            changed: ChangedKeys::default(),
            has_evicted: false,
            has_passed: false,
            is_swept: false,
            calendar: Calendar::default(),
            processing_calendar: Calendar::default(),
            ahead: Ahead::new(horizon_ms),
        }
    }

    pub fn pane(&self) -> i64 {
        self.pane
    }

    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// The entries, mutable, and the keys.
    pub fn parts(&mut self) -> (&mut E, &KeyTable) {
        (&mut self.entries, &self.keys)
    }

    /// The number of a run's key, and whether it is new. Marks the key as changed.
    #[inline]
    pub fn upsert_run(&mut self, batch: &BatchKeys, run: usize) -> (u32, bool) {
        let (id, is_new) = self.keys.upsert_run(batch, run);
        self.touch(id);
        (id, is_new)
    }

    /// Marks a key as changed.
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

    /// Has the next checkpoint delete rows of evicted keys.
    pub fn delete(&mut self, rows: &StoredRows) {
        for row in rows.storage_keys() {
            self.delete_row(row);
        }
    }

    pub fn delete_row(&mut self, row: &[u8]) {
        self.changed.delete(row.to_vec());
    }

    /// Evicts these keys, except pinned ones.
    pub fn evict_keys(&mut self, states: &mut StateTable, ids: &[u32]) {
        for &id in ids {
            if self.entries.is_pinned(id) {
                self.changed.set_stored(id);
                continue;
            }
            self.changed.evict(id);
            self.has_evicted = true;
            self.has_passed = true;
            self.calendar.add(self.entries.due_of(id));
            let processing_ms = self.entries.processing_due_of(id);
            self.processing_calendar.add(processing_ms);
            self.entries.evict(id, states);
            self.keys.remove(id);
        }
    }

    /// Whether the storage has any rows of these keys.
    pub fn has_stored(&self) -> bool {
        self.has_evicted || self.changed.has_stored()
    }

    /// A time before which no evicted key is due.
    pub fn first_due_ms(&self) -> Option<i64> {
        self.calendar.first()
    }

    /// The same by the clock.
    pub fn first_processing_due_ms(&self) -> Option<i64> {
        self.processing_calendar.first()
    }

    /// About the last time at which an evicted key is due.
    pub fn last_due_ms(&self) -> Option<i64> {
        self.calendar.last()
    }

    /// Reads evicted keys of a batch back, of the runs for which `is_wanted` is true.
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
                .get_or_insert_with(|| shard::shards(batch.columns().iter(), batch.all_rows()));
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

    /// Starts a scan of the evicted keys.
    pub fn scan(&self) -> Option<Scan> {
        let stored = self.table.stored.as_ref().filter(|_| self.has_evicted)?;
        Some(stored.scan(self.pane))
    }

    /// Starts a sweep of the evicted keys, if any may be due. The caller must read it to
    /// its end by [`KeyedStates::next_due`], which notes when the others are due; rows and
    /// checkpoints may come in between.
    pub fn sweep(&mut self, now: impl Into<Reached>) -> Option<Scan> {
        let now = now.into();
        let is_due = |calendar: &Calendar, now_ms| calendar.first().is_some_and(|ms| ms <= now_ms);
        if !is_due(&self.calendar, now.time_ms)
            && !is_due(&self.processing_calendar, now.processing_ms)
        {
            return None;
        }
        let scan = self.scan()?;
        self.has_passed = false;
        self.is_swept = true;
        self.calendar.clear();
        self.processing_calendar.clear();
        Some(scan)
    }

    /// Notes that a sweep has been read to its end.
    pub fn end_sweep(&mut self) {
        self.has_evicted = self.has_passed;
        self.is_swept = false;
        self.ahead.settle(self.ahead_bytes_max());
    }

    fn ahead_bytes_max(&self) -> usize {
        let stored = self.table.stored.as_ref();
        stored.map_or(0, |stored| stored.budget.bytes_max() / AHEAD_PART)
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

    /// The next rows of a sweep that are due. The others stay evicted.
    pub fn next_due(
        &mut self,
        sweep: &mut Scan,
        now: impl Into<Reached>,
    ) -> Result<Option<StoredRows>, StateError> {
        let now = now.into();
        self.next_up_to(sweep, now, now)
    }

    /// The next rows of a sweep that are due, and some that will be soon, to be read into
    /// memory. The others stay evicted.
    pub fn next_due_or_soon(
        &mut self,
        sweep: &mut Scan,
        now: impl Into<Reached>,
    ) -> Result<Option<StoredRows>, StateError> {
        let now = now.into();
        self.next_up_to(sweep, now, self.ahead.of(now))
    }

    /// The next rows of a sweep that are due, and those among them that are due until
    /// `soon` for which there is room.
    fn next_up_to(
        &mut self,
        sweep: &mut Scan,
        now: Reached,
        soon: Reached,
    ) -> Result<Option<StoredRows>, StateError> {
        let Some(mut rows) = self.next(sweep)? else {
            self.end_sweep();
            return Ok(None);
        };
        let bytes_max = self.ahead_bytes_max();
        let mut wanted = Vec::with_capacity(rows.len());
        for (_, key, row) in rows.rows() {
            let entry = self.entries.read(row, &mut Vec::new())?;
            let due_ms = self.entries.due_ms(&entry);
            let processing_ms = self.entries.processing_due_ms(&entry);
            let is_due = |at: Reached| due_ms <= at.time_ms || processing_ms <= at.processing_ms;
            let ahead = !is_due(now) && is_due(soon) && self.ahead.bytes < bytes_max;
            if ahead {
                self.ahead.bytes += key.len() + row.len();
            }
            wanted.push(ahead || is_due(now));
            if wanted.last() == Some(&false) {
                self.has_passed = true;
                self.calendar.add(due_ms);
                self.processing_calendar.add(processing_ms);
            }
        }
        let mut wanted = wanted.into_iter();
        rows.retain(|_| wanted.next() == Some(true));
        Ok(Some(rows))
    }

    /// Removes all keys, whose entries must be empty, and keeps the allocated memory
    /// for another pane.
    pub fn clear(&mut self, pane: i64) {
        self.pane = pane;
        self.keys.clear();
        self.changed = ChangedKeys::default();
        self.has_evicted = false;
        self.has_passed = false;
        self.is_swept = false;
        self.calendar.clear();
        self.processing_calendar.clear();
    }

    /// Notes that the pane has evicted keys, of which none is due before this. A sweep
    /// finds out when they are.
    pub fn set_evicted(&mut self, due_ms: i64) {
        self.has_evicted = true;
        self.calendar.add(due_ms);
        self.processing_calendar.add(due_ms);
    }

    /// Where all keys are in the storage alone, and nothing of them is still to be written:
    /// a time before which none is due.
    pub fn all_evicted(&self) -> Option<i64> {
        let all = self.has_evicted && self.keys.is_empty() && self.changed.deletions() == 0;
        let all = all && !self.is_swept;
        let due = [&self.calendar, &self.processing_calendar];
        let first = due.into_iter().filter_map(Calendar::first).min();
        all.then(|| first.unwrap_or(NEVER))
    }

    /// Reads rows of the storage into memory.
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
            self.changed.set_read(id);
        }
        Ok(())
    }
}

impl<E: Entries> KeyedPart for KeyedStates<E> {
    fn bytes(&self) -> usize {
        let entries = self.keys.len() * E::BYTES + self.entries.bytes();
        self.keys.bytes() + entries + self.changed.deletion_bytes()
    }

    fn keys_in_memory(&self) -> usize {
        self.keys.len()
    }

    fn changed(&self) -> usize {
        self.changed.count()
    }

    fn deletions(&self) -> usize {
        self.changed.deletions()
    }

    fn has_evicted(&self) -> bool {
        self.has_evicted
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
        let changed = self.changed.hand_over(stored.budget.writes());
        let mut rest = changed.as_slice();
        while !rest.is_empty() {
            slots.clear();
            ends.clear();
            for &id in rest.iter().take(CHUNK_KEYS) {
                self.entries.slots(id, &mut slots);
                ends.push(slots.len());
            }
            let fit = states.fit(&slots, CHUNK_BYTES);
            let (ids, others) = rest.split_at(ends.partition_point(|&end| end <= fit).max(1));
            rest = others;
            slots.truncate(ends[ids.len() - 1]);
            let encoded = states.encode(&slots)?;
            let mut of_key = Vec::new();
            let mut start = 0;
            let shards = shards(layout, &self.keys, ids)?;
            for ((&id, shard), &end) in ids.iter().zip(shards).zip(&ends) {
                of_key.clear();
                of_key.extend((start..end).map(|row| encoded.row(row)));
                start = end;
                if of_key.is_empty() && !self.entries.has_row(id) {
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

    fn leave_evicted(
        &mut self,
        states: &mut StateTable,
        mut rows: StoredRows,
    ) -> Result<bool, StateError> {
        if rows.is_empty() {
            return Ok(true);
        }
        if !E::NEEDS_DUE && !self.entries.may_be_pinned() {
            self.set_evicted(i64::MIN);
            return Ok(false);
        }
        let mut was_pinned = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            let entry = self.entries.read(row, &mut Vec::new())?;
            was_pinned.push(self.entries.was_pinned(&entry));
            if was_pinned.last() == Some(&false) {
                self.has_evicted = true;
                self.calendar.add(self.entries.due_ms(&entry));
                let processing_ms = self.entries.processing_due_ms(&entry);
                self.processing_calendar.add(processing_ms);
            }
        }
        let mut was_pinned = was_pinned.into_iter();
        rows.retain(|_| was_pinned.next() == Some(true));
        self.insert(states, &rows)?;
        Ok(true)
    }

    fn look(&self, states: &StateTable, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        if let Some(key) = &look.key {
            return self.look_for(states, key, seen);
        }
        let stored = match &look.from.within {
            Within::Stored(from) => from.as_deref(),
            Within::Memory(first) => {
                for id in *first..self.keys.numbers_end() {
                    if seen.is_full() {
                        seen.next = self.place(Within::Memory(id));
                        return Ok(());
                    }
                    seen.count_key();
                    if self.keys.has(id) {
                        self.see(states, id, seen)?;
                    }
                }
                None
            }
        };
        self.look_at_evicted(stored, seen)
    }
}

impl<E: Entries> KeyedStates<E> {
    fn look_for(
        &self,
        states: &StateTable,
        key: &WantedKey,
        seen: &mut Seen,
    ) -> Result<(), StateError> {
        let KeyedTable { layout, stored } = &*self.table;
        seen.count_key();
        if let Some(id) = self.keys.find_row(layout, &key.row)? {
            return self.see(states, id, seen);
        }
        let Some(stored) = stored.as_ref().filter(|_| self.has_evicted) else {
            return Ok(());
        };
        let mut storage_key = Vec::new();
        stored.write_key(self.pane, key.shard, &key.row, &mut storage_key);
        if !self.changed.is_deleted(&storage_key) {
            for (pane, key, row) in stored.fetch(&[&storage_key])?.rows() {
                seen.push(SeenRow::new(pane, key, row));
            }
        }
        Ok(())
    }

    /// Shows the row of a key in memory, if it has one.
    fn see(&self, states: &StateTable, id: u32, seen: &mut Seen) -> Result<(), StateError> {
        let mut slots = Vec::new();
        self.entries.slots(id, &mut slots);
        if slots.is_empty() && !self.entries.has_row(id) {
            return Ok(());
        }
        let encoded = states.encode(&slots)?;
        let of_key: Vec<&[u8]> = (0..slots.len()).map(|row| encoded.row(row)).collect();
        let mut shown = SeenRow::new(self.pane, &[], &[]);
        self.keys.encode(&self.table.layout, id, &mut shown.key);
        self.entries.write(id, &of_key, &mut shown.row);
        seen.push(shown);
        Ok(())
    }

    /// Shows the keys that are in the storage alone, from a storage key on.
    fn look_at_evicted(&self, from: Option<&[u8]>, seen: &mut Seen) -> Result<(), StateError> {
        let Some(mut scan) = self.scan() else {
            return Ok(());
        };
        if let Some(from) = from {
            scan.go_on_from(from);
        }
        while let Some(rows) = self.next(&mut scan)? {
            let keys = rows.storage_keys().zip(rows.rows());
            for (storage_key, (pane, key, row)) in keys {
                if seen.is_full() {
                    seen.next = self.place(Within::Stored(Some(storage_key.to_vec())));
                    return Ok(());
                }
                seen.count_key();
                seen.push(SeenRow::new(pane, key, row));
            }
        }
        Ok(())
    }

    fn place(&self, within: Within) -> Option<Place> {
        Some(Place {
            pane: self.pane,
            within,
        })
    }
}

/// Storage keys of the rows that a batch needs.
#[derive(Default)]
struct WantedRows {
    bytes: Vec<u8>,
    rows: Vec<WantedRow>,
}

/// Where a storage key is in the bytes, and some bytes after the prefix that all
/// share. Keys nearly always differ there, so that few are compared whole.
struct WantedRow {
    prefix: u128,
    start: usize,
    end: usize,
}

impl WantedRows {
    /// Adds the bytes from `start` on as a key.
    fn end_row(&mut self, start: usize) {
        let end = self.bytes.len();
        let mut prefix = [0; size_of::<u128>()];
        let rest = &self.bytes[start + PANE_PREFIX..end];
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
    Ok(shard::shards(columns.iter(), ids.len()))
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringArray};

    use super::*;
    use crate::budget::Budget;
    use crate::checkpoint::storage::memory::MemoryStorage;
    use crate::schema::{DataType, Field, Schema};
    use crate::shard::SHARDS;

    /// Keys that are due by the clock, and have no states.
    struct Dues(Vec<i64>);

    impl Entries for Dues {
        type Entry = i64;

        const BYTES: usize = size_of::<i64>();

        fn read<'a>(&self, row: &'a [u8], _: &mut Vec<&'a [u8]>) -> Result<i64, RowError> {
            let bytes = <[u8; 8]>::try_from(row);
            let bytes = bytes.map_err(|_| RowError::new("not 8 bytes"))?;
            Ok(i64::from_le_bytes(bytes))
        }

        fn write(&self, id: u32, _: &[&[u8]], row: &mut Vec<u8>) {
            row.extend(self.0[id as usize].to_le_bytes());
        }

        fn slots(&self, _: u32, _: &mut Vec<u32>) {}

        fn has_row(&self, _: u32) -> bool {
            true
        }

        fn insert(&mut self, id: u32, due_ms: i64, _: &mut dyn Iterator<Item = u32>) {
            let length = self.0.len().max(id as usize + 1);
            self.0.resize(length, NEVER);
            self.0[id as usize] = due_ms;
        }

        fn evict(&mut self, id: u32, _: &mut StateTable) {
            self.0[id as usize] = NEVER;
        }

        fn is_pinned(&self, _: u32) -> bool {
            false
        }

        fn processing_due_ms(&self, due_ms: &i64) -> i64 {
            *due_ms
        }

        fn processing_due_of(&self, id: u32) -> i64 {
            self.0[id as usize]
        }
    }

    /// Of a thousand keys in the storage, one is due in each second of an hour's last part.
    #[test]
    fn sweeps_are_few_and_begin_when_a_key_is_due() {
        const KEYS: i64 = 1_000;
        const FIRST_MS: i64 = 2_000_000;
        let schema = Schema::new(vec![Field::new("key", DataType::Utf8, false)]);
        let layout = KeyLayout::new(&schema);
        let storage = Arc::new(MemoryStorage::default());
        let budget = Arc::new(Budget::new(1 << 20));
        let stored = StoredTable {
            storage: storage.clone(),
            table: 0,
            shards: 0..SHARDS,
            restored: None,
            budget: budget.clone(),
        };
        let table = KeyedTable {
            layout: layout.clone(),
            stored: Some(stored),
        };
        let mut states = StateTable::new(&Schema::default());
        let mut keyed = KeyedStates::new(Arc::new(table), 0, 3_600_000, Dues(Vec::new()));
        let mut keys = BatchKeys::new(layout);
        let names = StringArray::from_iter_values((0..KEYS).map(|key| format!("key {key}")));
        let columns: Vec<ArrayRef> = vec![Arc::new(names)];
        keys.read(columns, KEYS as usize, |_| false)
            .expect("of its type");
        for run in 0..keys.runs() {
            let (id, _) = keyed.upsert_run(&keys, run);
            let due_ms = FIRST_MS + run as i64 * 1_000;
            keyed.entries.insert(id, due_ms, &mut std::iter::empty());
        }
        let mut changes = Changes::default();
        keyed
            .snapshot(&states, &mut changes)
            .expect("it can be written");
        storage.checkpoint(0, changes);
        budget.add_write();
        keyed.evict(&mut states, usize::MAX);
        assert_eq!(keyed.keys_in_memory(), 0);

        // Nobody is woken before, nor looks for keys.
        assert_eq!(keyed.first_processing_due_ms(), Some(FIRST_MS));
        let at = |processing_ms| Reached {
            time_ms: i64::MIN,
            processing_ms,
        };
        assert!(keyed.sweep(at(FIRST_MS - 1)).is_none());
        let (mut sweeps, mut taken) = (0, 0);
        for second in 0..KEYS {
            let now = at(FIRST_MS + second * 1_000);
            if let Some(mut sweep) = keyed.sweep(now) {
                sweeps += 1;
                while let Some(rows) = keyed
                    .next_due_or_soon(&mut sweep, now)
                    .expect("it is there")
                {
                    keyed.insert(&mut states, &rows).expect("it was written");
                }
            }
            let due = (0..keyed.keys().numbers_end()).filter(|&id| {
                keyed.keys().has(id) && keyed.entries.processing_due_of(id) <= now.processing_ms
            });
            let due: Vec<u32> = due.collect();
            taken += due.len() as i64;
            for &id in &due {
                keyed.entries.evict(id, &mut states);
            }
            keyed.remove(&due).expect("it is there");
            assert_eq!(taken, second + 1, "each is taken in its second");
        }
        assert!(sweeps <= 6, "{sweeps}");
    }
}
