//! Tests keyed processes in whole pipelines: against a naive computation, at every batch
//! size and parallelism, with kills.

/// Plugins, built once.
mod common;
/// Runs at every batch size and parallelism.
#[path = "common/everywhere.rs"]
mod everywhere;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use everywhere::{collect_all_everywhere, collect_everywhere};

/// How far rows are out of order at most.
const BOUND_MS: i64 = 20;

#[derive(Clone)]
struct Row {
    key: String,
    n: i64,
    orders: String,
    ts: i64,
}

fn row(key: &str, n: i64, orders: &str, ts: i64) -> Row {
    Row {
        key: key.to_owned(),
        n,
        orders: orders.to_owned(),
        ts,
    }
}

/// A folder with the rows as JSON lines, by file.
fn folder(files: &[(&str, &[Row])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, rows) in files {
        let line = |row: &Row| {
            let Row { key, n, orders, ts } = row;
            format!(
                "{}\n",
                json!({"key": key, "n": n, "letter": orders, "ts": ts})
            )
        };
        let text: String = rows.iter().map(line).collect();
        std::fs::write(folder.path().join(name), text).expect("it is writable");
    }
    folder
}

fn source(name: &str) -> String {
    format!(
        r#"
        [sources.{name}]
        type = "file"
        path = "{name}.jsonl"
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "{BOUND_MS}ms" }}
        fields = {{ key = "utf8", n = "int64", letter = "utf8", ts = "timestamp(ms)" }}
        "#
    )
}

/// A pipeline of one operator that reads `rows.jsonl`, and these sinks.
fn pipeline_of(sources: &[&str], operator: &str, sinks: &[(&str, &str)]) -> String {
    let sources: String = sources.iter().map(|name| source(name)).collect();
    let sink = |(name, input): &(&str, &str)| {
        format!("[sinks.{name}]\ntype = \"file\"\npath = \"{name}.jsonl\"\ninput = {input:?}\n")
    };
    let sinks: String = sinks.iter().map(sink).collect();
    format!(
        r#"
        name = "test"
        plugins.basics.path = {:?}
        dead_letters = "dead.jsonl"
        {sources}
        [operators.script]
        {operator}
        key = "key"
        {sinks}
        "#,
        common::plugin_file("basics"),
    )
}

/// A pipeline of a script, with a sink for each of its outputs.
fn script(settings: &str) -> String {
    let operator = format!("plugin = \"basics.script\"\ninput = \"rows\"\n{settings}");
    let sinks = [("said", "script"), ("noted", "script.noted")];
    pipeline_of(&["rows"], &operator, &sinks)
}

/// What a script does, computed key by key, row by row.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, Key>,
    said: Vec<Value>,
    noted: Vec<Value>,
    /// `n` of late rows.
    late: Vec<Value>,
    lost: usize,
    ttl_ms: Option<i64>,
}

#[derive(Clone, Default)]
struct Key {
    sum: Option<i64>,
    newest_ms: Option<i64>,
    timers: BTreeMap<String, i64>,
}

/// A row or timer that is rejected, or panics.
struct Lost;

impl Model {
    fn run(rows: &[Row], ttl_ms: Option<i64>) -> Model {
        let mut model = Model {
            ttl_ms,
            ..Model::default()
        };
        let mut newest_ms = i64::MIN;
        for row in rows {
            let watermark_ms = newest_ms.saturating_sub(BOUND_MS);
            newest_ms = newest_ms.max(row.ts);
            model.advance(watermark_ms, Some(&row.key));
            model.row(row, watermark_ms);
        }
        model.advance(newest_ms.saturating_sub(BOUND_MS), None);
        model.advance(i64::MAX, None);
        for rows in [&mut model.said, &mut model.noted] {
            rows.sort_by_cached_key(ToString::to_string);
        }
        model
    }

    /// Rows in order of event time, without late ones.
    fn run_in_order(rows: &[Row]) -> Model {
        let mut model = Model::default();
        let mut newest_ms = i64::MIN;
        let mut in_time: Vec<&Row> = Vec::new();
        for row in rows {
            if row.ts < newest_ms.saturating_sub(BOUND_MS) {
                model.late.push(json!(row.n));
                continue;
            }
            newest_ms = newest_ms.max(row.ts);
            in_time.push(row);
        }
        in_time.sort_by_key(|row| row.ts);
        for row in in_time {
            model.advance(row.ts, Some(&row.key));
            model.row(row, row.ts);
        }
        model.advance(newest_ms.saturating_sub(BOUND_MS), None);
        model.advance(i64::MAX, None);
        model.late.sort_by_cached_key(ToString::to_string);
        for rows in [&mut model.said, &mut model.noted] {
            rows.sort_by_cached_key(ToString::to_string);
        }
        model
    }

