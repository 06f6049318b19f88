//! Decides whether rows are the expected ones: the same rows as often, in any
//! order. How a value is written does not matter (`3` and `3.0`, a time in ms
//! and as RFC 3339), nor do the last digits of a sum of floats, which depend on
//! the order in which it was added up.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::schema::{DataType, Field, Schema};
use crate::suggest;
use crate::timestamp;

/// Floats that differ by less than this part of them are the same.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// More rows than this are not searched for near ones: their number is the news.
const PAIRED_MAX: usize = 500;

/// At most so many rows of a kind are shown.
const SHOWN_MAX: usize = 10;

/// Rows of one schema, in a form that can be compared.
#[derive(Clone, Debug)]
pub(super) struct Table {
    fields: Vec<Field>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Cell {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Time(i64),
    Text(String),
    List(Vec<Cell>),
    Record(Vec<(String, Cell)>),
}

/// How rows differ from the expected ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Rows that came in place of expected ones that are much like them.
    pub changed: Vec<Change>,
    /// Expected rows that did not come, as JSON.
    pub missing: Vec<String>,
    /// Rows that came and were not expected, as JSON.
    pub unexpected: Vec<String>,
    /// The rows that came cannot be read as what the sink takes.
    pub unreadable: Option<String>,
}

/// An expected row, and what differs in the one that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub expected: String,
    /// Field, expected value, value that came.
    pub fields: Vec<(String, String, String)>,
}

/// How dead letters differ from the expected ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LetterDifference {
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
}

impl Table {
    /// Reads rows by a schema; on failure tells which row, and why.
    pub(super) fn parse(
        schema: &Schema,
        rows: &[Map<String, Value>],
    ) -> Result<Self, (usize, String)> {
        let parsed = rows.iter().enumerate().map(|(at, row)| {
            members(row, &schema.fields)
                .map(|members| members.into_iter().map(|(_, cell)| cell).collect())
                .map_err(|message| (at, message))
        });
        Ok(Table {
            rows: parsed.collect::<Result<_, _>>()?,
            fields: schema.fields.clone(),
        })
    }

    /// `self` is what is expected.
    pub(super) fn compare(&self, came: &Table) -> Difference {
        let (mut missing, mut unexpected) = self.without_equals(came);
        missing.retain(|&expected| {
            let near = unexpected
                .iter()
                .position(|&row| all_close(&self.rows[expected], &came.rows[row]));
            near.map(|at| unexpected.swap_remove(at)).is_none()
        });
        let mut changed = Vec::new();
        for (expected, row) in self.pairs(came, &missing, &unexpected) {
            missing.retain(|&at| at != expected);
            unexpected.retain(|&at| at != row);
            changed.push(self.change(&self.rows[expected], &came.rows[row]));
        }
        // As the expected file has them; what came has no order of its own.
        missing.sort_unstable();
        let mut unexpected: Vec<&Vec<Cell>> = unexpected.iter().map(|&at| &came.rows[at]).collect();
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

    /// The rows of each side that the other does not have.
    fn without_equals(&self, came: &Table) -> (Vec<usize>, Vec<usize>) {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, row) in came.rows.iter().enumerate() {
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

    /// Which row came in place of which: those that have most fields in
    /// common, at least half, and of these the first ones, which are the key.
    fn pairs(&self, came: &Table, missing: &[usize], unexpected: &[usize]) -> Vec<(usize, usize)> {
        if missing.len().max(unexpected.len()) > PAIRED_MAX {
            return Vec::new();
        }
        let mut near: Vec<(usize, Reverse<usize>, usize, usize)> = Vec::new();
        for &expected in missing {
            for &row in unexpected {
                let cells = || self.rows[expected].iter().zip(&came.rows[row]);
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

    fn change(&self, expected: &[Cell], came: &[Cell]) -> Change {
        let cells = expected.iter().zip(came);
        let fields = self
            .fields
            .iter()
            .zip(cells)
            .filter(|(_, (a, b))| !a.is_close(b));
        Change {
            expected: self.line(expected),
            fields: fields
                .map(|(field, (a, b))| (field.name.clone(), a.to_string(), b.to_string()))
                .collect(),
        }
    }

    /// The rows as JSON lines, in order of their times and then of all values.
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
    /// For rows that are not what the sink takes: a bug of the host's.
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

impl LetterDifference {
    pub fn is_empty(&self) -> bool {
        *self == LetterDifference::default()
    }
}

/// Compares dead letters by the fields that an expected one has. Those of the
/// nodes `passed_over` play no part, nor do expected ones that name no node if
/// there are such nodes.
pub(super) fn dead_letters(
    expected: &[Map<String, Value>],
    came: &[Map<String, Value>],
    passed_over: &[String],
) -> LetterDifference {
    let counts = |letter: &Map<String, Value>| {
        let node = letter.get("node").and_then(Value::as_str);
        passed_over.is_empty()
            || node.is_some_and(|node| !passed_over.iter().any(|passed| passed == node))
    };
    if expected.iter().any(|letter| !letter.contains_key("node")) && !passed_over.is_empty() {
        return LetterDifference::default();
    }
    let came: Vec<&Map<String, Value>> = came.iter().filter(|letter| counts(letter)).collect();
    let expected: Vec<&Map<String, Value>> =
        expected.iter().filter(|letter| counts(letter)).collect();
    let mut taken_by = vec![None; came.len()];
    let missing: Vec<usize> = (0..expected.len())
        .filter(|&one| !find_letter(one, &expected, &came, &mut taken_by, &mut HashSet::new()))
        .collect();
    let unexpected = came
        .iter()
        .zip(&taken_by)
        .filter(|(_, taken)| taken.is_none());
    LetterDifference {
        missing: missing
            .into_iter()
            .map(|one| Value::Object(expected[one].clone()).to_string())
            .collect(),
        unexpected: unexpected
            .map(|(letter, _)| super::sentence(letter))
            .collect(),
    }
}

/// Finds a letter for an expected one; those that have one already move over
/// where they can. What says less must not take the only letter of another
/// (augmenting paths in a bipartite graph: Kuhn, The Hungarian method, 1955).
fn find_letter(
    one: usize,
    expected: &[&Map<String, Value>],
    came: &[&Map<String, Value>],
    taken_by: &mut [Option<usize>],
    seen: &mut HashSet<usize>,
) -> bool {
    let fits = |letter: &Map<String, Value>| {
        expected[one]
            .iter()
            .all(|(name, value)| letter.get(name).unwrap_or(&Value::Null) == value)
    };
    for (at, letter) in came.iter().enumerate() {
        if !fits(letter) || !seen.insert(at) {
            continue;
        }
        let free = match taken_by[at] {
            None => true,
            Some(other) => find_letter(other, expected, came, taken_by, seen),
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
            (self.changed.len(), "differ"),
            (self.missing.len(), "did not come"),
            (self.unexpected.len(), "were not expected"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        write!(f, "of the rows, {}", counts.join(", "))?;
        for change in self.changed.iter().take(SHOWN_MAX) {
            write!(f, "\n  ~ {}", change.expected)?;
            for (name, expected, came) in &change.fields {
                write!(f, "\n      {name}: expected {expected}, came {came}")?;
            }
        }
        write_more(f, self.changed.len())?;
        write_rows(f, '-', &self.missing)?;
        write_rows(f, '+', &self.unexpected)
    }
}

impl fmt::Display for LetterDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, unexpected) = (self.missing.len(), self.unexpected.len());
        write!(f, "{missing} did not come, {unexpected} were not expected")?;
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

#[cfg(test)]
mod tests;
