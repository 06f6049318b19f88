//! The keys of an operator's rows in the storage, and reading rows by them.
//!
//! The format of a key, version 1: the operator's table (u32), the kind of row (u8),
//! a pane (i64 with its sign bit flipped; 0 where there are none), the shard (u8), all
//! big-endian so that rows are sorted by them, and the operator's key as a
//! [`row`](super::row) of the key's fields.

use std::ops::Range;
use std::sync::Arc;

use super::look::{Look, Place, Seen, SeenRow, WantedKey, Within};
use crate::budget::Budget;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::storage::{Storage, StorageError};
use crate::element::END_OF_TIME;
use crate::shard::SHARDS;

/// One task's part of a table in the storage.
#[derive(Clone)]
pub struct StoredTable {
    pub storage: Arc<dyn Storage>,
    pub table: u32,
    /// The shards that the task has.
    pub shards: Range<u32>,
    /// Present when the run starts from a checkpoint.
    pub restored: Option<Restored>,
    pub budget: Arc<Budget>,
}

/// What a checkpoint's manifest says of the operator's progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restored {
    pub time_ms: Option<i64>,
    /// The newest event time of the sources that lead to the operator.
    pub read_ms: Option<i64>,
    /// And of what has come to the operator: results of others may be later than all rows.
    pub newest_ms: Option<i64>,
    /// The newest event time when all inputs had ended, in a run before the checkpoint's.
    pub ended_ms: Option<i64>,
}

impl Restored {
    /// Whether all inputs had ended.
    pub fn had_ended(&self) -> bool {
        self.time_ms == Some(END_OF_TIME)
    }

    /// The newest event time when all inputs had last ended, if they ever have: what is due
    /// with rows up to this time is over.
    pub fn over_ms(&self) -> Option<i64> {
        match self.had_ended() {
            true => self.newest_ms,
            false => self.ended_ms,
        }
    }
}

/// Bytes of table, kind, pane and shard.
const PREFIX: usize = PANE_PREFIX + 1;

/// Bytes of table, kind and pane, which all keys of a pane share.
pub const PANE_PREFIX: usize = 4 + 1 + 8;

/// The kind of rows with states, the only one so far.
const STATE: u8 = 0;

/// How many rows are read at a time.
const CHUNK_ROWS: usize = 4096;

/// Fewer rows are read at a time if they have more bytes than this.
const CHUNK_BYTES: usize = 4 << 20;

/// How far a scan has come.
#[derive(Debug)]
pub struct Scan {
    /// Where the next rows begin, if there may be any.
    next: Option<Vec<u8>>,
    to: Vec<u8>,
}

impl Scan {
    /// Leaves out the rows before a storage key.
    pub fn go_on_from(&mut self, key: &[u8]) {
        if let Some(next) = self.next.as_mut().filter(|next| key > next.as_slice()) {
            *next = key.min(&self.to).to_vec();
        }
    }
}

/// Rows of state that were read, in order.
#[derive(Debug, Default)]
pub struct StoredRows {
    bytes: Vec<u8>,
    rows: Vec<StoredRowPlace>,
}

#[derive(Clone, Copy, Debug)]
struct StoredRowPlace {
    pane: i64,
    key: usize,
    value: usize,
    end: usize,
}

/// Has a checkpoint delete all rows of a table.
pub fn delete_table(table: u32, changes: &mut Changes) {
    let after = table.saturating_add(1);
    changes.delete_range(table.to_be_bytes().to_vec(), after.to_be_bytes().to_vec());
}

impl StoredTable {
    /// Appends the key of a row of state.
    pub fn write_key(&self, pane: i64, shard: u32, key: &[u8], out: &mut Vec<u8>) {
        self.write_prefix(pane, shard, out);
        out.extend_from_slice(key);
    }

