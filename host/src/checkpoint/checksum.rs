//! XXH3 (64 bits), in hex: detects accidental damage, as fast as bytes can be read.

use std::hash::Hasher;

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

/// The checksum of bytes that come in parts.
pub struct Checksum(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl Checksum {
    pub fn new() -> Self {
        Checksum::default()
    }

    pub fn of(bytes: &[u8]) -> String {
        show(XxHash3_64::oneshot(bytes))
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub fn show(&self) -> String {
        show(self.0.finish())
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum(RawHasher::new(SecretBuffer::default()))
    }
}

fn show(sum: u64) -> String {
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..100_000_u32)
            .map(|number| (number * 7 % 251) as u8)
            .collect();
        for length in [0, 1, 16, 200, 241, 5_000, 100_000] {
            let whole = &bytes[..length];
            let mut parts = Checksum::new();
            for part in whole.chunks(777) {
                parts.add(part);
            }
            assert_eq!(parts.show(), Checksum::of(whole));
        }
        // The published value of no bytes: it is this algorithm and no other.
        assert_eq!(Checksum::of(b""), "2d06800538d394c2");
    }
}
