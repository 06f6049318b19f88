//! Tests whole pipelines with Wasm operators, at every batch size and parallelism.

/// Every row is accounted for.
#[path = "pipelines/accounts.rs"]
mod accounts;
/// What reads the changes of results.
#[path = "pipelines/changes.rs"]
mod changes;
/// Plugins, built once.
mod common;
/// Runs at every batch size and parallelism.
#[path = "common/everywhere.rs"]
mod everywhere;
/// Joins whose rows a plugin makes.
#[path = "pipelines/joined.rs"]
mod joined;
/// Look-ups in tables.
#[path = "pipelines/lookups.rs"]
mod lookups;
/// Functions of what is calculated.
#[path = "pipelines/calculated.rs"]
mod calculated;
/// Numbers that are too large for plugins.
#[path = "pipelines/overflow.rs"]
mod overflow;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicebox::clock::SystemClock;
use sluicebox::plan::Plan;
use sluicebox::run::{Job, Summary};
use tempfile::TempDir;

use everywhere::{collect_all, collect_all_everywhere, collect_everywhere};
use pipeline::{assert_same, plan_of, run};

/// A folder with input files of JSON lines.
fn folder(files: &[(&str, &[Value])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, rows) in files {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(folder.path().join(name), text).expect("it is writable");
    }
    folder
}

/// A row of the `events` sources below.
fn event(key: &str, n: i64, second: i64) -> Value {
    json!({"key": key, "n": n, "letter": key, "ts": second * 1000})
}

/// A source of such rows, strict unless given a bound.
fn events(name: &str, path: &str, out_of_orderness: &str) -> String {
    format!(
        r#"
        [sources.{name}]
        type = "file"
        path = {path:?}
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "{out_of_orderness}" }}
        fields = {{ key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }}
        "#
    )
}

fn text_of(parts: &[&str]) -> String {
    format!(
        "name = \"test\"\nplugins.basics.path = {:?}\ndead_letters = \"dead.jsonl\"\n{}\n",
        common::plugin_file("basics"),
        parts.concat(),
    )
}

fn sink(name: &str, input: &str) -> String {
    format!("[sinks.{name}]\ntype = \"blackhole\"\ninput = {input:?}\n")
}

fn second(second: i64) -> String {
    jiff::Timestamp::from_second(second)
        .expect("a small number")
        .to_string()
}

/// A result of `basics.stats`.
fn stats(key: &str, from: i64, to: i64, values: &[i64]) -> Value {
    json!({
        "key": key, "window_start": second(from), "window_end": second(to),
        "count": values.len(), "sum": values.iter().sum::<i64>(),
        "min": values.iter().min(), "max": values.iter().max(),
    })
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

const BY_KEY_5S: &str = r#"
    [operators.result]
    plugin = "basics.stats"
    input = "events"
    key = "key"
    window = { tumbling = "5s" }
"#;

#[test]
fn a_strict_watermark_makes_a_row_late_whatever_the_batch() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 1, 1),
            event("a", 2, 5),
            event("a", 4, 4),
            event("a", 8, 9),
            event("a", 16, 5),
        ],
    )]);
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        BY_KEY_5S,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    // The row at 4 s comes when the watermark is 5 s; the one at 5 s is out of order, not late.
    let expected = sorted(vec![stats("a", 0, 5, &[1]), stats("a", 5, 10, &[2, 8, 16])]);
    assert_same(&expected, &rows, "strict");
}

#[test]
fn a_row_may_be_late_for_one_window_and_in_time_for_another() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 1, 1),
            event("a", 2, 6),
            event("a", 4, 4),
            event("a", 8, 21),
        ],
    )]);
    let both = r#"
        [operators.tumbling]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = { tumbling = "5s" }
        [operators.sliding]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = { sliding = "10s", every = "5s" }
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        both,
        &sink("tumbling_out", "tumbling"),
        &sink("sliding_out", "sliding"),
        &sink("late_out", "tumbling.late"),
    ]);
    let tumbling = collect_everywhere(&text, folder.path(), "tumbling_out");
    let expected = sorted(vec![
        stats("a", 0, 5, &[1]),
        stats("a", 5, 10, &[2]),
        stats("a", 20, 25, &[8]),
    ]);
    assert_same(&expected, &tumbling, "tumbling");
    let sliding = collect_everywhere(&text, folder.path(), "sliding_out");
    let expected = sorted(vec![
        stats("a", -5, 5, &[1]),
        stats("a", 0, 10, &[1, 2, 4]),
        stats("a", 5, 15, &[2]),
        stats("a", 15, 25, &[8]),
        stats("a", 20, 30, &[8]),
    ]);
    assert_same(&expected, &sliding, "sliding");
    let late = collect_everywhere(&text, folder.path(), "late_out");
    let expected = json!({"key": "a", "n": 4, "letter": "a", "ts": second(4)});
    assert_same(&[expected], &late, "the late output");
}

#[test]
fn late_rows_correct_a_window_while_lateness_is_allowed() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 1, 1),
            event("a", 2, 6),
            event("a", 4, 4),
            event("a", 8, 9),
            event("a", 16, 3),
        ],
    )]);
    let result = format!("{BY_KEY_5S}\nallowed_lateness = \"3s\"\n");
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        &result,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    // The row at 3 s comes when the watermark is 9 s: its window took no rows after 8 s.
    let expected = sorted(vec![
        stats("a", 0, 5, &[1]),
        stats("a", 0, 5, &[1, 4]),
        stats("a", 5, 10, &[2, 8]),
    ]);
    assert_same(&expected, &rows, "corrected");
}

/// A window over windows that late rows change counts each of them once, by its final
/// result.
#[test]
fn windows_follow_windows_with_late_rows() {
    let row = |at: i64| event("a", at, at);
    let folder = folder(&[(
        "in.jsonl",
        &[row(1), row(100), row(2), row(3), row(104), row(7300)],
    )]);
    let operators = r#"
        [operators.counted]
        plugin = "basics.count"
        input = "events"
        key = "key"
        window = { tumbling = "10s" }
        allowed_lateness = "1h"
        emit = "final"
        [operators.minutes]
        plugin = "basics.count"
        input = "counted"
        key = "key"
        window = { tumbling = "1m" }
        bounds = { start = "minute", end = "minute_end" }
        [operators.corrected]
        plugin = "basics.count"
        input = "events"
        key = "key"
        window = { tumbling = "10s" }
        allowed_lateness = "1h"
        timing = "timing"
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        operators,
        &sink("out", "counted"),
        &sink("minutes_out", "minutes"),
        &sink("corrected_out", "corrected"),
    ]);
    let counted = |at: i64, count: i64| {
        json!({
            "key": "a", "window_start": second(at), "window_end": second(at + 10),
            "count": count
        })
    };
    let rows = collect_everywhere(&text, folder.path(), "out");
    let expected = sorted(vec![counted(0, 3), counted(100, 2), counted(7300, 1)]);
    assert_same(&expected, &rows, "final results");
    let minute = |at: i64, count: i64| {
        json!({
            "key": "a", "minute": second(at), "minute_end": second(at + 60), "count": count
        })
    };
    let rows = collect_everywhere(&text, folder.path(), "minutes_out");
    let expected = sorted(vec![minute(0, 1), minute(60, 1), minute(7260, 1)]);
    assert_same(&expected, &rows, "windows over final results");
    let timed = |at: i64, timing: &str, count: i64| {
        let mut row = counted(at, count);
        row["timing"] = json!(timing);
        row
    };
    let rows = collect_everywhere(&text, folder.path(), "corrected_out");
    let expected = sorted(vec![
        timed(0, "on_time", 1),
        timed(0, "late", 2),
        timed(0, "late", 3),
        timed(100, "on_time", 2),
        timed(7300, "on_time", 1),
    ]);
    assert_same(&expected, &rows, "results with their timing");
}

