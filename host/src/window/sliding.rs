//! Sliding windows: rows are folded into one state a key and pane, and a window
//! is the merge of the panes it covers.
//!
//! The states of the panes are all there is to keep; everything else follows
//! from them. What a key holds in the window is kept up to date as panes come
//! and go, so that a slide costs by the keys that change and by the results it
//! puts out, and not by the number of panes. See [`super::tree`] for keys with
//! many. Panes are kept until no row may correct their last window any more.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::accumulators::{Accumulators, Arrived, Ids, Merges, Results, Spans};
use super::cut::Cut;
use super::groups::{Groups, NO_SLOT};
use super::time::extent;
use super::tree::{Leaf, Tree};
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};

pub(super) struct Sliding {
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    keys: KeyTable,
    /// By key.
    entries: Vec<Entry>,
    /// The keys of each pane.
    panes: BTreeMap<i64, Vec<u32>>,
    spare: Vec<Vec<u32>>,
    /// Windows up to this one have fired.
    closed: i64,
    /// The keys that the last window had, without those that have left since,
    /// and where the state of each is.
    ids: Vec<u32>,
    slots: Vec<u32>,
    /// Keys whose panes in the window have changed since it fired.
    changed: Vec<u32>,
    /// Panes and keys with rows that early results have not shown.
    early: Vec<(i64, u32)>,
    batch_keys: BatchKeys,
    groups: Groups,
    merges: Merges,
    cover: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// The last leaf once more: most rows are for it.
    last_pane: i64,
    last_slot: u32,
    /// Where the key is among `ids`, or [`NOWHERE`].
    position: u32,
    /// Holds the merge of the window's panes where that is no single leaf or
    /// node, else [`NO_SLOT`].
    own: u32,
    changed: bool,
    /// Panes with the key, in order.
    leaves: VecDeque<Leaf>,
    /// Where the window has many of them.
    tree: Option<Box<Tree>>,
}

const NOWHERE: u32 = u32::MAX;

/// No pane: rows are never that early.
const NO_PANE: i64 = i64::MIN;

/// A key with fewer panes in the window is merged from them directly.
const TREE_LEAVES_MIN: usize = 8;

impl Sliding {
    pub fn new(
        accumulators: &Accumulators,
        cut: Cut,
        late_wanted: bool,
        early_wanted: bool,
    ) -> Self {
        Sliding {
            cut,
            late_wanted,
            early_wanted,
            keys: KeyTable::default(),
            entries: Vec::new(),
            panes: BTreeMap::new(),
            spare: Vec::new(),
            closed: i64::MIN,
            ids: Vec::new(),
            slots: Vec::new(),
            changed: Vec::new(),
            early: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            merges: Merges::default(),
            cover: Vec::new(),
        }
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

        let mut founded: Vec<(i64, u32)> = Vec::new();
        let mut touched: Vec<(i64, u32)> = Vec::new();
        self.groups.begin(accumulators.slots());
        let mut pane = self.cut.pane(first);
        let mut span = self.cut.pane_span(pane);
        for run in 0..self.batch_keys.runs() {
            let rows = self.batch_keys.rows(run);
            let time = arrived.times[rows.start];
            if !span.has(time) {
                pane = self.cut.pane(time);
                span = self.cut.pane_span(pane);
            }
            let (id, _) = self.keys.upsert(self.batch_keys.key(run));
            if id as usize == self.entries.len() {
                self.entries.push(Entry::default());
            }
            let entry = &mut self.entries[id as usize];
            let group = if entry.last_pane == pane {
                self.groups.of(entry.last_slot)
            } else {
                match entry.find(pane) {
                    Ok(at) => self.groups.of(entry.leaves[at].slot),
                    Err(at) => {
                        let slot = accumulators.allocate();
                        let leaf = Leaf {
                            pane,
                            slot,
                            early: false,
                        };
                        if pane < self.closed {
                            // Leaves that nodes stand over get other numbers.
                            entry.fell(accumulators);
                        }
                        entry.insert(at, leaf);
                        founded.push((pane, id));
                        self.groups.of_new(slot)
                    }
                }
            };
            self.groups.push(&rows, group);
            if behind || self.early_wanted {
                touched.push((pane, id));
            }
        }
        self.groups.end();

        let folded = accumulators.fold(&arrived, &self.groups, out)?;
        accumulators.store(&self.groups, &folded.states)?;
        if folded.lost.is_empty() {
            self.enter(&founded);
        } else {
            let empty = self.groups.left_empty(&folded.lost);
            self.enter_but(accumulators, founded, &empty);
            touched.retain(|&(pane, id)| self.entries[id as usize].find(pane).is_ok());
        }
        if self.early_wanted {
            self.note_early(&touched);
        }
        if behind {
            self.look_back(accumulators, &touched, watermark_ms, out)?;
        }
        Ok(())
    }

