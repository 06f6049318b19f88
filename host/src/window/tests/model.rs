//! Compares every kind of window, at several batch sizes and with much disorder, with
//! a simple model that follows the definitions row by row.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bench, Key, Row, Setup, cumulate, last_of_each, session, sliding, tumbling};
use crate::plan::{Alignment, Emit, TimeDomain, Window};

const BATCH_ROWS: [usize; 4] = [1, 7, 64, 4096];

/// What must come of rows: lines as [`Bench`] has them, and how many rows are
/// late for at least one window and for all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Expected {
    pub lines: BTreeSet<String>,
    pub late: u64,
    pub late_for_all: usize,
}

/// A row, and how far time has come before it.
#[derive(Clone, Copy)]
struct Met<'a> {
    watermark: i64,
    /// The newest time when the inputs had ended before.
    ended: i64,
    /// `None` when they end.
    row: Option<&'a Row>,
}

/// Rows with disorder: times run ahead and each row is set back at random, now
/// and then by very much.
pub(super) fn rows(seed: u64, count: usize, step_ms: i64, back_ms: i64) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut now = -50_000;
    (0..count)
        .map(|number| {
            now += random.i64(0..=step_ms);
            let far = random.u32(0..40) == 0;
            let back = random.i64(0..=if far { back_ms * 10 } else { back_ms });
            let user = random.u32(0..8);
            Row {
                user: (user != 0).then(|| format!("u{}", user * user / 9)),
                shop: random.i64(0..3),
                time: now - back,
                amount: random.i64(-100..100),
                word: format!("{}.", number % 1000),
            }
        })
        .collect()
}

fn check(setup: &Setup, out_of_orderness_ms: i64, rows: &[Row], seed: u64) {
    let expected = expect(setup, out_of_orderness_ms, &[rows]);
    assert!(
        expected.lines.len() > 20,
        "too few results to tell anything"
    );
    for batch_rows in BATCH_ROWS {
        let mut bench = Setup {
            batch_rows,
            ..setup.clone()
        }
        .bench();
        bench.source(rows, out_of_orderness_ms, batch_rows);
        let given = Expected {
            lines: finals(setup, &bench),
            late: bench.counts.late,
            late_for_all: bench.late.len(),
        };
        assert_eq!(
            given.late, expected.late,
            "late, seed {seed}, batches of {batch_rows}"
        );
        assert_eq!(given.late_for_all, expected.late_for_all, "seed {seed}");
        if setup.tells_changes() {
            let standing: BTreeSet<String> = bench.standing().into_iter().collect();
            assert_eq!(standing, last(setup, &bench), "seed {seed}, by changes");
        }
        let missing: Vec<_> = expected.lines.difference(&given.lines).take(5).collect();
        let surplus: Vec<_> = given.lines.difference(&expected.lines).take(5).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{setup:?}, seed {seed}, batches of {batch_rows}:\nmissing {missing:#?}\nsurplus {surplus:#?}"
        );
    }
}

/// The results that stand in the end.
fn last(setup: &Setup, bench: &Bench) -> BTreeSet<String> {
    match setup.window {
        Window::Running => {
            let keys = setup.key.columns().len();
            let mut last: BTreeMap<Vec<&str>, &String> = BTreeMap::new();
            for line in &bench.lines {
                last.insert(line.split(' ').take(keys).collect(), line);
            }
            last.into_values().cloned().collect()
        }
        _ => finals(setup, bench),
    }
}

/// The results that count in the end.
pub(super) fn finals(setup: &Setup, bench: &Bench) -> BTreeSet<String> {
    let is_session = matches!(setup.window, Window::Session { .. });
    if setup.allowed_lateness_ms == 0 || is_session {
        let lines: BTreeSet<String> = bench.lines.iter().cloned().collect();
        assert_eq!(lines.len(), bench.lines.len(), "a result was emitted twice");
        return lines;
    }
    last_of_each(&bench.lines).into_iter().collect()
}

