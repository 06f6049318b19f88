//! Remembers when sessions ended that no row can correct any more, so that no later row
//! begins a session that overlaps one.
//!
//! Only rows behind the watermark ask for it, so it costs little where nobody asks: it is
//! a log by time, and what a row asks for is indexed then. It knows keys by their hash of
//! 64 bits: a row that asks is taken for one of another key, and so for late, with a
//! probability of the number of sessions in the log divided by 2^64.
//!
//! The format in the storage, version 1: a row for each checkpoint, pane and shard, with
//! the hash of its first session as its key, and as its value each session's hash u64 and
//! the time of its last row i64, in ms. A pane is as long as the gap, so it has at most
//! one session of a key.

use std::collections::{BTreeMap, HashMap};

use arrow_array::{Array, ArrayRef};

use crate::checkpoint::changes::Changes;
use crate::element::END_OF_TIME;
use crate::shard;
use crate::state::entry_row::{EntryReader, write_i64};
use crate::state::error::StateError;
use crate::state::key::{KeyLayout, KeyTable, Selection};
use crate::state::stored::StoredTable;

pub(super) struct EndedSessions {
    gap_ms: i64,
    /// For how long after its last row a session is known.
    known_ms: i64,
    stored: Option<StoredTable>,
    /// By the times of the last rows, in gaps.
    panes: BTreeMap<i64, Pane>,
    /// Dropped panes whose rows the next checkpoint deletes.
    dropped: Vec<i64>,
    /// How many checkpoints had been written when sessions were last handed over. After
    /// one more, these can be read back.
    handed_over_at: u64,
}

#[derive(Default)]
struct Pane {
    /// In memory, in the order in which they ended.
    sessions: Vec<Ended>,
    /// How many of these are in the index.
    indexed: usize,
    /// How many of these the storage has.
    stored: usize,
    /// The time of the last row by hash.
    index: HashMap<u64, i64>,
    has_rows: bool,
    /// Whether the storage has sessions that neither the log nor the index has.
    is_evicted: bool,
    /// Whether a row has asked for it since it was last to be evicted.
    is_used: bool,
}

#[derive(Clone, Copy)]
struct Ended {
    hash: u64,
    last_ms: i64,
}

/// Sessions that no row can correct any more, by key and time of the last row.
#[derive(Default)]
pub(super) struct Over {
    pub ids: Vec<u32>,
    pub last_ms: Vec<i64>,
}

impl EndedSessions {
    pub fn new(
        gap_ms: i64,
        lateness_ms: i64,
        stored: Option<StoredTable>,
    ) -> Result<Self, StateError> {
        let mut panes = BTreeMap::new();
        if let Some(stored) = &stored
            && stored.restored.is_some()
        {
            for pane in stored.panes()? {
                panes.insert(pane, Pane::restored());
            }
        }
        Ok(EndedSessions {
            gap_ms,
            // A row that reaches the end of a session may be late by two gaps more than
            // the lateness.
            known_ms: 3 * gap_ms + lateness_ms,
            stored,
            panes,
            dropped: Vec::new(),
            handed_over_at: 0,
        })
    }

    /// Adds sessions that are over at this watermark.
    pub fn add(
        &mut self,
        layout: &KeyLayout,
        keys: &KeyTable,
        over: &Over,
        watermark_ms: i64,
    ) -> Result<(), StateError> {
        // After the end of time, rows may come in another run only.
        let is_last = watermark_ms == END_OF_TIME && self.stored.is_none();
        if over.ids.is_empty() || is_last {
            return Ok(());
        }
        let columns = keys.columns(layout, Selection::Each(&over.ids))?;
        let hashes = shard::hashes(columns.iter(), over.ids.len());
        for (hash, &last_ms) in hashes.into_iter().zip(&over.last_ms) {
            if watermark_ms == END_OF_TIME || watermark_ms <= last_ms.saturating_add(self.known_ms)
            {
                let pane = self.panes.entry(last_ms.div_euclid(self.gap_ms));
                pane.or_default().sessions.push(Ended { hash, last_ms });
            }
        }
        Ok(())
    }

