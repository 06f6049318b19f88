//! The checkpoints of a data folder, each a folder of files with a manifest that
//! lists them all. Knows nothing of the contents of the files.
//!
//! A checkpoint is written under a hidden name and then renamed, and it is renamed
//! again before it is removed. So a folder with a number is always complete, and
//! reading needs no lock.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lock::FolderLock;
use super::trouble::io;
use crate::checkpoint::changes;
use crate::checkpoint::checksum::Checksum;
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::{FileManifest, Manifest};
use crate::checkpoint::storage::{CheckpointInfo, StorageError};
use crate::element::CheckpointId;
use crate::paths;

/// The manifest's file, beside those that it names.
const MANIFEST: &str = "sluicebox.manifest";
/// How the names of folders begin in which somebody looks at a checkpoint.
pub(super) const LOOK: &str = ".look-";
/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;
/// Two threads read about as fast as a disk can.
const CHECK_THREADS: usize = 2;

/// All checkpoints of a data folder.
#[derive(Clone, Debug)]
pub struct Archive {
    folder: PathBuf,
}

/// A checkpoint that is being written. Dropping it removes its files.
pub struct Draft {
    archive: Archive,
    id: CheckpointId,
    /// Where its files go. The folder does not exist yet.
    pub folder: PathBuf,
}

/// Links to the files of a checkpoint, which keep them even if the checkpoint is
/// deleted. Dropping it removes the links.
pub struct HeldCheckpoint {
    pub folder: PathBuf,
    pub manifest: Manifest,
}

/// Sizes and checksums of files that never change, so that each is read once.
pub type Known = HashMap<String, FileManifest>;