/// What must come of the rows of several runs, before each of which all inputs had ended.
pub(super) fn expect(setup: &Setup, out_of_orderness_ms: i64, runs: &[&[Row]]) -> Expected {
    let lateness = setup.allowed_lateness_ms;
    let timed = with_watermarks(runs, out_of_orderness_ms);
    match setup.window {
        Window::Tumbling {
            size_ms, alignment, ..
        } => {
            let windows = |time| sliding_windows(time, size_ms, size_ms, alignment.offset_ms);
            expect_panes(setup.key, windows, lateness, &timed)
        }
        Window::Sliding {
            size_ms,
            slide_ms,
            alignment,
            ..
        } => {
            let windows = |time| sliding_windows(time, size_ms, slide_ms, alignment.offset_ms);
            expect_panes(setup.key, windows, lateness, &timed)
        }
        Window::Cumulate {
            size_ms,
            step_ms,
            alignment,
            ..
        } => {
            let windows = |time| cumulating_windows(time, size_ms, step_ms, alignment.offset_ms);
            expect_panes(setup.key, windows, lateness, &timed)
        }
        Window::Session { gap_ms, .. } => {
            let hold = match setup.emit {
                Emit::Final => lateness,
                Emit::Change => 0,
            };
            expect_sessions(setup.key, gap_ms, (hold, lateness), &timed)
        }
        Window::Count { size } => {
            let mut expected = Expected::default();
            for rows in runs {
                let more = expect_counts(setup.key, size as usize, rows);
                expected.lines.extend(more.lines);
            }
            expected
        }
        Window::Running => expect_running(setup.key, &runs.concat()),
        Window::Global => {
            let mut runs = runs.iter().skip_while(|rows| rows.is_empty());
            let rows = runs.next().copied().unwrap_or_default();
            let late_for_all = runs.map(|rows| rows.len()).sum();
            Expected {
                late: late_for_all as u64,
                late_for_all,
                ..expect_counts(setup.key, usize::MAX, rows)
            }
        }
    }
}

/// The start and end of each window that has a time, in order.
type Spans = Vec<(i64, i64)>;

fn sliding_windows(time: i64, size_ms: i64, slide_ms: i64, offset_ms: i64) -> Spans {
    let last = (time - offset_ms).div_euclid(slide_ms) * slide_ms + offset_ms;
    let starts = (0..).map(|nth| last - nth * slide_ms);
    let starts = starts.take_while(|start| time < start + size_ms);
    let mut windows: Spans = starts.map(|start| (start, start + size_ms)).collect();
    windows.reverse();
    windows
}

fn cumulating_windows(time: i64, size_ms: i64, step_ms: i64, offset_ms: i64) -> Spans {
    let start = (time - offset_ms).div_euclid(size_ms) * size_ms + offset_ms;
    let ends = (1..=size_ms / step_ms).map(|nth| start + nth * step_ms);
    let ends = ends.filter(|&end| time < end);
    ends.map(|end| (start, end)).collect()
}

/// What each row meets, and the end of each run.
fn with_watermarks<'a>(runs: &[&'a [Row]], out_of_orderness_ms: i64) -> Vec<Met<'a>> {
    let mut met = Vec::new();
    let (mut newest, mut ended) = (i64::MIN, i64::MIN);
    for rows in runs {
        for row in *rows {
            met.push(Met {
                watermark: newest.saturating_sub(out_of_orderness_ms),
                ended,
                row: Some(row),
            });
            newest = newest.max(row.time);
        }
        ended = newest;
        met.push(Met {
            watermark: i64::MAX,
            ended,
            row: None,
        });
    }
    met
}

