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
use super::tables::EARLY;
use super::time::{SIZE_MAX_MS, Span, TIME_MAX_MS};
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::Timing;
use crate::state::calendar::NEVER;
use crate::state::entry_row::{EntryReader, write_i64};
use crate::state::groups::NO_SLOT;
use crate::state::key::KeyTable;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::row::RowError;
use crate::state::table::StateTable;
use crate::state::timer::Timers;

pub(super) struct Running {
    /// Whether results come every so often only.
    waits: bool,
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
    /// Event time of its newest row.
    newest_ms: i64,
    /// The timer that is set for the key. Other timers of the key are ignored.
    due_ms: i64,
}

const NOTHING: RunningEntry = RunningEntry {
    slot: NO_SLOT,
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
        let (entries, keys) = self.keyed.parts();
        let mut waiting = ids.to_vec();
        waiting.retain(|&id| entries.early.has(id) && entries.entry(id).slot != NO_SLOT);
        for &id in &waiting {
            entries.early.forget(id);
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
                            gone = Some((slot, expires_ms(entry.newest_ms, ttl_ms)));
                            entry.newest_ms = time_ms;
                        }
                        entry.newest_ms = entry.newest_ms.max(time_ms);
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
        let told = match accumulators.tells_changes() {
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
            let known = gone.iter().copied();
            let known = known.filter(|&id| entries.entries[id as usize].slot != NO_SLOT);
            let ids: Vec<u32> = known.collect();
            let entries = ids.iter().map(|&id| entries.entries[id as usize]);
            let (slots, newest): (Vec<u32>, Vec<i64>) =
                entries.map(|entry| (entry.slot, entry.newest_ms)).unzip();
            let ids = Ids::Each(&ids);
            take_back_expired(accumulators, keys, ids, &slots, (&newest, ttl_ms), out)?;
        }
        self.forget(&mut accumulators.states, &gone)?;
        if let Some(mut sweep) = self.keyed.sweep(now_ms) {
            while let Some(over) = self.keyed.next_due(&mut sweep, now_ms)? {
                if tells {
                    let entries = &self.keyed.entries;
                    accumulators.with_evicted(
                        &over,
                        entries,
                        |accumulators, keys, slots, newest| {
                            let newest: Vec<i64> = newest.iter().map(|&(ms, _)| ms).collect();
                            let expired = (&newest[..], ttl_ms);
                            take_back_expired(accumulators, keys, Ids::InOrder, slots, expired, out)
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

impl RunningEntries {
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

/// Reads the event time of a key's newest row, and whether its result waits. Appends its
/// state to `states`.
pub(super) fn read<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<(i64, bool), RowError> {
    let mut reader = EntryReader(row);
    let waits = reader.flags()? & EARLY != 0;
    let newest_ms = reader.i64()?;
    states.push(reader.last_state());
    Ok((newest_ms, waits))
}

impl Entries for RunningEntries {
    /// Event time of the key's newest row, and whether its result waits.
    type Entry = (i64, bool);

    const BYTES: usize = size_of::<RunningEntry>() + 1;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        row.push(self.early.flag(id));
        write_i64(self.entries[id as usize].newest_ms, row);
        row.extend(states.iter().copied().flatten());
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let slot = self.entries.get(id as usize).map(|entry| entry.slot);
        slots.extend(slot.filter(|&slot| slot != NO_SLOT));
    }

    fn insert(
        &mut self,
        id: u32,
        (newest_ms, waits): (i64, bool),
        slots: &mut dyn Iterator<Item = u32>,
    ) {
        if waits {
            self.early.note(id);
        }
        let entry = self.entry(id);
        entry.slot = slots.next().unwrap_or(NO_SLOT);
        entry.newest_ms = newest_ms;
        self.set_timer(id);
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        let entry = std::mem::replace(self.entry(id), NOTHING);
        if entry.slot != NO_SLOT {
            states.release(entry.slot);
        }
    }

    fn is_pinned(&self, id: u32) -> bool {
        self.early.has(id)
    }

    fn due_ms(&self, &(newest_ms, _): &(i64, bool)) -> i64 {
        self.ttl_ms
            .map_or(NEVER, |ttl_ms| expires_ms(newest_ms, ttl_ms))
    }

    fn due_of(&self, id: u32) -> i64 {
        self.due_ms(&(self.entries[id as usize].newest_ms, false))
    }
}
