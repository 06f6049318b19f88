//! The boundary between host and plugin: passes Arrow arrays in as the
//! contract's flat columns, and checks a plugin's answers before it makes
//! arrays of them.
//!
//! Lowering borrows: an array's buffers are copied straight into the plugin's
//! memory. Lifting copies out of that memory once, checks, and gives the copies
//! to Arrow as they are.

/// Gathers rows of columns that pass through a plugin unchanged.
pub mod gather;
// Makes arrays of a plugin's answers.
pub mod lift;
/// Makes a plugin's input of arrays.
pub mod lower;

use crate::logic::{Failure, FailureKind};

/// What is wrong with an answer, and in which column.
#[derive(Debug)]
pub struct Broken {
    /// Innermost name first.
    path: Vec<String>,
    what: String,
    too_large: bool,
}

impl Broken {
    pub fn new(what: impl Into<String>) -> Self {
        Broken {
            path: Vec::new(),
            what: what.into(),
            too_large: false,
        }
    }

    /// The answer would take more bytes than it may.
    pub fn too_large() -> Self {
        Broken {
            too_large: true,
            ..Broken::new(String::new())
        }
    }

    fn inside(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    pub fn into_failure(self, output_bytes_max: usize) -> Failure {
        let (kind, what) = if self.too_large {
            let limit = crate::quantity::ShownBytes(output_bytes_max);
            (
                FailureKind::OutputSize,
                format!("answered with more than its limit of {limit}"),
            )
        } else {
            let mut column = String::new();
            for name in self.path.iter().rev() {
                let dot = if column.is_empty() { "" } else { "." };
                column.push_str(dot);
                column.push_str(name);
            }
            let what = if column.is_empty() {
                format!("gave an invalid answer: {}", self.what)
            } else {
                format!("gave an invalid answer: column `{column}`: {}", self.what)
            };
            (FailureKind::Contract, what)
        };
        Failure::new(kind, what)
    }
}

#[cfg(test)]
mod tests;
