//! Keyed state: typed tables, held by the host for operators that keep nothing.
//!
//! A [`key::KeyTable`] numbers keys, a [`table::StateTable`] holds states by
//! slot as columns, [`row`] writes either as bytes, and a
//! [`stored::StoredTable`] finds those bytes in the storage. Operators use all of
//! them through [`keyed::KeyedStates`].

// When evicted keys are due.
pub mod calendar;
// Which keys have changed, and which may be evicted.
pub mod changed;
// The layout of an entry's row.
pub mod entry_row;
// Why state cannot be read or kept.
pub mod error;
// The groups of a batch and their states.
pub mod groups;
// Gives each key a number.
pub mod key;
// Keys and their states: changes, eviction, snapshot, restore.
pub mod keyed;
// Looks at keys and their states from outside.
pub mod look;
// Makes states of an earlier version of an operator its own.
pub mod migration;
// The same for states in panes of time.
pub mod paned;
// One row of columns as bytes.
pub mod row;
// Rows that wait for others, or for time.
pub mod rows;
// What people and programs see of an entry.
pub mod shown;
// What a checkpoint's manifest says of a table.
pub mod spec;
// Rows of a table in the storage.
pub mod stored;
// States by slot, in memory.
pub mod table;
#[cfg(test)]
mod tests;
// When keys in memory are due.
pub mod timer;
// Keeps states within their share of the memory budget.
pub mod upkeep;
