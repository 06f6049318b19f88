//! Checks that no file of a pipeline is written while something else reads or
//! writes it, however the paths are spelt.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::suggest;

/// The files of a pipeline and who uses them.
#[derive(Default)]
pub struct Files {
    uses: Vec<FileUse>,
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

/// Ends the name of a file that is being written.
pub const PART: &str = ".part";

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
        let targets = paths.iter().map(|path| FileTarget::File(identity(path)));
        self.push(user, targets.collect(), true);
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
        let targets = paths.iter().map(|path| FileTarget::File(identity(path)));
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

    /// Reports each file that somebody writes or takes, and another one uses.
    pub fn report_conflicts(&self, mistakes: &mut Diagnostics) {
        for (i, user) in self
            .uses
            .iter()
            .enumerate()
            .filter(|(_, user)| user.is_alone)
        {
            // Two of them are one mistake: the later one reports it.
            let others = self.uses.iter().enumerate();
            let others = others.filter(|(j, other)| *j != i && (*j < i || !other.is_alone));
            let others: Vec<&FileUse> = others.map(|(_, other)| other).collect();
            let written = user.paths().find_map(|path| {
                let other = others.iter().find(|other| other.covers(path));
                Some((other?, path))
            });
            let conflict = written.or_else(|| {
                others.iter().find_map(|other| {
                    let path = other.paths().find(|path| user.covers(path));
                    Some((other, path?))
                })
            });
            if let Some((other, path)) = conflict {
                mistakes.push(describe(&user.user, &other.user, path));
            }
        }
    }
}

impl FileUse {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.targets.iter().filter_map(|target| match target {
            FileTarget::File(path) => Some(path),
            _ => None,
        })
    }

    fn covers(&self, path: &Path) -> bool {
        self.targets.iter().any(|target| target.covers(path))
    }
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

fn describe(user: &FileUser, other: &FileUser, path: &Path) -> Mistake {
    let mut mistake = Mistake::new(format!(
        "one file is used twice: {}, and {} ({})",
        user.what,
        other.what,
        path.display()
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

/// The file beside the missing `path` whose name is nearest to it.
pub fn nearest_file(path: &Path) -> Option<String> {
    let folder = read_folder(path.parent()?).ok()?;
    let names: Vec<String> = folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let written = path.file_name()?.to_str()?;
    let nearest = suggest::nearest(written, names.iter().map(String::as_str));
    nearest.map(str::to_owned)
}

/// One path for one file: absolute, without `.` and `..`, with links followed in
/// the part of the path that exists.
pub fn identity(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(here_if_empty(path)).unwrap_or_else(|_| path.to_owned());
    let mut rest: Vec<OsString> = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(found) = existing.canonicalize() {
            let mut identity = found;
            for part in rest.iter().rev() {
                if part == ".." {
                    identity.pop();
                } else {
                    identity.push(part);
                }
            }
            return identity;
        }
        let last = match existing.components().next_back() {
            Some(Component::Normal(name)) => name.to_owned(),
            Some(Component::ParentDir) => "..".into(),
            _ => return absolute,
        };
        rest.push(last);
        match existing.parent() {
            Some(parent) => existing = parent,
            None => return absolute,
        }
    }
}

/// The name of a file that stays the same however its path is spelled: relative
/// to the pipeline's folder if it is in there, so that the folder can be moved.
/// `folder` is the [`identity`] of that folder.
pub fn name_in(folder: &Path, path: &Path) -> String {
    let file = identity(path);
    let name = file.strip_prefix(folder).unwrap_or(&file);
    match name.to_str() {
        Some(name) => name.to_owned(),
        None => name
            .as_os_str()
            .as_encoded_bytes()
            .escape_ascii()
            .to_string(),
    }
}

/// The entries of a folder. The empty path is the current folder: the parent of a
/// `pipeline.toml` that was given without a folder.
pub fn read_folder(folder: &Path) -> io::Result<fs::ReadDir> {
    fs::read_dir(here_if_empty(folder))
}

/// The folder, or `.` where its path is empty.
pub fn here_if_empty(folder: &Path) -> &Path {
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
}

/// Whether a file's name matches `pattern`; `*` stands for any characters. As in
/// a shell, it does not stand for a dot at the beginning.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Removes a file, which may be gone already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Makes the folder of a file that is to be written.
pub fn create_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|cause| {
                let message = format!("cannot make the folder {}: {cause}", folder.display());
                io::Error::new(cause.kind(), message)
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_path_is_where_we_are() {
        let here = std::env::current_dir().expect("tests run somewhere");
        let here = here.canonicalize().expect("it is there");
        assert_eq!(identity(Path::new("")), here);
        let listed = |folder: &str| {
            let entries = read_folder(Path::new(folder)).expect("it can be read");
            entries.count()
        };
        assert_eq!(listed(""), listed("."));
    }
}