#[test]
fn a_running_aggregate_forgets_keys_that_have_had_no_row_for_long() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 1, 0),
            event("a", 2, 10),
            // The key's state expires more than 10 s after its row, not at 10 s.
            event("b", 4, 15),
            event("a", 8, 20),
            event("b", 16, 26),
            event("a", 32, 25),
            event("a", 64, 40),
        ],
    )]);
    let operators = r#"
        [operators.result]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = "running"
        ttl = "10s"
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "5s"),
        operators,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    let of = |key: &str| -> Vec<i64> {
        let rows = rows.iter().filter(|row| row["key"] == key);
        let mut sums: Vec<i64> = rows.filter_map(|row| row["sum"].as_i64()).collect();
        sums.sort_unstable();
        sums
    };
    assert_eq!(of("a"), [1, 3, 11, 43, 64]);
    assert_eq!(of("b"), [4, 16]);
}

#[test]
fn windows_follow_windows() {
    let rows: Vec<Value> = (0..600)
        .map(|i| event(if i % 3 == 0 { "a" } else { "b" }, i, i))
        .collect();
    let folder = folder(&[("in.jsonl", &rows)]);
    let operators = r#"
        [operators.ten_seconds]
        plugin = "basics.count"
        input = "events"
        key = "key"
        window = { tumbling = "10s" }
        [operators.minutes]
        plugin = "basics.count"
        input = "ten_seconds"
        key = "key"
        window = { tumbling = "1m" }
        bounds = { start = "minute", end = "minute_end" }
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        operators,
        &sink("out", "minutes"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    let minutes = (0..10).flat_map(|minute| {
        ["a", "b"].map(|key| {
            json!({
                "key": key, "count": 6,
                "minute": second(minute * 60), "minute_end": second(minute * 60 + 60),
            })
        })
    });
    assert_same(&sorted(minutes.collect()), &rows, "six a minute");
}

#[test]
fn sessions_merge_when_a_row_fills_the_gap() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 1, 0),
            event("a", 2, 18),
            event("b", 4, 19),
            event("a", 8, 9),
            event("a", 16, 60),
        ],
    )]);
    let operator = r#"
        [operators.result]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = { session = "10s" }
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "20s"),
        operator,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    let expected = sorted(vec![
        stats("a", 0, 28, &[1, 2, 8]),
        stats("a", 60, 70, &[16]),
        stats("b", 19, 29, &[4]),
    ]);
    assert_same(&expected, &rows, "merged");
}

#[test]
fn rows_of_a_key_are_folded_in_their_order() {
    let letters = ["s", "l", "u", "i", "c", "e"];
    let rows: Vec<Value> = letters
        .iter()
        .enumerate()
        .map(|(i, letter)| json!({"key": "k", "n": 0, "letter": letter, "ts": i}))
        .collect();
    let folder = folder(&[("in.jsonl", &rows)]);
    for (window, expected) in [
        (
            r#""running""#,
            vec!["s", "sl", "slu", "slui", "sluic", "sluice"],
        ),
        ("{ count = 4 }", vec!["slui", "ce"]),
        (r#"{ tumbling = "1s" }"#, vec!["sluice"]),
    ] {
        let bounds = if window.contains("running") {
            ""
        } else {
            "bounds = false"
        };
        let operator = format!(
            "[operators.result]\nplugin = \"basics.spell\"\ninput = \"events\"\nkey = \"key\"\n\
             window = {window}\n{bounds}\n"
        );
        let text = text_of(&[
            &events("events", "in.jsonl", "0s"),
            &operator,
            &sink("out", "result"),
        ]);
        let rows = collect_everywhere(&text, folder.path(), "out");
        let expected = expected
            .iter()
            .map(|word| json!({"key": "k", "word": word}))
            .collect();
        assert_same(&sorted(expected), &rows, window);
    }
}

#[test]
fn inputs_are_merged_and_files_are_partitions() {
    let left: Vec<Value> = (0..50).map(|i| event("a", 1, i)).collect();
    let right: Vec<Value> = (0..50).map(|i| event("a", 1, i + 3)).collect();
    let other: Vec<Value> = (0..50).map(|i| event("b", 2, i)).collect();
    let folder = folder(&[
        ("one-left.jsonl", &left),
        ("one-right.jsonl", &right),
        ("two.jsonl", &other),
    ]);
    let operator = r#"
        [operators.twos]
        plugin = "basics.even"
        input = ["one", "two"]
        [operators.result]
        plugin = "basics.stats"
        input = ["one", "twos"]
        key = "key"
        window = { tumbling = "100s" }
    "#;
    let text = text_of(&[
        &events("one", "one-*.jsonl", "0s"),
        &events("two", "two.jsonl", "0s"),
        operator,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    let expected = [stats("a", 0, 100, &[1; 100]), stats("b", 0, 100, &[2; 50])];
    assert_same(&sorted(expected.to_vec()), &rows, "all rows of both");
}

#[test]
fn half_a_broken_file_is_half_a_result_and_dead_letters_for_the_rest() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut text = Vec::new();
    let mut broken = Vec::new();
    for i in 0..200 {
        if i % 2 == 0 {
            text.extend_from_slice(event("a", 1, i).to_string().as_bytes());
        } else {
            let line: &[u8] = match i % 10 {
                1 => b"{\"key\": \"a\", \"n\":",
                3 => b"\xff\xfe\x00",
                5 => b"{\"key\": \"a\", \"n\": \"one\", \"letter\": \"a\", \"ts\": 1}",
                7 => b"[]",
                _ => b"{\"n\": 1, \"letter\": \"a\", \"ts\": 1}",
            };
            broken.push((text.len() as u64, line));
            text.extend_from_slice(line);
        }
        text.push(b'\n');
    }
    std::fs::write(folder.path().join("in.jsonl"), &text).expect("it is writable");
    let result = "
        [operators.result]
        plugin = \"basics.stats\"
        input = \"events\"
        key = \"key\"
        window = { tumbling = \"1h\" }
    ";
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        result,
        &sink("out", "result"),
    ]);
    let rows = collect_everywhere(&text, folder.path(), "out");
    assert_same(&[stats("a", 0, 3600, &[1; 100])], &rows, "the good half");

    let dead = folder.path().join("dead.jsonl");
    std::fs::remove_file(&dead).expect("there are dead letters");
    let (_, summary) = collect(plan_of(&text, folder.path()), "out");
    assert_eq!(summary.nodes[0].failed, 100);
    let letters = read_json_lines(&dead);
    assert_eq!(letters.len(), 100);
    for (letter, (offset, line)) in letters.iter().zip(broken) {
        assert_eq!(letter["offset"], offset, "{letter}");
        assert_eq!(
            (&letter["node"], &letter["kind"]),
            (&json!("events"), &json!("decode"))
        );
        match std::str::from_utf8(line) {
            Ok(line) => assert_eq!(letter["payload"], line, "{letter}"),
            Err(_) => assert_eq!(letter["payload_base64"], "//4A", "{letter}"),
        }
    }
}

#[test]
fn rejected_rows_are_dead_letters_with_their_original_line() {
    let rows = [event("a", 1, 0), event("a", -5, 1), event("b", 2, 2)];
    let folder = folder(&[("in.jsonl", &rows)]);
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        BY_KEY_5S,
        &sink("out", "result"),
    ]);
    let mut plan = plan_of(&text, folder.path());
    plan.parallelism = 2;
    let (results, summary) = collect(plan, "out");
    let expected = vec![stats("a", 0, 5, &[1]), stats("b", 0, 5, &[2])];
    assert_same(&sorted(expected), &sorted(results), "the others");
    assert_eq!(summary.nodes[1].rejected, 1);
    let letters = read_json_lines(&folder.path().join("dead.jsonl"));
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["payload"], rows[1].to_string());
    assert_eq!(letters[0]["error"], "n is -5, below 0");
    assert_eq!(letters[0]["node"], "result");
    assert_eq!(letters[0]["offset"], rows[0].to_string().len() as u64 + 1);
    assert!(
        letters[0]["plugin_digest"]
            .as_str()
            .is_some_and(|d| d.starts_with("sha256:"))
    );
}