    /// Fires the due timers of a key, or of all.
    fn advance(&mut self, watermark_ms: i64, key: Option<&str>) {
        let keys: Vec<String> = match key {
            Some(key) => vec![key.to_owned()],
            None => self.keys.keys().cloned().collect(),
        };
        for key in keys {
            self.fire(&key, watermark_ms, i64::MIN);
        }
    }

    fn fire(&mut self, name: &str, watermark_ms: i64, mut time_ms: i64) {
        let mut fired: Vec<String> = Vec::new();
        loop {
            let key = self.keys.entry(name.to_owned()).or_default();
            let due = key.timers.iter().map(|(name, &time_ms)| (time_ms, name));
            let due = due.filter(|(due_ms, name)| {
                *due_ms <= watermark_ms && (watermark_ms < i64::MAX || !fired.contains(name))
            });
            let Some((due_ms, timer)) = due.min().map(|(ms, name)| (ms, name.clone())) else {
                if watermark_ms == i64::MAX {
                    key.timers.clear();
                }
                return;
            };
            key.timers.remove(&timer);
            time_ms = time_ms.max(due_ms);
            self.attempt(name, |model| {
                model.say(name, &timer, time_ms);
                let key = model.keys.get_mut(name).expect("it has fired");
                match timer.as_str() {
                    "again" => drop(key.timers.insert("again".to_owned(), due_ms + 10)),
                    "next" => drop(key.timers.insert("last".to_owned(), due_ms + 5)),
                    other => return model.obey(name, other, time_ms),
                }
                Ok(())
            });
            fired.push(timer);
        }
    }

    fn row(&mut self, row: &Row, watermark_ms: i64) {
        let key = self.keys.entry(row.key.clone()).or_default();
        if let (Some(ttl_ms), Some(newest_ms), true) =
            (self.ttl_ms, key.newest_ms, key.timers.is_empty())
            && newest_ms + ttl_ms < row.ts.max(watermark_ms)
        {
            key.sum = None;
        }
        key.newest_ms = key.newest_ms.max(Some(row.ts));
        self.attempt(&row.key, |model| {
            let key = model.keys.get_mut(&row.key).expect("it was added");
            *key.sum.get_or_insert_default() += row.n;
            model.say(&row.key, "row", row.ts);
            let mut orders = row.orders.split(';');
            orders.try_for_each(|order| model.obey(&row.key, order, row.ts))
        });
        self.fire(&row.key, watermark_ms, row.ts);
    }

    /// What is lost changes nothing.
    fn attempt(&mut self, key: &str, take: impl FnOnce(&mut Self) -> Result<(), Lost>) {
        let before = (self.keys[key].clone(), self.said.len(), self.noted.len());
        if take(self).is_err() {
            self.keys.insert(key.to_owned(), before.0);
            self.said.truncate(before.1);
            self.noted.truncate(before.2);
            self.lost += 1;
        }
    }

    fn say(&mut self, key: &str, what: &str, at: i64) {
        let sum = self.keys[key].sum.unwrap_or(-1);
        let at = json_time(at);
        self.said
            .push(json!({"key": key, "what": what, "sum": sum, "at": at}));
    }

    fn obey(&mut self, name: &str, order: &str, time_ms: i64) -> Result<(), Lost> {
        let key = self.keys.get_mut(name).expect("it was added");
        let words: Vec<&str> = order.split_whitespace().collect();
        match words[..] {
            ["set", timer, offset] => {
                let offset: i64 = offset.parse().expect("a number");
                key.timers.insert(timer.to_owned(), time_ms + offset);
            }
            ["cancel", timer] => drop(key.timers.remove(timer)),
            ["clear"] => key.sum = None,
            ["note"] => {
                let sum = key.sum.unwrap_or(0);
                self.noted.push(json!({"key": name, "sum": sum}));
            }
            ["reject" | "panic"] => return Err(Lost),
            _ => {}
        }
        Ok(())
    }
}

/// A time as sinks write it.
fn json_time(ms: i64) -> Value {
    let time = sluicebox::timestamp::to_text(ms);
    json!(time)
}

/// Random rows of a few keys, out of order by at most the bound, and some more.
fn random_rows(rng: &mut Rng, count: usize) -> Vec<Row> {
    let mut time_ms = -200;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        time_ms += rng.i64(0..8);
        let key = ["a", "b", "c", "d", "e"][rng.usize(0..5)];
        let orders: Vec<String> = (0..rng.usize(0..3)).map(|_| order(rng)).collect();
        let late_ms = rng.i64(0..(BOUND_MS + BOUND_MS / 4));
        rows.push(row(
            key,
            rng.i64(0..10),
            &orders.join(";"),
            time_ms - late_ms,
        ));
    }
    rows
}

