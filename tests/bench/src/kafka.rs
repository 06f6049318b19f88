//! Measures commits to Kafka: a pipeline that copies a topic, compared with
//! loops that use librdkafka alone, and the latency of a row. The broker is a
//! real one, on the same cores as everything else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::json;
use sluicebox::clock::{Clock, SystemClock};
use sluicebox::plugin::PluginLoader;
use sluicebox::run::{Durable, Job};

use crate::servers::Server;
use crate::state::{brief, extend, scratch};
use crate::turns::Turns;
use crate::{Arguments, BATCH_ROWS, plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    KafkaCopy,
    KafkaLatency,
}

/// How many partitions each topic has.
const PARTITIONS: i32 = 2;
/// How many rows are copied.
const COPY_ROWS: u64 = 3_000_000;
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often a bare loop commits, as the pipeline does.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

pub fn measure(arguments: &Arguments, cases: &[Case]) -> anyhow::Result<Vec<serde_json::Value>> {
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let folder = scratch(arguments)?;
    let broker = match Broker::start(&folder.path().join("broker")) {
        Ok(broker) => broker,
        Err(why) => {
            println!("kafka_copy and kafka_latency: skipped, since there is no broker: {why}");
            return Ok(Vec::new());
        }
    };
    let mut bench = Bench {
        arguments,
        folder: folder.path(),
        broker,
        pipelines: 0,
    };
    let mut results = Vec::new();
    if cases.contains(&Case::KafkaCopy) {
        results.extend(bench.copy()?);
    }
    if cases.contains(&Case::KafkaLatency) {
        results.extend(bench.latency()?);
    }
    Ok(results)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    broker: Broker,
    /// How many pipelines were made; each needs its own name.
    pipelines: usize,
}

/// A way to copy a topic by a pipeline.
#[derive(Clone, Copy)]
struct CopyMode {
    variant: &'static str,
    delivery: &'static str,
    interval_ms: u64,
    /// Whether rows pass through a Wasm filter that keeps them all.
    is_filtered: bool,
}

