//! Tests the HTTP source and sink with a real host.
//!
//! `SLUICEBOX_KILLS` is how often the host is killed, and `SLUICEBOX_SEED` repeats random
//! choices, though not exact times.

/// A certificate for this machine.
#[path = "common/certificate.rs"]
mod certificate;
/// Both ends of HTTP.
#[path = "common/http.rs"]
mod http;
/// Runs that are killed.
#[expect(dead_code, reason = "there are fewer kills here by default")]
#[path = "common/killed.rs"]
mod killed;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;
/// Waits for what others do.
#[path = "common/waiting.rs"]
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use fastrand::Rng;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sluicebox::checkpoint::crash::PLACES;

use http::{GOOD, Message, Receiver, Reply, ask, post};
use killed::{Kills, host, number, tail};
use waiting::{WAIT, free_address, until};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A folder with a pipeline that may run.
struct Case {
    folder: tempfile::TempDir,
    address: String,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Case {
    /// `LISTEN` in the pipeline stands for a free address.
    fn new(pipeline: &str) -> Case {
        let case = Case {
            folder: tempfile::tempdir().expect("a folder"),
            address: free_address(),
            environment: Vec::new(),
            child: None,
        };
        let text = pipeline.replace("LISTEN", &case.address);
        std::fs::write(case.path("pipeline.toml"), text).expect("it is writable");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        tail(&self.path("log"))
    }

    /// Begins a run, which crashes where it is said to.
    fn begin(&mut self, crash_at: Option<String>) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"));
        let mut command = host();
        command
            .arg("run")
            .arg(self.path("pipeline.toml"))
            .stdout(Stdio::null())
            .stderr(log.expect("it is writable"))
            .envs(self.environment.iter().map(|(name, value)| (*name, value)));
        if let Some(place) = crash_at {
            command.env("SLUICEBOX_CRASH_AT", place);
        }
        signal::not_ignored(&mut command);
        self.child = Some(command.spawn().expect("the host starts"));
    }

    /// Begins a run, and waits until it listens.
    fn start(mut self) -> Case {
        self.begin(None);
        self.listening();
        self
    }

    fn listening(&mut self) {
        let address = self.address.clone();
        until("the host listens", || {
            let ended = self
                .child
                .as_mut()
                .and_then(|it| it.try_wait().expect("ours"));
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            std::net::TcpStream::connect(&address).is_ok()
        });
    }

    fn post(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Message {
        let answer = post(&self.address, "/events", headers, body);
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("it is our child");
        }
    }

    /// Asks the run to stop.
    fn ask_to_stop(&self) {
        signal::send(self.child.as_ref().expect("it runs"), libc::SIGTERM);
    }

    /// Waits for the end of the run, which went well or not.
    fn ended(&mut self) -> bool {
        let mut child = self.child.take().expect("it runs");
        let ended = killed::wait(&mut child, WAIT);
        ended
            .unwrap_or_else(|| panic!("it does not end\n{}", self.log()))
            .success()
    }

    /// Stops the run.
    fn stop(&mut self) {
        self.ask_to_stop();
        assert!(self.ended(), "{}", self.log());
    }

