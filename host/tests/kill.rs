//! Kills a real host between topics of a real broker again and again: another reader
//! (kcat) must see in the end what a run without kills writes.
//!
//! `SLUICEBOX_KILLS` is how often it is killed, and `SLUICEBOX_SEED` repeats random
//! choices, though not exact times. `SLUICEBOX_HOST` is the binary to kill; the default
//! is the one that was just built, which must not be rebuilt during an hour's campaign.

/// A real broker.
#[path = "common/kafka.rs"]
#[expect(dead_code, reason = "some of it is for tests of Kafka alone")]
mod kafka;
/// Plugins, built once.
#[expect(dead_code, reason = "the host that is killed loads its own plugins")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Runs that are killed.
#[path = "common/killed.rs"]
#[expect(dead_code, reason = "the rounds here are its own, with a broker")]
mod killed;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use fastrand::Rng;
use sluicebox::checkpoint::crash::PLACES;

use harness::{Absent, Outcome};
use kafka::{Broker, Record};
use killed::{RUN_MAX, number, start, tail, wait};

tests![nothing_is_lost_or_doubled_by_kills,];

/// In CI: each named place, the broker, and a few moments.
const KILLS: usize = PLACES.len() + 1 + 4;

const PARTITIONS: i32 = 4;
const ROWS_A_PARTITION: i64 = 50_000;

/// Memory for all states, and for a part of them, in turn.
const MEMORIES: [&str; 2] = ["256MiB", "1MiB"];

/// What a pipeline writes.
const OUTPUTS: [&str; 3] = ["kept", "carts", "added"];

/// How many runs may fail without having been killed.
const FAILURES_MAX: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Kill {
    /// At this time after the start.
    After(Duration),
    /// When it reaches this place for the nth time.
    At(&'static str, u32),
    /// First the broker, at this time after the start, and then the host.
    Broker(Duration, Duration),
}

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    kafka::broker()?;
    if !has_kcat() {
        let missing = "kcat is missing (apt-get install kcat)";
        assert!(
            !kafka::scripted::is_ci(),
            "{missing}, which CI must not do without"
        );
        return Err(Absent(missing.to_owned()));
    }
    // A broker of its own, which may be killed.
    let broker = Broker::start().expect("a broker of its own");
    let kills = number("SLUICEBOX_KILLS").map_or(KILLS, |kills| kills as usize);
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{kills} kills, SLUICEBOX_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let campaign = Campaign::prepare(&broker, seed);

    let mut done = 0;
    let mut round = 0;
    while done < kills {
        round += 1;
        let log = campaign.run_killed(round, &mut done, kills, &mut random);
        campaign.compare(round, &log);
        eprintln!("round {round}: {done} of {kills} kills, nothing lost, nothing doubled");
    }
    Ok(())
}

/// Every place comes first, then the broker, then moments.
fn draw(number: usize, random: &mut Rng) -> Kill {
    let moment = |random: &mut Rng| Duration::from_millis(random.u64(20..2_000));
    if let Some((place, _)) = PLACES.get(number) {
        return Kill::At(place, random.u32(1..4));
    }
    if number == PLACES.len() {
        return Kill::Broker(moment(random), moment(random));
    }
    match random.u32(0..6) {
        0 => Kill::Broker(moment(random), moment(random)),
        1..=2 => Kill::At(PLACES[random.usize(0..PLACES.len())].0, random.u32(1..8)),
        _ => Kill::After(moment(random)),
    }
}

/// The input, and the output of a run without kills.
struct Campaign<'a> {
    broker: &'a Broker,
    folder: tempfile::TempDir,
    plugin: PathBuf,
    expected: HashMap<&'static str, HashMap<String, i64>>,
}

