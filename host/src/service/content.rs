//! A pipeline's file and the plugins that it names, as they are at one moment.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::FILE_BYTES_MAX;
use crate::plugin::{self, digest};

/// What a pipeline runs. Two contents with the same digest run the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Of the text and of the plugins.
    pub digest: String,
    pub text: String,
    /// The digests of the plugins that could be read, by their paths as they are written.
    pub plugins: BTreeMap<PathBuf, String>,
}

/// Tells whether files have changed, without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileStamp>>);

/// Tells whether one file has changed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a pipeline's file and of the plugins that it names. Links are followed, so that
    /// one that leads elsewhere now is a change.
    pub fn of<'a>(file: &Path, plugins: impl IntoIterator<Item = &'a PathBuf>) -> Stamp {
        let folder = folder_of(file);
        let plugins = plugins.into_iter().map(|plugin| folder.join(plugin));
        let files = std::iter::once(file.to_owned()).chain(plugins);
        Stamp(files.map(|file| FileStamp::of(&file)).collect())
    }
}

impl FileStamp {
    /// Of a file, if it is there.
    pub fn of(file: &Path) -> Option<FileStamp> {
        Some(FileStamp::new(&fs::metadata(file).ok()?))
    }

    /// When it was written or renamed, in ms since 1970.
    pub fn changed_ms(&self) -> i64 {
        let (seconds, nanoseconds) = self.changed;
        seconds * 1_000 + nanoseconds / 1_000_000
    }

    fn new(found: &Metadata) -> FileStamp {
        FileStamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Content {
    /// Reads a pipeline's file and its plugins. `keep` takes the bytes of each plugin, with
    /// their digest. A plugin that cannot be read is left out: the planner says so.
    pub fn read(
        file: &Path,
        keep: impl FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> io::Result<Content> {
        Content::of(file, read_text(file)?, keep)
    }

    /// As [`Content::read`], with this text instead of the file's.
    pub fn of(
        file: &Path,
        text: String,
        mut keep: impl FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> io::Result<Content> {
        let folder = folder_of(file);
        let mut plugins = BTreeMap::new();
        for path in plugin_paths(&text) {
            if let Ok(bytes) = plugin::read(&folder.join(&path)) {
                let digest = digest::digest(&bytes);
                keep(&digest, &bytes)?;
                plugins.insert(path, digest);
            }
        }
        let mut all = text.clone().into_bytes();
        for (path, digest) in &plugins {
            all.extend(format!("\0{}\0{digest}", path.display()).bytes());
        }
        Ok(Content {
            digest: digest::digest(&all),
            text,
            plugins,
        })
    }
}

fn read_text(file: &Path) -> io::Result<String> {
    let found = fs::metadata(file)?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(
            "it is not a pipeline's file: that is a text of at most 4 MiB",
        ));
    }
    fs::read_to_string(file)
}

/// The folder that the paths in a pipeline's file begin in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The paths of the plugins that a pipeline names; none if it is not TOML.
pub fn plugin_paths(text: &str) -> Vec<PathBuf> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let plugins = table.get("plugins").and_then(toml::Value::as_table);
    let paths = plugins.into_iter().flat_map(toml::Table::values);
    let paths = paths.filter_map(|plugin| plugin.get("path")?.as_str());
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_known_by_its_text_and_its_plugins() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.toml");
        fs::write(
            &file,
            "plugins.a.path = \"a.wasm\"\n[plugins.b]\npath = \"b.wasm\"\n",
        )
        .expect("writable");
        fs::write(folder.path().join("a.wasm"), "one").expect("writable");
        let mut kept = Vec::new();
        let mut read = || {
            Content::read(&file, |digest, bytes| {
                kept.push((digest.to_owned(), bytes.to_vec()));
                Ok(())
            })
            .expect("readable")
        };
        let first = read();
        assert_eq!(first, read());
        let stamp = Stamp::of(&file, &plugin_paths(&first.text));
        assert_eq!(first.plugins.len(), 1, "b is not there");

        fs::write(folder.path().join("a.wasm"), "two").expect("writable");
        let second = read();
        assert_ne!(first.digest, second.digest);
        assert_ne!(stamp, Stamp::of(&file, &plugin_paths(&first.text)));
        fs::write(folder.path().join("b.wasm"), "three").expect("writable");
        assert_eq!(read().plugins.len(), 2);
        assert_eq!(kept[0].1, b"one");
        assert_eq!(kept[2].1, b"two");
    }

    #[test]
    fn a_text_that_is_no_toml_names_no_plugin() {
        assert!(plugin_paths("plugins.a.path = ").is_empty());
        assert!(plugin_paths("plugins = 3").is_empty());
    }
}
