//! Keeps compiled plugins in the user's cache folder, so that only the first
//! start compiles them.
//!
//! Loaded code runs as part of the host. So nobody but the user may be able to
//! write the folder or its files, and a digest shows whether a file is
//! complete. Anything else is compiled again: the cache is never the reason
//! that a plugin does not load.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::clock::{Clock, SystemClock};
use crate::digest::hex;

/// The first bytes of a file; the digest of the rest follows. Must change with
/// the layout of the file.
const MAGIC: &[u8; 16] = b"sluicebox cwasm\n";
const DIGEST_BYTES: usize = 32;
/// When all files take more, those unused for longest are deleted.
const CACHE_BYTES_MAX: u64 = 512 << 20;
/// Mode bits that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// Compiled plugins in a folder. A file's name is made of the plugin's digest
/// and everything that decides how the engine compiles it.
pub struct PluginCache {
    folder: PathBuf,
    user: u32,
    bytes_max: u64,
}

impl PluginCache {
    /// The cache in `sluicebox/plugins` of the user's cache folder, if only the
    /// user can write there.
    pub fn of_user() -> Option<PluginCache> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let caches =
            absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        let folder = caches.join("sluicebox").join("plugins");
        match PluginCache::in_folder(&folder) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(
                    "compiled plugins are not kept, so each start takes longer: {} {error}",
                    folder.display()
                );
                None
            }
        }
    }

    /// A cache in this folder, which is created if needed.
    pub fn in_folder(folder: &Path) -> io::Result<PluginCache> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // SAFETY: the call has no arguments, changes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        let found = std::fs::symlink_metadata(folder)?;
        if !found.is_dir() {
            return Err(io::Error::other("is not a folder"));
        }
        let cache = PluginCache {
            folder: folder.to_owned(),
            user,
            bytes_max: CACHE_BYTES_MAX,
        };
        cache.check_owner(&found)?;
        Ok(cache)
    }

    /// The plugin with this digest as `engine` would compile it, if it is
    /// cached.
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let name = name(engine, digest);
        match self.read(&name) {
            Ok(compiled) => {
                // SAFETY: these bytes were written by `store`, from
                // `serialize`: nobody but this user can write the folder or the
                // file, and their digest is right. Wasmtime checks that its
                // version, settings and processor are the same.
                match unsafe { Component::deserialize(engine, compiled) } {
                    Ok(component) => return Some(component),
                    Err(error) => {
                        tracing::debug!("compiled plugin {name} cannot be used: {error:#}");
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!("compiled plugin {name} cannot be used: it {error}"),
        }
        None
    }

    /// Keeps a compiled component for the next start.
    pub fn store(&self, component: &Component, digest: &str) {
        let name = name(component.engine(), digest);
        if let Err(error) = self.write(component, &name) {
            tracing::debug!("compiled plugin {name} is not kept: {error:#}");
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.folder.join(name))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        self.check_owner(&found)?;
        let mut header = [0; MAGIC.len() + DIGEST_BYTES];
        file.read_exact(&mut header)?;
        let mut compiled = Vec::new();
        (&file).take(self.bytes_max).read_to_end(&mut compiled)?;
        let (magic, digest) = header.split_at(MAGIC.len());
        if magic != MAGIC || digest != content_digest(name, &compiled) {
            return Err(io::Error::other("was not written whole"));
        }
        // Marks the file as used. If that fails, it is deleted sooner.
        let _ = file.set_modified(now());
        Ok(compiled)
    }

    fn write(&self, component: &Component, name: &str) -> anyhow::Result<()> {
        let compiled = component.serialize()?;
        // A temporary file until it is complete; only the user may read it.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&content_digest(name, &compiled))?;
        file.write_all(&compiled)?;
        file.persist(self.folder.join(name))?;
        self.drop_oldest()?;
        Ok(())
    }

    /// Deletes the files that were unused for longest until the rest fits.
    fn drop_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another host may have deleted it meanwhile.
            if let Ok(found) = entry.metadata()
                && found.is_file()
            {
                files.push((found.modified()?, found.len(), entry.path()));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, len, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            std::fs::remove_file(path)?;
            bytes -= len;
        }
        Ok(())
    }

    /// Refuses a file or folder that another user owns or may write.
    fn check_owner(&self, found: &Metadata) -> io::Result<()> {
        if found.uid() != self.user {
            return Err(io::Error::other("belongs to another user; remove it"));
        }
        if found.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other(
                "may be written by other users; take that away with `chmod go-w`",
            ));
        }
        Ok(())
    }
}

