//! Says what bytes look like that are no text as it is read here, by their beginning.

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub format: &'static str,
    /// What to do with what looks so.
    advice: &'static str,
}

impl Look {
    /// What to do with what looks so. Standard input has no name that its user can change.
    pub fn advice(&self, can_be_named: bool) -> String {
        let extension = match self.format {
            "gzip" if can_be_named => ".gz",
            "zstd" if can_be_named => ".zst",
            _ => return self.advice.to_owned(),
        };
        format!("name it `{extension}`, or {}", self.advice)
    }
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
    (GZIP, "gzip", "write `compression = \"gzip\"`"),
    (ZSTD, "zstd", "write `compression = \"zstd\"`"),
    (b"\xFD7zXZ\0", "xz", DECOMPRESS),
    (b"PK\x03\x04", "zip", DECOMPRESS),
    (b"PK\x05\x06", "zip", DECOMPRESS),
    (b"PK\x07\x08", "zip", DECOMPRESS),
    (b"\x04\x22\x4D\x18", "lz4", DECOMPRESS),
    (b"\x02\x21\x4C\x18", "lz4", DECOMPRESS),
    (b"7z\xBC\xAF\x27\x1C", "7z", DECOMPRESS),
    (b"\xFF\x06\0\0sNaPpY", "snappy", DECOMPRESS),
    (b"PAR1", "Parquet", "write `format = \"parquet\"`"),
    (b"Obj\x01", "Avro", NOT_READ),
    (b"ARROW1\0\0", "Arrow", NOT_READ),
    (b"\xFF\xFE\0\0", "UTF-32", CONVERT),
    (b"\0\0\xFE\xFF", "UTF-32", CONVERT),
];

/// What bytes look like that begin like this, in words also for text, and for what is
/// not known.
pub fn name_of(start: &[u8]) -> &'static str {
    match other_format(start) {
        Some(look) => look.format,
        None if start.iter().all(|byte| *byte == 0) => "zeros",
        None if is_utf_8(start) => "text",
        None => "nothing that is known here",
    }
}

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
        _ if is_utf_32(start) => look("UTF-32", CONVERT),
        _ if is_utf_16(start) => look("UTF-16", CONVERT),
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

/// Whether it seems to be the beginning of text as it is read here.
fn is_utf_8(start: &[u8]) -> bool {
    match str::from_utf8(start) {
        Ok(_) => true,
        // The last character may be cut off.
        Err(error) => error.error_len().is_none(),
    }
}

/// How many bytes show whether characters have two, or four.
const WIDE_BYTES: usize = 256;

/// Whether characters are such as text has: no codes that nothing prints.
fn is_printed(characters: impl IntoIterator<Item = char>) -> bool {
    let mut characters = characters.into_iter();
    characters.all(|character| {
        let is_break = matches!(character, '\t' | '\n' | '\r');
        // The byte order mark is one of the first that are let through.
        let is_nothing = matches!(character, '\u{FFF0}'..='\u{FFFF}' | '\u{E000}'..='\u{F8FF}');
        is_break || !(character.is_control() || is_nothing)
    })
}

/// Whether it seems to be UTF-32, with or without a byte order mark: of four bytes, the
/// first or the last is always zero, and the others are a character.
fn is_utf_32(start: &[u8]) -> bool {
    let (units, _) = start[..start.len().min(WIDE_BYTES)].as_chunks::<4>();
    let is_text = |unit: fn([u8; 4]) -> u32| {
        let characters = units.iter().map(|bytes| char::from_u32(unit(*bytes)));
        units.len() >= 2
            && characters.clone().all(|character| character.is_some())
            && is_printed(characters.flatten())
    };
    is_text(u32::from_le_bytes) || is_text(u32::from_be_bytes)
}