impl Archive {
    /// The checkpoints of a pipeline's data folder. Reads and makes nothing.
    pub fn of(data: &Path) -> Archive {
        Archive {
            folder: data.join("checkpoints"),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder and removes what crashes have left, and no look that goes on. The caller
    /// must have locked the data folder.
    pub fn open(&self) -> Result<(), StorageError> {
        fs::create_dir_all(&self.folder)
            .map_err(|cause| io("make the folder", &self.folder, cause))?;
        for name in self.names()? {
            let path = self.folder.join(&name);
            let is_looked_at = name.starts_with(LOOK) && FolderLock::owner(&path).is_some();
            if name.starts_with('.') && !is_looked_at {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// All checkpoints, oldest first. Finds damage that shows without reading whole
    /// files.
    pub fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError> {
        let names = self.names()?;
        let mut ids: Vec<CheckpointId> = names.iter().filter_map(|name| id_of(name)).collect();
        ids.sort_unstable();
        let mut list = Vec::with_capacity(ids.len());
        for id in ids {
            match self.manifest(id) {
                Ok(manifest) => list.push(info(&manifest, self.check_sizes(&manifest).err())),
                // It was deleted meanwhile.
                Err(StorageError::Missing { .. }) => {}
                Err(error) => list.push(CheckpointInfo {
                    id,
                    name: None,
                    created_ms: 0,
                    is_transactional: false,
                    participants: Vec::new(),
                    bytes: 0,
                    damage: Some(damage(error)),
                    given_up: Vec::new(),
                }),
            }
        }
        Ok(list)
    }

    pub fn contains(&self, id: CheckpointId) -> bool {
        self.path(id).is_dir()
    }

    /// Reads a checkpoint's manifest.
    pub fn manifest(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        let folder = self.path(id);
        let bytes = match fs::read(folder.join(MANIFEST)) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                return Err(match folder.is_dir() {
                    true => damaged(id, format!("its manifest ({MANIFEST}) is missing")),
                    false => self.missing(id),
                });
            }
            Err(cause) => return Err(damaged(id, format!("{MANIFEST} cannot be read: {cause}"))),
        };
        let manifest = Manifest::decode(&bytes)
            .map_err(|error| damaged(id, format!("{MANIFEST}: {error}")))?;
        if manifest.id != id {
            let message = format!("{MANIFEST}: it is that of checkpoint {}", manifest.id);
            return Err(damaged(id, message));
        }
        Ok(manifest)
    }

    /// Reads all of a checkpoint's files and compares them with what its
    /// manifest says.
    pub fn verify(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        let manifest = self.manifest(id)?;
        self.check_sizes(&manifest)?;
        let folder = self.path(id);
        let next = AtomicUsize::new(0);
        let first_fault = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..CHECK_THREADS.min(manifest.files.len()) {
                scope.spawn(|| {
                    while let Some(file) = manifest.files.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(message) = check_content(&folder, file) {
                            next.store(manifest.files.len(), Ordering::Relaxed);
                            let mut fault =
                                first_fault.lock().unwrap_or_else(PoisonError::into_inner);
                            fault.get_or_insert(message);
                        }
                    }
                });
            }
        });
        match first_fault
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(message) => Err(damaged(id, message)),
            None => Ok(manifest),
        }
    }

    fn check_sizes(&self, manifest: &Manifest) -> Result<(), StorageError> {
        let folder = self.path(manifest.id);
        for file in &manifest.files {
            check_size(&folder, file).map_err(|message| damaged(manifest.id, message))?;
        }
        Ok(())
    }

    /// Starts a checkpoint.
    pub fn draft(&self, id: CheckpointId) -> Result<Draft, StorageError> {
        let folder = self.folder.join(format!(".writing-{id}"));
        remove(&folder)?;
        Ok(Draft {
            archive: self.clone(),
            id,
            folder,
        })
    }

    /// Deletes a checkpoint, damaged or not.
    pub fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        match self.put_away(id)? {
            Some(away) => remove(&away),
            None => Err(self.missing(id)),
        }
    }

    /// Keeps a checkpoint's files while they are used.
    pub fn hold(&self, id: CheckpointId) -> Result<HeldCheckpoint, StorageError> {
        static HELD: AtomicU64 = AtomicU64::new(0);
        let manifest = self.manifest(id)?;
        let number = HELD.fetch_add(1, Ordering::Relaxed);
        let held = HeldCheckpoint {
            folder: self.folder.join(format!(".held-{id}-{number}")),
            manifest,
        };
        remove(&held.folder)?;
        fs::create_dir(&held.folder).map_err(|cause| io("make the folder", &held.folder, cause))?;
        for file in &held.manifest.files {
            let from = self.path(id).join(&file.name);
            link(&from, &held.folder.join(&file.name))?;
        }
        Ok(held)
    }

    pub fn path(&self, id: CheckpointId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Renames a checkpoint's folder, so that it can be removed.
    fn put_away(&self, id: CheckpointId) -> Result<Option<PathBuf>, StorageError> {
        let from = self.path(id);
        let away = self.folder.join(format!(".deleting-{id}"));
        remove(&away)?;
        match fs::rename(&from, &away) {
            Ok(()) => Ok(Some(away)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(io("delete the checkpoint", &from, cause)),
        }
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(io("read the folder", &self.folder, cause)),
        };
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        let names = names.map_err(|cause| io("read the folder", &self.folder, cause))?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }

    fn missing(&self, id: CheckpointId) -> StorageError {
        StorageError::Missing {
            id,
            place: self.folder.display().to_string(),
        }
    }
}