fn order(rng: &mut Rng) -> String {
    let names = [
        "x", "y", "again", "next", "last", "clear", "note", "reject", "panic",
    ];
    let name = names[rng.usize(0..names.len())];
    match rng.u8(0..20) {
        0..9 => format!("set {name} {}", rng.i64(-30..120)),
        9..13 => format!("cancel {name}"),
        13..15 => "clear".to_owned(),
        15..18 => "note".to_owned(),
        18 => "reject".to_owned(),
        _ => "panic".to_owned(),
    }
}

#[test]
fn timers_fire_as_in_the_model() {
    for seed in 0..10 {
        let mut rng = Rng::with_seed(seed);
        let rows = random_rows(&mut rng, 300);
        let ttl_ms = [None, Some(60)][(seed % 2) as usize];
        let model = Model::run(&rows, ttl_ms);
        let settings = ttl_ms.map_or(String::new(), |ms| format!("ttl = \"{ms}ms\""));
        let folder = folder(&[("rows.jsonl", &rows)]);
        let text = script(&settings);
        let [said, noted] = collect_all_everywhere(&text, folder.path(), ["said", "noted"]);
        pipeline::assert_same(&model.said, &said, &format!("said, seed {seed}"));
        pipeline::assert_same(&model.noted, &noted, &format!("noted, seed {seed}"));
        assert!(model.lost > 0, "some rows are lost");
    }
}

#[test]
fn rows_are_taken_in_order_of_event_time() {
    let mut late_rows = 0;
    for seed in 0..6 {
        let mut rng = Rng::with_seed(seed);
        let rows = random_rows(&mut rng, 300);
        let model = Model::run_in_order(&rows);
        let folder = folder(&[("rows.jsonl", &rows)]);
        let operator = "plugin = \"basics.script\"\ninput = \"rows\"\norder = \"event_time\"";
        let sinks = [
            ("said", "script"),
            ("noted", "script.noted"),
            ("late", "script.late"),
        ];
        let text = pipeline_of(&["rows"], operator, &sinks);
        let [said, noted, late] =
            collect_all_everywhere(&text, folder.path(), ["said", "noted", "late"]);
        pipeline::assert_same(&model.said, &said, &format!("said, seed {seed}"));
        pipeline::assert_same(&model.noted, &noted, &format!("noted, seed {seed}"));
        let mut late: Vec<Value> = late.iter().map(|row| row["n"].clone()).collect();
        late.sort_by_cached_key(ToString::to_string);
        assert_eq!(late, model.late, "late, seed {seed}");
        late_rows += late.len();
    }
    assert!(late_rows > 0, "some rows are late");
}

/// A timer that sets itself again fires up to the newest watermark of all inputs, whichever
/// of them ends first, and then once more.
#[test]
fn timers_do_not_depend_on_which_input_ends_first() {
    let long = [row("ann", 1, "set again 5", 0), row("ben", 1, "", 100)];
    let short = [row("ben", 1, "", 50)];
    let folder = folder(&[("long.jsonl", &long), ("short.jsonl", &short)]);
    let operator = "plugin = \"basics.script\"\ninput = [\"long\", \"short\"]\n\
                    order = \"event_time\"";
    let sinks = [("said", "script")];
    let text = pipeline_of(&["long", "short"], operator, &sinks);
    for _ in 0..3 {
        let said = collect_everywhere(&text, folder.path(), "said");
        let fired = said.iter().filter(|row| row["what"] == "again");
        // At 5, 15 and so on to 75, since the watermark comes to 80; and at the end.
        assert_eq!(fired.count(), 9, "{said:?}");
    }
}

/// Without a plugin, rows come out in order as well, and late ones are put aside.
#[test]
fn rows_are_put_in_order_without_a_plugin() {
    let rows = random_rows(&mut Rng::with_seed(3), 300);
    let model = Model::run_in_order(&rows);
    let folder = folder(&[("rows.jsonl", &rows)]);
    let running = "\n[operators.running]\ninput = \"script\"\nkey = \"key\"\nwindow = \"running\"\n\
        aggregate = { newest = \"max(ts)\", time = \"last(ts)\" }\n";
    let sinks = [
        ("ordered", "script"),
        ("late", "script.late"),
        ("times", "running"),
    ];
    let operator = "order = \"event_time\"\ninput = \"rows\"";
    let text = pipeline_of(&["rows"], operator, &sinks) + running;
    let [ordered, late, times] =
        collect_all_everywhere(&text, folder.path(), ["ordered", "late", "times"]);
    let mut late: Vec<Value> = late.iter().map(|row| row["n"].clone()).collect();
    late.sort_by_cached_key(ToString::to_string);
    assert_eq!(late, model.late);
    assert!(!late.is_empty(), "no row is late");
    assert_eq!(ordered.len() + late.len(), rows.len());
    assert_eq!(times.len(), ordered.len());
    for row in times {
        assert_eq!(row["newest"], row["time"], "{row} is out of order");
    }
}