impl Bench<'_> {
    fn copy(&mut self) -> anyhow::Result<Vec<serde_json::Value>> {
        self.broker.create_topic("copy-in", false)?;
        self.fill("copy-in", COPY_ROWS)?;
        let mode = |variant, delivery, is_filtered| CopyMode {
            variant,
            delivery,
            interval_ms: COMMIT_EVERY.as_millis() as u64,
            is_filtered,
        };
        let modes = [
            mode("exactly_once", "exactly_once", false),
            mode("exactly_once_filter", "exactly_once", true),
            mode("at_least_once", "at_least_once", false),
        ];
        let mut turns = Turns::default();
        for round in 0..2 {
            for (variant, is_transactional) in [("bare", false), ("bare_transactional", true)] {
                let out = format!("copy-{variant}-{round}");
                self.broker.create_topic(&out, false)?;
                turns.note(variant, self.bare_copy("copy-in", &out, is_transactional)?);
                self.expect_rows(&out)?;
            }
            for mode in modes {
                let out = format!("copy-{}-{round}", mode.variant);
                self.broker.create_topic(&out, false)?;
                turns.note(mode.variant, self.pipeline_copy("copy-in", &out, mode)?);
                self.expect_rows(&out)?;
            }
        }
        turns.results("kafka_copy", COPY_ROWS, &["bare", "bare_transactional"])
    }

    /// Writes cart events as JSON, all of them additions.
    fn fill(&self, topic: &str, rows: u64) -> anyhow::Result<()> {
        let producer = self.broker.producer(&[("linger.ms", "20")])?;
        for row in 0..rows {
            send(&producer, topic, None, event(row).as_bytes())?;
        }
        flush(&producer)
    }

    /// Copies a topic by a bare loop; seconds from the first row read to the
    /// last commit.
    fn bare_copy(&self, from: &str, to: &str, is_transactional: bool) -> anyhow::Result<f64> {
        let consumer = self.broker.consumer(from, Offset::Beginning)?;
        let mut settings = vec![("linger.ms", "10"), ("enable.idempotence", "true")];
        if is_transactional {
            settings.push(("transactional.id", to));
        }
        let producer = self.broker.producer(&settings)?;
        if is_transactional {
            producer.init_transactions(ANSWER_MAX)?;
            producer.begin_transaction()?;
        }
        let group = consumer.group_metadata().context("no group")?;
        let mut began = None;
        let mut committed = Instant::now();
        let mut rows = 0;
        while rows < COPY_ROWS {
            let message = match consumer.poll(ANSWER_MAX) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => continue,
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the broker sends nothing"),
            };
            if began.is_none() {
                began = Some(Instant::now());
                committed = Instant::now();
            }
            send(
                &producer,
                to,
                message.key(),
                message.payload().unwrap_or_default(),
            )?;
            rows += 1;
            if is_transactional && (committed.elapsed() >= COMMIT_EVERY || rows == COPY_ROWS) {
                let position = consumer.position()?;
                producer.send_offsets_to_transaction(&position, &group, ANSWER_MAX)?;
                producer.commit_transaction(ANSWER_MAX)?;
                producer.begin_transaction()?;
                committed = Instant::now();
            }
        }
        flush(&producer)?;
        let began = began.context("there were no rows")?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Copies a topic by a pipeline that ends where the topic does.
    fn pipeline_copy(&mut self, from: &str, to: &str, mode: CopyMode) -> anyhow::Result<f64> {
        let (job, runtime) = self.pipeline(from, to, mode, "until = \"end\"")?;
        let progress = job.progress().swap_remove(0);
        let run = runtime.spawn(job.run());
        while progress.snapshot().rows_in == 0 && !run.is_finished() {
            std::thread::sleep(Duration::from_micros(500));
        }
        let began = Instant::now();
        let summary = runtime.block_on(run)??;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(summary.restarts == 0, "the pipeline failed on its way");
        Ok(seconds)
    }

    fn pipeline(
        &mut self,
        from: &str,
        to: &str,
        mode: CopyMode,
        extent: &str,
    ) -> anyhow::Result<(Job, tokio::runtime::Runtime)> {
        self.pipelines += 1;
        let cores = std::thread::available_parallelism()?.get();
        let last = if mode.is_filtered { "adds" } else { "rows" };
        let operator = match mode.is_filtered {
            true => "[operators.adds]\nplugin = \"cart.adds\"\ninput = \"rows\"",
            false => "",
        };
        let text = format!(
            r#"
            name = "copy-{number}"
            parallelism = {cores}
            batch_rows = {BATCH_ROWS}
            plugins.cart.path = {plugin:?}
            [state]
            path = {state:?}
            [checkpoints]
            interval = "{interval_ms}ms"
            delivery = "{delivery}"
            [restart]
            strategy = "never"
            [sources.rows]
            type = "kafka"
            brokers = "{brokers}"
            topic = "{from}"
            {extent}
            fields = {{ user_id = "utf8", item_id = "utf8", action = "utf8", quantity = "int64", ts = "int64" }}
            {operator}
            [sinks.out]
            type = "kafka"
            brokers = "{brokers}"
            topic = "{to}"
            input = "{last}"
            "#,
            number = self.pipelines,
            plugin = std::fs::canonicalize(&self.arguments.plugin)?,
            state = self.folder.join(format!("pipeline-{}", self.pipelines)),
            interval_ms = mode.interval_ms,
            delivery = mode.delivery,
            brokers = self.broker.0.address,
        );
        let plan = plan(&text, &PluginLoader::new()?)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores)
            .enable_all()
            .build()?;
        let durable = runtime.block_on(async { Durable::open(&plan) })?;
        let durable = durable.context("the pipeline has no checkpoints")?;
        let job = Job::new(plan, Arc::new(SystemClock))
            .on_threads(cores)
            .keeping(durable);
        Ok((job, runtime))
    }

    /// Checks that every row was committed exactly once.
    fn expect_rows(&self, topic: &str) -> anyhow::Result<()> {
        let consumer = self.broker.consumer(topic, Offset::Beginning)?;
        let mut rows = 0;
        let mut ended = 0;
        while ended < PARTITIONS {
            match consumer.poll(ANSWER_MAX) {
                Some(Ok(_)) => rows += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the broker sends nothing"),
            }
        }
        ensure!(rows == COPY_ROWS, "{topic} has {rows} rows");
        Ok(())
    }

    fn latency(&mut self) -> anyhow::Result<Vec<serde_json::Value>> {
        const LOAD_SECONDS: u64 = 3;
        const SECONDS: u64 = 6;
        let mode = |variant, delivery, interval_ms| CopyMode {
            variant,
            delivery,
            interval_ms,
            is_filtered: false,
        };
        // The throughput when rows are sent as fast as possible, with sender
        // and reader on the same cores.
        let full =
            self.send_through(mode("full", "exactly_once", 1_000), f64::MAX, LOAD_SECONDS)?;
        let full_rate = full.read as f64 / full.seconds;
        eprintln!(
            "kafka_latency: full load is {:.3} M rows/s",
            full_rate / 1e6
        );
        let modes = [
            mode("exactly_once_100ms", "exactly_once", 100),
            mode("exactly_once_1s", "exactly_once", 1_000),
            mode("at_least_once_1s", "at_least_once", 1_000),
        ];
        let mut results = Vec::new();
        for mode in modes {
            let rate = full_rate / 2.0;
            let mut through = self.send_through(mode, rate, SECONDS)?;
            let mut result = json!({
                "case": "kafka_latency",
                "variant": mode.variant,
                "cores": std::thread::available_parallelism()?.get(),
                "interval_ms": mode.interval_ms,
                "rows": through.read,
                "seconds": through.seconds,
                "rows_per_second": through.read as f64 / through.seconds,
                "full_rows_per_second": full_rate,
            });
            through.latencies_ms.sort_unstable();
            let at = |part: f64| {
                let last = through.latencies_ms.len().saturating_sub(1);
                through.latencies_ms.get((last as f64 * part) as usize)
            };
            extend(
                &mut result,
                json!({ "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0) }),
            );
            eprintln!("kafka_latency {}: {}", mode.variant, brief(&result));
            results.push(result);
        }
        Ok(results)
    }

    /// Sends rows at a rate through a pipeline, and reads what it commits.
    fn send_through(
        &mut self,
        mode: CopyMode,
        rate: f64,
        seconds: u64,
    ) -> anyhow::Result<Observed> {
        let number = self.pipelines;
        let (from, to) = (format!("in-{number}"), format!("out-{number}"));
        self.broker.create_topic(&from, true)?;
        self.broker.create_topic(&to, false)?;
        let (job, runtime) =
            self.pipeline(&from, &to, mode, "metadata = { timestamp = \"appended\" }")?;
        let stop = job.stop();
        let progress = job.progress().swap_remove(0);
        let run = runtime.spawn(job.run());
        let reader = self.broker.consumer(&to, Offset::Beginning)?;
        let producer = self.broker.producer(&[("linger.ms", "1")])?;
        // One row in front, whose arrival shows that everything runs.
        send(&producer, &from, None, event(0).as_bytes())?;
        while !matches!(reader.poll(ANSWER_MAX), Some(Ok(_))) {
            ensure!(!run.is_finished(), "the pipeline ended");
        }
        let is_over = AtomicBool::new(false);
        let through = std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(&reader, &is_over));
            let sent = send_at(&producer, &from, rate, Duration::from_secs(seconds));
            is_over.store(true, Ordering::SeqCst);
            let read = reading.join();
            sent?;
            read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        ensure!(progress.snapshot().failed == 0, "rows were lost");
        stop.ask();
        runtime.block_on(run)??;
        Ok(through)
    }
}

