//! Compares actual rows with expected ones: each row must occur the same number
//! of times, in any order. The way a value is written does not matter (`3` and
//! `3.0`, a time in ms and in RFC 3339), nor do the last digits of a float,
//! since a sum depends on the order of its terms.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::decimal;
use crate::schema::{DataType, Field, Schema};
use crate::suggest;
use crate::timestamp;

/// Floats are equal if they differ by less than this fraction.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// Above this number of differing rows, no similar ones are looked for.
const PAIRED_MAX: usize = 500;

/// How many rows of a kind are shown.
const SHOWN_MAX: usize = 10;

/// Rows of one schema in a comparable form.
#[derive(Clone, Debug)]
pub(super) struct ComparableRows {
    fields: Vec<Field>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Cell {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// The units of a decimal, and its digits behind the point.
    Decimal(i128, u8),
    Time(i64),
    Text(String),
    List(Vec<Cell>),
    Record(Vec<(String, Cell)>),
}

/// How the actual rows differ from the expected ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Expected rows that a similar actual row replaces.
    pub changed: Vec<ChangedRow>,
    /// Expected rows that are missing, as JSON.
    pub missing: Vec<String>,
    /// Actual rows that were not expected, as JSON.
    pub unexpected: Vec<String>,
    /// The actual rows do not have the sink's schema.
    pub unreadable: Option<String>,
}

/// An expected row, and how the actual one differs from it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedRow {
    pub expected: String,
    /// Field, expected value, actual value.
    pub fields: Vec<(String, String, String)>,
}

/// How the actual dead letters differ from the expected ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetterDifference {
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
}

impl ComparableRows {
    /// Reads rows by a schema; an error says which row is wrong, and why.
    pub(super) fn parse(
        schema: &Schema,
        rows: &[Map<String, Value>],
    ) -> Result<Self, (usize, String)> {
        let parsed = rows.iter().enumerate().map(|(at, row)| {
            members(row, &schema.fields)
                .map(|members| members.into_iter().map(|(_, cell)| cell).collect())
                .map_err(|message| (at, message))
        });
        Ok(ComparableRows {
            rows: parsed.collect::<Result<_, _>>()?,
            fields: schema.fields.clone(),
        })
    }

    /// Compares these expected rows with actual ones.
    pub(super) fn compare(&self, actual: &ComparableRows) -> Difference {
        let (mut missing, mut unexpected) = self.without_equals(actual);
        missing.retain(|&expected| {
            let near = unexpected
                .iter()
                .position(|&row| all_close(&self.rows[expected], &actual.rows[row]));
            near.map(|at| unexpected.swap_remove(at)).is_none()
        });
        let mut changed = Vec::new();
        for (expected, row) in self.pairs(actual, &missing, &unexpected) {
            missing.retain(|&at| at != expected);
            unexpected.retain(|&at| at != row);
            changed.push(self.change(&self.rows[expected], &actual.rows[row]));
        }
        // Rows are sorted as in the expected file; actual ones have no order.
        missing.sort_unstable();
        let mut unexpected: Vec<&Vec<Cell>> =
            unexpected.iter().map(|&at| &actual.rows[at]).collect();
        unexpected.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        Difference {
            changed,
            missing: missing
                .iter()
                .map(|&at| self.line(&self.rows[at]))
                .collect(),
            unexpected: unexpected.into_iter().map(|row| self.line(row)).collect(),
            unreadable: None,
        }
    }

