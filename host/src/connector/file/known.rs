//! Decides which file is which one of the restored checkpoint.
//!
//! A file is the same if it still has what was read of it, and either its name or its
//! place on the disk (device and inode). So a file may have another name, and another
//! file may have its name. A file that only has the same content is perhaps a copy of
//! one that is gone: whether its rows are new, nobody can tell. One that is only at the
//! same place has been changed, if the disk tells when it was created. Nothing of that is
//! silent, and what would lose rows or read them twice is refused. What was read of a
//! file that is gone stays known, since it may come back.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest;
use super::mark::{FileId, FileMark, Head, LinkNames};
use super::opened::{Changed, Compression, OpenedFile};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position, SourceSnapshot};
use crate::paths::{identity, link_name_in, name_in, shown};
use crate::source::{LeftPartition, SourceContext, SourceError};

/// What the path of objects, and the name of each, begins with.
pub(super) const S3: &str = "s3://";

/// How many files a message names.
const SHOWN: usize = 5;

/// A file to read.
pub(super) struct SourceFile {
    path: PathBuf,
    /// Identifies it in checkpoints.
    pub name: Arc<str>,
    /// Its other names, now and in the checkpoint.
    pub links: LinkNames,
    compression: Compression,
    /// Whether it never changes, and is known by its length and its end.
    is_whole: bool,
    /// Which file it was when it was compared with the checkpoint.
    id: Option<FileId>,
    /// What the checkpoint has of it, perhaps under another name.
    pub restored: Option<PartitionSnapshot>,
}

/// A file of the restored checkpoint.
struct KnownFile<'a> {
    snapshot: &'a PartitionSnapshot,
    mark: Option<FileMark>,
    /// Which of the files to read it is.
    found: Option<usize>,
}

impl SourceFile {
    /// The files at these paths, with other paths of some. `folder` is the pipeline's,
    /// which the names of partitions are relative to.
    pub fn all(
        paths: &[PathBuf],
        links: &HashMap<PathBuf, Vec<PathBuf>>,
        folder: &Path,
        compression: Option<Compression>,
        is_whole: bool,
    ) -> Vec<Self> {
        let folder = identity(folder);
        let files = paths.iter().map(|path| {
            let name = name_in(&folder, path);
            let paths = links.get(path).into_iter().flatten().chain([path]);
            let names: HashSet<String> = paths.map(|path| link_name_in(&folder, path)).collect();
            let others = names.iter().filter(|other| **other != name);
            SourceFile {
                path: path.clone(),
                links: LinkNames::of(others.map(String::as_str)),
                name: name.into(),
                compression: compression.unwrap_or_else(|| Compression::of(path)),
                is_whole,
                id: None,
                restored: None,
            }
        });
        files.collect()
    }

    /// A file with what an object has. `restored` is what the checkpoint has of that, without
    /// a mark: the object is known otherwise.
    pub fn of_object(
        path: PathBuf,
        name: Arc<str>,
        compression: Compression,
        is_whole: bool,
        restored: Option<PartitionSnapshot>,
    ) -> Self {
        SourceFile {
            path,
            name,
            links: LinkNames::of([]),
            compression,
            is_whole,
            id: None,
            restored,
        }
    }

    pub fn open(&self, context: &SourceContext) -> Result<OpenedFile, SourceError> {
        let opened = self.opened();
        let opened = opened.map_err(|cause| self.cannot_read(&cause, context))?;
        if self.id.is_some_and(|id| !id.is(opened.id())) {
            let what = format!("cannot read {}", called(&self.path, &self.name));
            let cause = "another file has got its name just now";
            return Err(context.failed(what, cause, Fault::OUTSIDE));
        }
        Ok(opened)
    }

    fn opened(&self) -> io::Result<OpenedFile> {
        OpenedFile::open_as(&self.path, self.compression, self.is_whole)
    }

    /// Whether it still has what was read of a file.
    fn has_read_of(
        &self,
        known: &KnownFile<'_>,
        context: &SourceContext,
    ) -> Result<bool, SourceError> {
        let Some(mark) = &known.mark else {
            return Ok(true);
        };
        let same = self
            .opened()
            .and_then(|mut file| file.is_same(&mark.read, known.snapshot.position.offset));
        same.map_err(|cause| self.cannot_read(&cause, context))
    }

