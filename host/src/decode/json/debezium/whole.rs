//! Refuses the row before a change where the database has not told it whole: what is taken back
//! has to be the row that was added, or what was made of that stays for ever.
//!
//! PostgreSQL tells the key alone, unless the table's replica identity is full. Debezium has
//! null for the other columns then, their default, or, where they may not be null, a zero of
//! their type.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value as Json;

use super::super::super::column::NamedColumn;
use super::super::super::fault::RowFault;
use super::super::members::each_member;
use super::super::scanner::Scanner;
use super::message::Teller;

/// The row before a change, in its message.
pub(super) struct OldRow<'c> {
    pub data: &'c [u8],
    pub scanner: Scanner<'c>,
    pub before: Range<usize>,
    pub after: Option<Range<usize>>,
    pub teller: Teller,
    /// The key of the message.
    pub key: Option<&'c [u8]>,
}

/// The columns that a row is read into.
pub(super) struct TableColumns<'c> {
    pub fields: &'c [NamedColumn],
    pub by_name: &'c hashbrown::HashMap<Vec<u8>, usize, foldhash::fast::RandomState>,
    /// Whether the message's schema has each; empty without one.
    pub declared: &'c [bool],
    /// The columns of the table that have a default, by the message's schema.
    pub defaults: &'c [(String, Json)],
}

/// A value of a row before a change.
struct OldValue {
    is_key: bool,
    /// Whether it may stand for one that is not told.
    stands_in: bool,
    range: Range<usize>,
}

/// Refuses a row that is not told whole, as far as it shows. `is_trusted` says that one which
/// looks like a key alone is whole.
pub(super) fn check_whole(
    row: &OldRow<'_>,
    columns: &TableColumns<'_>,
    is_trusted: bool,
    scratch: &mut Vec<u8>,
) -> Result<(), RowFault> {
    row.check_fields(columns, scratch)?;
    let is_whole = is_trusted || row.teller == Teller::Whole;
    match is_whole || !row.is_key_alone(columns.defaults, scratch)? {
        true => Ok(()),
        false => Err(key_alone()),
    }
}

