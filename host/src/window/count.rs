//! Count windows: a fixed number of rows of a key, in order of arrival. They do not
//! depend on time, so no row is late. A window's span is that of its rows' times.
//!
//! The global window is one that is never full: it has all rows, until the input ends. A
//! row that a later run reads is late, since the window has ended.

use super::accumulators::{Accumulators, Arrived};
use super::early::EarlyKeys;
use super::kind::WindowKind;
use super::results::{Ids, Results, Spans};
use super::tables::EARLY;
use super::time::Span;
use crate::element::END_OF_TIME;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::{LATE_OUTPUT, Timing};
use crate::state::entry_row::{EntryReader, write_i64};
use crate::state::groups::NO_SLOT;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::row::RowError;
use crate::state::table::StateTable;

pub(super) struct Counts {
    /// How many rows a window has; `None` for the global one.
    size: Option<u64>,
    /// Whether the global window has ended.
    has_ended: bool,
    late_wanted: bool,
    keyed: KeyedStates<CountEntries>,
}

#[derive(Debug)]
struct CountEntries {
    /// By key: its open window.
    windows: Vec<Option<CountWindow>>,
    early: EarlyKeys,
}

/// The open window of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountWindow {
    pub rows: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    slot: u32,
}

/// What a batch changes, so that it can be committed or undone.
#[derive(Default)]
struct Assigned {
    /// Keys and their windows as they were before each row.
    before: Vec<(u32, Option<CountWindow>)>,
    new_keys: Vec<u32>,
    new_slots: Vec<u32>,
    /// Keys and windows that fire.
    full: Vec<(u32, CountWindow)>,
}

impl Counts {
    pub fn new(accumulators: &Accumulators, size: u64, early_wanted: bool) -> Self {
        Counts {
            size: Some(size),
            ..Counts::until_the_end(accumulators, early_wanted, false)
        }
    }

    /// The global window.
    pub fn until_the_end(
        accumulators: &Accumulators,
        early_wanted: bool,
        late_wanted: bool,
    ) -> Self {
        let entries = CountEntries {
            windows: Vec::new(),
            early: EarlyKeys::new(early_wanted),
        };
        Counts {
            size: None,
            has_ended: false,
            late_wanted,
            keyed: KeyedStates::new(accumulators.table.clone(), 0, 1, entries),
        }
    }

    /// Emits the open windows when the input ends.
    fn end(&mut self, accumulators: &mut Accumulators, out: &mut Outbox) -> Result<(), KeyedError> {
        self.has_ended = true;
        self.close_open(accumulators, out)?;
        let Some(mut scan) = self.keyed.scan() else {
            return Ok(());
        };
        // The scan has only evicted windows: those in memory were emitted and deleted.
        while let Some(rows) = self.keyed.next(&mut scan)? {
            self.keyed.insert(&mut accumulators.states, &rows)?;
            self.close_open(accumulators, out)?;
        }
        Ok(())
    }

    /// Emits and removes the open windows.
    fn close_open(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let windows = (0..).zip(&mut self.keyed.entries.windows);
        let open: Vec<_> = windows
            .filter_map(|(id, window)| Some((id, window.take()?)))
            .collect();
        self.close(accumulators, &open, out)
    }

    fn assign(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
    ) -> Result<Assigned, KeyedError> {
        accumulators.begin_keyed(&mut self.keyed, arrived, |_| false)?;
        let mut assigned = Assigned::default();
        for run in 0..accumulators.keys.runs() {
            let (id, is_new) = self.keyed.upsert_run(&accumulators.keys, run);
            if is_new {
                assigned.new_keys.push(id);
            }
            let open = self.keyed.entries.window(id);
            for row in accumulators.keys.rows(run) {
                let time = arrived.times[row];
                assigned.before.push((id, *open));
                let window = match &mut *open {
                    Some(window) => {
                        let group = accumulators.groups.of(window.slot);
                        accumulators.groups.of_row.push(group);
                        window
                    }
                    none => {
                        let (slot, group) = accumulators.allocate_group();
                        assigned.new_slots.push(slot);
                        accumulators.groups.of_row.push(group);
                        none.insert(CountWindow {
                            rows: 0,
                            first_ms: time,
                            last_ms: time,
                            slot,
                        })
                    }
                };
                window.rows += 1;
                window.first_ms = window.first_ms.min(time);
                window.last_ms = window.last_ms.max(time);
                if Some(window.rows) == self.size {
                    assigned.full.push((id, *window));
                    *open = None;
                }
            }
            self.keyed.entries.early.note(id);
        }
        accumulators.groups.end();
        Ok(assigned)
    }

    fn undo(
        &mut self,
        accumulators: &mut Accumulators,
        assigned: Assigned,
    ) -> Result<(), KeyedError> {
        for (id, window) in assigned.before.into_iter().rev() {
            *self.keyed.entries.window(id) = window;
        }
        for slot in assigned.new_slots {
            accumulators.states.release(slot);
        }
        self.forget(&assigned.new_keys)
    }

