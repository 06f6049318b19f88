//! Reads topics of Kafka: each partition of a topic is a partition, and offsets
//! are Kafka's own.
//!
//! Partitions are assigned, never negotiated with the consumer group, and after
//! a restart the checkpoint says where to go on: the group's offsets are used
//! at most where a first run starts. Each partition has its own queue, which
//! librdkafka fills in advance, up to a limit, on its own threads. A block is
//! what a queue holds at one moment, so no row waits for a batch to fill.

/// Messages that are decoded together.
mod block;
/// Which partitions there are, and where to start in each.
mod discovery;
/// How many messages wait.
mod ends;
/// Whether a topic is still the same.
mod topic_ids;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::Notify;

use self::block::Messages;
use self::discovery::{Brokers, Discovery, FoundPartition};
use self::ends::Ends;
use super::registry::{Lookups, Problem, Registry};
use super::subscription::Subscription;
use super::{ClientLog, cause, fault_of, is_final, settings};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position};
use crate::decode::Decoder;
use crate::offload::blocking;
use crate::progress::Backlog;
use crate::source::chunk::Chunk;
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// Overridden by the config's properties.
const DEFAULTS: &[(&str, &str)] = &[
    // How much is fetched ahead of the reader.
    ("queued.min.messages", "100000"),
    ("queued.max.messages.kbytes", "32768"),
    // A full queue is checked again this soon; the default, one second, would
    // starve the reader.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
];

const REQUIRED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Rows that were deleted are an error, never skipped silently.
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
];

/// Every change notifies the reader; this covers a notification that got lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a closed input waits for the group to take its offsets.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(5);

pub struct KafkaInput {
    consumer: Arc<BaseConsumer<ClientLog>>,
    partitions: Vec<KafkaPartition>,
    /// Of each topic, as far as brokers, or the checkpoint, have said.
    topic_ids: Vec<Option<String>>,
    decoder: Decoder,
    /// Asks for the schemas that rows name.
    lookups: Option<Lookups>,
    /// Notified when a queue has messages, or a schema has come.
    wake: Arc<Notify>,
    discovery: Discovery,
    ends: Ends,
    /// The offsets to commit to the group next.
    to_commit: Option<TopicPartitionList>,
    /// The thread that commits offsets.
    committing: Option<JoinHandle<()>>,
    /// The reader has not been told yet which partitions there are.
    is_unreported: bool,
    plan: Arc<Subscription>,
    context: SourceContext,
}

struct KafkaPartition {
    topic: usize,
    number: i32,
    /// `topic/number`, as in dead letters.
    name: Arc<str>,
    /// The offset where this run started; `next` is that of the next row.
    first: u64,
    next: u64,
    /// The same, for whoever counts what waits.
    shared_next: Arc<AtomicU64>,
    /// Messages before `next` that wait for their schemas, and where the first of them is.
    held: Option<(Messages, u64)>,
    /// Where a bounded input ends.
    end: Option<u64>,
    /// Where the partition ended when it was found, until that has been read.
    bootstrap_end: Option<u64>,
    /// `None` until the brokers have confirmed the partition.
    queue: Option<PartitionQueue<ClientLog>>,
    has_ended: bool,
}

impl KafkaPartition {
    /// The offset of the next row to hand out.
    fn position(&self) -> u64 {
        self.held.as_ref().map_or(self.next, |(_, first)| *first)
    }
}

