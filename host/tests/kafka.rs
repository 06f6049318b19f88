//! Tests Kafka sources and sinks with a real broker.

/// Plugins, built once.
#[expect(dead_code, reason = "no plugin is needed here")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// A real broker.
#[expect(dead_code, reason = "some of it is for other tests")]
#[path = "common/kafka.rs"]
mod kafka;
/// Runs at every batch size and parallelism.
#[path = "common/everywhere.rs"]
mod everywhere;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use expect_test::expect;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use sluicebox::checkpoint::manifest::{Manifest, NodeManifest, ProgressManifest};
use sluicebox::checkpoint::snapshot::SourceSnapshot;
use sluicebox::checkpoint::transaction::memory::MemoryTransaction;
use sluicebox::checkpoint::transaction::{Participant, Participants};
use sluicebox::clock::{Clock as _, SystemClock};
use sluicebox::connector::kafka::transaction::PROGRESS_TOPIC;
use sluicebox::dead_letter::DeadLetter;
use sluicebox::element::Element;
use sluicebox::json::render_row;
use sluicebox::placement::Placement;
use sluicebox::plan::change::{NodeClass, NodeDescription};
use sluicebox::plan::{Node, NodeKind, Plan};
use sluicebox::run::{Durable, Job, commit_context};
use sluicebox::sink::{Sink, SinkContext};
use sluicebox::source::reader::SourceReader;
use sluicebox::source::{SourceContext, SourceError};
use sluicebox::stop::Stop;

use everywhere::{collect_all, collect_everywhere};
use harness::Outcome;
use kafka::{Broker, Record, broker};
use pipeline::{plan_of, run};

tests![
    every_row_is_read_and_where_it_stood_is_known,
    a_first_run_starts_where_it_is_told,
    a_message_is_more_than_its_payload,
    bytes_and_csv_are_rows_too,
    bad_rows_are_dead_letters_with_their_place,
    a_dead_letter_has_all_of_its_message,
    changes_of_tables_are_read,
    a_table_by_keys_comes_back_as_it_was_written,
    a_table_by_keys_is_the_same_however_it_is_read,
    messages_that_are_no_rows_of_a_table_say_why,
    compressed_topics_are_read,
    a_topic_that_was_created_again_is_not_read_on,
    a_partition_is_not_let_go_silently,
    a_silent_partition_keeps_no_other_waiting,
    what_a_topic_has_is_read_before_there_is_time,
    partitions_that_are_added_are_read_from_their_beginning,
    what_cannot_be_read_says_why,
    a_broker_that_wants_tls_and_a_password_is_served,
    tools_see_how_far_checkpoints_have_come,
    messages_that_wait_are_counted,
    rows_are_written_with_keys_and_headers,
    results_that_are_gone_delete_their_keys,
    many_rows_come_whole_and_in_order,
    rows_that_cannot_be_written_fail_the_run,
    rows_that_cannot_be_sent_are_refused,
    a_result_whose_next_one_is_refused_is_gone,
    rows_are_seen_when_their_checkpoint_is_committed,
    the_last_checkpoint_is_found_behind_others_transactions,
    a_broker_that_comes_back_is_read_on,
    a_pipeline_of_several_tasks_reads_all,
];

/// Long enough for anything that comes at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a topic with a unique name.
fn topic(broker: &Broker, name: &str, partitions: i32) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    broker.create_topic(&name, partitions);
    name
}

/// A plan of a source and a sink that shows nothing.
fn reading(broker: &Broker, topic: &str, more: &str) -> Plan {
    let text = format!(
        r#"
        name = "p-{topic}"
        batch_rows = 100
        [sources.in]
        type = "kafka"
        brokers = "{}"
        topic = "{topic}"
        {more}
        [sinks.out]
        type = "blackhole"
        input = "in"
        "#,
        broker.address
    );
    plan_of(&text, Path::new("."))
}

const IDS: &str = "fields = { id = \"int64\" }";

fn ids(range: std::ops::Range<i64>) -> impl Iterator<Item = String> {
    range.map(|id| format!("{{\"id\":{id}}}"))
}

/// What a test has read of a source so far.
#[derive(Default)]
struct Read {
    rows: Vec<Value>,
    letters: Vec<DeadLetter>,
    watermark: Option<i64>,
    idle: u32,
}

impl Read {
    fn ids(&self) -> Vec<i64> {
        self.rows
            .iter()
            .filter_map(|row| row["id"].as_i64())
            .collect()
    }

    fn sorted_ids(&self) -> Vec<i64> {
        let mut ids = self.ids();
        ids.sort_unstable();
        ids
    }
}

fn source(plan: &Plan) -> &Node {
    plan.nodes
        .iter()
        .find(|node| matches!(node.kind, NodeKind::Source(_)))
        .expect("a source")
}

async fn open(plan: &Plan, task: (usize, usize), restored: &[SourceSnapshot]) -> SourceReader {
    let opened = try_open(plan, task, restored).await;
    opened.unwrap_or_else(|error| panic!("{error}"))
}

async fn try_open(
    plan: &Plan,
    task: (usize, usize),
    restored: &[SourceSnapshot],
) -> Result<SourceReader, SourceError> {
    let node = source(plan);
    let NodeKind::Source(source) = &node.kind else {
        unreachable!("it was looked for by its kind");
    };
    let context = SourceContext {
        node: node.name.as_str().into(),
        schema: node.schema().clone(),
        placement: Placement::on_one_host(task.0, task.1),
        batch_rows: plan.batch_rows,
        budget: Arc::new(sluicebox::budget::Budget::new(usize::MAX)),
        pace: Arc::new(sluicebox::source::pace::Pace::unbound()),
        decode_workers: 1,
        clock: Arc::new(SystemClock),
        is_transactional: false,
        bootstraps: source.bootstraps,
        is_checkpointed: true,
        are_checkpoints_kept: true,
        restored: restored.into(),
        left_by_others: Arc::default(),
        stop: Stop::default(),
    };
    SourceReader::open(source, context).await
}