#[test]
fn under_fail_the_run_ends_with_the_row() {
    let rows = [event("a", 1, 0), event("a", -5, 1)];
    let folder = folder(&[("in.jsonl", &rows)]);
    let offset = format!("offset {}", rows[0].to_string().len() + 1);
    let result = format!("{BY_KEY_5S}\non_error = \"fail\"\n");
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        &result,
        &sink("out", "result"),
    ]);
    let error = run(plan_of(&text, folder.path()))
        .expect_err("a row is rejected")
        .to_string();
    for part in ["`result`", "n is -5, below 0", &offset] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn results_are_written_in_every_format() {
    let folder = folder(&[("in.jsonl", &[event("a", 1, 0), event("b", 2, 1)])]);
    let sinks = ["json", "csv", "parquet"].map(|format| {
        format!(
            "[sinks.{format}_out]\ntype = \"file\"\ninput = \"result\"\n\
             path = \"out/rows.{format}\"\nformat = \"{format}\"\n"
        )
    });
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        BY_KEY_5S,
        &sinks.concat(),
    ]);
    run(plan_of(&text, folder.path())).expect("it runs");
    let written = |format: &str| folder.path().join(format!("out/rows.{format}"));
    let expected = vec![stats("a", 0, 5, &[1]), stats("b", 0, 5, &[2])];
    assert_same(
        &expected,
        &sorted(read_json_lines(&written("json"))),
        "json",
    );
    let csv = std::fs::read_to_string(written("csv")).expect("it was written");
    let mut lines: Vec<&str> = csv.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "key,window_start,window_end,count,sum,min,max",
            "a,1970-01-01T00:00:00Z,1970-01-01T00:00:05Z,1,1,1,1",
            "b,1970-01-01T00:00:00Z,1970-01-01T00:00:05Z,1,2,2,2",
        ]
    );
    let parquet = std::fs::File::open(written("parquet")).expect("it was written");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(parquet, 1024)
        .expect("it is Parquet");
    let rows: usize = reader
        .map(|batch| batch.expect("it is readable").num_rows())
        .sum();
    assert_eq!(rows, 2);
}

#[test]
fn rows_come_over_tcp_in_whatever_pieces() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("it has an address")
    };
    let source = format!(
        r#"
        [sources.events]
        type = "tcp"
        listen = "{address}"
        framing = "newline"
        connections = 2
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "1h" }}
        fields = {{ key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }}
        "#
    );
    let text = text_of(&[&source, BY_KEY_5S, &sink("out", "result")]);
    let folder = folder(&[]);
    let plan = plan_of(&text, folder.path());
    let clients = std::thread::spawn(move || {
        for client in 0..2 {
            let mut stream = loop {
                match TcpStream::connect(address) {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            let lines: String = (0..100)
                .map(|i| format!("{}\n", event("a", client, i / 20)))
                .collect();
            for piece in lines.as_bytes().chunks(33) {
                stream.write_all(piece).expect("the other side listens");
                stream.flush().expect("the other side listens");
            }
        }
    });
    let (rows, summary) = collect(plan, "out");
    clients.join().expect("the clients are done");
    let values: Vec<i64> = [0, 1].iter().flat_map(|&n| [n; 100]).collect();
    assert_same(&[stats("a", 0, 5, &values)], &rows, "every row once");
    assert_eq!(summary.nodes[0].failed, 0);
}

#[test]
fn an_endless_run_stops_when_asked_and_fires_no_open_window() {
    let text = text_of(&[
        r#"
        [sources.events]
        type = "generator"
        rate = 2000.0
        [operators.result]
        plugin = "basics.count"
        input = "events"
        key = "user_id"
        window = { tumbling = "10h" }
        "#,
        &sink("out", "result"),
        &sink("raw", "events"),
    ]);
    let folder = folder(&[]);
    let plan = plan_of(&text, folder.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let summary = runtime.block_on(async {
        let job = Job::new(plan, Arc::new(SystemClock));
        let stop = job.stop();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            stop.ask();
        });
        tokio::time::timeout(Duration::from_secs(20), job.run()).await
    });
    let summary = summary.expect("it stops").expect("it does not fail");
    assert!(summary.stopped);
    let node = |name: &str| {
        summary
            .nodes
            .iter()
            .find(|node| node.name == name)
            .expect("a node")
    };
    assert!(node("events").rows_out > 0);
    assert_eq!(
        node("raw").rows_in,
        node("events").rows_out,
        "what was read is written"
    );
    assert_eq!(node("out").rows_in, 0, "an open window has no result");
}

/// The rows that came to one sink, and the summary.
fn collect(plan: Plan, sink: &str) -> (Vec<Value>, Summary) {
    let ([rows], summary) = collect_all(plan, [sink]);
    (rows, summary)
}

fn read_json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// A source of the same rows as lines, and an operator with their event time.
fn parsed(path: &str, out_of_orderness: &str) -> String {
    format!(
        r#"
        [sources.lines]
        type = "file"
        path = {path:?}
        format = "raw"
        fields = {{ line = "utf8" }}
        [operators.events]
        plugin = "basics.parse"
        input = "lines"
        event_time = "ts"
        watermark = {{ out_of_orderness = "{out_of_orderness}" }}
        "#
    )
}

/// Functions that give what the plugin's `stats` does.
const STATS: &str =
    r#"aggregate = { count = "count()", sum = "sum(n)", min = "min(n)", max = "max(n)" }"#;

/// Every kind of window has the same results of functions as of a plugin.
#[test]
fn functions_give_what_a_plugin_does() {
    let folder = disordered(1, 200, 6);
    for settings in [
        "window = { tumbling = \"5s\" }\nallowed_lateness = \"4s\"\ntiming = \"timing\"",
        "window = { sliding = \"10s\", every = \"2s\" }\nallowed_lateness = \"4s\"\nemit = \"final\"",
        "window = { sliding = \"10s\", every = \"3s\" }\nallowed_lateness = \"4s\"\nemit = \"final\"",
        "window = { cumulate = \"20s\", every = \"5s\" }\nallowed_lateness = \"4s\"\ntiming = \"timing\"",
        "window = { session = \"1s\" }",
        "window = { count = 7 }",
        "window = \"running\"\nttl = \"5s\"",
    ] {
        let rows = |runs: &str, keyed: bool| {
            let key = if keyed { "key = \"key\"" } else { "" };
            let operator =
                format!("[operators.result]\n{runs}\ninput = \"events\"\n{key}\n{settings}\n");
            let text = text_of(&[
                &events("events", "in0.jsonl", "2s"),
                &operator,
                &sink("out", "result"),
            ]);
            collect_everywhere(&text, folder.path(), "out")
        };
        // One group, or one for each key.
        let keyed = settings.contains("lateness");
        let expected = rows("plugin = \"basics.stats\"", keyed);
        assert!(expected.len() > 20, "{settings}: {}", expected.len());
        assert_same(&expected, &rows(STATS, keyed), settings);
    }
}