    /// Emits and removes windows.
    fn close(
        &mut self,
        accumulators: &mut Accumulators,
        windows: &[(u32, CountWindow)],
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        self.emit(accumulators, windows, Timing::OnTime, out)?;
        let mut over = Vec::new();
        for &(id, window) in windows {
            accumulators.states.release(window.slot);
            if self.keyed.entries.window(id).is_none() {
                over.push(id);
            }
        }
        self.forget(&over)
    }

    fn emit(
        &self,
        accumulators: &mut Accumulators,
        windows: &[(u32, CountWindow)],
        timing: Timing,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let ids: Vec<u32> = windows.iter().map(|(id, _)| *id).collect();
        let slots: Vec<u32> = windows.iter().map(|(_, window)| window.slot).collect();
        let spans: Vec<Span> = windows
            .iter()
            .map(|(_, window)| Span {
                start: window.first_ms,
                end: window.last_ms + 1,
            })
            .collect();
        let results = Results {
            slots: &slots,
            keys: self.keyed.keys(),
            ids: Ids::Each(&ids),
            spans: Spans::Each(&spans),
            timing,
        };
        accumulators.emit(results, out)
    }

    fn forget(&mut self, ids: &[u32]) -> Result<(), KeyedError> {
        self.keyed.remove(ids)?;
        for &id in ids {
            self.keyed.entries.early.forget(id);
        }
        Ok(())
    }
}

impl WindowKind for Counts {
    fn keyed(&mut self) -> &mut dyn KeyedPart {
        &mut self.keyed
    }

    fn seal(&mut self, _newest_ms: i64) {
        self.has_ended = true;
    }

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        mut arrived: Arrived,
        _now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        if self.size.is_none() && self.has_ended {
            out.counts.late += arrived.rows() as u64;
            let all: Vec<u32> = (0..arrived.rows() as u32).collect();
            out.put_late(
                self.late_wanted.then_some(LATE_OUTPUT),
                &arrived.batch,
                &all,
            );
            return Ok(());
        }
        // Which rows share a window depends on all rows. If the plugin loses some, undo
        // the batch and assign the other rows again, as if those had never come.
        while arrived.rows() > 0 {
            let assigned = self.assign(accumulators, &arrived)?;
            let folded = accumulators.fold(&arrived, out)?;
            if folded.lost.is_empty() {
                accumulators.store(&arrived, &folded, out)?;
                return self.close(accumulators, &assigned.full, out);
            }
            self.undo(accumulators, assigned)?;
            arrived = arrived.without(&folded.lost);
        }
        Ok(())
    }

    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        match now_ms {
            END_OF_TIME => self.end(accumulators, out),
            _ => Ok(()),
        }
    }

    fn has_early(&self) -> bool {
        !self.keyed.entries.early.is_empty()
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let shown = self.keyed.entries.early.take();
        for &id in &shown {
            // The next checkpoint notes that it does not wait any more.
            self.keyed.touch(id);
        }
        let windows = &self.keyed.entries.windows;
        let open: Vec<(u32, CountWindow)> = shown
            .into_iter()
            .filter_map(|id| Some((id, windows[id as usize]?)))
            .collect();
        self.emit(accumulators, &open, Timing::Early, out)
    }
}

impl CountEntries {
    /// The open window of a key.
    fn window(&mut self, id: u32) -> &mut Option<CountWindow> {
        let index = id as usize;
        if index >= self.windows.len() {
            self.windows.resize(index + 1, None);
        }
        &mut self.windows[index]
    }
}

/// Reads whether early results of a key wait, and its window, which has no slot yet.
/// Appends its state to `states`.
pub(super) fn read<'a>(
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<(bool, CountWindow), RowError> {
    let mut reader = EntryReader(row);
    let is_early = reader.flags()? & EARLY != 0;
    let window = CountWindow {
        rows: reader.i64()? as u64,
        first_ms: reader.i64()?,
        last_ms: reader.i64()?,
        slot: NO_SLOT,
    };
    states.push(reader.last_state());
    Ok((is_early, window))
}

impl Entries for CountEntries {
    /// Whether early results wait, and the window without its state.
    type Entry = (bool, CountWindow);

    const BYTES: usize = size_of::<Option<CountWindow>>() + 2;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        if let Some(window) = self.windows[id as usize] {
            row.push(self.early.flag(id));
            row.extend_from_slice(&window.rows.to_le_bytes());
            write_i64(window.first_ms, row);
            write_i64(window.last_ms, row);
            row.extend(states.iter().copied().flatten());
        }
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let window = self.windows.get(id as usize).copied().flatten();
        slots.extend(window.map(|window| window.slot));
    }

    fn insert(&mut self, id: u32, entry: Self::Entry, slots: &mut dyn Iterator<Item = u32>) {
        let (is_early, window) = entry;
        let slot = slots.next().unwrap_or(NO_SLOT);
        *self.window(id) = Some(CountWindow { slot, ..window });
        if is_early {
            self.early.note(id);
        }
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        if let Some(window) = self.window(id).take() {
            states.release(window.slot);
        }
    }

    fn is_pinned(&self, id: u32) -> bool {
        self.early.has(id)
    }

    fn may_be_pinned(&self) -> bool {
        self.early.are_wanted()
    }

    fn was_pinned(&self, (is_early, _): &Self::Entry) -> bool {
        *is_early && self.early.are_wanted()
    }
}
