//! The list of the numbered files that a pipeline has written. Files of others may be
//! called alike: only those in the list are replaced or deleted.
//!
//! It is a hidden file beside them, `.out.jsonl.written`, which one run at a time has
//! locked. A line has the pipeline, the number of a file (0, if it has none yet), its place
//! on the disk, and its length and a digest if it is complete. A file that is complete is
//! known by what is in it, so that it may be moved and copied; another one by its place. The
//! last line of a number is about the file that this run writes; those before count as long
//! as the files are there: a run may be killed when its file has not taken the place of the
//! one before yet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::digest::{ReadText, RunningDigest, WrittenText};
use super::mark::FileId;
use super::numbered::{Numbered, NumberedFile};
use super::part::{is_other_file, lock_for_this_run, open_own, part_of};
use crate::access::Access;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::paths::{is_taken, remove, show_files};

pub(super) struct Written {
    names: Numbered,
    pipeline: String,
    file: File,
    /// By pipeline and number, those of the last line last.
    known: BTreeMap<(String, u64), Vec<Known>>,
    /// How many lines the list may have before those of files that are gone are removed.
    lines_max: usize,
    lines: usize,
}

/// What the list has of a file.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    file: FileId,
    /// The length of a complete file, and what is in it.
    complete: Option<(u64, WrittenText)>,
}

/// A complete file that is to get its name.
pub(super) struct Staged {
    /// From which on the file is to have its name.
    pub checkpoint: CheckpointId,
    /// A run before has written it, and may have given it its name already.
    pub is_restored: bool,
    pub from: PathBuf,
    pub to: PathBuf,
    /// What is in it. Checkpoints of earlier versions did not note it.
    pub text: Option<WrittenText>,
    /// What had its name when it was complete, and goes.
    pub replaced: Option<FileId>,
}

impl Staged {
    /// What a checkpoint has of them.
    pub fn restored(snapshot: &SinkSnapshot, path: impl Fn(&str) -> PathBuf) -> Vec<Staged> {
        let digests = snapshot.staged_digests.iter().map(Option::as_deref);
        let digests = digests.chain(std::iter::repeat(None));
        let staged = snapshot.staged.iter().zip(digests);
        let staged = staged.map(|((from, to), digest)| Staged {
            checkpoint: CheckpointId::MIN,
            is_restored: true,
            from: path(from),
            to: path(to),
            text: digest.map(WrittenText::parse),
            replaced: None,
        });
        staged.collect()
    }

    /// Notes them in a checkpoint.
    pub fn keep(staged: &[Staged], name: impl Fn(&Path) -> String, snapshot: &mut SinkSnapshot) {
        let names = staged.iter().map(|it| (name(&it.from), name(&it.to)));
        snapshot.staged = names.collect();
        let digests = staged.iter().map(|it| Some(it.text.as_ref()?.to_string()));
        snapshot.staged_digests = digests.collect();
    }
}

/// Stands for a number in the line of a file that has none yet: numbers begin with 1.
const UNNUMBERED: u64 = 0;

/// So many lines are not worth the work to remove any.
const LINES_FEW: usize = if cfg!(test) { 4 } else { 1_000 };

