//! Checks that no file of a pipeline is written while something else reads or
//! writes it, however the paths are spelt, and by whichever of its names.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::paths::{PART, identity, name_matches, read_folder, shown};
use crate::suggest;

/// The files of a pipeline and who uses them.
#[derive(Default)]
pub struct Files {
    uses: Vec<FileUse>,
    missing: Vec<MissingFile>,
}

/// Who does what with a file: "sink `out` writes it".
#[derive(Clone)]
pub struct FileUser {
    pub what: String,
    pub place: Option<Span>,
}

struct FileUse {
    user: FileUser,
    targets: Vec<FileTarget>,
    /// Nobody else may use them: it writes them, or takes what is in them.
    is_alone: bool,
}

struct MissingFile {
    path: PathBuf,
    mistake: Mistake,
    /// The help if no file beside it has a similar name.
    help: &'static str,
}

enum FileTarget {
    File(PathBuf),
    /// And everything in it.
    Folder(PathBuf),
    Pattern {
        folder: PathBuf,
        pattern: String,
    },
    /// With digits in between, also as a `.part`.
    Numbered {
        folder: PathBuf,
        before: String,
        after: String,
    },
}

/// How messages and checkpoints name standard input.
pub const STANDARD_INPUT: &str = "standard input";

/// How messages describe the use of the file of dead letters.
pub const DEAD_LETTERS: &str = "the dead letters go there";

impl FileUser {
    pub fn new(what: impl Into<String>, place: Span) -> Self {
        FileUser {
            what: what.into(),
            place: Some(place),
        }
    }
}

impl Files {
    pub fn reads(&mut self, user: FileUser, path: &Path) {
        self.push(user, vec![FileTarget::File(identity(path))], false);
    }

    pub fn reads_pattern(&mut self, user: FileUser, folder: &Path, pattern: &str) {
        let target = FileTarget::Pattern {
            folder: identity(folder),
            pattern: pattern.to_owned(),
        };
        self.push(user, vec![target], false);
    }

    pub fn writes(&mut self, user: FileUser, paths: &[&Path]) {
        let targets = paths.iter().flat_map(|path| names_of(path));
        self.push(user, targets.map(FileTarget::File).collect(), true);
    }

    /// Writes to what others may write to likewise.
    pub fn shares(&mut self, user: FileUser, path: &Path) {
        self.push(user, vec![FileTarget::File(identity(path))], false);
    }

    /// What is read of a pipe, nobody else can read.
    pub fn takes(&mut self, user: FileUser, pipe: &Path) {
        self.push(user, vec![FileTarget::File(identity(pipe))], true);
    }

    pub fn takes_standard_input(&mut self, user: FileUser) {
        let target = FileTarget::File(PathBuf::from(STANDARD_INPUT));
        self.push(user, vec![target], true);
    }

