//! Reads names of fields, and the key of an operator.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::reader::ConfigValue;

#[derive(Debug)]
pub struct KeyConfig {
    pub place: Span,
    pub columns: KeyColumns,
}

/// The names of the key's columns.
#[derive(Clone, Debug)]
pub enum KeyColumns {
    /// The same for all inputs.
    Same(Vec<Spanned<String>>),
    /// By input port.
    ByPort(Vec<(Spanned<String>, Vec<Spanned<String>>)>),
}

pub(super) const FIELD_WANTED: &str = "the name of a field, in quotes";

/// Reads the names of the key's fields, which may differ from port to port.
pub(super) fn read(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<KeyConfig> {
    let columns = match value.raw() {
        DeValue::Table(_) => {
            let ports = value.table(mistakes)?.into_entries();
            let ports: Vec<Option<_>> = ports
                .map(|(port, value)| Some((port, read_fields(&value, mistakes)?)))
                .collect();
            KeyColumns::ByPort(ports.into_iter().collect::<Option<Vec<_>>>()?)
        }
        _ => KeyColumns::Same(read_fields(value, mistakes)?),
    };
    Some(KeyConfig {
        place: value.key_span(),
        columns,
    })
}

/// Reads names of fields, each once.
pub(super) fn read_fields(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<Vec<Spanned<String>>> {
    let wanted = "the name of a field, or a list of names";
    let columns = value.one_or_more(wanted, mistakes, |value, mistakes| {
        value.text(FIELD_WANTED, mistakes)
    })?;
    for (i, column) in columns.iter().enumerate() {
        if let Some(first) = columns[..i].iter().find(|other| *other == column) {
            mistakes.push(
                Mistake::new(format!("{} has `{}` twice", value.what(), column.get_ref()))
                    .at(column.span(), "again here")
                    .at(first.span(), "first here"),
            );
            return None;
        }
    }
    Some(columns)
}
