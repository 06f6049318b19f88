//! Tumbling windows: each a table of its own, from keys to states, that is put
//! out as it lies and dropped as a whole.

use super::accumulators::{Accumulators, Arrived};
use super::cut::Cut;
use super::error::WindowError;
use super::kind::WindowKind;
use super::results::{Ids, Results, Spans};
use super::tables::EARLY;
use super::time::{Span, extent};
use crate::operator::Outbox;
use crate::state::entry_row::EntryReader;
use crate::state::groups::{Groups, NO_SLOT};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::paned::{PaneEntries, PanedStates};
use crate::state::row::RowError;
use crate::state::table::StateTable;

pub(super) struct Tumbling {
    /// A window is one pane: window `p + 1` has pane `p`.
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    panes: PanedStates<Members>,
    /// Windows up to this one have fired.
    closed: i64,
    batch_keys: BatchKeys,
    groups: Groups,
}

/// The keys of a pane.
#[derive(Clone, Debug)]
struct Members {
    early_wanted: bool,
    /// By key; [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    /// Members without a slot.
    vacant: usize,
    /// By key: whether it is in `early`.
    is_early: Vec<bool>,
    /// Members with rows that early results have not shown.
    early: Vec<u32>,
}

/// Where a pane is, and a member there.
type Member = (u32, u32);

impl Tumbling {
    pub fn new(
        accumulators: &Accumulators,
        cut: Cut,
        late_wanted: bool,
        early_wanted: bool,
    ) -> Self {
        let empty = Members {
            early_wanted,
            slots: Vec::new(),
            vacant: 0,
            is_early: Vec::new(),
            early: Vec::new(),
        };
        Tumbling {
            cut,
            late_wanted,
            early_wanted,
            panes: PanedStates::new(accumulators.table.clone(), empty),
            closed: i64::MIN,
            batch_keys: BatchKeys::new(accumulators.table.layout.clone()),
            groups: Groups::default(),
        }
    }

    /// Reads back the keys of a batch that only the storage has.
    fn read_back(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        (first_ms, last_ms): (i64, i64),
    ) -> Result<(), WindowError> {
        let (cut, batch_keys) = (self.cut, &self.batch_keys);
        let panes = cut.pane(first_ms)..=cut.pane(last_ms);
        let panes: Vec<(i64, u32)> = self.panes.range(panes).collect();
        for (pane, place) in panes {
            let keyed = self.panes.at_mut(place);
            if keyed.has_evicted() {
                let columns = accumulators.key_columns(arrived);
                let is_in_pane =
                    |run: usize| cut.pane(arrived.times[batch_keys.rows(run).start]) == pane;
                keyed.read_back(&mut accumulators.states, batch_keys, &columns, is_in_pane)?;
            }
        }
        Ok(())
    }

    /// Takes the states of members that have no row after all.
    fn vacate(&mut self, accumulators: &mut Accumulators, lost: &[u32], founded: &[Member]) {
        for group in self.groups.left_empty(lost) {
            let (place, member) = founded[group as usize - self.groups.existing];
            let entries = &mut self.panes.at_mut(place).entries;
            *entries.slot(member) = NO_SLOT;
            entries.vacant += 1;
            accumulators
                .states
                .release(self.groups.slots[group as usize]);
        }
    }

    /// Puts out the results again that rows have corrected.
    fn correct(
        &mut self,
        accumulators: &mut Accumulators,
        mut touched: Vec<Member>,
        out: &mut Outbox,
    ) -> Result<(), WindowError> {
        touched.retain(|&(place, _)| {
            self.cut.first_window(self.panes.at(place).pane()) <= self.closed
        });
        touched.sort_unstable();
        touched.dedup();
        for of_pane in touched.chunk_by(|a, b| a.0 == b.0) {
            let pane = self.panes.at(of_pane[0].0);
            let members = of_pane.iter().map(|&(_, member)| member);
            emit_some(
                pane,
                accumulators,
                members,
                self.cut.pane_span(pane.pane()),
                out,
            )?;
        }
        Ok(())
    }
}

impl WindowKind for Tumbling {
    fn keyed(&self) -> &dyn KeyedPart {
        &self.panes
    }