    /// Writes these, and files in the folder with a number in their names.
    pub fn writes_numbered(
        &mut self,
        user: FileUser,
        paths: &[&Path],
        folder: &Path,
        [before, after]: [&str; 2],
    ) {
        let numbered = FileTarget::Numbered {
            folder: identity(folder),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let targets = paths.iter().flat_map(|path| names_of(path));
        let targets = targets.map(FileTarget::File);
        self.push(user, targets.chain([numbered]).collect(), true);
    }

    /// Reserves a folder: nobody else may write anything in it.
    pub fn reserves(&mut self, user: FileUser, folder: &Path) {
        self.push(user, vec![FileTarget::Folder(identity(folder))], false);
    }

    fn push(&mut self, user: FileUser, targets: Vec<FileTarget>, is_alone: bool) {
        self.uses.push(FileUse {
            user,
            targets,
            is_alone,
        });
    }

    /// Notes that a file is missing. That is reported when it is known which files the
    /// pipeline writes itself, since none of them is meant.
    pub fn lacks(&mut self, path: &Path, mistake: Mistake, help: &'static str) {
        self.missing.push(MissingFile {
            path: path.to_owned(),
            mistake,
            help,
        });
    }

    /// Reports the missing files. `dead_letters` is where dead letters go, if there are any.
    pub fn report_missing(&mut self, dead_letters: &Path, mistakes: &mut Diagnostics) {
        let dead_letters = identity(dead_letters);
        for missing in std::mem::take(&mut self.missing) {
            let is_input = |path: &Path| {
                let path = identity(path);
                path.exists() && !path.is_dir() && path != dead_letters && !self.is_own(&path)
            };
            let near = mistakes
                .wants_help()
                .then(|| nearest_file(&missing.path, is_input));
            let help = match near.flatten() {
                Some(near) => format!("did you mean `{near}`?"),
                None => missing.help.to_owned(),
            };
            mistakes.push(missing.mistake.help(help));
        }
    }

    /// Whether the pipeline writes this file, or is written in it.
    fn is_own(&self, path: &Path) -> bool {
        let mut uses = self.uses.iter();
        uses.any(|it| {
            let has_all = |target: &FileTarget| matches!(target, FileTarget::Folder(_));
            let is_itself = it.user.place.is_none();
            (it.is_alone || is_itself || it.targets.iter().any(has_all))
                && it.covers(path).is_some()
        })
    }

    /// Reports each file that somebody writes or takes, and another one uses.
    pub fn report_conflicts(&self, mistakes: &mut Diagnostics) {
        let index = Index::of(&self.uses);
        for (i, user) in self
            .uses
            .iter()
            .enumerate()
            .filter(|(_, user)| user.is_alone)
        {
            // Two of them are one mistake: the later one reports it.
            let others = index.possible(user, self.uses.len()).into_iter();
            let others = others.filter(|&j| j != i && (j < i || !self.uses[j].is_alone));
            let others: Vec<&FileUse> = others.map(|j| &self.uses[j]).collect();
            let written = user.paths().find_map(|path| {
                let mut others = others.iter();
                others.find_map(|other| Some((other, path, other.covers(path)?)))
            });
            let conflict = written.or_else(|| {
                others.iter().find_map(|other| {
                    let mut paths = other.paths();
                    paths.find_map(|path| Some((other, path, user.covers(path)?)))
                })
            });
            if let Some((other, path, name)) = conflict {
                mistakes.push(describe(&user.user, &other.user, path, &name));
            }
        }
    }
}

/// Finds the uses that may be of the same file, so that not each of them is compared with
/// each other: there may be thousands.
#[derive(Default)]
struct Index<'a> {
    by_path: HashMap<&'a OsStr, Vec<usize>>,
    /// Of files with several names.
    by_place: HashMap<(u64, u64), Vec<usize>>,
    /// Of links, by what they lead to.
    by_target: HashMap<PathBuf, Vec<usize>>,
    /// Those of more than single files.
    wide: Vec<usize>,
}

impl<'a> Index<'a> {
    fn of(uses: &'a [FileUse]) -> Self {
        let mut index = Index::default();
        for (i, it) in uses.iter().enumerate() {
            for path in it.paths() {
                index.by_path.entry(path.as_os_str()).or_default().push(i);
                if let Some(place) = linked(path) {
                    index.by_place.entry(place).or_default().push(i);
                }
                if path.is_symlink() {
                    index.by_target.entry(identity(path)).or_default().push(i);
                }
            }
            if it.is_wide() {
                index.wide.push(i);
            }
        }
        index
    }

    /// In their order. `all` is how many uses there are.
    fn possible(&self, user: &FileUse, all: usize) -> BTreeSet<usize> {
        if user.is_wide() {
            return (0..all).collect();
        }
        let mut possible: BTreeSet<usize> = self.wide.iter().copied().collect();
        for path in user.paths() {
            let target = path.is_symlink().then(|| identity(path));
            let found = [
                self.by_path.get(path.as_os_str()),
                linked(path).and_then(|place| self.by_place.get(&place)),
                self.by_target.get(path),
                target.and_then(|target| self.by_path.get(target.as_os_str())),
            ];
            possible.extend(found.into_iter().flatten().flatten());
        }
        possible
    }
}

impl FileUse {
    /// Whether it is of more than single files.
    fn is_wide(&self) -> bool {
        let is_wide = |target: &FileTarget| !matches!(target, FileTarget::File(_));
        self.targets.iter().any(is_wide)
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.targets.iter().filter_map(|target| match target {
            FileTarget::File(path) => Some(path),
            _ => None,
        })
    }

