//! Tests that pipelines in one process do not delay each other, nor the caller.

/// Plugins, built once.
mod common;
/// Runs a pipeline as a test.
#[expect(dead_code, reason = "this test needs a part of what the others do")]
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipeline::plan_of;
use sluicebox::clock::SystemClock;
use sluicebox::run::Job;

/// Both tests look at the clock.
static ALONE: Mutex<()> = Mutex::new(());

/// How long each call of the looping plugin may take.
const LIMIT: Duration = Duration::from_secs(2);

/// A pipeline whose plugin loops for ever.
fn looping(folder: &Path) -> Job {
    std::fs::write(folder.join("rows.jsonl"), "{\"id\":\"a\",\"n\":1}\n").expect("a file");
    let text = format!(
        r#"
        name = "looping"
        plugins.hostile.path = {hostile:?}
        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        format = "json"
        fields = {{ id = "utf8", n = "int64" }}
        [operators.loops]
        plugin = "hostile.misbehave"
        input = "rows"
        parameters = {{ mode = "loop" }}
        limits = {{ time = "{}s" }}
        on_error = "skip"
        [sinks.out]
        type = "blackhole"
        input = "loops"
        "#,
        LIMIT.as_secs(),
        hostile = common::plugin_file("hostile"),
    );
    Job::new(plan_of(&text, folder), Arc::new(SystemClock))
}

/// A pipeline whose rows keep coming.
fn flowing(folder: &Path) -> Job {
    let text = r#"
        name = "flowing"
        [sources.events]
        type = "generator"
        rate = 5000.0
        [sinks.out]
        type = "blackhole"
        input = "events"
        "#;
    Job::new(plan_of(text, folder), Arc::new(SystemClock))
}

#[test]
fn a_looping_plugin_holds_up_neither_its_caller_nor_another_pipeline() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (looping, flowing) = (looping(folder.path()), flowing(folder.path()));
    let rows = flowing.progress()[1].clone();
    let stop = flowing.stop();
    // The caller has one thread for all pipelines.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let flowing = tokio::spawn(flowing.run());
        while rows.snapshot().rows_in == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let started = Instant::now();
        let looping = tokio::spawn(looping.run());
        let mut longest = Duration::ZERO;
        let mut silent = Duration::ZERO;
        let (mut seen, mut last) = (rows.snapshot().rows_in, Instant::now());
        let mut grew = last;
        while !looping.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            let now = rows.snapshot().rows_in;
            if now > seen {
                (seen, grew) = (now, last);
            }
            silent = silent.max(grew.elapsed());
        }
        assert!(started.elapsed() >= LIMIT, "it looped until its limit");
        assert!(
            longest < LIMIT / 2,
            "the caller stood still for {longest:?}"
        );
        assert!(silent < LIMIT / 2, "no row came for {silent:?}");
        let summary = looping
            .await
            .expect("no panic")
            .expect("the row is skipped");
        assert_eq!(summary.nodes[1].failed, 1);
        stop.ask();
        flowing.await.expect("no panic").expect("it stops");
    });
}

/// Wake-ups of all threads of a process so far, by thread.
fn wake_ups(process: u32) -> HashMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let tasks = tasks.filter_map(|task| {
        let task = task.ok()?;
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let switches = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let name = task.file_name().into_string().ok()?;
        Some((name, switches.trim().parse().ok()?))
    });
    tasks.collect()
}

#[test]
fn an_idle_pipeline_sleeps() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipeline = folder.path().join("idle.toml");
    let text = format!(
        r#"
        name = "idle"
        plugins.cart.path = {cart:?}
        [checkpoints]
        [sources.lines]
        type = "tcp"
        listen = "127.0.0.1:0"
        event_time = "ts"
        fields = {{ user_id = "utf8", action = "utf8", quantity = "int64", ts = "timestamp" }}
        [operators.added]
        plugin = "cart.added"
        input = "lines"
        key = "user_id"
        window = {{ tumbling = "1m" }}
        [sinks.out]
        type = "blackhole"
        input = "added"
        "#,
        cart = common::plugin_file("cart"),
    );
    std::fs::write(&pipeline, text).expect("it is writable");
    let mut host = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["run", "--quiet"])
        .arg(&pipeline)
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    // First it compiles a plugin, opens RocksDB and makes a checkpoint.
    let until = Instant::now() + Duration::from_secs(60);
    let woken = loop {
        let before = wake_ups(host.id());
        std::thread::sleep(Duration::from_secs(4));
        let after = wake_ups(host.id());
        let since = |thread| before.get(thread).unwrap_or(&0);
        let woken: u64 = after
            .iter()
            .map(|(thread, count)| count - since(thread))
            .sum();
        if woken < 4 * 5 || Instant::now() > until {
            break woken;
        }
    };
    let ended = host.try_wait().expect("it is our child");
    assert!(ended.is_none(), "it has not come to idle: {ended:?}");
    host.kill().expect("it runs");
    host.wait().expect("it is our child");
    assert!(woken < 4 * 5, "{woken} wake-ups in 4 s");
}
