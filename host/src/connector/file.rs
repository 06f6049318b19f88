//! Files: rows are read from them, and written into them.

/// Rows as comma-separated values.
mod csv;
/// Files that are being read.
mod input;
/// Rows as JSON, one a line.
mod json_lines;
/// Rows as text.
mod lines;
/// Rows as Parquet.
mod parquet;
/// A file that is not whole yet.
mod part;
/// Rows written into files.
pub mod sink;
/// Files that are there, read.
pub mod source;
