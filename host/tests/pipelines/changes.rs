//! What reads the changes of results: against a naive computation.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};
use sluicebox::config::Config;
use sluicebox::planner;
use tempfile::TempDir;

use crate::common;
use crate::everywhere::{collect_all, collect_everywhere, run_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// How far rows are out of order at most, in ms, without being late.
const BOUND_MS: i64 = 20;

struct Row {
    user: String,
    n: i64,
    ts: i64,
}

/// Rows of few users, out of order, and some of them late.
fn rows(seed: u64, count: usize) -> Vec<Row> {
    let mut random = Rng::with_seed(seed);
    let mut now = 0;
    let row = |_| {
        now += random.i64(0..4);
        let back = match random.u32(0..12) {
            0 => random.i64(0..400),
            _ => random.i64(0..BOUND_MS),
        };
        Row {
            user: format!("u{}", random.u32(0..25)),
            n: random.i64(-2..40),
            ts: now - back,
        }
    };
    (0..count).map(row).collect()
}

fn folder(rows: &[Row]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "rows.jsonl", rows);
    folder
}

fn write(folder: &Path, name: &str, rows: &[Row]) {
    let line = |row: &Row| {
        let Row { user, n, ts } = row;
        format!("{}\n", json!({"user": user, "n": n, "ts": ts}))
    };
    let text: String = rows.iter().map(line).collect();
    std::fs::write(folder.join(name), text).expect("it is writable");
}

/// The number of rows of each user, while there have been some lately.
const RECENT_ROWS_OF: &str = r#"
        [operators.rows_of]
        aggregate = { rows = "count()" }
        input = "rows"
        key = "user"
        window = "running"
        ttl = "50ms"
"#;

fn pipeline_of(operators: &str, sink_input: &str) -> String {
    let changes = match sink_input.ends_with(".changes") {
        true => "changes = \"change\"",
        false => "",
    };
    format!(
        r#"
        name = "test"
        plugins.basics.path = {:?}
        dead_letters = "dead.jsonl"

        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        event_time = "ts"
        watermark = {{ out_of_orderness = "{BOUND_MS}ms" }}
        fields = {{ user = "utf8", n = "int64", ts = "timestamp(ms)" }}

        {operators}

        [sinks.out]
        type = "file"
        path = "out.jsonl"
        input = {sink_input:?}
        {changes}
        "#,
        common::plugin_file("basics"),
    )
}

/// The rows that stand in the end, sorted: those that are added and not taken back.
/// Nothing is taken back that does not stand.
fn standing(rows: Vec<Value>) -> Vec<Value> {
    let mut standing: BTreeMap<String, i64> = BTreeMap::new();
    for mut row in rows {
        let row = row.as_object_mut().expect("a row");
        let change = row.remove("change").expect("the column is there");
        let times = standing.entry(json!(row).to_string()).or_default();
        *times += if change == "-" { -1 } else { 1 };
        assert!(*times >= 0, "{row:?} is taken back, and does not stand");
    }
    let rows = standing.into_iter().flat_map(|(text, times)| {
        let row: Value = serde_json::from_str(&text).expect("it was one");
        (0..times).map(move |_| row.clone())
    });
    rows.collect()
}

fn check(text: &str, folder: &Path, mut expected: Vec<Value>) {
    expected.sort_by_cached_key(ToString::to_string);
    assert!(expected.len() > 3, "too few rows to tell anything");
    run_everywhere(text, folder, ["out"], |when, [rows]| {
        let taken_back = rows.iter().filter(|row| row["change"] == "-").count();
        assert!(taken_back > 3, "{when}: nothing is taken back");
        assert_same(&expected, &standing(rows), when);
    });
}

#[test]
fn counts_are_counted() {
    let operators = r#"
        [operators.rows_of]
        aggregate = { rows = "count()" }
        input = "rows"
        key = "user"
        window = "running"

        [operators.histogram]
        aggregate = { users = "count()" }
        input = "rows_of.changes"
        key = "rows"
        window = "running"
    "#;
    let text = pipeline_of(operators, "histogram.changes");
    for seed in 0..3 {
        let rows = rows(seed, 400);
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for row in &rows {
            *counts.entry(&row.user).or_default() += 1;
        }
        let mut users: BTreeMap<i64, i64> = BTreeMap::new();
        for count in counts.into_values() {
            *users.entry(count).or_default() += 1;
        }
        let row = |(rows, users)| json!({"rows": rows, "users": users});
        check(
            &text,
            folder(&rows).path(),
            users.into_iter().map(row).collect(),
        );
    }
}

