//! Tests rows with schemas in Kafka: a real broker, and a real registry.

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
/// A real host that is killed.
#[path = "common/killed.rs"]
mod killed;
/// Runs a pipeline as a test.
#[expect(dead_code, reason = "some of it is for other tests")]
#[path = "common/pipeline.rs"]
mod pipeline;
/// A real registry.
#[path = "common/registry.rs"]
mod registry;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use expect_test::expect;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;
use sluicebox::avro::{write_bytes, write_long};
use sluicebox::config::Config;
use tempfile::TempDir;

use harness::Outcome;
use kafka::{Broker, broker};
use killed::{Kills, in_rounds, tail};
use pipeline::{plan_of, rows_of, run, to_memory};
use registry::registry;

tests![
    rows_of_every_type_come_back_as_they_were,
    rows_of_several_schemas_are_read_from_one_topic,
    rows_of_one_schema_need_no_registry,
    keys_of_a_registry_are_those_of_a_table,
    what_cannot_be_read_is_a_dead_letter_with_its_bytes,
    a_registry_that_is_away_is_waited_for,
    a_registry_that_refuses_stops_the_run,
    a_schema_that_is_not_compatible_stops_the_run,
    only_schemas_that_are_there_are_written_where_none_may_be_added,
    mistakes_are_found_before_anything_runs,
    nothing_is_lost_or_doubled_by_kills,
    rows_of_protobuf_come_back_as_they_were,
    messages_of_protobuf_may_have_several_schemas,
    messages_of_protobuf_need_no_registry,
    a_registered_schema_of_protobuf_is_found_again,
    mistakes_of_protobuf_are_found_before_anything_runs,
];

fn topic(broker: &Broker, name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    broker.create_topic(&name, 1);
    name
}

fn write(broker: &Broker, topic: &str, rows: &[Vec<u8>]) {
    let producer = broker.producer();
    for row in rows {
        let message = BaseRecord::<[u8], [u8]>::to(topic).payload(row);
        let sent = producer.send(message).map_err(|(error, _)| error);
        sent.expect("room");
    }
    let flushed = producer.flush(Duration::from_secs(20));
    flushed.expect("all are written");
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.replace(' ', "");
    let digits = hex.as_bytes().chunks(2);
    let byte = |digits| {
        let digits = std::str::from_utf8(digits).expect("text");
        u8::from_str_radix(digits, 16).expect("a byte")
    };
    digits.map(byte).collect()
}

/// A row behind the number of its schema.
fn framed(id: u32, row: &str) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), &bytes(row)].concat()
}

/// A topic of Avro is read to its end: its rows, and the dead letters.
fn read(broker: &Broker, topic: &str, more: &str) -> (Vec<Value>, Vec<Value>) {
    read_as("avro", broker, topic, more)
}

fn read_as(format: &str, broker: &Broker, topic: &str, more: &str) -> (Vec<Value>, Vec<Value>) {
    let folder = TempDir::new().expect("a folder");
    let letters = folder.path().join("letters.jsonl");
    let text = format!(
        r#"
        name = "read-{topic}"
        dead_letters = "letters.jsonl"
        [sources.in]
        type = "kafka"
        brokers = "{}"
        topic = "{topic}"
        until = "end"
        on_error = "dead_letter"
        format = "{format}"
        {more}
        [sinks.out]
        type = "blackhole"
        input = "in"
        "#,
        broker.address
    );
    let mut plan = plan_of(&text, folder.path());
    let rows = to_memory(&mut plan, "out");
    run(plan).unwrap_or_else(|error| panic!("{error}"));
    let letters = fs::read_to_string(letters).unwrap_or_default();
    let letters = letters.lines().map(serde_json::from_str);
    (
        rows_of(&rows),
        letters.collect::<Result<_, _>>().expect("lines of JSON"),
    )
}

/// Writes rows of JSON to a topic as Avro; the error is that of the run.
fn written(
    broker: &Broker,
    topic: &str,
    fields: &str,
    rows: &str,
    more: &str,
) -> Result<(), String> {
    written_as("avro", broker, topic, fields, rows, more)
}

fn written_as(
    format: &str,
    broker: &Broker,
    topic: &str,
    fields: &str,
    rows: &str,
    more: &str,
) -> Result<(), String> {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("in.jsonl"), rows).expect("a file");
    let text = format!(
        r#"
        name = "write-{topic}"
        [sources.in]
        type = "file"
        path = "in.jsonl"
        {fields}
        [sinks.out]
        type = "kafka"
        brokers = "{}"
        topic = "{topic}"
        input = "in"
        format = "{format}"
        {more}
        "#,
        broker.address
    );
    run(plan_of(&text, folder.path()))
        .map(drop)
        .map_err(|error| error.to_string())
}

const EVERY_TYPE: &str = r#"
    [sources.in.fields]
    bool = "bool?"
    int8 = "int8?"
    int16 = "int16?"
    int32 = "int32?"
    int64 = "int64?"
    uint8 = "uint8?"
    uint16 = "uint16?"
    uint32 = "uint32?"
    uint64 = "uint64?"
    float32 = "float32?"
    float64 = "float64?"
    utf8 = "utf8?"
    bytes = "bytes?"
    decimal = "decimal(38,10)?"
    timestamp = "timestamp?"
    symbol = "red|green?"
    words = "a b|ż?"
    list = "list<list<int64?>>?"
    "record?" = { text = "utf8", n = "int8?" }
    "records?" = [{ at = "timestamp" }]
"#;

