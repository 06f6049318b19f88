//! Rows that wait for other rows, or for time: buffered by key, in order of time.
//!
//! Rows are in panes of time, so that old ones go as a whole, and only the panes that a
//! time range touches are looked at. Who uses a buffer says which pane each row is in: a
//! later pane has no earlier times. The columns of rows are states by slot, as those of
//! aggregates are, so rows are evicted, read back and restored in the same way.
//!
//! The format of an entry, version 1, in the terms of [`entry_row`](super::entry_row):
//! the rows of a key in a pane, in order of time, and rows of the same time in the order
//! in which they came. Each is its time i64, its mark u32, and its columns as a state.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow_array::ArrayRef;

use super::calendar::NEVER;
use super::entry_row::{EntryReader, write_i64, write_length, write_state};
use super::error::StateError;
use super::key::{BatchKeys, KeyLayout, KeyTable};
use super::keyed::{Entries, KeyedPart, KeyedStates, KeyedTable};
use super::look::{Look, Seen};
use super::paned::{PaneEntries, PanedStates};
use super::row::RowError;
use super::stored::StoredTable;
use super::table::StateTable;
use super::timer::Timers;
use super::upkeep::Upkeep;
use crate::checkpoint::changes::Changes;
use crate::schema::Schema;

pub struct RowBuffer {
    panes: PanedStates<KeyRows>,
    columns: StateTable,
    table: Arc<KeyedTable>,
    hands_out: HandsOut,
    upkeep: Upkeep,
    /// A sweep reads rows back that are due within this time, so that sweeps are few.
    ahead_ms: i64,
}

/// A row in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferedRow {
    pub time_ms: i64,
    /// Where its columns are.
    pub slot: u32,
    /// What the buffer's user notes about it; 0 at first.
    pub mark: u32,
}

/// Which rows a buffer hands out when their time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandsOut {
    Nothing,
    /// Rows that nobody has marked.
    Unmarked,
    All,
    /// None: rows are versions of their key, and go when a later one takes their place.
    /// A version whose mark is [`DELETED`] says that the key has no value.
    Versions,
}

/// The mark of a version that deletes the one before it.
pub const DELETED: u32 = 1;

/// Rows of a batch that go into a buffer, whose keys end a run where the pane changes.
#[derive(Clone, Copy, Debug)]
pub struct NewRows<'a> {
    pub panes: &'a [i64],
    pub times: &'a [i64],
    pub marks: &'a [u32],
    pub columns: &'a [ArrayRef],
}

/// Which rows of its key a row looks for.
#[derive(Clone, Debug)]
pub struct Reach {
    pub panes: RangeInclusive<i64>,
    pub times: RangeInclusive<i64>,
}

/// Rows that a buffer hands out, of one pane. Those of a key follow one another, in
/// order.
#[derive(Clone, Copy)]
pub struct HandedOut<'a> {
    pub pane: i64,
    pub keys: &'a KeyTable,
    /// The number of each row's key.
    pub ids: &'a [u32],
    pub rows: &'a [BufferedRow],
    /// The columns of rows, by slot.
    pub columns: &'a StateTable,
}

/// The rows of a pane, by key.
#[derive(Clone, Debug)]
struct KeyRows {
    hands_out: HandsOut,
    entries: Vec<KeyEntry>,
    /// When a key has rows to hand out, or versions that may go.
    timers: Timers,
    horizon_ms: i64,
    /// How many rows there are.
    rows: usize,
}

#[derive(Clone, Debug)]
struct KeyEntry {
    /// In order of time.
    rows: Vec<BufferedRow>,
    /// The earliest timer that is set for the key. Other timers are ignored.
    due_ms: i64,
}

/// About how many rows are handed out at a time.
const CHUNK_ROWS: usize = 4096;

impl RowBuffer {
    /// `pane_ms` is how long a pane usually is.
    pub fn new(
        schema: &Schema,
        layout: KeyLayout,
        stored: Option<StoredTable>,
        hands_out: HandsOut,
        pane_ms: i64,
    ) -> Self {
        let empty = KeyRows {
            hands_out,
            entries: Vec::new(),
            timers: Timers::new(pane_ms),
            horizon_ms: pane_ms,
            rows: 0,
        };
        let upkeep = Upkeep::new(stored.as_ref());
        let table = Arc::new(KeyedTable { layout, stored });
        RowBuffer {
            panes: PanedStates::new(table.clone(), pane_ms, empty),
            columns: StateTable::new(schema),
            table,
            hands_out,
            upkeep,
            ahead_ms: pane_ms / 4,
        }
    }

