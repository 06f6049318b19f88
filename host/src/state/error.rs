//! Why keyed state cannot be read or kept.

use super::row::RowError;
use crate::blame::Fault;
use crate::checkpoint::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A bug: keys and states were checked when they came in.
    #[error("its keys or states cannot be read or kept: {0}")]
    Row(#[from] RowError),
    #[error("its state cannot be read: {0}")]
    Storage(#[from] StorageError),
}

impl StateError {
    pub fn fault(&self) -> Fault {
        match self {
            StateError::Row(_) => Fault::BUG,
            StateError::Storage(error) => error.fault(),
        }
    }
}
