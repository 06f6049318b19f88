//! Tumbling windows: each has a table of keys and states of its own, which is emitted
//! and dropped as a whole.

use super::accumulators::{Accumulators, Arrived};
use super::changes::Change;
use super::cut::Cut;
use super::early::EarlyKeys;
use super::kind::WindowKind;
use super::results::{Ids, Results, Spans};
use super::tables::EARLY;
use super::time::Span;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::Timing;
use crate::state::entry_row::EntryReader;
use crate::state::groups::NO_SLOT;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::paned::{PaneEntries, PanedStates};
use crate::state::row::RowError;
use crate::state::table::StateTable;

pub(super) struct Tumbling {
    /// A window is one pane: window `p + 1` is pane `p`.
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    /// Whether states go with their results.
    discards: bool,
    panes: PanedStates<Members>,
    /// Windows up to this one have fired.
    closed: i64,
}

/// The keys of a pane.
#[derive(Clone, Debug)]
struct Members {
    /// By key; [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    /// Members without a slot.
    vacant: usize,
    early: EarlyKeys,
}

/// The place of a pane, and the number of a key there.
type Member = (u32, u32);

impl Tumbling {
    pub fn new(
        accumulators: &Accumulators,
        cut: Cut,
        late_wanted: bool,
        early_wanted: bool,
    ) -> Self {
        let empty = Members {
            slots: Vec::new(),
            vacant: 0,
            early: EarlyKeys::new(early_wanted),
        };
        Tumbling {
            cut,
            late_wanted,
            early_wanted,
            discards: false,
            panes: PanedStates::new(accumulators.table.clone(), 1, empty),
            closed: i64::MIN,
        }
    }

    /// Has each result have only the rows since the one before.
    pub fn discarding(self) -> Self {
        Tumbling {
            discards: true,
            ..self
        }
    }

    /// Lets go of the states of members of a pane whose results have been told.
    fn discard(
        &mut self,
        accumulators: &mut Accumulators,
        place: u32,
        members: &[u32],
    ) -> Result<(), KeyedError> {
        let pane = self.panes.at_mut(place);
        for &member in members {
            pane.entries.early.forget(member);
            pane.entries.evict(member, &mut accumulators.states);
        }
        Ok(pane.remove(members)?)
    }

    /// Releases the states of new members that have only lost rows.
    fn vacate(&mut self, accumulators: &mut Accumulators, lost: &[u32], created: &[Member]) {
        for (at, slot) in accumulators.groups.left_empty(lost) {
            let (place, member) = created[at];
            let entries = &mut self.panes.at_mut(place).entries;
            *entries.slot(member) = NO_SLOT;
            entries.vacant += 1;
            accumulators.states.release(slot);
        }
    }

    /// Emits again the results of windows that have fired, which rows have corrected; or
    /// takes them back before that: members that have just been `created` have told nothing.
    fn tell_closed(
        &mut self,
        accumulators: &mut Accumulators,
        mut touched: Vec<Member>,
        (created, change): (&[Member], Change),
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        touched.retain(|&(place, _)| {
            self.cut.first_window(self.panes.at(place).pane()) <= self.closed
        });
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|member| !created.contains(member));
        for of_pane in touched.chunk_by(|a, b| a.0 == b.0) {
            let pane = self.panes.at(of_pane[0].0);
            let members: Vec<u32> = of_pane.iter().map(|&(_, member)| member).collect();
            let window = (self.cut.pane_span(pane.pane()), Timing::Late);
            let told = members.iter().copied();
            tell_some(pane, accumulators, told, window, change, out)?;
            if self.discards && change == Change::Told {
                self.discard(accumulators, of_pane[0].0, &members)?;
            }
        }
        Ok(())
    }
}

impl WindowKind for Tumbling {
    fn keyed(&mut self) -> &mut dyn KeyedPart {
        &mut self.panes
    }

    fn set_time(&mut self, time_ms: i64) {
        self.closed = self.cut.last_closed(time_ms);
    }