    fn write_prefix(&self, pane: i64, shard: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.table.to_be_bytes());
        out.push(STATE);
        out.extend_from_slice(&(pane ^ i64::MIN).to_be_bytes());
        // There are 256 shards.
        out.push(shard as u8);
    }

    /// Has a checkpoint delete all rows of this task in a pane.
    pub fn delete_pane(&self, pane: i64, changes: &mut Changes) {
        let (from, to) = self.range(pane);
        changes.delete_range(from, to);
    }

    fn range(&self, pane: i64) -> (Vec<u8>, Vec<u8>) {
        let mut from = Vec::with_capacity(PREFIX);
        let mut to = Vec::with_capacity(PREFIX);
        self.write_prefix(pane, self.shards.start, &mut from);
        if self.shards.end < SHARDS {
            self.write_prefix(pane, self.shards.end, &mut to);
        } else {
            // No shard follows the last one, so the range ends before the next pane.
            self.write_prefix(pane, SHARDS - 1, &mut to);
            increment(&mut to);
        }
        (from, to)
    }

    /// Reads rows by their storage keys ([`StoredTable::write_key`]). Leaves out keys
    /// without a row.
    pub fn fetch(&self, keys: &[&[u8]]) -> Result<StoredRows, StorageError> {
        let mut rows = StoredRows::default();
        for (key, value) in keys.iter().zip(self.storage.get_many(keys)?) {
            if let (Some(value), Some((pane, _))) = (value, parse_prefix(key)) {
                rows.push(pane, key, &value);
            }
        }
        Ok(rows)
    }

    /// The panes that this task has rows in, in order.
    pub fn panes(&self) -> Result<Vec<i64>, StorageError> {
        let mut panes: Vec<i64> = Vec::new();
        let (mut from, to) = self.everything();
        loop {
            let mut next = None;
            self.storage.scan(&from, &to, &mut |key, _| {
                next = parse_prefix(key);
                false
            })?;
            let Some((pane, shard)) = next else {
                return Ok(panes);
            };
            from.truncate(5);
            if self.shards.contains(&shard) {
                panes.push(pane);
                from = self.range(pane).1;
            } else if shard < self.shards.start {
                from = self.range(pane).0;
            } else if pane < i64::MAX {
                from = Vec::new();
                self.write_prefix(pane + 1, 0, &mut from);
            } else {
                return Ok(panes);
            }
        }
    }

    /// Starts a scan of this task's rows in a pane.
    pub fn scan(&self, pane: i64) -> Scan {
        let (from, to) = self.range(pane);
        Scan {
            next: Some(from),
            to,
        }
    }

    /// The next rows of a scan, in order; `None` at its end.
    pub fn next(&self, scan: &mut Scan) -> Result<Option<StoredRows>, StorageError> {
        let Some(from) = scan.next.take() else {
            return Ok(None);
        };
        let mut rows = StoredRows::default();
        self.storage.scan(&from, &scan.to, &mut |key, value| {
            if rows.len() == CHUNK_ROWS || rows.bytes.len() >= CHUNK_BYTES {
                scan.next = Some(key.to_vec());
                return false;
            }
            if let Some((pane, _)) = parse_prefix(key) {
                rows.push(pane, key, value);
            }
            true
        })?;
        Ok(Some(rows))
    }

    /// Shows rows as of the last checkpoint.
    pub fn look(&self, look: &Look, seen: &mut Seen) -> Result<(), StorageError> {
        match &look.key {
            Some(key) => self.look_for(look, key, seen),
            None => self.look_at_all(&look.from.within, seen),
        }
    }

    fn look_for(&self, look: &Look, key: &WantedKey, seen: &mut Seen) -> Result<(), StorageError> {
        let of_shard = StoredTable {
            shards: key.shard..key.shard + 1,
            ..self.clone()
        };
        for pane in of_shard.panes()? {
            if pane < look.from.pane {
                continue;
            }
            if seen.is_full() {
                seen.next = Some(Place::of(pane));
                return Ok(());
            }
            seen.count_key();
            let mut storage_key = Vec::new();
            self.write_key(pane, key.shard, &key.row, &mut storage_key);
            for (pane, key, row) in self.fetch(&[&storage_key])?.rows() {
                seen.push(SeenRow::new(pane, key, row));
            }
        }
        Ok(())
    }

    fn look_at_all(&self, from: &Within, seen: &mut Seen) -> Result<(), StorageError> {
        let (mut first, to) = self.everything();
        if let Within::Stored(Some(key)) = from {
            first = key.clone().clamp(first, to.clone());
        }
        self.storage.scan(&first, &to, &mut |key, value| {
            let Some((pane, _)) = parse_prefix(key) else {
                return true;
            };
            if seen.is_full() {
                let within = Within::Stored(Some(key.to_vec()));
                seen.next = Some(Place { pane, within });
                return false;
            }
            seen.count_key();
            seen.push(SeenRow::new(pane, &key[PREFIX..], value));
            true
        })
    }

    fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.table.to_be_bytes().to_vec();
        let mut to = from.clone();
        from.push(STATE);
        to.push(STATE + 1);
        (from, to)
    }
}

