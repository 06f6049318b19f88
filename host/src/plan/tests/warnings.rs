//! What is odd and runs all the same.

use expect_test::expect;

use super::support::check;

#[test]
fn an_operator_that_nobody_reads() {
    check(
        &[(
            "",
            r#"
[operators.priced]
plugin = "cart.priced"
input = "actions"
"#,
        )],
        expect![[r#"
              ! nobody reads operator `priced`: its rows are dropped
                ,-[cart.toml:44:12]
             44 | [operators.priced]
                :            ^^^^^^
                `----
              help: give a sink or an operator `input = "priced"`, or remove it
        "#]],
    );
}

#[test]
fn a_source_that_nobody_reads() {
    check(
        &[(
            "",
            r#"
[sources.made]
type = "generator"
"#,
        )],
        expect![[r#"
              ! nobody reads source `made`: its rows are dropped
                ,-[cart.toml:44:10]
             44 | [sources.made]
                :          ^^^^
                `----
              help: give a sink or an operator `input = "made"`, or remove it
        "#]],
    );
}

#[test]
fn a_plugin_that_is_not_used() {
    check(
        &[(
            "",
            r#"
[plugins.spare]
path = "data/cart.wasm"
"#,
        )],
        expect![[r#"
              ! plugin `spare` is not used
                ,-[cart.toml:44:10]
             44 | [plugins.spare]
                :          ^^^^^
                `----
              help: an operator runs it by `plugin = "spare.OPERATOR"`
        "#]],
    );
}

#[test]
fn dead_letters_that_nobody_writes() {
    check(
        &[
            ("parallelism = 2", r#"dead_letters = "dead.jsonl""#),
            (
                r#"event_time = "ts""#,
                r#"event_time = "ts"
on_error = "skip""#,
            ),
            (
                r#"plugin = "cart.clean""#,
                r#"plugin = "cart.clean"
on_error = "fail""#,
            ),
            (
                r#"plugin = "cart.added""#,
                r#"plugin = "cart.added"
on_error = "skip""#,
            ),
        ],
        expect![[r#"
              ! nothing will be written to the dead letters
               ,-[cart.toml:2:16]
             2 | dead_letters = "dead.jsonl"
               :                ^^^^^^^^^^^^
               `----
              help: no source or operator has `on_error = "dead_letter"`
        "#]],
    );
}
