//! No windows: one state for each key, and a result after each row, or every so often the
//! results of the keys with new rows.
//!
//! A state is kept for ever, or expires some time after its key's last row. Whether
//! it has expired when a row comes depends on the row's time, or the watermark if
//! that is later; not on when states are swept, nor on where batches are cut.

use super::accumulators::{Accumulators, Arrived};
use super::changes::{Before, Change};
use super::early::EarlyKeys;
use super::kind::WindowKind;
use super::results::{Ids, Results, Spans};
use super::tables::{EARLY, TOLD};
use super::time::{SIZE_MAX_MS, Span, TIME_MAX_MS};
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::Timing;
use crate::state::calendar::NEVER;
use crate::state::entry_row::{EntryReader, write_i64, write_state};
use crate::state::groups::NO_SLOT;
use crate::state::key::KeyTable;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::row::RowError;
use crate::state::table::StateTable;
use crate::state::timer::Timers;

pub(super) struct Running {
    /// Whether results come every so often only.
    waits: bool,
    /// Whether it has to know what these have told, to take it back.
    knows_told: bool,
    keyed: KeyedStates<RunningEntries>,
}

#[derive(Debug)]
struct RunningEntries {
    /// How long a state is kept after its key's last row.
    ttl_ms: Option<i64>,
    /// By key.
    entries: Vec<RunningEntry>,
    /// Keys whose results wait.
    early: EarlyKeys,
    /// When to check whether a key's state has expired.
    timers: Timers,
}

#[derive(Clone, Copy, Debug)]
struct RunningEntry {
    /// [`NO_SLOT`] for a key all of whose rows were lost.
    slot: u32,
    /// The state whose result was told last, where results wait and are taken back:
    /// [`NO_SLOT`] if none was told, [`CURRENT`] if it is the one of `slot`.
    told: u32,
    /// Event time of its newest row.
    newest_ms: i64,
    /// The timer that is set for the key. Other timers of the key are ignored.
    due_ms: i64,
}

/// The state of a key has not changed since its result was told.
const CURRENT: u32 = NO_SLOT - 1;

const NOTHING: RunningEntry = RunningEntry {
    slot: NO_SLOT,
    told: NO_SLOT,
    newest_ms: -TIME_MAX_MS,
    due_ms: NEVER,
};

impl Running {
    pub fn new(accumulators: &Accumulators, ttl_ms: Option<i64>, waits: bool) -> Self {
        let ttl_ms = ttl_ms.map(|ttl_ms| ttl_ms.min(SIZE_MAX_MS));
        let horizon_ms = ttl_ms.unwrap_or(SIZE_MAX_MS);
        let entries = RunningEntries {
            ttl_ms,
            entries: Vec::new(),
            early: EarlyKeys::new(waits),
            timers: Timers::new(horizon_ms),
        };
        Running {
            waits,
            knows_told: waits && accumulators.tells_changes(),
            keyed: KeyedStates::new(accumulators.table.clone(), 0, horizon_ms, entries),
        }
    }

    /// The group of a key's state; a new one if it has none.
    fn group(&mut self, accumulators: &mut Accumulators, id: u32, created: &mut Vec<u32>) -> u32 {
        let slot = &mut self.keyed.entries.entry(id).slot;
        if *slot != NO_SLOT {
            return accumulators.groups.of(*slot);
        }
        let group;
        (*slot, group) = accumulators.allocate_group();
        created.push(id);
        group
    }

    /// Before the state of a key changes: has what was told of it stay. Notes the state and
    /// where it is to be copied to.
    fn keep_told(
        &mut self,
        accumulators: &mut Accumulators,
        id: u32,
        copies: &mut (Vec<u32>, Vec<u32>),
    ) {
        let entry = self.keyed.entries.entry(id);
        if entry.told == CURRENT && entry.slot != NO_SLOT {
            entry.told = accumulators.states.allocate();
            copies.0.push(entry.slot);
            copies.1.push(entry.told);
        }
    }

