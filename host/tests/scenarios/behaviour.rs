//! Tests what is said of users' behaviour against a naive computation.

use std::collections::{BTreeMap, HashSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{
    BURST, Day, MINUTE_MS, decoded, example, folder_of, in_order, json_time, number, read_file,
    sorted, text, time_of,
};
use crate::everywhere::{collect_all, collect_all_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 2_000;
const GAP_MS: i64 = 30 * MINUTE_MS;
const WINDOW_MS: i64 = 10 * MINUTE_MS;
const WINDOWS: i64 = 24;

const NEXT: [&str; 5] = ["view", "add", "remove", "checkout", "leave"];
const FIELDS: &str =
    "user_id = \"utf8\"\nitem_id = \"utf8\"\naction = \"utf8\"\nts = \"timestamp\"";
const SINKS: [&str; 3] = ["predictions", "improbable", "unusual"];

/// The actions of a day: of a few users at a time, now and then of one alone.
fn actions(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let burst = i / BURST;
        let others = if burst % 40 == 0 { 1 } else { 3 };
        let user = match rng.u8(0..100) {
            0 => String::new(),
            _ => format!("user-{}", (burst + rng.i64(0..others)) % 100),
        };
        let action = match rng.u16(0..1_000) {
            0..500 => "view",
            500..800 => "add",
            800..985 => "remove",
            985..990 => "steal",
            _ => "checkout",
        };
        let row = json!({
            "user_id": user,
            "item_id": format!("item-{}", rng.u8(0..20)),
            "action": action,
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

fn is_valid(row: &Value) -> bool {
    !text(row, "user_id").is_empty() && text(row, "action") != "steal"
}

/// What a user did after the last two actions, or a question of that.
struct Step<'a> {
    at_ms: i64,
    user: &'a str,
    before: &'a str,
    last: &'a str,
    /// None in a question.
    next: Option<&'a str>,
}

/// The steps and questions of valid rows in order.
fn steps<'a>(rows: &[&'a Value]) -> Vec<Step<'a>> {
    let mut of_users: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        of_users.entry(text(row, "user_id")).or_default().push(row);
    }
    let mut steps = Vec::new();
    for (user, rows) in of_users {
        let ends = rows.chunk_by(|row, next| number(next, "ts") - number(row, "ts") < GAP_MS);
        for visit in ends {
            let mut done = vec!["start", "start"];
            let mut step = |at_ms, done: &[&'a str], next| {
                let (before, last) = (done[done.len() - 2], done[done.len() - 1]);
                steps.push(Step {
                    at_ms,
                    user,
                    before,
                    last,
                    next,
                });
            };
            for row in visit {
                let (action, at_ms) = (text(row, "action"), number(row, "ts"));
                step(at_ms, &done, Some(action));
                done.push(action);
                step(at_ms, &done, None);
            }
            let left_ms = number(visit[visit.len() - 1], "ts") + GAP_MS;
            step(left_ms, &done, Some("leave"));
        }
    }
    steps.sort_by_key(|step| step.at_ms);
    steps
}

