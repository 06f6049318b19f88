//! Windows that overlap, sliding and cumulating ones: rows are folded into one state for
//! each key and pane, and a window is the merge of the panes that it covers.
//!
//! Only the states of panes are persisted; everything else is derived from them. The
//! window's state of each key is updated as panes enter and leave the window, so that
//! the cost of a slide depends on changed keys and on results, not on the number of
//! panes. Keys with many panes have a [`super::tree`]. A pane is kept until no row can
//! correct its last window any more.

use std::collections::BTreeMap;
use std::ops::Range;

use super::accumulators::{Accumulators, Arrived, Merges};
use super::changes::Change;
use super::cut::Cut;
use super::kind::WindowKind;
use super::leaves::{Leaf, Leaves};
use super::results::{Ids, Results, Spans};
use super::tables::EARLY;
use super::time::Span;
use super::tree::Tree;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::Timing;
use crate::state::calendar::NEVER;
use crate::state::entry_row::{EntryReader, write_i64, write_state};
use crate::state::groups::NO_SLOT;
use crate::state::key::KeyTable;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::row::RowError;
use crate::state::stored::StoredRows;
use crate::state::table::StateTable;

pub(super) struct Sliding {
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    /// An entry's due "time" is its key's last pane, not a time in ms.
    keyed: KeyedStates<SlidingEntries>,
    spare: Vec<Vec<u32>>,
}

/// The panes of each key, and the contents of the last window.
#[derive(Debug, Default)]
struct SlidingEntries {
    early_wanted: bool,
    /// The keys of each pane.
    panes: BTreeMap<i64, Vec<u32>>,
    /// Windows up to this one have fired.
    closed: i64,
    /// Keys whose panes in the last window have changed since it fired.
    changed: Vec<u32>,
    /// Panes and keys with rows that early results have not shown.
    early: Vec<(i64, u32)>,
    /// By key.
    entries: Vec<SlidingEntry>,
    /// The keys of the last window, and the slot of each one's state.
    ids: Vec<u32>,
    slots: Vec<u32>,
    /// How many windows have fired.
    slides: u32,
    merges: Merges,
    cover: Vec<u32>,
    /// Keys with a tree, and the leaves that the window covers.
    with_trees: Vec<(u32, Range<usize>)>,
    /// Keys whose tree was made or dropped.
    changed_trees: Vec<u32>,
}

#[derive(Debug)]
struct SlidingEntry {
    /// The slide that last updated the key.
    slide: u32,
    /// The key's index among the window's keys, or [`NOT_IN_WINDOW`].
    position: u32,
    /// The slot of the merge of the window's panes, or [`NO_SLOT`] where that is a
    /// single leaf or node.
    own: u32,
    leaves: Leaves,
    /// Present where the window covers many leaves.
    tree: Option<Box<Tree>>,
}

const NOT_IN_WINDOW: u32 = u32::MAX;

/// The horizon of a calendar of pane numbers, which then rounds none of them.
const PANES: i64 = 1;

/// A key with fewer panes in the window is merged from them directly.
const TREE_LEAVES_MIN: usize = 8;

impl Sliding {
    pub fn new(
        accumulators: &Accumulators,
        cut: Cut,
        late_wanted: bool,
        early_wanted: bool,
    ) -> Self {
        let entries = SlidingEntries {
            early_wanted,
            closed: i64::MIN,
            ..SlidingEntries::default()
        };
        Sliding {
            cut,
            late_wanted,
            early_wanted,
            keyed: KeyedStates::new(accumulators.table.clone(), 0, PANES, entries),
            spare: Vec::new(),
        }
    }

