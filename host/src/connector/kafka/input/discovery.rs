//! Finds the partitions of the topics, at the start and later, and where to
//! start in each.
//!
//! Brokers may be slow to answer, so they are asked on a separate thread, which
//! is not waited for at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Notify, oneshot};

use super::super::subscription::{KafkaStart, Subscription};
use super::super::{ClientLog, cause, fault_of, is_final};
use super::topic_ids::topic_ids;
use crate::blame::Fault;
use crate::source::{SourceContext, SourceError};

/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long to wait after brokers could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A topic that is missing this many times in a row does not exist: a broker
/// that has just started may not know it yet.
const MISSING_MAX: u32 = 3;

/// Asks for partitions at the start and at intervals.
pub(super) struct Discovery {
    state: DiscoveryState,
    /// Whether the brokers have answered once.
    has_found: bool,
    /// How many times in a row a topic was missing.
    missing: u32,
}

enum DiscoveryState {
    Due(Instant),
    Asking(oneshot::Receiver<Result<Found, DiscoveryProblem>>),
    /// A bounded input is asked for only once.
    Over,
}

/// What the brokers have answered.
pub(super) struct Found {
    /// By the topics' names, as far as they have ids.
    pub topic_ids: HashMap<String, String>,
    pub partitions: Vec<FoundPartition>,
}

/// A partition to read that is not being read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundPartition {
    pub topic: usize,
    pub number: i32,
    /// Where to start if the checkpoint does not have the partition.
    pub start: u64,
    /// Where it ends now, if that is asked for.
    pub end: Option<u64>,
}

pub(super) enum DiscoveryProblem {
    /// A topic, or one of the partitions in the config, does not exist.
    Missing {
        what: String,
        help: &'static str,
    },
    Kafka {
        what: String,
        error: KafkaError,
    },
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery {
            state: DiscoveryState::Due(Instant::now()),
            has_found: false,
            missing: 0,
        }
    }
}

impl Discovery {
    /// Whether the brokers have answered once.
    pub fn has_found(&self) -> bool {
        self.has_found
    }

    /// Whether no more partitions can be found.
    pub fn is_over(&self) -> bool {
        matches!(self.state, DiscoveryState::Over)
    }

    /// How long until [`Discovery::start`] is due; `None` if it is not waiting
    /// for time.
    pub fn due_in(&self) -> Option<Duration> {
        match &self.state {
            DiscoveryState::Due(at) => Some(at.saturating_duration_since(Instant::now())),
            DiscoveryState::Asking(_) | DiscoveryState::Over => None,
        }
    }