    fn seal(&mut self, newest_ms: i64) {
        self.cut = self.cut.sealed_for(newest_ms);
        self.closed = self.closed.max(self.cut.sealed());
    }

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let in_time = self
            .cut
            .in_time(arrived, watermark_ms, self.late_wanted, out);
        let Some((arrived, panes)) = in_time else {
            return Ok(());
        };
        let behind = self.cut.first_window(*panes.start()) <= self.closed;
        let split = self.cut.pane_changes(&arrived.times, &panes);
        let (cut, states_of) = (self.cut, &mut self.panes);
        let first = *panes.start();
        accumulators.begin(&arrived, split, |states, keys| {
            states_of.read_back(panes.clone(), states, keys, |run| {
                cut.pane(arrived.times[keys.rows(run).start])
            })
        })?;

        let mut created: Vec<Member> = Vec::new();
        let mut touched: Vec<Member> = Vec::new();
        let mut place = 0;
        let mut span = self.cut.pane_span(first);
        for run in 0..accumulators.keys.runs() {
            let rows = accumulators.keys.rows(run);
            let time = arrived.times[rows.start];
            if run == 0 || !span.has(time) {
                let index = self.cut.pane(time);
                place = self.panes.place(index);
                span = self.cut.pane_span(index);
            }
            let pane = self.panes.at_mut(place);
            let (member, _) = pane.upsert_run(&accumulators.keys, run);
            let slot = pane.entries.slot(member);
            let group = if *slot == NO_SLOT {
                let group;
                (*slot, group) = accumulators.allocate_group();
                pane.entries.vacant -= 1;
                created.push((place, member));
                group
            } else {
                accumulators.groups.of(*slot)
            };
            accumulators.groups.push(&rows, group);
            if behind || self.early_wanted {
                touched.push((place, member));
            }
        }
        accumulators.groups.end();

        if behind && accumulators.tells_changes() {
            let told = touched.clone();
            self.tell_closed(accumulators, told, (&created, Change::TakenBack), out)?;
        }
        let folded = accumulators.fold(&arrived, out)?;
        accumulators.store(&arrived, &folded, out)?;
        if !folded.lost.is_empty() {
            self.vacate(accumulators, &folded.lost, &created);
        }
        if self.early_wanted {
            for &(place, member) in &touched {
                self.panes.at_mut(place).entries.early.note(member);
            }
        }
        if behind {
            self.tell_closed(accumulators, touched, (&[], Change::Told), out)?;
        }
        Ok(())
    }

    /// Fires the windows that have ended, and drops those that no row can correct any
    /// more.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let last = self.cut.last_closed(watermark_ms);
        if last > self.closed {
            for index in self.panes.range(self.closed..last).collect::<Vec<_>>() {
                let place = self.panes.place(index);
                let pane = self.panes.at_mut(place);
                let span = self.cut.pane_span(index);
                emit(pane, accumulators, span, out)?;
                emit_evicted(pane, accumulators, (span, self.discards), out)?;
                if self.discards {
                    let members: Vec<u32> = pane.entries.present().collect();
                    self.discard(accumulators, place, &members)?;
                }
                self.panes.put_back(index);
            }
            self.closed = last;
        }
        let cut = self.cut;
        let is_over = |pane| cut.is_late(cut.first_window(pane), watermark_ms);
        while self.panes.drop_first(&mut accumulators.states, is_over) {}
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        let pane = self.panes.range(self.closed..).next()?;
        Some(self.cut.pane_span(pane).end)
    }

    fn has_early(&self) -> bool {
        let mut panes = self.panes.in_memory(..);
        panes.any(|(_, place)| !self.panes.at(place).entries.early.is_empty())
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        for (index, place) in self.panes.in_memory(..).collect::<Vec<_>>() {
            let pane = self.panes.at_mut(place);
            let members = pane.entries.early.take();
            for &member in &members {
                // The next checkpoint notes that it does not wait any more.
                pane.touch(member);
            }
            if self.cut.first_window(index) > self.closed {
                let shown = members.iter().copied();
                let window = (self.cut.pane_span(index), Timing::Early);
                tell_some(pane, accumulators, shown, window, Change::Told, out)?;
                if self.discards {
                    self.discard(accumulators, place, &members)?;
                }
            }
        }
        Ok(())
    }
}

