//! Refuses the row before a change where the database has not told it whole: what is taken back
//! has to be the row that was added, or what was made of that stays for ever.
//!
//! PostgreSQL tells the key alone, unless the table's replica identity is full. Debezium has
//! null for the other columns then, or, where they may not be null, a zero, false or an empty
//! text.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value as Json;

use super::super::super::fault::RowFault;
use super::super::scanner::Scanner;
use super::message::Teller;
use super::{DebeziumRows, each_member};

/// The rows of a change that has one to take back.
pub(super) struct OldRow<'c> {
    pub before: &'c Range<usize>,
    pub after: Option<&'c Range<usize>>,
    pub teller: Teller,
    /// The key of the message.
    pub key: Option<&'c [u8]>,
}

impl DebeziumRows {
    pub(super) fn check_whole(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        row: &OldRow<'_>,
    ) -> Result<(), RowFault> {
        self.check_fields(scanner, row)
            .and_then(|()| match self.is_key_alone(data, scanner, row)? {
                false => Ok(()),
                true => Err(key_alone()),
            })
            .map_err(|fault| fault.within("before"))
    }

    /// Each field that the table has is in the row. One that it does not have yet was null in
    /// the row that was added, too.
    fn check_fields(&mut self, scanner: Scanner<'_>, row: &OldRow<'_>) -> Result<(), RowFault> {
        let told = self.has_fields(scanner, row.before)?;
        if told.iter().all(|is_told| *is_told) {
            return Ok(());
        }
        let expected = match row.after {
            _ if !self.known.columns.is_empty() => self.known.columns.clone(),
            Some(after) => self.has_fields(scanner, after)?,
            None => vec![true; told.len()],
        };
        let mut fields = self.rows.fields.iter().zip(told.iter().zip(expected));
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
        &mut self,
        scanner: Scanner<'_>,
        row: &Range<usize>,
    ) -> Result<Vec<bool>, RowFault> {
        let by_name = &self.shape.by_name;
        let wanted = |name: &[u8]| by_name.get(name).copied();
        let mut has = vec![false; self.rows.fields.len()];
        each_member(scanner, row.start, &mut self.scratch, wanted, |field, _| {
            has[field] = true;
        })?;
        Ok(has)
    }

    /// Whether a row has nothing but its key, as far as it shows.
    fn is_key_alone(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        row: &OldRow<'_>,
    ) -> Result<bool, RowFault> {
        if self.tells_whole_rows || row.teller == Teller::Whole {
            return Ok(false);
        }
        let is_empty = |value: &Range<usize>| stands_in(&data[value.clone()], row.teller);
        let values = self.values(scanner, row.before, &[])?;
        if !values.iter().any(|(_, value)| is_empty(value)) {
            return Ok(false);
        }
        let values = self.values(scanner, row.before, &key_names(row.key))?;
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
        let Some(after) = row.after else {
            return Ok(true);
        };
        // Of an update, the key is told only where it is another one. Both rows were written
        // by one program: their columns have one order.
        let now = self.values(scanner, after, &[])?;
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
        &mut self,
        scanner: Scanner<'_>,
        row: &Range<usize>,
        names: &[String],
    ) -> Result<Vec<(bool, Range<usize>)>, RowFault> {
        let wanted = |name: &[u8]| {
            let is_one = names.iter().any(|it| it.as_bytes() == name);
            Some(usize::from(is_one))
        };
        let mut values = Vec::new();
        each_member(
            scanner,
            row.start,
            &mut self.scratch,
            wanted,
            |is_one, value| {
                values.push((is_one == 1, value));
            },
        )?;
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
