//! Look-ups in tables: against a naive computation, at every batch size and parallelism,
//! with kills.

use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common;
use crate::everywhere::run_everywhere;
use crate::pipeline::assert_same;

/// How far rows are out of order at most, in ms, without being late.
const BOUND_MS: i64 = 20;

/// A basket with an item of this price is refused.
const REFUSED: i64 = 13;

#[derive(Clone)]
struct Basket {
    id: i64,
    items: Vec<String>,
    ts: i64,
}

/// A version of an item's price; without cents, it has none from then on.
#[derive(Clone)]
struct Price {
    item: String,
    cents: Option<i64>,
    ts: i64,
}

/// Times that are out of order, and some of them late.
fn times(random: &mut Rng, count: usize) -> Vec<i64> {
    let mut now = 0;
    let time = |_| {
        now += random.i64(0..4);
        now - match random.u32(0..12) {
            0 => random.i64(0..400),
            _ => random.i64(0..BOUND_MS),
        }
    };
    (0..count).map(time).collect()
}

fn item(random: &mut Rng) -> String {
    match random.u32(0..200) {
        0 => "bad".to_owned(),
        1 => "worse".to_owned(),
        n => format!("i{}", n % 30),
    }
}

/// Baskets of some items, now and then the same one several times.
fn baskets(random: &mut Rng, count: usize) -> Vec<Basket> {
    let mut baskets: Vec<Basket> = Vec::new();
    for (id, ts) in (0..).zip(times(random, count)) {
        let items = (0..random.usize(0..6)).map(|_| item(random)).collect();
        let basket = Basket { id, items, ts };
        let copies = if random.u32(0..10) == 0 { 3 } else { 1 };
        baskets.extend(vec![basket; copies]);
    }
    baskets
}

fn prices(random: &mut Rng, count: usize) -> Vec<Price> {
    let times = times(random, count).into_iter();
    let price = |ts| Price {
        item: format!("i{}", random.u32(0..30)),
        cents: (random.u32(0..4) > 0).then(|| random.i64(0..40)),
        ts,
    };
    times.map(price).collect()
}

/// Those that are in time, by the watermark of their own source.
fn in_time<T: Clone>(rows: &[T], ts: fn(&T) -> i64) -> (Vec<T>, usize) {
    let mut newest_ms = i64::MIN;
    let mut good = Vec::new();
    for row in rows {
        if ts(row) >= newest_ms.saturating_sub(BOUND_MS) {
            newest_ms = newest_ms.max(ts(row));
            good.push(row.clone());
        }
    }
    let late = rows.len() - good.len();
    (good, late)
}

/// What the table has for an item at a time.
type Table<'t> = &'t dyn Fn(&str, i64) -> Option<i64>;

/// A row for each basket that is not refused.
fn expected(baskets: &[Basket], table: Table<'_>) -> Vec<Value> {
    let mut rows = Vec::new();
    for Basket { id, items, ts } in baskets {
        if items.iter().any(|item| item == "bad" || item == "worse") {
            continue;
        }
        let cents = items.iter().map(|item| table(item, *ts));
        let cents: Vec<Option<i64>> = cents.collect();
        if !cents.contains(&Some(REFUSED)) {
            rows.push(json!({"id": id, "cents": cents}));
        }
    }
    sorted(rows)
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

fn folder(baskets: &[Basket], prices: &[Price]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let basket = |Basket { id, items, ts }: &Basket| json!({"id": id, "items": items, "ts": ts});
    let price = |Price { item, cents, ts }: &Price| {
        let gone = cents.is_none();
        json!({"item": item, "cents": cents.unwrap_or(7), "gone": gone, "ts": ts})
    };
    let baskets: Vec<Value> = baskets.iter().map(basket).collect();
    let prices: Vec<Value> = prices.iter().map(price).collect();
    write(folder.path(), "baskets.jsonl", &baskets);
    write(folder.path(), "prices.jsonl", &prices);
    folder
}

fn write(folder: &Path, name: &str, rows: &[Value]) {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join(name), text).expect("it is writable");
}