/// Reads on until there is enough, or the end.
async fn read_until(
    reader: &mut SourceReader,
    read: &mut Read,
    enough: impl Fn(&Read) -> bool,
) -> bool {
    let until = Instant::now() + PATIENCE;
    while !enough(read) {
        let left = until.saturating_duration_since(Instant::now());
        let pulled = tokio::time::timeout(left, reader.next()).await;
        let pulled = pulled.unwrap_or_else(|_| panic!("only {} rows came", read.rows.len()));
        let Some(pulled) = pulled.unwrap_or_else(|error| panic!("{error}")) else {
            return true;
        };
        read.letters.extend(pulled.dead_letters);
        for element in pulled.elements {
            match element {
                Element::Batch(batch) => read.rows.extend((0..batch.rows()).map(|row| {
                    let text = render_row(&batch, row);
                    serde_json::from_str::<Value>(&text).expect("JSON")
                })),
                Element::Watermark(ms) => read.watermark = Some(ms),
                Element::Idle => read.idle += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    false
}

async fn read_all(plan: &Plan, task: (usize, usize), restored: &[SourceSnapshot]) -> Read {
    let mut read = Read::default();
    let mut reader = open(plan, task, restored).await;
    assert!(read_until(&mut reader, &mut read, |_| false).await);
    read
}

// `tokio::main` makes an ordinary function of it, which has no `#[test]`.
#[tokio::main(flavor = "multi_thread")]
async fn every_row_is_read_and_where_it_stood_is_known() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "whole", 3);
    for partition in 0..3 {
        let first = i64::from(partition) * 1_000;
        broker.write_payloads(&topic, partition, ids(first..first + 1_000));
    }
    let plan = reading(broker, &topic, &format!("until = \"end\"\n{IDS}"));
    let all: Vec<i64> = (0..3_000).collect();

    let read = read_all(&plan, (0, 1), &[]).await;
    assert_eq!(read.sorted_ids(), all);

    // Stop anywhere, and continue from there with another number of tasks.
    for cut in [1, 150, 1_000, 2_999] {
        let mut before = Read::default();
        let mut reader = open(&plan, (0, 1), &[]).await;
        read_until(&mut reader, &mut before, |read| read.rows.len() >= cut).await;
        let snapshot = [reader.snapshot()];
        drop(reader);
        let mut rows = before.ids();
        for task in 0..2 {
            let after = read_all(&plan, (task, 2), &snapshot).await;
            let mine = |id: &i64| (id / 1_000) as usize % 2 == task;
            assert!(after.ids().iter().all(mine), "partitions belong to tasks");
            rows.extend(after.ids());
        }
        rows.sort_unstable();
        assert_eq!(rows, all, "cut after {cut} rows");
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_first_run_starts_where_it_is_told() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "start", 2);
    broker.write_payloads(&topic, 0, ids(0..10));
    std::thread::sleep(Duration::from_millis(20));
    let between = jiff::Timestamp::now();
    std::thread::sleep(Duration::from_millis(20));
    broker.write_payloads(&topic, 0, ids(10..20));
    broker.write_payloads(&topic, 1, ids(100..101));

    let from = |start: &str| reading(broker, &topic, &format!("until = \"end\"\n{start}\n{IDS}"));
    let ids_from = async |start: &str| read_all(&from(start), (0, 1), &[]).await.sorted_ids();

    let everything: Vec<i64> = (0..20).chain([100]).collect();
    assert_eq!(ids_from("").await, everything);
    assert_eq!(ids_from("start = \"earliest\"").await, everything);
    assert_eq!(ids_from("start = \"latest\"").await, [0i64; 0]);
    let later: Vec<i64> = (10..20).chain([100]).collect();
    assert_eq!(ids_from(&format!("start = \"{between}\"")).await, later);
    let in_a_year = "start = \"2100-01-01T00:00:00Z\"";
    assert_eq!(ids_from(in_a_year).await, [0i64; 0]);
    // Nothing is committed, and so nothing was read.
    assert_eq!(ids_from("start = \"committed\"").await, everything);
    assert_eq!(ids_from("partitions = [1]").await, [100]);

    // `latest` is everything that is written after the source has started.
    let live = reading(broker, &topic, &format!("start = \"latest\"\n{IDS}"));
    let mut reader = open(&live, (0, 1), &[]).await;
    let mut read = Read::default();
    broker.write_payloads(&topic, 1, ids(200..203));
    read_until(&mut reader, &mut read, |read| read.rows.len() >= 3).await;
    assert_eq!(read.ids(), [200, 201, 202]);
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_message_is_more_than_its_payload() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "metadata", 1);
    broker.write(
        &topic,
        0,
        &[
            Record {
                key: Some("k1".into()),
                payload: "{\"id\":1}".into(),
                headers: vec![("trace".into(), Some("a".into())), ("empty".into(), None)],
            },
            Record {
                payload: "{\"id\":2}".into(),
                ..Record::default()
            },
            Record {
                payload: "no JSON".into(),
                ..Record::default()
            },
            Record {
                payload: "{\"id\":4}".into(),
                ..Record::default()
            },
        ],
    );
    let more = "until = \"end\"\n\
                event_time = \"sent\"\n\
                metadata = { topic = \"t\", key = \"k\", key_bytes = \"kb\", headers = \"h\", \
                partition = \"p\", offset = \"o\", timestamp = \"sent\" }\n\
                fields = { id = \"int64\" }";
    let plan = reading(broker, &topic, more);
    let mut read = read_all(&plan, (0, 1), &[]).await;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    for row in &mut read.rows {
        let sent: jiff::Timestamp = row["sent"].as_str().expect("text").parse().expect("a time");
        assert!((now_ms - sent.as_millisecond()).abs() < 60_000);
        assert!(read.watermark.expect("a watermark") >= sent.as_millisecond());
        row["sent"] = Value::Null;
    }
    let t = topic.as_str();
    assert_eq!(
        read.rows,
        [
            json!({"id": 1, "t": t, "k": "k1", "kb": "azE=", "h": "{\"empty\":null,\"trace\":\"a\"}", "p": 0, "o": 0, "sent": null}),
            json!({"id": 2, "t": t, "k": null, "kb": null, "h": "{}", "p": 0, "o": 1, "sent": null}),
            json!({"id": 4, "t": t, "k": null, "kb": null, "h": "{}", "p": 0, "o": 3, "sent": null}),
        ]
    );
    assert_eq!(read.letters.len(), 1);
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn bytes_and_csv_are_rows_too() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "formats", 1);
    // The line end that writers of CSV put behind a row is of no field.
    broker.write_payloads(&topic, 0, ["1;one\r\n", "2;\"t;wo\"\n", "three"]);
    let csv = "until = \"end\"\nformat = \"csv\"\ncsv = { delimiter = \";\" }\n\
               fields = { id = \"int64\", name = \"utf8\" }";
    let read = read_all(&reading(broker, &topic, csv), (0, 1), &[]).await;
    assert_eq!(
        read.rows,
        [
            json!({"id": 1, "name": "one"}),
            json!({"id": 2, "name": "t;wo"})
        ]
    );
    assert_eq!(read.letters.len(), 1);
    let raw = "until = \"end\"\nformat = \"raw\"\nfields = { line = \"utf8\" }";
    let read = read_all(&reading(broker, &topic, raw), (0, 1), &[]).await;
    let lines = ["1;one\r\n", "2;\"t;wo\"\n", "three"].map(|line| json!({ "line": line }));
    assert_eq!(read.rows, lines);
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn bad_rows_are_dead_letters_with_their_place() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "bad", 2);
    broker.write_payloads(
        &topic,
        1,
        ["{\"id\":1}", "{\"id\":", "{\"id\":\"x\"}", "{\"id\":4}"],
    );
    let plan = reading(broker, &topic, &format!("until = \"end\"\n{IDS}"));
    let read = read_all(&plan, (0, 1), &[]).await;
    assert_eq!(read.ids(), [1, 4]);
    let letters: Vec<String> = read
        .letters
        .iter()
        .map(|letter| {
            let partition = letter.partition.as_deref().unwrap_or("");
            format!(
                "{} {} {}: {}\n",
                partition.replace(&topic, "TOPIC"),
                letter.offset.unwrap_or(u64::MAX),
                letter.payload.as_deref().unwrap_or(""),
                letter.error
            )
        })
        .collect();
    expect![[r#"
        TOPIC/1 1 {"id":: field `id`: expected int64, found the end of the row
        TOPIC/1 2 {"id":"x"}: field `id`: expected int64, found "x"
    "#]]
    .assert_eq(&letters.concat());
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_dead_letter_has_all_of_its_message() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "envelopes", 1);
    let producer = broker.producer();
    let headers = || {
        [("trace", "1"), ("trace", "2"), ("once", "x")]
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                let value = Some(value);
                headers.insert(Header { key, value })
            })
    };
    let message = || {
        BaseRecord::<[u8], str>::to(&topic)
            .timestamp(1_700_000_000_123)
            .headers(headers())
    };
    let sent = [
        message().key(b"gone".as_slice()),
        message().key(b"gone".as_slice()).payload(""),
        message().key(b"bad\xff".as_slice()).payload("{\"id\":"),
        message().payload("{\"id\":3}"),
        // A message without headers has none in its dead letter.
        BaseRecord::to(&topic).key(b"k".as_slice()).payload("[]"),
    ];
    for message in sent {
        producer
            .send(message)
            .map_err(|(error, _)| error)
            .expect("room");
    }
    producer.flush(PATIENCE).expect("all are written");
    let more = format!("until = \"end\"\nmetadata = {{ headers = \"h\" }}\n{IDS}");
    let read = read_all(&reading(broker, &topic, &more), (0, 1), &[]).await;
    let lists = "{\"once\":\"x\",\"trace\":[\"1\",\"2\"]}";
    assert_eq!(read.rows, [json!({ "id": 3, "h": lists })]);
    let letters: Vec<Value> = read
        .letters
        .iter()
        .map(|letter| serde_json::to_value(letter).expect("JSON"))
        .collect();
    let found = |key: &str| -> Vec<Option<Value>> {
        letters
            .iter()
            .map(|letter| letter.get(key).cloned())
            .collect()
    };
    let text = |text: &str| Some(json!(text));
    let (null, time) = (Some(Value::Null), text("2023-11-14T22:13:20.123Z"));
    let payloads = [null, text(""), text("{\"id\":"), text("[]")];
    assert_eq!(found("payload"), payloads);
    let keys = [text("gone"), text("gone"), None, text("k")];
    assert_eq!(found("key"), keys);
    assert_eq!(found("key_base64"), [None, None, text("YmFk/w=="), None]);
    assert_eq!(
        found("headers"),
        [text(lists), text(lists), text(lists), None]
    );
    assert_eq!(
        found("message_time")[..3],
        [time.clone(), time.clone(), time]
    );
    Ok(())
}

