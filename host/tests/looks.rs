//! Looks at the state of a served pipeline: of a key and of all, live and as of the last
//! checkpoint, while keys are in memory and on disk.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use service::{Service, WAIT};

const USERS: usize = 3_000;
const ROWS_EACH: usize = 3;
/// Other keys, of a row each.
const OTHERS: usize = 30;

/// Operators with every kind of state, over rows that come through a pipe. They have too
/// little memory for all keys.
fn pipeline(checkpoints: bool) -> String {
    let plugin = common::plugin_file("basics");
    let checkpoints = match checkpoints {
        true => "state.memory = \"1MiB\"\ncheckpoints.interval = \"50ms\"",
        false => "",
    };
    let aggregates = [
        ("totals", "\"running\""),
        ("minutes", "{ tumbling = \"1m\" }"),
        ("halves", "{ sliding = \"60s\", every = \"30s\" }"),
        ("visits", "{ session = \"30s\" }"),
        ("hundreds", "{ count = 100 }"),
    ];
    let aggregates = aggregates.map(|(name, window)| {
        format!(
            r#"
            [operators.{name}]
            aggregate = {{ rows = "count()", total = "sum(n)" }}
            key = "key"
            window = {window}
            input = "rows"
            "#
        )
    });
    let sinks = [
        "totals",
        "minutes",
        "halves",
        "visits",
        "hundreds",
        "scripted.said",
        "pairs",
    ];
    let sinks = sinks.map(|input| {
        let name = input.replace('.', "_");
        format!(
            "[sinks.of_{name}]\ntype = \"file\"\npath = \"../{name}.jsonl\"\n\
             input = \"{input}\"\n"
        )
    });
    format!(
        r#"
        name = "looked"
        parallelism = 3
        dead_letters = "../dead.jsonl"
        plugins.basics.path = {plugin:?}
        {checkpoints}
        [sources.rows]
        type = "file"
        path = "../rows.pipe"
        format = "json"
        fields = {{ key = "utf8", n = "int64", letter = "utf8", ts = "timestamp" }}
        event_time = "ts"
        [operators.copied]
        select = {{ other = "key", m = "n" }}
        input = "rows"
        {}
        [operators.scripted]
        plugin = "basics.script"
        key = "key"
        input = "rows"
        [operators.pairs]
        join = {{ kind = "inner", before = "1h", after = "1h" }}
        input = {{ left = "rows", right = "copied" }}
        key = {{ left = "key", right = "other" }}
        {}
        "#,
        aggregates.concat(),
        sinks.concat(),
    )
}

const STATEFUL: [&str; 7] = [
    "totals", "minutes", "halves", "visits", "hundreds", "scripted", "pairs",
];

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// 2024-01-01T10:00:00Z
const START_MS: i64 = 1_704_103_200_000;

/// A service of that pipeline that has read its rows, and waits for more.
struct Looked {
    service: Service,
    /// More rows may come as long as it is open.
    pipe: File,
}

fn key(user: usize) -> String {
    format!("u{user:04}")
}

fn n(user: usize, row: usize) -> usize {
    user * 10 + row
}

