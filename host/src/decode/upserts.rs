//! Decodes messages whose rows take the place of one another by their keys: the message's key
//! has some of a row's fields, its payload the others. A message without a payload takes back
//! what has its key.

use std::collections::HashMap;

use arrow_array::ArrayRef;
use serde::de::IgnoredAny;

use super::changes::Changes;
use super::column::{RecordBuilder, ValuesBuilder};
use super::fault::{RowFault, utf8};
use super::json::{self, JsonRows};
use super::push::{push_bytes, push_text, unplanned};
use super::{Beside, FormatRows};
use crate::format::{KeyFormat, RowFormat, Upserts};
use crate::schema::Schema;
use crate::timestamp::{self, CutTimes};

/// Rows under construction.
#[derive(Clone, Debug)]
pub(super) struct UpsertRows {
    payload: FormatRows,
    key: KeyRows,
    key_format: KeyFormat,
    /// Of each column of the rows, whether it is one of the key's.
    is_of_key: Vec<bool>,
    changes: Changes,
}

/// The fields of keys, as rows of their own.
#[derive(Clone, Debug)]
enum KeyRows {
    Text(RecordBuilder),
    Json(JsonRows),
    Registered(FormatRows),
}

impl UpsertRows {
    pub fn new(upserts: &Upserts, rows: &RowFormat, schema: &Schema) -> Self {
        let key_format = upserts.key_format;
        let (payload, payload_schema) = rows.of_payload(schema);
        let (key, key_schema) = rows.of_key(schema, key_format);
        let written = key.written(&key_schema);
        let timestamps = &key.timestamp_formats;
        let fields = schema.fields.iter();
        UpsertRows {
            payload: FormatRows::new(&payload, &payload_schema),
            key: match key_format {
                KeyFormat::Text => {
                    let mut formats = timestamps.iter().cloned();
                    KeyRows::Text(RecordBuilder::new(&written.fields, &mut formats))
                }
                KeyFormat::Json => KeyRows::Json(JsonRows::new(&written, timestamps)),
                KeyFormat::Avro | KeyFormat::Protobuf => {
                    KeyRows::Registered(FormatRows::new(&key, &key_schema))
                }
            },
            key_format,
            is_of_key: fields.map(|field| rows.is_of_key(&field.name)).collect(),
            changes: Changes::default(),
        }
    }

    pub fn payload(&self) -> &FormatRows {
        &self.payload
    }

    /// What keys are read with, if they name their schemas.
    pub fn registered_key(&self) -> Option<&FormatRows> {
        match &self.key {
            KeyRows::Registered(key) => Some(key),
            KeyRows::Text(_) | KeyRows::Json(_) => None,
        }
    }

    /// What reads payloads, and keys, of schemas that are learned.
    pub fn learning(&mut self) -> impl Iterator<Item = &mut FormatRows> {
        let key = match &mut self.key {
            KeyRows::Registered(key) => Some(key),
            KeyRows::Text(_) | KeyRows::Json(_) => None,
        };
        [&mut self.payload].into_iter().chain(key)
    }

    /// Adds the row of a message; after an error, [`Self::truncate`] must follow.
    pub fn push(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
        beside: Beside<'_>,
    ) -> Result<(), RowFault> {
        let payload = &data[start..end];
        if !self.payload.is_any_bytes() {
            utf8(payload)?;
        }
        // As some write a tombstone that have no other value for nothing.
        if matches!(self.payload, FormatRows::Json(_)) && payload.trim_ascii() == b"null" {
            return self.push_tombstone(beside);
        }
        self.payload.push(data, start, end, Beside::default())?;
        self.push_key(beside, false)
    }

    /// Adds the row of a message without a payload: what has its key is gone.
    pub fn push_tombstone(&mut self, beside: Beside<'_>) -> Result<(), RowFault> {
        self.payload.push_null()?;
        self.push_key(beside, true)
    }

