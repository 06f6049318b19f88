//! Changes a served pipeline between topics of a real broker while rows come, with good
//! and bad plugins, and kills the service meanwhile: readers of what is committed see each
//! row once, and nothing of the bad ones.
//!
//! `SLUICEBOX_CHANGES` is how many changes there are, and `SEED` repeats random ones.
//! `SLUICEBOX_SOAK` is for how many seconds a service is used and disturbed in many ways.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// A real broker.
#[expect(dead_code, reason = "some of it is for other tests")]
#[path = "common/kafka.rs"]
mod kafka;
/// A service in a folder of its own.
#[expect(dead_code, reason = "some of it is for other tests")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;
/// A service that is used for long.
#[path = "swaps/soak.rs"]
mod soak;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use sluicebox::clock::{Clock, SystemClock};

use harness::Outcome;
use kafka::Broker;
use service::Service;
use soak::a_service_in_use_stays_as_it_is;

tests![
    changes_under_load_lose_and_double_no_row,
    changes_and_kills_lose_and_double_no_row,
    a_service_in_use_stays_as_it_is,
];

/// How many rows are written at once, and how often.
const ROWS: u64 = 20;
const EVERY: Duration = Duration::from_millis(10);

/// What a plugin is changed to, and what becomes of that.
struct Version {
    plugin: &'static str,
    parameters: &'static str,
    outcome: &'static str,
}

impl Version {
    const fn bad(parameters: &'static str) -> Version {
        Version {
            plugin: "recount",
            parameters,
            outcome: "taken_back",
        }
    }
}

const GOOD: Version = Version {
    plugin: "recount",
    parameters: "mode = \"nothing\"",
    outcome: "held",
};

/// At once, on one key, after a while, all rejected, an endless loop, instances that fail
/// after some rows, none of which is to blame, many times slower, and with another state.
const BAD: [Version; 8] = [
    Version::bad("mode = \"panic\""),
    Version::bad("mode = \"trap\", at = \"id-7\""),
    Version::bad("mode = \"allocate\", at = \"id-19\""),
    Version::bad("mode = \"reject\""),
    Version::bad("mode = \"loop\", at = \"id-3\""),
    Version::bad("mode = \"tire\""),
    Version::bad("mode = \"slow\""),
    Version {
        plugin: "recount_in_text",
        parameters: "",
        outcome: "refused",
    },
];

fn changes_under_load_lose_and_double_no_row() -> Outcome {
    change("calm", false)
}

fn changes_and_kills_lose_and_double_no_row() -> Outcome {
    change("killed", true)
}

fn change(name: &str, with_kills: bool) -> Outcome {
    let broker = kafka::broker()?;
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let changes = number("SLUICEBOX_CHANGES").unwrap_or(6);
    eprintln!("{changes} changes, SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let topics = [format!("{name}-in"), format!("{name}-out")];
    for topic in &topics {
        broker.create_topic(topic, 2);
    }
    let pipeline = |version: &Version, number| {
        pipeline(broker, name, [&topics[0], &topics[1]], version, number)
    };
    let service = Service::start(&[(name, &pipeline(&GOOD, 0))]);
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (pauses, at) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(broker, &topics[0], EVERY, &is_over, &written));
        let over = Over(&is_over);
        let (service, bad, at) =
            disturb(service, name, changes, with_kills, &mut random, &pipeline);
        drop(over);
        writer.join().expect("all are written");
        wait_for_all(&service, broker, &topics[1], written.load(Ordering::SeqCst));
        (tell(&service, bad), at)
    });
    let mut rows: Vec<(u64, u64)> = broker
        .read(&topics[1], true)
        .iter()
        .map(numbers_of)
        .collect();
    rows.sort_unstable();
    // Each time there is one row of each id, so its state has counted them.
    let expected: Vec<(u64, u64)> = (0..written.load(Ordering::SeqCst))
        .map(|n| (n, n / ROWS + 1))
        .collect();
    assert_eq!(rows.len(), expected.len(), "SEED={seed}");
    assert!(rows == expected, "SEED={seed}");
    eprintln!(
        "{} rows, none lost, none doubled, all states right; tasks paused for p50, p99 in ms: {pauses:?}; longest \
         pauses of output for each change, p50, p99 in ms: good {:?}, bad {:?}",
        rows.len(),
        parts(silences(&at[0], &broker.sent(&topics[1]))),
        parts(silences(&at[1], &broker.sent(&topics[1]))),
    );
    Ok(())
}

/// The `number` makes it another one: what was taken back is not tried again.
fn pipeline(
    broker: &Broker,
    name: &str,
    [from, to]: [&str; 2],
    version: &Version,
    number: u64,
) -> String {
    let Version {
        plugin, parameters, ..
    } = version;
    let amount = match parameters.is_empty() {
        true => String::new(),
        false => format!(", amount = {}", 2_000_000 + number),
    };
    format!(
        r#"
        # {number}
        name = "{name}"
        parallelism = 2
        plugins.hostile.path = "../plugins/hostile.wasm"
        [checkpoints]
        interval = "100ms"
        [sources.rows]
        type = "kafka"
        brokers = "{address}"
        topic = "{from}"
        fields = {{ id = "utf8", n = "int64" }}
        [operators.guarded]
        plugin = "hostile.{plugin}"
        parameters = {{ {parameters}{amount} }}
        limits = {{ time = "200ms", memory = "16MiB" }}
        key = "id"
        input = "rows"
        [sinks.out]
        type = "kafka"
        brokers = "{address}"
        topic = "{to}"
        input = "guarded"
        "#,
        address = broker.address
    )
}

