//! Reads the dead letters of a pipeline back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde::Deserialize;

use crate::dead_letter::DeadLetter;
use crate::element::CheckpointId;
use crate::plugin::digest::digest;

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
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let prefix = format!("{{\"pipeline\":{},", serde_json::to_string(pipeline)?);
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    let mut equal: HashMap<String, u32> = HashMap::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.starts_with(prefix.as_bytes()) {
            continue;
        }
        if let Ok(kept) = serde_json::from_slice::<KeptLetter>(&line) {
            let mut id = id_of(&line[prefix.len()..]);
            let before = equal.entry(id.clone()).or_default();
            if *before > 0 {
                id = format!("{id}-{before}");
            }
            *before += 1;
            take(id, kept);
        }
    }
}

/// Of 64 bits: no two of a file's lines have the same.
const ID_DIGITS: usize = 16;

/// The id of a line behind the pipeline's name, where `started_ms` and `checkpoint` are first.
fn id_of(line: &[u8]) -> String {
    let mut fields = line.splitn(3, |&byte| byte == b',');
    let (started, _, rest) = (fields.next(), fields.next(), fields.next());
    let own = [started, rest].map(Option::unwrap_or_default).concat();
    let digits = digest(&own);
    let digits = digits.trim_start_matches("sha256:");
    digits.chars().take(ID_DIGITS).collect()
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
