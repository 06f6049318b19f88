//! The source `kafka`: what its table may contain, and what that means.

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::input::KafkaInput;
use super::keys::{Owned, read_connection, read_registry, read_topic};
use super::registry::{Problem, Registry};
use super::subscription::{KafkaColumn, KafkaStart, Subscription};
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::format::{FormatKind, MESSAGES, read_instant, read_rows, refuse_added_fields};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::beside::{declared, read_beside, with_beside};
use crate::connector::{Description, Planning};
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::format::{DebeziumFormat, Format, RowFormat, TableChanges, TextDecimals};
use crate::plan::GivenTime;
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};
use crate::suggest;

pub const KIND: SourceKind = SourceKind {
    name: "kafka",
    read,
};

#[derive(Debug)]
struct KafkaSourceSettings {
    columns: Vec<DeclaredColumn>,
    /// As written; by default it is named after the pipeline.
    group: Option<String>,
    /// Everything but the group, which is still empty.
    subscription: Subscription,
}

/// The topics to read.
pub struct KafkaSource {
    pub subscription: Subscription,
}

const OWNED_BY_SOURCES: Owned = &[
    ("group.id", "name the group in `group`"),
    ("auto.offset.reset", "say where to start in `start`"),
    (
        "enable.auto.commit",
        "offsets are committed only with checkpoints",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed only with checkpoints",
    ),
    ("enable.partition.eof", "say `until = \"end\"`"),
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

const DISCOVER_EVERY_MS: u64 = 30_000;

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
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
    let rows = read_rows(table, Some(FormatKind::Json), &MESSAGES, mistakes);
    let registry = table
        .optional("registry")
        .map(|value| read_registry(&value, false, mistakes));
    let metadata = match table.optional("metadata") {
        Some(value) => read_beside(&value, COLUMNS, rows.as_ref(), mistakes),
        None => Vec::new(),
    };
    let changes = rows
        .as_ref()
        .is_some_and(|rows| rows.format.changes().is_some());
    if let (true, Some((_, name))) = (changes, metadata.first()) {
        refuse_added_fields(table, ("metadata", "messages"), name.span(), mistakes);
        return None;
    }
    let discover_every_ms = discover_every.and_then(|ms| u64::try_from(ms.into_inner()).ok());
    let rows = rows?;
    let mut columns = rows.columns;
    columns.extend(
        metadata
            .iter()
            .map(|(column, name)| declared(name, column.data_type(), column.is_nullable())),
    );
    Some(Box::new(KafkaSourceSettings {
        columns,
        group: group.map(Spanned::into_inner),
        subscription: Subscription {
            connection: connection?,
            topics: topics?,
            partitions: match partitions {
                Some(partitions) => Some(partitions?),
                None => None,
            },
            group: String::new(),
            start: start?,
            is_bounded: until.is_some(),
            discover_every_ms: discover_every_ms.unwrap_or(DISCOVER_EVERY_MS),
            format: rows.format,
            registry: match registry {
                Some(registry) => Some(registry?.connection),
                None => None,
            },
            metadata: metadata.into_iter().map(|(column, _)| column).collect(),
        },
    }))
}

fn read_topics(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Vec<String>> {
    let mut topics = value.one_or_more("a topic or a list of topics", mistakes, |value, m| {
        read_topic(value, m)
    })?;
    if topics.is_empty() {
        value.refuse("at least one topic", mistakes);
        return None;
    }
    let mut seen = HashSet::new();
    topics.retain(|topic| seen.insert(topic.clone()));
    Some(topics)
}

fn read_partitions(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Vec<i32>> {
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

fn read_start(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<KafkaStart> {
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
    let instant = read_instant(value, mistakes)?;
    if instant < 0 {
        value.refuse("a time since 1970, the first that Kafka knows", mistakes);
        return None;
    }
    Some(KafkaStart::At(instant))
}

impl SourceSettings for KafkaSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn changes(&self) -> Option<&TableChanges> {
        self.subscription.format.changes()
    }

    fn given_time(&self) -> Option<GivenTime> {
        match &self.subscription.format.upserts {
            Some(_) => Some(GivenTime::Message),
            None => self.changes().map(|_| GivenTime::Change),
        }
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        let mut subscription = self.subscription.clone();
        subscription.group = match &self.group {
            Some(group) => group.clone(),
            // Named after the pipeline, as its transactions are.
            None => format!("sluicebox-{}", planning.pipeline),
        };
        Some(Box::new(KafkaSource { subscription }))
    }
}

impl SourceConnector for KafkaSource {
    fn describe(&self) -> Description {
        let kafka = &self.subscription;
        let topics = match kafka.topics.as_slice() {
            [topic] => format!("topic {topic}"),
            topics => format!("topics {}", topics.join(", ")),
        };
        let partitions = match &kafka.partitions {
            Some(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
                format!(", partitions {}", numbers.join(", "))
            }
            None => String::new(),
        };
        let until = if kafka.is_bounded { ", to its end" } else { "" };
        let brokers = &kafka.connection.brokers;
        let mut lines = vec![format!("{topics}{partitions} on {brokers}{until}")];
        let mut settings = json!({
            "brokers": brokers,
            "topics": kafka.topics,
            "partitions": kafka.partitions,
            "group": kafka.group,
        });
        if let Some(upserts) = &kafka.format.upserts {
            let key = upserts.changes.key.iter().flatten();
            let key: Vec<&str> = key.map(String::as_str).collect();
            let format = upserts.key_format.name();
            lines.push(format!("a table by {}, keys as {format}", key.join(", ")));
            settings["key"] = json!(key);
        }
        if let Some(registry) = &kafka.registry {
            lines.push(format!("schemas of {registry}"));
            settings["registry"] = registry.to_string().into();
        }
        Description {
            connector: KIND.name,
            format: Some(kafka.format.format.name()),
            lines,
            settings,
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(match &self.subscription.partitions {
            Some(numbers) => self.subscription.topics.len() * numbers.len(),
            // Only the brokers know, and partitions may be added later.
            None => usize::MAX,
        })
    }

    fn payload_format(&self) -> RowFormat {
        self.subscription.format.clone()
    }

    fn teach(&self, decoder: &mut Decoder, row: &[u8]) -> Result<(), String> {
        let (Some(id), Some(registry)) = (decoder.lacks(row), &self.subscription.registry) else {
            return Ok(());
        };
        let explained = |problem: Problem| format!("schema {id} of {registry}: {}", problem.cause);
        let asked = Registry::new("a replay", registry).map_err(explained)?;
        match asked.find(id).map_err(explained)? {
            Ok(schema) => decoder.learn(id, Ok(&schema)),
            Err(why) => decoder.learn(id, Err(why)),
        }
        Ok(())
    }

    fn columns_beside_rows(&self) -> usize {
        self.subscription.metadata.len()
    }

    fn told_beside_row(&self, letter: &DeadLetter) -> Vec<Result<Json, String>> {
        let columns = self.subscription.metadata.iter();
        columns.map(|column| column.told_by(letter)).collect()
    }

    /// In a file, rows have no keys beside them: changes are told as Debezium tells them.
    fn row_format(&self) -> RowFormat {
        let kafka = &self.subscription;
        match &kafka.format.upserts {
            Some(upserts) => RowFormat {
                format: Format::Debezium(DebeziumFormat {
                    changes: upserts.changes.clone(),
                    decimals: TextDecimals::String,
                }),
                upserts: None,
                ..kafka.format.clone()
            },
            None => with_beside(&kafka.format, kafka.metadata.len()),
        }
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = KafkaInput::open(&self.subscription, context).await?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}
