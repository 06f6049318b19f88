//! Runs that go on after their inputs had ended: compares every kind of window with the
//! model, and with runs of their own, where they are stopped at any time.

use super::evicted::Runs;
use super::model::{Expected, expect, finals, rows};
use super::{Bench, Key, Row, Setup, cumulate, session, sliding, tumbling};
use crate::plan::Window;

const SEEDS: u64 = 3;
const ROWS: usize = 150;

/// The rows of several runs. Some are older than the newest of the run before.
fn runs_of_rows(random: &mut fastrand::Rng) -> Vec<Vec<Row>> {
    let mut newest = None;
    let runs = (0..3).map(|_| {
        let mut rows = rows(random.u64(..), ROWS, 100, 1_000);
        let first = rows.iter().map(|row| row.time).min().unwrap_or_default();
        if let Some(newest) = newest {
            let by = newest - first + random.i64(-6_000..3_000);
            rows.iter_mut().for_each(|row| row.time += by);
        }
        newest = newest.max(rows.iter().map(|row| row.time).max());
        rows
    });
    runs.collect()
}

/// Runs each of these to its end, with restarts in between. Returns the operator of each
/// run, with what has come out of it.
fn run(
    setup: &Setup,
    out_of_orderness_ms: i64,
    runs: &[Vec<Row>],
    random: &mut fastrand::Rng,
) -> Vec<Bench> {
    let mut stored = Runs::new(setup.clone());
    let mut bench = stored.begin(None);
    let mut newest = i64::MIN;
    let mut done = Vec::new();
    for rows in runs {
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (rows, others) = rest.split_at(random.usize(1..=rest.len()));
            rest = others;
            let batch_rows = [1, 7, 4096][random.usize(0..3)];
            newest = bench.go_on(rows, out_of_orderness_ms, batch_rows, newest);
            if random.bool() {
                let next = stored.restart(&mut bench);
                bench = Bench {
                    lines: bench.lines,
                    late: bench.late,
                    counts: bench.counts,
                    ..next
                };
            }
        }
        bench.end();
        let next = stored.restart(&mut bench);
        done.push(std::mem::replace(&mut bench, next));
    }
    done
}

fn setups() -> Vec<Setup> {
    let mut setups = Vec::new();
    for setup in [
        tumbling(5_000),
        tumbling(700).key(Key::Shop),
        sliding(10_000, 5_000),
        sliding(6_000, 500).key(Key::None),
        sliding(5_000, 900).key(Key::UserAndShop),
        cumulate(6_000, 1_000),
        cumulate(20_000, 1_000),
        session(400),
        session(60).key(Key::UserAndShop),
        session(3_000).key(Key::None),
    ] {
        setups.push(setup.clone().lateness(2_000));
        setups.push(setup.clone().lateness(30_000));
        setups.push(setup.clone().lateness(2_000).final_only());
        setups.push(setup);
    }
    setups.extend([
        Setup::new(Window::Count { size: 10 }),
        Setup::new(Window::Running),
        Setup::new(Window::Global),
    ]);
    setups
}

#[test]
fn windows_that_fired_at_an_end_stay_closed_and_others_are_as_ever() {
    let mut late = 0;
    for setup in setups() {
        for seed in 0..SEEDS {
            let random = &mut fastrand::Rng::with_seed(seed);
            let out_of_orderness_ms = [0, 300, 1_000][random.usize(0..3)];
            let runs = runs_of_rows(random);
            let slices: Vec<&[Row]> = runs.iter().map(Vec::as_slice).collect();
            let expected = expect(&setup, out_of_orderness_ms, &slices);
            let benches = run(&setup, out_of_orderness_ms, &runs, random);
            let mut given = Expected::default();
            for bench in &benches {
                for line in finals(&setup, bench) {
                    assert!(given.lines.insert(line.clone()), "{line} came twice");
                }
                given.late += bench.counts.late;
                given.late_for_all += bench.late.len();
            }
            let what = format!("{setup:?}, seed {seed}");
            let missing: Vec<_> = expected.lines.difference(&given.lines).take(5).collect();
            let surplus: Vec<_> = given.lines.difference(&expected.lines).take(5).collect();
            let none: Vec<&String> = Vec::new();
            assert_eq!((missing, surplus), (none.clone(), none), "{what}");
            assert_eq!(given.late, expected.late, "{what}");
            assert_eq!(given.late_for_all, expected.late_for_all, "{what}");
            late += expected.late;
        }
    }
    assert!(late > 2_000, "{late} late rows");
}

/// The key and the end of the window of a result.
fn key_and_end(line: &str) -> (&str, i64) {
    let (key, rest) = line.split_once('[').expect("it has bounds");
    let (_, rest) = rest.split_once(", ").expect("it has an end");
    let (end, _) = rest.split_once(')').expect("it has an end");
    (key.trim_end(), end.parse().expect("a time"))
}

/// What comes out of a later run, and how often, is what a run of its own makes of the
/// rows that are not in windows that have fired.
#[test]
fn a_later_run_tells_each_result_as_often_as_one_of_its_own() {
    let mut told = 0;
    for setup in setups() {
        let window_end = |ended_ms: i64| match setup.window {
            Window::Tumbling { size_ms, .. } | Window::Cumulate { size_ms, .. } => {
                (ended_ms.div_euclid(size_ms) + 1) * size_ms
            }
            Window::Sliding {
                size_ms, slide_ms, ..
            } => ended_ms.div_euclid(slide_ms) * slide_ms + size_ms,
            _ => ended_ms,
        };
        if let Window::Count { .. } | Window::Running | Window::Global = setup.window {
            continue;
        }
        let is_session = matches!(setup.window, Window::Session { .. });
        for seed in 0..SEEDS {
            let random = &mut fastrand::Rng::with_seed(seed);
            let out_of_orderness_ms = [0, 300, 1_000][random.usize(0..3)];
            let runs = runs_of_rows(random);
            let benches = run(&setup, out_of_orderness_ms, &runs, random);
            let mut newest = i64::MIN;
            let mut before: Vec<String> = Vec::new();
            for (bench, rows) in benches.iter().zip(&runs) {
                let sealed = match newest {
                    i64::MIN => i64::MIN,
                    newest => window_end(newest),
                };
                let reaches = |row: &Row| {
                    let key = setup.key.of(row);
                    let mut over = before.iter().map(|line| key_and_end(line));
                    over.any(|(of, end)| of == key && row.time <= end)
                };
                let is_wanted = |row: &&Row| !is_session || row.time > newest && !reaches(row);
                let wanted: Vec<Row> = rows.iter().filter(is_wanted).cloned().collect();
                let mut own = setup.bench();
                own.watermark(newest.saturating_sub(out_of_orderness_ms));
                own.go_on(&wanted, out_of_orderness_ms, 7, newest);
                own.end();
                let mut expected = own.lines;
                expected.retain(|line| is_session || key_and_end(line).1 > sealed);
                let mut given = bench.lines.clone();
                expected.sort();
                given.sort();
                assert_eq!(given, expected, "{setup:?}, seed {seed}");
                told += given.len();
                newest = rows.iter().map(|row| row.time).fold(newest, i64::max);
                before.extend(given);
            }
        }
    }
    assert!(told > 10_000, "{told} results");
}
