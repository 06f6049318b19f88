//! `docs/config.md` agrees with the code: its examples can be planned, and it
//! names every key.

use std::fs::File;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;

use super::support::{BASE, folder, mistakes, plan_in};
use crate::schema::{DataType, Field, Schema};

const PAGE: &str = include_str!("../../../../docs/config.md");

fn examples() -> impl Iterator<Item = &'static str> {
    let blocks = PAGE.split("```toml\n").skip(1);
    blocks.filter_map(|block| block.split("```").next())
}

/// The example appended to the base, whose sections of the same names it
/// replaces.
fn completed(example: &str) -> String {
    let parse = |text: &str| {
        text.parse::<toml::Table>()
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let mut pipeline = parse(BASE);
    for (key, value) in parse(example) {
        match (pipeline.get_mut(&key), value) {
            (Some(toml::Value::Table(sections)), toml::Value::Table(new)) => sections.extend(new),
            (_, value) => {
                pipeline.insert(key, value);
            }
        }
    }
    pipeline.to_string()
}

#[test]
fn every_example_is_planned() {
    let folder = folder();
    for file in ["data/more.jsonl", "deliveries.jsonl", "syslog"] {
        std::fs::write(folder.path().join(file), "").expect("an empty file");
    }
    std::fs::create_dir(folder.path().join("sales")).expect("a folder");
    let sales = File::create(folder.path().join("sales/day.parquet")).expect("a file");
    let price = DataType::Decimal {
        precision: 9,
        scale: 2,
    };
    let columns = Schema::new(vec![
        Field::new("item_id", DataType::Utf8, false),
        Field::new("price", price, false),
        Field::new("sold_at", DataType::Timestamp, false),
    ]);
    let writer = ArrowWriter::try_new(sales, Arc::new(columns.to_arrow()), None);
    let closed = writer.and_then(ArrowWriter::close);
    closed.expect("a Parquet file without rows");
    let mut planned = 0;
    for example in examples() {
        if let Err(mistakes) = plan_in(folder.path(), &completed(example)) {
            panic!("{example}\n{mistakes}");
        }
        planned += 1;
    }
    assert!(planned >= 8, "only {planned} examples were found");
}

#[test]
fn the_first_example_is_a_whole_pipeline() {
    let first = examples().next().unwrap_or_default();
    assert_eq!(mistakes(first), "");
}

/// A pipeline in which each table has an unknown key, so that messages list the
/// known ones.
const UNKNOWN_EVERYWHERE: &str = r#"
name = "a"
nothing = 1
[state]
nothing = 1
[checkpoints]
nothing = 1
upload = { url = "file:///copies", nothing = 1 }
[restart]
nothing = 1
[plugins.p]
path = "cart.wasm"
nothing = 1
[sources.file]
type = "file"
path = "events.jsonl"
fields = { a = "utf8" }
nothing = 1
watermark = { nothing = 1 }
checksum = { field = "x", of = "y", nothing = 1 }
csv = { nothing = 1 }
syslog = { nothing = 1 }
[sources.debezium]
type = "file"
path = "events.jsonl"
format = "debezium-json"
fields = { a = "utf8" }
debezium = { nothing = 1 }
[sources.tcp]
type = "tcp"
listen = "127.0.0.1:9000"
fields = { a = "utf8" }
nothing = 1
[sources.udp]
type = "udp"
listen = "127.0.0.1:9000"
fields = { a = "utf8" }
nothing = 1
[sources.http]
type = "http"
listen = "127.0.0.1:8088"
fields = { a = "utf8" }
nothing = 1
tls = { certificate = "c.pem", key = "k.pem", nothing = 1 }
[sources.generator]
type = "generator"
nothing = 1
[sources.kafka]
type = "kafka"
brokers = "127.0.0.1"
topic = "a"
fields = { a = "utf8" }
nothing = 1
metadata = { nothing = 1 }
upsert = { key = "a", nothing = 1 }
[sources.redis]
type = "redis"
server = "127.0.0.1"
stream = "a"
fields = { a = "utf8" }
nothing = 1
metadata = { nothing = 1 }
[sources.postgres]
type = "postgres"
server = "127.0.0.1"
database = "a"
user = "a"
table = "a"
growing = "a"
fields = { a = "utf8" }
nothing = 1
[sources.postgres_log]
type = "postgres"
server = "127.0.0.1"
database = "a"
user = "a"
table = "a"
log = { nothing = 1 }
fields = { a = "utf8" }
[sources.redis_channel]
type = "redis"
server = "127.0.0.1"
channel = "a"
fields = { a = "utf8" }
nothing = 1
metadata = { nothing = 1 }
[operators.o]
input = "file"
nothing = 1
limits = { nothing = 1 }
on_error = { retry = 1, nothing = 1 }
table = { input = "file", nothing = 1 }
deduplicate = { by = "a", within = "1m", nothing = 1 }
window = { nothing = 1 }
bounds = { nothing = 1 }
[operators.j]
join = { nothing = 1 }
[sinks.file]
type = "file"
input = "file"
path = "out.jsonl"
nothing = 1
roll = { every = "1h", nothing = 1 }
[sinks.console]
type = "console"
input = "file"
nothing = 1
[sinks.kafka]
type = "kafka"
input = "file"
brokers = "127.0.0.1"
topic = "a"
nothing = 1
[sinks.postgres]
type = "postgres"
input = "file"
server = "127.0.0.1"
database = "a"
user = "a"
table = "a"
nothing = 1
[sinks.redis]
type = "redis"
input = "file"
server = "127.0.0.1"
as = "list"
key = "a"
nothing = 1
[sinks.http]
type = "http"
input = "file"
url = "http://127.0.0.1/"
nothing = 1
retry = { nothing = 1 }
breaker = { nothing = 1 }
[sinks.tcp]
type = "tcp"
input = "file"
server = "127.0.0.1:9000"
nothing = 1
"#;

#[test]
fn every_key_is_named() {
    let said = mistakes(UNKNOWN_EVERYWHERE);
    let lists: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split("keys here are: ").nth(1))
        .collect();
    assert_eq!(lists.len(), 44, "a table is missing here:\n{said}");
    let keys = lists.iter().flat_map(|list| list.split(", "));
    for key in keys {
        let quoted = PAGE.contains(&format!("`{key}`"));
        let shown = PAGE.contains(&format!("{key} = "));
        assert!(quoted || shown, "docs/config.md does not name `{key}`");
    }
}
