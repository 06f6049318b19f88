//! Copies of checkpoints in an object store, from which a host without the data
//! folder can restore.
//!
//! | under `URL/PIPELINE/` | |
//! |---|---|
//! | `files/CHECKSUM-BYTES` | A file of checkpoints, named by its content, so that it is sent only once. |
//! | `checkpoints/ID` | A manifest, written after all its files. |
//!
//! The run does not wait for uploads: one that fails is logged and tried again.

/// Uploads while the pipeline runs.
pub mod uploader;
/// Waits for answers, within limits.
pub mod waiting;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::aws::AwsCredentialProvider;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::checksum::Checksum;
use super::manifest::{FileManifest, Manifest};
use super::storage::folder::{Archive, FolderStorage};
use super::storage::{CheckpointInfo, Storage, StorageError};
use crate::blame::Fault;
use crate::element::CheckpointId;
use crate::paths::sync_folder;
use crate::plan::RemotePlan;
use crate::store::{Connected, connect, explained};

/// How much of a file is in memory at once.
const PART_BYTES: usize = 8 << 20;

/// How long the start of a run waits for credentials.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(10);

/// The checkpoints of one pipeline in an object store.
pub struct RemoteStore {
    store: Arc<dyn ObjectStore>,
    /// The pipeline's folder in it.
    root: Location,
    /// Present where objects are files on this machine.
    local: Option<Arc<LocalFileSystem>>,
    /// Absent where requests are not signed.
    credentials: Option<AwsCredentialProvider>,
    /// For messages.
    pub url: String,
    /// Whether something was asked that has no answer yet, for longer than it should take.
    is_silent: AtomicBool,
    /// Names of the files in the store, once listed. Locked during an upload or
    /// removal, so that there is only one at a time.
    files: Mutex<Option<HashSet<String>>>,
}

/// What an upload has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    pub files: usize,
    pub bytes: u64,
    /// Files that the store had already.
    pub files_shared: usize,
}

/// Checks the URL and the options, as far as possible without the store. Returns the folder
/// that a pipeline's copies are in, if that is on this machine.
pub fn check(plan: &RemotePlan, pipeline: &str) -> Result<Option<PathBuf>, String> {
    let Connected { local, path, .. } = connect(plan)?;
    let folder = local.map(|local| local.path_to_filesystem(&path.join(pipeline)));
    folder.transpose().map_err(|error| error.to_string())
}

impl RemoteStore {
    /// Sends nothing yet.
    pub fn new(plan: &RemotePlan, pipeline: &str) -> Result<RemoteStore, StorageError> {
        let connected = connect(plan).map_err(|problem| StorageError::Other {
            message: format!("cannot use the object store {}: {problem}", plan.url),
            fault: Fault::CONFIG,
        })?;
        Ok(RemoteStore {
            store: connected.store,
            root: connected.path.join(pipeline),
            local: connected.local,
            credentials: connected.credentials,
            url: plan.url.clone(),
            is_silent: AtomicBool::new(false),
            files: Mutex::new(None),
        })
    }

    /// Checks that copies can be made, by an object that is removed again. Fails only with
    /// what does not pass by itself: uploads are tried again.
    pub async fn check_writable(&self) -> Result<(), StorageError> {
        // Of a name that nothing else has: what is there is kept.
        let name = format!("probe-{:032x}", fastrand::u128(..));
        let location = self.root.clone().join(name);
        let probe = async {
            self.put(&location, PutPayload::default()).await?;
            self.remove(&location).await
        };
        match probe.await {
            Err(error) if error.fault().can_pass => {
                tracing::error!("checkpoints cannot be copied yet: {error}");
                Ok(())
            }
            checked => checked,
        }
    }

    /// Checks that there is something to sign requests with, where they are signed.
    pub async fn check_credentials(&self) -> Result<(), StorageError> {
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        let cause = match tokio::time::timeout(CREDENTIALS_WAIT, credentials.get_credential()).await
        {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => format!("nothing has given any within {CREDENTIALS_WAIT:?}"),
        };
        Err(StorageError::Other {
            message: format!(
                "there are no credentials for the object store {}: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or give them in the `options` of `upload` ({cause})",
                self.url
            ),
            fault: Fault::OUTSIDE_LASTING,
        })
    }

