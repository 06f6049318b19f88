//! Decodes changes of tables as Debezium tells them: an envelope in JSON with the row before
//! and after a change, and perhaps the schema of both.
//!
//! A message is no row, one or two: what was there is taken back, and what is there is added.
//! By a key, a row takes the place of the one before it, and only what is gone is taken back.
//! What cannot be told by rows is a bad row.

/// Makes columns ready for what a schema says.
mod columns;
/// Tells messages apart.
mod message;
/// Refuses rows that are gone and not told whole.
mod whole;

use std::ops::Range;

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use serde_json::Value as Json;

use self::columns::{defaults, field_schema, prepare, row_fields};
use self::message::{Change, Message};
use self::whole::{OldRow, TableColumns, check_whole, lacks_before};
use super::super::Beside;
use super::super::changes::Changes;
use super::super::column::{DecimalDigits, RecordBuilder, ValuesBuilder};
use super::super::fault::{RowFault, excerpt, utf8};
use super::super::push::no_time_in_ms;
use super::members::{each_member, members};
use super::scanner::Scanner;
use super::{Parser, RecordShape};
use crate::batch::NO_TIME;
use crate::decimal::{self, NotDecimal};
use crate::format::{DebeziumFormat, RowFormat, TextDecimals};
use crate::schema::Schema;
use crate::timestamp::{self, CutTimes, DAY_MS, TimestampFormat};

/// Rows under construction.
#[derive(Clone, Debug)]
pub(in super::super) struct DebeziumRows {
    rows: RecordBuilder,
    shape: RecordShape,
    /// The columns of the key, if rows replace one another by one.
    key: Option<Vec<usize>>,
    decimals: TextDecimals,
    /// Rows that are gone are whole, also where they look like a key alone.
    tells_whole_rows: bool,
    /// The formats of times that the pipeline's file names, depth first.
    timestamps: Vec<TimestampFormat>,
    known: KnownSchema,
    changes: Changes,
    scratch: Vec<u8>,
}

/// The schema that columns were made ready for; mostly, all messages have the same.
#[derive(Clone, Debug, Default)]
struct KnownSchema {
    /// Empty where messages have none.
    text: Vec<u8>,
    /// Whether it has each column; empty where messages have none.
    columns: Vec<bool>,
    /// The columns of the table that have a default.
    defaults: Vec<(String, Json)>,
    /// Why no row can be read that has it.
    problem: Option<String>,
}

/// What stands for a value that the database has not told of, since the change left it as it
/// was: of texts, and of bytes.
const UNAVAILABLE: [&str; 2] = [
    "\"__debezium_unavailable_value\"",
    "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"",
];

impl DebeziumRows {
    /// `own` has the fields' own names, `written` those that they have in the rows.
    pub fn new(format: &DebeziumFormat, rows: &RowFormat, own: &Schema, written: &Schema) -> Self {
        let timestamps = &rows.timestamp_formats;
        let tells_whole_rows = rows.tells_whole_rows;
        let key = format.changes.key.as_ref();
        let mut rows = DebeziumRows {
            rows: RecordBuilder::new(&written.fields, &mut timestamps.iter().cloned()),
            shape: RecordShape::new(&written.fields),
            key: key.map(|key| key.iter().filter_map(|name| own.index_of(name)).collect()),
            decimals: format.decimals,
            tells_whole_rows,
            timestamps: timestamps.clone(),
            known: KnownSchema::default(),
            changes: Changes::default(),
            scratch: Vec::new(),
        };
        rows.known.problem = rows.expect(None).err();
        rows
    }

    /// Adds the rows of a message; after an error, [`Self::truncate`] must follow.
    pub fn push(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
        Beside { key, .. }: Beside<'_>,
    ) -> Result<(), RowFault> {
        let scanner = Scanner::new(data, start, end);
        let change = match Message::read(scanner, data, start, &mut self.scratch)? {
            Message::Change(change) => change,
            Message::Mark => return Ok(()),
            Message::Tombstone => return self.push_null(key),
        };
        self.push_change(data, scanner, change, key)
    }

