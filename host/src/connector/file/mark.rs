//! What a checkpoint has of a file, beside the place in it, by which a later run knows
//! the file again.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::digest::{self, ReadText, digest_of};

/// Its text in checkpoints is `READ head=DIGEST@LENGTH file=DEVICE:INODE[:BORN] all=TEXT
/// seen=SIZE:CHANGED links=NAME[,NAME] unread=BYTES`, without those that are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileMark {
    /// A digest of what was read of it last, or of a compressed file's first bytes and
    /// how many they are: `DIGEST@BYTES`.
    pub read: String,
    pub head: Head,
    pub file: Option<FileId>,
    /// All that was read of its text.
    pub all: Option<ReadText>,
    /// As the file was before anything of that was read. Absent if a change just then
    /// would look the same.
    pub seen: Option<Seen>,
    /// Its other names.
    pub links: LinkNames,
    /// How much more there was when it was looked at last, if it is followed.
    pub unread: Option<u64>,
}

/// Other names of a file by which its source found it, too, by their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkNames(Vec<String>);

/// When a file was changed last, as far as the disk tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    size: u64,
    /// Of its content or its names, in ns since 1970. No program can set it.
    changed_ns: i128,
}

/// The beginning of a file's text, which is there before anything of it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Head {
    /// In bytes. A power of two, so that there are few to compare a file with; 0 if
    /// there is nothing to compare.
    pub length: usize,
    digest: String,
}

/// A file on a disk, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    /// In ns since 1970, if the disk knows it: the inode of a file that is deleted may
    /// be another file's soon.
    born_ns: Option<u64>,
}

impl Head {
    pub fn of(text: &[u8]) -> Self {
        let most = text.len().min(digest::BYTES as usize);
        match most.checked_ilog2() {
            None => Head::default(),
            Some(power) => Head::with_length(text, 1 << power),
        }
    }

    /// Those that a file can have of which this is the beginning.
    pub fn all(text: &[u8]) -> impl Iterator<Item = Head> {
        let longest = Head::of(text).length;
        let lengths = (0..usize::BITS).map(|power| 1 << power);
        let some = lengths.take_while(move |length| *length <= longest);
        std::iter::once(Head::default()).chain(some.map(|length| Head::with_length(text, length)))
    }

    fn with_length(text: &[u8], length: usize) -> Self {
        Head {
            length,
            digest: digest_of(&text[..length]),
        }
    }

    /// Whether a text begins like this.
    pub fn begins(&self, text: &[u8]) -> bool {
        let start = text.get(..self.length);
        start.is_some_and(|start| self.length == 0 || digest_of(start) == self.digest)
    }
}

impl LinkNames {
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let digests = names.into_iter().map(|name| digest_of(name.as_bytes()));
        LinkNames(digests.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&digest_of(name.as_bytes()))
    }

    /// Adds those that an earlier run found, which read the file by the name `then`: it
    /// may not be read by that any more.
    pub fn add(&mut self, earlier: LinkNames, then: &str, now: &str) {
        let LinkNames(mut names) = earlier;
        let now = digest_of(now.as_bytes());
        if let Some(name) = names.iter_mut().find(|name| **name == now) {
            *name = digest_of(then.as_bytes());
        }
        self.0.extend(names);
        self.0.sort_unstable();
        self.0.dedup();
    }
}

impl Seen {
    pub fn of(metadata: &Metadata) -> Self {
        let seconds = i128::from(metadata.ctime());
        Seen {
            size: metadata.len(),
            changed_ns: seconds * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        }
    }

    /// Whether a change at this time, or later, cannot have the same time: clocks of
    /// disks are coarse.
    pub fn is_before(self, now_ms: i64) -> bool {
        self.changed_ns + CLOCK_NS < i128::from(now_ms) * 1_000_000
    }

    /// When that was; now, if this machine's clock does not have that time yet.
    pub fn changed(self) -> Instant {
        let now = Instant::now();
        let at = u64::try_from(self.changed_ns)
            .ok()
            .map(Duration::from_nanos);
        let age = at.and_then(|at| (UNIX_EPOCH + at).elapsed().ok());
        age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
    }

    fn parse(text: &str) -> Option<Self> {
        let (size, changed) = text.split_once(':')?;
        Some(Seen {
            size: size.parse().ok()?,
            changed_ns: changed.parse().ok()?,
        })
    }
}

/// How coarse the clock of a disk may be: FAT has two seconds.
const CLOCK_NS: i128 = 2_000_000_000;

