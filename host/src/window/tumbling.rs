//! Tumbling windows: each a table of its own, from keys to states, that is put
//! out as it lies and dropped as a whole.

use std::collections::BTreeMap;

use super::LoadError;
use super::accumulators::{Accumulators, Arrived, Ids, Results, Spans};
use super::cut::Cut;
use super::groups::{Groups, NO_SLOT};
use super::rows::EARLY;
use super::time::{Span, extent};
use super::tracker::Tracker;
use crate::checkpoint::changes::Changes;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::shelf::Chunk;

pub(super) struct Tumbling {
    /// A window is one pane: window `p + 1` has pane `p`.
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    /// Where in `panes` each pane is; the others are spare.
    places: BTreeMap<i64, u32>,
    panes: Vec<Pane>,
    spare: Vec<u32>,
    /// Windows up to this one have fired.
    closed: i64,
    /// Panes and members with rows that early results have not shown.
    early: Vec<(i64, u32)>,
    batch_keys: BatchKeys,
    groups: Groups,
    /// Panes that are gone, and rows of which the storage still has.
    dropped: Vec<i64>,
}

#[derive(Debug, Default)]
struct Pane {
    index: i64,
    /// The number of a key is its member's place in `slots`.
    keys: KeyTable,
    /// [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    /// Members without a slot.
    vacant: usize,
    /// Members that are in the list for early results.
    early: Vec<bool>,
    tracker: Tracker,
    /// The storage has keys of the pane that are not here.
    has_cold: bool,
}

/// A place in `panes`, and a member there.
type Member = (u32, u32);

impl Tumbling {
    pub fn new(
        accumulators: &Accumulators,
        cut: Cut,
        late_wanted: bool,
        early_wanted: bool,
    ) -> Self {
        Tumbling {
            cut,
            late_wanted,
            early_wanted,
            places: BTreeMap::new(),
            panes: Vec::new(),
            spare: Vec::new(),
            closed: i64::MIN,
            early: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            dropped: Vec::new(),
        }
    }

    /// What is here takes, in bytes, without the states.
    pub fn bytes(&self) -> usize {
        let panes = self.places.values().map(|&place| {
            let keys = &self.panes[place as usize].keys;
            keys.bytes() + keys.len() * (size_of::<u32>() + 1)
        });
        panes.sum()
    }

    /// The storage has keys of this pane that are not here.
    pub fn set_cold(&mut self, index: i64) {
        let place = self.place(index);
        self.panes[place as usize].has_cold = true;
    }

    pub fn changed(&self) -> usize {
        let panes = self.places.values();
        panes
            .map(|&place| self.panes[place as usize].tracker.changed())
            .sum()
    }

    /// Gives up keys, as many as this, that the storage has.
    pub fn evict(&mut self, accumulators: &mut Accumulators, mut keys: usize) {
        for &place in self.places.values() {
            let pane = &mut self.panes[place as usize];
            let victims = pane.tracker.victims(accumulators, keys);
            keys -= victims.len();
            for member in victims {
                if pane.early.get(member as usize) == Some(&true) {
                    pane.tracker.spare(member);
                    continue;
                }
                let slot = std::mem::replace(&mut pane.slots[member as usize], NO_SLOT);
                if slot != NO_SLOT {
                    accumulators.release(slot);
                    pane.vacant += 1;
                }
                pane.keys.remove(member);
                pane.has_cold = true;
            }
        }
    }

    /// What has changed since the last checkpoint.
    pub fn freeze(
        &mut self,
        accumulators: &Accumulators,
        changes: &mut Changes,
    ) -> Result<(), OperatorError> {
        if let Some(shelf) = accumulators.shelf() {
            for pane in self.dropped.drain(..) {
                shelf.delete_pane(pane, changes);
            }
        }
        for &place in self.places.values() {
            let Pane {
                index,
                keys,
                slots,
                early,
                tracker,
                ..
            } = &mut self.panes[place as usize];
            tracker.freeze(
                accumulators,
                keys,
                *index,
                changes,
                |member, wanted| {
                    let slot = slots[member as usize];
                    wanted.extend((slot != NO_SLOT).then_some(slot));
                },
                |member, states, row| {
                    let is_early = early.get(member as usize) == Some(&true);
                    row.push(if is_early { EARLY } else { 0 });
                    row.extend(states.iter().copied().flatten());
                },
            )?;
        }
        Ok(())
    }