    fn push_change(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        change: Change,
        key: Option<&[u8]>,
    ) -> Result<(), RowFault> {
        self.learn(change.schema.map_or(&[], |schema| &data[schema]))?;
        let (before, after) = (change.before, change.after);
        let old_row = |before, after| OldRow {
            data,
            scanner,
            before,
            after,
            teller: change.teller,
            key,
        };
        let operation = &data[change.operation];
        match (operation, &self.key) {
            (b"\"c\"" | b"\"r\"", _) => {
                let after = after.ok_or_else(|| lacks("after"))?;
                self.add(data, scanner, after, "after", change.time_ms)
            }
            (b"\"u\"", None) => {
                let before = before.ok_or_else(lacks_before)?;
                let after = after.ok_or_else(|| lacks("after"))?;
                self.take_back(old_row(before, Some(after.clone())), change.time_ms)?;
                self.add(data, scanner, after, "after", change.time_ms)
            }
            (b"\"d\"", None) => {
                let before = before.ok_or_else(lacks_before)?;
                self.take_back(old_row(before, None), change.time_ms)
            }
            (b"\"u\"", Some(_)) => {
                let after = after.ok_or_else(|| lacks("after"))?;
                if let Some(before) = before
                    && self.has_other_key(data, scanner, &before, &after)?
                {
                    self.take_back_key(scanner, before.start, "before", change.time_ms)?;
                }
                self.add(data, scanner, after, "after", change.time_ms)
            }
            (b"\"d\"", Some(_)) => match (before, key) {
                (Some(before), _) => {
                    self.take_back_key(scanner, before.start, "before", change.time_ms)
                }
                (None, Some(key)) => self.take_back_by(utf8(key)?, 0, key.len(), change.time_ms),
                (None, None) => Err(lacks("before")),
            },
            (b"\"t\"", _) => Err(RowFault::new(
                "the table was emptied (TRUNCATE), and the message has none of the rows that are \
                 gone",
            )),
            (b"\"m\"", _) => Err(RowFault::new(
                "it is a message of the database's log (`pg_logical_emit_message`), and no row",
            )),
            (other, _) => Err(RowFault::new(format!(
                "expected an `op` of c, r, u or d, found {}",
                excerpt(other)
            ))),
        }
    }

    /// Adds the row of a message that has a key and nothing else: what has this key is gone.
    /// Its time is that of the change before it.
    pub fn push_tombstone(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
    ) -> Result<(), RowFault> {
        if self.key.is_none() {
            // The change before it has told all.
            return Ok(());
        }
        self.take_back_by(data, start, end, NO_TIME)
    }

    /// Adds a row of nothing but its key, which is that of a message.
    fn take_back_by(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
        time_ms: i64,
    ) -> Result<(), RowFault> {
        let scanner = Scanner::new(data, start, end);
        let at = scanner.skip_space(start);
        let names = ["schema", "payload"];
        let read = members(scanner, data, at, names, &mut self.scratch);
        let ([schema, payload], behind) = read.map_err(|fault| fault.within("key"))?;
        scanner.finish(behind)?;
        let (schema, at) = match payload {
            Some(payload) => (schema, payload.start),
            None => (None, at),
        };
        self.learn(schema.map_or(&[], |schema| &data[schema]))?;
        self.take_back_key(scanner, at, "key", time_ms)
    }

    /// Adds the row of a tombstone whose payload is the text `null`, as consumers write one
    /// into a file; its key is not there then.
    fn push_null(&mut self, key: Option<&[u8]>) -> Result<(), RowFault> {
        match (&self.key, key) {
            (None, _) => Ok(()),
            (Some(_), Some(key)) => self.push_tombstone(utf8(key)?, 0, key.len()),
            (Some(_), None) => Err(RowFault::new(
                "is a tombstone, `null`, and which row is gone was told by its key, which is not \
                 here: nothing is lost without it if the deletion before it is there",
            )),
        }
    }

    /// Adds a whole row.
    fn add(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        at: Range<usize>,
        part: &'static str,
        time_ms: i64,
    ) -> Result<(), RowFault> {
        self.read_row(data, scanner, at)
            .map_err(|fault| fault.within(part))?;
        self.changes.push(false, time_ms);
        Ok(())
    }

    /// Takes back the row before a change, which has to be told whole.
    fn take_back(&mut self, row: OldRow<'_>, time_ms: i64) -> Result<(), RowFault> {
        let columns = TableColumns {
            fields: &self.rows.fields,
            by_name: &self.shape.by_name,
            declared: &self.known.columns,
            defaults: &self.known.defaults,
        };
        check_whole(&row, &columns, self.tells_whole_rows, &mut self.scratch)
            .and_then(|()| self.read_row(row.data, row.scanner, row.before))
            .map_err(|fault| fault.within("before"))?;
        self.changes.push(true, time_ms);
        Ok(())
    }

    fn read_row(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        at: Range<usize>,
    ) -> Result<(), RowFault> {
        self.check_available(data, scanner, &at)?;
        let mut parser = Parser {
            scanner,
            scratch: &mut self.scratch,
        };
        parser.record(at.start, &mut self.rows, &mut self.shape)?;
        self.check_times(data, scanner, &at)
    }

