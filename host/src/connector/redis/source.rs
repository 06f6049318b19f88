//! The source `redis`: the entries of streams, or the messages of channels.

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::RedisConnection;
use super::channel::{ChannelInput, Channels, is_pattern};
use super::entry::EntryId;
use super::keys::read_connection;
use super::messages::{CHANNEL_COLUMNS, RedisColumn, STREAM_COLUMNS};
use super::stream::{StreamInput, StreamStart, Streams};
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::format::{FormatKind, Formats, TEXT, WrittenRows, read_instant, read_rows};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::beside::{declared, read_beside, with_beside};
use crate::connector::{Description, Planning};
use crate::dead_letter::DeadLetter;
use crate::format::{Format, RowFormat};
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};

pub const KIND: SourceKind = SourceKind {
    name: "redis",
    read,
};

#[derive(Debug)]
struct RedisSourceSettings {
    columns: Vec<DeclaredColumn>,
    source: RedisSource,
}

/// What is read.
#[derive(Clone, Debug)]
enum RedisSource {
    Streams(Streams),
    Channels(Channels),
}

/// A message is a row, so CSV has no header.
const FORMATS: Formats = Formats {
    has_header: false,
    raw_fields: "`fields = { payload = \"bytes\" }` or `\"utf8\"`; `metadata` adds others",
    ..TEXT
};

/// What `start` has.
const START: &str = "\"earliest\", \"latest\", the id of an entry, such as \"1700000000000-0\", or \
                     a time, such as \"2026-01-31T12:00:00Z\"";

/// Keys that only streams have.
const OF_STREAMS: [&str; 3] = ["start", "until", "payload"];

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let connection = read_connection(table, mistakes);
    let place = table.required_one(
        &["stream", "channel"],
        "the stream to read, or a list of them, or a `channel` to listen to",
        "a source reads streams or listens to channels",
        mistakes,
    );
    let names = place.as_ref().and_then(|(at, value)| {
        let names = read_names(value, mistakes)?;
        Some((*at, names))
    });
    let of_streams = OF_STREAMS.map(|key| table.optional(key));
    let is_channel = place.as_ref().is_some_and(|(at, _)| *at == 1);
    if is_channel {
        for value in of_streams.iter().flatten() {
            mistakes.push(value.means_nothing("it is for streams: channels keep no messages"));
        }
    }
    let [start, until, payload] = of_streams;
    let start = match start {
        Some(value) => read_start(&value, mistakes),
        None => Some(StreamStart::Earliest),
    };
    let until = until.and_then(|value| value.choice(&[("end", ())], mistakes));
    let payload = payload
        .and_then(|value| value.text("the name of the field with the row, in quotes", mistakes));
    let format_place = table.place_of("format");
    let rows = read_rows(table, Some(FormatKind::Json), &FORMATS, mistakes);
    let beside = match is_channel {
        true => CHANNEL_COLUMNS,
        false => STREAM_COLUMNS,
    };
    let metadata = match table.optional("metadata") {
        Some(value) => read_beside(&value, beside, rows.as_ref(), mistakes),
        None => Vec::new(),
    };
    let rows = rows?;
    if !is_channel && payload.is_none() {
        check_fields(table, &rows, format_place, mistakes)?;
    }
    let mut columns = rows.columns;
    columns.extend(
        metadata
            .iter()
            .map(|(column, name)| declared(name, column.data_type(), false)),
    );
    let metadata = metadata.into_iter().map(|(column, _)| column).collect();
    let (connection, start) = (connection?, start?);
    let source = match names? {
        (0, keys) => RedisSource::Streams(Streams {
            connection,
            keys,
            start,
            is_bounded: until.is_some(),
            payload: payload.map(Spanned::into_inner),
            format: rows.format,
            metadata,
        }),
        (_, names) => RedisSource::Channels(Channels {
            connection,
            names,
            format: rows.format,
            metadata,
        }),
    };
    Some(Box::new(RedisSourceSettings { columns, source }))
}

/// An entry's fields have no other format than their texts.
fn check_fields(
    table: &Table<'_>,
    rows: &WrittenRows,
    place: Option<Span>,
    mistakes: &mut Diagnostics,
) -> Option<()> {
    if rows.format.format == Format::Json {
        return Some(());
    }
    let name = rows.format.format.name();
    let what = format!(
        "{} has the format {name}, and no field of an entry that is written so",
        table.owner()
    );
    mistakes.push(
        Mistake::new(what)
            .at(place.unwrap_or_else(|| table.place()), "")
            .help(
                "add `payload = \"…\"`: the entry's field with the row; or remove `format`, where \
                 each field is a column",
            ),
    );
    None
}