    fn forget(&mut self, states: &mut StateTable, ids: &[u32]) -> Result<(), KeyedError> {
        self.keyed.remove(ids)?;
        for &id in ids {
            self.keyed.entries.early.forget(id);
            self.keyed.entries.evict(id, states);
        }
        Ok(())
    }
}

impl Running {
    /// Emits the results of these keys that wait.
    fn emit_waiting(
        &mut self,
        accumulators: &mut Accumulators,
        ids: &[u32],
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut waiting = ids.to_vec();
        let entries = &mut self.keyed.entries;
        waiting.retain(|&id| {
            let waits = entries.early.has(id) && entries.entry(id).slot != NO_SLOT;
            if waits {
                // A key that was removed and has come back is listed twice.
                entries.early.forget(id);
            }
            waits
        });
        self.take_back_told(accumulators, &waiting, out)?;
        let (entries, keys) = self.keyed.parts();
        if self.knows_told {
            for &id in &waiting {
                entries.entries[id as usize].told = CURRENT;
            }
        }
        let of = waiting.iter().map(|&id| entries.entries[id as usize]);
        let (slots, spans): (Vec<u32>, Vec<Span>) =
            of.map(|entry| (entry.slot, at(entry.newest_ms))).unzip();
        let results = Results {
            slots: &slots,
            keys,
            ids: Ids::Each(&waiting),
            spans: Spans::Each(&spans),
            timing: Timing::Early,
        };
        accumulators.emit(results, out)?;
        for id in waiting {
            // The next checkpoint notes that it does not wait any more.
            self.keyed.touch(id);
        }
        Ok(())
    }

    /// Takes back what was told last of these keys, where that is another state than
    /// theirs now.
    fn take_back_told(
        &mut self,
        accumulators: &mut Accumulators,
        ids: &[u32],
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let (entries, keys) = self.keyed.parts();
        let (mut of, mut slots, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for &id in ids {
            let entry = &mut entries.entries[id as usize];
            if let Some(slot) = entry.told_apart() {
                entry.told = NO_SLOT;
                of.push(id);
                slots.push(slot);
                spans.push(at(entry.newest_ms));
            }
        }
        let results = Results {
            slots: &slots,
            keys,
            ids: Ids::Each(&of),
            spans: Spans::Each(&spans),
            timing: Timing::Early,
        };
        if self.knows_told {
            accumulators.tell(results, Change::TakenBack, out)?;
        }
        for slot in slots {
            accumulators.states.release(slot);
        }
        Ok(())
    }
}

impl WindowKind for Running {
    fn keyed(&mut self) -> &mut dyn KeyedPart {
        &mut self.keyed
    }

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let arrived = &arrived;
        accumulators.begin_keyed(&mut self.keyed, arrived, |_| false)?;
        let mut created = Vec::new();
        // States that have expired, and those in their place.
        let mut over: Vec<Expired> = Vec::new();
        let mut copies = (Vec::new(), Vec::new());
        for run in 0..accumulators.keys.runs() {
            let (id, _) = self.keyed.upsert_run(&accumulators.keys, run);
            self.keyed.entries.early.note(id);
            let rows = accumulators.keys.rows(run);
            match self.keyed.entries.ttl_ms {
                None => {
                    let newest_ms = arrived.times[rows.clone()].iter().copied().max();
                    let entry = self.keyed.entries.entry(id);
                    entry.newest_ms =
                        newest_ms.map_or(entry.newest_ms, |ms| ms.max(entry.newest_ms));
                    self.keep_told(accumulators, id, &mut copies);
                    let group = self.group(accumulators, id, &mut created);
                    accumulators.groups.push(&rows, group);
                }
                Some(ttl_ms) => {
                    for row in rows {
                        let mut gone = None;
                        let time_ms = arrived.times[row];
                        let entry = self.keyed.entries.entry(id);
                        if entry.slot != NO_SLOT
                            && entry.newest_ms + ttl_ms < time_ms.max(watermark_ms)
                        {
                            let slot = std::mem::replace(&mut entry.slot, NO_SLOT);
                            match entry.told {
                                CURRENT => entry.told = slot,
                                _ => gone = Some((slot, expires_ms(entry.newest_ms, ttl_ms))),
                            }
                            entry.newest_ms = time_ms;
                        }
                        entry.newest_ms = entry.newest_ms.max(time_ms);
                        self.keep_told(accumulators, id, &mut copies);
                        let group = self.group(accumulators, id, &mut created);
                        let slot = self.keyed.entries.entry(id).slot;
                        over.extend(gone.map(|(gone, at_ms)| Expired {
                            slot: gone,
                            at_ms,
                            in_place: slot,
                            row: row as u32,
                        }));
                        accumulators.groups.push(&(row..row + 1), group);
                    }
                    self.keyed.entries.set_timer(id);
                }
            }
        }
        accumulators.groups.end();

