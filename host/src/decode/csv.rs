//! Decodes rows of comma-separated values (RFC 4180).
//!
//! A field is the text of a value; lists and records are JSON. An empty field
//! is null if the column may be null; a quoted empty one is an empty text. A
//! field that begins with a quote ends with one, and quotes within it are
//! doubled; a quote elsewhere is an ordinary character.

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::column::{ColumnBuilder, RecordBuilder, ValuesBuilder};
use super::fault::{RowFault, excerpt};
use super::json;
use crate::decimal;
use crate::non_finite;
use crate::schema::Schema;
use crate::timestamp::{CutTimes, TimestampFormat};

/// Rows under construction, and which column each field of a line belongs to.
#[derive(Clone, Debug)]
pub(super) struct CsvRows {
    delimiter: u8,
    rows: RecordBuilder,
    /// For each field of a line, its column; `None` for a field that the schema
    /// does not have.
    columns: Vec<Option<usize>>,
    /// Columns that no field of a line belongs to.
    absent: Vec<usize>,
    /// A quoted field without its quotes; reused.
    unquoted: Vec<u8>,
}

/// The text of a field, and whether it is quoted.
struct CsvField<'d> {
    text: &'d [u8],
    quoted: bool,
}

impl CsvRows {
    /// Without a header, a line has the schema's fields in order.
    pub fn new(delimiter: u8, schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        CsvRows {
            delimiter,
            rows: RecordBuilder::new(&schema.fields, &mut timestamps.iter().cloned()),
            columns: (0..schema.fields.len()).map(Some).collect(),
            absent: Vec::new(),
            unquoted: Vec::new(),
        }
    }

    /// Returns how many columns the header names.
    pub fn read_header(&mut self, line: &[u8]) -> Result<usize, String> {
        let mut names = Vec::new();
        let mut at = Some(0);
        while let Some(start) = at {
            let (field, next) = next_field(line, start, self.delimiter)
                .map_err(|fault| format!("in the header: {fault}"))?;
            let name = String::from_utf8_lossy(unquote(&field, &mut self.unquoted)).into_owned();
            names.push(name);
            at = next;
        }
        if let Some(name) = first_twice(&names) {
            return Err(format!("the header names column `{name}` twice"));
        }
        let fields = &self.rows.fields;
        self.columns = names
            .iter()
            .map(|name| fields.iter().position(|field| field.name == *name))
            .collect();
        self.absent = (0..fields.len())
            .filter(|index| !self.columns.contains(&Some(*index)))
            .collect();
        for &index in &self.absent {
            let field = &fields[index];
            if !field.column.is_nullable() {
                return Err(format!(
                    "the header has no column `{}`, which the fields have; it names {}{}",
                    field.name,
                    names.join(", "),
                    other_delimiter(&names),
                ));
            }
        }
        Ok(names.len())
    }

    /// Adds a row; after an error, [`Self::truncate`] must follow.
    pub fn push(&mut self, line: &[u8]) -> Result<(), RowFault> {
        // A message may end as lines of a file do. A value that ends so is quoted.
        let end = line.iter().rposition(|byte| !b"\r\n".contains(byte));
        let line = &line[..end.map_or(0, |last| last + 1)];
        let mut at = Some(0);
        let mut given = 0;
        while let Some(start) = at {
            let (field, next) = next_field(line, start, self.delimiter)?;
            let Some(column) = self.columns.get(given) else {
                return Err(self.wrong_count(line));
            };
            if let Some(index) = *column {
                let text = unquote(&field, &mut self.unquoted);
                let named = &mut self.rows.fields[index];
                if text.is_empty() && !field.quoted && named.column.is_nullable() {
                    named.column.push_null();
                } else {
                    push_text(&mut named.column, text)
                        .map_err(|fault| fault.within(&named.name))?;
                }
            }
            given += 1;
            at = next;
        }
        if given < self.columns.len() {
            return Err(self.wrong_count(line));
        }
        for &index in &self.absent {
            self.rows.fields[index].column.push_null();
        }
        self.rows.end();
        Ok(())
    }

    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    pub fn take_cut_times(&mut self) -> Option<CutTimes> {
        self.rows.take_cut_times()
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        self.rows.take()
    }

    #[cold]
    fn wrong_count(&self, line: &[u8]) -> RowFault {
        let mut found = 0;
        let mut at = Some(0);
        while let Some(start) = at {
            found += 1;
            at = next_field(line, start, self.delimiter).map_or(None, |(_, next)| next);
        }
        RowFault::new(format!(
            "expected {} fields, found {found}",
            self.columns.len()
        ))
    }
}

/// Says so where the only name of a header looks like several with another delimiter.
fn other_delimiter(names: &[String]) -> String {
    let [name] = names else {
        return String::new();
    };
    let likely = ["\\t", ";", "|", ","]
        .into_iter()
        .zip(['\t', ';', '|', ',']);
    let found = likely.filter(|(_, delimiter)| name.contains(*delimiter));
    let found = found.map(|(written, _)| {
        format!(" (one column; if it is several, give the source `csv = {{ delimiter = \"{written}\" }}`)")
    });
    found.take(1).collect()
}