    /// Emits the results of a window for evicted keys, a chunk at a time.
    fn slide_evicted(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let Some(mut sweep) = self.keyed.sweep(NEVER) else {
            return Ok(());
        };
        let span = self.cut.window_span(window);
        while let Some(mut rows) = self.keyed.next(&mut sweep)? {
            self.drop_past(&mut rows, watermark_ms)?;
            let first = self.entries().changed.len();
            let first_tree = self.entries().changed_trees.len();
            self.keyed.insert(&mut accumulators.states, &rows)?;
            let (entries, keys) = self.keyed.parts();
            let ids = entries.changed.split_off(first);
            entries.begin();
            for &id in &ids {
                entries.update(&mut accumulators.states, self.cut, window, id);
            }
            entries.grow_trees(accumulators, span, keys, out)?;
            accumulators.merge(&entries.merges, keys, out)?;
            let (due, slots): (Vec<u32>, Vec<u32>) =
                ids.iter().filter_map(|&id| entries.slot(id)).unzip();
            let results = Results {
                slots: &slots,
                keys,
                ids: Ids::Each(&due),
                spans: Spans::Same(span),
                timing: Timing::OnTime,
            };
            accumulators.emit(results, out)?;
            // The next checkpoint need not write these trees: the keys are evicted again.
            entries.changed_trees.truncate(first_tree);
            self.keyed.evict_keys(&mut accumulators.states, &ids);
        }
        self.keyed.end_sweep();
        Ok(())
    }

    fn entries(&mut self) -> &mut SlidingEntries {
        &mut self.keyed.entries
    }

