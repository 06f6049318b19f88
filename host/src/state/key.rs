//! Gives each key of a table a number: equal keys have the same number.
//!
//! A key of one text column is the text itself; any other key is its columns as
//! a [`row`](super::row). Rows with the same key often follow one another (the
//! results of a window do), so a batch is looked up run by run.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as IndexEntry;

use super::row::{Codec, RowError, fixed_bytes, fixed_width, read_text, write_text};
use crate::schema::{DataType, Schema};

/// How keys of these columns become bytes.
#[derive(Clone, Debug)]
pub struct KeyLayout {
    codec: Codec,
    /// There is one column, of text, so that the bytes are the text.
    text: bool,
    /// Seeded at random in each process, so that nobody can prepare keys that collide.
    hasher: RandomState,
}

/// A key to look up.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    hash: u32,
    /// [`MISSING`] for a missing text.
    length: u32,
    bytes: &'a [u8],
}

/// The keys of a batch, one for each run of rows with the same key.
#[derive(Debug)]
pub struct BatchKeys {
    layout: KeyLayout,
    /// The key columns.
    columns: Vec<ArrayRef>,
    /// First row of each run.
    starts: Vec<u32>,
    hashes: Vec<u32>,
    bytes: RunBytes,
    rows: usize,
    /// How many more batches are read row by row, since the last one that was
    /// searched for runs had only short ones.
    unsearched: u32,
}

#[derive(Debug)]
enum RunBytes {
    /// Of the text column, by row.
    Text(StringArray),
    /// Encoded, by run.
    Rows { ends: Vec<usize>, bytes: Vec<u8> },
}

/// Keys by number, and numbers by key.
#[derive(Debug, Default)]
pub struct KeyTable {
    index: HashTable<u32>,
    entries: Vec<KeyPlace>,
    bytes: Vec<u8>,
    /// Numbers of removed keys, to be used again.
    free: Vec<u32>,
    /// Bytes of removed keys.
    garbage: usize,
}

/// Where a key's bytes are. It is small, since every lookup reads one.
#[derive(Clone, Copy, Debug)]
struct KeyPlace {
    hash: u32,
    length: u32,
    start: usize,
}

/// Which keys of a table, in which order.
#[derive(Clone, Debug)]
pub enum Selection<'a> {
    /// Consecutive numbers.
    Range(Range<usize>),
    Each(&'a [u32]),
}

/// The length of a missing text, which is not the empty one.
const MISSING: u32 = u32::MAX;

/// A key of at most this length is copied by copying this many bytes.
const SHORT: usize = 16;

/// How many keys of a batch are prefetched at once.
const AHEAD: usize = 64;

/// A table of at least this many keys does not fit in the CPU's cache.
const FAR: usize = 1 << 15;

/// For how many batches the search for runs is given up.
const UNSEARCHED: u32 = 31;

/// Garbage is swept when there is at least this much, and more than bytes in use.
const GARBAGE_BYTES_MIN: usize = 1 << 16;

impl KeyLayout {
    pub fn new(schema: &Schema) -> Self {
        KeyLayout {
            codec: Codec::new(schema.fields.clone()),
            text: matches!(
                schema.fields.as_slice(),
                [field] if matches!(field.data_type, DataType::Utf8 | DataType::Symbol(_))
            ),
            hasher: RandomState::default(),
        }
    }

    fn hash(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(bytes);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }

    /// Appends a key as a row of the key's fields.
    pub fn encode(&self, key: Key<'_>, row: &mut Vec<u8>) {
        if self.text {
            let text = (key.length != MISSING).then_some(key.bytes);
            write_text(self.is_nullable(), text, row);
        } else {
            row.extend_from_slice(key.bytes);
        }
    }