/// For each question the sum of its key's amounts before the time that `until` gives.
fn tallied(questions: &[Row], amounts: &[Row], until: impl Fn(&Row) -> i64) -> Vec<Value> {
    let mut tallied: Vec<Value> = questions
        .iter()
        .map(|question| {
            let before = |row: &&Row| row.key == question.key && row.ts < until(question);
            let sum: i64 = amounts.iter().filter(before).map(|row| row.n).sum();
            json!({"key": question.key, "sum": sum})
        })
        .collect();
    tallied.sort_by_cached_key(ToString::to_string);
    tallied
}

/// Rows of two inputs that come in any order are taken in order of their times.
#[test]
fn inputs_are_merged_in_order_of_event_time() {
    let key = |i: i64| format!("k{}", i % 5);
    let amounts: Vec<Row> = (0..400).map(|i| row(&key(i), i, "", 2 * i)).collect();
    let questions: Vec<Row> = (0..200).map(|i| row(&key(i), 0, "", 4 * i + 1)).collect();
    let folder = folder(&[("questions.jsonl", &questions), ("amounts.jsonl", &amounts)]);
    let operator = "plugin = \"basics.tally\"\nparameters = { after_ms = 3 }\n\
        input = { questions = \"questions\", amounts = \"amounts\" }\norder = \"event_time\"";
    let sinks = [("answers", "script")];
    let text = pipeline_of(&["questions", "amounts"], operator, &sinks);
    // A timer comes before a row of its time.
    let expected = tallied(&questions, &amounts, |question| question.ts + 3);
    let answers = collect_everywhere(&text, folder.path(), "answers");
    pipeline::assert_same(&expected, &answers, "answers");
}

/// Of rows with the same time, those of the input that the process names first come first.
#[test]
fn inputs_do_not_race_at_the_same_time() {
    let key = |i: i64| format!("k{}", i % 5);
    let amounts: Vec<Row> = (0..400).map(|i| row(&key(i), i, "", i)).collect();
    let questions: Vec<Row> = (0..400).map(|i| row(&key(i), 0, "", i)).collect();
    let folder = folder(&[("questions.jsonl", &questions), ("amounts.jsonl", &amounts)]);
    let operator = "plugin = \"basics.tally\"\nparameters = { after_ms = 0 }\n\
        input = { amounts = \"amounts\", questions = \"questions\" }\norder = \"event_time\"";
    let sinks = [("answers", "script")];
    let text = pipeline_of(&["amounts", "questions"], operator, &sinks);
    let expected = tallied(&questions, &amounts, |question| question.ts);
    let answers = collect_everywhere(&text, folder.path(), "answers");
    pipeline::assert_same(&expected, &answers, "answers");
}

#[test]
fn rows_of_all_inputs_change_the_state() {
    let key = |i: i64| format!("k{}", i % 7);
    let questions: Vec<Row> = (0..200).map(|i| row(&key(i), 0, "", i)).collect();
    let amounts: Vec<Row> = (0..300).map(|i| row(&key(i), i, "", i)).collect();
    let folder = folder(&[("questions.jsonl", &questions), ("amounts.jsonl", &amounts)]);
    let inputs = "input = { questions = \"questions\", amounts = \"amounts\" }";
    let operator = format!("plugin = \"basics.tally\"\n{inputs}");
    let sinks = [("answers", "script")];
    let text = pipeline_of(&["questions", "amounts"], &operator, &sinks);
    let sums = (0..7).map(|of| {
        let amounts = amounts.iter().filter(|row| row.key == key(of));
        json!({"key": key(of), "sum": amounts.map(|row| row.n).sum::<i64>()})
    });
    let answers = collect_everywhere(&text, folder.path(), "answers");
    pipeline::assert_same(&sums.collect::<Vec<_>>(), &answers, "answers");
}

#[test]
fn a_timer_in_processing_time_fires_once_by_the_clock_or_at_the_end() {
    let rows = [
        row("a", 1, "clock soon 0", 0),
        row("b", 2, "clock later 3600000", 0),
    ];
    let folder = folder(&[("rows.jsonl", &rows)]);
    let said = collect_everywhere(&script(""), folder.path(), "said");
    let what: Vec<&str> = said.iter().filter_map(|row| row["what"].as_str()).collect();
    assert_eq!(what, ["row", "soon", "later", "row"]);
}
