//! Count windows: so many rows of a key, in the order in which they come. Time
//! plays no part, so no row is late. The span of a window is that of its rows.

use super::accumulators::{Accumulators, Arrived, Ids, Results, Spans};
use super::groups::Groups;
use super::time::Span;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};

pub(super) struct Counts {
    size: u64,
    early_wanted: bool,
    keys: KeyTable,
    /// By key.
    entries: Vec<Entry>,
    /// Keys with rows that early results have not shown.
    early: Vec<u32>,
    batch_keys: BatchKeys,
    groups: Groups,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    window: Option<Window>,
    early: bool,
}

/// The open window of a key.
#[derive(Clone, Copy, Debug)]
struct Window {
    rows: u64,
    first_ms: i64,
    last_ms: i64,
    slot: u32,
}

/// What a batch does, to be kept or taken back.
#[derive(Default)]
struct Assigned {
    /// Keys and their windows as they were before each row.
    before: Vec<(u32, Option<Window>)>,
    new_keys: Vec<u32>,
    new_slots: Vec<u32>,
    full: Vec<(u32, Window)>,
}

impl Counts {
    pub fn new(accumulators: &Accumulators, size: u64, early_wanted: bool) -> Self {
        Counts {
            size,
            early_wanted,
            keys: KeyTable::default(),
            entries: Vec::new(),
            early: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
        }
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        mut arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        // Which rows belong together depends on all of them. When some turn out
        // to be lost, the rest is taken as if they had never come.
        while arrived.rows() > 0 {
            let assigned = self.assign(accumulators, &arrived)?;
            let folded = accumulators.fold(&arrived, &self.groups, out)?;
            if folded.lost.is_empty() {
                accumulators.store(&self.groups, &folded.states)?;
                return self.close(accumulators, &assigned.full, out);
            }
            self.take_back(accumulators, assigned);
            arrived = arrived.without(&folded.lost);
        }
        Ok(())
    }

    /// Puts out what is left when the input ends.
    pub fn end(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let open = (0..).zip(&mut self.entries);
        let rest: Vec<_> = open
            .filter_map(|(id, entry)| Some((id, entry.window.take()?)))
            .collect();
        self.close(accumulators, &rest, out)
    }

    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Puts out what open windows have so far, those that have had rows since
    /// the last time.
    pub fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut open = Vec::new();
        for id in std::mem::take(&mut self.early) {
            let entry = &mut self.entries[id as usize];
            if std::mem::replace(&mut entry.early, false)
                && let Some(window) = entry.window
            {
                open.push((id, window));
            }
        }
        self.emit(accumulators, &open, out)
    }

    fn assign(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
    ) -> Result<Assigned, OperatorError> {
        accumulators.read_keys(&mut self.batch_keys, arrived, |_| false)?;
        self.groups.begin(accumulators.slots());
        let mut assigned = Assigned::default();
        for run in 0..self.batch_keys.runs() {
            let (id, is_new) = self.keys.upsert(self.batch_keys.key(run));
            if is_new {
                assigned.new_keys.push(id);
                if id as usize == self.entries.len() {
                    self.entries.push(Entry::default());
                }
            }
            let entry = &mut self.entries[id as usize];
            for row in self.batch_keys.rows(run) {
                let time = arrived.times[row];
                assigned.before.push((id, entry.window));
                let window = match &mut entry.window {
                    Some(window) => {
                        let group = self.groups.of(window.slot);
                        self.groups.of_row.push(group);
                        window
                    }
                    none => {
                        let slot = accumulators.allocate();
                        assigned.new_slots.push(slot);
                        let group = self.groups.of_new(slot);
                        self.groups.of_row.push(group);
                        none.insert(Window {
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
                if window.rows == self.size {
                    assigned.full.push((id, *window));
                    entry.window = None;
                }
            }
            if self.early_wanted && !std::mem::replace(&mut entry.early, true) {
                self.early.push(id);
            }
        }
        self.groups.end();
        Ok(assigned)
    }

    fn take_back(&mut self, accumulators: &mut Accumulators, assigned: Assigned) {
        for (id, window) in assigned.before.into_iter().rev() {
            self.entries[id as usize].window = window;
        }
        for slot in assigned.new_slots {
            accumulators.release(slot);
        }
        for id in assigned.new_keys {
            self.forget(id);
        }
    }

    /// Puts out windows and forgets them.
    fn close(
        &mut self,
        accumulators: &mut Accumulators,
        windows: &[(u32, Window)],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.emit(accumulators, windows, out)?;
        for &(id, window) in windows {
            accumulators.release(window.slot);
            if self.entries[id as usize].window.is_none() {
                self.forget(id);
            }
        }
        Ok(())
    }

    fn emit(
        &self,
        accumulators: &mut Accumulators,
        windows: &[(u32, Window)],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
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
            keys: &self.keys,
            ids: Ids::Each(&ids),
            spans: Spans::Each(&spans),
        };
        accumulators.emit(results, out)
    }

    fn forget(&mut self, id: u32) {
        self.keys.remove(id);
        self.entries[id as usize].early = false;
    }
}
