//! Decides which file is which one of the restored checkpoint.
//!
//! A file is the same if it is at its place on the disk and still has what was read of it,
//! whatever its name; or if it has its name and what was read, as after a move to another
//! disk. One that was cut since goes on in a copy of what it was. A file that is gone is
//! forgotten if all was read of it that it was seen to have; otherwise the run is refused.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use super::super::known::{cannot_read, letting_go};
use super::super::mark::FileMark;
use super::folders::{ListedFile, Listing};
use super::followed::{FollowedFile, Likeness, has_read_of, likeness_to};
use super::{gone_unread, lost_rows};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState};
use crate::paths::{link_name_in, shown};
use crate::source::{SourceContext, SourceError};

/// A file of the checkpoint.
struct Known<'a> {
    snapshot: &'a PartitionSnapshot,
    mark: FileMark,
    /// Which file it is.
    found: Option<ListedFile>,
    /// Its place has something else by now.
    is_cut: bool,
}

/// While files get other names, a folder that is read may lack one of them. So what is not
/// found is looked for again, so many times, this long apart.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The files of the checkpoint that are there. `folder` is that of the pipeline.
pub(super) fn find(
    list: impl Fn() -> Result<Listing, SourceError>,
    folder: &Path,
    context: &SourceContext,
) -> Result<Vec<FollowedFile>, SourceError> {
    let known = context.restored.iter().flat_map(|task| &task.partitions);
    let known = known.map(|snapshot| Known {
        snapshot,
        mark: FileMark::parse(snapshot.digest.as_deref().unwrap_or_default()),
        found: None,
        is_cut: false,
    });
    let mut matching = Matching {
        known: known.collect(),
        taken: HashSet::new(),
        listing: Listing::default(),
        folder,
        context,
    };
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
        matching.listing = list()?;
        matching.find_by_place()?;
        let is_settled = |known: &Known<'_>| known.found.is_some() || known.is_cut;
        if matching.known.iter().all(is_settled) {
            break;
        }
    }
    matching.find_by_name()?;
    matching.find_copies()?;
    let mut files = Vec::new();
    for known in &matching.known {
        match &known.found {
            Some(found) => files.push(matching.followed(known, found)?),
            None => matching.check_gone(known)?,
        }
    }
    Ok(files)
}

struct Matching<'a> {
    known: Vec<Known<'a>>,
    /// Files that were found, by their places.
    taken: HashSet<(u64, u64)>,
    listing: Listing,
    folder: &'a Path,
    context: &'a SourceContext,
}