/// Changes of two rows, as Debezium tells them, with the tombstones behind deletions.
fn write_changes(broker: &Broker, topic: &str) {
    let producer = broker.producer();
    let change = |op: &str, ms: i64, before: Value, after: Value| {
        let source = json!({"ts_ms": ms});
        Some(json!({"op": op, "before": before, "after": after, "source": source}).to_string())
    };
    let row = |id: i64, user: &str, cents: i64| json!({"id": id, "user": user, "cents": cents});
    let messages = [
        // Of a row that is gone for so long that nothing else is left of it.
        (9, None),
        (1, change("r", 1_000, Value::Null, row(1, "ann", 100))),
        (2, change("c", 2_000, Value::Null, row(2, "bob", 50))),
        (2, change("u", 3_000, row(2, "bob", 50), row(2, "ann", 70))),
        (1, change("d", 4_000, row(1, "ann", 100), Value::Null)),
        (1, None),
        (3, change("t", 5_000, Value::Null, Value::Null)),
        (1, change("c", 5_000, Value::Null, row(1, "eve", 1))),
    ];
    for (id, payload) in messages {
        let key = json!({"schema": null, "payload": {"id": id}}).to_string();
        let mut message = BaseRecord::<str, str>::to(topic).partition(0).key(&key);
        message.payload = payload.as_deref();
        producer
            .send(message)
            .map_err(|(error, _)| error)
            .expect("room");
    }
    producer.flush(PATIENCE).expect("all are written");
}

