//! Reads `upsert`: by which key messages take the place of one another, and how it is written.

use toml::Spanned;
use toml::de::DeValue;

use super::column::DeclaredColumn;
use super::diagnostics::{Diagnostics, Mistake};
use super::format::{FormatKind, read_table_key};
use super::reader::{ConfigValue, Table};
use crate::format::{KeyFormat, TableChanges, Upserts};

const KEY_FORMATS: &[(&str, KeyFormat)] = &[
    ("text", KeyFormat::Text),
    ("json", KeyFormat::Json),
    ("avro", KeyFormat::Avro),
    ("protobuf", KeyFormat::Protobuf),
];

/// `columns` are those of the rows, whose payload is of a format; `source` is the table that
/// the value is in.
pub(super) fn read_upserts(
    value: &ConfigValue,
    format: FormatKind,
    columns: &[DeclaredColumn],
    source: &Table,
    mistakes: &mut Diagnostics,
) -> Option<Upserts> {
    let instead = match format {
        FormatKind::Json | FormatKind::Csv | FormatKind::Avro | FormatKind::Protobuf => None,
        FormatKind::Debezium => Some("remove it: `debezium = { key = … }` says by which key"),
        FormatKind::Raw | FormatKind::Syslog | FormatKind::Parquet => {
            Some("remove it, or write `format = \"json\"`, \"csv\", \"avro\" or \"protobuf\"")
        }
    };
    if let Some(instead) = instead {
        mistakes.push(value.means_nothing(instead));
        return None;
    }
    let mut table = value.table(mistakes)?;
    let meaning = "the field or fields that the key of a message has";
    let key = table.required("key", meaning, mistakes);
    let key_format = table.optional("key_format");
    let format_place = key_format.as_ref().map(ConfigValue::span);
    let key_format = match key_format {
        Some(value) => value.choice(KEY_FORMATS, mistakes).map(Spanned::into_inner),
        None => Some(KeyFormat::Text),
    };
    table.finish(mistakes);
    let (key, key_format) = (key?, key_format?);
    if matches!(key.raw(), DeValue::Array(names) if names.is_empty()) {
        key.refuse("at least one field", mistakes);
        return None;
    }
    let place = format_place.unwrap_or_else(|| key.span());
    let key = read_table_key(&key, columns, mistakes)?;
    let wrong = match key_format {
        KeyFormat::Text if key.len() > 1 => Some((
            format!("{} has several fields, and a text is one", value.what()),
            "write `key_format = \"json\"` for keys that are objects with these fields, or \
             \"avro\" or \"protobuf\"",
        )),
        KeyFormat::Avro | KeyFormat::Protobuf if source.place_of("registry").is_none() => Some((
            format!(
                "{} has keys of {}, and the source no `registry`",
                value.what(),
                key_format.name()
            ),
            "add `registry = \"http://…\"`: such keys begin with the number of their schema",
        )),
        _ => None,
    };
    if let Some((what, help)) = wrong {
        mistakes.push(Mistake::new(what).at(place, "").help(help));
        return None;
    }
    Some(Upserts {
        changes: TableChanges { key: Some(key) },
        key_format,
    })
}
