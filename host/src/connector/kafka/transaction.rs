//! Commits by a Kafka transaction: the rows of all Kafka sinks of a pipeline, the
//! offsets of its Kafka sources, and the checkpoint's number become visible
//! together, or never.
//!
//! The number is a record in a compacted topic, with the pipeline's name as key. It
//! is part of the transaction, so the last one that can be read is the last
//! committed checkpoint.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::producer::{DEFAULTS, Patience, Producer, REQUIRED, SendFailure, TransactionProducer};
use super::source::KafkaSource;
use super::subscription::Subscription;
use super::{ClientLog, KafkaConnection, cause, fault_of, is_final, settings};
use crate::blame::Fault;
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::{Manifest, ProgressManifest};
use crate::checkpoint::snapshot::SourceSnapshot;
use crate::checkpoint::transaction::{Participant, TransactionError};
use crate::element::CheckpointId;
use crate::offload::blocking;
use crate::sink::CommitContext;
use crate::stop::Stop;

/// The topic with the numbers of committed checkpoints.
pub const PROGRESS_TOPIC: &str = "__sluicebox-progress";

/// How long one step may take; after that its outcome is unknown.
const STEP_MAX: Duration = Duration::from_secs(60);

/// How long one try to open a transaction takes, before its error is checked.
const OPEN_TRY_MAX: Duration = Duration::from_secs(1);

/// How long it may take to abort the transaction of the run before.
const RESUME_MAX: Duration = Duration::from_secs(10);

/// How long one request about topics and offsets may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// When a broker aborts a transaction whose producer is silent: at least, and at
/// most, which is what brokers allow by default.
const TIMEOUT_MS: (u64, u64) = (60_000, 900_000);

/// How long messages wait for others of their batch. They are not visible before
/// the commit anyway, and the commit does not wait for this.
const LINGER: (&str, &str) = ("linger.ms", "10");

pub struct KafkaTransaction {
    pipeline: String,
    connection: KafkaConnection,
    timeout_ms: u64,
    /// Sources whose offsets are committed, too.
    sources: Vec<CommittedSource>,
    open: Mutex<Option<Arc<OpenTransaction>>>,
}

struct CommittedSource {
    node: String,
    group: String,
}

/// A producer that has fenced any earlier one.
struct OpenTransaction {
    producer: Arc<Producer>,
    /// One for each source, in their order.
    groups: Vec<ConsumerGroupMetadata>,
    /// Locked while it commits.
    committed: Mutex<LastCommit>,
}

enum LastCommit {
    /// A commit has begun, and it is not known whether it has ended well.
    Unknown,
    Known(Option<CheckpointId>),
}

/// A record of the topic of committed checkpoints.
#[derive(Serialize, Deserialize)]
struct Progress {
    checkpoint: CheckpointId,
}

impl KafkaTransaction {
    /// The transaction of a pipeline whose Kafka sinks all have this connection.
    pub fn new(connection: &KafkaConnection, pipeline: &CommitContext<'_>) -> Self {
        let sources = pipeline.sources.iter().filter_map(|(node, source)| {
            let source: &dyn Any = *source;
            let subscription = &source.downcast_ref::<KafkaSource>()?.subscription;
            has_same_brokers(subscription, connection).then(|| CommittedSource {
                node: (*node).to_owned(),
                group: subscription.group.clone(),
            })
        });
        let timeout_ms = pipeline.checkpoint_interval_ms.saturating_mul(10);
        let (least_ms, most_ms) = TIMEOUT_MS;
        KafkaTransaction {
            pipeline: pipeline.name.to_owned(),
            timeout_ms: timeout_ms.clamp(least_ms, most_ms),
            sources: sources.collect(),
            connection: connection.clone(),
            open: Mutex::new(None),
        }
    }

    /// The producer whose messages are in the transaction.
    pub(crate) fn producer(&self) -> Result<Arc<Producer>, TransactionError> {
        Ok(self.current()?.producer.clone())
    }