/// What a reader observed while rows were sent.
#[derive(Default)]
struct Observed {
    read: u64,
    seconds: f64,
    /// From append to read, without those of the first second.
    latencies_ms: Vec<i64>,
}

fn read(reader: &BaseConsumer, is_over: &AtomicBool) -> anyhow::Result<Observed> {
    let began = Instant::now();
    let mut through = Observed::default();
    while !is_over.load(Ordering::SeqCst) {
        let message = match reader.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) | None => continue,
            Some(Err(error)) => return Err(error.into()),
        };
        through.read += 1;
        through.seconds = began.elapsed().as_secs_f64();
        if through.seconds > 1.0 {
            let appended = appended_ms(message.payload().unwrap_or_default());
            let appended = appended.context("a row without its time")?;
            let now = SystemClock.now_ms().rem_euclid(DAY_MS);
            // Midnight may have passed in between.
            through
                .latencies_ms
                .push((now - appended).rem_euclid(DAY_MS));
        }
    }
    Ok(through)
}

const DAY_MS: i64 = 86_400_000;

/// The time of day in the row's `appended`: `2026-01-31T12:34:56.789Z`.
fn appended_ms(payload: &[u8]) -> Option<i64> {
    const FIELD: &[u8] = b"\"appended\":\"";
    let start = memchr::memmem::find(payload, FIELD)? + FIELD.len();
    let text = std::str::from_utf8(&payload[start..]).ok()?;
    let time = text.split_once('T')?.1.split_once('Z')?.0;
    let (time, millis) = time.split_once('.').unwrap_or((time, "0"));
    let mut seconds = 0;
    for part in time.split(':') {
        seconds = seconds * 60 + part.parse::<i64>().ok()?;
    }
    Some(seconds * 1000 + millis.parse::<i64>().ok()?)
}

