//! A file that is not TOML.

use expect_test::expect;

use crate::plan::tests::support::check;

#[test]
fn a_value_without_quotes() {
    check(
        &[(r#"path = "out.jsonl""#, "path = out.jsonl")],
        expect![[r#"
              x this is not TOML: string values must be quoted, expected literal string
                ,-[cart.toml:38:8]
             38 | path = out.jsonl
                :        ^^^^^^^^^
                `----
        "#]],
    );
}

#[test]
fn several_lines_are_reported_together() {
    check(
        &[
            ("parallelism = 2", "parallelism = "),
            ("[sinks.out]", "[sinks.out"),
        ],
        expect![[r#"
              x a value is missing
               ,-[cart.toml:2:14]
             2 | parallelism = 
               :              |
               :              `-- after this
               `----

              x this is not TOML: unclosed table, expected `]`
                ,-[cart.toml:35:10]
             35 | [sinks.out
                :          ^
                `----
        "#]],
    );
}

#[test]
fn a_key_twice() {
    check(
        &[(
            r#"input = "clean""#,
            r#"input = "clean"
input = "actions""#,
        )],
        expect![[r#"
              x this is not TOML: duplicate key
                ,-[cart.toml:31:1]
             31 | input = "actions"
                : ^^^^^
                `----
        "#]],
    );
}

#[test]
fn a_section_twice() {
    check(
        &[(
            "",
            r#"
[sinks.out]
type = "blackhole"
"#,
        )],
        expect![[r#"
              x this is not TOML: duplicate key
                ,-[cart.toml:44:8]
             44 | [sinks.out]
                :        ^^^
                `----

              x this is not TOML: duplicate key
                ,-[cart.toml:45:1]
             45 | type = "blackhole"
                : ^^^^
                `----
        "#]],
    );
}
