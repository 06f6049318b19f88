//! Checks that no file of a pipeline is written while something else reads or
//! writes it, however the paths are spelt, and by whichever of its names: also where a
//! shell has made it a descriptor that the process was started with.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::descriptors::inherited;
use crate::paths::{
    PART, STANDARD_ERROR, descriptor, descriptor_path, identity, path_matches, read_folder, shown,
};
use crate::suggest;

/// The files of a pipeline and who uses them.
#[derive(Default)]
pub struct Files {
    uses: Vec<FileUse>,
    missing: Vec<MissingFile>,
}

/// What pipelines that run at the same time must not share: what one of them writes, takes
/// or keeps.
#[derive(Clone, Default)]
pub struct Shared {
    uses: Arc<[FileUse]>,
}

/// Who does what with a file: "sink `out` writes it".
#[derive(Clone)]
pub struct FileUser {
    pub what: String,
    pub place: Option<Span>,
}

#[derive(Clone)]
struct FileUse {
    user: FileUser,
    targets: Vec<FileTarget>,
    usage: Usage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Usage {
    Reads,
    /// A folder: nobody else may write anything in it.
    Keeps,
    /// What it reads is gone for others.
    Takes,
    Writes,
    /// Writes lines that may stand between the lines of others who print.
    Prints,
    /// Writes the log, which may go where rows go on purpose (`2>&1`), but not into a file
    /// that the pipeline names, to be read or written.
    Logs,
}

impl Usage {
    /// Whether two cannot use one file.
    fn minds(self, other: Usage) -> bool {
        use Usage::{Keeps, Logs, Prints, Reads, Takes, Writes};
        match (self, other) {
            (Reads | Keeps, Reads | Keeps) | (Prints, Prints) => false,
            // A run would read its own log for ever.
            (Logs, other) | (other, Logs) => matches!(other, Writes | Keeps | Reads | Takes),
            _ => true,
        }
    }

    /// The same of two pipelines that run at the same time. One may read what the other
    /// writes, and both may add dead letters to one file.
    fn minds_in(self, other: Usage) -> bool {
        use Usage::{Logs, Reads, Takes, Writes};
        match (self, other) {
            (Reads | Logs, _) | (_, Reads | Logs) => false,
            (Takes, Writes) | (Writes, Takes) => false,
            (one, other) => one.minds(other),
        }
    }

    /// Nobody else may use the file.
    fn is_alone(self) -> bool {
        matches!(self, Usage::Takes | Usage::Writes)
    }

    fn only_reads(self) -> bool {
        matches!(self, Usage::Reads | Usage::Takes)
    }

    /// Whether it is compared with those of others, rather than they with it.
    fn is_active(self) -> bool {
        self != Usage::Reads
    }
}

struct MissingFile {
    path: PathBuf,
    mistake: Mistake,
    /// The help if no file beside it has a similar name.
    help: &'static str,
}

#[derive(Clone)]
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
        depth: Depth,
        before: String,
        after: String,
    },
}