/// The number that a variable has, if it has one.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Writes rows until it is over: `n` counts them, and each time there is one of each id.
fn write(broker: &Broker, topic: &str, every: Duration, is_over: &AtomicBool, written: &AtomicU64) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("linger.ms", "0")
        .create()
        .expect("a producer");
    while !is_over.load(Ordering::SeqCst) {
        let first = written.load(Ordering::SeqCst);
        for n in first..first + ROWS {
            let row = format!("{{\"id\":\"id-{}\",\"n\":{n}}}", n % ROWS);
            let message = BaseRecord::<str, str>::to(topic)
                .partition((n % 2) as i32)
                .payload(&row);
            let sent = producer.send(message);
            sent.map_err(|(error, _)| error).expect("room");
        }
        // To flush would take a tenth of a second.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        written.store(first + ROWS, Ordering::SeqCst);
        std::thread::sleep(every);
    }
}

/// Ends the writing, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Makes changes, one in three of them bad, and waits until each has held or was taken
/// back, or kills the service before. Returns how many were bad, and when good ones and bad
/// ones began and were decided, in ms.
fn disturb(
    mut service: Service,
    name: &str,
    changes: u64,
    with_kills: bool,
    random: &mut Rng,
    pipeline: &dyn Fn(&Version, u64) -> String,
) -> (Service, usize, [Vec<Range<i64>>; 2]) {
    let (mut bad, mut at) = (0, [Vec::new(), Vec::new()]);
    let clock = SystemClock;
    service.until_phase("running");
    until_rows(&service);
    std::thread::sleep(Duration::from_millis(700));
    for number in 0..changes {
        let is_bad = number % 3 == 1;
        let version = match is_bad {
            true => &BAD[random.usize(..BAD.len())],
            false => &GOOD,
        };
        bad += usize::from(is_bad);
        let kill_after = (with_kills && random.bool()).then(|| random.u64(..900));
        let began = clock.now_ms();
        decide(
            &mut service,
            version.outcome,
            kill_after.map(Duration::from_millis),
            |service| service.write(name, &pipeline(version, 1 + number)),
        );
        at[usize::from(is_bad)].push(began..clock.now_ms());
    }
    (service, bad, at)
}

/// Makes a change, perhaps kills the service a while after, and waits until the change has
/// this outcome and rows come again.
fn decide(
    service: &mut Service,
    outcome: &str,
    kill_after: Option<Duration>,
    change: impl FnOnce(&Service),
) {
    let last = |shop: &Value| shop["changes"].as_array()?.last().cloned();
    let digest = |change: Option<&Value>| change.map_or(Value::Null, |it| it["digest"].clone());
    let before = digest(last(&service.shop()).as_ref());
    change(service);
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        service.end(libc::SIGKILL);
        service.begin();
    }
    service.until(outcome, |shop| {
        // Not of the change before.
        let is_new = |last: &Value| digest(Some(last)) != before;
        last(shop).is_some_and(|last| last["outcome"] == outcome && is_new(&last))
            && shop["phase"] == "running"
    });
    until_rows(service);
}

/// Waits until the sink of the run has rows.
fn until_rows(service: &Service) {
    service.until("rows", |shop| {
        let nodes = shop["revision"]["nodes"].as_array();
        let sink = nodes.and_then(|nodes| nodes.last());
        sink.is_some_and(|sink| sink["rows_in"].as_u64() > Some(0))
    });
}

fn wait_for_all(service: &Service, broker: &Broker, topic: &str, rows: u64) {
    service.until("all rows", |_| {
        broker.read(topic, true).len() as u64 >= rows
    });
}

/// Checks the history, and returns the pauses of output: the middle one, and the longest
/// but one in a hundred.
fn tell(service: &Service, bad: usize) -> [i64; 2] {
    let shop = service.shop();
    let changes = shop["changes"].as_array().expect("changes");
    let of = |outcome: &str| {
        changes
            .iter()
            .filter(|change| change["outcome"] == outcome)
            .count()
    };
    // The history has the last hundred.
    let not_held = of("taken_back") + of("refused");
    assert!(not_held >= bad.min(30), "{changes:?}");
    let pauses = changes
        .iter()
        .filter_map(|change| change["pause_ms"].as_u64());
    parts(pauses.map(|pause| pause as i64).collect())
}

/// The middle one, and the longest but one in a hundred.
fn parts(mut of: Vec<i64>) -> [i64; 2] {
    of.sort_unstable();
    let at = |part: usize| of.get(of.len() * part / 100).copied();
    [50, 99].map(|part| at(part).unwrap_or_default())
}

/// For each span, how long nothing was put out at most.
fn silences(spans: &[Range<i64>], sent: &[i64]) -> Vec<i64> {
    let mut sent = sent.to_vec();
    sent.sort_unstable();
    let longest = |span: &Range<i64>| {
        let within = sent.iter().copied().filter(|at| span.contains(at));
        let times: Vec<i64> = [span.start].into_iter().chain(within).collect();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(span.end - span.start)
    };
    spans.iter().map(longest).collect()
}

/// The number of a row, and that among those of its id.
fn numbers_of(record: &kafka::Record) -> (u64, u64) {
    let row: Value = serde_json::from_str(&record.payload).expect("JSON");
    let number = |field: &str| row[field].as_u64().expect("a number");
    (number("n"), number("number"))
}
