//! Reads the types of a source's fields: `"utf8?"`, `"list<int64>"`,
//! `"add|remove"`, nested tables.

use std::collections::HashSet;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::reader::ConfigValue;
use crate::decimal::PRECISION_MAX;
use crate::schema::{DataType, Field};
use crate::suggest;
use crate::timestamp::{PatternProblem, TimePattern, TimeUnit, TimestampFormat};

/// A field of a source, as its file declares it.
#[derive(Clone, Debug)]
pub struct DeclaredColumn {
    pub field: Field,
    /// Where the field is named.
    pub place: Span,
    /// The formats of its timestamps, depth first.
    pub timestamp_formats: Vec<TimestampFormat>,
}

/// How deep types may nest; deeper nesting could overflow the stack.
const DEPTH_MAX: usize = 16;

pub fn read(
    name: Spanned<String>,
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<DeclaredColumn> {
    let mut timestamp_formats = Vec::new();
    let field = TypeReader {
        formats: &mut timestamp_formats,
        mistakes,
    }
    .field(&name, value, 0)?;
    Some(DeclaredColumn {
        field,
        place: name.span(),
        timestamp_formats,
    })
}

struct TypeReader<'r> {
    formats: &'r mut Vec<TimestampFormat>,
    mistakes: &'r mut Diagnostics,
}

impl TypeReader<'_> {
    fn field(
        &mut self,
        name: &Spanned<String>,
        value: &ConfigValue,
        depth: usize,
    ) -> Option<Field> {
        let written = name.get_ref().as_str();
        if depth > DEPTH_MAX {
            let message = format!("{} is nested more than {DEPTH_MAX} deep", value.what());
            self.mistakes
                .push(Mistake::new(message).at(name.span(), ""));
            return None;
        }
        if written.trim_end_matches('?').is_empty() {
            let message = format!("{}: a field needs a name", value.what());
            self.mistakes
                .push(Mistake::new(message).at(name.span(), ""));
            return None;
        }
        match value.raw() {
            DeValue::String(text) => {
                let (data_type, nullable) = self.written(text, value)?;
                Some(Field::new(written, data_type, nullable))
            }
            // A type that is a table cannot have a `?`, so its name has it.
            DeValue::Table(_) => {
                let (name, nullable) = optional(written);
                let members = self.members(value, depth)?;
                Some(Field::new(name, DataType::Record(members), nullable))
            }
            DeValue::Array(elements) if elements.len() == 1 => {
                let element = value.element(&elements[0]);
                if !matches!(element.raw(), DeValue::Table(_)) {
                    self.refuse(value);
                    return None;
                }
                let (name, nullable) = optional(written);
                let members = self.members(&element, depth)?;
                let element = Field::new("item", DataType::Record(members), false);
                Some(Field::new(
                    name,
                    DataType::List(Arc::new(element)),
                    nullable,
                ))
            }
            _ => {
                self.refuse(value);
                None
            }
        }
    }

    fn members(&mut self, value: &ConfigValue, depth: usize) -> Option<Arc<[Field]>> {
        let table = value.table(self.mistakes)?;
        let members: Vec<Option<Field>> = table
            .into_entries()
            .map(|(name, value)| self.field(&name, &value, depth + 1))
            .collect();
        if members.is_empty() {
            let message = format!("{} is a record without members", value.what());
            self.mistakes.push(
                Mistake::new(message)
                    .at(value.span(), "")
                    .help("name them with their types, such as { street = \"utf8\" }"),
            );
            return None;
        }
        members.into_iter().collect()
    }

    fn refuse(&mut self, value: &ConfigValue) {
        value.refuse(
            "a type, such as \"utf8\", \"list<int64>\", { street = \"utf8\" } or [{ sku = \"utf8\" }]",
            self.mistakes,
        );
    }

    fn written(&mut self, text: &str, value: &ConfigValue) -> Option<(DataType, bool)> {
        let parsed = parse_type(text, self.formats, 0);
        if let Err(problem) = &parsed {
            self.mistakes.push(
                Mistake::new(format!("{}: {}", value.what(), problem.message))
                    .at(value.span(), "")
                    .help(problem.help.clone()),
            );
        }
        parsed.ok()
    }
}

