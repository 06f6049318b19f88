//! Says what bytes look like that are no text as it is read here, by their beginning.

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub format: &'static str,
    /// What to do with a file that looks so.
    pub advice: &'static str,
}

const DECOMPRESS: &str = "decompress it, or compress it with gzip or zstd, which are read";
const NOT_READ: &str = "no source reads it yet";
const CONVERT: &str = "UTF-8 is expected, convert it";

/// What gzip begins with.
pub const GZIP: &[u8] = b"\x1F\x8B";

/// What zstd begins with.
pub const ZSTD: &[u8] = b"\x28\xB5\x2F\xFD";

/// What some formats begin with.
const BEGINNINGS: [(&[u8], &str, &str); 15] = [
    (
        GZIP,
        "gzip",
        "name it `.gz`, or write `compression = \"gzip\"`",
    ),
    (
        ZSTD,
        "zstd",
        "name it `.zst`, or write `compression = \"zstd\"`",
    ),
    (b"\xFD7zXZ\0", "xz", DECOMPRESS),
    (b"PK\x03\x04", "zip", DECOMPRESS),
    (b"PK\x05\x06", "zip", DECOMPRESS),
    (b"PK\x07\x08", "zip", DECOMPRESS),
    (b"\x04\x22\x4D\x18", "lz4", DECOMPRESS),
    (b"\x02\x21\x4C\x18", "lz4", DECOMPRESS),
    (b"7z\xBC\xAF\x27\x1C", "7z", DECOMPRESS),
    (b"\xFF\x06\0\0sNaPpY", "snappy", DECOMPRESS),
    (b"PAR1", "Parquet", NOT_READ),
    (b"Obj\x01", "Avro", NOT_READ),
    (b"ARROW1\0\0", "Arrow", NOT_READ),
    (b"\xFF\xFE\0\0", "UTF-32", CONVERT),
    (b"\0\0\xFE\xFF", "UTF-32", CONVERT),
];

/// What bytes look like that begin like this, if they seem to be no text.
pub fn other_format(start: &[u8]) -> Option<Look> {
    let mut beginnings = BEGINNINGS.iter();
    let known = beginnings.find(|(beginning, ..)| start.starts_with(beginning));
    if let Some(&(_, format, advice)) = known {
        return Some(Look { format, advice });
    }
    let look = |format, advice| Some(Look { format, advice });
    match start {
        _ if is_bzip2(start) => look("bzip2", DECOMPRESS),
        // A byte order mark, and a character that is ASCII.
        [0xFF, 0xFE, _, 0, ..] | [0xFE, 0xFF, 0, ..] => look("UTF-16", CONVERT),
        _ if is_wide(start) => look("UTF-16", CONVERT),
        _ => None,
    }
}

/// The size of its blocks is a digit. Text may begin likewise, but not with the mark of a
/// block, or of the end.
fn is_bzip2(start: &[u8]) -> bool {
    let rest = start.strip_prefix(b"BZh").unwrap_or_default();
    match rest {
        [b'1'..=b'9', rest @ ..] => {
            rest.starts_with(b"\x31\x41\x59\x26\x53\x59")
                || rest.starts_with(b"\x17\x72\x45\x38\x50\x90")
        }
        _ => false,
    }
}

/// How many bytes show whether characters have two.
const WIDE_BYTES: usize = 256;

/// Whether it seems to be UTF-16 without a byte order mark: it begins with a character of
/// ASCII, and one byte of many others is zero, always at the same side.
fn is_wide(start: &[u8]) -> bool {
    let (pairs, _) = start[..start.len().min(WIDE_BYTES)].as_chunks::<2>();
    let is_text = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    let [first, ..] = pairs else {
        return false;
    };
    let zeros = |side: usize| pairs.iter().filter(|pair| pair[side] == 0).count();
    let [low, high] = [zeros(0), zeros(1)];
    let is_many = |count: usize| count >= 2 && count * 4 >= pairs.len();
    (low == 0 && is_many(high) && is_text(first[0]) && first[1] == 0)
        || (high == 0 && is_many(low) && first[0] == 0 && is_text(first[1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format_of(start: &[u8]) -> Option<&'static str> {
        other_format(start).map(|look| look.format)
    }

    #[test]
    fn formats_are_known_by_their_beginnings() {
        for (start, format) in [
            (&b"\x1F\x8B\x08\0"[..], "gzip"),
            (b"\xFD7zXZ\0\0\x04", "xz"),
            (b"BZh91AY&SY\x01", "bzip2"),
            (b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0", "bzip2"),
            (b"PK\x03\x04\x14\0", "zip"),
            (b"\x04\x22\x4D\x18\x64", "lz4"),
            (b"PAR1\x15", "Parquet"),
            (b"\xFF\xFE\0\0a\0\0\0", "UTF-32"),
            (b"\xFF\xFEa\0", "UTF-16"),
            (b"\xFE\xFF\0a", "UTF-16"),
        ] {
            assert_eq!(format_of(start), Some(format));
        }
        for text in [
            "",
            "{\"id\":1}\n",
            "BZh9,PK\n1,2\n",
            "Objects",
            "\u{FEFF}id\n",
            "a\0b\n",
        ] {
            assert_eq!(format_of(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn utf_16_needs_no_byte_order_mark(rows in "[{\"a-z]{2}[ -~é-ö]{0,200}") {
            let ascii = rows.chars().filter(char::is_ascii).count();
            prop_assume!(ascii * 2 >= rows.chars().count());
            let pairs = rows.encode_utf16();
            let little: Vec<u8> = pairs.clone().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = pairs.flat_map(u16::to_be_bytes).collect();
            prop_assert_eq!(format_of(&little), Some("UTF-16"));
            prop_assert_eq!(format_of(&big), Some("UTF-16"));
            prop_assert_eq!(format_of(rows.as_bytes()), None);
        }
    }
}