    fn keyed_mut(&mut self) -> &mut dyn KeyedPart {
        &mut self.panes
    }

    fn set_time(&mut self, time_ms: i64) {
        self.closed = self.cut.last_closed(time_ms);
    }

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), WindowError> {
        let arrived = self
            .cut
            .in_time(arrived, watermark_ms, self.late_wanted, out);
        if arrived.rows() == 0 {
            return Ok(());
        }
        let (first, last) = extent(&arrived.times);
        let one_pane = self.cut.pane(first) == self.cut.pane(last);
        let behind = self.cut.first_window(self.cut.pane(first)) <= self.closed;
        let split = self.cut.pane_changes(&arrived.times, one_pane);
        accumulators.read_keys(&mut self.batch_keys, &arrived, split)?;

        self.read_back(accumulators, &arrived, (first, last))?;

        let mut founded: Vec<Member> = Vec::new();
        let mut touched: Vec<Member> = Vec::new();
        self.groups.begin(accumulators.states.slots());
        let mut place = 0;
        let mut span = self.cut.pane_span(self.cut.pane(first));
        for run in 0..self.batch_keys.runs() {
            let rows = self.batch_keys.rows(run);
            let time = arrived.times[rows.start];
            if run == 0 || !span.has(time) {
                let index = self.cut.pane(time);
                place = self.panes.place(index);
                span = self.cut.pane_span(index);
            }
            let pane = self.panes.at_mut(place);
            let (member, _) = pane.upsert_run(&self.batch_keys, run);
            let slot = pane.entries.slot(member);
            let group = if *slot == NO_SLOT {
                *slot = accumulators.states.allocate();
                let group = self.groups.of_new(*slot);
                pane.entries.vacant -= 1;
                founded.push((place, member));
                group
            } else {
                self.groups.of(*slot)
            };
            self.groups.push(&rows, group);
            if behind || self.early_wanted {
                touched.push((place, member));
            }
        }
        self.groups.end();

        let folded = accumulators.fold(&arrived, &self.groups, out)?;
        accumulators.store(&self.groups, &folded.states)?;
        if !folded.lost.is_empty() {
            self.vacate(accumulators, &folded.lost, &founded);
        }
        if self.early_wanted {
            for &(place, member) in &touched {
                self.panes.at_mut(place).entries.note_early(member);
            }
        }
        if behind {
            self.correct(accumulators, touched, out)?;
        }
        Ok(())
    }

    /// Fires the windows that end by then, and drops those that nothing can
    /// correct any more.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), WindowError> {
        let last = self.cut.last_closed(watermark_ms);
        if last > self.closed {
            for (index, place) in self.panes.range(self.closed..last) {
                let pane = self.panes.at(place);
                let span = self.cut.pane_span(index);
                emit(pane, accumulators, span, out)?;
                emit_evicted(pane, accumulators, span, out)?;
            }
            self.closed = last;
        }
        let cut = self.cut;
        let is_over = |pane| cut.is_late(cut.first_window(pane), watermark_ms);
        while self.panes.drop_first(&mut accumulators.states, is_over) {}
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        let (pane, _) = self.panes.range(self.closed..).next()?;
        Some(self.cut.pane_span(pane).end)
    }

    fn has_early(&self) -> bool {
        let mut panes = self.panes.range(..);
        panes.any(|(_, place)| !self.panes.at(place).entries.early.is_empty())
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), WindowError> {
        let panes: Vec<(i64, u32)> = self.panes.range(..).collect();
        for (index, place) in panes {
            let pane = self.panes.at_mut(place);
            let members = pane.entries.take_early();
            if self.cut.first_window(index) > self.closed {
                let members = members.into_iter();
                emit_some(pane, accumulators, members, self.cut.pane_span(index), out)?;
            }
        }
        Ok(())
    }
}

/// Puts out a pane.
fn emit(
    pane: &KeyedStates<Members>,
    accumulators: &mut Accumulators,
    span: Span,
    out: &mut Outbox,
) -> Result<(), WindowError> {
    let Members { slots, vacant, .. } = &pane.entries;
    if *vacant > 0 {
        return emit_some(pane, accumulators, 0..slots.len() as u32, span, out);
    }
    let results = Results {
        slots,
        keys: pane.keys(),
        ids: Ids::InOrder,
        spans: Spans::Same(span),
    };
    accumulators.emit(results, out)
}

