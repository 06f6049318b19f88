//! Checkpoints: all that a pipeline knows at one moment, written as one, so that
//! it can go on from there as if nothing had happened.
//!
//! A barrier travels from the sources through every channel ([`crate::element`]),
//! and each task that it has reached on all inputs hands over what it knows
//! ([`snapshot`]). The [`coordinator`] starts barriers, puts what comes back
//! together in a [`manifest`], has the [`storage`] write it, and then has the
//! pipeline's [`transaction`] make the rows of that checkpoint visible.

// Where a checkpoint is asked for.
pub mod requests;
// What is told about a barrier.
pub mod barrier;
// Starts checkpoints and sees them through.
pub mod coordinator;
// What tasks hand over, and are given back.
pub mod snapshot;
// Rows of state that have changed.
pub mod changes;
// What a checkpoint says, as bytes.
pub mod manifest;
// Whether bytes are what they were.
pub mod checksum;
// Where rows of state and checkpoints are kept.
pub mod storage;
// What makes rows and progress visible at once.
pub mod transaction;
// Checkpoints that are kept under a name.
pub mod savepoint;
// Copies of checkpoints in an object store.
pub mod remote;
// Crashes on purpose.
pub mod crash;