    /// The lines of an output, which may not have its name yet.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name))
            .or_else(|_| std::fs::read_to_string(self.path(&format!("{name}.part"))));
        let text = text.unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pipeline that writes what is posted, with more for the source, and more tables.
fn posted(source: &str, rest: &str) -> String {
    format!(
        "name = \"posted\"\ndead_letters = \"dead.jsonl\"\n{rest}\n[sources.in]\ntype = \"http\"\n\
         listen = \"LISTEN\"\n{source}\n[sinks.out]\ntype = \"file\"\ninput = \"in\"\n\
         path = \"out.jsonl\"\n"
    )
}

const FIELDS: &str = "fields = { id = \"int64\", text = \"utf8?\" }";

const OFTEN: &str = "[checkpoints]\ninterval = \"30ms\"\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn rows_are_taken_however_they_are_posted() {
    let source = format!("{FIELDS}\nbody_bytes = \"1KiB\"");
    let mut case = Case::new(&posted(&source, "")).start();
    let body = r#"{"id":1,"text":"ünï 🦀"}"#;
    let taken = |headers: &[(&str, &str)], body: &[u8], rows: usize| {
        let answer = case.post(headers, body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        assert_eq!(answer.json(), json!({ "taken": rows, "not_taken": 0 }));
    };
    taken(&[], body.as_bytes(), 1);
    taken(
        &[("Content-Type", "application/cloudevents+json")],
        body.as_bytes(),
        1,
    );
    taken(&[JSON], format!("[{body},\n {{\"id\":\n2}}]").as_bytes(), 2);
    taken(&[LINES], format!("{body}\n{{\"id\":3}}").as_bytes(), 2);
    let packed = gzip(format!("[{body}]").as_bytes());
    taken(&[JSON, ("Content-Encoding", "gzip")], &packed, 1);
    taken(&[JSON], b"[]", 0);
    // A part after the other, and no length.
    let (begin, rest) = body.split_at(5);
    let chunked = format!(
        "POST /events HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{begin}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        begin.len(),
        rest.len()
    );
    let answer = ask(&case.address, chunked.as_bytes()).expect("an answer");
    assert_eq!(answer.status(), 202, "{answer:?}");

    // Bad rows do no harm to others.
    let answer = case.post(&[JSON], r#"[{"id":10},{"id":"x"},{"id":11},7]"#);
    assert_eq!(answer.status(), 202, "{answer:?}");
    expect![[r#"{"taken":2,"not_taken":2,"reasons":[{"row":2,"error":"field `id`: expected int64, found \"x\""},{"row":4,"error":"byte 0: expected a record, found `7`"}]}"#]]
        .assert_eq(&answer.body);
    let answer = case.post(&[LINES], "{\"id\":null}\nno\n");
    assert_eq!(answer.status(), 422);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    expect![[r#"{"status":422,"title":"Unprocessable Entity","detail":"no row is taken; row 1: field `id`: expected int64, found null","code":"bad_rows","taken":0,"not_taken":2,"reasons":[{"row":1,"error":"field `id`: expected int64, found null"},{"row":2,"error":"byte 0: expected a record, found `no`"}]}"#]]
        .assert_eq(&answer.body);
    case.stop();
    let ids: Vec<Value> = case
        .lines("out.jsonl")
        .iter()
        .map(|line| id_of(line))
        .collect();
    assert_eq!(ids, [1, 1, 1, 2, 1, 3, 1, 1, 10, 11]);
    assert!(case.lines("out.jsonl")[0].contains("ünï 🦀"));
    assert_eq!(case.lines("dead.jsonl").len(), 4);
}

fn id_of(line: &str) -> Value {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    row["id"].clone()
}

#[test]
fn what_cannot_be_taken_is_refused_whole() {
    let source = format!("{FIELDS}\nbody_bytes = \"1KiB\"\nqueue_rows = 10");
    let mut case = Case::new(&posted(&source, "")).start();
    let long = format!("[{{\"id\":1,\"text\":\"{}\"}}]", "a".repeat(2_000));
    let gzipped = ("Content-Encoding", "gzip");
    let refused = |headers: &[(&str, &str)], body: &[u8], status: u16, expected: &str| {
        let answer = case.post(headers, body);
        assert_eq!(answer.status(), status, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert!(answer.body.contains(expected), "{expected}: {answer:?}");
        assert_eq!(answer.json()["status"], status);
    };
    refused(&[JSON], b"", 400, "the body is empty");
    refused(
        &[JSON],
        b"[{\"id\":1},",
        400,
        "row 2, which begins at byte 10, has no end; no row is taken",
    );
    refused(
        &[JSON],
        b"[{\"id\":1}] {}",
        400,
        "expected the end behind the array",
    );
    refused(&[JSON, gzipped], b"{\"id\":1}", 400, "the body is no gzip");
    refused(
        &[JSON, gzipped],
        &gzip(&vec![b'1'; 1 << 20]),
        413,
        "larger than 1KiB",
    );
    refused(&[LINES], "{}\n".repeat(11).as_bytes(), 413, "has 11 rows");
    refused(
        &[JSON, ("Idempotency-Key", &"k".repeat(300))],
        b"{}",
        400,
        "up to 255",
    );
    refused(
        &[JSON, ("Origin", "https://example.org")],
        b"{\"id\":1}",
        403,
        "pages in a browser",
    );
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    refused(
        &[form],
        b"{\"id\":1}",
        415,
        "send JSON as `application/json`",
    );
    refused(
        &[JSON, ("Content-Encoding", "br")],
        b"{\"id\":1}",
        415,
        "`br`",
    );
    // Before the body is there.
    let head = "POST /events HTTP/1.1\r\nHost: here\r\nContent-Length: 2000\r\n\r\n";
    let answer = ask(&case.address, head.as_bytes()).expect("an answer");
    assert_eq!(answer.status(), 413, "{answer:?}");
    let chunked = format!(
        "POST /events HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n",
        long.len()
    );
    let answer = ask(&case.address, chunked.as_bytes()).expect("an answer");
    assert_eq!(answer.status(), 413, "{answer:?}");
    let get = "GET /events HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    let answer = ask(&case.address, get.as_bytes()).expect("an answer");
    assert_eq!(
        (answer.status(), answer.header("allow")),
        (405, Some("POST"))
    );
    let answer = post(&case.address, "/other", &[JSON], "{}").expect("an answer");
    assert_eq!(answer.status(), 404);
    assert!(
        answer.body.contains("rows are posted to /events"),
        "{answer:?}"
    );
    case.stop();
    assert_eq!(case.lines("out.jsonl"), [""; 0]);
    assert_eq!(case.lines("dead.jsonl"), [""; 0]);
}

#[test]
fn only_bearers_of_the_token_post() {
    let source = format!("{FIELDS}\ntoken = {{ env = \"SHOP_PASSWORD\" }}\npath = \"/a/b\"");
    let mut case = Case::new(&posted(&source, "")).start();
    let status = |headers: &[(&str, &str)]| {
        let answer = post(&case.address, "/a/b", headers, "{\"id\":1}").expect("an answer");
        let challenge = answer.header("www-authenticate").map(str::to_owned);
        (answer.status(), challenge)
    };
    let asked = Some("Bearer".to_owned());
    assert_eq!(status(&[JSON]), (401, asked.clone()));
    assert_eq!(
        status(&[("Authorization", "Bearer wrong")]),
        (401, asked.clone())
    );
    assert_eq!(status(&[("Authorization", "Basic czNjcmV0")]), (401, asked));
    assert_eq!(status(&[("Authorization", "bearer s3cret")]), (202, None));
    case.stop();
    assert_eq!(case.lines("out.jsonl").len(), 1);
    assert!(!case.log().contains("s3cret"), "{}", case.log());
}

#[test]
fn lines_of_csv_and_of_anything_are_taken() {
    let source = format!("format = \"csv\"\n{FIELDS}");
    let mut csv = Case::new(&posted(&source, "")).start();
    let answer = csv.post(&[("Content-Type", "text/csv")], "1,\"a\nb\"\nx,y\n2,\"c");
    assert_eq!(answer.status(), 202, "{answer:?}");
    assert_eq!(
        (&answer.json()["taken"], &answer.json()["not_taken"]),
        (&json!(1), &json!(2))
    );
    csv.stop();
    assert_eq!(csv.lines("out.jsonl"), [r#"{"id":1,"text":"a\nb"}"#]);
    let source = "format = \"raw\"\nfields = { line = \"utf8\" }";
    let mut raw = Case::new(&posted(source, "")).start();
    let answer = raw.post(&[("Content-Type", "text/plain")], "one\n\nthree");
    assert_eq!(answer.json(), json!({ "taken": 3, "not_taken": 0 }));
    raw.stop();
    assert_eq!(raw.lines("out.jsonl")[2], r#"{"line":"three"}"#);
}

/// A server that answers nothing until it may.
fn gated() -> (Receiver, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = is_open.clone();
    let receiver = Receiver::start(move |_, _| {
        until("the gate opens", || gate.load(Ordering::SeqCst));
        GOOD
    });
    (receiver, is_open)
}

/// A pipeline from a source to a sink, both HTTP.
fn passing(source: &str, receiver: &Receiver, sink: &str, rest: &str) -> String {
    let address = &receiver.address;
    format!(
        "name = \"passing\"\n{rest}\n[sources.in]\ntype = \"http\"\nlisten = \"LISTEN\"\n{FIELDS}\n\
         {source}\n[sinks.out]\ntype = \"http\"\ninput = \"in\"\nurl = \"http://{address}/hook\"\n\
         {sink}\n"
    )
}

#[test]
fn who_posts_more_than_the_pipeline_takes_is_told_to_wait() {
    let (receiver, is_open) = gated();
    let sink = "body = \"lines\"\nbatch_rows = 5";
    let mut case = Case::new(&passing(
        "queue_rows = 20",
        &receiver,
        sink,
        "batch_rows = 5",
    ))
    .start();
    let refused = Arc::new(AtomicU64::new(0));
    let posters: Vec<_> = (0..120u64)
        .map(|number| {
            let (address, refused) = (case.address.clone(), refused.clone());
            std::thread::spawn(move || {
                let rows = (0..5).map(|row| format!("{{\"id\":{}}}\n", number * 5 + row));
                let answer = post(&address, "/events", &[LINES], rows.collect::<String>());
                let answer = answer.expect("an answer");
                if answer.status() == 429 {
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    refused.fetch_add(1, Ordering::SeqCst);
                    return None;
                }
                assert_eq!(answer.status(), 202, "{answer:?}");
                Some(number)
            })
        })
        .collect();
    until("some are told to wait", || {
        refused.load(Ordering::SeqCst) > 0
    });
    is_open.store(true, Ordering::SeqCst);
    let taken = posters
        .into_iter()
        .filter_map(|poster| poster.join().expect("it ends"));
    let taken: BTreeSet<u64> = taken
        .flat_map(|number| number * 5..number * 5 + 5)
        .collect();
    case.stop();
    assert_eq!(ids(&receiver), Vec::from_iter(taken), "{}", case.log());
}

/// The rows that came, in order of their ids.
fn ids(receiver: &Receiver) -> Vec<u64> {
    let posted = receiver.posted();
    let bodies = posted.iter().flat_map(|it| it.body.lines());
    let mut ids: Vec<u64> = bodies.filter_map(|line| id_of(line).as_u64()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn requests_that_wait_are_answered_at_a_stop_and_new_ones_refused() {
    let (receiver, is_open) = gated();
    let sink = "body = \"lines\"\nlinger = \"0s\"";
    let pipeline = passing("", &receiver, sink, "[checkpoints]\ninterval = \"1h\"");
    let mut case = Case::new(&pipeline).start();
    let waiting: Vec<_> = (0..3)
        .map(|id| {
            let address = case.address.clone();
            std::thread::spawn(move || {
                let body = format!("{{\"id\":{id}}}");
                post(&address, "/events", &[JSON], body).expect("an answer")
            })
        })
        .collect();
    until("the first row has come", || !receiver.posted().is_empty());
    // The others are on their way.
    std::thread::sleep(Duration::from_millis(300));
    case.ask_to_stop();
    std::thread::sleep(Duration::from_millis(300));
    let refused = case.post(&[JSON], "{\"id\":9}");
    assert_eq!(
        (refused.status(), refused.header("retry-after")),
        (503, Some("1"))
    );
    is_open.store(true, Ordering::SeqCst);
    for waiting in waiting {
        let answer = waiting.join().expect("it ends");
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(case.ended(), "{}", case.log());
    assert_eq!(ids(&receiver), [0, 1, 2]);
}

#[test]
fn a_request_that_no_checkpoint_has_in_time_is_told_so() {
    let source = format!("{FIELDS}\nanswer_within = \"200ms\"");
    let mut case = Case::new(&posted(&source, "[checkpoints]\ninterval = \"1h\"")).start();
    let key = ("Idempotency-Key", "one");
    for _ in 0..2 {
        let answer = case.post(&[JSON, key], "{\"id\":1}");
        assert_eq!(
            (answer.status(), answer.header("retry-after")),
            (503, Some("1"))
        );
        assert_eq!(answer.json()["code"], "unanswered");
    }
    case.stop();
    case.begin(None);
    case.listening();
    let answer = case.post(&[JSON, key], "{\"id\":1}");
    assert_eq!(
        answer.json(),
        json!({ "taken": 1, "not_taken": 0, "is_repeated": true })
    );
    case.stop();
    assert_eq!(case.lines("out.jsonl").len(), 1);
}

#[test]
fn a_key_is_taken_once_also_after_a_crash() {
    let mut case = Case::new(&posted(FIELDS, OFTEN)).start();
    let key = ("Idempotency-Key", "8e03978e-40d5-43dd-bc93-6894a57f9324");
    let body = "{\"id\":1}\n{\"id\":\"x\"}\n{\"id\":2}\n";
    let answer = case.post(&[LINES, key], body);
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.json()["is_repeated"], Value::Null);
    let repeated = json!({ "taken": 2, "not_taken": 1, "is_repeated": true });
    assert_eq!(case.post(&[LINES, key], body).json(), repeated);
    let other = case.post(&[LINES, key], "{\"id\":3}\n");
    assert_eq!(other.json()["code"], "key_of_another_body");
    case.kill();
    case.begin(None);
    case.listening();
    assert_eq!(case.post(&[LINES, key], body).json(), repeated);
    let answer = case.post(&[LINES, ("Idempotency-Key", "other")], body);
    assert_eq!(answer.json()["is_repeated"], Value::Null);
    case.stop();
    let rows = case.lines("out.jsonl");
    let rows: Vec<Value> = rows.iter().map(|line| id_of(line)).collect();
    assert_eq!(rows, [1, 2, 1, 2]);
    assert_eq!(case.lines("dead.jsonl").len(), 2);
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let check = |source: &str, expected: &str| {
        let text = posted(&format!("{FIELDS}\n{source}"), "");
        let mut case = Case::new(&text.replace("LISTEN", "0.0.0.0:1"));
        case.begin(None);
        assert!(!case.ended());
        assert!(case.log().contains(expected), "{}", case.log());
    };
    check(
        "",
        "everybody who reaches 0.0.0.0:1 could post rows to source `in`",
    );
    check("token = \"a\"\nwithout_token = true", "remove one of them");
    check("token = \"a\\nb\"", "cannot be in a header");
    check(
        "acknowledge = \"checkpoint\"\ntoken = \"a\"",
        "the pipeline makes none",
    );
    check("path = \"events\"", "is not the path of an address");
    check("body_bytes = \"1GiB\"", "from 1KiB to 16MiB");
}

const TYPES: &str = r#"fields = { id = "int64", b = "bool?", i8 = "int8?", u64 = "uint64?", f32 = "float32?", f64 = "float64?", d = "decimal(38,10)?", s = "utf8?", y = "bytes?", t = "timestamp?", k = "one|two?", l = "list<int64?>?", "r?" = { a = "utf8", n = "list<float64>?" } }"#;

const TYPED_ROWS: &str = r#"{"id":1}
{"id":9223372036854775807,"b":true,"i8":-128,"u64":18446744073709551615,"f32":3.4028235e38,"f64":5e-324,"d":-9999999999999999999999999999.9999999999,"s":"","y":"AAH/Cg==","t":1000,"k":"two","l":[1,null],"r":{"a":"\\ \" \n 🦀","n":[1.5,"NaN"]}}
{"id":-9223372036854775808,"b":false,"i8":127,"u64":0,"f32":"NaN","f64":"-Infinity","d":0.0000000001,"s":"a\u0000b\r\n","y":"","t":253402300799999,"k":"one","l":[],"r":{"a":"","n":null}}
"#;

/// From a sink to a source, encrypted, by their token.
#[test]
fn every_type_comes_as_it_was_sent() {
    let (certificate, key) = certificate::certificate().expect("it is made");
    let source = format!(
        "{TYPES}\ntls = {{ certificate = \"certificate.pem\", key = \"key.pem\" }}\n\
         token = {{ file = \"token\" }}"
    );
    let there = Case::new(&posted(&source, OFTEN));
    std::fs::write(there.path("certificate.pem"), &certificate).expect("it is writable");
    std::fs::write(there.path("key.pem"), key).expect("it is writable");
    std::fs::write(there.path("token"), "s3cret\n").expect("it is writable");
    let mut there = there.start();
    let mut expected = Vec::new();
    for body in ["array", "lines", "row"] {
        let rows = if body == "row" { "" } else { "batch_rows = 2" };
        let mut here = Case::new(&format!(
            "name = \"here-{body}\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n{TYPES}\n\
             [sinks.kept]\ntype = \"file\"\ninput = \"in\"\npath = \"kept.jsonl\"\n\
             [sinks.out]\ntype = \"http\"\ninput = \"in\"\nurl = \"https://{}/events\"\n\
             headers = {{ Authorization = {{ env = \"BEARER\" }} }}\nbody = \"{body}\"\n\
             {rows}\n",
            there.address
        ));
        std::fs::write(here.path("in.jsonl"), TYPED_ROWS).expect("it is writable");
        let trusted = there.path("certificate.pem").display().to_string();
        here.environment = vec![
            ("BEARER", "Bearer s3cret".to_owned()),
            ("SSL_CERT_FILE", trusted),
        ];
        here.begin(None);
        assert!(here.ended(), "{}", here.log());
        assert!(!here.log().contains("s3cret"), "{}", here.log());
        let kept = here.lines("kept.jsonl");
        assert_eq!(kept.len(), 3);
        expected.extend(kept);
    }
    there.stop();
    assert_eq!(there.lines("out.jsonl"), expected);
    assert_eq!(there.lines("dead.jsonl"), [""; 0]);
}

/// A pipeline that posts rows of a file.
fn posting(receiver: &Receiver, rows: &str, sink: &str, rest: &str) -> Case {
    let address = &receiver.address;
    let case = Case::new(&format!(
        "name = \"posting\"\ndead_letters = \"dead.jsonl\"\n{rest}\n[sources.in]\ntype = \"file\"\n\
         path = \"in.jsonl\"\n{FIELDS}\n[sinks.out]\ntype = \"http\"\ninput = \"in\"\n\
         url = \"http://{address}/hook?a=b\"\nretry = {{ from = \"10ms\", to = \"50ms\" }}\n{sink}\n"
    ));
    std::fs::write(case.path("in.jsonl"), rows).expect("it is writable");
    case
}

const THREE: &str = "{\"id\":1}\n{\"id\":2}\n{\"id\":3,\"text\":\"ü\"}\n";

#[test]
fn what_may_pass_is_sent_again_under_the_same_key() {
    let replies = [
        Reply::Status(503, "", "busy"),
        Reply::Status(408, "", ""),
        Reply::Status(425, "", ""),
        Reply::Status(500, "", ""),
        Reply::Rubbish,
        Reply::Close,
        Reply::Late(Duration::from_secs(2)),
        Reply::Status(429, "Retry-After: 1\r\n", ""),
    ];
    let count = replies.len();
    let receiver = Receiver::start(move |number, _| replies.get(number).cloned().unwrap_or(GOOD));
    let sink = "batch_rows = 2\nanswer_within = \"500ms\"\nheaders = { X-From = \"shop\" }";
    let mut case = posting(&receiver, THREE, sink, "");
    case.begin(None);
    assert!(case.ended(), "{}", case.log());
    let posted = receiver.posted();
    assert_eq!(posted.len(), count + 2, "{posted:?}");
    let first = &posted[0];
    assert!(
        first.head.starts_with("POST /hook?a=b HTTP/1.1"),
        "{first:?}"
    );
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("x-from"), Some("shop"));
    assert_eq!(first.body, r#"[{"id":1,"text":null},{"id":2,"text":null}]"#);
    let key = |it: &Message| it.header("idempotency-key").map(str::to_owned);
    for again in &posted[1..=count] {
        assert_eq!((key(again), &again.body), (key(first), &first.body));
    }
    assert_ne!(key(&posted[count + 1]), key(first));
    assert_eq!(posted[count + 1].body, r#"[{"id":3,"text":"ü"}]"#);
    let waited = posted[count].at.zip(posted[count - 1].at);
    let waited = waited.map(|(then, before)| then - before);
    assert!(waited >= Some(Duration::from_secs(1)), "{waited:?}");
    assert!(
        case.log().contains("503 Service Unavailable: busy"),
        "{}",
        case.log()
    );
}

#[test]
fn a_server_that_is_gone_is_waited_for() {
    let receiver = Receiver::start(|_, _| GOOD);
    receiver.set_down(true);
    let sink = "body = \"row\"\nbreaker = { failures = 3, pause = \"200ms\" }";
    let mut case = posting(&receiver, THREE, sink, OFTEN);
    case.begin(None);
    until("the breaker opens", || {
        case.log()
            .contains("has failed 3 times in a row, and gets no request for 200ms")
    });
    receiver.set_down(false);
    assert!(case.ended(), "{}", case.log());
    assert_eq!(ids(&receiver), [1, 2, 3]);
    assert!(case.log().contains("answers again"), "{}", case.log());
}

#[test]
fn a_server_that_fails_gets_few_requests() {
    let receiver = Receiver::start(|number, _| match number {
        0..5 => Reply::Status(500, "", ""),
        _ => GOOD,
    });
    let sink = "breaker = { failures = 3, pause = \"300ms\" }";
    let mut case = posting(&receiver, THREE, sink, "");
    case.begin(None);
    assert!(case.ended(), "{}", case.log());
    let times: Vec<Instant> = receiver.posted().iter().filter_map(|it| it.at).collect();
    let gaps: Vec<bool> = times
        .windows(2)
        .map(|two| two[1] - two[0] >= Duration::from_millis(280))
        .collect();
    assert_eq!(gaps, [false, false, true, true, true]);
}

#[test]
fn what_a_server_refuses_is_as_the_sink_says() {
    let refuses = |status, headers, body| {
        Receiver::start(move |_, it: &Message| match it.body.contains("\"id\":2") {
            true => Reply::Status(status, headers, body),
            false => GOOD,
        })
    };
    let fails = |status, headers, body, sink: &str, expected: Expect| {
        let receiver = refuses(status, headers, body);
        let mut case = posting(&receiver, THREE, sink, "");
        case.begin(None);
        assert!(!case.ended(), "{}", case.log());
        let log = case.log().replace(&receiver.address, "ADDRESS");
        let lines = log.lines().skip_while(|line| !line.starts_with("error"));
        expected.assert_eq(&(Vec::from_iter(lines.take(2)).join("\n") + "\n"));
    };
    fails(
        422,
        "",
        "{\"why\":\"no such shop\"}",
        "",
        expect![[r#"
        error: sink `out`: cannot write by POST to http://ADDRESS/hook?a=b: the server has answered 422: {"why":"no such shop"}; the first of 3 rows is {"id":1,"text":null}
          the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
    "#]],
    );
    fails(
        401,
        "",
        "",
        "body = \"row\"\nmethod = \"PUT\"",
        expect![[r#"
        error: sink `out`: cannot write by PUT to http://ADDRESS/hook?a=b: the server has answered 401; the row is {"id":2,"text":null}
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    let moved = "Location: http://127.0.0.1:1/elsewhere\r\n";
    fails(
        307,
        moved,
        "",
        "on_error = \"dead_letter\"",
        expect![[r#"
        error: sink `out`: cannot write by POST to http://ADDRESS/hook?a=b: the server has answered 307 Temporary Redirect, and redirects are not followed: write the address that it leads to
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );

    for (rest, body) in [("", "lines"), (OFTEN, "row")] {
        let receiver = refuses(400, "", "bad \u{1b}[31mrow");
        let rows = if body == "row" { "" } else { "batch_rows = 1" };
        let sink = format!("on_error = \"dead_letter\"\nbody = \"{body}\"\n{rows}");
        let mut case = posting(&receiver, THREE, &sink, rest);
        case.begin(None);
        assert!(case.ended(), "{}", case.log());
        let letters = case.lines("dead.jsonl");
        assert_eq!(letters.len(), 1, "{letters:?}");
        let letter: Value = serde_json::from_str(&letters[0]).expect("JSON");
        assert_eq!(letter["kind"], "refused");
        assert_eq!(letter["node"], "out");
        assert_eq!(letter["payload"], "{\"id\":2}");
        let error = letter["error"].as_str().expect("a text");
        assert!(
            error.starts_with("the server has answered 400: bad "),
            "{error}"
        );
        assert_eq!(receiver.posted().len(), 3, "it is not sent again");
        let accounted = case.log().contains("every row is accounted for");
        assert!(accounted, "{}", case.log());
    }

    let receiver = refuses(404, "", "");
    let mut case = posting(&receiver, THREE, "on_error = \"skip\"\nbody = \"row\"", "");
    case.begin(None);
    assert!(case.ended(), "{}", case.log());
    assert!(case.log().contains("skipped 1 rows"), "{}", case.log());
    assert_eq!(case.lines("dead.jsonl"), [""; 0]);
}

#[test]
fn requests_come_in_order_unless_several_are_under_way() {
    let mut rows = String::new();
    for id in 0..60 {
        let _ = writeln!(rows, "{{\"id\":{id}}}");
    }
    for in_flight in [1, 4] {
        let receiver = Receiver::start(|_, _| Reply::Late(Duration::from_millis(5)));
        let sink = format!("body = \"row\"\nin_flight = {in_flight}");
        let mut case = posting(&receiver, &rows, &sink, "");
        case.begin(None);
        assert!(case.ended(), "{}", case.log());
        let posted = receiver.posted().clone();
        let came: Vec<Value> = posted.iter().map(|it| id_of(&it.body)).collect();
        if in_flight == 1 {
            assert!(
                came.iter().cloned().eq((0..60).map(Value::from)),
                "{came:?}"
            );
        }
        assert_eq!(receiver.answering_max(), in_flight);
        assert_eq!(ids(&receiver), Vec::from_iter(0..60));
    }
}

#[test]
fn a_row_waits_for_others_as_long_as_it_may() {
    let receiver = Receiver::start(|_, _| GOOD);
    let sink = "batch_rows = 1000\nlinger = \"400ms\"\nbody = \"lines\"";
    let mut case = Case::new(&passing("", &receiver, sink, "")).start();
    let began = Instant::now();
    for id in 0..3 {
        assert_eq!(case.post(&[JSON], format!("{{\"id\":{id}}}")).status(), 202);
    }
    until("they come", || !receiver.posted().is_empty());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(380), "{took:?}");
    assert_eq!(ids(&receiver), [0, 1, 2], "in one request");
    // At the end, it waits for nothing.
    assert_eq!(case.post(&[JSON], "{\"id\":3}").status(), 202);
    case.stop();
    assert_eq!(ids(&receiver), [0, 1, 2, 3]);
}

/// What clients have posted, and had an answer to.
#[derive(Default)]
struct Answered {
    /// Of rows that were posted under keys, and of others.
    with_key: BTreeSet<u64>,
    without: BTreeSet<u64>,
    /// Rows that are bad, under keys.
    bad: BTreeSet<u64>,
}

/// Posts until it is to end, each request as often as it takes.
fn client(address: &str, number: u64, seed: u64, is_over: &AtomicBool) -> Answered {
    let mut random = Rng::with_seed(seed ^ number);
    let mut answered = Answered::default();
    let has_key = number.is_multiple_of(2);
    let mut next = number * 1_000_000_000;
    while !is_over.load(Ordering::SeqCst) {
        let ids = next..next + random.u64(1..60);
        next = ids.end;
        let mut body = String::new();
        for id in ids.clone() {
            let _ = match has_key && id % 10 == 3 {
                true => writeln!(body, "{{\"id\":\"{id}\"}}"),
                false => writeln!(body, "{{\"id\":{id}}}"),
            };
        }
        let key = format!("client-{number}-{next}");
        let headers = [LINES, ("Idempotency-Key", &key)];
        let headers = &headers[..if has_key { 2 } else { 1 }];
        let until = Instant::now() + WAIT;
        loop {
            let answer = post(address, "/events", headers, &body);
            match answer.map(|answer| answer.status()) {
                Ok(200 | 422) => break,
                Ok(429 | 503) | Err(_) => {}
                Ok(status) => panic!("{status}"),
            }
            assert!(Instant::now() < until, "no answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        for id in ids {
            match has_key {
                true if id % 10 == 3 => answered.bad.insert(id),
                true => answered.with_key.insert(id),
                false => answered.without.insert(id),
            };
        }
    }
    answered
}

#[test]
fn nothing_is_lost_by_kills_that_was_answered() {
    let kills = number("SLUICEBOX_KILLS").unwrap_or(10);
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{kills} kills, SLUICEBOX_SEED={seed}");
    let rest = format!("batch_rows = 7\n{OFTEN}");
    let mut case = Case::new(&posted(FIELDS, &rest));
    let is_over = AtomicBool::new(false);
    let mut random = Rng::with_seed(seed);
    let address = case.address.clone();
    let answered: Vec<Answered> = std::thread::scope(|scope| {
        let (address, is_over) = (&address, &is_over);
        let clients: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || client(address, number, seed, is_over)))
            .collect();
        for kill in 0..kills as usize {
            let place = PLACES.get(kill).filter(|_| random.bool());
            let crash_at = place.map(|(place, _)| format!("{place}:{}", random.u32(1..6)));
            let time = Duration::from_millis(random.u64(50..700));
            case.begin(crash_at);
            let ended = case
                .child
                .as_mut()
                .and_then(|child| killed::wait(child, time));
            assert!(
                ended.is_none_or(|ended| ended.code().is_none()),
                "{ended:?}\n{}",
                case.log()
            );
            case.kill();
        }
        case.begin(None);
        case.listening();
        std::thread::sleep(Duration::from_millis(200));
        is_over.store(true, Ordering::SeqCst);
        let clients = clients.into_iter();
        clients
            .map(|client| client.join().expect("it ends"))
            .collect()
    });
    case.stop();
    let mut came: BTreeMap<u64, usize> = BTreeMap::new();
    for line in case.lines("out.jsonl") {
        *came
            .entry(id_of(&line).as_u64().expect("a number"))
            .or_default() += 1;
    }
    let mut bad: BTreeMap<u64, usize> = BTreeMap::new();
    for line in case.lines("dead.jsonl") {
        let letter: Value = serde_json::from_str(&line).expect("JSON");
        let payload: Value =
            serde_json::from_str(letter["payload"].as_str().expect("a text")).expect("JSON");
        let id = payload["id"].as_str().and_then(|id| id.parse().ok());
        *bad.entry(id.expect("a number")).or_default() += 1;
    }
    let mut rows = 0;
    for answered in answered {
        for id in &answered.with_key {
            assert_eq!(came.get(id), Some(&1), "{id}, under a key\n{}", case.log());
        }
        for id in &answered.bad {
            assert_eq!(bad.get(id), Some(&1), "{id}, which is bad\n{}", case.log());
        }
        for id in &answered.without {
            assert!(came.contains_key(id), "{id}\n{}", case.log());
        }
        rows += answered.with_key.len() + answered.without.len() + answered.bad.len();
    }
    eprintln!("{rows} rows were answered, nothing lost, nothing doubled that has a key");
    assert!(rows > 0);
}

/// Without waiting for checkpoints, a stop loses nothing, and what is answered is there at
/// most as often as it was posted.
#[test]
fn nothing_is_lost_by_stops_where_rows_are_answered_at_once() {
    let source = format!("{FIELDS}\nacknowledge = \"taken\"");
    let mut case = Case::new(&posted(&source, OFTEN));
    let mut expected = Vec::new();
    for stop in 0..3 {
        case.begin(None);
        case.listening();
        for id in stop * 100..stop * 100 + 50 {
            let answer = case.post(&[JSON], format!("{{\"id\":{id}}}"));
            assert_eq!(answer.status(), 202, "{answer:?}");
            expected.push(Value::from(id));
        }
        case.stop();
    }
    let came: Vec<Value> = case
        .lines("out.jsonl")
        .iter()
        .map(|line| id_of(line))
        .collect();
    assert_eq!(came, expected);
}

/// All rows come at least once, and exactly once to a server that knows keys where each row
/// has one.
#[test]
fn nothing_is_lost_by_kills_that_is_posted() {
    let receiver = Receiver::start(|_, _| GOOD);
    let server = |what: &str| receiver.set_down(what == "kill");
    killed::in_rounds_of((6, 1), &server, |round, kills| {
        killed_round(&receiver, round, kills)
    });
}

fn killed_round(receiver: &Receiver, round: usize, kills: &mut Kills<'_>) -> usize {
    let (count, sink) = match round % 2 {
        0 => (400u64, "body = \"row\""),
        _ => (6_000, "body = \"lines\"\nbatch_rows = 20\nin_flight = 3"),
    };
    let mut rows = String::new();
    for id in 0..count {
        let _ = writeln!(rows, "{{\"id\":{id}}}");
    }
    receiver.posted().clear();
    let rest = format!("batch_rows = 50\n{OFTEN}");
    let case = posting(receiver, &rows, sink, &rest);
    let done = kills.run(&case.path("pipeline.toml"), &case.path("log"));
    let posted = receiver.posted();
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    let mut came = BTreeSet::new();
    for request in posted.iter() {
        let key = request.header("idempotency-key").expect("it has a key");
        let known = by_key.insert(key, &request.body);
        assert!(known.is_none_or(|known| known == request.body), "{key}");
        came.extend(request.body.lines().filter_map(|line| id_of(line).as_u64()));
    }
    assert!(
        came.iter().copied().eq(0..count),
        "{} rows came",
        came.len()
    );
    if round.is_multiple_of(2) {
        assert_eq!(by_key.len() as u64, count, "each row has one key");
    }
    done
}
