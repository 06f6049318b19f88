//! Parts on this machine's disks. While a part is written, it is in a hidden folder beside
//! those that rows name, which readers pass over: `out/.part.jsonl.parts/000007.part`. What a
//! killed run has left is in there, and nowhere else.
//!
//! A list in the same folder has each part that has got its name, by its length and digest.
//! By it, parts are found that go when a run starts from an older checkpoint, or replaces
//! what is there. One run at a time has it locked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::super::beginning::{IfExists, not_gone_on_from};
use super::super::digest::{ReadText, RunningDigest, WrittenText};
use super::super::numbered::Numbered;
use super::super::part::{lock_for_this_run, open_own};
use super::super::written::{has_text, is_not_ours};
use super::Place;
use crate::access::Access;
use crate::checkpoint::crash::{self, Place as CrashPlace};
use crate::checkpoint::snapshot::{PartSnapshot, PartsSnapshot};
use crate::paths::{
    PART, create_folder_of, is_taken, read_folder, remove, show_files, sync_folder,
};
use crate::sink::{SinkContext, SinkError};

/// So many lines are not worth the work to remove any.
const LINES_FEW: usize = 1_000;

/// Where parts are, and how they are called.
#[derive(Clone, Debug)]
pub(in super::super) struct PartNames {
    /// What all folders of rows are in.
    base: PathBuf,
    names: Numbered,
    /// Of parts that have no name yet.
    working: PathBuf,
}

impl PartNames {
    /// Of parts that are called like `file`, in folders below `base`.
    pub fn of(base: &Path, file: &str) -> Self {
        PartNames {
            base: base.to_owned(),
            names: Numbered::of(&base.join(file)),
            working: base.join(format!(".{file}.parts")),
        }
    }

    /// The list of those that have their names.
    pub fn list(&self) -> PathBuf {
        self.working.join("written")
    }

    /// What is before the number in a part's name, and behind it.
    pub fn around(&self) -> [&str; 2] {
        [&self.names.before, &self.names.after]
    }

    /// The first one, if it is in this folder.
    pub fn with_folder(&self, folder: &str) -> PathBuf {
        let folder = folder.to_owned();
        self.path(&PartSnapshot {
            number: 1,
            folder,
            ..PartSnapshot::default()
        })
    }

    /// Stands for all of them.
    pub fn pattern(&self) -> PathBuf {
        let [before, after] = self.around();
        self.base.join(format!("*/{before}*{after}"))
    }

    /// The name of a part below the base.
    fn name(&self, part: &PartSnapshot) -> String {
        let path = self.names.path(part.number);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match part.folder.as_str() {
            "" => name.into_owned(),
            folder => format!("{folder}/{name}"),
        }
    }

    fn path(&self, part: &PartSnapshot) -> PathBuf {
        self.base.join(self.name(part))
    }

    /// Where it is until it has its name.
    fn open(&self, number: u64) -> PathBuf {
        self.working.join(format!("{number:06}{PART}"))
    }

    /// The numbers of parts that have no name yet.
    fn find_open(&self) -> io::Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for entry in read_folder(&self.working)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(PART));
            found.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(found)
    }
}

/// What the list has of a part.
struct Listed {
    pipeline: String,
    number: u64,
    text: ReadText,
    /// Below the base.
    name: String,
}

impl Listed {
    fn show(&self) -> String {
        let mut line = String::new();
        let Listed {
            pipeline,
            number,
            text,
            name,
        } = self;
        let _ = writeln!(line, "{pipeline} {number} {text} {name}");
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        Some(Listed {
            pipeline: words.next()?.to_owned(),
            number: words.next()?.parse().ok()?,
            text: ReadText::parse(words.next()?)?,
            name: words.next()?.to_owned(),
        })
    }
}

pub(in super::super) struct LocalParts {
    node: String,
    pipeline: String,
    names: PartNames,
    list: File,
    /// What goes before the first row: of an earlier run, or from behind the restored
    /// checkpoint.
    obsolete: Vec<Obsolete>,
    /// Complete parts that go on, since the restored checkpoint is older.
    taken_back: BTreeMap<u64, PathBuf>,
}

struct Obsolete {
    path: PathBuf,
    /// What is in a complete part.
    text: Option<ReadText>,
}

/// A part that is being written.
pub(in super::super) struct LocalPart {
    path: PathBuf,
    file: BufWriter<File>,
    /// Of what was written, also of what is still buffered.
    digest: RunningDigest,
}