/// Where files of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    InFolder,
    /// There, or in folders below, whatever they are called.
    Below,
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
        self.push(user, vec![FileTarget::of(path)], Usage::Reads);
    }

    pub fn reads_pattern(&mut self, user: FileUser, folder: &Path, pattern: &str) {
        let target = FileTarget::Pattern {
            folder: identity(folder),
            pattern: pattern.to_owned(),
        };
        self.push(user, vec![target], Usage::Reads);
    }

    pub fn writes(&mut self, user: FileUser, paths: &[&Path]) {
        let targets = paths.iter().flat_map(|path| names_of(path));
        self.push(user, targets.map(FileTarget::File).collect(), Usage::Writes);
    }

    /// Writes to what others may print to likewise.
    pub fn prints(&mut self, user: FileUser, path: &Path) {
        self.push(user, vec![FileTarget::of(path)], Usage::Prints);
    }

    /// The log goes to standard error.
    pub fn logs(&mut self) {
        let user = FileUser {
            what: "the log goes to it".to_owned(),
            place: None,
        };
        let target = FileTarget::of(Path::new(STANDARD_ERROR));
        self.push(user, vec![target], Usage::Logs);
    }

    /// What is read of a pipe, nobody else can read.
    pub fn takes(&mut self, user: FileUser, pipe: &Path) {
        self.push(user, vec![FileTarget::of(pipe)], Usage::Takes);
    }

    pub fn takes_standard_input(&mut self, user: FileUser) {
        let target = FileTarget::File(PathBuf::from(STANDARD_INPUT));
        self.push(user, vec![target], Usage::Takes);
    }

    /// Writes these, and files with a number in their names.
    pub fn writes_numbered(
        &mut self,
        user: FileUser,
        paths: &[&Path],
        folder: &Path,
        depth: Depth,
        [before, after]: [&str; 2],
    ) {
        let numbered = FileTarget::Numbered {
            folder: identity(folder),
            depth,
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let targets = paths.iter().flat_map(|path| names_of(path));
        let targets = targets.map(FileTarget::File);
        self.push(user, targets.chain([numbered]).collect(), Usage::Writes);
    }

    /// Reserves a folder: nobody else may write anything in it.
    pub fn reserves(&mut self, user: FileUser, folder: &Path) {
        let target = FileTarget::Folder(identity(folder));
        self.push(user, vec![target], Usage::Keeps);
    }

    /// What no other pipeline may use while this one runs.
    pub fn shared(&self) -> Shared {
        let uses = self.uses.iter().filter(|it| it.usage.is_active());
        Shared {
            uses: uses.cloned().collect(),
        }
    }

    fn push(&mut self, user: FileUser, targets: Vec<FileTarget>, usage: Usage) {
        self.uses.push(FileUse {
            user,
            targets,
            usage,
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
            (it.usage.is_alone() || is_itself || it.targets.iter().any(has_all))
                && (it.covers(path) || it.link_to(path, Usage::Writes).is_some())
        })
    }

    /// Reports names that the file system does not take, be it with what is added to them.
    pub fn report_long_names(&self, mistakes: &mut Diagnostics) {
        for FileUse {
            user,
            targets,
            usage,
        } in &self.uses
        {
            let made = targets.iter().find_map(|target| {
                match target {
                    FileTarget::Folder(path) => Some(path),
                    FileTarget::File(path) if *usage == Usage::Writes => Some(path),
                    _ => None,
                }
                .filter(|path| is_too_long(path))
            });
            if let (Some(path), Some(place)) = (made, &user.place) {
                let message = format!(
                    "a name is too long for the file system: {} ({})",
                    user.what,
                    shown(path)
                );
                mistakes.push(
                    Mistake::new(message)
                        .at(place.clone(), &user.what)
                        .help("give a shorter one: `.part` and the like are added to some"),
                );
            }
        }
    }

    /// Reports each file that somebody writes or takes, and another one uses.
    pub fn report_conflicts(&self, mistakes: &mut Diagnostics) {
        let index = Index::of(&self.uses);
        for (i, user) in self.uses.iter().enumerate() {
            if !user.usage.is_active() {
                continue;
            }
            // Two of them are one mistake: the later one reports it.
            let others = index.possible(user, self.uses.len()).into_iter();
            let is_inactive = |j: usize| !self.uses[j].usage.is_active();
            let others = others.filter(|&j| j != i && (j < i || is_inactive(j)));
            let others = others.map(|j| &self.uses[j]);
            let mut others = others.filter(|it| it.usage.minds(user.usage));
            let conflict = others.find_map(|other| {
                let names = other.meets(user).or_else(|| user.meets(other))?;
                Some(names.describe([&user.user, &other.user]))
            });
            if let Some(conflict) = conflict {
                mistakes.push(conflict);
            }
        }
    }
}