/// The field that begins at `start`, and where the next one begins.
fn next_field(
    line: &[u8],
    start: usize,
    delimiter: u8,
) -> Result<(CsvField<'_>, Option<usize>), RowFault> {
    let rest = &line[start..];
    if rest.first() != Some(&b'"') {
        let end = memchr::memchr(delimiter, rest);
        let field = CsvField {
            text: &rest[..end.unwrap_or(rest.len())],
            quoted: false,
        };
        return Ok((field, end.map(|end| start + end + 1)));
    }
    let Some(length) = quoted_length(&rest[1..]) else {
        return Err(RowFault::new(format!(
            "byte {start}: expected `\"` at the end of the field, found {}",
            excerpt(rest)
        )));
    };
    let behind = start + 1 + length + 1;
    let field = CsvField {
        text: &line[start + 1..start + 1 + length],
        quoted: true,
    };
    match line.get(behind) {
        None => Ok((field, None)),
        Some(&byte) if byte == delimiter => Ok((field, Some(behind + 1))),
        Some(_) => Err(RowFault::new(format!(
            "byte {behind}: expected `{}` behind the quoted field, found {}",
            char::from(delimiter),
            excerpt(&line[behind..])
        ))),
    }
}

/// The length of a quoted field; `text` starts after its opening quote. `None`
/// without a closing quote.
pub(crate) fn quoted_length(text: &[u8]) -> Option<usize> {
    quoted_length_from(text, 0)
}

/// The same where the first `at` bytes are known to have only pairs of quotes.
pub(crate) fn quoted_length_from(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr::memchr(b'"', text.get(at..)?)?;
        if text.get(quote + 1) != Some(&b'"') {
            return Some(quote);
        }
        at = quote + 2;
    }
}

fn unquote<'t>(field: &CsvField<'t>, scratch: &'t mut Vec<u8>) -> &'t [u8] {
    if !field.quoted || memchr::memchr(b'"', field.text).is_none() {
        return field.text;
    }
    scratch.clear();
    let mut rest = field.text;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        scratch.extend_from_slice(&rest[..=quote]);
        rest = rest.get(quote + 2..).unwrap_or_default();
    }
    scratch.extend_from_slice(rest);
    scratch
}

fn first_twice(names: &[String]) -> Option<&String> {
    names
        .iter()
        .enumerate()
        .find(|(index, name)| names[..*index].contains(name))
        .map(|(_, name)| name)
}

/// Adds a value from its text. Spaces around it are ignored, except in texts.
fn push_text(column: &mut ColumnBuilder, text: &[u8]) -> Result<(), RowFault> {
    let trimmed = text.trim_ascii();
    let data_type = &column.data_type;
    let expected =
        |expected: &str| RowFault::new(format!("expected {expected}, found {}", shown(text)));
    let mismatch = || expected(&data_type.to_string());
    match &mut column.values {
        ValuesBuilder::Utf8(texts) => {
            texts.data.extend_from_slice(text);
            texts.end();
        }
        ValuesBuilder::Symbol(texts, symbols) => {
            if !symbols.iter().any(|symbol| symbol.as_bytes() == text) {
                return Err(mismatch());
            }
            texts.data.extend_from_slice(text);
            texts.end();
        }
        ValuesBuilder::Int8(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::Int16(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::Int32(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::Int64(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::UInt8(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::UInt16(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::UInt32(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::UInt64(values) => values.push(whole(trimmed, &mismatch)?),
        ValuesBuilder::Float32(values) => {
            values.push(float(trimmed).ok_or_else(mismatch)?);
        }
        ValuesBuilder::Float64(values) => {
            values.push(float(trimmed).ok_or_else(mismatch)?);
        }
        ValuesBuilder::Bool(values) => match trimmed {
            b"true" => values.push(true),
            b"false" => values.push(false),
            _ => return Err(expected("true or false")),
        },
        ValuesBuilder::Decimal(values, digits) => {
            let read = digits.parse(trimmed);
            values.push(read.map_err(|why| mismatch().because(&why))?);
        }
        ValuesBuilder::Timestamp(times) => {
            let format = &times.format;
            let read = format
                .read_number(trimmed)
                .or_else(|| format.read_text(trimmed));
            match read {
                Some(time) => times.push(time, trimmed),
                None => return Err(expected(&times.format.expected())),
            }
        }
        ValuesBuilder::Bytes(bytes) => {
            if BASE64_STANDARD
                .decode_vec(trimmed, &mut bytes.data)
                .is_err()
            {
                return Err(expected("bytes as base64"));
            }
            bytes.end();
        }
        ValuesBuilder::List(_) | ValuesBuilder::Record(_) => {
            return json::push_value(column, text);
        }
    }
    column.end_value();
    Ok(())
}

/// A whole number that the type can hold, also one that is written with a fraction or an
/// exponent: `5`, `5.0`, `5e3`.
fn whole<N: std::str::FromStr + TryFrom<i128>>(
    text: &[u8],
    mismatch: &dyn Fn() -> RowFault,
) -> Result<N, RowFault> {
    if let Some(value) = number(text) {
        return Ok(value);
    }
    let value = decimal::whole(text).map_err(|why| mismatch().because(&why))?;
    N::try_from(value).map_err(|_| mismatch())
}

/// A number that is too large is parsed as infinite, and refused.
fn float<F: std::str::FromStr + Into<f64> + Copy>(text: &[u8]) -> Option<F> {
    number(text).filter(|&value: &F| value.into().is_finite() || non_finite::is_word(text))
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn shown(text: &[u8]) -> String {
    match text {
        [] => "nothing".to_owned(),
        text => format!("`{}`", excerpt(text)),
    }
}