/// Whether it seems to be UTF-16, with or without a byte order mark.
fn is_utf_16(start: &[u8]) -> bool {
    let start = &start[..start.len().min(WIDE_BYTES)];
    let (pairs, _) = start.as_chunks::<2>();
    let is_text = |unit: fn([u8; 2]) -> u16| {
        let units = pairs.iter().map(|bytes| unit(*bytes));
        // The last character may be cut off.
        let cut = pairs.last().map(|bytes| unit(*bytes));
        let cut = cut.is_some_and(|unit| (0xD800..0xDC00).contains(&unit));
        let units = units.clone().take(pairs.len() - usize::from(cut));
        let decoded: Result<Vec<char>, _> = char::decode_utf16(units).collect();
        let Ok(characters) = decoded else {
            return false;
        };
        let has_mark = characters.len() > 1 && characters[0] == '\u{FEFF}';
        let ascii = characters.iter().filter(|character| character.is_ascii());
        let ascii = ascii.count();
        // Text of one byte for a character has no zeros, and text of other bytes is not
        // UTF-8 if it is long.
        let is_many = ascii >= 2 && (ascii * 4 >= characters.len() || !is_utf_8(start));
        is_printed(characters) && (has_mark || is_many)
    };
    is_text(u16::from_le_bytes) || is_text(u16::from_be_bytes)
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
            (b"\xFF\xFE\x0D\x54,\0", "UTF-16"),
            (b"\xFE\xFF\x54\x0D\x53\x4F", "UTF-16"),
        ] {
            assert_eq!(format_of(start), Some(format));
            assert_eq!(name_of(start), format);
        }
        for text in [
            "",
            "{\"id\":1}\n",
            "BZh9,PK\n1,2\n",
            "Objects",
            "\u{FEFF}id\n",
            "a\0b\n",
            "a\0bc\0def\0",
        ] {
            assert_eq!(format_of(text.as_bytes()), None, "{text:?}");
        }
        for (start, name) in [
            (&b"id\n"[..], "text"),
            ("né".as_bytes().split_last().expect("it is long").1, "text"),
            (&[0; 512], "zeros"),
            (b"\x1F\x8A\0\xFF", "nothing that is known here"),
        ] {
            assert_eq!(name_of(start), name);
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

        /// Nor does it have to begin in ASCII, or to have much of it, nor UTF-32.
        #[test]
        fn wide_text_is_known_in_any_script(
            rows in "[一-龥à-öЀ-я]{1,9},[一-龥Ѐ-я]{0,9}[,\n][a-z一-龥Ѐ-я,\n]{20,100}",
            has_mark in any::<bool>(),
        ) {
            let rows = format!("{}{rows}", if has_mark { "\u{FEFF}" } else { "" });
            let pairs: Vec<u16> = rows.encode_utf16().collect();
            let little: Vec<u8> = pairs.iter().copied().flat_map(u16::to_le_bytes).collect();
            // Little text may be valid UTF-8 by chance.
            if !is_utf_8(&little) || has_mark {
                prop_assert_eq!(format_of(&little), Some("UTF-16"));
            }
            let big: Vec<u8> = pairs.iter().copied().flat_map(u16::to_be_bytes).collect();
            if !is_utf_8(&big) || has_mark {
                prop_assert_eq!(format_of(&big), Some("UTF-16"));
            }
            let units = rows.chars().map(u32::from);
            let little: Vec<u8> = units.clone().flat_map(u32::to_le_bytes).collect();
            prop_assert_eq!(format_of(&little), Some("UTF-32"));
            let big: Vec<u8> = units.flat_map(u32::to_be_bytes).collect();
            prop_assert_eq!(format_of(&big), Some("UTF-32"));
            prop_assert_eq!(format_of(rows.as_bytes()), None);
        }

        #[test]
        fn text_looks_like_no_other_format(text in "[\\PC\\x00\n\t]{0,100}") {
            prop_assume!(!text.starts_with("PAR1") && !text.starts_with("PK"));
            prop_assume!(text.matches('\0').count() < 2);
            prop_assert_eq!(format_of(text.as_bytes()), None);
        }
    }
}
