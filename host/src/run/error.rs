//! Why a run failed.

use crate::blame::{Blame, Fault};
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
    #[error(
        "the dead letters cannot be written to {}: {}; the key `dead_letters` gives them another \
         place",
        .0.what, .0.cause
    )]
    DeadLetters(SinkError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Fence(#[from] TransactionError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run itself has ended.
    #[error(
        "all rows are written and the last checkpoint is in the data folder, but it could not be \
         copied: {0}"
    )]
    Copies(StorageError),
    /// Trying again would not help.
    #[error("the run cannot continue from its checkpoint: {why}")]
    Restore { why: String, blame: Blame },
    /// What the command line asks of the start cannot be done.
    #[error("{0}")]
    Usage(String),
    #[error("the pipeline's threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// A bug in the host.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl From<OperatorError> for RunError {
    fn from(error: OperatorError) -> Self {
        RunError::Task(TaskError::Operator(error))
    }
}

impl RunError {
    /// Who is to blame, and whether trying again can help.
    pub fn fault(&self) -> Fault {
        match self {
            RunError::Task(error) => error.fault(),
            RunError::DeadLetters(error) => error.fault,
            RunError::Checkpoint(error) => error.fault(),
            RunError::Fence(error) => error.fault,
            RunError::Storage(error) | RunError::Copies(error) => error.fault(),
            RunError::Restore { blame, .. } => Fault::lasting(*blame),
            RunError::Usage(_) => Fault::CONFIG,
            RunError::Threads(cause) => Fault::of_io(cause),
            RunError::Internal(_) => Fault::BUG,
        }
    }

    /// Whether a process that read what the run printed does not read any more: as other
    /// tools, the run ends without a complaint.
    pub fn reader_is_gone(&self) -> bool {
        match self {
            RunError::Task(TaskError::Sink(error)) | RunError::DeadLetters(error) => {
                error.reader_is_gone
            }
            _ => false,
        }
    }

    /// Whether the error only says that something else has failed.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(
            self,
            RunError::Task(TaskError::Gone) | RunError::Checkpoint(CheckpointError::Gone)
        )
    }
}