/// Windows of each row, by their starts and ends in seconds.
type WindowsOf = fn(i64) -> Vec<(i64, i64)>;

/// Rows of keys enough to be evicted, in windows whose panes are none of the usual ones.
#[test]
fn windows_of_other_shapes_hold_what_their_definition_says() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut rows = Vec::new();
    for at in 0..6_000 {
        let key = format!("k{}", random.u16(0..2_000));
        rows.push(event(
            &key,
            random.i64(0..100),
            at / 100 + 3 - random.i64(0..4),
        ));
    }
    let folder = folder(&[("in.jsonl", &rows)]);
    let sliding = |second: i64| {
        let last = (second - 2).div_euclid(7) * 7 + 2;
        let starts = (0..3)
            .map(|nth| last - 7 * nth)
            .filter(|start| second < start + 20);
        starts.map(|start| (start, start + 20)).collect()
    };
    let cumulating = |second: i64| {
        let start = second.div_euclid(12) * 12;
        let ends = (1..=4)
            .map(|nth| start + 3 * nth)
            .filter(|&end| second < end);
        ends.map(|end| (start, end)).collect()
    };
    let shapes: [(&str, WindowsOf); 3] = [
        (
            r#"{ sliding = "20s", every = "7s", offset = "2s" }"#,
            sliding,
        ),
        (r#"{ cumulate = "12s", every = "3s" }"#, cumulating),
        (r#""global""#, |_| vec![(0, 0)]),
    ];
    for (window, windows_of) in shapes {
        let operator = format!(
            "[operators.result]\naggregate = {{ count = \"count()\", sum = \"sum(n)\" }}\n\
             input = \"events\"\nkey = \"key\"\nwindow = {window}\n"
        );
        let text = text_of(&[
            &events("events", "in.jsonl", "3s"),
            &operator,
            &sink("out", "result"),
        ]);
        let results = collect_everywhere(&text, folder.path(), "out");
        let mut expected: BTreeMap<(String, i64, i64), (i64, i64)> = BTreeMap::new();
        for row in &rows {
            let number = |name: &str| row[name].as_i64().unwrap_or_default();
            for (start, end) in windows_of(number("ts") / 1_000) {
                let key = row["key"].as_str().unwrap_or_default().to_owned();
                let (count, sum) = expected.entry((key, start, end)).or_default();
                *count += 1;
                *sum += number("n");
            }
        }
        let mut expected: Vec<Value> = expected
            .into_iter()
            .map(|((key, start, end), (count, sum))| match window {
                r#""global""# => json!({"key": key, "count": count, "sum": sum}),
                _ => json!({
                    "key": key,
                    "window_start": second(start),
                    "window_end": second(end),
                    "count": count,
                    "sum": sum,
                }),
            })
            .collect();
        expected.sort_by_cached_key(ToString::to_string);
        assert_same(&expected, &results, window);
    }
}

/// What reads the global window has its results on time, and goes on when the inputs end.
#[test]
fn results_of_the_global_window_are_late_for_nothing() {
    let rows = [event("a", 1, 0), event("b", 2, 70), event("a", 3, 5)];
    let folder = folder(&[("in.jsonl", &rows)]);
    let operators = r#"
        [operators.all]
        aggregate = { sum = "sum(n)" }
        input = "events"
        key = "key"
        window = "global"
        [operators.result]
        aggregate = { keys = "count()", sum = "sum(sum)" }
        input = "all"
        window = { tumbling = "1m" }
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "2m"),
        operators,
        &sink("out", "result"),
    ]);
    let results = collect_everywhere(&text, folder.path(), "out");
    let window = |start, sum| {
        json!({
            "window_start": second(start),
            "window_end": second(start + 60),
            "keys": 1,
            "sum": sum,
        })
    };
    assert_same(&[window(60, 2), window(0, 4)], &results, "results");
}

/// Sketches are the same at every batch size and parallelism, and through kills.
#[test]
fn sketches_give_the_same_everywhere() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut rows = Vec::new();
    for at in 0..4_000 {
        let key = format!("k{}", random.u8(0..3));
        rows.push(event(&key, random.i64(0..3_000), at / 200));
    }
    let folder = folder(&[("in.jsonl", &rows)]);
    let operator = r#"
        [operators.result]
        aggregate = { about = "approx_count_distinct(n)", exact = "count_distinct(n)", median = "median(n)", most = "quantile(n, 0.99)" }
        input = "events"
        key = "key"
        window = { sliding = "15s", every = "5s" }
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "1s"),
        operator,
        &sink("out", "result"),
    ]);
    let results = collect_everywhere(&text, folder.path(), "out");
    assert!(results.len() > 15, "{} results", results.len());
    for result in results {
        let of = |name: &str| result[name].as_f64().unwrap_or_default();
        let apart = (of("about") - of("exact")).abs();
        assert!(apart <= 0.05 * of("exact"), "{result}");
        assert!((of("median") - 1_500.0).abs() < 300.0, "{result}");
        assert!((of("most") - 2_970.0).abs() < 150.0, "{result}");
    }
}

#[test]
fn a_pipeline_may_have_many_operators_behind_one_another() {
    let folder = folder(&[("in.jsonl", &[event("a", 1, 1)])]);
    let mut text = text_of(&[&events("o0", "in.jsonl", "1s"), &sink("out", "o1500")]);
    for number in 1..=1500 {
        text += &format!(
            "[operators.o{number}]\nfilter = \"n > 0\"\ninput = \"o{}\"\n",
            number - 1
        );
    }
    let summary = run(plan_of(&text, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(summary.nodes.iter().map(|node| node.rows_in).min(), Some(1));
}

#[test]
fn a_filter_keeps_rows_and_makes_dead_letters_of_others() {
    let mut rows: Vec<Value> = (0..200).map(|n| event("a", n, n)).collect();
    rows.extend([event("b", i64::MAX, 200), event("c", 7, 201)]);
    let folder = folder(&[("in.jsonl", &rows)]);
    let operator = r#"
        [operators.big]
        filter = "n * 2 > 100 && key in ['a', 'b'] && ts < timestamp('1970-01-01T00:03:00Z')"
        input = "events"
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        operator,
        &sink("out", "big"),
    ]);
    let kept = collect_everywhere(&text, folder.path(), "out");
    let numbers: BTreeSet<i64> = kept.iter().filter_map(|row| row["n"].as_i64()).collect();
    assert_eq!(numbers, (51..180).collect());
    assert!(kept.iter().all(|row| row["letter"] == "a"));

    let operator = operator.replace(" && ts < timestamp('1970-01-01T00:03:00Z')", "");
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        &operator,
        &sink("out", "big"),
    ]);
    let (kept, summary) = collect(plan_of(&text, folder.path()), "out");
    assert_eq!((kept.len(), summary.nodes[1].rejected), (149, 1));
    let letters = read_json_lines(&folder.path().join("dead.jsonl"));
    let last = letters.last().expect("one at least");
    assert_eq!(last["payload"], rows[200].to_string());
    assert_eq!(last["error"], "a number is too large for its type");
}

