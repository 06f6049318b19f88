//! The late output of things that have none.

use expect_test::expect;

use super::support::check;

#[test]
fn of_a_source() {
    check(
        &[(r#""added.late""#, r#""actions.late""#)],
        expect![[r#"
              x source `actions` has no late output: rows are late for windows only
                ,-[cart.toml:42:9]
             42 | input = "actions.late"
                :         ^^^^^^^^^^^^^^
                `----
              help: aggregates with an event-time window have one
        "#]],
    );
}

#[test]
fn of_a_filter() {
    check(
        &[(r#""added.late""#, r#""clean.late""#)],
        expect![[r#"
              x operator `clean` has no late output: it is a filter
                ,-[cart.toml:42:9]
             42 | input = "clean.late"
                :         ^^^^^^^^^^^^
                `----
              help: aggregates with an event-time window have one
        "#]],
    );
}

#[test]
fn of_a_running_aggregate() {
    check(
        &[
            (r#"window = { tumbling = "1m" }"#, r#"window = "running""#),
            (
                r#"allowed_lateness = "10s"
"#,
                "",
            ),
        ],
        expect![[r#"
              x operator `added` has no late output: no row is ever late for its window
                ,-[cart.toml:41:9]
             41 | input = "added.late"
                :         ^^^^^^^^^^^^
                `----
              help: aggregates with an event-time window have one
        "#]],
    );
}

#[test]
fn of_inputs_that_differ() {
    check(
        &[
            (r#"input = "clean""#, r#"input = ["clean", "more"]"#),
            (
                "",
                r#"
[sources.more]
type = "file"
path = "events-2.jsonl"
fields = { item_id = "utf8", quantity = "int64", user_id = "utf8" }
"#,
            ),
        ],
        expect![[r#"
              x the late output of operator `added` merges inputs that differ: operator `clean` has `user_id: utf8` where source `more` has `item_id: utf8`
                ,-[cart.toml:30:19]
             30 | input = ["clean", "more"]
                :          ^^^|^^^  ^^^|^^
                :             |        `-- this input
                :             `-- and this one
                `----
              help: merged rows go on as they are: their columns must have the same names, types and order; a transform in front of one can make them so
        "#]],
    );
}
