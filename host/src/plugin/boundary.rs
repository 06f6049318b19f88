//! The boundary: Arrow arrays into the contract's flat columns, and a plugin's
//! answers, none of which is trusted, back into arrays.
//!
//! Lowering borrows: an array's buffers are what is written into the plugin's
//! memory. Lifting copies once, out of that memory, checks, and gives the
//! copies to Arrow as they are.

/// Columns that pass through untouched.
pub mod gather;
// A plugin's answers as arrays.
pub mod lift;
/// Arrays as a plugin's input.
pub mod lower;

use crate::logic::{Failure, FailureKind};

/// What is wrong with an answer, and with which column of it.
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

    /// An answer that stands for more bytes than it may.
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
            let limit = super::limits::Bytes(output_bytes_max);
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
                format!("answered wrongly: {}", self.what)
            } else {
                format!("answered wrongly: column `{column}`: {}", self.what)
            };
            (FailureKind::Contract, what)
        };
        Failure {
            kind,
            message: what,
            panic: None,
        }
    }
}

#[cfg(test)]
mod tests;
