//! Reads rows from files and writes rows to files.

/// What a file that is written begins with.
pub mod beginning;
/// Whether a file is still the same.
mod digest;
/// Compresses what is written.
mod encoder;
/// Reads files, a partition each.
mod input;
/// Which file is which one of the restored checkpoint.
mod known;
/// By what a file is known again.
mod mark;
/// Follows files that grow.
mod follow;
/// Reads objects of an object store.
mod objects;
/// Files that are being read, compressed ones too.
pub mod opened;
/// Reads fields of rows in the names of their folders.
mod folder_fields;
/// Folders that the fields of a row name.
mod folders;
/// Writes text formats into one file.
mod lines;
/// The names of numbered files.
mod numbered;
/// Writes Parquet.
mod parquet;
/// Writes parts in folders.
mod parts;
/// Reads standard input and other pipes.
pub mod pipe;
/// Reads Parquet.
mod parquet_source;
/// A file under its temporary name.
mod part;
/// Writes text formats into numbered files.
pub mod rolling;
/// The sink `file`.
pub mod sink;
/// The formats of files that are written.
pub mod sink_format;
/// The source `file`.
pub mod source;
/// A text file being written.
mod text_file;
/// The list of the numbered files that were written.
mod written;
