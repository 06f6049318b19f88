//! Which files there are in the folders that are looked at, under which names.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::super::mark::{FileId, Seen};
use super::super::opened::Compression;
use crate::paths::{link_name_in, name_in, name_matches, read_folder, shown};

/// A name, or a pattern of names, in a folder.
#[derive(Clone, Debug)]
pub struct Watched {
    pub folder: PathBuf,
    pub pattern: String,
}

/// Which files are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that the patterns match.
    Matching,
    /// All in the folders, and where links lead to that the patterns match: a file may have
    /// got another name there.
    All,
}

/// A file, under one of its names.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub path: PathBuf,
    pub id: FileId,
    pub size: u64,
    pub seen: Seen,
    /// Whether a pattern matches the name.
    pub matches: bool,
}

/// The files at one moment, each once, those that match first, in the order of their names.
#[derive(Default)]
pub(super) struct Listing {
    pub files: Vec<ListedFile>,
    by_place: HashMap<(u64, u64), usize>,
    /// Files that match and are compressed, by their names. They are not among the files.
    pub compressed: BTreeSet<PathBuf>,
}

impl Listing {
    pub fn of(watched: &[Watched], extent: Extent) -> io::Result<Listing> {
        let mut found: Vec<ListedFile> = Vec::new();
        let mut listing = Listing::default();
        let mut folders: BTreeSet<&Path> = BTreeSet::new();
        let mut led_to: BTreeSet<PathBuf> = BTreeSet::new();
        folders.extend(watched.iter().map(|watched| watched.folder.as_path()));
        for &folder in &folders {
            let here = watched.iter().filter(|watched| watched.folder == folder);
            let patterns: Vec<&str> = here.map(|watched| watched.pattern.as_str()).collect();
            for entry in read_folder(folder)? {
                let name = entry?.file_name();
                let text = name.to_string_lossy();
                let matches = patterns.iter().any(|pattern| name_matches(pattern, &text));
                if !matches && extent == Extent::Matching {
                    continue;
                }
                let path = folder.join(&name);
                if Compression::of(&path) != Compression::None {
                    if matches {
                        listing.compressed.insert(path);
                    }
                    continue;
                }
                if matches && extent == Extent::All && path.is_symlink() {
                    let target = path.canonicalize().ok();
                    led_to.extend(target.and_then(|target| Some(target.parent()?.to_owned())));
                }
                found.extend(listed(path, matches)?);
            }
        }
        for folder in led_to
            .iter()
            .filter(|led_to| !folders.contains(led_to.as_path()))
        {
            for entry in read_folder(folder).into_iter().flatten().flatten() {
                found.extend(listed(folder.join(entry.file_name()), false)?);
            }
        }
        found.sort_by(|one, other| (!one.matches, &one.path).cmp(&(!other.matches, &other.path)));
        for file in found {
            let at = listing.files.len();
            if let std::collections::hash_map::Entry::Vacant(place) =
                listing.by_place.entry(file.id.place())
            {
                place.insert(at);
                listing.files.push(file);
            }
        }
        Ok(listing)
    }

    /// A file, by its place on the disk.
    pub fn find(&self, id: FileId) -> Option<&ListedFile> {
        let &at = self.by_place.get(&id.place())?;
        Some(&self.files[at]).filter(|file| file.id.is(id))
    }
}

impl ListedFile {
    /// Whether a file that is known by this name has it still. Where it is found by a link,
    /// that has the name, or had it when it was read without being followed.
    pub fn is_called(&self, base: &str, folder: &Path) -> bool {
        self.matches
            && (link_name_in(folder, &self.path) == base || name_in(folder, &self.path) == base)
    }

    /// Opens it. `None` if it is not there any more.
    pub fn open(&self) -> io::Result<Option<File>> {
        let file = match File::open(&self.path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        Ok(FileId::of(&file.metadata()?).is(self.id).then_some(file))
    }

    /// Whether its name is that of a copy of a file that was followed under this one: the
    /// patterns match it, or it begins with that name, as `app.log.1` does.
    pub fn may_be_copy_of(&self, base: &str) -> bool {
        let of_copy = self.path.file_name().map(OsStr::as_encoded_bytes);
        let of_file = Path::new(base).file_name().map(OsStr::as_encoded_bytes);
        let begins = of_copy
            .zip(of_file)
            .is_some_and(|(of_copy, of_file)| of_copy.starts_with(of_file));
        self.matches || begins
    }
}

/// `None` where it is no file, or is gone by now. A link that matches stands for the file
/// that it leads to.
fn listed(path: PathBuf, matches: bool) -> io::Result<Option<ListedFile>> {
    let metadata = match matches {
        true => path.metadata(),
        false => path.symlink_metadata(),
    };
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(Some(ListedFile::new(path, &metadata, matches))),
        Ok(_) => Ok(None),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        // Others in the folder are nobody's business.
        Err(_) if !matches => Ok(None),
        Err(cause) => Err(io::Error::new(
            cause.kind(),
            format!("{}: {cause}", shown(&path)),
        )),
    }
}

impl ListedFile {
    fn new(path: PathBuf, metadata: &Metadata, matches: bool) -> Self {
        ListedFile {
            path,
            id: FileId::of(metadata),
            size: metadata.len(),
            seen: Seen::of(metadata),
            matches,
        }
    }
}
