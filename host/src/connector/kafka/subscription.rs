//! What a source reads of Kafka: which topics and partitions, from which
//! offsets, and what of a message becomes a column.

use super::KafkaConnection;
use crate::format::RowFormat;
use crate::schema::DataType;
use crate::source::SourceContext;

/// Which messages are read, and as which columns.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub connection: KafkaConnection,
    pub topics: Vec<String>,
    /// Of each topic; `None` for all, those added later too.
    pub partitions: Option<Vec<i32>>,
    /// The consumer group that offsets are committed to.
    pub group: String,
    pub start: KafkaStart,
    /// Whether the input ends where each partition ended when it was opened.
    pub is_bounded: bool,
    /// How often new partitions are looked for.
    pub discover_every_ms: u64,
    pub format: RowFormat,
    /// The columns after those of the payload.
    pub metadata: Vec<KafkaColumn>,
}

/// Where to start in a partition that no checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    Earliest,
    Latest,
    /// Where the group has committed, or else at the beginning.
    Committed,
    /// At the first message of this time or later, in ms.
    At(i64),
}

/// A part of a message, other than its payload, that is a column.
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
    /// Whether partitions of this number are read.
    pub fn has(&self, number: i32) -> bool {
        let wanted = self.partitions.as_ref();
        wanted.is_none_or(|numbers| numbers.contains(&number))
    }

    /// Whether this task reads a partition. The answer never changes during a
    /// run.
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

    /// A message may have no key.
    pub fn is_nullable(self) -> bool {
        matches!(self, KafkaColumn::Key | KafkaColumn::KeyBytes)
    }
}
