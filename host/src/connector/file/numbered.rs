//! The names of numbered files: `out-000001.jsonl.gz`, `out-000002.jsonl.gz`, ….

use std::io;
use std::path::{Path, PathBuf};

use super::opened::Compression;
use crate::paths::{PART, read_folder};

/// How the files of a sink are called, as its path says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbered {
    pub folder: PathBuf,
    /// What is before the number, and behind it.
    pub before: String,
    pub after: String,
}

/// A numbered file that is there.
#[derive(Debug, PartialEq)]
pub(super) struct NumberedFile {
    pub number: u64,
    /// It has its temporary name.
    pub is_part: bool,
    pub path: PathBuf,
}

/// How many files a message names.
const SHOWN: usize = 5;

/// Tells which files a sink deletes because it is to replace what is there: others may
/// be called like its own.
pub(super) fn tell_of_replaced(node: &str, files: &[PathBuf]) {
    if files.is_empty() {
        return;
    }
    let shown = files.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|path| path.display().to_string()).collect();
    let more = match files.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    tracing::warn!(
        "sink `{node}`: `if_exists = \"replace\"` deletes {}{more}",
        shown.join(", ")
    );
}

impl Numbered {
    pub fn of(path: &Path) -> Self {
        let text = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = Compression::uncompressed(&text);
        // The dot of a hidden file does not begin an extension.
        let stem = match rest.rsplit_once('.') {
            Some((stem, _)) if !stem.is_empty() => stem,
            _ => rest,
        };
        Numbered {
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            before: format!("{stem}-"),
            after: text[stem.len()..].to_owned(),
        }
    }

    pub fn path(&self, number: u64) -> PathBuf {
        let name = format!("{}{number:06}{}", self.before, self.after);
        self.folder.join(name)
    }

    /// Stands for all of them.
    pub fn pattern(&self) -> PathBuf {
        self.folder.join(format!("{}*{}", self.before, self.after))
    }

    /// The files that are there, by their numbers.
    pub fn find(&self) -> io::Result<Vec<NumberedFile>> {
        let mut found = Vec::new();
        for entry in read_folder(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some((number, is_part)) = name.and_then(|name| self.read(name)) {
                found.push(NumberedFile {
                    number,
                    is_part,
                    path,
                });
            }
        }
        found.sort_by_key(|file| (file.number, file.is_part));
        Ok(found)
    }

    /// The number in a name, and whether the name is temporary.
    fn read(&self, name: &str) -> Option<(u64, bool)> {
        let rest = name.strip_prefix(&*self.before)?;
        let (rest, is_part) = match rest.strip_suffix(PART) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let digits = rest.strip_suffix(&*self.after)?;
        let number = digits.parse().ok()?;
        (format!("{number:06}") == digits).then_some((number, is_part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_before_the_extensions() {
        for (path, seventh) in [
            ("out.jsonl", "out-000007.jsonl"),
            ("a/out.jsonl.gz", "a/out-000007.jsonl.gz"),
            ("a.b/out.of.it.csv.zst", "a.b/out.of.it-000007.csv.zst"),
            ("out", "out-000007"),
            (".out", ".out-000007"),
            ("out.gz", "out-000007.gz"),
        ] {
            let numbered = Numbered::of(Path::new(path));
            assert_eq!(numbered.path(7), Path::new(seventh), "{path}");
            let name = numbered.path(7);
            let name = name.file_name().and_then(|name| name.to_str());
            let name = name.unwrap_or_default();
            assert_eq!(numbered.read(name), Some((7, false)), "{path}");
            assert_eq!(numbered.read(&format!("{name}.part")), Some((7, true)));
        }
    }

    #[test]
    fn other_names_are_not_numbered() {
        let numbered = Numbered::of(Path::new("out.jsonl"));
        assert_eq!(numbered.read("out-1234567.jsonl"), Some((1_234_567, false)));
        for name in [
            "out.jsonl",
            "out-.jsonl",
            "out-1.jsonl",
            "out-0000001.jsonl",
            "out-00000a.jsonl",
            "out-+00001.jsonl",
            "out-000001.jsonl.gz",
            "out-000001.jsonl.part.part",
            "my-out-000001.jsonl",
            "out-99999999999999999999999.jsonl",
        ] {
            assert_eq!(numbered.read(name), None, "{name}");
        }
    }
}
