//! Reads the dead letters of a pipeline back.

/// Finds letters without reading all of the file again.
mod index;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

pub use self::index::Index;
use crate::dead_letter::DeadLetter;
use crate::digest::digest;
use crate::element::CheckpointId;

/// A line of the file.
#[derive(Debug, Deserialize)]
pub struct KeptLetter {
    /// When the pipeline started without a checkpoint, in ms since 1970.
    pub started_ms: Option<i64>,
    /// The checkpoint that it comes after.
    pub checkpoint: Option<CheckpointId>,
    #[serde(flatten)]
    pub letter: DeadLetter,
}

/// Gives the dead letters of a pipeline to `take`, with their ids, oldest first. None if there
/// is no file.
///
/// An id is of the line itself but for its checkpoint: it stays the same when other lines go,
/// and when a row that is read again after a crash fails again. Of equal lines, later ones have
/// a number. Nobody is kept from writing meanwhile: what is being written is left out.
pub fn read(
    path: &Path,
    pipeline: &str,
    mut take: impl FnMut(String, KeptLetter),
) -> io::Result<()> {
    let Some(file) = open(path)? else {
        return Ok(());
    };
    let mut equal = EqualLines::default();
    let read = scan(&file, 0, &prefix_of(pipeline)?, |line| {
        let number = equal.number(line.digest);
        take(id_of(line.digest, number), line.kept);
    });
    read.map(drop)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// What the lines of a pipeline begin with.
fn prefix_of(pipeline: &str) -> io::Result<String> {
    let pipeline = serde_json::to_string(pipeline)?;
    Ok(format!("{{\"pipeline\":{pipeline},"))
}

/// A letter in the file.
struct KeptLine {
    /// Where it begins.
    at: u64,
    digest: u64,
    kept: KeptLetter,
}

/// Gives the lines that begin with this, from a place on, to `take`. Returns where the last
/// whole line ends.
fn scan(
    mut file: &File,
    from: u64,
    prefix: &str,
    mut take: impl FnMut(KeptLine),
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    let mut at = from;
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(at);
        }
        if let Some(own) = line.strip_prefix(prefix.as_bytes())
            && let Ok(kept) = serde_json::from_slice(&line)
        {
            let digest = digest_of(own);
            take(KeptLine { at, digest, kept });
        }
        at += line.len() as u64;
    }
}

/// The digest of a line behind the pipeline's name, where `started_ms` and `checkpoint` are
/// first. It has 64 bits: no two of a file's lines have the same.
fn digest_of(line: &[u8]) -> u64 {
    let mut fields = line.splitn(3, |&byte| byte == b',');
    let (started, _, rest) = (fields.next(), fields.next(), fields.next());
    let own = [started, rest].map(Option::unwrap_or_default).concat();
    let digits = digest(&own);
    let digits = digits.trim_start_matches("sha256:").get(..ID_DIGITS);
    let digits = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or_else(|| unreachable!("a digest has 64 such digits"))
}

const ID_DIGITS: usize = 16;

fn id_of(digest: u64, number: u32) -> String {
    match number {
        0 => format!("{digest:0ID_DIGITS$x}"),
        _ => format!("{digest:0ID_DIGITS$x}-{number}"),
    }
}

/// How many lines of each digest there were.
#[derive(Debug, Default)]
struct EqualLines(HashMap<u64, u32>);

impl EqualLines {
    /// How many there were before this one.
    fn number(&mut self, digest: u64) -> u32 {
        let count = self.0.entry(digest).or_default();
        *count += 1;
        *count - 1
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn letters_have_ids_that_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dead.jsonl");
        let line_after = |checkpoint: u64, pipeline: &str, error: &str| {
            format!(
                "{{\"pipeline\":\"{pipeline}\",\"started_ms\":1,\"checkpoint\":{checkpoint},\"node\":\"n\",\
                 \"kind\":\"reject\",\"error\":\"{error}\",\"panic\":null,\"payload\":null,\
                 \"row\":null}}\n"
            )
        };
        let line = |pipeline: &str, error: &str| line_after(2, pipeline, error);
        let ids = |text: &str| {
            fs::write(&path, text).expect("writable");
            let mut ids = Vec::new();
            let read = read(&path, "shop", |id, kept| ids.push((id, kept.letter.error)));
            read.expect("readable");
            ids
        };
        let (one, two, other) = (line("shop", "a"), line("shop", "b"), line("shop2", "a"));
        let all = ids(&[&*one, &other, &two, &one, "{\"pipeline\":\"shop\",\"sta"].concat());
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!(all[2].0, format!("{}-1", all[0].0));
        assert_eq!(ids(&[&*two, &one].concat())[1], all[0]);
        assert_eq!(ids(&two), [all[1].clone()]);
        assert_eq!(ids(&line_after(3, "shop", "b")), [all[1].clone()]);
        fs::remove_file(&path).expect("it is there");
        read(&path, "shop", |_, _| panic!("there is none")).expect("nothing is read");
    }
}