    fn cannot_read(&self, cause: &io::Error, context: &SourceContext) -> SourceError {
        cannot_read(&self.path, &self.name, cause, context)
    }

    /// The first bytes of its text. What is wrong with them, opening the file tells.
    fn start(&self) -> Vec<u8> {
        let mut start = Vec::new();
        if let Ok(mut file) = self.opened() {
            let _ = file.read(digest::BYTES as usize, &mut start);
        }
        start
    }

    /// Whether its text seems to be that of a file that begins alike.
    fn has_text_of(&self, known: &KnownFile<'_>) -> bool {
        let has = |mark: &FileMark| {
            let mut file = self.opened().ok()?;
            file.has_text_of(&mark.read, known.snapshot.position.offset)
                .ok()
        };
        known.mark.as_ref().and_then(has).unwrap_or_default()
    }
}

impl<'a> KnownFile<'a> {
    fn new(snapshot: &'a PartitionSnapshot) -> Self {
        KnownFile {
            snapshot,
            mark: snapshot.digest.as_deref().map(FileMark::parse),
            found: None,
        }
    }

    fn is_at_end(&self) -> bool {
        self.snapshot.state == PartitionState::Ended
    }

    fn place(&self) -> Option<FileId> {
        self.mark.as_ref()?.file
    }

    /// Whether a file is at its place on the disk, as far as that tells.
    fn is_in_place(&self, file: &SourceFile) -> bool {
        self.place()
            .zip(file.id)
            .is_some_and(|(then, now)| then.is(now))
    }

    /// Whether a file is this one, whatever it has now.
    fn is_surely(&self, file: &SourceFile) -> bool {
        self.place()
            .zip(file.id)
            .is_some_and(|(then, now)| then.is_surely(now))
    }

    fn links(&self) -> LinkNames {
        let links = self.mark.as_ref().map(|mark| &mark.links);
        links.cloned().unwrap_or_default()
    }

    fn has_rows(&self) -> bool {
        let Position { rows, offset, .. } = self.snapshot.position;
        rows.unwrap_or(offset) > 0
    }
}

/// Those of the partitions that are none of these files, by their names and places.
pub(super) fn not_among(files: &[SourceFile], known: &[SourceSnapshot]) -> Vec<PartitionSnapshot> {
    let names: HashSet<&str> = files.iter().map(|file| &*file.name).collect();
    let known = known.iter().flat_map(|task| &task.partitions);
    let mut others: Vec<PartitionSnapshot> = known
        .filter(|known| !names.contains(known.name.as_str()))
        .cloned()
        .collect();
    if !others.is_empty() {
        let ids = files.iter().filter_map(|file| file.path.metadata().ok());
        let ids: Vec<FileId> = ids.map(|metadata| FileId::of(&metadata)).collect();
        others.retain(|known| {
            let place = known.digest.as_deref().map(FileMark::parse);
            let place = place.and_then(|mark| mark.file);
            !place.is_some_and(|place| ids.iter().any(|id| id.is(place)))
        });
    }
    others
}

/// Finds the files of the restored checkpoint among those to read. `listed` are the
/// files that the source's patterns match by now. Returns what the checkpoint has of
/// files that were read to their ends and are gone.
pub(super) fn recognize(
    files: &mut [SourceFile],
    listed: impl Fn() -> Vec<PathBuf>,
    context: &SourceContext,
) -> Result<Vec<PartitionSnapshot>, SourceError> {
    for file in files.iter_mut() {
        let metadata = file.path.metadata();
        let metadata = metadata.map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => is_gone_now(&file.path, context),
            _ => file.cannot_read(&cause, context),
        })?;
        file.id = Some(FileId::of(&metadata));
    }
    let known = context.restored.iter().flat_map(|task| &task.partitions);
    let mut matching = Matching {
        known: known.map(KnownFile::new).collect(),
        is_taken: vec![false; files.len()],
        by_name: (0..)
            .zip(&*files)
            .map(|(at, file)| (&*file.name, at))
            .collect(),
        files,
        renamed: Vec::new(),
        context,
    };
    matching.find_by_name(true)?;
    matching.find_by_place()?;
    matching.find_by_name(false)?;
    matching.check_links()?;
    matching.check_renamed()?;
    matching.check_missing(listed)?;
    matching.check_elsewhere()?;
    let absent = matching.known.iter().filter(|known| known.found.is_none());
    let absent = absent.map(|known| known.snapshot.clone()).collect();
    let found: Vec<(usize, PartitionSnapshot)> = matching
        .known
        .iter()
        .filter_map(|known| Some((known.found?, known.snapshot.clone())))
        .collect();
    for (file, snapshot) in found {
        let file = &mut files[file];
        let links = KnownFile::new(&snapshot).links();
        file.links.add(links, &snapshot.name, &file.name);
        file.restored = Some(snapshot);
    }
    Ok(absent)
}

