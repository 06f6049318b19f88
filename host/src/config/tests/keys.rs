//! Keys that are unknown or not there.

use expect_test::expect;

use crate::plan::tests::support::check;

#[test]
fn a_misspelt_key_of_an_operator() {
    check(
        &[("allowed_lateness", "alowed_lateness")],
        expect![[r#"
              x operator `added` has an unknown key `alowed_lateness`
                ,-[cart.toml:33:1]
             33 | alowed_lateness = "10s"
                : ^^^^^^^|^^^^^^^
                :        `-- unknown key
                `----
              help: did you mean `allowed_lateness`? The keys here are: plugin, input, parameters, on_error, limits, key, window, allowed_lateness, early_every, bounds
        "#]],
    );
}

#[test]
fn a_misspelt_key_of_the_pipeline() {
    check(
        &[("parallelism = 2", "paralelism = 2")],
        expect![[r#"
              x the pipeline has an unknown key `paralelism`
               ,-[cart.toml:2:1]
             2 | paralelism = 2
               : ^^^^^|^^^^
               :      `-- unknown key
               `----
              help: did you mean `parallelism`? The keys here are: name, parallelism, batch_rows, dead_letters, plugins, sources, operators, sinks
        "#]],
    );
}

#[test]
fn a_misspelt_section() {
    check(
        &[("[operators.added]", "[operator.added]")],
        expect![[r#"
              x the pipeline has an unknown key `operator`
                ,-[cart.toml:28:2]
             28 | [operator.added]
                :  ^^^^|^^^
                :      `-- unknown key
                `----
              help: did you mean `operators`? The keys here are: name, parallelism, batch_rows, dead_letters, plugins, sources, operators, sinks
        "#]],
    );
}

#[test]
fn a_key_of_another_kind_of_sink() {
    check(
        &[(
            r#"type = "console""#,
            r#"type = "console"
path = "late.csv""#,
        )],
        expect![[r#"
              x sink `too_late` has an unknown key `path`
                ,-[cart.toml:42:1]
             42 | path = "late.csv"
                : ^^|^
                :   `-- unknown key
                `----
              help: the keys here are: input, type, rows
        "#]],
    );
}

#[test]
fn a_key_in_a_nested_table() {
    check(
        &[(
            r#"{ out_of_orderness = "2s" }"#,
            r#"{ out_of_order = "2s", idle = "1m" }"#,
        )],
        expect![[r#"
              x `watermark` of source `actions` has an unknown key `out_of_order`
                ,-[cart.toml:11:15]
             11 | watermark = { out_of_order = "2s", idle = "1m" }
                :               ^^^^^^|^^^^^
                :                     `-- unknown key
                `----
              help: did you mean `out_of_orderness`? The keys here are: out_of_orderness, idle_after

              x `watermark` of source `actions` has an unknown key `idle`
                ,-[cart.toml:11:36]
             11 | watermark = { out_of_order = "2s", idle = "1m" }
                :                                    ^^|^
                :                                      `-- unknown key
                `----
              help: the keys here are: out_of_orderness, idle_after
        "#]],
    );
}

#[test]
fn an_operator_without_input() {
    check(
        &[(
            r#"input = "clean"
"#,
            "",
        )],
        expect![[r#"
              x operator `added` has no `input`
                ,-[cart.toml:28:12]
             28 | [operators.added]
                :            ^^^^^
                `----
              help: add `input = …`: the source or operator whose rows it takes, or a list of them
        "#]],
    );
}

#[test]
fn a_sink_without_input() {
    check(
        &[(
            r#"input = "added"
"#,
            "",
        )],
        expect![[r#"
              x sink `out` has no `input`
                ,-[cart.toml:35:8]
             35 | [sinks.out]
                :        ^^^
                `----
              help: add `input = …`: the source or operator whose rows it takes, or a list of them
        "#]],
    );
}

#[test]
fn a_source_without_type_path_or_fields() {
    check(
        &[(
            "",
            r#"[sources.empty]
[sources.file]
type = "file"
"#,
        )],
        expect![[r#"
              x source `empty` has no `type`
                ,-[cart.toml:43:10]
             43 | [sources.empty]
                :          ^^^^^
                `----
              help: add `type = …`: file, tcp or generator

              x source `file` has no `path`
                ,-[cart.toml:44:10]
             44 | [sources.file]
                :          ^^^^
                `----
              help: add `path = …`: a file, several, or a pattern such as "events/*.jsonl"

              x source `file` has no `fields`
                ,-[cart.toml:44:10]
             44 | [sources.file]
                :          ^^^^
                `----
              help: add `fields = …`: a table of the rows' fields and their types
        "#]],
    );
}

#[test]
fn an_operator_without_plugin() {
    check(
        &[(
            r#"plugin = "cart.added"
"#,
            "",
        )],
        expect![[r#"
              x operator `added` has no `plugin`
                ,-[cart.toml:28:12]
             28 | [operators.added]
                :            ^^^^^
                `----
              help: add `plugin = …`: a plugin's name and its operator's, such as "cart.clean"
        "#]],
    );
}

#[test]
fn a_misspelt_required_key_is_reported_once() {
    check(
        &[(r#"plugin = "cart.added""#, r#"plugins = "cart.added""#)],
        expect![[r#"
              x operator `added` has an unknown key `plugins`
                ,-[cart.toml:29:1]
             29 | plugins = "cart.added"
                : ^^^|^^^
                :    `-- unknown key
                `----
              help: did you mean `plugin`? The keys here are: plugin, input, parameters, on_error, limits, key, window, allowed_lateness, early_every, bounds
        "#]],
    );
}

#[test]
fn a_pipeline_without_name() {
    check(
        &[(
            r#"name = "cart"
"#,
            "",
        )],
        expect![[r#"
              x the pipeline has no `name`
               ,-[cart.toml:1:1]
             1 | parallelism = 2
               : ^
               `----
              help: add `name = …`: what its checkpoints and dead letters are known by
        "#]],
    );
}

#[test]
fn a_format_that_the_path_does_not_tell() {
    check(
        &[
            (r#""events.jsonl""#, r#""events.log""#),
            (r#""out.jsonl""#, r#""out""#),
        ],
        expect![[r#"
              x source `actions` has no `format`
               ,-[cart.toml:7:10]
             7 | [sources.actions]
               :          ^^^^^^^
               `----
              help: the file's name does not tell it: add `format = "json"` or "csv"

              x sink `out` has no `format`
                ,-[cart.toml:35:8]
             35 | [sinks.out]
                :        ^^^
                `----
              help: the file's name does not tell it: add `format = "json"`, "csv" or "parquet"
        "#]],
    );
}
