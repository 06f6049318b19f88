//! Values that are not what their key wants.

use expect_test::expect;

use crate::plan::tests::support::check;

#[test]
fn texts_and_numbers() {
    check(
        &[
            (
                "parallelism = 2",
                r#"parallelism = "2"
batch_rows = 0.5"#,
            ),
            (r#"path = "out.jsonl""#, "path = 7"),
        ],
        expect![[r#"
              x `parallelism` of the pipeline must be a whole number from 1 to 256
               ,-[cart.toml:2:15]
             2 | parallelism = "2"
               :               ^|^
               :                `-- this is a text
               `----

              x `batch_rows` of the pipeline must be a whole number from 1 to 65536
               ,-[cart.toml:3:14]
             3 | batch_rows = 0.5
               :              ^|^
               :               `-- this is a number
               `----

              x `path` of sink `out` must be a path, in quotes
                ,-[cart.toml:39:8]
             39 | path = 7
                :        |
                :        `-- this is a whole number
                `----
        "#]],
    );
}

#[test]
fn numbers_out_of_range() {
    check(
        &[(
            "parallelism = 2",
            "parallelism = 0\nbatch_rows = 99999999999999999999",
        )],
        expect![[r#"
              x `parallelism` of the pipeline must be a whole number from 1 to 256
               ,-[cart.toml:2:15]
             2 | parallelism = 0
               :               ^
               `----

              x `batch_rows` of the pipeline must be a whole number from 1 to 65536
               ,-[cart.toml:3:14]
             3 | batch_rows = 99999999999999999999
               :              ^^^^^^^^^^^^^^^^^^^^
               `----
        "#]],
    );
}

#[test]
fn durations() {
    check(
        &[
            (r#""2s""#, r#""2""#),
            (r#""1m""#, r#""-1m""#),
            (r#""10s""#, r#""10 parsecs""#),
        ],
        expect![[r#"
              x `out_of_orderness` of `watermark` of source `actions` is not a duration: a duration needs a unit
                ,-[cart.toml:11:34]
             11 | watermark = { out_of_orderness = "2" }
                :                                  ^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"

              x `tumbling` of `window` of operator `added` is not a duration: a duration cannot be negative
                ,-[cart.toml:32:23]
             32 | window = { tumbling = "-1m" }
                :                       ^^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"

              x `allowed_lateness` of operator `added` is not a duration: `parsecs` is not a unit of time
                ,-[cart.toml:33:20]
             33 | allowed_lateness = "10 parsecs"
                :                    ^^^^^^^^^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"
        "#]],
    );
}

#[test]
fn durations_without_one_length_or_in_parts_of_a_millisecond() {
    check(
        &[
            (r#""2s""#, r#""5M""#),
            (r#""1m""#, r#""1500us""#),
            (r#""10s""#, r#""200 years""#),
        ],
        expect![[r#"
              x `out_of_orderness` of `watermark` of source `actions` is not a duration: `M` is not a unit of one length; minutes are `m`
                ,-[cart.toml:11:34]
             11 | watermark = { out_of_orderness = "5M" }
                :                                  ^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"

              x `tumbling` of `window` of operator `added` is not a duration: it must be a whole number of milliseconds
                ,-[cart.toml:32:23]
             32 | window = { tumbling = "1500us" }
                :                       ^^^^^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"

              x `allowed_lateness` of operator `added` is not a duration: `years` is not a unit of one length; minutes are `m`
                ,-[cart.toml:33:20]
             33 | allowed_lateness = "200 years"
                :                    ^^^^^^^^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"
        "#]],
    );
}

#[test]
fn a_duration_as_a_number() {
    check(
        &[(r#""10s""#, "10")],
        expect![[r#"
              x `allowed_lateness` of operator `added` must be a duration, such as "500ms", "5s" or "1h 30m"
                ,-[cart.toml:33:20]
             33 | allowed_lateness = 10
                :                    ^|
                :                     `-- this is a whole number
                `----
        "#]],
    );
}

#[test]
fn sizes() {
    check(
        &[(
            "parameters = { max_quantity = 100 }",
            r#"limits = { memory = "64", output = "1 TiB", time = "0s" }"#,
        )],
        expect![[r#"
              x `memory` of `limits` of operator `clean` is not a size: a size needs a unit
                ,-[cart.toml:26:21]
             26 | limits = { memory = "64", output = "1 TiB", time = "0s" }
                :                     ^^^^
                `----
              help: write a whole number with B, KiB, MiB or GiB, such as "64MiB"

              x `output` of `limits` of operator `clean` is not a size: `TiB` is not a unit of size
                ,-[cart.toml:26:36]
             26 | limits = { memory = "64", output = "1 TiB", time = "0s" }
                :                                    ^^^^^^^
                `----
              help: write a whole number with B, KiB, MiB or GiB, such as "64MiB"

              x `time` of `limits` of operator `clean` must be at least 1ms
                ,-[cart.toml:26:52]
             26 | limits = { memory = "64", output = "1 TiB", time = "0s" }
                :                                                    ^^^^
                `----
        "#]],
    );
}

#[test]
fn sizes_out_of_range() {
    check(
        &[(
            "parameters = { max_quantity = 100 }",
            r#"limits = { memory = "1KiB", output = "99999999999GiB" }"#,
        )],
        expect![[r#"
              x `memory` of `limits` of operator `clean` must be from 1MiB to 4GiB
                ,-[cart.toml:26:21]
             26 | limits = { memory = "1KiB", output = "99999999999GiB" }
                :                     ^^^^^^
                `----

              x `output` of `limits` of operator `clean` is not a size: it is too large
                ,-[cart.toml:26:38]
             26 | limits = { memory = "1KiB", output = "99999999999GiB" }
                :                                      ^^^^^^^^^^^^^^^^
                `----
              help: write a whole number with B, KiB, MiB or GiB, such as "64MiB"
        "#]],
    );
}

#[test]
fn choices() {
    check(
        &[
            (
                r#"type = "file"
path = "events.jsonl""#,
                r#"type = "files"
path = "events.jsonl""#,
            ),
            (r#"type = "console""#, r#"type = "kafka""#),
        ],
        expect![[r#"
              x `type` of source `actions` cannot be `files`
               ,-[cart.toml:8:8]
             8 | type = "files"
               :        ^^^^^^^
               `----
              help: did you mean `file`? The choices are: file, tcp, generator

              x `type` of sink `too_late` cannot be `kafka`
                ,-[cart.toml:41:8]
             41 | type = "kafka"
                :        ^^^^^^^
                `----
              help: the choices are: file, console, blackhole
        "#]],
    );
}

#[test]
fn policies() {
    check(
        &[
            (
                "parameters = { max_quantity = 100 }",
                r#"on_error = "retry""#,
            ),
            (r#"event_time = "ts""#, r#"on_error = "retry""#),
            (r#"allowed_lateness = "10s""#, "on_error = { retry = 1000 }"),
        ],
        expect![[r#"
              x `on_error` of source `actions` cannot be `retry`
                ,-[cart.toml:10:12]
             10 | on_error = "retry"
                :            ^^^^^^^
                `----
              help: the choices are: fail, skip, dead_letter

              x `on_error` of operator `clean` must be told how often to retry: { retry = 3 }
                ,-[cart.toml:26:12]
             26 | on_error = "retry"
                :            ^^^|^^^
                :               `-- this is a text
                `----

              x `retry` of `on_error` of operator `added` must be a whole number from 1 to 100
                ,-[cart.toml:33:22]
             33 | on_error = { retry = 1000 }
                :                      ^^^^
                `----
        "#]],
    );
}

#[test]
fn names() {
    check(
        &[
            ("[plugins.cart]", r#"[plugins."my.cart"]"#),
            ("[operators.clean]", r#"[operators."clean rows"]"#),
            (r#"name = "cart""#, r#"name = """#),
        ],
        expect![[r#"
              x `` cannot be the name of the pipeline
               ,-[cart.toml:1:8]
             1 | name = ""
               :        ^^
               `----
              help: names start with a letter and have up to 100 of: letters, digits, _ and -

              x `my.cart` cannot be the name of this plugin
               ,-[cart.toml:4:10]
             4 | [plugins."my.cart"]
               :          ^^^^^^^^^
               `----
              help: names start with a letter and have up to 100 of: letters, digits, _ and -

              x `clean rows` cannot be the name of this operator
                ,-[cart.toml:23:12]
             23 | [operators."clean rows"]
                :            ^^^^^^^^^^^^
                `----
              help: names start with a letter and have up to 100 of: letters, digits, _ and -
        "#]],
    );
}

#[test]
fn operator_names() {
    check(
        &[
            (r#"plugin = "cart.clean""#, r#"plugin = "cart""#),
            (r#"plugin = "cart.added""#, r#"plugin = ".added""#),
        ],
        expect![[r#"
              x `plugin` of operator `clean` does not name an operator of a plugin
                ,-[cart.toml:24:10]
             24 | plugin = "cart"
                :          ^^^^^^
                `----
              help: write the plugin's name, a dot, and its operator's name, such as "cart.clean"

              x `plugin` of operator `added` does not name an operator of a plugin
                ,-[cart.toml:29:10]
             29 | plugin = ".added"
                :          ^^^^^^^^
                `----
              help: write the plugin's name, a dot, and its operator's name, such as "cart.clean"
        "#]],
    );
}

#[test]
fn inputs() {
    check(
        &[
            (r#"input = "clean""#, "input = []"),
            (r#"input = "added""#, r#"input = ["added", "added"]"#),
            (r#"input = "added.late""#, r#"input = "added.early""#),
        ],
        expect![[r#"
              x `input` of operator `added` names nothing
                ,-[cart.toml:30:9]
             30 | input = []
                :         ^|
                :          `-- an empty list
                `----
              help: write the source or operator whose rows it takes, or a list of them

              x `input` of sink `out` names `added` twice
                ,-[cart.toml:37:19]
             37 | input = ["added", "added"]
                :          ^^^|^^^  ^^^|^^^
                :             |        `-- again here
                :             `-- first here
                `----
              help: name it once: each of its rows would come twice

              x `input` of sink `too_late`: `added` has no output `early`
                ,-[cart.toml:42:9]
             42 | input = "added.early"
                :         ^^^^^^^^^^^^^
                `----
              help: write "added" for its rows, or "added.late" for those that came too late
        "#]],
    );
}

#[test]
fn paths() {
    check(
        &[
            (r#"path = "out.jsonl""#, r#"path = """#),
            (r#"path = "events.jsonl""#, "path = []"),
        ],
        expect![[r#"
              x `path` of source `actions` names no file
               ,-[cart.toml:9:8]
             9 | path = []
               :        ^|
               :         `-- an empty list
               `----
              help: write the path of a file, or a pattern such as "events/*.jsonl"

              x `path` of sink `out` is not a path
                ,-[cart.toml:38:8]
             38 | path = ""
                :        ^^
                `----
              help: write the path of a file, from the pipeline file's folder
        "#]],
    );
}

#[test]
fn parameters() {
    check(
        &[(
            "{ max_quantity = 100 }",
            r#"{ max_quantity = 2026-01-01, label = ["a", 1], share = 99999999999999999999 }"#,
        )],
        expect![[r#"
              x `max_quantity` of `parameters` of operator `clean` must be true or false, a number of 64 bits, a text, or a list of texts
                ,-[cart.toml:26:31]
             26 | parameters = { max_quantity = 2026-01-01, label = ["a", 1], share = 99999999999999999999 }
                :                               ^^^^^|^^^^
                :                                    `-- this is a date or time
                `----

              x `label` of `parameters` of operator `clean` must be true or false, a number of 64 bits, a text, or a list of texts
                ,-[cart.toml:26:51]
             26 | parameters = { max_quantity = 2026-01-01, label = ["a", 1], share = 99999999999999999999 }
                :                                                   ^^^^|^^^
                :                                                       `-- this is a list
                `----

              x `share` of `parameters` of operator `clean` must be true or false, a number of 64 bits, a text, or a list of texts
                ,-[cart.toml:26:69]
             26 | parameters = { max_quantity = 2026-01-01, label = ["a", 1], share = 99999999999999999999 }
                :                                                                     ^^^^^^^^^^|^^^^^^^^^
                :                                                                               `-- this is a whole number
                `----
        "#]],
    );
}

#[test]
fn csv() {
    check(
        &[(
            r#"path = "events.jsonl""#,
            r#"path = "table.csv"
csv = { delimiter = ";;" }"#,
        )],
        expect![[r#"
              x `delimiter` of `csv` of source `actions` must be one ASCII character other than a quote or line end
                ,-[cart.toml:10:21]
             10 | csv = { delimiter = ";;" }
                :                     ^^|^
                :                       `-- this is a text
                `----

              x a field of a csv file cannot be `tags: list<utf8>`
                ,-[cart.toml:21:1]
             21 | tags = "list<utf8>"
                : ^^|^
                :   `-- a list or record
                `----
              help: csv has only single values: use json, or a field of text
        "#]],
    );
}

#[test]
fn csv_settings_of_json() {
    check(
        &[(
            r#"path = "events.jsonl""#,
            r#"path = "events.jsonl"
csv = { delimiter = ";" }"#,
        )],
        expect![[r#"
              x source `actions` has `csv` settings, and its format is json
                ,-[cart.toml:10:1]
             10 | csv = { delimiter = ";" }
                : ^^^
                `----
              help: remove them, or write `format = "csv"`
        "#]],
    );
}

#[test]
fn addresses() {
    check(
        &[(
            "",
            r#"
[sources.lines]
type = "tcp"
listen = "9000"
framing = "lines"
connections = 0
fields = { a = "utf8" }
"#,
        )],
        expect![[r#"
              x `listen` of source `lines` is not an address to listen on
                ,-[cart.toml:46:10]
             46 | listen = "9000"
                :          ^^^^^^
                `----
              help: write a host and a port, such as "127.0.0.1:9000" or "[::1]:9000"

              x `framing` of source `lines` cannot be `lines`
                ,-[cart.toml:47:11]
             47 | framing = "lines"
                :           ^^^^^^^
                `----
              help: the choices are: newline, length_prefixed

              x `connections` of source `lines` must be a whole number of at least 1
                ,-[cart.toml:48:15]
             48 | connections = 0
                :               ^
                `----
        "#]],
    );
}

#[test]
fn generators() {
    check(
        &[(
            "",
            r#"
[sources.made]
type = "generator"
rate = 0
users = 0
start = "yesterday"
jitter = "soon"
"#,
        )],
        expect![[r#"
              x `rate` of source `made` must be a number above 0
                ,-[cart.toml:46:8]
             46 | rate = 0
                :        ^
                `----

              x `users` of source `made` must be a whole number from 1 to 4294967295
                ,-[cart.toml:47:9]
             47 | users = 0
                :         ^
                `----

              x `start` of source `made` must be a time such as "2026-01-31T12:00:00Z"
                ,-[cart.toml:48:9]
             48 | start = "yesterday"
                :         ^^^^^^^^^^^
                `----
              help: give date, time and offset (`Z` is UTC)

              x `jitter` of source `made` is not a duration: a number is missing
                ,-[cart.toml:49:10]
             49 | jitter = "soon"
                :          ^^^^^^
                `----
              help: write a number with ms, s, m, h or d, such as "500ms" or "1h 30m"
        "#]],
    );
}