    /// The rows of each side that the other side lacks.
    fn without_equals(&self, actual: &ComparableRows) -> (Vec<usize>, Vec<usize>) {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, row) in actual.rows.iter().enumerate() {
            places.entry(self.line(row)).or_default().push(at);
        }
        let mut missing = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            if places.get_mut(&self.line(row)).and_then(Vec::pop).is_none() {
                missing.push(at);
            }
        }
        let mut unexpected: Vec<usize> = places.into_values().flatten().collect();
        unexpected.sort_unstable();
        (missing, unexpected)
    }

    /// Pairs missing rows with unexpected ones: those with most equal fields,
    /// at least half, and of these with the earliest ones equal, since the key
    /// comes first.
    fn pairs(
        &self,
        actual: &ComparableRows,
        missing: &[usize],
        unexpected: &[usize],
    ) -> Vec<(usize, usize)> {
        if missing.len().max(unexpected.len()) > PAIRED_MAX {
            return Vec::new();
        }
        let mut near: Vec<(usize, Reverse<usize>, usize, usize)> = Vec::new();
        for &expected in missing {
            for &row in unexpected {
                let cells = || self.rows[expected].iter().zip(&actual.rows[row]);
                let same = cells().filter(|(a, b)| a.is_close(b)).count();
                let leading = cells().take_while(|(a, b)| a.is_close(b)).count();
                if same * 2 >= self.fields.len() {
                    near.push((self.fields.len() - same, Reverse(leading), expected, row));
                }
            }
        }
        near.sort_unstable();
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (_, _, expected, row) in near {
            if !pairs.iter().any(|&(e, r)| e == expected || r == row) {
                pairs.push((expected, row));
            }
        }
        pairs.sort_unstable();
        pairs
    }

    fn change(&self, expected: &[Cell], actual: &[Cell]) -> ChangedRow {
        let cells = expected.iter().zip(actual);
        let fields = self
            .fields
            .iter()
            .zip(cells)
            .filter(|(_, (a, b))| !a.is_close(b));
        ChangedRow {
            expected: self.line(expected),
            fields: fields
                .map(|(field, (a, b))| (field.name.clone(), a.to_string(), b.to_string()))
                .collect(),
        }
    }

    /// The rows as JSON lines, sorted by their times and then by all values.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut rows: Vec<&Vec<Cell>> = self.rows.iter().collect();
        let times = |row: &[Cell]| -> Vec<i64> {
            let times = row.iter().filter_map(|cell| match cell {
                Cell::Time(ms) => Some(*ms),
                _ => None,
            });
            times.collect()
        };
        rows.sort_by(|a, b| {
            let by_time = times(a).cmp(&times(b));
            by_time.then_with(|| a.partial_cmp(b).unwrap_or(Ordering::Equal))
        });
        rows.into_iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[Cell]) -> String {
        let names = self.fields.iter().map(|field| &field.name);
        object(names.zip(row))
    }
}

