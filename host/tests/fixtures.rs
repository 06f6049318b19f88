//! Compares results with those of other engines for the same inputs. The fixtures lie
//! beside the checkout; without them these tests are ignored.

/// Plugins, built once.
mod common;
/// Runs at every batch size and parallelism.
#[path = "common/everywhere.rs"]
mod everywhere;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use everywhere::{collect_all_everywhere, collect_everywhere};
use harness::{Absent, Outcome};
use pipeline::assert_same;

tests![
    hourly_counts_of_cars,
    sessions_of_impulses,
    sliding_measures_of_impulses,
    carts,
];

/// The folder with the fixtures.
fn fixtures(name: &str) -> Result<PathBuf, Absent> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/fixtures")
        .join(name);
    if !folder.is_dir() {
        return Err(Absent(format!("no fixtures at {}", folder.display())));
    }
    Ok(folder)
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// `2023-10-09T17:13:20Z` as the fixtures write it.
fn without_zone(time: &Value) -> Value {
    let text = time.as_str().expect("a timestamp is text");
    json!(text.strip_suffix('Z').expect("it is UTC"))
}

/// Rows with some of their fields, under other names where wanted.
fn select(rows: &[Value], fields: &[(&str, &str)]) -> Vec<Value> {
    let mut selected: Vec<Value> = rows
        .iter()
        .map(|row| {
            let fields = fields.iter().map(|(from, to)| {
                let value = &row[*from];
                let is_bound = from.starts_with("window_");
                (
                    (*to).to_owned(),
                    if is_bound {
                        without_zone(value)
                    } else {
                        value.clone()
                    },
                )
            });
            Value::Object(fields.collect())
        })
        .collect();
    selected.sort_by_cached_key(ToString::to_string);
    selected
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

fn hourly_counts_of_cars() -> Outcome {
    let folder = fixtures("arroyo")?;
    let text = format!(
        r#"
        name = "cars"
        plugins.basics.path = {plugin:?}
        [sources.cars]
        type = "file"
        path = "cars.json"
        format = "json"
        event_time = "timestamp"
        watermark = {{ out_of_orderness = "23s" }}
        fields = {{ timestamp = "timestamp(rfc3339)", driver_id = "int64", event_type = "utf8" }}
        [operators.hourly]
        plugin = "basics.count"
        input = "cars"
        key = "event_type"
        window = {{ tumbling = "1h" }}
        [sinks.out]
        type = "blackhole"
        input = "hourly"
        "#,
        plugin = common::plugin_file("basics"),
    );
    let rows = collect_everywhere(&text, &folder, "out");
    let fields = [
        ("event_type", "event_type"),
        ("window_start", "hour"),
        ("count", "count"),
    ];
    let expected = sorted(json_lines(&folder.join("hourly_by_event_type.json")));
    assert_same(
        &expected,
        &select(&rows, &fields),
        "against the other engine",
    );
    Ok(())
}

fn impulses(operators: &str) -> String {
    format!(
        r#"
        name = "impulses"
        plugins.basics.path = {plugin:?}
        [sources.impulses]
        type = "file"
        path = "impulse.json"
        format = "json"
        event_time = "timestamp"
        fields = {{ timestamp = "timestamp", counter = "int64" }}
        [operators.user_of]
        plugin = "basics.user_of"
        input = "impulses"
        {operators}
        [sinks.out]
        type = "blackhole"
        input = "result"
        "#,
        plugin = common::plugin_file("basics"),
    )
}

fn sessions_of_impulses() -> Outcome {
    let folder = fixtures("arroyo")?;
    let text = impulses(
        r#"
        [operators.result]
        plugin = "basics.count"
        input = "user_of"
        key = "user_id"
        window = { session = "20s" }
        "#,
    );
    let rows = collect_everywhere(&text, &folder, "out");
    let fields = [
        ("user_id", "user_id"),
        ("window_start", "start"),
        ("window_end", "end"),
        ("count", "rows"),
    ];
    let expected = sorted(json_lines(&folder.join("session_window.json")));
    assert_same(
        &expected,
        &select(&rows, &fields),
        "against the other engine",
    );
    Ok(())
}

fn sliding_measures_of_impulses() -> Outcome {
    let folder = fixtures("arroyo")?;
    let text = impulses(
        r#"
        [operators.result]
        plugin = "basics.stats"
        input = "user_of"
        window = { sliding = "10s", every = "2s" }
        "#,
    );
    let rows = collect_everywhere(&text, &folder, "out");
    let fields = [
        ("count", "count"),
        ("min", "min"),
        ("max", "max"),
        ("window_start", "start"),
        ("window_end", "end"),
    ];
    let expected = sorted(json_lines(&folder.join("sliding_window_end.json")));
    assert_same(
        &expected,
        &select(&rows, &fields),
        "against the other engine",
    );
    Ok(())
}

/// Compares three sinks of one run.
fn carts() -> Outcome {
    let folder = fixtures("cart")?;
    let work = tempfile::tempdir().expect("a temporary folder");
    let unpack = |name: &str| {
        let output = Command::new("gzip")
            .args(["--decompress", "--stdout"])
            .arg(folder.join(format!("{name}.gz")))
            .output()
            .expect("gzip runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let path = work.path().join(name);
        std::fs::write(&path, output.stdout).expect("the temporary folder is writable");
        path
    };
    unpack("events.jsonl");
    let text = format!(
        r#"
        name = "carts"
        plugins.cart.path = {plugin:?}
        [sources.events]
        type = "file"
        path = "events.jsonl"
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "2s" }}
        fields = {{ user_id = "utf8", item_id = "utf8", action = "utf8", quantity = "int64", ts = "timestamp(ms)" }}
        [operators.adds]
        plugin = "cart.adds"
        input = "events"
        [operators.added]
        plugin = "cart.added"
        input = "adds"
        key = "user_id"
        window = {{ tumbling = "1m" }}
        [operators.item_counts]
        plugin = "cart.item_counts"
        input = "adds"
        key = "item_id"
        window = {{ sliding = "60s", every = "5s" }}
        [operators.top]
        plugin = "cart.top"
        input = "item_counts"
        key = ["window_start", "window_end"]
        window = {{ tumbling = "5s" }}
        bounds = false
        [operators.session]
        plugin = "cart.session"
        input = "events"
        key = "user_id"
        window = {{ session = "30s" }}
        [sinks.added_out]
        type = "blackhole"
        input = "added"
        [sinks.top10_out]
        type = "blackhole"
        input = "top"
        [sinks.sessions_out]
        type = "blackhole"
        input = "session"
        "#,
        plugin = common::plugin_file("cart"),
    );
    let user = ["user_id", "window_start", "window_end", "count", "sum"];
    let top = ["window_start", "window_end", "rank", "item_id", "count"];
    let sinks = ["added_out", "top10_out", "sessions_out"];
    let [added, top10, sessions] = collect_all_everywhere(&text, work.path(), sinks);
    for (sink, rows, expected, fields) in [
        ("added", added, unpack("tumbling.csv"), user),
        ("top10", top10, folder.join("top10.csv"), top),
        ("sessions", sessions, unpack("sessions.csv"), user),
    ] {
        let rows = rows.iter().map(|row| csv_row(row, fields));
        let mut rows: Vec<String> = rows.collect();
        rows.sort_unstable();
        let text = std::fs::read_to_string(&expected).expect("the expected rows");
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some(&*fields.join(",")),
            "{}",
            expected.display()
        );
        let mut expected: Vec<&str> = lines.collect();
        expected.sort_unstable();
        let first_difference = rows.iter().zip(&expected).find(|(row, line)| row != *line);
        assert_eq!(first_difference, None, "{sink}");
        assert_eq!(rows.len(), expected.len(), "{sink}");
    }
    Ok(())
}

/// A row as a line of the expected CSV, with times in ms.
fn csv_row(row: &Value, fields: [&str; 5]) -> String {
    let cells = fields.map(|field| {
        // A session's count of events, beside those of each action.
        let name = if row.get(field).is_none() {
            "events"
        } else {
            field
        };
        match &row[name] {
            Value::String(text) if name.starts_with("window_") => {
                let time: jiff::Timestamp = text.parse().expect("a timestamp");
                time.as_millisecond().to_string()
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    });
    cells.join(",")
}