const ROWS: &str = r#"{"bool":true,"int8":127,"int16":32767,"int32":2147483647,"int64":9223372036854775807,"uint8":255,"uint16":65535,"uint32":4294967295,"uint64":18446744073709551615,"float32":1.5,"float64":1.7976931348623157e308,"utf8":"\u0000żółw 🐢","bytes":"AP8=","decimal":"9999999999999999999999999999.9999999999","timestamp":"9999-12-31T23:59:59.999Z","symbol":"green","words":"ż","list":[[1,null],[]],"record":{"text":"x","n":-128},"records":[{"at":"2024-02-29T00:00:00Z"}]}
{"bool":false,"int8":-128,"int16":-32768,"int32":-2147483648,"int64":-9223372036854775808,"uint8":0,"uint16":0,"uint32":0,"uint64":0,"float32":-0.5,"float64":5e-324,"utf8":"","bytes":"","decimal":"-0.0000000001","timestamp":"0001-01-01T00:00:00Z","symbol":"red","words":"a b","list":[],"record":{"text":"","n":null},"records":[]}
{}
"#;

/// Rows of JSON, as a pipeline reads them.
fn as_they_are(fields: &str, rows: &str) -> Vec<Value> {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("in.jsonl"), rows).expect("a file");
    let text = format!(
        "name = \"plain\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n{fields}\n\
         [sinks.out]\ntype = \"blackhole\"\ninput = \"in\"\n"
    );
    let mut plan = plan_of(&text, folder.path());
    let read = to_memory(&mut plan, "out");
    run(plan).unwrap_or_else(|error| panic!("{error}"));
    rows_of(&read)
}

fn rows_of_every_type_come_back_as_they_were() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "every-type");
    let keys = format!("registry = \"{}\"", registry.address());
    written(broker, &topic, EVERY_TYPE, ROWS, &keys).expect("they fit");
    let schema = registry.ask(&format!("subjects/{topic}-value/versions/1"), None);
    assert!(
        schema["schema"]
            .as_str()
            .is_some_and(|it| it.contains("timestamp-millis"))
    );
    let (rows, letters) = read(broker, &topic, &format!("{keys}\n{EVERY_TYPE}"));
    assert_eq!(letters, Vec::<Value>::new());
    assert_eq!(rows.len(), 3);
    assert_eq!(rows, as_they_are(EVERY_TYPE, ROWS));
    // A second run finds the schema that is there.
    written(broker, &topic, EVERY_TYPE, "{}", &keys).expect("they fit");
    let versions = registry.ask(&format!("subjects/{topic}-value/versions"), None);
    assert_eq!(versions, serde_json::json!([1]));
    Ok(())
}

