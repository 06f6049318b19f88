//! Columns of what messages have beside their payload, as `metadata` names them.

use std::ops::Range;

use toml::Spanned;

use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::format::WrittenRows;
use crate::config::reader::ConfigValue;
use crate::format::{Format, RowFormat};
use crate::schema::{DataType, Field};

/// Reads `metadata`: which of these a message's fields are, and the names that they get, in
/// the order in which they are written.
pub fn read_beside<C: Copy>(
    value: &ConfigValue<'_>,
    columns: &[(&'static str, C)],
    rows: Option<&WrittenRows>,
    mistakes: &mut Diagnostics,
) -> Vec<(C, Spanned<String>)> {
    let Some(mut table) = value.table(mistakes) else {
        return Vec::new();
    };
    let mut found: Vec<(C, Spanned<String>)> = Vec::new();
    for (key, column) in columns {
        let name = table
            .optional(key)
            .and_then(|value| value.text("the name of its field, in quotes", mistakes));
        found.extend(name.map(|name| (*column, name)));
    }
    table.finish(mistakes);
    found.sort_by_key(|(_, name)| name.span().start);
    let mut taken: Vec<(&str, Range<usize>)> = rows
        .into_iter()
        .flat_map(|rows| &rows.columns)
        .map(|column| (column.field.name.as_str(), column.place.clone()))
        .collect();
    for (_, name) in &found {
        match taken.iter().find(|(other, _)| other == name.get_ref()) {
            Some((_, first)) => mistakes.push(
                Mistake::new(format!("{} has `{}` twice", value.what(), name.get_ref()))
                    .at(name.span(), "again here")
                    .at(first.clone(), "first here"),
            ),
            None if name.get_ref().is_empty() => mistakes.push(
                Mistake::new(format!("{}: a field needs a name", value.what())).at(name.span(), ""),
            ),
            None => taken.push((name.get_ref(), name.span())),
        }
    }
    found
}

/// The column of such a field.
pub fn declared(name: &Spanned<String>, data_type: DataType, nullable: bool) -> DeclaredColumn {
    DeclaredColumn {
        field: Field::new(name.get_ref(), data_type, nullable),
        place: name.span(),
        timestamp_formats: Vec::new(),
    }
}

/// The format of rows in a file that has so many of these columns, too: in JSON, they are
/// fields like the others. A file of messages that are not text would not tell them apart.
pub fn with_beside(payload: &RowFormat, columns: usize) -> RowFormat {
    match (&payload.format, columns) {
        (Format::Message(_), _) | (_, 1..) => RowFormat {
            format: Format::Json,
            ..payload.clone()
        },
        (_, 0) => payload.clone(),
    }
}
