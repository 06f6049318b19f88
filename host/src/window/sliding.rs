//! Sliding windows: rows are folded into one state a key and pane, and a window
//! is the merge of the panes it covers.
//!
//! The states of the panes are all there is to keep; everything else follows
//! from them. What a key holds in the window is kept up to date as panes come
//! and go, so that a slide costs by the keys that change and by the results it
//! puts out, and not by the number of panes. See [`super::tree`] for keys with
//! many. Panes are kept until no row may correct their last window any more.

use std::collections::BTreeMap;
use std::ops::Range;

use super::LoadError;
use super::accumulators::{Accumulators, Arrived, Ids, Merges, Results, Spans};
use super::cut::Cut;
use super::groups::{Groups, NO_SLOT};
use super::leaves::{Leaf, Leaves};
use super::rows::{EARLY, Reader, write_i64, write_state};
use super::time::{Span, extent};
use super::tracker::Tracker;
use super::tree::Tree;
use crate::checkpoint::changes::Changes;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{BatchKeys, KeyTable};
use crate::state::row::RowError;
use crate::state::shelf::Chunk;

pub(super) struct Sliding {
    cut: Cut,
    late_wanted: bool,
    early_wanted: bool,
    keys: KeyTable,
    /// The keys of each pane.
    panes: BTreeMap<i64, Vec<u32>>,
    spare: Vec<Vec<u32>>,
    held: Held,
    /// Windows up to this one have fired.
    closed: i64,
    /// Keys whose panes in the last window have changed since it fired.
    changed: Vec<u32>,
    /// Panes and keys with rows that early results have not shown.
    early: Vec<(i64, u32)>,
    batch_keys: BatchKeys,
    groups: Groups,
    tracker: Tracker,
    /// The last pane of keys that the storage has and that are not here.
    cold_until: Option<i64>,
}

/// What the last window held.
#[derive(Debug, Default)]
struct Held {
    /// By key.
    entries: Vec<Entry>,
    /// The keys that the window had, and where the state of each is.
    ids: Vec<u32>,
    slots: Vec<u32>,
    /// How many windows there have been.
    slides: u32,
    merges: Merges,
    cover: Vec<u32>,
    /// Keys with a tree, and the leaves that the window has.
    wooded: Vec<(u32, Range<usize>)>,
    /// Keys whose tree was planted or felled.
    replanted: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// The slide that last saw to the key.
    slide: u32,
    /// Where the key is among the window's, or [`NOWHERE`].
    position: u32,
    /// Holds the merge of the window's panes where that is no single leaf or
    /// node, else [`NO_SLOT`].
    own: u32,
    leaves: Leaves,
    /// Where the window has many of them.
    tree: Option<Box<Tree>>,
}