impl Difference {
    /// For rows without the sink's schema, which is a bug of the host.
    pub(super) fn unreadable(message: String) -> Self {
        Difference {
            unreadable: Some(message),
            ..Difference::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Difference::default()
    }
}

impl DeadLetterDifference {
    pub fn is_empty(&self) -> bool {
        *self == DeadLetterDifference::default()
    }
}

/// Compares dead letters by the fields that the expected ones have. Those of
/// the `ignored` nodes do not count, and if there are any, expected ones that
/// name no node do not either.
pub(super) fn dead_letters(
    expected: &[Map<String, Value>],
    actual: &[Map<String, Value>],
    ignored: &[String],
) -> DeadLetterDifference {
    let counts = |dead_letter: &Map<String, Value>| {
        let node = dead_letter.get("node").and_then(Value::as_str);
        ignored.is_empty() || node.is_some_and(|node| !ignored.iter().any(|passed| passed == node))
    };
    if expected
        .iter()
        .any(|dead_letter| !dead_letter.contains_key("node"))
        && !ignored.is_empty()
    {
        return DeadLetterDifference::default();
    }
    let actual: Vec<&Map<String, Value>> = actual
        .iter()
        .filter(|dead_letter| counts(dead_letter))
        .collect();
    let expected: Vec<&Map<String, Value>> = expected
        .iter()
        .filter(|dead_letter| counts(dead_letter))
        .collect();
    let mut taken_by = vec![None; actual.len()];
    let missing: Vec<usize> = (0..expected.len())
        .filter(|&one| {
            !match_dead_letter(one, &expected, &actual, &mut taken_by, &mut HashSet::new())
        })
        .collect();
    let unexpected = actual
        .iter()
        .zip(&taken_by)
        .filter(|(_, taken)| taken.is_none());
    DeadLetterDifference {
        missing: missing
            .into_iter()
            .map(|one| Value::Object(expected[one].clone()).to_string())
            .collect(),
        unexpected: unexpected
            .map(|(dead_letter, _)| one_line(dead_letter))
            .collect(),
    }
}

/// Finds a dead letter for an expected one; expected ones that have one already
/// take another if they can, so that one with fewer fields does not take the
/// only match of another (augmenting paths in a bipartite graph: Kuhn, The
/// Hungarian method, 1955).
fn match_dead_letter(
    one: usize,
    expected: &[&Map<String, Value>],
    actual: &[&Map<String, Value>],
    taken_by: &mut [Option<usize>],
    seen: &mut HashSet<usize>,
) -> bool {
    let fits = |dead_letter: &Map<String, Value>| {
        expected[one]
            .iter()
            .all(|(name, value)| dead_letter.get(name).unwrap_or(&Value::Null) == value)
    };
    for (at, dead_letter) in actual.iter().enumerate() {
        if !fits(dead_letter) || !seen.insert(at) {
            continue;
        }
        let free = match taken_by[at] {
            None => true,
            Some(other) => match_dead_letter(other, expected, actual, taken_by, seen),
        };
        if free {
            taken_by[at] = Some(one);
            return true;
        }
    }
    false
}

fn members(row: &Map<String, Value>, fields: &[Field]) -> Result<Vec<(String, Cell)>, String> {
    if let Some(unknown) = row
        .keys()
        .find(|name| fields.iter().all(|field| field.name != **name))
    {
        let help = suggest::help(
            unknown,
            "fields",
            fields.iter().map(|field| field.name.as_str()),
        );
        return Err(format!("there is no field `{unknown}`: {help}"));
    }
    let members = fields.iter().map(|field| {
        let value = row.get(&field.name).unwrap_or(&Value::Null);
        let cell =
            Cell::parse(value, field).map_err(|message| format!("`{}`: {message}", field.name))?;
        Ok((field.name.clone(), cell))
    });
    members.collect()
}

impl Cell {
    fn parse(value: &Value, field: &Field) -> Result<Cell, String> {
        if value.is_null() {
            return match field.nullable {
                true => Ok(Cell::Null),
                false => Err(format!("a value of {} is missing", field.data_type)),
            };
        }
        let refuse = || Err(format!("expected {}, found {value}", field.data_type));
        match &field.data_type {
            DataType::Bool => value
                .as_bool()
                .map_or_else(refuse, |value| Ok(Cell::Bool(value))),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => {
                integer(value).map_or_else(refuse, |value| Ok(Cell::Integer(value)))
            }
            DataType::Float32 | DataType::Float64 => {
                float(value).map_or_else(refuse, |value| Ok(Cell::Float(value)))
            }
            &DataType::Decimal { precision, scale } => {
                let text = match value {
                    Value::Number(number) => match exact(number) {
                        Some(text) => text,
                        None => {
                            return Err(format!(
                                "{value} has more digits than numbers in tests can have: write it \
                                 in quotes"
                            ));
                        }
                    },
                    Value::String(text) => text.clone(),
                    _ => return refuse(),
                };
                match decimal::parse(text.as_bytes(), precision, scale) {
                    Ok(units) => Ok(Cell::Decimal(units, scale)),
                    Err(why) => Err(format!("expected {}, found {value}{why}", field.data_type)),
                }
            }
            DataType::Timestamp => time(value).map_or_else(refuse, |value| Ok(Cell::Time(value))),
            DataType::Utf8 | DataType::Symbol(_) | DataType::Bytes => value
                .as_str()
                .map_or_else(refuse, |text| Ok(Cell::Text(text.to_owned()))),
            DataType::List(element) => match value {
                Value::Array(elements) => {
                    let cells = elements.iter().map(|value| Cell::parse(value, element));
                    Ok(Cell::List(cells.collect::<Result<_, _>>()?))
                }
                _ => refuse(),
            },
            DataType::Record(fields) => match value {
                Value::Object(row) => Ok(Cell::Record(members(row, fields)?)),
                _ => refuse(),
            },
        }
    }

