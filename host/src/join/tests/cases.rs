//! Single behaviours of joins.

use expect_test::{Expect, expect};

use super::{Bench, Row, deletes, left, right, rule};
use crate::element::END_OF_TIME;
use crate::operator::Operator;
use crate::plan::{Alignment, JoinKind, JoinRule, Matching, TimeDomain, Version, Window};
use crate::state::stored::Restored;

fn interval(kind: JoinKind, before_ms: i64, after_ms: i64) -> JoinRule {
    let (before_ms, after_ms) = (Some(before_ms), Some(after_ms));
    let matching = Matching::Interval {
        before_ms,
        after_ms,
    };
    rule(kind, matching)
}

fn tumbling(kind: JoinKind, size_ms: i64, time: TimeDomain) -> JoinRule {
    let alignment = Alignment::default();
    let window = Window::Tumbling {
        size_ms,
        time,
        alignment,
    };
    rule(kind, Matching::Window(window))
}

fn as_of(kind: JoinKind, version: Version) -> JoinRule {
    rule(kind, Matching::AsOf(version))
}

/// What comes of rows, one by one, and what more at the end.
#[track_caller]
fn check(rule: JoinRule, rows: &[Row], expected: &Expect) {
    for restarts in [false, true] {
        let mut bench = Bench::new(rule);
        for row in rows {
            bench.rows(std::slice::from_ref(row));
            if restarts {
                bench.restart();
            }
        }
        let before = bench.lines();
        let after = bench.end().lines();
        expected.assert_eq(&format!("{before}end\n{after}"));
    }
}

