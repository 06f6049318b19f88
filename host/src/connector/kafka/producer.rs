//! Sends messages, and remembers what became of none.
//!
//! Only failures are reported back, so that a message that arrives costs
//! nothing but its way. A failure is an error of the next call.

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

/// How long a full queue is left alone before it is tried again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// Our settings of every producer; see [`super::settings`].
pub const OURS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("delivery.report.only.error", "true"),
];

/// Give way to the config's properties.
pub const DEFAULTS: &[(&str, &str)] = &[
    // What waits to be sent; behind it, sinks wait.
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "131072"),
    ("batch.num.messages", "100000"),
    // A topic that is missing is not coming.
    ("topic.metadata.propagation.max.ms", "10000"),
];

pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
}

/// Why messages could not be sent.
#[derive(Clone, Debug)]
pub struct Failure {
    pub topic: Option<String>,
    pub code: Option<RDKafkaErrorCode>,
    pub cause: String,
}

/// Hears of failures.
pub struct Deliveries {
    log: ClientLog,
    first: Mutex<Option<Failure>>,
}

/// The producer of the pipeline's transaction, for those whose rows go out in it.
/// It changes whenever the pipeline starts again.
pub struct TransactionProducer {
    current: Box<CurrentProducer>,
}

/// The producer whose transaction is open, or why there is none.
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
        };
        Ok(Producer {
            inner: settings.create_with_context(deliveries)?,
        })
    }

    /// Puts a message on its way; waits while too many are.
    pub fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: Option<OwnedHeaders>,
    ) -> Result<(), Failure> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(payload);
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
                    record = refused;
                    wait(FULL_QUEUE_PAUSE);
                }
            }
        }
    }

    /// Whether everything so far has gone well.
    pub fn check(&self) -> Result<(), Failure> {
        let first = &self.inner.client().context().first;
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// An error with what librdkafka said along with it.
    pub fn explain_error(&self, error: &KafkaError) -> String {
        self.client().context().log.explain(error)
    }

    /// Waits until every message has arrived.
    pub fn flush(&self, time_max: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time_max;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            // In pieces, so that a failure is noticed early.
            let piece_ms = left.as_millis().min(500) as i32;
            // The crate's own `flush` sleeps while messages arrive.
            // SAFETY: the pointer is the producer's own, which outlives the call.
            let flushed = blocking(|| unsafe {
                bindings::rd_kafka_flush(self.inner.client().native_ptr(), piece_ms)
            });
            match flushed {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => return self.check(),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT if !left.is_zero() => {}
                error => {
                    let code = RDKafkaErrorCode::from(error);
                    return Err(Failure {
                        topic: None,
                        code: Some(code),
                        cause: format!(
                            "{} messages have not arrived after {time_max:?}",
                            self.inner.in_flight_count()
                        ),
                    });
                }
            }
        }
    }

    /// The crate's own, for transactions.
    pub fn inner(&self) -> &ThreadedProducer<Deliveries> {
        &self.inner
    }

    pub fn client(&self) -> &Client<Deliveries> {
        self.inner.client()
    }

    fn failure_of(&self, topic: &str, error: &KafkaError) -> Failure {
        // Of what made a producer useless, a single call says little.
        let fatal = self.client().fatal_error();
        match fatal {
            Some((code, cause)) => Failure {
                topic: Some(topic.to_owned()),
                code: Some(code),
                cause,
            },
            None => Failure {
                topic: Some(topic.to_owned()),
                code: error.rdkafka_error_code(),
                cause: cause(error),
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
            self.fail(Failure {
                topic: None,
                code: Some(code),
                cause: reason.to_owned(),
            });
        }
        self.log.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.fail(Failure {
                topic: Some(message.topic().to_owned()),
                code: error.rdkafka_error_code(),
                cause: self.log.explain(error),
            });
        }
    }
}

impl Deliveries {
    fn fail(&self, failure: Failure) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    }
}

/// Sleeps without holding up other tasks.
fn wait(time: Duration) {
    blocking(|| std::thread::sleep(time));
}

/// Lets other tasks of a runtime with several threads go on meanwhile.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