    /// Restores the rows of the last checkpoint.
    pub fn restore(&mut self) -> Result<(), StateError> {
        let Some(stored) = &self.table.stored else {
            return Ok(());
        };
        self.upkeep
            .restore(stored, &mut self.columns, &mut self.panes)
    }

    /// Evicts rows if they take too much memory.
    pub fn evict_excess(&mut self) {
        self.upkeep.evict_excess(&mut self.columns, &mut self.panes);
    }

    pub fn snapshot(&mut self, changes: &mut Changes) -> Result<(), StateError> {
        self.panes.snapshot(&self.columns, changes)
    }

    /// Shows rows.
    pub fn look(&self, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        self.panes.look(&self.columns, look, seen)
    }

    pub fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// The columns of rows, by slot.
    pub fn columns(&self) -> &StateTable {
        &self.columns
    }

    /// The first pane with rows, from this one on.
    pub fn first_pane(&self, from: i64) -> Option<i64> {
        self.panes.range(from..).map(|(pane, _)| pane).next()
    }

    /// Adds rows.
    pub fn insert(&mut self, keys: &BatchKeys, new: NewRows<'_>) -> Result<(), StateError> {
        let RowBuffer { panes, columns, .. } = self;
        let Some((first, last)) = extent(new.panes) else {
            return Ok(());
        };
        let pane_of = |run: usize| new.panes[keys.rows(run).start];
        panes.read_back(first..=last, columns, keys, pane_of)?;
        let slots: Vec<u32> = new.times.iter().map(|_| columns.allocate()).collect();
        columns.scatter(&slots, new.columns)?;
        let mut known = None;
        for run in 0..keys.runs() {
            let pane = pane_of(run);
            let place = match known {
                Some((known, place)) if known == pane => place,
                _ => panes.place(pane),
            };
            known = Some((pane, place));
            let keyed = panes.at_mut(place);
            let (id, is_new) = keyed.upsert_run(keys, run);
            if is_new {
                keyed.entries.begin(id);
            }
            for row in keys.rows(run) {
                let row = BufferedRow {
                    time_ms: new.times[row],
                    slot: slots[row],
                    mark: new.marks[row],
                };
                keyed.entries.add(id, row);
            }
            keyed.entries.arm(id);
        }
        Ok(())
    }