impl LocalParts {
    /// Finds what the run begins with, and changes nothing yet. Returns with which parts it
    /// goes on.
    pub fn open(
        node: &str,
        names: PartNames,
        if_exists: IfExists,
        context: &SinkContext,
    ) -> Result<(Self, PartsSnapshot), SinkError> {
        let opened = LocalParts::try_open(node, &names, if_exists, context);
        opened.map_err(|cause| SinkError::io(node, names.base.display(), &cause))
    }

    fn try_open(
        node: &str,
        names: &PartNames,
        if_exists: IfExists,
        context: &SinkContext,
    ) -> io::Result<(Self, PartsSnapshot)> {
        create_folder_of(&names.list())?;
        let mut list = open_own(&names.list(), None)?;
        lock_for_this_run(&list)?;
        let listed = read_list(&mut list, &names.base)?;
        let mut place = LocalParts {
            node: node.to_owned(),
            pipeline: context.pipeline.clone(),
            names: names.clone(),
            list,
            obsolete: Vec::new(),
            taken_back: BTreeMap::new(),
        };
        let restored = context.restored.as_ref().and_then(|it| it.parts.clone());
        let restored = match restored {
            Some(restored) => {
                place.go_on(&restored, &listed)?;
                restored
            }
            None => PartsSnapshot {
                next: place.begin_anew(if_exists, &listed)?,
                ..PartsSnapshot::default()
            },
        };
        Ok((place, restored))
    }

    /// Finds the parts of the checkpoint, and those from behind it.
    fn go_on(&mut self, restored: &PartsSnapshot, listed: &[Listed]) -> io::Result<()> {
        let is_own = |it: &&Listed| it.pipeline == self.pipeline;
        let named = |number: u64| {
            let mut own = listed.iter().rev().filter(is_own);
            own.find(|it| it.number == number)
        };
        for part in &restored.open {
            let path = self.names.open(part.number);
            if is_taken(&path) {
                check_beginning(&path, part)?;
                continue;
            }
            // A later checkpoint has it complete.
            let name = named(part.number).map(|it| self.names.base.join(&it.name));
            let Some(complete) = name.filter(|path| path.is_file()) else {
                return Err(is_gone(&path, "goes on with"));
            };
            check_beginning(&complete, part)?;
            self.taken_back.insert(part.number, complete);
        }
        for part in &restored.complete {
            let path = self.names.open(part.number);
            if is_taken(&path) {
                check_beginning(&path, part)?;
            }
        }
        let parts = || restored.open.iter().chain(&restored.complete);
        let is_known = |number: u64| parts().any(|part| part.number == number);
        for number in self.names.find_open()? {
            if number >= restored.next && !is_known(number) {
                let (path, text) = (self.names.open(number), None);
                self.obsolete.push(Obsolete { path, text });
            }
        }
        let later = listed.iter().filter(|it| it.number >= restored.next);
        let later: Vec<&Listed> = later.collect();
        self.obsolete_named(&later)
    }

    /// Returns the number of the first part of a run without a checkpoint.
    fn begin_anew(&mut self, if_exists: IfExists, listed: &[Listed]) -> io::Result<u64> {
        let left = self.names.find_open()?;
        let left: Vec<PathBuf> = left.into_iter().map(|it| self.names.open(it)).collect();
        let named = listed.iter();
        let named = named.filter(|it| is_taken(&self.names.base.join(&it.name)));
        let named: Vec<&Listed> = named.collect();
        match if_exists {
            IfExists::Fail => {
                let has_rows = |path: &&PathBuf| fs::metadata(path).is_ok_and(|it| it.len() > 0);
                let first = named.first().map(|it| self.names.base.join(&it.name));
                match first.or_else(|| left.iter().find(has_rows).cloned()) {
                    Some(first) => return Err(not_gone_on_from(&first, if_exists)),
                    None => self.obsolete_open(left),
                }
            }
            IfExists::Replace => {
                self.obsolete_open(left);
                self.obsolete_named(&named)?;
                if !self.obsolete.is_empty() {
                    let paths: Vec<&Path> = self.obsolete.iter().map(|it| &*it.path).collect();
                    let (node, shown) = (&self.node, show_files(&paths));
                    tracing::warn!("sink `{node}`: `if_exists = \"replace\"` deletes {shown}");
                }
            }
            IfExists::Append => {
                let open = self.names.find_open()?.last().copied();
                let named = listed.iter().map(|it| it.number).max();
                return Ok(open.max(named).map_or(1, |last| last + 1));
            }
        }
        Ok(1)
    }

