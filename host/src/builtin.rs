//! Operators that need no plugin: a pipeline's file says what they do.

/// Aggregates of functions such as `sum(amount)`.
pub mod aggregate;
/// The first row of each key.
pub mod deduplicate;
/// The rows for which an expression is true.
pub mod filter;
/// Numbers of rows, and values of those before and behind.
pub mod neighbours;
/// Rows in order of event time.
pub mod order;
/// Some of the fields of rows.
pub mod select;
/// Numbers of columns.
mod values;
