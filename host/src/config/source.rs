//! `[sources.NAME]`: where rows come from.

use toml::Spanned;

use super::column::{self, Column};
use super::diagnostics::{Diagnostics, Mistake, Span};
use super::kafka::{self, KafkaSource};
use super::reader::{Table, Value};
use crate::plan::{CsvFormat, Format, Framing, GeneratorPlan, OnError};
use crate::schema::DataType;

#[derive(Debug)]
pub struct Source {
    pub name: Spanned<String>,
    pub kind: SourceKind,
    /// Where the type is given.
    pub kind_place: Span,
    pub event_time: Option<Spanned<String>>,
    pub out_of_orderness_ms: Option<i64>,
    pub idle_after_ms: Option<i64>,
    pub on_error: Option<OnError>,
}

#[derive(Debug)]
pub enum SourceKind {
    File {
        path: Vec<Spanned<String>>,
        rows: RowFormat,
    },
    Tcp {
        listen: String,
        framing: Framing,
        connections: Option<u64>,
        rows: RowFormat,
    },
    Generator(GeneratorPlan),
    Kafka(Box<KafkaSource>),
}

/// How rows are written, and what is in them.
#[derive(Debug)]
pub struct RowFormat {
    pub format: Format,
    pub columns: Vec<Column>,
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Tcp,
    Generator,
    Kafka,
}

const KINDS: &[(&str, Kind)] = &[
    ("file", Kind::File),
    ("tcp", Kind::Tcp),
    ("generator", Kind::Generator),
    ("kafka", Kind::Kafka),
];

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    mistakes: &mut Diagnostics,
) -> Option<Source> {
    let meaning = "file, tcp, generator or kafka";
    let kind = table
        .required("type", meaning, mistakes)?
        .choice(KINDS, mistakes)?;
    let event_time = table
        .optional("event_time")
        .map(|value| value.text("the name of a field, in quotes", mistakes));
    let watermark = table
        .optional("watermark")
        .and_then(|value| value.table(mistakes))
        .map(|table| read_watermark(table, mistakes));
    let (out_of_orderness_ms, idle_after_ms) = watermark.unwrap_or_default();
    let on_error = table
        .optional("on_error")
        .and_then(|value| value.choice(POLICIES, mistakes));
    let read = match kind.get_ref() {
        Kind::File => read_file(&mut table, mistakes),
        Kind::Tcp => read_tcp(&mut table, mistakes),
        Kind::Generator => read_generator(&mut table, mistakes).map(SourceKind::Generator),
        Kind::Kafka => {
            kafka::read_source(&mut table, mistakes).map(|kafka| SourceKind::Kafka(Box::new(kafka)))
        }
    };
    table.finish(mistakes);
    Some(Source {
        name,
        kind: read?,
        kind_place: kind.span(),
        event_time: event_time.flatten(),
        out_of_orderness_ms,
        idle_after_ms,
        on_error: on_error.map(Spanned::into_inner),
    })
}

/// A row that cannot be decoded will not be decodable a second time, so
/// sources have no `retry`.
const POLICIES: &[(&str, OnError)] = &[
    ("fail", OnError::Fail),
    ("skip", OnError::Skip),
    ("dead_letter", OnError::DeadLetter),
];

fn read_watermark(mut table: Table, mistakes: &mut Diagnostics) -> (Option<i64>, Option<i64>) {
    let out_of_orderness = table
        .optional("out_of_orderness")
        .and_then(|value| value.duration(0, mistakes));
    let idle_after = table
        .optional("idle_after")
        .and_then(|value| value.duration(1, mistakes));
    table.finish(mistakes);
    (
        out_of_orderness.map(Spanned::into_inner),
        idle_after.map(Spanned::into_inner),
    )
}

fn read_file(table: &mut Table, mistakes: &mut Diagnostics) -> Option<SourceKind> {
    let path = table
        .required(
            "path",
            "a file, several, or a pattern such as \"events/*.jsonl\"",
            mistakes,
        )
        .and_then(|value| read_paths(&value, mistakes));
    let written = path.as_ref().and_then(|paths| paths.first());
    let implied = written.and_then(|path| match extension(path.get_ref()) {
        "json" | "jsonl" | "ndjson" => Some(FormatKind::Json),
        "csv" => Some(FormatKind::Csv),
        _ => None,
    });
    // Without a path there is a mistake already, and any format will do.
    let implied = if path.is_none() {
        Some(FormatKind::Json)
    } else {
        implied
    };
    let rows = read_rows(table, implied, &TEXT, mistakes);
    Some(SourceKind::File {
        path: path?,
        rows: rows?,
    })
}