struct TypeProblem {
    message: String,
    help: String,
}

/// Reads `type` or `type?`.
fn parse_type(
    text: &str,
    formats: &mut Vec<TimestampFormat>,
    depth: usize,
) -> Result<(DataType, bool), TypeProblem> {
    let (text, nullable) = optional(text.trim());
    let text = text.trim();
    Ok((parse_bare(text, formats, depth)?, nullable))
}

fn parse_bare(
    text: &str,
    formats: &mut Vec<TimestampFormat>,
    depth: usize,
) -> Result<DataType, TypeProblem> {
    if let Some((_, plain)) = PLAIN.iter().find(|(name, _)| *name == text) {
        return Ok(plain.clone());
    }
    if let Some((_, format)) = TIMESTAMPS.iter().find(|(name, _)| *name == text) {
        formats.push(format.clone());
        return Ok(DataType::Timestamp);
    }
    let pattern = text
        .strip_prefix("timestamp(")
        .and_then(|rest| rest.strip_suffix(')'))
        .filter(|pattern| pattern.contains('%'));
    if let Some(pattern) = pattern {
        formats.push(TimestampFormat::Pattern(parse_pattern(pattern)?));
        return Ok(DataType::Timestamp);
    }
    let digits = text
        .strip_prefix("decimal(")
        .and_then(|rest| rest.strip_suffix(')'));
    if let Some(digits) = digits {
        return parse_decimal(text, digits);
    }
    let element = text
        .strip_prefix("list<")
        .and_then(|rest| rest.strip_suffix('>'));
    if let Some(element) = element {
        if depth >= DEPTH_MAX {
            return Err(TypeProblem {
                message: format!("lists are nested more than {DEPTH_MAX} deep"),
                help: "nest it less deeply".into(),
            });
        }
        let (data_type, nullable) = parse_type(element, formats, depth + 1)?;
        let element = Field::new("item", data_type, nullable);
        return Ok(DataType::List(Arc::new(element)));
    }
    if text.contains('|') {
        return parse_symbols(text);
    }
    Err(unknown(text))
}

/// Reads `18, 2`, or `18` for whole numbers.
fn parse_decimal(text: &str, digits: &str) -> Result<DataType, TypeProblem> {
    let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
    let numbers = precision.trim().parse().ok().zip(scale.trim().parse().ok());
    let in_range = |&(precision, scale): &(u8, u8)| {
        (1..=PRECISION_MAX).contains(&precision) && scale <= precision
    };
    match numbers.filter(in_range) {
        Some((precision, scale)) => Ok(DataType::Decimal { precision, scale }),
        None => Err(TypeProblem {
            message: format!("`{text}` is not a decimal"),
            help: format!("{DECIMAL_HELP}; it has at most {PRECISION_MAX} digits"),
        }),
    }
}

const DECIMAL_HELP: &str = "decimal(18,2) has 18 digits, and 2 of them behind the point";

/// Reads `%d/%m/%Y %H:%M`, perhaps with a comma and the name of a time zone.
fn parse_pattern(text: &str) -> Result<Arc<TimePattern>, TypeProblem> {
    let (pattern, zone) = match text.rsplit_once(',') {
        Some((pattern, zone)) if !zone.contains('%') => (pattern, Some(zone.trim())),
        _ => (text, None),
    };
    match TimePattern::new(pattern, zone) {
        Ok(pattern) => Ok(Arc::new(pattern)),
        Err(PatternProblem { message, help }) => Err(TypeProblem { message, help }),
    }
}

