//! What sources and sinks of `type = "kafka"` may say.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake};
use super::reader::{Table, Value, to_i64};
use super::source::{FormatKind, Formats, RowFormat, read_instant, read_rows};
use super::suggest;
use crate::plan::{CsvFormat, Format, KafkaColumn, KafkaConnection, KafkaStart};
use crate::schema::DataType;

#[derive(Debug)]
pub struct KafkaSource {
    pub connection: KafkaConnection,
    pub topics: Vec<String>,
    pub partitions: Option<Vec<i32>>,
    pub group: Option<String>,
    pub start: KafkaStart,
    pub is_bounded: bool,
    pub discover_every_ms: u64,
    pub rows: RowFormat,
    /// What of a message, and the name of its field, in the order of the file.
    pub metadata: Vec<(KafkaColumn, Spanned<String>)>,
}

#[derive(Debug)]
pub struct KafkaSink {
    pub connection: KafkaConnection,
    pub topic: String,
    pub key: Option<Spanned<String>>,
    /// Name of a header, and of the field that its value is taken from.
    pub headers: Vec<(String, Spanned<String>)>,
}

/// Properties that are decided by other keys, or by us: a name, and what to do.
type Owned = &'static [(&'static str, &'static str)];

const OWNED_BY_BOTH: Owned = &[
    ("bootstrap.servers", "name the brokers in `brokers`"),
    ("metadata.broker.list", "name the brokers in `brokers`"),
];

const OWNED_BY_SOURCES: Owned = &[
    ("group.id", "name the group in `group`"),
    ("auto.offset.reset", "say where to start in `start`"),
    (
        "enable.auto.commit",
        "offsets are committed with checkpoints alone",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed with checkpoints alone",
    ),
    ("enable.partition.eof", "say `until = \"end\"`"),
];

const OWNED_BY_SINKS: Owned = &[
    (
        "transactional.id",
        "transactions are the pipeline's, and named after it",
    ),
    (
        "enable.idempotence",
        "it is always on, so that no row comes twice",
    ),
];

const COLUMNS: &[(&str, KafkaColumn)] = &[
    ("key", KafkaColumn::Key),
    ("key_bytes", KafkaColumn::KeyBytes),
    ("headers", KafkaColumn::Headers),
    ("timestamp", KafkaColumn::Timestamp),
    ("topic", KafkaColumn::Topic),
    ("partition", KafkaColumn::Partition),
    ("offset", KafkaColumn::Offset),
];

/// A message is a row, so that CSV has no line for a header.
const FORMATS: Formats = Formats {
    names: &[
        ("json", FormatKind::Json),
        ("csv", FormatKind::Csv),
        ("raw", FormatKind::Raw),
    ],
    csv: CsvFormat {
        header: false,
        delimiter: b',',
    },
};

const DISCOVER_EVERY_MS: u64 = 30_000;

pub(super) fn read_source(table: &mut Table, mistakes: &mut Diagnostics) -> Option<KafkaSource> {
    let connection = read_connection(table, OWNED_BY_SOURCES, mistakes);
    let topics = table
        .required("topic", "the topic to read, or a list of them", mistakes)
        .and_then(|value| read_topics(&value, mistakes));
    let partitions = table
        .optional("partitions")
        .map(|value| read_partitions(&value, mistakes));
    let group = table
        .optional("group")
        .and_then(|value| value.text("the name of a consumer group", mistakes));
    let start = match table.optional("start") {
        Some(value) => read_start(&value, mistakes),
        None => Some(KafkaStart::Earliest),
    };
    let until = table
        .optional("until")
        .and_then(|value| value.choice(&[("end", ())], mistakes));
    let discover_every = table
        .optional("discover_every")
        .and_then(|value| value.duration(100, mistakes));
    let rows = read_rows(table, Some(FormatKind::Json), &FORMATS, mistakes);
    if let Some(rows) = &rows {
        check_rows(table, rows, mistakes);
    }
    let metadata = match table.optional("metadata") {
        Some(value) => read_metadata(&value, rows.as_ref(), mistakes),
        None => Vec::new(),
    };
    let discover_every_ms = discover_every.and_then(|ms| u64::try_from(ms.into_inner()).ok());
    Some(KafkaSource {
        connection: connection?,
        topics: topics?,
        partitions: match partitions {
            Some(partitions) => Some(partitions?),
            None => None,
        },
        group: group.map(Spanned::into_inner),
        start: start?,
        is_bounded: until.is_some(),
        discover_every_ms: discover_every_ms.unwrap_or(DISCOVER_EVERY_MS),
        rows: rows?,
        metadata,
    })
}