impl Matching<'_> {
    fn take(&mut self, index: usize, found: ListedFile) {
        self.taken.insert(found.id.place());
        self.known[index].found = Some(found);
    }

    fn free(&self) -> impl Iterator<Item = &ListedFile> {
        let files = self.listing.files.iter();
        files.filter(|file| !self.taken.contains(&file.id.place()))
    }

    fn find_by_place(&mut self) -> Result<(), SourceError> {
        for index in 0..self.known.len() {
            let Known {
                snapshot,
                mark,
                found,
                ..
            } = &self.known[index];
            let (Some(then), None) = (mark.file, found) else {
                continue;
            };
            let mut files = self.listing.files.iter();
            let there = files.find(|file| then.is_of_some_mount(file.id));
            let Some(found) = there.cloned() else {
                continue;
            };
            let Some(has_read) = self.has_read_of(&found, &self.known[index])? else {
                continue;
            };
            if !has_read || self.taken.contains(&found.id.place()) {
                self.known[index].is_cut = true;
                continue;
            }
            if !found.matches && link_name_in(self.folder, &found.path) == snapshot.name {
                return Err(self.context.refuse(
                    format!(
                        "the checkpoint had read {} up to byte {}, which `path` does not name any \
                         more: name it again, or {}",
                        snapshot.name,
                        snapshot.position.offset,
                        letting_go(&self.context.node, &snapshot.name, self.context)
                    ),
                    Fault::OUTSIDE_LASTING,
                ));
            }
            self.take(index, found);
        }
        Ok(())
    }

    /// Finds files that have been moved to another place on the disk, or another disk.
    fn find_by_name(&mut self) -> Result<(), SourceError> {
        for index in 0..self.known.len() {
            let known = &self.known[index];
            if known.found.is_some() || known.snapshot.position.offset == 0 {
                continue;
            }
            let name = &known.snapshot.name;
            let is_called = |file: &&ListedFile| {
                file.is_called(name, self.folder) || file.is_called(base_of(name), self.folder)
            };
            let namesake = self.free().find(is_called).cloned();
            if let Some(found) = namesake
                && self.has_read_of(&found, known)? == Some(true)
            {
                self.take(index, found);
            }
        }
        Ok(())
    }

    /// Finds copies of files that were cut, or are gone.
    fn find_copies(&mut self) -> Result<(), SourceError> {
        for index in 0..self.known.len() {
            let known = &self.known[index];
            if known.found.is_some() {
                continue;
            }
            let mut copy: Option<&ListedFile> = None;
            for found in self.free() {
                let is_longer = copy.is_none_or(|copy| copy.size < found.size);
                if !is_longer || !found.may_be_copy_of(base_of(&known.snapshot.name)) {
                    continue;
                }
                let likeness = self.read(found, |file| {
                    likeness_to(file, known.snapshot.position, &known.mark)
                });
                let is_copy = match likeness? {
                    Some(Likeness::Whole) => true,
                    Some(Likeness::Part) => known.is_cut,
                    Some(Likeness::Other) | None => false,
                };
                if is_copy {
                    copy = Some(found);
                }
            }
            if let Some(copy) = copy.cloned() {
                tracing::info!(
                    "source `{}`: {} was cut or is gone, and {} is a copy of what it was, in which \
                     it is read on",
                    self.context.node,
                    known.snapshot.name,
                    shown(&copy.path)
                );
                self.take(index, copy);
            }
        }
        Ok(())
    }

    fn followed(&self, known: &Known<'_>, found: &ListedFile) -> Result<FollowedFile, SourceError> {
        let name = &known.snapshot.name;
        // A file may be called like one with a number.
        let base = match found.is_called(name, self.folder) {
            true => name.as_str(),
            false => base_of(name),
        };
        let is_home = found.is_called(base, self.folder);
        if !is_home {
            tracing::info!(
                "source `{}`: {} is {name} of the checkpoint; it is read on from byte {}",
                self.context.node,
                shown(&found.path),
                known.snapshot.position.offset
            );
        }
        let mut file = FollowedFile::restored(
            known.snapshot,
            known.mark.clone(),
            base.to_owned(),
            found,
            self.context.bootstraps,
        );
        file.is_home = is_home;
        if found.size < known.snapshot.position.offset {
            let gone_on = file.go_on_in(found);
            gone_on.map_err(|cause| cannot_read(&found.path, name, &cause, self.context))?;
        }
        Ok(file)
    }

    /// Refuses to go on without a file of which not all was read.
    fn check_gone(&self, known: &Known<'_>) -> Result<(), SourceError> {
        let PartitionSnapshot { name, position, .. } = known.snapshot;
        let unread = match known.snapshot.state {
            PartitionState::Ended => 0,
            _ => known.mark.unread.unwrap_or(1),
        };
        let what = match (known.is_cut, unread) {
            // It was empty.
            (_, 0) if position.offset == 0 => return Ok(()),
            (true, 1..) => return Err(lost_rows(name, position.offset, unread, self.context)),
            (false, 1..) => return Err(gone_unread(name, *position, self.context)),
            (true, 0) => "was cut",
            (false, 0) => "is gone",
        };
        tracing::warn!(
            "source `{}`: {name} {what} since the checkpoint, up to which all of its {} bytes \
             were read; what was written to it after that is lost",
            self.context.node,
            position.offset
        );
        Ok(())
    }

    /// Whether a file has what was read of a known one; `None` if it is elsewhere by now.
    fn has_read_of(
        &self,
        found: &ListedFile,
        known: &Known<'_>,
    ) -> Result<Option<bool>, SourceError> {
        let position = known.snapshot.position;
        self.read(found, |file| has_read_of(file, position, &known.mark))
    }

    /// What was read of a file; `None` if it is elsewhere by now, or nobody's business.
    fn read<T>(
        &self,
        found: &ListedFile,
        read: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<Option<T>, SourceError> {
        let read = match found.open() {
            Ok(Some(file)) => read(&file).map(Some),
            Ok(None) => Ok(None),
            Err(cause) => Err(cause),
        };
        match read {
            Err(cause) if !found.matches || cause.kind() == ErrorKind::UnexpectedEof => Ok(None),
            read => read.map_err(|cause| {
                let name = shown(&found.path);
                cannot_read(&found.path, &name, &cause, self.context)
            }),
        }
    }
}

/// The name of a file without the number that makes it another one.
fn base_of(name: &str) -> &str {
    match name.rsplit_once('#') {
        Some((base, number)) if number.parse::<u64>().is_ok() => base,
        _ => name,
    }
}