    /// Leaves out keys that no open or future window covers and that no row can
    /// correct any more, and has their rows deleted.
    fn drop_past(&mut self, rows: &mut StoredRows, watermark_ms: i64) -> Result<(), KeyedError> {
        let (cut, closed) = (self.cut, self.entries().closed);
        let mut past = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            let (_, leaves) = read_leaves(row, &mut Vec::new())?;
            let is_past = |leaf: &Leaf| {
                let last = cut.last_window(leaf.pane);
                cut.is_late(last, watermark_ms) && last < closed
            };
            past.push(leaves.iter().all(is_past));
        }
        let mut past = past.into_iter();
        let keyed = &mut self.keyed;
        rows.retain(|row| {
            let is_past = past.next() == Some(true);
            if is_past {
                keyed.delete_row(row);
            }
            !is_past
        });
        Ok(())
    }

    /// The next window that has a key: the one after the last, or if that was empty,
    /// the first window of the next pane.
    fn next_window(&self) -> Option<i64> {
        let entries = &self.keyed.entries;
        let next = self.cut.next_window(entries.closed);
        let is_in_next = |pane: i64| pane >= self.cut.first_pane(next);
        let has_evicted =
            entries.closed > i64::MIN && self.keyed.last_due_ms().is_some_and(is_in_next);
        if !entries.ids.is_empty() || !entries.changed.is_empty() || has_evicted {
            return Some(next);
        }
        let (&pane, _) = entries.panes.range(entries.closed..).next()?;
        Some(self.cut.first_window(pane))
    }

    /// Adds new leaves to their panes.
    fn add_leaves(&mut self, created: &[(i64, u32)]) {
        for of_pane in created.chunk_by(|a, b| a.0 == b.0) {
            let spare = &mut self.spare;
            let ids = self
                .keyed
                .entries
                .panes
                .entry(of_pane[0].0)
                .or_insert_with(|| spare.pop().unwrap_or_default());
            ids.extend(of_pane.iter().map(|&(_, id)| id));
        }
    }

    /// [`Sliding::add_leaves`], without leaves that have only lost rows.
    fn add_leaves_without(
        &mut self,
        accumulators: &mut Accumulators,
        mut created: Vec<(i64, u32)>,
        lost: &[u32],
    ) -> Result<(), KeyedError> {
        for (at, slot) in accumulators.groups.left_empty(lost).into_iter().rev() {
            let (pane, id) = created.remove(at);
            let leaves = &mut self.entries().entry(id).leaves;
            if let Ok(at) = leaves.find(pane) {
                leaves.remove(at);
            }
            if leaves.as_slice().is_empty() {
                self.keyed.remove(&[id])?;
            }
            accumulators.states.release(slot);
        }
        self.add_leaves(&created);
        Ok(())
    }

    /// A key's row says where its tree begins.
    fn note_changed_trees(&mut self) {
        for id in std::mem::take(&mut self.entries().changed_trees) {
            if self.keyed.keys().has(id) {
                self.keyed.touch(id);
            }
        }
    }

    fn note_early(&mut self, touched: &[(i64, u32)]) {
        for &(pane, id) in touched {
            let entries = self.entries();
            if let Some(leaf) = entries.leaf(pane, id)
                && !std::mem::replace(&mut leaf.early, true)
            {
                entries.early.push((pane, id));
            }
        }
    }

    /// Has keys updated for the next window that have rows in panes of windows that have
    /// fired.
    fn note_changed(&mut self, accumulators: &mut Accumulators, touched: &[(i64, u32)]) {
        let cut = self.cut;
        let entries = self.entries();
        for &(pane, id) in touched {
            let has_fired = cut.first_window(pane) <= entries.closed;
            if has_fired && cut.last_window(pane) > entries.closed {
                entries.entry(id).drop_tree(&mut accumulators.states);
                entries.changed.push(id);
            }
        }
    }

    /// The windows that have fired and have these panes of keys, and that rows may correct.
    fn closed_windows(&self, touched: &[(i64, u32)], watermark_ms: i64) -> Vec<(i64, u32)> {
        let (cut, closed) = (self.cut, self.keyed.entries.closed);
        let mut windows = Vec::new();
        for &(pane, id) in touched {
            let fired = cut.windows(pane, cut.first_window(pane));
            let fired = fired.take_while(|&window| window <= closed);
            let corrected = fired.filter(|&window| !cut.is_late(window, watermark_ms));
            windows.extend(corrected.map(|window| (window, id)));
        }
        windows
    }

    /// Fires the next window.
    fn slide(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        self.entries().begin();
        let cut = self.cut;
        let leaving = cut.leaving_panes(window);
        let is_past = |&pane: &i64| cut.is_late(cut.last_window(pane), watermark_ms);
        let panes = self.entries().panes.range(leaving.clone());
        let past: Vec<i64> = panes.map(|(&pane, _)| pane).filter(is_past).collect();
        self.forget(accumulators, &past, Some(window))?;
        let (entries, keys) = self.keyed.parts();
        // Taken out, since each of them changes the entries.
        let panes = std::mem::take(&mut entries.panes);
        let changed = std::mem::take(&mut entries.changed);
        let leaving = panes.range(leaving);
        let entering = panes.range(entries.closed..window);
        let of_panes = leaving.chain(entering).map(|(_, ids)| ids);
        for &id in of_panes.chain([&changed]).flatten() {
            entries.update(&mut accumulators.states, cut, window, id);
        }
        entries.panes = panes;
        let span = cut.window_span(window);
        entries.grow_trees(accumulators, span, keys, out)?;
        accumulators.merge(&entries.merges, keys, out)?;
        let results = Results {
            slots: &entries.slots,
            keys,
            ids: Ids::Each(&entries.ids),
            spans: Spans::Same(span),
            timing: Timing::OnTime,
        };
        accumulators.emit(results, out)?;
        entries.closed = window;
        self.slide_evicted(accumulators, window, watermark_ms, out)
    }

    /// Removes the first panes, and updates their keys for a window.
    fn forget(
        &mut self,
        accumulators: &mut Accumulators,
        panes: &[i64],
        window: Option<i64>,
    ) -> Result<(), KeyedError> {
        let cut = self.cut;
        let states = &mut accumulators.states;
        let mut changed = Vec::new();
        for &pane in panes {
            let entries = self.entries();
            let Some(mut ids) = entries.panes.remove(&pane) else {
                continue;
            };
            for id in ids.drain(..) {
                let entry = entries.entry(id);
                // Missing if the key was evicted since.
                let Ok(at) = entry.leaves.find(pane) else {
                    continue;
                };
                states.release(entry.leaves.as_slice()[at].slot);
                entry.leaves.remove(at);
                if let Some(tree) = &mut entry.tree {
                    tree.forget_leaf();
                }
                changed.push(id);
            }
            self.spare.push(ids);
        }
        if panes.len() > 1 {
            changed.sort_unstable();
            changed.dedup();
        }
        let entries = self.entries();
        let mut gone = Vec::new();
        for id in changed {
            if let Some(window) = window {
                entries.update(states, cut, window, id);
            }
            let leaves = &mut entries.entry(id).leaves;
            if leaves.as_slice().is_empty() {
                *leaves = Leaves::default();
                gone.push(id);
            }
        }
        self.keyed.remove(&gone).map_err(KeyedError::from)
    }

    /// Emits the results of these windows for these keys, merged directly from the
    /// panes; or takes them back. The panes of keys that have just been `created` have told
    /// nothing yet.
    fn tell_windows(
        &mut self,
        accumulators: &mut Accumulators,
        mut wanted: Vec<(i64, u32)>,
        (timing, change): (Timing, Change),
        created: &[(i64, u32)],
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        wanted.sort_unstable();
        wanted.dedup();
        let mut merges = Merges::default();
        for of_window in wanted.chunk_by(|a, b| a.0 == b.0) {
            let window = of_window[0].0;
            let span = self.cut.window_span(window);
            let mut ids = Vec::with_capacity(of_window.len());
            let mut slots = Vec::with_capacity(of_window.len());
            let mut merged = Vec::new();
            merges.clear();
            for &(_, id) in of_window {
                let entry = self.keyed.entries.entry(id);
                let leaves = &entry.leaves.as_slice()[entry.leaves_of(self.cut, window)];
                let told = leaves
                    .iter()
                    .filter(|leaf| !created.contains(&(leaf.pane, id)));
                let inputs: Vec<u32> = told.map(|leaf| leaf.slot).collect();
                slots.push(match inputs[..] {
                    [] => continue,
                    [only] => only,
                    _ => {
                        let slot = accumulators.states.allocate();
                        merges.add(&inputs, slot, id, span);
                        merged.push(slot);
                        slot
                    }
                });
                ids.push(id);
            }
            accumulators.merge(&merges, self.keyed.keys(), out)?;
            let results = Results {
                slots: &slots,
                keys: self.keyed.keys(),
                ids: Ids::Each(&ids),
                spans: Spans::Same(span),
                timing,
            };
            accumulators.tell(results, change, out)?;
            for slot in merged {
                accumulators.states.release(slot);
            }
        }
        Ok(())
    }
}

