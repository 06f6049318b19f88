//! Why a keyed operator failed: the plugin, or state that cannot be read or kept.

use super::OperatorError;
use crate::checkpoint::storage::StorageError;
use crate::state::error::StateError;
use crate::state::row::RowError;

pub enum KeyedError {
    Operator(OperatorError),
    State(StateError),
}

impl KeyedError {
    /// The error as one of this node.
    pub fn of(self, node: &str) -> OperatorError {
        match self {
            KeyedError::Operator(error) => error,
            KeyedError::State(error) => OperatorError {
                node: node.to_owned(),
                message: error.to_string(),
                fault: error.fault(),
            },
        }
    }
}

impl From<OperatorError> for KeyedError {
    fn from(error: OperatorError) -> Self {
        KeyedError::Operator(error)
    }
}

impl From<StateError> for KeyedError {
    fn from(error: StateError) -> Self {
        KeyedError::State(error)
    }
}

impl From<RowError> for KeyedError {
    fn from(error: RowError) -> Self {
        KeyedError::State(error.into())
    }
}

impl From<StorageError> for KeyedError {
    fn from(error: StorageError) -> Self {
        KeyedError::State(error.into())
    }
}
