//! A real Kafka broker for each test program; see `tests/kafka/broker.sh`.

/// What a script starts.
#[path = "scripted.rs"]
pub mod scripted;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use self::scripted::Scripted;
use crate::harness::Absent;

/// How long the broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub struct Broker(Scripted);

impl Deref for Broker {
    type Target = Scripted;

    fn deref(&self) -> &Scripted {
        &self.0
    }
}

/// A message as a test writes and reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<String>,
    pub payload: String,
    pub headers: Vec<(String, Option<String>)>,
}

/// The broker of this test program.
pub fn broker() -> Result<&'static Broker, Absent> {
    static BROKER: LazyLock<Result<Broker, String>> = LazyLock::new(Broker::start);
    scripted::required(&BROKER, "Kafka broker")
}

impl Broker {
    /// Starts a broker with a folder of its own, which is removed after this process.
    pub fn start() -> Result<Broker, String> {
        Scripted::start("broker", "kafka/broker.sh").map(Broker)
    }

    /// Its address with TLS and a password, and the certificate to trust.
    pub fn secure(&self) -> (String, PathBuf) {
        let address = std::fs::read_to_string(self.folder.join("secure-address"));
        let address = address.expect("the broker has such a port");
        (address.trim().to_owned(), self.folder.join("trusted.pem"))
    }

    /// Kills it as a power failure would, and starts it again.
    pub fn restart(&self) {
        self.call("restart");
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let created = block_on(self.admin().create_topics(&[topic], &AdminOptions::new()));
        created.expect("an answer")[0].as_ref().expect("a topic");
        // The broker answers before it takes messages.
        let consumer = self.consumer(true);
        let until = Instant::now() + ANSWER_MAX;
        loop {
            let metadata = consumer.fetch_metadata(Some(name), ANSWER_MAX);
            let metadata = metadata.expect("metadata");
            let partitions_led = metadata.topics()[0].partitions().iter();
            let led = partitions_led.filter(|p| p.error().is_none() && p.leader() >= 0);
            if led.count() == partitions as usize {
                return;
            }
            assert!(Instant::now() < until, "the topic has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &AdminOptions::new()));
        deleted.expect("an answer")[0].as_ref().expect("a topic");
        let until = Instant::now() + ANSWER_MAX;
        while self.has_topic(name) {
            assert!(Instant::now() < until, "the topic is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn has_topic(&self, name: &str) -> bool {
        let consumer = self.consumer(true);
        let metadata = consumer.fetch_metadata(None, ANSWER_MAX);
        let metadata = metadata.expect("metadata");
        metadata.topics().iter().any(|topic| topic.name() == name)
    }

    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let wanted = NewPartitions::new(name, partitions);
        let added = block_on(
            self.admin()
                .create_partitions(&[wanted], &AdminOptions::new()),
        );
        added.expect("an answer")[0].as_ref().expect("partitions");
    }

    pub fn producer(&self) -> BaseProducer {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("queue.buffering.max.messages", "1000000")
            .create();
        producer.expect("a producer")
    }

    /// Writes messages to a partition, and waits until they are there.
    pub fn write(&self, topic: &str, partition: i32, records: &[Record]) {
        let producer = self.producer();
        for record in records {
            let mut message = BaseRecord::<str, str>::to(topic)
                .partition(partition)
                .payload(&record.payload);
            message.key = record.key.as_deref();
            if !record.headers.is_empty() {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &record.headers {
                    let value = value.as_deref();
                    headers = headers.insert(Header { key, value });
                }
                message.headers = Some(headers);
            }
            producer
                .send(message)
                .map_err(|(error, _)| error)
                .expect("room");
        }
        producer.flush(ANSWER_MAX).expect("all are written");
    }

    pub fn write_payloads<T: Into<String>>(
        &self,
        topic: &str,
        partition: i32,
        payloads: impl IntoIterator<Item = T>,
    ) {
        let records: Vec<Record> = payloads
            .into_iter()
            .map(|payload| Record {
                payload: payload.into(),
                ..Record::default()
            })
            .collect();
        self.write(topic, partition, &records);
    }

    /// All messages of a topic, partition by partition.
    pub fn read(&self, topic: &str, is_committed: bool) -> Vec<Record> {
        self.messages(topic, is_committed, record)
    }

    /// Keys and payloads of the messages that are committed, a line each.
    pub fn shown(&self, topic: &str) -> String {
        let records = self.read(topic, true).into_iter();
        let lines = records.map(|it| format!("{:?} {}\n", it.key, it.payload));
        lines.collect()
    }

    /// When each message of a topic was sent, committed or not, in ms.
    pub fn sent(&self, topic: &str) -> Vec<i64> {
        self.messages(topic, false, |message| {
            message.timestamp().to_millis().expect("a time")
        })
    }

    fn messages<T>(
        &self,
        topic: &str,
        is_committed: bool,
        take: impl Fn(&BorrowedMessage<'_>) -> T,
    ) -> Vec<T> {
        let consumer = self.consumer(is_committed);
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX);
        let partitions = metadata.expect("metadata").topics()[0].partitions().len();
        let mut messages = Vec::new();
        for partition in 0..partitions {
            let mut assignment = TopicPartitionList::new();
            assignment
                .add_partition_offset(topic, partition as i32, Offset::Beginning)
                .expect("a place to start");
            consumer.assign(&assignment).expect("an assignment");
            let until = Instant::now() + ANSWER_MAX;
            loop {
                match consumer.poll(ANSWER_MAX) {
                    Some(Ok(message)) => messages.push(take(&message)),
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    other => assert!(Instant::now() < until, "{:?}", other.map(|m| m.err())),
                }
            }
        }
        messages
    }

    /// A reader of what is committed in these topics with so many partitions, from their
    /// beginnings on; it tells where they end.
    pub fn follow(&self, topics: &[(&str, i32)]) -> BaseConsumer {
        let mut assignment = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                assignment
                    .add_partition_offset(topic, partition, Offset::Beginning)
                    .expect("a place to start");
            }
        }
        let consumer = self.consumer(true);
        consumer.assign(&assignment).expect("an assignment");
        consumer
    }

    /// What a group has committed in a topic's partition, with its metadata.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", group)
            .create()
            .expect("a consumer");
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let found = consumer
            .committed_offsets(wanted, ANSWER_MAX)
            .expect("an answer");
        let found = found.find_partition(topic, partition)?;
        match found.offset() {
            Offset::Offset(offset) => Some((offset, found.metadata().to_owned())),
            _ => None,
        }
    }

    fn consumer(&self, is_committed: bool) -> BaseConsumer {
        let isolation = match is_committed {
            true => "read_committed",
            false => "read_uncommitted",
        };
        ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", "a-test")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .create()
            .expect("a client")
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        let headers = headers.iter();
        headers
            .map(|header| (header.key.to_owned(), header.value.map(text)))
            .collect()
    });
    Record {
        key: message.key().map(text),
        payload: message.payload().map(text).unwrap_or_default(),
        headers: headers.unwrap_or_default(),
    }
}

/// Waits on a thread of its own, since a test may be in a runtime already.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let wait = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(wait).join().expect("an answer"))
}
