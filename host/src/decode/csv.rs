//! Decodes rows of comma-separated values (RFC 4180).
//!
//! A field is the text of a value; lists and records are JSON. An empty field
//! is null if the column may be null; a quoted empty one is an empty text. A
//! field that begins with a quote ends with one, and quotes within it are
//! doubled; a quote elsewhere is an ordinary character.

use std::collections::HashMap;

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Header;
use super::column::{ColumnBuilder, NamedColumn, RecordBuilder, ValuesBuilder};
use super::fault::{RowFault, excerpt};
use super::json;
use crate::decimal;
use crate::non_finite;
use crate::schema::Schema;
use crate::suggest;
use crate::text::push_printable;
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

    /// Reads the names of the columns.
    pub fn read_header(&mut self, line: &[u8]) -> Result<Header, String> {
        let line = without_line_end(line);
        check_line_ends(line, self.delimiter)?;
        let mut names = Vec::new();
        let mut at = Some(0);
        while let Some(start) = at {
            let (field, next) = next_field(line, start, self.delimiter)
                .map_err(|fault| format!("in the header: {fault}"))?;
            let name = String::from_utf8_lossy(unquote(&field, &mut self.unquoted)).into_owned();
            names.push(name);
            at = next;
        }
        let fields = &self.rows.fields;
        let mut places = HashMap::new();
        for (place, name) in names.iter().enumerate() {
            let is_known = places.insert(name.as_str(), place).is_some();
            // Spreadsheets write several columns without a name.
            if is_known && fields.iter().any(|field| field.name == *name) {
                return Err(format!("the header names column `{name}` twice"));
            }
        }
        self.columns = vec![None; names.len()];
        self.absent.clear();
        for (index, field) in fields.iter().enumerate() {
            match places.get(field.name.as_str()) {
                Some(&place) => self.columns[place] = Some(index),
                None => self.absent.push(index),
            }
        }
        let absent = self.absent.iter().map(|&index| &fields[index]);
        let needed = absent.clone().find(|field| !field.column.is_nullable());
        if let Some(field) = needed {
            return Err(format!(
                "the header has no column `{}`, which the fields have; {}",
                field.name,
                what_is_there(&[&field.name], &names, fields)
            ));
        }
        let absent: Vec<&str> = absent.map(|field| field.name.as_str()).collect();
        if absent.len() == fields.len() && !fields.is_empty() {
            return Err(format!(
                "the header has none of the fields; {}",
                what_is_there(&absent, &names, fields)
            ));
        }
        let lacks = (!absent.is_empty()).then(|| {
            let (columns, are) = match absent.len() {
                1 => ("column", "is"),
                _ => ("columns", "are"),
            };
            format!(
                "the header has no {columns} `{}`, which {are} null in all its rows; {}",
                suggest::listed(&absent).replace(", ", "`, `"),
                what_is_there(&absent, &names, fields)
            )
        });
        Ok(Header {
            fields: names.len(),
            lacks,
        })
    }

    /// Adds a row; after an error, [`Self::truncate`] must follow.
    pub fn push(&mut self, line: &[u8]) -> Result<(), RowFault> {
        // A message may end as lines of a file do.
        let line = without_line_end(line);
        if memchr::memchr(b'\r', line).is_some() {
            check_line_ends(line, self.delimiter).map_err(RowFault::new)?;
        }
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

    /// Adds a row without a value in any field.
    pub fn push_null(&mut self) {
        self.rows.push_null();
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

/// A line without the bytes that end lines, however many. A value that ends so is quoted.
fn without_line_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte));
    &line[..end.map_or(0, |last| last + 1)]
}

/// Refuses a line that is several, of a text whose lines end in `\r` alone: a value with a
/// `\r` in it is quoted. Of a line that is cut off, or no CSV, only the beginning is checked.
pub(super) fn check_line_ends(line: &[u8], delimiter: u8) -> Result<(), String> {
    let line = without_line_end(line);
    let mut at = Some(0);
    while let Some(start) = at {
        let Ok((field, next)) = next_field(line, start, delimiter) else {
            return Ok(());
        };
        if !field.quoted && memchr::memchr(b'\r', field.text).is_some() {
            return Err(
                "expected lines that end in `\\n` or `\\r\\n`, found a `\\r` alone outside \
                 quotes, as lines of old Macs end: convert it (`tr '\\r' '\\n'`), or quote the \
                 value if it has one"
                    .to_owned(),
            );
        }
        at = next;
    }
    Ok(())
}

/// What a header names, and which of that may be meant by the columns that it lacks.
fn what_is_there(absent: &[&str], names: &[String], fields: &[NamedColumn]) -> String {
    let is_free = |name: &&str| fields.iter().all(|field| field.name != *name);
    let shown: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", on_one_line(name)))
        .collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let mut text = format!(
        "it names {}{}",
        suggest::listed(&shown),
        other_delimiter(names)
    );
    for name in absent.iter().take(NEAR_MISSES_MAX) {
        let mut free = names.iter().map(String::as_str).filter(is_free);
        let is_padded = |other: &&str| {
            let bare = other.trim_matches(is_blank);
            bare != *other && bare.eq_ignore_ascii_case(name)
        };
        let near = match free.clone().find(is_padded) {
            Some(near) => Some((near, ", which has a blank")),
            None => suggest::nearest(name, &mut free).map(|near| (near, "")),
        };
        if let Some((near, blank)) = near {
            let near = on_one_line(near);
            text.push_str(&format!("; is `{name}` its `{near}`{blank}?"));
        }
    }
    text
}

/// A name as messages show it: a line break in it is none of theirs.
fn on_one_line(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '\t' => shown.push('\t'),
            _ => push_printable(&mut shown, character),
        }
    }
    shown
}

/// For so many columns the name that is nearest is looked for.
const NEAR_MISSES_MAX: usize = 5;

/// Whether a character takes space, or can be overlooked.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control() || "\u{FEFF}\u{200B}".contains(character)
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