    /// Fires the windows that end by then, and forgets panes that nothing can
    /// correct any more.
    pub fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let last = self.cut.last_closed(watermark_ms);
        while let Some(window) = self.next_window()
            && window <= last
        {
            self.slide(accumulators, window, out)?;
        }
        self.closed = self.closed.max(last);
        while let Some(first) = self.panes.first_entry()
            && self
                .cut
                .is_late(self.cut.last_window(*first.key()), watermark_ms)
        {
            let mut ids = first.remove();
            for id in ids.drain(..) {
                self.forget_first(accumulators, id);
            }
            self.spare.push(ids);
        }
        Ok(())
    }

    /// When the next window ends.
    pub fn next_end(&self) -> Option<i64> {
        Some(self.cut.window_span(self.next_window()?).end)
    }

    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Puts out what the open windows have so far, for keys that have had rows
    /// since the last time.
    pub fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut wanted = Vec::new();
        for (pane, id) in std::mem::take(&mut self.early) {
            let entry = &mut self.entries[id as usize];
            // The pane may have been forgotten and the number given to another key.
            if let Ok(at) = entry.find(pane)
                && std::mem::replace(&mut entry.leaves[at].early, false)
            {
                let open = self
                    .cut
                    .first_window(pane)
                    .max(self.closed.saturating_add(1));
                wanted.extend((open..=self.cut.last_window(pane)).map(|window| (window, id)));
            }
        }
        self.emit_windows(accumulators, wanted, out)
    }

    /// The next window to have a key. Windows follow one another while they
    /// have keys; then time jumps to the next pane that has any.
    fn next_window(&self) -> Option<i64> {
        if !self.ids.is_empty() || !self.changed.is_empty() {
            return Some(self.closed.saturating_add(1));
        }
        let (&pane, _) = self.panes.range(self.closed..).next()?;
        Some(self.cut.first_window(pane))
    }

    /// Notes new leaves with their panes.
    fn enter(&mut self, founded: &[(i64, u32)]) {
        for of_pane in founded.chunk_by(|a, b| a.0 == b.0) {
            let spare = &mut self.spare;
            let ids = self
                .panes
                .entry(of_pane[0].0)
                .or_insert_with(|| spare.pop().unwrap_or_default());
            ids.extend(of_pane.iter().map(|&(_, id)| id));
        }
    }

    /// The same, but for leaves that have no row after all: those of these groups.
    fn enter_but(
        &mut self,
        accumulators: &mut Accumulators,
        mut founded: Vec<(i64, u32)>,
        empty: &[u32],
    ) {
        for &group in empty.iter().rev() {
            let (pane, id) = founded.remove(group as usize - self.groups.existing);
            let entry = &mut self.entries[id as usize];
            if let Ok(at) = entry.find(pane) {
                entry.remove(at);
            }
            accumulators.release(self.groups.slots[group as usize]);
            if entry.leaves.is_empty() {
                self.keys.remove(id);
            }
        }
        self.enter(&founded);
    }

    fn note_early(&mut self, touched: &[(i64, u32)]) {
        for &(pane, id) in touched {
            let entry = &mut self.entries[id as usize];
            if let Ok(at) = entry.find(pane)
                && !std::mem::replace(&mut entry.leaves[at].early, true)
            {
                self.early.push((pane, id));
            }
        }
    }

    /// Sees to keys with rows in panes of windows that have fired: they have
    /// changed what the next window starts from, and may correct results.
    fn look_back(
        &mut self,
        accumulators: &mut Accumulators,
        touched: &[(i64, u32)],
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut wanted = Vec::new();
        for &(pane, id) in touched {
            let windows = self.cut.first_window(pane)..=self.cut.last_window(pane);
            if *windows.start() > self.closed {
                continue;
            }
            if *windows.end() > self.closed {
                let entry = &mut self.entries[id as usize];
                entry.fell(accumulators);
                entry.change(id, &mut self.changed);
            }
            let fired = *windows.start()..=self.closed.min(*windows.end());
            let corrected = fired.filter(|&window| !self.cut.is_late(window, watermark_ms));
            wanted.extend(corrected.map(|window| (window, id)));
        }
        self.emit_windows(accumulators, wanted, out)
    }

    fn slide(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Sliding {
            panes,
            entries,
            changed,
            closed,
            ..
        } = self;
        for (_, ids) in panes.range(*closed..window) {
            for &id in ids {
                entries[id as usize].change(id, changed);
            }
        }
        self.grow_trees(accumulators, window, out)?;
        self.merge_changed(accumulators, window, out)?;
        let results = Results {
            slots: &self.slots,
            keys: &self.keys,
            ids: Ids::Each(&self.ids),
            spans: Spans::Same(self.cut.window_span(window)),
        };
        accumulators.emit(results, out)?;
        self.closed = window;
        self.leave(accumulators, window);
        Ok(())
    }

    /// Makes the nodes whose leaves have come, one level after another.
    fn grow_trees(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let span = self.cut.window_span(window);
        let mut growing: Vec<(u32, Range<usize>)> = Vec::new();
        for &id in &self.changed {
            let entry = &mut self.entries[id as usize];
            if entry.leaves.len() >= TREE_LEAVES_MIN {
                let leaves = entry.leaves_of(self.cut, window);
                if leaves.len() >= TREE_LEAVES_MIN {
                    entry
                        .tree
                        .get_or_insert_with(|| Box::new(Tree::new(leaves.start)));
                    growing.push((id, leaves));
                }
            }
        }
        let mut level = 0;
        while !growing.is_empty() {
            let Sliding {
                entries, merges, ..
            } = self;
            merges.clear();
            growing.retain(|(id, leaves)| {
                let entry = &mut entries[*id as usize];
                let merge = |inputs: &[u32], target| merges.add(inputs, target, *id, span);
                entry.tree.as_mut().is_some_and(|tree| {
                    tree.grow(level, &entry.leaves, leaves, accumulators, merge)
                })
            });
            accumulators.merge(merges, &self.keys, out)?;
            level += 1;
        }
        Ok(())
    }

    /// Brings `ids` and `slots` up to date with this window.
    fn merge_changed(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let span = self.cut.window_span(window);
        self.merges.clear();
        for id in self.changed.drain(..) {
            let entry = &mut self.entries[id as usize];
            if !std::mem::replace(&mut entry.changed, false) {
                continue;
            }
            let leaves = entry.leaves_of(self.cut, window);
            if leaves.is_empty() {
                continue;
            }
            let slot = if leaves.len() == 1 {
                entry.release_own(accumulators);
                entry.leaves[leaves.start].slot
            } else {
                self.cover.clear();
                entry.cover(leaves, &mut self.cover);
                if entry.own == NO_SLOT {
                    entry.own = accumulators.allocate();
                }
                self.merges.add(&self.cover, entry.own, id, span);
                entry.own
            };
            if entry.position == NOWHERE {
                entry.position = self.ids.len() as u32;
                self.ids.push(id);
                self.slots.push(slot);
            } else {
                self.slots[entry.position as usize] = slot;
            }
        }
        accumulators.merge(&self.merges, &self.keys, out)
    }

    /// Takes the pane out that the next window does not cover.
    fn leave(&mut self, accumulators: &mut Accumulators, window: i64) {
        let Some(leaving) = self.panes.get(&self.cut.first_pane(window)) else {
            return;
        };
        for &id in leaving {
            let entry = &mut self.entries[id as usize];
            let leaves = entry.leaves_of(self.cut, window + 1);
            if let Some(tree) = &mut entry.tree {
                tree.trim(leaves.start, accumulators);
            }
            // Panes that the next window has already may not be in yet.
            if !leaves.is_empty() && entry.leaves[leaves.start].pane < window {
                entry.change(id, &mut self.changed);
                continue;
            }
            entry.fell(accumulators);
            entry.release_own(accumulators);
            let position = std::mem::replace(&mut entry.position, NOWHERE) as usize;
            if position < self.ids.len() {
                self.ids.swap_remove(position);
                self.slots.swap_remove(position);
                if let Some(&moved) = self.ids.get(position) {
                    self.entries[moved as usize].position = position as u32;
                }
            }
        }
    }

    /// The first pane of a key is gone.
    fn forget_first(&mut self, accumulators: &mut Accumulators, id: u32) {
        let entry = &mut self.entries[id as usize];
        if let Some(leaf) = entry.leaves.pop_front() {
            accumulators.release(leaf.slot);
        }
        if let Some(tree) = &mut entry.tree {
            tree.forget_leaf();
        }
        if entry.leaves.is_empty() {
            entry.last_pane = NO_PANE;
            entry.changed = false;
            self.keys.remove(id);
        }
    }

    /// Puts out what these windows hold of these keys, merged from the panes
    /// directly.
    fn emit_windows(
        &mut self,
        accumulators: &mut Accumulators,
        mut wanted: Vec<(i64, u32)>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        wanted.sort_unstable();
        wanted.dedup();
        for of_window in wanted.chunk_by(|a, b| a.0 == b.0) {
            let window = of_window[0].0;
            let span = self.cut.window_span(window);
            let ids: Vec<u32> = of_window.iter().map(|&(_, id)| id).collect();
            let mut slots = Vec::with_capacity(ids.len());
            let mut merged = Vec::new();
            self.merges.clear();
            for &id in &ids {
                let entry = &self.entries[id as usize];
                let leaves = entry.leaves.range(entry.leaves_of(self.cut, window));
                self.cover.clear();
                self.cover.extend(leaves.map(|leaf| leaf.slot));
                slots.push(if let [only] = self.cover[..] {
                    only
                } else {
                    let slot = accumulators.allocate();
                    self.merges.add(&self.cover, slot, id, span);
                    merged.push(slot);
                    slot
                });
            }
            accumulators.merge(&self.merges, &self.keys, out)?;
            let results = Results {
                slots: &slots,
                keys: &self.keys,
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

impl Default for Entry {
    fn default() -> Self {
        Entry {
            last_pane: NO_PANE,
            last_slot: NO_SLOT,
            position: NOWHERE,
            own: NO_SLOT,
            changed: false,
            leaves: VecDeque::new(),
            tree: None,
        }
    }
}

impl Entry {
    /// Where this pane is among the leaves, or where it belongs.
    fn find(&self, pane: i64) -> Result<usize, usize> {
        match self.leaves.back() {
            Some(last) if last.pane >= pane => {
                self.leaves.binary_search_by_key(&pane, |leaf| leaf.pane)
            }
            _ => Err(self.leaves.len()),
        }
    }

    fn insert(&mut self, at: usize, leaf: Leaf) {
        if at == self.leaves.len() {
            self.last_pane = leaf.pane;
            self.last_slot = leaf.slot;
            self.leaves.push_back(leaf);
        } else {
            self.leaves.insert(at, leaf);
        }
    }

    fn remove(&mut self, at: usize) {
        self.leaves.remove(at);
        let last = self.leaves.back();
        self.last_pane = last.map_or(NO_PANE, |leaf| leaf.pane);
        self.last_slot = last.map_or(NO_SLOT, |leaf| leaf.slot);
    }

    /// The leaves that a window covers.
    fn leaves_of(&self, cut: Cut, window: i64) -> Range<usize> {
        let first_pane = cut.first_pane(window);
        let start = match self.leaves.front() {
            Some(first) if first.pane >= first_pane => 0,
            _ => self.leaves.partition_point(|leaf| leaf.pane < first_pane),
        };
        let end = match self.leaves.back() {
            Some(last) if last.pane < window => self.leaves.len(),
            _ => self.leaves.partition_point(|leaf| leaf.pane < window),
        };
        start..end.max(start)
    }

    fn change(&mut self, id: u32, changed: &mut Vec<u32>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(id);
        }
    }

    /// The states that together are the window's, in order.
    fn cover(&self, leaves: Range<usize>, slots: &mut Vec<u32>) {
        match &self.tree {
            Some(tree) if leaves.len() >= TREE_LEAVES_MIN => {
                tree.cover(&self.leaves, &leaves, slots);
            }
            _ => slots.extend(self.leaves.range(leaves).map(|leaf| leaf.slot)),
        }
    }

    fn fell(&mut self, accumulators: &mut Accumulators) {
        if let Some(mut tree) = self.tree.take() {
            tree.clear(accumulators);
        }
    }

    fn release_own(&mut self, accumulators: &mut Accumulators) {
        if self.own != NO_SLOT {
            accumulators.release(self.own);
            self.own = NO_SLOT;
        }
    }
}
