//! Reads `event_time` and `watermark`, which sources and operators have.

use toml::Spanned;

use super::diagnostics::{Diagnostics, Span};
use super::reader::Table;

/// Which field has the event time, and when it advances. Absent where the file does not
/// say.
#[derive(Clone, Debug, Default)]
pub struct EventTimeConfig {
    /// The name of a field, or of a member of a record: `meta.ts`.
    pub field: Option<Spanned<String>>,
    pub watermark: Option<WatermarkConfig>,
}

#[derive(Clone, Debug)]
pub struct WatermarkConfig {
    /// The place of its key.
    pub place: Span,
    pub out_of_orderness_ms: Option<i64>,
    pub idle_after_ms: Option<i64>,
    pub ahead_ms_max: Option<i64>,
    /// Whether what is there at the start has to be read before there is any event time.
    pub bootstrap: Option<Spanned<bool>>,
}

pub(super) fn read(table: &mut Table, mistakes: &mut Diagnostics) -> EventTimeConfig {
    let field = table
        .optional("event_time")
        .and_then(|value| value.text("the name of a field, in quotes", mistakes));
    let watermark = table.optional("watermark").and_then(|value| {
        let place = value.key_span();
        Some(read_watermark(place, value.table(mistakes)?, mistakes))
    });
    EventTimeConfig { field, watermark }
}

fn read_watermark(place: Span, mut table: Table, mistakes: &mut Diagnostics) -> WatermarkConfig {
    let bootstrap = table.optional("bootstrap").and_then(|value| {
        let place = value.key_span();
        Some(Spanned::new(place, value.boolean(mistakes)?))
    });
    let mut duration = |key, ms_min| {
        let value = table.optional(key)?.duration(ms_min, mistakes)?;
        Some(value.into_inner())
    };
    let watermark = WatermarkConfig {
        place,
        out_of_orderness_ms: duration("out_of_orderness", 0),
        idle_after_ms: duration("idle_after", 1),
        ahead_ms_max: duration("max_ahead", 0),
        bootstrap,
    };
    table.finish(mistakes);
    watermark
}