    /// Adds a row of nothing but its key.
    fn take_back_key(
        &mut self,
        scanner: Scanner<'_>,
        at: usize,
        part: &'static str,
        time_ms: i64,
    ) -> Result<(), RowFault> {
        self.read_key(scanner, at)
            .map_err(|fault| fault.within(part))?;
        self.changes.push(true, time_ms);
        Ok(())
    }

    fn read_key(&mut self, scanner: Scanner<'_>, at: usize) -> Result<(), RowFault> {
        let key = self.key.clone().unwrap_or_default();
        let found = self.key_members(scanner, at)?;
        let row = self.rows.rows();
        let mut parser = Parser {
            scanner,
            scratch: &mut self.scratch,
        };
        for (column, value) in found {
            let field = &mut self.rows.fields[column];
            if field.column.len() > row {
                return Err(RowFault::new("is given twice").within(&field.name));
            }
            let nested = &mut self.shape.nested[column];
            let read = parser.value(value.start, &mut field.column, nested);
            read.map_err(|fault| fault.within(&field.name))?;
        }
        for (column, field) in self.rows.fields.iter_mut().enumerate() {
            if field.column.len() > row {
                continue;
            }
            if key.contains(&column) {
                return Err(RowFault::new("is missing").within(&field.name));
            }
            field.column.push_null();
        }
        self.rows.end();
        Ok(())
    }

    /// Where the values of the key are in a row.
    fn key_members(
        &mut self,
        scanner: Scanner<'_>,
        at: usize,
    ) -> Result<Vec<(usize, Range<usize>)>, RowFault> {
        let key = self.key.as_deref().unwrap_or_default();
        let by_name = &self.shape.by_name;
        let wanted = |name: &[u8]| {
            let column = by_name.get(name).copied();
            column.filter(|column| key.contains(column))
        };
        let mut found = Vec::with_capacity(key.len());
        each_member(scanner, at, &mut self.scratch, wanted, |column, value| {
            found.push((column, value));
        })?;
        Ok(found)
    }

    /// Whether the row before had another key, as far as it tells. Both were written by one
    /// program, so the same values are the same texts.
    fn has_other_key(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        before: &Range<usize>,
        after: &Range<usize>,
    ) -> Result<bool, RowFault> {
        let after = self.key_members(scanner, after.start)?;
        let before = self.key_members(scanner, before.start)?;
        let differs = |(column, value): &(usize, Range<usize>)| {
            let same = after.iter().find(|(other, _)| other == column);
            same.is_none_or(|(_, other)| data[other.clone()] != data[value.clone()])
        };
        let is_whole = Some(before.len()) == self.key.as_ref().map(Vec::len);
        Ok(is_whole && before.iter().any(differs))
    }

    /// Refuses a row with a value that the database has not told of.
    fn check_available(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        row: &Range<usize>,
    ) -> Result<(), RowFault> {
        let is_in = |range: &Range<usize>| {
            let bytes = &data[range.clone()];
            let mut words = UNAVAILABLE.iter();
            words.any(|word| memmem::find(bytes, word.as_bytes()).is_some())
        };
        if !is_in(row) {
            return Ok(());
        }
        let by_name = &self.shape.by_name;
        let wanted = |name: &[u8]| by_name.get(name).copied();
        let mut missing = None;
        each_member(
            scanner,
            row.start,
            &mut self.scratch,
            wanted,
            |column, value| {
                if is_in(&value) {
                    missing = missing.or(Some(column));
                }
            },
        )?;
        match missing {
            None => Ok(()),
            Some(column) => Err(RowFault::new(
                "is a large value that the change has left as it was, and that the database has \
                 not told of (`__debezium_unavailable_value`); it tells with `ALTER TABLE … \
                 REPLICA IDENTITY FULL`",
            )
            .within(&self.rows.fields[column].name)),
        }
    }

    /// Refuses times that nobody meant in ms, where neither a schema nor the pipeline's file
    /// says which unit they have: days, years and times of day are small numbers.
    fn check_times(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        row: &Range<usize>,
    ) -> Result<(), RowFault> {
        for column in 0..self.rows.fields.len() {
            let field = &self.rows.fields[column];
            let ValuesBuilder::Timestamp(times) = &field.column.values else {
                continue;
            };
            let Some(&ms) = times.values.last() else {
                continue;
            };
            let is_small = ms != 0 && ms.unsigned_abs() < DAY_MS.unsigned_abs();
            if times.format != TimestampFormat::Any || (timestamp::is_plausible(ms) && !is_small) {
                continue;
            }
            if is_small && self.is_text(data, scanner, row, column)? {
                continue;
            }
            let fault = match is_small {
                true => RowFault::new(format!(
                    "expected a time in ms, found {ms}, which is in the first day of 1970: days \
                     are read by `timestamp(days)`, years and times of day as whole numbers, and \
                     `timestamp(ms)` says that it is ms"
                )),
                false => no_time_in_ms(ms),
            };
            return Err(fault.within(&self.rows.fields[column].name));
        }
        Ok(())
    }

