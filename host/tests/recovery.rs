//! Tests that recovery never changes the rows. A seed decides the order in which tasks
//! run, when checkpoints are made, when everything is killed and restored at another
//! parallelism and batch size, and which commits lose their answers.

/// Plugins, built once.
mod common;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sluicebox::checkpoint::storage::Storage;
use sluicebox::checkpoint::storage::memory::MemoryStorage;
use sluicebox::checkpoint::transaction::memory::{Lost, MemoryTransaction};
use sluicebox::clock::ManualClock;
use sluicebox::plan::{Delivery, StateBackend, StatePlan};
use sluicebox::run::{Durable, Job};
use sluicebox::testing::simulation::{Ended, Simulation};
use sluicebox::topic::MemoryTopic;
use tempfile::TempDir;

use pipeline::{assert_same, plan_of, rows_of, run, to_memory, to_topic};

/// Every seed is another run of one of the pipelines.
const SEEDS: u64 = 240;

/// `SEED=n` runs only this seed, and prints what happens.
const VARIABLE: &str = "SEED";

/// Kills and lost answers in a run, at most.
const TROUBLES_MAX: usize = 6;

#[test]
fn rows_are_the_same_whatever_happens() {
    let folder = inputs();
    let expected: Vec<Outcome> = PIPELINES
        .iter()
        .map(|pipeline| undisturbed(pipeline, folder.path()))
        .collect();
    for (pipeline, expected) in PIPELINES.iter().zip(&expected) {
        assert!(!expected.rows.is_empty(), "{} has rows", pipeline.name);
    }
    let only = std::env::var(VARIABLE)
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut kills = 0;
    let mut restored = 0;
    for seed in seeds {
        let at = (seed % PIPELINES.len() as u64) as usize;
        let happened = disturbed(seed, &PIPELINES[at], folder.path(), &expected[at]);
        kills += happened.kills;
        restored += happened.restored;
        if only.is_some() {
            println!("{happened:?}");
        }
    }
    if only.is_none() {
        // With fewer kills the test would test little.
        assert!(kills > SEEDS as usize, "{kills} kills");
        assert!(
            restored > SEEDS as usize,
            "{restored} went on from a checkpoint"
        );
    }
}

struct Pipeline {
    name: &'static str,
    text: &'static str,
    /// Whether results may be corrected: the last one of a key and window counts. How
    /// often it is corrected depends on which late rows come together.
    corrects: bool,
}

/// Each has its results in `out`.
const PIPELINES: [Pipeline; 11] = [
    Pipeline {
        name: "tumbling, late rows and corrections",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { tumbling = "5s" }
            allowed_lateness = "2s"
            "#,
    },
    Pipeline {
        name: "sliding, with many panes",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { sliding = "20s", every = "1s" }
            "#,
    },
    Pipeline {
        name: "sliding with corrections",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { sliding = "6s", every = "2s" }
            allowed_lateness = "3s"
            "#,
    },
    Pipeline {
        name: "sessions",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { session = "3s" }
            "#,
    },
    Pipeline {
        name: "count",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = ["key", "letter"]
            window = { count = 7 }
            "#,
    },
    Pipeline {
        name: "running",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = "running"
            "#,
    },
    Pipeline {
        name: "running, forgotten after a while",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = ["key", "letter"]
            window = "running"
            ttl = "3s"
            "#,
    },
    Pipeline {
        name: "no key",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            window = { tumbling = "2s" }
            "#,
    },
    Pipeline {
        name: "a window of windows",
        corrects: false,
        text: r#"
            [operators.first]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { tumbling = "2s" }

            [operators.result]
            plugin = "basics.count"
            input = "first"
            key = "key"
            window = { sliding = "10s", every = "5s" }
            "#,
    },
    Pipeline {
        name: "late rows beside results",
        corrects: true,
        text: r#"
            [operators.slow]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { tumbling = "1s" }

            [operators.result]
            plugin = "basics.stats"
            input = "slow.late"
            key = "key"
            window = { tumbling = "5s" }
            allowed_lateness = "1h"
            "#,
    },
    Pipeline {
        name: "event time from an operator",
        corrects: false,
        text: r#"
            [sources.lines]
            type = "file"
            path = "in.jsonl"
            format = "raw"
            fields = { line = "utf8" }

            [operators.parsed]
            plugin = "basics.parse"
            input = "lines"
            event_time = "ts"
            watermark = { out_of_orderness = "1s" }

            [operators.result]
            plugin = "basics.stats"
            input = "parsed"
            key = "key"
            window = { tumbling = "5s" }
            "#,
    },
];

