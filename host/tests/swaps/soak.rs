//! A service that is used for long: plugins change, good and bad, pipelines come and go,
//! files are half written, people look at states and rows, the host is stopped and killed.
//! Rows stay right, and the host does not grow.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use serde_json::Value;

use crate::harness::Outcome;
use crate::kafka::Broker;
use crate::service::Service;
use crate::{BAD, GOOD, Over, Version, decide, kafka, number, pipeline, until_rows, write};

const NAME: &str = "used";
/// How often rows are written.
const EVERY: Duration = Duration::from_millis(40);
/// How long the reader waits for rows when all are written.
const PATIENCE: Duration = Duration::from_secs(90);
/// From which length on it is judged whether the host grows: before, it still warms up.
const JUDGED: Duration = Duration::from_secs(300);

/// What people do to a service, by chance.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Another parameter of a plugin.
    Good,
    /// A plugin that fails on some rows, or all.
    Bad,
    /// Other bytes of a plugin.
    Rebuilt,
    /// A key that the state does not have.
    Refused,
    /// A file that is no pipeline.
    Broken,
    /// A pipeline more, and after a while one less.
    Guest,
    Pause,
    /// States, rows, metrics.
    Look,
    /// The host, by SIGKILL and by SIGTERM.
    Kill,
    Stop,
}

const EVENTS: [Event; 12] = [
    Event::Good,
    Event::Good,
    Event::Bad,
    Event::Bad,
    Event::Rebuilt,
    Event::Refused,
    Event::Broken,
    Event::Guest,
    Event::Guest,
    Event::Pause,
    Event::Look,
    Event::Look,
];

/// What the process takes at a moment.
#[derive(Clone, Copy)]
struct Sample {
    memory_kib: u64,
    files: usize,
    threads: usize,
    /// Lines of `/metrics`.
    series: usize,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB, {} files, {} threads, {} series",
            self.memory_kib / 1024,
            self.files,
            self.threads,
            self.series
        )
    }
}

pub fn a_service_in_use_stays_as_it_is() -> Outcome {
    let broker = kafka::broker()?;
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let length = Duration::from_secs(number("SLUICEBOX_SOAK").unwrap_or(15));
    eprintln!("{length:?} of use, SEED={seed}");
    let topics = ["in", "out", "counts"].map(|it| format!("{NAME}-{it}"));
    for (topic, partitions) in topics.iter().zip([2, 2, 1]) {
        broker.create_topic(topic, partitions);
    }
    let mut used = Used {
        service: Service::start(&[(NAME, &counting(broker, &topics, (&GOOD, 0), "id"))]),
        broker,
        topics: topics.clone(),
        random: Rng::with_seed(seed),
        number: 0,
        guests: VecDeque::new(),
    };
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let reader = broker.follow(&[(&topics[1], 2), (&topics[2], 1)]);
    let (seen, samples) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(broker, &topics[0], EVERY, &is_over, &written));
        let reader = scope.spawn(|| read(&reader, &topics, &is_over, &written));
        let over = Over(&is_over);
        let samples = used.use_for(length);
        drop(over);
        writer.join().expect("all are written");
        (reader.join().expect("all are read"), samples)
    });
    let written = written.load(Ordering::SeqCst);
    assert_eq!(seen.rows, written, "SEED={seed}");
    assert_eq!(seen.again, 0, "SEED={seed}");
    assert_eq!(seen.counted, written, "SEED={seed}");
    let third = samples.len() / 3;
    let early = greatest(&samples[..third]);
    let late = greatest(&samples[samples.len() - third..]);
    eprintln!(
        "{} events, {written} rows, none lost, none doubled; after the last kill: {early}; at the \
         end: {late}",
        used.number
    );
    if length >= JUDGED {
        let most = early.memory_kib * 11 / 10 + 8 * 1024;
        assert!(late.memory_kib <= most, "memory grows: {early}; {late}");
        assert!(late.files <= early.files + 4, "files: {early}; {late}");
        assert!(late.threads <= early.threads + 4, "{early}; {late}");
        assert!(late.series <= early.series + 40, "series: {early}; {late}");
    }
    Ok(())
}

