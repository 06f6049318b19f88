//! Collects entries of a stream, or messages of channels, with the columns beside their rows,
//! to decode them together.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{StringBuilder, TimestampMillisecondBuilder};
use serde_json::Value as Json;

use crate::batch::Envelope;
use crate::checkpoint::snapshot::Position;
use crate::connector::messages;
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::schema::DataType;
use crate::source::SourceContext;
use crate::source::chunk::Chunk;

/// What a message has beside its row, as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisColumn {
    /// Of an entry.
    Id,
    /// Of an entry: the first number of its id.
    Timestamp,
    Stream,
    Channel,
}

pub const STREAM_COLUMNS: &[(&str, RedisColumn)] = &[
    ("id", RedisColumn::Id),
    ("timestamp", RedisColumn::Timestamp),
    ("stream", RedisColumn::Stream),
];

pub const CHANNEL_COLUMNS: &[(&str, RedisColumn)] = &[("channel", RedisColumn::Channel)];

impl RedisColumn {
    pub fn data_type(self) -> DataType {
        match self {
            RedisColumn::Timestamp => DataType::Timestamp,
            RedisColumn::Id | RedisColumn::Stream | RedisColumn::Channel => DataType::Utf8,
        }
    }

    /// What a dead letter tells of it, as JSON. The error says why it does not.
    pub fn told_by(self, letter: &DeadLetter) -> Result<Json, String> {
        let told = match self {
            RedisColumn::Id | RedisColumn::Channel => &letter.key,
            RedisColumn::Timestamp => &letter.message_time,
            RedisColumn::Stream => &letter.partition,
        };
        let told = told.clone().map(Json::from);
        told.ok_or_else(|| "the letter does not tell it".to_owned())
    }
}

/// Where a message comes from.
pub struct MessageOrigin<'a> {
    /// As dead letters have it.
    pub offset: u64,
    /// The stream or channel.
    pub place: &'a str,
    /// The id of an entry, and its time.
    pub entry: Option<(String, i64)>,
}

/// Messages of a partition, with the columns beside their rows.
pub struct Messages {
    payloads: messages::Messages,
    columns: Vec<(RedisColumn, Texts)>,
}

enum Texts {
    Text(StringBuilder),
    Time(TimestampMillisecondBuilder),
}

impl Messages {
    pub fn new(columns: &[RedisColumn]) -> Self {
        let columns = columns.iter().map(|column| {
            let texts = match column.data_type() {
                DataType::Timestamp => {
                    Texts::Time(TimestampMillisecondBuilder::new().with_timezone("UTC"))
                }
                _ => Texts::Text(StringBuilder::new()),
            };
            (*column, texts)
        });
        Messages {
            payloads: messages::Messages::default(),
            columns: columns.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    pub fn has_room(&self, rows_max: usize) -> bool {
        self.payloads.has_room(rows_max)
    }

    /// Adds a message whose payload `write` appends; the error says why it has none, and what
    /// is there instead.
    pub fn push(
        &mut self,
        from: MessageOrigin<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), (String, Vec<u8>)>,
    ) {
        if !self.payloads.push(from.offset, envelope(&from), write) {
            return;
        }
        for (column, texts) in &mut self.columns {
            let id_and_time = from.entry.as_ref();
            match texts {
                Texts::Time(times) => {
                    times.append_value(id_and_time.map_or(0, |(_, time_ms)| *time_ms));
                }
                Texts::Text(texts) => texts.append_value(match column {
                    RedisColumn::Id => id_and_time.map_or("", |(id, _)| id),
                    _ => from.place,
                }),
            }
        }
    }

    pub fn decode(
        self,
        decoder: &mut Decoder,
        context: &SourceContext,
        partition: Arc<str>,
        end: Position,
    ) -> Chunk {
        let columns = self.columns.into_iter().map(|(_, texts)| texts.finish());
        let columns = columns.collect();
        let payloads = self.payloads;
        payloads.decode(columns, decoder, context, partition, end)
    }
}

impl Texts {
    fn finish(self) -> ArrayRef {
        match self {
            Texts::Text(mut texts) => Arc::new(texts.finish()),
            Texts::Time(mut times) => Arc::new(times.finish()),
        }
    }
}

/// In a dead letter, the id of an entry or the channel is the message's key.
fn envelope(from: &MessageOrigin<'_>) -> Envelope {
    let (key, time_ms) = match &from.entry {
        Some((id, time_ms)) => (id.as_str(), Some(*time_ms)),
        None => (from.place, None),
    };
    Envelope {
        key: Some(key.as_bytes().into()),
        headers: None,
        timestamp_ms: time_ms,
        is_tombstone: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dead_letter_tells_what_its_message_had() {
        let letter = DeadLetter {
            partition: Some("clicks".to_owned()),
            key: Some("5-3".to_owned()),
            message_time: Some("1970-01-01T00:00:00.005Z".to_owned()),
            ..DeadLetter::default()
        };
        for (column, value) in [
            (RedisColumn::Id, "5-3"),
            (RedisColumn::Channel, "5-3"),
            (RedisColumn::Timestamp, "1970-01-01T00:00:00.005Z"),
            (RedisColumn::Stream, "clicks"),
        ] {
            assert_eq!(column.told_by(&letter), Ok(json!(value)), "{column:?}");
            assert!(column.told_by(&DeadLetter::default()).is_err());
        }
    }
}