impl<'a> Campaign<'a> {
    fn prepare(broker: &'a Broker, seed: u64) -> Self {
        let mut campaign = Campaign {
            broker,
            folder: tempfile::tempdir().expect("a temporary folder"),
            plugin: common::plugin_file("cart"),
            expected: HashMap::new(),
        };
        broker.create_topic("actions", PARTITIONS);
        let mut random = Rng::with_seed(seed);
        for partition in 0..PARTITIONS {
            broker.write("actions", partition, &actions(partition, &mut random));
        }
        campaign.create_outputs(0);
        let pipeline = campaign.write_pipeline(0);
        let log = campaign.folder.path().join("0.log");
        let mut host = start(&pipeline, &log, None);
        let ended = wait(&mut host, RUN_MAX);
        let ended = ended.unwrap_or_else(|| panic!("it does not end:\n{}", tail(&log)));
        assert!(ended.success(), "{ended}\n{}", tail(&log));
        for output in OUTPUTS {
            let rows = campaign.read(output, 0);
            assert!(!rows.is_empty(), "nothing came to {output}");
            campaign.expected.insert(output, rows);
        }
        campaign
    }

    fn create_outputs(&self, round: usize) {
        for output in OUTPUTS {
            self.broker.create_topic(&format!("{output}-{round}"), 2);
        }
    }

    fn write_pipeline(&self, round: usize) -> PathBuf {
        let path = self.folder.path().join(format!("{round}.toml"));
        let text = format!(
            r#"
            name = "kill-{round}"
            parallelism = 2
            batch_rows = 500
            [plugins.cart]
            path = "{plugin}"
            [state]
            path = "{round}.state"
            memory = "{memory}"
            [checkpoints]
            interval = "50ms"
            [restart]
            strategy = "fixed"
            delay = "100ms"
            failures = 100
            [sources.actions]
            type = "kafka"
            brokers = "{broker}"
            topic = "actions"
            until = "end"
            event_time = "ts"
            fields = {{ user_id = "utf8", item_id = "utf8", action = "add|remove|view", quantity = "int64", ts = "timestamp" }}
            [operators.clean]
            plugin = "cart.clean"
            input = "actions"
            [operators.carts]
            plugin = "cart.running_cart"
            input = "clean"
            key = ["user_id", "item_id"]
            window = "running"
            [operators.added]
            plugin = "cart.added"
            input = "clean"
            key = "user_id"
            window = {{ tumbling = "10s" }}
            [sinks.to_kept]
            type = "kafka"
            input = "clean"
            brokers = "{broker}"
            topic = "kept-{round}"
            key = "user_id"
            [sinks.to_carts]
            type = "kafka"
            input = "carts"
            brokers = "{broker}"
            topic = "carts-{round}"
            key = "user_id"
            [sinks.to_added]
            type = "kafka"
            input = "added"
            brokers = "{broker}"
            topic = "added-{round}"
            "#,
            memory = MEMORIES[round % MEMORIES.len()],
            plugin = self.plugin.display(),
            broker = self.broker.address,
        );
        std::fs::write(&path, text).expect("it is writable");
        path
    }

    /// Kills the pipeline and starts it again until it has ended by itself.
    fn run_killed(
        &self,
        round: usize,
        done: &mut usize,
        kills: usize,
        random: &mut Rng,
    ) -> PathBuf {
        self.create_outputs(round);
        let pipeline = self.write_pipeline(round);
        let log = self.folder.path().join(format!("{round}.log"));
        let mut failures = 0;
        loop {
            let kill = (*done < kills).then(|| draw(*done, random));
            let ended = self.run_once(&pipeline, &log, kill);
            match (kill, ended) {
                // It may have ended before the kill.
                (_, Some(ended)) if ended.success() => return log,
                (Some(kill), Some(ended)) if ended.code().is_some() => {
                    failures += 1;
                    let said = tail(&log);
                    assert!(
                        failures < FAILURES_MAX,
                        "it fails: {kill:?}: {ended}\n{said}"
                    );
                }
                (Some(kill), ended) => {
                    *done += 1;
                    let how = ended.map_or("SIGKILL".to_owned(), |ended| ended.to_string());
                    eprintln!("kill {done}: {kill:?}: {how}");
                }
                (None, ended) => panic!("it does not end: {ended:?}\n{}", tail(&log)),
            }
        }
    }

