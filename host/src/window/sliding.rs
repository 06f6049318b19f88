//! What a sliding window holds, kept up to date as panes come and go, so that
//! a slide costs by the keys that change and not by the panes of the window.
//!
//! All of it is derived from the panes. For each key it knows the panes that
//! have the key, in order; a key with many also has a tree over them, in which
//! a node is the merge of four below it. Nodes are made once the panes below
//! are there, and a window is then a few nodes and panes at its ends.

use std::collections::{BTreeMap, VecDeque};

use super::accumulators::{Accumulators, Ids, Merges, Results, Spans};
use super::groups::NO_SLOT;
use super::time::Span;
use crate::operator::{OperatorError, Outbox};
use crate::state::key::{Key, KeyTable};

pub(super) struct Sliding {
    keys: KeyTable,
    /// By key.
    entries: Vec<Entry>,
    /// The keys that the window has, and where the state of each is.
    ids: Vec<u32>,
    slots: Vec<u32>,
    /// Keys whose panes have changed since the last window.
    changed: Vec<u32>,
    /// The keys of each pane.
    panes: BTreeMap<i64, Vec<u32>>,
    merges: Merges,
    cover: Vec<u32>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Panes with the key, in order.
    leaves: VecDeque<Leaf>,
    /// Leaves are numbered; this is the number of the first.
    first: u64,
    /// Nodes over 4 leaves, over 16, and so on.
    levels: Vec<Level>,
    /// Holds the merge of all leaves where that is no single leaf or node.
    own: Option<u32>,
    /// Where the key is among `ids`.
    position: u32,
    changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    pane: i64,
    slot: u32,
}

/// Nodes that follow one another.
#[derive(Debug, Default)]
struct Level {
    first: u64,
    slots: VecDeque<u32>,
}

/// Children of a node, as a power of two.
const FANOUT_BITS: u32 = 2;

/// A key with fewer panes is merged from them directly.
const TREE_LEAVES_MIN: usize = 8;

impl Sliding {
    pub fn new() -> Self {
        Sliding {
            keys: KeyTable::default(),
            entries: Vec::new(),
            ids: Vec::new(),
            slots: Vec::new(),
            changed: Vec::new(),
            panes: BTreeMap::new(),
            merges: Merges::default(),
            cover: Vec::new(),
        }
    }

    /// Whether no pane with a key is in the window.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes in the state of a key in a pane, or notes that it has changed.
    pub fn add(&mut self, accumulators: &mut Accumulators, pane: i64, key: Key<'_>, slot: u32) {
        let (id, is_new) = self.keys.upsert(key);
        if id as usize == self.entries.len() {
            self.entries.push(Entry::default());
        }
        let entry = &mut self.entries[id as usize];
        if is_new {
            entry.position = self.ids.len() as u32;
            self.ids.push(id);
            self.slots.push(NO_SLOT);
        }
        if entry.add(accumulators, Leaf { pane, slot }) {
            self.panes.entry(pane).or_default().push(id);
        }
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(id);
        }
    }

    /// Takes out the panes up to this one.
    pub fn forget(&mut self, accumulators: &mut Accumulators, last: i64) {
        while let Some(first) = self.panes.first_entry()
            && *first.key() <= last
        {
            for id in first.remove() {
                let entry = &mut self.entries[id as usize];
                entry.forget_first(accumulators);
                if !std::mem::replace(&mut entry.changed, true) {
                    self.changed.push(id);
                }
            }
        }
        // The rest of `changed` waits for the next window.
        let Sliding {
            keys,
            entries,
            ids,
            slots,
            changed,
            ..
        } = self;
        changed.retain(|&id| {
            let entry = &mut entries[id as usize];
            if !entry.leaves.is_empty() {
                return true;
            }
            let position = entry.position as usize;
            entry.clear(accumulators);
            ids.swap_remove(position);
            slots.swap_remove(position);
            if let Some(&moved) = ids.get(position) {
                entries[moved as usize].position = position as u32;
            }
            keys.remove(id);
            false
        });
    }

    /// Puts out what the window holds.
    pub fn emit(
        &mut self,
        accumulators: &mut Accumulators,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.grow_trees(accumulators, span, out)?;
        self.merge_changed(accumulators, span, out)?;
        let results = Results {
            slots: &self.slots,
            keys: &self.keys,
            ids: Ids::Each(&self.ids),
            spans: Spans::Same(span),
        };
        accumulators.emit(results, out)
    }

    /// Makes the nodes whose leaves have come, one level after another.
    fn grow_trees(
        &mut self,
        accumulators: &mut Accumulators,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut growing: Vec<u32> = Vec::new();
        for &id in &self.changed {
            if self.entries[id as usize].leaves.len() >= TREE_LEAVES_MIN {
                growing.push(id);
            }
        }
        for level in 0.. {
            self.merges.clear();
            growing.retain(|&id| {
                let entry = &mut self.entries[id as usize];
                entry.grow(level, accumulators, &mut self.merges, id, span)
            });
            if growing.is_empty() {
                return Ok(());
            }
            accumulators.merge(&self.merges, &self.keys, out)?;
        }
        Ok(())
    }

    fn merge_changed(
        &mut self,
        accumulators: &mut Accumulators,
        span: Span,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.merges.clear();
        for id in self.changed.drain(..) {
            let entry = &mut self.entries[id as usize];
            entry.changed = false;
            self.cover.clear();
            entry.cover(&mut self.cover);
            let slot = if let [only] = self.cover[..] {
                if let Some(own) = entry.own.take() {
                    accumulators.release(own);
                }
                only
            } else {
                let own = *entry.own.get_or_insert_with(|| accumulators.allocate());
                self.merges.add(&self.cover, own, id, span);
                own
            };
            self.slots[entry.position as usize] = slot;
        }
        accumulators.merge(&self.merges, &self.keys, out)
    }
}

