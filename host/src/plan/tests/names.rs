//! Names that name nothing, or two things.

use expect_test::expect;

use super::support::check;

#[test]
fn an_unknown_input() {
    check(
        &[(r#"input = "clean""#, r#"input = "claen""#)],
        expect![[r#"
              x operator `added` reads `claen`, which does not exist
                ,-[cart.toml:30:9]
             30 | input = "claen"
                :         ^^^^^^^
                `----
              help: did you mean `clean`? The sources and operators are: actions, clean
        "#]],
    );
}

#[test]
fn several_unknown_inputs() {
    check(
        &[(r#"input = "clean""#, r#"input = ["actionz", "nothing"]"#)],
        expect![[r#"
              x operator `added` reads `actionz`, which does not exist
                ,-[cart.toml:30:10]
             30 | input = ["actionz", "nothing"]
                :          ^^^^^^^^^
                `----
              help: did you mean `actions`? The sources and operators are: actions, clean

              x operator `added` reads `nothing`, which does not exist
                ,-[cart.toml:30:21]
             30 | input = ["actionz", "nothing"]
                :                     ^^^^^^^^^
                `----
              help: the sources and operators are: actions, clean
        "#]],
    );
}

#[test]
fn a_sink_as_input() {
    check(
        &[(r#"input = "clean""#, r#"input = "out""#)],
        expect![[r#"
              x operator `added` reads `out`, which is a sink: nothing comes out of it
                ,-[cart.toml:30:9]
             30 | input = "out"
                :         ^^^^^
                `----
              help: the sources and operators are: actions, clean
        "#]],
    );
}

#[test]
fn an_operator_named_as_a_source() {
    check(
        &[
            ("[operators.clean]", "[operators.actions]"),
            (r#"input = "clean""#, r#"input = "actions""#),
        ],
        expect![[r#"
              x two sections are named `actions`
               ,-[cart.toml:7:10]
             7 | [sources.actions]
               :          ^^^|^^^
               :             `-- source `actions` here
               `----
                ,-[cart.toml:23:12]
             23 | [operators.actions]
                :            ^^^|^^^
                :               `-- operator `actions` here
                `----
              help: sources, operators and sinks share their names: rename one
        "#]],
    );
}

#[test]
fn a_sink_named_as_an_operator() {
    check(
        &[("[sinks.out]", "[sinks.added]")],
        expect![[r#"
              x two sections are named `added`
                ,-[cart.toml:28:12]
             28 | [operators.added]
                :            ^^|^^
                :              `-- operator `added` here
                `----
                ,-[cart.toml:35:8]
             35 | [sinks.added]
                :        ^^|^^
                :          `-- sink `added` here
                `----
              help: sources, operators and sinks share their names: rename one
        "#]],
    );
}