impl FileId {
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_ns: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
        }
    }

    /// Of the file, or the link, that has this name. `None` if nothing has it.
    pub fn of_path(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(FileId::of(&metadata))),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        Some(FileId {
            device: numbers.next()??,
            inode: numbers.next()??,
            born_ns: numbers.next().flatten(),
        })
    }

    pub fn is(self, other: FileId) -> bool {
        let is_as_old = match (self.born_ns, other.born_ns) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.place() == other.place() && is_as_old
    }

    /// Whether it is the same even if its content is another: its inode was not used again.
    pub fn is_surely(self, other: FileId) -> bool {
        self.born_ns.is_some() && self == other
    }

    /// As [`FileId::is`], where the disk may have been mounted again since, as another
    /// device.
    pub fn is_of_some_mount(self, other: FileId) -> bool {
        match (self.born_ns, other.born_ns) {
            (Some(one), Some(other_ns)) => one == other_ns && self.inode == other.inode,
            _ => self.place() == other.place(),
        }
    }

    /// Files at the same place are the same, unless they came one after the other.
    pub fn place(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl fmt::Display for FileMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileMark {
            read,
            head,
            file,
            all,
            seen,
            links,
            unread,
        } = self;
        write!(f, "{read}")?;
        if head.length > 0 {
            write!(f, " head={}@{}", head.digest, head.length)?;
        }
        if let Some(file) = file {
            write!(f, " file={file}")?;
        }
        if let Some(all) = all {
            write!(f, " all={all}")?;
        }
        if let Some(Seen { size, changed_ns }) = seen {
            write!(f, " seen={size}:{changed_ns}")?;
        }
        if !links.0.is_empty() {
            write!(f, " links={}", links.0.join(","))?;
        }
        if let Some(unread) = unread {
            write!(f, " unread={unread}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)?;
        match self.born_ns {
            Some(born) => write!(f, ":{born}"),
            None => Ok(()),
        }
    }
}

impl FileMark {
    pub fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut mark = FileMark {
            read: words.next().unwrap_or_default().to_owned(),
            head: Head::default(),
            file: None,
            all: None,
            seen: None,
            links: LinkNames::default(),
            unread: None,
        };
        for word in words {
            match word.split_once('=') {
                Some(("head", value)) => mark.head = parse_head(value).unwrap_or_default(),
                Some(("file", value)) => mark.file = FileId::parse(value),
                Some(("all", value)) => mark.all = ReadText::parse(value),
                Some(("seen", value)) => mark.seen = Seen::parse(value),
                Some(("links", value)) => {
                    mark.links = LinkNames(value.split(',').map(str::to_owned).collect());
                }
                Some(("unread", value)) => mark.unread = value.parse().ok(),
                _ => {}
            }
        }
        mark
    }
}

fn parse_head(text: &str) -> Option<Head> {
    let (digest, length) = text.split_once('@')?;
    Some(Head {
        length: length.parse().ok()?,
        digest: digest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connector::file::digest::RunningDigest;

    proptest! {
        #[test]
        fn marks_are_read_as_they_were_written(
            read in "[0-9a-f]{16}(@[0-9]{1,4})?",
            text in proptest::collection::vec(any::<u8>(), 0..6_000),
            file in proptest::option::of(any::<(u64, u64, Option<u64>)>()),
            all in any::<bool>(),
            seen in proptest::option::of(any::<(u64, i64)>()),
            links in proptest::collection::vec(".{0,20}", 0..3),
            unread in proptest::option::of(any::<u64>()),
        ) {
            let file = file.map(|(device, inode, born_ns)| FileId { device, inode, born_ns });
            let seen = seen.map(|(size, changed)| Seen { size, changed_ns: changed.into() });
            let mut digest = RunningDigest::default();
            digest.add(&text);
            let all = all.then(|| digest.text());
            let links = LinkNames::of(links.iter().map(String::as_str));
            let head = Head::of(&text);
            let mark = FileMark { read, head, file, all, seen, links, unread };
            prop_assert_eq!(FileMark::parse(&mark.to_string()), mark);
        }

        #[test]
        fn a_text_that_grows_keeps_its_head(
            text in proptest::collection::vec(any::<u8>(), 0..6_000),
            more in proptest::collection::vec(any::<u8>(), 0..6_000),
        ) {
            let head = Head::of(&text);
            let grown = [text, more].concat();
            prop_assert!(head.begins(&grown));
            prop_assert!(Head::all(&grown).any(|known| known == head));
        }
    }

    #[test]
    fn another_text_has_another_head() {
        let head = Head::of(b"one row\n");
        assert!(!head.begins(b"two row\n"));
        assert!(!head.begins(b"one row"), "it is shorter");
        assert!(!Head::all(b"two row\n").any(|known| known == head));
    }

    #[test]
    fn marks_of_earlier_versions_are_read() {
        let mark = FileMark::parse("00c0ffee00c0ffee@17");
        assert_eq!(mark.read, "00c0ffee00c0ffee@17");
        assert_eq!((mark.head.length, mark.file), (0, None));
        let mark = FileMark::parse("00c0ffee00c0ffee head=00c0ffee00c0ffee@16 file=8:17:5");
        assert_eq!(mark.head.length, 16);
        assert_eq!(mark.file, FileId::parse("8:17:5"));
        assert_eq!((mark.all, mark.seen), (None, None));
        assert!(mark.links.is_empty());
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let id = |text| FileId::parse(text).expect("it is one");
        assert!(id("8:17:5").is(id("8:17:5")));
        assert!(!id("8:17:5").is(id("8:17:6")));
        assert!(!id("8:17:5").is(id("9:17:5")));
        assert!(id("8:17").is(id("8:17:5")), "not every disk tells");
        assert!(id("8:17:5").is_surely(id("8:17:5")));
        assert!(!id("8:17:5").is_surely(id("8:17:6")));
        assert!(!id("8:17").is_surely(id("8:17")), "it may be used again");
    }
}