    fn current(&self) -> Result<Arc<OpenTransaction>, TransactionError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| TransactionError {
            what: format!("pipeline `{}`: the transaction is not open", self.pipeline),
            cause: "no earlier run was fenced, which is a bug in Sluicebox".to_owned(),
            fault: Fault::BUG,
        })
    }

    fn who(&self) -> String {
        format!("pipeline `{}`", self.pipeline)
    }

    fn transactional_id(&self) -> String {
        format!("sluicebox-{}", self.pipeline)
    }

    fn error(&self, step: &str, cause: String, fault: Fault) -> TransactionError {
        TransactionError {
            what: format!(
                "pipeline `{}`: {step} on {}",
                self.pipeline, self.connection.brokers
            ),
            cause,
            fault,
        }
    }

    fn kafka_error(&self, step: &str, error: &KafkaError) -> TransactionError {
        let code = error.rdkafka_error_code();
        self.error(step, explain(code, cause(error)), fault_of(code))
    }

    fn failed(&self, step: &str, failure: SendFailure) -> TransactionError {
        let cause = match &failure.topic {
            Some(topic) => format!("topic `{topic}`: {}", failure.cause),
            None => failure.cause,
        };
        self.error(step, explain(failure.code, cause), fault_of(failure.code))
    }

    /// Repeats a call while its error is retriable, within the time of one step.
    /// Each try gets a part of that time, so that a refusal is noticed early.
    fn retry(
        &self,
        step: &str,
        producer: &Producer,
        try_max: Duration,
        work: impl Fn(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        let until = Instant::now() + STEP_MAX;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match blocking(|| work(left.min(try_max))) {
                Ok(()) => return Ok(()),
                // librdkafka resumes the same call; it does not start another one.
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !left.is_zero() => {
                    let checked = producer.check();
                    checked.map_err(|failure| self.failed(step, failure))?;
                    if error.code() == RDKafkaErrorCode::OperationTimedOut {
                        continue;
                    }
                    tracing::warn!("{}: {step}: {}; trying again", self.who(), error.string());
                    blocking(|| std::thread::sleep(Duration::from_millis(100)));
                }
                Err(error) => {
                    let code = error.rdkafka_error_code();
                    let cause = explain(code, producer.explain_error(&error));
                    return Err(self.error(step, cause, fault_of(code)));
                }
            }
        }
    }

    /// Goes on with the producer of this process's run before, whose open transaction is
    /// aborted: no other run can have one. `None` if that is not possible, or if it is
    /// not known what was committed.
    fn resume(&self) -> Option<Option<CheckpointId>> {
        let open = self.current().ok()?;
        let committed = open.committed.lock().ok()?;
        let LastCommit::Known(committed) = *committed else {
            return None;
        };
        let producer = &open.producer;
        producer.check().ok()?;
        blocking(|| producer.inner().abort_transaction(RESUME_MAX)).ok()?;
        producer.forget_dropped().ok()?;
        Some(committed)
    }

    fn new_producer(&self) -> Result<Producer, TransactionError> {
        let step = "cannot open the transaction";
        let id = self.transactional_id();
        let timeout_ms = self.timeout_ms.to_string();
        let mut defaults = DEFAULTS.to_vec();
        defaults.push(LINGER);
        defaults.push(("transaction.timeout.ms", &timeout_ms));
        let mut required = REQUIRED.to_vec();
        required.push(("transactional.id", &id));
        let settings = settings(&self.connection, &defaults, &required);
        Producer::new(&self.who(), &settings).map_err(|error| self.kafka_error(step, &error))
    }

    /// Settings of a consumer.
    fn consumer_settings(&self, group: &str, is_committed: bool) -> ClientConfig {
        let isolation = match is_committed {
            true => "read_committed",
            false => "read_uncommitted",
        };
        let required = [
            ("group.id", group),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
        ];
        let mut connection = self.connection.clone();
        // The others are a producer's properties, which a consumer does not know.
        connection.properties.retain(|(name, _)| is_shared(name));
        settings(&connection, &[], &required)
    }

    fn consumer(&self, group: &str, is_committed: bool) -> Result<Reading, TransactionError> {
        let step = "cannot read the last committed checkpoint";
        self.consumer_settings(group, is_committed)
            .create_with_context(ClientLog::new(self.who()))
            .map_err(|error| self.kafka_error(step, &error))
    }

    /// The last committed checkpoint. Any earlier run must have been fenced.
    fn last_committed(&self) -> Result<Option<CheckpointId>, TransactionError> {
        let step = "cannot read the last committed checkpoint";
        let wrong = |error: KafkaError| self.kafka_error(step, &error);
        let group = self.transactional_id();
        let all = self.consumer(&group, false)?;
        let committed = self.consumer(&group, true)?;
        self.create_progress_topic(&all)?;
        let ready_by = Instant::now() + ANSWER_MAX;
        let end = |consumer: &Reading| {
            loop {
                match consumer.fetch_watermarks(PROGRESS_TOPIC, 0, ANSWER_MAX) {
                    Ok((_, end)) => return Ok(end),
                    // A new topic takes a moment before it can be read.
                    Err(_) if Instant::now() < ready_by => {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    Err(error) => return Err(wrong(error)),
                }
            }
        };
        // A commit of this pipeline cannot be read while another pipeline's
        // transaction before it is still open.
        let written = end(&all)?;
        let until = Instant::now() + Duration::from_millis(TIMEOUT_MS.1) + STEP_MAX;
        let mut has_warned = false;
        while end(&committed)? < written {
            if Instant::now() > until {
                let cause = format!(
                    "a transaction of another pipeline in the topic {PROGRESS_TOPIC} does not end"
                );
                return Err(self.error(step, cause, Fault::OUTSIDE));
            }
            if !std::mem::replace(&mut has_warned, true) {
                tracing::warn!(
                    "{}: waiting until another pipeline's transaction has ended",
                    self.who()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let mut assignment = TopicPartitionList::new();
        let assigned = assignment.add_partition_offset(PROGRESS_TOPIC, 0, Offset::Beginning);
        assigned.map_err(wrong)?;
        committed.assign(&assignment).map_err(wrong)?;
        let mut last = None;
        let until = Instant::now() + STEP_MAX;
        loop {
            match committed.poll(Duration::from_millis(200)) {
                Some(Ok(message)) if message.key() == Some(self.pipeline.as_bytes()) => {
                    last = message
                        .payload()
                        .map(|payload| self.read(payload))
                        .transpose()?;
                }
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                Some(Err(error)) if is_final(&error) => return Err(wrong(error)),
                Some(Err(_)) | None if Instant::now() > until => {
                    let cause = format!("reading the topic {PROGRESS_TOPIC} takes too long");
                    return Err(self.error(step, cause, Fault::OUTSIDE));
                }
                Some(Err(_)) | None => {}
            }
        }
    }

    fn read(&self, payload: &[u8]) -> Result<CheckpointId, TransactionError> {
        let progress: Result<Progress, _> = serde_json::from_slice(payload);
        progress
            .map(|progress| progress.checkpoint)
            .map_err(|error| {
                let text = String::from_utf8_lossy(payload);
                let cause = format!("the topic {PROGRESS_TOPIC} says `{text}`: {error}");
                self.error(
                    "cannot read the last committed checkpoint",
                    cause,
                    Fault::OUTSIDE_LASTING,
                )
            })
    }

    fn create_progress_topic(&self, consumer: &Reading) -> Result<(), TransactionError> {
        let step = format!("cannot create the topic {PROGRESS_TOPIC}");
        let wrong = |error: KafkaError| self.kafka_error(&step, &error);
        match consumer.fetch_metadata(Some(PROGRESS_TOPIC), ANSWER_MAX) {
            Ok(metadata) => {
                let found = metadata.topics().iter();
                let mut found = found.filter(|topic| topic.error().is_none());
                if found.any(|topic| !topic.partitions().is_empty()) {
                    return Ok(());
                }
            }
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopic) => {}
            Err(error) => return Err(wrong(error)),
        }
        let admin = self.consumer_settings(&self.transactional_id(), true);
        let admin: AdminClient<_> = admin.create().map_err(wrong)?;
        let topic = NewTopic::new(PROGRESS_TOPIC, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact");
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
        let created = wait_for(admin.create_topics(&[topic], &options))
            .map_err(|error| self.error(&step, error.to_string(), Fault::OUTSIDE))?
            .map_err(wrong)?;
        for created in created {
            match created {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(wrong(KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    /// The offsets of a source, which the transaction commits for monitoring tools.
    fn offsets(&self, source: &CommittedSource, manifest: &Manifest) -> Option<TopicPartitionList> {
        let node = manifest
            .nodes
            .iter()
            .find(|node| node.name() == source.node)?;
        let ProgressManifest::Source(tasks) = &node.progress else {
            return None;
        };
        let mut offsets = TopicPartitionList::new();
        for (topic, number, offset) in tasks.iter().flat_map(positions) {
            let mut element = offsets.add_partition(&topic, number);
            // Neither has a zero byte or is too large, so both succeed.
            let set = element.set_offset(Offset::Offset(offset));
            element.set_metadata(format!("checkpoint {}", manifest.id));
            set.ok()?;
        }
        (offsets.count() > 0).then_some(offsets)
    }
}

type Reading = BaseConsumer<ClientLog>;

impl Participant for KafkaTransaction {
    fn name(&self) -> &str {
        "kafka"
    }

    fn fence(&self, stop: &Stop) -> Result<Option<CheckpointId>, TransactionError> {
        if let Some(last) = self.resume() {
            return Ok(last);
        }
        let producer = Arc::new(self.new_producer()?);
        // Drop the previous producer, with the messages that it has not sent.
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let step = "cannot open the transaction";
        self.retry(step, &producer, OPEN_TRY_MAX, |time_max| {
            match stop.asked() {
                true => Err(KafkaError::Canceled),
                false => producer.inner().init_transactions(time_max),
            }
        })?;
        let mut groups = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            let consumer = self.consumer(&source.group, true)?;
            groups.extend(consumer.group_metadata());
        }
        let last = blocking(|| self.last_committed())?;
        let open = Arc::new(OpenTransaction {
            producer,
            groups,
            committed: Mutex::new(LastCommit::Known(last)),
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(last)
    }

    fn begin(&self) -> Result<(), TransactionError> {
        let open = self.current()?;
        let begun = open.producer.inner().begin_transaction();
        begun.map_err(|error| self.kafka_error("cannot begin a transaction", &error))
    }

    fn prepare(&self, _: CheckpointId) -> Result<(), TransactionError> {
        let open = self.current()?;
        let flushed = open.producer.flush(STEP_MAX, &mut Patience::default());
        flushed.map_err(|failure| self.failed("cannot send rows", failure))
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let open = self.current()?;
        let producer = &open.producer;
        let mut committed = open
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *committed = LastCommit::Unknown;
        crash::point(Place::OffsetsBefore);
        for (source, group) in self.sources.iter().zip(&open.groups) {
            let Some(offsets) = self.offsets(source, manifest) else {
                continue;
            };
            let step = "cannot commit the sources' offsets";
            self.retry(step, producer, STEP_MAX, |time_max| {
                producer
                    .inner()
                    .send_offsets_to_transaction(&offsets, group, time_max)
            })?;
        }
        crash::point(Place::OffsetsAfter);
        let step = "cannot commit the transaction";
        let progress = Progress {
            checkpoint: manifest.id,
        };
        let progress = serde_json::to_vec(&progress)
            .map_err(|error| self.error(step, error.to_string(), Fault::BUG))?;
        producer
            .send(
                PROGRESS_TOPIC,
                Some(self.pipeline.as_bytes()),
                Some(&progress),
                None,
                &mut Patience::default(),
            )
            .and_then(|()| producer.flush(STEP_MAX, &mut Patience::default()))
            .map_err(|failure| self.failed(step, failure))?;
        crash::point(Place::CommitBefore);
        self.retry(step, producer, STEP_MAX, |time_max| {
            producer.inner().commit_transaction(time_max)
        })?;
        *committed = LastCommit::Known(Some(manifest.id));
        crash::point(Place::CommitAfter);
        Ok(())
    }

    fn commits_positions_of(&self, source: &str) -> bool {
        self.sources.iter().any(|it| it.node == source)
    }

    /// Does nothing, since the fence has aborted the open transaction.
    fn abort(&self) -> Result<(), TransactionError> {
        Ok(())
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        let producer = move || self.producer().map_err(|error| error.to_string());
        Arc::new(TransactionProducer::new(producer))
    }
}

/// Whether a source's offsets can go into a transaction on these brokers.
fn has_same_brokers(source: &Subscription, connection: &KafkaConnection) -> bool {
    source.connection.brokers == connection.brokers
}

/// Whether a consumer needs this property of a producer: how to reach brokers.
fn is_shared(property: &str) -> bool {
    [
        "security.",
        "ssl.",
        "sasl.",
        "socket.",
        "broker.",
        "client.",
        "enable.ssl.",
    ]
    .iter()
    .any(|shared| property.starts_with(shared))
}

fn positions(task: &SourceSnapshot) -> impl Iterator<Item = (String, i32, i64)> {
    task.partitions.iter().filter_map(|partition| {
        let (topic, number) = partition.name.rsplit_once('/')?;
        let offset = i64::try_from(partition.position.offset).ok()?;
        Some((topic.to_owned(), number.parse().ok()?, offset))
    })
}

fn explain(code: Option<RDKafkaErrorCode>, cause: String) -> String {
    match code {
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch,
        ) => format!(
            "another host runs this pipeline and has taken over, or brokers have given the \
             transaction up after `transaction.timeout.ms` ({cause})"
        ),
        _ => cause,
    }
}

/// Waits for a future of the admin client.
fn wait_for<T: Send>(future: impl Future<Output = T> + Send) -> std::io::Result<T> {
    // On another thread, since a runtime cannot be entered within another one.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            Ok(runtime.block_on(future))
        });
        let waited = waiting.join();
        waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
