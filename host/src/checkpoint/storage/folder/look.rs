//! The rows of a checkpoint, for who looks at it while nobody has the folder open.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::FolderStorage;
use super::archive::{self, Archive};
use super::trouble::io;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::storage::{Storage, StorageError};
use crate::element::CheckpointId;

/// The memory for blocks that were read. A look reads few.
const MEMORY_BYTES: usize = 8 << 20;

/// The rows of a checkpoint, in a folder of their own that shares its files. Whoever opens
/// the data folder does not wait for it, and removes what a crash has left of it.
pub struct CheckpointRows {
    pub manifest: Manifest,
    storage: Arc<FolderStorage>,
    /// Removed behind the storage.
    _folder: TempDir,
}

impl CheckpointRows {
    /// Checks and opens a checkpoint. All of its files are read.
    pub fn open(archive: &Archive, id: CheckpointId) -> Result<CheckpointRows, StorageError> {
        let manifest = archive.manifest(id)?;
        let folder = tempfile::Builder::new()
            .prefix(archive::LOOK)
            .tempdir_in(archive.folder())
            .map_err(|cause| io("make a folder in", archive.folder(), cause))?;
        let storage = FolderStorage::open(folder.path(), MEMORY_BYTES)?;
        link_files(&archive.path(id), &storage.archive, &manifest)?;
        storage.restore(id)?;
        Ok(CheckpointRows {
            manifest,
            storage: Arc::new(storage),
            _folder: folder,
        })
    }

    /// The rows, which nobody may use when this is dropped.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }
}

/// Makes the same checkpoint in another archive. Its manifest is its own, which is written
/// anew.
fn link_files(from: &Path, to: &Archive, manifest: &Manifest) -> Result<(), StorageError> {
    let draft = to.draft(manifest.id)?;
    fs::create_dir(&draft.folder).map_err(|cause| io("make the folder", &draft.folder, cause))?;
    for file in &manifest.files {
        archive::link(&from.join(&file.name), &draft.folder.join(&file.name))?;
    }
    draft.publish(manifest).map(drop)
}