    /// Whether a row has a text in a column.
    #[cold]
    fn is_text(
        &mut self,
        data: &[u8],
        scanner: Scanner<'_>,
        row: &Range<usize>,
        column: usize,
    ) -> Result<bool, RowFault> {
        let by_name = &self.shape.by_name;
        let wanted = |name: &[u8]| by_name.get(name).copied().filter(|it| *it == column);
        let mut is_text = false;
        each_member(scanner, row.start, &mut self.scratch, wanted, |_, value| {
            is_text = data[value.start] == b'"';
        })?;
        Ok(is_text)
    }

    /// Makes columns ready for rows of a schema; an empty one says nothing.
    fn learn(&mut self, text: &[u8]) -> Result<(), RowFault> {
        if text != self.known.text {
            self.known.problem = self.expect(Some(text)).err();
            self.known.text = text.to_vec();
        }
        match &self.known.problem {
            Some(problem) => Err(RowFault::new(problem.clone())),
            None => Ok(()),
        }
    }

    fn expect(&mut self, text: Option<&[u8]>) -> Result<(), String> {
        let schema: Json = match text.filter(|text| !text.is_empty()) {
            Some(text) => serde_json::from_slice(text)
                .map_err(|error| format!("its schema cannot be read: {error}"))?,
            None => Json::Null,
        };
        let fields = row_fields(&schema);
        self.known.columns = match &fields {
            Some(fields) => {
                let columns = self.rows.fields.iter();
                let has = columns.map(|it| field_schema(Some(fields), &it.name).is_some());
                has.collect()
            }
            None => Vec::new(),
        };
        self.known.defaults = defaults(fields);
        let mut declared = self.timestamps.iter().cloned();
        for field in &mut self.rows.fields {
            let schema = field_schema(fields, &field.name);
            prepare(&mut field.column, schema, &mut declared, self.decimals)
                .map_err(|fault| fault.within(&field.name).to_string())?;
        }
        Ok(())
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
        self.changes.truncate(rows);
    }

    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        self.rows.take_cut_times()
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows.take()
    }

    pub fn changes(&mut self) -> &mut Changes {
        &mut self.changes
    }
}

impl Parser<'_, '_> {
    /// Reads a decimal that has its scale beside it: `{"scale":2,"value":"MDk="}`.
    pub(super) fn scaled_decimal(
        &mut self,
        at: usize,
        digits: DecimalDigits,
    ) -> Result<(usize, Result<i128, NotDecimal>), RowFault> {
        let mut parts = [None, None];
        let wanted = |name: &[u8]| [&b"scale"[..], b"value"].iter().position(|it| *it == name);
        let behind = each_member(self.scanner, at, self.scratch, wanted, |part, value| {
            parts[part] = Some(value);
        })?;
        let [scale, value] = parts.map(|part: Option<Range<usize>>| part.map(|part| part.start));
        let scale = scale.and_then(|at| self.scanner.integer(at));
        let value = value.filter(|at| self.scanner.peek(*at) == Some(b'"'));
        let (Some((_, scale)), Some(value)) = (scale, value) else {
            return Ok((behind, Err(NotDecimal::Text)));
        };
        let (_, text) = self.scanner.text(value, self.scratch)?;
        Ok((behind, digits.read_unscaled(text, scale)))
    }
}

impl DecimalDigits {
    /// Reads a decimal that is a text, as the format or its schema says.
    pub(super) fn read_text(self, text: &[u8]) -> Result<i128, NotDecimal> {
        match self.unscaled {
            None => self.parse(text),
            Some(scale) => self.read_unscaled(text, scale),
        }
    }

    /// Reads the base64 of a whole number, which has so many digits behind its point.
    fn read_unscaled(self, text: &[u8], scale: i64) -> Result<i128, NotDecimal> {
        let bytes = BASE64_STANDARD.decode(text);
        let bytes = bytes.map_err(|_| NotDecimal::Unscaled)?;
        decimal::from_unscaled(&bytes, scale, self.precision, self.scale)
    }
}

#[cold]
fn lacks(part: &str) -> RowFault {
    RowFault::new(format!("has no `{part}`, which such a change needs"))
}

#[cfg(test)]
mod tests;