fn read_paths(value: &Value, mistakes: &mut Diagnostics) -> Option<Vec<Spanned<String>>> {
    let paths = value.one_or_more("a path or a list of paths", mistakes, |value, mistakes| {
        value.path(mistakes)
    })?;
    if paths.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no file", value.what()))
                .at(value.span(), "an empty list")
                .help("write the path of a file, or a pattern such as \"events/*.jsonl\""),
        );
        return None;
    }
    Some(paths)
}

fn read_tcp(table: &mut Table, mistakes: &mut Diagnostics) -> Option<SourceKind> {
    let listen = table
        .required("listen", "an address, such as \"127.0.0.1:9000\"", mistakes)
        .and_then(|value| read_listen(&value, mistakes));
    let framings = &[
        ("newline", Framing::Newline),
        ("length_prefixed", Framing::LengthPrefixed),
    ];
    let framing = match table.optional("framing") {
        Some(value) => value.choice(framings, mistakes).map(Spanned::into_inner),
        None => Some(Framing::Newline),
    };
    let connections = table
        .optional("connections")
        .and_then(|value| value.integer(1..=i64::MAX, mistakes));
    let rows = read_rows(table, Some(FormatKind::Json), &TEXT, mistakes);
    Some(SourceKind::Tcp {
        listen: listen?,
        framing: framing?,
        connections: connections.map(|n| n.into_inner() as u64),
        rows: rows?,
    })
}

/// `host:port`. Whether the host exists is known when it is bound.
fn read_listen(value: &Value, mistakes: &mut Diagnostics) -> Option<String> {
    let listen = value.text("an address, such as \"127.0.0.1:9000\"", mistakes)?;
    let text = listen.get_ref();
    let named = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains([':', ' ', '/']))
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !named && text.parse::<std::net::SocketAddr>().is_err() {
        mistakes.push(
            Mistake::new(format!("{} is not an address to listen on", value.what()))
                .at(listen.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:9000\" or \"[::1]:9000\""),
        );
        return None;
    }
    Some(listen.into_inner())
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum FormatKind {
    Json,
    Csv,
    Raw,
}

/// The formats that a kind of source may have.
pub(super) struct Formats {
    pub names: &'static [(&'static str, FormatKind)],
    /// What is not said of CSV.
    pub csv: CsvFormat,
}

/// Of rows that follow one another in a text.
const TEXT: Formats = Formats {
    names: &[("json", FormatKind::Json), ("csv", FormatKind::Csv)],
    csv: CsvFormat {
        header: true,
        delimiter: b',',
    },
};

pub(super) fn read_rows(
    table: &mut Table,
    implied: Option<FormatKind>,
    formats: &Formats,
    mistakes: &mut Diagnostics,
) -> Option<RowFormat> {
    let given = match (table.optional("format"), implied) {
        (Some(value), _) => value
            .choice(formats.names, mistakes)
            .map(Spanned::into_inner),
        (None, Some(implied)) => Some(implied),
        (None, None) => {
            mistakes.push(
                Mistake::new(format!("{} has no `format`", table.owner()))
                    .at(table.place(), "")
                    .help("the file's name does not tell it: add `format = \"json\"` or \"csv\""),
            );
            None
        }
    };
    let csv_value = table.optional("csv");
    let csv_key = csv_value.as_ref().map(Value::key_span);
    let csv = csv_value
        .and_then(|value| value.table(mistakes))
        .map(|table| read_csv(table, &formats.csv, mistakes));
    if let (Some(kind @ (FormatKind::Json | FormatKind::Raw)), Some(place)) = (given, csv_key) {
        let name = if kind == FormatKind::Json {
            "json"
        } else {
            "raw"
        };
        mistakes.push(
            Mistake::new(format!(
                "{} has `csv` settings, and its format is {name}",
                table.owner()
            ))
            .at(place, "")
            .help("remove them, or write `format = \"csv\"`"),
        );
    }
    let columns = table
        .required(
            "fields",
            "a table of the rows' fields and their types",
            mistakes,
        )
        .and_then(|value| read_columns(&value, given, mistakes));
    let format = match given? {
        FormatKind::Json => Format::Json,
        FormatKind::Csv => Format::Csv(csv.unwrap_or_else(|| formats.csv.clone())),
        FormatKind::Raw => Format::Raw,
    };
    Some(RowFormat {
        format,
        columns: columns?,
    })
}

