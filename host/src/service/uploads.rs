//! The plugins that were uploaded: what they call themselves, and who has brought them when.
//! Their bytes are in the store, by digest.
//!
//! Layout, version 1: `uploads/DIGEST.json` for each. It is written when the bytes are there,
//! and so says that they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::whole_files::{
    check_version, file_name, make_folder, read_json, remove_unfinished, write,
};
use crate::logic::{KeptPlugin, PluginVersion};
use crate::paths;

const VERSION: u32 = 1;

/// The folder of uploads. One process uses it.
#[derive(Debug)]
pub struct Uploads {
    folder: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// In the order in which they came.
    uploads: Vec<Upload>,
    /// How often they have changed.
    changes: u64,
}

/// A plugin that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// What it calls itself.
    pub name: String,
    pub version: String,
    /// Of its bytes.
    pub digest: String,
    pub bytes: u64,
    pub uploaded_ms: i64,
    /// The name of a token, or `http` where the host has none.
    pub uploaded_by: String,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    plugin: Upload,
}

/// What became of an upload.
#[derive(Debug)]
pub enum Added {
    New(Upload),
    /// The same bytes were there already.
    There(Upload),
    /// Other bytes have this name and version.
    Taken(Upload),
}

impl Uploads {
    pub(super) fn open(folder: &Path) -> io::Result<Uploads> {
        make_folder(folder)?;
        remove_unfinished(folder)?;
        let mut uploads = Vec::new();
        for found in fs::read_dir(folder)? {
            let path = found?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let written: Written = read_json(&path)?;
            check_version(written.version, VERSION, &path)?;
            uploads.push(written.plugin);
        }
        uploads.sort_by(|one, other| {
            let key = |upload: &Upload| (upload.uploaded_ms, upload.digest.clone());
            key(one).cmp(&key(other))
        });
        Ok(Uploads {
            folder: folder.to_owned(),
            known: Mutex::new(Known {
                uploads,
                changes: 0,
            }),
        })
    }

    /// In the order in which they came.
    pub fn list(&self) -> Vec<Upload> {
        self.lock().uploads.clone()
    }

    pub fn get(&self, digest: &str) -> Option<Upload> {
        let known = self.lock();
        let mut uploads = known.uploads.iter();
        uploads.find(|upload| upload.digest == digest).cloned()
    }

    /// The digest of a plugin.
    pub fn find(&self, wanted: &KeptPlugin) -> Option<String> {
        let known = self.lock();
        let found = known.uploads.iter().find(|upload| match wanted {
            KeptPlugin::Version(PluginVersion { name, version }) => {
                upload.name == *name && upload.version == *version
            }
            KeptPlugin::Digest(digest) => upload.digest == *digest,
        });
        found.map(|upload| upload.digest.clone())
    }

    /// How often they have changed since the service was started.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Adds a plugin, whose bytes `keep` puts into the store.
    pub fn add(&self, upload: Upload, keep: impl FnOnce() -> io::Result<()>) -> io::Result<Added> {
        let mut known = self.lock();
        let is_there = |there: &&Upload| {
            there.digest == upload.digest
                || (&there.name, &there.version) == (&upload.name, &upload.version)
        };
        if let Some(there) = known.uploads.iter().find(is_there) {
            let there = there.clone();
            return Ok(match there.digest == upload.digest {
                true => Added::There(there),
                false => Added::Taken(there),
            });
        }
        keep()?;
        let written = Written {
            version: VERSION,
            plugin: upload,
        };
        let name = file_name(&written.plugin.digest, "json");
        write(
            &self.folder,
            &name,
            &serde_json::to_vec_pretty(&written)?,
            None,
        )?;
        let upload = written.plugin;
        known.uploads.push(upload.clone());
        known.changes += 1;
        Ok(Added::New(upload))
    }

    /// Forgets a plugin, unless `is_needed` says why not. The store lets its bytes go when no
    /// content has them.
    pub fn remove<E: From<io::Error>>(
        &self,
        digest: &str,
        is_needed: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut known = self.lock();
        is_needed()?;
        paths::remove(&self.folder.join(file_name(digest, "json")))?;
        known.uploads.retain(|upload| upload.digest != digest);
        known.changes += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is known is changed after the file is.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(version: &str, digest: &str) -> Upload {
        Upload {
            name: "cart".to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            bytes: 3,
            uploaded_ms: 1,
            uploaded_by: "operator".to_owned(),
        }
    }

    fn named(version: &str) -> KeptPlugin {
        KeptPlugin::Version(PluginVersion {
            name: "cart".to_owned(),
            version: version.to_owned(),
        })
    }

    #[test]
    fn a_version_is_never_other_bytes_than_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let uploads = Uploads::open(folder.path()).expect("it is made");
        let add = |version, digest| uploads.add(upload(version, digest), || Ok(()));
        assert!(matches!(add("1.0", "sha256:a"), Ok(Added::New(_))));
        assert!(matches!(add("1.0", "sha256:a"), Ok(Added::There(_))));
        let Ok(Added::Taken(there)) = add("1.0", "sha256:b") else {
            panic!("it was overwritten");
        };
        assert_eq!(there.digest, "sha256:a");
        assert!(matches!(add("1.1", "sha256:b"), Ok(Added::New(_))));
        assert_eq!(uploads.changes(), 2);
        let cannot = uploads.add(upload("1.2", "sha256:c"), || {
            Err(io::Error::other("the disk is full"))
        });
        assert!(cannot.is_err());

        // As a crash leaves it.
        fs::write(folder.path().join(".new-1"), "{\"ver").expect("writable");
        let uploads = Uploads::open(folder.path()).expect("readable");
        assert_eq!(uploads.find(&named("1.0")).as_deref(), Some("sha256:a"));
        assert_eq!(uploads.find(&named("1.2")), None);
        let refused: io::Result<()> =
            uploads.remove("sha256:a", || Err(io::Error::other("needed")));
        assert!(refused.is_err());
        let removed: io::Result<()> = uploads.remove("sha256:a", || Ok(()));
        removed.expect("nothing needs it");
        let uploads = Uploads::open(folder.path()).expect("readable");
        assert_eq!(uploads.list(), [upload("1.1", "sha256:b")]);
        let digest = KeptPlugin::Digest("sha256:b".to_owned());
        assert_eq!(uploads.find(&digest).as_deref(), Some("sha256:b"));
    }
}
