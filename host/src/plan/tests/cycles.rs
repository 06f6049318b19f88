//! Rows that would go in a circle.

use expect_test::expect;

use super::support::check;

#[test]
fn two_operators() {
    check(
        &[(r#"input = "actions""#, r#"input = ["actions", "added"]"#)],
        expect![[r#"
              x rows would go in a circle: clean → added → clean
                ,-[cart.toml:25:21]
             25 | input = ["actions", "added"]
                :                     ^^^|^^^
                :                        `-- input of `clean`
                `----
                ,-[cart.toml:30:9]
             30 | input = "clean"
                :         ^^^|^^^
                :            `-- input of `added`
                `----
              help: take one of these inputs away: rows flow from sources to sinks
        "#]],
    );
}

#[test]
fn an_operator_that_reads_itself() {
    check(
        &[(r#"input = "clean""#, r#"input = "added""#)],
        expect![[r#"
              x rows would go in a circle: added → added
                ,-[cart.toml:30:9]
             30 | input = "added"
                :         ^^^|^^^
                :            `-- input of `added`
                `----
              help: take one of these inputs away: rows flow from sources to sinks
        "#]],
    );
}

#[test]
fn the_late_output_is_a_way_too() {
    check(
        &[(
            r#"input = "actions""#,
            r#"input = ["actions", "added.late"]"#,
        )],
        expect![[r#"
              x rows would go in a circle: clean → added → clean
                ,-[cart.toml:25:21]
             25 | input = ["actions", "added.late"]
                :                     ^^^^^^|^^^^^
                :                           `-- input of `clean`
                `----
                ,-[cart.toml:30:9]
             30 | input = "clean"
                :         ^^^|^^^
                :            `-- input of `added`
                `----
              help: take one of these inputs away: rows flow from sources to sinks
        "#]],
    );
}

#[test]
fn two_cycles_and_what_follows_them() {
    check(
        &[
            (r#"input = "clean""#, r#"input = "added""#),
            (r#"input = "actions""#, r#"input = "other""#),
            (
                "",
                r#"
[operators.other]
plugin = "cart.priced"
input = ["clean", "actions"]
"#,
            ),
        ],
        expect![[r#"
              x rows would go in a circle: clean → other → clean
                ,-[cart.toml:25:9]
             25 | input = "other"
                :         ^^^|^^^
                :            `-- input of `clean`
                `----
                ,-[cart.toml:46:10]
             46 | input = ["clean", "actions"]
                :          ^^^|^^^
                :             `-- input of `other`
                `----
              help: take one of these inputs away: rows flow from sources to sinks

              x rows would go in a circle: added → added
                ,-[cart.toml:30:9]
             30 | input = "added"
                :         ^^^|^^^
                :            `-- input of `added`
                `----
              help: take one of these inputs away: rows flow from sources to sinks
        "#]],
    );
}
