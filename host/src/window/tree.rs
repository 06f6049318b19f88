//! What a sliding window knows of one key with many panes, so that a slide
//! merges a few states and not all of them: a tree over the panes, in which a
//! node is the merge of four below it.
//!
//! Leaves are the key's panes in order of time, numbered one by one. Nodes
//! stand over leaves whose numbers start at a multiple of their size, so that
//! they serve any window; one is made when all its leaves are there and dropped
//! with the first of them. All of it can be made anew from the leaves.

use std::collections::VecDeque;
use std::ops::Range;

use super::leaves::Leaf;
use crate::state::groups::NO_SLOT;
use crate::state::table::StateTable;

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The number of the key's first leaf.
    first: i64,
    /// Nodes over 4 leaves, over 16, and so on.
    levels: Vec<Level>,
}

/// Nodes that follow one another, from this number on.
#[derive(Debug, Default)]
struct Level {
    first: i64,
    slots: VecDeque<u32>,
}

/// Children of a node, as a power of two.
const FANOUT_BITS: u32 = 2;

impl Tree {
    /// A tree for a window that starts at this leaf of the key.
    pub fn new(from: usize) -> Self {
        // The numbers are told by the window alone, and not by leaves that are
        // still kept: the same states are merged wherever batches are cut.
        Tree {
            first: -(from as i64),
            levels: Vec::new(),
        }
    }

    /// The number of the key's first leaf: with it, and the leaves, the tree can
    /// be made anew.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// A tree without nodes whose first leaf has this number.
    pub fn numbered(first: i64) -> Self {
        Tree {
            first,
            levels: Vec::new(),
        }
    }

    /// Has the missing nodes of a level merged, for leaves `from..to`. Whether
    /// the level above may have nodes too. Levels are asked for in order, and
    /// each is merged before the next.
    pub fn grow(
        &mut self,
        level: usize,
        leaves: &[Leaf],
        window: &Range<usize>,
        states: &mut StateTable,
        mut merge: impl FnMut(&[u32], u32),
    ) -> bool {
        let bits = bits(level);
        let start = (self.first + window.start as i64 + (1 << bits) - 1) >> bits;
        let end = (self.first + window.end as i64) >> bits;
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
        for node in nodes.first + nodes.slots.len() as i64..end {
            let mut children = [NO_SLOT; 1 << FANOUT_BITS];
            for (child, number) in children.iter_mut().zip(node << FANOUT_BITS..) {
                *child = match below.last() {
                    Some(below) => below.slots[(number - below.first) as usize],
                    None => leaves[(number - self.first) as usize].slot,
                };
            }
            let slot = states.allocate();
            merge(&children, slot);
            nodes.slots.push_back(slot);
        }
        true
    }

    /// Drops the nodes that begin before this leaf of the key.
    pub fn trim(&mut self, from: usize, states: &mut StateTable) {
        for (level, nodes) in self.levels.iter_mut().enumerate() {
            while nodes.first << bits(level) < self.first + from as i64
                && let Some(slot) = nodes.slots.pop_front()
            {
                states.release(slot);
                nodes.first += 1;
            }
        }
    }

    /// The first leaf of the key is gone.
    pub fn forget_leaf(&mut self) {
        self.first += 1;
    }

    /// The largest nodes and the leaves that together are the window's, in order.
    pub fn cover(&self, leaves: &[Leaf], window: &Range<usize>, slots: &mut Vec<u32>) {
        let end = self.first + window.end as i64;
        let mut number = self.first + window.start as i64;
        while number < end {
            let mut levels = self.levels.iter().enumerate().rev();
            let node = levels.find_map(|(level, nodes)| {
                let bits = bits(level);
                let size = 1 << bits;
                let node = usize::try_from((number >> bits) - nodes.first).ok()?;
                let slot = *nodes.slots.get(node)?;
                (number & (size - 1) == 0 && number + size <= end).then_some((slot, size))
            });
            let (slot, size) =
                node.unwrap_or_else(|| (leaves[(number - self.first) as usize].slot, 1));
            slots.push(slot);
            number += size;
        }
    }

    pub fn clear(&mut self, states: &mut StateTable) {
        for slot in self.levels.drain(..).flat_map(|level| level.slots) {
            states.release(slot);
        }
    }
}

/// Leaves below a node of a level, as a power of two.
fn bits(level: usize) -> u32 {
    FANOUT_BITS * (level as u32 + 1)
}
