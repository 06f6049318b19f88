//! The panes that have a key, in order. Most keys have few, which are stored without an
//! allocation of their own.

/// A pane that has the key, and the state there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaf {
    pub pane: i64,
    pub slot: u32,
    /// It is in the list for early results.
    pub early: bool,
}

#[derive(Debug)]
pub(super) enum Leaves {
    Few {
        leaves: [Leaf; FEW],
        count: u8,
    },
    /// Those before `first` were removed.
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    leaves: Vec<Leaf>,
    first: usize,
}

const FEW: usize = 2;

impl Default for Leaves {
    fn default() -> Self {
        Leaves::Few {
            leaves: [Leaf::default(); FEW],
            count: 0,
        }
    }
}

impl Leaves {
    #[inline]
    pub fn as_slice(&self) -> &[Leaf] {
        match self {
            Leaves::Few { leaves, count } => &leaves[..usize::from(*count)],
            Leaves::Many(many) => &many.leaves[many.first..],
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [Leaf] {
        match self {
            Leaves::Few { leaves, count } => &mut leaves[..usize::from(*count)],
            Leaves::Many(many) => &mut many.leaves[many.first..],
        }
    }

    /// The index of a pane, or as an error the index where it belongs.
    #[inline]
    pub fn find(&self, pane: i64) -> Result<usize, usize> {
        let leaves = self.as_slice();
        match leaves.last() {
            Some(last) if last.pane == pane => Ok(leaves.len() - 1),
            Some(last) if last.pane > pane => leaves.binary_search_by_key(&pane, |leaf| leaf.pane),
            _ => Err(leaves.len()),
        }
    }

    pub fn insert(&mut self, at: usize, leaf: Leaf) {
        match self {
            Leaves::Few { leaves, count } if usize::from(*count) < FEW => {
                leaves.copy_within(at..usize::from(*count), at + 1);
                leaves[at] = leaf;
                *count += 1;
            }
            Leaves::Few { leaves, .. } => {
                let mut more = Vec::with_capacity(4 * FEW);
                more.extend_from_slice(leaves);
                more.insert(at, leaf);
                *self = Leaves::Many(Box::new(Many {
                    leaves: more,
                    first: 0,
                }));
            }
            Leaves::Many(many) => {
                // Reuses the room of removed leaves once they are half of all.
                if many.leaves.len() == many.leaves.capacity()
                    && many.first >= many.leaves.len() / 2
                {
                    many.leaves.drain(..many.first);
                    many.first = 0;
                }
                many.leaves.insert(many.first + at, leaf);
            }
        }
    }

    pub fn remove(&mut self, at: usize) {
        match self {
            Leaves::Few { leaves, count } => {
                leaves.copy_within(at + 1..usize::from(*count), at);
                *count -= 1;
            }
            Leaves::Many(many) if at == 0 => many.first += 1,
            Leaves::Many(many) => {
                many.leaves.remove(many.first + at);
            }
        }
    }
}