impl Entry {
    /// Whether the leaf is new. A leaf that was there, or that comes between
    /// others, has come late: the tree is made anew.
    fn add(&mut self, accumulators: &mut Accumulators, leaf: Leaf) -> bool {
        if self.leaves.back().is_none_or(|last| last.pane < leaf.pane) {
            self.leaves.push_back(leaf);
            return true;
        }
        self.fell(accumulators);
        match self
            .leaves
            .binary_search_by_key(&leaf.pane, |leaf| leaf.pane)
        {
            Ok(_) => false,
            Err(at) => {
                self.leaves.insert(at, leaf);
                true
            }
        }
    }

    fn forget_first(&mut self, accumulators: &mut Accumulators) {
        self.leaves.pop_front();
        self.first += 1;
        for (level, nodes) in self.levels.iter_mut().enumerate() {
            let bits = FANOUT_BITS * (level as u32 + 1);
            while !nodes.slots.is_empty() && nodes.first << bits < self.first {
                nodes.first += 1;
                if let Some(slot) = nodes.slots.pop_front() {
                    accumulators.release(slot);
                }
            }
        }
    }

    /// Has the next missing nodes of a level merged. Whether a level above may
    /// have nodes too.
    fn grow(
        &mut self,
        level: usize,
        accumulators: &mut Accumulators,
        merges: &mut Merges,
        id: u32,
        span: Span,
    ) -> bool {
        let bits = FANOUT_BITS * (level as u32 + 1);
        let end = (self.first + self.leaves.len() as u64) >> bits;
        let start = self.first.div_ceil(1 << bits);
        if start >= end {
            return false;
        }
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let (below, above) = self.levels.split_at_mut(level);
        let nodes = &mut above[0];
        if nodes.slots.is_empty() {
            nodes.first = start;
        }
        for node in nodes.first + nodes.slots.len() as u64..end {
            let child = node << FANOUT_BITS;
            let mut children = [NO_SLOT; 1 << FANOUT_BITS];
            for (child, number) in children.iter_mut().zip(child..) {
                *child = match below.last() {
                    Some(below) => below.slots[(number - below.first) as usize],
                    None => self.leaves[(number - self.first) as usize].slot,
                };
            }
            let slot = accumulators.allocate();
            merges.add(&children, slot, id, span);
            nodes.slots.push_back(slot);
        }
        true
    }

    /// The largest nodes and the leaves that together are all leaves, in order.
    fn cover(&self, slots: &mut Vec<u32>) {
        if self.leaves.len() < TREE_LEAVES_MIN {
            slots.extend(self.leaves.iter().map(|leaf| leaf.slot));
            return;
        }
        let end = self.first + self.leaves.len() as u64;
        let mut number = self.first;
        while number < end {
            let node = self
                .levels
                .iter()
                .enumerate()
                .rev()
                .find_map(|(level, nodes)| {
                    let bits = FANOUT_BITS * (level as u32 + 1);
                    let is_start = number.trailing_zeros() >= bits;
                    let node = (number >> bits).checked_sub(nodes.first)?;
                    let slot = nodes.slots.get(usize::try_from(node).ok()?)?;
                    is_start.then_some((*slot, 1 << bits))
                });
            let (slot, leaves) =
                node.unwrap_or_else(|| (self.leaves[(number - self.first) as usize].slot, 1));
            slots.push(slot);
            number += leaves;
        }
    }

    fn fell(&mut self, accumulators: &mut Accumulators) {
        for slot in self.levels.drain(..).flat_map(|level| level.slots) {
            accumulators.release(slot);
        }
        self.first = 0;
    }

    fn clear(&mut self, accumulators: &mut Accumulators) {
        self.fell(accumulators);
        if let Some(own) = self.own.take() {
            accumulators.release(own);
        }
        self.changed = false;
    }
}
