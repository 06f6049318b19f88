//! Keyed state: typed tables, held by the host for operators that keep nothing.
//!
//! A [`key::KeyTable`] numbers keys, a [`table::StateTable`] holds states by
//! slot as columns, [`row`] is how either becomes bytes, and a [`shelf`] is where
//! those bytes lie in a checkpoint. Which key and window a slot belongs to is the
//! business of [`crate::window`].

pub mod key;
pub mod row;
pub mod shelf;
pub mod spec;
pub mod table;
#[cfg(test)]
mod tests;
