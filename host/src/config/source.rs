//! Reads `[sources.NAME]`: the keys that every source has. The connector reads
//! the others.

use toml::Spanned;

use super::diagnostics::Diagnostics;
use super::event_time::{self, EventTimeConfig};
use super::reader::Table;
use crate::dead_letter::OnError;
use crate::source::{SourceKind, SourceSettings};
use crate::suggest;

#[derive(Debug)]
pub struct SourceConfig {
    pub name: Spanned<String>,
    pub settings: Box<dyn SourceSettings>,
    pub time: EventTimeConfig,
    pub on_error: Option<OnError>,
}

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    kinds: &[SourceKind],
    mistakes: &mut Diagnostics,
) -> Option<SourceConfig> {
    let kinds: Vec<(&str, SourceKind)> = kinds.iter().map(|kind| (kind.name, *kind)).collect();
    let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
    let kind = table
        .required("type", &suggest::one_of(&names), mistakes)?
        .choice(&kinds, mistakes)?;
    let time = event_time::read(&mut table, mistakes);
    let on_error = table
        .optional("on_error")
        .and_then(|value| value.choice(POLICIES, mistakes));
    let settings = (kind.get_ref().read)(&mut table, mistakes);
    table.finish(mistakes);
    Some(SourceConfig {
        name,
        settings: settings?,
        time,
        on_error: on_error.map(Spanned::into_inner),
    })
}

/// Sources have no `retry`: a row that cannot be decoded never can be.
const POLICIES: &[(&str, OnError)] = &[
    ("fail", OnError::Fail),
    ("skip", OnError::Skip),
    ("dead_letter", OnError::DeadLetter),
];
