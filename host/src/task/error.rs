//! Why a task failed.

use crate::blame::Fault;
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

impl TaskError {
    pub fn fault(&self) -> Fault {
        match self {
            TaskError::Source(error) => error.fault(),
            TaskError::Operator(error) => error.fault,
            TaskError::Sink(error) => error.fault,
            TaskError::Gone => Fault::OUTSIDE,
        }
    }
}

impl From<Gone> for TaskError {
    fn from(_: Gone) -> Self {
        TaskError::Gone
    }
}
