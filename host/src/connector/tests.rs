//! Connectors from end to end: what is outside, and what becomes of it.

/// A connector that only this test has.
mod own;
/// What sinks write.
mod sinks;
/// What sources read.
mod sources;