    fn is_close(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Float(a), Cell::Float(b)) => {
                a == b
                    || (a.is_nan() && b.is_nan())
                    || (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(b.abs())
            }
            (Cell::List(a), Cell::List(b)) => all_close(a, b),
            (Cell::Record(a), Cell::Record(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .all(|(a, b)| a.0 == b.0 && a.1.is_close(&b.1))
            }
            (a, b) => a == b,
        }
    }
}

fn all_close(a: &[Cell], b: &[Cell]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_close(b))
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number.as_i128().or_else(|| {
            number
                .as_f64()
                .filter(|float| float.fract() == 0.0)
                .map(|float| float as i128)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// How many digits of a number a float keeps.
const FLOAT_DIGITS: i128 = 10_i128.pow(15);

/// The text of a number, if it is the one that was written.
fn exact(number: &serde_json::Number) -> Option<String> {
    let text = number.to_string();
    let mantissa = text.split('e').next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    (!number.is_f64() || digits <= 15).then_some(text)
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => timestamp::from_rfc3339(text.as_bytes()),
        value => integer(value).and_then(|ms| i64::try_from(ms).ok()),
    }
}

fn object<'c>(members: impl Iterator<Item = (&'c String, &'c Cell)>) -> String {
    let members = members.map(|(name, cell)| format!("{}:{cell}", Value::from(name.as_str())));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// As JSON.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Integer(value) => write!(f, "{value}"),
            Cell::Float(value) if value.is_finite() => write!(f, "{}", Value::from(*value)),
            Cell::Float(value) => write!(f, "\"{value}\""),
            Cell::Decimal(units, scale) => {
                let text = decimal::to_text(*units, *scale);
                match units.unsigned_abs() < FLOAT_DIGITS.unsigned_abs() {
                    true => f.write_str(&text),
                    false => write!(f, "\"{text}\""),
                }
            }
            Cell::Time(ms) => write!(f, "\"{}\"", timestamp::to_text(*ms)),
            Cell::Text(text) => write!(f, "{}", Value::from(text.as_str())),
            Cell::List(cells) => {
                let cells: Vec<String> = cells.iter().map(Cell::to_string).collect();
                write!(f, "[{}]", cells.join(","))
            }
            Cell::Record(members) => {
                f.write_str(&object(members.iter().map(|(name, cell)| (name, cell))))
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.unreadable {
            return write!(f, "internal error, please report it: {message}");
        }
        let counts = [
            (self.changed.len(), "different"),
            (self.missing.len(), "missing"),
            (self.unexpected.len(), "unexpected"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        write!(f, "rows: {}", counts.join(", "))?;
        for change in self.changed.iter().take(SHOWN_MAX) {
            write!(f, "\n  ~ {}", change.expected)?;
            for (name, expected, actual) in &change.fields {
                write!(f, "\n      {name}: expected {expected}, found {actual}")?;
            }
        }
        write_more(f, self.changed.len())?;
        write_rows(f, '-', &self.missing)?;
        write_rows(f, '+', &self.unexpected)
    }
}

impl fmt::Display for DeadLetterDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, unexpected) = (self.missing.len(), self.unexpected.len());
        write!(
            f,
            "dead letters: {missing} missing, {unexpected} unexpected"
        )?;
        write_rows(f, '-', &self.missing)?;
        write_rows(f, '+', &self.unexpected)
    }
}

fn write_rows(f: &mut fmt::Formatter<'_>, mark: char, rows: &[String]) -> fmt::Result {
    for row in rows.iter().take(SHOWN_MAX) {
        write!(f, "\n  {mark} {row}")?;
    }
    write_more(f, rows.len())
}

fn write_more(f: &mut fmt::Formatter<'_>, rows: usize) -> fmt::Result {
    match rows.saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, "\n    … and {more} more"),
    }
}

/// A dead letter in one line: `clean: reject: quantity is 0: {"user_id":…}`.
pub(super) fn one_line(dead_letter: &Map<String, Value>) -> String {
    let parts = ["node", "kind", "error", "payload"]
        .iter()
        .filter_map(|name| dead_letter.get(*name)?.as_str());
    parts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