fn expect_panes(
    key: Key,
    windows_of: impl Fn(i64) -> Spans,
    lateness_ms: i64,
    rows: &[Met<'_>],
) -> Expected {
    let mut expected = Expected::default();
    // Rows with the same windows are of one pane. Panes of a window in order, rows of a
    // pane as they came.
    type Panes<'a> = BTreeMap<Spans, Vec<&'a Row>>;
    let mut windows: BTreeMap<(String, (i64, i64)), Panes<'_>> = BTreeMap::new();
    for met in rows {
        let Some(row) = met.row else { continue };
        let pane = windows_of(row.time);
        let sealed = match met.ended {
            i64::MIN => None,
            ended => windows_of(ended).last().map(|&(_, end)| end),
        };
        let is_taken = |&(_, end): &(i64, i64)| {
            met.watermark.saturating_sub(lateness_ms) < end
                && sealed.is_none_or(|sealed| sealed < end)
        };
        let taken: Spans = pane.iter().copied().filter(is_taken).collect();
        expected.late += u64::from(taken.len() < pane.len());
        expected.late_for_all += usize::from(taken.is_empty());
        for window in taken {
            let panes = windows.entry((key.of(row), window)).or_default();
            panes.entry(pane.clone()).or_default().push(row);
        }
    }
    // A window has only the rows that were in time for it, also when it is emitted
    // again.
    for ((key, (start, end)), panes) in windows {
        let rows: Vec<&Row> = panes.into_values().flatten().collect();
        expected.lines.insert(line_of(&key, start, end, &rows));
    }
    expected
}

struct ModelSession<'a> {
    first: i64,
    last: i64,
    /// Rows of the parts that it was joined from, in order of time.
    parts: Vec<Vec<&'a Row>>,
    fired: bool,
    /// No row can correct it any more.
    over: bool,
}

fn expect_sessions(
    key: Key,
    gap_ms: i64,
    (hold_ms, lateness_ms): (i64, i64),
    rows: &[Met<'_>],
) -> Expected {
    let mut expected = Expected::default();
    let mut open: BTreeMap<String, Vec<ModelSession<'_>>> = BTreeMap::new();
    for &Met {
        watermark,
        ended,
        row,
    } in rows
    {
        let held_ms = watermark.saturating_sub(hold_ms);
        for (key, sessions) in &mut open {
            fire(key, sessions, gap_ms, held_ms, &mut expected);
            for session in sessions {
                session.over |= watermark.saturating_sub(lateness_ms) > session.last + gap_ms;
            }
        }
        let Some(row) = row else { continue };
        let sessions = open.entry(key.of(row)).or_default();
        let reached = |session: &ModelSession<'_>| {
            session.first - gap_ms <= row.time && row.time <= session.last + gap_ms
        };
        let (mut joined, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(sessions).into_iter().partition(reached);
        let late_by = watermark
            .saturating_sub(lateness_ms)
            .saturating_sub(row.time);
        let is_within = joined.iter().any(|session| session.first <= row.time);
        let gaps = if joined.is_empty() { 1 } else { 2 };
        let may_come = is_within || late_by <= gaps * gap_ms;
        if row.time <= ended || !may_come || joined.iter().any(|session| session.over) {
            expected.late += 1;
            expected.late_for_all += 1;
            others.append(&mut joined);
            *sessions = others;
            continue;
        }
        joined.sort_by_key(|session| session.first);
        let mut session = ModelSession {
            first: row.time,
            last: row.time,
            parts: vec![],
            fired: false,
            over: false,
        };
        for other in joined {
            session.first = session.first.min(other.first);
            session.last = session.last.max(other.last);
            session.parts.extend(other.parts);
        }
        match session.parts.last_mut() {
            Some(part) => part.push(row),
            None => session.parts.push(vec![row]),
        }
        others.push(session);
        *sessions = others;
        fire(&key.of(row), sessions, gap_ms, held_ms, &mut expected);
    }
    expected
}

fn fire(
    key: &str,
    sessions: &mut [ModelSession<'_>],
    gap_ms: i64,
    watermark: i64,
    expected: &mut Expected,
) {
    for session in sessions {
        let end = session.last + gap_ms;
        if watermark > end && !session.fired {
            session.fired = true;
            let rows: Vec<&Row> = session.parts.iter().flatten().copied().collect();
            expected
                .lines
                .insert(line_of(key, session.first, end, &rows));
        }
    }
}

fn expect_counts(key: Key, size: usize, rows: &[Row]) -> Expected {
    let mut expected = Expected::default();
    for (key, rows) in by_key(key, rows) {
        for rows in rows.chunks(size) {
            let start = rows.iter().map(|row| row.time).min().unwrap_or_default();
            let end = rows
                .iter()
                .map(|row| row.time + 1)
                .max()
                .unwrap_or_default();
            expected.lines.insert(line_of(&key, start, end, rows));
        }
    }
    expected
}

fn expect_running(key: Key, rows: &[Row]) -> Expected {
    let mut expected = Expected::default();
    for (key, rows) in by_key(key, rows) {
        for last in 0..rows.len() {
            let line = line(&key, "", &rows[..=last]);
            expected.lines.insert(line);
        }
    }
    expected
}

fn by_key(key: Key, rows: &[Row]) -> BTreeMap<String, Vec<&Row>> {
    let mut keys: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        keys.entry(key.of(row)).or_default().push(row);
    }
    keys
}

fn line_of(key: &str, start: i64, end: i64, rows: &[&Row]) -> String {
    line(key, &format!("[{start}, {end}) "), rows)
}

fn line(key: &str, span: &str, rows: &[&Row]) -> String {
    let amounts = || rows.iter().map(|row| row.amount);
    let words: String = rows.iter().map(|row| row.word.as_str()).collect();
    let space = if key.is_empty() { "" } else { " " };
    format!(
        "{key}{space}{span}{} {} {} {} {words}",
        rows.len(),
        amounts().sum::<i64>(),
        amounts().min().unwrap_or_default(),
        amounts().max().unwrap_or_default(),
    )
}

#[test]
fn tumbling_windows_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 2_000, 100, 1_000);
        check(&tumbling(5_000), 1_000, &rows, seed);
        check(&tumbling(5_000).key(Key::UserAndShop), 300, &rows, seed);
        check(&tumbling(5_000).key(Key::None), 0, &rows, seed);
        check(
            &tumbling(700).key(Key::Shop).lateness(2_000),
            500,
            &rows,
            seed,
        );
    }
}

