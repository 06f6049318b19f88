//! Types of fields that do not exist.

use expect_test::expect;

use crate::plan::tests::support::check;

#[test]
fn names_of_other_systems() {
    check(
        &[(
            r#"quantity = "int64""#,
            r#"quantity = "integer"
notes = "String"
at = "datetime?""#,
        )],
        expect![[r#"
              x `quantity` of `fields` of source `actions`: `integer` is not a type
                ,-[cart.toml:17:12]
             17 | quantity = "integer"
                :            ^^^^^^^^^
                `----
              help: it is called `int64` here

              x `notes` of `fields` of source `actions`: `String` is not a type
                ,-[cart.toml:18:9]
             18 | notes = "String"
                :         ^^^^^^^^
                `----
              help: it is called `utf8` here

              x `at` of `fields` of source `actions`: `datetime` is not a type
                ,-[cart.toml:19:6]
             19 | at = "datetime?"
                :      ^^^^^^^^^^^
                `----
              help: it is called `timestamp` here
        "#]],
    );
}

#[test]
fn misspelt() {
    check(
        &[
            (r#"quantity = "int64""#, r#"quantity = "int46""#),
            (r#"tags = "list<utf8>""#, r#"tags = "list<utf>""#),
        ],
        expect![[r#"
              x `quantity` of `fields` of source `actions`: `int46` is not a type
                ,-[cart.toml:17:12]
             17 | quantity = "int46"
                :            ^^^^^^^
                `----
              help: did you mean `int64`? The types are: bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, utf8, bytes, timestamp, list<…>

              x `tags` of `fields` of source `actions`: `utf` is not a type
                ,-[cart.toml:20:8]
             20 | tags = "list<utf>"
                :        ^^^^^^^^^^^
                `----
              help: did you mean `utf8`? The types are: bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, utf8, bytes, timestamp, list<…>
        "#]],
    );
}

#[test]
fn timestamps() {
    check(
        &[(r#"ts = "timestamp""#, r#"ts = "timestamp(us)""#)],
        expect![[r#"
              x `ts` of `fields` of source `actions`: a timestamp cannot be `us`
                ,-[cart.toml:21:6]
             21 | ts = "timestamp(us)"
                :      ^^^^^^^^^^^^^^^
                `----
              help: write timestamp, timestamp(ms), timestamp(s) or timestamp(rfc3339)
        "#]],
    );
}

#[test]
fn symbols() {
    check(
        &[
            ("add|remove|view", "add|remove|add"),
            (r#"note = "utf8?""#, r#"note = "a||b""#),
        ],
        expect![[r#"
              x `action` of `fields` of source `actions`: `add|remove|add` has the symbol `add` twice
                ,-[cart.toml:16:10]
             16 | action = "add|remove|add"
                :          ^^^^^^^^^^^^^^^^
                `----
              help: symbols are different texts with | between them, such as "add|remove|view"

              x `note` of `fields` of source `actions`: `a||b` has an empty symbol
                ,-[cart.toml:19:8]
             19 | note = "a||b"
                :        ^^^^^^
                `----
              help: symbols are different texts with | between them, such as "add|remove|view"
        "#]],
    );
}

#[test]
fn records() {
    check(
        &[(
            r#"note = "utf8?""#,
            r#"note = {}
address = { street = "utf8", zip = "txt" }
"?" = "utf8""#,
        )],
        expect![[r#"
              x `note` of `fields` of source `actions` is a record without members
                ,-[cart.toml:19:8]
             19 | note = {}
                :        ^^
                `----
              help: name them with their types, such as { street = "utf8" }

              x `zip` of `address` of `fields` of source `actions`: `txt` is not a type
                ,-[cart.toml:20:36]
             20 | address = { street = "utf8", zip = "txt" }
                :                                    ^^^^^
                `----
              help: the types are: bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, utf8, bytes, timestamp, list<…>

              x `?` of `fields` of source `actions`: a field needs a name
                ,-[cart.toml:21:1]
             21 | "?" = "utf8"
                : ^^^
                `----
        "#]],
    );
}

#[test]
fn lists() {
    check(
        &[(r#"tags = "list<utf8>""#, r#"tags = ["utf8"]"#)],
        expect![[r#"
              x `tags` of `fields` of source `actions` must be a type, such as "utf8", "list<int64>", { street = "utf8" } or [{ sku = "utf8" }]
                ,-[cart.toml:20:8]
             20 | tags = ["utf8"]
                :        ^^^^|^^^
                :            `-- this is a list
                `----
        "#]],
    );
}

#[test]
fn fields_twice() {
    check(
        &[(
            r#"note = "utf8?""#,
            r#"note = "utf8"
"note?" = { a = "utf8" }"#,
        )],
        expect![[r#"
              x `fields` of source `actions` has `note` twice
                ,-[cart.toml:20:1]
             19 | note = "utf8"
                : ^^|^
                :   `-- first here
             20 | "note?" = { a = "utf8" }
                : ^^^|^^^
                :    `-- again here
                `----
        "#]],
    );
}

#[test]
fn nested_in_csv() {
    check(
        &[(r#"path = "events.jsonl""#, r#"path = "table.csv""#)],
        expect![[r#"
              x a field of a csv file cannot be `tags: list<utf8>`
                ,-[cart.toml:20:1]
             20 | tags = "list<utf8>"
                : ^^|^
                :   `-- a list or record
                `----
              help: csv has only single values: use json, or a field of text
        "#]],
    );
}

#[test]
fn nested_too_deep() {
    check(
        &[(
            r#"tags = "list<utf8>""#,
            r#"tags = "list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<utf8>>>>>>>>>>>>>>>>>>>>""#,
        )],
        expect![[r#"
              x `tags` of `fields` of source `actions`: lists are nested more than 16 deep
                ,-[cart.toml:20:8]
             20 | tags = "list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<utf8>>>>>>>>>>>>>>>>>>>>"
                :        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
                `----
              help: make it flatter
        "#]],
    );
}
