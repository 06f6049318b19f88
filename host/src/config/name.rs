//! How a pipeline's file names the operator of a plugin.

use std::fmt;

/// `plugin.operator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorName {
    pub plugin: String,
    pub operator: String,
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plugin, self.operator)
    }
}