#[test]
fn functions_keep_texts_lists_and_sets_through_kills() {
    let folder = disordered(1, 400, 0);
    let aggregate = r#"aggregate = { first = "first(letter)", last = "last(n)", best = "top(2, n)",
        different = "count_distinct(n)", mean = "mean(n)", spread = "stddev(n)" }"#;
    let operator = format!(
        "[operators.result]\n{}\ninput = \"events\"\nwindow = {{ tumbling = \"20s\" }}\n\
         bounds = {{ start = \"from\", end = \"to\" }}\n",
        aggregate.replace('\n', ""),
    );
    let text = text_of(&[
        &events("events", "in0.jsonl", "0s"),
        &operator,
        &sink("out", "result"),
    ]);
    let results = collect_everywhere(&text, folder.path(), "out");
    let mut windows: BTreeMap<i64, Vec<(String, i64)>> = BTreeMap::new();
    for row in read_json_lines(&folder.path().join("in0.jsonl")) {
        let value = (
            row["letter"].as_str().unwrap_or_default().to_owned(),
            row["n"].as_i64(),
        );
        let from = row["ts"].as_i64().unwrap_or_default().div_euclid(20_000) * 20;
        let rows = windows.entry(from).or_default();
        rows.push((value.0, value.1.unwrap_or_default()));
    }
    assert!(windows.len() > 8);
    assert_eq!(results.len(), windows.len());
    for (from, rows) in windows {
        let result = results.iter().find(|result| result["from"] == second(from));
        let result = result.unwrap_or_else(|| panic!("no window from {from}"));
        let mut numbers: Vec<i64> = rows.iter().map(|row| row.1).collect();
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<i64>() as f64 / count;
        let squares = numbers
            .iter()
            .map(|&n| (n as f64 - mean) * (n as f64 - mean));
        let spread = (squares.sum::<f64>() / (count - 1.0)).sqrt();
        assert_eq!(result["first"], rows[0].0);
        assert_eq!(result["last"], numbers[numbers.len() - 1]);
        numbers.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
        assert_eq!(result["best"], json!(numbers[..2]));
        numbers.dedup();
        assert_eq!(result["different"], numbers.len());
        assert_eq!(result["mean"], mean);
        let apart = result["spread"].as_f64().unwrap_or_default() - spread;
        assert!(apart.abs() < 1e-9, "{result} {spread}");
    }
}

#[test]
fn a_row_with_which_a_sum_overflows_is_a_dead_letter() {
    let rows = [event("a", i64::MAX, 0), event("a", 5, 1), event("a", -3, 2)];
    let folder = folder(&[("in.jsonl", &rows)]);
    let operator = format!(
        "[operators.result]\n{STATS}\ninput = \"events\"\nwindow = {{ tumbling = \"5s\" }}\n"
    );
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        &operator,
        &sink("out", "result"),
    ]);
    let mut plan = plan_of(&text, folder.path());
    plan.batch_rows = 2;
    let (results, summary) = collect(plan, "out");
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["count"], 2);
    assert_eq!(results[0]["sum"], i64::MAX - 3);
    assert_eq!(summary.nodes[1].rejected, 1);
    let letters = read_json_lines(&folder.path().join("dead.jsonl"));
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["payload"], rows[1].to_string());
    assert_eq!(letters[0]["node"], "result");
    assert_eq!(
        letters[0]["error"],
        "`sum(n)` is too large for its type of 64 bits"
    );
    assert_eq!(letters[0]["plugin"], Value::Null);
}

