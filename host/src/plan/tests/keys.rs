//! Keys of aggregates.

use expect_test::expect;

use super::support::check;

#[test]
fn an_unknown_field() {
    check(
        &[(r#"key = "user_id""#, r#"key = ["userid", "shop"]"#)],
        expect![[r#"
              x operator `added` has the key `userid`; operator `clean` has no such field
                ,-[cart.toml:31:8]
             30 | input = "clean"
                :         ^^^|^^^
                :            `-- rows come from here
             31 | key = ["userid", "shop"]
                :        ^^^^|^^^
                :            `-- the key
                `----
              help: did you mean `user_id`? The fields of operator `clean` are: user_id, item_id, action, quantity, price, note, tags, ts

              x operator `added` has the key `shop`; operator `clean` has no such field
                ,-[cart.toml:31:18]
             30 | input = "clean"
                :         ^^^|^^^
                :            `-- rows come from here
             31 | key = ["userid", "shop"]
                :                  ^^^|^^
                :                     `-- the key
                `----
              help: the fields of operator `clean` are: user_id, item_id, action, quantity, price, note, tags, ts
        "#]],
    );
}

#[test]
fn fields_that_are_not_compared() {
    check(
        &[(r#"key = "user_id""#, r#"key = ["price", "tags"]"#)],
        expect![[r#"
              x operator `added` cannot have `price: float64` as a key: floating-point numbers that look equal differ
                ,-[cart.toml:18:1]
             18 | price = "float64"
                : ^^|^^
                :   `-- `price: float64` is from here
                `----
                ,-[cart.toml:31:8]
             31 | key = ["price", "tags"]
                :        ^^^|^^^
                :           `-- the key
                `----
              help: keys are whole numbers, texts, symbols, bytes, booleans or timestamps

              x operator `added` cannot have `tags: list<utf8>` as a key: lists and records are not compared
                ,-[cart.toml:20:1]
             20 | tags = "list<utf8>"
                : ^^|^
                :   `-- `tags: list<utf8>` is from here
                `----
                ,-[cart.toml:31:17]
             31 | key = ["price", "tags"]
                :                 ^^^|^^
                :                    `-- the key
                `----
              help: keys are whole numbers, texts, symbols, bytes, booleans or timestamps
        "#]],
    );
}

#[test]
fn a_field_twice() {
    check(
        &[(r#"key = "user_id""#, r#"key = ["user_id", "user_id"]"#)],
        expect![[r#"
              x `key` of operator `added` has `user_id` twice
                ,-[cart.toml:31:19]
             31 | key = ["user_id", "user_id"]
                :        ^^^^|^^^^  ^^^^|^^^^
                :            |          `-- again here
                :            `-- first here
                `----
        "#]],
    );
}

#[test]
fn inputs_whose_key_differs() {
    check(
        &[
            (r#"input = "clean""#, r#"input = ["clean", "more"]"#),
            (r#"input = "added.late""#, r#"input = "clean""#),
            (
                "",
                r#"
[sources.more]
type = "file"
path = "events-2.jsonl"
fields = { item_id = "utf8", quantity = "int64", user_id = "int64" }
"#,
            ),
        ],
        expect![[r#"
              x operator `added` has inputs whose key differs: operator `clean` has `user_id: utf8`, source `more` has `user_id: int64`
                ,-[cart.toml:14:1]
             14 | user_id = "utf8"
                : ^^^|^^^
                :    `-- `user_id: utf8` is from here
                `----
                ,-[cart.toml:31:7]
             31 | key = "user_id"
                :       ^^^^|^^^^
                :           `-- the key
                `----
                ,-[cart.toml:47:50]
             47 | fields = { item_id = "utf8", quantity = "int64", user_id = "int64" }
                :                                                  ^^^|^^^
                :                                                     `-- `user_id: int64` is from here
                `----
              help: rows of one key meet only if it has one type on all inputs
        "#]],
    );
}

#[test]
fn the_plugin_gives_the_key_again() {
    check(
        &[(r#"plugin = "cart.added""#, r#"plugin = "cart.per_user""#)],
        expect![[r#"
              x the output of operator `added` has two columns named `user_id`
                ,-[cart.toml:29:10]
             29 | plugin = "cart.per_user"
                :          ^^^^^^^|^^^^^^^
                :                 `-- `user_id: utf8` is from here
                `----
                ,-[cart.toml:31:7]
             31 | key = "user_id"
                :       ^^^^|^^^^
                :           `-- `user_id: utf8` is from here
                `----
              help: the key's columns are in every result already: leave it out of the plugin's output
        "#]],
    );
}
