//! Decides how a struct of the author's maps to columns: which columns it has,
//! how a row is read from them, and how rows become columns again.
//!
//! A [`Table`] and its readers check the columns when they are made, and nothing
//! is checked after that; hence the `unsafe` methods, whose callers are the loops
//! in [`crate::transform`] and [`crate::aggregate`].

/// The columns of a batch, checked.
mod columns;
/// Booleans.
mod flag;
/// Lists.
mod list;
/// What a record is, and a field of it.
mod mapping;
/// Integers, floats and times.
mod number;
/// Values that may be missing.
mod optional;
/// Texts and bytes, read.
mod slice;
/// Room for values.
mod slots;
/// What rows are read from, and passed on from.
mod source;
/// Texts that are one of a few.
mod symbol;
/// A batch as a table of records.
mod table;
/// Texts and bytes.
mod text;
/// Values that are not what they should be.
mod unreadable;
/// How columns are built.
mod writer;

pub use columns::Columns;
pub use list::Element;
pub use mapping::{Field, Record, schema_field};
pub use slots::{Slots, push_reserved};
pub use source::{Input, Lineage, Nowhere, Origin, Source};
pub use symbol::{Symbol, SymbolReader};
pub use table::Table;
pub use text::SliceWriter;
pub use unreadable::{Choice, Unreadable};
pub use writer::{RecordWriter, Writer};

#[cfg(test)]
mod tests;
