//! Tests that recovery never changes the rows. A seed decides the order in which tasks
//! run, when checkpoints are made, when everything is stopped or killed, and restored at
//! another parallelism and batch size, which commits lose their answers, and what becomes of
//! the inputs between two runs.

/// Plugins, built once.
mod common;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use sluicebox::checkpoint::manifest::ProgressManifest;
use sluicebox::checkpoint::snapshot::{PartitionSnapshot, PartitionState};
use sluicebox::checkpoint::storage::Storage;
use sluicebox::checkpoint::storage::memory::MemoryStorage;
use sluicebox::checkpoint::transaction::memory::{Lost, MemoryTransaction};
use sluicebox::clock::ManualClock;
use sluicebox::plan::{Delivery, Plan, StateBackend, StatePlan};
use sluicebox::plugin::Plugin;
use sluicebox::run::{Durable, Job, RunError};
use sluicebox::testing::simulation::{Ended, Simulation};
use sluicebox::topic::MemoryTopic;
use tempfile::TempDir;

use pipeline::{assert_same, plan_of, rows_of, run, to_memory, to_topic};

/// Kept as long as the tests run: a plugin is compiled again when nobody has it.
static PLUGIN: LazyLock<Plugin> = LazyLock::new(|| {
    let loaded = common::LOADER.plugin(&common::plugin_file("basics"));
    loaded.unwrap_or_else(|error| panic!("{error}"))
});

/// Every seed is another run of one of the pipelines.
const SEEDS: u64 = 240;

/// `SEED=n` runs only this seed, and prints what happens.
const VARIABLE: &str = "SEED";

/// Kills, stops and lost answers in a run, at most.
const TROUBLES_MAX: usize = 6;

/// The input that does not change.
const FILE: [&str; 1] = ["in.jsonl"];

#[test]
fn rows_are_the_same_whatever_happens() {
    LazyLock::force(&PLUGIN);
    let folder = inputs();
    let expected: Vec<Outcome> = PIPELINES
        .iter()
        .map(|pipeline| undisturbed(pipeline, &FILE, folder.path()))
        .collect();
    for (pipeline, expected) in PIPELINES.iter().zip(&expected) {
        assert!(!expected.rows.is_empty(), "{} has rows", pipeline.name);
    }
    let only = wanted_seed();
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut kills = 0;
    let mut stops = 0;
    let mut restored = 0;
    for seed in seeds {
        let at = (seed % PIPELINES.len() as u64) as usize;
        let happened = disturbed(seed, &PIPELINES[at], folder.path(), &expected[at]);
        kills += happened.kills;
        stops += happened.stops;
        restored += happened.restored;
        if only.is_some() {
            println!("{happened:?}");
        }
    }
    if only.is_none() {
        // With fewer kills the test would test little.
        assert!(kills > SEEDS as usize, "{kills} kills");
        assert!(stops > SEEDS as usize / 2, "{stops} stops");
        assert!(
            restored > SEEDS as usize,
            "{restored} went on from a checkpoint"
        );
    }
}

/// Every seed is another series of runs, each of which reads what was added to the file
/// since the one before had ended.
const ENDING_SEEDS: u64 = 110;

/// Kills, stops and lost answers in each of these runs, at most.
const ENDING_TROUBLES_MAX: usize = 3;

#[test]
fn runs_that_go_on_after_an_end_are_the_same_whatever_happens() {
    LazyLock::force(&PLUGIN);
    let text = std::fs::read_to_string(inputs().path().join(FILE[0])).expect("it is there");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let folder = in_memory();
    let mut expected: Vec<Option<Outcome>> = PIPELINES.iter().map(|_| None).collect();
    let only = wanted_seed();
    let mut kills = 0;
    for seed in only.map_or(0..ENDING_SEEDS, |seed: u64| seed..seed + 1) {
        let at = (seed % PIPELINES.len() as u64) as usize;
        let pipeline = &PIPELINES[at];
        let expected = expected[at].get_or_insert_with(|| {
            let (outcome, _) = growing(0, pipeline, folder.path(), &lines, 0);
            let whole = undisturbed(pipeline, &FILE, folder.path());
            assert_same(&whole.dead_letters, &outcome.dead_letters, pipeline.name);
            outcome
        });
        let troubles = ENDING_TROUBLES_MAX;
        let (found, happened) = growing(seed, pipeline, folder.path(), &lines, troubles);
        assert_outcome(expected, &found, &described(seed, pipeline));
        kills += happened.kills;
    }
    assert!(
        only.is_some() || kills > ENDING_SEEDS as usize,
        "{kills} kills"
    );
}

