//! Paths of files: one for each file, matched with patterns, named in messages. And what
//! the standard library does not do with files and folders.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Ends the name of a file that is being written.
pub const PART: &str = ".part";

/// The path of what the process prints to.
pub const STANDARD_OUTPUT: &str = "/dev/stdout";

/// The path of what the log goes to.
pub const STANDARD_ERROR: &str = "/dev/stderr";

/// By their numbers.
const STANDARD: [&str; 3] = ["/dev/stdin", STANDARD_OUTPUT, STANDARD_ERROR];

/// More links than this, one leading to the next, are taken for a circle, as the
/// operating system does.
const LINKS_MAX: usize = 40;

/// One path for one file: absolute, without `.` and `..`, with links followed, also where
/// they lead to what is not there yet. Where they lead in a circle, it is as it is written.
pub fn identity(path: &Path) -> PathBuf {
    match follow(path) {
        Ok(followed) => followed.path,
        Err(_) => absolute(path),
    }
}

/// As [`identity`], for a file that is to be written: links that lead in a circle are an
/// error.
pub fn target(path: &Path) -> io::Result<PathBuf> {
    follow(path).map(|followed| followed.path)
}

/// Whether a path, or a link on its way, leads to devices or to what the process has
/// opened. What is there is never made, nor given another name.
pub fn is_device(path: &Path) -> bool {
    follow(path).is_ok_and(|followed| followed.is_device)
}

/// Where rows go that are written to a path of the pipeline's file: `-` is standard output,
/// which has one name, as checkpoints keep it.
pub fn written_at(folder: &Path, path: &str) -> PathBuf {
    let written = folder.join(path);
    match path == "-" || is_standard_output(&written) {
        true => PathBuf::from(STANDARD_OUTPUT),
        false => written,
    }
}

/// Whether what is written to a path is gone at once.
pub fn is_nowhere(path: &Path) -> bool {
    identity(path) == Path::new("/dev/null")
}

/// Whether a path leads to what the process prints to.
pub fn is_standard_output(path: &Path) -> bool {
    descriptor(path) == Some(1)
}

/// The number of the descriptor that a path leads to, where that is the process's own.
pub fn descriptor(path: &Path) -> Option<u32> {
    let path = identity(path);
    if let Some(number) = (0..).zip(STANDARD).find(|(_, it)| path == Path::new(it)) {
        return Some(number.0);
    }
    let number = path.strip_prefix("/dev/fd").ok().or_else(|| {
        let own = format!("/proc/{}", std::process::id());
        of_open_files(path.strip_prefix(own).ok()?)
    });
    number?.to_str()?.parse().ok()
}

/// The one path that messages and comparisons have for a descriptor.
pub fn descriptor_path(number: u32) -> PathBuf {
    match STANDARD.get(number as usize) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(format!("/dev/fd/{number}")),
    }
}

/// What follows the folder of open files, in the path of one in a process's folder: all its
/// threads have the same.
fn of_open_files(path: &Path) -> Option<&Path> {
    let mut parts = path.components();
    let mut name = parts.next();
    if name.is_some_and(|name| name.as_os_str() == "task") {
        name = parts.nth(1);
    }
    name.is_some_and(|name| name.as_os_str() == "fd")
        .then_some(parts.as_path())
}

/// Whether something has this name, be it a link to what is not there.
pub fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Where a path leads.
struct Followed {
    path: PathBuf,
    is_device: bool,
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(here_if_empty(path)).unwrap_or_else(|_| path.to_owned())
}

fn follow(path: &Path) -> io::Result<Followed> {
    let mut followed = Followed {
        path: PathBuf::new(),
        is_device: false,
    };
    let mut links = 0;
    // What is still to be followed, the next part at the end.
    let mut rest: Vec<OsString> = Vec::new();
    let push_parts = |rest: &mut Vec<OsString>, path: &Path| {
        let parts = path.components().rev();
        rest.extend(parts.map(|part| part.as_os_str().to_owned()));
    };
    push_parts(&mut rest, &absolute(path));
    while let Some(part) = rest.pop() {
        match part.to_str() {
            Some(".") => continue,
            Some("..") => {
                followed.path.pop();
                continue;
            }
            _ => {}
        }
        // The root, which a link may begin with, replaces what was there.
        let here = followed.path.join(&part);
        // Links among them lead to another place in each process.
        followed.is_device = is_of_devices(&here);
        let to = match followed.is_device {
            true => None,
            false => here.read_link().ok(),
        };
        let Some(to) = to else {
            followed.path = here;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            let message = format!(
                "links lead in a circle at {}: make them lead to a file, or give another `path`",
                here.display()
            );
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        push_parts(&mut rest, &to);
    }
    Ok(followed)
}

/// Whether a path without links is one of devices, or of what a process has opened.
fn is_of_devices(path: &Path) -> bool {
    let is_below = |folder: &str| {
        path.strip_prefix(folder)
            .is_ok_and(|it| it != Path::new(""))
    };
    // A disk in memory has files.
    let is_device = is_below("/dev") && !path.starts_with("/dev/shm");
    let in_process = path.strip_prefix("/proc").ok().and_then(|path| {
        let mut parts = path.components();
        parts.next()?;
        of_open_files(parts.as_path())
    });
    is_device || in_process.is_some()
}

/// The name of a file that stays the same however its path is spelled: relative
/// to the pipeline's folder if it is in there, so that the folder can be moved.
/// `folder` is the [`identity`] of that folder.
pub fn name_in(folder: &Path, path: &Path) -> String {
    name_of(folder, &identity(path))
}

/// As [`name_in`], but where the path is that of a link, of the link itself.
pub fn link_name_in(folder: &Path, path: &Path) -> String {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => name_of(folder, &identity(parent).join(name)),
        _ => name_in(folder, path),
    }
}