    /// The name by which it uses the file with this path.
    fn covers(&self, path: &Path) -> Option<PathBuf> {
        let mut targets = self.targets.iter();
        match targets.any(|target| target.covers(path)) {
            true => Some(path.to_owned()),
            false => self.link_to(path),
        }
    }

    /// Another name of the same file: a link in a folder, or a hard link.
    fn link_to(&self, path: &Path) -> Option<PathBuf> {
        let place = linked(path);
        let is_it = |name: &PathBuf| {
            (place.is_some() && linked(name) == place)
                || (name.is_symlink() && identity(name) == path)
        };
        self.targets.iter().find_map(|target| match target {
            FileTarget::File(file) => Some(file.clone()).filter(is_it),
            FileTarget::Folder(_) => None,
            FileTarget::Pattern { folder, .. } | FileTarget::Numbered { folder, .. } => {
                let entries = read_folder(folder).ok()?;
                let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                paths.find(|path| target.covers(path) && is_it(path))
            }
        })
    }
}

/// A file that is written, and its name as it is given: that may be a link, which others
/// find when the file is there.
fn names_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let file = identity(path);
    let named = path.parent().zip(path.file_name());
    let named = named.map(|(folder, name)| identity(folder).join(name));
    let link = named.filter(|named| *named != file);
    std::iter::once(file).chain(link)
}

/// Where a file is on the disk that has several names.
fn linked(path: &Path) -> Option<(u64, u64)> {
    let found = path.metadata().ok();
    let found: Metadata = found.filter(|found| found.is_file() && found.nlink() > 1)?;
    Some((found.dev(), found.ino()))
}

impl FileTarget {
    fn covers(&self, path: &Path) -> bool {
        match self {
            FileTarget::File(file) => file == path,
            FileTarget::Folder(folder) => path.starts_with(folder),
            FileTarget::Pattern { folder, pattern } => {
                let name = path.file_name().and_then(|name| name.to_str());
                path.parent() == Some(folder)
                    && name.is_some_and(|name| name_matches(pattern, name))
            }
            FileTarget::Numbered {
                folder,
                before,
                after,
            } => {
                let name = path.file_name().and_then(|name| name.to_str());
                let number = name.and_then(|name| {
                    let name = name.strip_suffix(PART).unwrap_or(name);
                    name.strip_prefix(&**before)?.strip_suffix(&**after)
                });
                path.parent() == Some(folder)
                    && number.is_some_and(|number| {
                        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                    })
            }
        }
    }
}

/// `path` and `name` are names of the one file.
fn describe(user: &FileUser, other: &FileUser, path: &Path, name: &Path) -> Mistake {
    let link = match path == name {
        true => String::new(),
        false => format!(", linked to {}", shown(name)),
    };
    let mut mistake = Mistake::new(format!(
        "one file is used twice: {}, and {} ({}{link})",
        user.what,
        other.what,
        shown(path)
    ));
    let users = [user, other];
    for user in users {
        if let Some(place) = &user.place {
            mistake = mistake.at(place.clone(), &user.what);
        }
    }
    mistake.help(if path == Path::new(STANDARD_INPUT) {
        "what was read of it is gone: keep one of the sources, and let its readers share it"
    } else if users.iter().any(|user| user.what == DEAD_LETTERS) {
        "give another file to one of them; that of the dead letters is `dead_letters = \"…\"`"
    } else {
        "give another file to one of them"
    })
}

/// Says that there is no file at a path, or that a link there leads to none.
pub fn what_is_missing(path: &Path) -> String {
    match path.read_link() {
        Ok(target) => format!(
            "{} is a link to {}, which does not exist",
            path.display(),
            target.display()
        ),
        Err(_) => format!("there is no file {}", path.display()),
    }
}

/// The file beside the missing `path` whose name is nearest to it, of those that it may be.
fn nearest_file(path: &Path, may_be: impl Fn(&Path) -> bool) -> Option<String> {
    let folder = read_folder(path.parent()?).ok()?;
    let entries = folder.filter_map(|entry| entry.ok());
    let names: Vec<String> = entries
        .filter(|entry| may_be(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let written = path.file_name()?.to_str()?;
    let nearest = suggest::nearest(written, names.iter().map(String::as_str));
    nearest.map(str::to_owned)
}