    /// All copies, oldest first. A copy is damaged if its manifest is, or if a file
    /// is missing.
    pub async fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError> {
        let files = self.files_there().await?;
        let mut list = Vec::new();
        for id in self.ids().await? {
            let (manifest, damage) = match self.manifest(id).await {
                Ok(manifest) => {
                    let lost = manifest
                        .files
                        .iter()
                        .find(|file| !files.contains(&object_name(file)));
                    let damage = lost.map(|file| format!("{} is missing", file.name));
                    (manifest, damage)
                }
                Err(StorageError::Missing { .. }) => continue,
                Err(StorageError::Damaged { message, .. }) => {
                    let manifest = Manifest {
                        id,
                        ..Manifest::default()
                    };
                    (manifest, Some(message))
                }
                Err(error) => return Err(error),
            };
            list.push(CheckpointInfo {
                id,
                name: manifest.name,
                created_ms: manifest.created_ms,
                is_transactional: !manifest.participants.is_empty(),
                participants: manifest.participants.clone(),
                bytes: manifest.files.iter().map(|file| file.bytes).sum(),
                damage,
                given_up: manifest.given_up,
            });
        }
        Ok(list)
    }

    /// Reads a checkpoint's manifest.
    pub async fn manifest(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        let location = self.manifest_location(id);
        let got = match self.store.get(&location).await {
            Ok(got) => got.bytes().await,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(StorageError::Missing {
                    id,
                    place: self.url.clone(),
                });
            }
            Err(cause) => Err(cause),
        };
        let bytes = got.map_err(|cause| self.trouble("read", &location, &cause))?;
        let damaged = |message: String| StorageError::Damaged {
            id,
            message: format!("{location} in {}: {message}", self.url),
        };
        let manifest =
            Manifest::decode(&bytes).map_err(|error| damaged(format!("the manifest: {error}")))?;
        if manifest.id != id {
            return Err(damaged(format!("it is that of checkpoint {}", manifest.id)));
        }
        Ok(manifest)
    }

    /// Copies a checkpoint: the files that the store does not have, then the
    /// manifest. The local one may be deleted meanwhile.
    pub async fn upload(
        &self,
        archive: &Archive,
        id: CheckpointId,
    ) -> Result<Uploaded, StorageError> {
        let mut known = self.files.lock().await;
        let known = match &mut *known {
            Some(known) => known,
            none => none.insert(self.list_files().await?),
        };
        let held = archive.hold(id)?;
        let mut uploaded = Uploaded::default();
        for file in &held.manifest.files {
            let name = object_name(file);
            if known.contains(&name) {
                uploaded.files_shared += 1;
                continue;
            }
            self.send(id, &held.folder.join(&file.name), file).await?;
            known.insert(name);
            uploaded.files += 1;
            uploaded.bytes += file.bytes;
        }
        let location = self.manifest_location(id);
        let payload = PutPayload::from(held.manifest.encode());
        self.put(&location, payload).await?;
        Ok(uploaded)
    }

    /// Downloads a checkpoint to the data folder, and replaces a damaged one there.
    pub async fn download(
        &self,
        archive: &Archive,
        id: CheckpointId,
    ) -> Result<Manifest, StorageError> {
        let manifest = self.manifest(id).await?;
        let draft = archive.draft(id)?;
        fs::create_dir_all(&draft.folder).map_err(|cause| StorageError::Io {
            what: format!("cannot make the folder {}", draft.folder.display()),
            cause,
        })?;
        for file in &manifest.files {
            self.fetch(id, file, &draft.folder.join(&file.name)).await?;
        }
        draft.publish(&manifest)?;
        Ok(manifest)
    }

    /// Local checkpoints and copies together, oldest first. Of a checkpoint that is
    /// in both, the list has the local one unless it is damaged.
    pub async fn list_with(
        &self,
        local: Vec<CheckpointInfo>,
    ) -> Result<Vec<CheckpointInfo>, StorageError> {
        let mut list: BTreeMap<CheckpointId, CheckpointInfo> = BTreeMap::new();
        for info in self.list().await?.into_iter().chain(local) {
            match list.get(&info.id) {
                Some(copy) if copy.damage.is_none() && info.damage.is_some() => {}
                _ => drop(list.insert(info.id, info)),
            }
        }
        Ok(list.into_values().collect())
    }

    /// Restores a checkpoint, after downloading it if it is missing or damaged
    /// locally.
    pub async fn restore(
        &self,
        storage: Arc<FolderStorage>,
        id: CheckpointId,
    ) -> Result<Manifest, StorageError> {
        match restore(storage.clone(), id).await {
            Err(error @ (StorageError::Missing { .. } | StorageError::Damaged { .. })) => {
                tracing::warn!("{error}: downloading it from {}", self.url);
                let what = format!("for the files of checkpoint {id}");
                let download = self.download(storage.archive(), id);
                self.answer(&what, None, download).await?;
                restore(storage, id).await
            }
            restored => restored,
        }
    }

    /// Deletes all but the newest `keep` checkpoints and the savepoints, and the
    /// files that no manifest lists any more. Returns what was deleted.
    pub async fn prune(&self, keep: usize) -> Result<Vec<CheckpointId>, StorageError> {
        let mut known = self.files.lock().await;
        let ids = self.ids().await?;
        let mut manifests = Vec::new();
        for &id in &ids {
            // If a manifest cannot be read, its files are unknown: delete nothing.
            manifests.push(self.manifest(id).await?);
        }
        let unnamed = manifests.iter().filter(|manifest| manifest.name.is_none());
        let unnamed: Vec<CheckpointId> = unnamed.map(|manifest| manifest.id).collect();
        let dropped = unnamed[..unnamed.len().saturating_sub(keep)].to_vec();
        for &id in &dropped {
            self.remove(&self.manifest_location(id)).await?;
        }
        manifests.retain(|manifest| !dropped.contains(&manifest.id));
        let named = manifests.iter().flat_map(|manifest| &manifest.files);
        let named: HashSet<String> = named.map(object_name).collect();
        for name in self.list_files().await? {
            if !named.contains(&name) {
                self.remove(&self.file_location(&name)).await?;
            }
        }
        *known = Some(named);
        Ok(dropped)
    }

    /// Deletes one checkpoint. Its files are deleted at the next `prune`.
    pub async fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        let _no_change = self.files.lock().await;
        self.remove(&self.manifest_location(id)).await
    }

    async fn send(
        &self,
        id: CheckpointId,
        path: &Path,
        file: &FileManifest,
    ) -> Result<(), StorageError> {
        let unreadable = |cause| StorageError::Io {
            what: format!("cannot read {}", path.display()),
            cause,
        };
        let location = self.file_location(&object_name(file));
        let mut reading = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut checksum = Checksum::new();
        let mut part = read_part(&mut reading, &mut checksum)
            .await
            .map_err(unreadable)?;
        // A damaged file must not be copied.
        let check = |checksum: &Checksum| match checksum.show() == file.checksum {
            true => Ok(()),
            false => Err(StorageError::Damaged {
                id,
                message: format!("{}: its content has changed", file.name),
            }),
        };
        if part.len() < PART_BYTES {
            check(&checksum)?;
            return self.put(&location, part.into()).await;
        }
        self.make_folder(&location)?;
        let failed = |cause| self.trouble("write", &location, &cause);
        let mut upload = self.store.put_multipart(&location).await.map_err(failed)?;
        let sent = async {
            while !part.is_empty() {
                upload.put_part(part.into()).await.map_err(failed)?;
                part = read_part(&mut reading, &mut checksum)
                    .await
                    .map_err(unreadable)?;
            }
            check(&checksum)
        };
        if let Err(error) = sent.await {
            // If this fails, the store has to clean up.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map_err(failed)?;
        self.make_private(&location)
    }

    async fn put(&self, location: &Location, payload: PutPayload) -> Result<(), StorageError> {
        self.make_folder(location)?;
        let put = self.store.put(location, payload).await;
        put.map_err(|cause| self.trouble("write", location, &cause))?;
        self.make_private(location)
    }

    /// Makes the folder of an object that is a file, as durable as that: only its owner may
    /// read copies of states, as it is with the states.
    fn make_folder(&self, location: &Location) -> Result<(), StorageError> {
        let path = self.path_of(location);
        let Some(folder) = path.as_deref().and_then(Path::parent) else {
            return Ok(());
        };
        let missing = folder.ancestors().take_while(|folder| !folder.exists());
        let parents = missing.filter_map(Path::parent);
        let parents: Vec<&Path> = parents.collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let made = made.and_then(|()| parents.into_iter().try_for_each(sync_folder));
        made.map_err(|cause| self.unusable("make the folder", folder, cause))
    }

    fn make_private(&self, location: &Location) -> Result<(), StorageError> {
        let Some(path) = self.path_of(location) else {
            return Ok(());
        };
        let made = fs::set_permissions(&path, Permissions::from_mode(0o600));
        made.map_err(|cause| self.unusable("keep others from reading", &path, cause))
    }

    /// The file that an object is, if the store is on this machine.
    fn path_of(&self, location: &Location) -> Option<PathBuf> {
        self.local.as_ref()?.path_to_filesystem(location).ok()
    }

    fn unusable(&self, what: &str, path: &Path, cause: io::Error) -> StorageError {
        let (path, url) = (path.display(), &self.url);
        StorageError::Io {
            what: format!("cannot {what} {path} in the object store {url}"),
            cause,
        }
    }

    async fn fetch(
        &self,
        id: CheckpointId,
        file: &FileManifest,
        path: &Path,
    ) -> Result<(), StorageError> {
        let location = self.file_location(&object_name(file));
        let damaged = |message: &str| StorageError::Damaged {
            id,
            message: format!("{} ({location} in {}) {message}", file.name, self.url),
        };
        let unwritable = |cause| StorageError::Io {
            what: format!("cannot write {}", path.display()),
            cause,
        };
        let mut checksum = Checksum::new();
        let mut writing = tokio::fs::File::create(path).await.map_err(unwritable)?;
        let meta = match self.store.head(&location).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("is missing")),
            Err(cause) => return Err(self.trouble("read", &location, &cause)),
        };
        if meta.size != file.bytes {
            let lengths = format!("has {} bytes instead of {}", meta.size, file.bytes);
            return Err(damaged(&lengths));
        }
        let mut from = 0;
        while from < file.bytes {
            let to = file.bytes.min(from + PART_BYTES as u64);
            let got = self.store.get_range(&location, from..to).await;
            let part = got.map_err(|cause| self.trouble("read", &location, &cause))?;
            checksum.add(&part);
            writing.write_all(&part).await.map_err(unwritable)?;
            from = to;
        }
        if checksum.show() != file.checksum {
            return Err(damaged("has another checksum: its content has changed"));
        }
        writing.sync_all().await.map_err(unwritable)
    }

    /// Numbers of the checkpoints, oldest first.
    async fn ids(&self) -> Result<Vec<CheckpointId>, StorageError> {
        let names = self.list_folder("checkpoints").await?;
        let mut ids: Vec<CheckpointId> = names
            .iter()
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn files_there(&self) -> Result<HashSet<String>, StorageError> {
        let _no_change = self.files.lock().await;
        self.list_files().await
    }

    /// Names of the complete files: those with the size that their name says.
    async fn list_files(&self) -> Result<HashSet<String>, StorageError> {
        let files = self.list_folder("files").await?;
        let whole = files
            .into_iter()
            .filter(|(name, bytes)| name.ends_with(&format!("-{bytes}")));
        Ok(whole.map(|(name, _)| name).collect())
    }

    /// Names and sizes.
    async fn list_folder(&self, folder: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let location = self.root.clone().join(folder);
        let listed = self.store.list_with_delimiter(Some(&location)).await;
        let objects = match listed {
            Ok(listed) => listed.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(cause) => return Err(self.trouble("list", &location, &cause)),
        };
        let named = objects.into_iter().filter_map(|object| {
            let name = object.location.filename()?.to_owned();
            Some((name, object.size))
        });
        Ok(named.collect())
    }

    async fn remove(&self, location: &Location) -> Result<(), StorageError> {
        match self.store.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(self.trouble("remove", location, &cause)),
        }
    }

    fn manifest_location(&self, id: CheckpointId) -> Location {
        self.root.clone().join("checkpoints").join(id.to_string())
    }

    fn file_location(&self, name: &str) -> Location {
        self.root.clone().join("files").join(name)
    }

    fn trouble(
        &self,
        what: &str,
        location: &Location,
        cause: &object_store::Error,
    ) -> StorageError {
        let (why, fault) = explained(cause);
        StorageError::Other {
            message: format!(
                "cannot {what} {location} in the object store {}: {why}",
                self.url
            ),
            fault,
        }
    }
}

async fn restore(storage: Arc<FolderStorage>, id: CheckpointId) -> Result<Manifest, StorageError> {
    let restored = tokio::task::spawn_blocking(move || storage.restore(id)).await;
    restored.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The file's name in the store, by its content.
fn object_name(file: &FileManifest) -> String {
    format!("{}-{}", file.checksum, file.bytes)
}

/// The next part of a file; a shorter one is the last.
async fn read_part(file: &mut tokio::fs::File, checksum: &mut Checksum) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part).await?;
    checksum.add(&part);
    Ok(part)
}
