//! Compares every rule, at several batch sizes, with much disorder, little memory and
//! restarts, with a simple model that follows the definitions row by row.

use std::collections::BTreeMap;

use super::{Bench, JoinKind, JoinRule, Matching, Row, rule};
use crate::plan::{Alignment, LEFT, RIGHT, TimeDomain, Version, Window};
use crate::state::stored::Restored;

const KINDS: [JoinKind; 4] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
];

const BATCH_ROWS: [usize; 4] = [1, 7, 64, 4096];

/// What must come of rows.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    lines: Vec<String>,
    late: [Vec<i64>; 2],
    late_for_some: u64,
}

/// Rows of both sides, with disorder: each side's times run ahead and each row is set
/// back at random, now and then by very much. Times are coarse, so that many are the
/// same, and begin before 1970.
fn rows(random: &mut fastrand::Rng, count: usize, step_ms: i64) -> Vec<Row> {
    let mut now = [-40 * step_ms, -40 * step_ms];
    // One side may be ahead of the other.
    now[random.usize(0..2)] += random.i64(0..20) * step_ms;
    let keys = random.u32(2..12);
    (0..count as i64)
        .map(|id| {
            let side = random.usize(0..2);
            now[side] += random.i64(0..=step_ms * 2);
            let far = random.u32(0..30) == 0;
            let back = random.i64(0..=step_ms * if far { 60 } else { 6 });
            let coarse = (step_ms / 4).max(1);
            let key = random.u32(0..keys);
            Row {
                side,
                key: (key != 0).then(|| format!("k{key}")),
                time: (now[side] - back).div_euclid(coarse) * coarse,
                id,
                deletes: side == RIGHT && random.u32(0..5) == 0,
            }
        })
        .collect()
}

/// Each row with the watermark that it meets: the least of both sides'.
fn with_watermarks(rows: &[Row], bounds_ms: [i64; 2]) -> Vec<(i64, Row)> {
    let mut newest = [None; 2];
    let mut watermark = i64::MIN;
    rows.iter()
        .map(|row| {
            let met = watermark;
            let newest_of = &mut newest[row.side];
            *newest_of = Some(newest_of.unwrap_or(i64::MIN).max(row.time));
            if let [Some(left), Some(right)] = newest {
                watermark = watermark.max((left - bounds_ms[LEFT]).min(right - bounds_ms[RIGHT]));
            }
            (met, row.clone())
        })
        .collect()
}

fn expect(rule: JoinRule, rows: &[(i64, Row)]) -> Expected {
    let mut expected = Expected::default();
    match rule.matching {
        Matching::Interval {
            before_ms,
            after_ms,
        } => {
            let rows = in_time(rows, &mut expected);
            let matches = |left: &Row, right: &Row| {
                before_ms.is_none_or(|before_ms| left.time - before_ms <= right.time)
                    && after_ms.is_none_or(|after_ms| right.time <= left.time + after_ms)
            };
            expect_pairs(rule, &rows, |row| row.time, matches, &mut expected);
        }
        Matching::Window(window) => expect_windows(rule, window, rows, &mut expected),
        Matching::AsOf(Version::EventTime) => {
            let rows = in_time(rows, &mut expected);
            for left in rows.iter().filter(|row| row.side == LEFT) {
                let versions = rows.iter().filter(|row| row.side == RIGHT);
                let versions = versions.filter(|row| row.key == left.key && row.key.is_some());
                // The last of those with the greatest time.
                let version = versions
                    .filter(|row| row.time <= left.time)
                    .max_by_key(|row| row.time);
                expect_version(rule, left, version, &mut expected);
            }
        }
        Matching::AsOf(Version::Latest) => {
            let mut latest: BTreeMap<String, Row> = BTreeMap::new();
            for (watermark, row) in rows {
                let Some(key) = &row.key else {
                    if row.side == LEFT {
                        expect_version(rule, row, None, &mut expected);
                    }
                    continue;
                };
                if row.side == LEFT {
                    expect_version(rule, row, latest.get(key), &mut expected);
                    continue;
                }
                let known = latest.get(key);
                // That a key was deleted is forgotten once the watermark has passed it.
                let known = known.filter(|known| !known.deletes || known.time > *watermark);
                if known.is_none_or(|known| known.time <= row.time) {
                    latest.insert(key.clone(), row.clone());
                }
            }
        }
    }
    expected.lines.sort();
    expected
}

/// The rows that are not behind the watermark.
fn in_time(rows: &[(i64, Row)], expected: &mut Expected) -> Vec<Row> {
    let mut taken = Vec::new();
    for (watermark, row) in rows {
        if row.time < *watermark {
            expected.late[row.side].push(row.id);
            expected.late_for_some += 1;
        } else {
            taken.push(row.clone());
        }
    }
    taken
}

fn expect_version(rule: JoinRule, left: &Row, version: Option<&Row>, expected: &mut Expected) {
    let version = version.filter(|version| !version.deletes);
    if version.is_some() || rule.kind.keeps(LEFT) {
        let line = line(Some(left), version, left.time);
        expected.lines.push(line);
    }
}