    /// `None` if it had to be killed from outside.
    fn run_once(&self, pipeline: &Path, log: &Path, kill: Option<Kill>) -> Option<ExitStatus> {
        match kill {
            None => {
                let mut host = start(pipeline, log, None);
                let ended = wait(&mut host, RUN_MAX);
                end(&mut host);
                ended
            }
            Some(Kill::After(time)) => {
                let mut host = start(pipeline, log, None);
                let ended = wait(&mut host, time);
                end(&mut host);
                ended
            }
            Some(Kill::At(place, times)) => {
                let mut host = start(pipeline, log, Some(format!("{place}:{times}")));
                let ended = wait(&mut host, Duration::from_secs(20));
                end(&mut host);
                ended
            }
            Some(Kill::Broker(before, after)) => {
                let mut host = start(pipeline, log, None);
                let ended = wait(&mut host, before);
                self.broker.restart();
                let ended = ended.or_else(|| wait(&mut host, after));
                end(&mut host);
                ended
            }
        }
    }

    fn compare(&self, round: usize, log: &Path) {
        for output in OUTPUTS {
            let found = self.read(output, round);
            let expected = &self.expected[output];
            let count =
                |rows: &HashMap<String, i64>, row: &str| rows.get(row).copied().unwrap_or(0);
            let beyond = |these: &HashMap<String, i64>, others: &HashMap<String, i64>| -> i64 {
                let beyond = these.iter().map(|(row, n)| n - count(others, row));
                beyond.filter(|&n| n > 0).sum()
            };
            let (lost, doubled) = (beyond(expected, &found), beyond(&found, expected));
            assert!(
                lost == 0 && doubled == 0,
                "{output} in round {round}: {lost} rows lost, {doubled} doubled; the log is\n{}",
                tail(log)
            );
        }
    }

    /// What another program sees, with how often it is there.
    fn read(&self, output: &str, round: usize) -> HashMap<String, i64> {
        let topic = format!("{output}-{round}");
        let read = Command::new("kcat")
            .args(["-C", "-q", "-e", "-b", &self.broker.address, "-t", &topic])
            .args(["-o", "beginning", "-X", "isolation.level=read_committed"])
            .args(["-f", "%k %s\n"])
            .output()
            .expect("kcat runs");
        let errors = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "kcat: {errors}");
        let mut rows = HashMap::new();
        for row in String::from_utf8_lossy(&read.stdout).lines() {
            *rows.entry(row.to_owned()).or_insert(0) += 1;
        }
        rows
    }
}

/// The actions of one partition's users, in order of time.
fn actions(partition: i32, random: &mut Rng) -> Vec<Record> {
    let row = |number: i64| {
        let user = format!("user-{partition}-{}", random.u32(0..200));
        let item = random.u32(0..50);
        let action = ["add", "remove", "view"][random.usize(0..3)];
        let quantity = random.u32(1..9);
        let ts = 1_700_000_000_000 + number * 5;
        let payload = format!(
            "{{\"user_id\":\"{user}\",\"item_id\":\"item-{item}\",\"action\":\"{action}\",\
             \"quantity\":{quantity},\"ts\":{ts}}}"
        );
        Record {
            key: Some(user),
            payload,
            headers: Vec::new(),
        }
    };
    (0..ROWS_A_PARTITION).map(row).collect()
}

/// Kills the host by SIGKILL if it still runs.
fn end(host: &mut Child) {
    // It may have ended by itself in between.
    let _ = host.kill();
    host.wait().expect("it is our child");
}

fn has_kcat() -> bool {
    let found = Command::new("kcat").arg("-V").output();
    found.is_ok_and(|kcat| kcat.status.success())
}
