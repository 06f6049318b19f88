//! Why a task failed.

use crate::operator::OperatorError;
use crate::router::Gone;
use crate::sink::SinkError;
use crate::source::SourceError;

/// Why a task, and the run with it, failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Another task failed first; its error is the one to show.
    #[error("another part of the pipeline stopped")]
    Gone,
}

impl From<Gone> for TaskError {
    fn from(_: Gone) -> Self {
        TaskError::Gone
    }
}
