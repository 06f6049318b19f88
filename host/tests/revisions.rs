//! Changes the plan of a pipeline while it has rows to read: each revision continues
//! from the checkpoint with which the previous one ended.

/// Plugins, built once.
mod common;
/// Runs a pipeline as a test.
#[expect(dead_code, reason = "this test needs a part of what the others do")]
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeline::{assert_accounted, assert_same, plan_of, rows_of, runtime, to_topic};
use serde_json::Value;
use sluicebox::batch::Batch;
use sluicebox::checkpoint::coordinator::CompletedCheckpoint;
use sluicebox::checkpoint::replacement::Replacement;
use sluicebox::checkpoint::snapshot::SinkSnapshot;
use sluicebox::checkpoint::storage::Storage;
use sluicebox::checkpoint::storage::folder::FolderStorage;
use sluicebox::checkpoint::storage::memory::MemoryStorage;
use sluicebox::checkpoint::transaction::memory::MemoryTransaction;
use sluicebox::clock::SystemClock;
use sluicebox::connector::Description;
use sluicebox::element::{CheckpointId, Purpose};
use sluicebox::plan::{Delivery, NodeKind, Plan, StateBackend, StatePlan};
use sluicebox::run::{Durable, Job, Pipeline, RunError, Summary};
use sluicebox::schema::Schema;
use sluicebox::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError};
use sluicebox::topic::MemoryTopic;

const ROWS: u64 = 12_000;

/// The pipeline's file, with the key, the rate, and a limit for rows if they are
/// checked.
fn text(key: &str, rate: u32, max_quantity: Option<u32>) -> String {
    let (clean, input) = match max_quantity {
        Some(max) => (
            format!(
                "[operators.clean]\nplugin = \"cart.clean\"\ninput = \"actions\"\n\
                 parameters = {{ max_quantity = {max} }}\n"
            ),
            "clean",
        ),
        None => (String::new(), "actions"),
    };
    format!(
        r#"
        name = "shop"
        plugins.cart.path = {cart:?}
        plugins.basics.path = {basics:?}
        [sources.actions]
        type = "generator"
        seed = 3
        users = 50
        rate = {rate}
        count = {ROWS}
        start = "2024-01-01T10:00:00Z"
        {clean}
        [operators.counted]
        plugin = "basics.count"
        input = "{input}"
        key = "{key}"
        window = {{ tumbling = "1m" }}
        [sinks.out]
        type = "blackhole"
        input = "counted"
        "#,
        cart = common::plugin_file("cart"),
        basics = common::plugin_file("basics"),
    )
}

fn plan(text: &str, parallelism: usize, out: &Arc<MemoryTopic>) -> Plan {
    let mut plan = plan_of(text, Path::new("."));
    plan.parallelism = parallelism;
    plan.state = Some(StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max: usize::MAX,
        interval_ms: 100,
        keep: 2,
        delivery: Delivery::ExactlyOnce,
    });
    to_topic(&mut plan, "out", out);
    plan
}

