//! Collects messages of a partition with their metadata, to decode them together.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rdkafka::Message;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers};

use super::super::subscription::{KafkaColumn, Subscription};
use crate::batch::Envelope;
use crate::checkpoint::snapshot::Position;
use crate::connector::messages;
use crate::decode::Decoder;
use crate::json::write_json;
use crate::source::SourceContext;
use crate::source::chunk::Chunk;
use crate::source::row_ends::{ROW_BYTES_MAX, bad_row, too_long};

/// Messages of a partition, with their metadata.
pub(super) struct Messages {
    payloads: messages::Messages,
    metadata: Vec<Metadata>,
    /// Whether a key without a payload is a change, too; then there is no metadata.
    reads_tombstones: bool,
}

/// A metadata column under construction.
enum Metadata {
    Key(StringBuilder),
    KeyBytes(BinaryBuilder),
    Headers(StringBuilder),
    Timestamp(TimestampMillisecondBuilder),
    Topic(StringBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
}

impl Messages {
    pub fn new(plan: &Subscription) -> Self {
        Messages {
            payloads: messages::Messages::default(),
            metadata: plan.metadata.iter().copied().map(Metadata::new).collect(),
            reads_tombstones: plan.format.changes().is_some(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    pub fn has_room(&self, rows_max: usize) -> bool {
        self.payloads.has_room(rows_max)
    }

    pub fn lacking(&self, decoder: &Decoder) -> Vec<u32> {
        self.payloads.lacking(decoder)
    }

    pub fn push(&mut self, message: &BorrowedMessage<'_>, offset: u64) {
        let envelope = envelope(message);
        let key = message.key().filter(|_| self.reads_tombstones);
        if let (None, Some(key)) = (message.payload(), key) {
            self.payloads.push(offset, envelope, |data| {
                data.extend_from_slice(key);
                Ok(())
            });
            return;
        }
        let Some(payload) = message.payload() else {
            let error = match self.reads_tombstones {
                false => "expected a row, found a message without a payload (a tombstone)",
                true => {
                    "expected a row or a key that is gone, found a message with neither payload \
                     nor key"
                }
            };
            let bad = bad_row(offset, error, b"");
            self.payloads.push_bad(bad, envelope);
            return;
        };
        if payload.len() > ROW_BYTES_MAX {
            let bad = too_long(offset, payload);
            self.payloads.push_bad(bad, envelope);
            return;
        }
        let mut metadata = self.metadata.iter();
        if let Some(error) = metadata.find_map(|wanted| wanted.fault(message)) {
            let bad = bad_row(offset, error, payload);
            self.payloads.push_bad(bad, envelope);
            return;
        }
        for column in &mut self.metadata {
            column.push(message, &envelope);
        }
        self.payloads.push(offset, envelope, |data| {
            data.extend_from_slice(payload);
            Ok(())
        });
    }

    pub fn decode(
        self,
        decoder: &mut Decoder,
        context: &SourceContext,
        partition: Arc<str>,
        end: Position,
    ) -> Chunk {
        let metadata = self.metadata.into_iter().map(Metadata::finish).collect();
        let payloads = self.payloads;
        payloads.decode(metadata, decoder, context, partition, end)
    }
}

impl Metadata {
    fn new(column: KafkaColumn) -> Self {
        match column {
            KafkaColumn::Key => Metadata::Key(StringBuilder::new()),
            KafkaColumn::KeyBytes => Metadata::KeyBytes(BinaryBuilder::new()),
            KafkaColumn::Headers => Metadata::Headers(StringBuilder::new()),
            KafkaColumn::Timestamp => {
                Metadata::Timestamp(TimestampMillisecondBuilder::new().with_timezone("UTC"))
            }
            KafkaColumn::Topic => Metadata::Topic(StringBuilder::new()),
            KafkaColumn::Partition => Metadata::Partition(Int32Builder::new()),
            KafkaColumn::Offset => Metadata::Offset(Int64Builder::new()),
        }
    }

    /// Why a message is bad although its payload may be a good row.
    fn fault(&self, message: &BorrowedMessage<'_>) -> Option<String> {
        match self {
            Metadata::Key(_) => {
                let key = message.key()?;
                let error = std::str::from_utf8(key).err()?;
                Some(format!(
                    "the message's key: byte {}: expected UTF-8 text, found other bytes \
                     (`key_bytes` takes any)",
                    error.valid_up_to()
                ))
            }
            Metadata::Timestamp(_) if message.timestamp().to_millis().is_none() => {
                Some("the message's timestamp: expected one, found none".to_owned())
            }
            _ => None,
        }
    }

    fn push(&mut self, message: &BorrowedMessage<'_>, envelope: &Envelope) {
        match self {
            Metadata::Key(keys) => {
                keys.append_option(message.key().and_then(|key| std::str::from_utf8(key).ok()));
            }
            Metadata::KeyBytes(keys) => keys.append_option(message.key()),
            Metadata::Headers(headers) => {
                headers.append_value(envelope.headers.as_deref().unwrap_or("{}"));
            }
            Metadata::Timestamp(times) => {
                times.append_value(message.timestamp().to_millis().unwrap_or_default());
            }
            Metadata::Topic(topics) => topics.append_value(message.topic()),
            Metadata::Partition(partitions) => partitions.append_value(message.partition()),
            Metadata::Offset(offsets) => offsets.append_value(message.offset()),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Metadata::Key(mut column)
            | Metadata::Headers(mut column)
            | Metadata::Topic(mut column) => Arc::new(column.finish()),
            Metadata::KeyBytes(mut column) => Arc::new(column.finish()),
            Metadata::Timestamp(mut column) => Arc::new(column.finish()),
            Metadata::Partition(mut column) => Arc::new(column.finish()),
            Metadata::Offset(mut column) => Arc::new(column.finish()),
        }
    }
}

fn envelope(message: &BorrowedMessage<'_>) -> Envelope {
    Envelope {
        key: message.key().map(Box::from),
        headers: message.headers().map(headers_as_json),
        timestamp_ms: message.timestamp().to_millis(),
        is_tombstone: message.payload().is_none(),
    }
}

/// Headers as a JSON object, sorted by name; a value that is not text is base64. Headers
/// of the same name are a list, in their order.
fn headers_as_json(headers: &BorrowedHeaders) -> String {
    let mut headers: Vec<_> = headers.iter().collect();
    headers.sort_by_key(|header| header.key);
    let mut json = vec![b'{'];
    for (index, same) in headers
        .chunk_by(|one, next| one.key == next.key)
        .enumerate()
    {
        if index > 0 {
            json.push(b',');
        }
        write_json(&mut json, &same[0].key);
        json.push(b':');
        let values = same.iter().map(|header| header_value(header.value));
        match same {
            [_] => values.for_each(|value| write_json(&mut json, &value)),
            _ => write_json(&mut json, &values.collect::<Vec<_>>()),
        }
    }
    json.push(b'}');
    String::from_utf8(json).unwrap_or_else(|_| unreachable!("JSON is written as UTF-8"))
}

fn header_value(value: Option<&[u8]>) -> Option<Cow<'_, str>> {
    let value = value?;
    Some(match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => BASE64_STANDARD.encode(value).into(),
    })
}
