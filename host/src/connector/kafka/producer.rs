//! Sends messages, and reports only those that fail, so that a message that
//! arrives costs nothing more. A failure is returned by the next call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaRespErr;

use super::{ClientLog, cause};
use crate::offload::blocking;
use crate::stop::Stop;

/// How long to wait when the queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// Required of every producer; see [`super::settings`].
pub const REQUIRED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("delivery.report.only.error", "true"),
];

/// Overridden by the config's properties.
pub const DEFAULTS: &[(&str, &str)] = &[
    // How many messages may wait; a sink blocks when there are more.
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "131072"),
    ("batch.num.messages", "100000"),
    // A missing topic is an error soon; the default is 30 s. Brokers that create
    // topics take less than a second.
    ("topic.metadata.propagation.max.ms", "2000"),
];

pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
}

/// Why a message could not be sent.
#[derive(Clone, Debug)]
pub struct SendFailure {
    pub topic: Option<String>,
    pub code: Option<RDKafkaErrorCode>,
    pub cause: String,
    /// Whether the client does not take this message, and would take others.
    pub is_of_message: bool,
}

/// How long a run that was asked to stop waits for brokers.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// For how long a sink waits for brokers: as long as they may take, but only for a while
/// once its run was asked to stop.
#[derive(Default)]
pub struct Patience {
    stop: Stop,
    /// When it was seen that the run was asked to stop.
    since: Option<Instant>,
}

impl Patience {
    pub fn of(stop: &Stop) -> Self {
        Patience {
            stop: stop.clone(),
            since: None,
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.stop.asked() {
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() > STOP_WAIT
    }
}

/// Receives delivery reports.
pub struct Deliveries {
    log: ClientLog,
    first: Mutex<Option<SendFailure>>,
    /// Whether a message has arrived.
    has_delivered: AtomicBool,
}

/// Gives sinks the producer of the pipeline's transaction. Each attempt of the
/// run has a new one.
pub struct TransactionProducer {
    current: Box<CurrentProducer>,
}

/// Returns the producer whose transaction is open, or why there is none.
type CurrentProducer = dyn Fn() -> Result<Arc<Producer>, String> + Send + Sync;

impl TransactionProducer {
    pub fn new(
        current: impl Fn() -> Result<Arc<Producer>, String> + Send + Sync + 'static,
    ) -> Self {
        TransactionProducer {
            current: Box::new(current),
        }
    }

    pub fn current(&self) -> Result<Arc<Producer>, String> {
        (self.current)()
    }
}

impl Producer {
    pub fn new(who: &str, settings: &ClientConfig) -> Result<Self, KafkaError> {
        let deliveries = Deliveries {
            log: ClientLog::new(who),
            first: Mutex::new(None),
            has_delivered: AtomicBool::new(false),
        };
        Ok(Producer {
            inner: settings.create_with_context(deliveries)?,
        })
    }

    /// Queues a message; waits while the queue is full. Without a payload, it deletes its key
    /// from a compacted topic.
    pub fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
        patience: &mut Patience,
    ) -> Result<(), SendFailure> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        record.payload = payload;
        record.key = key;
        record.headers = headers;
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((error, refused)) => {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(self.failure_of(topic, &error));
                    }
                    self.check()?;
                    if patience.is_over() {
                        return Err(self.not_arrived(RDKafkaErrorCode::QueueFull, STOP_WAIT));
                    }
                    record = refused;
                    wait(FULL_QUEUE_PAUSE);
                }
            }
        }
    }

    /// Returns the first failure so far.
    pub fn check(&self) -> Result<(), SendFailure> {
        let first = &self.inner.client().context().first;
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Whether a message has arrived.
    pub fn has_delivered(&self) -> bool {
        let deliveries = self.inner.client().context();
        deliveries.has_delivered.load(Ordering::Relaxed)
    }

    /// Forgets that messages could not be sent which an aborted transaction has dropped.
    /// Fails if the producer cannot be used any more.
    pub fn forget_dropped(&self) -> Result<(), SendFailure> {
        if let Some((code, cause)) = self.client().fatal_error() {
            return Err(SendFailure {
                topic: None,
                code: Some(code),
                cause,
                is_of_message: false,
            });
        }
        let first = &self.client().context().first;
        *first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// The error, with the reason that librdkafka gave for it.
    pub fn explain_error(&self, error: &KafkaError) -> String {
        self.client().context().log.explain(error)
    }

    /// Waits until every message has arrived.
    pub fn flush(&self, time_max: Duration, patience: &mut Patience) -> Result<(), SendFailure> {
        let until = Instant::now() + time_max;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            // In slices, so that a failure is noticed early.
            let slice_ms = left.as_millis().min(500) as i32;
            // `Producer::flush` of the crate sleeps even when messages arrive.
            // SAFETY: the pointer is the producer's own, which outlives the call.
            let flushed = blocking(|| unsafe {
                bindings::rd_kafka_flush(self.inner.client().native_ptr(), slice_ms)
            });
            match flushed {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => return self.check(),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT if !left.is_zero() => {
                    if patience.is_over() {
                        let code = RDKafkaErrorCode::from(flushed);
                        return Err(self.not_arrived(code, STOP_WAIT));
                    }
                }
                error => {
                    return Err(self.not_arrived(RDKafkaErrorCode::from(error), time_max));
                }
            }
        }
    }

    fn not_arrived(&self, code: RDKafkaErrorCode, after: Duration) -> SendFailure {
        SendFailure {
            topic: None,
            code: Some(code),
            cause: format!(
                "{} messages have not arrived after {after:?}",
                self.inner.in_flight_count()
            ),
            is_of_message: false,
        }
    }

    /// The crate's producer, for transactions.
    pub fn inner(&self) -> &ThreadedProducer<Deliveries> {
        &self.inner
    }

    pub fn client(&self) -> &Client<Deliveries> {
        self.inner.client()
    }

    fn failure_of(&self, topic: &str, error: &KafkaError) -> SendFailure {
        // Once a producer has failed for good, its fatal error says more.
        let fatal = self.client().fatal_error();
        match fatal {
            Some((code, cause)) => SendFailure {
                topic: Some(topic.to_owned()),
                code: Some(code),
                cause,
                is_of_message: false,
            },
            None => SendFailure {
                topic: Some(topic.to_owned()),
                code: error.rdkafka_error_code(),
                cause: cause(error),
                is_of_message: error.rdkafka_error_code()
                    == Some(RDKafkaErrorCode::MessageSizeTooLarge),
            },
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(
            code @ (RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL),
        ) = error.rdkafka_error_code()
        {
            self.fail(SendFailure {
                topic: None,
                code: Some(code),
                cause: reason.to_owned(),
                is_of_message: false,
            });
        }
        self.log.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.has_delivered.store(true, Ordering::Relaxed),
            Err((error, message)) => self.fail(SendFailure {
                topic: Some(message.topic().to_owned()),
                code: error.rdkafka_error_code(),
                cause: self.log.explain(error),
                is_of_message: false,
            }),
        }
    }
}

impl Deliveries {
    fn fail(&self, failure: SendFailure) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    }
}

/// Blocks this thread without holding up other tasks.
fn wait(time: Duration) {
    blocking(|| std::thread::sleep(time));
}