/// Windows that late rows correct, combined in longer ones: by functions, and by a plugin
/// behind a filter.
#[test]
fn corrected_windows_are_combined() {
    let windows = |window: &str| {
        format!(
            r#"
            [operators.tens]
            aggregate = {{ n = "sum(n)" }}
            input = "rows"
            key = "user"
            window = {window}
            allowed_lateness = "1h"

            [operators.large]
            plugin = "basics.even"
            input = "tens.changes"

            [operators.hundreds]
            plugin = "basics.balance"
            input = "large"
            window = {{ tumbling = "100ms" }}
            allowed_lateness = "1h"

            [operators.sums]
            aggregate = {{ windows = "count()", n = "sum(n)" }}
            input = "tens.changes"
            key = "user"
            window = "running"
            "#
        )
    };
    for (window, size_ms, slide_ms) in [
        ("{ tumbling = \"10ms\" }", 10, 10),
        ("{ sliding = \"20ms\", every = \"5ms\" }", 20, 5),
    ] {
        let rows = rows(7, 400);
        let folder = folder(&rows);
        let mut tens: BTreeMap<(&str, i64), i64> = BTreeMap::new();
        for row in &rows {
            let first = row.ts.div_euclid(slide_ms) * slide_ms + slide_ms;
            for end in (first..first + size_ms).step_by(slide_ms as usize) {
                *tens.entry((&row.user, end)).or_default() += row.n;
            }
        }
        // Sums of windows, by user.
        let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        // Those that are even and not negative, by window.
        let mut hundreds: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (&(user, end), &n) in &tens {
            let sum = sums.entry(user).or_default();
            *sum = (sum.0 + 1, sum.1 + n);
            if n % 2 == 0 && n >= 0 {
                let hundred = (end - 1).div_euclid(100) * 100;
                let sum = hundreds.entry(hundred).or_default();
                *sum = (sum.0 + 1, sum.1 + n);
            }
        }
        let of_user = |(user, (windows, n))| json!({"user": user, "windows": windows, "n": n});
        let text = pipeline_of(&windows(window), "sums.changes");
        check(
            &text,
            folder.path(),
            sums.into_iter().map(of_user).collect(),
        );
        let of_window = |(start, (values, total))| {
            json!({
                "window_start": time(start),
                "window_end": time(start + 100),
                "values": values,
                "total": total,
            })
        };
        let text = pipeline_of(&windows(window), "hundreds.changes");
        check(
            &text,
            folder.path(),
            hundreds.into_iter().map(of_window).collect(),
        );
    }
}

/// A session has another time than those that it takes the place of.
#[test]
fn sessions_are_no_table_as_of_a_time() {
    let operators = r#"
        [operators.visits]
        aggregate = { rows = "count()" }
        input = "rows"
        key = "user"
        window = { session = "30ms" }
        allowed_lateness = "1h"

        [operators.joined]
        join = { kind = "left", as_of = "event_time" }
        input = { left = "rows", right = "visits.changes" }
        key = "user"
        select = { n = "left.n", rows = "right.rows" }
    "#;
    let config = Config::parse("pipeline.toml", &pipeline_of(operators, "joined"));
    let folder = folder(&rows(1, 1));
    let refused = planner::build(
        &config.expect("it is TOML"),
        folder.path(),
        &*common::LOADER,
    );
    let said = refused.err().expect("it is refused").to_string();
    assert!(said.contains("those of sessions are no table"), "{said}");
}

/// A process has the sum of what stands, after each change: of windows, of sessions, and of
/// results that expire.
#[test]
fn a_process_takes_rows_back() {
    let table = |key: &str| {
        format!(
            r#"
            [operators.table]
            aggregate = {{ n = "sum(n)" }}
            input = "rows"
            key = "user"
            {key}

            [operators.ledger]
            plugin = "basics.ledger"
            input = "table.changes"
            key = "user"
            "#
        )
    };
    for (seed, settings) in [
        "window = { tumbling = \"60ms\" }\nallowed_lateness = \"1h\"",
        "window = { session = \"30ms\" }\nallowed_lateness = \"1h\"",
        "window = \"running\"\nttl = \"50ms\"",
    ]
    .into_iter()
    .enumerate()
    {
        let operators = table(settings);
        let rows = rows(50 + seed as u64, 800);
        let folder = folder(&rows);
        // What stands in the table, which has rows that the process rejects.
        let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let text = pipeline_of(&operators, "table.changes");
        for row in standing(
            collect_all(plan_of(&text, folder.path()), ["out"])
                .0
                .concat(),
        ) {
            let user = row["user"].as_str().expect("a user").to_owned();
            if let Some(n) = row["n"].as_i64().filter(|n| *n >= 0) {
                let sum = expected.entry(user).or_default();
                *sum = (sum.0 + 1, sum.1 + n);
            }
        }
        assert!(expected.len() > 3, "{settings}: {expected:?}");
        let text = pipeline_of(&operators, "ledger");
        run_everywhere(&text, folder.path(), ["out"], |when, [rows]| {
            let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
            let (mut rises, mut falls) = (0, 0);
            for row in &rows {
                let user = row["user"].as_str().expect("a user").to_owned();
                let [values, total] = ["values", "total"].map(|of| row[of].as_i64().expect("one"));
                let before = last.insert(user, (values, total)).unwrap_or_default();
                match values > before.0 {
                    true => rises += 1,
                    false => falls += 1,
                }
                assert_eq!((values - before.0).abs(), 1, "{settings}, {when}: {row}");
            }
            assert!(
                rises > 3 && falls > 3,
                "{settings}, {when}: {rises}, {falls}"
            );
            last.retain(|_, (values, _)| *values > 0);
            assert_eq!(last, expected, "{settings}, {when}");
        });
    }
}

