//! Paths of files: one for each file, matched with patterns, named in messages. And what
//! the standard library does not do with files and folders.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Ends the name of a file that is being written.
pub const PART: &str = ".part";

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
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
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

/// Makes the names of files in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(here_if_empty(folder))?.sync_all() {
        // Some file systems have no such thing.
        Err(cause)
            if matches!(
                cause.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// The first few files, and how many more there are.
pub fn show_files<T: AsRef<Path>>(files: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown = files.iter().take(SHOWN);
    let shown: Vec<String> = shown
        .map(|path| path.as_ref().display().to_string())
        .collect();
    let shown = shown.join(", ");
    match files.len().saturating_sub(SHOWN) {
        0 if files.is_empty() => "no files".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
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
