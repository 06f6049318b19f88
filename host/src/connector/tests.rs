//! Connectors from end to end: what is outside, and what becomes of it.

mod own;
mod sinks;
mod sources;