    /// Takes back what was frozen.
    pub fn thaw(
        &mut self,
        accumulators: &mut Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        let slots =
            accumulators.decode(chunk.rows().map(|(_, _, row)| row.get(1..).unwrap_or(&[])))?;
        for ((index, key, row), slot) in chunk.rows().zip(slots) {
            let place = self.place(index);
            let pane = &mut self.panes[place as usize];
            let member = accumulators.number(&mut pane.keys, key)?;
            if member as usize == pane.slots.len() {
                pane.slots.push(slot);
            } else {
                // The number of a key that was given up.
                pane.slots[member as usize] = slot;
                pane.vacant -= 1;
            }
            pane.tracker.set_stored(member);
            let flags = row.first().copied().unwrap_or_default();
            if self.early_wanted && flags & EARLY != 0 {
                self.note_early(&[(place, member)]);
            }
        }
        Ok(())
    }

    /// Time had come to this when the state was frozen.
    pub fn set_time(&mut self, time_ms: i64) {
        self.closed = self.cut.last_closed(time_ms);
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
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

        self.warm(accumulators, &arrived)?;

        let mut founded: Vec<Member> = Vec::new();
        let mut touched: Vec<Member> = Vec::new();
        self.groups.begin(accumulators.slots());
        let mut place = 0;
        let mut span = self.cut.pane_span(self.cut.pane(first));
        for run in 0..self.batch_keys.runs() {
            let rows = self.batch_keys.rows(run);
            let time = arrived.times[rows.start];
            if run == 0 || !span.has(time) {
                let index = self.cut.pane(time);
                place = self.place(index);
                span = self.cut.pane_span(index);
            }
            let pane = &mut self.panes[place as usize];
            let (member, is_new) = pane.keys.upsert_run(&self.batch_keys, run);
            if is_new && member as usize == pane.slots.len() {
                pane.slots.push(NO_SLOT);
                pane.vacant += 1;
            }
            let slot = &mut pane.slots[member as usize];
            let group = if *slot == NO_SLOT {
                *slot = accumulators.allocate();
                pane.vacant -= 1;
                founded.push((place, member));
                self.groups.of_new(*slot)
            } else {
                self.groups.of(*slot)
            };
            self.groups.push(&rows, group);
            if accumulators.shelf().is_some() {
                pane.tracker.touch(member);
            }
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
            self.note_early(&touched);
        }
        if behind {
            self.correct(accumulators, touched, out)?;
        }
        Ok(())
    }

    /// Fires the windows that end by then, and drops those that nothing can
    /// correct any more.
    pub fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let last = self.cut.last_closed(watermark_ms);
        if last > self.closed {
            for (&index, &place) in self.places.range(self.closed..last) {
                let pane = &self.panes[place as usize];
                let span = self.cut.pane_span(index);
                pane.emit(accumulators, span, out)?;
                if pane.has_cold {
                    pane.emit_cold(accumulators, span, out)?;
                }
            }
            self.closed = last;
        }
        while let Some(first) = self.places.first_entry()
            && self
                .cut
                .is_late(self.cut.first_window(*first.key()), watermark_ms)
        {
            let (index, place) = first.remove_entry();
            let pane = &self.panes[place as usize];
            if pane.has_cold || pane.tracker.has_stored() {
                self.dropped.push(index);
            }
            self.panes[place as usize].clear(accumulators);
            self.spare.push(place);
        }
        Ok(())
    }

    /// When the next window ends.
    pub fn next_end(&self) -> Option<i64> {
        let (&index, _) = self.places.range(self.closed..).next()?;
        Some(self.cut.pane_span(index).end)
    }

    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Puts out what open windows have so far, for keys that have had rows
    /// since the last time.
    pub fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut open = Vec::new();
        for (index, member) in std::mem::take(&mut self.early) {
            if let Some(&place) = self.places.get(&index) {
                self.panes[place as usize].early[member as usize] = false;
                if self.cut.first_window(index) > self.closed {
                    open.push((place, member));
                }
            }
        }
        self.emit_members(accumulators, open, out)
    }

    /// Takes back the keys of a batch that were given up.
    fn warm(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
    ) -> Result<(), OperatorError> {
        let has_cold = |&place: &u32| self.panes[place as usize].has_cold;
        if !self.places.values().any(has_cold) {
            return Ok(());
        }
        let missing = |run: usize| {
            let index = self
                .cut
                .pane(arrived.times[self.batch_keys.rows(run).start]);
            let pane = &self.panes[*self.places.get(&index)? as usize];
            let is_missing = pane.has_cold && pane.keys.find(self.batch_keys.key(run)).is_none();
            is_missing.then_some(index)
        };
        let none = Tracker::default();
        let chunk = accumulators.fetch(&self.batch_keys, arrived, &none, missing)?;
        self.thaw(accumulators, &chunk)
    }

    /// Where this pane is; a new one if there is none.
    fn place(&mut self, index: i64) -> u32 {
        let Tumbling {
            places,
            panes,
            spare,
            ..
        } = self;
        *places.entry(index).or_insert_with(|| {
            let place = spare.pop().unwrap_or_else(|| {
                panes.push(Pane::default());
                (panes.len() - 1) as u32
            });
            panes[place as usize].index = index;
            place
        })
    }

    /// Takes the states of members that have no row after all.
    fn vacate(&mut self, accumulators: &mut Accumulators, lost: &[u32], founded: &[Member]) {
        for group in self.groups.left_empty(lost) {
            let (place, member) = founded[group as usize - self.groups.existing];
            let pane = &mut self.panes[place as usize];
            pane.slots[member as usize] = NO_SLOT;
            pane.vacant += 1;
            accumulators.release(self.groups.slots[group as usize]);
        }
    }

    fn note_early(&mut self, touched: &[Member]) {
        for &(place, member) in touched {
            let pane = &mut self.panes[place as usize];
            pane.early.resize(pane.slots.len(), false);
            if !std::mem::replace(&mut pane.early[member as usize], true) {
                self.early.push((pane.index, member));
            }
        }
    }

    /// Puts out the results again that rows have corrected.
    fn correct(
        &mut self,
        accumulators: &mut Accumulators,
        mut touched: Vec<Member>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        touched.retain(|&(place, _)| {
            self.cut.first_window(self.panes[place as usize].index) <= self.closed
        });
        self.emit_members(accumulators, touched, out)
    }

    fn emit_members(
        &self,
        accumulators: &mut Accumulators,
        mut members: Vec<Member>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        members.sort_unstable();
        members.dedup();
        for of_pane in members.chunk_by(|a, b| a.0 == b.0) {
            let pane = &self.panes[of_pane[0].0 as usize];
            let span = self.cut.pane_span(pane.index);
            pane.emit_some(
                accumulators,
                of_pane.iter().map(|&(_, member)| member),
                span,
                out,
            )?;
        }
        Ok(())
    }
}