pub(super) fn read_sink(table: &mut Table, mistakes: &mut Diagnostics) -> Option<KafkaSink> {
    let connection = read_connection(table, OWNED_BY_SINKS, mistakes);
    let topic = table
        .required("topic", "the topic to write", mistakes)
        .and_then(|value| read_topic(&value, mistakes));
    if let Some(value) = table.optional("format") {
        value.choice(&[("json", ())], mistakes);
    }
    let field = "the name of a field, in quotes";
    let key = table
        .optional("key")
        .and_then(|value| value.text(field, mistakes));
    let headers = table
        .optional("headers")
        .and_then(|value| value.table(mistakes))
        .map(|headers| {
            headers
                .into_entries()
                .filter_map(|(name, value)| Some((name.into_inner(), value.text(field, mistakes)?)))
                .collect()
        });
    Some(KafkaSink {
        connection: connection?,
        topic: topic?,
        key,
        headers: headers.unwrap_or_default(),
    })
}

fn read_connection(
    table: &mut Table,
    owned: Owned,
    mistakes: &mut Diagnostics,
) -> Option<KafkaConnection> {
    let meaning = "addresses of brokers, such as \"127.0.0.1:9092\"";
    let brokers = table
        .required("brokers", meaning, mistakes)
        .and_then(|value| {
            value.one_or_more(
                "an address or a list of addresses",
                mistakes,
                |value, mistakes| read_broker(value, mistakes),
            )
        });
    let properties = match table.optional("properties") {
        Some(value) => read_properties(&value, owned, mistakes),
        None => Vec::new(),
    };
    let brokers = brokers?;
    if brokers.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no broker", table.owner()))
                .at(table.place(), "")
                .help("write the address of one, such as \"127.0.0.1:9092\""),
        );
        return None;
    }
    Some(KafkaConnection {
        brokers: brokers.join(","),
        properties,
    })
}

/// `host:port`, or several with commas between them, as other tools take them.
fn read_broker(value: &Value, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("the address of a broker, in quotes", mistakes)?;
    let is_good = text.get_ref().split(',').all(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        !host.is_empty() && !host.contains([' ', '/']) && port.parse::<u16>().is_ok()
    });
    if !is_good {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a broker", value.what()))
                .at(text.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:9092\""),
        );
        return None;
    }
    Some(text.into_inner())
}

fn read_topics(value: &Value, mistakes: &mut Diagnostics) -> Option<Vec<String>> {
    let mut topics = value.one_or_more("a topic or a list of topics", mistakes, |value, m| {
        read_topic(value, m)
    })?;
    if topics.is_empty() {
        value.refuse("at least one topic", mistakes);
        return None;
    }
    let mut seen = std::collections::HashSet::new();
    topics.retain(|topic| seen.insert(topic.clone()));
    Some(topics)
}

fn read_topic(value: &Value, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("the name of a topic, in quotes", mistakes)?;
    let name = text.get_ref();
    let is_good = !matches!(name.as_str(), "" | "." | "..")
        && name.len() <= 249
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !is_good {
        mistakes.push(
            Mistake::new(format!("{} cannot be the name of a topic", value.what()))
                .at(text.span(), "")
                .help("topics have up to 249 of: letters, digits, dot, _ and -"),
        );
        return None;
    }
    Some(text.into_inner())
}

fn read_partitions(value: &Value, mistakes: &mut Diagnostics) -> Option<Vec<i32>> {
    let wanted = "a list of partitions' numbers, such as [0, 1]";
    let DeValue::Array(elements) = value.raw() else {
        value.refuse(wanted, mistakes);
        return None;
    };
    let mut partitions = elements
        .iter()
        .map(|element| {
            let number = value
                .element(element)
                .integer(0..=i64::from(i32::MAX), mistakes)?;
            i32::try_from(number.into_inner()).ok()
        })
        .collect::<Option<Vec<i32>>>()?;
    if partitions.is_empty() {
        value.refuse(wanted, mistakes);
        return None;
    }
    partitions.sort_unstable();
    partitions.dedup();
    Some(partitions)
}