fn rows_of_several_schemas_are_read_from_one_topic() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "evolving");
    let line = r#"{"type":"record","name":"Line","namespace":"shop","fields":[{"name":"sku","type":"string"}]}"#;
    registry.add(&format!("{topic}-line"), line, &[]);
    let first = registry.add(
        &format!("{topic}-one"),
        r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"old","type":"string"}]}"#,
        &[],
    );
    let second = registry.add(
        &format!("{topic}-two"),
        r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"line","type":["null","shop.Line"]},{"name":"id","type":"long"}]}"#,
        &[("shop.Line", &format!("{topic}-line"), 1)],
    );
    let mut rows = Vec::new();
    for _ in 0..100 {
        rows.push(framed(first, "0e 04 6162"));
        rows.push(framed(second, "02 02 78 10"));
        rows.push(framed(second, "00 12"));
    }
    write(broker, &topic, &rows);
    let keys = format!(
        "registry = \"{}\"\n[sources.in.fields]\nid = \"int64\"\n\"line?\" = {{ sku = \"utf8\" }}",
        registry.address()
    );
    let (rows, letters) = read(broker, &topic, &keys);
    assert_eq!((rows.len(), letters.len()), (300, 0));
    let shown: Vec<String> = rows[..3].iter().map(Value::to_string).collect();
    expect![[r#"
        {"id":7,"line":null}
        {"id":8,"line":{"sku":"x"}}
        {"id":9,"line":null}"#]]
    .assert_eq(&shown.join("\n"));
    Ok(())
}

const ID: &str = r#"{"type":"record","name":"Id","fields":[{"name":"id","type":"long"}]}"#;

fn rows_of_one_schema_need_no_registry() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "plain");
    let folder = TempDir::new().expect("a folder");
    let schema = folder.path().join("id.avsc");
    fs::write(&schema, ID).expect("a file");
    let schema = format!("schema = \"{}\"", schema.display());
    let fields = "fields = { id = \"int64\" }";
    written(
        broker,
        &topic,
        fields,
        "{\"id\":-1}\n{\"id\":64}\n",
        &schema,
    )
    .expect("they fit");
    write(broker, &topic, &[bytes("04")]);
    let (rows, letters) = read(broker, &topic, &format!("{schema}\n{fields}"));
    let shown: Vec<String> = rows.iter().map(Value::to_string).collect();
    assert_eq!(shown, [r#"{"id":-1}"#, r#"{"id":64}"#, r#"{"id":2}"#]);
    assert_eq!(letters, Vec::<Value>::new());
    Ok(())
}

/// Rows and tombstones whose keys are of the registry, too, and of another schema later.
fn keys_of_a_registry_are_those_of_a_table() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let (from, to) = (topic(broker, "keyed"), topic(broker, "keyed-out"));
    let key = registry.add(&format!("{from}-key"), ID, &[]);
    let longer = registry.add(
        &format!("{from}-longer-key"),
        r#"{"type":"record","name":"Key","fields":[{"name":"shop","type":"string"},{"name":"id","type":"int"}]}"#,
        &[],
    );
    let value = registry.add(
        &format!("{from}-value"),
        r#"{"type":"record","name":"Item","fields":[{"name":"name","type":"string"}]}"#,
        &[],
    );
    let (one, two) = (framed(key, "02"), framed(key, "04"));
    let messages = [
        (one.clone(), Some(framed(value, "06 6f6e65"))),
        (two.clone(), Some(framed(value, "06 74776f"))),
        (one, None),
        (framed(longer, "02 78 04"), Some(framed(value, "00"))),
        (framed(9_999, "04"), None),
        (two, Some(framed(9_998, "00"))),
    ];
    let producer = broker.producer();
    for (key, payload) in &messages {
        let mut message = BaseRecord::<[u8], [u8]>::to(&from).key(key);
        message.payload = payload.as_deref();
        let sent = producer.send(message).map_err(|(error, _)| error);
        sent.expect("room");
    }
    let flushed = producer.flush(Duration::from_secs(20));
    flushed.expect("all are written");
    let folder = TempDir::new().expect("a folder");
    let text = format!(
        r#"
        name = "{from}"
        dead_letters = "letters.jsonl"
        [sources.in]
        type = "kafka"
        brokers = "{address}"
        topic = "{from}"
        until = "end"
        format = "avro"
        registry = "{registry}"
        upsert = {{ key = "id", key_format = "avro" }}
        fields = {{ id = "int64", name = "utf8?" }}
        [sinks.out]
        type = "kafka"
        brokers = "{address}"
        topic = "{to}"
        input = "in"
        key = "id"
        tombstones = true
        "#,
        address = broker.address,
        registry = registry.address()
    );
    run(plan_of(&text, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let rows = broker.shown(&to);
    let letters = fs::read_to_string(folder.path().join("letters.jsonl")).unwrap_or_default();
    let letters = letters.lines().map(|line| {
        let letter: Value = serde_json::from_str(line).expect("JSON");
        format!("{}: {}\n", letter["offset"], letter["error"])
    });
    let read = rows + &letters.collect::<String>();
    expect![[r#"
        Some("1") {"id":1,"name":"one"}
        Some("2") {"id":2,"name":"two"}
        Some("1") 
        Some("2") {"id":2,"name":""}
        4: "the message's key, as avro: schema 9999 of the registry: REGISTRY has none"
        5: "schema 9998 of the registry: REGISTRY has none"
    "#]]
    .assert_eq(&read.replace(&registry.address(), "REGISTRY"));
    Ok(())
}

fn what_cannot_be_read_is_a_dead_letter_with_its_bytes() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "bad");
    let id = registry.add(&format!("{topic}-value"), ID, &[]);
    let other = registry.add(
        &format!("{topic}-other"),
        r#"{"type":"record","name":"Id","fields":[{"name":"id","type":"string"}]}"#,
        &[],
    );
    let rows = [
        framed(id, "02"),
        framed(id, ""),
        framed(id, "0202"),
        framed(other, "0261"),
        framed(4_000_000_000, "02"),
        b"{\"id\":1}".to_vec(),
        framed(id, "04"),
    ];
    write(broker, &topic, &rows);
    let keys = format!(
        "registry = \"{}\"\nfields = {{ id = \"int64\" }}",
        registry.address()
    );
    let (good, letters) = read(broker, &topic, &keys);
    assert_eq!(good.len(), 2);
    let shown: Vec<String> = letters
        .iter()
        .map(|letter| {
            let (offset, text) = (&letter["offset"], &letter["payload"]);
            let payload = text.as_str().or(letter["payload_base64"].as_str());
            let error = letter["error"].as_str().unwrap_or_default();
            let error = error
                .replace(&registry.address(), "REGISTRY")
                .replace(&format!("schema {other} "), "schema OTHER ");
            // What has numbers of schemas differs from run to run.
            let payload = match offset.as_u64() {
                Some(5) => payload.unwrap_or_default(),
                _ => "…",
            };
            format!("{offset} {payload}: {error}\n")
        })
        .collect();
    expect![[r#"
        1 …: field `id`: expected a number, found the end of the row
        2 …: expected the end of the row at byte 1, found 1 more
        3 …: schema OTHER of the registry: field `id` is int64 in `fields`, and string in the schema
        4 …: schema 4000000000 of the registry: the numbers of schemas end at 2147483647
        5 {"id":1}: expected a zero byte and the four of a schema's number, found the byte 123 (without `registry`, messages have no such beginning)
    "#]]
    .assert_eq(&shown.concat());
    Ok(())
}

/// A server that answers each request with the next of these. Returns its address, and what
/// it was asked.
fn answering(
    answers: &'static [(u16, &'static str)],
    after: Duration,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let mut answers = answers.iter();
    let address = serving(move |head| {
        if seen.lock().expect("a list").is_empty() {
            std::thread::sleep(after);
        }
        seen.lock().expect("a list").push(head.to_owned());
        let (status, text) = answers.next().copied().unwrap_or((500, "over"));
        (status, text.to_owned())
    });
    (address, asked)
}

/// A server that answers each request, one after the other, by its head.
fn serving(mut answer: impl FnMut(&str) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // Who asks may be gone before the answer, if it is killed.
            let _ = connection.and_then(|it| serve(it, &mut answer));
        }
    });
    format!("http://{address}")
}

