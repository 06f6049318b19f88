//! Maps an author's struct to columns: which columns it has, how a row is read
//! from them, and how rows are written to columns.
//!
//! A [`Table`] and its readers check the columns when they are created; after
//! that nothing is checked. So reading and writing is `unsafe`, and only the
//! loops in [`crate::transform`] and [`crate::aggregate`] do it.

/// Sets and maps.
mod collection;
/// Checks the columns of a batch.
mod columns;
/// Decimals.
mod decimal;
/// Booleans.
mod flag;
/// Records that are made of others.
mod joined;
/// Lists.
mod list;
/// The traits of records and fields.
mod mapping;
/// Integers, floats and times.
mod number;
/// Values that may be missing.
mod optional;
/// Reads texts and bytes.
mod slice;
/// Records as whole columns.
mod rows;
/// Unchecked buffers of values.
mod slots;
/// The rows that are read, and the columns that an answer can pass on.
mod source;
/// Texts with a few possible values.
mod symbol;
/// A batch as a table of records.
mod table;
/// Writes texts and bytes.
mod text;
/// Describes invalid values.
mod unreadable;
/// The trait that builds columns.
mod writer;

pub use columns::Columns;
pub(crate) use joined::field_names;
pub use joined::{And, FieldName, Named};
pub use list::Element;
pub use mapping::{Field, Owned, Record, schema_field};
pub use rows::{columns, read_all, read_table, schema_of};
pub use slots::Slots;
pub use source::{InputColumn, Lineage, Nowhere, Origin, Source};
pub use symbol::{Symbol, SymbolReader};
pub use table::Table;
pub use text::SliceWriter;
pub use unreadable::{Alternatives, Unreadable};
pub use writer::{RecordWriter, Writer};

#[cfg(test)]
mod tests;
