//! Asks brokers for the ids of topics: a topic that was deleted and created
//! again has the same name, but another id.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_name,
    rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id,
    rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits,
    rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
    rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaAdminOp;

use super::super::ClientLog;

/// The ids of topics by their names. Absent are those that this user may not
/// know, and all of brokers that give none (before Kafka 2.8).
pub(super) fn topic_ids(
    consumer: &BaseConsumer<ClientLog>,
    topics: &[String],
    answer_max: Duration,
) -> Result<HashMap<String, String>, KafkaError> {
    let names: Result<Vec<CString>, _> = topics.iter().map(|name| CString::new(&**name)).collect();
    let names = names.map_err(KafkaError::Nul)?;
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let wait_ms = answer_max.as_millis().try_into().unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as its consumer, and what is made here
    // until the end of this block. A result belongs to its event.
    unsafe {
        let queue = Owned(rd_kafka_queue_new(client), rd_kafka_queue_destroy);
        let options = Owned(
            rd_kafka_AdminOptions_new(client, RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            rd_kafka_AdminOptions_destroy,
        );
        rd_kafka_AdminOptions_set_request_timeout(options.0, wait_ms, ptr::null_mut(), 0);
        let collection = Owned(
            rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd_kafka_TopicCollection_destroy,
        );
        rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        let event = Owned(
            rd_kafka_queue_poll(queue.0, wait_ms),
            rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        let code = RDKafkaErrorCode::from(rd_kafka_event_error(event.0));
        if code != RDKafkaErrorCode::NoError {
            return Err(KafkaError::AdminOp(code));
        }
        let result = rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let first = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count)
            .filter_map(|topic| id_of(*first.add(topic)))
            .collect())
    }
}

/// A topic's name and id, as hexadecimal digits.
///
/// # Safety
/// `topic` belongs to a result that lives.
unsafe fn id_of(topic: *const rd_kafka_TopicDescription_t) -> Option<(String, String)> {
    // SAFETY: name and id belong to the topic; the name ends with a zero.
    let (name, high, low) = unsafe {
        let id = rd_kafka_TopicDescription_topic_id(topic);
        (
            CStr::from_ptr(rd_kafka_TopicDescription_name(topic)),
            rd_kafka_Uuid_most_significant_bits(id),
            rd_kafka_Uuid_least_significant_bits(id),
        )
    };
    let has_id = (high, low) != (0, 0);
    has_id.then(|| {
        (
            name.to_string_lossy().into_owned(),
            format!("{high:016x}{low:016x}"),
        )
    })
}

/// Something of librdkafka's, and what destroys it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was made for this owner, and is destroyed once.
            unsafe { (self.1)(self.0) };
        }
    }
}