impl WindowKind for Sliding {
    fn keyed(&mut self) -> &mut dyn KeyedPart {
        &mut self.keyed
    }

    fn set_time(&mut self, time_ms: i64) {
        self.entries().closed = self.cut.last_closed(time_ms);
    }

    fn seal(&mut self, newest_ms: i64) {
        let cut = self.cut.sealed_for(newest_ms);
        self.cut = cut;
        let entries = self.entries();
        entries.closed = entries.closed.max(cut.sealed());
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
        let behind = self.cut.first_window(*panes.start()) <= self.entries().closed;
        let split = self.cut.pane_changes(&arrived.times, &panes);
        accumulators.begin_keyed(&mut self.keyed, &arrived, split)?;

        let mut created: Vec<(i64, u32)> = Vec::new();
        let mut touched: Vec<(i64, u32)> = Vec::new();
        let mut pane = *panes.start();
        let mut span = self.cut.pane_span(pane);
        for run in 0..accumulators.keys.runs() {
            let rows = accumulators.keys.rows(run);
            let time = arrived.times[rows.start];
            if !span.has(time) {
                pane = self.cut.pane(time);
                span = self.cut.pane_span(pane);
            }
            let (id, _) = self.keyed.upsert_run(&accumulators.keys, run);
            let closed = self.keyed.entries.closed;
            let entry = self.keyed.entries.entry(id);
            let group = match entry.leaves.find(pane) {
                Ok(at) => accumulators.groups.of(entry.leaves.as_slice()[at].slot),
                Err(at) => {
                    if pane < closed {
                        // Leaves below existing nodes would get other numbers.
                        entry.drop_tree(&mut accumulators.states);
                    }
                    let (slot, group) = accumulators.allocate_group();
                    let early = false;
                    entry.leaves.insert(at, Leaf { pane, slot, early });
                    created.push((pane, id));
                    group
                }
            };
            accumulators.groups.push(&rows, group);
            if behind || self.early_wanted {
                touched.push((pane, id));
            }
        }
        accumulators.groups.end();

        if behind && accumulators.tells_changes() {
            let closed = self.closed_windows(&touched, watermark_ms);
            let told = (Timing::Late, Change::TakenBack);
            self.tell_windows(accumulators, closed, told, &created, out)?;
        }
        let folded = accumulators.fold(&arrived, out)?;
        accumulators.store(&arrived, &folded, out)?;
        if folded.lost.is_empty() {
            self.add_leaves(&created);
        } else {
            self.add_leaves_without(accumulators, created, &folded.lost)?;
            touched.retain(|&(pane, id)| self.keyed.entries.entry(id).leaves.find(pane).is_ok());
        }
        if self.early_wanted {
            self.note_early(&touched);
        }
        if behind {
            self.note_changed(accumulators, &touched);
            let closed = self.closed_windows(&touched, watermark_ms);
            self.tell_windows(accumulators, closed, (Timing::Late, Change::Told), &[], out)?;
        }
        Ok(())
    }

