//! Follows files that grow: logs, which are rotated.
//!
//! Each file is a partition, whatever names it gets: it is known by its place on the disk and
//! by what was read of it. A file that was renamed is read to its end, and what has its name
//! then is another one. A file that was cut (logrotate's `copytruncate`) is another one from
//! then on: what was not read before may be in a copy of it in the same folder, where it is
//! read on. A new file that begins as another one is perhaps such a copy, and waits a while.
//!
//! Folders and files are looked at a few times a second: nothing else works on all disks. One
//! task follows all files of a source, since only who sees all of them can tell which is
//! which.

/// Which files there are.
mod folders;
/// A followed file.
mod followed;
/// A file that is open.
mod growing;
/// Which file is which one of the restored checkpoint.
mod restored;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

pub(super) use self::folders::Watched;
use self::folders::{Extent, ListedFile, Listing};
use self::followed::{FollowedFile, Likeness};
use self::growing::Rows;
use super::digest::{read_at_most, start_of};
use super::known::{cannot_read, letting_go};
use super::mark::Seen;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position};
use crate::connector::Description;
use crate::descriptors;
use crate::format::RowFormat;
use crate::paths::{here_if_empty, identity, link_name_in, shown};
use crate::source::{
    Arrival, Noticed, Pending, SourceConnector, SourceContext, SourceError, SourceInput,
};

/// For the placement, all files are one partition.
const ALL: usize = 0;

/// How often folders and files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long what seems to be a copy is left alone after it has changed last: until the file
/// that it was made of is cut.
const COPY_WAITS: Duration = Duration::from_secs(10);

/// A file whose name the patterns do not match any more is forgotten when it was read to its
/// end and has not changed for so long, or so many others have changed since.
const AWAY: Duration = Duration::from_secs(3_600);
const AWAY_MAX: usize = 1_000;

/// How many files are open at a time, fewer where the process may not have as many.
const OPEN_MAX: usize = 64;

/// How many bytes of unfinished rows all files that are open have together.
const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// How much is read at a time to find the end of a file's last line.
const BACK_BYTES: u64 = 64 << 10;

/// Where to begin in files that are there when a source starts for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    #[default]
    Beginning,
    End,
}

impl Start {
    /// As in the config.
    pub const CHOICES: [(&str, Start); 2] = [("beginning", Start::Beginning), ("end", Start::End)];
}

/// The files to follow.
pub(super) struct FollowSource {
    pub watched: Vec<Watched>,
    /// The pipeline's folder, which the names of partitions are relative to.
    pub folder: PathBuf,
    pub format: RowFormat,
    pub start: Start,
    /// Whether a file that looks like another format is refused.
    pub must_be_text: bool,
    pub warnings: Vec<Noticed>,
}