impl Written {
    /// Locks the list, and creates it if needed.
    pub fn open(names: &Numbered, pipeline: &str) -> io::Result<Self> {
        let mut file = open_own(&names.list, None)?;
        lock_for_this_run(&file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |last| last + 1));
        file.seek(SeekFrom::Start(bytes.len() as u64))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut known: BTreeMap<_, Vec<Known>> = BTreeMap::new();
        for (key, line) in text.lines().filter_map(parse) {
            let lines = known.entry(key).or_default();
            lines.retain(|before| before.file != line.file);
            lines.push(line);
        }
        let mut written = Written {
            names: names.clone(),
            pipeline: pipeline.to_owned(),
            file,
            known,
            lines_max: LINES_FEW,
            lines: text.lines().count(),
        };
        written.shorten()?;
        Ok(written)
    }

    /// A file is about to get its first bytes, or more of them.
    pub fn begun(&mut self, number: u64, file: &File) -> io::Result<()> {
        let known = Known {
            file: FileId::of(&file.metadata()?),
            complete: None,
        };
        self.add(number, known)
    }

    /// A file has all its bytes, which are these, and may get its name.
    pub fn completed(&mut self, number: u64, file: &File, text: ReadText) -> io::Result<()> {
        let known = Known {
            file: FileId::of(&file.metadata()?),
            complete: Some((text.length, WrittenText::Whole(text))),
        };
        self.add(number, known)
    }

    /// A file that is complete, and has its temporary name until this checkpoint is
    /// committed.
    pub fn staged(&self, checkpoint: CheckpointId, number: u64) -> Staged {
        let known = self.last(number);
        let complete = known.and_then(|known| known.complete.as_ref());
        let to = self.names.path(number);
        Staged {
            checkpoint,
            is_restored: false,
            from: part_of(&to),
            to,
            text: complete.map(|(_, text)| text.clone()),
            replaced: None,
        }
    }

    /// A file without a number is about to get its first bytes.
    pub fn opened(&mut self, file: &File) -> io::Result<()> {
        self.begun(UNNUMBERED, file)
    }

    /// The file without a number that an earlier run of this pipeline has left, if nobody
    /// writes it now: a run without checkpoints would keep no list.
    pub fn left_open(&self) -> Option<NumberedFile> {
        let file = NumberedFile {
            number: UNNUMBERED,
            is_part: true,
            path: self.names.open.clone(),
        };
        let is_free = || File::open(&file.path).is_ok_and(|it| it.try_lock().is_ok());
        (self.is_own(&file) && is_free()).then_some(file)
    }

    /// Whether this pipeline has written a file, and nobody has changed or protected it.
    pub fn is_own(&self, file: &NumberedFile) -> bool {
        let is_protected = Access::of_path(&file.path).is_some_and(Access::is_read_only);
        // One that cannot be read is somebody else's.
        !is_protected && self.has(file).unwrap_or_default()
    }

    /// Where a file of this number may be.
    fn places(&self, number: u64) -> [PathBuf; 2] {
        let named = match number {
            UNNUMBERED => return [self.names.open.clone(), self.names.open.clone()],
            number => self.names.path(number),
        };
        [part_of(&named), named]
    }

    fn add(&mut self, number: u64, known: Known) -> io::Result<()> {
        if self.last(number) == Some(&known) {
            return Ok(());
        }
        let key = (self.pipeline.clone(), number);
        self.file.write_all(show(&key, &known).as_bytes())?;
        let [part, named] = self.places(number);
        let there = [FileId::of_path(&part)?, FileId::of_path(&named)?];
        let lines = self.known.entry(key).or_default();
        lines.retain(|line| {
            let is_there = line.complete.is_some() || there.contains(&Some(line.file));
            is_there && line.file != known.file
        });
        lines.push(known);
        self.lines += 1;
        self.shorten()
    }

    /// What the list has of a number at last.
    fn last(&self, number: u64) -> Option<&Known> {
        self.known.get(&(self.pipeline.clone(), number))?.last()
    }

    /// Whether this pipeline has written the file, and nobody has changed it since.
    fn has(&self, file: &NumberedFile) -> io::Result<bool> {
        let known = self.known.get(&(self.pipeline.clone(), file.number));
        for known in known.into_iter().flatten() {
            if known.is(&file.path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether nothing is lost that is not this pipeline's, or protected, when the file
    /// goes. An empty temporary file was locked, and not more.
    fn may_go(&self, file: &NumberedFile) -> io::Result<bool> {
        if Access::of_path(&file.path).is_some_and(Access::is_read_only) {
            return Ok(false);
        }
        let is_empty = || match fs::symlink_metadata(&file.path) {
            Ok(found) => Ok(found.is_file() && found.len() == 0),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(true),
            Err(cause) => Err(cause),
        };
        Ok(self.has(file)? || (file.is_part && is_empty()?))
    }

    /// Refuses files that are not known to be this pipeline's.
    pub fn check(&self, files: &[NumberedFile]) -> io::Result<()> {
        let mut others: Vec<&Path> = Vec::new();
        for file in files {
            if !self.may_go(file)? {
                others.push(&file.path);
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{}: called like the numbered files of this sink, and not known to be this \
                 pipeline's, or changed since it wrote them, or read-only: move them away, delete \
                 them yourself, or give the sink another `path`",
                show_files(&others)
            ),
        ))
    }

    /// Deletes a file of this pipeline, which may be gone already.
    pub fn delete(&self, file: &NumberedFile) -> io::Result<()> {
        if is_taken(&file.path) {
            self.check(std::slice::from_ref(file))?;
        }
        remove(&file.path)
    }

    /// Gives a complete file its name, and nothing else that is there meanwhile.
    pub fn give_name(&self, staged: &Staged) -> io::Result<()> {
        let Staged { from, to, .. } = staged;
        let known = self.names.file(to.clone());
        let known = known.and_then(|it| self.last(it.number));
        match known {
            _ if staged.is_restored => match self.has_name(staged, known)? {
                true => Ok(()),
                false => fs::rename(from, to),
            },
            Some(known) if FileId::of_path(from)? == Some(known.file) => {
                match FileId::of_path(to)? {
                    there @ Some(_) if there != staged.replaced => Err(is_not_ours(to)),
                    _ => fs::rename(from, to),
                }
            }
            _ => Err(is_other_file(from)),
        }
    }

    /// Whether the run before has given the file its name: somebody may have taken it away
    /// since, or have written another one under its temporary name. The list may be lost:
    /// then, the checkpoint knows what is in it.
    fn has_name(&self, staged: &Staged, known: Option<&Known>) -> io::Result<bool> {
        let Staged { from, to, .. } = staged;
        let is = |path: &Path| match (known, &staged.text) {
            (None, None) => Ok(true),
            _ if !path.is_file() => Ok(false),
            (Some(known), _) => known.is(path),
            (None, Some(text)) => {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                has_text(&file, length, text)
            }
        };
        let refused = |path: &Path, why: &str| {
            let message = format!(
                "{} {why}: move it away, and put back the file of the checkpoint if that is \
                 elsewhere",
                path.display()
            );
            io::Error::new(ErrorKind::AlreadyExists, message)
        };
        match (is_taken(from), is_taken(to)) {
            (false, _) => Ok(true),
            (true, true) if !is(from)? || is(to)? => Ok(true),
            (true, true) => Err(refused(to, "is there, and the checkpoint does not know it")),
            (true, false) if is(from)? => Ok(false),
            (true, false) => Err(refused(from, "is not the file of the checkpoint")),
        }
    }

    /// Removes the lines of files that are gone, if there may be many. One that is complete
    /// may still be where it had no number.
    fn shorten(&mut self) -> io::Result<()> {
        if self.lines < self.lines_max {
            return Ok(());
        }
        let open = FileId::of_path(&self.names.open)?;
        let may_be_there = |path: &PathBuf| !matches!(FileId::of_path(path), Ok(None));
        let mut known = std::mem::take(&mut self.known);
        known.retain(|(_, number), lines| {
            let is_open = lines.iter().any(|line| Some(line.file) == open);
            is_open || self.places(*number).iter().any(may_be_there)
        });
        self.known = known;
        let lines = self.known.iter();
        let lines = lines.flat_map(|(key, lines)| lines.iter().map(move |line| show(key, line)));
        let lines: Vec<String> = lines.collect();
        let text = lines.concat();
        // If this is interrupted, there are lines twice.
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)?;
        self.file.seek(SeekFrom::End(0))?;
        self.lines = lines.len();
        self.lines_max = 2 * self.lines + LINES_FEW;
        Ok(())
    }
}