impl KafkaInput {
    /// Waits until the brokers have said which partitions there are, so that
    /// the starting offsets are known before the first row.
    pub async fn open(kafka: &Subscription, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&kafka.format.format)?;
        let mut required = REQUIRED.to_vec();
        required.push(("group.id", &kafka.group));
        if kafka.is_bounded || context.bootstraps {
            required.push(("enable.partition.eof", "true"));
        }
        let log = ClientLog::new(format!("source `{}`", context.node));
        let wake = Arc::new(Notify::new());
        let mut consumer: BaseConsumer<ClientLog> =
            settings(&kafka.connection, DEFAULTS, &required)
                .create_with_context(log)
                .map_err(|error| {
                    context.refuse(
                        format!("cannot read from Kafka: {}", cause(&error)),
                        Fault::CONFIG,
                    )
                })?;
        let notify = wake.clone();
        consumer.set_nonempty_callback(move || notify.notify_one());
        let payload = context.columns_in_rows(kafka.metadata.len());
        let unreachable = |problem: Problem| context.refuse(problem.cause, problem.fault);
        let lookups = match &kafka.registry {
            Some(registry) => {
                let who = format!("source `{}`", context.node);
                let registry = Registry::new(&who, registry).map_err(unreachable)?;
                Some(Lookups::new(registry, &wake))
            }
            None => None,
        };
        let kafka = Arc::new(kafka.clone());
        let mut input = KafkaInput {
            consumer: Arc::new(consumer),
            partitions: Vec::new(),
            topic_ids: vec![None; kafka.topics.len()],
            decoder: Decoder::new(&kafka.format, &payload),
            lookups,
            wake,
            discovery: Discovery::default(),
            ends: Ends::default(),
            to_commit: None,
            committing: None,
            is_unreported: true,
            plan: kafka,
            context: context.clone(),
        };
        input.restore()?;
        while !input.discover()? {
            input.wait().await;
            input.poll_events();
        }
        Ok(input)
    }

    /// Takes what the first partition in `order` that has messages holds. May
    /// be dropped while it waits.
    async fn next_of(&mut self, order: &[usize]) -> Result<Arrival, SourceError> {
        loop {
            self.poll_events();
            self.learn_schemas()?;
            if self.discover()? || std::mem::take(&mut self.is_unreported) {
                return Ok(Arrival::Partitions);
            }
            for &index in order {
                if let Some(arrival) = self.pull(index)? {
                    return Ok(arrival);
                }
            }
            if self.plan.is_bounded && self.discovery.is_over() && order.is_empty() {
                return Ok(Arrival::Over);
            }
            self.wait().await;
        }
    }

    /// Looks for partitions when it is time to. Returns whether there is a new
    /// answer.
    fn discover(&mut self) -> Result<bool, SourceError> {
        let is_first = !self.discovery.has_found();
        let log = self.consumer.client().context();
        if let Some(found) = self.discovery.found(&self.plan, &self.context, log)? {
            self.check_topics(found.topic_ids)?;
            if is_first || !found.partitions.is_empty() {
                self.assign(found.partitions)?;
                return Ok(true);
            }
        }
        if self.discovery.due_in().is_some_and(|wait| wait.is_zero()) {
            let assigned = self.partitions.iter().filter(|p| p.queue.is_some());
            let known = assigned.map(|p| (p.topic, p.number)).collect();
            self.discovery
                .start(&self.consumer, &self.plan, &self.context, known, &self.wake);
        }
        Ok(false)
    }

    /// Waits until there may be something new. A notification that comes while
    /// nobody waits is kept.
    async fn wait(&self) {
        let wait = self.discovery.due_in().unwrap_or(LOOK_AGAIN);
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
        }
    }

    /// Starts the next commit of offsets, one at a time so that they arrive in
    /// order. It runs on its own thread, since librdkafka does not report when
    /// an asynchronous commit is done.
    fn commit_next(&mut self) {
        if self.is_committing() {
            return;
        }
        let Some(offsets) = self.to_commit.take() else {
            return;
        };
        let (consumer, wake) = (self.consumer.clone(), self.wake.clone());
        let commit = move || {
            if let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
                let (log, cause) = (consumer.client().context(), cause(&error));
                tracing::warn!("{}: cannot commit offsets to its group: {cause}", log.who);
            }
            wake.notify_one();
        };
        let thread = std::thread::Builder::new().name("kafka-commit".to_owned());
        self.committing = thread.spawn(commit).ok();
    }

    fn is_committing(&self) -> bool {
        let thread = self.committing.as_ref();
        thread.is_some_and(|thread| !thread.is_finished())
    }

    /// Partitions in the checkpoint belong to this task before the brokers name
    /// them.
    fn restore(&mut self) -> Result<(), SourceError> {
        let tasks = self.context.restored.clone();
        for restored in tasks.iter().flat_map(|task| &task.partitions) {
            let place = restored.name.rsplit_once('/').and_then(|(topic, number)| {
                let topic = self.plan.topics.iter().position(|known| known == topic)?;
                let number = number.parse::<i32>().ok()?;
                self.plan.has(number).then_some((topic, number))
            });
            let Some((topic, number)) = place else {
                return Err(self.gone(restored));
            };
            self.topic_ids[topic].clone_from(&restored.digest);
            if self.plan.is_ours(&self.context, topic, number) {
                let next = restored.position.offset;
                self.add(topic, number, next);
            }
        }
        Ok(())
    }

    /// The config selects a partition no more that the checkpoint has read.
    fn gone(&self, restored: &PartitionSnapshot) -> SourceError {
        self.context.refuse(
            format!(
                "the checkpoint had read {} up to offset {}, which the source does not read any \
                 more: name it again, or {}; with `start = \"committed\"` it then goes on where \
                 its group has committed",
                restored.name,
                restored.position.offset,
                self.context.beginning_anew()
            ),
            Fault::OUTSIDE_LASTING,
        )
    }

    /// Stops where a topic is not the one any more that was read so far: the
    /// offsets say nothing about it.
    fn check_topics(&mut self, mut now: HashMap<String, String>) -> Result<(), SourceError> {
        for (topic, then) in self.plan.topics.iter().zip(&mut self.topic_ids) {
            let Some(now) = now.remove(topic) else {
                continue;
            };
            if then.as_ref().is_some_and(|then| *then != now) {
                return Err(self.context.refuse(
                    format!(
                        "topic `{topic}` was deleted and created again since it was read, so what \
                         is known of its offsets says nothing about its messages: {} to read the \
                         new one as `start` says",
                        self.context.beginning_anew()
                    ),
                    Fault::OUTSIDE_LASTING,
                ));
            }
            *then = Some(now);
        }
        Ok(())
    }

    fn add(&mut self, topic: usize, number: i32, next: u64) -> usize {
        self.partitions.push(KafkaPartition {
            topic,
            number,
            name: format!("{}/{number}", self.plan.topics[topic]).into(),
            first: next,
            next,
            shared_next: self.ends.add(topic, number, next),
            held: None,
            end: None,
            bootstrap_end: None,
            queue: None,
            has_ended: false,
        });
        self.partitions.len() - 1
    }

    /// Assigns partitions that the brokers have named.
    fn assign(&mut self, found: Vec<FoundPartition>) -> Result<(), SourceError> {
        let mut assignment = TopicPartitionList::with_capacity(found.len());
        for found in found {
            let known = self
                .partitions
                .iter()
                .position(|p| (p.topic, p.number) == (found.topic, found.number));
            let index = match known {
                Some(index) => index,
                None => self.add(found.topic, found.number, found.start),
            };
            let topic = &self.plan.topics[found.topic];
            let partition = &mut self.partitions[index];
            partition.end = found.end.filter(|_| self.plan.is_bounded);
            partition.bootstrap_end = found.end.filter(|_| self.context.bootstraps);
            // Before the assignment, so that no message goes to the consumer's
            // common queue.
            let mut queue = self.consumer.split_partition_queue(topic, found.number);
            if let Some(queue) = &mut queue {
                let notify = self.wake.clone();
                queue.set_nonempty_callback(move || notify.notify_one());
            }
            partition.queue = queue;
            tracing::info!(
                source = %self.context.node,
                partition = %partition.name,
                offset = partition.next,
                "reading"
            );
            let offset = Offset::Offset(partition.next.try_into().unwrap_or(i64::MAX));
            assignment
                .add_partition_offset(topic, found.number, offset)
                .map_err(|error| read_error(&self.context, &partition.name, &error))?;
        }
        if assignment.count() == 0 {
            return Ok(());
        }
        let brokers = Brokers {
            consumer: self.consumer.clone(),
            plan: self.plan.clone(),
        };
        self.ends.begin(&self.context.node, brokers);
        self.consumer
            .incremental_assign(&assignment)
            .map_err(|error| read_error(&self.context, "its partitions", &error))
    }

    /// Polls for events, and commits offsets.
    fn poll_events(&mut self) {
        // Errors are logged by the client; those of a partition are in its
        // queue.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        self.commit_next();
    }

    /// Takes the schemas that have come.
    fn learn_schemas(&mut self) -> Result<(), SourceError> {
        while let Some((id, found)) = self.lookups.as_mut().and_then(Lookups::take) {
            match found {
                Ok(Ok(schema)) => self.decoder.learn(id, Ok(&schema)),
                Ok(Err(why)) => self.decoder.learn(id, Err(why)),
                Err(problem) => return Err(self.no_schema(&[id], problem)),
            }
        }
        Ok(())
    }

    /// Decodes messages of a partition if all their schemas are known; else it holds them.
    fn decode(
        &mut self,
        index: usize,
        messages: Messages,
        first: u64,
    ) -> Result<Option<Arrival>, SourceError> {
        let partition = &mut self.partitions[index];
        if let Some(lookups) = &mut self.lookups {
            let lacking = messages.lacking(&self.decoder);
            if !lacking.is_empty() {
                partition.held = Some((messages, first));
                let mut lacking_ids = lacking.iter();
                let asked = lacking_ids.try_for_each(|id| lookups.want(*id));
                asked.map_err(|problem| self.no_schema(&lacking, problem))?;
                return Ok(None);
            }
        }
        let chunk: Chunk = messages.decode(
            &mut self.decoder,
            &self.context,
            partition.name.clone(),
            at(partition.next),
        );
        Ok(Some(Arrival::Rows(index, Box::new(chunk))))
    }

    fn no_schema(&self, ids: &[u32], problem: Problem) -> SourceError {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let registry = self.plan.registry.as_ref().map(ToString::to_string);
        let what = format!(
            "schema {} of {}",
            ids.join(", "),
            registry.unwrap_or_default()
        );
        self.context.failed(what, problem.cause, problem.fault)
    }

    /// Takes what a partition's queue holds now, at most a batch.
    fn pull(&mut self, index: usize) -> Result<Option<Arrival>, SourceError> {
        let rows_max = self.context.rows_max();
        if let Some((messages, first)) = self.partitions[index].held.take() {
            return self.decode(index, messages, first);
        }
        let partition = &mut self.partitions[index];
        let Some(queue) = &partition.queue else {
            return Ok(None);
        };
        let next = partition.next;
        let bootstrapped = partition.bootstrap_end.take_if(|end| next >= *end);
        if bootstrapped.is_some() {
            return Ok(Some(Arrival::Bootstrapped(index)));
        }
        let mut messages = Messages::new(&self.plan);
        while !partition.has_ended && messages.has_room(rows_max) {
            if partition.end.is_some_and(|end| partition.next >= end) {
                partition.has_ended = true;
                break;
            }
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or(0);
                    if partition.end.is_some_and(|end| offset >= end) {
                        partition.has_ended = true;
                        break;
                    }
                    partition.next = offset + 1;
                    messages.push(&message, offset);
                }
                // There may be no messages just before the end, only markers of
                // transactions.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    partition.has_ended = partition.end.is_some();
                    if messages.is_empty() && partition.bootstrap_end.take().is_some() {
                        return Ok(Some(Arrival::Bootstrapped(index)));
                    }
                    // It is told next.
                    partition.bootstrap_end = partition.bootstrap_end.map(|_| 0);
                }
                Some(Err(error)) if is_final(&error) => {
                    return Err(self.unreadable(index, &error));
                }
                Some(Err(error)) => {
                    let (node, name) = (&self.context.node, &partition.name);
                    let cause = cause(&error);
                    tracing::warn!(source = %node, partition = %name, "{cause}; trying again");
                }
            }
        }
        partition
            .shared_next
            .store(partition.next, Ordering::Relaxed);
        if messages.is_empty() {
            return Ok(partition.has_ended.then_some(Arrival::End(index)));
        }
        self.decode(index, messages, next)
    }

    fn unreadable(&self, index: usize, error: &KafkaError) -> SourceError {
        let partition = &self.partitions[index];
        let log = self.consumer.client().context();
        let cause = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                format!(
                    "offset {} does not exist any more: the topic was truncated or created again \
                     since it was read; to go on without these rows, {} ({})",
                    partition.next,
                    self.context.beginning_anew(),
                    log.explain(error)
                )
            }
            _ => log.explain(error),
        };
        let fault = fault_of(error.rdkafka_error_code());
        self.context.failed(&*partition.name, cause, fault)
    }
}