    fn key_of_row<'a>(&self, row: &'a [u8]) -> Result<Key<'a>, RowError> {
        let bytes = match self.text {
            true => read_text(self.is_nullable(), row)?,
            false => Some(row),
        };
        Ok(match bytes {
            None => self.missing(),
            Some(bytes) => Key {
                hash: self.hash(bytes),
                length: u32::try_from(bytes.len())
                    .map_err(|_| RowError::new("a key is longer than 4 GiB"))?,
                bytes,
            },
        })
    }

    fn is_nullable(&self) -> bool {
        self.codec.fields().iter().any(|field| field.nullable)
    }

    fn missing(&self) -> Key<'static> {
        Key {
            hash: self.hash(b"missing"),
            length: MISSING,
            bytes: &[],
        }
    }
}

impl BatchKeys {
    pub fn new(layout: KeyLayout) -> Self {
        BatchKeys {
            layout,
            columns: Vec::new(),
            starts: Vec::new(),
            hashes: Vec::new(),
            bytes: RunBytes::Rows {
                ends: Vec::new(),
                bytes: Vec::new(),
            },
            rows: 0,
            unsearched: 0,
        }
    }

    /// Reads the key columns of a batch. A run ends where the key changes, and
    /// before each row for which `split`, called for all rows in order, is true.
    pub fn read(
        &mut self,
        columns: Vec<ArrayRef>,
        rows: usize,
        split: impl FnMut(usize) -> bool,
    ) -> Result<(), RowError> {
        self.rows = rows;
        self.find_runs(&columns, split)?;
        self.hashes.clear();
        if self.layout.text {
            self.read_text(&columns)?;
        } else {
            self.read_rows(&columns)?;
        }
        self.columns = columns;
        Ok(())
    }

    pub fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.starts.len()
    }

    /// How many rows the batch has.
    pub fn all_rows(&self) -> usize {
        self.rows
    }

    pub fn rows(&self, run: usize) -> Range<usize> {
        let end = self
            .starts
            .get(run + 1)
            .map_or(self.rows, |&end| end as usize);
        self.starts[run] as usize..end
    }

    pub fn key(&self, run: usize) -> Key<'_> {
        let hash = self.hashes[run];
        let bytes = match &self.bytes {
            RunBytes::Text(column) => {
                let row = self.starts[run] as usize;
                if column.is_null(row) {
                    return self.layout.missing();
                }
                let ends = column.value_offsets();
                &column.value_data()[ends[row] as usize..ends[row + 1] as usize]
            }
            RunBytes::Rows { ends, bytes } => {
                let start = if run == 0 { 0 } else { ends[run - 1] };
                &bytes[start..ends[run]]
            }
        };
        Key {
            hash,
            length: bytes.len() as u32,
            bytes,
        }
    }

    fn find_runs(
        &mut self,
        columns: &[ArrayRef],
        mut split: impl FnMut(usize) -> bool,
    ) -> Result<(), RowError> {
        self.starts.clear();
        if self.unsearched > 0 {
            self.unsearched -= 1;
            self.starts.extend(0..self.rows as u32);
            return Ok(());
        }
        let mut changes = vec![false; self.rows];
        for (field, column) in self.layout.codec.fields().iter().zip(columns) {
            mark_changes(&field.data_type, column, &mut changes);
        }
        for (row, changed) in changes.into_iter().enumerate() {
            // `split` counts rows, so it is called for each of them.
            if split(row) | changed | (row == 0) {
                self.starts.push(row as u32);
            }
        }
        if self.starts.len() > self.rows / 2 {
            self.unsearched = UNSEARCHED;
        }
        Ok(())
    }

    fn read_text(&mut self, columns: &[ArrayRef]) -> Result<(), RowError> {
        let column = columns
            .first()
            .and_then(|column| column.as_string_opt::<i32>())
            .ok_or_else(|| RowError::new("a text key without its column of text"))?;
        let (ends, bytes) = (column.value_offsets(), column.value_data());
        let layout = &self.layout;
        self.hashes.extend(self.starts.iter().map(|&row| {
            let row = row as usize;
            layout.hash(&bytes[ends[row] as usize..ends[row + 1] as usize])
        }));
        self.bytes = RunBytes::Text(column.clone());
        Ok(())
    }

    fn read_rows(&mut self, columns: &[ArrayRef]) -> Result<(), RowError> {
        let (mut ends, mut bytes) = match std::mem::take(&mut self.bytes) {
            RunBytes::Rows { ends, bytes } => (ends, bytes),
            RunBytes::Text(_) => (Vec::new(), Vec::new()),
        };
        ends.clear();
        bytes.clear();
        let encoder = self.layout.codec.encoder(columns)?;
        for &row in &self.starts {
            let start = bytes.len();
            encoder.encode(row as usize, &mut bytes);
            if bytes.len() - start >= MISSING as usize {
                return Err(RowError::new("a key is longer than 4 GiB"));
            }
            ends.push(bytes.len());
            self.hashes.push(self.layout.hash(&bytes[start..]));
        }
        self.bytes = RunBytes::Rows { ends, bytes };
        Ok(())
    }
}