impl SourceConnector for FollowSource {
    fn describe(&self) -> Description {
        let paths = self.watched.iter();
        let paths = paths.map(|watched| shown(&watched.folder.join(&watched.pattern)));
        let paths: Vec<String> = paths.collect();
        let start = match self.start {
            Start::Beginning => "",
            Start::End => ", from their ends",
        };
        Description {
            connector: "file",
            format: Some(self.format.format.name()),
            lines: vec![format!("follows {}{start}", paths.join(", "))],
            settings: json!({ "paths": paths, "follow": true }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn may_be_quiet(&self) -> bool {
        true
    }

    fn row_format(&self) -> RowFormat {
        self.format.clone()
    }

    fn warnings(&self) -> &[Noticed] {
        &self.warnings
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = FollowInput::open(self, context)?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

/// What there is to say about the files that are there when the source is planned.
pub(super) fn warnings(watched: &[Watched]) -> Vec<Noticed> {
    let mut warnings = Vec::new();
    for watched in watched {
        let Watched { folder, pattern } = watched;
        let Ok(listing) = Listing::of(std::slice::from_ref(watched), Extent::Matching) else {
            continue;
        };
        let path = shown(&folder.join(pattern));
        if listing.files.is_empty() {
            let what = match pattern.contains('*') {
                true => format!("no file matches {path} yet: the run waits for files"),
                false => format!("{path} does not exist yet: the run waits for it"),
            };
            let help = "paths are relative to the pipeline's file";
            warnings.push(Noticed { what, help });
        }
        if let Some(first) = listing.compressed.first() {
            let what = not_followed(first, listing.compressed.len() - 1);
            let help = "what was compressed before it was read, a source without `follow` reads";
            warnings.push(Noticed { what, help });
        }
    }
    warnings
}

fn not_followed(first: &Path, more: usize) -> String {
    let more = match more {
        0 => "is".to_owned(),
        1 => "and another file are".to_owned(),
        more => format!("and {more} other files are"),
    };
    format!(
        "{} {more} compressed, and not read: only text is followed",
        shown(first)
    )
}

struct FollowInput {
    watched: Vec<Watched>,
    folder: PathBuf,
    format: RowFormat,
    must_be_text: bool,
    files: Vec<FollowedFile>,
    /// How many of them the reader knows of.
    reported: usize,
    /// Whether the reader was told once.
    is_reported: bool,
    /// New files that are perhaps copies, by their places: as they were seen last, and when.
    held: HashMap<(u64, u64), (Seen, Instant)>,
    /// Compressed files that the log has told of.
    told: BTreeSet<PathBuf>,
    look_at: Instant,
    open_max: usize,
    reads: u64,
    context: SourceContext,
}

impl FollowInput {
    fn open(source: &FollowSource, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&source.format.format)?;
        let mut input = FollowInput {
            watched: source.watched.clone(),
            folder: identity(&source.folder),
            format: source.format.clone(),
            must_be_text: source.must_be_text,
            files: Vec::new(),
            reported: 0,
            is_reported: false,
            held: HashMap::new(),
            told: BTreeSet::new(),
            look_at: Instant::now(),
            open_max: descriptors::share(OPEN_MAX, 1),
            reads: 0,
            context: context.clone(),
        };
        if !context.placement.has_partition(ALL) {
            return Ok(input);
        }
        input.files = restored::find(|| input.list(Extent::All), &input.folder, context)?;
        input.look()?;
        if context.restored.is_empty() && source.start == Start::End {
            for file in &mut input.files {
                let Some(path) = file.path.clone() else {
                    continue;
                };
                let started = File::open(&path)
                    .and_then(|opened| file.start_at(last_line_end(&opened)?, &opened));
                started.map_err(|cause| cannot_read(&path, &file.name, &cause, context))?;
            }
        }
        input.reported = input.files.len();
        Ok(input)
    }

    fn list(&self, extent: Extent) -> Result<Listing, SourceError> {
        Listing::of(&self.watched, extent).map_err(|cause| {
            let folders: BTreeSet<&Path> = self.watched.iter().map(|it| &*it.folder).collect();
            let folders: Vec<String> = folders
                .into_iter()
                .map(|folder| shown(here_if_empty(folder)))
                .collect();
            let what = format!("cannot look for files in {}", folders.join(", "));
            self.context.failed(what, &cause, Fault::of_io(&cause))
        })
    }

    /// Looks which files there are, which have changed, and which are new.
    fn look(&mut self) -> Result<(), SourceError> {
        self.look_at = Instant::now() + LOOK_EVERY;
        let mut listing = self.list(Extent::Matching)?;
        let is_listed = |file: &FollowedFile| file.id.is_some_and(|id| listing.find(id).is_some());
        if !self.files.iter().all(is_listed) {
            listing = self.list(Extent::All)?;
        }
        let folder = &self.folder;
        self.files
            .iter_mut()
            .for_each(|file| file.note(&listing, folder));
        self.find_copies(&listing)?;
        self.add_new(&listing)?;
        self.let_go()?;
        for path in &listing.compressed {
            // What is there from the start, the plan has told of.
            if self.is_reported && !self.told.contains(path) {
                tracing::warn!("source `{}`: {}", self.context.node, not_followed(path, 0));
            }
        }
        self.told = listing.compressed;
        Ok(())
    }

    /// Finds copies of files that were cut, in which they are read on.
    fn find_copies(&mut self, listing: &Listing) -> Result<(), SourceError> {
        for index in 0..self.files.len() {
            if !self.files[index].is_cut() || self.files[index].is_given_up() {
                continue;
            }
            let mut copy: Option<&ListedFile> = None;
            for found in self.unknown(listing) {
                let is_longer = copy.is_none_or(|copy| copy.size < found.size);
                if is_longer && self.is_copy(index, found)? == Some(true) {
                    copy = Some(found);
                }
            }
            let (node, file) = (&self.context.node, &mut self.files[index]);
            let (name, offset) = (file.name.clone(), file.position().offset);
            match (copy, file.lost()) {
                (Some(copy), _) => {
                    tracing::info!(
                        "source `{node}`: {name} was cut, and {} is a copy of what it was, in \
                         which it is read on from byte {offset}",
                        shown(&copy.path)
                    );
                    let gone_on = file.go_on_in(copy);
                    gone_on
                        .map_err(|cause| cannot_read(&copy.path, &name, &cause, &self.context))?;
                }
                (None, 0) => {
                    tracing::info!(
                        "source `{node}`: {name} was cut after {offset} bytes of it were read, and \
                         is read again from its beginning; what was written to it just before \
                         that is lost if it was not read"
                    );
                    file.give_up();
                }
                (None, lost) => return Err(lost_rows(&name, offset, lost, &self.context)),
            }
        }
        Ok(())
    }

    /// The files that are none of those that are followed.
    fn unknown<'l>(&self, listing: &'l Listing) -> Vec<&'l ListedFile> {
        let known: HashSet<(u64, u64)> = self
            .files
            .iter()
            .filter_map(|file| Some(listing.find(file.id?)?.id.place()))
            .collect();
        let files = listing.files.iter();
        files
            .filter(|file| !known.contains(&file.id.place()))
            .collect()
    }

    /// Whether a file seems to be a copy of one that is followed. `None` if it has another
    /// name by now, so that nobody can say.
    fn is_copy(&self, index: usize, found: &ListedFile) -> Result<Option<bool>, SourceError> {
        let file = &self.files[index];
        if !found.may_be_copy_of(&file.base) {
            return Ok(Some(false));
        }
        let opened = match found.open() {
            Ok(Some(opened)) => file.likeness(&opened).map(Some),
            Ok(None) => Ok(None),
            Err(cause) => Err(cause),
        };
        match opened {
            // It was cut just now.
            Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(_) if !found.matches => Ok(Some(false)),
            Err(cause) => {
                let name = shown(&found.path);
                Err(cannot_read(&found.path, &name, &cause, &self.context))
            }
            Ok(likeness) => Ok(likeness.map(|likeness| likeness != Likeness::Other)),
        }
    }

    /// Follows files that are new.
    fn add_new(&mut self, listing: &Listing) -> Result<(), SourceError> {
        let mut held = HashMap::new();
        for found in self.unknown(listing) {
            if !found.matches {
                continue;
            }
            let beginning = beginning_of(found);
            let mut copy_of = None;
            let mut is_there = true;
            for index in 0..self.files.len() {
                let file = &self.files[index];
                if found.size == 0 || file.is_over {
                    continue;
                }
                let is_copy = match file.position().offset {
                    0 => Some(file.begins_as(&beginning)),
                    _ => self.is_copy(index, found)?,
                };
                match is_copy {
                    Some(true) => copy_of = Some(file.name.clone()),
                    Some(false) => continue,
                    None => is_there = false,
                }
                break;
            }
            if !is_there {
                continue;
            }
            let (node, path) = (&self.context.node, shown(&found.path));
            if let Some(original) = copy_of {
                let place = found.id.place();
                let known = self
                    .held
                    .get(&place)
                    .filter(|(seen, _)| *seen == found.seen);
                let since = known.map_or_else(|| found.seen.changed(), |(_, since)| *since);
                if since.elapsed() < COPY_WAITS {
                    held.insert(place, (found.seen, since));
                    continue;
                }
                tracing::info!(
                    "source `{node}`: {path} begins as {original} does, which is still there: it \
                     is a new file"
                );
            }
            let base = link_name_in(&self.folder, &found.path);
            let name = self.new_name(&base);
            tracing::info!("source `{node}`: following {path} as {name}");
            let mut file = FollowedFile::new(name, base, found, self.context.bootstraps);
            file.beginning = beginning;
            self.files.push(file);
        }
        self.held = held;
        Ok(())
    }

    /// The name of a file's, or with a number behind it if others had that.
    fn new_name(&self, base: &str) -> String {
        let number = |file: &FollowedFile| match file.name.strip_prefix(base)? {
            "" => Some(1),
            rest => rest.strip_prefix('#')?.parse::<u64>().ok(),
        };
        match self.files.iter().filter_map(number).max() {
            None => base.to_owned(),
            Some(last) => format!("{base}#{}", last + 1),
        }
    }

    /// Finds files of which nothing more is expected.
    fn let_go(&mut self) -> Result<(), SourceError> {
        let mut away: Vec<(Instant, usize)> = Vec::new();
        for (index, file) in self.files.iter_mut().enumerate() {
            if file.is_home || file.is_cut() || !file.is_quiet() {
                continue;
            }
            if file.path.is_none() && file.growing.is_none() && file.unread() > 0 {
                let (name, position) = (&file.name, file.position());
                return Err(gone_unread(name, position, &self.context));
            }
            file.complete();
            match (&file.path, file.is_behind) {
                (_, true) => {}
                (None, _) => file.is_over = true,
                (Some(_), _) if file.matches => {}
                (Some(_), _) if file.changed.elapsed() >= AWAY => file.is_over = true,
                (Some(_), _) => away.push((file.changed, index)),
            }
        }
        away.sort_unstable();
        for (_, index) in away.iter().rev().skip(AWAY_MAX) {
            self.files[*index].is_over = true;
        }
        Ok(())
    }

    /// Takes the next rows of the first of these files that has some, or what else there is
    /// to say. May be dropped while it waits.
    async fn next_of(&mut self, order: &[usize]) -> Result<Arrival, SourceError> {
        loop {
            if !self.context.placement.has_partition(ALL) {
                return Ok(Arrival::Over);
            }
            if self.look_at <= Instant::now() {
                self.look()?;
            }
            if !std::mem::replace(&mut self.is_reported, true) || self.reported < self.files.len() {
                self.reported = self.files.len();
                return Ok(Arrival::Partitions);
            }
            if let Some(index) = self.files.iter().position(|file| file.is_over) {
                let file = self.files.remove(index);
                self.reported -= 1;
                tracing::info!(
                    "source `{}`: {} was read to its end, and is let go of",
                    self.context.node,
                    file.name
                );
                return Ok(Arrival::Forgotten(index));
            }
            for &index in order {
                if let Some(arrival) = self.read(index)? {
                    return Ok(arrival);
                }
            }
            let wait = match self.files.iter().any(|file| file.is_over) {
                true => Duration::ZERO,
                false => self.look_at.saturating_duration_since(Instant::now()),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads on in a file.
    fn read(&mut self, index: usize) -> Result<Option<Arrival>, SourceError> {
        if self.files[index].is_behind && !self.files[index].is_over {
            self.make_room(index);
            let rows = Rows {
                format: &self.format,
                must_be_text: self.must_be_text,
                context: &self.context,
            };
            let file = &mut self.files[index];
            let is_open = match file.is_cut() {
                true => Ok(Ok(file.growing.is_some())),
                false => file.open(&rows),
            };
            let chunk = is_open.and_then(|is_open| match is_open {
                Ok(true) => file.rows(&rows),
                Ok(false) => Ok(Ok(None)),
                Err(error) => Ok(Err(error)),
            });
            let chunk = chunk.map_err(|cause| {
                let path = file
                    .path
                    .clone()
                    .unwrap_or_else(|| PathBuf::from(&*file.name));
                cannot_read(&path, &file.name, &cause, &self.context)
            })?;
            if let Some(chunk) = chunk? {
                return Ok(Some(Arrival::Rows(index, Box::new(chunk))));
            }
            if self.files[index].is_cut() {
                // Before anything else is read of it, its copy is looked for.
                self.look_at = Instant::now();
            }
            self.bound_unfinished(index);
        }
        let file = &mut self.files[index];
        let is_bootstrapped = file.is_bootstrapped || file.is_behind;
        if !is_bootstrapped {
            file.is_bootstrapped = true;
            return Ok(Some(Arrival::Bootstrapped(index)));
        }
        Ok(None)
    }

    /// Closes a file, if too many are open for another: one that has nothing to read, or else
    /// the one that was not read for longest.
    fn make_room(&mut self, index: usize) {
        self.reads += 1;
        self.files[index].read_last = self.reads;
        let open = self.files.iter().filter(|file| file.growing.is_some());
        if self.files[index].growing.is_some() || open.count() < self.open_max {
            return;
        }
        let open = self.files.iter_mut().filter(|file| file.growing.is_some());
        let closable = open.filter(|file| file.can_be_opened());
        if let Some(file) = closable.min_by_key(|file| (file.is_behind, file.read_last)) {
            file.close();
        }
    }

    /// Closes the file with the most bytes of an unfinished row, if all have too many: it is
    /// read again when it has grown.
    fn bound_unfinished(&mut self, index: usize) {
        let unfinished =
            |file: &FollowedFile| file.growing.as_ref().map_or(0, |it| it.unfinished());
        let all: usize = self.files.iter().map(unfinished).sum();
        if all <= UNFINISHED_BYTES_MAX {
            return;
        }
        let others = self.files.iter_mut().enumerate();
        let others = others.filter(|(other, file)| *other != index && file.can_be_opened());
        if let Some((_, file)) = others.max_by_key(|(_, file)| unfinished(file)) {
            file.close();
        }
    }
}

impl SourceInput for FollowInput {
    fn partitions(&self) -> usize {
        self.reported
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let file = &self.files[partition];
        (file.name.clone(), file.position())
    }

    fn restored<'a>(
        &'a self,
        partition: usize,
        _: &'a SourceContext,
    ) -> Option<&'a PartitionSnapshot> {
        self.files[partition].restored.as_ref()
    }

    fn digest(&mut self, partition: usize, _: Position) -> Option<String> {
        Some(self.files[partition].mark().to_string())
    }

    fn is_live(&self) -> bool {
        true
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(self.next_of(order))
    }
}

/// Where the last line of a file that has a line end is over.
fn last_line_end(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut bytes = Vec::new();
    while end > 0 {
        let length = end.min(BACK_BYTES);
        bytes.resize(length as usize, 0);
        let read = read_at_most(file, &mut bytes, end - length)?;
        if let Some(at) = memchr::memrchr(b'\n', &bytes[..read]) {
            return Ok(end - length + at as u64 + 1);
        }
        end -= length;
    }
    Ok(0)
}

/// A file was cut before all was read of it that is known to have been there.
fn lost_rows(name: &str, offset: u64, lost: u64, context: &SourceContext) -> SourceError {
    let message = format!(
        "{name} was cut when {offset} bytes of it had been read, and at least {lost} more were \
         there, of which no copy is in its folder: put one there that is not compressed, or {}",
        letting_go(&context.node, name, context)
    );
    context.refuse(message, Fault::OUTSIDE_LASTING)
}

/// A file is gone before all was read of it.
fn gone_unread(name: &str, position: Position, context: &SourceContext) -> SourceError {
    let message = format!(
        "{name} had been read up to byte {}, and had more when it was looked at last, and is in \
         none of the folders that are looked at any more: put it back, under whatever name, or {}",
        position.offset,
        letting_go(&context.node, name, context)
    );
    context.refuse(message, Fault::OUTSIDE_LASTING)
}

/// What a file begins with; nothing, if that cannot be read now.
fn beginning_of(found: &ListedFile) -> Vec<u8> {
    let opened = found.open().ok().flatten();
    opened
        .and_then(|opened| start_of(&opened).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
