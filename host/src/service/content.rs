//! A pipeline's file and the plugins that it names, as they are at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::FILE_BYTES_MAX;
use crate::file_stamp::FileStamp;
use crate::logic::{KeptPlugin, PluginVersion};
use crate::{digest, plugin};

/// What a pipeline runs. Two contents with the same digest run the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Of the text and of the plugins.
    pub digest: String,
    pub text: String,
    /// The digests of the plugins that could be read, by their paths as they are written.
    pub plugins: BTreeMap<PathBuf, String>,
    /// The digests of the plugins that are named otherwise, of those that the service has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, String>,
}

/// Where a service has plugins.
pub trait Shelf {
    /// Takes the bytes of a plugin that was found.
    fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()>;
    /// The digest of one that was uploaded.
    fn find(&self, wanted: &KeptPlugin) -> Option<String>;
}

/// Tells whether files have changed, without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileStamp>>);

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

impl Content {
    /// Reads a pipeline's file and its plugins, which the shelf keeps. A plugin that cannot be
    /// read, or that the shelf does not have, is left out: the planner says so.
    pub fn read(file: &Path, shelf: &impl Shelf) -> io::Result<Content> {
        Content::of(file, read_text(file)?, shelf)
    }

    /// As [`Content::read`], with this text instead of the file's.
    pub fn of(file: &Path, text: String, shelf: &impl Shelf) -> io::Result<Content> {
        let folder = folder_of(file);
        let mut plugins = BTreeMap::new();
        for path in plugin_paths(&text) {
            if let Ok(bytes) = plugin::read(&folder.join(&path)) {
                let digest = digest::digest(&bytes);
                shelf.keep(&digest, &bytes)?;
                plugins.insert(path, digest);
            }
        }
        let kept = kept_plugins(&text).into_iter();
        let kept = kept.filter_map(|wanted| Some((wanted.to_string(), shelf.find(&wanted)?)));
        let kept: BTreeMap<String, String> = kept.collect();
        let mut all = text.clone().into_bytes();
        for (path, digest) in &plugins {
            all.extend(format!("\0{}\0{digest}", path.display()).bytes());
        }
        for (named, digest) in &kept {
            all.extend(format!("\0{named}\0{digest}").bytes());
        }
        Ok(Content {
            digest: digest::digest(&all),
            text,
            plugins,
            kept,
        })
    }

    /// Of all its plugins.
    pub fn digests(&self) -> impl Iterator<Item = &String> {
        self.plugins.values().chain(self.kept.values())
    }
}

/// Reads a pipeline's file.
pub fn read_text(file: &Path) -> io::Result<String> {
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
    let path = |plugin: &toml::Value| Some(PathBuf::from(plugin.get("path")?.as_str()?));
    plugins(text).iter().filter_map(path).collect()
}

/// The plugins that a pipeline names otherwise.
pub fn kept_plugins(text: &str) -> Vec<KeptPlugin> {
    let kept = |plugin: &toml::Value| {
        let of = |key| Some(plugin.get(key)?.as_str()?.to_owned());
        let version = || {
            Some(PluginVersion {
                name: of("name")?,
                version: of("version")?,
            })
        };
        of("digest")
            .map(KeptPlugin::Digest)
            .or_else(|| version().map(KeptPlugin::Version))
    };
    plugins(text).iter().filter_map(kept).collect()
}

fn plugins(text: &str) -> Vec<toml::Value> {
    let mut table: toml::Table = text.parse().unwrap_or_default();
    match table.remove("plugins") {
        Some(toml::Value::Table(plugins)) => plugins.into_iter().map(|(_, it)| it).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What was kept, and one plugin that was uploaded.
    #[derive(Default)]
    struct Noted {
        kept: RefCell<Vec<(String, Vec<u8>)>>,
        uploaded: RefCell<Option<&'static str>>,
    }

    impl Shelf for Noted {
        fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
            let kept = (digest.to_owned(), bytes.to_vec());
            self.kept.borrow_mut().push(kept);
            Ok(())
        }

        fn find(&self, wanted: &KeptPlugin) -> Option<String> {
            assert_eq!(wanted.to_string(), "cart 0.2.0");
            self.uploaded.borrow().map(str::to_owned)
        }
    }

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
        let noted = Noted::default();
        let read = || Content::read(&file, &noted).expect("readable");
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
        let kept = noted.kept.borrow();
        assert_eq!(kept[0].1, b"one");
        assert_eq!(kept[2].1, b"two");
    }

    #[test]
    fn a_plugin_that_is_uploaded_later_makes_another_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.toml");
        let text = "[plugins.a]\nname = \"cart\"\nversion = \"0.2.0\"\n[plugins.b]\nname = \"b\"\n";
        fs::write(&file, text).expect("writable");
        let noted = Noted::default();
        let read = || Content::read(&file, &noted).expect("readable");
        let without = read();
        assert!(without.kept.is_empty());
        *noted.uploaded.borrow_mut() = Some("sha256:1");
        let with = read();
        assert_ne!(with.digest, without.digest);
        assert_eq!(with.digests().collect::<Vec<_>>(), ["sha256:1"]);
        *noted.uploaded.borrow_mut() = Some("sha256:2");
        assert_ne!(with.digest, read().digest);
        let digest = kept_plugins("plugins.a.digest = \"sha256:3\"\nplugins.b.path = \"b.wasm\"");
        assert_eq!(digest, [KeptPlugin::Digest("sha256:3".to_owned())]);
    }

    #[test]
    fn a_text_that_is_no_toml_names_no_plugin() {
        assert!(plugin_paths("plugins.a.path = ").is_empty());
        assert!(plugin_paths("plugins = 3").is_empty());
        assert!(kept_plugins("plugins = 3").is_empty());
    }
}