impl Shared {
    /// What this pipeline and the other one, called `name`, which runs, use both.
    pub fn conflict(&self, name: &str, other: &Shared) -> Option<String> {
        let index = Index::of(&other.uses);
        self.uses.iter().find_map(|user| {
            let possible = index.possible(user, other.uses.len()).into_iter();
            let mut possible = possible.map(|i| &other.uses[i]);
            possible.find_map(|used| {
                let adds_both = [user, used].iter().all(|it| it.user.what == DEAD_LETTERS);
                if adds_both || !user.usage.minds_in(used.usage) {
                    return None;
                }
                let Names { path, name: by } = used.meets(user).or_else(|| user.meets(used))?;
                let is_pipe = Place::of(path).is_some_and(|place| place.kind == PlaceKind::Pipe);
                Some(format!(
                    "one {} is used by two pipelines: {}, and in pipeline `{name}`, which runs, \
                     {} ({}{}): give another one to one of them, or stop `{name}`",
                    if is_pipe { "pipe" } else { "file" },
                    user.user.what,
                    used.user.what,
                    shown(path),
                    match *path == by {
                        true => String::new(),
                        false => format!(", which is {}", shown(&by)),
                    },
                ))
            })
        })
    }
}

/// Finds the uses that may be of the same file, so that not each of them is compared with
/// each other: there may be thousands.
#[derive(Default)]
struct Index<'a> {
    by_path: HashMap<&'a OsStr, Vec<usize>>,
    by_place: HashMap<Place, Vec<usize>>,
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
                if let Some(place) = Place::of(path) {
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
                Place::of(path).and_then(|place| self.by_place.get(&place)),
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

    /// A file of the other's that it uses, too.
    fn meets<'a>(&self, other: &'a FileUse) -> Option<Names<'a>> {
        other.paths().find_map(|path| {
            let name = match self.covers(path) {
                true => path.to_owned(),
                false => self.link_to(path, other.usage)?,
            };
            // A log between rows is wanted where both are the same descriptor.
            let is_of_logs = [self.usage, other.usage].contains(&Usage::Logs);
            let is_wanted = is_of_logs && [path, &name].iter().all(|it| descriptor(it).is_some());
            (!is_wanted).then_some(Names { path, name })
        })
    }

    fn covers(&self, path: &Path) -> bool {
        self.targets.iter().any(|target| target.covers(path))
    }

    /// Another name of the same file: a link in a folder, a hard link, a descriptor.
    fn link_to(&self, path: &Path, other: Usage) -> Option<PathBuf> {
        // Everybody reads a file from its beginning, and a pipe on from where others were.
        let is_shared = |place: &Place| {
            self.usage.only_reads() && other.only_reads() && place.kind != PlaceKind::Pipe
        };
        let place = Place::of(path).filter(|place| !is_shared(place));
        let is_it = |name: &PathBuf| {
            (place.is_some() && Place::of(name) == place)
                || (name.is_symlink() && identity(name) == path)
        };
        self.targets.iter().find_map(|target| match target {
            FileTarget::File(file) => Some(file.clone()).filter(is_it),
            // A shell has opened something in it.
            FileTarget::Folder(folder) => {
                let opened = opened_path(descriptor(path)?)?;
                opened.starts_with(folder).then_some(opened)
            }
            // A name in one of many folders would be looked for in all of them.
            FileTarget::Numbered {
                depth: Depth::Below,
                ..
            } => None,
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
    let file = file_at(path);
    let named = path.parent().zip(path.file_name());
    let named = named.map(|(folder, name)| identity(folder).join(name));
    let link = named.filter(|named| *named != file && descriptor(named).is_none());
    std::iter::once(file).chain(link)
}

/// One path for one file, and for what the process was started with.
fn file_at(path: &Path) -> PathBuf {
    match descriptor(path) {
        Some(number) => descriptor_path(number),
        None => identity(path),
    }
}

/// What a path leads to, by whichever of its names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    device: u64,
    inode: u64,
    kind: PlaceKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PlaceKind {
    File,
    Pipe,
}

impl Place {
    /// Absent where there is nothing yet, and for what several may use by several names: a
    /// terminal, which is standard output and error at once and is read by people; a socket,
    /// as the system's journal gives for both, and whose two directions have nothing in
    /// common; `/dev/null`, where nothing is mixed.
    fn of(path: &Path) -> Option<Self> {
        let number = match is_standard_input(path) {
            true => Some(0),
            // Others lead to no descriptor: links have been followed.
            false if path.starts_with("/dev") => descriptor(path),
            false => None,
        };
        let found = number.map_or_else(|| fs::metadata(path), inherited).ok()?;
        let kind = match found.file_type() {
            it if it.is_fifo() => PlaceKind::Pipe,
            it if it.is_file() || it.is_block_device() => PlaceKind::File,
            _ => return None,
        };
        Some(Place {
            device: found.dev(),
            inode: found.ino(),
            kind,
        })
    }
}

impl FileTarget {
    fn of(path: &Path) -> Self {
        FileTarget::File(file_at(path))
    }

    fn covers(&self, path: &Path) -> bool {
        match self {
            FileTarget::File(file) => file == path,
            FileTarget::Folder(folder) => path.starts_with(folder),
            FileTarget::Pattern { folder, pattern } => path_matches(folder, pattern, path),
            FileTarget::Numbered {
                folder,
                depth,
                before,
                after,
            } => {
                let is_within = match depth {
                    Depth::InFolder => path.parent() == Some(folder),
                    Depth::Below => path.starts_with(folder),
                };
                is_within && has_number(path, before, after)
            }
        }
    }
}

/// Whether a file's name is a number between these texts.
fn has_number(path: &Path, before: &str, after: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| {
        let name = name.strip_suffix(PART).unwrap_or(name);
        name.strip_prefix(before)?.strip_suffix(after)
    });
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// By which two use one file. They may be the same.
struct Names<'a> {
    path: &'a Path,
    name: PathBuf,
}

impl Names<'_> {
    fn describe(&self, users: [&FileUser; 2]) -> Mistake {
        let Names { path, name } = self;
        let is_opened = |path: &Path| descriptor(path).is_some() || is_standard_input(path);
        let is_pipe = Place::of(path).is_some_and(|place| place.kind == PlaceKind::Pipe);
        let is_redirected = path != name && (is_opened(path) || is_opened(name));
        let names = if path == name {
            shown(path)
        } else if is_redirected || is_pipe {
            format!("both {} and {} lead to it", shown(path), shown(name))
        } else {
            format!("{}, linked to {}", shown(path), shown(name))
        };
        let [first, second] = users;
        let mut mistake = Mistake::new(format!(
            "one {} is used twice: {}, and {} ({names})",
            if is_pipe { "pipe" } else { "file" },
            first.what,
            second.what,
        ));
        for user in users {
            if let Some(place) = &user.place {
                mistake = mistake.at(place.clone(), &user.what);
            }
        }
        mistake.help(if is_redirected {
            "a shell makes two names one (`>`, `>>`, `<`, `2>&1`): redirect one of them to \
             another file or pipe, or change its `path`"
        } else if is_standard_input(path) {
            "what was read of it is gone: keep one of the sources, and let its readers share it"
        } else if users.iter().any(|user| user.what == DEAD_LETTERS) {
            "give another file to one of them; that of the dead letters is `dead_letters = \"…\"`"
        } else {
            "give another file to one of them"
        })
    }
}

/// The path of what the process has under this number, if it has one.
fn opened_path(number: u32) -> Option<PathBuf> {
    let opened = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    opened.is_absolute().then_some(opened)
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new(STANDARD_INPUT)
}

/// Whether the file system takes no such name of a file, or of a folder on the way to it,
/// that is not there yet.
fn is_too_long(path: &Path) -> bool {
    let there = path.ancestors().find(|folder| folder.exists());
    let missing = there.and_then(|folder| Some((folder, path.strip_prefix(folder).ok()?)));
    missing.is_some_and(|(folder, missing)| {
        missing.components().any(|name| {
            let found = folder.join(name).symlink_metadata();
            found.is_err_and(|cause| cause.kind() == ErrorKind::InvalidFilename)
        })
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
