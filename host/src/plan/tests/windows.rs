//! Settings that only some operators have.

use expect_test::expect;

use super::support::check;

#[test]
fn an_aggregate_without_window() {
    check(
        &[(
            r#"window = { tumbling = "1m" }
"#,
            "",
        )],
        expect![[r#"
              x operator `added` is an aggregate and has no `window`
                ,-[cart.toml:28:12]
             28 | [operators.added]
                :            ^^^^^
                `----
              help: say which rows are put together, such as `window = { tumbling = "1m" }`; `window = "running"` gives a result after each row
        "#]],
    );
}

#[test]
fn settings_of_aggregates_on_a_filter() {
    check(
        &[(
            "parameters = { max_quantity = 100 }",
            r#"parameters = { max_quantity = 100 }
key = "user_id"
window = "running"
allowed_lateness = "1s"
early_every = "1s"
bounds = false"#,
        )],
        expect![[r#"
              x operator `clean` runs a filter, which has no `key`, no `window`, no `allowed_lateness`, no `early_every`, no `bounds`
                ,-[cart.toml:24:10]
             24 | plugin = "cart.clean"
                :          ^^^^^^|^^^^^
                :                `-- this is a filter
                `----
                ,-[cart.toml:27:1]
             27 | key = "user_id"
                : ^|^
                :  `-- only for aggregates
             28 | window = "running"
                :          ^^^^|^^^^
                :              `-- only for aggregates
             29 | allowed_lateness = "1s"
                : ^^^^^^^^|^^^^^^^
                :         `-- only for aggregates
             30 | early_every = "1s"
                : ^^^^^|^^^^^
                :      `-- only for aggregates
             31 | bounds = false
                : ^^^|^^
                :    `-- only for aggregates
                `----
              help: remove it: only aggregates put rows together, others take each by itself
        "#]],
    );
}

#[test]
fn lateness_of_a_running_aggregate() {
    check(
        &[
            (
                r#"window = { tumbling = "1m" }"#,
                r#"window = "running"
early_every = "1s"
bounds = false"#,
            ),
            (r#"input = "added.late""#, r#"input = "added""#),
        ],
        expect![[r#"
              x operator `added`: `early_every` makes no sense for a running aggregate: its results do not wait for time
                ,-[cart.toml:33:1]
             32 | window = "running"
                :          ^^^^|^^^^
                :              `-- its window
             33 | early_every = "1s"
                : ^^^^^^^^^^^
                `----
              help: remove it, or choose an event-time window

              x operator `added`: `bounds` makes no sense for a running aggregate: it has no window to have bounds
                ,-[cart.toml:32:10]
             32 | window = "running"
                :          ^^^^|^^^^
                :              `-- its window
                `----
                ,-[cart.toml:34:1]
             34 | bounds = false
                : ^^^^^^
                `----
              help: remove it, or choose an event-time window

              x operator `added`: `allowed_lateness` makes no sense for a running aggregate: no row is ever late for it
                ,-[cart.toml:32:10]
             32 | window = "running"
                :          ^^^^|^^^^
                :              `-- its window
                `----
                ,-[cart.toml:35:1]
             35 | allowed_lateness = "10s"
                : ^^^^^^^^^^^^^^^^
                `----
              help: remove it, or choose an event-time window
        "#]],
    );
}

#[test]
fn lateness_of_a_count_window() {
    check(
        &[
            (
                r#"window = { tumbling = "1m" }"#,
                r#"window = { count = 10 }
early_every = "1s""#,
            ),
            (r#"input = "added.late""#, r#"input = "added""#),
        ],
        expect![[r#"
              x operator `added`: `early_every` makes no sense for a count window: its results do not wait for time
                ,-[cart.toml:33:1]
             32 | window = { count = 10 }
                :          ^^^^^^^|^^^^^^
                :                 `-- its window
             33 | early_every = "1s"
                : ^^^^^^^^^^^
                `----
              help: remove it, or choose an event-time window

              x operator `added`: `allowed_lateness` makes no sense for a count window: no row is ever late for it
                ,-[cart.toml:32:10]
             32 | window = { count = 10 }
                :          ^^^^^^^|^^^^^^
                :                 `-- its window
                `----
                ,-[cart.toml:34:1]
             34 | allowed_lateness = "10s"
                : ^^^^^^^^^^^^^^^^
                `----
              help: remove it, or choose an event-time window
        "#]],
    );
}

#[test]
fn lateness_of_processing_time() {
    check(
        &[
            (
                r#"window = { tumbling = "1m" }"#,
                r#"window = { tumbling = "1m", time = "processing" }"#,
            ),
            (r#"input = "added.late""#, r#"input = "added""#),
        ],
        expect![[r#"
              x operator `added`: `allowed_lateness` makes no sense for a processing-time window: no row is ever late for it
                ,-[cart.toml:33:1]
             32 | window = { tumbling = "1m", time = "processing" }
                :          ^^^^^^^^^^^^^^^^^^^^|^^^^^^^^^^^^^^^^^^^
                :                              `-- its window
             33 | allowed_lateness = "10s"
                : ^^^^^^^^^^^^^^^^
                `----
              help: remove it, or choose an event-time window
        "#]],
    );
}

#[test]
fn bounds_that_the_plugin_gives_too() {
    check(
        &[(r#"plugin = "cart.added""#, r#"plugin = "cart.spans""#)],
        expect![[r#"
              x the output of operator `added` has two columns named `window_start`
                ,-[cart.toml:29:10]
             29 | plugin = "cart.spans"
                :          ^^^^^^|^^^^^
                :                `-- `window_start: timestamp` is from here
                `----
                ,-[cart.toml:32:10]
             32 | window = { tumbling = "1m" }
                :          ^^^^^^^^^|^^^^^^^^^
                :                   `-- `window_start: timestamp` is from here
                `----
              help: rename the window's bounds: `bounds = { start = "from", end = "to" }`, or leave them out: `bounds = false`
        "#]],
    );
}

#[test]
fn bounds_of_one_name() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "1m" }
bounds = { start = "at", end = "at" }"#,
        )],
        expect![[r#"
              x the output of operator `added` has two columns named `at`
                ,-[cart.toml:33:1]
             33 | bounds = { start = "at", end = "at" }
                : ^^^|^^
                :    `-- `at: timestamp` is from here
                `----
              help: rename the window's bounds: `bounds = { start = "from", end = "to" }`, or leave them out: `bounds = false`
        "#]],
    );
}

#[test]
fn bounds_named_as_the_key() {
    check(
        &[(
            r#"window = { tumbling = "1m" }"#,
            r#"window = { tumbling = "1m" }
bounds = { start = "user_id" }"#,
        )],
        expect![[r#"
              x the output of operator `added` has two columns named `user_id`
                ,-[cart.toml:31:7]
             31 | key = "user_id"
                :       ^^^^|^^^^
                :           `-- `user_id: utf8` is from here
                `----
                ,-[cart.toml:33:1]
             33 | bounds = { start = "user_id" }
                : ^^^|^^
                :    `-- `user_id: timestamp` is from here
                `----
              help: rename the window's bounds: `bounds = { start = "from", end = "to" }`, or leave them out: `bounds = false`
        "#]],
    );
}