fn changes_of_tables_are_read() -> Outcome {
    let broker = broker()?;
    let from = topic(broker, "changes", 1);
    write_changes(broker, &from);
    let folder = tempfile::tempdir().expect("a temporary folder");
    // What comes out by a sink that deletes.
    let comes_out = |name: &str, source: &str, operators: &str, sink: &str| {
        let to = topic(broker, name, 1);
        let text = format!(
            r#"
            name = "{name}"
            dead_letters = "{name}.dead.jsonl"
            [sources.in]
            type = "kafka"
            brokers = "{address}"
            topic = "{from}"
            until = "end"
            format = "debezium-json"
            {source}
            {operators}
            [sinks.out]
            type = "kafka"
            brokers = "{address}"
            topic = "{to}"
            tombstones = true
            {sink}
            "#,
            address = broker.address
        );
        run(plan_of(&text, folder.path())).unwrap_or_else(|error| panic!("{error}"));
        let shown = broker.shown(&to);
        let letters = folder.path().join(format!("{name}.dead.jsonl"));
        let letters = std::fs::read_to_string(letters).unwrap_or_default();
        let letters = letters.lines().map(|line| {
            let letter: Value = serde_json::from_str(line).expect("JSON");
            format!("{}: {}\n", letter["offset"], letter["error"])
        });
        shown + &letters.collect::<String>()
    };
    let by_key = comes_out(
        "by-key",
        "debezium = { key = \"id\" }\n\
         fields = { id = \"int64\", user = \"utf8?\", cents = \"int64?\" }",
        "",
        "input = \"in\"\nkey = \"id\"",
    );
    expect![[r#"
        Some("1") {"id":1,"user":"ann","cents":100}
        Some("2") {"id":2,"user":"bob","cents":50}
        Some("2") {"id":2,"user":"ann","cents":70}
        Some("1") {"id":1,"user":"eve","cents":1}
        6: "the table was emptied (TRUNCATE), and the message has none of the rows that are gone"
    "#]]
    .assert_eq(&by_key);
    let totals = comes_out(
        "totals",
        "fields = { user = \"utf8\", cents = \"int64\" }",
        r#"
        [operators.totals]
        input = "in"
        key = "user"
        window = "running"
        aggregate = { orders = "count()", cents = "sum(cents)" }
        "#,
        "input = \"totals.changes\"\nkey = \"user\"",
    );
    expect![[r#"
        Some("ann") {"user":"ann","orders":1,"cents":100}
        Some("bob") {"user":"bob","orders":1,"cents":50}
        Some("bob") 
        Some("ann") {"user":"ann","orders":2,"cents":170}
        Some("ann") {"user":"ann","orders":1,"cents":70}
        Some("eve") {"user":"eve","orders":1,"cents":1}
        6: "the table was emptied (TRUNCATE), and the message has none of the rows that are gone"
    "#]]
    .assert_eq(&totals);
    Ok(())
}

/// What a compacted topic has in the end: the last message of each key, unless it is gone.
fn compacted(records: &[Record]) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for Record { key, payload, .. } in records {
        let key = key.clone().expect("a key");
        match payload.as_str() {
            "" => table.remove(&key),
            row => table.insert(key, row.to_owned()),
        };
    }
    table
}

/// What a sink has written with `tombstones` is read by a source with `upsert`, and written
/// again.
fn a_table_by_keys_comes_back_as_it_was_written() -> Outcome {
    let broker = broker()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let types = [
        ("utf8", json!(["", "tea", "\"tea\" ż", "{\"n\":1}"])),
        ("a|b c", json!(["a", "b c"])),
        ("bool", json!([true, false])),
        (
            "int64",
            json!([0, -1, 9_223_372_036_854_775_807_i64, i64::MIN]),
        ),
        ("uint64", json!([18_446_744_073_709_551_615_u64, 7])),
        ("decimal(20,2)", json!(["0.10", "-123456789012345678.90"])),
        (
            "timestamp",
            json!(["2024-01-31T12:00:00Z", "1969-12-31T23:59:59.999Z"]),
        ),
    ];
    for (number, (data_type, keys)) in types.into_iter().enumerate() {
        let (first, again) = (topic(broker, "table", 2), topic(broker, "again", 2));
        let mut changes = String::new();
        let keys = keys.as_array().expect("a list");
        // Each is deleted but the first, and the second comes again. What is gone and comes again
        // at once, no sink deletes.
        for (n, op) in [(1, "c"), (2, "u"), (3, "d"), (4, "c")] {
            for (index, key) in keys.iter().enumerate() {
                let is_wanted = match op {
                    "d" => index > 0,
                    _ => n < 4 || index <= 1,
                };
                let row = json!({"k": key, "n": n});
                let (before, after) = match op {
                    "d" => (row, Value::Null),
                    _ => (Value::Null, row),
                };
                let change = json!({"op": op, "before": before, "after": after, "ts_ms": n});
                if is_wanted {
                    changes.push_str(&format!("{change}\n"));
                }
            }
        }
        std::fs::write(folder.path().join("changes.jsonl"), changes).expect("a file");
        let pipeline = |source: &str, to: &str| {
            let text = format!(
                r#"
                name = "table-{number}"
                [sources.in]
                {source}
                fields = {{ n = "int64?", k = "{data_type}" }}
                [sinks.out]
                type = "kafka"
                input = "in"
                brokers = "{}"
                topic = "{to}"
                key = "k"
                tombstones = true
                # By default, an empty key is no key, and goes anywhere.
                properties = {{ "partitioner" = "consistent" }}
                "#,
                broker.address
            );
            let ran = run(plan_of(&text, folder.path()));
            let summary = ran.unwrap_or_else(|error| panic!("{error}"));
            assert!(summary.dead_letters.is_none(), "{data_type}");
            broker.read(to, true)
        };
        let written = pipeline(
            "type = \"file\"\npath = \"changes.jsonl\"\nformat = \"debezium-json\"\n\
             debezium = { key = \"k\", decimals = \"string\" }",
            &first,
        );
        assert!(written.iter().any(|record| record.payload.is_empty()));
        let source = format!(
            "type = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{first}\"\nuntil = \"end\"\n\
             upsert = {{ key = \"k\" }}",
            broker.address
        );
        let table = compacted(&written);
        assert_eq!(table.len(), 2, "{data_type}: {table:?}");
        assert_eq!(compacted(&pipeline(&source, &again)), table, "{data_type}");
    }
    Ok(())
}

/// An as-of join reads a topic whose producers' clocks differ, at every batch size and
/// parallelism, and through kills.
fn a_table_by_keys_is_the_same_however_it_is_read() -> Outcome {
    const KEYS: u64 = 12;
    let broker = broker()?;
    let partitions = 3;
    let from = topic(broker, "latest", partitions);
    let producer = broker.producer();
    let mut random = fastrand::Rng::with_seed(7);
    let began_ms = SystemClock.now_ms() - 3_600_000;
    // Of each key, what it has from when on.
    let mut versions: Vec<Vec<(i64, Option<i64>)>> = vec![Vec::new(); KEYS as usize];
    let mut newest_ms = vec![0; partitions as usize];
    for n in 0..600 {
        let id = random.u64(..KEYS);
        let partition = (id % partitions as u64) as usize;
        let sent_ms = began_ms + n * 1_000 - random.i64(0..5_000);
        newest_ms[partition] = sent_ms.max(newest_ms[partition]);
        let value = (random.u8(..3) > 0).then_some(n);
        versions[id as usize].push((newest_ms[partition], value));
        let key = match random.bool() {
            true => json!({ "id": id }),
            false => json!({"schema": {"type": "struct"}, "payload": {"id": id}}),
        };
        let key = key.to_string();
        let payload = value.map(|n| json!({ "n": n }).to_string());
        let mut message = BaseRecord::<str, str>::to(&from)
            .partition(partition as i32)
            .timestamp(sent_ms)
            .key(&key);
        message.payload = payload.as_deref();
        let sent = producer.send(message).map_err(|(error, _)| error);
        sent.expect("room");
    }
    producer.flush(PATIENCE).expect("all are written");
    assert_eq!(broker.sent(&from).len(), 600);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut asked, mut expected) = (String::new(), Vec::new());
    for row in 0..1_000 {
        let (id, at) = (random.u64(..KEYS), began_ms + row * 600);
        asked.push_str(&format!("{}\n", json!({"row": row, "id": id, "at": at})));
        let mut before = versions[id as usize].iter().rev();
        let version = before.find(|(since_ms, _)| *since_ms <= at);
        let n = version.and_then(|(_, value)| *value);
        expected.push(json!({"row": row, "n": n}).to_string());
    }
    std::fs::write(folder.path().join("asked.jsonl"), asked).expect("a file");
    let text = format!(
        r#"
        name = "{from}"
        [sources.asked]
        type = "file"
        path = "asked.jsonl"
        event_time = "at"
        fields = {{ row = "int64", id = "uint64", at = "timestamp(ms)" }}
        [sources.table]
        type = "kafka"
        brokers = "{}"
        topic = "{from}"
        until = "end"
        upsert = {{ key = "id", key_format = "json" }}
        fields = {{ id = "uint64", n = "int64?" }}
        [operators.found]
        join = {{ kind = "left", as_of = "event_time" }}
        input = {{ left = "asked", right = "table" }}
        key = "id"
        select = {{ row = "left.row", n = "right.n" }}
        [sinks.out]
        type = "blackhole"
        input = "found"
        "#,
        broker.address
    );
    let mut rows = collect_everywhere(&text, folder.path(), "out");
    rows.sort_by_key(|row| row["row"].as_i64());
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    assert_eq!(rows, expected);
    Ok(())
}

fn messages_that_are_no_rows_of_a_table_say_why() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "no-table", 1);
    let producer = broker.producer();
    let now_ms = SystemClock.now_ms();
    let send = |key: Option<&[u8]>, payload: Option<&str>, sent_ms: i64| {
        let mut message = BaseRecord::<[u8], str>::to(&topic).timestamp(sent_ms);
        (message.key, message.payload) = (key, payload);
        let sent = producer.send(message).map_err(|(error, _)| error);
        sent.expect("room");
    };
    send(Some(b"1"), Some("{\"n\":1}"), now_ms);
    send(None, Some("{\"n\":1}"), now_ms);
    send(None, None, now_ms);
    send(Some(b"one"), None, now_ms);
    send(Some(b"\xff"), Some("{\"n\":1}"), now_ms);
    send(Some(b"1"), Some("{\"n\":\"1\"}"), now_ms);
    send(Some(b"1"), None, now_ms + 1_800_000);
    send(Some(b"1"), None, now_ms - 3_600_000);
    producer.flush(PATIENCE).expect("all are written");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = format!(
        r#"
        name = "p-{topic}"
        dead_letters = "letters.jsonl"
        [sources.in]
        type = "kafka"
        brokers = "{address}"
        topic = "{topic}"
        until = "end"
        upsert = {{ key = "id" }}
        watermark = {{ max_ahead = "10m" }}
        fields = {{ id = "int64", n = "int64?" }}
        [sinks.out]
        type = "kafka"
        input = "in"
        brokers = "{address}"
        topic = "{topic}-out"
        key = "id"
        tombstones = true
        "#,
        address = broker.address
    );
    broker.create_topic(&format!("{topic}-out"), 1);
    run(plan_of(&text, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let rows = broker.shown(&format!("{topic}-out"));
    let letters = std::fs::read_to_string(folder.path().join("letters.jsonl"));
    let letters = letters.expect("there are some");
    let letters = letters.lines().map(|line| {
        let letter: DeadLetter = serde_json::from_str(line).expect("a letter");
        let (error, _) = letter
            .error
            .split_once(" ahead of")
            .unwrap_or((&letter.error, ""));
        let (offset, key, payload) = (letter.offset, letter.key, letter.payload);
        format!("{offset:?} {key:?} {payload:?}: {error}\n")
    });
    expect![[r#"
        Some("1") {"id":1,"n":1}
        Some("1") 
        Some(1) None Some("{\"n\":1}"): expected a message with a key, which says whose place its row takes, found one without
        Some(2) None None: expected a row or a key that is gone, found a message with neither payload nor key
        Some(3) Some("one") None: the message's key, as text: expected int64, found `one`
        Some(4) None Some("{\"n\":1}"): the message's key, as text: byte 0: expected UTF-8 text, found other bytes
        Some(5) Some("1") Some("{\"n\":\"1\"}"): field `n`: expected int64, found "1"
        Some(6) Some("1") None: expected an event time at most 10 m
    "#]].assert_eq(&(rows + &letters.collect::<String>()));
    Ok(())
}

fn compressed_topics_are_read() -> Outcome {
    let broker = broker()?;
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = topic(broker, codec, 1);
        let written = format!(
            r#"
            name = "{topic}"
            [sources.in]
            type = "generator"
            count = 1000
            [sinks.out]
            type = "kafka"
            brokers = "{}"
            topic = "{topic}"
            input = "in"
            properties = {{ "compression.type" = "{codec}" }}
            "#,
            broker.address
        );
        run(plan_of(&written, Path::new("."))).unwrap_or_else(|error| panic!("{codec}: {error}"));
        let fields = "until = \"end\"\nfields = { item_id = \"utf8\" }";
        let ([rows], _) = collect_all(reading(broker, &topic, fields), ["out"]);
        assert_eq!(rows.len(), 1_000, "{codec}");
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_is_not_read_on() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "again", 1);
    broker.write_payloads(&topic, 0, ids(0..5));
    let plan = reading(
        broker,
        &topic,
        &format!("discover_every = \"100ms\"\n{IDS}"),
    );
    let mut reader = open(&plan, (0, 1), &[]).await;
    let mut read = Read::default();
    read_until(&mut reader, &mut read, |read| read.rows.len() == 5).await;
    let snapshot = [reader.snapshot()];

    // It is still the same: the reader goes on where it was.
    broker.write_payloads(&topic, 0, ids(5..7));
    let mut read = Read::default();
    let mut restored = open(&plan, (0, 1), &snapshot).await;
    read_until(&mut restored, &mut read, |read| read.rows.len() == 2).await;
    assert_eq!(read.ids(), [5, 6]);
    drop(restored);

    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1);
    broker.write_payloads(&topic, 0, ids(100..110));
    let said = match try_open(&plan, (0, 1), &snapshot).await {
        Ok(_) => panic!("it is another topic"),
        Err(error) => {
            assert!(!error.fault().can_pass);
            error.to_string()
        }
    };
    expect!["source `in`: topic `TOPIC` was deleted and created again since it was read, so what is known of its offsets says nothing about its messages: drop what the checkpoint knows of this source (`sluicebox run --drop in`) to read the new one as `start` says"]
        .assert_eq(&said.replace(&topic, "TOPIC"));

    // Nor is it while it is being read.
    let until = Instant::now() + PATIENCE;
    let error = loop {
        match tokio::time::timeout_at(until.into(), reader.next())
            .await
            .expect("an error")
        {
            Ok(pulled) => assert!(pulled.is_none_or(|pulled| pulled.rows_in == 0)),
            Err(error) => break error.to_string(),
        }
    };
    // Its offset may be found missing before the topic is asked for.
    assert!(
        error == said || error.contains("truncated or created again"),
        "{error}"
    );

    // Without the checkpoint it is a topic like any other.
    let mut read = Read::default();
    let mut fresh = open(&plan, (0, 1), &[]).await;
    read_until(&mut fresh, &mut read, |read| read.rows.len() == 10).await;
    assert_eq!(read.ids(), (100..110).collect::<Vec<_>>());
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_partition_is_not_let_go_silently() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "let-go", 2);
    broker.write_payloads(&topic, 1, ids(0..5));
    let mut reader = open(&reading(broker, &topic, IDS), (0, 1), &[]).await;
    read_until(&mut reader, &mut Read::default(), |read| {
        read.rows.len() == 5
    })
    .await;
    let snapshot = [reader.snapshot()];
    let fewer = reading(broker, &topic, &format!("partitions = [0]\n{IDS}"));
    let error = try_open(&fewer, (0, 1), &snapshot)
        .await
        .err()
        .expect("it is missing");
    expect!["source `in`: the checkpoint had read TOPIC/1 up to offset 5, which the source does not read any more: name it again, or drop what the checkpoint knows of this source (`sluicebox run --drop in`); with `start = \"committed\"` it then goes on where its group has committed"]
        .assert_eq(&error.to_string().replace(&topic, "TOPIC"));
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn a_silent_partition_keeps_no_other_waiting() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "silent", 2);
    let times = "fields = { id = \"int64\" }\nevent_time = \"id\"\n\
                 watermark = { idle_after = \"1s\" }";
    let plan = reading(broker, &topic, times);
    let opened = Instant::now();
    let mut reader = open(&plan, (0, 1), &[]).await;
    let mut read = Read::default();
    let start = 1_700_000_000_000;
    broker.write_payloads(&topic, 1, ids(start..start + 10));
    read_until(&mut reader, &mut read, |read| read.rows.len() == 10).await;
    if opened.elapsed() < Duration::from_secs(1) {
        assert_eq!(read.watermark, None, "the other one may still speak");
    }
    // The watermark waits until the other partition is idle; and again, after it has
    // had a row.
    let mut next = start + 10;
    for silence in 0..2 {
        let until = Instant::now() + PATIENCE;
        let behind = next;
        while read.watermark < Some(behind) {
            assert!(Instant::now() < until, "{silence}: {:?}", read.watermark);
            broker.write_payloads(&topic, 1, ids(next..next + 1));
            let count = read.rows.len() + 1;
            read_until(&mut reader, &mut read, |read| read.rows.len() == count).await;
            next += 1;
        }
        broker.write_payloads(&topic, 0, ids(behind..behind + 1));
        let count = read.rows.len() + 1;
        read_until(&mut reader, &mut read, |read| read.rows.len() == count).await;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn what_a_topic_has_is_read_before_there_is_time() -> Outcome {
    let broker = broker()?;
    let times = "fields = { id = \"int64\" }\nevent_time = \"id\"\n\
                 watermark = { bootstrap = true }";
    let start = 1_700_000_000_000;
    for count in [0, 1, 250] {
        let topic = topic(broker, "table", 1);
        // They are in no order.
        let rows = (0..count).map(|n| start + n * 91 % 250);
        broker.write_payloads(&topic, 0, rows.map(|id| format!("{{\"id\":{id}}}")));
        let plan = reading(broker, &topic, times);
        let mut reader = open(&plan, (0, 1), &[]).await;
        let mut read = Read::default();
        while read.rows.len() < count as usize {
            assert_eq!(read.watermark, None, "after {} rows", read.rows.len());
            let before = read.rows.len();
            read_until(&mut reader, &mut read, |read| read.rows.len() > before).await;
        }
        if count > 0 {
            read_until(&mut reader, &mut read, |read| read.watermark.is_some()).await;
            let newest = read.ids().into_iter().max();
            assert_eq!(read.watermark, newest, "of {count}");
        }
        // From then on, rows advance time as they come.
        broker.write_payloads(&topic, 0, ids(start + 1_000..start + 1_001));
        let later = |read: &Read| read.watermark == Some(start + 1_000);
        read_until(&mut reader, &mut read, later).await;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn partitions_that_are_added_are_read_from_their_beginning() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "grows", 1);
    let more = format!("start = \"latest\"\ndiscover_every = \"200ms\"\n{IDS}");
    let plan = reading(broker, &topic, &more);
    let mut reader = open(&plan, (0, 1), &[]).await;
    let mut none = open(&plan, (1, 2), &[]).await;
    let (mut read, mut of_none) = (Read::default(), Read::default());
    // A task without partitions is idle.
    read_until(&mut none, &mut of_none, |read| read.idle == 1).await;
    broker.add_partitions(&topic, 2);
    broker.write_payloads(&topic, 1, ids(5..8));
    read_until(&mut reader, &mut read, |read| read.rows.len() == 3).await;
    read_until(&mut none, &mut of_none, |read| read.rows.len() == 3).await;
    assert_eq!(read.ids(), [5, 6, 7]);
    assert_eq!(of_none.ids(), [5, 6, 7]);
    let snapshot = reader.snapshot();
    let offsets: Vec<u64> = snapshot
        .partitions
        .iter()
        .map(|p| p.position.offset)
        .collect();
    assert_eq!(offsets, [0, 3]);
    Ok(())
}

#[tokio::main(flavor = "multi_thread")]
async fn what_cannot_be_read_says_why() -> Outcome {
    let broker = broker()?;
    let error = async |plan: &Plan, restored: &[SourceSnapshot]| {
        let failed = async {
            let mut reader = match try_open(plan, (0, 1), restored).await {
                Ok(reader) => reader,
                Err(error) => return error,
            };
            loop {
                match reader.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it should fail"),
                    Err(error) => return error,
                }
            }
        };
        tokio::time::timeout(PATIENCE, failed)
            .await
            .expect("an error")
    };
    let fails = async |plan: &Plan, restored: &[SourceSnapshot]| {
        let failed = error(plan, restored).await.to_string();
        failed.replace(&broker.address, "BROKER")
    };
    let missing = reading(broker, "is-not-there", IDS);
    expect![
        "source `in`: topic `is-not-there` does not exist on BROKER: create it, or correct its name"
    ]
    .assert_eq(&fails(&missing, &[]).await);
    assert!(!error(&missing, &[]).await.fault().can_pass);

    let topic = topic(broker, "fails", 1);
    broker.write_payloads(&topic, 0, ids(0..3));
    let missing = reading(broker, &topic, &format!("partitions = [0, 7]\n{IDS}"));
    let said = fails(&missing, &[]).await.replace(&topic, "TOPIC");
    expect!["source `in`: topic `TOPIC` has no partition 7 on BROKER: correct `partitions`, or add it to the topic"].assert_eq(&said);

    let plan = reading(broker, &topic, IDS);
    let mut reader = open(&plan, (0, 1), &[]).await;
    read_until(&mut reader, &mut Read::default(), |read| {
        read.rows.len() == 3
    })
    .await;
    let mut snapshot = reader.snapshot();
    // What was read once may come back.
    let mut known = snapshot.clone();
    known.partitions[0].name = "is-not-there/0".to_owned();
    let gone = reading(broker, "is-not-there", IDS);
    assert!(error(&gone, &[known]).await.fault().can_pass);
    snapshot.partitions[0].position.offset = 77;
    let said = fails(&plan, &[snapshot]).await.replace(&topic, "TOPIC");
    expect!["source `in`: TOPIC/0: offset 77 does not exist any more: the topic was truncated or created again since it was read; to go on without these rows, drop what the checkpoint knows of this source (`sluicebox run --drop in`) (Local: No offset to automatically reset to (fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)))"].assert_eq(&said);
    Ok(())
}

/// A pipeline from one topic to another.
fn copying(broker: &Broker, from: &str, to: &str, sink: &str) -> Plan {
    let text = format!(
        r#"
        name = "copy-{to}"
        [sources.in]
        type = "kafka"
        brokers = ["{address}"]
        topic = "{from}"
        until = "end"
        fields = {{ id = "int64", name = "utf8?", at = "timestamp" }}
        [sinks.out]
        type = "kafka"
        input = "in"
        brokers = "{address}"
        topic = "{to}"
        {sink}
        "#,
        address = broker.address
    );
    plan_of(&text, Path::new("."))
}

/// Source, sink and transaction use TLS and a password.
fn a_broker_that_wants_tls_and_a_password_is_served() -> Outcome {
    let broker = broker()?;
    let from = topic(broker, "secured", 1);
    let to = topic(broker, "secured-out", 1);
    broker.write_payloads(&from, 0, ["{\"id\":1,\"name\":\"one\",\"at\":0}"]);
    let (address, trusted) = broker.secure();
    let properties = |password: &str, trusted: &Path| {
        format!(
            "properties = {{ \"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" = \
             \"PLAIN\", \"sasl.username\" = \"shop\", \"sasl.password\" = \"{password}\", \
             \"ssl.ca.location\" = {trusted:?} }}"
        )
    };
    let copying = |password: &str| {
        let properties = properties(password, &trusted);
        let text = format!(
            r#"
            name = "{to}"
            [state]
            backend = "memory"
            [checkpoints]
            [restart]
            strategy = "never"
            [sources.in]
            type = "kafka"
            brokers = "{address}"
            topic = "{from}"
            until = "end"
            fields = {{ id = "int64", name = "utf8?", at = "timestamp" }}
            {properties}
            [sinks.out]
            type = "kafka"
            input = "in"
            brokers = "{address}"
            topic = "{to}"
            {properties}
            "#
        );
        plan_of(&text, Path::new("."))
    };
    let refused = run_committed(copying("wrong")).expect_err("the password is wrong");
    assert!(refused.contains("uthentication failed"), "{refused}");
    // A source alone is told the same.
    let nobody = Path::new("/etc/ssl/certs/ca-certificates.crt");
    for (password, trusted, expected) in [
        ("wrong", &*trusted, "Invalid username or password"),
        ("s3cret", nobody, "certificate verify failed"),
    ] {
        let text = format!(
            "name = \"refused\"\n[sources.in]\ntype = \"kafka\"\nbrokers = \"{address}\"\n\
             topic = \"{from}\"\n{IDS}\n{}\n[sinks.out]\ntype = \"blackhole\"\ninput = \"in\"",
            properties(password, trusted)
        );
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let job = Job::new(plan_of(&text, Path::new(".")), Arc::new(SystemClock));
        let refused = runtime.block_on(job.run()).map(drop);
        let refused = refused.expect_err("it is not let in").to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    run_committed(copying("s3cret")).expect("it is let in");
    assert_eq!(broker.read(&to, true).len(), 1);
    Ok(())
}

fn run_committed(plan: Plan) -> Result<(), String> {
    run_committed_with(plan, &[])
}

fn run_committed_with(plan: Plan, others: &[Arc<dyn Participant>]) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ran = runtime.block_on(async {
        let mut durable = Durable::open(&plan)?.expect("it has checkpoints");
        for other in others {
            durable.participants.add(other.clone());
        }
        let job = Job::new(plan, Arc::new(SystemClock)).keeping(durable);
        job.run().await.map(drop)
    });
    ran.map_err(|error| error.to_string())
}

/// Checkpoints commit the group's offsets, also without a transaction, and with one of others.
fn tools_see_how_far_checkpoints_have_come() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "group", 1);
    broker.write_payloads(&topic, 0, ids(0..10));
    let more = format!(
        "until = \"end\"\ngroup = \"of-{topic}\"\n{IDS}\n\
         [state]\nbackend = \"memory\"\n[checkpoints]"
    );
    let plan = reading(broker, &topic, &more);
    // A broker's first group takes a while.
    let group = format!("of-{topic}");
    assert_eq!(broker.committed(&group, &topic, 0), None);
    run_committed(plan).expect("a copy");
    let committed = broker.committed(&group, &topic, 0);
    assert_eq!(committed, Some((10, String::new())));
    let elsewhere = reading(broker, &topic, &more.replace("of-", "elsewhere-"));
    run_committed_with(elsewhere, &[Arc::new(MemoryTransaction::new(Vec::new()))]).expect("a copy");
    let committed = broker.committed(&format!("elsewhere-{topic}"), &topic, 0);
    assert_eq!(committed, Some((10, String::new())));
    // A pipeline of another name can continue from there.
    let more = format!("until = \"end\"\nstart = \"committed\"\ngroup = \"of-{topic}\"\n{IDS}");
    broker.write_payloads(&topic, 0, ids(10..12));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let read = runtime.block_on(read_all(&reading(broker, &topic, &more), (0, 1), &[]));
    assert_eq!(read.ids(), [10, 11]);
    Ok(())
}