fn name_of(folder: &Path, file: &Path) -> String {
    let name = file.strip_prefix(folder).unwrap_or(file);
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

/// Whether a path is that of a file below the folder that matches `pattern`, in which each
/// folder's name is matched as a file's is.
pub fn path_matches(folder: &Path, pattern: &str, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(folder) else {
        return false;
    };
    let mut names = below.components().map(|name| name.as_os_str().to_str());
    let is_matched = |part: &str| {
        let name = names.next().flatten();
        name.is_some_and(|name| name_matches(part, name))
    };
    pattern.split('/').all(is_matched) && names.next().is_none()
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

/// A path as messages show it. Bytes that are no text are escaped, as in `\xE9`, so that
/// each name is told from others.
pub fn shown(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            shown += &format!("\\x{byte:02X}");
        }
    }
    shown
}

/// The first few files, and how many more there are.
pub fn show_files<T: AsRef<Path>>(files: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown = files.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|path| self::shown(path.as_ref())).collect();
    let shown = shown.join(", ");
    match files.len().saturating_sub(SHOWN) {
        0 if files.is_empty() => "no files".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What follows the last dot of the file's name.
pub fn extension(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_what_is_not_there_yet() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("it is there");
        let at = |name: &str| folder.join(name);
        for (to, link) in [
            ("missing/real.jsonl", "one"),
            ("one", "two"),
            ("missing/sub/../deep", "folder"),
            (at("else.jsonl").to_str().expect("text"), "absolute"),
        ] {
            symlink(to, at(link)).expect("a link");
        }
        for (path, real) in [
            ("one", "missing/real.jsonl"),
            ("two", "missing/real.jsonl"),
            ("folder/x/../y", "missing/deep/y"),
            ("absolute", "else.jsonl"),
            ("no/such/../file", "no/file"),
        ] {
            assert_eq!(identity(&at(path)), at(real), "{path}");
            assert_eq!(target(&at(path)).expect("no circle"), at(real), "{path}");
            assert!(!is_device(&at(path)), "{path}");
        }
        fs::create_dir(at("missing")).expect("it is writable");
        fs::write(at("missing/real.jsonl"), "").expect("it is writable");
        let found = at("two").canonicalize().expect("it is there");
        assert_eq!(identity(&at("two")), found);
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("it is there");
        symlink("two", folder.join("one")).expect("a link");
        symlink("one", folder.join("two")).expect("a link");
        for path in ["one", "two/below"] {
            let path = folder.join(path);
            let error = target(&path).expect_err("a circle").to_string();
            assert!(error.contains("lead in a circle"), "{error}");
            assert_eq!(identity(&path), path);
        }
    }

    #[test]
    fn a_link_to_a_device_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        symlink("./../../../../../../dev/stdout", &link).expect("a link");
        let devices = ["/dev/null", "/dev/fd/1", "/proc/self/fd/1"].map(Path::new);
        for path in devices.into_iter().chain([&*link]) {
            assert!(is_device(path), "{}", path.display());
            let is_printed_to = path != Path::new("/dev/null");
            assert_eq!(
                is_standard_output(path),
                is_printed_to,
                "{}",
                path.display()
            );
        }
        for path in ["/dev/shm/file", "/development/file", "/proc/self/cwd/file"] {
            assert!(!is_device(Path::new(path)), "{path}");
        }
        for (path, number) in [
            ("/dev/stdin", Some(0)),
            ("/dev/stderr", Some(2)),
            ("/dev/fd/17", Some(17)),
            ("/proc/self/fd/0", Some(0)),
            ("/proc/thread-self/fd/4", Some(4)),
            ("/proc/1/fd/1", None),
            ("/dev/null", None),
        ] {
            assert_eq!(descriptor(Path::new(path)), number, "{path}");
        }
    }

    #[test]
    fn each_name_is_shown_so_that_it_is_told_from_others() {
        for (name, expected) in [
            (&b"day.jsonl"[..], "day.jsonl"),
            ("dayé.jsonl".as_bytes(), "dayé.jsonl"),
            (b"day\xE9.jsonl", "day\\xE9.jsonl"),
            (b"\xFF\xFE/[a]*", "\\xFF\\xFE/[a]*"),
        ] {
            assert_eq!(shown(Path::new(OsStr::from_bytes(name))), expected);
        }
    }

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