impl StoredRows {
    fn push(&mut self, pane: i64, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.rows.push(StoredRowPlace {
            pane,
            key: start,
            value: middle,
            end: self.bytes.len(),
        });
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps the rows for which `keep` is true. Calls it in order with each row's
    /// storage key.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.rows.retain(|row| keep(&bytes[row.key..row.value]));
    }

    /// The rows' storage keys.
    pub fn storage_keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(|row| &self.bytes[row.key..row.value])
    }

    /// The pane of the first row.
    pub fn pane(&self) -> Option<i64> {
        Some(self.rows.first()?.pane)
    }

    /// Pane, operator's key, and value of each row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (i64, &[u8], &[u8])> {
        self.rows.iter().map(|row| {
            (
                row.pane,
                &self.bytes[row.key + PREFIX..row.value],
                &self.bytes[row.value..row.end],
            )
        })
    }
}

/// Pane and shard of a row's key.
fn parse_prefix(key: &[u8]) -> Option<(i64, u32)> {
    let pane = key.get(5..13)?.try_into().ok()?;
    let shard = key.get(13)?;
    Some((i64::from_be_bytes(pane) ^ i64::MIN, u32::from(*shard)))
}

/// The next byte string of this length.
fn increment(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::storage::memory::MemoryStorage;

    fn table(shards: Range<u32>) -> StoredTable {
        StoredTable {
            storage: Arc::new(MemoryStorage::default()),
            table: 7,
            shards,
            restored: None,
            budget: Arc::new(Budget::new(usize::MAX)),
        }
    }

    /// Bytes that a release has written stay readable for ever.
    #[test]
    fn keys_are_what_they_were() {
        let mut key = Vec::new();
        table(0..SHARDS).write_key(-2, 200, b"ann", &mut key);
        let mut expected = vec![
            0, 0, 0, 7, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
        ];
        expected.extend([200, b'a', b'n', b'n']);
        assert_eq!(key, expected);
        assert_eq!(parse_prefix(&key), Some((-2, 200)));
    }

    #[test]
    fn a_pane_is_the_range_of_its_shards() {
        for (shards, pane) in [(0..SHARDS, 5), (0..100, -1), (100..SHARDS, i64::MAX)] {
            let table = table(shards.clone());
            let (from, to) = table.range(pane);
            for other in [pane.wrapping_sub(1), pane, pane.wrapping_add(1)] {
                for shard in [0, 99, 100, 255] {
                    let mut key = Vec::new();
                    table.write_key(other, shard, b"\xff\xff", &mut key);
                    let inside = other == pane && shards.contains(&shard);
                    assert_eq!(from <= key && key < to, inside, "{other} {shard}");
                }
            }
        }
    }
}
