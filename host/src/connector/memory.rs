//! Rows that the program hands over and takes: for tests, for benchmarks, and
//! for `sluicebox test`. No pipeline's file can name it, so it is not in the
//! registry.

/// Rows handed to the program.
pub mod sink;
/// Rows that the program hands over.
pub mod source;