        let keys = accumulators.keys_of_groups(arrived);
        accumulators.copy(&copies.0, &copies.1)?;
        let told = match accumulators.tells_changes() && !self.waits {
            true => Some(accumulators.told_before(&keys)?),
            false => None,
        };
        let (folded, results) = match self.waits {
            true => (accumulators.fold(arrived, out)?, None),
            false => {
                let (folded, results) = accumulators.fold_each(arrived, &keys, out)?;
                (folded, Some(results))
            }
        };
        accumulators.store(arrived, &folded, out)?;
        let empty = match folded.lost.is_empty() {
            true => Vec::new(),
            false => accumulators.groups.left_empty(&folded.lost),
        };
        if let Some((told, results)) = told.zip(results.as_ref()) {
            let is_empty = |gone: u32| empty.iter().any(|&(_, slot)| slot == gone);
            let known: Vec<&Expired> = over.iter().filter(|it| !is_empty(it.slot)).collect();
            let gone: Vec<u32> = known.iter().map(|it| it.slot).collect();
            let gone_ms: Vec<i64> = known.iter().map(|it| it.at_ms).collect();
            let gone_rows: Vec<u32> = known.iter().map(|it| it.row).collect();
            let gone_keys = accumulators.keys_read(arrived, &gone_rows);
            let groups = &accumulators.groups;
            let after = (0..).zip(&known);
            let after = after.filter_map(|(place, it)| Some((groups.number(it.in_place)?, place)));
            let mut after: Vec<(u32, u32)> = after.collect();
            after.sort_unstable();
            let before = Before {
                told,
                after: &after,
                gone: accumulators.told(&gone, &gone_keys)?,
                gone_ms: &gone_ms,
            };
            accumulators.emit_changes(arrived, results, &before, &folded.lost, out)?;
        }
        for (at, slot) in empty {
            let id = created[at];
            if self.keyed.entries.entry(id).slot == slot {
                // A state before it that has expired may have been told.
                self.take_back_told(accumulators, &[id], out)?;
                self.forget(&mut accumulators.states, &[id])?;
            } else if !over.iter().any(|it| it.slot == slot) {
                accumulators.states.release(slot);
            }
        }
        for expired in over {
            accumulators.states.release(expired.slot);
        }
        if let Some(results) = results {
            accumulators.emit_each(arrived, results, out);
        }
        Ok(())
    }

    fn has_early(&self) -> bool {
        !self.keyed.entries.early.is_empty()
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let waiting = self.keyed.entries.early.ids();
        self.emit_waiting(accumulators, &waiting, out)?;
        self.keyed.entries.early.clear();
        Ok(())
    }

