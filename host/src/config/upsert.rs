//! Reads `upsert`: by which key messages take the place of one another, and how it is written.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::reader::{ConfigValue, Table};
use crate::format::{KeyFormat, TableChanges, Upserts};

const KEY_FORMATS: &[(&str, KeyFormat)] = &[
    ("text", KeyFormat::Text),
    ("json", KeyFormat::Json),
    ("avro", KeyFormat::Avro),
    ("protobuf", KeyFormat::Protobuf),
];

/// Its keys.
pub(super) struct UpsertKeys<'a> {
    /// As in messages.
    what: String,
    /// Names the fields.
    pub key: ConfigValue<'a>,
    key_format: KeyFormat,
    /// What says or implies the format.
    place: Span,
}

impl<'a> UpsertKeys<'a> {
    pub fn read(value: &ConfigValue<'a>, mistakes: &mut Diagnostics) -> Option<Self> {
        let mut table = value.table(mistakes)?;
        let meaning = "the field or fields that the key of a message has";
        let key = table.required("key", meaning, mistakes);
        let key_format = table.optional("key_format");
        let place = key_format.as_ref().map(ConfigValue::span);
        let key_format = match key_format {
            Some(value) => value.choice(KEY_FORMATS, mistakes).map(Spanned::into_inner),
            None => Some(KeyFormat::Text),
        };
        table.finish(mistakes);
        let key = key?;
        if matches!(key.raw(), DeValue::Array(names) if names.is_empty()) {
            key.refuse("at least one field", mistakes);
            return None;
        }
        Some(UpsertKeys {
            what: value.what().to_owned(),
            place: place.unwrap_or_else(|| key.span()),
            key,
            key_format: key_format?,
        })
    }

    /// What they mean, where these are the fields of the key, in the table of a source.
    pub fn upserts(
        self,
        key: Vec<String>,
        source: &Table,
        mistakes: &mut Diagnostics,
    ) -> Option<Upserts> {
        let (what, key_format) = (self.what, self.key_format);
        let wrong = match key_format {
            KeyFormat::Text if key.len() > 1 => Some((
                format!("{what} has several fields, and a text is one"),
                "write `key_format = \"json\"` for keys that are objects with these fields, or \
                 \"avro\" or \"protobuf\"",
            )),
            KeyFormat::Avro | KeyFormat::Protobuf if source.place_of("registry").is_none() => {
                Some((
                    format!(
                        "{what} has keys of {}, and the source no `registry`",
                        key_format.name()
                    ),
                    "add `registry = \"http://…\"`: such keys begin with the number of their schema",
                ))
            }
            _ => None,
        };
        if let Some((what, help)) = wrong {
            mistakes.push(Mistake::new(what).at(self.place, "").help(help));
            return None;
        }
        Some(Upserts {
            changes: TableChanges { key: Some(key) },
            key_format,
        })
    }
}