#[test]
fn duplicates_are_left_out_for_a_time() {
    let mut rows = vec![
        event("a", 1, 0),
        event("b", 2, 1),
        event("a", 3, 4),
        event("b", 4, 12),
        event("a", 5, 9),
        event("a", 6, 10),
        event("b", 7, 21),
        event("a", 8, 40),
        // Too late for its time: what was kept of the key is gone.
        event("b", 9, 20),
    ];
    // Keys enough to be evicted.
    for key in 0..2_000 {
        rows.extend([
            event(&format!("k{key}"), 10, 50),
            event(&format!("k{key}"), 11, 51),
        ]);
    }
    let folder = folder(&[("in.jsonl", &rows)]);
    let operators = r#"
        [operators.once]
        deduplicate = { by = "key", within = "10s" }
        input = "events"
        [operators.short]
        select = { number = "n", of = "key", ts = "ts" }
        input = "once"
        [operators.shorter]
        drop = "ts"
        input = "short"
    "#;
    let text = text_of(&[
        &events("events", "in.jsonl", "5s"),
        operators,
        &sink("out", "shorter"),
    ]);
    let passed = collect_everywhere(&text, folder.path(), "out");
    let of = |key: &str| -> Vec<i64> {
        let of = passed.iter().filter(|row| row["of"] == key);
        let mut numbers: Vec<i64> = of.filter_map(|row| row["number"].as_i64()).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(of("a"), [1, 6, 8]);
    assert_eq!(of("b"), [2, 4, 9]);
    assert_eq!(passed.len(), 6 + 2_000);
    assert!(
        passed
            .iter()
            .all(|row| row.get("ts").is_none() && row["number"] != 11)
    );
}

/// Random events, at most so many seconds out of order within their file.
fn disordered(files: usize, rows: i64, seconds: i64) -> TempDir {
    let random = &mut fastrand::Rng::with_seed(11);
    let texts: Vec<(String, Vec<Value>)> = (0..files)
        .map(|file| {
            let rows = (0..rows).map(|at| {
                let key = format!("k{}", random.u8(0..3));
                event(
                    &key,
                    random.i64(0..100),
                    at / 2 + 3 - random.i64(0..=seconds),
                )
            });
            (format!("in{file}.jsonl"), rows.collect())
        })
        .collect();
    let files: Vec<(&str, &[Value])> = texts
        .iter()
        .map(|(name, rows)| (name.as_str(), rows.as_slice()))
        .collect();
    folder(&files)
}

const RESULTS_AND_LATE_ROWS: &str = r#"
    [sinks.late]
    type = "blackhole"
    input = "result.late"
    [sinks.out]
    type = "blackhole"
    input = "result"
"#;

#[test]
fn rows_may_get_their_event_time_from_an_operator() {
    let folder = disordered(1, 400, 6);
    let rows = |source: &str| {
        let text = text_of(&[source, BY_KEY_5S, RESULTS_AND_LATE_ROWS]);
        collect_all_everywhere(&text, folder.path(), ["out", "late"])
    };
    let [expected, late] = rows(&events("events", "in0.jsonl", "2s"));
    assert!(late.len() > 20, "{} late rows", late.len());
    let [results, late_too] = rows(&parsed("in0.jsonl", "2s"));
    assert_same(&expected, &results, "results");
    assert_same(&late, &late_too, "late rows");
}

#[test]
fn each_file_has_a_watermark_of_its_own_also_at_an_operator() {
    // Within its file no row is late, so none is, in whatever order files are read.
    let folder = disordered(5, 300, 2);
    let rows = |source: &str| {
        let text = text_of(&[source, BY_KEY_5S, RESULTS_AND_LATE_ROWS]);
        collect_all_everywhere(&text, folder.path(), ["out", "late"])
    };
    let [expected, late] = rows(&events("events", "in*.jsonl", "3s"));
    assert_eq!(late, Vec::<Value>::new());
    let [results, late] = rows(&parsed("in*.jsonl", "3s"));
    assert_eq!(late, Vec::<Value>::new());
    assert_same(&expected, &results, "results");
}

#[test]
fn files_are_read_in_the_same_order_if_an_operator_has_the_event_time() {
    // More rows than are read of a file in its turn, and some are late.
    let folder = disordered(3, 9_000, 6);
    let rows = |source: &str, batch_rows| {
        let text = text_of(&[source, BY_KEY_5S, RESULTS_AND_LATE_ROWS]);
        let mut plan = plan_of(&text, folder.path());
        plan.batch_rows = batch_rows;
        collect_all(plan, ["out", "late"]).0.map(sorted)
    };
    let [expected, late] = rows(&events("events", "in*.jsonl", "2s"), 4096);
    assert!(late.len() > 100, "{} late rows", late.len());
    for batch_rows in [1, 7, 4096] {
        let [results, late_too] = rows(&parsed("in*.jsonl", "2s"), batch_rows);
        assert_same(
            &expected,
            &results,
            &format!("results, batch_rows {batch_rows}"),
        );
        assert_same(
            &late,
            &late_too,
            &format!("late rows, batch_rows {batch_rows}"),
        );
    }
}

#[test]
fn what_an_operator_makes_of_one_row_may_have_several_times() {
    let folder = folder(&[(
        "in.jsonl",
        &[
            event("a", 7, 0),
            event("b", 2, 3),
            event("a", 3, 12),
            event("b", 4, 8),
        ],
    )]);
    let source = parsed("in.jsonl", "1s").replace("basics.parse", "basics.repeat");
    let text = text_of(&[&source, BY_KEY_5S, RESULTS_AND_LATE_ROWS]);
    let [rows, late] = collect_all_everywhere(&text, folder.path(), ["out", "late"]);
    let expected = vec![
        stats("a", 0, 5, &[0, 1, 2, 3, 4]),
        stats("a", 5, 10, &[5, 6]),
        stats("a", 10, 15, &[0, 1, 2]),
        stats("b", 10, 15, &[2, 3]),
    ];
    assert_same(&sorted(expected), &rows, "results");
    // The first window ends when the watermark is 5 s, at the row of 6 s.
    let late: Vec<i64> = late.iter().filter_map(|row| row["n"].as_i64()).collect();
    assert_eq!(late, [0, 0, 1, 1]);
}

#[test]
fn rows_reach_their_event_time_through_filters_and_are_read_by_others_too() {
    let folder = disordered(2, 200, 1);
    let nested = |event_time: &str, read: &str, more: &str| {
        format!(
            r#"
            [sources.rows]
            type = "file"
            path = "in*.jsonl"
            {event_time}
            fields = {{ key = "utf8", n = "int64", ts = "timestamp(ms)" }}
            [operators.even]
            plugin = "basics.even"
            input = "rows"
            {more}
            [operators.result]
            plugin = "basics.stats"
            input = "{read}"
            key = "key"
            window = {{ tumbling = "5s" }}
            [sinks.all]
            type = "blackhole"
            input = ["rows", "even"]
            [sinks.out]
            type = "blackhole"
            input = "result"
            "#
        )
    };
    let time = "event_time = \"ts\"\nwatermark = { out_of_orderness = \"2s\" }";
    let again = format!("[operators.again]\nplugin = \"basics.even\"\ninput = \"even\"\n{time}");
    let rows =
        |text: &str| collect_all_everywhere(&text_of(&[text]), folder.path(), ["out", "all"]);
    let [expected, read] = rows(&nested(time, "even", ""));
    let [results, read_too] = rows(&nested("", "again", &again));
    assert_same(&expected, &results, "results");
    assert_same(&read, &read_too, "rows without an event time");
}

#[test]
fn an_event_time_may_be_a_member_of_a_record() {
    let row = |n: i64, second: i64| json!({"n": n, "meta": {"at": {"ts": second * 1000}}});
    let folder = folder(&[("in.jsonl", &[row(2, 1), row(4, 7), row(8, 2), row(16, 8)])]);
    let time = "event_time = \"meta.at.ts\"";
    for (of_source, of_operator) in [(time, ""), ("", time)] {
        let text = text_of(&[&format!(
            r#"
            [sources.rows]
            type = "file"
            path = "in.jsonl"
            {of_source}
            fields = {{ n = "int64", meta = {{ at = {{ ts = "timestamp(ms)" }} }} }}
            [operators.even]
            plugin = "basics.even"
            input = "rows"
            {of_operator}
            [operators.result]
            plugin = "basics.stats"
            input = "even"
            window = {{ tumbling = "5s" }}
            bounds = false
            {RESULTS_AND_LATE_ROWS}
            "#
        )]);
        let [rows, late] = collect_all_everywhere(&text, folder.path(), ["out", "late"]);
        let sums: Vec<&Value> = rows.iter().map(|row| &row["sum"]).collect();
        assert_eq!(sums, [&json!(2), &json!(20)]);
        assert_eq!(late.len(), 1);
    }
}

#[test]
fn rows_without_a_valid_event_time_are_dead_letters_of_the_operator() {
    let row = |n: i64, ts: i64| json!({"key": "a", "n": n, "letter": "a", "ts": ts});
    let ahead_ms = 4_102_444_800_000_i64;
    let rows = [
        row(1, 1_000),
        row(2, i64::MAX),
        row(4, ahead_ms),
        row(8, 2_000),
    ];
    let folder = folder(&[("in.jsonl", &rows)]);
    let text = text_of(&[&parsed("in.jsonl", "0s"), BY_KEY_5S, &sink("out", "result")]);
    for batch_rows in [1, 4096] {
        let mut plan = plan_of(&text, folder.path());
        plan.batch_rows = batch_rows;
        let ([results], _) = collect_all(plan, ["out"]);
        assert_same(&[stats("a", 0, 5, &[1, 8])], &results, "results");
        let path = folder.path().join("dead.jsonl");
        let letters = std::fs::read_to_string(&path).expect("there are some");
        std::fs::remove_file(&path).expect("it is there");
        let letters: Vec<Value> = letters
            .lines()
            .map(|line| serde_json::from_str(line).expect("whole letters"))
            .collect();
        let said = |letter: &Value| {
            let text = |name: &str| letter[name].as_str().unwrap_or("none").to_owned();
            [
                text("node"),
                text("kind"),
                text("event_time"),
                text("error"),
            ]
        };
        let said: Vec<[String; 4]> = letters.iter().map(said).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        for letter in &said {
            assert_eq!(letter[..3], ["events", "event_time", "none"], "{letter:?}");
        }
        assert!(said[0][3].contains("years 1 to 9999"), "{said:?}");
        assert!(said[1][3].contains("at most 1 day ahead"), "{said:?}");
        assert_eq!(letters[1]["payload"], rows[2].to_string());
    }
}

/// The columns of joined events.
const JOINED: &str = "select = { key = \"key.key\", left = \"left.n\", right = \"right.n\" }";

fn joined(key: &str, left: Option<&Value>, right: Option<&Value>) -> Value {
    let n = |row: Option<&Value>| row.map(|row| row["n"].clone());
    json!({"key": key, "left": n(left), "right": n(right)})
}

/// Events of a few keys, up to 4 s out of order.
fn of_few_keys(seed: u64, count: i64) -> Vec<Value> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = Vec::new();
    for number in 0..count {
        let key = ["a", "b", "c", "d"][random.usize(0..4)];
        rows.push(event(key, number, number / 2 + 10 - random.i64(0..5)));
    }
    rows
}