    /// Fires the windows that have ended, and removes panes that no row can correct any
    /// more.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let last = self.cut.last_closed(watermark_ms);
        while let Some(window) = self.next_window()
            && window <= last
        {
            self.slide(accumulators, window, watermark_ms, out)?;
        }
        let entries = self.entries();
        entries.closed = entries.closed.max(last);
        // The next window still has to remove the keys of the last one.
        let kept = match entries.ids.is_empty() {
            true => i64::MAX,
            false => self.cut.first_pane(self.keyed.entries.closed),
        };
        while let Some((&pane, _)) = self.keyed.entries.panes.first_key_value()
            && pane < kept
            && self.cut.is_late(self.cut.last_window(pane), watermark_ms)
        {
            self.forget(accumulators, &[pane], None)?;
        }
        self.note_changed_trees();
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        Some(self.cut.window_span(self.next_window()?).end)
    }

    fn has_early(&self) -> bool {
        !self.keyed.entries.early.is_empty()
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut wanted = Vec::new();
        let cut = self.cut;
        for (pane, id) in std::mem::take(&mut self.entries().early) {
            let entries = self.entries();
            // The pane may have been removed, and the number given to another key.
            if let Some(leaf) = entries.leaf(pane, id)
                && std::mem::replace(&mut leaf.early, false)
            {
                let open = cut.windows(pane, cut.next_window(entries.closed));
                wanted.extend(open.map(|window| (window, id)));
                // The next checkpoint notes that it does not wait any more.
                self.keyed.touch(id);
            }
        }
        self.tell_windows(
            accumulators,
            wanted,
            (Timing::Early, Change::Told),
            &[],
            out,
        )
    }
}

impl SlidingEntries {
    fn entry(&mut self, id: u32) -> &mut SlidingEntry {
        let id = id as usize;
        if id >= self.entries.len() {
            self.entries.resize_with(id + 1, SlidingEntry::default);
        }
        &mut self.entries[id]
    }

    fn leaf(&mut self, pane: i64, id: u32) -> Option<&mut Leaf> {
        let leaves = &mut self.entry(id).leaves;
        let at = leaves.find(pane).ok()?;
        leaves.as_mut_slice().get_mut(at)
    }

    /// The slot of a key's state in the last window.
    fn slot(&self, id: u32) -> Option<(u32, u32)> {
        let position = self.entries[id as usize].position as usize;
        Some((id, *self.slots.get(position)?))
    }

    /// Prepares the next window.
    fn begin(&mut self) {
        self.slides = self.slides.wrapping_add(1);
        self.merges.clear();
        self.with_trees.clear();
    }

