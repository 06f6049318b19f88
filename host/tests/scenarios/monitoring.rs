//! Tests monitoring against a naive computation.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{
    BURST, Day, MINUTE_MS, decoded, example, folder_of, json_time, number, sorted, text, time_of,
};
use crate::everywhere::{collect_all, collect_all_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 5_000;
const EVERY_MS: i64 = 10_000;
const SILENT_AFTER_MS: i64 = 2 * MINUTE_MS;
const ABANDONED_AFTER_MS: i64 = 30 * MINUTE_MS;

const SINKS: [&str; 4] = ["rates", "alerts", "silent", "abandoned_carts"];

/// Events of some sources, which fall silent now and then, and have errors for a while.
fn events(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let hour = 24 * i / count;
        let source = rng.i64(0..4);
        if source == hour % 5 && rng.u8(0..50) > 0 {
            continue;
        }
        let action = match rng.u8(0..100) {
            0..4 => "error",
            4..20 if source == hour % 3 => "error",
            4..60 => "view",
            60..85 => "cart",
            _ => "purchase",
        };
        let bytes = match rng.u8(0..100) {
            0 => -1,
            _ => rng.i64(0..5_000),
        };
        let row = json!({
            "source": format!("source-{source}"),
            "user_id": format!("user-{}", (i / BURST + rng.i64(0..3)) % 400),
            "action": action,
            "bytes": bytes,
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

#[derive(Default)]
struct Counts {
    events: i64,
    bytes: i64,
    orders: i64,
    errors: i64,
}

struct Heard {
    last_ms: i64,
    is_silent: bool,
}

struct Visit {
    viewed_ms: i64,
    carted_ms: Option<i64>,
}

/// What is known after some rows.
#[derive(Default)]
struct Model {
    /// By source, then by the window's end.
    windows: BTreeMap<(String, i64), Counts>,
    heard: BTreeMap<String, Heard>,
    visits: BTreeMap<String, Visit>,
    silent: Vec<Value>,
    abandoned: Vec<Value>,
    /// How many rows `flow` rejects.
    rejected: u64,
}

impl Model {
    fn of(rows: &[Value]) -> Model {
        let mut model = Model::default();
        let mut newest_ms = i64::MIN;
        for row in rows {
            let watermark_ms = newest_ms.saturating_sub(BOUND_MS);
            model.advance(watermark_ms);
            newest_ms = newest_ms.max(number(row, "ts"));
            model.count(row, watermark_ms);
            model.hear(row);
            model.visit(row);
        }
        model.advance(i64::MAX);
        model
    }

    fn advance(&mut self, watermark_ms: i64) {
        for (source, heard) in &mut self.heard {
            let due_ms = heard.last_ms + SILENT_AFTER_MS;
            if !heard.is_silent && due_ms <= watermark_ms {
                heard.is_silent = true;
                self.silent
                    .push(silence(source, "raised", heard.last_ms, due_ms));
            }
        }
        self.visits.retain(|user, visit| {
            let Some(carted_ms) = visit.carted_ms else {
                return true;
            };
            let due_ms = carted_ms + ABANDONED_AFTER_MS;
            if due_ms <= watermark_ms {
                self.abandoned.push(json!({
                    "user_id": user,
                    "viewed": json_time(visit.viewed_ms),
                    "carted": json_time(carted_ms),
                    "at": json_time(due_ms),
                }));
            }
            due_ms > watermark_ms
        });
    }

    fn count(&mut self, row: &Value, watermark_ms: i64) {
        let first_end_ms = number(row, "ts").div_euclid(EVERY_MS) * EVERY_MS + EVERY_MS;
        let ends_ms = (0..MINUTE_MS / EVERY_MS).map(|step| first_end_ms + step * EVERY_MS);
        let open = ends_ms.filter(|end_ms| *end_ms > watermark_ms);
        if number(row, "bytes") < 0 {
            // A row that is late for all windows comes to none that rejects it.
            self.rejected += u64::from(open.count() > 0);
            return;
        }
        for end_ms in open {
            let window = (text(row, "source").to_owned(), end_ms);
            let counts = self.windows.entry(window).or_default();
            counts.events += 1;
            counts.bytes += number(row, "bytes");
            counts.orders += i64::from(text(row, "action") == "purchase");
            counts.errors += i64::from(text(row, "action") == "error");
        }
    }

    fn hear(&mut self, row: &Value) {
        let (source, ts) = (text(row, "source"), number(row, "ts"));
        if let Some(heard) = self.heard.get(source) {
            if ts <= heard.last_ms {
                return;
            }
            if heard.is_silent {
                self.silent.push(silence(source, "over", heard.last_ms, ts));
            }
        }
        let heard = Heard {
            last_ms: ts,
            is_silent: false,
        };
        self.heard.insert(source.to_owned(), heard);
    }

    fn visit(&mut self, row: &Value) {
        let (user, ts) = (text(row, "user_id"), number(row, "ts"));
        match (text(row, "action"), self.visits.get_mut(user)) {
            ("view", None) => {
                let visit = Visit {
                    viewed_ms: ts,
                    carted_ms: None,
                };
                self.visits.insert(user.to_owned(), visit);
            }
            ("view", Some(visit)) => visit.viewed_ms = visit.viewed_ms.min(ts),
            ("cart", Some(visit)) => visit.carted_ms = visit.carted_ms.max(Some(ts)),
            ("purchase", _) => drop(self.visits.remove(user)),
            _ => {}
        }
    }

    fn rates(&self) -> Vec<Value> {
        let rates = self.windows.iter().map(|((source, end_ms), counts)| {
            let seconds = MINUTE_MS as f64 / 1000.0;
            json!({
                "source": source,
                "window_start": json_time(end_ms - MINUTE_MS),
                "window_end": json_time(*end_ms),
                "events": counts.events,
                "rate": counts.bytes as f64 / seconds,
                "order_rate": counts.orders as f64 / seconds,
                "error_share": counts.errors as f64 / counts.events as f64,
            })
        });
        rates.collect()
    }
}

fn silence(source: &str, alarm: &str, since_ms: i64, at_ms: i64) -> Value {
    json!({
        "source": source, "alarm": alarm, "since": json_time(since_ms), "at": json_time(at_ms),
    })
}

/// The alarms of a measure, in the rates by source and time.
fn alarms(
    rates: &[Value],
    measure: &str,
    is_bad: fn(f64) -> bool,
    is_good: fn(f64) -> bool,
) -> Vec<Value> {
    let mut raised: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut alarms = Vec::new();
    for row in rates {
        let source = text(row, "source");
        let value = row[measure].as_f64().expect("a measure");
        let (alarm, since) = match raised.get(source) {
            None if is_bad(value) => {
                raised.insert(source, &row["window_end"]);
                ("raised", &row["window_end"])
            }
            Some(_) if is_good(value) => ("over", raised.remove(source).expect("it is raised")),
            _ => continue,
        };
        alarms.push(json!({
            "source": source, "measure": measure, "alarm": alarm, "value": value,
            "since": since, "at": row["window_end"],
        }));
    }
    alarms
}

#[test]
fn a_day_is_watched_as_in_the_naive_computation() {
    let lines = events(&mut Rng::with_seed(4), 12_000);
    let folder = folder_of(&[("events.jsonl", &lines)]);
    let pipeline = example("monitoring/pipeline.toml").to_string();

    let rows = decoded(&lines);
    let model = Model::of(&rows);
    let rates = model.rates();
    let mut alerts = alarms(&rates, "error_share", |it| it >= 0.1, |it| it <= 0.05);
    alerts.extend(alarms(
        &rates,
        "order_rate",
        |it| it <= 0.016,
        |it| it >= 0.033,
    ));
    let expected = [rates, alerts, model.silent, model.abandoned].map(sorted);
    let found = collect_all_everywhere(&pipeline, folder.path(), SINKS);
    for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
        assert!(expected.len() > 50, "{sink} has only {}", expected.len());
        assert_same(expected, found, sink);
    }

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), SINKS);
    let nodes = || summary.nodes.iter();
    let node = |name| nodes().find(|node| node.name == name).expect("a node");
    assert_eq!(node("events").failed as usize, lines.len() - rows.len());
    assert_eq!(node("flow").rejected, model.rejected);
    assert!(model.rejected > 0, "all is accepted");
}