/// The output of a run.
struct Outcome {
    rows: Vec<Value>,
    dead_letters: Vec<Value>,
}

#[derive(Debug, Default)]
struct Happened {
    kills: usize,
    lost: usize,
    restored: usize,
    checkpoints: u64,
}

/// A file of events, somewhat out of order, with a broken one here and there.
fn inputs() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = String::new();
    for number in 0..400i64 {
        if random.u8(0..60) == 0 {
            text.push_str("{\"key\": broken\n");
            continue;
        }
        let key = random.u8(0..12);
        let ts = number * 150 - random.i64(0..2_500);
        let n = random.i64(0..100);
        let letter = random.u8(0..3);
        let row =
            json!({"key": format!("k{key}"), "n": n, "letter": format!("l{letter}"), "ts": ts});
        text.push_str(&format!("{row}\n"));
    }
    std::fs::write(folder.path().join("in.jsonl"), text).expect("it is writable");
    folder
}

fn text_of(pipeline: &Pipeline) -> String {
    format!(
        r#"
        name = "test"
        plugins.basics.path = {:?}
        dead_letters = "dead.jsonl"

        [sources.events]
        type = "file"
        path = "in.jsonl"
        event_time = "ts"
        watermark = {{ out_of_orderness = "1s" }}
        fields = {{ key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }}

        {}

        [sinks.out]
        type = "blackhole"
        input = "result"
        "#,
        common::plugin_file("basics"),
        pipeline.text
    )
}

fn undisturbed(pipeline: &Pipeline, folder: &Path) -> Outcome {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut plan = plan_of(&text_of(pipeline), folder);
    let topic = to_memory(&mut plan, "out");
    let dead_letters = scratch.path().join("dead.jsonl");
    plan.dead_letters = Some(dead_letters.clone());
    run(plan).unwrap_or_else(|error| panic!("{}: {error}", pipeline.name));
    outcome(pipeline, &topic, &dead_letters)
}

fn outcome(pipeline: &Pipeline, topic: &MemoryTopic, dead_letters: &Path) -> Outcome {
    let mut rows = rows_of(topic);
    if pipeline.corrects {
        let last: BTreeMap<String, Value> = rows
            .into_iter()
            .map(|row| {
                let window =
                    ["key", "window_start", "window_end"].map(|name| row[name].to_string());
                (window.join(" "), row)
            })
            .collect();
        rows = last.into_values().collect();
    }
    rows.sort_by_cached_key(ToString::to_string);
    let text = std::fs::read_to_string(dead_letters).unwrap_or_default();
    let letters = text.lines().map(serde_json::from_str);
    let mut dead_letters: Vec<Value> = letters.collect::<Result<_, _>>().expect("whole letters");
    for letter in dead_letters.iter_mut().filter_map(Value::as_object_mut) {
        // Which checkpoint they come after depends on when one is made.
        letter.retain(|name, _| name != "started_ms" && name != "checkpoint");
    }
    dead_letters.sort_by_cached_key(ToString::to_string);
    Outcome { rows, dead_letters }
}

/// A folder in memory where possible, since checkpoints wait until dead letters are
/// synced.
fn in_memory() -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.expect("a temporary folder")
}

