//! Entries of a stream: their ids, and the row that an entry's fields are.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use redis::Value;

use crate::checkpoint::snapshot::Position;
use crate::json::{is_bare_value, write_json};
use crate::schema::{DataType, Schema};

/// The id of an entry. Ids of a stream ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    pub ms: u64,
    pub sequence: u64,
}

/// `1700000000000-0`; without the second number, it is 0.
impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, sequence) = text.split_once('-').unwrap_or((text, "0"));
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number).ok_or(())
        };
        Ok(EntryId {
            ms: number(ms)?,
            sequence: number(sequence)?,
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

impl EntryId {
    /// The id before it, if there is one.
    pub fn previous(self) -> EntryId {
        match self.sequence.checked_sub(1) {
            Some(sequence) => EntryId { sequence, ..self },
            None => match self.ms.checked_sub(1) {
                Some(ms) => EntryId {
                    ms,
                    sequence: u64::MAX,
                },
                None => self,
            },
        }
    }
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The entry before it, or where one would be.
    pub after: EntryId,
    /// How many entries were added before it, as far as it is known: not fewer.
    pub added: u64,
}

impl From<Place> for Position {
    fn from(place: Place) -> Position {
        Position {
            offset: place.after.ms,
            sequence: Some(place.after.sequence),
            rows: Some(place.added),
            ..Position::default()
        }
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        Place {
            after: EntryId {
                ms: position.offset,
                sequence: position.sequence.unwrap_or(0),
            },
            added: position.rows.unwrap_or(0),
        }
    }
}

/// An entry, as the server sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: EntryId,
    /// Names and values, in their order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Reads an id with its fields.
    pub fn of(value: Value) -> Option<Entry> {
        let Value::Array(parts) = value else {
            return None;
        };
        let [id, fields] = <[Value; 2]>::try_from(parts).ok()?;
        let id = bytes(id)?;
        let id = std::str::from_utf8(&id).ok()?.parse().ok()?;
        let Value::Array(texts) = fields else {
            return None;
        };
        let mut texts = texts.into_iter().map(bytes);
        let mut fields = Vec::with_capacity(texts.len() / 2);
        while let Some(name) = texts.next() {
            fields.push((name?, texts.next()??));
        }
        Some(Entry { id, fields })
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        let lengths = fields.map(|(name, value)| name.len() + value.len() + 48);
        32 + lengths.sum::<usize>()
    }
}

/// A text of the server.
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// Makes rows of entries whose fields are columns: JSON objects, as the sink's texts are
/// meant. Fields that are no column are texts.
#[derive(Clone, Debug)]
pub struct EntryRows {
    kinds: HashMap<Vec<u8>, FieldKind>,
}

#[derive(Clone, Copy, Debug)]
enum FieldKind {
    Text,
    Bytes,
    /// A number, a boolean, a time, a list or a record.
    Value,
}

impl EntryRows {
    /// For fields with the names that they have in entries.
    pub fn new(written: &Schema) -> Self {
        let kinds = written.fields.iter().map(|field| {
            let kind = match field.data_type {
                DataType::Utf8 | DataType::Symbol(_) => FieldKind::Text,
                DataType::Bytes => FieldKind::Bytes,
                _ => FieldKind::Value,
            };
            (field.name.clone().into_bytes(), kind)
        });
        EntryRows {
            kinds: kinds.collect(),
        }
    }

    pub fn write(&self, out: &mut Vec<u8>, fields: &[(Vec<u8>, Vec<u8>)]) {
        out.push(b'{');
        let mut is_first = true;
        for (name, value) in fields {
            // What the sink writes where a row has no values.
            if name.is_empty() && value.is_empty() {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            write_json(out, &String::from_utf8_lossy(name));
            out.push(b':');
            match self.kinds.get(name) {
                Some(FieldKind::Text) => write_text(out, value),
                Some(FieldKind::Bytes) => write_json(out, &BASE64_STANDARD.encode(value)),
                Some(FieldKind::Value) if is_bare_value(value) => out.extend_from_slice(value),
                Some(FieldKind::Value) | None => {
                    write_json(out, &String::from_utf8_lossy(value));
                }
            }
        }
        out.push(b'}');
    }
}

/// A text that may be none: that is for the decoder to say.
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(text) => write_json(out, text),
        Err(_) => {
            out.push(b'"');
            for &byte in text {
                match byte {
                    b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                    0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                    _ => out.push(byte),
                }
            }
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Field;

    #[test]
    fn ids_are_two_numbers() {
        let id = |text: &str| text.parse::<EntryId>();
        assert_eq!(id("5-3"), Ok(EntryId { ms: 5, sequence: 3 }));
        assert_eq!(id("5"), Ok(EntryId { ms: 5, sequence: 0 }));
        for text in ["", "-", "5-", "-1", "+5-1", "5-x", "99999999999999999999"] {
            assert_eq!(id(text), Err(()), "{text}");
        }
        for (text, previous) in [
            ("5-3", "5-2"),
            ("5-0", "4-18446744073709551615"),
            ("0-0", "0-0"),
        ] {
            assert_eq!(id(text).map(EntryId::previous), id(previous), "{text}");
        }
        assert!(id("5-10") > id("5-9") && id("5-10") < id("6-0"));
    }

    #[test]
    fn a_place_is_a_position() {
        let place = Place {
            after: EntryId {
                ms: 1_700_000_000_000,
                sequence: 7,
            },
            added: 12,
        };
        assert_eq!(Place::from(Position::from(place)), place);
    }

    #[test]
    fn fields_are_what_their_columns_say() {
        let field = |name, data_type| Field::new(name, data_type, true);
        let rows = EntryRows::new(&Schema::new(vec![
            field("s", DataType::Utf8),
            field("y", DataType::Bytes),
            field("n", DataType::Int64),
            field("t", DataType::Timestamp),
        ]));
        let row = |fields: &[(&str, &[u8])]| {
            let fields = fields.iter().map(|(name, value)| (name.as_bytes(), *value));
            let fields: Vec<_> = fields
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect();
            let mut out = Vec::new();
            rows.write(&mut out, &fields);
            out
        };
        let text = row(&[
            ("s", b"1"),
            ("y", b"\x00\xff"),
            ("n", b"-12"),
            ("t", b"1970-01-01T00:00:01Z"),
            ("other", b"7"),
        ]);
        assert_eq!(
            String::from_utf8(text).as_deref(),
            Ok(r#"{"s":"1","y":"AP8=","n":-12,"t":"1970-01-01T00:00:01Z","other":"7"}"#)
        );
        // What is no value stays within its quotes.
        let text = row(&[("n", b"1,\"s\":2")]);
        assert_eq!(
            String::from_utf8(text).as_deref(),
            Ok(r#"{"n":"1,\"s\":2"}"#)
        );
        assert_eq!(row(&[("", b"")]), b"{}");
        assert_eq!(row(&[("s", b"a\"\n\xff")]), b"{\"s\":\"a\\\"\\u000a\xff\"}");
    }
}
