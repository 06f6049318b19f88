//! Copies and compares short texts.
//!
//! In the sandbox, `memory.copy` is a call into the host's runtime and `memcmp`
//! a loop over bytes; for texts as short as ids and names both are slower than
//! a few loads.

/// Texts that are usually short.
pub mod short;

/// Copies `len` bytes, with a few loads and stores if `len` is small.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline(always)]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // Two overlapping loads cover every length from their size to twice their
    // size.
    // SAFETY: each branch keeps its offsets within `len`.
    unsafe {
        if len >= 8 {
            if len <= 16 {
                ends::<u64>(from, to, len);
            } else if len <= 32 {
                one::<u64>(from, to, 8);
                one::<u64>(from, to, len - 16);
                ends::<u64>(from, to, len);
            } else {
                std::ptr::copy_nonoverlapping(from, to, len);
            }
        } else if len >= 4 {
            ends::<u32>(from, to, len);
        } else if len >= 2 {
            ends::<u16>(from, to, len);
        } else if len == 1 {
            *to = *from;
        }
    }
}

/// Whether two texts of the same constant length are equal.
#[inline(always)]
pub fn same<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    let mut at = 0;
    let mut different = 0;
    while at + 8 <= N {
        different |= load::<8>(a, at) ^ load::<8>(b, at);
        at += 8;
    }
    if at + 4 <= N {
        different |= load::<4>(a, at) ^ load::<4>(b, at);
        at += 4;
    }
    if at + 2 <= N {
        different |= load::<2>(a, at) ^ load::<2>(b, at);
        at += 2;
    }
    if at < N {
        different |= load::<1>(a, at) ^ load::<1>(b, at);
    }
    different == 0
}

/// The first eight bytes of a text as a number, padded with zeros.
#[inline]
pub const fn word(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut at = 0;
    while at < text.len() && at < bytes.len() {
        bytes[at] = text[at];
        at += 1;
    }
    u64::from_le_bytes(bytes)
}

/// The [`word`] of a text of this length, from eight bytes that begin with it.
#[inline(always)]
pub const fn cut(word: u64, len: usize) -> u64 {
    match len {
        0..8 => word & !(!0 << (8 * len)),
        _ => word,
    }
}

/// Copies the first and the last word.
#[inline(always)]
unsafe fn ends<T: Copy>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller has checked that `len` is at least one word.
    unsafe {
        one::<T>(from, to, 0);
        one::<T>(from, to, len - size_of::<T>());
    }
}

#[inline(always)]
unsafe fn one<T: Copy>(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller has checked that both have a word at `at`.
    unsafe {
        let word = from.add(at).cast::<T>().read_unaligned();
        to.add(at).cast::<T>().write_unaligned(word);
    }
}

#[inline(always)]
fn load<const WIDTH: usize>(text: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..WIDTH].copy_from_slice(&text[at..at + WIDTH]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length() {
        let from: Vec<u8> = (0..=99).collect();
        for len in 0..from.len() {
            let mut to = vec![255; from.len()];
            // SAFETY: both are longer than `len`.
            unsafe { copy(from.as_ptr(), to.as_mut_ptr(), len) };
            assert_eq!(to[..len], from[..len]);
            assert!(to[len..].iter().all(|&byte| byte == 255), "{len}");
        }
    }

    #[test]
    fn words_end_where_their_text_does() {
        let text = b"checkout!";
        let all = u64::from_le_bytes(*b"checkout");
        for len in 0..=text.len() {
            assert_eq!(cut(all, len), word(&text[..len]), "{len}");
        }
        assert_eq!(word(b"add"), 0x0064_6461);
    }

    #[test]
    fn tells_texts_apart_at_every_place() {
        fn check<const N: usize>() {
            let text: [u8; N] = std::array::from_fn(|i| i as u8);
            assert!(same(&text, &text));
            for at in 0..N {
                let mut other = text;
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{N} at {at}");
            }
        }
        check::<0>();
        check::<1>();
        check::<2>();
        check::<3>();
        check::<7>();
        check::<8>();
        check::<15>();
        check::<23>();
    }
}