#[test]
fn sliding_windows_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 2_000, 100, 1_000);
        check(&sliding(10_000, 5_000), 1_000, &rows, seed);
        check(&sliding(6_000, 500), 1_000, &rows, seed);
        check(&sliding(6_000, 50).key(Key::Shop), 200, &rows, seed);
        check(
            &sliding(6_000, 500).key(Key::None).lateness(3_000),
            300,
            &rows,
            seed,
        );
    }
}

#[test]
fn slides_that_do_not_divide_the_size_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 2_000, 100, 1_000);
        check(&sliding(10_000, 3_000), 1_000, &rows, seed);
        check(&sliding(10_000, 7_000).key(Key::Shop), 300, &rows, seed);
        check(&sliding(10_000, 301).key(Key::None), 0, &rows, seed);
        check(&sliding(3, 2).key(Key::None), 1_000, &rows, seed);
        check(
            &sliding(5_000, 900).key(Key::UserAndShop).lateness(2_000),
            500,
            &rows,
            seed,
        );
        check(
            &sliding(7_000, 2_000).offset(1_300).lateness(700),
            500,
            &rows,
            seed,
        );
    }
}

#[test]
fn cumulating_windows_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 2_000, 100, 1_000);
        check(&cumulate(6_000, 1_000), 1_000, &rows, seed);
        check(&cumulate(5_000, 5_000).key(Key::Shop), 300, &rows, seed);
        // Many panes, so that keys have trees.
        check(&cumulate(30_000, 300).key(Key::None), 0, &rows, seed);
        check(
            &cumulate(20_000, 1_000)
                .key(Key::UserAndShop)
                .lateness(3_000),
            500,
            &rows,
            seed,
        );
        check(&cumulate(9_000, 3_000).offset(7_100), 500, &rows, seed);
    }
}

#[test]
fn the_global_window_has_all_rows() {
    let setup = Setup::new(Window::Global).key(Key::UserAndShop);
    for seed in 0..4 {
        let rows = rows(seed, 1_000, 100, 1_000);
        let expected = expect(&setup, 1_000, &[&rows]);
        for batch_rows in BATCH_ROWS {
            let mut bench = setup.bench();
            bench.source(&rows, 1_000, batch_rows);
            assert_eq!(finals(&setup, &bench), expected.lines, "{batch_rows}");
            assert_eq!((bench.counts.late, bench.late.len()), (0, 0));
        }
        let mut bench = setup.bench();
        bench.rows(&rows).watermark(i64::MAX - 1);
        assert_eq!(bench.lines(), "", "the input has not ended");
    }
}

#[test]
fn sessions_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 2_000, 100, 1_000);
        check(&session(400), 1_000, &rows, seed);
        check(&session(60), 3_000, &rows, seed);
        check(&session(150).key(Key::None), 0, &rows, seed);
        check(
            &session(200).key(Key::UserAndShop).lateness(1_000),
            500,
            &rows,
            seed,
        );
    }
}

