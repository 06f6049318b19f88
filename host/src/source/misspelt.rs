//! Notices fields of JSON that may be missing and are in none of the first rows, where
//! these have a key of nearly that name which nobody reads: `amout` for `amount`.
//!
//! Decoders skip keys that are no fields, and this costs them nothing: the keys of rows are
//! looked at only where a column has no value at all, and only in the first rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::Array;
use serde::de::IgnoredAny;

use super::chunk::Chunk;
use crate::batch::Payload;
use crate::format::{Format, RowFormat};
use crate::schema::Schema;
use crate::suggest;

/// The fields of a source that none of the rows so far has.
pub struct MisspeltFields {
    source: Arc<str>,
    /// The column of each, and its name in the rows.
    absent: Vec<(usize, String)>,
    /// The names of all fields in the rows.
    fields: BTreeSet<String>,
    /// Keys of rows that are no fields.
    unread: BTreeSet<String>,
    rows: usize,
}

/// How many rows are looked at.
const ROWS: usize = 1_000;
/// How many keys are noted.
const KEYS_MAX: usize = 1_000;
/// For so many fields the key that is nearest is looked for.
const FIELDS_MAX: usize = 5;

impl MisspeltFields {
    /// `None` where there can be none. The last `made` columns are of no keys in the rows.
    pub fn of(source: &Arc<str>, format: &RowFormat, schema: &Schema, made: usize) -> Option<Self> {
        if format.format != Format::Json {
            return None;
        }
        let written = format.written(schema);
        let decoded = written.fields.len().saturating_sub(made);
        let fields = &written.fields[..decoded];
        let may_be_missing = fields
            .iter()
            .enumerate()
            .filter(|(_, field)| field.nullable);
        let absent: Vec<_> = may_be_missing
            .map(|(column, field)| (column, field.name.clone()))
            .collect();
        (!absent.is_empty()).then(|| MisspeltFields {
            source: source.clone(),
            absent,
            fields: fields.iter().map(|field| field.name.clone()).collect(),
            unread: BTreeSet::new(),
            rows: 0,
        })
    }

    /// Looks at rows. Returns whether it has seen enough.
    pub fn look(&mut self, chunk: &Chunk) -> bool {
        let Payload::Bytes { data, spans } = &chunk.block.payload else {
            return true;
        };
        self.absent
            .retain(|(column, _)| chunk.columns[*column].null_count() == chunk.rows);
        if self.absent.is_empty() {
            return true;
        }
        for &(start, end) in spans.iter().take(ROWS - self.rows) {
            let row = &data[start as usize..end as usize];
            // It was decoded, so it is a record.
            let keys: HashMap<String, IgnoredAny> = serde_json::from_slice(row).unwrap_or_default();
            // A key without a value is a key.
            self.absent.retain(|(_, name)| !keys.contains_key(name));
            for key in keys.into_keys() {
                if !self.fields.contains(&key) && self.unread.len() < KEYS_MAX {
                    self.unread.insert(key);
                }
            }
        }
        self.rows += chunk.rows;
        self.absent.is_empty() || self.rows >= ROWS
    }

    /// What is probably not meant, in a sentence.
    pub fn tell(&self) -> Option<String> {
        let near = self.absent.iter().take(FIELDS_MAX).filter_map(|(_, name)| {
            let key = suggest::nearest(name, self.unread.iter().map(String::as_str))?;
            Some(format!(
                "`{key}` is in them, which nobody reads: is `{name}` meant?"
            ))
        });
        let near: Vec<String> = near.collect();
        let rows = self.rows.min(ROWS);
        let names: Vec<&str> = self.absent.iter().map(|(_, name)| name.as_str()).collect();
        let (fields, are) = match names.len() {
            1 => ("field", "is"),
            _ => ("fields", "are"),
        };
        (!near.is_empty()).then(|| {
            format!(
                "source `{}`: {fields} `{}` {are} in none of the first {rows} rows; {} A field \
                 has another name in the rows where `names` says so",
                self.source,
                suggest::listed(&names).replace(", ", "`, `"),
                near.join(" "),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_buffer::Buffer;

    use super::*;
    use crate::batch::Offsets;
    use crate::checkpoint::snapshot::Position;
    use crate::decode::Decoder;
    use crate::schema::{DataType, Field};
    use crate::source::chunk::decode;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("amount", DataType::Int64, true),
            Field::new("note", DataType::Utf8, true),
        ])
    }

    fn chunk(format: &RowFormat, rows: &[&str]) -> Chunk {
        let mut spans = Vec::new();
        let mut text = Vec::new();
        for row in rows {
            let start = text.len() as u32;
            text.extend(row.as_bytes());
            spans.push((start, text.len() as u32));
            text.push(b'\n');
        }
        let mut decoder = Decoder::new(format, &schema());
        let (source, data) = ("orders".into(), Buffer::from(text));
        let (offsets, end) = (Offsets::From(0), Position::default());
        decode(
            &mut decoder,
            source,
            "part".into(),
            data,
            spans,
            offsets,
            end,
        )
    }

    fn told(format: &RowFormat, chunks: &[&[&str]]) -> Option<String> {
        let mut fields = MisspeltFields::of(&"orders".into(), format, &schema(), 0)?;
        for rows in chunks {
            if fields.look(&chunk(format, rows)) {
                break;
            }
        }
        fields.tell()
    }

    #[test]
    fn a_field_that_no_row_has_is_told_of_where_one_is_near() {
        let json = Format::Json.into();
        let wrong = r#"{"id":"a","amout":1,"note":"n"}"#;
        assert_eq!(
            told(&json, &[&[wrong, "{}"], &[wrong]]).as_deref(),
            Some(
                "source `orders`: field `amount` is in none of the first 2 rows; `amout` is in \
                 them, which nobody reads: is `amount` meant? A field has another name in the \
                 rows where `names` says so"
            )
        );
        for rows in [
            // In one row, or as null.
            &[wrong, r#"{"id":"a","amount":2}"#][..],
            &[wrong, r#"{"id":"a","amount":null,"note":null}"#],
            // Nothing is near.
            &[r#"{"id":"a","price":1}"#],
            &[r#"{"id":"a"}"#],
            &[],
        ] {
            assert_eq!(told(&json, &[rows]), None, "{rows:?}");
        }
    }

    #[test]
    fn the_first_rows_are_looked_at_under_the_names_that_they_have() {
        let format = RowFormat {
            names: vec![("amount".to_owned(), "Sum".to_owned())],
            ..Format::Json.into()
        };
        let rows = [r#"{"id":"a","sum":1,"note":"n"}"#; ROWS];
        let mut fields = MisspeltFields::of(&"orders".into(), &format, &schema(), 0);
        let fields = fields.as_mut().expect("two may be missing");
        assert!(!fields.look(&chunk(&format, &rows[1..])));
        assert!(fields.look(&chunk(&format, &rows)), "it has seen enough");
        let told = fields.tell().expect("one is near");
        assert!(
            told.contains("field `Sum` is in none of the first 1000 rows"),
            "{told}"
        );
        // The last two columns are of no keys.
        assert!(MisspeltFields::of(&"orders".into(), &format, &schema(), 2).is_none());
    }
}
