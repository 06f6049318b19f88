//! Where the dead letters of a pipeline are in their file, so that a page of them reads no
//! others.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{EqualLines, KeptLetter, digest_of, id_of, open, prefix_of, scan};

/// The dead letters of a pipeline, oldest first.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    prefix: String,
    /// The file's device and number there; absent where there is no file.
    identity: Option<(u64, u64)>,
    /// So much of the file was read: whole lines.
    bytes: u64,
    letters: Vec<Place>,
    equal: EqualLines,
    /// Of nodes and kinds.
    names: Vec<String>,
}

/// Where a letter is, and what it is found by.
#[derive(Debug)]
struct Place {
    at: u64,
    digest: u64,
    /// Among equal lines.
    number: u32,
    node: u32,
    kind: u32,
}

impl Index {
    /// The letters that are in the file now. What `before` has of the same file is not read
    /// again.
    pub fn of(path: &Path, pipeline: &str, before: Option<Index>) -> io::Result<Index> {
        let prefix = prefix_of(pipeline)?;
        let file = open(path)?;
        let identity = match &file {
            Some(file) => Some(identity(&file.metadata()?)),
            None => None,
        };
        let before = before.filter(|before| {
            (&*before.path, &before.prefix, before.identity) == (path, &prefix, identity)
        });
        let kept = match (before, &file) {
            (Some(before), Some(file)) if before.has_same_end(file)? => Some(before),
            _ => None,
        };
        let mut index = kept.unwrap_or_else(|| Index {
            path: path.to_owned(),
            prefix,
            identity,
            bytes: 0,
            letters: Vec::new(),
            equal: EqualLines::default(),
            names: Vec::new(),
        });
        if let Some(file) = file {
            index.read_on(&file)?;
        }
        Ok(index)
    }

    fn read_on(&mut self, file: &File) -> io::Result<()> {
        let (letters, equal, names) = (&mut self.letters, &mut self.equal, &mut self.names);
        self.bytes = scan(file, self.bytes, &self.prefix, |line| {
            letters.push(Place {
                at: line.at,
                digest: line.digest,
                number: equal.number(line.digest),
                node: number_of(names, &line.kept.letter.node),
                kind: number_of(names, &line.kept.letter.kind),
            });
        })?;
        Ok(())
    }

    /// Whether nothing was cut off or moved since, as far as the last letter tells.
    fn has_same_end(&self, file: &File) -> io::Result<bool> {
        let has_grown = file.metadata()?.len() >= self.bytes;
        match self.letters.len().checked_sub(1) {
            Some(last) if has_grown => Ok(self.read_from(file, last)?.is_some()),
            _ => Ok(false),
        }
    }

    pub fn count(&self) -> usize {
        self.letters.len()
    }

    pub fn id(&self, letter: usize) -> String {
        let Place { digest, number, .. } = self.letters[letter];
        id_of(digest, number)
    }

    pub fn node(&self, letter: usize) -> &str {
        &self.names[self.letters[letter].node as usize]
    }

    pub fn kind(&self, letter: usize) -> &str {
        &self.names[self.letters[letter].kind as usize]
    }

    /// Gives letters to `take` until it has enough. Returns whether they were where they are
    /// looked for.
    pub fn read(
        &self,
        letters: impl IntoIterator<Item = usize>,
        mut take: impl FnMut(usize, KeptLetter) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        let Some(file) = open(&self.path)? else {
            return Ok(self.letters.is_empty());
        };
        for letter in letters {
            let Some(kept) = self.read_from(&file, letter)? else {
                return Ok(false);
            };
            if take(letter, kept).is_break() {
                break;
            }
        }
        Ok(true)
    }

    fn read_from(&self, mut file: &File, letter: usize) -> io::Result<Option<KeptLetter>> {
        let Place { at, digest, .. } = self.letters[letter];
        file.seek(SeekFrom::Start(at))?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line)?;
        let own = line.strip_prefix(self.prefix.as_bytes());
        let is_it = own.is_some_and(|own| digest_of(own) == digest);
        Ok(serde_json::from_slice(&line).ok().filter(|_| is_it))
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// There are few names.
fn number_of(names: &mut Vec<String>, name: &str) -> u32 {
    let known = names.iter().position(|known| known == name);
    let number = known.unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    number as u32
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn line(pipeline: &str, error: &str) -> String {
        format!(
            "{{\"pipeline\":\"{pipeline}\",\"started_ms\":1,\"checkpoint\":2,\"node\":\"n\",\"kind\":\
             \"reject\",\"error\":\"{error}\",\"panic\":null,\"payload\":null,\"row\":null}}\n"
        )
    }

    /// The ids and errors, as the index has them, and as all of the file is read.
    fn found(path: &Path, index: &Index) -> [Vec<(String, String)>; 2] {
        let mut read = Vec::new();
        let all = super::super::read(path, "shop", |id, kept| read.push((id, kept.letter.error)));
        all.expect("readable");
        let mut indexed = Vec::new();
        let is_there = index.read(0..index.count(), |letter, kept| {
            assert_eq!((index.node(letter), index.kind(letter)), ("n", "reject"));
            indexed.push((index.id(letter), kept.letter.error));
            ControlFlow::Continue(())
        });
        assert!(is_there.expect("readable"));
        [indexed, read]
    }

    #[test]
    fn an_index_has_what_the_file_has_whatever_happens_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dead.jsonl");
        let mut index = Index::of(&path, "shop", None).expect("there is no file");
        assert_eq!(index.count(), 0);
        let (one, two, three) = (line("shop", "a"), line("shop", "bb"), line("shop", "ccc"));
        let other = line("shop2", "a");
        let cut = &two[..two.len() - 5];
        for (text, count, has_read) in [
            // It grows, and a line is being written.
            (other.clone(), 0, false),
            ([&*other, &one].concat(), 1, false),
            ([&*other, &one, cut].concat(), 1, true),
            ([&*other, &one, &two, &one].concat(), 3, true),
            ([&*other, &one, &two, &one].concat(), 3, true),
            // Lines go, and others come: those of other pipelines, the last one, all.
            ([&*one, &two, &one, &three].concat(), 4, false),
            ([&*one, &two].concat(), 2, false),
            ([&*one, &three, &two].concat(), 3, false),
            (String::new(), 0, false),
        ] {
            let before = index.bytes;
            fs::write(&path, &text).expect("writable");
            // Where nothing is read twice, nobody notices that the beginning is another.
            let file = fs::OpenOptions::new().write(true).open(&path);
            let file = file.expect("it is there");
            if has_read {
                let end = index.letters.last().expect("it has some").at;
                assert!(
                    index
                        .has_same_end(&File::open(&path).expect("there"))
                        .expect("readable")
                );
                file.write_all_at(&vec![b'x'; end as usize], 0)
                    .expect("writable");
            }
            index = Index::of(&path, "shop", Some(index)).expect("readable");
            assert_eq!(index.count(), count, "{text}");
            fs::write(&path, &text).expect("writable");
            let [indexed, read] = found(&path, &index);
            assert_eq!(indexed, read, "{text}");
            assert!(!has_read || index.bytes >= before);
        }
        fs::write(&path, [&*one, &two].concat()).expect("writable");
        index = Index::of(&path, "shop", Some(index)).expect("readable");
        fs::write(&path, [&*two, &one].concat()).expect("writable");
        let read = index.read(0..2, |_, _| ControlFlow::Continue(()));
        assert!(!read.expect("readable"), "they are elsewhere");
        let of_other = Index::of(&path, "shop2", Some(index)).expect("readable");
        assert_eq!(of_other.count(), 0);
    }
}