/// A late row may join two sessions: both are taken back before the one in their place
/// comes, and what reads them counts each once.
#[test]
fn joined_sessions_are_taken_back() {
    const GAP_MS: i64 = 30;
    let operators = format!(
        r#"
        [operators.visits]
        aggregate = {{ rows = "count()", n = "sum(n)" }}
        input = "rows"
        key = "user"
        window = {{ session = "{GAP_MS}ms" }}
        allowed_lateness = "1h"
        timing = "timing"

        [operators.visits_of]
        aggregate = {{ visits = "count()", rows = "sum(rows)", n = "sum(n)" }}
        input = "visits.changes"
        key = "user"
        window = "running"

        [operators.ended]
        plugin = "basics.balance"
        input = "visits.changes"
        window = {{ tumbling = "100ms" }}
        allowed_lateness = "1h"
        "#
    );
    for seed in 0..3 {
        let rows = rows(30 + seed, 500);
        let folder = folder(&rows);
        let mut of_users: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
        for row in &rows {
            of_users.entry(&row.user).or_default().push((row.ts, row.n));
        }
        let (mut visits, mut visits_of) = (Vec::new(), Vec::new());
        let mut ended: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (user, mut of_user) in of_users {
            of_user.sort_unstable();
            let sessions = of_user.chunk_by(|one, next| next.0 - one.0 <= GAP_MS);
            let before = visits.len();
            for session in sessions {
                let n: i64 = session.iter().map(|(_, n)| n).sum();
                let end = session[session.len() - 1].0 + GAP_MS;
                visits.push(json!({
                    "user": user,
                    "window_start": time(session[0].0),
                    "window_end": time(end),
                    "rows": session.len(),
                    "n": n,
                }));
                if n >= 0 {
                    let sum = ended.entry((end - 1).div_euclid(100) * 100).or_default();
                    *sum = (sum.0 + 1, sum.1 + n);
                }
            }
            visits_of.push(json!({
                "user": user,
                "visits": visits.len() - before,
                "rows": of_user.len(),
                "n": of_user.iter().map(|(_, n)| n).sum::<i64>(),
            }));
        }
        let of_window = |(start, (values, total))| {
            json!({
                "window_start": time(start),
                "window_end": time(start + 100),
                "values": values,
                "total": total,
            })
        };
        for (output, expected) in [
            ("visits.changes", visits),
            ("visits_of.changes", visits_of),
            ("ended.changes", ended.into_iter().map(of_window).collect()),
        ] {
            check(&pipeline_of(&operators, output), folder.path(), expected);
        }
    }
}

/// A result whose state expires is taken back: only users who came lately are counted.
#[test]
fn what_expires_is_taken_back() {
    let operators = &[
        RECENT_ROWS_OF,
        r#"
        [operators.users]
        aggregate = { users = "count()", rows = "sum(rows)" }
        input = "rows_of.changes"
        window = "running"
    "#,
    ]
    .concat();
    let text = pipeline_of(operators, "rows_of.changes");
    let rows = rows(3, 600);
    // Whether a state has expired decides the row's time, or the watermark if that is
    // later.
    let mut states: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut newest_ms = i64::MIN;
    for row in &rows {
        let now_ms = row.ts.max(newest_ms.saturating_sub(BOUND_MS));
        newest_ms = newest_ms.max(row.ts);
        let state = states.entry(&row.user).or_insert((0, row.ts));
        if state.1 + 50 < now_ms {
            *state = (0, row.ts);
        }
        *state = (state.0 + 1, state.1.max(row.ts));
    }
    let end_ms = newest_ms - BOUND_MS;
    states.retain(|_, (_, newest_ms)| *newest_ms + 50 >= end_ms);
    let of_user = |(user, (rows, _)): (&&str, &(i64, i64))| json!({"user": user, "rows": rows});
    let folder = folder(&rows);
    check(&text, folder.path(), states.iter().map(of_user).collect());
    let text = pipeline_of(operators, "users.changes");
    let rows: i64 = states.values().map(|(rows, _)| rows).sum();
    let all = vec![json!({"users": states.len(), "rows": rows})];
    run_everywhere(&text, folder.path(), ["out"], |when, [rows]| {
        assert_eq!(standing(rows), all, "{when}");
    });
}