/// Runs a pipeline to the end of its input three times, which grows in between.
fn growing(
    seed: u64,
    pipeline: &Pipeline,
    folder: &Path,
    lines: &[&str],
    troubles: usize,
) -> (Outcome, Happened) {
    let mut random = fastrand::Rng::with_seed(seed);
    let outside = Outside::new();
    let mut happened = Happened::default();
    let mut simulation = Simulation::new(seed);
    for end in [130, 290, lines.len()] {
        let text = lines[..end].concat();
        std::fs::write(folder.join(FILE[0]), text).expect("it is writable");
        let mut runs = Runs {
            outside: &outside,
            simulation: &mut simulation,
            random: &mut random,
            happened: &mut happened,
        };
        let what = described(seed, pipeline);
        runs.run_to_the_end(pipeline, folder, troubles, &what);
    }
    let found = outcome(pipeline, &outside.topic, &outside.dead_letters());
    (found, happened)
}

fn wanted_seed() -> Option<u64> {
    std::env::var(VARIABLE).ok()?.parse().ok()
}

struct Pipeline {
    name: &'static str,
    text: &'static str,
    /// Whether results may be corrected: the last one of a key and window counts. How
    /// often it is corrected depends on which late rows come together.
    corrects: bool,
}

/// Each has its results in `out`.
const PIPELINES: [Pipeline; 22] = [
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
        name: "sliding by what does not divide the size",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { sliding = "10s", every = "3s", offset = "1s" }
            allowed_lateness = "2s"
            "#,
    },
    Pipeline {
        name: "cumulating",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { cumulate = "20s", every = "1s" }
            allowed_lateness = "2s"
            "#,
    },
    Pipeline {
        name: "the global window",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = ["key", "letter"]
            window = "global"
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
        name: "sessions that late rows reach",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { session = "700ms" }
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
        name: "running, over early results",
        corrects: true,
        text: r#"
            [operators.first]
            aggregate = { rows = "count()", total = "sum(n)" }
            input = "events"
            key = ["key", "letter"]
            window = "running"
            emit = { every = "1ms" }

            [operators.result]
            aggregate = { letters = "count()", rows = "sum(rows)", most = "max(total)" }
            input = "first.changes"
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
        name: "sliding, with a plugin that reads its key",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.own"
            input = "events"
            key = "key"
            window = { sliding = "6s", every = "2s" }
            allowed_lateness = "3s"
            "#,
    },
    Pipeline {
        name: "running, with a plugin that reads its key",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.own"
            input = "events"
            key = ["letter", "key"]
            window = "running"
            ttl = "3s"
            "#,
    },
    Pipeline {
        name: "neighbours of rows",
        corrects: false,
        text: r#"
            [operators.result]
            order = "event_time"
            add = { number = "row_number()", before = "lag(n, 2)", behind = "lead(letter, 3, '')" }
            input = "events"
            key = "key"
            ttl = "4s"
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
    Pipeline {
        name: "rows joined within an interval",
        corrects: false,
        text: r#"
            [sources.all]
            type = "file"
            path = "in.jsonl"
            format = "json"
            event_time = "ts"
            watermark = { out_of_orderness = "3s" }
            fields = { key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }

            [operators.even]
            plugin = "basics.even"
            input = "all"

            [operators.result]
            join = { kind = "full", before = "1s", after = "3s" }
            input = { left = "all", right = "even" }
            key = "key"
            select = { key = "key.key", n = "left.n", at = "left.ts", m = "right.n", and = "right.ts" }
            "#,
    },
    Pipeline {
        name: "rows joined in a window",
        corrects: false,
        text: r#"
            [sources.all]
            type = "file"
            path = "in.jsonl"
            format = "json"
            event_time = "ts"
            watermark = { out_of_orderness = "3s" }
            fields = { key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }

            [operators.even]
            plugin = "basics.even"
            input = "all"

            [operators.result]
            join = { kind = "full" }
            window = { sliding = "4s", every = "2s" }
            input = { left = "all", right = "even" }
            key = "key"
            select = { key = "key.key", n = "left.n", at = "left.ts", m = "right.n", and = "right.ts" }
            "#,
    },
    Pipeline {
        name: "rows joined with their last version",
        corrects: false,
        text: r#"
            [sources.all]
            type = "file"
            path = "in.jsonl"
            format = "json"
            event_time = "ts"
            watermark = { out_of_orderness = "3s" }
            fields = { key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }

            [operators.even]
            plugin = "basics.even"
            input = "all"

            [operators.result]
            join = { kind = "left", as_of = "event_time" }
            input = { left = "all", right = "even" }
            key = "key"
            select = { key = "key.key", n = "left.n", at = "left.ts", m = "right.n", and = "right.ts" }
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
    stops: usize,
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

fn text_of(pipeline: &Pipeline, paths: &[&str]) -> String {
    format!(
        r#"
        name = "test"
        plugins.basics.path = {:?}
        dead_letters = "dead.jsonl"

        [sources.events]
        type = "file"
        format = "json"
        path = {paths:?}
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

fn undisturbed(pipeline: &Pipeline, paths: &[&str], folder: &Path) -> Outcome {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut plan = plan_of(&text_of(pipeline, paths), folder);
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

/// Checkpoints at the end alone, with so much memory for states.
fn in_memory_of(memory_bytes_max: usize) -> StatePlan {
    StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max,
        interval_ms: 3_600_000,
        keep: 2,
        delivery: Delivery::ExactlyOnce,
    }
}

/// What outlives the kills of a pipeline.
struct Outside {
    scratch: TempDir,
    topic: Arc<MemoryTopic>,
    transaction: Arc<MemoryTransaction>,
    storage: Arc<MemoryStorage>,
}

impl Outside {
    fn new() -> Self {
        let topic = Arc::new(MemoryTopic::default());
        Outside {
            scratch: in_memory(),
            transaction: Arc::new(MemoryTransaction::new(vec![topic.clone()])),
            topic,
            storage: Arc::default(),
        }
    }

    fn dead_letters(&self) -> PathBuf {
        self.scratch.path().join("dead.jsonl")
    }

    fn has_checkpoints(&self) -> bool {
        !self.storage.list().expect("a list").is_empty()
    }

    /// A run of the pipeline, with what may differ from run to run.
    fn job(&self, mut plan: Plan, random: &mut fastrand::Rng) -> Job {
        plan.parallelism = [1, 2, 3, 4][random.usize(0..4)];
        plan.batch_rows = [2, 5, 17, 256][random.usize(0..4)];
        plan.dead_letters = Some(self.dead_letters());
        // Memory for all states, for none, for some.
        plan.state = Some(in_memory_of([usize::MAX, 0, 1_500][random.usize(0..3)]));
        to_topic(&mut plan, "out", &self.topic);
        let durable = Durable::new(self.storage.clone()).committing(self.transaction.clone());
        Job::new(plan, Arc::new(ManualClock::default())).keeping(durable)
    }

    /// Has an answer of the next run get lost, or returns after how many steps it is
    /// killed.
    fn trouble(&self, random: &mut fastrand::Rng, steps_log: Range<u64>) -> Option<u64> {
        match random.u8(0..4) {
            0 => self.transaction.lose(Lost::Answer),
            1 => self.transaction.lose(Lost::Request),
            // As likely to be early as late.
            _ => return Some(1 << random.u64(steps_log)),
        }
        None
    }
}

fn disturbed(seed: u64, pipeline: &Pipeline, folder: &Path, expected: &Outcome) -> Happened {
    let mut random = fastrand::Rng::with_seed(seed);
    let outside = Outside::new();
    let mut happened = Happened::default();
    let mut simulation = Simulation::new(seed);
    let what = described(seed, pipeline);
    let mut runs = Runs {
        outside: &outside,
        simulation: &mut simulation,
        random: &mut random,
        happened: &mut happened,
    };
    runs.run_to_the_end(pipeline, folder, TROUBLES_MAX, &what);
    let checkpoints = outside.storage.list().expect("a list");
    happened.checkpoints = checkpoints.last().map_or(0, |last| last.id);
    let found = outcome(pipeline, &outside.topic, &outside.dead_letters());
    assert_outcome(expected, &found, &what);
    happened
}

fn described(seed: u64, pipeline: &Pipeline) -> String {
    format!(
        "seed {seed}, {} (run it again with {VARIABLE}={seed})",
        pipeline.name
    )
}

/// The runs of a pipeline, and what happens to them.
struct Runs<'a> {
    outside: &'a Outside,
    simulation: &'a mut Simulation,
    random: &'a mut fastrand::Rng,
    happened: &'a mut Happened,
}

impl Runs<'_> {
    /// Runs a pipeline until all of its inputs have ended, with so many troubles.
    fn run_to_the_end(&mut self, pipeline: &Pipeline, folder: &Path, troubles: usize, what: &str) {
        let Runs {
            outside,
            simulation,
            random,
            happened,
        } = self;
        for trouble in 0.. {
            let plan = plan_of(&text_of(pipeline, &FILE), folder);
            let job = outside.job(plan, random);
            if outside.has_checkpoints() {
                happened.restored += 1;
            }
            let mut steps = None;
            let mut is_stopped = false;
            if trouble < troubles {
                is_stopped = random.u8(0..4) == 0;
                match is_stopped {
                    true => simulation.stop_after((1 << random.u64(0..11)) - 1),
                    false => steps = outside.trouble(random, 2..11),
                }
            }
            match simulation.run(job, steps) {
                Ended::Done if is_stopped => happened.stops += 1,
                Ended::Done => break,
                Ended::Killed => happened.kills += 1,
                Ended::Failed(error) => {
                    assert!(is_of_lost(&error), "{what}: {error}");
                    happened.lost += 1;
                }
            }
        }
    }
}

fn is_of_lost(error: &RunError) -> bool {
    error.to_string().contains("the answer was lost")
}

fn assert_outcome(expected: &Outcome, found: &Outcome, what: &str) {
    assert_same(&expected.rows, &found.rows, what);
    assert_same(
        &expected.dead_letters,
        &found.dead_letters,
        &format!("{what}, dead letters"),
    );
}

/// Every seed is another series of changes.
const CHANGING_SEEDS: u64 = 120;

/// Runs before the last one, in which nothing happens.
const CHANGING_RUNS: usize = 8;

/// Where the files are that change.
const FILES: [&str; 2] = ["in/*", "more/*"];

/// Results of these do not depend on the order of files.
const CHANGING: [Pipeline; 3] = [
    Pipeline {
        name: "no state",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.even"
            input = "events"
            "#,
    },
    Pipeline {
        name: "running, the last of each key",
        corrects: true,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = "running"
            "#,
    },
    Pipeline {
        name: "tumbling",
        corrects: false,
        text: r#"
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = { tumbling = "2s" }
            "#,
    },
];

/// Files grow, come, get other names, and get replaced, between one run and the next.
#[test]
fn rows_are_the_same_whatever_becomes_of_the_inputs() {
    LazyLock::force(&PLUGIN);
    let only = wanted_seed();
    let seeds = only.map_or(0..CHANGING_SEEDS, |seed| seed..seed + 1);
    let mut happened = BTreeMap::new();
    for seed in seeds {
        let pipeline = &CHANGING[(seed % CHANGING.len() as u64) as usize];
        changing(seed, pipeline, &mut happened);
    }
    if only.is_some() {
        println!("{happened:?}");
        return;
    }
    let expected = [
        "added", "back", "ended", "gone", "grown", "killed", "lost", "missing", "renamed",
        "replaced", "rotated", "swapped", "too late",
    ];
    for what in expected {
        let times = happened.get(what).copied().unwrap_or_default();
        assert!(times >= CHANGING_SEEDS as usize / 6, "{what}: {happened:?}");
    }
}

fn changing(seed: u64, pipeline: &Pipeline, happened: &mut BTreeMap<&'static str, usize>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut inputs = Inputs::new(seed);
    let outside = Outside::new();
    let mut simulation = Simulation::new(seed);
    let what = format!(
        "seed {seed}, {} (run it again with {VARIABLE}={seed})",
        pipeline.name
    );
    let mut count = |what| *happened.entry(what).or_default() += 1;
    for run in 0.. {
        let is_last = run >= CHANGING_RUNS;
        if run > 0 && !is_last {
            for _ in 0..random.usize(0..4) {
                count(inputs.change());
            }
            for what in [inputs.return_one(), inputs.remove(&outside)] {
                what.into_iter().for_each(&mut count);
            }
        }
        let plan = |inputs: &Inputs| plan_of(&text_of(pipeline, &FILES), inputs.folder.path());
        if !is_last && let Some((spoilt, put_back)) = inputs.spoil(&outside) {
            let job = outside.job(plan(&inputs), &mut random);
            let Ended::Failed(error) = simulation.run(job, None) else {
                panic!("{what}: {spoilt} is not refused");
            };
            let said = error.to_string();
            let expected = match spoilt {
                "missing" => ["is not among the files", "put it back"],
                _ => ["before the checkpoint", "put that one back"],
            };
            for expected in expected {
                assert!(said.contains(expected), "{what}, {spoilt}: {said}");
            }
            put_back();
            count(spoilt);
        }
        let job = outside.job(plan(&inputs), &mut random);
        if !is_last && random.u8(0..6) == 0 {
            inputs.rename();
            let ended = simulation.run(job, None);
            let Ended::Failed(error) = ended else {
                panic!("{what}: renamed too late: {ended:?}");
            };
            let said = error.to_string();
            let is_said = said.contains("start the run again") || said.contains("No such file");
            assert!(is_said, "{what}: {said}");
            count("too late");
            continue;
        }
        let steps = match is_last || random.u8(0..4) == 0 {
            true => None,
            false => outside.trouble(&mut random, 2..9),
        };
        match simulation.run(job, steps) {
            Ended::Done if is_last => break,
            Ended::Done => count("ended"),
            Ended::Killed => count("killed"),
            Ended::Failed(error) => {
                assert!(is_of_lost(&error), "{what}: {error}");
                count("lost");
            }
        }
    }
    while inputs.return_one().is_some() {}
    let mut expected = undisturbed(pipeline, &FILES, inputs.folder.path());
    assert!(!expected.rows.is_empty(), "{what}: no rows");
    let mut found = outcome(pipeline, &outside.topic, &outside.dead_letters());
    for outcome in [&mut expected, &mut found] {
        for letter in &mut outcome.dead_letters {
            // Their file has had several names.
            letter["partition"].take();
            letter["offset"].take();
        }
        outcome.dead_letters.sort_by_cached_key(ToString::to_string);
    }
    assert_outcome(&expected, &found, &what);
}

/// Files that change. Each row is later than all that were there before, so that it is
/// never late, and in windows that have not fired.
struct Inputs {
    folder: TempDir,
    random: fastrand::Rng,
    /// Relative to the folder.
    names: Vec<String>,
    /// Counts names.
    named: usize,
    ts: i64,
    /// Files that were taken away: the names that they had, and those that they have.
    away: Vec<(String, String)>,
}

impl Inputs {
    fn new(seed: u64) -> Self {
        let folder = in_memory();
        for name in ["in", "more", "aside"] {
            std::fs::create_dir(folder.path().join(name)).expect("it is writable");
        }
        let mut inputs = Inputs {
            folder,
            random: fastrand::Rng::with_seed(seed ^ 0xF11E5),
            names: Vec::new(),
            named: 0,
            ts: 0,
            away: Vec::new(),
        };
        // A pattern has to match a file.
        for name in ["in/first", "more/first"] {
            let rows = inputs.rows(40);
            std::fs::write(inputs.path(name), rows).expect("it is writable");
        }
        for _ in 0..3 {
            inputs.add();
        }
        inputs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rows(&mut self, count: usize) -> String {
        // Behind the windows of what was there.
        self.ts += 10_000;
        let mut text = String::new();
        for _ in 0..count {
            self.ts += self.random.i64(1..200);
            let row = match self.random.u8(0..40) {
                0 => format!("{{\"key\": broken at {}", self.ts),
                _ => json!({
                    "key": format!("k{}", self.random.u8(0..6)),
                    "n": self.random.i64(0..100),
                    "letter": "l",
                    "ts": self.ts,
                })
                .to_string(),
            };
            text.push_str(&row);
            text.push('\n');
        }
        text
    }

    fn some_rows(&mut self) -> String {
        let count = [0, 2, 40][self.random.usize(0..3)];
        self.rows(count)
    }

    fn new_name(&mut self) -> String {
        self.named += 1;
        let folder = ["in", "more"][self.random.usize(0..2)];
        // In any order among the others.
        format!("{folder}/{:02}-{}", self.random.u8(0..100), self.named)
    }

    fn any(&mut self) -> usize {
        self.random.usize(0..self.names.len())
    }

    fn append(&self, name: &str, text: &str) {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("it is writable");
    }

    fn move_file(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).expect("it is there");
    }

    fn add(&mut self) {
        let (name, rows) = (self.new_name(), self.some_rows());
        self.append(&name, &rows);
        self.names.push(name);
    }

    fn rename(&mut self) {
        let (at, name) = (self.any(), self.new_name());
        self.move_file(&self.names[at], &name);
        self.names[at] = name;
    }

    fn change(&mut self) -> &'static str {
        let at = self.any();
        match self.random.u8(0..5) {
            0 => {
                let rows = self.some_rows();
                self.append(&self.names[at], &rows);
                "grown"
            }
            1 => {
                self.add();
                "added"
            }
            2 => {
                self.rename();
                "renamed"
            }
            // As logs are, perhaps again.
            3 => {
                let (old, new) = (self.names[at].clone(), self.new_name());
                let rows = self.some_rows();
                self.move_file(&old, &new);
                self.append(&old, &rows);
                self.names.push(new);
                "rotated"
            }
            _ => {
                let other = self.any();
                let (one, other) = (&self.names[at], &self.names[other]);
                if one != other {
                    self.move_file(one, "aside/swapped");
                    self.move_file(other, one);
                    self.move_file("aside/swapped", other);
                }
                "swapped"
            }
        }
    }

    /// What each of the checkpoints that the next run may start from has of a file, if
    /// it has it by the name that it has now.
    fn known(&self, name: &str, outside: &Outside) -> Option<Vec<PartitionSnapshot>> {
        let checkpoints = outside.storage.list().expect("a list");
        if checkpoints.len() < 2 {
            // The only one may not be committed.
            return None;
        }
        let metadata = self.path(name).metadata().expect("it is there");
        let place = format!("file={}:{}", metadata.dev(), metadata.ino());
        let is_it = |partition: &PartitionSnapshot| {
            let mark = partition.digest.as_deref().unwrap_or_default();
            let mut words = mark.split(' ');
            let rest = words.find_map(|word| word.strip_prefix(&*place));
            partition.name == name && rest.is_some_and(|rest| !rest.starts_with(char::is_numeric))
        };
        let known = checkpoints.iter().map(|checkpoint| {
            let manifest = outside.storage.restore(checkpoint.id);
            let nodes = manifest.expect("it is there").nodes;
            let sources = nodes.into_iter().filter_map(|node| match node.progress {
                ProgressManifest::Source(tasks) => Some(tasks),
                _ => None,
            });
            let mut partitions = sources.flatten().flat_map(|task| task.partitions);
            partitions.find(is_it)
        });
        known.collect()
    }

    /// Takes a file away that was read to its end.
    fn remove(&mut self, outside: &Outside) -> Option<&'static str> {
        let at = self.any();
        let size = self
            .path(&self.names[at])
            .metadata()
            .expect("it is there")
            .len();
        let is_read = |known: &PartitionSnapshot| {
            known.state == PartitionState::Ended && known.position.offset == size
        };
        let known = self.known(&self.names[at], outside)?;
        if self.names.len() < 3 || !known.iter().all(is_read) {
            return None;
        }
        let name = self.names.swap_remove(at);
        self.named += 1;
        let aside = format!("aside/{}", self.named);
        self.move_file(&name, &aside);
        self.away.push((name, aside));
        Some("gone")
    }

    /// Puts a file back that was taken away, under its old name or another.
    fn return_one(&mut self) -> Option<&'static str> {
        let (old, aside) = self.away.pop()?;
        let name = match self.random.bool() && !self.path(&old).exists() {
            true => old,
            false => self.new_name(),
        };
        self.move_file(&aside, &name);
        self.names.push(name);
        Some("back")
    }

    /// Takes a file away that was not read to its end, or replaces one that was begun,
    /// and returns what puts it back.
    fn spoil(&mut self, outside: &Outside) -> Option<(&'static str, impl FnOnce() + use<>)> {
        let first = self.any();
        let names = self.names[first..].iter().chain(&self.names[..first]);
        let known = names.filter_map(|name| Some((name, self.known(name, outside)?)));
        let known: Vec<_> = known.collect();
        let find = |wanted: fn(&PartitionSnapshot) -> bool| {
            let found = known.iter().find(|(_, known)| known.iter().all(wanted));
            found.map(|(name, _)| *name)
        };
        // There are fewer of these.
        let (what, name) = find(|known| known.state != PartitionState::Ended)
            .map(|name| ("missing", name))
            .or_else(|| Some(("replaced", find(|known| known.position.offset > 0)?)))?;
        let (path, aside) = (self.path(name), self.path("aside/spoilt"));
        std::fs::rename(&path, &aside).expect("it is there");
        if what == "replaced" {
            let ts = self.ts;
            let rows = self.rows(60);
            self.ts = ts;
            std::fs::write(&path, rows).expect("it is writable");
        }
        Some((what, move || {
            std::fs::rename(aside, path).expect("it is there");
        }))
    }
}

