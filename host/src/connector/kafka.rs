//! Kafka: topics are read and written, within transactions too. Here is what
//! source, sink and transaction share: how a client is set up, and what becomes
//! of what it says.

/// Topics that are being read.
mod input;
/// Messages on their way.
pub mod producer;
/// The keys that source and sink share.
mod keys;
/// Rows written to a topic.
pub mod sink;
/// What is read of topics, as the pipeline file says it.
pub mod source;
/// What is read of Kafka.
pub mod subscription;

use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::blame::Fault;

/// How brokers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConnection {
    /// Addresses, with commas between them.
    pub brokers: String,
    /// Of librdkafka, as in the config.
    pub properties: Vec<(String, String)>,
}

/// The settings of a client: `defaults` give way to the config's properties,
/// and these to `ours`.
pub fn settings(
    connection: &KafkaConnection,
    defaults: &[(&str, &str)],
    ours: &[(&str, &str)],
) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", "sluicebox")
        // A broker that was away is looked for soon.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    for (name, value) in defaults {
        settings.set(*name, *value);
    }
    for (name, value) in &connection.properties {
        settings.set(name, value);
    }
    for (name, value) in ours {
        settings.set(*name, *value);
    }
    settings.set("bootstrap.servers", &connection.brokers);
    settings.set_log_level(
        if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Warning
        },
    );
    settings
}

/// Passes on to the log what a client says of itself.
pub struct ClientLog {
    /// Whose client it is, for messages: "source `clicks`".
    pub who: String,
    /// What it last complained about, which says more than an error's code.
    complaint: Mutex<Option<String>>,
}

impl ClientLog {
    pub fn new(who: impl Into<String>) -> Self {
        ClientLog {
            who: who.into(),
            complaint: Mutex::new(None),
        }
    }

    /// An error with what librdkafka said along with it.
    pub fn explain(&self, error: &KafkaError) -> String {
        let said = self.complaint.lock();
        let said = said.unwrap_or_else(PoisonError::into_inner).take();
        match said {
            Some(said) => format!("{} ({said})", cause(error)),
            None => cause(error),
        }
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let who = &self.who;
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "librdkafka", "{who}: {facility}: {message}");
            }
            // It comes as an error too, if it is one.
            _ => tracing::info!(target: "librdkafka", "{who}: {facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // A place in a partition, and nothing wrong.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!("{}: {reason}", self.who);
        let mut complaint = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *complaint = Some(reason.to_owned());
    }
}

impl ConsumerContext for ClientLog {}

/// What went wrong, without what it went wrong with, which the caller says.
pub fn cause(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        KafkaError::ClientConfig(_, problem, name, value) => {
            format!("property `{name}` = `{value}`: {problem}")
        }
        KafkaError::ClientCreation(problem) => problem.clone(),
        error => match error.rdkafka_error_code() {
            Some(code) => words(code),
            None => error.to_string(),
        },
    }
}

/// What a code says in words, without its name.
fn words(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    let words = text
        .split_once(" (")
        .and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&text).to_owned()
}

/// Whose an error is, by its code. A topic may appear, and a producer that was
/// fenced is made anew by the next attempt.
pub fn fault_of(code: Option<RDKafkaErrorCode>) -> Fault {
    match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Fault::ROW
        }
        Some(
            RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::LogTruncation
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidGroupId
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedFeature,
        ) => Fault::OUTSIDE_LASTING,
        _ => Fault::OUTSIDE,
    }
}

/// Whether this client need not try again: brokers were reached and said no.
/// Everything else may pass, as librdkafka itself goes on trying.
pub fn is_final(error: &KafkaError) -> bool {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return true;
    }
    let code = error.rdkafka_error_code();
    let of_client = matches!(
        code,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::Fatal
        )
    );
    of_client || fault_of(code) == Fault::OUTSIDE_LASTING
}
