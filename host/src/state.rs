//! Keyed state: typed tables, held by the host for operators that keep nothing.
//!
//! A [`key::KeyTable`] numbers keys, a [`table::StateTable`] holds states by
//! slot as columns, [`row`] is how either becomes bytes, and a
//! [`stored::StoredTable`] is where those bytes are in the storage.
//! [`keyed::KeyedStates`] makes one thing of them that operators stand on.

// When keys that only the storage has are due.
pub mod calendar;
// Which keys have changed, and which may be evicted.
pub mod changed;
// How operators lay out the row of an entry.
pub mod entry_row;
// Why state cannot be read or kept.
pub mod error;
// The groups of a batch and their states.
pub mod groups;
// Numbers of keys.
pub mod key;
// Keys, their states, and what only the storage has of them.
pub mod keyed;
// The same, cut into panes of time.
pub mod paned;
// One row of columns as bytes.
pub mod row;
// What a table is, as checkpoints list it.
pub mod spec;
// Rows of a table in the storage.
pub mod stored;
// States by slot, in memory.
pub mod table;
#[cfg(test)]
mod tests;
// Which keys in memory are due.
pub mod timer;