/// The list of files is made when the run starts. If files are rotated after that, the
/// oldest one seems to be gone.
#[test]
fn files_that_are_rotated_too_late_are_refused() {
    let inputs = in_memory();
    let path = |name: &str| inputs.path().join(name);
    let row = |n: i64| format!("{{\"key\":\"k\",\"n\":{n},\"letter\":\"l\",\"ts\":{n}}}\n");
    let outside = Outside::new();
    let mut random = fastrand::Rng::with_seed(7);
    let mut simulation = Simulation::new(7);
    let text = text_of(&CHANGING[0], &["log*"]);
    let mut job = || outside.job(plan_of(&text, inputs.path()), &mut random);
    for (name, n) in [("log.1", 0), ("log", 2)] {
        std::fs::write(path(name), row(n)).expect("it is writable");
    }
    assert!(matches!(simulation.run(job(), None), Ended::Done));
    let late = job();
    for (from, to) in [("log.1", "log.2"), ("log", "log.1")] {
        std::fs::rename(path(from), path(to)).expect("it is there");
    }
    std::fs::write(path("log"), row(4)).expect("it is writable");
    let Ended::Failed(error) = simulation.run(late, None) else {
        panic!("its rows would be read again by the next run");
    };
    let said = error.to_string();
    assert!(said.contains("log.1 got the name"), "{said}");
    assert!(said.contains("start it again"), "{said}");
    assert!(matches!(simulation.run(job(), None), Ended::Done));
    let rows = rows_of(&outside.topic);
    let numbers: Vec<_> = rows.iter().map(|row| row["n"].as_i64()).collect();
    assert_eq!(numbers, [Some(0), Some(2), Some(4)]);
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

/// A server that was emptied has the number of no checkpoint, and neither has one that a
/// pipeline writes to from now on.
#[test]
fn checkpoints_outlive_servers_that_do_not_know_them() {
    let folder = inputs();
    let storage = Arc::new(MemoryStorage::default());
    let mut simulation = Simulation::new(7);
    let mut run = |participant: &str| {
        let mut plan = plan_of(&text_of(&PIPELINES[3], &FILE), folder.path());
        plan.state = Some(in_memory_of(usize::MAX));
        let topic = Arc::new(MemoryTopic::default());
        to_topic(&mut plan, "out", &topic);
        let server = MemoryTransaction::new(vec![topic.clone()]).named(participant);
        let durable = Durable::new(storage.clone()).committing(Arc::new(server));
        let job = Job::new(plan, Arc::new(ManualClock::default())).keeping(durable);
        (simulation.run(job, None), rows_of(&topic).len())
    };
    let (ended, rows) = run("server");
    assert!(matches!(ended, Ended::Done) && rows > 0, "{ended:?}");
    let known = storage.list().expect("a list");
    let (ended, rows) = run("server");
    let Ended::Failed(error) = ended else {
        panic!("{ended:?}");
    };
    let said = error.to_string();
    assert!(
        said.contains("was committed to server, where it has none"),
        "{said}"
    );
    assert_eq!((storage.list().expect("a list"), rows), (known, 0));
    let (ended, rows) = run("another");
    assert!(matches!(ended, Ended::Done), "{ended:?}");
    assert_eq!(rows, 0, "it goes on");
}

/// Runs a pipeline whose rows go to two participants. Some requests to the second one
/// to commit get lost, and the pipeline starts again after each.
fn run_with_two(second: &str, lost: &[Lost]) -> (Vec<Value>, Vec<Value>, Ended) {
    let folder = inputs();
    let text = format!(
        "{}\n[sinks.copy]\ntype = \"blackhole\"\ninput = \"result\"\n",
        text_of(&PIPELINES[3], &FILE)
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
        plan.state = Some(in_memory_of(usize::MAX));
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
