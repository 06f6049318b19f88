//! How long a recommender takes to answer, with interactions that come by a socket: of each,
//! from when it was sent until the sink has its answer. An answer depends on all that came
//! before it in event time, so that it waits for the next interaction, too.

use std::io::{BufWriter, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::ValueEnum;
use serde_json::json;
use sluicebox::batch::Batch;
use sluicebox::checkpoint::snapshot::SinkSnapshot;
use sluicebox::clock::{Clock as _, SystemClock};
use sluicebox::connector::Description;
use sluicebox::element::CheckpointId;
use sluicebox::plan::NodeKind;
use sluicebox::plan::state::Delivery;
use sluicebox::plugin::PluginLoader;
use sluicebox::run::Job;
use sluicebox::schema::Schema;
use sluicebox::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError};

use crate::state::brief;
use crate::{Arguments, Variant, of_source, plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    RecommendLatency,
}

/// Few enough for their profiles, and the models of items, to be full in the end.
const USERS: u64 = 500;
const ITEMS: u64 = 2_000;
/// Sent as fast as the pipeline takes them, so that profiles and models are full.
const FIRST: u64 = 40_000;
/// Sent the same way after them, to measure what full load is.
const FULL: u64 = 20_000;
/// How long half of that load takes.
const SECONDS: u64 = 10;
/// How long the pipeline may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

pub fn measure(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    let cores = std::thread::available_parallelism()?.get();
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let source = format!(
        r#"
        type = "tcp"
        listen = "{address}"
        connections = 1
        event_time = "ts"
        fields = {{ user_id = "utf8", item_id = "utf8", action = "utf8", ts = "timestamp(ms)" }}
        "#
    );
    let case = crate::Case::Recommend;
    let text = of_source(arguments, &source, case, Variant::Wasm, cores)?;
    let answers = Arc::new(Mutex::new(Answers {
        count: 0,
        latencies_ms: Vec::new(),
        since_ms: i64::MAX,
    }));
    let mut plan = plan(&text, &PluginLoader::new()?)?;
    for node in &mut plan.nodes {
        if let NodeKind::Sink(sink) = &mut node.kind {
            sink.connector = Box::new(Observer(answers.clone()));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?;
    let job = Job::new(plan, Arc::new(SystemClock)).on_threads(cores);
    let run = runtime.spawn(job.run());
    let mut sender = Sender::connect(&address.to_string())?;
    let count = || lock(&answers).count;
    sender.send(FIRST, f64::MAX)?;
    sender.wait_until_answered(count)?;
    let (began, before) = (Instant::now(), count());
    sender.send(FULL, f64::MAX)?;
    sender.wait_until_answered(count)?;
    let full_rate = (count() - before) as f64 / began.elapsed().as_secs_f64();
    lock(&answers).since_ms = SystemClock.now_ms();
    let rate = full_rate / 2.0;
    let began = Instant::now();
    let rows = (rate * SECONDS as f64) as u64;
    sender.send(rows, rate)?;
    let seconds = began.elapsed().as_secs_f64();
    sender.wait_until_answered(count)?;
    let mut latencies_ms = std::mem::take(&mut lock(&answers).latencies_ms);
    drop(sender);
    let summary = runtime.block_on(run)??;
    let lost = summary.nodes.iter().map(|node| node.failed + node.rejected);
    ensure!(lost.sum::<u64>() == 0, "rows were lost");
    latencies_ms.sort_unstable();
    let at = |part: f64| {
        let last = latencies_ms.len().saturating_sub(1);
        latencies_ms.get((last as f64 * part) as usize)
    };
    let result = json!({
        "case": "recommend_latency",
        "cores": cores,
        "rows": rows,
        "seconds": seconds,
        "rows_per_second": rows as f64 / seconds,
        "full_rows_per_second": full_rate,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    });
    eprintln!("recommend_latency: {}", brief(&result));
    Ok(vec![result])
}

/// What has come into the sink.
struct Answers {
    count: u64,
    /// Only of what was sent since then.
    latencies_ms: Vec<i64>,
    since_ms: i64,
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sender {
    stream: BufWriter<TcpStream>,
    sent: u64,
    /// The time of the last one, and how many have it.
    last_ms: i64,
    of_last: u64,
}

impl Sender {
    fn connect(address: &str) -> anyhow::Result<Sender> {
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() > ANSWER_MAX => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_nodelay(true)?;
        Ok(Sender {
            stream: BufWriter::new(stream),
            sent: 0,
            last_ms: 0,
            of_last: 0,
        })
    }

    /// Sends interactions with the time of now, so many in a second.
    fn send(&mut self, rows: u64, rate: f64) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut sent = 0;
        while sent < rows {
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            while sent < due.min(rows) {
                let row = self.sent;
                let now_ms = SystemClock.now_ms();
                if now_ms > self.last_ms {
                    (self.last_ms, self.of_last) = (now_ms, 0);
                }
                writeln!(
                    self.stream,
                    r#"{{"user_id":"user-{}","item_id":"item-{}","action":"view","ts":{}}}"#,
                    row.wrapping_mul(7_919) % USERS,
                    row.wrapping_mul(104_729) / 13 % ITEMS,
                    self.last_ms
                )?;
                self.of_last += 1;
                self.sent += 1;
                sent += 1;
            }
            self.stream.flush()?;
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Waits until all are answered but the last ones, which wait for a later time.
    fn wait_until_answered(&self, count: impl Fn() -> u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while count() < self.sent - self.of_last {
            if began.elapsed() > ANSWER_MAX {
                bail!("{} of {} rows were answered", count(), self.sent);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Notes when answers come.
struct Observer(Arc<Mutex<Answers>>);

impl SinkConnector for Observer {
    fn describe(&self) -> Description {
        Description {
            connector: "observer",
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(&self, _: &str, _: &Arc<Schema>, _: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(Observer(self.0.clone())))
    }
}

impl Sink for Observer {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let now_ms = SystemClock.now_ms();
        let mut answers = lock(&self.0);
        answers.count += batch.rows() as u64;
        let since_ms = answers.since_ms;
        let times = batch.times.iter().filter(|&&time_ms| time_ms >= since_ms);
        answers
            .latencies_ms
            .extend(times.map(|time_ms| now_ms - time_ms));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}