fn looked(checkpoints: bool) -> Looked {
    let service = Service::start(&[]);
    let pipe = service.path("rows.pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("there is a mkfifo").success());
    service.write("looked", &pipeline(checkpoints));
    // To read it as well means not to wait for a reader.
    let writer = File::options().read(true).write(true).open(&pipe);
    let mut writer = writer.expect("it was made");
    for row in 0..ROWS_EACH {
        let mut lines = String::new();
        for user in 0..USERS {
            lines += &line(&key(user), n(user, row), row);
        }
        writer.write_all(lines.as_bytes()).expect("it is read");
    }
    let looked = Looked {
        service,
        pipe: writer,
    };
    looked.until_read(USERS * ROWS_EACH);
    looked
}

fn line(key: &str, n: usize, row: usize) -> String {
    let ts = START_MS + 1_000 * row as i64;
    let line = json!({ "key": key, "n": n, "letter": "set wake 3600000", "ts": ts });
    format!("{line}\n")
}

impl Looked {
    fn pipeline(&self) -> Value {
        self.service.ask("GET", "/api/v1/pipelines/looked", "").1
    }

    fn until(&self, holds: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        while !holds(&self.pipeline()) {
            let log = fs::read_to_string(self.service.path("log.txt")).unwrap_or_default();
            assert!(began.elapsed() < WAIT, "{:#}\n{log}", self.pipeline());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until all operators have read so many rows.
    fn until_read(&self, rows: usize) {
        self.until(|pipeline| {
            let nodes = pipeline["revision"]["nodes"].as_array();
            let read = |node: &Value| {
                let sides = if node["name"] == "pairs" { 2 } else { 1 };
                node["role"] == "sink" || node["rows_in"] == rows * sides
            };
            pipeline["phase"] == "running" && nodes.is_some_and(|nodes| nodes.iter().all(read))
        });
    }

    /// Waits until a checkpoint has all that was read.
    fn checkpoint(&self) {
        let path = "/api/v1/pipelines/looked/savepoints";
        let body = json!({ "name": format!("at-{}", START.elapsed().as_nanos()) });
        let (status, savepoint) = self.service.ask("POST", path, &body.to_string());
        assert_eq!(status, 201, "{savepoint}");
    }

    fn ask(&self, operator: &str, query: &str) -> (u16, Value) {
        let path = format!("/api/v1/pipelines/looked/operators/{operator}/state?{query}");
        self.service.ask("GET", &path, "")
    }

    fn of_key(&self, operator: &str, user: usize, as_of: &str) -> Vec<Value> {
        let key = json!({ "key": key(user) }).to_string();
        let key = key
            .replace('{', "%7B")
            .replace('}', "%7D")
            .replace('"', "%22");
        let (status, state) = self.ask(operator, &format!("key={key}&as_of={as_of}"));
        assert_eq!(status, 200, "{state}");
        assert!(state["next"].is_null(), "{state}");
        state["entries"].as_array().expect("entries").clone()
    }

    /// All entries by key, page by page.
    fn scan(&self, operator: &str, as_of: &str, limit: usize) -> BTreeMap<String, Vec<Value>> {
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let (status, page) =
                self.ask(operator, &format!("as_of={as_of}&limit={limit}{cursor}"));
            assert_eq!(status, 200, "{page}");
            let entries = page["entries"].as_array().expect("entries");
            let mut keys = Vec::new();
            for entry in entries {
                let key = entry["key"]["key"].as_str().expect("a text").to_owned();
                keys.push((key.clone(), entry["table"].clone()));
                found.entry(key).or_default().push(entry.clone());
            }
            keys.dedup();
            assert!(keys.len() <= limit, "{} of {limit}", keys.len());
            let Some(next) = page["next"].as_str() else {
                return found;
            };
            cursor = format!("&cursor={next}");
        }
    }
}

/// What is kept for a user.
fn expected(operator: &str, user: usize) -> Vec<Value> {
    let total: usize = (0..ROWS_EACH).map(|row| n(user, row)).sum();
    let key = json!({ "key": key(user) });
    let state = json!({ "count()": ROWS_EACH, "sum(n)": total });
    let at = |row: usize| START_MS + 1_000 * row as i64;
    let newest = at(ROWS_EACH - 1);
    let window = |start: i64, end: i64| {
        json!([{
            "table": "windows", "key": key, "start_ms": start, "end_ms": end, "state": state,
        }])
    };
    let rows = |table: &str, key_name: &str, value_name: &str| {
        let row = |row: usize| {
            let mut fields = json!({ value_name: n(user, row) });
            fields[key_name] = json!(self::key(user));
            if table == "left rows" {
                fields["letter"] = json!("set wake 3600000");
                fields["ts"] = json!(format!("2024-01-01T10:00:0{row}Z"));
            }
            json!({ "time_ms": at(row), "row": fields })
        };
        let rows: Vec<Value> = (0..ROWS_EACH).map(row).collect();
        json!({ "table": table, "key": key, "kept_rows": rows })
    };
    let entries = match operator {
        "totals" => json!([{
            "table": "windows", "key": key, "newest_ms": newest, "state": state,
        }]),
        "minutes" => window(START_MS, START_MS + 60_000),
        "halves" => window(START_MS, START_MS + 30_000),
        "visits" => window(START_MS, newest + 30_000),
        "hundreds" => json!([{
            "table": "windows", "key": key, "start_ms": START_MS, "newest_ms": newest,
            "rows": ROWS_EACH, "state": state,
        }]),
        "scripted" => json!([{
            "table": "keys", "key": key, "newest_ms": newest, "state": { "sum": total },
            "timers": [{
                "name": "wake", "at_ms": newest + 3_600_000, "in_processing_time": false,
            }],
        }]),
        _ => json!([
            rows("left rows", "key", "n"),
            rows("right rows", "other", "m")
        ]),
    };
    entries.as_array().expect("a list").clone()
}

/// What does not run has its last checkpoint, which is looked at as often as anybody likes.
#[test]
fn the_state_of_a_pipeline_that_does_not_run_is_that_of_its_last_checkpoint() {
    let looked = looked(true);
    let ask = |verb: &str| {
        let path = format!("/api/v1/pipelines/looked/{verb}");
        let (status, answer) = looked.service.ask("POST", &path, "");
        assert_eq!(status, 202, "{answer}");
    };
    ask("pause");
    looked.until(|pipeline| pipeline["phase"] == "paused");
    let (status, answer) = looked.ask("totals", "");
    let why = answer["detail"].as_str().unwrap_or_default();
    assert!(
        status == 409 && why.contains("as_of=checkpoint"),
        "{answer}"
    );
    for operator in STATEFUL {
        let found = looked.of_key(operator, 501, "checkpoint");
        assert_eq!(found, expected(operator, 501), "{operator}");
    }
    let all = looked.scan("totals", "checkpoint", 1_000);
    assert_eq!(all.len(), USERS);
    for user in 0..USERS {
        assert_eq!(all[&key(user)], expected("totals", user));
    }
    let folder = looked.service.path("pipelines/looked.state/checkpoints");
    let names = fs::read_dir(&folder).expect("checkpoints");
    let names = names.map(|entry| entry.expect("readable").file_name().into_string());
    let names: Vec<String> = names.map(|name| name.expect("a number")).collect();
    assert!(
        names.iter().all(|name| name.parse::<u64>().is_ok()),
        "{names:?}"
    );

    // The state that was looked at is the pipeline's own still.
    ask("start");
    // Between the phase and the first task, there is nothing to look at.
    looked.until(|pipeline| {
        pipeline["phase"] == "running" && looked.ask("totals", "limit=1").0 == 200
    });
    assert_eq!(looked.scan("totals", "live", 1_000), all);
    let Looked { service, pipe } = looked;
    drop(pipe);
    let began = Instant::now();
    while service.get("/api/v1/pipelines/looked")["phase"] != "ended" {
        assert!(began.elapsed() < WAIT, "it never ends");
        std::thread::sleep(Duration::from_millis(10));
    }
    let path = "/api/v1/pipelines/looked/operators/totals/state?as_of=checkpoint&limit=1";
    let state = service.get(path);
    let found = &state["entries"][0];
    let key = found["key"]["key"].as_str().expect("a key");
    assert_eq!(json!([found]), json!(all[key]), "{state}");
    assert!(state["checkpoint"].is_u64(), "{state}");
}

#[test]
fn every_kind_of_state_is_seen_by_key_and_as_a_whole_live_and_as_of_a_checkpoint() {
    let mut looked = looked(true);
    looked.checkpoint();
    // Keys are evicted when rows come.
    let others: String = (0..OTHERS)
        .map(|other| line(&format!("x{other}"), 0, ROWS_EACH - 1))
        .collect();
    looked
        .pipe
        .write_all(others.as_bytes())
        .expect("it is read");
    looked.until_read(USERS * ROWS_EACH + OTHERS);
    looked.checkpoint();
    for operator in STATEFUL {
        for as_of in ["live", "checkpoint"] {
            for user in (0..USERS).step_by(501) {
                let found = looked.of_key(operator, user, as_of);
                assert_eq!(found, expected(operator, user), "{operator} {as_of}");
            }
            let all = looked.scan(operator, as_of, 700);
            assert_eq!(all.len(), USERS + OTHERS, "{operator} {as_of}");
            for user in 0..USERS {
                let found = &all[&key(user)];
                assert_eq!(found, &expected(operator, user), "{operator} {as_of}");
            }
        }
    }
    // Keys are evicted when rows come, of which tasks may have heard before they did of the
    // checkpoint. What has just been read may be a little above the budget.
    let is_evicted = |pipeline: &Value| {
        let memory = &pipeline["revision"]["state"]["memory_bytes"];
        memory.as_u64() < Some(9 << 17)
    };
    for more in 1.. {
        if is_evicted(&looked.pipeline()) {
            break;
        }
        assert!(more < 100, "no keys are evicted: {:#}", looked.pipeline());
        let another = line("x0", 0, ROWS_EACH - 1);
        looked
            .pipe
            .write_all(another.as_bytes())
            .expect("it is read");
        looked.until_read(USERS * ROWS_EACH + OTHERS + more);
        looked.checkpoint();
    }
    let visits = looked.scan("visits", "live", 13);
    assert_eq!(visits.len(), USERS + OTHERS);
}

#[test]
fn what_cannot_be_seen_is_told() {
    let looked = looked(false);
    assert_eq!(looked.of_key("totals", 3, "live"), expected("totals", 3));
    assert_eq!(looked.scan("minutes", "live", 999).len(), USERS);
    assert!(looked.of_key("totals", USERS, "live").is_empty());
    for (operator, query, status, why) in [
        ("totals", "as_of=checkpoint", 409, "no checkpoints"),
        ("copied", "", 409, "`copied` keeps no state"),
        ("rows", "", 409, "`rows` keeps no state"),
        ("total", "", 404, "did you mean `totals`?"),
        ("totals", "key=u0001", 400, "key: utf8"),
        (
            "totals",
            "key=%7B%22user%22:1%7D",
            400,
            "there is no field `user`",
        ),
        ("totals", "limit=0", 400, "1 to 1000"),
        ("totals", "cursor=x", 400, "`cursor`"),
        ("totals", "as_of=yesterday", 400, "yesterday"),
        ("totals", "keys=x", 400, "keys"),
    ] {
        let (answered, problem) = looked.ask(operator, query);
        assert_eq!(answered, status, "{operator} {query}: {problem}");
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.contains(why), "{operator} {query}: {detail}");
    }
    looked
        .service
        .ask("POST", "/api/v1/pipelines/looked/pause", "");
    looked.until(|pipeline| pipeline["phase"] == "paused");
    let (status, problem) = looked.ask("totals", "");
    assert_eq!(status, 409, "{problem}");
}

/// Server-sent events, as they come.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(service: &Service, path: &str) -> Events {
        let mut stream = TcpStream::connect(service.address()).expect("it listens");
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        Events(BufReader::new(stream))
    }

    /// The next event's name and data; `None` when no other comes.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("it comes in time") == 0 {
                return None;
            }
            if let Some(event) = line.trim().strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.trim().strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }
}

