//! Tells whether a file is still the one that was read or written, by the bytes
//! before some place in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use twox_hash::XxHash3_64;

/// How many bytes are looked at.
pub(super) const BYTES: u64 = 4 << 10;

/// A digest of the last bytes before this offset.
pub(super) fn digest(file: &File, offset: u64) -> io::Result<String> {
    let length = offset.min(BYTES);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset - length)?;
    Ok(digest_of(&bytes))
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytes))
}