fn serve(
    mut connection: TcpStream,
    answer: &mut impl FnMut(&str) -> (u16, String),
) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.to_ascii_lowercase();
    let length = length.split_once("content-length: ").and_then(|(_, rest)| {
        let (digits, _) = rest.split_once("\r\n")?;
        digits.parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (status, text) = answer(&head);
    write!(
        connection,
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}

const ANSWER: &str = r#"{"schema":"{\"type\":\"record\",\"name\":\"Id\",\"fields\":[{\"name\":\"id\",\"type\":\"long\"}]}"}"#;

fn a_registry_that_is_away_is_waited_for() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "away");
    write(broker, &topic, &[framed(7, "02"), framed(7, "04")]);
    let answers = &[(503, "not yet"), (429, ""), (200, ANSWER)];
    let (address, asked) = answering(answers, Duration::from_millis(500));
    let began = Instant::now();
    let keys = format!(
        "registry = {{ address = \"{address}\", user = \"ann\", password = \"s3cret\" }}\n\
         fields = {{ id = \"int64\" }}"
    );
    let (rows, letters) = read(broker, &topic, &keys);
    assert_eq!((rows.len(), letters.len()), (2, 0));
    assert!(began.elapsed() >= Duration::from_millis(500));
    let asked = asked.lock().expect("a list");
    assert_eq!(asked.len(), 3, "each schema is asked for once: {asked:?}");
    for head in asked.iter() {
        assert!(
            head.starts_with("GET /schemas/ids/7 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains("authorization: Basic YW5uOnMzY3JldA==\r\n"),
            "{head}"
        );
    }
    Ok(())
}

fn a_registry_that_refuses_stops_the_run() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "refused");
    write(broker, &topic, &[framed(7, "02")]);
    let failing = |answers, key: &str| {
        let (address, _) = answering(answers, Duration::ZERO);
        let text = format!(
            r#"
            name = "refused-{topic}"
            [sources.in]
            type = "kafka"
            brokers = "{}"
            topic = "{topic}"
            until = "end"
            format = "avro"
            fields = {{ id = "int64" }}
            registry = {{ address = "{address}"{key} }}
            [sinks.out]
            type = "blackhole"
            input = "in"
            "#,
            broker.address
        );
        let error = run(plan_of(&text, Path::new(".")))
            .err()
            .map(|it| it.to_string());
        error.expect("an error").replace(&address, "ADDRESS") + "\n"
    };
    let shown = [
        failing(&[(401, "")], ", token = \"wrong\""),
        failing(&[(404, "<html>"), (404, "<html>")], ""),
        failing(&[(200, "<html>")], ""),
        failing(&[(302, "")], ""),
    ];
    expect![[r#"
        source `in`: schema 7 of ADDRESS: it answers 401 Unauthorized: correct `user` and `password`, or `token`, of `registry`, or allow them to read and write schemas
        source `in`: schema 7 of ADDRESS: it answers 404 Not Found: <html>; is this the address of a schema registry?
        source `in`: schema 7 of ADDRESS: its answer is no JSON: expected value at line 1 column 1; is this the address of a schema registry?
        source `in`: schema 7 of ADDRESS: it answers 302 Found, and redirects are not followed; is this the address of a schema registry?
    "#]]
    .assert_eq(&shown.concat());
    Ok(())
}

fn a_schema_that_is_not_compatible_stops_the_run() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "incompatible");
    let subject = format!("{topic}-value");
    registry.add(&subject, ID, &[]);
    registry.allow(&subject, "FULL");
    let keys = format!("registry = \"{}\"", registry.address());
    let fields = "fields = { id = \"utf8\" }";
    let error = written(broker, &topic, fields, "{\"id\":\"x\"}", &keys).expect_err("not so");
    let (shown, _) = error.split_once(" (").unwrap_or((&error, ""));
    assert!(
        error.contains("cannot be registered in subject") && error.contains("409"),
        "{shown}"
    );
    assert_eq!(broker.read(&topic, false), []);
    Ok(())
}

fn only_schemas_that_are_there_are_written_where_none_may_be_added() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "kept");
    let subject = format!("{topic}-of-another-name");
    let keys = format!(
        "registry = {{ address = \"{}\", subject = \"{subject}\", register = false }}",
        registry.address()
    );
    let fields = "fields = { id = \"int64\" }";
    let error = written(broker, &topic, fields, "{\"id\":1}", &keys).expect_err("not there");
    assert!(
        error.contains("register it, or write `register = true`"),
        "{error}"
    );
    let named = ID.replace("Id", &topic.replace('-', "_"));
    registry.add(&subject, &named, &[]);
    written(broker, &topic, fields, "{\"id\":1}", &keys).expect("it is there");
    let (rows, _) = read(
        broker,
        &topic,
        &format!("registry = \"{}\"\n{fields}", registry.address()),
    );
    assert_eq!(rows.len(), 1);
    Ok(())
}

/// The messages and helps of a pipeline with this source and sink of Kafka.
fn mistakes_of(folder: &TempDir, source: &str, sink: &str) -> String {
    let text = format!(
        "name = \"p\"\n[sources.in]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n\
         topic = \"t\"\n{source}\n[sinks.out]\ntype = \"kafka\"\ninput = \"in\"\n\
         brokers = \"127.0.0.1:1\"\ntopic = \"t\"\n{sink}\n"
    );
    let file = folder.path().join("pipeline.toml");
    let config = Config::parse(&file.to_string_lossy(), &text);
    let planned = config.and_then(|config| {
        sluicebox::planner::build(&config, folder.path(), &*common::LOADER).map(drop)
    });
    let error = planned.err().map(|error| error.to_string());
    let error = error.unwrap_or_default();
    let error = error.replace(&*folder.path().to_string_lossy(), "FOLDER");
    // Messages and helps, without the lines that they quote.
    let lines = error
        .lines()
        .filter(|line| line.starts_with("  x ") || line.contains("help:"));
    lines
        .map(|line| format!("{}\n", line.trim()))
        .collect::<String>()
        + "\n"
}

