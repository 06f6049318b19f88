//! Reads rows from files and writes rows to files.

/// Whether a file is still the same.
mod digest;
/// Renders rows as comma-separated values.
mod csv;
/// Reads files, a partition each.
mod input;
/// Renders rows as JSON, one a line.
mod json_lines;
/// Files that are being read, compressed ones too.
pub mod opened;
/// Writes text formats.
mod lines;
/// Writes Parquet.
mod parquet;
/// Reads standard input and other pipes.
pub mod pipe;
/// A file under its temporary name.
pub mod part;
/// The sink `file`.
pub mod sink;
/// The source `file`.
pub mod source;
