//! A file that is being read: decompressed if it has to be, and closed while
//! others are read, since a process may have only so many files open.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::digest::{self, digest, digest_of};
use super::mark::FileId;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// As in the config.
    pub const CHOICES: [(&str, Compression); 3] = [
        (Compression::None.name(), Compression::None),
        (Compression::Gzip.name(), Compression::Gzip),
        (Compression::Zstd.name(), Compression::Zstd),
    ];

    /// A file's name without what compression adds to it.
    pub fn uncompressed(path: &str) -> &str {
        match (Compression::of(Path::new(path)), path.rsplit_once('.')) {
            (Compression::Gzip | Compression::Zstd, Some((name, _))) => name,
            _ => path,
        }
    }

    /// What files with this compression begin with.
    pub fn mark(self) -> &'static [u8] {
        match self {
            Compression::None => b"",
            Compression::Gzip => b"\x1F\x8B",
            Compression::Zstd => b"\x28\xB5\x2F\xFD",
        }
    }

    /// By the file's name.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// A file at some place in its text. Offsets are bytes of the text, which is what
/// the file has once it is decompressed.
pub(super) struct OpenedFile {
    pub path: PathBuf,
    compression: Compression,
    pub id: FileId,
    /// A digest of a compressed file's first bytes, and how many they are.
    first: Option<String>,
    /// Bytes on the disk.
    pub size: u64,
    /// Where the next read begins.
    offset: u64,
    /// Bytes on the disk that were read.
    pub taken: u64,
    text: Option<Text>,
}

/// The text of a file or pipe, decompressed.
pub(super) enum Text {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<File>>>),
}

impl OpenedFile {
    pub fn open(path: &Path, compression: Compression) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::other(
                "it is a folder; name the files in it, as in `*.jsonl`",
            ));
        }
        let first = match compression {
            Compression::None => None,
            _ => {
                let first = metadata.len().min(digest::BYTES);
                Some(format!("{}@{first}", digest(&file, first)?))
            }
        };
        Ok(OpenedFile {
            path: path.to_owned(),
            compression,
            id: FileId::of(&metadata),
            first,
            size: metadata.len(),
            offset: 0,
            taken: 0,
            text: Some(Text::of(file, compression)?),
        })
    }

    /// Frees its descriptor until it is read again.
    pub fn close(&mut self) {
        self.text = None;
    }

    /// Reads at most this many bytes of the text, fewer only at its end, and adds
    /// them to the buffer.
    pub fn read(&mut self, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if self.text.is_none() {
            self.reopen()?;
        }
        let Some(text) = &mut self.text else {
            return Ok(0);
        };
        let read = text.read(bytes as u64, buffer);
        let read = read.map_err(|cause| damaged(cause, self.compression, self.offset))?;
        self.offset += read as u64;
        self.taken = match text {
            Text::Plain(_) => self.offset,
            Text::Gzip(text) => text.get_ref().get_ref().stream_position()?,
            Text::Zstd(text) => text.get_ref().get_ref().stream_position()?,
        };
        Ok(read)
    }

    /// Goes to a place that was read before. Returns whether the text is that long.
    pub fn seek(&mut self, offset: u64) -> io::Result<bool> {
        if self.compression == Compression::None {
            if offset > self.size {
                return Ok(false);
            }
        } else if offset < self.offset {
            self.close();
            self.offset = 0;
            self.reopen()?;
        }
        self.place(offset)?;
        Ok(self.offset == offset)
    }

    /// Goes to a place; in compressed text only forward, and at most to its end.
    fn place(&mut self, offset: u64) -> io::Result<()> {
        if self.compression != Compression::None {
            return self.skip(offset - self.offset);
        }
        if let Some(Text::Plain(file)) = &mut self.text {
            file.seek(SeekFrom::Start(offset))?;
        }
        self.offset = offset;
        Ok(())
    }

    /// A digest by which a later run can tell whether the file is still the one
    /// that was read up to here: of the last bytes before the place, or of a
    /// compressed file's first bytes and how many they are.
    pub fn digest(&self, offset: u64) -> io::Result<String> {
        if let Some(first) = &self.first {
            return Ok(first.clone());
        }
        if let Some(Text::Plain(file)) = &self.text {
            return digest(file, offset);
        }
        let file = File::open(&self.path)?;
        if !self.is_it(&file)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        digest(&file, offset)
    }

    /// Whether it is still the file of which this digest was taken.
    pub fn is_same(&self, then: &str, offset: u64) -> io::Result<bool> {
        let Some((of_first, first)) = then.split_once('@') else {
            let is_long = self.first.is_none() && offset <= self.size;
            return Ok(is_long && self.digest(offset)? == then);
        };
        let first = first.parse().unwrap_or(u64::MAX);
        let is_long = self.first.is_some() && first <= self.size;
        Ok(is_long && digest(&File::open(&self.path)?, first)? == of_first)
    }

    /// Whether it seems to have the text of which this digest was taken, perhaps
    /// compressed in another way.
    pub fn has_text_of(&mut self, then: &str, offset: u64) -> io::Result<bool> {
        if then.contains('@') == self.first.is_some() {
            return self.is_same(then, offset);
        }
        if self.first.is_none() {
            // There is no digest of the end of a compressed text.
            return Ok(self.size == offset);
        }
        let length = offset.min(digest::BYTES);
        let mut last = Vec::new();
        if self.seek(offset - length)? {
            self.read(length as usize, &mut last)?;
        }
        Ok(last.len() as u64 == length && digest_of(&last) == then)
    }

    /// Opens it again where it was left.
    fn reopen(&mut self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        if !self.is_it(&file)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it was replaced by another file while it was being read",
            ));
        }
        self.text = Some(Text::of(file, self.compression)?);
        let offset = std::mem::take(&mut self.offset);
        self.place(offset)
    }

    /// Whether a file with this path is the one that was opened.
    fn is_it(&self, file: &File) -> io::Result<bool> {
        Ok(FileId::of(&file.metadata()?).is(self.id))
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut skipped = Vec::new();
        while bytes > 0 {
            skipped.clear();
            let read = self.read(bytes.min(SKIP_BYTES) as usize, &mut skipped)?;
            if read == 0 {
                break;
            }
            bytes -= read as u64;
        }
        Ok(())
    }
}

/// How much is decompressed at a time on the way to a place.
const SKIP_BYTES: u64 = 1 << 20;

impl Text {
    pub fn of(file: File, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Text::Plain(file),
            Compression::Gzip => Text::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
            Compression::Zstd => {
                Text::Zstd(Box::new(zstd::Decoder::with_buffer(BufReader::new(file))?))
            }
        })
    }

    fn read(&mut self, bytes: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Text::Plain(file) => file.take(bytes).read_to_end(buffer),
            Text::Gzip(text) => text.take(bytes).read_to_end(buffer),
            Text::Zstd(text) => text.take(bytes).read_to_end(buffer),
        }
    }

    /// Reads what there is, and waits only if there is nothing; 0 is the end.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Text::Plain(file) => file.read(buffer),
            Text::Gzip(text) => text.read(buffer),
            Text::Zstd(text) => text.read(buffer),
        }
    }
}

/// What is wrong with compressed data, and where.
pub(super) fn damaged(cause: io::Error, compression: Compression, offset: u64) -> io::Error {
    let is_of_data = matches!(
        cause.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other
    );
    if compression == Compression::None || !is_of_data {
        return cause;
    }
    let format = compression.name();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "its {format} data is damaged, or ends too early, behind byte {offset} of the text: \
             {cause}"
        ),
    )
}
