//! Reads `[sinks.NAME]`: the keys that every sink has. The connector reads the
//! others.

use toml::Spanned;

use super::diagnostics::Diagnostics;
use super::input::{InputName, read_inputs};
use super::reader::Table;
use crate::sink::{SinkKind, SinkSettings};
use crate::suggest;

#[derive(Debug)]
pub struct SinkConfig {
    pub name: Spanned<String>,
    pub input: Vec<Spanned<InputName>>,
    /// The name of the column that says whether a row is added or taken back.
    pub changes: Option<Spanned<String>>,
    pub settings: Box<dyn SinkSettings>,
}

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    kinds: &[SinkKind],
    mistakes: &mut Diagnostics,
) -> Option<SinkConfig> {
    let input = read_inputs(&mut table, mistakes);
    let kinds: Vec<(&str, SinkKind)> = kinds.iter().map(|kind| (kind.name, *kind)).collect();
    let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
    let kind = table
        .required("type", &suggest::one_of(&names), mistakes)?
        .choice(&kinds, mistakes)?;
    let changes = table
        .optional("changes")
        .and_then(|value| value.name("the name of a column", mistakes));
    let settings = (kind.get_ref().read)(&mut table, mistakes);
    table.finish(mistakes);
    Some(SinkConfig {
        name,
        input: input?,
        changes,
        settings: settings?,
    })
}