impl Default for RunBytes {
    fn default() -> Self {
        RunBytes::Rows {
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl KeyTable {
    /// The key's number, and whether it is new. New numbers count up from 0; those of
    /// removed keys are used again.
    pub fn upsert(&mut self, key: Key<'_>) -> (u32, bool) {
        let KeyTable {
            index,
            entries,
            bytes,
            free,
            ..
        } = self;
        let place = index.entry(
            spread(key.hash),
            |&id| is_key(&entries[id as usize], bytes, &key),
            |&id| spread(entries[id as usize].hash),
        );
        match place {
            IndexEntry::Occupied(found) => (*found.get(), false),
            IndexEntry::Vacant(place) => {
                let entry = KeyPlace {
                    hash: key.hash,
                    start: bytes.len(),
                    length: key.length,
                };
                bytes.extend_from_slice(key.bytes);
                let id = match free.pop() {
                    Some(id) => {
                        entries[id as usize] = entry;
                        id
                    }
                    None => {
                        entries.push(entry);
                        (entries.len() - 1) as u32
                    }
                };
                place.insert(id);
                (id, true)
            }
        }
    }

    /// [`KeyTable::upsert`] for a run of a batch. The runs must be looked up in order.
    pub fn upsert_run(&mut self, batch: &BatchKeys, run: usize) -> (u32, bool) {
        if run.is_multiple_of(AHEAD) && self.entries.len() >= FAR {
            self.fetch(batch, run..batch.runs().min(run + AHEAD));
        }
        self.upsert(batch.key(run))
    }

    /// [`KeyTable::find`] for a run of a batch. The runs must be looked up in order.
    pub fn find_run(&self, batch: &BatchKeys, run: usize) -> Option<u32> {
        if run.is_multiple_of(AHEAD) && self.entries.len() >= FAR {
            self.fetch(batch, run..batch.runs().min(run + AHEAD));
        }
        self.find(batch.key(run))
    }

    /// Whether the table has each of these keys, which [`KeyTable::encode`] has
    /// written.
    pub fn has_rows<'a>(
        &self,
        layout: &KeyLayout,
        mut rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<bool>, RowError> {
        let mut has = Vec::with_capacity(rows.size_hint().0);
        let mut keys = Vec::with_capacity(AHEAD);
        loop {
            keys.clear();
            for row in rows.by_ref().take(AHEAD) {
                keys.push(layout.key_of_row(row)?);
            }
            if keys.is_empty() {
                return Ok(has);
            }
            if self.entries.len() >= FAR {
                self.fetch_hashes(keys.iter().map(|key| key.hash));
            }
            has.extend(keys.iter().map(|&key| self.find(key).is_some()));
        }
    }

    fn fetch(&self, batch: &BatchKeys, runs: Range<usize>) {
        self.fetch_hashes(batch.hashes[runs].iter().copied());
    }

    /// Prefetches the memory that looking up these keys, at most [`AHEAD`], will
    /// read. It does each step of a lookup for all keys, so that their cache misses
    /// overlap; a single lookup waits for each of its steps.
    fn fetch_hashes(&self, hashes: impl ExactSizeIterator<Item = u32>) {
        let count = hashes.len().min(AHEAD);
        let mut ids = [0; AHEAD];
        for (id, hash) in ids.iter_mut().zip(hashes) {
            // The first match of a part of the hash is nearly always the right one.
            let found = self.index.find(spread(hash), |_| true);
            *id = found.copied().unwrap_or(0);
        }
        let mut starts = [0; AHEAD];
        for (start, &id) in starts.iter_mut().zip(&ids[..count]) {
            *start = self.entries[id as usize].start;
        }
        let read = |sum: u8, &start: &usize| sum ^ self.bytes.get(start).copied().unwrap_or(0);
        std::hint::black_box(starts[..count].iter().fold(0, read));
    }

    pub fn find(&self, key: Key<'_>) -> Option<u32> {
        self.index
            .find(spread(key.hash), |&id| {
                is_key(&self.entries[id as usize], &self.bytes, &key)
            })
            .copied()
    }

    /// The number of a key that [`KeyTable::encode`] has written, if the table has it.
    pub fn find_row(&self, layout: &KeyLayout, row: &[u8]) -> Result<Option<u32>, RowError> {
        Ok(self.find(layout.key_of_row(row)?))
    }

    /// All numbers of keys are below this one.
    pub fn numbers_end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether a key has this number.
    pub fn has(&self, id: u32) -> bool {
        let entry = &self.entries[id as usize];
        self.index
            .find(spread(entry.hash), |&other| other == id)
            .is_some()
    }

    pub fn key(&self, id: u32) -> Key<'_> {
        let entry = &self.entries[id as usize];
        Key {
            hash: entry.hash,
            length: entry.length,
            bytes: &self.bytes[entry.span()],
        }
    }

    /// Bytes that the keys take.
    pub fn bytes(&self) -> usize {
        // The index has one more byte for each number, and spare room.
        let entry = size_of::<KeyPlace>() + 2 * (size_of::<u32>() + 1);
        self.bytes.len() - self.garbage + self.len() * entry
    }

    /// Appends the key as a row of the key's fields.
    pub fn encode(&self, layout: &KeyLayout, id: u32, row: &mut Vec<u8>) {
        layout.encode(self.key(id), row);
    }

    /// [`KeyTable::upsert`] for a key that [`KeyTable::encode`] has written.
    pub fn upsert_row(&mut self, layout: &KeyLayout, row: &[u8]) -> Result<(u32, bool), RowError> {
        Ok(self.upsert(layout.key_of_row(row)?))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn remove(&mut self, id: u32) {
        let entry = &self.entries[id as usize];
        if let Ok(found) = self
            .index
            .find_entry(spread(entry.hash), |&other| other == id)
        {
            found.remove();
            self.garbage += entry.span().len();
            self.free.push(id);
        }
        if self.garbage > GARBAGE_BYTES_MIN && self.garbage > self.bytes.len() / 2 {
            self.sweep();
        }
    }

    /// Removes all keys and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.bytes.clear();
        self.free.clear();
        self.garbage = 0;
    }

    /// The key columns of these keys.
    pub fn columns(
        &self,
        layout: &KeyLayout,
        selection: Selection<'_>,
    ) -> Result<Vec<ArrayRef>, RowError> {
        match selection {
            Selection::Range(ids) => self.columns_of(layout, self.entries[ids].iter()),
            Selection::Each(ids) => {
                self.columns_of(layout, ids.iter().map(|&id| &self.entries[id as usize]))
            }
        }
    }

    fn columns_of<'a>(
        &self,
        layout: &KeyLayout,
        entries: impl ExactSizeIterator<Item = &'a KeyPlace> + Clone,
    ) -> Result<Vec<ArrayRef>, RowError> {
        if layout.text {
            return Ok(vec![self.text(entries)?]);
        }
        let rows = entries.map(|entry| &self.bytes[entry.span()]);
        layout.codec.decode(rows)
    }

    fn text<'a>(
        &self,
        entries: impl ExactSizeIterator<Item = &'a KeyPlace> + Clone,
    ) -> Result<ArrayRef, RowError> {
        let mut ends = Vec::with_capacity(entries.len() + 1);
        ends.push(0);
        let mut length = 0;
        let mut missing = false;
        for entry in entries.clone() {
            missing |= entry.length == MISSING;
            length += entry.span().len();
            ends.push(length as i32);
        }
        if i32::try_from(length).is_err() {
            return Err(RowError::new("the keys of a batch are longer than 2 GiB"));
        }
        let mut bytes = vec![0; length + SHORT];
        let mut at = 0;
        for entry in entries.clone() {
            let span = entry.span();
            // Most keys are short: a copy of fixed size is one or two instructions.
            // The next key overwrites the surplus bytes.
            if span.len() <= SHORT
                && let Some(from) = self.bytes.get(span.start..span.start + SHORT)
            {
                bytes[at..at + SHORT].copy_from_slice(from);
            } else {
                bytes[at..at + span.len()].copy_from_slice(&self.bytes[span.clone()]);
            }
            at += span.len();
        }
        bytes.truncate(length);
        let nulls = missing.then(|| {
            let valid: BooleanBuffer = entries.map(|entry| entry.length != MISSING).collect();
            NullBuffer::new(valid)
        });
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        StringArray::try_new(ends, Buffer::from_vec(bytes), nulls)
            .map(|text| Arc::new(text) as ArrayRef)
            .map_err(|error| RowError::new(error.to_string()))
    }

