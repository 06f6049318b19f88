//! What is read of Kafka: which topics and partitions, from where, and what of
//! a message becomes a column.

use super::KafkaConnection;
use crate::format::RowFormat;
use crate::schema::DataType;
use crate::source::SourceContext;

/// Topics, and what of them is read.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub connection: KafkaConnection,
    pub topics: Vec<String>,
    /// Of each topic; all, also those that are still to come, when absent.
    pub partitions: Option<Vec<i32>>,
    /// The name that offsets are committed under.
    pub group: String,
    pub start: KafkaStart,
    /// The input ends where each partition ended when it was opened.
    pub is_bounded: bool,
    /// How often new partitions are looked for.
    pub discover_every_ms: u64,
    pub format: RowFormat,
    /// The columns behind those of the format.
    pub metadata: Vec<KafkaColumn>,
}

/// Where a partition is read from of which no checkpoint says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    Earliest,
    Latest,
    /// Where the group has committed, or else at the earliest.
    Committed,
    /// At the first message of this time, in ms, or later.
    At(i64),
}

/// What of a message, beside its payload, is a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaColumn {
    /// As text.
    Key,
    KeyBytes,
    /// As a JSON object of texts.
    Headers,
    Timestamp,
    Topic,
    Partition,
    Offset,
}

impl Subscription {
    /// Whether a task reads a partition, which depends on nothing that may
    /// change while it runs.
    pub fn is_ours(&self, context: &SourceContext, topic: usize, number: i32) -> bool {
        let slot = match &self.partitions {
            Some(numbers) => match numbers.iter().position(|&known| known == number) {
                Some(slot) => slot,
                None => return false,
            },
            None => usize::try_from(number).unwrap_or(0),
        };
        context.placement.has_partition(topic + slot)
    }
}

impl KafkaColumn {
    pub fn data_type(self) -> DataType {
        match self {
            KafkaColumn::Key | KafkaColumn::Headers | KafkaColumn::Topic => DataType::Utf8,
            KafkaColumn::KeyBytes => DataType::Bytes,
            KafkaColumn::Timestamp => DataType::Timestamp,
            KafkaColumn::Partition => DataType::Int32,
            KafkaColumn::Offset => DataType::Int64,
        }
    }

    /// Messages need not have a key.
    pub fn is_nullable(self) -> bool {
        matches!(self, KafkaColumn::Key | KafkaColumn::KeyBytes)
    }
}
