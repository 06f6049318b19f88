//! Tells when files have changed. They are looked at again and again, and compared by what
//! the file system tells of them: so it does not matter how an editor writes, or where the
//! files are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::file_stamp::FileStamp;

/// Files that are there, as they are.
pub type Files = BTreeMap<PathBuf, FileStamp>;

/// Adds a file, if it is there.
pub fn add(files: &mut Files, file: PathBuf) {
    if let Some(stamp) = FileStamp::of(&file) {
        files.insert(file, stamp);
    }
}

/// What was seen of files, and what was taken.
#[derive(Debug, Default)]
pub struct Watched {
    /// At the last look.
    seen: Files,
    /// What somebody has dealt with; absent before.
    taken: Option<Files>,
}

impl Watched {
    /// Looks at the files. Returns whether there is a change to be taken, which has been the
    /// same twice: what is being written is not.
    pub fn look(&mut self, now: Files) -> bool {
        let is_steady = self.seen == now;
        self.seen = now;
        is_steady && self.has_changed()
    }

    /// Whether the last look has seen something that was not taken.
    pub fn has_changed(&self) -> bool {
        self.taken.as_ref() != Some(&self.seen)
    }

    /// Takes what was seen at the last look. Returns what has changed, unless it is the
    /// first time.
    pub fn take(&mut self) -> Changed {
        let Some(before) = self.taken.replace(self.seen.clone()) else {
            return Changed::default();
        };
        let paths = before.keys().chain(self.seen.keys());
        let differs = |path: &&PathBuf| before.get(*path) != self.seen.get(*path);
        let paths: BTreeSet<PathBuf> = paths.filter(differs).cloned().collect();
        let times = paths.iter().filter_map(|path| self.seen.get(path));
        Changed {
            at_ms: times.map(FileStamp::changed_ms).max(),
            paths,
        }
    }

    /// Other files are looked at from now on. Those that were not before count as taken as
    /// they are now, unless they have changed since `since_ms`; those that are not any more
    /// count as if they had never been.
    pub fn widen(&mut self, now: &Files, since_ms: i64) {
        let Some(taken) = &mut self.taken else {
            return;
        };
        taken.retain(|path, _| now.contains_key(path) || !path.exists());
        for (path, stamp) in now {
            if !self.seen.contains_key(path) && stamp.changed_ms() < since_ms {
                taken.insert(path.clone(), *stamp);
            }
        }
    }
}

/// Files that somebody has changed.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    pub paths: BTreeSet<PathBuf>,
    /// When the last of them was written, in ms since 1970; absent if they are gone.
    pub at_ms: Option<i64>,
}

impl Changed {
    pub fn add(&mut self, other: Changed) {
        self.paths.extend(other.paths);
        self.at_ms = self.at_ms.max(other.at_ms);
    }
}

/// The files that a crate is built of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The folder of its own source, with all below.
    folder: PathBuf,
    /// Manifests and build scripts, if they are there.
    files: BTreeSet<PathBuf>,
    /// What the last build has read.
    read: BTreeSet<PathBuf>,
    /// Where it has read Rust: others may be added there.
    read_folders: BTreeSet<PathBuf>,
}

impl Sources {
    /// Of a crate's folder, whose source begins with the file `library`.
    pub fn of(folder: &Path, library: Option<&Path>) -> Sources {
        let source = library.and_then(Path::parent).map(Path::to_owned);
        Sources {
            folder: source.unwrap_or_else(|| folder.join("src")),
            files: manifest_files(folder).into(),
            ..Sources::default()
        }
    }

    /// Notes what a build has read, of which cargo writes a list beside what it builds.
    pub fn note_build(&mut self, artifact: &Path) {
        let Ok(list) = fs::read_to_string(artifact.with_extension("d")) else {
            return;
        };
        // What build scripts have made is built again when they are.
        let target = artifact.ancestors().nth(3).unwrap_or(artifact);
        let read = listed(&list).into_iter();
        self.read = read.filter(|file| !file.starts_with(target)).collect();
        let folders = self.read.iter().filter_map(|file| file.parent());
        self.read_folders = folders.map(Path::to_owned).collect();
        let has_manifest = |folder: &&Path| folder.join("Cargo.toml").is_file();
        let folders = self.read_folders.iter();
        let crates = folders.filter_map(|folder| folder.ancestors().find(has_manifest));
        let manifests: Vec<PathBuf> = crates.flat_map(manifest_files).collect();
        self.files.extend(manifests);
    }

    /// All of them, as they are.
    pub fn look(&self) -> Files {
        let mut files = Files::new();
        for file in self.files.iter().chain(&self.read) {
            add(&mut files, file.clone());
        }
        walk(&self.folder, true, &mut files);
        for folder in &self.read_folders {
            walk(folder, false, &mut files);
        }
        files
    }
}

fn manifest_files(folder: &Path) -> [PathBuf; 2] {
    ["Cargo.toml", "build.rs"].map(|name| folder.join(name))
}

/// Adds the Rust files of a folder, and of those in it.
fn walk(folder: &Path, deep: bool, files: &mut Files) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            let is_source = name != "target" && !name.to_string_lossy().starts_with('.');
            if deep && is_source {
                walk(&entry.path(), deep, files);
            }
        } else if Path::new(&name).extension().is_some_and(|it| it == "rs") {
            add(files, entry.path());
        }
    }
}

/// The files of a list as `make` reads it: `built: one two\ with\ spaces`.
fn listed(list: &str) -> Vec<PathBuf> {
    let first = list.lines().next().unwrap_or_default();
    let (_, read) = first.split_once(": ").unwrap_or_default();
    let mut files = Vec::new();
    let mut file = String::new();
    for part in read.split(' ') {
        match part.strip_suffix('\\') {
            Some(start) => {
                file.push_str(start);
                file.push(' ');
            }
            None => {
                file.push_str(part);
                files.push(PathBuf::from(std::mem::take(&mut file)));
            }
        }
    }
    files.retain(|file| !file.as_os_str().is_empty());
    files
}

#[cfg(test)]
mod tests;
