//! Rows and checkpoints in a folder.
//!
//! | in the folder | |
//! |---|---|
//! | `lock` | Held by the host that has the folder, with its process id. |
//! | `live/` | The current rows. Scratch: removed when the folder is opened. |
//! | `checkpoints/ID/` | A checkpoint: files that later ones may share, and a manifest that names them with their sizes and checksums. |
//!
//! A write that fails may have changed the current rows, though no checkpoint:
//! the same changes, or the same and more, may be written again, or the last
//! checkpoint restored.

/// One process at a time.
mod lock;
/// What is said when a file cannot be read or written.
mod trouble;
/// Checkpoints as files.
pub mod archive;
/// The database of the current rows.
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::archive::Archive;
use self::archive::Known;
pub use self::lock::FolderLock;
use self::rows::{Memory, Rows};
use self::trouble::io;
use super::{CheckpointInfo, Storage, StorageError};
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::snapshot::{Changes, CheckpointId};

/// Keeps the rows and checkpoints of one pipeline.
pub struct FolderStorage {
    archive: Archive,
    live: PathBuf,
    memory: Memory,
    /// Nothing is there before the first restore, reset or write.
    rows: RwLock<Option<Arc<Rows>>>,
    /// One at a time changes rows or checkpoints; readers do not wait for it.
    writer: Mutex<Writer>,
    _lock: FolderLock,
}

#[derive(Default)]
struct Writer {
    /// Databases so far, each in a folder of its own: one may still be read
    /// when the next is opened.
    databases: u64,
    known: Known,
}

impl FolderStorage {
    /// Takes the folder, which is made if need be. `memory_bytes_max` is what
    /// the database may use for its cache and its buffers together.
    pub fn open(folder: &Path, memory_bytes_max: usize) -> Result<FolderStorage, StorageError> {
        std::fs::create_dir_all(folder).map_err(|cause| io("make the folder", folder, cause))?;
        let lock = FolderLock::take(folder)?;
        let archive = Archive::of(folder);
        archive.open()?;
        let live = folder.join("live");
        archive::remove(&live)?;
        Ok(FolderStorage {
            archive,
            live,
            memory: Memory::new(memory_bytes_max),
            rows: RwLock::new(None),
            writer: Mutex::default(),
            _lock: lock,
        })
    }

    /// Its checkpoints, for reading beside this.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// For the duration of a change. A panic meanwhile leaves what an error
    /// would leave.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> Option<Arc<Rows>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.clone()
    }

    fn replace_rows(&self, rows: Rows) -> Arc<Rows> {
        let rows = Arc::new(rows);
        let mut current = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(rows.clone());
        drop(current);
        // Closing takes a moment, in which others may read the new ones.
        drop(before);
        rows
    }

    fn new_folder(&self, writer: &mut Writer) -> Result<PathBuf, StorageError> {
        writer.databases += 1;
        std::fs::create_dir_all(&self.live)
            .map_err(|cause| io("make the folder", &self.live, cause))?;
        Ok(self.live.join(writer.databases.to_string()))
    }

    fn begin(&self, writer: &mut Writer) -> Result<Arc<Rows>, StorageError> {
        let rows = Rows::open(self.new_folder(writer)?, &self.memory)?;
        writer.known.clear();
        Ok(self.replace_rows(rows))
    }
}

impl Storage for FolderStorage {
    fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError> {
        self.archive.list()
    }

    fn restore(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        let mut writer = self.writer();
        let manifest = self.archive.verify(id)?;
        let folder = self.new_folder(&mut writer)?;
        let names: Vec<&str> = manifest.files.iter().map(|file| &*file.name).collect();
        let opened = rows::lay_out(&self.archive.path(id), &names, &folder)
            .and_then(|()| Rows::open(folder.clone(), &self.memory));
        let rows = match opened {
            Ok(rows) => rows,
            Err(error) => {
                // It may be tried often.
                let _ = archive::remove(&folder);
                return Err(error);
            }
        };
        let immutable = manifest.files.iter();
        writer.known = immutable
            .filter(|file| archive::is_immutable(&file.name))
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        self.replace_rows(rows);
        Ok(manifest)
    }

    fn reset(&self) -> Result<(), StorageError> {
        self.begin(&mut self.writer()).map(drop)
    }

    fn write(
        &self,
        manifest: Manifest,
        changes: Vec<Changes>,
    ) -> Result<CheckpointInfo, StorageError> {
        let mut writer = self.writer();
        crash::point(Place::WriteBefore);
        let rows = match self.rows() {
            Some(rows) => rows,
            None => self.begin(&mut writer)?,
        };
        rows.apply(&changes)?;
        drop(changes);
        let draft = self.archive.draft(manifest.id)?;
        rows.snapshot(&draft.folder)?;
        draft.finish(manifest, &mut writer.known)
    }

    fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        let _writer = self.writer();
        self.archive.delete(id)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        match self.rows() {
            Some(rows) => rows.get_many(keys),
            None => Ok(vec![None; keys.len()]),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        match self.rows() {
            Some(rows) => rows.scan(from, to, visit),
            None => Ok(()),
        }
    }
}
