//! Checkpoints: a consistent snapshot of a whole pipeline, from which a run can
//! be restored without losing or repeating a row.
//!
//! A barrier travels from the sources through every channel ([`crate::element`]).
//! Each task that has received it on all inputs hands over a [`snapshot`]. The
//! [`coordinator`] starts barriers, collects the snapshots in a [`manifest`], has
//! the [`storage`] write it, and has the pipeline's [`transaction`] make the rows
//! of that checkpoint visible.

// Requests for checkpoints.
pub mod requests;
// What replaces the logic of operators at a barrier.
pub mod replacement;
// What tasks report to the coordinator about a barrier.
pub mod barrier;
// Checkpoints that somebody is going back to.
pub mod spared;
// Starts checkpoints and completes them.
pub mod coordinator;
// What tasks hand over at a barrier, and get back at a restore.
pub mod snapshot;
// Rows of state that have changed since the last checkpoint.
pub mod changes;
// A checkpoint's manifest, as bytes.
pub mod manifest;
// Detects damaged bytes.
pub mod checksum;
// Where rows of state and checkpoints are kept.
pub mod storage;
// Commits the output and the progress of a checkpoint together.
pub mod transaction;
// Checkpoints that are kept under a name.
pub mod savepoint;
// Copies of checkpoints in an object store.
pub mod remote;
// Deliberate crashes, for tests.
pub mod crash;
