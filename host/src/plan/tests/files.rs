//! Files that are used twice, or are not there.

use expect_test::expect;

use super::support::check;

#[test]
fn two_sinks() {
    check(
        &[(
            r#"type = "console"
input = "added.late""#,
            r#"type = "file"
input = "added.late"
path = "out.jsonl""#,
        )],
        expect![[r#"
              x one file is used twice: sink `too_late` writes it, and sink `out` writes it (/pipelines/out.jsonl)
                ,-[cart.toml:38:8]
             38 | path = "out.jsonl"
                :        ^^^^^|^^^^^
                :             `-- sink `out` writes it
                `----
                ,-[cart.toml:43:8]
             43 | path = "out.jsonl"
                :        ^^^^^|^^^^^
                :             `-- sink `too_late` writes it
                `----
              help: give another file to one of them
        "#]],
    );
}

#[test]
fn two_sinks_by_two_spellings() {
    check(
        &[(
            r#"type = "console"
input = "added.late""#,
            r#"type = "file"
input = "added.late"
path = "data/../data/.././out.jsonl""#,
        )],
        expect![[r#"
              x one file is used twice: sink `too_late` writes it, and sink `out` writes it (/pipelines/out.jsonl)
                ,-[cart.toml:38:8]
             38 | path = "out.jsonl"
                :        ^^^^^|^^^^^
                :             `-- sink `out` writes it
                `----
                ,-[cart.toml:43:8]
             43 | path = "data/../data/.././out.jsonl"
                :        ^^^^^^^^^^^^^^|^^^^^^^^^^^^^^
                :                      `-- sink `too_late` writes it
                `----
              help: give another file to one of them
        "#]],
    );
}

#[test]
fn a_sink_and_a_source() {
    check(
        &[(r#"path = "out.jsonl""#, r#"path = "events.jsonl""#)],
        expect![[r#"
              x one file is used twice: sink `out` writes it, and source `actions` reads it (/pipelines/events.jsonl)
               ,-[cart.toml:9:8]
             9 | path = "events.jsonl"
               :        ^^^^^^^|^^^^^^
               :               `-- source `actions` reads it
               `----
                ,-[cart.toml:38:8]
             38 | path = "events.jsonl"
                :        ^^^^^^^|^^^^^^
                :               `-- sink `out` writes it
                `----
              help: give another file to one of them
        "#]],
    );
}

#[test]
fn a_sink_and_a_pattern() {
    check(
        &[
            (r#"path = "events.jsonl""#, r#"path = "*.jsonl""#),
            (r#"path = "out.jsonl""#, r#"path = "data/../new.jsonl""#),
        ],
        expect![[r#"
              x one file is used twice: the dead letters go there, and source `actions` reads it (/pipelines/cart.dead.jsonl)
               ,-[cart.toml:1:8]
             1 | name = "cart"
               :        ^^^|^^
               :           `-- the dead letters go there
               `----
               ,-[cart.toml:9:8]
             9 | path = "*.jsonl"
               :        ^^^^|^^^^
               :            `-- source `actions` reads it
               `----
              help: give another file to one of them; that of the dead letters is `dead_letters = "…"`

              x one file is used twice: sink `out` writes it, and source `actions` reads it (/pipelines/new.jsonl)
               ,-[cart.toml:9:8]
             9 | path = "*.jsonl"
               :        ^^^^|^^^^
               :            `-- source `actions` reads it
               `----
                ,-[cart.toml:38:8]
             38 | path = "data/../new.jsonl"
                :        ^^^^^^^^^|^^^^^^^^^
                :                 `-- sink `out` writes it
                `----
              help: give another file to one of them
        "#]],
    );
}

#[test]
fn a_sink_and_the_dead_letters() {
    check(
        &[(r#"path = "out.jsonl""#, r#"path = "cart.dead.jsonl""#)],
        expect![[r#"
              x one file is used twice: the dead letters go there, and sink `out` writes it (/pipelines/cart.dead.jsonl)
               ,-[cart.toml:1:8]
             1 | name = "cart"
               :        ^^^|^^
               :           `-- the dead letters go there
               `----
                ,-[cart.toml:38:8]
             38 | path = "cart.dead.jsonl"
                :        ^^^^^^^^|^^^^^^^^
                :                `-- sink `out` writes it
                `----
              help: give another file to one of them; that of the dead letters is `dead_letters = "…"`
        "#]],
    );
}

#[test]
fn a_sink_and_the_named_dead_letters() {
    check(
        &[
            ("parallelism = 2", r#"dead_letters = "data/dead.jsonl""#),
            (r#"path = "out.jsonl""#, r#"path = "data/dead.jsonl""#),
        ],
        expect![[r#"
              x one file is used twice: the dead letters go there, and sink `out` writes it (/pipelines/data/dead.jsonl)
               ,-[cart.toml:2:16]
             2 | dead_letters = "data/dead.jsonl"
               :                ^^^^^^^^|^^^^^^^^
               :                        `-- the dead letters go there
               `----
                ,-[cart.toml:38:8]
             38 | path = "data/dead.jsonl"
                :        ^^^^^^^^|^^^^^^^^
                :                `-- sink `out` writes it
                `----
              help: give another file to one of them; that of the dead letters is `dead_letters = "…"`
        "#]],
    );
}

#[test]
fn the_dead_letters_and_a_source() {
    check(
        &[("parallelism = 2", r#"dead_letters = "events.jsonl""#)],
        expect![[r#"
              x one file is used twice: the dead letters go there, and source `actions` reads it (/pipelines/events.jsonl)
               ,-[cart.toml:2:16]
             2 | dead_letters = "events.jsonl"
               :                ^^^^^^^|^^^^^^
               :                       `-- the dead letters go there
               `----
               ,-[cart.toml:9:8]
             9 | path = "events.jsonl"
               :        ^^^^^^^|^^^^^^
               :               `-- source `actions` reads it
               `----
              help: give another file to one of them; that of the dead letters is `dead_letters = "…"`
        "#]],
    );
}

#[test]
fn a_sink_and_a_plugin() {
    check(
        &[(
            r#"path = "out.jsonl""#,
            r#"path = "cart.wasm"
format = "json""#,
        )],
        expect![[r#"
              x one file is used twice: sink `out` writes it, and plugin `cart` is in it (/pipelines/cart.wasm)
               ,-[cart.toml:5:8]
             5 | path = "cart.wasm"
               :        ^^^^^|^^^^^
               :             `-- plugin `cart` is in it
               `----
                ,-[cart.toml:38:8]
             38 | path = "cart.wasm"
                :        ^^^^^|^^^^^
                :             `-- sink `out` writes it
                `----
              help: give another file to one of them
        "#]],
    );
}

#[test]
fn a_source_that_is_not_there() {
    check(
        &[(
            r#"path = "events.jsonl""#,
            r#"path = ["events.jsonl", "event.jsonl", "data"]
format = "json""#,
        )],
        expect![[r#"
              x source `actions` reads /pipelines/event.jsonl, which does not exist
               ,-[cart.toml:9:25]
             9 | path = ["events.jsonl", "event.jsonl", "data"]
               :                         ^^^^^^^^^^^^^
               `----
              help: did you mean `events.jsonl`?

              x source `actions` reads /pipelines/data, which is a folder
               ,-[cart.toml:9:40]
             9 | path = ["events.jsonl", "event.jsonl", "data"]
               :                                        ^^^^^^
               `----
              help: name its files: "data/*.jsonl"
        "#]],
    );
}

#[test]
fn a_pattern_that_matches_nothing() {
    check(
        &[(r#"path = "events.jsonl""#, r#"path = "*.ndjson""#)],
        expect![[r#"
              x source `actions` reads `*.ndjson`, which no file in /pipelines matches
               ,-[cart.toml:9:8]
             9 | path = "*.ndjson"
               :        ^^^^^^^^^^
               `----
              help: `*` stands for any characters of a file's name
        "#]],
    );
}

#[test]
fn a_pattern_in_a_folder_that_is_not_there() {
    check(
        &[(r#"path = "events.jsonl""#, r#"path = "none/*.jsonl""#)],
        expect![[r#"
              x source `actions` cannot look for `*.jsonl` in /pipelines/none/: No such file or directory (os error 2)
               ,-[cart.toml:9:8]
             9 | path = "none/*.jsonl"
               :        ^^^^^^^^^^^^^^
               `----
              help: paths are relative to the pipeline's file
        "#]],
    );
}

#[test]
fn a_pattern_in_the_name_of_a_folder() {
    check(
        &[(r#"path = "events.jsonl""#, r#"path = "da*/x.jsonl""#)],
        expect![[r#"
              x source `actions`: `da*/x.jsonl` has a `*` in a folder's name
               ,-[cart.toml:9:8]
             9 | path = "da*/x.jsonl"
               :        ^^^^^^^^^^^^^
               `----
              help: only the last part of a path can have one: "events/*.jsonl"
        "#]],
    );
}
