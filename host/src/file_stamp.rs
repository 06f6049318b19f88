//! Tells whether a file has changed, without reading it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the file system tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Of a file, if it is there.
    pub fn of(file: &Path) -> Option<FileStamp> {
        Some(FileStamp::new(&fs::metadata(file).ok()?))
    }

    /// When it was written or renamed, in ms since 1970.
    pub fn changed_ms(&self) -> i64 {
        let (seconds, nanoseconds) = self.changed;
        seconds * 1_000 + nanoseconds / 1_000_000
    }

    fn new(found: &Metadata) -> FileStamp {
        FileStamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}