impl Drop for Written {
    /// Where nothing was written, the list has served as the lock only.
    fn drop(&mut self) {
        if self.lines == 0 {
            let _ = fs::remove_file(&self.names.list);
        }
        let _ = self.file.unlock();
    }
}

impl Known {
    fn is(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(false),
            Err(cause) => return Err(cause),
        };
        let metadata = file.metadata()?;
        match &self.complete {
            Some((bytes, _)) if *bytes != metadata.len() => Ok(false),
            Some((bytes, then)) => has_text(&file, *bytes, then),
            None => Ok(FileId::of(&metadata).is_of_some_mount(self.file)),
        }
    }
}

/// Whether all of a file, which has so many bytes, is this text.
pub(super) fn has_text(file: &File, bytes: u64, text: &WrittenText) -> io::Result<bool> {
    let mut read = RunningDigest::default();
    read.add_file(file, bytes)?;
    text.is(file, &read)
}

/// Why a file is not written over that got the name of a numbered one.
pub(super) fn is_not_ours(path: &Path) -> io::Error {
    let path = path.display();
    let message = format!("{path} is there, and this run has not written it: move it away");
    io::Error::new(ErrorKind::AlreadyExists, message)
}

/// The list that has this temporary file as a numbered one, which gets its name later.
pub(super) fn list_with(part: &Path, path: &Path) -> Option<PathBuf> {
    let (names, number) = Numbered::around(path)?;
    let text = fs::read(&names.list).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().filter_map(parse);
    let is_known = lines.any(|((_, known), it)| known == number && it.is(part).unwrap_or_default());
    is_known.then_some(names.list)
}

