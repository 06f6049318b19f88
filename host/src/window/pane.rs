//! Tumbling and sliding windows: time is cut into panes as long as the slide,
//! rows are folded into one state a key and pane, and a window is the merge of
//! the panes it covers. A tumbling window is one pane.
//!
//! The panes are all there is to keep: what [`super::sliding`] derives from
//! them can be made anew at any time. Pane `p` is the time from `p * slide` on;
//! window `w` is the one that ends where pane `w` starts. Panes are kept until
//! no row may correct their last window any more.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::accumulators::{Accumulators, Arrived, Ids, Merges, Results, Spans};
use super::groups::{Groups, NO_SLOT};
use super::sliding::Sliding;
use super::time::{Span, extent};
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};

pub(super) struct Panes {
    cut: Cut,
    lateness_ms: i64,
    late_wanted: bool,
    /// All panes, and those that are free to be used again.
    panes: Vec<Pane>,
    spare: Vec<u32>,
    /// Where in `panes` each pane is.
    places: HashMap<i64, u32, FixedState>,
    in_order: BTreeMap<i64, u32>,
    /// Windows up to this one have fired.
    closed: i64,
    keys: BatchKeys,
    groups: Groups,
    /// Absent for tumbling windows.
    sliding: Option<Sliding>,
    /// Panes with keys that `sliding` does not know of yet.
    unmerged: BTreeSet<i64>,
    /// Absent where no early results are wanted.
    early: Option<Early>,
}

/// How time is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    slide_ms: i64,
    /// Panes a window.
    count: i64,
}

#[derive(Debug, Default)]
struct Pane {
    index: i64,
    /// Members: a key's number is its place in `slots`.
    keys: KeyTable,
    /// [`NO_SLOT`] for a key all of whose rows were lost.
    slots: Vec<u32>,
    /// Members without a slot.
    vacant: usize,
    /// Members that early results are due for, where those are wanted.
    early: Vec<bool>,
}

/// Pane and member that have had rows since the last early results.
#[derive(Debug, Default)]
struct Early(Vec<(i64, u32)>);

/// A member of the pane at a place.
type Member = (u32, u32);

impl Panes {
    pub fn new(
        accumulators: &Accumulators,
        size_ms: i64,
        slide_ms: i64,
        lateness_ms: i64,
        late_wanted: bool,
        early: bool,
    ) -> Self {
        let count = size_ms / slide_ms;
        Panes {
            cut: Cut { slide_ms, count },
            lateness_ms,
            late_wanted,
            panes: Vec::new(),
            spare: Vec::new(),
            places: HashMap::default(),
            in_order: BTreeMap::new(),
            closed: i64::MIN,
            keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            sliding: (count > 1).then(Sliding::new),
            unmerged: BTreeSet::new(),
            early: early.then(Early::default),
        }
    }

