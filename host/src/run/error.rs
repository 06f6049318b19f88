//! Why a run failed.

use crate::checkpoint::coordinator::CheckpointError;
use crate::checkpoint::storage::StorageError;
use crate::checkpoint::transaction::TransactionError;
use crate::operator::OperatorError;
use crate::sink::SinkError;
use crate::task::TaskError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    DeadLetters(SinkError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Fence(#[from] TransactionError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Trying again would not help.
    #[error("the run cannot go on from its checkpoint: {0}")]
    Restore(String),
    /// A bug of the host's own.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl From<OperatorError> for RunError {
    fn from(error: OperatorError) -> Self {
        RunError::Task(TaskError::Operator(error))
    }
}

impl RunError {
    /// It says only that something else has failed too.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(
            self,
            RunError::Task(TaskError::Gone) | RunError::Checkpoint(CheckpointError::Gone)
        )
    }
}
