//! Kafka: reads and writes topics, within transactions too. Here is what
//! source, sink and transaction share: how a client is configured, and what its
//! errors mean.

/// Reads partitions, each from its offset.
mod input;
/// Sends messages.
pub mod producer;
/// The config keys that source and sink share.
mod keys;
/// Asks a registry of schemas.
mod registry;
/// The sink `kafka`.
pub mod sink;
/// The source `kafka`.
pub mod source;
/// What a source reads: topics, partitions, where it starts.
pub mod subscription;
/// Rows and positions committed with a checkpoint.
pub mod transaction;

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::blame::Fault;

/// How brokers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConnection {
    /// Addresses, separated by commas.
    pub brokers: String,
    /// Properties of librdkafka from the config.
    pub properties: Vec<(String, String)>,
}

/// The settings of a client. The config's properties override `defaults`, and
/// `required` overrides both.
pub fn settings(
    connection: &KafkaConnection,
    defaults: &[(&str, &str)],
    required: &[(&str, &str)],
) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", "sluicebox")
        // A broker that comes back is found soon: librdkafka waits up to 10 s.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    for (name, value) in defaults {
        settings.set(*name, *value);
    }
    for (name, value) in &connection.properties {
        settings.set(name, value);
    }
    for (name, value) in required {
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

/// Writes what a client reports to the log.
pub struct ClientLog {
    /// Names the client in messages: "source `clicks`".
    pub who: String,
    last: Mutex<Option<Reported>>,
}

/// An error that librdkafka has reported.
pub struct Reported {
    pub code: Option<RDKafkaErrorCode>,
    /// Says more than the code.
    pub reason: String,
}

impl ClientLog {
    pub fn new(who: impl Into<String>) -> Self {
        ClientLog {
            who: who.into(),
            last: Mutex::new(None),
        }
    }

    /// The error, with the reason that librdkafka gave for it.
    pub fn explain(&self, error: &KafkaError) -> String {
        match self.last().take() {
            Some(Reported { reason, .. }) => format!("{} ({reason})", cause(error)),
            None => cause(error),
        }
    }

    /// Why the brokers do not let the client in, if that was its last error: it goes on trying,
    /// and what is asked for gets no answer.
    pub fn refusal(&self) -> Option<Reported> {
        self.last()
            .take_if(|last| fault_of(last.code) == Fault::OUTSIDE_LASTING)
    }

    fn last(&self) -> MutexGuard<'_, Option<Reported>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let who = &self.who;
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "librdkafka", "{who}: {facility}: {message}");
            }
            // An error is reported to `error` as well.
            _ => tracing::info!(target: "librdkafka", "{who}: {facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is reported as an error, but is none.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!("{}: {reason}", self.who);
        *self.last() = Some(Reported {
            code: error.rdkafka_error_code(),
            reason: reason.to_owned(),
        });
    }
}

impl ConsumerContext for ClientLog {}

/// The cause alone: the caller says what failed.
pub fn cause(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        KafkaError::ClientConfig(_, problem, name, value) => {
            format!("property `{name}` = `{value}`: {problem}")
        }
        KafkaError::ClientCreation(problem) => problem.clone(),
        KafkaError::AdminOp(code) => words(*code),
        error => match error.rdkafka_error_code() {
            Some(code) => words(code),
            None => error.to_string(),
        },
    }
}

/// An error code's description, without its name.
fn words(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    let words = text
        .split_once(" (")
        .and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&text).to_owned()
}

/// Who is to blame for an error, by its code, and whether it can pass. A topic that is
/// gone may come back, and a fenced producer is replaced at the next attempt.
pub fn fault_of(code: Option<RDKafkaErrorCode>) -> Fault {
    match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Fault::FATAL_ROW
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
            | RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::NotImplemented,
        ) => Fault::OUTSIDE_LASTING,
        _ => Fault::OUTSIDE,
    }
}

/// Whether this client cannot recover: the brokers were reached and refused.
/// Everything else may pass, and librdkafka itself keeps trying.
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
