//! Tests two pipelines with files between them, both killed again and again, and asks
//! DuckDB what they have stored.

/// Plugins, built once.
#[expect(dead_code, reason = "the binary loads the plugins")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Reads the examples' files.
#[path = "common/pages.rs"]
mod pages;

/// Rows of a day.
#[path = "scenarios/day.rs"]
#[expect(dead_code, reason = "made for more scenarios")]
mod day;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use day::{
    Day, MINUTE_MS, decoded, example, folder_of, in_order, number, read_file, sorted, text, time_of,
};
use harness::{Absent, Outcome};
use pages::{blocks, page};

tests![a_day_is_collected_computed_stored_and_queried];

/// As in the example's pipelines.
const BOUND_MS: i64 = 2_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

const FIELDS: &str = "user_id = \"utf8\"\nitem_id = \"utf8\"\naction = \"utf8\"\n\
                      quantity = \"int64\"\nts = \"timestamp\"";

/// Where `scripts/setup.sh` puts it, or on the PATH.
fn duckdb() -> Result<PathBuf, Absent> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let installed = cache
        .or_else(home)
        .map(|cache| cache.join("sluicebox/tools/duckdb/bin/duckdb"));
    let candidates = installed.into_iter().chain([PathBuf::from("duckdb")]);
    let runs = |path: &PathBuf| {
        let version = Command::new(path).arg("-version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let mut running = candidates.filter(runs);
    running
        .next()
        .ok_or_else(|| Absent("there is no duckdb: `make setup` installs it".to_owned()))
}

/// The rows that a query returns.
fn ask(duckdb: &Path, query: &str) -> Vec<Value> {
    let output = Command::new(duckdb).args(["-json", "-c", query]).output();
    let output = output.expect("it runs");
    let (rows, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{query}: {errors}");
    serde_json::from_slice(&rows).unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn actions(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let action = ["view", "add", "remove", "checkout", "steal"];
        let row = json!({
            "user_id": format!("user-{}", rng.u8(0..50)),
            "item_id": format!("item-{}", rng.u8(0..10)),
            "action": action[rng.usize(0..4) + usize::from(rng.u8(0..100) == 0)],
            "quantity": rng.i64(1..4),
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

#[derive(Default)]
struct Hour<'a> {
    events: i64,
    users: BTreeSet<&'a str>,
    units: i64,
}

fn hours(rows: &[Value]) -> Vec<Value> {
    let (in_time, _) = in_order(rows, BOUND_MS);
    let mut seen = HashSet::new();
    let mut hours: BTreeMap<(&str, &str, i64), Hour<'_>> = BTreeMap::new();
    for row in in_time {
        if text(row, "action") == "steal" || !seen.insert(row.to_string()) {
            continue;
        }
        let start_ms = number(row, "ts").div_euclid(HOUR_MS) * HOUR_MS;
        let hour = hours.entry((text(row, "item_id"), text(row, "action"), start_ms));
        let hour = hour.or_default();
        hour.events += 1;
        hour.users.insert(text(row, "user_id"));
        hour.units += number(row, "quantity");
    }
    let rows = hours.iter().map(|((item, action, start_ms), hour)| {
        json!({
            "item_id": item, "action": action, "start_ms": start_ms,
            "events": hour.events, "users": hour.users.len(), "units": hour.units,
        })
    });
    sorted(rows.collect())
}

/// The items that the README asks for.
fn most_bought(hours: &[Value]) -> Vec<Value> {
    let mut units: BTreeMap<&str, i64> = BTreeMap::new();
    for row in hours.iter().filter(|row| row["action"] == "checkout") {
        *units.entry(text(row, "item_id")).or_default() += number(row, "units");
    }
    let mut items: Vec<(&str, i64)> = units.into_iter().collect();
    items.sort_by_key(|(item, units)| (-units, *item));
    let row = |(item, units): &(&str, i64)| json!({"item_id": item, "units": units});
    items.iter().take(5).map(row).collect()
}

/// A pipeline of the example in a folder, with checkpoints all the time.
fn write_pipeline(folder: &Path, file: &str, parallelism: i64, change: impl Fn(&mut toml::Table)) {
    let mut pipeline = example(&format!("warehouse/{file}"));
    pipeline.insert("parallelism".to_owned(), parallelism.into());
    pipeline.insert("batch_rows".to_owned(), 16.into());
    pipeline["checkpoints"]["interval"] = "10ms".into();
    change(&mut pipeline);
    std::fs::write(folder.join(file), pipeline.to_string()).expect("it is writable");
}

/// Runs a pipeline to its end, after some runs that are killed.
fn run(folder: &Path, file: &str, kills: u64) {
    let host = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command.args(["run", "--quiet", file]).current_dir(folder);
        command
    };
    for kill in 0..kills {
        let mut running = host().stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(60 + 40 * kill));
        running.kill().expect("it can be killed");
        running.wait().expect("it has ended");
    }
    let ended = host().output().expect("it runs");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{file}: {errors}");
}

fn a_day_is_collected_computed_stored_and_queried() -> Outcome {
    let duckdb = duckdb()?;
    let lines = actions(&mut Rng::with_seed(11), 8_000);
    let expected = hours(&decoded(&lines));
    let [commands, _] = blocks(&page("examples/warehouse/README.md"), "sh");
    let query = commands
        .lines()
        .find_map(|line| line.strip_prefix("duckdb -c \""));
    let query = query
        .and_then(|query| query.strip_suffix('"'))
        .expect("it has a query");

    for (parallelism, kills) in [(1, 0), (2, 0), (4, 0), (1, 4), (2, 4), (4, 4)] {
        let when = format!("parallelism {parallelism}, {kills} kills");
        let folder = folder_of(&[("actions.jsonl", &lines)]);
        write_pipeline(folder.path(), "collect.toml", parallelism, |pipeline| {
            read_file(pipeline, "actions", FIELDS);
            // Several files, so that several tasks read them.
            pipeline["sinks"]["archive"]["roll"]["size"] = "8KiB".into();
        });
        write_pipeline(folder.path(), "compute.toml", parallelism, |_| ());
        run(folder.path(), "collect.toml", kills);
        run(folder.path(), "compute.toml", kills);
        let stored = format!("{}/out/store/*.parquet", folder.path().display());
        let all = format!(
            "SELECT item_id, action, epoch_ms(window_start) AS start_ms, events, users, units \
             FROM '{stored}' ORDER BY ALL"
        );
        let found = sorted(ask(&duckdb, &all));
        assert!(
            found == expected,
            "{when}: {} rows, {} expected",
            found.len(),
            expected.len()
        );
        let query = query.replace("examples/warehouse/out/store/*.parquet", &stored);
        assert_eq!(ask(&duckdb, &query), most_bought(&expected), "{when}");
    }
    Ok(())
}