impl OldRow<'_> {
    /// Each field that the table has is in the row. One that it does not have yet was null in
    /// the row that was added, too.
    fn check_fields(
        &self,
        columns: &TableColumns<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), RowFault> {
        let told = self.has_fields(&self.before, columns, scratch)?;
        if told.iter().all(|is_told| *is_told) {
            return Ok(());
        }
        let expected = match &self.after {
            _ if !columns.declared.is_empty() => columns.declared.to_vec(),
            Some(after) => self.has_fields(after, columns, scratch)?,
            None => vec![true; told.len()],
        };
        let mut fields = columns.fields.iter().zip(told.iter().zip(expected));
        match fields.find(|(_, (is_told, is_expected))| *is_expected && !**is_told) {
            None => Ok(()),
            Some((field, _)) => Err(RowFault::new(format!(
                "is missing, and what is gone has to be told whole{REMEDY}"
            ))
            .within(&field.name)),
        }
    }

    /// Whether a row has each field.
    fn has_fields(
        &self,
        row: &Range<usize>,
        columns: &TableColumns<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<bool>, RowFault> {
        let wanted = |name: &[u8]| columns.by_name.get(name).copied();
        let mut has = vec![false; columns.fields.len()];
        each_member(self.scanner, row.start, scratch, wanted, |field, _| {
            has[field] = true;
        })?;
        Ok(has)
    }

    /// Whether a row has nothing but its key, as far as it shows.
    fn is_key_alone(
        &self,
        defaults: &[(String, Json)],
        scratch: &mut Vec<u8>,
    ) -> Result<bool, RowFault> {
        let data = self.data;
        let values = self.values(&self.before, &[], defaults, scratch)?;
        if !values.iter().any(|value| value.stands_in) {
            return Ok(false);
        }
        let values = self.values(&self.before, &key_names(self.key), defaults, scratch)?;
        // Which fields are the key, a file does not tell.
        let is_told = values.iter().any(|value| value.is_key);
        let is_kept = |value: &OldValue| match is_told {
            true => value.is_key,
            false => !value.stands_in,
        };
        let others = values.iter().filter(|value| !is_kept(value));
        let kept = values.len() - others.clone().count();
        if kept == values.len() || !others.clone().all(|value| value.stands_in) {
            return Ok(false);
        }
        if !is_told && kept > 1 {
            return Ok(false);
        }
        let Some(after) = &self.after else {
            return Ok(true);
        };
        // Of an update, the key is told only where it is another one. Both rows were written
        // by one program: their columns have one order.
        let now = self.values(after, &[], &[], scratch)?;
        let pairs = values.iter().zip(&now);
        let differs = |wanted: bool| {
            pairs.clone().any(|(old, new)| {
                is_kept(old) == wanted && data[old.range.clone()] != data[new.range.clone()]
            })
        };
        Ok(now.len() == values.len() && differs(true) && differs(false))
    }

    /// The values of a row whose key has these names.
    fn values(
        &self,
        row: &Range<usize>,
        key: &[String],
        defaults: &[(String, Json)],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<OldValue>, RowFault> {
        // A column's default and whether it is of the key, in one number.
        let wanted = |name: &[u8]| {
            let default = defaults.iter().position(|it| it.0.as_bytes() == name);
            let is_key = key.iter().any(|it| it.as_bytes() == name);
            Some(2 * default.map_or(0, |default| default + 1) + usize::from(is_key))
        };
        let mut values = Vec::new();
        each_member(self.scanner, row.start, scratch, wanted, |known, range| {
            let default = (known / 2).checked_sub(1).map(|index| &defaults[index].1);
            let value = &self.data[range.clone()];
            values.push(OldValue {
                is_key: known % 2 == 1,
                stands_in: stands_in(value, default, self.teller),
                range,
            });
        })?;
        Ok(values)
    }
}

/// Whether a value may stand for one that is not told, of a column with this default.
fn stands_in(value: &[u8], default: Option<&Json>, teller: Teller) -> bool {
    if value == b"null" || teller != Teller::Postgres {
        return value == b"null";
    }
    match (default, value) {
        (None, [b'"', text @ .., b'"']) if !text.contains(&b'\\') => is_empty_text(text),
        (None, [first, ..]) if !b"\"{[".contains(first) => value == b"false" || is_zero(value),
        _ => {
            let value = serde_json::from_slice::<Json>(value);
            value.is_ok_and(|value| Some(&value) == default || is_empty(&value))
        }
    }
}

/// Whether a value is what Debezium has for one that a column needs and PostgreSQL has not told:
/// a zero of its type, which for a point is one with its bytes beside it.
fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(is) => !is,
        Json::Number(number) => is_zero(number.to_string().as_bytes()),
        Json::String(text) => is_empty_text(text.as_bytes()),
        Json::Array(elements) => elements.iter().all(is_empty),
        Json::Object(members) => members
            .iter()
            .all(|(name, value)| name == "wkb" || is_empty(value)),
    }
}

fn is_zero(value: &[u8]) -> bool {
    value.iter().all(|byte| b"0.-+eE".contains(byte))
}

/// The same of a text: a number, the first moment of 1970, a time of day, a duration, a UUID;
/// the base64 of zeros; a record or list as a text.
fn is_empty_text(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"1970-01-01").unwrap_or(text);
    let is_of = |bytes: &[u8]| rest.iter().all(|byte| bytes.contains(byte));
    matches!(rest, b"" | b"{}" | b"[]")
        || (rest.contains(&b'0') && is_of(b"0:.-+eE TZPYMWDHS"))
        || is_of(b"A=")
}

/// The fields that the key of a message has, if it is JSON.
fn key_names(key: Option<&[u8]>) -> Vec<String> {
    let key = key.and_then(|key| serde_json::from_slice::<HashMap<String, Json>>(key).ok());
    let Some(key) = key else {
        return Vec::new();
    };
    match key.get("payload") {
        Some(Json::Object(payload)) if key.contains_key("schema") => {
            payload.keys().cloned().collect()
        }
        _ => key.into_keys().collect(),
    }
}

const REMEDY: &str = ": have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY \
                      FULL`), or name the table's key: `debezium = { key = … }`";

#[cold]
pub(super) fn lacks_before() -> RowFault {
    RowFault::new(format!("has no `before`, the row that is gone{REMEDY}"))
}

#[cold]
fn key_alone() -> RowFault {
    RowFault::new(format!(
        "is a key alone, as it seems, and no whole row{REMEDY}. If it is whole, `debezium = {{ \
         replica_identity = \"full\" }}` says so"
    ))
}