#[test]
fn count_windows_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 1_000, 100, 1_000);
        for size in [1, 2, 10] {
            check(&Setup::new(Window::Count { size }), 1_000, &rows, seed);
        }
    }
}

#[test]
fn running_results_hold_what_their_definition_says() {
    for seed in 0..4 {
        let rows = rows(seed, 300, 100, 1_000);
        check(&Setup::new(Window::Running), 1_000, &rows, seed);
        check(
            &Setup::new(Window::Running).key(Key::UserAndShop),
            1_000,
            &rows,
            seed,
        );
    }
}

#[test]
fn windows_in_processing_time_hold_the_rows_of_their_time() {
    let time = TimeDomain::Processing;
    for window in [
        Window::Tumbling {
            size_ms: 1_000,
            time,
            alignment: Alignment::default(),
        },
        Window::Sliding {
            size_ms: 1_000,
            slide_ms: 250,
            time,
            alignment: Alignment::default(),
        },
        Window::Sliding {
            size_ms: 1_000,
            slide_ms: 300,
            time,
            alignment: Alignment::default(),
        },
        Window::Cumulate {
            size_ms: 1_000,
            step_ms: 100,
            time,
            alignment: Alignment::default(),
        },
        Window::Session { gap_ms: 40, time },
    ] {
        let rows = rows(7, 500, 100, 1_000);
        let mut bench = Setup::new(window).bench();
        let mut expected = Vec::new();
        let mut now = 1_000_000;
        for (number, rows) in rows.chunks(5).enumerate() {
            now += number as i64 * 7 % 90;
            bench.clock(now).rows(rows);
            expected.extend(rows.iter().map(|row| Row {
                time: now,
                ..row.clone()
            }));
        }
        bench.end();
        let in_event_time = Setup::new(match window {
            Window::Tumbling { size_ms, .. } => tumbling(size_ms).window,
            Window::Sliding {
                size_ms, slide_ms, ..
            } => sliding(size_ms, slide_ms).window,
            Window::Cumulate {
                size_ms, step_ms, ..
            } => cumulate(size_ms, step_ms).window,
            _ => session(40).window,
        });
        assert_eq!(
            finals(&in_event_time, &bench),
            expect(&in_event_time, 0, &[&expected]).lines
        );
        assert_eq!(bench.counts.late, 0);
    }
}

/// Corrections come row by row: what is emitted, and in which order, does not depend
/// on where a batch is cut.
#[test]
fn corrections_do_not_depend_on_batches() {
    for setup in [
        tumbling(10_000),
        sliding(20_000, 10_000),
        sliding(20_000, 12_000),
        cumulate(20_000, 5_000),
        session(5_000),
    ] {
        let setup = setup.lateness(10_000_000);
        for seed in 0..20 {
            let (on_time, late) = (rows(seed, 200, 500, 0), rows(seed + 100, 60, 500, 30_000));
            let emitted = |batch_rows: usize| {
                let mut bench = setup.bench();
                let newest = on_time.iter().map(|row| row.time).max();
                bench.rows(&on_time).watermark(newest.unwrap_or(0));
                bench.lines.clear();
                for batch in late.chunks(batch_rows) {
                    bench.rows(batch);
                }
                bench.lines
            };
            let each = emitted(1);
            assert!(each.len() > 20, "{} corrections", each.len());
            for batch_rows in [2, 7, 60] {
                assert_eq!(
                    emitted(batch_rows),
                    each,
                    "{setup:?}, batches of {batch_rows}"
                );
            }
        }
    }
}

/// With final results only, each window has one result: the last of those that come
/// otherwise.
#[test]
fn final_results_are_the_last_ones() {
    for setup in [
        tumbling(5_000),
        sliding(6_000, 500),
        sliding(6_000, 800),
        cumulate(6_000, 500),
        session(200),
    ] {
        let setup = setup.lateness(2_000);
        for seed in 0..4 {
            let rows = rows(seed, 2_000, 100, 1_000);
            let run = |setup: &Setup, batch_rows: usize| {
                let mut bench = setup.bench();
                bench.source(&rows, 300, batch_rows);
                bench
            };
            let finals = run(&setup.clone().final_only(), 64);
            let lines: BTreeSet<String> = finals.lines.iter().cloned().collect();
            assert_eq!(lines.len(), finals.lines.len(), "one result a window");
            let changing = run(&setup.clone().timing(), 7);
            assert_eq!(lines, standing(&changing.lines), "{setup:?}, seed {seed}");
            assert_eq!(finals.counts.late, changing.counts.late);
        }
    }
}