    pub fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let (first, last) = extent(&arrived.times);
        if self.is_late(self.cut.first_window(self.cut.pane(first)), watermark_ms) {
            let arrived = self.without_late(arrived, watermark_ms, out);
            if arrived.rows() == 0 {
                return Ok(());
            }
            let (first, last) = extent(&arrived.times);
            self.fold(accumulators, &arrived, first, last, watermark_ms, out)
        } else {
            self.fold(accumulators, &arrived, first, last, watermark_ms, out)
        }
    }

    /// Fires the windows that end by then, and forgets panes that nothing can
    /// correct any more.
    pub fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let last = watermark_ms.div_euclid(self.cut.slide_ms);
        if last > self.closed {
            match self.sliding.take() {
                Some(mut sliding) => {
                    let fired = self.slide(&mut sliding, accumulators, last, out);
                    self.sliding = Some(sliding);
                    fired?;
                }
                None => self.tumble(accumulators, last, out)?,
            }
            self.closed = last;
        }
        while let Some(first) = self.in_order.first_entry()
            && watermark_ms >= self.cut.end(self.cut.last_window(*first.key())) + self.lateness_ms
        {
            let (index, place) = first.remove_entry();
            self.places.remove(&index);
            self.unmerged.remove(&index);
            let pane = &mut self.panes[place as usize];
            for slot in pane.slots.drain(..).filter(|&slot| slot != NO_SLOT) {
                accumulators.release(slot);
            }
            pane.keys.clear();
            pane.vacant = 0;
            pane.early.clear();
            self.spare.push(place);
        }
        Ok(())
    }

    /// When the next window ends.
    pub fn next_end(&self) -> Option<i64> {
        let (&pane, _) = self
            .in_order
            .range(self.closed.saturating_sub(self.cut.count - 1)..)
            .next()?;
        let window = self
            .cut
            .first_window(pane)
            .max(self.closed.saturating_add(1));
        Some(self.cut.end(window))
    }

    /// Whether there are rows that early results have not shown.
    pub fn has_early(&self) -> bool {
        self.early.as_ref().is_some_and(|early| !early.0.is_empty())
    }

    /// Puts out what the open windows have so far, for keys that have had rows
    /// since the last time.
    pub fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Some(early) = &mut self.early else {
            return Ok(());
        };
        let mut wanted = Vec::new();
        for (index, member) in std::mem::take(&mut early.0) {
            let Some(&place) = self.places.get(&index) else {
                continue;
            };
            self.panes[place as usize].early[member as usize] = false;
            let open = self
                .cut
                .first_window(index)
                .max(self.closed.saturating_add(1));
            for window in open..=self.cut.last_window(index) {
                wanted.push((window, (place, member)));
            }
        }
        self.emit_windows(accumulators, &wanted, out)
    }

    /// Whether a row that comes now is not taken by this window any more.
    fn is_late(&self, window: i64, watermark_ms: i64) -> bool {
        watermark_ms >= self.cut.end(window) + self.lateness_ms
    }

    /// Takes out the rows that are late for all of their windows.
    fn without_late(&self, arrived: Arrived, watermark_ms: i64, out: &mut Outbox) -> Arrived {
        let mut late = Vec::new();
        for (row, &time) in arrived.times.iter().enumerate() {
            let pane = self.cut.pane(time);
            if self.is_late(self.cut.first_window(pane), watermark_ms) {
                out.counts.late += 1;
                if self.is_late(self.cut.last_window(pane), watermark_ms) {
                    late.push(row as u32);
                }
            }
        }
        if late.is_empty() {
            return arrived;
        }
        if self.late_wanted {
            out.late.push(arrived.batch.take(&late));
        }
        arrived.without(&late)
    }

    /// Folds rows into their panes.
    fn fold(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        first_ms: i64,
        last_ms: i64,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let one_pane = self.cut.pane(first_ms) == self.cut.pane(last_ms);
        let behind = self.cut.first_window(self.cut.pane(first_ms)) <= self.closed;
        self.read_keys(accumulators, arrived, one_pane)?;
        let mut founded: Vec<Member> = Vec::new();
        let mut touched: Vec<Member> = Vec::new();

        self.groups.begin(accumulators.slots());
        let mut place = 0;
        let mut from = i64::MAX;
        let mut to = i64::MIN;
        for run in 0..self.keys.runs() {
            let rows = self.keys.rows(run);
            let time = arrived.times[rows.start];
            if time < from || time >= to {
                let index = self.cut.pane(time);
                place = self.place(index);
                from = self.cut.start(index);
                to = from + self.cut.slide_ms;
            }
            let pane = &mut self.panes[place as usize];
            let (member, is_new) = pane.keys.upsert(self.keys.key(run));
            if is_new {
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
            if behind || self.early.is_some() {
                touched.push((place, member));
            }
        }
        self.groups.end();

        let folded = accumulators.fold(arrived, &self.groups, out)?;
        accumulators.store(&self.groups, &folded.states)?;
        if !folded.lost.is_empty() {
            self.vacate(accumulators, &folded.lost, &founded);
        }
        if !touched.is_empty() {
            self.look_back(accumulators, &touched, watermark_ms, out)?;
        }
        Ok(())
    }

    fn read_keys(
        &mut self,
        accumulators: &Accumulators,
        arrived: &Arrived,
        one_pane: bool,
    ) -> Result<(), OperatorError> {
        let columns = accumulators.key_columns(arrived);
        let cut = self.cut;
        let mut from = i64::MAX;
        let mut to = i64::MIN;
        let another_pane = |row: usize| {
            if one_pane {
                return false;
            }
            let time = arrived.times[row];
            let another = time < from || time >= to;
            if another {
                from = cut.start(cut.pane(time));
                to = from + cut.slide_ms;
            }
            another
        };
        self.keys
            .read(&columns, arrived.rows(), another_pane)
            .map_err(|error| accumulators.broken(&error))
    }

    /// Where this pane is; a new one if there is none.
    fn place(&mut self, index: i64) -> u32 {
        let Panes {
            panes,
            spare,
            places,
            in_order,
            unmerged,
            sliding,
            cut,
            closed,
            ..
        } = self;
        *places.entry(index).or_insert_with(|| {
            let place = spare.pop().unwrap_or_else(|| {
                panes.push(Pane::default());
                (panes.len() - 1) as u32
            });
            panes[place as usize].index = index;
            in_order.insert(index, place);
            // A pane that comes late may be in closed windows only.
            if sliding.is_some() && cut.last_window(index) > *closed {
                unmerged.insert(index);
            }
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

    /// Sees to members whose pane is in windows that have fired, and notes
    /// those that early results are due for.
    fn look_back(
        &mut self,
        accumulators: &mut Accumulators,
        touched: &[Member],
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut wanted = Vec::new();
        for &(place, member) in touched {
            let pane = &mut self.panes[place as usize];
            let slot = pane.slots[member as usize];
            if slot == NO_SLOT {
                continue;
            }
            let index = pane.index;
            if let Some(early) = &mut self.early {
                pane.early.resize(pane.slots.len(), false);
                if !std::mem::replace(&mut pane.early[member as usize], true) {
                    early.0.push((index, member));
                }
            }
            if self.cut.first_window(index) > self.closed {
                continue;
            }
            let open = self.cut.last_window(index) > self.closed;
            if let Some(sliding) = &mut self.sliding
                && open
                && !self.unmerged.contains(&index)
            {
                sliding.add(accumulators, index, pane.keys.key(member), slot);
            }
            for window in
                self.cut.first_window(index)..=self.cut.last_window(index).min(self.closed)
            {
                if !self.is_late(window, watermark_ms) {
                    wanted.push((window, (place, member)));
                }
            }
        }
        self.emit_windows(accumulators, &wanted, out)
    }

    fn tumble(
        &mut self,
        accumulators: &mut Accumulators,
        last: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        for (&index, &place) in self.in_order.range(self.closed..last) {
            let pane = &self.panes[place as usize];
            let living: Vec<u32>;
            let slots: Vec<u32>;
            let (slots, ids) = if pane.vacant == 0 {
                (pane.slots.as_slice(), Ids::InOrder)
            } else {
                let members = 0..pane.slots.len() as u32;
                living = members
                    .filter(|&member| pane.slots[member as usize] != NO_SLOT)
                    .collect();
                slots = living
                    .iter()
                    .map(|&member| pane.slots[member as usize])
                    .collect();
                (slots.as_slice(), Ids::Each(&living))
            };
            let results = Results {
                slots,
                keys: &pane.keys,
                ids,
                spans: Spans::Same(self.cut.span(index + 1)),
            };
            accumulators.emit(results, out)?;
        }
        Ok(())
    }

    fn slide(
        &mut self,
        sliding: &mut Sliding,
        accumulators: &mut Accumulators,
        last: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        loop {
            // Windows follow one another while there are keys; then time jumps
            // to the next pane with any.
            let window = if sliding.is_empty() {
                match self.unmerged.first() {
                    Some(&pane) => self
                        .cut
                        .first_window(pane)
                        .max(self.closed.saturating_add(1)),
                    None => return Ok(()),
                }
            } else {
                self.closed + 1
            };
            if window > last {
                return Ok(());
            }
            while let Some(&index) = self.unmerged.first()
                && index < window
            {
                self.unmerged.pop_first();
                let pane = &self.panes[self.places[&index] as usize];
                for (member, &slot) in pane.slots.iter().enumerate() {
                    if slot != NO_SLOT {
                        sliding.add(accumulators, index, pane.keys.key(member as u32), slot);
                    }
                }
            }
            let span = self.cut.span(window);
            sliding.emit(accumulators, span, out)?;
            sliding.forget(accumulators, window - self.cut.count);
            self.closed = window;
        }
    }

    /// Puts out what these windows hold for the keys of these members, merged
    /// from the panes themselves.
    fn emit_windows(
        &mut self,
        accumulators: &mut Accumulators,
        wanted: &[(i64, Member)],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut keys = KeyTable::default();
        let mut wanted: Vec<(i64, u32)> = wanted
            .iter()
            .map(|&(window, (place, member))| {
                let key = self.panes[place as usize].keys.key(member);
                (window, keys.upsert(key).0)
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();

        let mut merges = Merges::default();
        for of_window in wanted.chunk_by(|a, b| a.0 == b.0) {
            let window = of_window[0].0;
            let span = self.cut.span(window);
            let mut ids = Vec::with_capacity(of_window.len());
            let mut slots = Vec::with_capacity(of_window.len());
            let mut merged = Vec::new();
            merges.clear();
            for &(_, id) in of_window {
                let panes = self.in_order.range(window - self.cut.count..window);
                let inputs: Vec<u32> = panes
                    .filter_map(|(_, &place)| {
                        let pane = &self.panes[place as usize];
                        let slot = pane.slots[pane.keys.find(keys.key(id))? as usize];
                        (slot != NO_SLOT).then_some(slot)
                    })
                    .collect();
                let slot = match inputs[..] {
                    [] => continue,
                    [only] => only,
                    _ => {
                        let slot = accumulators.allocate();
                        merges.add(&inputs, slot, id, span);
                        merged.push(slot);
                        slot
                    }
                };
                ids.push(id);
                slots.push(slot);
            }
            accumulators.merge(&merges, &keys, out)?;
            let results = Results {
                slots: &slots,
                keys: &keys,
                ids: Ids::Each(&ids),
                spans: Spans::Same(span),
            };
            accumulators.emit(results, out)?;
            for slot in merged {
                accumulators.release(slot);
            }
        }
        Ok(())
    }
}

impl Cut {
    fn pane(self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.slide_ms)
    }

    fn start(self, pane: i64) -> i64 {
        pane * self.slide_ms
    }

    /// The first window that has this pane.
    fn first_window(self, pane: i64) -> i64 {
        pane + 1
    }

    fn last_window(self, pane: i64) -> i64 {
        pane + self.count
    }

    fn end(self, window: i64) -> i64 {
        self.start(window)
    }

    fn span(self, window: i64) -> Span {
        Span {
            start: self.start(window - self.count),
            end: self.end(window),
        }
    }
}
