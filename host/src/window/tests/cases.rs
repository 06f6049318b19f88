//! Tests of single behaviours.

use std::collections::BTreeMap;

use expect_test::expect;

use super::{Key, Row, Setup, cumulate, row, session, sliding, tumbling};
use crate::dead_letter::OnError;
use crate::element::END_OF_TIME;
use crate::operator::{Counts, Operator, Outbox};
use crate::plan::{Alignment, TimeDomain, Window};
use crate::timestamp::zone::Zone;

#[test]
fn a_row_may_be_late_for_one_window_and_in_time_for_another() {
    let before = [
        row("a", 1_000, "a"),
        row("a", 4_000, "b"),
        row("a", 6_000, "c"),
    ];
    let late = [row("a", 3_000, "L")];

    let mut bench = tumbling(5_000).bench();
    bench.rows(&before).watermark(6_000).rows(&late).end();
    expect![[r#"
        a [0, 5000) 2 0 0 0 ab
        a [5000, 10000) 1 0 0 0 c
    "#]]
    .assert_eq(&bench.lines());
    assert_eq!(
        (bench.counts.late, bench.late.join(",")),
        (1, "3000:L".to_owned())
    );

    let mut bench = sliding(10_000, 5_000).bench();
    bench.rows(&before).watermark(6_000).rows(&late).end();
    expect![[r#"
        a [-5000, 5000) 2 0 0 0 ab
        a [0, 10000) 4 0 0 0 abLc
        a [5000, 15000) 1 0 0 0 c
    "#]]
    .assert_eq(&bench.lines());
    assert_eq!(
        (bench.counts.late, bench.late.join(",")),
        (1, String::new())
    );
}

/// Those of Flink's CUMULATE.
#[test]
fn cumulating_windows_grow_step_by_step_and_start_anew() {
    let mut bench = cumulate(60, 20).bench();
    bench.rows(&[row("a", 0, "a"), row("b", 30, "b")]);
    assert_eq!(bench.watermark(19).lines(), "");
    assert_eq!(bench.watermark(20).lines(), "a [0, 20) 1 0 0 0 a\n");
    // Late for the first window, and in time for the two others.
    bench.rows(&[row("a", 10, "A")]);
    assert_eq!((bench.counts.late, bench.late.len()), (1, 0));
    expect![[r#"
        a [0, 40) 2 0 0 0 aA
        a [0, 60) 2 0 0 0 aA
        b [0, 40) 1 0 0 0 b
        b [0, 60) 1 0 0 0 b
    "#]]
    .assert_eq(&bench.watermark(79).lines());
    bench.rows(&[row("a", 61, "c"), row("a", 59, "L")]);
    assert_eq!(bench.late, ["59:L"]);
    assert_eq!(bench.watermark(80).lines(), "a [60, 80) 1 1 1 1 c\n");
    expect![[r#"
        a [60, 100) 1 1 1 1 c
        a [60, 120) 1 1 1 1 c
    "#]]
    .assert_eq(&bench.end().lines());
}

#[test]
fn a_slide_need_not_divide_the_size() {
    let mut bench = sliding(10, 4).bench();
    bench.rows(&[row("a", 1, "a"), row("a", 3, "b"), row("a", 9, "c")]);
    assert_eq!(bench.watermark(1).lines(), "");
    // 1 is in one window more than 3.
    expect![[r#"
        a [-4, 6) 2 4 1 3 ab
        a [-8, 2) 1 1 1 1 a
    "#]]
    .assert_eq(&bench.watermark(9).lines());
    expect![[r#"
        a [0, 10) 3 13 1 9 abc
        a [4, 14) 1 9 9 9 c
        a [8, 18) 1 9 9 9 c
    "#]]
    .assert_eq(&bench.end().lines());
}

#[test]
fn the_global_window_shows_early_results() {
    let mut bench = Setup::new(Window::Global).early(50).timing().bench();
    bench.rows(&[row("a", 7, "a"), row("b", 5, "b")]).clock(50);
    expect![[r#"
        a [7, 8) early 1 7 7 7 a
        b [5, 6) early 1 5 5 5 b
    "#]]
    .assert_eq(&bench.lines());
    bench.rows(&[row("a", 1, "A")]).watermark(1_000).clock(100);
    assert_eq!(bench.lines(), "a [1, 8) early 2 8 1 7 aA\n");
    expect![[r#"
        a [1, 8) on_time 2 8 1 7 aA
        b [5, 6) on_time 1 5 5 5 b
    "#]]
    .assert_eq(&bench.end().lines());
}

/// What comes after the end of an input is of a later run.
#[test]
fn rows_after_the_end_are_late_for_the_global_window() {
    let mut bench = Setup::new(Window::Global).bench();
    bench.rows(&[row("a", 7, "a")]).end();
    assert_eq!(bench.lines(), "a [7, 8) 1 7 7 7 a\n");
    bench.rows(&[row("a", 9, "L")]).end();
    assert_eq!((bench.lines(), bench.counts.late), (String::new(), 1));
    assert_eq!(bench.late, ["9:L"]);
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end() {
    let mut bench = tumbling(1_000).bench();
    bench.rows(&[row("a", 0, "a"), row("a", 999, "b")]);
    assert_eq!(bench.watermark(999).lines(), "");
    bench.rows(&[row("a", 500, "c")]);
    assert_eq!(bench.watermark(1_000).lines(), "a [0, 1000) 3 9 0 9 abc\n");
    bench
        .rows(&[row("a", 999, "d"), row("a", 1_000, "e")])
        .end();
    assert_eq!(bench.lines(), "a [1000, 2000) 1 0 0 0 e\n");
    assert_eq!(bench.late, ["999:d"]);
}

#[test]
fn a_strict_watermark_takes_what_its_window_is_still_open_for() {
    let times = [0, 700, 700, 650, 1_000, 999, 1_500, 1_200, 3_000, 2_999];
    let rows: Vec<Row> = times.iter().map(|&time| row("a", time, "x")).collect();
    for batch_rows in [1, 3, 100] {
        let mut bench = tumbling(1_000).bench();
        bench.source(&rows, 0, batch_rows);
        assert_eq!(
            bench.lines(),
            "a [0, 1000) 4 0 0 0 xxxx\na [1000, 2000) 3 0 0 0 xxx\na [3000, 4000) 1 0 0 0 x\n"
        );
        assert_eq!(bench.late, ["999:x", "2999:x"]);
    }
}

#[test]
fn windows_begin_at_multiples_of_the_slide_before_1970_too() {
    let mut bench = sliding(4_000, 2_000).bench();
    bench
        .rows(&[
            row("a", -1, "a"),
            row("a", -2_000, "b"),
            row("a", -2_001, "c"),
        ])
        .end();
    expect![[r#"
        a [-2000, 2000) 2 -1 -1 0 ab
        a [-4000, 0) 3 -2 -1 0 cab
        a [-6000, -2000) 1 -1 -1 -1 c
    "#]]
    .assert_eq(&bench.lines());
}

#[test]
fn absurd_times_end_nothing() {
    let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    let windows = [
        tumbling(1),
        tumbling(1 << 60),
        sliding(60_000, 1),
        sliding(1 << 60, 1 << 59),
        sliding(1 << 60, (1 << 59) + 1),
        sliding(3, 2),
        cumulate(2, 1),
        cumulate(1 << 60, 1 << 58),
        session(1),
        session(1 << 60),
        Setup::new(Window::Count { size: 4 }),
        Setup::new(Window::Running),
        Setup::new(Window::Global),
    ];
    for setup in windows {
        for lateness in [0, i64::MAX] {
            let setup = setup.clone().lateness(lateness).early(1).key(Key::None);
            // The 60,000 results of each row would take long.
            let times = if setup.window == sliding(60_000, 1).window {
                &times[..2]
            } else {
                &times
            };
            let mut bench = setup.bench();
            for &time in times {
                bench.rows(&[Row {
                    amount: 0,
                    ..row("a", time, "x")
                }]);
            }
            bench.watermark(i64::MIN).watermark(i64::MAX - 1).end();
            assert!(!bench.lines().is_empty(), "{setup:?}");
            assert_eq!(bench.counts.late, 0, "{setup:?}");
        }
    }
}

#[test]
fn rows_a_gap_apart_are_one_session_and_a_moment_more_makes_two() {
    let mut bench = session(30).bench();
    bench.rows(&[row("a", 0, "a"), row("a", 30, "b"), row("a", 61, "c")]);
    assert_eq!(bench.watermark(60).lines(), "");
    assert_eq!(bench.watermark(61).lines(), "a [0, 60) 2 0 0 0 ab\n");
    assert_eq!(bench.end().lines(), "a [61, 91) 1 1 1 1 c\n");
}

#[test]
fn a_row_that_fills_the_gap_joins_sessions() {
    let mut bench = session(30).bench();
    bench.rows(&[
        row("a", 0, "a"),
        row("a", 100, "d"),
        row("a", 50, "c"),
        row("a", 160, "f"),
    ]);
    // Folded into the later of the sessions that they join.
    bench.rows(&[
        row("a", 25, "b"),
        row("a", 75, "C"),
        row("a", 130, "e"),
        row("a", 10, "A"),
    ]);
    assert_eq!(bench.watermark(190).lines(), "");
    assert_eq!(bench.end().lines(), "a [0, 190) 8 10 0 5 acbdCfeA\n");
}

#[test]
fn a_row_behind_the_watermark_is_in_time_near_one_that_was_in_time_itself() {
    let mut bench = session(30).bench();
    bench.rows(&[row("a", 100, "a")]).watermark(120);
    bench.rows(&[
        row("a", 75, "b"),
        row("b", 75, "L"),
        row("a", 45, "c"),
        row("a", 14, "L"),
    ]);
    assert_eq!(bench.end().lines(), "a [75, 130) 2 5 0 5 ab\n");
    // The session reaches down to 45, but no row that was in time by itself does.
    assert_eq!((bench.counts.late, bench.late.len()), (3, 3));
    assert_eq!(bench.late.concat(), "75:L45:c14:L");
}

#[test]
fn a_session_of_very_many_parts_keeps_them_in_order() {
    let mut bench = session(10).bench();
    let parts: Vec<Row> = (0..100).map(|i| row("a", i * 20, "p")).collect();
    let joints: Vec<Row> = (0..99).map(|i| row("a", i * 20 + 10, "j")).collect();
    bench
        .rows(&parts)
        .rows(&joints[40..])
        .rows(&joints[..40])
        .end();
    let lines = bench.lines();
    assert!(lines.starts_with("a [0, 1990) 199 0 0 0 pp"), "{lines}");
}

#[test]
fn rows_within_the_allowed_lateness_correct_results() {
    let mut bench = tumbling(1_000).lateness(500).bench();
    bench.rows(&[row("a", 100, "a"), row("b", 100, "b")]);
    assert_eq!(
        bench.watermark(1_000).lines(),
        "a [0, 1000) 1 0 0 0 a\nb [0, 1000) 1 0 0 0 b\n"
    );
    bench.rows(&[row("a", 200, "A"), row("c", 200, "c"), row("a", 1_200, "n")]);
    assert_eq!(
        bench.lines(),
        "a [0, 1000) 2 0 0 0 aA\nc [0, 1000) 1 0 0 0 c\n"
    );
    bench.watermark(1_499).rows(&[row("a", 300, "B")]);
    assert_eq!(bench.lines(), "a [0, 1000) 3 0 0 0 aAB\n");
    bench.watermark(1_500).rows(&[row("a", 400, "C")]);
    assert_eq!(bench.end().lines(), "a [1000, 2000) 1 0 0 0 n\n");
    assert_eq!(
        (bench.counts.late, bench.late),
        (1, vec!["400:C".to_owned()])
    );
}

#[test]
fn a_late_row_corrects_each_sliding_window_that_it_may() {
    let mut bench = sliding(3_000, 1_000).lateness(1_000).bench();
    bench.rows(&[
        row("a", 100, "a"),
        row("a", 1_100, "b"),
        row("a", 2_100, "c"),
    ]);
    bench.watermark(2_500).lines();
    // Too late for the window that ends at 1000, late for 2000, in time for 3000.
    bench.rows(&[row("a", 200, "L")]);
    assert_eq!(bench.lines(), "a [-1000, 2000) 3 0 0 0 aLb\n");
    assert_eq!((bench.counts.late, bench.late.len()), (1, 0));
    expect![[r#"
        a [0, 3000) 4 0 0 0 aLbc
        a [1000, 4000) 2 0 0 0 bc
        a [2000, 5000) 1 0 0 0 c
    "#]]
    .assert_eq(&bench.end().lines());
}

#[test]
fn a_late_row_extends_a_session_that_has_fired() {
    let mut bench = session(30).lateness(100).bench();
    bench.rows(&[row("a", 0, "a"), row("a", 90, "d")]);
    assert_eq!(bench.watermark(110).lines(), "a [0, 30) 1 0 0 0 a\n");
    bench.rows(&[row("a", 20, "b")]);
    assert_eq!(bench.lines(), "a [0, 50) 2 0 0 0 ab\n");
    // The first corrects it, the second joins it with what is open: it is open again.
    bench.rows(&[row("a", 30, "e"), row("a", 60, "c")]);
    assert_eq!(bench.lines(), "a [0, 60) 3 0 0 0 abe\n");
    assert_eq!(bench.watermark(121).lines(), "a [0, 120) 5 0 0 0 abedc\n");
    // A session of its own, complete when it comes.
    bench.rows(&[row("b", 0, "z")]);
    assert_eq!(bench.lines(), "b [0, 30) 1 0 0 0 z\n");
    bench.watermark(231).rows(&[row("a", 100, "L")]);
    assert_eq!(bench.end().lines(), "");
    assert_eq!(bench.late, ["100:L"]);
}

#[test]
fn early_results_show_what_changed_in_open_windows() {
    let mut bench = tumbling(1_000).early(50).bench();
    bench
        .clock(10)
        .rows(&[row("a", 100, "a"), row("b", 200, "b"), row("a", 1_100, "n")]);
    assert_eq!(bench.clock(59).lines(), "");
    assert_eq!(
        bench.clock(60).lines(),
        "a [0, 1000) 1 0 0 0 a\na [1000, 2000) 1 0 0 0 n\nb [0, 1000) 1 0 0 0 b\n"
    );
    assert_eq!(bench.clock(1_000).lines(), "", "nothing has come");
    bench.rows(&[row("a", 300, "c")]).clock(1_050);
    assert_eq!(bench.lines(), "a [0, 1000) 2 0 0 0 ac\n");
    assert_eq!(
        bench.watermark(1_000).lines(),
        "a [0, 1000) 2 0 0 0 ac\nb [0, 1000) 1 0 0 0 b\n"
    );

    let mut bench = sliding(2_000, 1_000).early(50).bench();
    bench
        .rows(&[row("a", 100, "a"), row("a", 1_100, "b")])
        .watermark(1_500)
        .lines();
    assert_eq!(
        bench.clock(50).lines(),
        "a [0, 2000) 2 0 0 0 ab\na [1000, 3000) 1 0 0 0 b\n"
    );

    let mut bench = session(30).early(50).bench();
    bench.rows(&[
        row("a", 0, "a"),
        row("a", 40, "c"),
        row("a", 100, "d"),
        row("a", 20, "b"),
    ]);
    assert_eq!(
        bench.clock(50).lines(),
        "a [0, 70) 3 0 0 0 acb\na [100, 130) 1 0 0 0 d\n"
    );
    bench.rows(&[row("a", 110, "e")]).watermark(80).lines();
    assert_eq!(bench.clock(100).lines(), "a [100, 140) 2 0 0 0 de\n");
    assert_eq!(bench.end().lines(), "a [100, 140) 2 0 0 0 de\n");

    let mut bench = Setup::new(Window::Count { size: 3 }).early(50).bench();
    bench.rows(&[
        row("a", 0, "a"),
        row("a", 10, "b"),
        row("a", 0, "c"),
        row("a", 20, "d"),
    ]);
    assert_eq!(bench.lines(), "a [0, 11) 3 0 0 0 abc\n");
    assert_eq!(bench.clock(50).lines(), "a [20, 21) 1 0 0 0 d\n");
}

#[test]
fn processing_time_windows_fire_by_the_clock() {
    let time = TimeDomain::Processing;
    let mut bench = Setup::new(Window::Tumbling {
        size_ms: 1_000,
        time,
        alignment: Alignment::default(),
    })
    .bench();
    bench
        .clock(10_200)
        .rows(&[row("a", 5, "a")])
        .watermark(99_999);
    assert_eq!(bench.clock(10_999).lines(), "");
    assert_eq!(bench.operator.wake_at(), Some(11_000));
    assert_eq!(bench.clock(11_000).lines(), "a [10000, 11000) 1 5 5 5 a\n");
    // A clock that is set back makes nothing late.
    bench.clock(10_500).rows(&[row("a", 1, "b")]);
    assert_eq!(bench.end().lines(), "a [11000, 12000) 1 1 1 1 b\n");
    assert_eq!(bench.counts, Counts::default());

    let mut bench = Setup::new(Window::Session { gap_ms: 100, time }).bench();
    bench
        .clock(1_000)
        .rows(&[row("a", 0, "a")])
        .clock(1_100)
        .rows(&[row("a", 0, "b")]);
    assert_eq!(bench.clock(1_200).lines(), "");
    assert_eq!(bench.clock(1_201).lines(), "a [1000, 1200) 2 0 0 0 ab\n");
    assert_eq!(bench.operator.wake_at(), None);
}

#[test]
fn missing_keys_are_one_group_apart_from_empty_ones() {
    let rows = [
        row("-", 0, "n"),
        row("", 0, "e"),
        row("-", 0, "N"),
        row("", 0, "E"),
    ];
    for key in [Key::User, Key::UserAndShop] {
        let shop = if key == Key::User { "" } else { " 1" };
        for window in [tumbling(1_000), sliding(1_000, 500), session(5)] {
            let mut bench = window.key(key).bench();
            let lines = bench.rows(&rows).end().lines();
            assert!(lines.contains(&format!("-{shop} [0, ")), "{lines}");
            assert!(
                lines.contains("2 0 0 0 nN\n") && lines.contains("2 0 0 0 eE\n"),
                "{lines}"
            );
        }
    }
}

#[test]
fn results_may_leave_out_bounds_and_come_in_batches_that_are_not_too_large() {
    let rows: Vec<Row> = (0..25).map(|i| row(&format!("u{i}"), 0, "x")).collect();
    for window in [tumbling(1_000), sliding(1_000, 500), session(5)] {
        let setup = Setup {
            batch_rows: 10,
            bounds: false,
            ..window
        };
        let mut bench = setup.bench();
        bench.rows(&rows);
        let mut out = Outbox::default();
        bench
            .operator
            .watermark(END_OF_TIME, &mut out)
            .expect("no row stops the test's pipeline");
        let batches: Vec<_> = out.into_batches().map(|(_, batch)| batch).collect();
        assert!(
            batches
                .iter()
                .all(|batch| batch.rows() <= 10 && batch.columns.len() == 6)
        );
        let total: usize = batches.iter().map(|batch| batch.rows()).sum();
        assert_eq!(total % 25, 0);
    }
}

#[test]
fn lost_rows_change_nothing() {
    let cases = [
        (tumbling(1_000), "a [0, 1000) 2 1 0 1 ab\n"),
        (
            sliding(1_000, 500),
            "a [-500, 500) 2 1 0 1 ab\na [0, 1000) 2 1 0 1 ab\n",
        ),
        (session(30), "a [20, 61) 2 1 0 1 ab\n"),
        (
            Setup::new(Window::Count { size: 2 }),
            "a [20, 32) 2 1 0 1 ab\n",
        ),
        (Setup::new(Window::Running), "a 1 0 0 0 a\na 2 1 0 1 ab\n"),
    ];
    for (setup, expected) in cases {
        for word in ["no", "boom"] {
            // The first row of its key, of its window, before, between and
            // after the rows that stay.
            let rows = [
                row("b", 5, word),
                row("a", 5, word),
                row("a", 20, "a"),
                row("a", 50, word),
                row("a", 31, "b"),
                row("a", 75, word),
                row("a", 2_000, word),
            ];
            for batch_rows in [1, 2, 3, 100] {
                let mut bench = setup.bench();
                for rows in rows.chunks(batch_rows) {
                    bench.rows(rows);
                }
                assert_eq!(
                    bench.end().lines(),
                    expected,
                    "{setup:?} {word} {batch_rows}"
                );
                let counts = bench.counts;
                assert_eq!((counts.rejected + counts.failed, counts.late), (5, 0));
                assert_eq!(bench.dead_letters.len(), 5, "{setup:?} {word} {batch_rows}");
            }
        }
    }
}

#[test]
fn a_key_whose_rows_were_all_lost_may_come_again() {
    for setup in [
        tumbling(1_000),
        sliding(1_000, 500),
        Setup::new(Window::Running),
    ] {
        let mut bench = setup.bench();
        bench
            .rows(&[row("a", 0, "no"), row("b", 0, "b")])
            .rows(&[row("a", 0, "a")])
            .end();
        let lines = bench.lines();
        assert!(
            lines.contains("1 0 0 0 a\n") && lines.contains("1 0 0 0 b\n"),
            "{lines}"
        );
    }
}

#[test]
fn a_late_row_is_judged_without_the_rows_that_were_lost() {
    // The row at 60 would reach the session at 95 only by way of the lost one.
    let mut bench = session(30).bench();
    bench.rows(&[row("a", 125, "a")]).watermark(121);
    bench
        .rows(&[row("a", 95, "no"), row("a", 66, "L"), row("a", 130, "b")])
        .end();
    assert_eq!(bench.lines(), "a [125, 160) 2 5 0 5 ab\n");
    assert_eq!(
        (bench.counts.late, bench.late),
        (1, vec!["66:L".to_owned()])
    );
}

#[test]
fn a_row_that_only_a_lost_row_joins_to_a_session_has_one_of_its_own() {
    let huge = |time: i64, word: &str| Row {
        amount: i64::MAX,
        ..row("a", time, word)
    };
    let rows = [huge(60, "a"), huge(30, "b"), huge(0, "c")];
    for batch_rows in [1, 2, 3] {
        for on_error in [OnError::DeadLetter, OnError::Skip, OnError::Retry(1)] {
            let mut bench = session(50).on_error(on_error).bench();
            for rows in rows.chunks(batch_rows) {
                bench.rows(rows);
            }
            let max = i64::MAX;
            assert_eq!(
                bench.end().lines(),
                format!("a [0, 50) 1 {max} {max} {max} c\na [60, 110) 1 {max} {max} {max} a\n")
            );
            assert_eq!(bench.counts.failed, 1, "in batches of {batch_rows}");
        }
        let mut bench = session(50).on_error(OnError::Fail).bench();
        let mut batches = rows.chunks(batch_rows);
        assert!(batches.any(|rows| bench.try_rows(rows).is_err()));
    }
}

#[test]
fn on_error_decides_what_a_lost_row_becomes() {
    let rows = [row("a", 0, "a"), row("a", 1, "boom"), row("a", 2, "b")];
    for (policy, letters) in [
        (OnError::Skip, 0),
        (OnError::DeadLetter, 1),
        (OnError::Retry(2), 1),
    ] {
        let mut bench = tumbling(1_000).on_error(policy).bench();
        assert_eq!(bench.rows(&rows).end().lines(), "a [0, 1000) 2 2 0 2 ab\n");
        assert_eq!(
            (bench.counts.failed, bench.dead_letters.len()),
            (1, letters)
        );
    }
    let mut bench = tumbling(1_000).on_error(OnError::Fail).bench();
    let error = bench.try_rows(&rows).expect_err("the policy is to fail");
    assert!(
        error
            .to_string()
            .starts_with("operator `sums`: trap: panicked"),
        "{error}"
    );
}

#[test]
fn a_slide_costs_no_more_when_there_are_more_of_them() {
    let merged_a_slide = |panes: i64| {
        let mut bench = sliding(panes * 10, 10).bench();
        let slides = panes * 3;
        for slide in 0..slides {
            bench
                .rows(&[row("a", slide * 10, "x"), row("b", slide * 10, "y")])
                .watermark(slide * 10);
        }
        let calls = bench.calls.lock().expect("no test panics here");
        (
            calls.merged_states as i64 / slides,
            calls.merges as i64 / slides,
        )
    };
    let (few, _) = merged_a_slide(12);
    let (many, calls) = merged_a_slide(500);
    assert!(
        few <= 16,
        "{few} states are merged a slide of 2 keys with 12 panes"
    );
    assert!(
        many <= 40,
        "{many} states are merged a slide of 2 keys with 500 panes"
    );
    assert!(calls <= 6, "{calls} calls a slide");
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let event = TimeDomain::Event;
    let cases = [
        (
            Window::Tumbling {
                size_ms: 0,
                time: event,
                alignment: Alignment::default(),
            },
            "its size is 0 ms",
        ),
        (
            Window::Sliding {
                size_ms: 10,
                slide_ms: 30,
                time: event,
                alignment: Alignment::default(),
            },
            "there is one every 30 ms",
        ),
        (
            Window::Cumulate {
                size_ms: 10,
                step_ms: 3,
                time: event,
                alignment: Alignment::default(),
            },
            "steps of 3 ms do not add up to 10 ms",
        ),
        (
            Window::Session {
                gap_ms: -1,
                time: event,
            },
            "a session's gap is -1 ms",
        ),
        (
            Window::Count { size: 0 },
            "a window must count at least 1 row",
        ),
    ];
    for (window, message) in cases {
        let error = Setup::new(window)
            .try_bench()
            .err()
            .map(|error| error.to_string());
        assert!(
            error.as_ref().is_some_and(|error| error.contains(message)),
            "{error:?}"
        );
    }
}

#[test]
fn a_row_that_reaches_a_session_that_is_final_is_late() {
    let mut bench = session(10).lateness(5).bench();
    let mut watermark = 0;
    for time in [0, 10, 37, 28, 19] {
        watermark = watermark.max(time);
        bench.rows(&[row("a", time, ".")]).watermark(watermark);
    }
    expect![[r#"
        a [0, 20) 2 0 0 0 ..
        a [28, 47) 2 15 7 8 ..
    "#]]
    .assert_eq(&bench.end().lines());
    assert_eq!(bench.late, ["19:."]);
}

#[test]
fn a_corrected_session_withdraws_its_former_span() {
    let mut bench = session(10).lateness(50).timing().bench();
    bench.rows(&[row("a", 0, "a"), row("a", 30, "c")]);
    bench.watermark(60);
    expect![[r#"
        a [0, 10) on_time 1 0 0 0 a
        a [30, 40) on_time 1 0 0 0 c
    "#]]
    .assert_eq(&bench.lines());
    bench.rows(&[row("a", 9, "b")]);
    expect![[r#"
        a [0, 10) gone 2 9 0 9 ab
        a [0, 19) late 2 9 0 9 ab"#]]
    .assert_eq(&bench.lines.join("\n"));
    bench.lines();
    // It joins both.
    bench.rows(&[row("a", 20, "B")]);
    expect![[r#"
        a [20, 40) late 2 0 0 0 cB
        a [30, 40) gone 2 0 0 0 cB
    "#]]
    .assert_eq(&bench.lines());
    bench.rows(&[row("a", 5, "x")]);
    expect![[r#"
        a [0, 19) late 3 14 0 9 abx
    "#]]
    .assert_eq(&bench.lines());
}

/// 2024-03-31 00:00 in Berlin, the day on which clocks are turned forward there.
const SUMMER_TIME_MS: i64 = 1_711_839_600_000;

const HOUR_MS: i64 = 3_600_000;

fn aligned(alignment: Alignment, size_ms: i64, slide_ms: i64) -> Setup {
    let time = TimeDomain::Event;
    Setup::new(match size_ms == slide_ms {
        true => Window::Tumbling {
            size_ms,
            time,
            alignment,
        },
        false => Window::Sliding {
            size_ms,
            slide_ms,
            time,
            alignment,
        },
    })
}

#[test]
fn a_day_in_a_zone_has_the_hours_that_clocks_show() {
    let alignment = Alignment {
        zone: Zone::named("Europe/Berlin").ok(),
        ..Alignment::default()
    };
    let day_ms = 24 * HOUR_MS;
    let start = SUMMER_TIME_MS;
    let rows = [
        row("a", start - 1, "."),
        row("a", start, "a"),
        row("a", start + 23 * HOUR_MS - 1, "b"),
        row("a", start + 23 * HOUR_MS, "."),
    ];
    let mut bench = aligned(alignment, day_ms, day_ms).bench();
    bench.rows(&rows);
    let before = format!("a [{}, {start}) 1", start - day_ms);
    assert!(bench.watermark(start).lines().starts_with(&before));
    assert_eq!(bench.watermark(start + 23 * HOUR_MS - 1).lines(), "");
    let end = start + 23 * HOUR_MS;
    let short = format!("a [{start}, {end}) 2 9 0 9 ab\n");
    assert_eq!(bench.watermark(end).lines(), short);

    // Two days, every day: 47 hours.
    let mut bench = aligned(alignment, 2 * day_ms, day_ms).bench();
    bench.rows(&rows[1..3]).end();
    let both = [(start - day_ms, end), (start, end + day_ms)];
    let both = both.map(|(first, last)| format!("a [{first}, {last}) 2 9 0 9 ab\n"));
    assert_eq!(bench.lines(), both.concat());
}

#[test]
fn windows_start_where_their_offset_says() {
    let alignment = Alignment {
        // From Thursday, which 1970 began with, to Monday.
        offset_ms: 4 * 24 * HOUR_MS,
        zone: None,
    };
    let week_ms = 7 * 24 * HOUR_MS;
    let monday = 1_711_929_600_000; // 2024-04-01
    let mut bench = aligned(alignment, week_ms, week_ms).bench();
    bench.rows(&[row("a", monday - 1, "."), row("a", monday, "m")]);
    let before = format!("a [{}, {monday}) 1 9 9 9 .\n", monday - week_ms);
    assert_eq!(bench.watermark(monday).lines(), before);
    let after = format!("a [{monday}, {}) 1 0 0 0 m\n", monday + week_ms);
    assert_eq!(bench.end().lines(), after);
}

#[test]
fn a_running_aggregate_may_emit_every_so_often() {
    let mut bench = Setup::new(Window::Running).early(100).bench();
    bench.rows(&[row("a", 1, "a"), row("b", 2, "b"), row("a", 3, "A")]);
    assert_eq!(bench.lines(), "", "results wait");
    bench.clock(99);
    assert_eq!(bench.lines(), "");
    bench.clock(100);
    assert_eq!(bench.lines(), "a 2 4 1 3 aA\nb 1 2 2 2 b\n");
    bench.clock(1_000);
    assert_eq!(bench.lines(), "", "no key has a new row");
    // A period begins with the first row that its results show; a rejected row shows
    // nothing new.
    bench
        .rows(&[row("b", 5, "B"), row("c", 5, "no")])
        .clock(1_099);
    assert_eq!(bench.lines(), "");
    bench.clock(1_100);
    assert_eq!(bench.lines(), "b 2 7 2 5 bB\n");
    bench.rows(&[row("a", 9, "!")]).end();
    assert_eq!(
        bench.lines(),
        "a 3 13 1 9 aA!\n",
        "the last ones come at the end"
    );
}

/// Whatever comes between early results, the last of each key stands, until its state
/// expires.
#[test]
fn an_early_result_takes_the_one_before_it_back() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let ttl_ms = [None, Some(30)][seed as usize % 2];
        let setup = Setup {
            ttl_ms,
            ..Setup::new(Window::Running).early(1)
        };
        let mut bench = setup.bench();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        let mut now_ms = 0;
        for step in 0..60 {
            let rows = (0..random.usize(1..5)).map(|_| {
                let user = ["a", "b", "c", "d"][random.usize(..4)];
                let word = ["x", "y", "no"][random.usize(..3)];
                row(user, step * 10 + random.i64(0..10), word)
            });
            bench.rows(&rows.collect::<Vec<_>>());
            if random.bool() {
                bench.watermark(step * 10 - random.i64(0..20));
            }
            if random.bool() {
                now_ms += 10;
                bench.clock(now_ms);
            }
            for line in std::mem::take(&mut bench.lines) {
                last.insert(line[..1].to_owned(), line);
            }
            let standing = bench.standing();
            let is_last = |line: &String| last.get(&line[..1]) == Some(line);
            assert!(standing.iter().all(is_last), "seed {seed}: {standing:?}");
            if ttl_ms.is_none() {
                assert!(
                    standing.iter().eq(last.values()),
                    "seed {seed}: {standing:?}"
                );
            }
        }
        bench.watermark(10_000);
        if ttl_ms.is_some() {
            assert_eq!(bench.standing(), [""; 0], "seed {seed}");
        }
    }
}

#[test]
fn discarded_results_add_up() {
    let setup = tumbling(100)
        .early(50)
        .lateness(1_000)
        .timing()
        .discarding();
    let mut bench = setup.bench();
    bench.rows(&[row("a", 1, "a"), row("b", 2, "b")]).clock(50);
    assert_eq!(
        bench.lines(),
        "a [0, 100) early 1 1 1 1 a\nb [0, 100) early 1 2 2 2 b\n"
    );
    bench.rows(&[row("a", 3, "A")]).watermark(100);
    assert_eq!(
        bench.lines(),
        "a [0, 100) on_time 1 3 3 3 A\n",
        "only what is new"
    );
    bench.rows(&[row("b", 4, "B")]);
    assert_eq!(bench.lines(), "b [0, 100) late 1 4 4 4 B\n");
    bench.rows(&[row("b", 5, "c")]).clock(1_000);
    assert_eq!(bench.lines(), "b [0, 100) late 1 5 5 5 c\n");
    bench.rows(&[row("a", 101, "x")]).end();
    assert_eq!(bench.lines(), "a [100, 200) on_time 1 1 1 1 x\n");
}