    fn obsolete_open(&mut self, paths: Vec<PathBuf>) {
        let parts = paths.into_iter().map(|path| Obsolete { path, text: None });
        self.obsolete.extend(parts);
    }

    /// Has complete parts go, unless somebody else has written or changed them.
    fn obsolete_named(&mut self, parts: &[&Listed]) -> io::Result<()> {
        let mut others = Vec::new();
        for part in parts {
            let obsolete = Obsolete {
                path: self.names.base.join(&part.name),
                text: Some(part.text),
            };
            if part.pipeline != self.pipeline || !obsolete.may_go()? {
                others.push(obsolete.path);
            } else {
                self.obsolete.push(obsolete);
            }
        }
        match others.is_empty() {
            true => Ok(()),
            false => Err(cannot_go(&others)),
        }
    }

    fn try_begin(&mut self) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for obsolete in self.obsolete.drain(..) {
            if !obsolete.may_go()? {
                return Err(cannot_go(&[obsolete.path]));
            }
            remove(&obsolete.path)?;
            folders.extend(obsolete.path.parent().map(Path::to_owned));
        }
        for (number, complete) in std::mem::take(&mut self.taken_back) {
            fs::rename(&complete, self.names.open(number))?;
            folders.extend(complete.parent().map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }

    fn try_part(&self, part: &PartSnapshot) -> io::Result<LocalPart> {
        let path = self.names.open(part.number);
        let mut file = open_own(&path, None)?;
        let mut digest = RunningDigest::default();
        digest.add_file(&file, part.bytes)?;
        file.set_len(part.bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(LocalPart {
            path,
            file: BufWriter::with_capacity(64 << 10, file),
            digest,
        })
    }

    fn try_name(&mut self, parts: &[PartSnapshot], is_restored: bool) -> io::Result<()> {
        let is_waiting = |part: &PartSnapshot| is_taken(&self.names.open(part.number));
        let waiting = |part: &&PartSnapshot| !is_restored || is_waiting(part);
        let parts: Vec<&PartSnapshot> = parts.iter().filter(waiting).collect();
        let mut folders = BTreeSet::new();
        for part in &parts {
            let to = self.names.path(part);
            if is_taken(&to) {
                return Err(is_not_ours(&to));
            }
            let folder = to.parent().unwrap_or(&self.names.base);
            // Each that is made is a name in the one above it.
            let missing = folder.ancestors().take_while(|it| !it.exists());
            folders.extend(missing.filter_map(Path::parent).map(Path::to_owned));
            create_folder_of(&to)?;
            folders.insert(folder.to_owned());
            let listed = Listed {
                pipeline: self.pipeline.clone(),
                number: part.number,
                text: ReadText::parse(&part.digest).ok_or(ErrorKind::InvalidData)?,
                name: self.names.name(part),
            };
            self.list.write_all(listed.show().as_bytes())?;
        }
        if parts.is_empty() {
            return Ok(());
        }
        // It knows each part that has its name.
        self.list.sync_data()?;
        for part in &parts {
            crash::point(CrashPlace::CommitBefore);
            fs::rename(self.names.open(part.number), self.names.path(part))?;
            crash::point(CrashPlace::CommitAfter);
        }
        folders.insert(self.names.working.clone());
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }

    fn error(&self, path: &Path, cause: &io::Error) -> SinkError {
        SinkError::io(&self.node, path.display(), cause)
    }
}

impl Place for LocalParts {
    type Part = LocalPart;

    fn begin(&mut self) -> Result<(), SinkError> {
        let begun = self.try_begin();
        begun.map_err(|cause| self.error(&self.names.base, &cause))
    }

    fn open(&mut self, part: &PartSnapshot) -> Result<LocalPart, SinkError> {
        let opened = self.try_part(part);
        opened.map_err(|cause| self.error(&self.names.open(part.number), &cause))
    }

    fn write(&mut self, part: &mut LocalPart, bytes: &[u8]) -> Result<(), SinkError> {
        part.digest.add(bytes);
        let written = part.file.write_all(bytes);
        written.map_err(|cause| self.error(&part.path, &cause))
    }

    fn bytes(&self, part: &LocalPart) -> u64 {
        part.digest.length()
    }

    fn keep(&mut self, part: &mut LocalPart, kept: &mut PartSnapshot) -> Result<(), SinkError> {
        let synced = part.file.flush();
        let synced = synced.and_then(|()| part.file.get_ref().sync_data());
        synced.map_err(|cause| self.error(&part.path, &cause))?;
        kept.bytes = part.digest.length();
        kept.digest = part.digest.text().to_string();
        Ok(())
    }

    fn complete(&mut self, mut part: LocalPart, kept: &mut PartSnapshot) -> Result<(), SinkError> {
        self.keep(&mut part, kept)
    }

    fn name(&mut self, parts: &[PartSnapshot], is_restored: bool) -> Result<(), SinkError> {
        let named = self.try_name(parts, is_restored);
        named.map_err(|cause| self.error(&self.names.base, &cause))
    }
}

impl Drop for LocalParts {
    /// Where no part has got its name, the list has served as the lock only.
    fn drop(&mut self) {
        let is_empty = self.list.metadata().is_ok_and(|it| it.len() == 0);
        let has_parts = self.names.find_open().map_or(true, |it| !it.is_empty());
        if is_empty && !has_parts {
            let _ = remove(&self.names.list());
            let _ = fs::remove_dir(&self.names.working);
        }
        let _ = self.list.unlock();
    }
}

impl Obsolete {
    /// Whether nothing is lost that is not this pipeline's, or protected, when it goes.
    fn may_go(&self) -> io::Result<bool> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(true),
            Err(cause) => return Err(cause),
        };
        let Some(text) = self.text else {
            return Ok(true);
        };
        let metadata = file.metadata()?;
        let is_protected = Access::of(&metadata).is_read_only();
        let is_it = metadata.len() == text.length
            && has_text(&file, text.length, &WrittenText::Whole(text))?;
        Ok(is_it && !is_protected)
    }
}

