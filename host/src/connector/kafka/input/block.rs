//! Collects messages of a partition, to decode them together.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::Buffer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rdkafka::Message;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers};

use super::super::subscription::{KafkaColumn, Subscription};
use crate::batch::{Envelope, Offsets};
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::json::write_json;
use crate::source::SourceContext;
use crate::source::chunk::{BadRow, Chunk, decode, keep};
use crate::source::row_ends::{ROW_BYTES_MAX, bad_row, too_long};

/// A block ends at this size, even if it has fewer rows than a batch.
const BLOCK_BYTES_MAX: usize = 8 << 20;

pub(super) struct Messages {
    /// The payloads, one after another.
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    envelopes: Vec<Envelope>,
    metadata: Vec<Metadata>,
    /// Messages that are bad before their payload is decoded.
    bad: Vec<BadRow>,
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
            data: Vec::new(),
            spans: Vec::new(),
            offsets: Vec::new(),
            envelopes: Vec::new(),
            metadata: plan.metadata.iter().copied().map(Metadata::new).collect(),
            bad: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.bad.is_empty()
    }

    pub fn has_room(&self, rows_max: usize) -> bool {
        self.spans.len() + self.bad.len() < rows_max && self.data.len() < BLOCK_BYTES_MAX
    }

    pub fn push(&mut self, message: &BorrowedMessage<'_>, offset: u64) {
        let envelope = envelope(message);
        let Some(payload) = message.payload() else {
            let error = "expected a row, found a message without a payload (a tombstone)";
            self.push_bad(bad_row(offset, error, b""), envelope);
            return;
        };
        if payload.len() > ROW_BYTES_MAX {
            self.push_bad(too_long(offset, payload), envelope);
            return;
        }
        let mut metadata = self.metadata.iter();
        if let Some(error) = metadata.find_map(|wanted| wanted.fault(message)) {
            self.push_bad(bad_row(offset, error, payload), envelope);
            return;
        }
        let start = self.data.len() as u32;
        self.data.extend_from_slice(payload);
        self.spans.push((start, self.data.len() as u32));
        self.offsets.push(offset);
        for column in &mut self.metadata {
            column.push(message, &envelope);
        }
        self.envelopes.push(envelope);
    }

    #[cold]
    fn push_bad(&mut self, mut bad: BadRow, envelope: Envelope) {
        bad.envelope = Some(envelope);
        self.bad.push(bad);
    }

    pub fn decode(
        self,
        decoder: &mut Decoder,
        context: &SourceContext,
        partition: Arc<str>,
        end: Position,
    ) -> Chunk {
        let metadata: Vec<ArrayRef> = self.metadata.into_iter().map(Metadata::finish).collect();
        let offsets = self.offsets.clone();
        let mut chunk = decode(
            decoder,
            context.node.clone(),
            partition,
            Buffer::from_vec(self.data),
            self.spans,
            Offsets::Each(self.offsets),
            end,
        );
        if chunk.bad.is_empty() {
            chunk.columns.extend(metadata);
            chunk.block.envelopes = self.envelopes;
        } else {
            let mut bad = chunk.bad.iter_mut().peekable();
            let mut good = Vec::with_capacity(offsets.len());
            for (offset, envelope) in offsets.into_iter().zip(self.envelopes) {
                let is_bad = bad.next_if(|bad| bad.offset == offset);
                good.push(is_bad.is_none());
                match is_bad {
                    Some(bad) => bad.envelope = Some(envelope),
                    None => chunk.block.envelopes.push(envelope),
                }
            }
            let good = BooleanArray::from(good);
            let metadata = metadata.iter().map(|column| keep(column, &good));
            chunk.columns.extend(metadata);
        }
        chunk.bad.extend(self.bad);
        chunk
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