#[test]
fn both_bounds_of_an_interval_are_in_it() {
    let rows = [
        left("a", 1_000, 1),
        right("a", 899, 2),
        right("a", 900, 3),
        right("a", 1_010, 4),
        right("a", 1_011, 5),
        right("b", 1_000, 6),
    ];
    let expected = expect![[r#"
        a 1 3 @1000
        a 1 4 @1010
        end
    "#]];
    check(interval(JoinKind::Inner, 100, 10), &rows, &expected);
    let expected = expect![[r#"
        a 1 3 @1000
        a 1 4 @1010
        end
        a - 2 @899
        a - 5 @1011
        b - 6 @1000
    "#]];
    check(interval(JoinKind::Full, 100, 10), &rows, &expected);
}

#[test]
fn rows_of_one_time_all_match() {
    let rows = [
        left("a", 5, 1),
        left("a", 5, 2),
        right("a", 5, 3),
        right("a", 5, 4),
    ];
    let expected = expect![[r#"
        a 1 3 @5
        a 1 4 @5
        a 2 3 @5
        a 2 4 @5
        end
    "#]];
    check(interval(JoinKind::Full, 0, 0), &rows, &expected);
}

/// Times at and before 1970, and as far from it as there are.
#[test]
fn every_time_is_one() {
    let (first, last) = (i64::MIN + 1, i64::MAX);
    let rows = [
        left("a", first, 1),
        left("a", -1, 2),
        left("a", 0, 3),
        left("a", last, 4),
        right("a", first, 5),
        right("a", 0, 6),
        right("a", last, 7),
        right("b", last, 8),
        left("c", first, 9),
    ];
    let expected = expect![[r#"
        a 1 5 @-9223372036854775807
        a 2 6 @0
        a 3 6 @0
        a 4 7 @9223372036854775807
        end
        b - 8 @9223372036854775807
        c 9 - @-9223372036854775807
    "#]];
    check(interval(JoinKind::Full, 10, 10), &rows, &expected);
    let all = rule(
        JoinKind::Left,
        Matching::Interval {
            before_ms: None,
            after_ms: Some(i64::MAX),
        },
    );
    let mut bench = Bench::new(all);
    bench.rows(&rows[..4]).rows(&rows[4..8]).rows(&rows[8..]);
    // The greatest time is further than that from the first two.
    assert_eq!(bench.end().lines().lines().count(), 11);
    let expected = expect![[r#"
        a 1 5 @-9223372036854775807
        a 2 5 @-1
        a 3 6 @0
        a 4 7 @9223372036854775807
        c 9 - @-9223372036854775807
    "#]];
    let mut bench = Bench::new(as_of(JoinKind::Left, Version::EventTime));
    for row in &rows {
        bench.rows(std::slice::from_ref(row)).restart();
    }
    expected.assert_eq(&bench.end().lines());
}

#[test]
fn a_missing_key_matches_nothing() {
    let rows = [left("-", 5, 1), right("-", 5, 2), right("a", 5, 3)];
    let expected = expect!["end\n"];
    check(interval(JoinKind::Inner, 9, 9), &rows, &expected);
    let expected = expect![[r#"
        - - 2 @5
        - 1 - @5
        end
        a - 3 @5
    "#]];
    check(interval(JoinKind::Full, 9, 9), &rows, &expected);
    let expected = expect![[r#"
        - - 2 @9
        - 1 - @9
        end
        a - 3 @9
    "#]];
    let window = tumbling(JoinKind::Full, 10, TimeDomain::Event);
    check(window, &rows, &expected);
    let expected = expect![[r#"
        - 1 - @5
        end
    "#]];
    for version in [Version::EventTime, Version::Latest] {
        check(as_of(JoinKind::Left, version), &rows, &expected);
    }
}

/// Kafka Streams has emitted such rows too early, twice, and beside their match
/// (KAFKA-10847, KAFKA-13721, KAFKA-15417, KAFKA-19536).
#[test]
fn a_row_without_a_match_comes_out_once_when_none_can_come() {
    for (waits, after) in [(1_000, 0), (5_000, 5_000), (0, 0)] {
        let mut bench = Bench::new(interval(JoinKind::Left, after, waits));
        bench.rows(&[left("a", 10_000, 1), left("b", 10_000, 2)]);
        bench.watermark(10_000 + waits);
        assert_eq!(bench.lines(), "", "a match may still come");
        assert_eq!(bench.operator.watermark_out(10_000 + waits), 10_000);
        bench.rows(&[right("b", 10_000 + waits, 3)]);
        let time = 10_000 + waits;
        assert_eq!(bench.lines(), format!("b 2 3 @{time}\n"));
        bench.restart();
        bench.watermark(10_000 + waits + 1);
        assert_eq!(bench.lines(), "a 1 - @10000\n");
        bench.restart().watermark(100_000).restart().end();
        assert_eq!(bench.lines(), "");
    }
}

#[test]
fn late_rows_leave_by_the_output_of_their_side() {
    let mut bench = Bench::new(interval(JoinKind::Full, 5_000, 5_000));
    bench.rows(&[left("a", 10_000, 1)]).watermark(9_000);
    bench.rows(&[right("a", 8_999, 2), right("a", 9_000, 3)]);
    bench.rows(&[left("a", 0, 4)]);
    assert_eq!(bench.lines(), "a 1 3 @10000\n");
    assert_eq!(bench.late, [vec![4], vec![2]]);
    assert_eq!(bench.counts.late, 2);
    assert_eq!(bench.end().lines(), "");
}

#[test]
fn an_unbounded_side_is_kept_for_ever() {
    let matching = Matching::Interval {
        before_ms: None,
        after_ms: Some(0),
    };
    let mut bench = Bench::new(rule(JoinKind::Full, matching));
    bench.rows(&[right("a", 0, 1), right("b", 0, 2)]).restart();
    bench.watermark(1_000_000_000_000);
    bench.rows(&[left("a", 1_000_000_000_000, 3)]);
    assert_eq!(bench.lines(), "a 3 1 @1000000000000\n");
    assert_eq!(bench.operator.watermark_out(1_000_000_000_000), i64::MIN);
    assert_eq!(bench.restart().end().lines(), "b - 2 @0\n");
}

#[test]
fn state_goes_as_time_passes() {
    let rules = [
        interval(JoinKind::Full, 1_000, 1_000),
        interval(JoinKind::Inner, 1_000, 1_000),
        tumbling(JoinKind::Full, 1_000, TimeDomain::Event),
        tumbling(JoinKind::Inner, 1_000, TimeDomain::Event),
    ];
    for rule in rules {
        let mut bench = Bench::new(rule);
        bench.rows(&[left("a", 0, 1), left("b", 100, 2), left("c", 5_000, 3)]);
        bench.rows(&[right("a", 0, 4), right("d", 100, 5)]);
        bench.checkpoint();
        assert_eq!(bench.stored_rows(), 5);
        bench.watermark(5_000).checkpoint();
        assert_eq!(bench.stored_rows(), 1, "{rule}");
    }
}

#[test]
fn only_versions_are_kept_that_a_row_may_need() {
    for version in [Version::EventTime, Version::Latest] {
        let mut bench = Bench::new(as_of(JoinKind::Left, version));
        bench.rows(&[
            right("a", 10, 1),
            right("a", 30, 2),
            right("a", 20, 3),
            right("b", 10, 4),
            deletes("b", 40),
        ]);
        bench.watermark(25).restart();
        bench.rows(&[left("a", 25, 5), left("b", 25, 6)]);
        bench.watermark(50).checkpoint();
        assert_eq!(bench.stored_rows(), 1, "b was deleted");
        bench.rows(&[left("a", 50, 7), left("b", 50, 8)]);
        bench.end();
        let expected = match version {
            Version::EventTime => "a 5 3 @25\na 7 2 @50\nb 6 4 @25\nb 8 - @50\n",
            Version::Latest => "a 5 2 @25\na 7 2 @50\nb 6 - @25\nb 8 - @50\n",
        };
        assert_eq!(bench.lines(), expected);
    }
}

#[test]
fn the_last_of_the_versions_of_one_time_counts() {
    let rows = [
        right("a", 10, 1),
        right("a", 10, 2),
        left("a", 10, 3),
        left("a", 9, 4),
        right("a", 11, 5),
    ];
    let expected = expect![[r#"
        end
        a 3 2 @10
    "#]];
    check(as_of(JoinKind::Inner, Version::EventTime), &rows, &expected);
    let expected = expect![[r#"
        a 3 2 @10
        a 4 2 @9
        end
    "#]];
    check(as_of(JoinKind::Inner, Version::Latest), &rows, &expected);
}

#[test]
fn windows_in_processing_time_end_by_the_clock() {
    let window = tumbling(JoinKind::Full, 1_000, TimeDomain::Processing);
    let mut bench = Bench::new(window);
    bench.clock(500);
    bench.rows(&[left("a", 77, 1), left("b", 77, 2)]);
    bench.clock(900);
    bench.rows(&[right("a", 9_999_999, 3)]);
    assert_eq!(bench.lines(), "a 1 3 @999\n");
    bench.watermark(5_000).clock(999);
    assert_eq!(bench.lines(), "");
    bench.restart().clock(1_000);
    assert_eq!(bench.lines(), "b 2 - @999\n");
    bench.rows(&[right("b", 77, 4)]).end();
    assert_eq!(bench.lines(), "b - 4 @1999\n");
    assert_eq!(bench.counts.late, 0);
}

/// After the end, a run may go on with more rows: what has come out stays out, and what
/// has nothing to wait for is still there.
#[test]
fn a_run_goes_on_after_the_end() {
    let again = |kind| {
        let mut bench = Bench::new(interval(kind, 1_000, 1_000));
        bench.rows(&[left("a", 10_000, 1)]);
        let said = bench.end().lines();
        let time_ms = bench.checkpoint();
        assert_eq!(time_ms, Some(END_OF_TIME));
        bench.restore(Restored {
            time_ms,
            read_ms: Some(10_000),
            newest_ms: Some(10_000),
            ended_ms: None,
        });
        bench.rows(&[right("a", 10_500, 2), right("a", 11_001, 3)]);
        (said, bench.lines(), bench.end().lines(), bench.late)
    };
    let (said, then, after, late) = again(JoinKind::Left);
    assert_eq!([said.as_str(), &then, &after], ["a 1 - @10000\n", "", ""]);
    assert_eq!(late, [Vec::new(), vec![2]]);
    let (said, then, after, late) = again(JoinKind::Inner);
    assert_eq!([said.as_str(), &then, &after], ["", "a 1 2 @10500\n", ""]);
    assert_eq!(late, [Vec::<i64>::new(), Vec::new()]);
}

/// A side that never speaks holds the watermark back: rows of the other side wait, and
/// memory does not grow with them.
#[test]
fn rows_that_wait_for_a_silent_side_leave_memory() {
    let rule = interval(JoinKind::Left, 1_000, 1_000);
    let mut bench = Bench::with(rule, 4096, 100_000);
    for number in 0..200 {
        let rows: Vec<Row> = (0..50)
            .map(|n| left(&format!("k{}", n * 7 % 50), number * 100 + n, n))
            .collect();
        bench.rows(&rows);
        bench.checkpoint();
    }
    let bytes = bench.budget.bytes();
    assert!(bytes < 100_000, "{bytes} bytes");
    bench.rows(&[right("k0", 500, 1)]);
    assert_eq!(bench.lines().lines().count(), 16);
    bench.end();
    assert_eq!(bench.lines().lines().count(), 200 * 50 - 16);
}

/// However many rows match one another, they come out in batches.
#[test]
fn many_matches_come_out_in_batches() {
    let mut bench = Bench::with(interval(JoinKind::Inner, 0, 0), 64, usize::MAX);
    let rows: Vec<Row> = (0..1_000).map(|id| left("a", 0, id)).collect();
    bench.rows(&rows);
    let rows: Vec<Row> = (0..100).map(|id| right("a", 0, id)).collect();
    bench.rows(&rows);
    assert_eq!(bench.counts.out, 100_000);
}