/// What is predicted, and what is improbable.
fn judged(steps: &[Step<'_>]) -> [Vec<Value>; 2] {
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let [mut predictions, mut improbable] = [const { Vec::new() }; 2];
    for at_once in steps.chunk_by(|step, next| step.at_ms == next.at_ms) {
        for step in at_once {
            let count = |before: Option<&str>, next: Option<&str>| -> u64 {
                let is_meant = |(b, l, n): &(&str, &str, &str)| {
                    *l == step.last
                        && before.is_none_or(|before| *b == before)
                        && next.is_none_or(|next| *n == next)
                };
                let meant = counts.iter().filter(|(which, _)| is_meant(which));
                meant.map(|(_, count)| count).sum()
            };
            let before = Some(step.before);
            let (of_last, of_both) = (count(None, None), count(before, None));
            let probability = |next: &str| {
                let given_last =
                    (count(None, Some(next)) as f64 + 1.0) / (of_last as f64 + 5.0 * 1.0);
                let of_next = count(before, Some(next)) as f64;
                (of_next + 10.0 * given_last) / (of_both as f64 + 10.0)
            };
            let mut told = json!({
                "user_id": step.user, "before": step.before, "last": step.last,
                "at": json_time(step.at_ms),
            });
            match step.next {
                None => {
                    told["seen"] = of_both.into();
                    for next in NEXT {
                        told[next] = probability(next).into();
                    }
                    predictions.push(told);
                }
                Some(next) if of_last >= 50 && probability(next) <= 0.02 => {
                    told["next"] = next.into();
                    told["probability"] = probability(next).into();
                    improbable.push(told);
                }
                Some(_) => {}
            }
        }
        for step in at_once {
            if let Some(next) = step.next {
                *counts.entry((step.before, step.last, next)).or_default() += 1;
            }
        }
    }
    [predictions, improbable]
}

/// Windows in which users do far more, or less, than in those before.
fn unusual(rows: &[&Value]) -> Vec<Value> {
    let mut counts: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for row in rows {
        let window = number(row, "ts").div_euclid(WINDOW_MS);
        let of_user = counts.entry(text(row, "user_id")).or_default();
        *of_user.entry(window).or_default() += 1;
    }
    let mut unusual = Vec::new();
    for (user, counts) in counts {
        let first = *counts.keys().next().expect("a user does something");
        for (&window, &count) in &counts {
            let before = first.max(window - WINDOWS)..window;
            let before: Vec<f64> = before
                .map(|window| counts.get(&window).map_or(0.0, |count| *count as f64))
                .collect();
            let n = before.len() as f64;
            let mean = before.iter().sum::<f64>() / n;
            let squares = before.iter().map(|count| (count - mean) * (count - mean));
            let deviation = (squares.sum::<f64>() / n).sqrt();
            let far = 3.0 * deviation.max(1.0);
            if before.len() >= 6 && (count as f64 - mean).abs() > far {
                unusual.push(json!({
                    "user_id": user,
                    "window_start": json_time(window * WINDOW_MS),
                    "window_end": json_time((window + 1) * WINDOW_MS),
                    "actions": count, "usual": mean, "deviation": deviation,
                }));
            }
        }
    }
    unusual
}

#[test]
fn a_day_is_predicted_and_judged_as_in_the_naive_computation() {
    let lines = actions(&mut Rng::with_seed(8), 12_000);
    let folder = folder_of(&[("actions.jsonl", &lines)]);
    let mut pipeline = example("behaviour/pipeline.toml");
    read_file(&mut pipeline, "actions", FIELDS);
    let pipeline = pipeline.to_string();

    let rows = decoded(&lines);
    let (in_time, late) = in_order(&rows, BOUND_MS);
    let mut seen = HashSet::new();
    let valid = in_time.iter().filter(|row| is_valid(row));
    let once = valid.filter(|row| seen.insert(row.to_string()));
    let once: Vec<&Value> = once.copied().collect();
    let [predictions, improbable] = judged(&steps(&once));
    let expected = [predictions, improbable, unusual(&once)].map(sorted);
    let found = collect_all_everywhere(&pipeline, folder.path(), SINKS);
    for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
        assert!(expected.len() > 20, "{sink} has only {}", expected.len());
        assert_same(expected, found, sink);
    }

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), SINKS);
    let nodes = || summary.nodes.iter();
    let node = |name| nodes().find(|node| node.name == name).expect("a node");
    assert_eq!(node("actions").failed as usize, lines.len() - rows.len());
    assert_eq!(node("steps").late as usize, late);
    let invalid = in_time.iter().filter(|row| !is_valid(row)).count();
    assert_eq!(node("steps").rejected as usize, invalid);
    assert!(late > 50 && invalid > 50 && seen.len() + 50 < in_time.len());
}