fn read_csv(mut table: Table, default: &CsvFormat, mistakes: &mut Diagnostics) -> CsvFormat {
    let header = table
        .optional("header")
        .and_then(|value| value.boolean(mistakes));
    let delimiter = table.optional("delimiter").and_then(|value| {
        let text = value.text("one character, in quotes", mistakes)?;
        match text.get_ref().as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            _ => {
                value.refuse(
                    "one ASCII character other than a quote or line end",
                    mistakes,
                );
                None
            }
        }
    });
    table.finish(mistakes);
    CsvFormat {
        header: header.unwrap_or(default.header),
        delimiter: delimiter.unwrap_or(default.delimiter),
    }
}

fn read_columns(
    value: &Value,
    format: Option<FormatKind>,
    mistakes: &mut Diagnostics,
) -> Option<Vec<Column>> {
    let table = value.table(mistakes)?;
    let columns: Vec<Option<Column>> = table
        .into_entries()
        .map(|(name, value)| column::read(name, &value, mistakes))
        .collect();
    if columns.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no field", value.what()))
                .at(value.key_span(), "")
                .help("add the fields that the rows have, such as `user_id = \"utf8\"`"),
        );
        return None;
    }
    let columns: Vec<Column> = columns.into_iter().collect::<Option<_>>()?;
    let mut good = true;
    for (i, column) in columns.iter().enumerate() {
        let name = &column.field.name;
        // `"a?"` and `"a"` are two keys and one field.
        if let Some(first) = columns[..i].iter().find(|other| other.field.name == *name) {
            good = false;
            mistakes.push(
                Mistake::new(format!("{} has `{name}` twice", value.what()))
                    .at(column.place.clone(), "again here")
                    .at(first.place.clone(), "first here"),
            );
        }
        if format == Some(FormatKind::Csv)
            && matches!(
                column.field.data_type,
                DataType::List(_) | DataType::Record(_)
            )
        {
            good = false;
            mistakes.push(
                Mistake::new(format!(
                    "a field of a csv file cannot be `{}`",
                    column.field
                ))
                .at(column.place.clone(), "a list or record")
                .help("csv has only single values: use json, or a field of text"),
            );
        }
    }
    good.then_some(columns)
}

fn read_generator(table: &mut Table, mistakes: &mut Diagnostics) -> Option<GeneratorPlan> {
    let mut integer = |key, least, most, default: i64, mistakes: &mut Diagnostics| {
        table
            .optional(key)
            .and_then(|value: Value| value.integer(least..=most, mistakes))
            .map_or(default, Spanned::into_inner)
    };
    let seed = integer("seed", 0, i64::MAX, 0, mistakes);
    let count = integer("count", 0, i64::MAX, -1, mistakes);
    let users = integer("users", 1, u32::MAX.into(), 1_000, mistakes);
    let items = integer("items", 1, u32::MAX.into(), 200, mistakes);
    let broken_one_in = integer("broken_one_in", 0, i64::MAX, 0, mistakes);
    let rate = table
        .optional("rate")
        .and_then(|value| value.positive_number(mistakes));
    let events_per_second = table
        .optional("events_per_second")
        .and_then(|value| value.positive_number(mistakes));
    let start_ms = table
        .optional("start")
        .and_then(|value| read_instant(&value, mistakes));
    let jitter_ms = table
        .optional("jitter")
        .and_then(|value| value.duration(0, mistakes))
        .map_or(0, Spanned::into_inner);
    Some(GeneratorPlan {
        seed: seed as u64,
        rate,
        count: u64::try_from(count).ok(),
        users: users as u32,
        items: items as u32,
        start_ms,
        // Event time passes as fast as the clock unless told otherwise.
        events_per_second: events_per_second.or(rate).unwrap_or(1_000.0),
        jitter_ms: jitter_ms as u64,
        broken_one_in: broken_one_in as u64,
    })
}

/// RFC 3339, as text or as TOML's own date and time.
pub(super) fn read_instant(value: &Value, mistakes: &mut Diagnostics) -> Option<i64> {
    let wanted = "a time such as \"2026-01-31T12:00:00Z\"";
    let text = match value.raw() {
        toml::de::DeValue::Datetime(datetime) => datetime.to_string(),
        _ => value.text(wanted, mistakes)?.into_inner(),
    };
    let instant = text.parse::<jiff::Timestamp>();
    if instant.is_err() {
        mistakes.push(
            Mistake::new(format!("{} must be {wanted}", value.what()))
                .at(value.span(), "")
                .help("give date, time and offset (`Z` is UTC)"),
        );
    }
    Some(instant.ok()?.as_millisecond())
}

/// What follows the last dot of the last component.
pub(super) fn extension(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}
