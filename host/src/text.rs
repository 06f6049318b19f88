//! Writes values as plain text, for text formats such as CSV.
//!
//! Timestamps are RFC 3339 in UTC, with milliseconds only where they are not
//! zero, and byte strings base64. Lists and records are JSON.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::{json, timestamp};

/// Writes a value without quotes. Returns false and writes nothing for nulls.
pub fn write_text(out: &mut Vec<u8>, column: &ArrayRef, row: usize) -> bool {
    if column.is_null(row) {
        return false;
    }
    match column.data_type() {
        ArrowType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        ArrowType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        }
        ArrowType::Timestamp(_, _) => {
            let times = column.as_primitive_opt::<TimestampMillisecondType>();
            return times.is_some_and(|times| {
                timestamp::write(out, times.value(row));
                true
            });
        }
        ArrowType::Float32 | ArrowType::Float64 => {
            let start = out.len();
            json::write_value(out, column, row);
            // Words have no quotes here.
            if out.get(start) == Some(&b'"') {
                out.remove(start);
                out.pop();
            }
        }
        _ => json::write_value(out, column, row),
    }
    true
}

/// The beginning of a text, with a mark where the rest is left out.
pub fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Cuts off what a text has behind so many bytes, and leaves the mark of [`cut`] there.
pub fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

/// Appends a character, escaped if it could control a terminal.
pub fn push_printable(text: &mut String, character: char) {
    if is_printable(character) {
        text.push(character);
    } else {
        text.extend(character.escape_default());
    }
}

/// Whether it neither controls a terminal nor changes the direction or the line in which it
/// shows text.
fn is_printable(character: char) -> bool {
    let is_direction = matches!(
        character,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    let is_line_end = matches!(character, '\u{2028}' | '\u{2029}');
    !(character.is_control() || is_direction || is_line_end)
}

/// A line of text as it is shown: what could control a terminal or end the line is escaped.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return text.into();
    }
    let mut printable = String::with_capacity(text.len());
    text.chars()
        .for_each(|character| push_printable(&mut printable, character));
    printable.into()
}

/// Lines of text as they are shown: what could control a terminal is escaped, since they may
/// quote anybody.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_shown = |character| character == '\n' || is_printable(character);
    if text.chars().all(is_shown) {
        return text.into();
    }
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => printable.push(character),
            _ => push_printable(&mut printable, character),
        }
    }
    printable.into()
}

/// The same for JSON, which has such characters within its strings alone.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    let is_shown = |character| character == '\n' || is_printable(character);
    if text.chars().all(is_shown) {
        return text.into();
    }
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match is_shown(character) {
            true => printable.push(character),
            // None of them is beyond 16 bits.
            false => printable.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
    printable.into()
}

/// The same with other characters of as many bytes instead, so that every place in the text
/// stays where it is.
pub fn printable_in_place(text: &str) -> String {
    let replaced = text.chars().map(|character| match character {
        '\n' | '\t' => character,
        '\r' => ' ',
        _ if is_printable(character) => character,
        _ => match character.len_utf8() {
            1 => '?',
            2 => '·',
            _ => char::REPLACEMENT_CHARACTER,
        },
    });
    replaced.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_controls_no_terminal(text in any::<String>(), odd in "[\\x00-\\x1f\\x7f-\u{9f}\u{2028}-\u{202e}\u{2066}-\u{2069}]{0,9}") {
            let text = format!("{odd}{text}{odd}");
            let is_shown = |text: &str| text.chars().all(|it| "\n\t".contains(it) || is_printable(it));
            prop_assert!(is_shown(&printable(&text)));
            prop_assert!(printable_line(&text).chars().all(is_printable));
            let in_place = printable_in_place(&text);
            prop_assert!(is_shown(&in_place));
            prop_assert_eq!(in_place.len(), text.len());
            let json = serde_json::to_string(&text).unwrap();
            let json = printable_json(&json);
            prop_assert!(is_shown(&json));
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