    /// Updates a key for a window, once, and notes what has to be merged. Keys with a
    /// tree wait until it has grown.
    fn update(&mut self, states: &mut StateTable, cut: Cut, window: i64, id: u32) {
        let entry = &mut self.entries[id as usize];
        if std::mem::replace(&mut entry.slide, self.slides) == self.slides {
            return;
        }
        let leaves = entry.leaves_of(cut, window);
        if let Some(tree) = &mut entry.tree {
            tree.trim(leaves.start, states);
        }
        let slot = match entry.leaves.as_slice()[leaves.clone()] {
            [] => return self.drop_out(states, id),
            [only] => {
                entry.release_own(states);
                only.slot
            }
            ref few if few.len() < TREE_LEAVES_MIN => {
                self.cover.clear();
                self.cover.extend(few.iter().map(|leaf| leaf.slot));
                let own = entry.own(states);
                self.merges
                    .add(&self.cover, own, id, cut.window_span(window));
                own
            }
            _ => {
                self.with_trees.push((id, leaves));
                entry.own(states)
            }
        };
        if entry.position == NOT_IN_WINDOW {
            entry.position = self.ids.len() as u32;
            self.ids.push(id);
            self.slots.push(slot);
        } else {
            self.slots[entry.position as usize] = slot;
        }
    }

    /// Removes a key from the window.
    fn drop_out(&mut self, states: &mut StateTable, id: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.tree.is_some() {
            self.changed_trees.push(id);
        }
        entry.drop_tree(states);
        entry.release_own(states);
        let position = std::mem::replace(&mut entry.position, NOT_IN_WINDOW) as usize;
        if position < self.ids.len() {
            self.ids.swap_remove(position);
            self.slots.swap_remove(position);
            if let Some(&moved) = self.ids.get(position) {
                self.entries[moved as usize].position = position as u32;
            }
        }
    }

    /// Makes the nodes whose leaves exist, one level after another, and notes what has
    /// to be merged.
    fn grow_trees(
        &mut self,
        accumulators: &mut Accumulators,
        span: Span,
        keys: &KeyTable,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let SlidingEntries {
            entries,
            merges,
            cover,
            with_trees,
            changed_trees,
            ..
        } = self;
        let mut growing: Vec<usize> = (0..with_trees.len()).collect();
        let mut nodes = Merges::default();
        for level in 0.. {
            growing.retain(|&at| {
                let (id, leaves) = &with_trees[at];
                let entry = &mut entries[*id as usize];
                let tree = entry.tree.get_or_insert_with(|| {
                    changed_trees.push(*id);
                    Box::new(Tree::new(leaves.start))
                });
                let merge = |inputs: &[u32], target| nodes.add(inputs, target, *id, span);
                tree.grow(
                    level,
                    entry.leaves.as_slice(),
                    leaves,
                    &mut accumulators.states,
                    merge,
                )
            });
            if growing.is_empty() {
                break;
            }
            accumulators.merge(&nodes, keys, out)?;
            nodes.clear();
        }
        for (id, leaves) in with_trees {
            let entry = &entries[*id as usize];
            cover.clear();
            if let Some(tree) = &entry.tree {
                tree.cover(entry.leaves.as_slice(), leaves, cover);
            }
            merges.add(cover, entry.own, *id, span);
        }
        Ok(())
    }
}

impl Entries for SlidingEntries {
    /// The number of the tree's first leaf, if the key has a tree, and the leaves.
    type Entry = (Option<i64>, Vec<Leaf>);

    const BYTES: usize = size_of::<SlidingEntry>() + 4 * size_of::<u32>() + 1;

    const NEEDS_DUE: bool = true;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read_leaves(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        self.entries[id as usize].write(states, row);
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        let leaves = self.entries[id as usize].leaves.as_slice();
        slots.extend(leaves.iter().map(|leaf| leaf.slot));
    }