    /// Moves the bytes of all keys together, over those of removed ones.
    fn sweep(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for &id in &self.index {
            let entry = &mut self.entries[id as usize];
            let span = entry.span();
            entry.start = bytes.len();
            bytes.extend_from_slice(&self.bytes[span]);
        }
        self.bytes = bytes;
        self.garbage = 0;
    }
}

impl KeyPlace {
    fn span(&self) -> Range<usize> {
        let length = if self.length == MISSING {
            0
        } else {
            self.length as usize
        };
        self.start..self.start + length
    }
}

#[inline]
fn is_key(entry: &KeyPlace, bytes: &[u8], key: &Key<'_>) -> bool {
    entry.hash == key.hash && entry.length == key.length && is_same(&bytes[entry.span()], key.bytes)
}

/// Whether two slices of the same length are equal, without a call for short ones.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match a.len() {
        8..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        4..8 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        _ => a == b,
    }
}

/// Spreads a hash over the 64 bits that the index needs, which uses both ends of them.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Marks rows that differ from the previous row. It may mark more than these.
fn mark_changes(data_type: &DataType, column: &ArrayRef, changes: &mut [bool]) {
    if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (row, change) in changes.iter_mut().enumerate().skip(1) {
            *change |= nulls.is_valid(row) != nulls.is_valid(row - 1);
        }
    }
    if let Some(text) = column.as_string_opt::<i32>() {
        let (ends, bytes) = (text.value_offsets(), text.value_data());
        let value = |row: usize| &bytes[ends[row] as usize..ends[row + 1] as usize];
        for (row, change) in changes.iter_mut().enumerate().skip(1) {
            *change |= value(row) != value(row - 1);
        }
        return;
    }
    let fixed = fixed_width(data_type).and_then(|width| Some((width, fixed_bytes(column, width)?)));
    match fixed {
        Some((1, values)) => mark_fixed_changes(values.as_slice(), changes),
        Some((2, values)) => mark_fixed_changes(values.typed_data::<u16>(), changes),
        Some((4, values)) => mark_fixed_changes(values.typed_data::<u32>(), changes),
        Some((16, values)) => mark_fixed_changes(values.typed_data::<u128>(), changes),
        Some((_, values)) => mark_fixed_changes(values.typed_data::<u64>(), changes),
        None => changes.fill(true),
    }
}

fn mark_fixed_changes<T: PartialEq>(values: &[T], changes: &mut [bool]) {
    for (change, pair) in changes.iter_mut().skip(1).zip(values.windows(2)) {
        *change |= pair[0] != pair[1];
    }
}
