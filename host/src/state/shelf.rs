//! Where the rows of an operator's state are in the storage: how their keys
//! are laid out.
//!
//! The format, version 1: the operator's table (u32), what kind of row it is
//! (u8), a pane (i64 with its sign bit flipped; 0 where there are none), the
//! shard (u8), all big-endian so that rows lie in this order, and the key as a
//! [`row`](super::row) of the key's fields.

use std::ops::Range;
use std::sync::Arc;

use crate::budget::Budget;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::storage::{Storage, StorageError};
use crate::placement::SHARDS;

/// One task's part of an operator's rows.
#[derive(Clone)]
pub struct Shelf {
    pub storage: Arc<dyn Storage>,
    pub table: u32,
    /// The shards that the task has.
    pub shards: Range<u32>,
    /// Present when the run goes on from a checkpoint.
    pub restored: Option<Restored>,
    pub budget: Arc<Budget>,
}

/// What a checkpoint knew of the operator, its rows aside.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub time_ms: Option<i64>,
}

/// Table, kind, pane and shard.
const PREFIX: usize = 4 + 1 + 8 + 1;

/// States. Other kinds may come.
const STATE: u8 = 0;

/// Rows that are read at a time.
const CHUNK_ROWS: usize = 4096;

/// Rows of state: keys, values, in order.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    pane: i64,
    key: usize,
    value: usize,
    end: usize,
}

impl Shelf {
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

    /// All rows of this task in a pane.
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
            // Behind the last shard: no shard's byte follows the pane's.
            self.write_prefix(pane, SHARDS - 1, &mut to);
            increment(&mut to);
        }
        (from, to)
    }

    /// Those of these rows that there are; keys are those of
    /// [`Shelf::write_key`].
    pub fn fetch(&self, keys: &[&[u8]]) -> Result<Chunk, StorageError> {
        let mut chunk = Chunk::default();
        for (key, value) in keys.iter().zip(self.storage.get_many(keys)?) {
            if let (Some(value), Some((pane, _))) = (value, parse_prefix(key)) {
                chunk.push(pane, key, &value);
            }
        }
        Ok(chunk)
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

    /// Reads the rows of this task in a pane, a chunk at a time, in order, until
    /// it is told to stop.
    pub fn load_pane<E: From<StorageError>>(
        &self,
        pane: i64,
        take: impl FnMut(Chunk) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (from, to) = self.range(pane);
        self.load_range(from, to, take)
    }

    /// The same for all panes.
    pub fn load<E: From<StorageError>>(
        &self,
        take: impl FnMut(Chunk) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (from, to) = self.everything();
        self.load_range(from, to, take)
    }

    fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.table.to_be_bytes().to_vec();
        let mut to = from.clone();
        from.push(STATE);
        to.push(STATE + 1);
        (from, to)
    }

    fn load_range<E: From<StorageError>>(
        &self,
        mut from: Vec<u8>,
        to: Vec<u8>,
        mut take: impl FnMut(Chunk) -> Result<bool, E>,
    ) -> Result<(), E> {
        loop {
            let mut chunk = Chunk::default();
            let mut next = None;
            self.storage.scan(&from, &to, &mut |key, value| {
                if chunk.rows.len() == CHUNK_ROWS {
                    next = Some(key.to_vec());
                    return false;
                }
                if let Some((pane, shard)) = parse_prefix(key)
                    && self.shards.contains(&shard)
                {
                    chunk.push(pane, key, value);
                }
                true
            })?;
            let goes_on = take(chunk)?;
            match next {
                Some(next) if goes_on => from = next,
                _ => return Ok(()),
            }
        }
    }
}

impl Chunk {
    fn push(&mut self, pane: i64, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.rows.push(Row {
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

    /// Leaves the rows out for which this is not so, given where the row is in
    /// the storage and its key.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.rows.retain(|row| {
            let place = &bytes[row.key..row.value];
            keep(place, &place[PREFIX..])
        });
    }

    /// Pane, key, value.
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

    fn shelf(shards: Range<u32>) -> Shelf {
        Shelf {
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
        shelf(0..SHARDS).write_key(-2, 200, b"ann", &mut key);
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
            let shelf = shelf(shards.clone());
            let (from, to) = shelf.range(pane);
            for other in [pane.wrapping_sub(1), pane, pane.wrapping_add(1)] {
                for shard in [0, 99, 100, 255] {
                    let mut key = Vec::new();
                    shelf.write_key(other, shard, b"\xff\xff", &mut key);
                    let inside = other == pane && shards.contains(&shard);
                    assert_eq!(from <= key && key < to, inside, "{other} {shard}");
                }
            }
        }
    }
}
