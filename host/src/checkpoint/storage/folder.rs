//! Rows and checkpoints in a folder.
//!
//! | in the folder | |
//! |---|---|
//! | `lock` | Held by the host that uses the folder, with its process id. |
//! | `live/` | The current rows: a database, links to its files as of its last update (the base), and a journal of the changes since. Scratch: removed when the folder is opened. |
//! | `checkpoints/ID/` | A checkpoint: files that later ones may share, and a manifest with their names, sizes and checksums. |
//!
//! A failed write may have changed the current rows, but no checkpoint: the same
//! changes, or these and more, may be written again, or the last checkpoint
//! restored.

/// Lets only one process use the folder.
mod lock;
/// Messages for files that cannot be read or written.
mod trouble;
/// Checkpoints as files.
pub mod archive;
/// Changes that are not in the database yet.
mod journal;
/// The database of the current rows.
mod rows;
/// The rows of a checkpoint beside the current ones.
mod look;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::archive::Archive;
use self::archive::Known;
use self::journal::Journal;
pub use self::lock::FolderLock;
pub use self::look::CheckpointRows;
use self::rows::{Memory, RowDatabase};
use self::trouble::io;
use super::{CheckpointInfo, Storage, StorageError};
use crate::checkpoint::changes::{self, Changes};
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::Manifest;
use crate::element::CheckpointId;

/// Keeps the rows and checkpoints of one pipeline.
pub struct FolderStorage {
    archive: Archive,
    live: PathBuf,
    memory: Memory,
    journal_bytes_max: u64,
    /// Absent before the first restore, reset or write.
    rows: RwLock<Option<Arc<RowDatabase>>>,
    /// Whether the database lacks the changes of a journal.
    has_journal: AtomicBool,
    /// Whether rows were read since the last write: then changes go into the database.
    are_read: AtomicBool,
    /// Locked while rows or checkpoints change; readers do not wait for it.
    writer: Mutex<Writer>,
    /// The folders that were not there before, the innermost first.
    made: Vec<PathBuf>,
    _lock: FolderLock,
}

#[derive(Default)]
struct Writer {
    /// How many databases there have been, each in its own folder: one may still
    /// be read when the next is opened.
    databases: u64,
    known: Known,
    /// Belongs to the current database.
    linked: Option<LinkedFiles>,
}

/// The files that the next checkpoint links.
struct LinkedFiles {
    /// The database's files as of its last update.
    base: PathBuf,
    /// How many bases there have been.
    bases: u64,
    journal: Journal,
}

impl FolderStorage {
    /// Locks the folder, and makes it if it does not exist. `memory_bytes_max`
    /// limits the database's cache and buffers together, and about as much again
    /// is used while the database is updated.
    pub fn open(folder: &Path, memory_bytes_max: usize) -> Result<FolderStorage, StorageError> {
        let missing = folder.ancestors().take_while(|folder| !folder.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let lock = loop {
            // Only the owner may read states.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|cause| io("make the folder", folder, cause))?;
            let lock = FolderLock::take(folder)?;
            // A run before may just have removed it.
            if lock.is_of(folder) {
                break lock;
            }
        };
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
            made,
            _lock: lock,
        })
    }

    /// Removes what was made of the folder, if no checkpoint was made in it: a run that is
    /// refused leaves nothing.
    fn remove_unused(&mut self) {
        let Some(folder) = self.made.first() else {
            return;
        };
        // Others fail as well, if there is one.
        if fs::remove_dir(self.archive.folder()).is_ok() {
            *self.rows.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
            let _ = archive::remove(&self.live);
            let _ = FolderLock::remove(folder);
            for folder in &self.made {
                let _ = fs::remove_dir(folder);
            }
        }
    }

    /// The checkpoints, which may be read at the same time.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Locks the folder for a change. A panic meanwhile has the same effect as an
    /// error.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> Option<Arc<RowDatabase>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.clone()
    }

    /// The database, updated with the whole journal.
    fn rows_to_read(&self) -> Result<Option<Arc<RowDatabase>>, StorageError> {
        self.are_read.store(true, Ordering::Relaxed);
        // In this order: `replace_rows` sets the rows before the flag.
        let rows = self.rows();
        if !self.has_journal.load(Ordering::Acquire) {
            return Ok(rows);
        }
        let mut writer = self.writer();
        let rows = self.rows();
        if let Some(rows) = &rows {
            self.update(&mut writer, rows, Vec::new())?;
        }
        Ok(rows)
    }

    /// Makes these the current rows.
    fn replace_rows(
        &self,
        writer: &mut Writer,
        rows: RowDatabase,
        linked: LinkedFiles,
    ) -> Arc<RowDatabase> {
        let rows = Arc::new(rows);
        let mut current = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(rows.clone());
        let has_journal = !linked.journal.is_empty();
        self.has_journal.store(has_journal, Ordering::Release);
        writer.linked = Some(linked);
        drop(current);
        // Closing takes a moment; readers can use the new rows meanwhile.
        drop(before);
        rows
    }

    fn new_folder(&self, writer: &mut Writer) -> Result<PathBuf, StorageError> {
        writer.databases += 1;
        fs::create_dir_all(&self.live).map_err(|cause| io("make the folder", &self.live, cause))?;
        Ok(self.live.join(writer.databases.to_string()))
    }

    fn begin(&self, writer: &mut Writer) -> Result<Arc<RowDatabase>, StorageError> {
        let folder = self.new_folder(writer)?;
        let rows = RowDatabase::open(folder.clone(), &self.memory, 0)?;
        let linked = LinkedFiles::beside(&folder)?;
        rows.snapshot(&linked.base)?;
        writer.known.clear();
        Ok(self.replace_rows(writer, rows, linked))
    }

    /// Updates the database with the journal and these changes.
    fn update(
        &self,
        writer: &mut Writer,
        rows: &RowDatabase,
        changes: Vec<Changes>,
    ) -> Result<(), StorageError> {
        let Some(linked) = &mut writer.linked else {
            return Ok(());
        };
        let mut all = linked.journal.read()?;
        all.push(changes);
        if all.iter().flatten().all(Changes::is_empty) {
            return Ok(());
        }
        rows.apply(&all)?;
        drop(all);
        self.renew(writer, rows)
    }

    /// Notes that the database has other rows than its base, and all those of the journal.
    fn renew(&self, writer: &mut Writer, rows: &RowDatabase) -> Result<(), StorageError> {
        if let Some(linked) = &mut writer.linked {
            linked.renew(rows)?;
        }
        self.has_journal.store(false, Ordering::Release);
        // The other files have new contents under old names.
        writer.known.retain(|name, _| archive::is_immutable(name));
        Ok(())
    }
}

