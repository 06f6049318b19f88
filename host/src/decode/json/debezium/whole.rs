//! Refuses the row before a change where the database has not told it whole: what is taken back
//! has to be the row that was added, or what was made of that stays for ever.
//!
//! PostgreSQL tells the key alone, unless the table's replica identity is full. Debezium has
//! null for the other columns then, or, where they may not be null, a zero, false or an empty
//! text.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value as Json;

use super::super::super::column::NamedColumn;
use super::super::super::fault::RowFault;
use super::super::scanner::Scanner;
use super::members::each_member;
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
    match is_whole || !row.is_key_alone(scratch)? {
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
    fn is_key_alone(&self, scratch: &mut Vec<u8>) -> Result<bool, RowFault> {
        let data = self.data;
        let is_empty = |value: &Range<usize>| stands_in(&data[value.clone()], self.teller);
        let values = self.values(&self.before, &[], scratch)?;
        if !values.iter().any(|(_, value)| is_empty(value)) {
            return Ok(false);
        }
        let values = self.values(&self.before, &key_names(self.key), scratch)?;
        // Which fields are the key, a file does not tell.
        let is_told = values.iter().any(|(is_key, _)| *is_key);
        let is_kept = |(is_key, value): &(bool, Range<usize>)| match is_told {
            true => *is_key,
            false => !is_empty(value),
        };
        let others = values.iter().filter(|it| !is_kept(it));
        let kept = values.len() - others.clone().count();
        if kept == values.len() || !others.clone().all(|(_, value)| is_empty(value)) {
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
        let now = self.values(after, &[], scratch)?;
        let pairs = values.iter().zip(&now);
        let differs = |wanted: bool| {
            pairs.clone().any(|(old, (_, new))| {
                is_kept(old) == wanted && data[old.1.clone()] != data[new.clone()]
            })
        };
        Ok(now.len() == values.len() && differs(true) && differs(false))
    }

    /// The values of a row, and whether each is of one of these names.
    fn values(
        &self,
        row: &Range<usize>,
        names: &[String],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<(bool, Range<usize>)>, RowFault> {
        let wanted = |name: &[u8]| {
            let is_one = names.iter().any(|it| it.as_bytes() == name);
            Some(usize::from(is_one))
        };
        let mut values = Vec::new();
        each_member(self.scanner, row.start, scratch, wanted, |is_one, value| {
            values.push((is_one == 1, value));
        })?;
        Ok(values)
    }
}

/// Whether a value may stand for one that is not told.
fn stands_in(value: &[u8], teller: Teller) -> bool {
    let is_zero = |value: &[u8]| value.iter().all(|byte| b"0.-+eE".contains(byte));
    match value {
        b"null" => true,
        b"false"
        | b"\"\""
        | b"[]"
        | b"{}"
        | b"\"{}\""
        | b"\"AA==\""
        | b"\"1970-01-01T00:00:00Z\"" => teller == Teller::Postgres,
        _ => teller == Teller::Postgres && is_zero(value),
    }
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
