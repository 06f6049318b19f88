//! Numbers of seven bits a byte, the lowest first, as Avro and Protobuf have them.

/// The number that the bytes begin with, and how many of them it has; `None` if they end
/// before it does, or it is larger than 64 bits.
#[inline(always)]
pub fn read(data: &[u8]) -> Option<(u64, usize)> {
    match data.first() {
        // Most are small.
        Some(&byte) if byte < 0x80 => Some((byte.into(), 1)),
        _ => read_longer(data),
    }
}

fn read_longer(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in data.iter().take(10).enumerate() {
        // The tenth byte has one bit.
        if index == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

pub fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A signed number as one that is small if it is near zero.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
pub fn from_zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