impl SourceInput for KafkaInput {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let partition = &self.partitions[partition];
        (partition.name.clone(), at(partition.position()))
    }

    /// The topic's id, whatever the position.
    fn digest(&mut self, partition: usize, _: Position) -> Option<String> {
        self.topic_ids[self.partitions[partition].topic].clone()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn holds_rows(&self, partition: usize) -> bool {
        self.partitions[partition].held.is_some()
    }

    /// Within a transaction, they are committed with it.
    fn wants_commits(&self) -> bool {
        !self.context.is_transactional
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(self.next_of(order))
    }

    fn backlog(&self) -> Option<Arc<Backlog>> {
        Some(self.ends.backlog())
    }

    fn progress(&self) -> Option<f64> {
        let mut total = 0;
        let mut given = 0;
        for partition in &self.partitions {
            let end = partition.end?;
            total += end.saturating_sub(partition.first);
            given += partition
                .position()
                .min(end)
                .saturating_sub(partition.first);
        }
        (total > 0).then(|| given as f64 / total as f64)
    }

    /// Commits a checkpoint's offsets to the group, for tools to see. Nothing
    /// depends on it, so nothing waits for it.
    fn committed(&mut self, positions: &[(Arc<str>, Position)]) {
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (partition, (_, position)) in self.partitions.iter().zip(positions) {
            let topic = &self.plan.topics[partition.topic];
            let offset = Offset::Offset(position.offset.try_into().unwrap_or(i64::MAX));
            // Adding to a list can fail only for an invalid offset, which is
            // none of ours.
            let _ = offsets.add_partition_offset(topic, partition.number, offset);
        }
        self.to_commit = Some(offsets).filter(|offsets| offsets.count() > 0);
        self.commit_next();
    }
}

impl Drop for KafkaInput {
    /// Gives the group the last offsets, if that is quick.
    fn drop(&mut self) {
        if self.to_commit.is_none() && !self.is_committing() {
            return;
        }
        blocking(|| {
            let until = Instant::now() + LAST_COMMIT_MAX;
            while (self.to_commit.is_some() || self.is_committing()) && Instant::now() < until {
                self.commit_next();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

fn at(offset: u64) -> Position {
    Position {
        offset,
        ..Position::default()
    }
}

fn read_error(context: &SourceContext, what: &str, error: &KafkaError) -> SourceError {
    context.failed(what, cause(error), fault_of(error.rdkafka_error_code()))
}
