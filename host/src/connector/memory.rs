//! Sources and sinks in memory, for tests, benchmarks and `sluicebox test`. A
//! pipeline's file cannot name them, so they are not in the registry.

/// Writes to a topic in memory.
pub mod sink;
/// Reads batches in memory.
pub mod source;
