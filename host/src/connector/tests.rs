//! Connectors from end to end: what they read and write outside.

/// Files that are edited between runs.
mod edited;
/// Connectors that fail.
mod faults;
/// A connector that only this test has.
mod own;
/// Parquet of other programs.
mod parquet;
/// Files that are renamed between runs.
mod renamed;
/// Numbered files of sinks.
mod rolling;
/// What sinks write.
mod sinks;
/// What sources read.
pub(super) mod sources;
/// Rows that were written, read back.
mod round_trip;
