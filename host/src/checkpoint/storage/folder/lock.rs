//! Lets only one process at a time use a data folder.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::trouble::io;
use crate::blame::Fault;
use crate::checkpoint::storage::StorageError;

const FILE: &str = "lock";

/// The lock of a data folder. Dropping it, or the end of the process, releases it.
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Locks the folder, or fails and says which process has locked it.
    pub fn take(folder: &Path) -> Result<FolderLock, StorageError> {
        let path = folder.join(FILE);
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = opened.map_err(|cause| io("open the lock", &path, cause))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(folder, &mut file)),
            Err(TryLockError::Error(cause)) => return Err(io("lock", &path, cause)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|cause| io("write the lock", &path, cause))?;
        Ok(FolderLock { file })
    }

    /// Whether it is the lock that others find in the folder.
    pub fn is_of(&self, folder: &Path) -> bool {
        let found = fs::metadata(folder.join(FILE)).and_then(|found| {
            let locked = self.file.metadata()?;
            Ok((found.dev(), found.ino()) == (locked.dev(), locked.ino()))
        });
        found.unwrap_or(false)
    }

    /// Removes the lock of a folder that is removed, by whoever has it.
    pub fn remove(folder: &Path) -> std::io::Result<()> {
        fs::remove_file(folder.join(FILE))
    }

    /// The id of the process that has locked the folder, if any; `unknown` if it
    /// cannot be read.
    pub fn owner(folder: &Path) -> Option<String> {
        let mut file = File::open(folder.join(FILE)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(pid(&mut file)),
            _ => None,
        }
    }
}

impl Drop for FolderLock {
    /// Closing the file is not enough: a child process that is being started has it
    /// open, too, until it executes its program.
    fn drop(&mut self) {
        // If this fails, the end of the process releases the lock.
        let _ = self.file.unlock();
    }
}

fn taken(folder: &Path, file: &mut File) -> StorageError {
    StorageError::Other {
        message: format!(
            "another host (process {}) keeps its state in {}: stop it, or give this pipeline a \
             folder of its own by `path` in [state]",
            pid(file),
            folder.display()
        ),
        fault: Fault::OUTSIDE_LASTING,
    }
}

fn pid(file: &mut File) -> String {
    let mut pid = String::new();
    // The owner writes it right after locking, so it may be missing for a moment.
    let _ = file.take(20).read_to_string(&mut pid);
    match pid.trim() {
        "" => "unknown".to_owned(),
        pid => pid.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_does_not_hold_the_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::take(folder.path()).expect("nobody has it");
        assert!(FolderLock::take(folder.path()).is_err());
        let _copy = lock.file.try_clone().expect("a copy");
        drop(lock);
        FolderLock::take(folder.path()).expect("nobody has it any more");
    }
}
