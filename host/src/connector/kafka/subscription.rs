//! What a source reads of Kafka: which topics and partitions, from which
//! offsets, and what of a message becomes a column.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;

use super::KafkaConnection;
use super::registry::RegistryConnection;
use crate::dead_letter::DeadLetter;
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
    /// Where the schemas are that rows name.
    pub registry: Option<RegistryConnection>,
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
    /// What a dead letter of a message tells of it, as JSON. The error says why it does not.
    pub fn told_by(self, letter: &DeadLetter) -> Result<Json, String> {
        let partition = || letter.partition.as_deref()?.rsplit_once('/');
        let told = match self {
            KafkaColumn::Key if letter.key_base64.is_some() => {
                return Err("the message's key is not UTF-8".to_owned());
            }
            // A message may have none.
            KafkaColumn::Key => return Ok(letter.key.clone().into()),
            KafkaColumn::KeyBytes => {
                let text = letter.key.as_ref();
                let text = text.map(|key| BASE64_STANDARD.encode(key));
                return Ok(letter.key_base64.clone().or(text).into());
            }
            KafkaColumn::Headers => Some(
                letter
                    .headers
                    .clone()
                    .unwrap_or_else(|| "{}".to_owned())
                    .into(),
            ),
            KafkaColumn::Timestamp => letter.message_time.clone().map(Json::from),
            KafkaColumn::Topic => partition().map(|(topic, _)| topic.into()),
            KafkaColumn::Partition => partition()
                .and_then(|(_, number)| number.parse::<i32>().ok())
                .map(Json::from),
            KafkaColumn::Offset => letter.offset.map(Json::from),
        };
        told.ok_or_else(|| "the letter does not tell it".to_owned())
    }

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dead_letter_tells_what_its_message_had() {
        let letter = DeadLetter {
            partition: Some("a/b/3".to_owned()),
            offset: Some(7),
            key: Some("k".to_owned()),
            message_time: Some("2024-01-01T10:00:00Z".to_owned()),
            ..DeadLetter::default()
        };
        let told = |column: KafkaColumn, letter: &DeadLetter| column.told_by(letter);
        for (column, value) in [
            (KafkaColumn::Key, json!("k")),
            (KafkaColumn::KeyBytes, json!("aw==")),
            (KafkaColumn::Headers, json!("{}")),
            (KafkaColumn::Timestamp, json!("2024-01-01T10:00:00Z")),
            (KafkaColumn::Topic, json!("a/b")),
            (KafkaColumn::Partition, json!(3)),
            (KafkaColumn::Offset, json!(7)),
        ] {
            assert_eq!(told(column, &letter), Ok(value), "{column:?}");
        }
        let bytes = DeadLetter {
            key_base64: Some("/w==".to_owned()),
            ..DeadLetter::default()
        };
        assert_eq!(told(KafkaColumn::KeyBytes, &bytes), Ok(json!("/w==")));
        for column in [
            KafkaColumn::Key,
            KafkaColumn::Timestamp,
            KafkaColumn::Partition,
            KafkaColumn::Offset,
        ] {
            assert!(told(column, &bytes).is_err(), "{column:?}");
        }
        let none = DeadLetter::default();
        assert_eq!(told(KafkaColumn::Key, &none), Ok(Json::Null));
        assert_eq!(told(KafkaColumn::KeyBytes, &none), Ok(Json::Null));
    }
}