fn disturbed(seed: u64, pipeline: &Pipeline, folder: &Path, expected: &Outcome) -> Happened {
    let mut random = fastrand::Rng::with_seed(seed);
    let scratch = in_memory();
    let dead_letters = scratch.path().join("dead.jsonl");
    let topic = Arc::new(MemoryTopic::default());
    let transaction = Arc::new(MemoryTransaction::new(vec![topic.clone()]));
    let storage = Arc::new(MemoryStorage::default());
    let mut happened = Happened::default();
    let mut simulation = Simulation::new(seed);
    let what = format!(
        "seed {seed}, {} (run it again with {VARIABLE}={seed})",
        pipeline.name
    );
    for trouble in 0.. {
        let mut plan = plan_of(&text_of(pipeline), folder);
        plan.parallelism = [1, 2, 3, 4][random.usize(0..4)];
        plan.batch_rows = [2, 5, 17, 256][random.usize(0..4)];
        plan.dead_letters = Some(dead_letters.clone());
        plan.state = Some(StatePlan {
            backend: StateBackend::Memory,
            // Memory for all states, for none, for some.
            memory_bytes_max: [usize::MAX, 0, 1_500][random.usize(0..3)],
            interval_ms: 3_600_000,
            keep: 2,
            delivery: Delivery::ExactlyOnce,
        });
        to_topic(&mut plan, "out", &topic);
        if !storage.list().expect("a list").is_empty() {
            happened.restored += 1;
        }
        let job = Job::new(plan, Arc::new(ManualClock::default()))
            .keeping(Durable::new(storage.clone()).committing(transaction.clone()));
        let mut steps = None;
        if trouble < TROUBLES_MAX {
            match random.u8(0..4) {
                0 => transaction.lose(Lost::Answer),
                1 => transaction.lose(Lost::Request),
                // As likely to be early as late.
                _ => steps = Some(1 << random.u64(2..11)),
            }
        }
        match simulation.run(job, steps) {
            Ended::Done => break,
            Ended::Killed => happened.kills += 1,
            Ended::Failed(error) => {
                assert!(
                    error.to_string().contains("the answer was lost"),
                    "{what}: {error}"
                );
                happened.lost += 1;
            }
        }
    }
    happened.checkpoints = storage
        .list()
        .expect("a list")
        .last()
        .map_or(0, |last| last.id);
    let found = outcome(pipeline, &topic, &dead_letters);
    assert_same(&expected.rows, &found.rows, &what);
    assert_same(
        &expected.dead_letters,
        &found.dead_letters,
        &format!("{what}, dead letters"),
    );
    happened
}

/// A process that dies between the commits of two participants leaves one of them
/// behind, which commits later what it has prepared.
#[test]
fn a_participant_that_is_behind_catches_up() {
    let (broker, database, ended) = run_with_two("lasting", &[Lost::Request, Lost::Answer]);
    assert!(matches!(ended, Ended::Done), "{ended:?}");
    let (expected, _, _) = run_with_two("lasting", &[]);
    assert!(!expected.is_empty());
    assert_same(&expected, &broker, "the one that commits first");
    assert_same(&expected, &database, "the one that was behind");
}

#[test]
fn participants_that_cannot_agree_stop_the_run() {
    let (_, _, ended) = run_with_two("lost", &[Lost::Request]);
    let Ended::Failed(error) = ended else {
        panic!("{ended:?}");
    };
    let said = error.to_string();
    assert!(said.contains("broker has committed checkpoint"), "{said}");
    assert!(said.contains("and database"), "{said}");
}

/// Runs a pipeline whose rows go to two participants. Some requests to the second one
/// to commit get lost, and the pipeline starts again after each.
fn run_with_two(second: &str, lost: &[Lost]) -> (Vec<Value>, Vec<Value>, Ended) {
    let folder = inputs();
    let text = format!(
        "{}\n[sinks.copy]\ntype = \"blackhole\"\ninput = \"result\"\n",
        text_of(&PIPELINES[3])
    );
    let topics = ["out", "copy"].map(|sink| (sink, Arc::new(MemoryTopic::default())));
    let participant = |index: usize| MemoryTransaction::new(vec![topics[index].1.clone()]);
    let broker = Arc::new(participant(0).named("broker"));
    let database = participant(1).named("database");
    let database = Arc::new(match second {
        "lasting" => database.lasting(),
        _ => database,
    });
    let storage = Arc::new(MemoryStorage::default());
    let mut simulation = Simulation::new(7);
    let mut lost = lost.iter();
    let mut failures = 0;
    let ended = loop {
        let mut plan = plan_of(&text, folder.path());
        plan.state = Some(StatePlan {
            backend: StateBackend::Memory,
            memory_bytes_max: usize::MAX,
            interval_ms: 3_600_000,
            keep: 2,
            delivery: Delivery::ExactlyOnce,
        });
        for (sink, topic) in &topics {
            to_topic(&mut plan, sink, topic);
        }
        let durable = Durable::new(storage.clone())
            .committing(broker.clone())
            .committing(database.clone());
        let job = Job::new(plan, Arc::new(ManualClock::default())).keeping(durable);
        if let Some(&lost) = lost.next() {
            database.lose(lost);
        }
        match simulation.run(job, None) {
            Ended::Failed(error) if error.to_string().contains("the answer was lost") => {
                failures += 1;
                assert!(failures <= 2, "what is lost is lost once");
            }
            ended => break ended,
        }
    };
    let [out, copy] = topics.map(|(_, topic)| {
        let mut rows = rows_of(&topic);
        rows.sort_by_cached_key(ToString::to_string);
        rows
    });
    (out, copy, ended)
}