/// Runs a revision until its source has read this many rows, and then calls `ask`.
async fn run_until(job: Job, rows: u64, ask: impl FnOnce(&Pipeline)) -> Result<Summary, RunError> {
    let source = job.progress()[0].clone();
    let pipeline = job.pipeline();
    let asked = async {
        while source.snapshot().rows_out < rows {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ask(&pipeline);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asked => unreachable!("it waits for ever"),
        ended = job.run() => ended.inspect(assert_accounted),
    }
}

fn sorted(topic: &MemoryTopic) -> Vec<Value> {
    let mut rows = rows_of(topic);
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

/// The rows of a run that nothing disturbs.
fn undisturbed() -> Vec<Value> {
    let topic = Arc::new(MemoryTopic::default());
    let plan = plan(&text("user_id", 1_000_000, None), 1, &topic);
    let job = Job::new(plan, Arc::new(SystemClock));
    runtime().block_on(job.run()).expect("it runs");
    let rows = sorted(&topic);
    assert!(!rows.is_empty());
    rows
}

#[test]
fn revisions_continue_without_losing_or_repeating_a_row() {
    let slow = |max| text("user_id", 8_000, max);
    let clock = Arc::new(SystemClock);
    let out = Arc::new(MemoryTopic::default());
    let transaction = Arc::new(MemoryTransaction::new(vec![out.clone()]));
    let first = plan(&slow(None), 2, &out);
    let durable = Durable::new(Arc::new(MemoryStorage::default())).committing(transaction);
    let pipeline = Pipeline::of(&first, clock).keeping(durable);
    runtime().block_on(async {
        // Another parallelism, and an operator that lets every row through.
        let job = Job::revision(&pipeline, first);
        let ended = run_until(job, 2_000, |pipeline| pipeline.requests().swap()).await;
        let ended = ended.expect("it ends for the next");
        assert!(ended.swapped && !ended.stopped && ended.revision == 1);
        assert!(
            ended.nodes[0].rows_out < ROWS,
            "the next has something to do"
        );

        // Another argument, after a stop.
        let job = Job::revision(&pipeline, plan(&slow(Some(1_000_000)), 3, &out));
        let ended = run_until(job, 2_000, |pipeline| pipeline.requests().stop().ask()).await;
        let ended = ended.expect("it stops");
        assert!(ended.stopped && !ended.swapped && ended.revision == 2);

        // State that does not fit is refused, and nothing is lost by that.
        let other = Job::revision(&pipeline, plan(&text("item_id", 8_000, None), 1, &out));
        let refused = other.run().await.expect_err("another key").to_string();
        assert!(refused.contains("operator `counted`"), "{refused}");
        assert!(refused.contains("its key was user_id"), "{refused}");

        let job = Job::revision(&pipeline, plan(&slow(Some(2_000_000)), 1, &out));
        let ended = job.run().await.expect("it ends");
        assert_accounted(&ended);
        assert!(!ended.stopped && !ended.swapped);
    });
    assert_same(&undisturbed(), &sorted(&out), "three revisions");
    let last: Vec<Purpose> = pipeline
        .history()
        .iter()
        .map(|done| done.purpose)
        .filter(|purpose| purpose.is_last())
        .collect();
    assert_eq!(last, [Purpose::Swap, Purpose::Stop, Purpose::End]);
}

#[test]
fn other_logic_takes_over_at_a_barrier_while_the_run_goes_on() {
    let slow = |max| text("user_id", 8_000, Some(max));
    let clock = Arc::new(SystemClock);
    let out = Arc::new(MemoryTopic::default());
    let transaction = Arc::new(MemoryTransaction::new(vec![out.clone()]));
    let then = Arc::new(plan(&slow(1_000_000), 2, &out));
    let durable = Durable::new(Arc::new(MemoryStorage::default())).committing(transaction);
    let pipeline = Pipeline::of(&then, clock).keeping(durable);
    let job = Job::revision(&pipeline, then.clone());
    let before = job.progress();
    let now = Arc::new(plan(&slow(2_000_000), 2, &out));
    let replacement = Arc::new(Replacement::new(&then, &before, now));
    assert!(replacement.logic(1).is_some(), "other arguments");
    assert!(replacement.logic(2).is_none(), "the same plugin");
    let ended = runtime().block_on(async {
        let replaces = async {
            while before[0].snapshot().rows_out < 2_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pipeline.replace(replacement.clone());
            replacement.passed().await
        };
        let (ended, took) = tokio::join!(job.run(), replaces);
        assert!(took < Duration::from_secs(5), "{took:?}");
        ended.expect("it ends")
    });
    assert_same(&undisturbed(), &sorted(&out), "the rows of both");
    assert_eq!(ended.revision, 2);
    assert!(!ended.swapped && ended.restarts == 0);
    // Counters go on from those before, and no row is counted twice or not at all.
    let (then, now) = (before[1].snapshot(), &ended.nodes[1]);
    assert!((1_000..=ROWS - 1_000).contains(&then.rows_in), "{then:?}");
    assert_eq!(now.rows_in, ROWS);
    let replaced = |done: &CompletedCheckpoint| done.purpose == Purpose::Replace;
    assert_eq!(
        pipeline
            .history()
            .iter()
            .filter(|done| replaced(done))
            .count(),
        1
    );
}

#[test]
fn a_run_that_starts_anew_goes_on_after_what_was_committed() {
    let out = Arc::new(MemoryTopic::default());
    let transaction = Arc::new(MemoryTransaction::new(vec![out.clone()]));
    let fast = || plan(&text("user_id", 1_000_000, None), 1, &out);
    // Each has a storage without the checkpoints of the others.
    let job = || {
        let durable = Durable::new(Arc::new(MemoryStorage::default()));
        Job::new(fast(), Arc::new(SystemClock)).keeping(durable.committing(transaction.clone()))
    };
    let runtime = runtime();
    let first = job();
    let history = first.pipeline();
    runtime.block_on(first.run()).expect("it runs");
    let committed = history.history().last().expect("checkpoints").id;
    let rows = sorted(&out);
    assert!(!rows.is_empty());

    let refused = runtime.block_on(job().run()).expect_err("they are gone");
    assert!(refused.to_string().contains("`--fresh`"), "{refused}");

    let anew = job().starting_fresh();
    let history = anew.pipeline();
    runtime.block_on(anew.run()).expect("it starts anew");
    assert_eq!(history.history()[0].id, committed + 1);
    let mut twice = [rows.clone(), rows].concat();
    twice.sort_by_cached_key(ToString::to_string);
    assert_same(&twice, &sorted(&out), "topics get all rows again");
}

/// The windows of aggregates.
const WINDOWS: [(&str, &str); 8] = [
    ("tumbling", "{ tumbling = \"100ms\" }"),
    ("sliding", "{ sliding = \"300ms\", every = \"100ms\" }"),
    ("cumulate", "{ cumulate = \"400ms\", every = \"100ms\" }"),
    ("session", "{ session = \"20ms\" }"),
    ("counted", "{ count = 7 }"),
    ("running", "\"running\""),
    (
        "early",
        "{ tumbling = \"200ms\" }\nemit = { every = \"50ms\" }\nallowed_lateness = \"100ms\"",
    ),
    ("global", "\"global\""),
];

/// A pipeline with an aggregate for each window, and a process.
fn counting(aggregate: &str, process: &str) -> String {
    let mut text = format!(
        r#"
        name = "counts"
        plugins.basics.path = {basics:?}
        [sources.actions]
        type = "generator"
        seed = 4
        users = 300
        rate = 8000
        count = {ROWS}
        start = "2024-01-01T10:00:00Z"
        [operators.visits]
        plugin = "basics.{process}"
        input = "actions"
        key = "user_id"
        [sinks.visits_out]
        type = "blackhole"
        input = "visits"
        "#,
        basics = common::plugin_file("basics"),
    );
    for (name, window) in WINDOWS {
        text += &format!(
            "[operators.{name}]\nplugin = \"basics.{aggregate}\"\ninput = \"actions\"\n\
             key = \"user_id\"\nwindow = {window}\n\
             [sinks.{name}_out]\ntype = \"blackhole\"\ninput = \"{name}\"\n"
        );
    }
    text
}

/// A plan of it, with a topic for each sink but that of early results, which are luck.
fn counting_plan(text: &str, parallelism: usize, topics: &[Arc<MemoryTopic>]) -> Plan {
    let mut plan = plan(text, parallelism, &Arc::default());
    let names = WINDOWS.map(|(name, _)| name);
    let sinks = names
        .into_iter()
        .filter(|name| *name != "early")
        .chain(["visits"]);
    for (sink, topic) in sinks.zip(topics) {
        to_topic(&mut plan, &format!("{sink}_out"), topic);
    }
    plan
}

fn counting_topics() -> Vec<Arc<MemoryTopic>> {
    WINDOWS.map(|_| Arc::default()).to_vec()
}

#[test]
fn states_of_an_earlier_version_are_migrated() {
    let topics = counting_topics();
    let whole = counting_plan(&counting("count", "visits"), 1, &topics);
    let job = Job::new(whole, Arc::new(SystemClock));
    runtime().block_on(job.run()).expect("it runs");
    let expected: Vec<Vec<Value>> = topics.iter().map(|topic| sorted(topic)).collect();

    let folder = tempfile::tempdir().expect("a folder for the test");
    let in_folder = FolderStorage::open(folder.path(), 1 << 20).expect("it opens");
    let storages: [Arc<dyn Storage>; 2] = [Arc::new(MemoryStorage::default()), Arc::new(in_folder)];
    for (storage, parallelism) in storages.into_iter().zip([1, 2]) {
        let topics = counting_topics();
        let transaction = Arc::new(MemoryTransaction::new(topics.clone()));
        let revision = |aggregate: &str, process: &str| {
            let text = counting(aggregate, process);
            counting_plan(&text, parallelism, &topics)
        };
        let first = revision("count", "visits");
        let durable = Durable::new(storage).committing(transaction);
        let pipeline = Pipeline::of(&first, Arc::new(SystemClock)).keeping(durable);
        runtime().block_on(async {
            let job = Job::revision(&pipeline, first);
            let ended = run_until(job, 5_000, |pipeline| pipeline.requests().swap()).await;
            ended.expect("it ends for the next");

            // Too small for some of them: the checkpoint stays as it is.
            let worse = Job::revision(&pipeline, revision("count_worse", "visits_better"));
            let refused = worse.run().await.expect_err("they do not fit").to_string();
            assert!(refused.contains("keeps other states than"), "{refused}");
            assert!(refused.contains("cannot be migrated: "), "{refused}");
            assert!(
                refused.contains(" is too much; nothing was changed"),
                "{refused}"
            );
            assert!(
                refused.contains("the key {\"user_id\":\"user-"),
                "{refused}"
            );

            // A crash before the first checkpoint undoes the migration.
            let better = || Job::revision(&pipeline, revision("count_better", "visits_better"));
            let job = better();
            let started = async {
                let source = job.progress()[0].clone();
                let run = job.run();
                tokio::pin!(run);
                loop {
                    tokio::select! {
                        ended = &mut run => break ended.map(drop),
                        () = tokio::time::sleep(Duration::from_millis(1)) => {}
                    }
                    if source.snapshot().rows_out > 5_100 {
                        break Ok(());
                    }
                }
            };
            started.await.expect("it starts");

            let ended = better().run().await.expect("it ends");
            assert_accounted(&ended);

            let back = Job::revision(&pipeline, revision("count", "visits"));
            let refused = back.run().await.expect_err("no way back").to_string();
            assert!(refused.contains("its state was note: "), "{refused}");
        });
        for (expected, topic) in expected.iter().zip(&topics) {
            assert!(!expected.is_empty());
            assert_same(expected, &sorted(topic), "migrated");
        }
    }
}

/// Counts of users as they change. `basics.count_worse` takes those of `basics.count` up to
/// 3, and counts up to 127.
fn running(aggregate: &str, more: &str) -> String {
    format!(
        r#"
        name = "counts"
        dead_letters = "dead.jsonl"
        plugins.basics.path = {basics:?}
        [sources.actions]
        type = "generator"
        seed = 4
        users = 300
        rate = 20000
        count = 24000
        start = "2024-01-01T10:00:00Z"
        [operators.counted]
        plugin = "basics.{aggregate}"
        input = "actions"
        key = "user_id"
        window = "running"
        {more}
        [sinks.out]
        type = "blackhole"
        input = "counted"
        "#,
        basics = common::plugin_file("basics"),
    )
}

/// The last count of each user.
fn counts(rows: &[Value]) -> BTreeMap<String, i64> {
    let of = |row: &Value| {
        let user = row["user_id"].as_str().expect("a user").to_owned();
        (user, row["count"].as_i64().expect("a count"))
    };
    rows.iter().map(of).collect()
}

#[test]
fn states_that_cannot_be_migrated_become_dead_letters() {
    let topic = Arc::default();
    let whole = plan(&running("count", ""), 1, &topic);
    let job = Job::new(whole, Arc::new(SystemClock));
    runtime().block_on(job.run()).expect("it runs");
    let expected = counts(&rows_of(&topic));

    let folder = tempfile::tempdir().expect("a folder for the test");
    let in_folder = FolderStorage::open(&folder.path().join("state"), 1 << 20).expect("it opens");
    let storages: [Arc<dyn Storage>; 2] = [Arc::new(MemoryStorage::default()), Arc::new(in_folder)];
    for (at, storage) in storages.into_iter().enumerate() {
        let topic = Arc::new(MemoryTopic::default());
        let transaction = Arc::new(MemoryTransaction::new(vec![topic.clone()]));
        let dead_letters = folder.path().join(format!("dead-{at}.jsonl"));
        let revision = |aggregate: &str, more: &str| {
            let mut plan = plan(&running(aggregate, more), 1, &topic);
            plan.dead_letters = Some(dead_letters.clone());
            plan
        };
        let first = revision("count", "");
        let durable = Durable::new(storage).committing(transaction);
        let pipeline = Pipeline::of(&first, Arc::new(SystemClock)).keeping(durable);
        let told = runtime().block_on(async {
            let job = Job::revision(&pipeline, first);
            let ended = run_until(job, 16_000, |pipeline| pipeline.requests().swap()).await;
            ended.expect("it ends for the next");
            let told = rows_of(&topic).len();
            let worse = || {
                let more = "on_migration_error = \"dead_letter\"";
                Job::revision(&pipeline, revision("count_worse", more))
            };
            // A crash before the first checkpoint, and a run to the end.
            let job = worse();
            let source = job.progress()[0].clone();
            let read = async {
                while source.snapshot().rows_out < 200 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                ended = job.run() => panic!("{ended:?}"),
                () = read => {}
            }
            assert_accounted(&worse().run().await.expect("it ends"));
            told
        });
        let rows = rows_of(&topic);
        let (then, now) = (counts(&rows[..told]), counts(&rows[told..]));
        let text = std::fs::read_to_string(&dead_letters).expect("there are some");
        let (mut lost, mut failed) = (BTreeMap::new(), BTreeMap::<String, i64>::new());
        for line in text.lines() {
            let letter: Value = serde_json::from_str(line).expect("a letter");
            let payload = letter["payload"].as_str().expect("a payload");
            let of: Value = serde_json::from_str(payload).expect("a key or a row");
            let user = of["user_id"].as_str().expect("a user").to_owned();
            if letter["kind"] != "migration" {
                *failed.entry(user).or_default() += 1;
                continue;
            }
            let error = letter["error"].as_str().expect("a reason");
            assert!(error.ends_with(" is too much"), "{letter}");
            assert_eq!(letter["node"], "counted");
            let state = letter["row"].as_str().expect("the state");
            let state: Value = serde_json::from_str(state).expect("the state");
            let count = state["count"].as_i64().expect("a count");
            assert_eq!(lost.insert(user, count), None, "once, through the crash");
        }
        assert!(!lost.is_empty());
        for (user, whole) in &expected {
            let then = then.get(user).copied().unwrap_or_default();
            assert_eq!(
                lost.get(user).copied(),
                (then > 3).then_some(then),
                "{user}"
            );
            let kept = if lost.contains_key(user) { 0 } else { then };
            let now = now.get(user).copied().unwrap_or(kept);
            let failed = failed.get(user).copied().unwrap_or_default();
            assert_eq!(then - kept + now + failed, *whole, "{user}");
        }
    }
}

/// Takes a millisecond for each row.
struct SlowSink;

impl SinkConnector for SlowSink {
    fn describe(&self) -> Description {
        Description {
            connector: "slow",
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(&self, _: &str, _: &Arc<Schema>, _: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(SlowSink))
    }
}

impl Sink for SlowSink {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        std::thread::sleep(Duration::from_millis(batch.rows() as u64));
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

/// A few full batches, of which channels would be full, are half a minute of this work.
#[test]
fn a_swap_and_checkpoints_are_soon_where_rows_take_long() {
    let text = running("count", "")
        .replace("rate = 20000", "")
        .replace("count = 24000", "");
    let mut plan = plan(&text, 2, &Arc::default());
    plan.dead_letters = None;
    let sink = plan.nodes.iter_mut().find(|node| node.name == "out");
    if let NodeKind::Sink(sink) = &mut sink.expect("it is there").kind {
        sink.connector = Box::new(SlowSink);
    }
    if let Some(state) = &mut plan.state {
        state.delivery = Delivery::AtLeastOnce;
    }
    let durable = Durable::new(Arc::new(MemoryStorage::default()));
    let pipeline = Pipeline::of(&plan, Arc::new(SystemClock)).keeping(durable);
    let job = Job::revision(&pipeline, plan);
    let sink = job.progress().last().expect("it has a sink").clone();
    let began = Instant::now();
    let took = runtime().block_on(async {
        let running = job.run();
        tokio::pin!(running);
        let written = async {
            while sink.snapshot().rows_in < 4_000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = &mut running => panic!("{ended:?}"),
            () = written => {}
        }
        let asked = Instant::now();
        pipeline.requests().swap();
        running.await.expect("it ends");
        asked.elapsed()
    });
    let history = pipeline.history();
    let longest = history.iter().map(|done| done.took).max();
    let longest = longest.expect("there are checkpoints");
    assert!(
        took < Duration::from_secs(6) && longest < Duration::from_secs(6),
        "{took:?}, checkpoints {longest:?}, {:?}",
        began.elapsed()
    );
    assert!(history.len() >= 2, "{history:?}");
}