fn emit_some(
    pane: &KeyedStates<Members>,
    accumulators: &mut Accumulators,
    members: impl Iterator<Item = u32>,
    span: Span,
    out: &mut Outbox,
) -> Result<(), WindowError> {
    let (ids, slots): (Vec<u32>, Vec<u32>) = members
        .map(|member| (member, pane.entries.slots[member as usize]))
        .filter(|&(_, slot)| slot != NO_SLOT)
        .unzip();
    let results = Results {
        slots: &slots,
        keys: pane.keys(),
        ids: Ids::Each(&ids),
        spans: Spans::Same(span),
    };
    accumulators.emit(results, out)
}

/// Puts out the keys of a pane that only the storage has.
fn emit_evicted(
    pane: &KeyedStates<Members>,
    accumulators: &mut Accumulators,
    span: Span,
    out: &mut Outbox,
) -> Result<(), WindowError> {
    let Some(mut scan) = pane.scan() else {
        return Ok(());
    };
    while let Some(rows) = pane.next(&mut scan)? {
        let mut keys = KeyTable::default();
        let mut states = Vec::with_capacity(rows.len());
        for (_, key, row) in rows.rows() {
            keys.upsert_row(&accumulators.table.layout, key)?;
            pane.entries.read(row, &mut states)?;
        }
        let slots = accumulators.states.decode(states.into_iter())?;
        let results = Results {
            slots: &slots,
            keys: &keys,
            ids: Ids::InOrder,
            spans: Spans::Same(span),
        };
        accumulators.emit(results, out)?;
        for slot in slots {
            accumulators.states.release(slot);
        }
    }
    Ok(())
}

impl Members {
    /// The slot of a member, which may be new.
    fn slot(&mut self, member: u32) -> &mut u32 {
        let index = member as usize;
        if index >= self.slots.len() {
            self.vacant += index + 1 - self.slots.len();
            self.slots.resize(index + 1, NO_SLOT);
        }
        &mut self.slots[index]
    }

    fn note_early(&mut self, member: u32) {
        let index = member as usize;
        if index >= self.is_early.len() {
            self.is_early.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.is_early[index], true) {
            self.early.push(member);
        }
    }

    fn take_early(&mut self) -> Vec<u32> {
        let early = std::mem::take(&mut self.early);
        for &member in &early {
            self.is_early[member as usize] = false;
        }
        early
    }

    fn is_early(&self, member: u32) -> bool {
        self.is_early.get(member as usize) == Some(&true)
    }
}

impl Entries for Members {
    /// Whether early results wait.
    type Entry = bool;

    const BYTES: usize = size_of::<u32>() + 1;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<bool, RowError> {
        let mut reader = EntryReader(row);
        let is_early = reader.flags()? & EARLY != 0;
        states.push(reader.last_state());
        Ok(is_early)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        row.push(if self.is_early(id) { EARLY } else { 0 });
        row.extend(states.iter().copied().flatten());
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let slot = self.slots.get(id as usize).copied();
        slots.extend(slot.filter(|&slot| slot != NO_SLOT));
    }

    fn insert(&mut self, id: u32, is_early: bool, slots: &mut dyn Iterator<Item = u32>) {
        *self.slot(id) = slots.next().unwrap_or(NO_SLOT);
        self.vacant -= 1;
        if self.early_wanted && is_early {
            self.note_early(id);
        }
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        let slot = std::mem::replace(self.slot(id), NO_SLOT);
        if slot != NO_SLOT {
            states.release(slot);
            self.vacant += 1;
        }
    }

    fn is_pinned(&self, id: u32) -> bool {
        self.is_early(id)
    }
}

impl PaneEntries for Members {
    fn clear(&mut self, states: &mut StateTable) {
        for slot in self.slots.drain(..).filter(|&slot| slot != NO_SLOT) {
            states.release(slot);
        }
        self.vacant = 0;
        self.is_early.clear();
        self.early.clear();
    }
}
