//! Joins whose rows a plugin makes: they are those that `select` makes.

use fastrand::Rng;
use serde_json::json;

use crate::common;
use crate::everywhere::run_everywhere;
use crate::pipeline::assert_same;

/// Rows of few keys, some of them without a letter, up to 1 s out of order.
fn rows(random: &mut Rng, count: usize) -> String {
    let row = |at: usize| {
        let key = format!("k{}", random.u32(0..15));
        let letter = (random.u32(0..4) > 0).then(|| format!("l{}", random.u32(0..5)));
        let ts = at as i64 * 100 + random.i64(0..1_000);
        format!(
            "{}\n",
            json!({"key": key, "n": at, "letter": letter, "ts": ts})
        )
    };
    (0..count).map(row).collect()
}

const RULES: [(&str, &str); 6] = [
    (
        "interval_inner",
        "join = { kind = \"inner\", before = \"2s\", after = \"1s\"",
    ),
    (
        "interval_full",
        "join = { kind = \"full\", before = \"2s\", after = \"1s\"",
    ),
    (
        "window_left",
        "window = { tumbling = \"3s\" }\njoin = { kind = \"left\"",
    ),
    (
        "window_right",
        "window = { tumbling = \"3s\" }\njoin = { kind = \"right\"",
    ),
    (
        "as_of_inner",
        "join = { kind = \"inner\", as_of = \"event_time\"",
    ),
    (
        "as_of_left",
        "join = { kind = \"left\", as_of = \"event_time\"",
    ),
];

#[test]
fn a_plugin_makes_rows_of_pairs() {
    let mut random = Rng::with_seed(21);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["clicks", "buys"] {
        let text = rows(&mut random, 150);
        let path = folder.path().join(format!("{name}.jsonl"));
        std::fs::write(path, text).expect("it is writable");
    }
    let source = |name: &str| {
        format!(
            r#"
            [sources.{name}]
            type = "file"
            path = "{name}.jsonl"
            event_time = "ts"
            watermark = {{ out_of_orderness = "1s" }}
            fields = {{ key = "utf8", n = "int64", letter = "utf8?", ts = "timestamp(ms)" }}
            "#
        )
    };
    for (name, rule) in RULES {
        let join = |operator: &str, makes: &str| {
            format!(
                r#"
                [operators.{operator}]
                {rule} }}
                input = {{ left = "clicks", right = "buys" }}
                key = "key"
                {makes}

                [sinks.{operator}_out]
                type = "blackhole"
                input = "{operator}"
                "#
            )
        };
        let select = "select = { key = \"key.key\", n = \"left.n\", letter = \"left.letter\", \
                      m = \"right.n\", other = \"right.letter\" }";
        let text = [
            format!(
                "name = \"test\"\nplugins.basics.path = {:?}\n",
                common::plugin_file("basics")
            ),
            source("clicks"),
            source("buys"),
            join("selected", select),
            join("made", "plugin = \"basics.pair\""),
        ]
        .concat();
        run_everywhere(
            &text,
            folder.path(),
            ["selected_out", "made_out"],
            |when, [mut selected, mut made]| {
                assert!(selected.len() > 50, "{name}, {when}: {}", selected.len());
                for rows in [&mut selected, &mut made] {
                    rows.sort_by_cached_key(ToString::to_string);
                }
                assert_same(&selected, &made, &format!("{name}, {when}"));
            },
        );
    }
}