impl Pane {
    fn emit(
        &self,
        accumulators: &mut Accumulators,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        if self.vacant > 0 {
            return self.emit_some(accumulators, 0..self.slots.len() as u32, span, out);
        }
        let results = Results {
            slots: &self.slots,
            keys: &self.keys,
            ids: Ids::InOrder,
            spans: Spans::Same(span),
        };
        accumulators.emit(results, out)
    }

    fn emit_some(
        &self,
        accumulators: &mut Accumulators,
        members: impl Iterator<Item = u32>,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let (ids, slots): (Vec<u32>, Vec<u32>) = members
            .map(|member| (member, self.slots[member as usize]))
            .filter(|&(_, slot)| slot != NO_SLOT)
            .unzip();
        let results = Results {
            slots: &slots,
            keys: &self.keys,
            ids: Ids::Each(&ids),
            spans: Spans::Same(span),
        };
        accumulators.emit(results, out)
    }

    /// Puts out the keys that are not here.
    fn emit_cold(
        &self,
        accumulators: &mut Accumulators,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Some(shelf) = accumulators.shelf().cloned() else {
            return Ok(());
        };
        let layout = accumulators.layout().clone();
        let loaded = shelf.load_pane(self.index, |mut chunk| {
            chunk.retain(|row, key| self.tracker.is_cold(&layout, &self.keys, row, key));
            let mut keys = KeyTable::default();
            for (_, key, _) in chunk.rows() {
                accumulators.number(&mut keys, key)?;
            }
            let rows = chunk.rows().map(|(_, _, row)| row.get(1..).unwrap_or(&[]));
            let slots = accumulators.decode(rows)?;
            let results = Results {
                slots: &slots,
                keys: &keys,
                ids: Ids::InOrder,
                spans: Spans::Same(span),
            };
            accumulators.emit(results, out)?;
            for slot in slots {
                accumulators.release(slot);
            }
            Ok::<_, LoadError>(true)
        });
        loaded.map_err(|error| accumulators.load_failed(error))
    }

    fn clear(&mut self, accumulators: &mut Accumulators) {
        for slot in self.slots.drain(..).filter(|&slot| slot != NO_SLOT) {
            accumulators.release(slot);
        }
        self.keys.clear();
        self.vacant = 0;
        self.early.clear();
        self.tracker = Tracker::default();
        self.has_cold = false;
    }
}