    /// The last answer, if one has come. The first may have no partitions for
    /// this task.
    pub fn found(
        &mut self,
        plan: &Subscription,
        context: &SourceContext,
        log: &ClientLog,
    ) -> Result<Option<Found>, SourceError> {
        let DiscoveryState::Asking(answer) = &mut self.state else {
            return Ok(None);
        };
        let answer = match answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => return Ok(None),
            // The thread could not be started, or panicked.
            Err(oneshot::error::TryRecvError::Closed) => {
                self.state = DiscoveryState::Due(Instant::now() + RETRY_AFTER);
                return Ok(None);
            }
            Ok(answer) => answer,
        };
        self.state = DiscoveryState::Due(Instant::now() + RETRY_AFTER);
        match answer {
            Ok(found) => {
                self.has_found = true;
                self.missing = 0;
                self.state = if plan.is_bounded {
                    DiscoveryState::Over
                } else {
                    DiscoveryState::Due(
                        Instant::now() + Duration::from_millis(plan.discover_every_ms),
                    )
                };
                Ok(Some(found))
            }
            Err(DiscoveryProblem::Missing { what, help }) => {
                self.missing += 1;
                if self.missing < MISSING_MAX {
                    return Ok(None);
                }
                let brokers = &plan.connection.brokers;
                // Where it was read before, it may come back.
                let mut partitions = context.restored.iter().flat_map(|task| &task.partitions);
                let fault = match self.has_found || partitions.next().is_some() {
                    true => Fault::OUTSIDE,
                    false => Fault::OUTSIDE_LASTING,
                };
                Err(context.refuse(format!("{what} on {brokers}: {help}"), fault))
            }
            Err(DiscoveryProblem::Kafka { what, error }) if is_final(&error) => {
                let fault = fault_of(error.rdkafka_error_code());
                Err(context.failed(what, cause(&error), fault))
            }
            Err(DiscoveryProblem::Kafka { what, error }) => {
                // Where it was let in before, it may be again.
                if !self.has_found
                    && let Some(refused) = log.refusal()
                {
                    let what = format!("cannot read from {}", plan.connection.brokers);
                    return Err(context.failed(what, refused.reason, fault_of(refused.code)));
                }
                tracing::warn!(
                    source = %context.node,
                    brokers = plan.connection.brokers,
                    "{what}: {}; trying again",
                    log.explain(&error)
                );
                Ok(None)
            }
        }
    }

    /// Asks the brokers, and notifies the reader when they have answered.
    /// Partitions in `known` are being read.
    pub fn start(
        &mut self,
        consumer: &Arc<BaseConsumer<ClientLog>>,
        plan: &Arc<Subscription>,
        context: &SourceContext,
        known: Vec<(usize, i32)>,
        wake: &Arc<Notify>,
    ) {
        let (sender, receiver) = oneshot::channel();
        self.state = DiscoveryState::Asking(receiver);
        let question = Question {
            brokers: Brokers {
                consumer: consumer.clone(),
                plan: plan.clone(),
            },
            context: context.clone(),
            known,
            start: self.first_offset(plan, context),
        };
        let wake = wake.clone();
        let asked = std::thread::Builder::new()
            .name("kafka-partitions".to_owned())
            .spawn(move || {
                // The reader may be gone.
                let _ = sender.send(question.ask());
                wake.notify_one();
            });
        if let Err(error) = asked {
            tracing::warn!(source = %context.node, "cannot start a thread: {error}");
        }
    }

    /// Where to start in a partition that no checkpoint has. A partition that
    /// was added after the first answer is read from its beginning.
    fn first_offset(&self, plan: &Subscription, context: &SourceContext) -> KafkaStart {
        let is_restored = context
            .restored
            .iter()
            .any(|task| !task.partitions.is_empty());
        if self.has_found || (is_restored && plan.partitions.is_none()) {
            KafkaStart::Earliest
        } else {
            plan.start
        }
    }
}

struct Question {
    brokers: Brokers,
    context: SourceContext,
    known: Vec<(usize, i32)>,
    start: KafkaStart,
}

impl Question {
    fn ask(&self) -> Result<Found, DiscoveryProblem> {
        let topic_ids = self.brokers.topic_ids()?;
        let mut wanted = Vec::new();
        let plan = &self.brokers.plan;
        for topic in 0..plan.topics.len() {
            let ours = self
                .brokers
                .partitions(topic)?
                .into_iter()
                .filter(|&number| {
                    plan.is_ours(&self.context, topic, number)
                        && !self.known.contains(&(topic, number))
                });
            wanted.extend(ours.map(|number| (topic, number)));
        }
        Ok(Found {
            topic_ids,
            partitions: match wanted.is_empty() {
                true => Vec::new(),
                false => self.located(&wanted)?,
            },
        })
    }

    /// The partitions, and where each of them starts and ends.
    fn located(&self, wanted: &[(usize, i32)]) -> Result<Vec<FoundPartition>, DiscoveryProblem> {
        let starts = self.brokers.starts(wanted, self.start)?;
        let ends = match self.brokers.plan.is_bounded || self.context.bootstraps {
            true => Some(self.brokers.offsets(wanted, Offset::End)?),
            false => None,
        };
        let found = wanted.iter().zip(starts).enumerate();
        Ok(found
            .map(|(index, (&(topic, number), start))| FoundPartition {
                topic,
                number,
                start,
                end: ends.as_ref().map(|ends| ends[index]),
            })
            .collect())
    }
}

/// Asks the brokers about a source's topics.
pub(super) struct Brokers {
    pub consumer: Arc<BaseConsumer<ClientLog>>,
    pub plan: Arc<Subscription>,
}

impl Brokers {
    fn topic_ids(&self) -> Result<HashMap<String, String>, DiscoveryProblem> {
        match topic_ids(&self.consumer, &self.plan.topics, ANSWER_MAX) {
            // Brokers that are too old to be asked.
            Err(KafkaError::AdminOp(
                RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion,
            )) => Ok(HashMap::new()),
            asked => asked.map_err(|error| self.problem("cannot ask for the topics' ids", error)),
        }
    }