fn read_names(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Vec<String>> {
    let wanted = "a name, or a list of them, in quotes";
    let mut names = value.one_or_more(wanted, mistakes, |value, mistakes| {
        let name = value.text(wanted, mistakes)?;
        if name.get_ref().is_empty() {
            value.refuse(wanted, mistakes);
            return None;
        }
        Some(name.into_inner())
    })?;
    if names.is_empty() {
        value.refuse(wanted, mistakes);
        return None;
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Some(names)
}

fn read_start(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<StreamStart> {
    if let DeValue::String(text) = value.raw() {
        match text.as_ref() {
            "earliest" => return Some(StreamStart::Earliest),
            "latest" => return Some(StreamStart::Latest),
            _ => {}
        }
        if let Ok(id) = text.parse::<EntryId>() {
            return Some(StreamStart::At(id));
        }
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            value.refuse(START, mistakes);
            return None;
        }
    }
    let instant = read_instant(value, mistakes)?;
    match u64::try_from(instant) {
        Ok(ms) => Some(StreamStart::At(EntryId { ms, sequence: 0 })),
        Err(_) => {
            value.refuse("a time since 1970, the first that Redis knows", mistakes);
            None
        }
    }
}

impl SourceSettings for RedisSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(self.source.clone()))
    }
}

impl RedisSource {
    fn connection(&self) -> &RedisConnection {
        match self {
            RedisSource::Streams(streams) => &streams.connection,
            RedisSource::Channels(channels) => &channels.connection,
        }
    }

    fn format(&self) -> &RowFormat {
        match self {
            RedisSource::Streams(streams) => &streams.format,
            RedisSource::Channels(channels) => &channels.format,
        }
    }

    fn metadata(&self) -> &[RedisColumn] {
        match self {
            RedisSource::Streams(streams) => &streams.metadata,
            RedisSource::Channels(channels) => &channels.metadata,
        }
    }
}

impl SourceConnector for RedisSource {
    fn describe(&self) -> Description {
        let connection = self.connection();
        let (lines, names) = match self {
            RedisSource::Streams(streams) => {
                let what = match streams.keys.as_slice() {
                    [key] => format!("stream {key}"),
                    keys => format!("streams {}", keys.join(", ")),
                };
                let row = match &streams.payload {
                    Some(field) => format!(", rows in `{field}`"),
                    None => String::new(),
                };
                let until = if streams.is_bounded {
                    ", to its end"
                } else {
                    ""
                };
                let line = format!("{what} on {connection}{row}{until}");
                (vec![line], &streams.keys)
            }
            RedisSource::Channels(channels) => {
                let what = match channels.names.as_slice() {
                    [name] if is_pattern(name) => format!("channels like {name}"),
                    [name] => format!("channel {name}"),
                    _ => format!("channels {}", channels.title()),
                };
                let lines = vec![
                    format!("{what} on {connection}"),
                    "at most once: messages are lost that come while nobody listens".to_owned(),
                ];
                (lines, &channels.names)
            }
        };
        let what = match self {
            RedisSource::Streams(_) => "streams",
            RedisSource::Channels(_) => "channels",
        };
        let format = match self {
            RedisSource::Streams(streams) if streams.payload.is_none() => None,
            _ => Some(self.format().format.name()),
        };
        Description {
            connector: KIND.name,
            format,
            lines,
            settings: json!({
                "server": connection.server.to_string(),
                "database": connection.database,
                what: names,
            }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(match self {
            RedisSource::Streams(streams) => streams.keys.len(),
            RedisSource::Channels(_) => 1,
        })
    }

    fn is_replayable(&self) -> bool {
        matches!(self, RedisSource::Streams(_))
    }

    fn may_be_quiet(&self) -> bool {
        matches!(self, RedisSource::Channels(_))
    }

    fn can_bootstrap(&self) -> bool {
        matches!(self, RedisSource::Streams(_))
    }

    fn payload_format(&self) -> RowFormat {
        self.format().clone()
    }

    fn columns_beside_rows(&self) -> usize {
        self.metadata().len()
    }

    fn told_beside_row(&self, letter: &DeadLetter) -> Vec<Result<Json, String>> {
        let columns = self.metadata().iter();
        columns.map(|column| column.told_by(letter)).collect()
    }

    fn row_format(&self) -> RowFormat {
        with_beside(self.format(), self.metadata().len())
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input: Box<dyn SourceInput> = match self {
                RedisSource::Streams(streams) => {
                    Box::new(StreamInput::open(streams, context).await?)
                }
                RedisSource::Channels(channels) => {
                    Box::new(ChannelInput::open(channels, context).await?)
                }
            };
            Ok(input)
        })
    }
}