    /// Calls `visit` with each row of the batch and each buffered row of its key that
    /// it reaches, which `visit` may mark.
    pub fn visit<E: From<StateError>>(
        &mut self,
        keys: &BatchKeys,
        reaches: &[Reach],
        mut visit: impl FnMut(usize, i64, &mut BufferedRow, &StateTable) -> Result<(), E>,
    ) -> Result<(), E> {
        let RowBuffer { panes, columns, .. } = self;
        let first = reaches.iter().map(|reach| *reach.panes.start()).min();
        let last = reaches.iter().map(|reach| *reach.panes.end()).max();
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(());
        };
        if first > last {
            return Ok(());
        }
        let places: Vec<(i64, u32)> = panes.range(first..=last).collect();
        for (pane, place) in places {
            let keyed = panes.at_mut(place);
            keyed.read_back(columns, keys, |run| {
                let mut rows = keys.rows(run);
                rows.any(|row| reaches[row].panes.contains(&pane))
            })?;
            for run in 0..keys.runs() {
                let Some(id) = keyed.keys().find_run(keys, run) else {
                    continue;
                };
                let mut marked = false;
                let rows = &mut keyed.entries.entries[id as usize].rows;
                for row in keys.rows(run) {
                    let Reach { panes, times } = &reaches[row];
                    if !panes.contains(&pane) {
                        continue;
                    }
                    let from = rows.partition_point(|row| row.time_ms < *times.start());
                    let reached = rows[from..].iter_mut();
                    for found in reached.take_while(|found| found.time_ms <= *times.end()) {
                        let before = found.mark;
                        visit(row, pane, found, columns)?;
                        marked |= found.mark != before;
                    }
                }
                if marked {
                    keyed.touch(id);
                }
            }
        }
        Ok(())
    }

    /// Hands out the rows up to a time, each once, and forgets them. Panes for which
    /// `is_over` is true have no other rows; `last_pane` is that of the time.
    pub fn pass<E: From<StateError>>(
        &mut self,
        up_to_ms: i64,
        last_pane: i64,
        is_over: impl Fn(i64) -> bool,
        mut hand_out: impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let hands_out = self.hands_out;
        if hands_out != HandsOut::Nothing {
            let places: Vec<(i64, u32)> = self.panes.range(..=last_pane).collect();
            for (pane, place) in places {
                if is_over(pane) {
                    self.look_through(pane..=pane, |row| hands_out.has(row), &mut hand_out)?;
                } else {
                    self.pass_some(place, up_to_ms, &mut hand_out)?;
                }
            }
        }
        self.forget(is_over);
        Ok(())
    }

    /// Forgets the panes that are over.
    pub fn forget(&mut self, is_over: impl Fn(i64) -> bool) {
        while self.panes.drop_first(&mut self.columns, &is_over) {}
    }

    /// Hands out the rows up to a time of a pane that has others.
    fn pass_some<E: From<StateError>>(
        &mut self,
        place: u32,
        up_to_ms: i64,
        hand_out: &mut impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let RowBuffer { panes, columns, .. } = self;
        let keyed = panes.at_mut(place);
        if let Some(mut sweep) = keyed.sweep(up_to_ms) {
            let ahead_ms = up_to_ms.saturating_add(self.ahead_ms);
            while let Some(rows) = keyed.next_due(&mut sweep, ahead_ms)? {
                keyed.insert(columns, &rows)?;
                hand_out_due(keyed, columns, up_to_ms, hand_out)?;
            }
        }
        hand_out_due(keyed, columns, up_to_ms, hand_out)
    }

    /// Hands out the rows of some panes for which `is_wanted` is true, and keeps them.
    pub fn look_through<E: From<StateError>>(
        &mut self,
        panes: RangeInclusive<i64>,
        is_wanted: impl Fn(&BufferedRow) -> bool,
        mut hand_out: impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if panes.is_empty() {
            return Ok(());
        }
        let places: Vec<(i64, u32)> = self.panes.range(panes).collect();
        for (pane, place) in places {
            let keyed = self.panes.at(place);
            let mut chunk = Chunk::default();
            for (id, entry) in keyed.entries.entries.iter().enumerate() {
                let wanted = entry.rows.iter().filter(|row| is_wanted(row));
                chunk.extend(id as u32, wanted.copied());
                if chunk.rows.len() >= CHUNK_ROWS {
                    chunk.hand_out(pane, keyed.keys(), &self.columns, &mut hand_out)?;
                }
            }
            chunk.hand_out(pane, keyed.keys(), &self.columns, &mut hand_out)?;
            let Some(mut scan) = keyed.scan() else {
                continue;
            };
            while let Some(stored) = keyed.next(&mut scan)? {
                let mut keys = KeyTable::default();
                let mut encoded = Vec::new();
                let mut of_key = Vec::new();
                for (_, key, row) in stored.rows() {
                    let (id, _) = keys
                        .upsert_row(&self.table.layout, key)
                        .map_err(StateError::from)?;
                    of_key.clear();
                    let rows = keyed.entries.read(row, &mut of_key);
                    for (row, columns) in rows.map_err(StateError::from)?.into_iter().zip(&of_key) {
                        if is_wanted(&row) {
                            chunk.extend(id, [row]);
                            encoded.push(*columns);
                        }
                    }
                }
                let slots = self.columns.decode(encoded.into_iter());
                let slots = slots.map_err(StateError::from)?;
                for (row, &slot) in chunk.rows.iter_mut().zip(&slots) {
                    row.slot = slot;
                }
                chunk.hand_out(pane, &keys, &self.columns, &mut hand_out)?;
                for slot in slots {
                    self.columns.release(slot);
                }
            }
        }
        Ok(())
    }

    /// Calls `found` with each row of the batch and the last version of its key at or
    /// before the row's time, or the last of all where there are no times. All versions
    /// are in one pane.
    pub fn versions<E: From<StateError>>(
        &mut self,
        keys: &BatchKeys,
        times: Option<&[i64]>,
        mut found: impl FnMut(usize, Option<u32>, &StateTable) -> Result<(), E>,
    ) -> Result<(), E> {
        let RowBuffer { panes, columns, .. } = self;
        let place = panes.place(VERSIONS_PANE);
        let keyed = panes.at_mut(place);
        keyed.read_back(columns, keys, |_| true)?;
        for run in 0..keys.runs() {
            let id = keyed.keys().find_run(keys, run);
            let rows = id.map_or(&[][..], |id| &keyed.entries.entries[id as usize].rows);
            for row in keys.rows(run) {
                let at = times.map_or(rows.len(), |times| {
                    rows.partition_point(|version| version.time_ms <= times[row])
                });
                let version = rows[..at].last().filter(|last| last.mark != DELETED);
                found(row, version.map(|version| version.slot), columns)?;
            }
        }
        Ok(())
    }

    /// Forgets what [`RowBuffer::forget_replaced`] left of these keys because they were
    /// evicted.
    pub fn forget_replaced_of(
        &mut self,
        keys: &BatchKeys,
        up_to_ms: i64,
    ) -> Result<(), StateError> {
        let RowBuffer { panes, columns, .. } = self;
        let place = panes.place(VERSIONS_PANE);
        panes.at_mut(place).read_back(columns, keys, |_| true)?;
        self.forget_replaced(up_to_ms)
    }

    /// Forgets all versions of these keys but the last ones.
    pub fn keep_last(&mut self, keys: &BatchKeys) {
        let RowBuffer { panes, columns, .. } = self;
        let place = panes.place(VERSIONS_PANE);
        let keyed = panes.at_mut(place);
        for run in 0..keys.runs() {
            if let Some(id) = keyed.keys().find_run(keys, run) {
                let last = keyed.entries.entries[id as usize].rows.len() - 1;
                keyed.entries.drop_first(id, last, columns);
                keyed.entries.arm(id);
            }
        }
    }

    /// Forgets versions that were replaced or deleted at a time. Evicted keys keep them
    /// until they are read back, since reading all would cost more.
    pub fn forget_replaced(&mut self, up_to_ms: i64) -> Result<(), StateError> {
        let RowBuffer { panes, columns, .. } = self;
        let place = panes.place(VERSIONS_PANE);
        let keyed = panes.at_mut(place);
        let mut empty = Vec::new();
        for id in keyed.entries.take_due(up_to_ms) {
            let rows = &keyed.entries.entries[id as usize].rows;
            let at = rows.partition_point(|version| version.time_ms <= up_to_ms);
            let is_deleted = at > 0 && rows[at - 1].mark == DELETED;
            let replaced = if is_deleted { at } else { at.saturating_sub(1) };
            keyed.entries.drop_first(id, replaced, columns);
            keyed.entries.arm(id);
            keyed.touch(id);
            if keyed.entries.entries[id as usize].rows.is_empty() {
                empty.push(id);
            }
        }
        keyed.remove(&empty)
    }
}