/// Whether they are read or not: a reader that is too slow does not look.
#[tokio::main(flavor = "multi_thread")]
async fn messages_that_wait_are_counted() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "waiting", 2);
    for partition in 0..2 {
        broker.write_payloads(&topic, partition, ids(0..100));
    }
    let plan = reading(broker, &topic, IDS);
    let mut reader = open(&plan, (0, 1), &[]).await;
    let backlog = reader.backlog().expect("somebody counts");
    let until = async |messages: u64| {
        let end = Instant::now() + PATIENCE;
        while backlog.get() != Some(messages) {
            assert!(Instant::now() < end, "{backlog:?} and not {messages}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(backlog.get(), None);
    until(200).await;
    let mut read = Read::default();
    read_until(&mut reader, &mut read, |read| read.rows.len() >= 200).await;
    until(0).await;
    broker.write_payloads(&topic, 1, ids(100..107));
    until(7).await;
    Ok(())
}

fn rows_are_written_with_keys_and_headers() -> Outcome {
    let broker = broker()?;
    let (from, to) = (topic(broker, "from", 1), topic(broker, "to", 1));
    broker.write_payloads(
        &from,
        0,
        [
            "{\"id\":1,\"name\":\"a b\",\"at\":1700000000000}",
            "{\"id\":2,\"name\":null,\"at\":1700000000000}",
        ],
    );
    run(copying(
        broker,
        &from,
        &to,
        "key = \"name\"\nheaders = { number = \"id\", who = \"name\" }\n\
         properties = { \"compression.type\" = \"lz4\", \"linger.ms\" = 0 }",
    ))
    .unwrap_or_else(|error| panic!("{error}"));
    run(copying(broker, &from, &to, "key = \"id\"")).unwrap_or_else(|error| panic!("{error}"));
    let shown: String = broker
        .read(&to, true)
        .iter()
        .map(|record| format!("{:?} {} {:?}\n", record.key, record.payload, record.headers))
        .collect();
    expect![[r#"
        Some("a b") {"id":1,"name":"a b","at":"2023-11-14T22:13:20Z"} [("number", Some("1")), ("who", Some("a b"))]
        None {"id":2,"name":null,"at":"2023-11-14T22:13:20Z"} [("number", Some("2")), ("who", None)]
        Some("1") {"id":1,"name":"a b","at":"2023-11-14T22:13:20Z"} []
        Some("2") {"id":2,"name":null,"at":"2023-11-14T22:13:20Z"} []
    "#]].assert_eq(&shown);
    Ok(())
}

fn results_that_are_gone_delete_their_keys() -> Outcome {
    let broker = broker()?;
    let (from, to) = (topic(broker, "rows", 1), topic(broker, "current", 1));
    let row = |(id, at): (i64, i64)| format!("{{\"id\":{id},\"at\":{at}}}");
    let rows = [(1, 0), (2, 500), (1, 900), (2, 5_000)];
    broker.write_payloads(&from, 0, rows.map(row));
    let text = format!(
        r#"
        name = "current"
        [sources.in]
        type = "kafka"
        brokers = "{address}"
        topic = "{from}"
        until = "end"
        event_time = "at"
        fields = {{ id = "int64", at = "timestamp(ms)" }}
        [operators.rows_of]
        aggregate = {{ rows = "count()" }}
        input = "in"
        key = "id"
        window = "running"
        ttl = "1s"
        [sinks.out]
        type = "kafka"
        input = "rows_of.changes"
        brokers = "{address}"
        topic = "{to}"
        key = "id"
        tombstones = true
        "#,
        address = broker.address
    );
    run(plan_of(&text, Path::new("."))).unwrap_or_else(|error| panic!("{error}"));
    let shown = broker.shown(&to);
    expect![[r#"
        Some("1") {"id":1,"rows":1}
        Some("2") {"id":2,"rows":1}
        Some("1") {"id":1,"rows":2}
        Some("2") {"id":2,"rows":1}
        Some("1") 
    "#]]
    .assert_eq(&shown);
    Ok(())
}

fn many_rows_come_whole_and_in_order() -> Outcome {
    let broker = broker()?;
    let (from, to) = (topic(broker, "many", 1), topic(broker, "copied", 1));
    let row = |id: i64| format!("{{\"id\":{id},\"name\":null,\"at\":0}}");
    broker.write_payloads(&from, 0, (0..200_000).map(row));
    // A full queue makes the sink wait, and loses nothing.
    let small = "properties = { \"queue.buffering.max.messages\" = 1000 }";
    let plan = copying(broker, &from, &to, small);
    run(plan).unwrap_or_else(|error| panic!("{error}"));
    let copied = broker.read(&to, true);
    assert_eq!(copied.len(), 200_000);
    for (id, record) in copied.iter().enumerate() {
        let found: Value = serde_json::from_str(&record.payload).expect("JSON");
        assert_eq!(found["id"], id);
    }
    Ok(())
}

fn rows_that_cannot_be_written_fail_the_run() -> Outcome {
    let broker = broker()?;
    let from = topic(broker, "unwritten", 1);
    broker.write_payloads(&from, 0, ["{\"id\":1,\"name\":null,\"at\":0}"]);
    let plan = copying(
        broker,
        &from,
        "no-such-topic",
        "properties = { \"topic.metadata.propagation.max.ms\" = 500 }",
    );
    let error = run(plan).expect_err("nobody has this topic");
    assert!(!error.fault().can_pass);
    let error = error.to_string();
    expect!["sink `out`: cannot write to topic `no-such-topic` on BROKER: Broker: Unknown topic or partition; create the topic, or correct its name"].assert_eq(&error.replace(&broker.address, "BROKER"));
    Ok(())
}

/// One has no message, another is too large for one.
fn rows_that_cannot_be_sent_are_refused() -> Outcome {
    let broker = broker()?;
    let folder = tempfile::tempdir().expect("a folder");
    let schema = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; \
                  message Row { int64 id = 1; string name = 2; google.protobuf.Timestamp at = 3; }";
    std::fs::write(folder.path().join("row.proto"), schema).expect("it is writable");
    let long = "x".repeat(3_000);
    let rows: String = (0..1_000)
        .map(|id| match id {
            7 | 999 => format!("{{\"id\":{id},\"name\":\"{long}\",\"at\":0}}\n"),
            8 => format!("{{\"id\":{id},\"name\":\"x\",\"at\":9224318016000000}}\n"),
            _ => format!("{{\"id\":{id},\"name\":\"x\",\"at\":0}}\n"),
        })
        .collect();
    std::fs::write(folder.path().join("in.jsonl"), rows).expect("it is writable");
    let exactly = "[state]\nbackend = \"memory\"\n[checkpoints]\ninterval = \"50ms\"\n";
    let mut told = Vec::new();
    for (number, head) in ["", exactly].into_iter().enumerate() {
        let (json, proto) = (topic(broker, "json", 1), topic(broker, "proto", 1));
        let sink = |name: &str, topic: &str, more: &str| {
            format!(
                "[sinks.{name}]\ntype = \"kafka\"\ninput = \"in\"\nbrokers = \"{}\"\n\
                 topic = \"{topic}\"\nproperties = {{ \"message.max.bytes\" = 2000 }}\n{more}\n",
                broker.address
            )
        };
        let schema = folder.path().join("row.proto");
        let of_schema = format!("format = \"protobuf\"\nschema = {schema:?}\nmessage = \"Row\"\n");
        let text = |policy: &str| {
            format!(
                "name = \"refusing-{number}\"\nparallelism = 2\nbatch_rows = 100\n{head}\
                 [sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
                 fields = {{ id = \"int64\", name = \"utf8\", at = \"timestamp\" }}\n{}{}",
                sink("json", &json, policy),
                sink("proto", &proto, &format!("{of_schema}{policy}")),
            )
        };
        let ran = |policy: &str| {
            let plan = plan_of(&text(policy), folder.path());
            match head {
                "" => run(plan).map(drop).map_err(|error| error.to_string()),
                _ => run_committed(plan),
            }
        };
        ran("on_error = \"dead_letter\"").unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join(format!("refusing-{number}.dead.jsonl"));
        let letters = std::fs::read_to_string(path).expect("dead letters");
        let letters = letters.lines().map(|line| {
            let letter: Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| letter[key].as_str().unwrap_or_default();
            let row: Value = serde_json::from_str(text("row")).expect("a row");
            let (node, kind, error) = (text("node"), text("kind"), text("error"));
            format!("{node} {} {kind}: {error}", row["id"])
        });
        let mut letters = Vec::from_iter(letters);
        letters.sort();
        told.push(letters.join("\n") + "\n");
        assert_eq!(broker.read(&json, true).len(), 998);
        assert_eq!(broker.read(&proto, true).len(), 997);
        if head.is_empty() {
            let error = ran("").expect_err("one fails");
            let why = ["is too far away for", "is larger than `message.max.bytes`"];
            assert!(why.iter().any(|why| error.contains(why)), "{error}");
        }
    }
    expect![[r#"
        json 7 refused: the message is larger than `message.max.bytes`: raise that in the sink's `properties`, and `max.message.bytes` of the topic
        json 999 refused: the message is larger than `message.max.bytes`: raise that in the sink's `properties`, and `max.message.bytes` of the topic
        proto 7 refused: the message is larger than `message.max.bytes`: raise that in the sink's `properties`, and `max.message.bytes` of the topic
        proto 8 refused: 9224318016000000 is too far away for a `Timestamp`
        proto 999 refused: the message is larger than `message.max.bytes`: raise that in the sink's `properties`, and `max.message.bytes` of the topic
    "#]].assert_eq(&told[0]);
    assert_eq!(told[1], told[0]);
    Ok(())
}

/// What is taken back is deleted, as if the row in its place had not come.
fn a_result_whose_next_one_is_refused_is_gone() -> Outcome {
    let broker = broker()?;
    let to = topic(broker, "current", 1);
    let folder = tempfile::tempdir().expect("a folder");
    let row = |(id, name): (i64, &str)| format!("{{\"id\":{id},\"name\":\"{name}\",\"at\":0}}\n");
    let long = "x".repeat(3_000);
    let rows = [
        (1, "a"),
        (2, "b"),
        (1, &long),
        (2, "c"),
        (1, "d"),
        (3, &long),
    ];
    let rows: String = rows.map(row).concat();
    std::fs::write(folder.path().join("in.jsonl"), rows).expect("it is writable");
    let text = format!(
        r#"
        name = "current-{to}"
        [sources.in]
        type = "file"
        path = "in.jsonl"
        event_time = "at"
        watermark = {{ out_of_orderness = "0s" }}
        fields = {{ id = "int64", name = "utf8", at = "timestamp" }}
        [operators.latest]
        aggregate = {{ name = "last(name)" }}
        input = "in"
        key = "id"
        window = "running"
        [sinks.out]
        type = "kafka"
        input = "latest.changes"
        brokers = "{address}"
        topic = "{to}"
        key = "id"
        tombstones = true
        on_error = "skip"
        properties = {{ "message.max.bytes" = 2000 }}
        "#,
        address = broker.address
    );
    run(plan_of(&text, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let shown = broker.shown(&to);
    expect![[r#"
        Some("1") {"id":1,"name":"a"}
        Some("2") {"id":2,"name":"b"}
        Some("1") 
        Some("2") {"id":2,"name":"c"}
        Some("1") {"id":1,"name":"d"}
    "#]]
    .assert_eq(&shown);
    Ok(())
}

/// A pipeline's transaction and its one Kafka sink.
struct Committing {
    transaction: Arc<dyn Participant>,
    sink: Box<dyn Sink>,
    batch: sluicebox::batch::Batch,
    partitions: SourceSnapshot,
}

impl Committing {
    fn open(broker: &Broker, from: &str, to: &str) -> Self {
        let plan = copying(broker, from, to, "");
        let node = plan.nodes.last().expect("a sink");
        let NodeKind::Sink(kafka) = &node.kind else {
            unreachable!("sinks are last");
        };
        let transaction = kafka.connector.participant(&commit_context(&plan));
        let transaction = transaction.expect("Kafka has transactions");
        let mut participants = Participants::default();
        participants.add(transaction.clone());
        let context = SinkContext {
            is_checkpointed: true,
            participants,
            ..SinkContext::default()
        };
        let sink = kafka.connector.open(&node.name, node.schema(), &context);
        let sink = sink.unwrap_or_else(|error| panic!("{error}"));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (batch, partitions) = runtime.block_on(async {
            let mut reader = open(&plan, (0, 1), &[]).await;
            loop {
                let pulled = reader.next().await.expect("it is readable").expect("rows");
                let rows = pulled
                    .elements
                    .into_iter()
                    .find_map(|element| match element {
                        Element::Batch(batch) => Some(batch),
                        _ => None,
                    });
                if let Some(batch) = rows {
                    return (batch, reader.snapshot());
                }
            }
        });
        Committing {
            transaction,
            sink,
            batch,
            partitions,
        }
    }

    fn fence(&self) -> Option<u64> {
        let fenced = self.transaction.fence(&Stop::default());
        fenced.unwrap_or_else(|error| panic!("{error}"))
    }

    fn manifest(&self, id: u64) -> Manifest {
        Manifest {
            id,
            nodes: vec![NodeManifest {
                description: NodeDescription {
                    name: "in".into(),
                    class: NodeClass::Source,
                    ..NodeDescription::default()
                },
                progress: ProgressManifest::Source(vec![self.partitions.clone()]),
            }],
            ..Manifest::default()
        }
    }
}

fn rows_are_seen_when_their_checkpoint_is_committed() -> Outcome {
    let broker = broker()?;
    let (from, to) = (topic(broker, "rows", 1), topic(broker, "seen", 1));
    broker.write_payloads(&from, 0, ["{\"id\":1,\"name\":null,\"at\":0}"]);
    let seen = |is_committed| broker.read(&to, is_committed).len();

    let mut first = Committing::open(broker, &from, &to);
    assert_eq!(first.fence(), None);
    first.transaction.begin().expect("a transaction");
    first.sink.write(&first.batch).expect("room");
    first.transaction.prepare(1).expect("rows arrive");
    assert_eq!((seen(true), seen(false)), (0, 1), "sent, and not seen");

    // Rows after the barrier belong to the next checkpoint.
    first.sink.barrier(1).expect("a snapshot");
    first.sink.write(&first.batch).expect("it is kept");
    first.sink.write(&first.batch).expect("it is kept");
    first.transaction.prepare(1).expect("rows arrive");
    first
        .transaction
        .commit(&first.manifest(1))
        .expect("a commit");
    assert_eq!((seen(true), seen(false)), (1, 1));
    let group = format!("sluicebox-copy-{to}");
    assert_eq!(
        broker.committed(&group, &from, 0),
        Some((1, "checkpoint 1".to_owned()))
    );
    first.transaction.begin().expect("a transaction");
    first.sink.committed(1).expect("rows go out");
    first.transaction.prepare(1).expect("rows arrive");
    assert_eq!((seen(true), seen(false)), (1, 3));

    // Another host takes over: what was not committed is never seen.
    let mut second = Committing::open(broker, &from, &to);
    assert_eq!(second.fence(), Some(1));
    let error = first.transaction.commit(&first.manifest(2));
    let error = error.expect_err("it was fenced").to_string();
    assert!(error.contains("another host runs this pipeline"), "{error}");
    second.transaction.begin().expect("a transaction");
    second.sink.write(&second.batch).expect("room");
    second.sink.barrier(2).expect("a snapshot");
    second.transaction.prepare(1).expect("rows arrive");
    second
        .transaction
        .commit(&second.manifest(2))
        .expect("a commit");
    assert_eq!(seen(true), 2);

    // A host that dies and comes back: none of its uncommitted rows is seen.
    second.transaction.begin().expect("a transaction");
    second.sink.committed(2).expect("nothing was kept");
    second.sink.write(&second.batch).expect("room");
    second.transaction.prepare(1).expect("rows arrive");
    drop(second);
    let third = Committing::open(broker, &from, &to);
    assert_eq!(third.fence(), Some(2));
    assert_eq!(seen(true), 2);
    // The same host, after a failure.
    assert_eq!(third.fence(), Some(2));
    third.transaction.begin().expect("a transaction");
    third
        .transaction
        .commit(&third.manifest(3))
        .expect("a commit of no rows");
    assert_eq!(third.fence(), Some(3));
    Ok(())
}

/// While a transaction is open, nothing after it can be read, not even this pipeline's
/// last checkpoint.
fn the_last_checkpoint_is_found_behind_others_transactions() -> Outcome {
    let broker = broker()?;
    let (from, to) = (topic(broker, "mine", 1), topic(broker, "own", 1));
    broker.write_payloads(&from, 0, ["{\"id\":1,\"name\":null,\"at\":0}"]);
    let own = Committing::open(broker, &from, &to);
    assert_eq!(own.fence(), None);
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("transactional.id", format!("other-than-{to}"))
        .create()
        .expect("a producer");
    other.init_transactions(PATIENCE).expect("a transaction");
    other.begin_transaction().expect("a transaction");
    let record = BaseRecord::to(PROGRESS_TOPIC)
        .key("other")
        .payload("{\"checkpoint\":9}");
    other
        .send(record)
        .map_err(|(error, _)| error)
        .expect("room");
    other.flush(PATIENCE).expect("it arrives");

    own.transaction.begin().expect("a transaction");
    own.transaction.commit(&own.manifest(1)).expect("a commit");
    let started = Instant::now();
    let fenced = std::thread::scope(|scope| {
        let transaction = &own.transaction;
        let fenced = scope.spawn(|| transaction.fence(&Stop::default()));
        std::thread::sleep(Duration::from_secs(2));
        other.abort_transaction(PATIENCE).expect("an end");
        fenced.join().expect("an answer").expect("it was fenced")
    });
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(fenced, Some(1));
    Ok(())
}

fn a_broker_that_comes_back_is_read_on() -> Outcome {
    broker()?;
    let own = Broker::start().expect("a second broker");
    let (from, to) = (topic(&own, "back", 1), topic(&own, "again", 1));
    let row = |id: i64| format!("{{\"id\":{id},\"name\":null,\"at\":0}}");
    own.write_payloads(&from, 0, (0..1_000).map(row));
    let mut committing = Committing::open(&own, &from, &to);
    assert_eq!(committing.fence(), None);
    committing.transaction.begin().expect("a transaction");
    committing.sink.write(&committing.batch).expect("room");
    let rows = committing.batch.rows();
    own.restart();
    committing.sink.barrier(1).expect("a snapshot");
    committing.transaction.prepare(1).expect("rows arrive");
    committing
        .transaction
        .commit(&committing.manifest(1))
        .expect("a commit");
    assert_eq!(own.read(&to, true).len(), rows);

    let plan = reading(&own, &from, IDS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut reader = open(&plan, (0, 1), &[]).await;
        let mut read = Read::default();
        read_until(&mut reader, &mut read, |read| read.rows.len() == 1_000).await;
        own.restart();
        own.write_payloads(&from, 0, (1_000..1_010).map(row));
        read_until(&mut reader, &mut read, |read| read.rows.len() == 1_010).await;
        assert_eq!(read.ids(), (0..1_010).collect::<Vec<i64>>());
    });
    Ok(())
}

fn a_pipeline_of_several_tasks_reads_all() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "tasks", 5);
    for partition in 0..5 {
        let first = i64::from(partition) * 100;
        broker.write_payloads(&topic, partition, ids(first..first + 100));
    }
    for parallelism in [1, 2, 4] {
        let mut plan = reading(broker, &topic, &format!("until = \"end\"\n{IDS}"));
        plan.parallelism = parallelism;
        let ([rows], _) = collect_all(plan, ["out"]);
        let mut ids: Vec<i64> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..500).collect::<Vec<i64>>(), "{parallelism} tasks");
    }
    Ok(())
}