/// Baskets whose prices are looked up in a table, and the late rows of either. Which
/// versions are late is decided before the two sources meet.
fn pipeline_of(table: &str, operators: &str) -> String {
    let source = |name: &str, fields: &str| {
        format!(
            r#"
            [sources.{name}]
            type = "file"
            path = "{name}.jsonl"
            event_time = "ts"
            watermark = {{ out_of_orderness = "{BOUND_MS}ms" }}
            fields = {{ {fields}, ts = "timestamp(ms)" }}
            "#
        )
    };
    let sink = |name: &str, input: &str| {
        format!("[sinks.{name}]\ntype = \"blackhole\"\ninput = {input:?}\n")
    };
    [
        format!(
            "name = \"test\"\nplugins.basics.path = {:?}\n",
            common::plugin_file("basics")
        ),
        source("baskets", "id = \"int64\", items = \"list<utf8>\""),
        source(
            "prices",
            "item = \"utf8\", cents = \"int64\", gone = \"bool\"",
        ),
        format!(
            r#"
            [operators.versions]
            order = "event_time"
            input = "prices"
            key = "item"

            [operators.priced]
            plugin = "basics.prices"
            input = "baskets"
            table = {table}
            parameters = {{ refused = {REFUSED} }}
            on_error = "skip"
            {operators}
            "#
        ),
        sink("out", "priced"),
        sink("late", "priced.late"),
    ]
    .concat()
}

/// The last version of an item at or before a time. Of those with the same time, the one
/// that came last counts.
fn last(prices: &[Price], item: &str, ts: i64) -> Option<i64> {
    let mut before = prices
        .iter()
        .filter(|price| price.item == item && price.ts <= ts);
    let first = before.next()?;
    let last = before.fold(
        first,
        |last, price| if price.ts >= last.ts { price } else { last },
    );
    last.cents
}