/// Tells which files a sink deletes because it is to replace what is there.
pub(super) fn tell_of_replaced(node: &str, files: &[NumberedFile]) {
    if files.is_empty() {
        return;
    }
    let paths: Vec<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let shown = show_files(&paths);
    tracing::warn!("sink `{node}`: `if_exists = \"replace\"` deletes {shown}");
}

fn show((pipeline, number): &(String, u64), known: &Known) -> String {
    let mut line = format!("{pipeline} {number} {}", known.file);
    if let Some((bytes, text)) = &known.complete {
        let _ = write!(line, " {bytes} {text}");
    }
    line.push('\n');
    line
}

fn parse(line: &str) -> Option<((String, u64), Known)> {
    let mut words = line.split(' ');
    let pipeline = words.next()?.to_owned();
    let number = words.next()?.parse().ok()?;
    let file = FileId::parse(words.next()?)?;
    let complete = match (words.next(), words.next()) {
        (Some(bytes), Some(text)) => Some((bytes.parse().ok()?, WrittenText::parse(text))),
        _ => None,
    };
    Some(((pipeline, number), Known { file, complete }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of numbered files in a folder.
    fn open(folder: &Path, pipeline: &str) -> Written {
        let names = Numbered::of(&folder.join("out.txt"));
        Written::open(&names, pipeline).expect("nobody has it")
    }

    /// Writes a complete file.
    fn write(written: &mut Written, number: u64) -> NumberedFile {
        let path = written.names.path(number);
        let text = format!("rows of {number}");
        fs::write(&path, &text).expect("it is writable");
        let file = File::open(&path).expect("it is there");
        written.begun(number, &file).expect("it is writable");
        let mut digest = RunningDigest::default();
        digest.add(text.as_bytes());
        let completed = written.completed(number, &file, digest.text());
        completed.expect("it is writable");
        written.names.file(path).expect("it has a number")
    }

    #[test]
    fn a_line_that_was_cut_off_says_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut written = open(folder.path(), "one");
        let files = [1, 2].map(|number| write(&mut written, number));
        drop(written);
        let list = folder.path().join(".out.txt.written");
        let text = fs::read(&list).expect("a list");
        for cut in 0..text.len() {
            fs::write(&list, &text[..cut]).expect("it is writable");
            let written = open(folder.path(), "one");
            let whole = text[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(written.has(&files[0]).expect("a list"), whole > 0, "{cut}");
            assert_eq!(written.has(&files[1]).expect("a list"), whole > 2, "{cut}");
        }
        fs::write(&list, &text).expect("it is writable");
        let written = open(folder.path(), "one");
        assert!(files.iter().all(|file| written.has(file).expect("a list")));
        drop(written);
        assert!(!open(folder.path(), "other").has(&files[0]).expect("a list"));
    }

    /// Not only in its last 4 KiB, which is all that earlier versions looked at.
    #[test]
    fn a_file_that_is_edited_anywhere_is_not_the_pipelines_any_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = Numbered::of(&folder.path().join("out.txt"));
        let long = "rows\n".repeat(2_000);
        let edited = format!("ROWS{}", &long[4..]);
        let end = super::super::digest::digest_of(&long.as_bytes()[long.len() - 4096..]);
        for is_of_earlier_version in [false, true] {
            fs::write(names.path(1), &long).expect("it is writable");
            let file = File::open(names.path(1)).expect("it is there");
            let mut written = open(folder.path(), "one");
            let mut digest = RunningDigest::default();
            digest.add(long.as_bytes());
            let completed = written.completed(1, &file, digest.text());
            completed.expect("it is writable");
            drop(written);
            if is_of_earlier_version {
                let file = FileId::of(&file.metadata().expect("it is there"));
                let line = format!("one 1 {file} {} {end}\n", long.len());
                fs::write(&names.list, line).expect("it is writable");
            }
            let written = open(folder.path(), "one");
            let first = names.file(names.path(1)).expect("it has a number");
            assert!(written.has(&first).expect("a list"));
            fs::write(names.path(1), &edited).expect("it is writable");
            assert_eq!(written.has(&first).expect("a list"), is_of_earlier_version);
        }
    }

    /// A run that is killed once it has noted its file has not given it the name yet.
    #[test]
    fn the_file_of_a_run_before_is_known_until_another_has_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut written = open(folder.path(), "one");
        let first = write(&mut written, 1);
        let other = folder.path().join("other");
        fs::write(&other, "other rows of 1").expect("it is writable");
        for is_complete in [false, true] {
            let file = File::open(&other).expect("it is there");
            match is_complete {
                false => written.begun(1, &file).expect("it is writable"),
                true => {
                    let mut digest = RunningDigest::default();
                    digest.add(b"other rows of 1");
                    let completed = written.completed(1, &file, digest.text());
                    completed.expect("it is writable");
                }
            }
            assert!(written.has(&first).expect("a list"));
            drop(written);
            written = open(folder.path(), "one");
            assert!(written.has(&first).expect("a list"));
        }
        fs::rename(&other, &first.path).expect("it is there");
        assert!(written.has(&first).expect("a list"));
        fs::write(&first.path, "somebody's").expect("it is writable");
        assert!(!written.has(&first).expect("a list"));
    }

    /// A run may be killed just then, and the next one reads the list.
    #[test]
    fn a_file_that_is_about_to_get_its_name_stays_in_the_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut written = open(folder.path(), "one");
        for number in 1..50 {
            let path = written.names.open.clone();
            fs::write(&path, format!("rows of {number}")).expect("it is writable");
            let file = File::open(&path).expect("it is there");
            written.opened(&file).expect("it is writable");
            let mut digest = RunningDigest::default();
            digest
                .add_file(&file, file.metadata().expect("it is there").len())
                .expect("it is readable");
            let completed = written.completed(number, &file, digest.text());
            completed.expect("it is writable");
            written.lines_max = 0;
            written.shorten().expect("it is writable");
            if number % 3 == 0 {
                drop(written);
                written = open(folder.path(), "one");
                assert!(written.left_open().is_some());
            }
            let staged = written.staged(1, number);
            assert!(staged.text.is_some(), "{number}");
            fs::rename(&path, &staged.from).expect("it is there");
            written.give_name(&staged).expect("it is known");
            let named = written.names.file(staged.to).expect("it has a number");
            assert!(written.is_own(&named), "{number}");
            fs::remove_file(&named.path).expect("it is there");
        }
        assert!(written.lines < 3 * LINES_FEW, "{}", written.lines);
    }

    #[test]
    fn files_that_are_gone_leave_the_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut written = open(folder.path(), "one");
        let first = write(&mut written, 1);
        for number in 2..2_000 {
            let file = write(&mut written, number);
            fs::remove_file(&file.path).expect("it is there");
        }
        assert!(written.lines < 3 * LINES_FEW, "{}", written.lines);
        drop(written);
        let text = fs::read_to_string(folder.path().join(".out.txt.written")).expect("a list");
        assert!(text.lines().count() < 3 * LINES_FEW);
        let written = open(folder.path(), "one");
        assert!(written.has(&first).expect("a list"));
    }
}