/// The pane that has all versions.
pub const VERSIONS_PANE: i64 = 0;

/// Hands out the rows up to a time of keys in memory, and forgets them.
fn hand_out_due<E: From<StateError>>(
    keyed: &mut KeyedStates<KeyRows>,
    columns: &mut StateTable,
    up_to_ms: i64,
    hand_out: &mut impl FnMut(HandedOut<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let hands_out = keyed.entries.hands_out;
    let due = keyed.entries.take_due(up_to_ms);
    let mut due = due.into_iter().peekable();
    let mut chunk = Chunk::default();
    let mut passed = Vec::new();
    while let Some(id) = due.next() {
        let rows = &keyed.entries.entries[id as usize].rows;
        let count = rows.partition_point(|row| row.time_ms <= up_to_ms);
        let wanted = rows[..count].iter().filter(|row| hands_out.has(row));
        chunk.extend(id, wanted.copied());
        passed.push((id, count));
        if chunk.rows.len() < CHUNK_ROWS && due.peek().is_some() {
            continue;
        }
        chunk.hand_out(keyed.pane(), keyed.keys(), columns, hand_out)?;
        let mut empty = Vec::new();
        for (id, count) in passed.drain(..) {
            keyed.entries.drop_first(id, count, columns);
            keyed.entries.arm(id);
            if count > 0 {
                keyed.touch(id);
            }
            if keyed.entries.entries[id as usize].rows.is_empty() {
                empty.push(id);
            }
        }
        keyed.remove(&empty)?;
    }
    Ok(())
}

/// Rows to hand out together.
#[derive(Default)]
struct Chunk {
    ids: Vec<u32>,
    rows: Vec<BufferedRow>,
}

impl Chunk {
    fn extend(&mut self, id: u32, rows: impl IntoIterator<Item = BufferedRow>) {
        self.rows.extend(rows);
        self.ids.resize(self.rows.len(), id);
    }

    fn hand_out<E>(
        &mut self,
        pane: i64,
        keys: &KeyTable,
        columns: &StateTable,
        hand_out: &mut impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rows.is_empty() {
            return Ok(());
        }
        hand_out(HandedOut {
            pane,
            keys,
            ids: &self.ids,
            rows: &self.rows,
            columns,
        })?;
        self.ids.clear();
        self.rows.clear();
        Ok(())
    }
}

impl HandsOut {
    fn has(self, row: &BufferedRow) -> bool {
        match self {
            HandsOut::Nothing | HandsOut::Versions => false,
            HandsOut::Unmarked => row.mark == 0,
            HandsOut::All => true,
        }
    }

    /// When a key with these rows has something to hand out.
    fn due_ms(self, rows: &[BufferedRow]) -> i64 {
        let first = rows.iter().find(|row| self.has(row));
        first.map_or(NEVER, |row| row.time_ms)
    }
}

impl KeyRows {
    /// Makes an empty entry for a new key.
    fn begin(&mut self, id: u32) {
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, KeyEntry::default);
        }
    }

    /// Adds a row behind those of its time.
    fn add(&mut self, id: u32, row: BufferedRow) {
        let rows = &mut self.entries[id as usize].rows;
        if rows.is_empty() {
            // Most keys have one row in a pane.
            rows.reserve_exact(1);
        }
        match rows.last() {
            Some(last) if last.time_ms > row.time_ms => {
                let at = rows.partition_point(|other| other.time_ms <= row.time_ms);
                rows.insert(at, row);
            }
            _ => rows.push(row),
        }
        self.rows += 1;
    }

    /// Forgets the first rows of a key.
    fn drop_first(&mut self, id: u32, count: usize, columns: &mut StateTable) {
        let rows = &mut self.entries[id as usize].rows;
        for row in rows.drain(..count) {
            columns.release(row.slot);
        }
        if rows.is_empty() {
            *rows = Vec::new();
        }
        self.rows -= count;
    }

    /// Sets the timer of a key whose rows have changed.
    fn arm(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        let due_ms = match (self.hands_out, entry.rows.as_slice()) {
            (HandsOut::Versions, [first, ..]) if first.mark == DELETED => first.time_ms,
            (HandsOut::Versions, [_, second, ..]) => second.time_ms,
            (hands_out, rows) => hands_out.due_ms(rows),
        };
        if due_ms < entry.due_ms {
            entry.due_ms = due_ms;
            self.timers.set(due_ms, id);
        }
    }

    /// Takes the keys whose timers are due.
    fn take_due(&mut self, up_to_ms: i64) -> Vec<u32> {
        self.timers
            .take_noted(up_to_ms, &mut self.entries, |entry| &mut entry.due_ms)
    }
}

