//! Reads `[sources.NAME]`: the keys that every source has. The connector reads
//! the others.

use toml::Spanned;

use super::diagnostics::Diagnostics;
use super::event_time::{self, EventTimeConfig};
use super::key::{FIELD_WANTED, read_fields};
use super::reader::{ConfigValue, Table};
use crate::dead_letter::OnError;
use crate::plan::Algorithm;
use crate::source::{SourceKind, SourceSettings};
use crate::suggest;

#[derive(Debug)]
pub struct SourceConfig {
    pub name: Spanned<String>,
    pub settings: Box<dyn SourceSettings>,
    pub time: EventTimeConfig,
    pub on_error: Option<OnError>,
    pub checksum: Option<ChecksumConfig>,
}

/// Rows carry a checksum of other fields.
#[derive(Clone, Debug)]
pub struct ChecksumConfig {
    pub field: Spanned<String>,
    pub of: Vec<Spanned<String>>,
    pub algorithm: Algorithm,
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
    let checksum = table
        .optional("checksum")
        .and_then(|value| read_checksum(&value, mistakes));
    let settings = (kind.get_ref().read)(&mut table, mistakes);
    table.finish(mistakes);
    Some(SourceConfig {
        name,
        settings: settings?,
        time,
        on_error: on_error.map(Spanned::into_inner),
        checksum,
    })
}

fn read_checksum(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<ChecksumConfig> {
    let mut table = value.table(mistakes)?;
    let field = table
        .required("field", "the field with the checksum", mistakes)
        .and_then(|value| value.text(FIELD_WANTED, mistakes));
    let of = table
        .required("of", "the fields that it is of, in their order", mistakes)
        .and_then(|value| read_fields(&value, mistakes));
    let algorithm = table
        .optional("algorithm")
        .and_then(|value| value.choice(ALGORITHMS, mistakes));
    table.finish(mistakes);
    Some(ChecksumConfig {
        field: field?,
        of: of?,
        algorithm: algorithm.map_or(Algorithm::default(), Spanned::into_inner),
    })
}

const ALGORITHMS: &[(&str, Algorithm)] =
    &[("crc32", Algorithm::Crc32), ("sha256", Algorithm::Sha256)];

/// Sources have no `retry`: a row that cannot be decoded never can be.
const POLICIES: &[(&str, OnError)] = &[
    ("fail", OnError::Fail),
    ("skip", OnError::Skip),
    ("dead_letter", OnError::DeadLetter),
];