    /// `closed` must be set before.
    fn insert(&mut self, id: u32, entry: Self::Entry, slots: &mut dyn Iterator<Item = u32>) {
        let (first, leaves) = entry;
        let early_wanted = self.early_wanted;
        self.entry(id).tree = first.map(|first| Box::new(Tree::numbered(first)));
        for mut leaf in leaves {
            leaf.slot = slots.next().unwrap_or(NO_SLOT);
            leaf.early &= early_wanted;
            let kept = &mut self.entry(id).leaves;
            kept.insert(kept.as_slice().len(), leaf);
            if leaf.early {
                self.early.push((leaf.pane, id));
            }
            self.panes.entry(leaf.pane).or_default().push(id);
        }
        if self.closed > i64::MIN {
            // After a restore the last window is empty, so every key counts as changed.
            self.changed.push(id);
        }
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        self.drop_out(states, id);
        let entry = &mut self.entries[id as usize];
        for leaf in std::mem::take(&mut entry.leaves).as_slice() {
            states.release(leaf.slot);
        }
        entry.slide = 0;
    }

    fn is_pinned(&self, id: u32) -> bool {
        let leaves = self.entries[id as usize].leaves.as_slice();
        leaves.iter().any(|leaf| leaf.early)
    }

    fn may_be_pinned(&self) -> bool {
        self.early_wanted
    }

    fn was_pinned(&self, (_, leaves): &Self::Entry) -> bool {
        self.early_wanted && leaves.iter().any(|leaf| leaf.early)
    }

    /// The last pane of the key.
    fn due_ms(&self, (_, leaves): &Self::Entry) -> i64 {
        leaves.last().map_or(NEVER, |leaf| leaf.pane)
    }

    fn due_of(&self, id: u32) -> i64 {
        let leaves = self.entries[id as usize].leaves.as_slice();
        leaves.last().map_or(NEVER, |leaf| leaf.pane)
    }
}

impl Default for SlidingEntry {
    fn default() -> Self {
        SlidingEntry {
            slide: 0,
            position: NOT_IN_WINDOW,
            own: NO_SLOT,
            leaves: Leaves::default(),
            tree: None,
        }
    }
}

impl SlidingEntry {
    /// The leaves that a window covers.
    fn leaves_of(&self, cut: Cut, window: i64) -> Range<usize> {
        let leaves = self.leaves.as_slice();
        let first_pane = cut.first_pane(window);
        let start = match leaves.first() {
            Some(first) if first.pane < first_pane => {
                leaves.partition_point(|leaf| leaf.pane < first_pane)
            }
            _ => 0,
        };
        let end = match leaves.last() {
            Some(last) if last.pane >= window => leaves.partition_point(|leaf| leaf.pane < window),
            _ => leaves.len(),
        };
        start..end.max(start)
    }

    /// Writes the row of the key; `states` are those of its leaves.
    fn write(&self, states: &[&[u8]], row: &mut Vec<u8>) {
        let first = self.tree.as_ref().map_or(NO_TREE, |tree| tree.first());
        write_i64(first, row);
        for (leaf, state) in self.leaves.as_slice().iter().zip(states) {
            write_i64(leaf.pane, row);
            row.push(if leaf.early { EARLY } else { 0 });
            write_state(state, row);
        }
    }

    fn own(&mut self, states: &mut StateTable) -> u32 {
        if self.own == NO_SLOT {
            self.own = states.allocate();
        }
        self.own
    }

    fn release_own(&mut self, states: &mut StateTable) {
        if self.own != NO_SLOT {
            states.release(self.own);
            self.own = NO_SLOT;
        }
    }

    fn drop_tree(&mut self, states: &mut StateTable) {
        if let Some(mut tree) = self.tree.take() {
            tree.clear(states);
        }
    }
}

/// In the row of a key without a tree.
const NO_TREE: i64 = i64::MIN;

/// Reads the number of the tree's first leaf, if the key has a tree, and its leaves.
/// Appends their states, which have no slots yet, to `states`.
pub(super) fn read_leaves<'a>(
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<(Option<i64>, Vec<Leaf>), RowError> {
    let mut row = EntryReader(row);
    let first = row.i64()?;
    let mut leaves = Vec::new();
    while !row.is_at_end() {
        leaves.push(Leaf {
            pane: row.i64()?,
            early: row.flags()? & EARLY != 0,
            slot: NO_SLOT,
        });
        states.push(row.state()?);
    }
    Ok((Some(first).filter(|&first| first != NO_TREE), leaves))
}