impl Default for KeyEntry {
    fn default() -> Self {
        KeyEntry {
            rows: Vec::new(),
            due_ms: NEVER,
        }
    }
}

impl Entries for KeyRows {
    /// Without slots.
    type Entry = Vec<BufferedRow>;

    const BYTES: usize = size_of::<KeyEntry>() + size_of::<(i64, u32)>();

    fn bytes(&self) -> usize {
        self.rows * size_of::<BufferedRow>()
    }

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read_rows(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        for (buffered, state) in self.entries[id as usize].rows.iter().zip(states) {
            write_i64(buffered.time_ms, row);
            write_length(buffered.mark as usize, row);
            write_state(state, row);
        }
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let rows = self.entries.get(id as usize).map(|entry| &entry.rows);
        slots.extend(rows.into_iter().flatten().map(|row| row.slot));
    }

    fn insert(&mut self, id: u32, mut rows: Self::Entry, slots: &mut dyn Iterator<Item = u32>) {
        for (row, slot) in rows.iter_mut().zip(slots) {
            row.slot = slot;
        }
        self.begin(id);
        self.rows += rows.len();
        self.entries[id as usize] = KeyEntry {
            rows,
            due_ms: NEVER,
        };
        self.arm(id);
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        let rows = self.entries[id as usize].rows.len();
        self.drop_first(id, rows, states);
        self.entries[id as usize].due_ms = NEVER;
    }