/// The files of the checkpoint, and those to read.
struct Matching<'a> {
    known: Vec<KnownFile<'a>>,
    files: &'a [SourceFile],
    by_name: HashMap<&'a str, usize>,
    /// Whether a file to read is one of the checkpoint.
    is_taken: Vec<bool>,
    /// Those of the checkpoint that have another name now.
    renamed: Vec<usize>,
    context: &'a SourceContext,
}

impl Matching<'_> {
    fn take(&mut self, known: usize, file: usize) {
        self.known[known].found = Some(file);
        self.is_taken[file] = true;
    }

    /// The file that has the name of one of the checkpoint now.
    fn namesake(&self, known: usize) -> Option<usize> {
        self.by_name.get(&*self.known[known].snapshot.name).copied()
    }

    /// Finds files under their names; `in_place` only those that are at their place on
    /// the disk, too.
    fn find_by_name(&mut self, in_place: bool) -> Result<(), SourceError> {
        for index in 0..self.known.len() {
            let known = &self.known[index];
            let namesake = self.namesake(index).filter(|file| !self.is_taken[*file]);
            let (None, Some(at)) = (known.found, namesake) else {
                continue;
            };
            let file = &self.files[at];
            if (known.is_in_place(file) || !in_place) && file.has_read_of(known, self.context)? {
                let is_replaced = |mark: &FileMark| !mark.head.begins(&file.start());
                if !known.has_rows() && known.mark.as_ref().is_some_and(is_replaced) {
                    tracing::warn!(
                        "source `{}`: {} has been replaced since the checkpoint, before a row of \
                         it was read; it is read as it is now",
                        self.context.node,
                        file.name
                    );
                }
                self.take(index, at);
            }
        }
        Ok(())
    }

    /// The new files, by their places on the disk.
    fn new_by_place(&self) -> HashMap<(u64, u64), Vec<usize>> {
        let mut by_place: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (index, file) in self.files.iter().enumerate() {
            if let (false, Some(id)) = (self.is_taken[index], file.id) {
                by_place.entry(id.place()).or_default().push(index);
            }
        }
        by_place
    }

    /// Finds files at their places on the disk, under other names.
    fn find_by_place(&mut self) -> Result<(), SourceError> {
        let by_place = self.new_by_place();
        for index in 0..self.known.len() {
            let known = &self.known[index];
            let (None, Some(mark)) = (known.found, &known.mark) else {
                continue;
            };
            let Some(then) = mark.file else {
                continue;
            };
            let there = by_place.get(&then.place()).into_iter().flatten().copied();
            for at in there {
                let file = &self.files[at];
                if !self.is_taken[at]
                    && known.is_in_place(file)
                    && file.has_read_of(known, self.context)?
                    && mark.head.begins(&file.start())
                {
                    self.take(index, at);
                    self.renamed.push(index);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Refuses a name that was another one of a file, and has a file of its own by now, as
    /// after `sed -i`: that file's rows were read under the other name.
    fn check_links(&self) -> Result<(), SourceError> {
        for known in &self.known {
            let links = known.links();
            if links.is_empty() || !known.has_rows() {
                continue;
            }
            let PartitionSnapshot { name, position, .. } = known.snapshot;
            let now = known.found.map_or(name.as_str(), |at| &self.files[at].name);
            let is_first = |file: &SourceFile| *file.name == **name && links.has(now);
            let mut new = (0..self.files.len()).filter(|at| !self.is_taken[*at]);
            if let Some(at) = new.find(|at| {
                let file = &self.files[*at];
                links.has(&file.name) || is_first(file)
            }) {
                let link = &self.files[at].name;
                return Err(self.refuse(format!(
                    "{link} was another name of {now} (a link), of which {} were read before \
                     the checkpoint, and is a file of its own now, so that its rows would be read \
                     twice: make it a link again (`ln -f`), or put it elsewhere; if its rows are \
                     new, give it another name, or {}",
                    amount(*position),
                    letting_go(&self.context.node, name, self.context)
                )));
            }
        }
        Ok(())
    }

    /// Tells which files have other names. Refuses one whose old name has another file
    /// with the same content: either may be the one to go on with.
    fn check_renamed(&self) -> Result<(), SourceError> {
        let node = &self.context.node;
        let mut told = Vec::new();
        for &index in &self.renamed {
            let known = &self.known[index];
            let PartitionSnapshot { name, position, .. } = known.snapshot;
            let (read, unit, offset) = (amount(*position), unit(*position), position.offset);
            let Some(now) = known.found.map(|file| &self.files[file].name) else {
                continue;
            };
            let mut line = format!("{now} is {name} of the checkpoint");
            match self.namesake(index) {
                Some(file) if !self.is_taken[file] => {
                    if known.has_rows() && self.files[file].has_read_of(known, self.context)? {
                        return Err(self.refuse(format!(
                            "{now} is the file of which {read} were read before the \
                             checkpoint as {name}, and the file that is {name} now begins with the \
                             same bytes, as a copy does: put one of the two elsewhere, or {}",
                            letting_go(node, name, self.context)
                        )));
                    }
                    let _ = write!(line, ", and {name} is a new file");
                }
                _ => {}
            }
            told.push(format!("{line}; it is read on from {unit} {offset}"));
        }
        for line in told.iter().take(SHOWN) {
            tracing::info!("source `{node}`: {line}");
        }
        if let Some(more @ 1..) = told.len().checked_sub(SHOWN) {
            tracing::info!("source `{node}`: {more} more files have other names than before");
        }
        Ok(())
    }

    /// Refuses files whose rows would be missing or come twice, and tells which others
    /// are gone.
    fn check_missing(&self, listed: impl Fn() -> Vec<PathBuf>) -> Result<(), SourceError> {
        let missing = (0..self.known.len()).filter(|index| self.known[*index].found.is_none());
        let missing: Vec<usize> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.check_list(&missing, listed)?;
        let (by_place, copies) = (
            self.new_by_place(),
            self.copies(missing.iter().map(|&index| &self.known[index])),
        );
        for (&index, copy) in missing.iter().zip(copies) {
            let known = &self.known[index];
            let copy = copy.map(|file| &*self.files[file].name);
            let there = known.place().and_then(|then| by_place.get(&then.place()));
            let mut there = there.into_iter().flatten().map(|&at| &self.files[at]);
            if let Some(changed) = there.find(|file| known.is_surely(file) && known.has_rows()) {
                return Err(self.is_another(known, changed, copy));
            }
            match self.namesake(index) {
                Some(file) if !self.is_taken[file] => {
                    return Err(self.is_another(known, &self.files[file], copy));
                }
                _ if !known.is_at_end() => {
                    let put_back = match copy {
                        Some(copy) => {
                            format!("{copy} begins alike: if it is a copy, give it that name")
                        }
                        None => "put it back, have `path` name it where it is now".to_owned(),
                    };
                    return Err(is_missing(known.snapshot, &put_back, self.context));
                }
                _ => {}
            }
            if let Some(copy) = copy {
                return Err(self.is_copy(known, copy));
            }
        }
        let node = &self.context.node;
        for &index in missing.iter().take(SHOWN) {
            tracing::info!(
                "source `{node}`: {}, which was read to its end, is not among the files to read \
                 any more; if it comes back, it is read on from there",
                self.known[index].snapshot.name
            );
        }
        if let Some(more @ 1..) = missing.len().checked_sub(SHOWN) {
            tracing::info!(
                "source `{node}`: {more} more files that were read to their ends are not among \
                 the files to read any more"
            );
        }
        Ok(())
    }

    /// Refuses new files that other sources had read, and do not read any more, and copies
    /// of them.
    fn check_elsewhere(&self) -> Result<(), SourceError> {
        let left = &self.context.left_by_others;
        let known: Vec<KnownFile<'_>> = left
            .iter()
            .map(|left| KnownFile::new(&left.snapshot))
            .collect();
        let copies = self.copies(&known);
        for ((LeftPartition { source, snapshot }, known), copy) in
            left.iter().zip(&known).zip(copies)
        {
            let read = amount(snapshot.position);
            let letting_go = letting_go(source, &snapshot.name, self.context);
            let is_named = |file: &SourceFile| *file.name == *snapshot.name;
            let new = (0..self.files.len()).filter(|at| !self.is_taken[*at]);
            for file in new.map(|at| &self.files[at]) {
                if known.has_rows()
                    && (known.is_surely(file)
                        || (is_named(file) || known.is_in_place(file))
                            && file.has_read_of(known, self.context)?)
                {
                    return Err(self.refuse(format!(
                        "source `{source}`, which does not read {} any more, had read {read} \
                         of it before the checkpoint, so that its rows would be read twice: \
                         have `{source}` read it again, or {letting_go}",
                        file.name
                    )));
                }
            }
            if let Some(copy) = copy {
                let (name, copy) = (&snapshot.name, &self.files[copy].name);
                return Err(self.refuse(format!(
                    "{copy} begins with the {read} that source `{source}` had read of \
                     {name} before the checkpoint, and does not read any more, so that {copy} is \
                     perhaps a copy whose rows would be read twice: if it is, put it elsewhere, or \
                     give `{source}` the file {name} again; if its rows are new, {letting_go}"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a list of files that is out of date: a file that was renamed since would
    /// be forgotten, and be new to the next run.
    fn check_list(
        &self,
        missing: &[usize],
        listed: impl Fn() -> Vec<PathBuf>,
    ) -> Result<(), SourceError> {
        let places = missing.iter().filter_map(|&index| {
            let then = self.known[index].mark.as_ref()?.file?;
            Some((then.place(), (then, index)))
        });
        let places: HashMap<(u64, u64), (FileId, usize)> = places.collect();
        let paths: HashSet<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        for path in listed() {
            if paths.contains(path.as_path()) {
                continue;
            }
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            let now = FileId::of(&metadata);
            if let Some(&(then, known)) = places.get(&now.place())
                && then.is(now)
            {
                return Err(self.refuse(format!(
                    "{} got the name {} after this run had looked for its files: start it again",
                    self.known[known].snapshot.name,
                    shown(&path)
                )));
            }
        }
        Ok(())
    }

    /// For each missing file, one of the new files that has its content.
    fn copies<'k>(
        &self,
        missing: impl IntoIterator<Item = &'k KnownFile<'k>>,
    ) -> Vec<Option<usize>> {
        let missing: Vec<&KnownFile<'_>> = missing.into_iter().collect();
        let mut by_head: HashMap<&Head, Vec<usize>> = HashMap::new();
        for (index, known) in missing.iter().enumerate() {
            if let (true, Some(mark)) = (known.has_rows(), &known.mark) {
                by_head.entry(&mark.head).or_default().push(index);
            }
        }
        let mut copies = vec![None; missing.len()];
        if by_head.is_empty() {
            return copies;
        }
        for (at, file) in self.files.iter().enumerate() {
            if self.is_taken[at] {
                continue;
            }
            for head in Head::all(&file.start()) {
                for &index in by_head.get(&head).into_iter().flatten() {
                    if copies[index].is_none() && file.has_text_of(missing[index]) {
                        copies[index] = Some(at);
                    }
                }
            }
        }
        copies
    }

    fn refuse(&self, message: String) -> SourceError {
        self.context.refuse(message, Fault::OUTSIDE_LASTING)
    }

    /// A file that has the name of another one, or its place on the disk.
    fn is_another(
        &self,
        known: &KnownFile<'_>,
        file: &SourceFile,
        copy: Option<&str>,
    ) -> SourceError {
        let PartitionSnapshot { name, position, .. } = known.snapshot;
        let (path, offset, read) = (shown(&file.path), position.offset, amount(*position));
        let is_renamed = *file.name != **name;
        let path = match is_renamed {
            true => format!("{path}, which was {name},"),
            false => path,
        };
        let size = file.path.metadata().map_or(0, |metadata| metadata.len());
        let what = match file.compression {
            Compression::None if !file.is_whole && size < offset => format!(
                "{path} is shorter than the {read} that were read of it before the \
                 checkpoint"
            ),
            _ if is_renamed => format!(
                "{path} has been changed in the {read} that were read of it before the \
                 checkpoint"
            ),
            _ => format!(
                "{path} is another file than the one of which {read} were read before the \
                 checkpoint"
            ),
        };
        let put_back = match copy {
            Some(copy) => format!(
                "{copy} begins with them and is perhaps a copy: give it the name {name} again, and \
                 what has the name now another one"
            ),
            None if is_renamed => "put back what was there".to_owned(),
            None => "put that one back, have `path` name it where it is now".to_owned(),
        };
        let letting_go = letting_go(&self.context.node, name, self.context);
        self.refuse(format!("{what}: {put_back}, or {letting_go}"))
    }

    /// A file whose rows may have been read under another name.
    fn is_copy(&self, known: &KnownFile<'_>, copy: &str) -> SourceError {
        let PartitionSnapshot { name, position, .. } = known.snapshot;
        self.refuse(format!(
            "{copy} begins with the {} that were read of {name} before the checkpoint, and \
             {name} is gone, so that {copy} is perhaps a copy whose rows would be read twice: if it \
             is, give it the name {name} again, compressed if and as that was, or put it elsewhere; \
             if its rows are new, put {name} back beside it, or {}",
            amount(*position),
            letting_go(&self.context.node, name, self.context)
        ))
    }
}

/// A file was not read to its end, and is gone: the rest of its rows would be missing
/// without a word.
pub(super) fn is_missing(
    known: &PartitionSnapshot,
    put_back: &str,
    context: &SourceContext,
) -> SourceError {
    let PartitionSnapshot { name, position, .. } = known;
    let unit = unit(*position);
    let message = format!(
        "the checkpoint had read {name} up to {unit} {}, and it is not among the files to read any \
         more: {put_back}, or {}",
        position.offset,
        letting_go(&context.node, name, context)
    );
    context.refuse(message, Fault::OUTSIDE_LASTING)
}

/// What offsets count: rows in a pipe, and in Parquet.
fn unit(position: Position) -> &'static str {
    match position.rows {
        Some(_) => "byte",
        None => "row",
    }
}

/// How much was read.
fn amount(position: Position) -> String {
    format!("{} {}s", position.offset, unit(position))
}

/// What one can do about a file that is to be read as a new one. `source` knows it.
pub(super) fn letting_go(source: &str, name: &str, context: &SourceContext) -> String {
    if !context.are_checkpoints_kept {
        return format!("{} to read it from the beginning", context.beginning_anew());
    }
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@%,=".contains(char);
    let quote = if name.chars().all(is_plain) { "" } else { "'" };
    format!(
        "drop what the checkpoint knows of {name} (`sluicebox run --drop {quote}{source}/{name}\
         {quote}`) to read what has its name, or its content, from the beginning"
    )
}

/// A file was there when the files were looked for.
fn is_gone_now(path: &Path, context: &SourceContext) -> SourceError {
    let cause = "it is gone since this run looked for its files; if it has another name now, \
                 start the run again";
    let what = format!("cannot read {}", shown(path));
    context.failed(what, cause, Fault::OUTSIDE_LASTING)
}

/// What messages call a file. One with what an object has is called as that is.
pub(super) fn called(path: &Path, name: &str) -> String {
    match name.starts_with(S3) {
        true => name.to_owned(),
        false => shown(path),
    }
}

/// `name` is that in checkpoints.
pub(super) fn cannot_read(
    path: &Path,
    name: &str,
    cause: &io::Error,
    context: &SourceContext,
) -> SourceError {
    let what = format!("cannot read {}", called(path, name));
    let fault = Fault::of_io(cause);
    match cause.get_ref().is_some_and(|cause| cause.is::<Changed>()) {
        true => {
            let anew = letting_go(&context.node, name, context);
            let message = format!(
                "{cause}: put back the one that was read, have `path` name it where it is now, or \
                 {anew}"
            );
            context.failed(what, message, fault)
        }
        false => context.failed(what, cause, fault),
    }
}