    /// Removes states that have expired.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        // The end of the input is not the time when states expire.
        if now_ms == END_OF_TIME {
            return self.early(accumulators, out);
        }
        let Some(ttl_ms) = self.keyed.entries.ttl_ms else {
            return Ok(());
        };
        let tells = accumulators.tells_changes();
        let gone = self.keyed.entries.take_expired(now_ms);
        self.emit_waiting(accumulators, &gone, out)?;
        if tells {
            let (entries, keys) = self.keyed.parts();
            let is_told = |entry: RunningEntry| !self.waits || entry.told == CURRENT;
            let known = gone.iter().copied();
            let known = known.filter(|&id| {
                let entry = entries.entries[id as usize];
                entry.slot != NO_SLOT && is_told(entry)
            });
            let ids: Vec<u32> = known.collect();
            let entries = ids.iter().map(|&id| entries.entries[id as usize]);
            let (slots, newest): (Vec<u32>, Vec<i64>) =
                entries.map(|entry| (entry.slot, entry.newest_ms)).unzip();
            let ids = Ids::Each(&ids);
            take_back_expired(accumulators, keys, ids, &slots, (&newest, ttl_ms), out)?;
        }
        self.forget(&mut accumulators.states, &gone)?;
        // A sweep reads all evicted keys: where nobody is told of states that have expired,
        // they go some time later, many at once.
        let sweep_at_ms = match tells {
            true => now_ms,
            false => now_ms.saturating_sub(ttl_ms / 4),
        };
        if let Some(mut sweep) = self.keyed.sweep(sweep_at_ms) {
            while let Some(over) = self.keyed.next_due(&mut sweep, now_ms)? {
                if tells {
                    let entries = &self.keyed.entries;
                    accumulators.with_evicted(
                        &over,
                        entries,
                        |accumulators, keys, slots, rows| {
                            let (mut ids, mut told) = (Vec::new(), Vec::new());
                            let mut newest = Vec::new();
                            let mut slots = slots.iter().copied();
                            for (id, row) in (0..).zip(rows) {
                                // What was told comes before what is waiting.
                                let mut of_row = slots.by_ref().take(row.states());
                                if let Some(slot) = of_row.next()
                                    && (row.is_told || !self.waits)
                                {
                                    ids.push(id);
                                    told.push(slot);
                                    newest.push(row.newest_ms);
                                }
                                of_row.for_each(drop);
                            }
                            let expired = (&newest[..], ttl_ms);
                            let ids = Ids::Each(&ids);
                            take_back_expired(accumulators, keys, ids, &told, expired, out)
                        },
                    )?;
                }
                self.keyed.delete(&over);
            }
        }
        Ok(())
    }
}

/// A state that has expired when a row came.
struct Expired {
    slot: u32,
    at_ms: i64,
    /// The state in its place.
    in_place: u32,
    /// The row that came, of the same key.
    row: u32,
}

/// When a state expires: it is still there this long after its newest row.
fn expires_ms(newest_ms: i64, ttl_ms: i64) -> i64 {
    newest_ms + ttl_ms + 1
}

/// Where in time a result is that has no window.
fn at(time_ms: i64) -> Span {
    Span {
        start: time_ms,
        end: time_ms + 1,
    }
}

/// Takes back the results of states that have expired, this long after their newest rows.
fn take_back_expired(
    accumulators: &mut Accumulators,
    keys: &KeyTable,
    ids: Ids<'_>,
    slots: &[u32],
    (newest_ms, ttl_ms): (&[i64], i64),
    out: &mut Outbox,
) -> Result<(), KeyedError> {
    let spans = newest_ms
        .iter()
        .map(|newest_ms| at(expires_ms(*newest_ms, ttl_ms)));
    let spans: Vec<Span> = spans.collect();
    let results = Results {
        slots,
        keys,
        ids,
        spans: Spans::Each(&spans),
        timing: Timing::Gone,
    };
    accumulators.tell(results, Change::TakenBack, out)
}

impl RunningEntry {
    /// The state that was told, where it is another one than that of the key now.
    fn told_apart(&self) -> Option<u32> {
        (self.told < CURRENT).then_some(self.told)
    }
}

impl RunningEntries {
    /// When a state expires with such a newest row.
    fn expires_ms(&self, newest_ms: i64) -> i64 {
        self.ttl_ms
            .map_or(NEVER, |ttl_ms| expires_ms(newest_ms, ttl_ms))
    }