    fn is_pinned(&self, _id: u32) -> bool {
        false
    }

    fn due_ms(&self, rows: &Self::Entry) -> i64 {
        self.hands_out.due_ms(rows)
    }

    fn due_of(&self, id: u32) -> i64 {
        self.hands_out.due_ms(&self.entries[id as usize].rows)
    }
}

impl PaneEntries for KeyRows {
    fn clear(&mut self, states: &mut StateTable) {
        for row in self.entries.drain(..).flat_map(|entry| entry.rows) {
            states.release(row.slot);
        }
        self.rows = 0;
        self.timers = Timers::new(self.horizon_ms);
    }
}

/// Reads the rows of a key in a pane, which have no slots yet. Appends their columns to
/// `states`.
pub fn read_rows<'a>(
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<Vec<BufferedRow>, RowError> {
    let mut reader = EntryReader(row);
    let mut rows = Vec::new();
    while !reader.is_at_end() {
        let time_ms = reader.i64()?;
        // It was a u32 when it was written.
        let mark = reader.length()? as u32;
        states.push(reader.state()?);
        rows.push(BufferedRow {
            time_ms,
            slot: u32::MAX,
            mark,
        });
    }
    rows.shrink_to_fit();
    Ok(rows)
}

/// The least and the greatest of these numbers.
fn extent(numbers: &[i64]) -> Option<(i64, i64)> {
    Some((*numbers.iter().min()?, *numbers.iter().max()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> KeyRows {
        KeyRows {
            hands_out: HandsOut::Unmarked,
            entries: Vec::new(),
            timers: Timers::new(1),
            horizon_ms: 1,
            rows: 0,
        }
    }

    fn row(time_ms: i64, slot: u32, mark: u32) -> BufferedRow {
        BufferedRow {
            time_ms,
            slot,
            mark,
        }
    }

    /// Bytes that a release has written stay readable for ever.
    #[test]
    fn entries_are_what_they_were() {
        let mut written = entries();
        written.begin(0);
        written.add(0, row(3, 7, 0x0002_0001));
        written.add(0, row(-2, 8, 0));
        let mut bytes = Vec::new();
        written.write(0, &[b"xy", b""], &mut bytes);
        let mut expected = vec![0xfe];
        expected.extend([0xff; 7]);
        expected.extend([0, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend(b"xy");
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);

        let mut read = entries();
        let mut states = Vec::new();
        let entry = read.read(&bytes, &mut states).expect("it was written");
        assert_eq!(states, [b"xy".as_slice(), b""]);
        assert_eq!(read.due_ms(&entry), -2);
        read.insert(1, entry, &mut [8, 7].into_iter());
        let rows = [row(-2, 8, 0), row(3, 7, 0x0002_0001)];
        assert_eq!(read.entries[1].rows, rows);
        assert!(read.read(&bytes[..9], &mut states).is_err(), "it is cut");
    }

    #[test]
    fn rows_of_one_time_stay_in_the_order_in_which_they_came() {
        let mut keys = entries();
        keys.begin(0);
        for (slot, time_ms) in [(0, 5), (1, 3), (2, 5), (3, 3), (4, 4)] {
            keys.add(0, row(time_ms, slot, 0));
        }
        let slots: Vec<u32> = keys.entries[0].rows.iter().map(|row| row.slot).collect();
        assert_eq!(slots, [1, 3, 4, 0, 2]);
    }
}