fn expect_pairs(
    rule: JoinRule,
    rows: &[Row],
    time_of: impl Fn(&Row) -> i64,
    matches: impl Fn(&Row, &Row) -> bool,
    expected: &mut Expected,
) {
    let (left, right): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.side == LEFT);
    let mut matched = vec![false; right.len()];
    for left in left {
        let mut is_matched = false;
        for (right, matched) in right.iter().zip(&mut matched) {
            if left.key.is_some() && left.key == right.key && matches(left, right) {
                is_matched = true;
                *matched = true;
                let time = time_of(left).max(time_of(right));
                expected.lines.push(line(Some(left), Some(right), time));
            }
        }
        if !is_matched && rule.kind.keeps(LEFT) {
            expected.lines.push(line(Some(left), None, time_of(left)));
        }
    }
    for (right, matched) in right.iter().zip(matched) {
        if !matched && rule.kind.keeps(RIGHT) {
            expected.lines.push(line(None, Some(right), time_of(right)));
        }
    }
}

/// The ends of the windows that have a time.
fn sliding_ends(time: i64, size_ms: i64, slide_ms: i64) -> Vec<i64> {
    let last = time.div_euclid(slide_ms) * slide_ms;
    let starts = (0..).map(|nth| last - nth * slide_ms);
    let starts = starts.take_while(|start| time < start + size_ms);
    starts.map(|start| start + size_ms).collect()
}

fn expect_windows(rule: JoinRule, window: Window, rows: &[(i64, Row)], expected: &mut Expected) {
    let mut windows: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for (watermark, row) in rows {
        let ends: Vec<i64> = match window {
            Window::Tumbling { size_ms, .. } => sliding_ends(row.time, size_ms, size_ms),
            Window::Sliding {
                size_ms, slide_ms, ..
            } => sliding_ends(row.time, size_ms, slide_ms),
            Window::Cumulate {
                size_ms, step_ms, ..
            } => {
                let start = row.time.div_euclid(size_ms) * size_ms;
                let ends = (1..=size_ms / step_ms).map(|nth| start + nth * step_ms);
                ends.filter(|&end| row.time < end).collect()
            }
            other => panic!("{other}"),
        };
        let taken: Vec<i64> = ends
            .iter()
            .copied()
            .filter(|end| *watermark < *end)
            .collect();
        expected.late_for_some += u64::from(taken.len() < ends.len());
        if taken.is_empty() {
            expected.late[row.side].push(row.id);
        }
        for end in taken {
            windows.entry(end).or_default().push(row.clone());
        }
    }
    for (end, rows) in windows {
        expect_pairs(rule, &rows, |_| end - 1, |_, _| true, expected);
    }
}

fn line(left: Option<&Row>, right: Option<&Row>, time: i64) -> String {
    let key = left.or(right).and_then(|row| row.key.as_deref());
    let id = |row: Option<&Row>| row.map_or("-".to_owned(), |row| row.id.to_string());
    format!("{} {} {} @{time}", key.unwrap_or("-"), id(left), id(right))
}

/// How a run is disturbed.
struct Trouble {
    batch_rows: usize,
    memory_bytes_max: usize,
    /// Of 100 batches, after how many there is a checkpoint, and a crash.
    checkpoints: u32,
    crashes: u32,
}

/// What a run goes back to.
#[derive(Clone, Default)]
struct Saved {
    at: usize,
    lines: usize,
    late: [usize; 2],
    counted: u64,
    watermark: i64,
    watermark_out: i64,
    time_ms: Option<i64>,
}

fn run(
    rule: JoinRule,
    rows: &[(i64, Row)],
    trouble: &Trouble,
    random: &mut fastrand::Rng,
) -> Bench {
    let mut bench = Bench::with(rule, trouble.batch_rows, trouble.memory_bytes_max);
    let mut at = 0;
    let mut watermark = i64::MIN;
    let mut crashes = 0;
    bench.checkpoint();
    let mut saved = Saved {
        watermark,
        watermark_out: i64::MIN,
        ..Saved::default()
    };
    while at < rows.len() {
        // A source passes the watermark on before a late row, and after a batch.
        if rows[at].1.time < rows[at].0 && rows[at].0 > watermark {
            watermark = rows[at].0;
            bench.watermark(watermark);
        }
        let same = rows[at..].iter().take(trouble.batch_rows);
        let first = &rows[at].1;
        let batch: Vec<Row> = same
            .enumerate()
            .take_while(|(nth, (met, row))| {
                row.side == first.side && (*nth == 0 || row.time >= *met)
            })
            .map(|(_, (_, row))| row.clone())
            .collect();
        bench.rows(&batch);
        at += batch.len();
        if let Some((met, _)) = rows.get(at)
            && *met > watermark
            && random.u32(0..3) > 0
        {
            watermark = *met;
            bench.watermark(watermark);
        }
        if random.u32(0..100) < trouble.checkpoints {
            let time_ms = bench.checkpoint();
            saved = Saved {
                at,
                lines: bench.lines.len(),
                late: bench.late.each_ref().map(Vec::len),
                counted: bench.counts.late,
                watermark,
                watermark_out: bench.watermark_out,
                time_ms,
            };
        }
        if crashes < CRASHES_MAX && random.u32(0..100) < trouble.crashes {
            crashes += 1;
            bench.restore(Restored {
                time_ms: saved.time_ms,
                ..Restored::default()
            });
            at = saved.at;
            watermark = saved.watermark;
            bench.lines.truncate(saved.lines);
            for (late, length) in bench.late.iter_mut().zip(saved.late) {
                late.truncate(length);
            }
            bench.counts.late = saved.counted;
            bench.watermark_out = saved.watermark_out;
        }
    }
    bench.end();
    bench
}