/// What is left of results that tell their timing: each replaces the one of its key
/// and bounds, and some are withdrawn.
fn standing(lines: &[String]) -> BTreeSet<String> {
    let mut table: BTreeMap<&str, String> = BTreeMap::new();
    for line in lines {
        let (window, rest) = line.split_once(") ").expect("it has bounds");
        let (timing, values) = rest.split_once(' ').expect("it has a timing");
        let known = table.remove(window);
        match timing {
            "gone" => assert!(known.is_some(), "{line} was never there"),
            "on_time" => {
                assert_eq!(known, None, "{line} is not the first");
                table.insert(window, format!("{window}) {values}"));
            }
            _ => {
                table.insert(window, format!("{window}) {values}"));
            }
        }
    }
    table.into_values().collect()
}

/// A row that the plugin fails on leaves everything as if it had not come: which rows
/// these are, and what the others come to, does not depend on where a batch is cut.
#[test]
fn lost_rows_of_sessions_do_not_depend_on_batches() {
    let amounts = [1, -5, i64::MAX, i64::MAX - 1, i64::MAX / 2, -i64::MAX];
    for setup in [
        session(200),
        session(200).lateness(500),
        session(200).lateness(500).final_only(),
    ] {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rows = rows(seed, 300, 60, 1_000);
            for row in &mut rows {
                row.amount = random.choice(amounts).unwrap_or_default();
                if random.u32(0..10) == 0 {
                    let word = random.choice(["no", "boom"]).unwrap_or_default();
                    row.word = word.to_owned();
                }
            }
            let outcome = |batch_rows: usize| {
                let mut bench = setup.bench();
                let mut newest = i64::MIN;
                for between_watermarks in rows.chunks(60) {
                    for rows in between_watermarks.chunks(batch_rows) {
                        bench.rows(rows);
                    }
                    let times = between_watermarks.iter().map(|row| row.time);
                    newest = times.fold(newest, i64::max);
                    bench.watermark(newest - 300);
                }
                bench.end();
                let letters = bench.dead_letters.iter();
                let mut letters: Vec<_> = letters
                    .map(|letter| (&letter.kind, &letter.payload, &letter.row))
                    .map(|letter| format!("{letter:?}"))
                    .collect();
                letters.sort_unstable();
                (finals(&setup, &bench), letters, bench.late.len())
            };
            let each = outcome(1);
            assert!(each.0.len() > 20 && each.1.len() > 20);
            for batch_rows in [3, 7, 60] {
                let when = format!("{setup:?}, seed {seed}, batches of {batch_rows}");
                assert_eq!(outcome(batch_rows), each, "{when}");
            }
        }
    }
}

/// No two sessions of a key overlap, whatever comes late.
#[test]
fn sessions_never_overlap() {
    for lateness_ms in [0, 150, 1_000] {
        let setup = session(200).lateness(lateness_ms).timing();
        for seed in 0..8 {
            let rows = rows(seed, 1_000, 100, 1_000);
            let mut bench = setup.bench();
            bench.source(&rows, 300, 64);
            let mut spans: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
            for line in standing(&bench.lines) {
                let (key, rest) = line.split_once(" [").expect("a key");
                let (span, _) = rest.split_once(')').expect("a span");
                let (start, end) = span.split_once(", ").expect("bounds");
                let span = (start.parse().unwrap(), end.parse().unwrap());
                spans.entry(key.to_owned()).or_default().push(span);
            }
            assert!(spans.len() > 3);
            for (key, mut spans) in spans {
                spans.sort_unstable();
                let apart = spans.windows(2).all(|pair| pair[0].1 < pair[1].0);
                assert!(apart, "{lateness_ms} {seed} {key}: {spans:?}");
            }
        }
    }
}