#[test]
fn rows_are_seen_as_they_leave_a_node_and_nobody_waits_for_who_looks() {
    let mut looked = looked(true);
    let tail = |from: &str, rate: u32| {
        let path = format!("/api/v1/pipelines/looked/tail?from={from}&rate={rate}");
        Events::of(&looked.service, &path)
    };
    let mut source = tail("rows", 5);
    let mut results = tail("totals", 1_000);
    let mut said = tail("scripted.said", 1_000);
    // It is never read.
    let _stuck = tail("rows", 1_000);
    // A first event says that it listens.
    std::thread::sleep(Duration::from_millis(300));
    let lines: String = (0..500).map(|user| line(&key(user), 1, 10)).collect();
    looked.pipe.write_all(lines.as_bytes()).expect("it is read");
    let (mut rows, mut left_out) = (0, 0);
    while rows + left_out < 500 {
        let (name, data) = source.next().expect("it goes on");
        match &*name {
            "row" => {
                rows += 1;
                assert_eq!(data["time_ms"], START_MS + 10_000);
                assert_eq!(data["row"]["n"], 1, "{data}");
            }
            "left_out" => left_out += data["rows"].as_u64().expect("a number"),
            other => panic!("{other}: {data}"),
        }
    }
    assert_eq!(rows + left_out, 500);
    assert!((1..=20).contains(&rows), "{rows} at 5 a second");
    for events in [&mut results, &mut said] {
        for _ in 0..500 {
            let (name, data) = events.next().expect("it goes on");
            assert_eq!(name, "row", "{data}");
        }
    }
    for (from, why) in [
        ("nothing", "the outputs are: "),
        ("scripted.note", "did you mean `scripted.noted`?"),
        ("of_totals", "there is no output"),
    ] {
        let path = format!("/api/v1/pipelines/looked/tail?from={from}");
        let (status, problem) = looked.service.ask("GET", &path, "");
        assert_eq!(status, 404, "{problem}");
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.contains(why), "{detail}");
    }
    assert!(looked.service.end(libc::SIGTERM).success());
    let (name, end) = loop {
        let (name, data) = said.next().expect("it says that it ends");
        if name != "row" {
            break (name, data);
        }
    };
    assert_eq!(
        (&*name, &end["why"]),
        ("end", &json!("the host is stopping"))
    );
    assert!(said.next().is_none());
}