/// The most of all, and the middle number of series.
fn greatest(samples: &[Sample]) -> Sample {
    let most = |of: fn(&Sample) -> usize| samples.iter().map(of).max().unwrap_or_default();
    Sample {
        memory_kib: most(|it| it.memory_kib as usize) as u64,
        files: most(|it| it.files),
        threads: most(|it| it.threads),
        series: middle(samples.iter().map(|it| it.series).collect()),
    }
}

/// Pipelines that come and go have series, at some moments one more than at others.
fn middle(mut of: Vec<usize>) -> usize {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// The pipeline of the other tests, whose rows are counted as well.
fn counting(
    broker: &Broker,
    topics: &[String; 3],
    (version, number): (&Version, u64),
    key: &str,
) -> String {
    let [from, to, counts] = topics;
    format!(
        r#"{}
        [operators.counted]
        aggregate = {{ rows = "count()" }}
        key = "{key}"
        window = {{ tumbling = "1s", time = "processing" }}
        input = "rows"
        [sinks.counts]
        type = "kafka"
        brokers = "{}"
        topic = "{counts}"
        input = "counted"
        "#,
        pipeline(broker, NAME, [from, to], version, number),
        broker.address
    )
}

const GUEST: &str = r#"
    [sources.actions]
    type = "generator"
    rate = 50
    [operators.counted]
    aggregate = { rows = "count()" }
    key = "user_id"
    window = "running"
    input = "actions"
    [sinks.out]
    type = "blackhole"
    input = "counted"
"#;

struct Used {
    service: Service,
    broker: &'static Broker,
    topics: [String; 3],
    random: Rng,
    /// Of events.
    number: u64,
    /// The pipelines that will go.
    guests: VecDeque<String>,
}

impl Used {
    /// Things happen, and in the first third the host is killed and stopped, too. Returns
    /// samples of the process that began last.
    fn use_for(&mut self, length: Duration) -> Vec<Sample> {
        self.service.until_phase("running");
        until_rows(&self.service);
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed() < length {
            self.number += 1;
            let is_disturbed = began.elapsed() < length / 3;
            let event = match self.random.u8(..8) {
                0 if is_disturbed => Event::Kill,
                1 if is_disturbed => Event::Stop,
                _ => EVENTS[self.random.usize(..EVENTS.len())],
            };
            self.happen(event);
            if !is_disturbed {
                samples.push(self.sample());
            }
            std::thread::sleep(Duration::from_millis(self.random.u64(..500)));
        }
        samples
    }

    fn happen(&mut self, event: Event) {
        let good = self.text(&GOOD, "id");
        match event {
            Event::Good => self.decide("held", |it| it.write(NAME, &good)),
            Event::Bad => {
                let version = &BAD[self.random.usize(..BAD.len())];
                let bad = self.text(version, "id");
                self.decide(version.outcome, |it| it.write(NAME, &bad));
                // Else a start of the host would read the bad one.
                self.decide("held", |it| it.write(NAME, &good));
            }
            Event::Rebuilt => {
                let number = self.number;
                self.decide("held", |it| {
                    rebuild(&it.path("plugins/hostile.wasm"), number);
                });
            }
            Event::Refused => {
                let other = self.text(&GOOD, "n");
                self.decide("refused", |it| it.write(NAME, &other));
                self.decide("held", |it| it.write(NAME, &good));
            }
            Event::Broken => {
                fs::write(self.service.path("pipelines/broken.toml"), &good[..200])
                    .expect("writable");
                self.service.get("/api/v1/pipelines");
                let _ = fs::remove_file(self.service.path("pipelines/broken.toml"));
            }
            Event::Guest => {
                let name = format!("guest-{}", self.number);
                let text = format!("name = \"{name}\"\n{GUEST}");
                self.service.write(&name, &text);
                self.guests.push_back(name);
                if self.guests.len() > 3 {
                    let gone = self.guests.pop_front().expect("there are some");
                    let path = format!("/api/v1/pipelines/{gone}");
                    let (status, json) = self.service.ask("DELETE", &path, "");
                    assert!(status < 300, "{status} {json}");
                }
            }
            Event::Pause => {
                for (verb, phase) in [("pause", "paused"), ("start", "running")] {
                    let path = format!("/api/v1/pipelines/{NAME}/{verb}");
                    let (status, json) = self.service.ask("POST", &path, "");
                    assert!(status < 300, "{status} {json}");
                    self.service.until_phase(phase);
                }
                until_rows(&self.service);
            }
            Event::Look => self.look(),
            Event::Kill => self.begin_again(libc::SIGKILL),
            Event::Stop => self.begin_again(libc::SIGTERM),
        }
    }

    fn text(&self, version: &Version, key: &str) -> String {
        counting(self.broker, &self.topics, (version, self.number), key)
    }

    fn decide(&mut self, outcome: &str, change: impl FnOnce(&Service)) {
        decide(&mut self.service, outcome, None, change);
    }

    fn begin_again(&mut self, signal: i32) {
        self.service.end(signal);
        self.service.begin();
        self.service.until_phase("running");
        until_rows(&self.service);
    }

    fn look(&self) {
        let path = format!("/api/v1/pipelines/{NAME}/operators/counted/state");
        let state = self.service.get(&path);
        assert!(state["entries"].is_array(), "{state}");
        // Somebody looks at rows, and goes away in the middle of it.
        let mut tail = TcpStream::connect(self.service.address()).expect("it listens");
        let request = format!(
            "GET /api/v1/pipelines/{NAME}/tail?from=rows HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.service.address()
        );
        tail.write_all(request.as_bytes()).expect("it reads");
        let read = tail.read(&mut [0; 512]).expect("it answers");
        assert!(read > 0);
    }

    fn sample(&self) -> Sample {
        let of = |name: &str| {
            Path::new("/proc")
                .join(self.service.id().to_string())
                .join(name)
        };
        let status = fs::read_to_string(of("status")).expect("it runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory
            .expect("it has memory")
            .trim()
            .trim_end_matches(" kB");
        let count = |name| fs::read_dir(of(name)).expect("it runs").count();
        let (_, metrics) = self.service.ask("GET", "/metrics", "");
        let lines = metrics.as_str().expect("text").lines();
        Sample {
            memory_kib: memory.trim().parse().expect("a number"),
            files: count("fd"),
            threads: count("task"),
            series: lines.filter(|line| !line.starts_with('#')).count(),
        }
    }
}

/// Puts a section into a component that means nothing, in the place of one from before.
fn rebuild(plugin: &Path, number: u64) {
    // Its kind, its length, and its name with the length of that.
    const HEAD: &[u8] = b"\x00\x0e\x05built";
    let mut bytes = fs::read(plugin).expect("it is there");
    let before = bytes.len() - HEAD.len() - size_of::<u64>();
    if bytes[before..].starts_with(HEAD) {
        bytes.truncate(before);
    }
    bytes.extend(HEAD);
    bytes.extend(number.to_le_bytes());
    let beside = plugin.with_extension("new");
    fs::write(&beside, bytes).expect("writable");
    fs::rename(beside, plugin).expect("writable");
}

/// What has come out.
#[derive(Default)]
struct Seen {
    /// Different ones.
    rows: u64,
    again: u64,
    /// The sum of all counts.
    counted: u64,
}

/// Reads until all that was written has come out, and nothing more comes.
fn read(
    reader: &BaseConsumer,
    topics: &[String; 3],
    is_over: &AtomicBool,
    written: &AtomicU64,
) -> Seen {
    let mut seen = Seen::default();
    let mut is_known: Vec<bool> = Vec::new();
    let (mut ended, mut quiet) = (None, 0);
    while quiet < 10 {
        match reader.poll(Duration::from_millis(300)) {
            Some(Ok(message)) => {
                quiet = 0;
                let row: Value =
                    serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON");
                if message.topic() == topics[2] {
                    seen.counted += row["rows"].as_u64().expect("a count");
                    continue;
                }
                let n = row["n"].as_u64().expect("a number") as usize;
                is_known.resize(is_known.len().max(n + 1), false);
                match is_known[n] {
                    true => seen.again += 1,
                    false => seen.rows += 1,
                }
                is_known[n] = true;
            }
            // Where a partition ends, too.
            _ if is_over.load(Ordering::SeqCst) => {
                let began = *ended.get_or_insert_with(Instant::now);
                let all = written.load(Ordering::SeqCst);
                let has_all = seen.rows >= all && seen.counted >= all;
                quiet += u32::from(has_all || began.elapsed() > PATIENCE);
            }
            _ => {}
        }
    }
    seen
}