/// Emits a pane.
fn emit(
    pane: &KeyedStates<Members>,
    accumulators: &mut Accumulators,
    span: Span,
    out: &mut Outbox,
) -> Result<(), KeyedError> {
    let Members { slots, vacant, .. } = &pane.entries;
    if *vacant > 0 {
        let members = 0..slots.len() as u32;
        let window = (span, Timing::OnTime);
        return tell_some(pane, accumulators, members, window, Change::Told, out);
    }
    let results = Results {
        slots,
        keys: pane.keys(),
        ids: Ids::InOrder,
        spans: Spans::Same(span),
        timing: Timing::OnTime,
    };
    accumulators.emit(results, out)
}

fn tell_some(
    pane: &KeyedStates<Members>,
    accumulators: &mut Accumulators,
    members: impl Iterator<Item = u32>,
    (span, timing): (Span, Timing),
    change: Change,
    out: &mut Outbox,
) -> Result<(), KeyedError> {
    let (ids, slots): (Vec<u32>, Vec<u32>) = members
        .map(|member| (member, pane.entries.slots[member as usize]))
        .filter(|&(_, slot)| slot != NO_SLOT)
        .unzip();
    let results = Results {
        slots: &slots,
        keys: pane.keys(),
        ids: Ids::Each(&ids),
        spans: Spans::Same(span),
        timing,
    };
    accumulators.tell(results, change, out)
}

/// Emits the evicted keys of a pane, and has their rows deleted if it `discards`.
fn emit_evicted(
    pane: &mut KeyedStates<Members>,
    accumulators: &mut Accumulators,
    (span, discards): (Span, bool),
    out: &mut Outbox,
) -> Result<(), KeyedError> {
    let Some(mut scan) = pane.scan() else {
        return Ok(());
    };
    while let Some(rows) = pane.next(&mut scan)? {
        accumulators.with_evicted(&rows, &pane.entries, |accumulators, keys, slots, _| {
            let results = Results {
                slots,
                keys,
                ids: Ids::InOrder,
                spans: Spans::Same(span),
                timing: Timing::OnTime,
            };
            accumulators.emit(results, out)
        })?;
        if discards {
            pane.delete(&rows);
        }
    }
    Ok(())
}

impl Members {
    /// Members with a slot.
    fn present(&self) -> impl Iterator<Item = u32> {
        let members = (0..).zip(&self.slots);
        members.filter_map(|(member, &slot)| (slot != NO_SLOT).then_some(member))
    }

    /// The slot of a member, which is added if it is new.
    fn slot(&mut self, member: u32) -> &mut u32 {
        let index = member as usize;
        if index >= self.slots.len() {
            self.vacant += index + 1 - self.slots.len();
            self.slots.resize(index + 1, NO_SLOT);
        }
        &mut self.slots[index]
    }
}

/// Reads whether early results of a key wait, and appends its state to `states`.
pub(super) fn read<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<bool, RowError> {
    let mut reader = EntryReader(row);
    let is_early = reader.flags()? & EARLY != 0;
    states.push(reader.last_state());
    Ok(is_early)
}

impl Entries for Members {
    /// Whether early results wait.
    type Entry = bool;

    const BYTES: usize = size_of::<u32>() + 1;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<bool, RowError> {
        read(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        row.push(self.early.flag(id));
        row.extend(states.iter().copied().flatten());
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let slot = self.slots.get(id as usize).copied();
        slots.extend(slot.filter(|&slot| slot != NO_SLOT));
    }

    fn insert(&mut self, id: u32, is_early: bool, slots: &mut dyn Iterator<Item = u32>) {
        *self.slot(id) = slots.next().unwrap_or(NO_SLOT);
        self.vacant -= 1;
        if is_early {
            self.early.note(id);
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
        self.early.has(id)
    }

    fn may_be_pinned(&self) -> bool {
        self.early.are_wanted()
    }

    fn was_pinned(&self, is_early: &bool) -> bool {
        *is_early && self.early.are_wanted()
    }
}

impl PaneEntries for Members {
    fn clear(&mut self, states: &mut StateTable) {
        for slot in self.slots.drain(..).filter(|&slot| slot != NO_SLOT) {
            states.release(slot);
        }
        self.vacant = 0;
        self.early.clear();
    }
}
