//! Tells whether a file is still the one that was read or written, by the bytes
//! before some place in it.

use std::fmt;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

/// How many bytes are looked at.
pub(super) const BYTES: u64 = 4 << 10;

/// A digest of the last bytes before this offset.
pub(super) fn digest(file: &File, offset: u64) -> io::Result<String> {
    let length = offset.min(BYTES);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset - length)?;
    Ok(digest_of(&bytes))
}

/// As many of its first bytes as are looked at, or all that it has.
pub(super) fn start_of(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; BYTES as usize];
    let length = read_at_most(file, &mut start, 0)?;
    start.truncate(length);
    Ok(start)
}

/// Fills the buffer with what the file has from a place on, fewer bytes only at its end.
pub(super) fn read_at_most(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut read = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(length) => {
                read += length;
                at += length as u64;
                buffer = &mut buffer[length..];
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(read)
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytes))
}

/// The text is digested in blocks of so many bytes, each with the digest of those before
/// it, so that a later run can go on without what is before the last one. Checkpoints
/// have such digests, so this never changes. Tests have short texts.
const BLOCK_BYTES: u64 = if cfg!(test) { 100 } else { 1 << 20 };

/// A file is read in pieces of so many bytes.
const PIECE_BYTES: u64 = 256 << 10;

/// A digest of all that was read, or written, of a text so far.
#[derive(Clone)]
pub(super) struct RunningDigest {
    length: u64,
    /// The digest of the blocks before the one that is being read.
    chain: u64,
    /// That block, behind `chain`.
    block: RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>,
    /// How much of it was read. A full one is ended by the byte behind it.
    block_bytes: u64,
}

/// The beginning of a text, by its digest. In checkpoints, it is `LENGTH:CHAIN:BLOCK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadText {
    pub length: u64,
    chain: u64,
    block: u64,
}

impl Default for RunningDigest {
    fn default() -> Self {
        RunningDigest::behind(0, 0)
    }
}

impl RunningDigest {
    /// Of a text whose first blocks, of this length, have this digest.
    fn behind(length: u64, chain: u64) -> Self {
        let mut block = RawHasher::new(SecretBuffer::default());
        block.write(&chain.to_le_bytes());
        RunningDigest {
            length,
            chain,
            block,
            block_bytes: 0,
        }
    }

    /// Goes on at the beginning of the last block of this text, which is still to be
    /// added.
    pub fn of_last_block(text: ReadText) -> Self {
        let last = text.length.saturating_sub(1);
        RunningDigest::behind(last - last % BLOCK_BYTES, text.chain)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.block_bytes == BLOCK_BYTES {
                *self = RunningDigest::behind(self.length, self.block.finish());
            }
            let room = usize::try_from(BLOCK_BYTES - self.block_bytes).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.block.write(now);
            self.block_bytes += now.len() as u64;
            self.length += now.len() as u64;
            bytes = rest;
        }
    }

    /// Adds what a file has between what was added of it and this place.
    pub fn add_file(&mut self, file: &File, until: u64) -> io::Result<()> {
        let mut bytes = vec![0; PIECE_BYTES.min(until.saturating_sub(self.length)) as usize];
        while self.length < until {
            let piece = PIECE_BYTES.min(until - self.length) as usize;
            file.read_exact_at(&mut bytes[..piece], self.length)?;
            self.add(&bytes[..piece]);
        }
        Ok(())
    }

    /// All that was added.
    pub fn text(&self) -> ReadText {
        ReadText {
            length: self.length,
            chain: self.chain,
            block: self.block.finish(),
        }
    }
}

impl ReadText {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let length = parts.next()?.parse().ok()?;
        let mut digest = || u64::from_str_radix(parts.next()?, 16).ok();
        Some(ReadText {
            length,
            chain: digest()?,
            block: digest()?,
        })
    }
}

impl fmt::Display for ReadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}:{:016x}", self.length, self.chain, self.block)
    }
}

/// What is known of a text that was written to a file. In checkpoints, and lists of
/// files, it is either one's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrittenText {
    Whole(ReadText),
    /// A digest of its last bytes: all that earlier versions knew.
    End(String),
}

impl WrittenText {
    pub fn parse(text: &str) -> Self {
        match ReadText::parse(text) {
            Some(whole) => WrittenText::Whole(whole),
            None => WrittenText::End(text.to_owned()),
        }
    }

    /// Whether it is what was read of a file.
    pub fn is(&self, file: &File, read: &RunningDigest) -> io::Result<bool> {
        match self {
            WrittenText::Whole(whole) => Ok(read.text() == *whole),
            WrittenText::End(end) => Ok(digest(file, read.length())? == *end),
        }
    }
}

impl fmt::Display for WrittenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrittenText::Whole(whole) => whole.fmt(f),
            WrittenText::End(end) => end.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is read in pieces of this length.
    fn digested(text: &[u8], piece: usize) -> ReadText {
        let mut digest = RunningDigest::default();
        for piece in text.chunks(piece.max(1)) {
            digest.add(piece);
        }
        digest.text()
    }

    proptest! {
        #[test]
        fn a_digest_goes_on_from_its_last_block(
            text in proptest::collection::vec(any::<u8>(), 1..1_000),
            at in any::<proptest::sample::Index>(),
            piece in 1_usize..300,
        ) {
            let at = at.index(text.len()) + 1;
            let read = digested(&text[..at], piece);
            let mut digest = RunningDigest::of_last_block(read);
            prop_assert!(read.length - digest.length() <= BLOCK_BYTES);
            digest.add(&text[digest.length() as usize..at]);
            prop_assert_eq!(digest.text(), read);
            digest.add(&text[at..]);
            prop_assert_eq!(digest.text(), digested(&text, text.len()));
            prop_assert_eq!(ReadText::parse(&read.to_string()), Some(read));
        }

        #[test]
        fn another_byte_is_another_digest(
            text in proptest::collection::vec(any::<u8>(), 1..1_000),
            at in any::<proptest::sample::Index>(),
            other in 1_u8..,
        ) {
            let mut edited = text.clone();
            edited[at.index(text.len())] ^= other;
            prop_assert_ne!(digested(&text, 7), digested(&edited, 7));
        }
    }
}
