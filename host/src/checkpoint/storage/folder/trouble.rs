//! Errors of files that cannot be read or written: what was tried, where, why, and
//! what to do.

use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::blame::Fault;
use crate::checkpoint::storage::StorageError;

/// "cannot WHAT PATH: CAUSE; ADVICE".
pub(super) fn io(what: &str, path: &Path, cause: Error) -> StorageError {
    let advised = match advice(cause.kind()) {
        Some(advice) => Error::new(cause.kind(), format!("{cause}; {advice}")),
        None => cause,
    };
    StorageError::Io {
        what: format!("cannot {what} {}", path.display()),
        cause: advised,
    }
}

/// As [`io`], for an error from RocksDB, whose cause is only in its text.
pub(super) fn rocks(what: &str, path: &Path, cause: &rocksdb::Error) -> StorageError {
    let text = cause.as_ref();
    let kinds = [
        ("No space left on device", ErrorKind::StorageFull),
        ("Disk quota exceeded", ErrorKind::QuotaExceeded),
        ("Read-only file system", ErrorKind::ReadOnlyFilesystem),
        ("Permission denied", ErrorKind::PermissionDenied),
        ("File too large", ErrorKind::FileTooLarge),
        ("Corruption", ErrorKind::InvalidData),
    ];
    if text.contains("Too many open files") {
        return StorageError::Other {
            message: format!("cannot {what} {}: {text}", path.display()),
            fault: Fault::too_many_open(),
        };
    }
    let kind = kinds
        .iter()
        .find(|(said, _)| text.contains(said))
        .map_or(ErrorKind::Other, |(_, kind)| *kind);
    io(what, path, Error::new(kind, text.to_owned()))
}

fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room there, or move the folder and say so by `path` in [state]; the checkpoints \
             written before are untouched"
        }
        ErrorKind::PermissionDenied => {
            "let the host's user write there, or choose another folder by `path` in [state]"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "its file system is read-only: choose a folder on another by `path` in [state]"
        }
        ErrorKind::NotADirectory => {
            "a part of the path is a file: choose another folder by `path` in [state]"
        }
        _ => return None,
    })
}
