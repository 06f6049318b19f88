//! Looks at keyed state from outside: the rows of a key, or of all keys piece by piece, as
//! a checkpoint would write them.
//!
//! A task answers between two elements, so what is seen of it is of one moment. A piece is
//! bounded in rows, in bytes, and in keys that are looked at.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::error::StateError;
use crate::element::NodeId;

/// What somebody wants to see of one of an operator's tables.
#[derive(Clone, Debug)]
pub struct Look {
    /// The index of the table among those of the operator.
    pub table: usize,
    /// Absent for all keys.
    pub key: Option<WantedKey>,
    pub from: Place,
    /// At least 1.
    pub rows_max: usize,
}

/// A key to look for.
#[derive(Clone, Debug)]
pub struct WantedKey {
    /// As a [`row`](super::row) of the key's fields.
    pub row: Vec<u8>,
    pub shard: u32,
}

/// Where a look goes on in a task's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub pane: i64,
    pub within: Within,
}

/// Where it goes on in a pane: keys in memory come first, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    Memory(u32),
    /// The keys in the storage alone, from this storage key on, or from the first.
    Stored(Option<Vec<u8>>),
}

impl Place {
    /// The first one.
    pub const START: Place = Place {
        pane: i64::MIN,
        within: Within::Memory(0),
    };

    /// The beginning of a pane.
    pub fn of(pane: i64) -> Place {
        Place {
            pane,
            ..Place::START
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    pub rows: Vec<SeenRow>,
    /// Where to go on, if there may be more.
    pub next: Option<Place>,
    rows_max: usize,
    bytes: usize,
    /// How many more keys may be looked at.
    keys_left: usize,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    pub pane: i64,
    /// As a [`row`](super::row) of the key's fields.
    pub key: Vec<u8>,
    /// As the operator lays out its rows.
    pub row: Vec<u8>,
}

impl SeenRow {
    pub fn new(pane: i64, key: &[u8], row: &[u8]) -> Self {
        SeenRow {
            pane,
            key: key.to_vec(),
            row: row.to_vec(),
        }
    }
}

const BYTES_MAX: usize = 4 << 20;
const KEYS_MAX: usize = 8192;

impl Seen {
    pub fn new(rows_max: usize) -> Self {
        Seen {
            rows: Vec::new(),
            next: None,
            rows_max,
            bytes: 0,
            keys_left: KEYS_MAX,
        }
    }

    /// Whether another row has to wait for the next look.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.rows_max || self.bytes >= BYTES_MAX || self.keys_left == 0
    }

    /// Counts a key that is looked at, whether it has a row or not.
    pub fn count_key(&mut self) {
        self.keys_left = self.keys_left.saturating_sub(1);
    }

    pub fn push(&mut self, row: SeenRow) {
        self.bytes += row.key.len() + row.row.len();
        self.rows.push(row);
    }
}

/// A look at an operator of a task.
pub struct LookRequest {
    pub node: NodeId,
    pub look: Look,
    pub answer: oneshot::Sender<Result<Seen, StateError>>,
}