/// Every kind of join, of two inputs one of which is merged of two, and a window of
/// joined rows.
#[test]
fn joins_give_what_their_definition_says() {
    let (clicks, more, buys) = (of_few_keys(1, 40), of_few_keys(2, 20), of_few_keys(3, 50));
    let folder = folder(&[
        ("clicks.jsonl", &clicks),
        ("more.jsonl", &more),
        ("buys.jsonl", &buys),
    ]);
    let operator = |name: &str, rule: &str| {
        format!(
            r#"
            [operators.{name}]
            {rule}
            input = {{ left = ["clicks", "more"], right = "buys" }}
            key = "key"
            {JOINED}
            "#
        )
    };
    let counted = r#"
        [operators.versions]
        join = { kind = "inner", as_of = "event_time" }
        input = { left = ["clicks", "more"], right = "buys" }
        key = "key"
        select = { key = "key.key", n = "right.n", letter = "left.letter" }

        [operators.counted]
        plugin = "basics.stats"
        input = "versions"
        key = "key"
        window = { tumbling = "5s" }
    "#;
    let text = text_of(&[
        &events("clicks", "clicks.jsonl", "5s"),
        &events("more", "more.jsonl", "5s"),
        &events("buys", "buys.jsonl", "5s"),
        &operator(
            "near",
            "join = { kind = \"full\", before = \"2s\", after = \"1s\" }",
        ),
        &operator(
            "same",
            "join = { kind = \"full\" }\nwindow = { tumbling = \"3s\" }",
        ),
        &operator("last", "join = { kind = \"left\", as_of = \"event_time\" }"),
        counted,
        &sink("near_out", "near"),
        &sink("same_out", "same"),
        &sink("last_out", "last"),
        &sink("counted_out", "counted"),
    ]);
    let sinks = ["near_out", "same_out", "last_out", "counted_out"];
    let [near, same, last, counted] = collect_all_everywhere(&text, folder.path(), sinks);

    let left: Vec<&Value> = clicks.iter().chain(&more).collect();
    let second = |row: &Value| row["ts"].as_i64().unwrap_or_default() / 1000;
    let full = |matches: &dyn Fn(i64, i64) -> bool| {
        let is_pair = |left: &Value, right: &Value| {
            left["key"] == right["key"] && matches(second(left), second(right))
        };
        let mut rows = Vec::new();
        for left in &left {
            let key = left["key"].as_str().unwrap_or_default();
            let found: Vec<&Value> = buys.iter().filter(|right| is_pair(left, right)).collect();
            rows.extend(
                found
                    .iter()
                    .map(|right| joined(key, Some(left), Some(right))),
            );
            if found.is_empty() {
                rows.push(joined(key, Some(left), None));
            }
        }
        let alone = |right: &&Value| !left.iter().any(|left| is_pair(left, right));
        for right in buys.iter().filter(alone) {
            let key = right["key"].as_str().unwrap_or_default();
            rows.push(joined(key, None, Some(right)));
        }
        sorted(rows)
    };
    let expected = full(&|left, right| left - 2 <= right && right <= left + 1);
    assert_same(&expected, &near, "interval");
    let expected = full(&|left, right| left.div_euclid(3) == right.div_euclid(3));
    assert_same(&expected, &same, "window");

    let mut expected = Vec::new();
    let mut windows: BTreeMap<(String, i64), Vec<i64>> = BTreeMap::new();
    for left in &left {
        let key = left["key"].as_str().unwrap_or_default();
        let versions = buys.iter().filter(|right| right["key"] == left["key"]);
        let version = versions
            .filter(|right| second(right) <= second(left))
            .max_by_key(|right| second(right));
        expected.push(joined(key, Some(left), version));
        if let Some(version) = version {
            let window = (key.to_owned(), second(left).div_euclid(5) * 5);
            let n = version["n"].as_i64().unwrap_or_default();
            windows.entry(window).or_default().push(n);
        }
    }
    assert_same(&sorted(expected), &last, "as of");
    let windows = windows.iter();
    let expected = windows.map(|((key, from), values)| stats(key, *from, from + 5, values));
    assert_same(
        &sorted(expected.collect()),
        &counted,
        "windows of joined rows",
    );
}

/// Rows that come when both inputs have passed them leave by the output of their side.
#[test]
fn late_rows_of_a_join_have_an_output_a_side() {
    let rows = [event("a", 1, 100), event("a", 2, 10), event("a", 3, 101)];
    let folder = folder(&[("in.jsonl", &rows)]);
    let text = text_of(&[
        &events("events", "in.jsonl", "0s"),
        r#"
        [operators.pairs]
        join = { kind = "left", before = "1m", after = "0s" }
        input = { left = "events", right = "events" }
        key = "key"
        select = { key = "key.key", left = "left.n", right = "right.n" }
        "#,
        &sink("out", "pairs"),
        &sink("left", "pairs.late_left"),
        &sink("right", "pairs.late_right"),
    ]);
    let mut plan = plan_of(&text, folder.path());
    plan.batch_rows = 1;
    let ([out, left, right], _) = collect_all(plan, ["out", "left", "right"]);
    // Both sides read the same rows, each at its own speed: a side's row is late only
    // once the other has come as far.
    assert!(
        left.iter().chain(&right).all(|row| row["n"] == 2),
        "{left:?} {right:?}"
    );
    let on_time = out
        .iter()
        .filter(|row| row["left"] != 2 && row["right"] != 2);
    let on_time: Vec<Value> = on_time.cloned().collect();
    let pair = |left: i64, right: i64| json!({"key": "a", "left": left, "right": right});
    let expected = vec![pair(1, 1), pair(3, 1), pair(3, 3)];
    assert_same(&expected, &sorted(on_time), "on time");
}

/// Every kind of window tells an aggregate the key of each result: on time, corrected, early
/// and taken back, also around rows that it fails on, and of states that were evicted.
#[test]
fn an_aggregate_reads_the_key_of_its_results() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut rows: Vec<Value> = Vec::new();
    for second in 0..300 {
        let key = format!("key {}", rng.u32(0..20));
        let n = if rng.u32(0..40) == 0 { -1 } else { second };
        let mut row = event(&key, n, second - rng.i64(0..4));
        row["letter"] = ["a", "b"][rng.usize(0..2)].into();
        rows.push(row);
    }
    let folder = folder(&[("in.jsonl", &rows)]);
    // And whether what becomes of its results is told.
    let windows = [
        (
            "window = { tumbling = \"5s\" }\nallowed_lateness = \"3s\"",
            true,
        ),
        (
            "window = { tumbling = \"50s\" }\nallowed_lateness = \"3s\"\n\
             emit = { every = \"1ms\" }\ndiscard = true",
            false,
        ),
        (
            "window = { sliding = \"10s\", every = \"2s\" }\nemit = { every = \"1ms\" }",
            false,
        ),
        (
            "window = { cumulate = \"10s\", every = \"2s\" }\nallowed_lateness = \"3s\"",
            true,
        ),
        ("window = { session = \"15s\" }", false),
        ("window = { count = 3 }", false),
        ("window = \"global\"", false),
        ("window = \"running\"\nemit = { every = \"1ms\" }", false),
        ("window = \"running\"\nttl = \"20s\"", true),
    ];
    for (window, changes) in windows {
        let result = format!(
            "[operators.result]\nplugin = \"basics.own\"\ninput = \"events\"\n\
             key = [\"letter\", \"key\"]\non_error = \"skip\"\n{window}\n"
        );
        let changed = match changes {
            true => "input = \"result.changes\"\nchanges = \"change\"\n",
            false => "input = \"result\"\n",
        };
        let changed =
            format!("[sinks.changed]\ntype = \"file\"\npath = \"changed.jsonl\"\n{changed}");
        let text = text_of(&[
            &events("events", "in.jsonl", "1s"),
            &result,
            &sink("out", "result"),
            &changed,
        ]);
        everywhere::run_everywhere(
            &text,
            folder.path(),
            ["out", "changed"],
            |when, of_sinks| {
                for rows in of_sinks {
                    assert!(rows.len() > 20, "{window}, {when}: {} results", rows.len());
                    for row in rows {
                        assert_eq!(row["told"], row["key"], "{window}, {when}: {row}");
                    }
                }
            },
        );
    }
}

