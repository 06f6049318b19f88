//! Tests a savepoint that another process requests from a running host, and a run that
//! starts from it after later checkpoints.

/// Plugins, built once.
#[expect(dead_code, reason = "the host loads its own plugins")]
mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Rows a second, and how many: a run takes some seconds.
const RATE: u32 = 20_000;
const ROWS: u32 = 80_000;

#[test]
fn a_run_from_a_savepoint_gives_what_it_gave() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipeline = write_pipeline(folder.path());
    let mut host = start(&pipeline);
    wait_for_checkpoint(&pipeline);
    let saved = said(&checkpoints(&pipeline, "save", Some("before-the-sale")));
    assert!(saved.ends_with("is saved as before-the-sale\n"), "{saved}");
    let again = checkpoints(&pipeline, "save", Some("before-the-sale"));
    assert!(failure(&again).contains("has the name before-the-sale already"));
    // Some more checkpoints, and a crash.
    std::thread::sleep(std::time::Duration::from_millis(800));
    said(&checkpoints(&pipeline, "save", Some("in-the-sale")));
    host.kill().expect("it runs");
    host.wait().expect("it is our child");
    let idle = checkpoints(&pipeline, "save", Some("other"));
    assert!(failure(&idle).contains("no host runs shop"));

    end(start(&pipeline));
    let undisturbed = rows(folder.path());
    assert!(!undisturbed.is_empty());
    let listed = said(&checkpoints(&pipeline, "list", None));
    assert!(listed.contains("before-the-sale"), "{listed}");

    let unknown = sluicebox(&["run", "--quiet", "--from", "before_the_sale"], &pipeline);
    assert!(failure(&unknown).contains("did you mean `before-the-sale`?"));
    let from = sluicebox(&["run", "--quiet", "--from", "before-the-sale"], &pipeline);
    assert!(from.status.success(), "{}", failure(&from));
    assert!(failure(&from).contains("starting from checkpoint"));
    assert!(!failure(&from).contains("written again"));
    assert_eq!(rows(folder.path()), undisturbed);

    // What the file had then was cut, and written again.
    let cut = sluicebox(&["run", "--quiet", "--from", "in-the-sale"], &pipeline);
    let why = failure(&cut);
    assert!(why.contains("cannot be gone back to"), "{why}");
    assert!(why.contains("sink `out`"), "{why}");

    // It has ended, and continues from its end.
    end(start(&pipeline));
    assert_eq!(rows(folder.path()), undisturbed);
}

fn write_pipeline(folder: &Path) -> PathBuf {
    let text = format!(
        r#"
        name = "shop"
        parallelism = 2
        plugins.cart.path = {plugin:?}
        dead_letters = "letters.jsonl"
        [checkpoints]
        interval = "100ms"
        [sources.actions]
        type = "generator"
        seed = 3
        users = 50
        rate = {RATE}
        count = {ROWS}
        start = "2024-01-01T10:00:00Z"
        [operators.added]
        plugin = "cart.added"
        input = "actions"
        key = "user_id"
        window = "running"
        [sinks.out]
        type = "file"
        input = "added"
        path = "out.jsonl"
        "#,
        plugin = common::plugin_file("cart"),
    );
    let path = folder.join("shop.toml");
    std::fs::write(&path, text).expect("it is writable");
    path
}

fn start(pipeline: &Path) -> Child {
    let log = File::create(pipeline.with_extension("log")).expect("it is writable");
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["run", "--quiet"])
        .arg(pipeline)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the host starts")
}

fn end(mut host: Child) {
    let ended = host.wait().expect("it is our child");
    assert!(ended.success(), "{ended}");
}

fn sluicebox(arguments: &[&str], pipeline: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(arguments)
        .arg(pipeline)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

/// Waits until the host has made a checkpoint.
fn wait_for_checkpoint(pipeline: &Path) {
    let folder = pipeline.with_file_name("shop.state").join("checkpoints");
    let is_there = || std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    while !is_there() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn checkpoints(pipeline: &Path, command: &str, name: Option<&str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["checkpoints", command])
        .arg(pipeline)
        .args(name)
        .output()
        .expect("it starts")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", failure(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn failure(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// In any order.
fn rows(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("out.jsonl")).expect("the output");
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}
