//! Reads `[sources.NAME]`: the keys that every source has. The connector reads
//! the others.

use toml::Spanned;

use super::diagnostics::Diagnostics;
use super::reader::Table;
use crate::dead_letter::OnError;
use crate::source::{SourceKind, SourceSettings};
use crate::suggest;

#[derive(Debug)]
pub struct SourceConfig {
    pub name: Spanned<String>,
    pub settings: Box<dyn SourceSettings>,
    pub event_time: Option<Spanned<String>>,
    pub watermark: WatermarkConfig,
    pub on_error: Option<OnError>,
}

/// Absent where the file does not say.
#[derive(Debug, Default)]
pub struct WatermarkConfig {
    pub out_of_orderness_ms: Option<i64>,
    pub idle_after_ms: Option<i64>,
    pub ahead_ms_max: Option<i64>,
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
    let event_time = table
        .optional("event_time")
        .map(|value| value.text("the name of a field, in quotes", mistakes));
    let watermark = table
        .optional("watermark")
        .and_then(|value| value.table(mistakes))
        .map(|table| read_watermark(table, mistakes));
    let on_error = table
        .optional("on_error")
        .and_then(|value| value.choice(POLICIES, mistakes));
    let settings = (kind.get_ref().read)(&mut table, mistakes);
    table.finish(mistakes);
    Some(SourceConfig {
        name,
        settings: settings?,
        event_time: event_time.flatten(),
        watermark: watermark.unwrap_or_default(),
        on_error: on_error.map(Spanned::into_inner),
    })
}

/// Sources have no `retry`: a row that cannot be decoded never can be.
const POLICIES: &[(&str, OnError)] = &[
    ("fail", OnError::Fail),
    ("skip", OnError::Skip),
    ("dead_letter", OnError::DeadLetter),
];

fn read_watermark(mut table: Table, mistakes: &mut Diagnostics) -> WatermarkConfig {
    let mut duration = |key, ms_min| {
        let value = table.optional(key)?.duration(ms_min, mistakes)?;
        Some(value.into_inner())
    };
    let watermark = WatermarkConfig {
        out_of_orderness_ms: duration("out_of_orderness", 0),
        idle_after_ms: duration("idle_after", 1),
        ahead_ms_max: duration("max_ahead", 0),
    };
    table.finish(mistakes);
    watermark
}