#[test]
fn rows_see_a_table_as_of_their_time() {
    let mut random = Rng::with_seed(11);
    let (baskets, prices) = (baskets(&mut random, 600), prices(&mut random, 500));
    let folder = folder(&baskets, &prices);
    let (in_time_baskets, late_baskets) = in_time(&baskets, |basket| basket.ts);
    let (prices, late_prices) = in_time(&prices, |price| price.ts);
    let expected = expected(&in_time_baskets, &|item, ts| last(&prices, item, ts));
    let cents = |row: &Value| row["cents"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = expected.iter().flat_map(cents).collect();
    let missing = all.iter().filter(|cents| cents.is_null()).count();
    assert!(
        missing > 100 && all.len() - missing > 500,
        "{missing} of {}",
        all.len()
    );
    assert!(
        late_baskets > 20 && late_prices > 20,
        "{late_baskets}, {late_prices}"
    );
    let refused = in_time_baskets.len() - expected.len();
    assert!(refused > 20, "{refused}");

    let table = "{ input = \"versions\", tombstone = \"gone\" }";
    let text = pipeline_of(table, "");
    run_everywhere(
        &text,
        folder.path(),
        ["out", "late"],
        |when, [rows, late]| {
            assert_same(&expected, &sorted(rows), when);
            assert_eq!(late.len(), late_baskets, "{when}");
        },
    );
}

/// The table is what an aggregate has computed.
#[test]
fn results_of_an_aggregate_are_a_table() {
    let mut random = Rng::with_seed(12);
    let (baskets, prices) = (baskets(&mut random, 500), prices(&mut random, 400));
    let folder = folder(&baskets, &prices);
    let (baskets, _) = in_time(&baskets, |basket| basket.ts);
    let (prices, _) = in_time(&prices, |price| price.ts);
    let sum = |item: &str, ts: i64| {
        let before = prices
            .iter()
            .filter(|price| price.item == item && price.ts <= ts);
        let cents: Vec<i64> = before.map(|price| price.cents.unwrap_or(7)).collect();
        (!cents.is_empty()).then(|| cents.iter().sum())
    };
    let expected = expected(&baskets, &sum);
    let operators = r#"
        [operators.sums]
        aggregate = { cents = "sum(cents)" }
        input = "versions"
        key = "item"
        window = "running"
        "#;
    let text = pipeline_of("\"sums.changes\"", operators);
    run_everywhere(&text, folder.path(), ["out"], |when, [rows]| {
        assert_same(&expected, &sorted(rows), when);
    });
}

/// What a row sees of the latest versions depends on which come first, but each row comes
/// out, once.
#[test]
fn rows_see_the_latest_of_a_table() {
    let mut random = Rng::with_seed(13);
    let (baskets, prices) = (baskets(&mut random, 500), prices(&mut random, 400));
    let folder = folder(&baskets, &prices);
    let (in_time_baskets, late_baskets) = in_time(&baskets, |basket| basket.ts);
    let without_prices = expected(&in_time_baskets, &|_, _| None);
    let text = pipeline_of("{ input = \"prices\", as_of = \"latest\" }", "");
    let text = text.replace(&format!("refused = {REFUSED}"), "");
    let ids = |rows: &[Value]| sorted(rows.iter().map(|row| row["id"].clone()).collect());
    run_everywhere(
        &text,
        folder.path(),
        ["out", "late"],
        |when, [rows, late]| {
            assert_same(&ids(&without_prices), &ids(&rows), when);
            assert_eq!(late.len(), late_baskets, "{when}");
            for row in &rows {
                for cents in row["cents"].as_array().into_iter().flatten() {
                    let known = |price: &Price| json!(price.cents.unwrap_or(7)) == *cents;
                    assert!(cents.is_null() || prices.iter().any(known), "{when}: {row}");
                }
            }
        },
    );
}

/// A table that is read first: none of its rows is late, however they are ordered, and no
/// row of the others sees a part of it.
#[test]
fn a_table_is_read_first() {
    let mut random = Rng::with_seed(15);
    let baskets = baskets(&mut random, 500);
    let mut prices = prices(&mut random, 400);
    random.shuffle(&mut prices);
    let folder = folder(&baskets, &prices);
    let (baskets, _) = in_time(&baskets, |basket| basket.ts);
    let of_prices = "path = \"prices.jsonl\"";
    for (as_of, time) in [("event_time", None), ("latest", Some(i64::MAX))] {
        let table = |item: &str, ts| last(&prices, item, time.unwrap_or(ts));
        let expected = expected(&baskets, &table);
        let table = format!("{{ input = \"prices\", as_of = \"{as_of}\", tombstone = \"gone\" }}");
        let text = pipeline_of(&table, "");
        let (before, rest) = text.split_once(of_prices).expect("the source of prices");
        let rest = rest.replacen("out_of_orderness", "bootstrap = true, out_of_orderness", 1);
        let text = format!("{before}{of_prices}{rest}");
        run_everywhere(&text, folder.path(), ["out"], |when, [rows]| {
            assert_same(&expected, &sorted(rows), &format!("{as_of}, {when}"));
        });
    }
}

/// A table that does not change is seen in full, whichever time it is of.
#[test]
fn a_table_without_time_is_seen_by_all() {
    let mut random = Rng::with_seed(14);
    let baskets = baskets(&mut random, 300);
    let price = |n: i64| Price {
        item: format!("i{n}"),
        cents: Some(n + 20),
        ts: -1_000,
    };
    let prices: Vec<Price> = (0..25).map(price).collect();
    let folder = folder(&baskets, &prices);
    let (baskets, _) = in_time(&baskets, |basket| basket.ts);
    let expected = expected(&baskets, &|item, ts| last(&prices, item, ts));
    let text = pipeline_of("\"prices\"", "");
    run_everywhere(&text, folder.path(), ["out"], |when, [rows]| {
        assert_same(&expected, &sorted(rows), when);
    });
}

/// As a user does, with rows shuffled and runs killed.
#[test]
fn a_look_up_can_be_tested() {
    let mut random = Rng::with_seed(16);
    let mut baskets = baskets(&mut random, 60);
    baskets.retain(|basket| {
        !basket
            .items
            .iter()
            .any(|item| item == "bad" || item == "worse")
    });
    let mut prices = prices(&mut random, 60);
    // None is late, and of two versions of a time none is the first.
    baskets.sort_by_key(|basket| basket.ts);
    prices.sort_by_key(|price| price.ts);
    prices.dedup_by_key(|price| price.ts);
    let expected = expected(&baskets, &|item, ts| last(&prices, item, ts));
    let folder = folder(&baskets, &prices);
    let case = folder.path().join("tests/some");
    for (from, to) in [("baskets.jsonl", "input"), ("prices.jsonl", "input")] {
        std::fs::create_dir_all(case.join(to)).expect("it is writable");
        std::fs::copy(folder.path().join(from), case.join(to).join(from)).expect("a copy");
    }
    std::fs::create_dir_all(case.join("expected")).expect("it is writable");
    write(&case.join("expected"), "out.jsonl", &expected);
    write(&case.join("expected"), "late.jsonl", &[]);
    let text = pipeline_of("{ input = \"versions\", tombstone = \"gone\" }", "");
    std::fs::write(folder.path().join("pipeline.toml"), text).expect("it is writable");
    let binary = Path::new(env!("CARGO_BIN_EXE_sluicebox"));
    let mut command = std::process::Command::new(binary);
    let output = command.arg("test").current_dir(folder.path()).output();
    let output = output.expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{wrong}");
    assert!(said.contains("passed"), "{said}{wrong}");
}