    /// Whether a session of a row's key reaches a time. `key` is the columns of the keys
    /// of a batch.
    pub fn reach(
        &mut self,
        key: &[ArrayRef],
        row: usize,
        time_ms: i64,
    ) -> Result<bool, StateError> {
        let first_ms = time_ms - self.gap_ms;
        let panes = first_ms.div_euclid(self.gap_ms)..=time_ms.div_euclid(self.gap_ms);
        let mut hash = None;
        for (&number, pane) in self.panes.range_mut(panes) {
            pane.complete_index(number, self.stored.as_ref())?;
            let hash = *hash.get_or_insert_with(|| {
                let key: Vec<ArrayRef> = key.iter().map(|column| column.slice(row, 1)).collect();
                shard::hashes(key.iter(), 1)[0]
            });
            if pane.index.get(&hash).is_some_and(|&last| last >= first_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets the sessions that no row in time can reach any more. At the end of time,
    /// it keeps all for the rows of another run.
    pub fn forget(&mut self, watermark_ms: i64) {
        if watermark_ms == END_OF_TIME {
            return;
        }
        while let Some(first) = self.panes.first_entry() {
            let end_ms = first.key().saturating_add(1).saturating_mul(self.gap_ms);
            if watermark_ms <= end_ms.saturating_add(self.known_ms) {
                return;
            }
            let (number, pane) = first.remove_entry();
            if pane.has_rows {
                self.dropped.push(number);
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.panes.values().map(Pane::bytes).sum()
    }

    /// Evicts what the storage has, except panes that a row has asked for since the last
    /// call.
    pub fn evict(&mut self) {
        let Some(stored) = &self.stored else { return };
        if stored.budget.writes() <= self.handed_over_at {
            return;
        }
        for pane in self.panes.values_mut().filter(|pane| pane.has_rows) {
            if !std::mem::take(&mut pane.is_used) {
                pane.evict();
            }
        }
    }

    /// Adds what has ended since the last checkpoint to `changes`.
    pub fn snapshot(&mut self, changes: &mut Changes) {
        let Some(stored) = &self.stored else { return };
        self.handed_over_at = stored.budget.writes();
        for pane in self.dropped.drain(..) {
            stored.delete_pane(pane, changes);
        }
        for (&number, pane) in &mut self.panes {
            let mut new = pane.sessions[pane.stored..].to_vec();
            if new.is_empty() {
                continue;
            }
            let shard_of = |ended: &Ended| shard::shard(ended.hash);
            new.sort_by_key(shard_of);
            for of_shard in new.chunk_by(|one, other| shard_of(one) == shard_of(other)) {
                let first = of_shard[0];
                changes.put(
                    |row| {
                        let key = first.hash.to_be_bytes();
                        stored.write_key(number, shard_of(&first), &key, row);
                    },
                    |row| {
                        for ended in of_shard {
                            write_i64(ended.hash.cast_signed(), row);
                            write_i64(ended.last_ms, row);
                        }
                    },
                );
            }
            pane.stored = pane.sessions.len();
            pane.has_rows = true;
        }
    }
}

impl Pane {
    fn restored() -> Self {
        Pane {
            has_rows: true,
            is_evicted: true,
            ..Pane::default()
        }
    }

    /// Has the index know all of the pane's sessions.
    fn complete_index(
        &mut self,
        number: i64,
        stored: Option<&StoredTable>,
    ) -> Result<(), StateError> {
        self.is_used = true;
        if let Some(stored) = stored.filter(|_| self.is_evicted) {
            let mut scan = stored.scan(number);
            while let Some(rows) = stored.next(&mut scan)? {
                for (_, _, row) in rows.rows() {
                    let mut row = EntryReader(row);
                    while !row.is_at_end() {
                        let hash = row.i64()?.cast_unsigned();
                        self.index.insert(hash, row.i64()?);
                    }
                }
            }
            self.is_evicted = false;
        }
        let new = &self.sessions[self.indexed..];
        self.index
            .extend(new.iter().map(|ended| (ended.hash, ended.last_ms)));
        self.indexed = self.sessions.len();
        Ok(())
    }

    fn evict(&mut self) {
        self.sessions.drain(..self.stored);
        self.sessions.shrink_to_fit();
        self.index = HashMap::new();
        self.stored = 0;
        self.indexed = 0;
        self.is_evicted = true;
    }

    fn bytes(&self) -> usize {
        // A map has a byte of control for each entry.
        let entry = size_of::<(u64, i64)>() + 1;
        self.sessions.capacity() * size_of::<Ended>() + self.index.capacity() * entry
    }
}