fn now() -> SystemTime {
    let since = u64::try_from(SystemClock.now_ms()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_millis(since)
}

/// Depends on the plugin's bytes, the engine's version and its settings.
fn name(engine: &Engine, digest: &str) -> String {
    let mut hash = Digested(Sha256::new());
    hash.0.update(digest);
    engine.precompile_compatibility_hash().hash(&mut hash);
    let mut name = hex(&hash.0.finalize());
    name.push_str(".cwasm");
    name
}

/// Includes the name, so that a renamed file is not taken for another.
fn content_digest(name: &str, compiled: &[u8]) -> [u8; DIGEST_BYTES] {
    let digest = Sha256::new().chain_update(name).chain_update(compiled);
    digest.finalize().into()
}

/// Collects what is hashed, for a digest with all its 256 bits.
struct Digested(Sha256);

impl Hasher for Digested {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |hash, &byte| hash << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The smallest component, in the binary format.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    struct CacheFolder {
        folder: tempfile::TempDir,
        engine: Engine,
    }

    impl CacheFolder {
        /// A cache with the component in it as `one`.
        fn new() -> CacheFolder {
            let case = CacheFolder {
                folder: tempfile::tempdir().expect("a folder"),
                engine: super::super::engine::engine().expect("an engine"),
            };
            case.store("one");
            assert!(case.has("one"));
            case
        }

        fn cache(&self) -> PluginCache {
            PluginCache::in_folder(self.folder.path()).expect("a cache")
        }

        fn store(&self, digest: &str) {
            let component = Component::new(&self.engine, COMPONENT).expect("a component");
            self.cache().store(&component, digest);
        }

        fn has(&self, digest: &str) -> bool {
            self.cache().load(&self.engine, digest).is_some()
        }

        fn file(&self, digest: &str) -> PathBuf {
            self.folder.path().join(name(&self.engine, digest))
        }

        fn chmod(&self, path: &Path, mode: u32) {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a chmod");
        }
    }

    #[test]
    fn other_plugins_and_other_engines_are_not_found() {
        let case = CacheFolder::new();
        assert!(!case.has("two"));
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(false)).expect("one");
        assert!(case.cache().load(&other, "one").is_none());
    }

    #[test]
    fn broken_files_are_compiled_anew() {
        let case = CacheFolder::new();
        let whole = std::fs::read(case.file("one")).expect("a file");
        for at in [0, MAGIC.len(), MAGIC.len() + DIGEST_BYTES, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(case.file("one"), bytes).expect("a write");
            assert!(!case.has("one"), "with byte {at} changed");
            std::fs::write(case.file("one"), &whole[..at]).expect("a write");
            assert!(!case.has("one"), "cut at {at}");
        }
        std::fs::write(case.file("two"), &whole).expect("a write");
        assert!(!case.has("two"), "another plugin's");
        case.store("one");
        assert!(case.has("one"));
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let case = CacheFolder::new();
        case.chmod(&case.file("one"), 0o620);
        assert!(!case.has("one"));
        case.chmod(&case.file("one"), 0o600);
        assert!(case.has("one"));

        for mode in [0o777, 0o770, 0o702] {
            case.chmod(case.folder.path(), mode);
            let refused = PluginCache::in_folder(case.folder.path()).err();
            let said = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains("chmod go-w"), "{mode:o}: {said}");
        }
        case.chmod(case.folder.path(), 0o700);
    }

    #[test]
    fn links_are_not_followed() {
        let case = CacheFolder::new();
        let elsewhere = case.folder.path().join("elsewhere");
        std::fs::rename(case.file("one"), &elsewhere).expect("a rename");
        std::os::unix::fs::symlink(&elsewhere, case.file("one")).expect("a link");
        assert!(!case.has("one"));

        let link = case.folder.path().join("link");
        std::os::unix::fs::symlink(case.folder.path(), &link).expect("a link");
        assert!(PluginCache::in_folder(&link).is_err());
    }

    #[test]
    fn only_the_owner_may_read_and_write() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("sluicebox").join("plugins");
        PluginCache::in_folder(&folder).expect("a cache");
        let mode = |path: &Path| path.metadata().expect("it").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let case = CacheFolder::new();
        assert_eq!(mode(&case.file("one")), 0o600);
    }

    #[test]
    fn what_was_used_longest_ago_is_dropped() {
        let case = CacheFolder::new();
        case.store("two");
        case.store("three");
        for (digest, age_s) in [("one", 300), ("two", 200), ("three", 100)] {
            let file = File::open(case.file(digest)).expect("a file");
            let then = now() - Duration::from_secs(age_s);
            file.set_modified(then).expect("a time");
        }
        assert!(case.has("one"), "and so it has been used last");
        let bytes = case.file("one").metadata().expect("a file").len();

        let mut cache = case.cache();
        cache.bytes_max = 2 * bytes;
        cache.drop_oldest().expect("a sweep");
        let left = ["one", "two", "three"].map(|digest| case.file(digest).exists());
        assert_eq!(left, [true, false, true]);
    }
}
