//! One run shows all mistakes that do not follow from others.

use expect_test::expect;

use super::support::check;

#[test]
fn independent_mistakes_are_reported_at_once() {
    let patches = [
        ("event_time = \"ts\"", "event_time = \"when\""),
        ("max_quantity = 100", "max_quantity = true"),
        ("key = \"user_id\"", "key = \"user\""),
        ("plugin = \"cart.added\"", "plugin = \"cart.add\""),
        ("input = \"added.late\"", "input = \"ghost\""),
        ("path = \"out.jsonl\"", "path = \"events.jsonl\""),
    ];
    check(
        &patches,
        expect![[r#"
              x source `actions` takes its event time from `when`, which is not one of its fields
                ,-[cart.toml:10:14]
             10 | event_time = "when"
                :              ^^^^^^
                `----
              help: the fields that can be a time are: quantity, ts

              x operator `clean`: the parameter `max_quantity` must be a whole number; this is true or false
                ,-[cart.toml:26:31]
             26 | parameters = { max_quantity = true }
                :                               ^^^^
                `----
              help: write it as in `max_quantity = 100`

              x operator `added` runs `cart.add`, and plugin `cart` has no operator `add`
                ,-[cart.toml:29:10]
             29 | plugin = "cart.add"
                :          ^^^^^^^^^^
                `----
              help: the operators of `cart` are: clean, priced, noted, twins, added, per_user, spans, alert, blind

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

              x sink `too_late` reads `ghost`, which does not exist
                ,-[cart.toml:42:9]
             42 | input = "ghost"
                :         ^^^^^^^
                `----
              help: the sources and operators are: actions, clean, added
        "#]],
    );
}