    /// The numbers of a topic's partitions that the config selects.
    fn partitions(&self, topic: usize) -> Result<Vec<i32>, DiscoveryProblem> {
        let name = self.plan.topics[topic].as_str();
        let problem = |error: KafkaError| DiscoveryProblem::Kafka {
            what: format!("cannot ask for the partitions of topic `{name}`"),
            error,
        };
        let missing = || DiscoveryProblem::Missing {
            what: format!("topic `{name}` does not exist"),
            help: "create it, or correct its name",
        };
        let metadata = match self.consumer.fetch_metadata(Some(name), ANSWER_MAX) {
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            )) => return Err(missing()),
            other => other.map_err(problem)?,
        };
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let Some(found) = found else {
            return Err(missing());
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(missing());
            }
            Some(code) => return Err(problem(KafkaError::MetadataFetch(code))),
        }
        let numbers: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
        let wanted = self.plan.partitions.iter().flatten();
        if let Some(number) = wanted.copied().find(|number| !numbers.contains(number)) {
            return Err(DiscoveryProblem::Missing {
                what: format!("topic `{name}` has no partition {number}"),
                help: "correct `partitions`, or add it to the topic",
            });
        }
        Ok(numbers)
    }

    fn starts(
        &self,
        wanted: &[(usize, i32)],
        start: KafkaStart,
    ) -> Result<Vec<u64>, DiscoveryProblem> {
        match start {
            KafkaStart::Earliest => self.offsets(wanted, Offset::Beginning),
            KafkaStart::Latest => self.offsets(wanted, Offset::End),
            KafkaStart::At(ms) => self.offsets(wanted, Offset::Offset(ms)),
            KafkaStart::Committed => {
                let earliest = self.offsets(wanted, Offset::Beginning)?;
                let committed = self
                    .consumer
                    .committed_offsets(self.list(wanted, Offset::Invalid)?, ANSWER_MAX)
                    .map_err(|error| self.problem("cannot ask what the group has read", error))?;
                self.read(wanted, &committed, |index, offset| match offset {
                    Offset::Offset(offset) => u64::try_from(offset).ok(),
                    _ => Some(earliest[index]),
                })
            }
        }
    }

    /// The offset of the first message of this time or later, for each
    /// partition. Kafka also takes the beginning and the end for a time.
    pub fn offsets(
        &self,
        wanted: &[(usize, i32)],
        time: Offset,
    ) -> Result<Vec<u64>, DiscoveryProblem> {
        let what = "cannot ask where partitions begin and end";
        let offsets = self
            .consumer
            .offsets_for_times(self.list(wanted, time)?, ANSWER_MAX)
            .map_err(|error| self.problem(what, error))?;
        // Partitions without a message that late start at their end.
        let ends = match offsets.elements().iter().any(|e| e.offset() == Offset::End) {
            true if time != Offset::End => Some(self.offsets(wanted, Offset::End)?),
            _ => None,
        };
        self.read(wanted, &offsets, |index, offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            Offset::End => ends.as_ref().map(|ends| ends[index]),
            _ => None,
        })
    }

    fn list(
        &self,
        wanted: &[(usize, i32)],
        offset: Offset,
    ) -> Result<TopicPartitionList, DiscoveryProblem> {
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        for &(topic, number) in wanted {
            list.add_partition_offset(&self.plan.topics[topic], number, offset)
                .map_err(|error| self.problem("cannot ask for a partition", error))?;
        }
        Ok(list)
    }

    /// Reads the offset of each partition from an answer.
    fn read(
        &self,
        wanted: &[(usize, i32)],
        answer: &TopicPartitionList,
        offset: impl Fn(usize, Offset) -> Option<u64>,
    ) -> Result<Vec<u64>, DiscoveryProblem> {
        let wanted = wanted.iter().enumerate();
        wanted
            .map(|(index, &(topic, number))| {
                let name = &self.plan.topics[topic];
                let what = format!("cannot ask where to start in {name}/{number}");
                let found = answer.find_partition(name, number);
                let error = match &found {
                    Some(found) => match found.error() {
                        Ok(()) => KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset),
                        Err(error) => return Err(DiscoveryProblem::Kafka { what, error }),
                    },
                    None => KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition),
                };
                found
                    .and_then(|found| offset(index, found.offset()))
                    .ok_or(DiscoveryProblem::Kafka { what, error })
            })
            .collect()
    }

    fn problem(&self, what: &str, error: KafkaError) -> DiscoveryProblem {
        DiscoveryProblem::Kafka {
            what: what.to_owned(),
            error,
        }
    }
}