/// Results that have only what is new add up to all, whoever reads them.
#[test]
fn discarded_results_are_summed() {
    let operators = r#"
        [operators.tens]
        aggregate = { rows = "count()", n = "sum(n)" }
        input = "rows"
        key = "user"
        window = { tumbling = "10ms" }
        allowed_lateness = "1h"
        discard = true

        [operators.all]
        aggregate = { rows = "sum(rows)", n = "sum(n)" }
        input = "tens"
        key = "user"
        window = "running"
        emit = { every = "1h" }
    "#;
    check_sums_by_user(&pipeline_of(operators, "all"), &rows(12, 600));
}

/// Results that wait for the clock come at the end at the latest, each once, through kills.
#[test]
fn results_that_wait_come_at_the_end() {
    let operators = r#"
        [operators.rows_of]
        aggregate = { rows = "count()", n = "sum(n)" }
        input = "rows"
        key = "user"
        window = "running"
        emit = { every = "1h" }
    "#;
    check_sums_by_user(&pipeline_of(operators, "rows_of"), &rows(11, 600));
}

/// The pipeline gives how many rows of each user there are, and the sum of their `n`.
fn check_sums_by_user(text: &str, rows: &[Row]) {
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry(&row.user).or_default();
        *sum = (sum.0 + 1, sum.1 + row.n);
    }
    let of_user = |(user, (rows, n))| json!({"user": user, "rows": rows, "n": n});
    let mut sums: Vec<Value> = sums.into_iter().map(of_user).collect();
    sums.sort_by_cached_key(ToString::to_string);
    let given = collect_everywhere(text, folder(rows).path(), "out");
    assert_same(&sums, &given, "in the end");
}

/// A table of results, as of a time: what expires is gone from then on.
#[test]
fn results_are_joined_as_of_a_time() {
    let operators = &[
        RECENT_ROWS_OF,
        r#"
        [operators.joined]
        join = { kind = "left", as_of = "event_time" }
        input = { left = "questions", right = "rows_of.changes" }
        key = "user"
        select = { n = "left.n", rows = "right.rows" }

        [sources.questions]
        type = "file"
        path = "questions.jsonl"
        event_time = "ts"
        watermark = { out_of_orderness = "20ms" }
        fields = { user = "utf8", n = "int64", ts = "timestamp(ms)" }
    "#,
    ]
    .concat();
    let text = pipeline_of(operators, "joined");
    // Versions have the times of their rows, which come in order here.
    let mut rows = rows(5, 400);
    for (ts, row) in (0..).step_by(3).zip(&mut rows) {
        row.ts = ts;
    }
    // None is late, by whichever side's watermark.
    let mut questions = self::rows(6, 300);
    questions.sort_by_key(|row| row.ts);
    let folder = folder(&rows);
    write(folder.path(), "questions.jsonl", &questions);
    let mut expected = Vec::new();
    for Row { user, n, ts } in &questions {
        let mut known: Option<(i64, i64)> = None;
        for row in rows.iter().filter(|row| row.user == *user && row.ts <= *ts) {
            let before = known.filter(|(_, newest_ms)| newest_ms + 50 >= row.ts);
            known = Some((before.map_or(1, |(count, _)| count + 1), row.ts));
        }
        let known = known.filter(|(_, newest_ms)| newest_ms + 50 >= *ts);
        expected.push(json!({"n": n, "rows": known.map(|(count, _)| count)}));
    }
    expected.sort_by_cached_key(ToString::to_string);
    let matched = expected.iter().filter(|row| !row["rows"].is_null()).count();
    assert!(matched > 30 && expected.len() - matched > 30, "{matched}");
    run_everywhere(&text, folder.path(), ["out"], |when, [mut rows]| {
        rows.sort_by_cached_key(ToString::to_string);
        assert_same(&expected, &rows, when);
    });
}

/// As in results.
fn time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).expect("a small number");
    match ms.rem_euclid(1_000) {
        0 => time.to_string(),
        _ => format!("{time:.3}"),
    }
}
