//! State, checkpoints and restarts in plans, as text and as JSON.

use expect_test::{Expect, expect};

use super::support::{BASE, folder, plan_in};
use crate::plan::draw::draw;
use crate::plan::json::to_json;
use crate::plan::{self, Plan, RestartPlan};

fn planned(more: &str) -> (Plan, String) {
    let folder = folder();
    let (_, plan) =
        plan_in(folder.path(), &format!("{BASE}{more}")).unwrap_or_else(|m| panic!("{m}"));
    let drawn = draw(&plan).replace(&folder.path().display().to_string(), "/pipelines");
    (plan, drawn)
}

/// Compares the lines above the first source.
fn head(more: &str, expected: Expect) {
    let (_, drawn) = planned(more);
    let head = drawn.split("\n\n").next().unwrap_or_default();
    expected.assert_eq(head);
}

#[test]
fn without_state_and_checkpoints_nothing_is_kept() {
    let (plan, drawn) = planned("");
    assert_eq!(plan.state, None);
    assert_eq!(plan.restart, RestartPlan::Never);
    assert!(
        drawn.contains("no checkpoints: each run begins anew"),
        "{drawn}"
    );
    assert!(!drawn.contains("once"), "{drawn}");
}

#[test]
fn either_table_turns_checkpoints_on() {
    let (one, _) = planned("[state]\n");
    let (other, _) = planned("[checkpoints]\n");
    assert_eq!(one.restart, other.restart);
    let without_folder = |plan: &Plan| {
        let mut state = plan.state.clone();
        if let Some(state) = &mut state {
            state.backend = plan::StateBackend::Memory;
        }
        state
    };
    assert_eq!(without_folder(&one), without_folder(&other));
    head(
        "[checkpoints]\n",
        expect![[r#"
            cart   2 tasks a keyed operator · batches of at most 4096 rows
            dead letters go to /pipelines/cart.dead.jsonl
            state in /pipelines/cart.state, 256MiB of it in memory, 128MiB for RocksDB
            a checkpoint every 10s, the last 3 kept · exactly once: rows become visible with their checkpoint
            restarted 1s, up to 1m after a failure, given up after 10 failures within 10m"#]],
    );
}

#[test]
fn every_key() {
    head(
        r#"
[state]
backend = "rocksdb"
path = "kept"
memory = "1GiB"
rocksdb_memory = "64MiB"
[checkpoints]
interval = "500ms"
keep = 5
delivery = "at_least_once"
upload = { url = "s3://bucket/cart", options = { region = "eu-central-1", allow_http = true } }
[restart]
strategy = "fixed"
delay = "5s"
failures = 1
within = "1h"
"#,
        expect![[r#"
            cart   2 tasks a keyed operator · batches of at most 4096 rows
            dead letters go to /pipelines/cart.dead.jsonl
            state in /pipelines/kept, 1GiB of it in memory, 64MiB for RocksDB
            a checkpoint every 500ms, the last 5 kept · at least once: rows become visible at once
            checkpoints are copied to s3://bucket/cart
            restarted 5s after a failure, given up after 1 failure within 1h"#]],
    );
    head(
        "[state]\nbackend = \"memory\"\n[restart]\nstrategy = \"never\"\n",
        expect![[r#"
            cart   2 tasks a keyed operator · batches of at most 4096 rows
            dead letters go to /pipelines/cart.dead.jsonl
            state in memory, 256MiB: lost when the process ends
            a checkpoint every 10s, the last 3 kept · exactly once: rows become visible with their checkpoint
            no restart after a failure"#]],
    );
}

const LINES: &str = r#"
[checkpoints]
[sources.lines]
type = "tcp"
listen = "127.0.0.1:9000"
fields = { user_id = "utf8" }
[sinks.shown]
type = "console"
input = "lines"
"#;

#[test]
fn what_cannot_be_exactly_once_says_so() {
    let (_, drawn) = planned(LINES);
    let lines = drawn.split("\n\n").last().unwrap_or_default();
    expect![[r#"
        lines   source, tcp, json · 1 task
        │   listens on 127.0.0.1:9000, lines
        │   event time is when the row is read, rows in order
        │   bad rows: dead letter
        │   cannot be read again: a failure loses rows since the last checkpoint
        │ : user_id: utf8
        ▼
        shown   sink, console · 1 task
            at least once: rows may be repeated after a failure
    "#]]
    .assert_eq(lines);
}

#[test]
fn standard_input_cannot_be_read_again() {
    let pipe = r#"type = "file"
path = "-"
format = "raw""#;
    let tcp = "type = \"tcp\"\nlisten = \"127.0.0.1:9000\"";
    let (_, drawn) = planned(&LINES.replace(tcp, pipe));
    let lines = drawn.split("\n\n").last().unwrap_or_default();
    expect![[r#"
        lines   source, file, raw · 1 task
        │   standard input
        │   event time is when the row is read, rows in order
        │   bad rows: dead letter
        │   cannot be read again: a failure loses rows since the last checkpoint
        │ : user_id: utf8
        ▼
        shown   sink, console · 1 task
            at least once: rows may be repeated after a failure
    "#]]
    .assert_eq(lines);
}

#[test]
fn the_state_for_programs() {
    let more = "[checkpoints]\nupload = { url = \"s3://b/c\", options = { access_key_id = \"me\", secret_access_key = \"hush\" } }\n";
    let (plan, _) = planned(more);
    let json = to_json(&plan);
    let text = serde_json::to_string_pretty(&json["state"]).unwrap_or_default();
    assert!(!json.to_string().contains("hush"), "a secret was shown");
    let folder = plan.state.map(|state| match state.backend {
        plan::StateBackend::RocksDb { folder, .. } => folder,
        plan::StateBackend::Memory => panic!("it is kept in a folder"),
    });
    let folder = folder.unwrap_or_default();
    let beside = folder.parent().unwrap_or(&folder).display().to_string();
    expect![[r#"
        {
          "backend": {
            "rocksdb": {
              "folder": "/pipelines/cart.state",
              "memory_bytes_max": 134217728,
              "upload": "s3://b/c"
            }
          },
          "delivery": "exactly_once",
          "interval_ms": 10000,
          "keep": 3,
          "memory_bytes_max": 268435456
        }"#]]
    .assert_eq(&text.replace(&beside, "/pipelines"));
    let restart = serde_json::to_string(&json["restart"]).unwrap_or_default();
    expect![[r#"{"delay_ms":1000,"delay_ms_max":60000,"factor":2.0,"failures_max":10,"within_ms":600000}"#]].assert_eq(&restart);
}

/// They would be lost with the state, and take its names.
#[test]
fn copies_are_kept_apart_from_the_state() {
    let own = tempfile::tempdir().expect("a temporary folder");
    let here = own.path().canonicalize().expect("it is there");
    std::fs::create_dir_all(here.join("kept/deep")).expect("a folder");
    std::os::unix::fs::symlink(here.join("kept/deep"), here.join("link")).expect("a link");
    let here = here.display();
    for (state, url, is_refused) in [
        ("kept", "kept", true),
        ("kept", "kept/below", true),
        ("kept", "link", true),
        ("link/state", "kept", false),
        // The copies are in a folder called like the pipeline.
        ("copies/cart", "copies", true),
        ("copies/cart/state", "copies", true),
        ("copies/other", "copies", false),
        ("kept", "kept2", false),
    ] {
        let more = format!(
            "[state]\npath = \"{here}/{state}\"\n\
             [checkpoints]\nupload = {{ url = \"file://{here}/{url}\" }}\n"
        );
        let place = folder();
        let planned = plan_in(place.path(), &format!("{BASE}{more}"));
        let said = planned.err().map_or_else(String::new, |m| m.to_string());
        let is_said = said.contains("checkpoints cannot be uploaded to ");
        assert_eq!(is_said, is_refused, "{state} {url}: {said}");
    }
}