impl LinkedFiles {
    /// For the database in this folder; the base does not exist yet.
    fn beside(database: &Path) -> Result<LinkedFiles, StorageError> {
        Ok(LinkedFiles {
            base: database.with_extension("base"),
            bases: 0,
            journal: Journal::create(database.with_extension("journal"))?,
        })
    }

    /// Makes a new base and empties the journal: the database has all its changes.
    fn renew(&mut self, rows: &RowDatabase) -> Result<(), StorageError> {
        self.bases += 1;
        let base = self.base.with_extension(format!("base-{}", self.bases));
        rows.snapshot(&base)?;
        let before = std::mem::replace(&mut self.base, base);
        self.journal.clear();
        archive::remove(&before)
    }
}

impl Drop for LinkedFiles {
    fn drop(&mut self) {
        // If this fails, opening the data folder removes it.
        let _ = archive::remove(&self.base);
    }
}

impl Drop for FolderStorage {
    fn drop(&mut self) {
        self.remove_unused();
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
            let mut linked = LinkedFiles::beside(&folder)?;
            linked.journal.link_from(&checkpoint, &manifest.files)?;
            let names = manifest.files.iter().map(|file| file.name.as_str());
            let names = names.filter(|name| !name.ends_with(changes::SUFFIX));
            rows::lay_out(&checkpoint, names.clone(), &folder)?;
            // Before the database is opened, which changes some of its files.
            rows::lay_out(&checkpoint, names, &linked.base)?;
            let left_bytes = manifest.left_bytes;
            let rows = RowDatabase::open(folder.clone(), &self.memory, left_bytes)?;
            Ok((rows, linked))
        };
        let (rows, linked) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                // Restoring may be tried often: leave nothing behind.
                let _ = archive::remove(&folder);
                return Err(error);
            }
        };
        let files = manifest.files.iter();
        writer.known = files
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        self.replace_rows(&mut writer, rows, linked);
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
        let Writer { known, linked, .. } = &mut *writer;
        match linked {
            // While nobody reads rows, changes need not go into the database.
            Some(linked)
                if !are_read && linked.journal.has_room(&changes, self.journal_bytes_max) =>
            {
                if !changes.iter().all(Changes::is_empty) {
                    linked.journal.append(&changes, known)?;
                    self.has_journal.store(true, Ordering::Release);
                }
            }
            _ => self.update(&mut writer, &rows, changes)?,
        }
        let draft = self.archive.draft(manifest.id)?;
        let Writer { known, linked, .. } = &mut *writer;
        if let Some(linked) = linked {
            draft.link_all(&linked.base)?;
            linked.journal.link_to(&draft.folder)?;
        }
        let manifest = Manifest {
            left_bytes: rows.left_bytes(),
            ..manifest
        };
        draft.finish(manifest, known)
    }

    fn rewrite(
        &self,
        next: &mut dyn FnMut() -> Result<Option<Changes>, StorageError>,
    ) -> Result<(), StorageError> {
        let mut writer = self.writer();
        let Some(rows) = self.rows() else {
            return Ok(());
        };
        // Then whoever reads rows does not need the writer.
        self.update(&mut writer, &rows, Vec::new())?;
        while let Some(part) = next()? {
            rows.apply(&[vec![part]])?;
        }
        self.renew(&mut writer, &rows)
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