impl Draft {
    /// Makes the folder, and links all files of another one in it.
    pub fn link_all(&self, from: &Path) -> Result<(), StorageError> {
        fs::create_dir(&self.folder).map_err(|cause| io("make the folder", &self.folder, cause))?;
        let fail = |cause| io("read the folder", from, cause);
        for entry in fs::read_dir(from).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            link(&entry.path(), &self.folder.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// Lists all files in the manifest, writes it, and gives the checkpoint its
    /// name. After this it survives a power failure.
    pub fn finish(
        self,
        mut manifest: Manifest,
        known: &mut Known,
    ) -> Result<CheckpointInfo, StorageError> {
        manifest.files = measure(&self.folder, known)?;
        crash::point(Place::ManifestBefore);
        self.publish(&manifest)
    }

    /// As [`Draft::finish`], where the manifest lists the files already.
    pub fn publish(self, manifest: &Manifest) -> Result<CheckpointInfo, StorageError> {
        let path = self.folder.join(MANIFEST);
        File::create(&path)
            .and_then(|mut file| {
                file.write_all(&manifest.encode())?;
                file.sync_all()
            })
            .map_err(|cause| io("write the manifest", &path, cause))?;
        sync_folder(&self.folder)?;
        crash::point(Place::ManifestAfter);
        // A checkpoint of the same number is from a run that failed earlier.
        let replaced = self.archive.put_away(self.id)?;
        let name = self.archive.path(self.id);
        fs::rename(&self.folder, &name).map_err(|cause| io("name the checkpoint", &name, cause))?;
        sync_folder(&self.archive.folder)?;
        if let Some(replaced) = replaced {
            remove(&replaced)?;
        }
        Ok(info(manifest, None))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Otherwise it is removed when the folder is opened again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for HeldCheckpoint {
    fn drop(&mut self) {
        // Otherwise it is removed when the folder is opened again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes a hard link, or a copy where the file system has no links.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StorageError> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Err(io("link", from, cause)),
        Err(_) => copy(from, to),
    }
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let copied = fs::copy(from, to);
    copied.map(drop).map_err(|cause| io("write", to, cause))
}

/// Removes a folder if it exists.
pub(super) fn remove(folder: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(io("remove", folder, cause)),
        _ => Ok(()),
    }
}

/// Sizes and checksums of a folder's files. Reads only files that are not in `known`.
fn measure(folder: &Path, known: &mut Known) -> Result<Vec<FileManifest>, StorageError> {
    let fail = |cause| io("read the folder", folder, cause);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let file = match known.get(&name) {
            Some(file) => file.clone(),
            None => {
                let path = entry.path();
                let (bytes, checksum) =
                    read_through(&path).map_err(|cause| io("read", &path, cause))?;
                FileManifest {
                    name,
                    bytes,
                    checksum,
                }
            }
        };
        files.push(file);
    }
    files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    *known = files
        .iter()
        .map(|file| (file.name.clone(), file.clone()))
        .collect();
    Ok(files)
}

/// Whether a file of this name never changes, so that checkpoints may share it.
pub fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(changes::SUFFIX)
}

fn check_size(folder: &Path, file: &FileManifest) -> Result<(), String> {
    let name = &file.name;
    match fs::metadata(folder.join(name)) {
        Ok(found) if found.len() == file.bytes => Ok(()),
        Ok(found) => Err(format!(
            "{name} has {} bytes instead of {}",
            found.len(),
            file.bytes
        )),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Err(format!("{name} is missing")),
        Err(cause) => Err(format!("{name} cannot be read: {cause}")),
    }
}

fn check_content(folder: &Path, file: &FileManifest) -> Result<(), String> {
    let name = &file.name;
    let (bytes, checksum) = read_through(&folder.join(name))
        .map_err(|cause| format!("{name} cannot be read: {cause}"))?;
    if bytes != file.bytes {
        return Err(format!(
            "{name} has {bytes} bytes instead of {}",
            file.bytes
        ));
    }
    if checksum != file.checksum {
        return Err(format!(
            "{name} has the checksum {checksum} instead of {}: its content has changed",
            file.checksum
        ));
    }
    Ok(())
}

/// Size and checksum of a file.
fn read_through(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut checksum = Checksum::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, checksum.show())),
            Ok(read) => {
                checksum.add(&buffer[..read]);
                bytes += read as u64;
            }
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    paths::sync_folder(folder).map_err(|cause| io("make durable the folder", folder, cause))
}

fn info(manifest: &Manifest, damage_found: Option<StorageError>) -> CheckpointInfo {
    CheckpointInfo {
        id: manifest.id,
        name: manifest.name.clone(),
        created_ms: manifest.created_ms,
        is_transactional: !manifest.participants.is_empty(),
        participants: manifest.participants.clone(),
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        damage: damage_found.map(damage),
        given_up: manifest.given_up.clone(),
    }
}

fn id_of(name: &str) -> Option<CheckpointId> {
    let id: CheckpointId = name.parse().ok()?;
    (id.to_string() == name).then_some(id)
}

fn damaged(id: CheckpointId, message: String) -> StorageError {
    StorageError::Damaged { id, message }
}

/// The message without the number of the checkpoint.
fn damage(error: StorageError) -> String {
    match error {
        StorageError::Damaged { message, .. } => message,
        error => error.to_string(),
    }
}