fn parse_symbols(text: &str) -> Result<DataType, TypeProblem> {
    let symbols: Vec<String> = text.split('|').map(|s| s.trim().to_owned()).collect();
    let problem = |message: String| TypeProblem {
        message,
        help: "symbols are different texts with | between them, such as \"add|remove|view\"".into(),
    };
    if symbols.len() > SYMBOLS_MAX {
        return Err(TypeProblem {
            message: format!(
                "it has {} symbols, and a type has at most {SYMBOLS_MAX}",
                symbols.len()
            ),
            help: "write utf8, and filter what else may come".into(),
        });
    }
    let mut known = HashSet::new();
    for symbol in &symbols {
        if symbol.is_empty() {
            return Err(problem(format!("`{text}` has an empty symbol")));
        }
        if !known.insert(symbol) {
            return Err(problem(format!("`{text}` has the symbol `{symbol}` twice")));
        }
    }
    Ok(DataType::Symbol(symbols.into()))
}

/// A text is compared with each of them.
const SYMBOLS_MAX: usize = 1_000;

fn unknown(text: &str) -> TypeProblem {
    let message = format!("`{text}` is not a type");
    let plain = PLAIN.iter().map(|(name, _)| *name);
    let names = plain.chain(["timestamp", "decimal(18,2)", "list<…>"]);
    if let Some(format) = text.strip_prefix("timestamp") {
        return TypeProblem {
            message: format!(
                "a timestamp cannot be `{}`",
                format.trim_matches(['(', ')'])
            ),
            help: "write timestamp, timestamp(s), timestamp(ms), timestamp(us), timestamp(ns), \
                   timestamp(days), timestamp(rfc3339), or a format such as timestamp(%Y-%m-%d %H:%M:%S) or \
                   timestamp(%d/%m/%Y %H:%M, Europe/London)"
                .into(),
        };
    }
    let lower = text.to_ascii_lowercase();
    if ["decimal", "numeric", "money"]
        .iter()
        .any(|name| lower.starts_with(name))
    {
        return TypeProblem {
            message,
            help: format!("say how many digits it has: {DECIMAL_HELP}"),
        };
    }
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(names, _)| names.contains(&lower.as_str()));
    let help = match elsewhere {
        Some((_, here)) => format!("use `{here}`"),
        None => suggest::help(text, "types", names),
    };
    TypeProblem { message, help }
}

/// Splits `note?` into (`note`, true).
fn optional(text: &str) -> (&str, bool) {
    match text.strip_suffix('?') {
        Some(text) => (text, true),
        None => (text, false),
    }
}

const PLAIN: &[(&str, DataType)] = &[
    ("bool", DataType::Bool),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("utf8", DataType::Utf8),
    ("bytes", DataType::Bytes),
];

const TIMESTAMPS: &[(&str, TimestampFormat)] = &[
    ("timestamp", TimestampFormat::Any),
    ("timestamp(s)", TimestampFormat::Number(TimeUnit::Seconds)),
    (
        "timestamp(ms)",
        TimestampFormat::Number(TimeUnit::Milliseconds),
    ),
    (
        "timestamp(us)",
        TimestampFormat::Number(TimeUnit::Microseconds),
    ),
    (
        "timestamp(ns)",
        TimestampFormat::Number(TimeUnit::Nanoseconds),
    ),
    ("timestamp(days)", TimestampFormat::Days),
    ("timestamp(rfc3339)", TimestampFormat::Rfc3339),
];

/// Names of types in other systems, with ours.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["string", "str", "text", "varchar", "char"], "utf8"),
    (&["int", "integer", "long", "bigint", "i64"], "int64"),
    (&["i32"], "int32"),
    (&["u64"], "uint64"),
    (&["u32"], "uint32"),
    (&["double", "number", "f64"], "float64"),
    (&["float", "real", "f32"], "float32"),
    (&["boolean"], "bool"),
    (&["datetime", "date", "time"], "timestamp"),
    (&["binary", "blob"], "bytes"),
];
