//! The changes since the database was last updated, one file for each checkpoint.
//! Appending rows costs a tenth of sorting them into the database, and a row that
//! changes in every checkpoint is sorted in only once.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::archive::{self, Known};
use super::trouble::io;
use crate::checkpoint::changes::{self, Changes, SUFFIX};
use crate::checkpoint::checksum::Checksum;
use crate::checkpoint::manifest::FileManifest;
use crate::checkpoint::storage::StorageError;

/// How many files the journal has at most: each checkpoint links all of them, and
/// a restore reads them.
const FILES_MAX: usize = 32;

/// Dropping it removes its folder.
pub struct Journal {
    folder: PathBuf,
    /// Names, oldest first.
    files: Vec<String>,
    bytes: u64,
    /// The number of the next file.
    next: u64,
}

impl Journal {
    /// Makes the folder and an empty journal in it.
    pub fn create(folder: PathBuf) -> Result<Journal, StorageError> {
        fs::create_dir_all(&folder).map_err(|cause| io("make the folder", &folder, cause))?;
        Ok(Journal {
            folder,
            files: Vec::new(),
            bytes: 0,
            next: 1,
        })
    }

    /// Links the journal's files of a checkpoint.
    pub fn link_from(
        &mut self,
        checkpoint: &Path,
        files: &[FileManifest],
    ) -> Result<(), StorageError> {
        let mut files: Vec<&FileManifest> = files
            .iter()
            .filter(|file| file.name.ends_with(SUFFIX))
            .collect();
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for file in files {
            archive::link(&checkpoint.join(&file.name), &self.folder.join(&file.name))?;
            let number = file.name.trim_end_matches(SUFFIX).parse();
            self.next = number.unwrap_or(0_u64).max(self.next) + 1;
            self.bytes += file.bytes;
            self.files.push(file.name.clone());
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether the journal stays within `bytes_max` if these changes are added.
    pub fn has_room(&self, changes: &[Changes], bytes_max: u64) -> bool {
        let more: usize = changes.iter().map(Changes::bytes).sum();
        self.files.len() < FILES_MAX && self.bytes + more as u64 <= bytes_max
    }

    /// Adds the changes of a checkpoint and syncs them to the disk.
    pub fn append(&mut self, changes: &[Changes], known: &mut Known) -> Result<(), StorageError> {
        let name = format!("{:08}{SUFFIX}", self.next);
        let path = self.folder.join(&name);
        let written = write(&path, changes);
        if written.is_err() {
            // The file may not exist.
            let _ = fs::remove_file(&path);
        }
        let (bytes, checksum) = written.map_err(|cause| io("write state to", &path, cause))?;
        self.next += 1;
        self.bytes += bytes;
        self.files.push(name.clone());
        let file = FileManifest {
            name: name.clone(),
            bytes,
            checksum,
        };
        known.insert(name, file);
        Ok(())
    }

    /// Links the files into a checkpoint.
    pub fn link_to(&self, folder: &Path) -> Result<(), StorageError> {
        for name in &self.files {
            archive::link(&self.folder.join(name), &folder.join(name))?;
        }
        Ok(())
    }

    /// The changes of each checkpoint, oldest first.
    pub fn read(&self) -> Result<Vec<Vec<Changes>>, StorageError> {
        let read = |name: &String| {
            let path = self.folder.join(name);
            let bytes = fs::read(&path).map_err(|cause| io("read state in", &path, cause))?;
            changes::decode(&bytes).ok_or_else(|| {
                let cause = std::io::Error::other("it is not a file of changes");
                io("read state in", &path, cause)
            })
        };
        self.files.iter().map(read).collect()
    }

    /// Removes all files, since the database has their changes.
    pub fn clear(&mut self) {
        for name in self.files.drain(..) {
            // If this fails, it is removed with the folder.
            let _ = fs::remove_file(self.folder.join(name));
        }
        self.bytes = 0;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // If this fails, opening the data folder removes it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes a file of changes and returns its length and checksum.
fn write(path: &Path, changes: &[Changes]) -> std::io::Result<(u64, String)> {
    let mut file = File::create_new(path)?;
    let mut checksum = Checksum::new();
    let mut bytes = 0;
    changes::encode(changes, |part| {
        checksum.add(part);
        bytes += part.len() as u64;
        file.write_all(part)
    })?;
    file.sync_all()?;
    Ok((bytes, checksum.show()))
}