    fn push_key(&mut self, beside: Beside<'_>, is_taken_back: bool) -> Result<(), RowFault> {
        let Some(key) = beside.key else {
            return Err(RowFault::new(
                "expected a message with a key, which says whose place its row takes, found one \
                 without",
            ));
        };
        let time_ms = beside.time_ms.filter(|ms| timestamp::is_plausible(*ms));
        let time_ms = time_ms.ok_or_else(|| no_time(beside.time_ms))?;
        let read = match &mut self.key {
            KeyRows::Text(rows) => push_key_text(rows, key),
            KeyRows::Json(rows) => utf8(key).and_then(|key| rows.push_key(key)),
            KeyRows::Registered(rows) => rows.push(key, 0, key.len(), Beside::default()),
        };
        read.map_err(|fault| {
            let format = self.key_format.name();
            RowFault::new(format!("the message's key, as {format}: {fault}"))
        })?;
        self.changes.push(is_taken_back, time_ms);
        Ok(())
    }

    pub fn truncate(&mut self, rows: usize) {
        self.payload.truncate(rows);
        match &mut self.key {
            KeyRows::Text(key) => key.truncate(rows),
            KeyRows::Json(key) => key.truncate(rows),
            KeyRows::Registered(key) => key.truncate(rows),
        }
        self.changes.truncate(rows);
    }

    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        let of_key = match &mut self.key {
            KeyRows::Text(key) => key.take_cut_times(),
            KeyRows::Json(key) => key.take_cut_times(),
            KeyRows::Registered(key) => key.take_cut_times(),
        };
        match (self.payload.take_cut_times(), of_key) {
            (Some(of_payload), Some(of_key)) => Some(CutTimes {
                values: of_payload.values + of_key.values,
                ..of_payload
            }),
            (of_payload, of_key) => of_payload.or(of_key),
        }
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        let key = match &mut self.key {
            KeyRows::Text(key) => key.take(),
            KeyRows::Json(key) => key.take(),
            KeyRows::Registered(key) => key.take(),
        };
        let (mut payload, mut key) = (self.payload.take().into_iter(), key.into_iter());
        let columns = self
            .is_of_key
            .iter()
            .filter_map(|is_of_key| match is_of_key {
                true => key.next(),
                false => payload.next(),
            });
        columns.collect()
    }

    pub fn changes(&mut self) -> &mut Changes {
        &mut self.changes
    }
}

/// Adds the row of a key of one field, as sinks write it.
fn push_key_text(rows: &mut RecordBuilder, key: &[u8]) -> Result<(), RowFault> {
    let [field] = rows.fields.as_mut_slice() else {
        return Err(unplanned());
    };
    let column = &mut field.column;
    match &column.values {
        ValuesBuilder::Bytes(_) => {
            push_bytes(column, key)?;
            column.end_value();
        }
        ValuesBuilder::Utf8(_) | ValuesBuilder::Symbol(..) => {
            let text = utf8(key)?;
            check_is_text(text, &field.name)?;
            push_text(column, text)?;
            column.end_value();
        }
        _ => json::push_value(column, utf8(key)?)?,
    }
    rows.end();
    Ok(())
}

/// Refuses a text that is a key of another format: rows would have it as it is, and match
/// nothing.
fn check_is_text(text: &[u8], field: &str) -> Result<(), RowFault> {
    let formats = match text.first() {
        Some(0) => "\"avro\"` or `\"protobuf\"",
        Some(b'{') => {
            let members: HashMap<String, IgnoredAny> =
                serde_json::from_slice(text).unwrap_or_default();
            let is_envelope = ["schema", "payload"]
                .iter()
                .all(|it| members.contains_key(*it));
            if !members.contains_key(field) && !is_envelope {
                return Ok(());
            }
            "\"json\""
        }
        _ => return Ok(()),
    };
    Err(RowFault::new(format!(
        "expected the text of `{field}`, found {}, as `key_format = {formats}` reads it",
        match text.first() {
            Some(0) => "a zero byte and the number of a schema",
            _ => "JSON with it",
        }
    )))
}

#[cold]
fn no_time(found: Option<i64>) -> RowFault {
    let found = found.map_or_else(|| "none".to_owned(), |ms| ms.to_string());
    RowFault::new(format!(
        "the message's timestamp: expected one in ms in the years 1 to 9999, found {found}"
    ))
}

#[cfg(test)]
mod tests;
