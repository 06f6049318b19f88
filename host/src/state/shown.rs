//! What people and programs see of the entry of a key: typed JSON.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::look::SeenRow;
use super::row::{Codec, RowError};
use super::rows::BufferedRow;
use crate::json::render_exact_columns;
use crate::schema::Schema;

/// How many rows of a key are shown at most; the others are counted.
const ROWS_MAX: usize = 1_000;

/// An entry of a key, or a part of it that has a window of its own. Times are in ms since
/// 1970.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Shown {
    /// When its window starts; of windows that overlap, when its pane starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<i64>,
    /// The first time that is not in it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<i64>,
    /// How many rows are in its window, of those that count rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The event time of its newest row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_ms: Option<i64>,
    /// By the schema of the operator's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub state: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<ShownTimer>,
    /// Rows that are kept until others come, or time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_rows: Vec<ShownRow>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_none")]
    pub kept_rows_left_out: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ShownTimer {
    pub name: String,
    pub at_ms: i64,
    /// Whether it is due by the clock, and not by event time.
    pub in_processing_time: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ShownRow {
    pub time_ms: i64,
    /// Whether it says that its key has no value from this time on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deletes: bool,
    #[schema(value_type = Object)]
    pub row: Box<RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// What is shown of a key: its fields.
pub fn show_key(schema: &Schema, seen: &SeenRow) -> Result<Box<RawValue>, RowError> {
    let mut rows = show_rows(schema, &[&seen.key])?;
    rows.pop()
        .ok_or_else(|| RowError::new("a key without fields"))
}

/// Rows of this schema as JSON.
pub fn show_rows(schema: &Schema, rows: &[&[u8]]) -> Result<Vec<Box<RawValue>>, RowError> {
    let columns = Codec::new(schema.fields.clone()).decode(rows.iter().copied())?;
    let shown = (0..rows.len()).map(|row| {
        let text = render_exact_columns(schema, &columns, row);
        RawValue::from_string(text).map_err(|error| RowError::new(error.to_string()))
    });
    shown.collect()
}

/// What is shown of the rows that a key has in a buffer.
pub fn show_buffered(
    schema: &Schema,
    rows: &[BufferedRow],
    columns: &[&[u8]],
    deletes: impl Fn(&BufferedRow) -> bool,
) -> Result<Shown, RowError> {
    let count = rows.len().min(ROWS_MAX);
    let shown = show_rows(schema, &columns[..count])?;
    let kept = rows.iter().zip(shown).map(|(buffered, row)| ShownRow {
        time_ms: buffered.time_ms,
        deletes: deletes(buffered),
        row,
    });
    Ok(Shown {
        kept_rows: kept.collect(),
        kept_rows_left_out: rows.len() - count,
        ..Shown::default()
    })
}
