//! Why a window failed: the plugin, or state that cannot be read or kept.

use crate::checkpoint::storage::StorageError;
use crate::operator::OperatorError;
use crate::state::error::StateError;
use crate::state::row::RowError;

pub(super) enum WindowError {
    Operator(OperatorError),
    State(StateError),
}

impl WindowError {
    /// The error as one of this node.
    pub fn of(self, node: &str) -> OperatorError {
        match self {
            WindowError::Operator(error) => error,
            WindowError::State(error) => OperatorError {
                node: node.to_owned(),
                message: error.to_string(),
                fault: error.fault(),
            },
        }
    }
}

impl From<OperatorError> for WindowError {
    fn from(error: OperatorError) -> Self {
        WindowError::Operator(error)
    }
}

impl From<StateError> for WindowError {
    fn from(error: StateError) -> Self {
        WindowError::State(error)
    }
}

impl From<RowError> for WindowError {
    fn from(error: RowError) -> Self {
        WindowError::State(error.into())
    }
}

impl From<StorageError> for WindowError {
    fn from(error: StorageError) -> Self {
        WindowError::State(error.into())
    }
}
