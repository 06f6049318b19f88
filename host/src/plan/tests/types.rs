//! Types of both sides of an edge.

use expect_test::expect;

use super::support::check;

#[test]
fn a_field_of_another_name() {
    check(
        &[
            (r#"user_id = "utf8""#, r#"userId = "utf8""#),
            (r#"key = "user_id""#, r#"key = "userId""#),
        ],
        expect![[r#"
              x operator `clean` wants `user_id: utf8`; source `actions` has `userId: utf8`
                ,-[cart.toml:14:1]
             14 | userId = "utf8"
                : ^^^|^^
                :    `-- `userId: utf8` is from here
                `----
                ,-[cart.toml:25:9]
             25 | input = "actions"
                :         ^^^^|^^^^
                :             `-- rows come from here
                `----
              help: did you mean `user_id`? Fields are found by name: give it the same name on both sides
        "#]],
    );
}

#[test]
fn a_field_is_missing() {
    check(
        &[(
            r#"quantity = "int64"
"#,
            "",
        )],
        expect![[r#"
              x operator `clean` wants `quantity: int64`; source `actions` has no such field
                ,-[cart.toml:24:9]
             24 | input = "actions"
                :         ^^^^|^^^^
                :             `-- rows come from here
                `----
              help: source `actions` has: user_id: utf8, item_id: utf8, action: add|remove|view, price: float64, note: utf8?, tags: list<utf8>, ts: timestamp
        "#]],
    );
}

#[test]
fn a_field_of_another_type() {
    check(
        &[(r#"quantity = "int64""#, r#"quantity = "utf8""#)],
        expect![[r#"
              x operator `clean` wants `quantity: int64`; source `actions` has `quantity: utf8`
                ,-[cart.toml:17:1]
             17 | quantity = "utf8"
                : ^^^^|^^^
                :     `-- `quantity: utf8` is from here
                `----
                ,-[cart.toml:25:9]
             25 | input = "actions"
                :         ^^^^|^^^^
                :             `-- rows come from here
                `----
              help: make it `int64` there, or change what the plugin takes
        "#]],
    );
}

#[test]
fn a_field_that_may_be_missing() {
    check(
        &[(r#"user_id = "utf8""#, r#"user_id = "utf8?""#)],
        expect![[r#"
              x operator `clean` wants `user_id: utf8`; source `actions` has `user_id: utf8?`
                ,-[cart.toml:14:1]
             14 | user_id = "utf8?"
                : ^^^|^^^
                :    `-- `user_id: utf8?` is from here
                `----
                ,-[cart.toml:25:9]
             25 | input = "actions"
                :         ^^^^|^^^^
                :             `-- rows come from here
                `----
              help: `?` means that it may be missing: declare it without (a row that lacks it is then an error of its own), or let the plugin take an Option for `user_id`
        "#]],
    );
}

#[test]
fn a_field_of_a_plugins_output() {
    check(
        &[
            (
                r#"plugin = "cart.clean"
input = "actions"
parameters = { max_quantity = 100 }"#,
                r#"plugin = "cart.priced"
input = "actions""#,
            ),
            (r#"key = "user_id""#, r#"key = "item_id""#),
        ],
        expect![[r#"
              x operator `added` wants `quantity: int64`; operator `clean` has no such field
                ,-[cart.toml:29:9]
             29 | input = "clean"
                :         ^^^|^^^
                :            `-- rows come from here
                `----
              help: operator `clean` has: item_id: utf8, cents: int64
        "#]],
    );
}

#[test]
fn a_column_that_may_be_missing_must_be_there() {
    check(
        &[
            (
                r#"note = "utf8?"
"#,
                "",
            ),
            (
                "",
                r#"
[operators.noted]
plugin = "cart.noted"
input = "actions"
[sinks.notes]
type = "blackhole"
input = "noted"
"#,
            ),
        ],
        expect![[r#"
              x operator `noted` wants `note: utf8`; source `actions` has no such field
                ,-[cart.toml:45:9]
             45 | input = "actions"
                :         ^^^^|^^^^
                :             `-- rows come from here
                `----
              help: source `actions` has: user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64, tags: list<utf8>, ts: timestamp
        "#]],
    );
}

#[test]
fn inputs_of_a_filter_differ() {
    check(
        &[
            (r#"input = "actions""#, r#"input = ["actions", "made"]"#),
            (
                "",
                r#"
[sources.made]
type = "generator"
"#,
            ),
        ],
        expect![[r#"
              x operator `clean` merges inputs that differ: source `actions` has `action: add|remove|view` where source `made` has `action: utf8`
                ,-[cart.toml:25:21]
             25 | input = ["actions", "made"]
                :          ^^^^|^^^^  ^^^|^^
                :              |         `-- this input
                :              `-- and this one
                `----
              help: merged rows go on as they are: their columns must have the same names, types and order; a transform in front of one can make them so
        "#]],
    );
}

#[test]
fn inputs_of_a_sink_differ() {
    check(
        &[(r#"input = "added""#, r#"input = ["added", "clean"]"#)],
        expect![[r#"
              x sink `out` merges inputs that differ: operator `added` has `window_start: timestamp` where operator `clean` has `item_id: utf8`
                ,-[cart.toml:37:19]
             37 | input = ["added", "clean"]
                :          ^^^|^^^  ^^^|^^^
                :             |        `-- this input
                :             `-- and this one
                `----
              help: merged rows go on as they are: their columns must have the same names, types and order; a transform in front of one can make them so
        "#]],
    );
}

#[test]
fn two_output_columns_of_one_name() {
    check(
        &[(
            "",
            r#"
[operators.twins]
plugin = "cart.twins"
input = "actions"
[sinks.twins_out]
type = "blackhole"
input = "twins"
"#,
        )],
        expect![[r#"
              x the output of operator `twins` has two columns named `a`
                ,-[cart.toml:45:10]
             45 | plugin = "cart.twins"
                :          ^^^^^^|^^^^^
                :                `-- `a: int64` is from here
                `----
              help: this is a mistake in the plugin: rename one of its output fields
        "#]],
    );
}
