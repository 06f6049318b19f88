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
use super::stored::{Scan, StoredTable};
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
    /// A sweep through a pane that goes on with the next piece.
    sweep: Option<(i64, Scan)>,
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

/// About how many rows a piece has: a checkpoint may be made behind it.
pub const PIECE_ROWS: usize = 1 << 16;

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
            sweep: None,
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
        self.panes.range(from..).next()
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
        // Rows before others of their keys, which are many where one key has all.
        let mut before: Vec<(u32, u32, BufferedRow)> = Vec::new();
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
                if !keyed.entries.add_behind(id, row) {
                    before.push((place, id, row));
                }
            }
            keyed.entries.arm(id);
        }
        before.sort_by_key(|(place, id, row)| (*place, *id, row.time_ms));
        for of_key in before.chunk_by(|one, next| (one.0, one.1) == (next.0, next.1)) {
            let (place, id, _) = of_key[0];
            let entries = &mut panes.at_mut(place).entries;
            entries.add_between(id, of_key.iter().map(|(_, _, row)| *row));
            entries.arm(id);
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
        for pane in panes.range(first..=last).collect::<Vec<_>>() {
            let place = panes.place(pane);
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
            for pane in self.panes.range(..=last_pane).collect::<Vec<_>>() {
                if is_over(pane) {
                    self.look_through(pane..=pane, |row| hands_out.has(row), &mut hand_out)?;
                    self.forget(|first| first <= pane);
                } else {
                    let mut all = usize::MAX;
                    self.pass_some(pane, up_to_ms, &mut all, &mut hand_out)?;
                }
            }
        }
        self.forget(is_over);
        Ok(())
    }

    /// Hands out the next rows up to a time as [`RowBuffer::pass`] does, about
    /// [`PIECE_ROWS`] of them, and forgets these. Returns whether there may be more: a
    /// checkpoint and other rows may come in between.
    pub fn pass_piece<E: From<StateError>>(
        &mut self,
        up_to_ms: i64,
        last_pane: i64,
        is_over: impl Fn(i64) -> bool,
        mut hand_out: impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let hands_out = self.hands_out;
        let mut left = PIECE_ROWS;
        loop {
            let Some(pane) = self.panes.range(..=last_pane).next() else {
                return Ok(false);
            };
            let place = self.panes.place(pane);
            let keyed = self.panes.at(place);
            let rows = keyed.entries.rows;
            if is_over(pane) && rows <= left && !keyed.has_evicted() {
                self.look_through(pane..=pane, |row| hands_out.has(row), &mut hand_out)?;
                left -= rows;
            } else if self.pass_some(pane, up_to_ms, &mut left, &mut hand_out)? {
                return Ok(true);
            }
            if !is_over(pane) {
                return Ok(false);
            }
            self.forget(|first| first <= pane);
        }
    }

    /// Hands out the next rows up to a time of a pane, about `left` of them, and forgets them.
    /// Returns whether there may be more.
    fn pass_some<E: From<StateError>>(
        &mut self,
        pane: i64,
        up_to_ms: i64,
        left: &mut usize,
        hand_out: &mut impl FnMut(HandedOut<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let RowBuffer {
            panes,
            columns,
            sweep,
            ..
        } = self;
        let place = panes.place(pane);
        let keyed = panes.at_mut(place);
        loop {
            if hand_out_due(keyed, columns, up_to_ms, left, hand_out)? {
                return Ok(true);
            }
            let scan = match sweep {
                Some((of, scan)) if *of == pane => scan,
                _ => match keyed.sweep(up_to_ms) {
                    Some(scan) => &mut sweep.insert((pane, scan)).1,
                    None => return Ok(false),
                },
            };
            match keyed.next_due_or_soon(scan, up_to_ms)? {
                Some(rows) => keyed.insert(columns, &rows)?,
                None => *sweep = None,
            }
        }
    }

    /// Forgets the panes that are over.
    pub fn forget(&mut self, is_over: impl Fn(i64) -> bool) {
        while self.panes.drop_first(&mut self.columns, &is_over) {}
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
        for pane in self.panes.range(panes).collect::<Vec<_>>() {
            let place = self.panes.place(pane);
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
            let mut scan = keyed.scan();
            while let Some(scan) = &mut scan
                && let Some(stored) = keyed.next(scan)?
            {
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
            self.panes.put_back(pane);
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

/// Hands out the rows up to a time of keys in memory, about `left` of them, and forgets
/// them. Rows of a key with the same time are not parted. Returns whether none are left.
fn hand_out_due<E: From<StateError>>(
    keyed: &mut KeyedStates<KeyRows>,
    columns: &mut StateTable,
    up_to_ms: i64,
    left: &mut usize,
    hand_out: &mut impl FnMut(HandedOut<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let hands_out = keyed.entries.hands_out;
    let due = keyed.entries.take_due(up_to_ms);
    let mut due = due.into_iter().peekable();
    let mut chunk = Chunk::default();
    let mut passed = Vec::new();
    while let Some(id) = due.next() {
        if *left == 0 {
            keyed.entries.arm(id);
            continue;
        }
        let rows = &keyed.entries.entries[id as usize].rows;
        let mut count = rows.partition_point(|row| row.time_ms <= up_to_ms);
        if count > *left {
            let last_ms = rows[*left - 1].time_ms;
            count = rows.partition_point(|row| row.time_ms <= last_ms);
        }
        *left = left.saturating_sub(count);
        let wanted = rows[..count].iter().filter(|row| hands_out.has(row));
        chunk.extend(id, wanted.copied());
        passed.push((id, count));
        if chunk.rows.len() < CHUNK_ROWS && due.peek().is_some() && *left > 0 {
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
    Ok(*left == 0)
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

    /// Adds a row behind those of its key, unless one of them is later. Returns whether it
    /// has.
    fn add_behind(&mut self, id: u32, row: BufferedRow) -> bool {
        let rows = &mut self.entries[id as usize].rows;
        if rows.is_empty() {
            // Most keys have one row in a pane.
            rows.reserve_exact(1);
        }
        let is_behind = rows.last().is_none_or(|last| last.time_ms <= row.time_ms);
        if is_behind {
            rows.push(row);
            self.rows += 1;
        }
        is_behind
    }

    /// Adds rows in order of time, each behind those of its time. Each row that is there is
    /// moved once.
    fn add_between(&mut self, id: u32, new: impl DoubleEndedIterator<Item = BufferedRow> + Clone) {
        let rows = &mut self.entries[id as usize].rows;
        let mut left = rows.len();
        rows.extend(new.clone());
        let mut to = rows.len();
        self.rows += to - left;
        for row in new.rev() {
            while left > 0 && rows[left - 1].time_ms > row.time_ms {
                (left, to) = (left - 1, to - 1);
                rows[to] = rows[left];
            }
            to -= 1;
            rows[to] = row;
        }
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
    use std::collections::BTreeMap;

    use arrow_array::StringArray;
    use arrow_array::cast::AsArray;

    use super::*;
    use crate::budget::Budget;
    use crate::checkpoint::storage::Storage;
    use crate::checkpoint::storage::memory::MemoryStorage;
    use crate::schema::{DataType, Field};
    use crate::shard::SHARDS;
    use crate::state::key::Selection;
    use crate::state::stored::Restored;

    /// A buffer of texts, whose panes are as long as 10 of their times, and what it needs.
    struct Bench {
        buffer: RowBuffer,
        storage: Arc<MemoryStorage>,
        budget: Arc<Budget>,
        checkpoints: u64,
    }

    const PANE: i64 = 10;

    impl Bench {
        fn new(storage: Arc<MemoryStorage>, restored: Option<Restored>) -> Self {
            let text = |name: &str| Schema::new(vec![Field::new(name, DataType::Utf8, false)]);
            let budget = Arc::new(Budget::new(1));
            let stored = StoredTable {
                storage: storage.clone(),
                table: 0,
                shards: 0..SHARDS,
                restored,
                budget: budget.clone(),
            };
            let layout = KeyLayout::new(&text("key"));
            let (stored, all) = (Some(stored), HandsOut::All);
            let mut buffer = RowBuffer::new(&text("row"), layout, stored, all, PANE);
            buffer.restore().expect("memory can be read");
            Bench {
                buffer,
                storage,
                budget,
                checkpoints: 0,
            }
        }

        fn insert(&mut self, rows: &[(String, i64)]) {
            let mut keys = BatchKeys::new(self.buffer.table.layout.clone());
            let panes: Vec<i64> = rows.iter().map(|row| row.1.div_euclid(PANE)).collect();
            let times: Vec<i64> = rows.iter().map(|row| row.1).collect();
            let texts = rows.iter().map(|(key, time)| format!("{key}{time}"));
            let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            let key = StringArray::from_iter_values(rows.iter().map(|row| &row.0));
            let read = keys.read(vec![Arc::new(key)], rows.len(), |row| {
                row > 0 && panes[row] != panes[row - 1]
            });
            read.expect("of the layout's type");
            let new = NewRows {
                panes: &panes,
                times: &times,
                marks: &vec![0; rows.len()],
                columns: &[column],
            };
            self.buffer.insert(&keys, new).expect("it fits");
        }

        /// Makes a checkpoint, and evicts what can be evicted.
        fn checkpoint(&mut self) {
            let mut changes = Changes::default();
            self.buffer
                .snapshot(&mut changes)
                .expect("it can be written");
            self.checkpoints += 1;
            self.storage.checkpoint(self.checkpoints, changes);
            self.budget.add_write();
            self.buffer.evict_excess();
        }

        /// The next rows up to a time, by their keys, and whether there may be more.
        fn piece(&mut self, up_to: i64, taken: &mut BTreeMap<String, Vec<String>>) -> bool {
            let layout = self.buffer.table.layout.clone();
            let is_over = |pane| pane < (up_to + 1).div_euclid(PANE);
            let last_pane = up_to.div_euclid(PANE);
            let hand_out = |handed: HandedOut<'_>| {
                let slots: Vec<u32> = handed.rows.iter().map(|row| row.slot).collect();
                let texts = handed.columns.gather(&slots)?.remove(0);
                let keys = handed.keys.columns(&layout, Selection::Each(handed.ids))?;
                let keys = keys[0].as_string::<i32>().iter().flatten();
                for (key, text) in keys.zip(texts.as_string::<i32>().iter().flatten()) {
                    let of_key = taken.entry(key.to_owned()).or_default();
                    of_key.push(text.to_owned());
                }
                Ok::<_, StateError>(())
            };
            let more = self.buffer.pass_piece(up_to, last_pane, is_over, hand_out);
            more.expect("memory can be read")
        }
    }

    /// As where a side of a join is silent, and the other one has rows for long.
    #[test]
    fn panes_whose_keys_are_all_evicted_take_no_memory() {
        let mut bench = Bench::new(Arc::default(), None);
        for pane in 0..300 {
            let key = |key| (format!("k{key}"), pane * PANE);
            let rows: Vec<_> = (0..100).map(key).collect();
            bench.insert(&rows);
            if pane % 20 == 19 {
                bench.checkpoint();
            }
        }
        bench.checkpoint();
        let panes = &bench.buffer.panes;
        assert_eq!(panes.range(..).count(), 300);
        assert_eq!(panes.in_memory(..).count(), 0);
        assert!(panes.bytes() < 100 * 1_024, "{}", panes.bytes());
        // A row that comes is in its pane as before, beside what was there.
        bench.insert(&[("k7".to_owned(), 5 * PANE), ("new".to_owned(), 5 * PANE)]);
        assert_eq!(bench.buffer.panes.in_memory(..).count(), 1);
        let mut taken = BTreeMap::new();
        while bench.piece(299 * PANE + 1, &mut taken) {}
        assert_eq!(taken.len(), 101);
        assert_eq!(taken["k7"].len(), 301);
        assert!(
            taken["k7"]
                .windows(2)
                .filter(|pair| pair[0] == pair[1])
                .count()
                == 1
        );
        assert_eq!(taken["k8"].len(), 300);
        bench.buffer.forget(|_| true);
        bench.checkpoint();
        let mut rows = 0;
        let scanned = bench.storage.scan(&[], &[0xff; 8], &mut |_, _| {
            rows += 1;
            true
        });
        scanned.expect("memory can be read");
        assert_eq!(rows, 0, "they are deleted");
    }

    /// With checkpoints in between, and another run that goes on from one of them.
    #[test]
    fn rows_are_handed_out_in_pieces_each_once() {
        let of_key = PIECE_ROWS + PIECE_ROWS / 2;
        let rows = |key: &str| {
            let times = (0..of_key).map(|row| (row as i64 * PANE) / of_key as i64);
            times.map(|time| (key.to_owned(), time)).collect::<Vec<_>>()
        };
        let up_to = 2 * PANE - 1;
        let mut bench = Bench::new(Arc::default(), None);
        bench.insert(&rows("a"));
        bench.checkpoint();
        bench.insert(&rows("b"));
        bench.insert(&[("c".to_owned(), 2 * PANE)]);
        let mut taken = BTreeMap::new();
        assert!(bench.piece(up_to, &mut taken));
        assert!(bench.piece(up_to, &mut taken));
        let so_far: usize = taken.values().map(Vec::len).sum();
        assert!((PIECE_ROWS..of_key * 2).contains(&so_far), "{so_far}");
        bench.checkpoint();
        let mut lost = BTreeMap::new();
        bench.piece(up_to, &mut lost);
        // The run fails, and the next one goes on from the checkpoint.
        let found = bench.storage.restore(bench.checkpoints);
        found.expect("there is a checkpoint");
        let restored = Restored {
            time_ms: Some(up_to),
            ..Restored::default()
        };
        let mut bench = Bench {
            checkpoints: bench.checkpoints,
            ..Bench::new(bench.storage, Some(restored))
        };
        while bench.piece(up_to, &mut taken) {
            bench.checkpoint();
        }
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["a", "b"]);
        for texts in taken.values() {
            assert_eq!(texts.len(), of_key);
            assert!(texts.is_sorted(), "they are in order of time");
        }
        taken.clear();
        assert!(!bench.piece(3 * PANE, &mut taken));
        assert_eq!(taken["c"], ["c20"]);
    }

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
        written.add_behind(0, row(3, 7, 0x0002_0001));
        written.add_between(0, [row(-2, 8, 0)].into_iter());
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
            if !keys.add_behind(0, row(time_ms, slot, 0)) {
                keys.add_between(0, [row(time_ms, slot, 0)].into_iter());
            }
        }
        let between = [row(2, 5, 0), row(3, 6, 0), row(4, 7, 0), row(4, 8, 0)];
        keys.add_between(0, between.into_iter());
        let slots: Vec<u32> = keys.entries[0].rows.iter().map(|row| row.slot).collect();
        assert_eq!(slots, [5, 1, 3, 6, 4, 7, 8, 0, 2]);
        assert_eq!(keys.rows, 9);
    }

    /// As where one key has all rows, and files are read beside one another.
    #[test]
    fn many_rows_of_a_key_in_no_order_take_no_time() {
        const ROWS: usize = 200_000;
        let mut bench = Bench::new(Arc::default(), None);
        let mut random = fastrand::Rng::with_seed(7);
        let began = std::time::Instant::now();
        for _ in 0..ROWS / 1_000 {
            let time = |_| ("a".to_owned(), random.i64(0..PANE));
            let rows: Vec<_> = (0..1_000).map(time).collect();
            bench.insert(&rows);
        }
        let took = began.elapsed();
        let mut taken = BTreeMap::new();
        while bench.piece(PANE, &mut taken) {}
        assert_eq!(taken["a"].len(), ROWS);
        assert!(taken["a"].is_sorted());
        // The machine may be busy, and there are no optimisations.
        assert!(took.as_secs() < 12, "{took:?}");
    }
}