const NOWHERE: u32 = u32::MAX;

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
            panes: BTreeMap::new(),
            spare: Vec::new(),
            held: Held::default(),
            closed: i64::MIN,
            changed: Vec::new(),
            early: Vec::new(),
            batch_keys: BatchKeys::new(accumulators.layout().clone()),
            groups: Groups::default(),
            tracker: Tracker::default(),
            cold_until: None,
        }
    }

    /// What is here takes, in bytes, without the states.
    pub fn bytes(&self) -> usize {
        let key = size_of::<Entry>() + 4 * size_of::<u32>() + 1;
        self.keys.bytes() + self.keys.len() * key
    }

    pub fn changed(&self) -> usize {
        self.tracker.changed()
    }

    /// The storage has these keys, and they are not here.
    pub fn set_cold(
        &mut self,
        accumulators: &Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        for (_, _, row) in chunk.rows() {
            let read = read_leaves(row, &mut Vec::new());
            let (_, leaves) = read.map_err(|error| accumulators.broken(&error))?;
            self.cold_until = self.cold_until.max(leaves.last().map(|leaf| leaf.pane));
        }
        Ok(())
    }

    /// Gives up keys, as many as this, that the storage has.
    pub fn evict(&mut self, accumulators: &mut Accumulators, keys: usize) {
        let victims = self.tracker.victims(accumulators, keys);
        self.give_up(accumulators, victims);
    }

    fn give_up(&mut self, accumulators: &mut Accumulators, victims: Vec<u32>) {
        for id in victims {
            let leaves = self.held.entry(id).leaves.as_slice();
            if leaves.iter().any(|leaf| leaf.early) {
                self.tracker.spare(id);
                continue;
            }
            self.cold_until = self.cold_until.max(leaves.last().map(|leaf| leaf.pane));
            self.held.evict(accumulators, id);
            self.keys.remove(id);
        }
    }

    /// Takes back the keys of a batch that were given up.
    fn warm(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
    ) -> Result<(), OperatorError> {
        if self.cold_until.is_none() {
            return Ok(());
        }
        let (keys, tracker) = (&self.keys, &self.tracker);
        let chunk = accumulators.fetch_missing(keys, &self.batch_keys, arrived, tracker)?;
        self.thaw(accumulators, &chunk)
    }

    /// Puts out what a window holds of keys that are not here, some at a time.
    fn slide_cold(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Some(shelf) = accumulators.shelf().cloned() else {
            return Ok(());
        };
        let layout = accumulators.layout().clone();
        let span = self.cut.window_span(window);
        // It is found anew on the way.
        self.cold_until = None;
        let loaded = shelf.load(|mut chunk| {
            chunk.retain(|row, key| self.tracker.is_cold(&layout, &self.keys, row, key));
            self.drop_past(accumulators, &mut chunk, watermark_ms)?;
            let first = self.changed.len();
            self.thaw(accumulators, &chunk)?;
            let ids = self.changed.split_off(first);
            self.held.begin();
            for &id in &ids {
                self.held.renew(accumulators, self.cut, window, id);
            }
            let Sliding { held, keys, .. } = self;
            held.grow_trees(accumulators, span, keys, out)?;
            accumulators.merge(&held.merges, keys, out)?;
            let (due, slots): (Vec<u32>, Vec<u32>) =
                ids.iter().filter_map(|&id| held.slot(id)).unzip();
            let results = Results {
                slots: &slots,
                keys,
                ids: Ids::Each(&due),
                spans: Spans::Same(span),
            };
            accumulators.emit(results, out)?;
            self.held.replanted.retain(|id| !ids.contains(id));
            self.tracker.let_go(&ids);
            self.give_up(accumulators, ids);
            Ok::<_, LoadError>(true)
        });
        loaded.map_err(|error| accumulators.load_failed(error))
    }

    /// Leaves out the keys that are in no window from this one on and that nothing
    /// can correct any more, and has their rows deleted.
    fn drop_past(
        &mut self,
        accumulators: &Accumulators,
        chunk: &mut Chunk,
        watermark_ms: i64,
    ) -> Result<(), OperatorError> {
        let mut past = Vec::with_capacity(chunk.len());
        for (_, _, row) in chunk.rows() {
            let read = read_leaves(row, &mut Vec::new());
            let (_, leaves) = read.map_err(|error| accumulators.broken(&error))?;
            let is_past = |leaf: &Leaf| {
                self.cut
                    .is_late(self.cut.last_window(leaf.pane), watermark_ms)
                    && self.cut.last_window(leaf.pane) < self.closed
            };
            past.push(leaves.iter().all(is_past));
        }
        let mut past = past.into_iter();
        let tracker = &mut self.tracker;
        chunk.retain(|row, _| {
            let is_past = past.next() == Some(true);
            if is_past {
                tracker.delete_row(row.to_vec());
            }
            !is_past
        });
        Ok(())
    }

    /// What has changed since the last checkpoint.
    pub fn freeze(
        &mut self,
        accumulators: &Accumulators,
        changes: &mut Changes,
    ) -> Result<(), OperatorError> {
        let entries = &self.held.entries;
        self.tracker.freeze(
            accumulators,
            &self.keys,
            0,
            changes,
            |id, wanted| {
                let leaves = entries[id as usize].leaves.as_slice();
                wanted.extend(leaves.iter().map(|leaf| leaf.slot));
            },
            |id, states, row| entries[id as usize].write(states, row),
        )
    }

    /// Takes back what was frozen. Time is set before.
    pub fn thaw(
        &mut self,
        accumulators: &mut Accumulators,
        chunk: &Chunk,
    ) -> Result<(), OperatorError> {
        let mut states = Vec::new();
        let mut kept = Vec::with_capacity(chunk.len());
        for (_, _, row) in chunk.rows() {
            let read = read_leaves(row, &mut states);
            kept.push(read.map_err(|error| accumulators.broken(&error))?);
        }
        let mut slots = accumulators.decode(states.into_iter())?.into_iter();
        for ((_, key, _), (first, leaves)) in chunk.rows().zip(kept) {
            let id = accumulators.number(&mut self.keys, key)?;
            let entry = self.held.entry(id);
            entry.tree = first.map(|first| Box::new(Tree::numbered(first)));
            for mut leaf in leaves {
                leaf.slot = slots.next().unwrap_or(NO_SLOT);
                leaf.early &= self.early_wanted;
                entry.leaves.insert(entry.leaves.as_slice().len(), leaf);
                if leaf.early {
                    self.early.push((leaf.pane, id));
                }
                self.panes.entry(leaf.pane).or_default().push(id);
            }
            if self.closed > i64::MIN {
                // The next window starts from nothing, so all of them are news.
                self.changed.push(id);
            }
            self.tracker.set_stored(id);
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
            let (id, _) = self.keys.upsert_run(&self.batch_keys, run);
            if accumulators.shelf().is_some() {
                self.tracker.touch(id);
            }
            let entry = self.held.entry(id);
            let group = match entry.leaves.find(pane) {
                Ok(at) => self.groups.of(entry.leaves.as_slice()[at].slot),
                Err(at) => {
                    if pane < self.closed {
                        // Leaves that nodes stand over get other numbers.
                        entry.fell(accumulators);
                    }
                    let slot = accumulators.allocate();
                    let early = false;
                    entry.leaves.insert(at, Leaf { pane, slot, early });
                    founded.push((pane, id));
                    self.groups.of_new(slot)
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
            self.enter_but(accumulators, founded, &empty)?;
            touched.retain(|&(pane, id)| self.held.entry(id).leaves.find(pane).is_ok());
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
            self.slide(accumulators, window, watermark_ms, out)?;
        }
        self.closed = self.closed.max(last);
        // What the last window held is taken out by the next one.
        let held = match self.held.ids.is_empty() {
            true => i64::MAX,
            false => self.cut.first_pane(self.closed),
        };
        while let Some((&pane, _)) = self.panes.first_key_value()
            && pane < held
            && self.cut.is_late(self.cut.last_window(pane), watermark_ms)
        {
            self.forget(accumulators, pane, None)?;
        }
        self.note_replanted(accumulators);
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
            // The pane may have been forgotten and the number given to another key.
            if let Some(leaf) = self.held.leaf(pane, id)
                && std::mem::replace(&mut leaf.early, false)
            {
                let open = self
                    .cut
                    .first_window(pane)
                    .max(self.closed.saturating_add(1));
                let windows = open..=self.cut.last_window(pane);
                wanted.extend(windows.map(|window| (window, id)));
            }
        }
        self.emit_windows(accumulators, wanted, out)
    }

    /// The next window to have a key. Windows follow one another while they
    /// have keys; then time jumps to the next pane that has any.
    fn next_window(&self) -> Option<i64> {
        let is_in_next = |pane: i64| pane >= self.cut.first_pane(self.closed.saturating_add(1));
        let has_cold = self.closed > i64::MIN && self.cold_until.is_some_and(is_in_next);
        if !self.held.ids.is_empty() || !self.changed.is_empty() || has_cold {
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
    ) -> Result<(), OperatorError> {
        for &group in empty.iter().rev() {
            let (pane, id) = founded.remove(group as usize - self.groups.existing);
            let leaves = &mut self.held.entry(id).leaves;
            if let Ok(at) = leaves.find(pane) {
                leaves.remove(at);
            }
            if leaves.as_slice().is_empty() {
                self.tracker.remove(accumulators, &self.keys, &[id])?;
                self.keys.remove(id);
            }
            accumulators.release(self.groups.slots[group as usize]);
        }
        self.enter(&founded);
        Ok(())
    }

    /// A key's row says where its tree begins.
    fn note_replanted(&mut self, accumulators: &Accumulators) {
        for id in self.held.replanted.drain(..) {
            if accumulators.shelf().is_some() && self.keys.has(id) {
                self.tracker.touch(id);
            }
        }
    }

    fn note_early(&mut self, touched: &[(i64, u32)]) {
        for &(pane, id) in touched {
            if let Some(leaf) = self.held.leaf(pane, id)
                && !std::mem::replace(&mut leaf.early, true)
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
            let (first, last) = (self.cut.first_window(pane), self.cut.last_window(pane));
            if first > self.closed {
                continue;
            }
            if last > self.closed {
                self.held.entry(id).fell(accumulators);
                self.changed.push(id);
            }
            let fired = first..=last.min(self.closed);
            let corrected = fired.filter(|&window| !self.cut.is_late(window, watermark_ms));
            wanted.extend(corrected.map(|window| (window, id)));
        }
        self.emit_windows(accumulators, wanted, out)
    }

    /// Fires the next window.
    fn slide(
        &mut self,
        accumulators: &mut Accumulators,
        window: i64,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.held.begin();
        let leaving = self.cut.first_pane(window) - 1;
        if self
            .cut
            .is_late(self.cut.last_window(leaving), watermark_ms)
        {
            self.forget(accumulators, leaving, Some(window))?;
        }
        let leaving = self.panes.get(&leaving).into_iter();
        let entering = self.panes.range(self.closed..window);
        let entering = entering.map(|(_, ids)| ids).chain([&self.changed]);
        for &id in leaving.chain(entering).flatten() {
            self.held.renew(accumulators, self.cut, window, id);
        }
        self.changed.clear();
        let span = self.cut.window_span(window);
        let Sliding { held, keys, .. } = self;
        held.grow_trees(accumulators, span, keys, out)?;
        accumulators.merge(&held.merges, keys, out)?;
        let results = Results {
            slots: &held.slots,
            keys,
            ids: Ids::Each(&held.ids),
            spans: Spans::Same(span),
        };
        accumulators.emit(results, out)?;
        self.closed = window;
        if self.cold_until.is_some() {
            self.slide_cold(accumulators, window, watermark_ms, out)?;
        }
        Ok(())
    }

    /// Forgets the first of the panes, and brings its keys up to date with a window.
    fn forget(
        &mut self,
        accumulators: &mut Accumulators,
        pane: i64,
        window: Option<i64>,
    ) -> Result<(), OperatorError> {
        let Some(mut ids) = self.panes.remove(&pane) else {
            return Ok(());
        };
        let mut gone = Vec::new();
        for id in ids.drain(..) {
            let entry = self.held.entry(id);
            // Not there: the key was given up since.
            let Ok(at) = entry.leaves.find(pane) else {
                continue;
            };
            accumulators.release(entry.leaves.as_slice()[at].slot);
            entry.leaves.remove(at);
            if let Some(tree) = &mut entry.tree {
                tree.forget_leaf();
            }
            let is_last = entry.leaves.as_slice().is_empty();
            if let Some(window) = window {
                self.held.renew(accumulators, self.cut, window, id);
            }
            if is_last {
                self.held.entry(id).leaves = Leaves::default();
                gone.push(id);
            }
        }
        self.tracker.remove(accumulators, &self.keys, &gone)?;
        for id in gone {
            self.keys.remove(id);
        }
        self.spare.push(ids);
        Ok(())
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
        let mut merges = Merges::default();
        for of_window in wanted.chunk_by(|a, b| a.0 == b.0) {
            let window = of_window[0].0;
            let span = self.cut.window_span(window);
            let ids: Vec<u32> = of_window.iter().map(|&(_, id)| id).collect();
            let mut slots = Vec::with_capacity(ids.len());
            let mut merged = Vec::new();
            merges.clear();
            for &id in &ids {
                let entry = self.held.entry(id);
                let leaves = &entry.leaves.as_slice()[entry.leaves_of(self.cut, window)];
                slots.push(if let [only] = leaves {
                    only.slot
                } else {
                    let slot = accumulators.allocate();
                    let inputs: Vec<u32> = leaves.iter().map(|leaf| leaf.slot).collect();
                    merges.add(&inputs, slot, id, span);
                    merged.push(slot);
                    slot
                });
            }
            accumulators.merge(&merges, &self.keys, out)?;
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

impl Held {
    fn entry(&mut self, id: u32) -> &mut Entry {
        let id = id as usize;
        if id >= self.entries.len() {
            self.entries.resize_with(id + 1, Entry::default);
        }
        &mut self.entries[id]
    }

    fn leaf(&mut self, pane: i64, id: u32) -> Option<&mut Leaf> {
        let leaves = &mut self.entry(id).leaves;
        let at = leaves.find(pane).ok()?;
        leaves.as_mut_slice().get_mut(at)
    }

    /// Where the state is that the last window has of a key.
    fn slot(&self, id: u32) -> Option<(u32, u32)> {
        let position = self.entries[id as usize].position as usize;
        Some((id, *self.slots.get(position)?))
    }

    /// Gives up all that is known of a key.
    fn evict(&mut self, accumulators: &mut Accumulators, id: u32) {
        self.drop_out(accumulators, id);
        let entry = &mut self.entries[id as usize];
        for leaf in std::mem::take(&mut entry.leaves).as_slice() {
            accumulators.release(leaf.slot);
        }
        entry.slide = 0;
    }

    /// The next window is about to fire.
    fn begin(&mut self) {
        self.slides = self.slides.wrapping_add(1);
        self.merges.clear();
        self.wooded.clear();
    }

    /// Brings a key up to date with a window, once; what has to be merged for
    /// it is noted. Keys with a tree wait until it has grown.
    fn renew(&mut self, accumulators: &mut Accumulators, cut: Cut, window: i64, id: u32) {
        let entry = &mut self.entries[id as usize];
        if std::mem::replace(&mut entry.slide, self.slides) == self.slides {
            return;
        }
        let leaves = entry.leaves_of(cut, window);
        if let Some(tree) = &mut entry.tree {
            tree.trim(leaves.start, accumulators);
        }
        let slot = match entry.leaves.as_slice()[leaves.clone()] {
            [] => return self.drop_out(accumulators, id),
            [only] => {
                entry.release_own(accumulators);
                only.slot
            }
            ref few if few.len() < TREE_LEAVES_MIN => {
                self.cover.clear();
                self.cover.extend(few.iter().map(|leaf| leaf.slot));
                let own = entry.own(accumulators);
                self.merges
                    .add(&self.cover, own, id, cut.window_span(window));
                own
            }
            _ => {
                self.wooded.push((id, leaves));
                entry.own(accumulators)
            }
        };
        if entry.position == NOWHERE {
            entry.position = self.ids.len() as u32;
            self.ids.push(id);
            self.slots.push(slot);
        } else {
            self.slots[entry.position as usize] = slot;
        }
    }

    /// Takes a key out that the window does not have.
    fn drop_out(&mut self, accumulators: &mut Accumulators, id: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.tree.is_some() {
            self.replanted.push(id);
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

    /// Makes the nodes whose leaves have come, one level after another, and
    /// notes what then has to be merged.
    fn grow_trees(
        &mut self,
        accumulators: &mut Accumulators,
        span: Span,
        keys: &KeyTable,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Held {
            entries,
            merges,
            cover,
            wooded,
            replanted,
            ..
        } = self;
        let mut growing: Vec<usize> = (0..wooded.len()).collect();
        let mut nodes = Merges::default();
        for level in 0.. {
            growing.retain(|&at| {
                let (id, leaves) = &wooded[at];
                let entry = &mut entries[*id as usize];
                let tree = entry.tree.get_or_insert_with(|| {
                    replanted.push(*id);
                    Box::new(Tree::new(leaves.start))
                });
                let merge = |inputs: &[u32], target| nodes.add(inputs, target, *id, span);
                tree.grow(level, entry.leaves.as_slice(), leaves, accumulators, merge)
            });
            if growing.is_empty() {
                break;
            }
            accumulators.merge(&nodes, keys, out)?;
            nodes.clear();
        }
        for (id, leaves) in wooded {
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

impl Default for Entry {
    fn default() -> Self {
        Entry {
            slide: 0,
            position: NOWHERE,
            own: NO_SLOT,
            leaves: Leaves::default(),
            tree: None,
        }
    }
}

impl Entry {
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

    fn own(&mut self, accumulators: &mut Accumulators) -> u32 {
        if self.own == NO_SLOT {
            self.own = accumulators.allocate();
        }
        self.own
    }

    fn release_own(&mut self, accumulators: &mut Accumulators) {
        if self.own != NO_SLOT {
            accumulators.release(self.own);
            self.own = NO_SLOT;
        }
    }

    fn fell(&mut self, accumulators: &mut Accumulators) {
        if let Some(mut tree) = self.tree.take() {
            tree.clear(accumulators);
        }
    }
}

/// In the row of a key without a tree.
const NO_TREE: i64 = i64::MIN;

/// Where the key's tree begins, if it has one, and its leaves, whose states are
/// put behind `states` and have no slots yet.
fn read_leaves<'a>(
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<(Option<i64>, Vec<Leaf>), RowError> {
    let mut row = Reader(row);
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