/// Compares many runs with the model, each with other rows and other trouble.
fn check(name: &str, rules: impl Fn(&mut fastrand::Rng, JoinKind) -> Matching, kinds: &[JoinKind]) {
    let only: Option<u64> = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut joined = 0;
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = kinds[random.usize(0..kinds.len())];
        let rule = rule(kind, rules(&mut random, kind));
        let count = random.usize(50..250);
        let bounds = [random.i64(0..8) * STEP_MS, random.i64(0..8) * STEP_MS];
        let rows = with_watermarks(&rows(&mut random, count, STEP_MS), bounds);
        let expected = expect(rule, &rows);
        joined += expected.lines.len();
        let trouble = Trouble {
            batch_rows: BATCH_ROWS[random.usize(0..4)],
            memory_bytes_max: [usize::MAX, 0, 4_000][random.usize(0..3)],
            checkpoints: [0, 10, 50][random.usize(0..3)],
            crashes: [0, 5][random.usize(0..2)],
        };
        let bench = run(rule, &rows, &trouble, &mut random);
        let what = format!("{name}, {rule}, SEED={seed}");
        assert_eq!(bench.late, expected.late, "late rows, {what}");
        assert_eq!(bench.counts.late, expected.late_for_some, "{what}");
        let mut lines = bench.lines;
        lines.sort();
        let missing: Vec<&String> = difference(&expected.lines, &lines);
        let surplus: Vec<&String> = difference(&lines, &expected.lines);
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{what}:\nmissing {missing:#?}\nsurplus {surplus:#?}"
        );
    }
    assert!(
        only.is_some() || joined > 5_000,
        "only {joined} joined rows"
    );
}

/// What is more often in one list than in another; both are sorted.
fn difference<'a>(one: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut other = other.iter().peekable();
    let mut more = Vec::new();
    for line in one {
        while other.next_if(|other| *other < line).is_some() {}
        if other.next_if(|other| *other == line).is_none() {
            more.push(line);
        }
    }
    more
}

const SEEDS: u64 = 1_000;
const STEP_MS: i64 = 1_000;
/// Else a run without checkpoints would not end.
const CRASHES_MAX: usize = 6;

#[test]
fn intervals_hold_what_their_definition_says() {
    let matching = |random: &mut fastrand::Rng, _| {
        let mut bound = || match random.u32(0..8) {
            0 => None,
            1 => Some(0),
            2 => Some(random.i64(0..100_000)),
            _ => Some(random.i64(0..10) * STEP_MS / 2),
        };
        Matching::Interval {
            before_ms: bound(),
            after_ms: bound(),
        }
    };
    check("interval", matching, &KINDS);
}

#[test]
fn windows_hold_what_their_definition_says() {
    let matching = |random: &mut fastrand::Rng, _| {
        let slide_ms = random.i64(1..8) * STEP_MS / 2;
        let (time, alignment) = (TimeDomain::Event, Alignment::default());
        Matching::Window(match random.u32(0..4) {
            0 => Window::Tumbling {
                size_ms: slide_ms,
                time,
                alignment,
            },
            1 => Window::Sliding {
                size_ms: slide_ms * random.i64(1..6),
                slide_ms,
                time,
                alignment,
            },
            2 => Window::Sliding {
                size_ms: slide_ms + random.i64(0..4 * slide_ms),
                slide_ms,
                time,
                alignment,
            },
            _ => Window::Cumulate {
                size_ms: slide_ms * random.i64(1..6),
                step_ms: slide_ms,
                time,
                alignment,
            },
        })
    };
    check("window", matching, &KINDS);
}

#[test]
fn versions_are_those_of_the_left_rows_time() {
    let matching = |_: &mut fastrand::Rng, _| Matching::AsOf(Version::EventTime);
    check("as of", matching, &KINDS[..2]);
}

#[test]
fn latest_versions_are_those_that_have_come() {
    let matching = |_: &mut fastrand::Rng, _| Matching::AsOf(Version::Latest);
    check("latest", matching, &KINDS[..2]);
}