fn mistakes_are_found_before_anything_runs() -> Outcome {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("id.avsc"), ID).expect("a file");
    fs::write(folder.path().join("bad.avsc"), "{").expect("a file");
    let mistakes = |source: &str, sink: &str| mistakes_of(&folder, source, sink);
    let id = "fields = { id = \"int64\" }";
    let shown = [
        mistakes(&format!("format = \"avro\"\n{id}"), ""),
        mistakes(
            &format!("format = \"avro\"\nschema = \"no.avsc\"\n{id}"),
            "",
        ),
        mistakes(
            &format!("format = \"avro\"\nschema = \"bad.avsc\"\n{id}"),
            "",
        ),
        mistakes(
            "format = \"avro\"\nschema = \"id.avsc\"\nfields = { id = \"bool\" }",
            "",
        ),
        mistakes(
            "format = \"avro\"\nschema = \"id.avsc\"\nfields = { idd = \"int64?\" }",
            "",
        ),
        mistakes(&format!("schema = \"id.avsc\"\n{id}"), ""),
        mistakes(
            &format!("format = \"avro\"\nregistry = \"ftp://x\"\n{id}"),
            "",
        ),
        mistakes(
            &format!(
                "format = \"avro\"\nregistry = {{ address = \"http://x\", user = \"u\" }}\n{id}"
            ),
            "",
        ),
        mistakes(
            id,
            "format = \"avro\"\nschema = \"id.avsc\"\nregistry = { address = \"http://x\", subjects = \"u\" }",
        ),
        mistakes(
            "fields = { id = \"utf8\" }",
            "format = \"avro\"\nschema = \"id.avsc\"",
        ),
        mistakes(
            "fields = { \"a-b\" = \"utf8\" }",
            "format = \"avro\"\nregistry = \"http://x\"",
        ),
        mistakes(id, "registry = \"http://x\""),
    ];
    expect![[r#"
        x source `in` has the format avro, and says not where its schema is
        help: add `schema = "rows.avsc"`, the file with the schema of all rows, or `registry = "http://…"`, where rows begin with the number of theirs

        x `schema` of source `in` needs the file `no.avsc`: it does not exist
        help: paths are relative to the pipeline's file

        x `schema` of source `in` cannot be read: it is no Avro schema: Failed to parse schema from JSON
        help: the file has one schema as JSON, with all the types that it names

        x source `in`: field `id` is bool in `fields`, and long in the schema
        help: correct the field's name or type; one that may be null has a `?`

        x source `in`: field `idd` is missing in the schema; did you mean `id`?
        help: correct the field's name or type; one that may be null has a `?`

        x source `in` has a `schema`, and its format is json
        help: remove it, or write `format = "avro"` or "protobuf"

        x `registry` of source `in` is not the address of a registry
        help: write one such as "http://127.0.0.1:8081"; a user and a password are keys of their own: { address = "…", user = "…", password = { env = "…" } }

        x `registry` of source `in` has a `user` and no `password`
        help: write `user` and `password`, or `token`, or none of them

        x `registry` of sink `out` has an unknown key `subjects`
        help: did you mean `subject`? The keys here are: address, user, password, token, subject, register

        x sink `out` cannot write its rows as Avro: `id` is utf8, and long in the schema
        help: correct the schema, or the rows: an operator with `select` renames fields and leaves some out

        x sink `out` cannot write its rows as Avro: `a-b` cannot be the name of a field in Avro, which has letters, digits and _
        help: correct the schema, or the rows: an operator with `select` renames fields and leaves some out

        x sink `out` has a `registry`, and its format is json
        help: remove it, or write `format = "avro"` or "protobuf"

    "#]]
    .assert_eq(&shown.concat());
    Ok(())
}

/// What Protobuf has null for, too.
const TYPES_OF_PROTOBUF: &str = r#"
    [sources.in.fields]
    bool = "bool?"
    int8 = "int8?"
    int16 = "int16"
    int32 = "int32?"
    int64 = "int64"
    uint8 = "uint8"
    uint16 = "uint16?"
    uint32 = "uint32"
    uint64 = "uint64?"
    float32 = "float32"
    float64 = "float64?"
    utf8 = "utf8"
    bytes = "bytes?"
    decimal = "decimal(38,10)?"
    timestamp = "timestamp?"
    at = "timestamp"
    symbol = "red|green?"
    list = "list<int64>"
    "record?" = { text = "utf8", n = "int8?" }
    records = [{ at = "timestamp", lines = [{ sku = "utf8" }] }]
"#;

const ROWS_OF_PROTOBUF: &str = r#"{"bool":true,"int8":127,"int16":32767,"int32":2147483647,"int64":9223372036854775807,"uint8":255,"uint16":65535,"uint32":4294967295,"uint64":18446744073709551615,"float32":1.5,"float64":1.7976931348623157e308,"utf8":"\u0000żółw 🐢","bytes":"AP8=","decimal":"9999999999999999999999999999.9999999999","timestamp":"9999-12-31T23:59:59.999Z","at":"0001-01-01T00:00:00Z","symbol":"green","list":[1,-1],"record":{"text":"x","n":-128},"records":[{"at":"2024-02-29T00:00:00Z","lines":[{"sku":"a"},{"sku":""}]}]}
{"bool":false,"int8":0,"int16":-32768,"int32":0,"int64":-9223372036854775808,"uint8":0,"uint16":0,"uint32":0,"uint64":0,"float32":-0.5,"float64":0,"utf8":"","bytes":"","decimal":"0","timestamp":0,"at":-1,"list":[],"record":{"text":"","n":null},"records":[]}
{"int16":0,"int64":0,"uint8":0,"uint32":0,"float32":0,"utf8":"","at":0,"list":[0],"records":[]}
"#;

fn rows_of_protobuf_come_back_as_they_were() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "types-of-protobuf");
    let keys = format!("registry = \"{}\"", registry.address());
    let write = |rows| written_as("protobuf", broker, &topic, TYPES_OF_PROTOBUF, rows, &keys);
    write(ROWS_OF_PROTOBUF).expect("they fit");
    let schema = registry.ask(&format!("subjects/{topic}-value/versions/1"), None);
    let text = schema["schema"].as_str().unwrap_or_default();
    assert!(text.contains("google.protobuf.Timestamp"), "{schema}");
    assert_eq!(schema["schemaType"], "PROTOBUF");
    let keys = format!("{keys}\n{TYPES_OF_PROTOBUF}");
    let (rows, letters) = read_as("protobuf", broker, &topic, &keys);
    assert_eq!(letters, Vec::<Value>::new());
    assert_eq!(rows.len(), 3);
    assert_eq!(rows, as_they_are(TYPES_OF_PROTOBUF, ROWS_OF_PROTOBUF));
    // A second run finds the schema that is there.
    write("").expect("nothing");
    let last = ROWS_OF_PROTOBUF.lines().last().unwrap_or_default();
    write(last).expect("it fits");
    let versions = registry.ask(&format!("subjects/{topic}-value/versions"), None);
    assert_eq!(versions, serde_json::json!([1]));
    Ok(())
}