    fn entry(&mut self, id: u32) -> &mut RunningEntry {
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, NOTHING);
        }
        &mut self.entries[index]
    }

    fn set_timer(&mut self, id: u32) {
        let Some(ttl_ms) = self.ttl_ms else { return };
        let entry = &mut self.entries[id as usize];
        if entry.due_ms == NEVER {
            entry.due_ms = expires_ms(entry.newest_ms, ttl_ms);
            self.timers.set(entry.due_ms, id);
        }
    }

    /// Takes the keys whose states have expired, and sets new timers for the others.
    fn take_expired(&mut self, now_ms: i64) -> Vec<u32> {
        let due = self
            .timers
            .take_noted(now_ms, &mut self.entries, |entry| &mut entry.due_ms);
        let mut gone = Vec::new();
        for id in due {
            if self.due_of(id) <= now_ms {
                gone.push(id);
            } else {
                self.set_timer(id);
            }
        }
        gone
    }
}

/// A row of the storage, without its states.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredEntry {
    /// Event time of the key's newest row.
    pub newest_ms: i64,
    /// Whether a result of the key waits.
    pub waits: bool,
    /// Whether one was told that is to be taken back.
    is_told: bool,
}

impl StoredEntry {
    /// How many states it has: that which was told comes first, where it is another one.
    pub fn states(self) -> usize {
        1 + usize::from(self.waits && self.is_told)
    }
}

/// Reads a row of the storage, and appends its states to `states`.
pub(super) fn read<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<StoredEntry, RowError> {
    let mut reader = EntryReader(row);
    let flags = reader.flags()?;
    let entry = StoredEntry {
        newest_ms: reader.i64()?,
        waits: flags & EARLY != 0,
        is_told: flags & TOLD != 0,
    };
    if entry.states() > 1 {
        states.push(reader.state()?);
    }
    states.push(reader.last_state());
    Ok(entry)
}

impl Entries for RunningEntries {
    type Entry = StoredEntry;

    const BYTES: usize = size_of::<RunningEntry>() + 1;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        let entry = &self.entries[id as usize];
        let told = if entry.told == NO_SLOT { 0 } else { TOLD };
        row.push(self.early.flag(id) | told);
        write_i64(entry.newest_ms, row);
        let Some((last, before)) = states.split_last() else {
            return;
        };
        for state in before {
            write_state(state, row);
        }
        row.extend_from_slice(last);
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        if let Some(entry) = self.entries.get(id as usize)
            && entry.slot != NO_SLOT
        {
            slots.extend(entry.told_apart());
            slots.push(entry.slot);
        }
    }

    fn insert(&mut self, id: u32, stored: StoredEntry, slots: &mut dyn Iterator<Item = u32>) {
        if stored.waits {
            self.early.note(id);
        }
        let entry = self.entry(id);
        entry.told = match (stored.is_told, stored.states()) {
            (false, _) => NO_SLOT,
            (true, 1) => CURRENT,
            (true, _) => slots.next().unwrap_or(NO_SLOT),
        };
        entry.slot = slots.next().unwrap_or(NO_SLOT);
        entry.newest_ms = stored.newest_ms;
        self.set_timer(id);
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        let entry = std::mem::replace(self.entry(id), NOTHING);
        if let Some(slot) = entry.told_apart() {
            states.release(slot);
        }
        if entry.slot != NO_SLOT {
            states.release(entry.slot);
        }
    }

    fn is_pinned(&self, id: u32) -> bool {
        self.early.has(id)
    }

    fn may_be_pinned(&self) -> bool {
        self.early.are_wanted()
    }

    fn was_pinned(&self, stored: &StoredEntry) -> bool {
        stored.waits && self.early.are_wanted()
    }

    fn due_ms(&self, stored: &StoredEntry) -> i64 {
        self.expires_ms(stored.newest_ms)
    }

    fn due_of(&self, id: u32) -> i64 {
        self.expires_ms(self.entries[id as usize].newest_ms)
    }
}
