//! The names of numbered files: `out-000001.jsonl.gz`, `out-000002.jsonl.gz`, …, and of
//! a checkpoint's: `out-1.parquet`, `out-2.parquet`, ….

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
    /// How many digits a number has at least.
    digits: usize,
    /// The list of those that were written.
    pub list: PathBuf,
    /// What is written before it has a number.
    pub open: PathBuf,
}

/// A numbered file that is there.
#[derive(Debug, PartialEq)]
pub(super) struct NumberedFile {
    pub number: u64,
    /// It has its temporary name.
    pub is_part: bool,
    pub path: PathBuf,
}

impl Numbered {
    pub fn of(path: &Path) -> Self {
        let text = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        let stem = stem_of(&text);
        Numbered {
            folder: folder.to_owned(),
            before: format!("{stem}-"),
            after: text[stem.len()..].to_owned(),
            digits: 6,
            list: folder.join(format!(".{text}.written")),
            open: folder.join(format!("{text}{PART}")),
        }
    }

    /// A Parquet file for each checkpoint, with its number.
    pub fn by_checkpoint(path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Numbered {
            before: format!("{stem}-"),
            after: ".parquet".to_owned(),
            digits: 1,
            ..Numbered::of(path)
        }
    }

    /// The names that a path may be one of, and its number.
    pub fn around(path: &Path) -> Option<(Self, u64)> {
        let text = path.file_name()?.to_str()?;
        let stem = stem_of(text);
        let (before, _) = stem.rsplit_once('-')?;
        let path = path.with_file_name(format!("{before}{}", &text[stem.len()..]));
        let both = [Numbered::of(&path), Numbered::by_checkpoint(&path)];
        both.into_iter().find_map(|names| {
            let (number, _) = names.read(text)?;
            Some((names, number))
        })
    }

    pub fn path(&self, number: u64) -> PathBuf {
        let number = self.written(number);
        self.folder
            .join(format!("{}{number}{}", self.before, self.after))
    }

    fn written(&self, number: u64) -> String {
        format!("{number:0width$}", width = self.digits)
    }

    /// Stands for all of them.
    pub fn pattern(&self) -> PathBuf {
        self.folder.join(format!("{}*{}", self.before, self.after))
    }

    /// The files that are there, by their numbers.
    pub fn find(&self) -> io::Result<Vec<NumberedFile>> {
        let mut found = Vec::new();
        for entry in read_folder(&self.folder)? {
            found.extend(self.file(entry?.path()));
        }
        found.sort_by_key(|file| (file.number, file.is_part));
        Ok(found)
    }

    /// The file with this path, if it is called like one of them.
    pub fn file(&self, path: PathBuf) -> Option<NumberedFile> {
        let name = path.file_name().and_then(|name| name.to_str());
        let (number, is_part) = self.read(name?)?;
        Some(NumberedFile {
            number,
            is_part,
            path,
        })
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
        (self.written(number) == digits).then_some((number, is_part))
    }
}

/// A file's name without its extensions.
fn stem_of(name: &str) -> &str {
    let rest = Compression::uncompressed(name);
    match rest.rsplit_once('.') {
        // The dot of a hidden file does not begin an extension.
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => rest,
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
            let around = Numbered::around(&numbered.path(7));
            assert_eq!(around, Some((numbered, 7)), "{path}");
        }
    }

    #[test]
    fn a_parquet_file_has_the_number_of_its_checkpoint() {
        let numbered = Numbered::by_checkpoint(Path::new("a/sales.parquet"));
        assert_eq!(numbered.path(17), Path::new("a/sales-17.parquet"));
        assert_eq!(numbered.read("sales-17.parquet"), Some((17, false)));
        assert_eq!(numbered.read("sales-017.parquet"), None);
        let around = Numbered::around(&numbered.path(17));
        assert_eq!(around, Some((numbered, 17)));
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
