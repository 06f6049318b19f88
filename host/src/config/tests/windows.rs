//! Windows that make no sense.

use expect_test::expect;

use crate::plan::tests::support::check;

#[test]
fn no_kind() {
    check(
        &[(r#"window = { tumbling = "1m" }"#, "window = { }")],
        expect![[r#"
              x `window` of operator `added` must say one kind of window
                ,-[cart.toml:32:10]
             32 | window = { }
                :          ^|^
                :           `-- no kind of window
                `----
              help: write { tumbling = "1m" }, { sliding = "60s", every = "5s" }, { session = "30s" }, { count = 100 } or "running"
        "#]],
    );
}

#[test]
fn two_kinds() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "1m", session = "5s" }"#,
        )],
        expect![[r#"
              x `window` of operator `added` must say one kind of window
                ,-[cart.toml:32:10]
             32 | window = { tumbling = "1m", session = "5s" }
                :          ^^^^^^^^^^^^^^^^^|^^^^^^^^^^^^^^^^^
                :                           `-- several kinds
                `----
              help: write { tumbling = "1m" }, { sliding = "60s", every = "5s" }, { session = "30s" }, { count = 100 } or "running"
        "#]],
    );
}

#[test]
fn a_word() {
    check(
        &[(r#"window = { tumbling = "1m" }"#, r#"window = "runing""#)],
        expect![[r#"
              x `window` of operator `added` cannot be `runing`
                ,-[cart.toml:32:10]
             32 | window = "runing"
                :          ^^^^^^^^
                `----
              help: did you mean `running`?
        "#]],
    );
}

#[test]
fn a_number() {
    check(
        &[(r#"window = { tumbling = "1m" }"#, "window = 60")],
        expect![[r#"
              x `window` of operator `added` must be { tumbling = "1m" }, { sliding = "60s", every = "5s" }, { session = "30s" }, { count = 100 } or "running"
                ,-[cart.toml:32:10]
             32 | window = 60
                :          ^|
                :           `-- this is a whole number
                `----
        "#]],
    );
}

#[test]
fn lengths_of_zero() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { session = "0s" }"#,
        )],
        expect![[r#"
              x `session` of `window` of operator `added` must be at least 1ms
                ,-[cart.toml:32:22]
             32 | window = { session = "0s" }
                :                      ^^^^
                `----
        "#]],
    );
}

#[test]
fn a_count_of_zero() {
    check(
        &[(r#"window = { tumbling = "1m" }"#, "window = { count = 0 }")],
        expect![[r#"
              x `count` of `window` of operator `added` must be a whole number of at least 1
                ,-[cart.toml:32:20]
             32 | window = { count = 0 }
                :                    ^
                `----
        "#]],
    );
}

#[test]
fn sliding_without_every() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { sliding = "1m" }"#,
        )],
        expect![[r#"
              x `sliding` of `window` of operator `added` does not say how often a window starts
                ,-[cart.toml:32:22]
             32 | window = { sliding = "1m" }
                :                      ^^|^
                :                        `-- `every` is missing
                `----
              help: add it: { sliding = "60s", every = "5s" }
        "#]],
    );
}

#[test]
fn every_longer_than_the_window() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { sliding = "5s", every = "1m" }"#,
        )],
        expect![[r#"
              x `every` of `window` of operator `added` is longer than the window: rows between two windows would be in none
                ,-[cart.toml:32:36]
             32 | window = { sliding = "5s", every = "1m" }
                :                      ^^|^          ^^|^
                :                        |             `-- a window starts this often
                :                        `-- and is this long
                `----
              help: choose an `every` that divides the length, such as "5s" for "60s"
        "#]],
    );
}

#[test]
fn every_does_not_divide_the_window() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { sliding = "60s", every = "7s" }"#,
        )],
        expect![[r#"
              x `every` of `window` of operator `added` does not divide the window's length
                ,-[cart.toml:32:37]
             32 | window = { sliding = "60s", every = "7s" }
                :                      ^^|^^          ^^|^
                :                        |              `-- a window starts this often
                :                        `-- and is this long
                `----
              help: choose an `every` that divides the length, such as "5s" for "60s"
        "#]],
    );
}

#[test]
fn every_far_too_short() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { sliding = "365d", every = "1s" }"#,
        )],
        expect![[r#"
              x `every` of `window` of operator `added` puts each row into more than 100,000 windows
                ,-[cart.toml:32:38]
             32 | window = { sliding = "365d", every = "1s" }
                :                      ^^^|^^          ^^|^
                :                         |              `-- a window starts this often
                :                         `-- and is this long
                `----
              help: choose an `every` that divides the length, such as "5s" for "60s"
        "#]],
    );
}

#[test]
fn every_of_zero() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { sliding = "1m", every = "0s" }"#,
        )],
        expect![[r#"
              x `every` of `window` of operator `added` must be at least 1ms
                ,-[cart.toml:32:36]
             32 | window = { sliding = "1m", every = "0s" }
                :                                    ^^^^
                `----
        "#]],
    );
}

#[test]
fn every_of_a_tumbling_window() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "60s", every = "5s" }"#,
        )],
        expect![[r#"
              x `every` of `window` of operator `added` makes no sense here: only sliding windows have `every`
                ,-[cart.toml:32:30]
             32 | window = { tumbling = "60s", every = "5s" }
                :                              ^^^^^
                `----
              help: remove it
        "#]],
    );
}

#[test]
fn time_of_a_count_window() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { count = 10, time = "event" }"#,
        )],
        expect![[r#"
              x `time` of `window` of operator `added` makes no sense here: count windows go by rows, not by time
                ,-[cart.toml:32:24]
             32 | window = { count = 10, time = "event" }
                :                        ^^^^
                `----
              help: remove it
        "#]],
    );
}

#[test]
fn an_unknown_time() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "60s", time = "ingestion" }"#,
        )],
        expect![[r#"
              x `time` of `window` of operator `added` cannot be `ingestion`
                ,-[cart.toml:32:37]
             32 | window = { tumbling = "60s", time = "ingestion" }
                :                                     ^^^^^^^^^^^
                `----
              help: the choices are: event, processing
        "#]],
    );
}

#[test]
fn bounds() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "1m" }
bounds = true"#,
        )],
        expect![[r#"
              x `bounds` of operator `added` must be false, or the names of two columns: { start = "from", end = "to" }
                ,-[cart.toml:33:10]
             33 | bounds = true
                :          ^^|^
                :            `-- this is a boolean
                `----
        "#]],
    );
}

#[test]
fn names_of_bounds() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "1m" }
bounds = { start = "", stop = "to" }"#,
        )],
        expect![[r#"
              x `` cannot be the name of a column
                ,-[cart.toml:33:20]
             33 | bounds = { start = "", stop = "to" }
                :                    ^^
                `----
              help: names start with a letter and have up to 100 of: letters, digits, _ and -

              x `bounds` of operator `added` has an unknown key `stop`
                ,-[cart.toml:33:24]
             33 | bounds = { start = "", stop = "to" }
                :                        ^^|^
                :                          `-- unknown key
                `----
              help: the keys here are: start, end
        "#]],
    );
}