fn read_start(value: &Value, mistakes: &mut Diagnostics) -> Option<KafkaStart> {
    let words = [
        ("earliest", KafkaStart::Earliest),
        ("latest", KafkaStart::Latest),
        ("committed", KafkaStart::Committed),
    ];
    if let DeValue::String(text) = value.raw() {
        if let Some((_, start)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*start);
        }
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            let choices = words.map(|(word, _)| word);
            mistakes.push(
                Mistake::new(format!("{} cannot be `{text}`", value.what()))
                    .at(value.span(), "")
                    .help(format!(
                        "{}, or a time such as \"2026-01-31T12:00:00Z\"",
                        suggest::help(text, "choices", choices)
                    )),
            );
            return None;
        }
    }
    read_instant(value, mistakes).map(KafkaStart::At)
}

/// A message is a row: CSV has no first line, and raw bytes have one field.
fn check_rows(table: &Table, rows: &RowFormat, mistakes: &mut Diagnostics) {
    match &rows.format {
        Format::Raw => {
            let is_good = match rows.columns.as_slice() {
                [column] => matches!(column.field.data_type, DataType::Bytes | DataType::Utf8),
                _ => false,
            };
            if !is_good {
                let place = rows.columns.first().map(|column| column.place.clone());
                mistakes.push(
                    Mistake::new(format!(
                        "{} has raw messages, which are one field of bytes or utf8",
                        table.owner()
                    ))
                    .at(place.unwrap_or_else(|| table.place()), "")
                    .help("write `fields = { payload = \"bytes\" }`; `metadata` adds others"),
                );
            }
        }
        Format::Csv(csv) if csv.header => mistakes.push(
            Mistake::new(format!(
                "{} has messages of csv, which have no header",
                table.owner()
            ))
            .at(table.place(), "")
            .help("write `csv = { header = false }`, and the fields in order"),
        ),
        Format::Csv(_) | Format::Json => {}
    }
}

fn read_metadata(
    value: &Value,
    rows: Option<&RowFormat>,
    mistakes: &mut Diagnostics,
) -> Vec<(KafkaColumn, Spanned<String>)> {
    let Some(mut table) = value.table(mistakes) else {
        return Vec::new();
    };
    let mut found: Vec<(KafkaColumn, Spanned<String>)> = Vec::new();
    for (key, column) in COLUMNS {
        let name = table
            .optional(key)
            .and_then(|value| value.text("the name of its field, in quotes", mistakes));
        found.extend(name.map(|name| (*column, name)));
    }
    table.finish(mistakes);
    found.sort_by_key(|(_, name)| name.span().start);
    let mut taken: Vec<(&str, std::ops::Range<usize>)> = rows
        .into_iter()
        .flat_map(|rows| &rows.columns)
        .map(|column| (column.field.name.as_str(), column.place.clone()))
        .collect();
    for (_, name) in &found {
        match taken.iter().find(|(other, _)| other == name.get_ref()) {
            Some((_, first)) => mistakes.push(
                Mistake::new(format!("{} has `{}` twice", value.what(), name.get_ref()))
                    .at(name.span(), "again here")
                    .at(first.clone(), "first here"),
            ),
            None if name.get_ref().is_empty() => mistakes.push(
                Mistake::new(format!("{}: a field needs a name", value.what())).at(name.span(), ""),
            ),
            None => taken.push((name.get_ref(), name.span())),
        }
    }
    found
}

/// Properties of librdkafka, which knows itself whether they are good.
fn read_properties(
    value: &Value,
    owned: Owned,
    mistakes: &mut Diagnostics,
) -> Vec<(String, String)> {
    let Some(table) = value.table(mistakes) else {
        return Vec::new();
    };
    let mut properties = Vec::new();
    for (name, value) in table.into_entries() {
        let text = match value.raw() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Boolean(boolean) => Some(boolean.to_string()),
            DeValue::Integer(integer) => to_i64(integer).map(|integer| integer.to_string()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            _ => None,
        };
        let Some(text) = text else {
            value.refuse("a text, a number or a boolean", mistakes);
            continue;
        };
        let name_text = name.get_ref();
        let mut all = OWNED_BY_BOTH.iter().chain(owned);
        if let Some((_, help)) = all.find(|(owned, _)| owned == name_text) {
            mistakes.push(
                Mistake::new(format!("{} is not for you to set", value.what()))
                    .at(name.span(), "")
                    .help(*help),
            );
            continue;
        }
        let mut alone = ClientConfig::new();
        alone.set(name_text, &text);
        if let Err(KafkaError::ClientConfig(_, problem, _, _)) = alone.create_native_config() {
            mistakes.push(
                Mistake::new(format!("{}: {problem}", value.what()))
                    .at(name.span(), "")
                    .help("librdkafka's CONFIGURATION.md lists its properties and their values"),
            );
            continue;
        }
        properties.push((name.into_inner(), text));
    }
    properties
}
