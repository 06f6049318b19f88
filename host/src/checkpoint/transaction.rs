//! What makes the rows of a checkpoint and its progress visible at once: the
//! commit point of a pipeline whose sinks have transactions.
//!
//! Rows of checkpoint N go out in N's open transaction. When N is durable its
//! number goes into the transaction, and the transaction is committed; only
//! then do rows of N + 1 go out. Which N holds is therefore for the transaction
//! to say, and not for the storage: a pipeline first fences whoever had it
//! before, then asks, and restores exactly that N.
//!
//! Calls may block. After any error the outcome is unknown, and the pipeline
//! has to be restarted.

/// Of Kafka.
pub mod kafka;
/// In memory.
pub mod memory;

use std::sync::Arc;

use super::manifest::Manifest;
use crate::element::CheckpointId;
use crate::sink::TransactionHandle;

pub trait Transaction: Send + Sync {
    /// Ends what an earlier owner has left open, locks it out, and tells the
    /// last checkpoint that was committed.
    fn fence(&self) -> Result<Option<CheckpointId>, TransactionError>;

    /// Opens the transaction that the next rows go out in.
    fn begin(&self) -> Result<(), TransactionError>;

    /// Waits until all rows given so far have arrived.
    fn flush(&self) -> Result<(), TransactionError>;

    /// Commits the rows since [`Transaction::begin`], with the checkpoint's
    /// number and the positions of its sources.
    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError>;

    /// What sinks need to send rows in it.
    fn handle(self: Arc<Self>) -> Option<TransactionHandle> {
        None
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct TransactionError {
    pub what: String,
    pub cause: String,
}