fn send_at(producer: &Sender, topic: &str, rate: f64, duration: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < duration {
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        let until = due.min(sent + 1_000);
        while sent < until {
            send(producer, topic, None, event(sent).as_bytes())?;
            sent += 1;
        }
        if sent >= due {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    flush(producer)
}

fn event(row: u64) -> String {
    format!(
        "{{\"user_id\":\"user-{:06}\",\"item_id\":\"item-{:05}\",\"action\":\"add\",\
         \"quantity\":{},\"ts\":{}}}",
        row.wrapping_mul(7_919) % 100_000,
        row.wrapping_mul(104_729) % 20_000,
        row % 9 + 1,
        crate::START_MS as u64 + row,
    )
}

type Sender = ThreadedProducer<DefaultProducerContext>;

fn send(producer: &Sender, topic: &str, key: Option<&[u8]>, payload: &[u8]) -> anyhow::Result<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(payload);
    record.key = key;
    while let Err((error, refused)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
        record = refused;
    }
    Ok(())
}

/// `flush` of the crate sleeps while messages arrive.
fn flush(producer: &Sender) -> anyhow::Result<()> {
    let until = Instant::now() + ANSWER_MAX;
    while producer.in_flight_count() > 0 {
        ensure!(Instant::now() < until, "rows do not arrive");
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// The broker that this process started.
struct Broker(Server);

impl Broker {
    fn start(folder: &Path) -> Result<Broker, String> {
        Server::start("kafka/broker.sh", folder).map(Broker)
    }

    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.0.address);
        settings
    }

    /// With the host's own settings, so that the difference is not in them.
    fn producer(&self, more: &[(&str, &str)]) -> anyhow::Result<Sender> {
        let mut settings = self.settings();
        settings
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("batch.num.messages", "100000")
            .set("delivery.report.only.error", "true");
        for (name, value) in more {
            settings.set(*name, *value);
        }
        Ok(settings.create()?)
    }

    /// Reads all partitions; of transactions, only committed messages.
    fn consumer(&self, topic: &str, from: Offset) -> anyhow::Result<BaseConsumer> {
        let consumer: BaseConsumer = self
            .settings()
            .set("group.id", format!("bench-{topic}"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(topic, partition, from)?;
        }
        consumer.assign(&assignment)?;
        Ok(consumer)
    }

    fn create_topic(&self, name: &str, is_stamped: bool) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.settings().create()?;
        let mut topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
        if is_stamped {
            topic = topic.set("message.timestamp.type", "LogAppendTime");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let options = AdminOptions::new();
        for created in runtime.block_on(admin.create_topics(&[topic], &options))? {
            if let Err((name, code)) = created {
                bail!("topic {name} cannot be created: {code}");
            }
        }
        // The broker answers before the topic can be written.
        let until = Instant::now() + ANSWER_MAX;
        loop {
            let metadata = admin.inner().fetch_metadata(Some(name), ANSWER_MAX)?;
            let partitions = metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions());
            let led = partitions.filter(|p| p.error().is_none() && p.leader() >= 0);
            if led.count() == PARTITIONS as usize {
                return Ok(());
            }
            ensure!(Instant::now() < until, "topic {name} has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
