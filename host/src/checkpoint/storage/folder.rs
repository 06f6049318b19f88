//! Rows and checkpoints in a folder.
//!
//! | in the folder | |
//! |---|---|
//! | `lock` | Held by the host that has the folder, with its process id. |
//! | `live/` | The current rows: a database, its files as they were when it was last brought up to date, and what has changed since. Scratch: removed when the folder is opened. |
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
/// What has changed and is not in the database yet.
mod journal;
/// The database of the current rows.
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::archive::Archive;
use self::archive::Known;
use self::journal::Journal;
pub use self::lock::FolderLock;
use self::rows::{Memory, Rows};
use self::trouble::io;
use super::{CheckpointInfo, Storage, StorageError};
use crate::checkpoint::changes::{Changes, SUFFIX};
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::Manifest;
use crate::element::CheckpointId;

/// Keeps the rows and checkpoints of one pipeline.
pub struct FolderStorage {
    archive: Archive,
    live: PathBuf,
    memory: Memory,
    journal_bytes_max: u64,
    /// Nothing is there before the first restore, reset or write.
    rows: RwLock<Option<Arc<Rows>>>,
    /// The database is not up to date.
    has_journal: AtomicBool,
    /// Rows were read since the last write: they are wanted in the database.
    are_read: AtomicBool,
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
    /// Beside the database.
    kept: Option<Kept>,
}

/// What checkpoints get links of.
struct Kept {
    /// The database's files as they were when it was last brought up to date.
    base: PathBuf,
    /// How many such there have been.
    bases: u64,
    journal: Journal,
}

impl FolderStorage {
    /// Takes the folder, which is made if need be. `memory_bytes_max` is what
    /// the database may use for its cache and its buffers together, and about
    /// what it takes to bring it up to date.
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
            journal_bytes_max: memory_bytes_max as u64,
            rows: RwLock::new(None),
            has_journal: AtomicBool::new(false),
            are_read: AtomicBool::new(false),
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

    /// The rows, all of them in the database.
    fn rows_to_read(&self) -> Result<Option<Arc<Rows>>, StorageError> {
        self.are_read.store(true, Ordering::Relaxed);
        // In this order: rows that have a journal come before the flag of it.
        let rows = self.rows();
        if !self.has_journal.load(Ordering::Acquire) {
            return Ok(rows);
        }
        let mut writer = self.writer();
        let rows = self.rows();
        if let Some(rows) = &rows {
            self.settle(&mut writer, rows, Vec::new())?;
        }
        Ok(rows)
    }

    /// Makes these the current rows.
    fn replace_rows(&self, writer: &mut Writer, rows: Rows, kept: Kept) -> Arc<Rows> {
        let rows = Arc::new(rows);
        let mut current = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(rows.clone());
        let has_journal = !kept.journal.is_empty();
        self.has_journal.store(has_journal, Ordering::Release);
        writer.kept = Some(kept);
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
        let folder = self.new_folder(writer)?;
        let rows = Rows::open(folder.clone(), &self.memory)?;
        let kept = Kept::beside(&folder)?;
        rows.snapshot(&kept.base)?;
        writer.known.clear();
        Ok(self.replace_rows(writer, rows, kept))
    }

    /// Brings the database up to date with the journal and these changes.
    fn settle(
        &self,
        writer: &mut Writer,
        rows: &Rows,
        changes: Vec<Changes>,
    ) -> Result<(), StorageError> {
        let Some(kept) = &mut writer.kept else {
            return Ok(());
        };
        let mut all = kept.journal.read()?;
        all.push(changes);
        if all.iter().flatten().all(Changes::is_empty) {
            return Ok(());
        }
        rows.apply(&all)?;
        drop(all);
        kept.renew(rows)?;
        self.has_journal.store(false, Ordering::Release);
        // Its other files have new contents under old names.
        writer.known.retain(|name, _| archive::is_immutable(name));
        Ok(())
    }
}

impl Kept {
    /// What is kept beside the database in that folder; the base is not there yet.
    fn beside(database: &Path) -> Result<Kept, StorageError> {
        Ok(Kept {
            base: database.with_extension("base"),
            bases: 0,
            journal: Journal::create(database.with_extension("journal"))?,
        })
    }

    /// The database has all that is in the journal.
    fn renew(&mut self, rows: &Rows) -> Result<(), StorageError> {
        self.bases += 1;
        let base = self.base.with_extension(format!("base-{}", self.bases));
        rows.snapshot(&base)?;
        let before = std::mem::replace(&mut self.base, base);
        self.journal.clear();
        archive::remove(&before)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Otherwise it is removed when the data folder is opened again.
        let _ = archive::remove(&self.base);
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
        let checkpoint = self.archive.path(id);
        let open = || {
            let mut kept = Kept::beside(&folder)?;
            kept.journal.link_from(&checkpoint, &manifest.files)?;
            let names = manifest.files.iter().map(|file| file.name.as_str());
            let names = names.filter(|name| !name.ends_with(SUFFIX));
            rows::lay_out(&checkpoint, names.clone(), &folder)?;
            // Before the database changes what may be changed.
            rows::lay_out(&checkpoint, names, &kept.base)?;
            Ok((Rows::open(folder.clone(), &self.memory)?, kept))
        };
        let (rows, kept) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                // It may be tried often.
                let _ = archive::remove(&folder);
                return Err(error);
            }
        };
        let files = manifest.files.iter();
        writer.known = files
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        self.replace_rows(&mut writer, rows, kept);
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
        let are_read = self.are_read.swap(false, Ordering::Relaxed);
        let Writer { known, kept, .. } = &mut *writer;
        match kept {
            // Nobody reads what has been written for long: in memory it is newer.
            Some(kept) if !are_read && kept.journal.has_room(&changes, self.journal_bytes_max) => {
                if !changes.iter().all(Changes::is_empty) {
                    kept.journal.append(&changes, known)?;
                    self.has_journal.store(true, Ordering::Release);
                }
            }
            _ => self.settle(&mut writer, &rows, changes)?,
        }
        let draft = self.archive.draft(manifest.id)?;
        let Writer { known, kept, .. } = &mut *writer;
        if let Some(kept) = kept {
            draft.link_all(&kept.base)?;
            kept.journal.link_to(&draft.folder)?;
        }
        draft.finish(manifest, known)
    }

    fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        let _writer = self.writer();
        self.archive.delete(id)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        match self.rows_to_read()? {
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
        match self.rows_to_read()? {
            Some(rows) => rows.scan(from, to, visit),
            None => Ok(()),
        }
    }
}