/// Numbers of rows and their neighbours, compared with a naive computation: with rows of the
/// same time, missing values, and keys that are forgotten.
#[test]
fn rows_know_their_neighbours() {
    const TTL_S: i64 = 12;
    let mut rng = fastrand::Rng::with_seed(11);
    let mut rows: Vec<(String, i64, i64)> = Vec::new();
    for at in 0..400 {
        let second = at / 2 - rng.i64(0..3);
        rows.push((format!("key {}", rng.u32(0..12)), rng.i64(0..50), second));
    }
    let given: Vec<Value> = rows
        .iter()
        .map(|(key, n, second)| event(key, *n, *second))
        .collect();
    let folder = folder(&[("in.jsonl", &given)]);
    let mut of_keys: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for (key, n, second) in &rows {
        of_keys.entry(key).or_default().push((*second, *n));
    }
    let ends = |rows: &[(i64, i64)]| -> Vec<Vec<(i64, i64)>> {
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        let parts = sorted.chunk_by(|(one, _), (next, _)| next - one <= TTL_S);
        parts.map(<[_]>::to_vec).collect()
    };
    let mut expected = [const { Vec::new() }; 2];
    for (key, rows) in &of_keys {
        for part in ends(rows) {
            for (at, (second, n)) in part.iter().enumerate() {
                let before = |rows: usize| at.checked_sub(rows).map(|at| part[at].1);
                let behind = |rows: usize| part.get(at + rows).map(|row| row.1);
                let mut row = json!({
                    "key": key, "n": n, "letter": key, "ts": self::second(*second),
                    "number": at + 1, "before": before(1), "third": before(3).unwrap_or(-1),
                });
                expected[0].push(row.clone());
                row["next"] = behind(1).into();
                row["second"] = behind(2).unwrap_or(-1).into();
                expected[1].push(row);
            }
        }
    }
    let shared = "number = \"row_number()\", before = \"lag(n)\", third = \"lag(n, 3, -1)\"";
    let operator = |name: &str, more: &str| {
        format!(
            "[operators.{name}]\norder = \"event_time\"\ninput = \"events\"\n\
             key = \"key\"\nttl = \"{TTL_S}s\"\nadd = {{ {shared}{more} }}\n"
        )
    };
    let more = ", next = \"lead(n)\", second = \"lead(n, 2, -1)\"";
    let counted = "[operators.counted]\nplugin = \"basics.count\"\ninput = \"waits\"\n\
                   key = \"key\"\nwindow = { tumbling = \"5s\" }\n";
    let text = text_of(&[
        &events("events", "in.jsonl", "3s"),
        &operator("lags", ""),
        &operator("waits", more),
        counted,
        &sink("lags_out", "lags"),
        &sink("waits_out", "waits"),
        &sink("counted_out", "counted"),
    ]);
    let sinks = ["lags_out", "waits_out", "counted_out"];
    let [lags, waits, counted] = collect_all_everywhere(&text, folder.path(), sinks);
    let [expected_lags, expected_waits] = expected.map(sorted);
    assert_same(&expected_lags, &lags, "behind");
    assert_same(&expected_waits, &waits, "around");
    // Rows that have waited are late for nothing.
    let count: i64 = counted.iter().filter_map(|row| row["count"].as_i64()).sum();
    assert_eq!(count, 400);
}

/// Decimals as fields, keys, states, in filters, functions and a plugin: exact everywhere,
/// and out again as they came in.
#[test]
fn decimals_are_exact_everywhere() {
    let mut rng = fastrand::Rng::with_seed(3);
    let decimal = |units: i128| {
        let sign = if units < 0 { "-" } else { "" };
        let units = units.unsigned_abs();
        format!("{sign}{}.{:02}", units / 100, units % 100)
    };
    let mut text = String::new();
    // Prices and discounts by unit.
    let mut of_units: BTreeMap<i64, (Vec<i128>, Vec<i128>)> = BTreeMap::new();
    for at in 0..300 {
        let unit = rng.i64(1..6) * 25;
        // More digits than floats have.
        let price = i128::from(rng.i64(..)) * 1_000 + i128::from(rng.u8(..));
        let discount = (at % 3 == 0).then(|| i128::from(rng.i32(..)));
        let (prices, discounts) = of_units.entry(unit).or_default();
        prices.push(price);
        discounts.extend(discount);
        let quote = if at % 2 == 0 { "\"" } else { "" };
        let discount = discount.map_or("null".to_owned(), decimal);
        text.push_str(&format!(
            "{{\"unit\":{},\"price\":{quote}{}{quote},\"discount\":{discount},\"ts\":{}}}\n",
            decimal(unit.into()),
            decimal(price),
            at * 1_000,
        ));
    }
    text.push_str("{\"unit\":1,\"price\":0.001,\"ts\":1}\n");
    let folder = folder(&[]);
    std::fs::write(folder.path().join("in.jsonl"), text).expect("it is writable");
    let file = |name: &str| {
        format!(
            "[sinks.{name}_out]\ntype = \"file\"\npath = \"{name}.jsonl\"\n\
             input = {name:?}\nif_exists = \"replace\"\n"
        )
    };
    let pipeline = text_of(&[
        r#"
        [sources.prices]
        type = "file"
        path = "in.jsonl"
        event_time = "ts"
        watermark = { out_of_orderness = "1h" }
        [sources.prices.fields]
        unit = "decimal(9, 2)"
        price = "decimal(30,2)"
        discount = "decimal(18,2)?"
        ts = "timestamp(ms)"

        [operators.known]
        filter = "unit < 1000.00 && (discount == null || discount + 0.5 != discount)"
        input = "prices"

        [operators.sums]
        aggregate = { sum = "sum(price)", least = "min(price)", of = "count_distinct(discount)" }
        input = "known"
        key = "unit"
        window = { tumbling = "2h" }
        bounds = false

        [operators.paid]
        plugin = "basics.pay"
        input = "known"
        key = "unit"
        window = "global"
        "#,
        &file("sums"),
        &file("paid"),
    ]);
    let mut expected = [const { Vec::new() }; 2];
    for (unit, (prices, discounts)) in &mut of_units {
        let sum: i128 = prices.iter().sum();
        let paid = sum - discounts.iter().sum::<i128>();
        let (tenths, unit) = (paid * 10, i128::from(*unit));
        let in_units = (tenths.abs() * 2 + unit) / (2 * unit) * tenths.signum();
        let thousandths = decimal(in_units / 10).to_owned() + &(in_units.abs() % 10).to_string();
        discounts.sort_unstable();
        let shown: Vec<String> = discounts.iter().copied().map(decimal).collect();
        discounts.dedup();
        expected[0].push(format!(
            "{{\"unit\":{},\"sum\":{},\"least\":{},\"of\":{}}}",
            decimal(unit),
            decimal(sum),
            decimal(prices.iter().copied().min().unwrap_or(0)),
            discounts.len(),
        ));
        expected[1].push(format!(
            "{{\"unit\":{},\"paid\":{},\"in_units\":{thousandths},\"discounts\":[{}]}}",
            decimal(unit),
            decimal(paid),
            shown.join(","),
        ));
    }
    run(plan_of(&pipeline, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    for (name, expected) in ["sums", "paid"].iter().zip(&expected) {
        let path = folder.path().join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(path).expect("the pipeline writes it");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(&lines, expected, "{name}");
    }
    let values = expected.map(|rows| {
        let values = rows
            .iter()
            .map(|row| serde_json::from_str(row).expect("it is JSON"));
        sorted(values.collect())
    });
    let outs = collect_all_everywhere(&pipeline, folder.path(), ["sums_out", "paid_out"]);
    for (expected, rows) in values.iter().zip(&outs) {
        assert_same(expected, rows, "everywhere");
    }
    let dead = std::fs::read_to_string(folder.path().join("dead.jsonl")).expect("a bad row");
    assert!(
        dead.contains("more than 2 digits after the point; it is not rounded"),
        "{dead}"
    );
}