fn messages_of_protobuf_may_have_several_schemas() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "several-of-protobuf");
    let add = |subject: &str, text: &str, references: &[(&str, &str, i64)]| {
        registry.add_of("PROTOBUF", &format!("{topic}-{subject}"), text, references)
    };
    let money = "syntax = \"proto3\"; package shop; message Money { int64 cents = 1; }";
    add("shop/money.proto", money, &[]);
    let line = "syntax = \"proto3\"; package shop; import \"shop/money.proto\"; \
                message Line { string sku = 1; Money price = 2; }";
    let money = ("shop/money.proto", &*format!("{topic}-shop/money.proto"), 1);
    add("shop/line.proto", line, &[money]);
    let order = "syntax = \"proto3\"; package shop; import \"shop/line.proto\"; \
                 import \"google/protobuf/timestamp.proto\"; \
                 message Other { string id = 1; } \
                 message Order { int64 id = 1; Line line = 2; google.protobuf.Timestamp at = 3; }";
    let line = ("shop/line.proto", &*format!("{topic}-shop/line.proto"), 1);
    let first = add("one", order, &[line]);
    let order =
        "syntax = \"proto3\"; package shop; message Order { int64 id = 7; string number = 1; }";
    let second = add("two", order, &[]);
    let other = registry.add(&format!("{topic}-avro"), ID, &[]);
    let rows = [
        framed(first, "0202 0807 1207 0a0178 1202080a 1a00"),
        framed(first, "00 0a0178"),
        framed(second, "00 3809"),
        framed(second, "0200 3a0178"),
        framed(second, "0206 0801"),
        framed(first, "0202 08"),
        framed(other, "02"),
    ];
    write(broker, &topic, &rows);
    let keys = format!(
        r#"registry = "{}"
        message = "shop.Order"
        [sources.in.fields]
        id = "int64"
        at = "timestamp?"
        "line?" = {{ sku = "utf8", "price?" = {{ cents = "int64" }} }}"#,
        registry.address()
    );
    let (rows, letters) = read_as("protobuf", broker, &topic, &keys);
    let shown: Vec<String> = rows.iter().map(Value::to_string).collect();
    expect![[r#"
        {"at":"1970-01-01T00:00:00Z","id":7,"line":{"price":{"cents":10},"sku":"x"}}
        {"at":null,"id":9,"line":null}"#]]
    .assert_eq(&shown.join("\n"));
    let error = |letter: &Value| {
        let error = letter["error"].as_str().unwrap_or_default().to_owned();
        let error = error.replace(&format!("schema {first} "), "schema FIRST ");
        let error = error.replace(&format!("schema {second} "), "schema SECOND ");
        error.replace(&format!("schema {other} "), "schema OTHER ")
    };
    let letters: Vec<String> = letters.iter().map(error).collect();
    expect![[r#"
        schema FIRST of the registry: the message is shop.Other, and `message` is shop.Order
        field `id`: expected a number of any length, found bytes with their length
        schema SECOND of the registry: it has no message at [3]
        field `id`: expected a number, found the end of the row
        schema OTHER of the registry: it is of AVRO, and `format` is "protobuf""#]]
    .assert_eq(&letters.join("\n"));
    Ok(())
}

const ORDER: &str = r#"
    syntax = "proto3";
    package shop;
    import "shop/money.proto";
    message Order { int64 id = 1; Money price = 2; }
    message Refund { int64 id = 1; }
"#;
const MONEY: &str = r#"
    syntax = "proto3";
    package shop;
    message Money { int64 cents = 1; }
"#;

fn messages_of_protobuf_need_no_registry() -> Outcome {
    let broker = broker()?;
    let topic = topic(broker, "plain-protobuf");
    let folder = TempDir::new().expect("a folder");
    let shop = folder.path().join("shop");
    fs::create_dir(&shop).expect("a folder");
    fs::write(shop.join("money.proto"), MONEY).expect("a file");
    let order = ORDER.replace("shop/money.proto", "money.proto");
    fs::write(shop.join("order.proto"), order).expect("a file");
    let schema = shop.join("order.proto");
    let schema = format!(
        "schema = \"{}\"\nmessage = \"shop.Order\"",
        schema.display()
    );
    let fields = "[sources.in.fields]\nid = \"int64\"\n\"price?\" = { cents = \"int32\" }";
    let rows = "{\"id\":-1,\"price\":{\"cents\":5}}\n{\"id\":0}\n";
    written_as("protobuf", broker, &topic, fields, rows, &schema).expect("they fit");
    write(
        broker,
        &topic,
        &[bytes("0804"), bytes("08"), bytes("120608 8080808008")],
    );
    let (rows, letters) = read_as("protobuf", broker, &topic, &format!("{schema}\n{fields}"));
    // The same as it is compiled.
    let mut compiler = protox::Compiler::new([&shop]).expect("a folder");
    compiler.include_imports(true);
    let compiled = compiler.open_file("order.proto").expect("a schema");
    let compiled = compiled.encode_file_descriptor_set();
    fs::write(shop.join("order.pb"), compiled).expect("a file");
    let keys = format!("{schema}\n{fields}").replace("order.proto", "order.pb");
    let again = read_as("protobuf", broker, &topic, &keys);
    assert_eq!(again.0, rows);
    let shown: Vec<String> = rows.iter().map(Value::to_string).collect();
    expect![[r#"
        {"id":-1,"price":{"cents":5}}
        {"id":0,"price":null}
        {"id":4,"price":null}"#]]
    .assert_eq(&shown.join("\n"));
    let error = |letter: &Value| letter["error"].as_str().unwrap_or_default().to_owned();
    let letters: Vec<String> = letters.iter().map(error).collect();
    expect![[r#"
        field `id`: expected a number, found the end of the row
        field `price.cents`: expected int32, found 2147483648"#]]
    .assert_eq(&letters.join("\n"));
    Ok(())
}

fn a_registered_schema_of_protobuf_is_found_again() -> Outcome {
    let (broker, registry) = (broker()?, registry()?);
    let topic = topic(broker, "kept-protobuf");
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("order.proto");
    let text = "syntax = \"proto3\"; package shop; message Other { string id = 1; } \
                message Order { message Line { optional int64 id = 1; } Line line = 1; }";
    fs::write(&file, text).expect("a file");
    let keys = format!(
        "schema = \"{}\"\nmessage = \"shop.Order.Line\"\n\
         registry = {{ address = \"{}\", register = false }}",
        file.display(),
        registry.address()
    );
    let fields = "fields = { id = \"int64?\" }";
    let write = || written_as("protobuf", broker, &topic, fields, "{\"id\":1}\n{}", &keys);
    let error = write().expect_err("not there");
    assert!(
        error.contains("register it, or write `register = true`"),
        "{error}"
    );
    // The same, written differently.
    let other = text.replace("message Other", "// A comment.\n message Other");
    let subject = format!("{topic}-value");
    registry.add_of("PROTOBUF", &subject, &other.replace("= 1", "= 2"), &[]);
    write().expect_err("it is another");
    registry.add_of("PROTOBUF", &subject, &other, &[]);
    write().expect("it is there");
    let keys = format!("registry = \"{}\"\n{fields}", registry.address());
    let (rows, letters) = read_as("protobuf", broker, &topic, &keys);
    let shown: Vec<String> = rows.iter().map(Value::to_string).collect();
    assert_eq!(shown, [r#"{"id":1}"#, r#"{"id":null}"#], "{letters:?}");
    Ok(())
}

fn mistakes_of_protobuf_are_found_before_anything_runs() -> Outcome {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    file("lost.proto", ORDER);
    file(
        "two.proto",
        &ORDER
            .replace("import", "// import")
            .replace("Money", "Refund"),
    );
    file(
        "bad.proto",
        "syntax = \"proto3\";\nmessage A {\n  B b = 1;\n}\n",
    );
    file("worse.proto", "message {");
    file(
        "new.proto",
        "edition = \"2023\";\nmessage A { int64 id = 1; }",
    );
    file(
        "id.proto",
        "syntax = \"proto3\"; message Id { int64 id = 1; }",
    );
    file("set.pb", "nothing");
    let source = |keys: &str| {
        let keys = format!("format = \"protobuf\"\n{keys}\nfields = {{ id = \"int64\" }}");
        mistakes_of(&folder, &keys, "")
    };
    let sink = |fields: &str, keys: &str| {
        let keys = format!("format = \"protobuf\"\n{keys}");
        mistakes_of(&folder, &format!("fields = {{ {fields} }}"), &keys)
    };
    let shown = [
        source(""),
        source("schema = \"no.proto\""),
        source("schema = \"lost.proto\""),
        source("schema = \"bad.proto\""),
        source("schema = \"worse.proto\""),
        source("schema = \"new.proto\""),
        source("schema = \"set.pb\""),
        source("schema = \"two.proto\""),
        source("schema = \"two.proto\"\nmessage = \"Order\""),
        mistakes_of(
            &folder,
            "format = \"protobuf\"\nschema = \"id.proto\"\nfields = { id = \"bool\" }",
            "",
        ),
        mistakes_of(
            &folder,
            "format = \"protobuf\"\nschema = \"id.proto\"\nfields = { idd = \"int64?\" }",
            "",
        ),
        mistakes_of(&folder, "message = \"Id\"\nfields = { id = \"bool\" }", ""),
        mistakes_of(
            &folder,
            "format = \"avro\"\nregistry = \"http://x\"\nmessage = \"Id\"\nfields = { id = \"bool\" }",
            "",
        ),
        sink("id = \"int64?\"", "schema = \"id.proto\""),
        sink("\"id\" = \"list<int64>?\"", "registry = \"http://x\""),
    ];
    expect![[r#"
        x source `in` has the format protobuf, and says not where its schema is
        help: add `schema = "rows.proto"`, the file with the schema of all rows, or `registry = "http://…"`, where rows begin with the number of theirs

        x `schema` of source `in` needs the file `no.proto`: it does not exist
        help: paths are relative to the pipeline's file

        x `schema` of source `in` cannot be read: lost.proto:4:5: import 'shop/money.proto' not found
        help: files that it imports are looked for in its folder, and in those above it, up to that of the pipeline's file

        x `schema` of source `in` cannot be read: bad.proto:3:3: name 'B' is not defined
        help: the file has a schema as `protoc` reads it, in proto2 or proto3

        x `schema` of source `in` cannot be read: worse.proto:1:9: expected an identifier, but found '{'
        help: the file has a schema as `protoc` reads it, in proto2 or proto3

        x `schema` of source `in` cannot be read: new.proto is written in an edition: schemas in `syntax = "proto2"` and "proto3" are read, editions are not
        help: the file has a schema as `protoc` reads it, in proto2 or proto3

        x `schema` of source `in` cannot be read: it is no descriptor set
        help: a file whose name does not end with `.proto` is what `protoc --include_imports --descriptor_set_out=FILE` writes

        x `schema` of source `in`: it has several messages, and `message` says not which: shop.Order, shop.Refund
        help: write `message = "shop.Order"`, with the name of its package

        x `schema` of source `in`: it has no message `Order`; the messages are: shop.Order, shop.Refund
        help: write `message = "shop.Order"`, with the name of its package

        x source `in`: field `id` is bool in `fields`, and int64 in the schema
        help: correct the field's name or type; one that may be null has a `?`

        x source `in`: field `idd` is missing in the schema; did you mean `id`?
        help: correct the field's name or type; one that may be null has a `?`

        x source `in` has a `message`, and its format is json
        help: remove it, or write `format = "protobuf"`

        x `message` of source `in` means nothing here
        help: remove it, or write `format = "protobuf"`

        x sink `out` cannot write its rows as Protobuf: `id` may be null, which int64 in the schema cannot be: it would have to be `optional`
        help: correct the schema, or the rows: an operator with `select` renames fields and leaves some out

        x sink `out` cannot write its rows as Protobuf: `id: list<int64>?` cannot be in Protobuf, where lists and their elements are never null
        help: correct the schema, or the rows: an operator with `select` renames fields and leaves some out

    "#]].assert_eq(&shown.concat());
    Ok(())
}

/// Each schema has so many rows, which follow one another.
const KILL_ROWS: i64 = 12_000;
const ROWS_A_SCHEMA: i64 = 200;

/// Rows wait for schemas all the time, the registry is away now and then, and the host is
/// killed.
fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    let broker = broker()?;
    let topic = "kept";
    broker.create_topic(topic, 2);
    let row = |number: i64| {
        let id = number / ROWS_A_SCHEMA;
        let mut row = [&[0][..], &(id as u32).to_be_bytes()].concat();
        if id % 2 == 1 {
            write_bytes(&mut row, b"later");
        }
        write_long(&mut row, number);
        row
    };
    let rows: Vec<Vec<u8>> = (0..KILL_ROWS).map(row).collect();
    write(broker, topic, &rows);
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let address = serving(move |head| {
        // Whatever the speed of the host, a run takes a while.
        std::thread::sleep(Duration::from_millis(10));
        if away.load(Ordering::SeqCst) {
            return (503, "away".to_owned());
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let id: Option<i64> = path
            .strip_prefix("/schemas/ids/")
            .and_then(|it| it.parse().ok());
        let new = r#"{"name":"note","type":"string"},"#;
        let schema = match id.expect("it is asked for schemas") % 2 {
            1 => ID.replace(r#"{"name":"id""#, &format!(r#"{new}{{"name":"id""#)),
            _ => ID.to_owned(),
        };
        (200, serde_json::json!({ "schema": schema }).to_string())
    });
    let registry = |what: &str| is_away.store(what == "kill", Ordering::SeqCst);
    in_rounds(&registry, |_, kills| {
        killed_round(broker, topic, &address, kills)
    });
    Ok(())
}

fn killed_round(broker: &Broker, topic: &str, registry: &str, kills: &mut Kills<'_>) -> usize {
    let folder = TempDir::new().expect("a folder");
    let text = format!(
        r#"
        name = "kept"
        parallelism = 2
        batch_rows = 500
        [state]
        path = "state"
        [checkpoints]
        interval = "50ms"
        [sources.in]
        type = "kafka"
        brokers = "{}"
        topic = "{topic}"
        until = "end"
        format = "avro"
        registry = "{registry}"
        fields = {{ id = "int64" }}
        [sinks.out]
        type = "file"
        path = "out.jsonl"
        input = "in"
        "#,
        broker.address
    );
    let (pipeline, log) = (
        folder.path().join("pipeline.toml"),
        folder.path().join("log"),
    );
    fs::write(&pipeline, text).expect("it is writable");
    let done = kills.run(&pipeline, &log);
    let rows = fs::read_to_string(folder.path().join("out.jsonl")).expect("rows");
    let id = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        row["id"].as_i64().expect("a number")
    };
    let mut ids: Vec<i64> = rows.lines().map(id).collect();
    ids.sort_unstable();
    let is_all = ids.iter().copied().eq(0..KILL_ROWS);
    assert!(is_all, "{} rows\n{}", ids.len(), tail(&log));
    done
}