/// Reads the list, and leaves parts that are gone out of it, if there may be many.
fn read_list(list: &mut File, base: &Path) -> io::Result<Vec<Listed>> {
    let mut text = Vec::new();
    list.read_to_end(&mut text)?;
    // A line that was cut off is of a part that has not got its name.
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    text.truncate(whole.map_or(0, |last| last + 1));
    let text = String::from_utf8_lossy(&text);
    // A file that was written again has the last of its lines.
    let mut names = HashSet::new();
    let mut listed: Vec<Listed> = text.lines().rev().filter_map(Listed::parse).collect();
    listed.retain(|it| names.insert(it.name.clone()));
    listed.reverse();
    let mut length = text.len() as u64;
    if listed.len() > LINES_FEW {
        let before = listed.len();
        // The last one has the number that others come behind.
        let last = listed.iter().map(|it| it.number).max();
        listed.retain(|it| Some(it.number) == last || is_taken(&base.join(&it.name)));
        if listed.len() < before / 2 {
            let lines: String = listed.iter().map(Listed::show).collect();
            // If this is interrupted, there are lines twice.
            list.seek(SeekFrom::Start(0))?;
            list.write_all(lines.as_bytes())?;
            length = lines.len() as u64;
        }
    }
    list.set_len(length)?;
    list.seek(SeekFrom::Start(length))?;
    Ok(listed)
}

/// Refuses a file that does not begin with what the checkpoint has of it.
fn check_beginning(path: &Path, part: &PartSnapshot) -> io::Result<()> {
    let file = File::open(path)?;
    let mut digest = RunningDigest::default();
    let is_long_enough = file.metadata()?.len() >= part.bytes;
    if is_long_enough {
        digest.add_file(&file, part.bytes)?;
    }
    match is_long_enough && digest.text().to_string() == part.digest {
        true => Ok(()),
        false => Err(is_gone(path, "knows")),
    }
}

fn is_gone(path: &Path, what: &str) -> io::Error {
    let path = path.display();
    let message = format!(
        "{path} is not what the checkpoint {what}, or is gone: put it back, or let it go and write \
         new parts with `sluicebox run --drop`"
    );
    io::Error::new(ErrorKind::InvalidData, message)
}

fn cannot_go(paths: &[PathBuf]) -> io::Error {
    let message = format!(
        "{}: in the way, and not what this pipeline has written, or changed since, or read-only: \
         move them away, or delete them yourself",
        show_files(paths)
    );
    io::Error::new(ErrorKind::AlreadyExists, message)
}
