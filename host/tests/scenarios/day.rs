//! Makes the rows of a day: most in order, some twice, some late, and some bad.

use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::plugin_file;
use crate::pages::page;

/// 2024-03-01T00:00:00Z
pub const START_MS: i64 = 1_709_251_200_000;
pub const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
pub const MINUTE_MS: i64 = 60_000;

/// How many rows come together.
pub const BURST: i64 = 10;

/// The pipeline's file of an example, with the plugins of this build.
pub fn example(file: &str) -> toml::Table {
    let text = page(&format!("examples/{file}"));
    let mut pipeline: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let plugins = pipeline
        .get_mut("plugins")
        .and_then(toml::Value::as_table_mut);
    for (name, plugin) in plugins.into_iter().flatten() {
        let path = plugin_file(name).display().to_string();
        plugin["path"] = path.into();
    }
    pipeline
}

/// Has a pipeline read a file of `fields` in place of the events that it generates.
pub fn read_file(pipeline: &mut toml::Table, source: &str, fields: &str) {
    let fields: toml::Table = fields.parse().unwrap_or_else(|error| panic!("{error}"));
    let source_table = pipeline["sources"][source].as_table_mut();
    let generated = source_table.expect("it is a table");
    let mut file = toml::Table::new();
    let path = format!("tests/small/input/{source}.jsonl");
    file.insert("type".to_owned(), "file".into());
    file.insert("path".to_owned(), path.into());
    file.insert("event_time".to_owned(), "ts".into());
    file.insert("watermark".to_owned(), generated["watermark"].clone());
    file.insert("fields".to_owned(), fields.into());
    *generated = file;
}

/// A folder with files, as the examples' sources name them.
pub fn folder_of(files: &[(&str, &[String])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, lines) in files {
        let path = folder.path().join("tests/small/input").join(name);
        let parent = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(parent).expect("it is writable");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(path, text).expect("it is writable");
    }
    folder
}

/// The time of a row of so many in a day. They come in bursts, so that many are out of
/// order.
pub fn time_of(rng: &mut Rng, row: i64, rows: i64, bound_ms: i64) -> i64 {
    let burst = row / BURST;
    START_MS + DAY_MS * burst * BURST / rows + rng.i64(0..2 * bound_ms)
}

/// Lines in the order in which they come.
pub struct Day {
    bound_ms: i64,
    /// When each line comes.
    lines: Vec<(i64, String)>,
}

impl Day {
    /// Rows come up to `bound_ms` out of order.
    pub fn new(bound_ms: i64) -> Self {
        let lines = Vec::new();
        Day { bound_ms, lines }
    }

    /// Adds a row with a time. One in a hundred comes twice, one in a hundred is bad, and
    /// one in a hundred is late.
    pub fn add(&mut self, rng: &mut Rng, row: &Value) {
        let time_ms = row["ts"].as_i64().expect("a row has a time");
        let times = 1 + usize::from(rng.u8(0..100) == 0);
        for _ in 0..times {
            let late_ms = match rng.u8(0..100) {
                0 => 60 * self.bound_ms,
                _ => self.bound_ms,
            };
            let line = match rng.u8(0..100) {
                0 => spoilt(rng, row),
                _ => row.to_string(),
            };
            self.lines.push((time_ms + rng.i64(0..=late_ms), line));
        }
    }

    pub fn in_order_of_arrival(mut self) -> Vec<String> {
        self.lines.sort_by_key(|(comes_ms, _)| *comes_ms);
        self.lines.into_iter().map(|(_, line)| line).collect()
    }
}

/// A row that no source can decode.
fn spoilt(rng: &mut Rng, row: &Value) -> String {
    let text = row.to_string();
    match rng.u8(0..3) {
        0 => text[..text.len() / 2].to_owned(),
        1 => text.replace("\"ts\"", "\"time\""),
        _ => text.replace("\"ts\":", "\"ts\":true,\"was\":"),
    }
}

/// The rows that can be decoded. Lines that cannot are spoilt by [`Day::add`].
pub fn decoded(lines: &[String]) -> Vec<Value> {
    let rows = lines.iter().filter_map(|line| {
        let row: Value = serde_json::from_str(line).ok()?;
        row["ts"].is_i64().then_some(row)
    });
    rows.collect()
}

/// Rows of one partition in order of their times, as what waits for the watermark takes
/// them, and how many come behind it.
pub fn in_order(rows: &[Value], bound_ms: i64) -> (Vec<&Value>, usize) {
    let mut newest_ms = i64::MIN;
    let mut in_time: Vec<&Value> = Vec::new();
    for row in rows {
        let ts = number(row, "ts");
        if ts >= newest_ms.saturating_sub(bound_ms) {
            in_time.push(row);
        }
        newest_ms = newest_ms.max(ts);
    }
    let late = rows.len() - in_time.len();
    in_time.sort_by_key(|row| number(row, "ts"));
    (in_time, late)
}

/// A time as sinks write it.
pub fn json_time(ms: i64) -> Value {
    json!(sluicebox::timestamp::to_text(ms))
}

/// The text of a field.
pub fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    let text = row[field].as_str();
    text.unwrap_or_else(|| panic!("{row} has no text `{field}`"))
}

/// The number of a field.
pub fn number(row: &Value, field: &str) -> i64 {
    let number = row[field].as_i64();
    number.unwrap_or_else(|| panic!("{row} has no number `{field}`"))
}

/// Rows as those of runs are read and sorted.
pub fn sorted(rows: Vec<Value>) -> Vec<Value> {
    // Not every float is read as it was written.
    let read = |row: &Value| serde_json::from_str(&row.to_string()).expect("it is JSON");
    let mut rows: Vec<Value> = rows.iter().map(read).collect();
    rows.sort_by_cached_key(ToString::to_string);
    rows
}
