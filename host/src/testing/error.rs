//! Why a case could not be run.

use std::path::PathBuf;

use crate::config::Diagnostics;
use crate::operator::OperatorError;
use crate::source::SourceError;

/// Why a case could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error(
        "there is no test in `{}`. A test is a folder `tests/NAME` with the rows of each source \
         in `input/SOURCE.jsonl` and those of each sink in `expected/SINK.jsonl`", .0.display()
    )]
    NoTests(PathBuf),
    #[error("{0}")]
    Pipeline(Diagnostics),
    /// A file of the case is wrong.
    #[error("{}: {message}", .path.display())]
    File { path: PathBuf, message: String },
    #[error("{}:{line}: {message}", .path.display())]
    Line {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error(transparent)]
    Read(#[from] SourceError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("internal error, please report it: {0}")]
    Internal(String),
}
