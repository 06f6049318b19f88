//! A tree of merged panes, for a key with many panes in a sliding window: a slide
//! merges a few nodes, not all panes. A node is the merge of four nodes or leaves
//! below it.
//!
//! Leaves are the key's panes in order of time, with consecutive numbers. A node
//! covers leaves from a multiple of its size on, so that every window can use it. It
//! is made when all its leaves exist, and dropped with the first of them. The whole
//! tree can be rebuilt from the leaves.

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

/// Nodes with consecutive numbers, from `first` on.
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
        // Numbers depend only on the window, not on older leaves that still exist, so
        // that the same states are merged wherever batches are cut.
        Tree {
            first: -(from as i64),
            levels: Vec::new(),
        }
    }

    /// The number of the key's first leaf, from which a restore rebuilds the tree.
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

    /// Has the missing nodes of a level merged, for leaves `from..to`. Returns
    /// whether the level above may have nodes, too. Call it for one level after
    /// another, and merge each before the next.
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

    /// Drops the nodes that start before this leaf of the key.
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

    /// Notes that the first leaf of the key was removed.
    pub fn forget_leaf(&mut self) {
        self.first += 1;
    }

    /// The fewest nodes and leaves that together cover the window, in order.
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

/// How many leaves a node of a level covers, as a power of two.
fn bits(level: usize) -> u32 {
    FANOUT_BITS * (level as u32 + 1)
}
