//! Collects entries of a stream, or messages of channels, to decode them together.

use std::sync::Arc;

use arrow_array::builder::{StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::Buffer;
use serde_json::Value as Json;

use crate::batch::{Envelope, Offsets};
use crate::checkpoint::snapshot::Position;
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::schema::DataType;
use crate::source::SourceContext;
use crate::source::chunk::{BadRow, Chunk, decode, keep};
use crate::source::row_ends::{ROW_BYTES_MAX, bad_row, too_long};

/// A block ends at this size, even if it has fewer rows than a batch.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

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

/// Messages under construction.
pub struct Messages {
    /// The payloads, one after another.
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    envelopes: Vec<Envelope>,
    columns: Vec<(RedisColumn, Texts)>,
    /// Those that are bad before their payload is decoded.
    bad: Vec<BadRow>,
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
            data: Vec::new(),
            spans: Vec::new(),
            offsets: Vec::new(),
            envelopes: Vec::new(),
            columns: columns.collect(),
            bad: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    pub fn rows(&self) -> usize {
        self.spans.len() + self.bad.len()
    }

    pub fn has_room(&self, rows_max: usize) -> bool {
        self.rows() < rows_max && self.data.len() < BLOCK_BYTES_MAX
    }

    /// Adds a message whose payload `write` appends; the error says why it has none, and what
    /// is there instead.
    pub fn push(
        &mut self,
        from: MessageOrigin<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), (String, Vec<u8>)>,
    ) {
        let envelope = envelope(&from);
        let start = self.data.len();
        let written = write(&mut self.data);
        let payload = &self.data[start..];
        let bad = match written {
            Ok(()) if payload.len() <= ROW_BYTES_MAX => None,
            Ok(()) => Some(too_long(from.offset, payload)),
            Err((error, shown)) => Some(bad_row(from.offset, error, &shown)),
        };
        if let Some(mut bad) = bad {
            self.data.truncate(start);
            bad.envelope = Some(envelope);
            self.bad.push(bad);
            return;
        }
        // A block has a little more than one row beyond `BLOCK_BYTES_MAX`.
        self.spans.push((start as u32, self.data.len() as u32));
        self.offsets.push(from.offset);
        self.envelopes.push(envelope);
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
        let columns: Vec<ArrayRef> = columns.collect();
        // Offsets are numbers of rows here, so that each is another one.
        let mut chunk = decode(
            decoder,
            context.node.clone(),
            partition,
            Buffer::from_vec(self.data),
            self.spans,
            Offsets::From(0),
            end,
        );
        let mut is_good = vec![true; self.offsets.len()];
        for bad in &mut chunk.bad {
            let row = bad.offset as usize;
            is_good[row] = false;
            bad.offset = self.offsets[row];
            bad.envelope = Some(self.envelopes[row].clone());
        }
        let good = |row: &usize| is_good[*row];
        let rows = 0..self.offsets.len();
        let offsets = rows.clone().filter(good).map(|row| self.offsets[row]);
        chunk.block.offsets = Offsets::Each(offsets.collect());
        let envelopes = self.envelopes.into_iter().zip(&is_good);
        let envelopes = envelopes.filter(|(_, is_good)| **is_good);
        chunk.block.envelopes = envelopes.map(|(envelope, _)| envelope).collect();
        match chunk.bad.is_empty() {
            true => chunk.columns.extend(columns),
            false => {
                let good = BooleanArray::from(is_good);
                let columns = columns.iter().map(|column| keep(column, &good));
                chunk.columns.extend(columns);
            }
        }
        chunk.bad.extend(self.bad);
        chunk
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
