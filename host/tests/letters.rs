//! Replays dead letters of served pipelines: where they failed, once, through kills.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// Both ends of HTTP.
#[expect(dead_code, reason = "rows are posted by the service alone")]
#[path = "common/http.rs"]
mod http;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;
/// Waits for what others do.
#[expect(dead_code, reason = "the service has its own")]
#[path = "common/waiting.rs"]
mod waiting;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use http::{Receiver, Reply};
use service::{GOOD, Service, WAIT, shop_with};

const ROWS: u64 = 8_000;
/// Rows that are no such rows, and what they were meant to be.
const LINES: &str = "{\"id\":\"a\",\"n\":1}\n{\"id\":\"b\",\"n\":\"two\"}\n{\"id\":\"c\"}\n";

/// Rows of a user fail if the plugin is in that mode.
fn shop(parameters: &str) -> String {
    format!(
        r#"parallelism = 2
        {}
        [sources.lines]
        type = "file"
        path = "../lines.jsonl"
        format = "json"
        fields = {{ id = "utf8", n = "int64" }}
        [operators.counted]
        aggregate = {{ rows = "count()", total = "sum(n)" }}
        key = "id"
        window = "global"
        input = "guarded"
        [operators.minutes]
        aggregate = {{ rows = "count()" }}
        key = "id"
        window = {{ tumbling = "1m" }}
        allowed_lateness = "1d"
        input = "guarded"
        {}
        "#,
        shop_with(
            &format!("rate = 2000\ncount = {ROWS}"),
            &format!("parameters = {{ {parameters} }}")
        ),
        ["guarded", "counted", "minutes", "lines"]
            .map(|node| format!(
                "[sinks.of_{node}]\ntype = \"file\"\npath = \"../{node}.out\"\nformat = \
                 \"json\"\ninput = \"{node}\"\n"
            ))
            .concat()
    )
}

/// The lines of an output, in order.
fn output(folder: &Path, node: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(format!("{node}.out"))).expect("it is complete");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// The last result of each key and window.
fn last_minutes(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("minutes.out")).expect("it is complete");
    let rows = text.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("a row");
        let key = format!("{} {}", row["id"], row["window_start"]);
        (key, row["rows"].to_string())
    });
    let last: std::collections::BTreeMap<String, String> = rows.collect();
    last.into_iter()
        .map(|(key, rows)| format!("{key} {rows}"))
        .collect()
}

/// The outputs of a run that nothing disturbs.
struct Expected {
    guarded: Vec<String>,
    counted: Vec<String>,
    minutes: Vec<String>,
    /// The user with the first row.
    user: String,
}

impl Expected {
    fn new() -> Expected {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir_all(path.join("pipelines")).expect("writable");
        fs::write(path.join("lines.jsonl"), LINES).expect("writable");
        let plugin = format!("{:?}", common::plugin_file("hostile"));
        let text = shop(GOOD).replace("\"../plugins/hostile.wasm\"", &plugin);
        let file = path.join("pipelines/shop.toml");
        fs::write(&file, text.replace("rate = 2000\n", "")).expect("writable");
        let run = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .args(["run", "--quiet"])
            .arg(&file)
            .output()
            .expect("it runs");
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        let first = fs::read_to_string(path.join("guarded.out")).expect("rows");
        let first: Value = serde_json::from_str(first.lines().next().expect("one")).expect("a row");
        Expected {
            guarded: output(path, "guarded"),
            counted: output(path, "counted"),
            minutes: last_minutes(path),
            user: first["id"].as_str().expect("an id").to_owned(),
        }
    }

    fn bad(&self, mode: &str) -> String {
        shop(&format!("mode = \"{mode}\", at = \"{}\"", self.user))
    }

    #[track_caller]
    fn check(&self, folder: &Path) {
        assert_eq!(output(folder, "guarded"), self.guarded);
        assert_eq!(output(folder, "counted"), self.counted);
        assert_eq!(last_minutes(folder), self.minutes);
    }
}

fn start(text: &str) -> Service {
    let service = Service::start(&[]);
    fs::write(service.path("lines.jsonl"), LINES).expect("writable");
    service.write("shop", text);
    service.until_seen();
    service
}

const PATH: &str = "/api/v1/pipelines/shop/dead-letters";

fn letters(service: &Service, query: &str) -> Vec<Value> {
    let answer = service.get(&format!("{PATH}?{query}"));
    answer["letters"].as_array().expect("letters").clone()
}

fn replay(service: &Service, body: &Value) -> (u16, Value) {
    service.ask("POST", &format!("{PATH}/replay"), &body.to_string())
}

/// Waits until no replay is open, and returns what became of the last one.
fn replayed(service: &Service) -> Value {
    let began = Instant::now();
    loop {
        let replays = service.get("/api/v1/pipelines/shop/replays");
        let last = replays
            .as_array()
            .and_then(|all| all.last())
            .expect("one")
            .clone();
        if last["outcome"] != "open" {
            return last;
        }
        let log = fs::read_to_string(service.path("log.txt")).unwrap_or_default();
        assert!(
            began.elapsed() < WAIT,
            "{replays:#}\n{:#}\n{log}",
            service.shop()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the content with this number has held.
fn until_held(service: &Service, number: usize) {
    service.until("held", |shop| {
        let outcomes = service.outcomes();
        let has_held = outcomes.len() == number && outcomes.last().is_some_and(|it| it == "held");
        has_held && shop["phase"] == "running"
    });
}

#[test]
fn letters_are_replayed_where_they_failed() {
    let expected = Expected::new();
    let service = start(&expected.bad("reject"));
    service.until_read(500);
    until_held(&service, 1);
    let found = letters(&service, "node=guarded&limit=3");
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0]["kind"], "reject");
    assert_eq!(found[0]["status"], "open");
    assert!(
        found[0]["offset"].as_u64() > found[1]["offset"].as_u64(),
        "the newest first"
    );

    // What fails again is another letter.
    let id = found[2]["id"].clone();
    let (status, answer) = replay(&service, &json!({ "letters": [{ "id": id }] }));
    assert_eq!((status, &answer["letters"]), (202, &json!(1)), "{answer}");
    assert_eq!(replayed(&service)["outcome"], "done");
    let again = letters(&service, "node=guarded&status=all&limit=1000");
    let again: Vec<&Value> = again
        .iter()
        .filter(|letter| {
            letter["source"]
                .as_str()
                .is_some_and(|it| it.starts_with("replay 1"))
        })
        .collect();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["event_time"], found[2]["event_time"]);
    let (status, answer) = replay(&service, &json!({ "letters": [{ "id": id }] }));
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("conflict")),
        "{answer}"
    );

    // All others are, when the plugin is mended.
    service.write("shop", &shop(GOOD));
    until_held(&service, 2);
    let open = service.get(&format!("{PATH}?node=guarded"))["count"].clone();
    let (status, answer) = replay(&service, &json!({ "matching": { "node": "guarded" } }));
    assert_eq!((status, &answer["letters"]), (202, &open), "{answer}");
    let (status, answer) = replay(&service, &json!({ "matching": {} }));
    assert_eq!(status, 409, "there is one: {answer}");
    assert_eq!(replayed(&service)["outcome"], "done");
    assert!(letters(&service, "node=guarded").is_empty());

    // Rows that could not be decoded go to all that read the source, if they are mended.
    let undecoded = letters(&service, "node=lines");
    assert_eq!(undecoded.len(), 2, "{undecoded:?}");
    let [second, first] = [&undecoded[0]["id"], &undecoded[1]["id"]];
    let (status, answer) = replay(&service, &json!({ "letters": [{ "id": first }] }));
    let why = answer["detail"].as_str().unwrap_or_default();
    assert!(status == 422 && why.contains("field `n`"), "{answer}");
    assert!(
        undecoded[1]["stays"]
            .as_str()
            .is_some_and(|stays| why.contains(stays))
    );
    let row = json!({ "id": "b", "n": 2 });
    let none = json!({ "letters": [{ "id": first, "row": null }] });
    assert_eq!(replay(&service, &none).0, 422, "null is no row");
    let mended = json!({ "letters": [{ "id": first, "row": row }] });
    assert_eq!(replay(&service, &mended).0, 202);
    assert_eq!(replayed(&service)["outcome"], "done");
    let dropped = json!({ "letters": [second] }).to_string();
    assert_eq!(
        service.ask("POST", &format!("{PATH}/drop"), &dropped).0,
        204
    );
    assert_eq!(letters(&service, "status=dropped").len(), 1);
    assert_eq!(
        replay(&service, &json!({ "letters": [{ "id": second }] })).0,
        409
    );
    assert_eq!(
        replay(&service, &json!({ "letters": [{ "id": "0" }] })).0,
        404
    );
    assert_eq!(replay(&service, &json!({})).0, 400);
    assert_eq!(
        replay(&service, &json!({ "matching": {} })).0,
        422,
        "none is open"
    );

    service.until_phase("ended");
    expected.check(service.folder.path());
    let lines = [r#"{"id":"a","n":1}"#, r#"{"id":"b","n":2}"#];
    assert_eq!(output(service.folder.path(), "lines"), lines);
}

/// A row that one sink was refused goes to that sink alone.
#[test]
fn rows_that_a_sink_was_refused_go_there_again() {
    let takes_all = Arc::new(AtomicBool::new(false));
    let takes = takes_all.clone();
    let receiver = Receiver::start(move |_, message| {
        let is_bad = message.body.contains("\"n\":2") && !takes.load(Ordering::SeqCst);
        Reply::Status(if is_bad { 422 } else { 200 }, "", "")
    });
    let service = Service::start(&[]);
    let lines = "{\"id\":\"a\",\"n\":1}\n{\"id\":\"b\",\"n\":2}\n{\"id\":\"c\",\"n\":2}\n";
    fs::write(service.path("lines.jsonl"), lines).expect("writable");
    let pipeline = format!(
        r#"name = "shop"
        [checkpoints]
        interval = "50ms"
        [sources.lines]
        type = "file"
        path = "../lines.jsonl"
        fields = {{ id = "utf8", n = "int64" }}
        [sinks.hook]
        type = "http"
        url = "http://{}/hook"
        body = "row"
        on_error = "dead_letter"
        input = "lines"
        [sinks.of_lines]
        type = "file"
        path = "../lines.out"
        format = "json"
        input = "lines"
        "#,
        receiver.address
    );
    service.write("shop", &pipeline);
    service.until_seen();
    service.until_phase("ended");
    let refused = letters(&service, "node=hook");
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(refused[0]["stays"], Value::Null, "{refused:?}");
    // What is refused again is another letter.
    let first = json!({ "letters": [{ "id": refused[1]["id"] }] });
    assert_eq!(replay(&service, &first).0, 202);
    assert_eq!(replayed(&service)["outcome"], "done");
    let again = letters(&service, "node=hook");
    assert_eq!(again.len(), 2, "{again:?}");
    let row = |letter: &Value| letter["row"].as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<String> = again.iter().map(row).collect();
    rows.sort_unstable();
    assert_eq!(rows, [r#"{"id":"b","n":2}"#, r#"{"id":"c","n":2}"#]);
    // One is mended, and the other taken as it is.
    let (mended, other) = match row(&again[0]).contains("\"c\"") {
        true => (&again[0], &again[1]),
        false => (&again[1], &again[0]),
    };
    takes_all.store(true, Ordering::SeqCst);
    let edited = json!({ "letters": [
        { "id": mended["id"], "row": { "id": "c", "n": 3 } },
        { "id": other["id"] },
    ] });
    let (status, answer) = replay(&service, &edited);
    assert_eq!(status, 202, "{answer}");
    assert_eq!(replayed(&service)["outcome"], "done");
    assert!(letters(&service, "node=hook").is_empty());
    let mut taken: Vec<String> = receiver.posted().iter().map(|it| it.body.clone()).collect();
    taken.sort_unstable();
    let (b, c) = (r#"{"id":"b","n":2}"#, r#"{"id":"c","n":2}"#);
    assert_eq!(
        taken,
        [r#"{"id":"a","n":1}"#, b, b, b, c, r#"{"id":"c","n":3}"#]
    );
    service.until_phase("ended");
    assert_eq!(output(service.folder.path(), "lines").len(), 3);
}

#[test]
fn letters_of_an_ended_pipeline_are_replayed() {
    let expected = Expected::new();
    let service = start(&expected.bad("panic").replace("rate = 2000", "rate = 20000"));
    service.until_phase("ended");
    service.write("shop", &shop(GOOD).replace("rate = 2000", "rate = 20000"));
    service.until("held", |_| service.outcomes().len() == 2);
    service.until_phase("ended");
    assert_eq!(
        replay(&service, &json!({ "matching": { "kind": "trap" } })).0,
        202
    );
    assert_eq!(replayed(&service)["outcome"], "done");
    service.until_phase("ended");
    assert_eq!(output(service.folder.path(), "guarded"), expected.guarded);
    assert!(letters(&service, "node=guarded").is_empty());
}

/// More than a replay has, all replayed by one command: each once, also those that fail again.
#[test]
fn many_letters_are_replayed_in_parts() {
    const MANY: usize = 10_500;
    let service = Service::start(&[]);
    let rows = (0..MANY).map(|n| format!("{{\"id\":\"{}\",\"n\":{n}}}\n", n % 2));
    fs::write(service.path("lines.jsonl"), rows.collect::<String>()).expect("writable");
    let pipeline = |parameters: &str| {
        format!(
            r#"
            name = "shop"
            dead_letters = "../dead.jsonl"
            plugins.hostile.path = "../plugins/hostile.wasm"
            [checkpoints]
            interval = "100ms"
            [sources.lines]
            type = "file"
            path = "../lines.jsonl"
            format = "json"
            fields = {{ id = "utf8", n = "int64" }}
            [operators.guarded]
            plugin = "hostile.misbehave"
            parameters = {{ {parameters} }}
            input = "lines"
            [sinks.of_guarded]
            type = "file"
            path = "../guarded.out"
            format = "json"
            input = "guarded"
            "#
        )
    };
    service.write("shop", &pipeline("mode = \"reject\""));
    service.until_seen();
    service.until_phase("ended");
    let count = || service.get(&format!("{PATH}?limit=1"))["count"].clone();
    assert_eq!(count(), MANY, "all were rejected");
    service.write("shop", &pipeline("mode = \"reject\", at = \"1\""));
    service.until("held", |_| service.outcomes().len() == 2);
    service.until_phase("ended");
    let output_of = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .args(arguments)
            .env("SLUICEBOX_HOST", format!("http://{}", service.address()))
            .output()
            .expect("it runs")
    };
    let replayed = output_of(&["letters", "replay", "shop", "--all"]);
    let told = String::from_utf8_lossy(&replayed.stdout).into_owned();
    let error = String::from_utf8_lossy(&replayed.stderr);
    assert!(replayed.status.success(), "{told}{error}");
    for part in [
        "replay 1: 10000 letters",
        "500 more match",
        "replay 2: 500 letters",
    ] {
        assert!(told.contains(part), "`{part}`: {told}");
    }
    assert_eq!(
        count(),
        MANY / 2,
        "those that have failed again are new letters"
    );
    service.until_phase("ended");
    let mut numbers: Vec<u64> = output(service.folder.path(), "guarded")
        .iter()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("a row");
            row["n"].as_u64().expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    let even: Vec<u64> = (0..MANY as u64).step_by(2).collect();
    assert_eq!(numbers.len(), even.len());
    assert!(numbers == even, "each came out once");
    let unknown = json!({ "matching": { "until": "0123456789abcdef" } });
    assert_eq!(replay(&service, &unknown).0, 404);
}

/// A row that an operator ends the pipeline for is no reason to end it for good.
#[test]
fn a_replay_that_ends_the_pipeline_is_taken_back() {
    let expected = Expected::new();
    let text = expected
        .bad("reject")
        .replace("rate = 2000", "rate = 20000");
    let service = start(&text);
    service.until_phase("ended");
    let open = letters(&service, "node=guarded&limit=1000").len();
    assert!(open > 0);
    let strict = text.replace(
        "[operators.guarded]",
        "[operators.guarded]\non_error = \"fail\"",
    );
    service.write("shop", &strict);
    service.until("held", |_| service.outcomes().len() == 2);
    service.until_phase("ended");
    let all = json!({ "matching": { "node": "guarded" } });
    assert_eq!(replay(&service, &all).0, 202);
    let record = replayed(&service);
    assert_eq!(record["outcome"], "failed", "{record}");
    let why = record["why"].as_str().unwrap_or_default();
    assert!(why.contains("`replay 1:guarded`"), "{why}");
    assert_eq!(letters(&service, "node=guarded&limit=1000").len(), open);

    service.until_phase("ended");
    let good = shop(GOOD).replace("rate = 2000", "rate = 20000");
    service.write("shop", &good);
    service.until("held", |_| service.outcomes().len() == 3);
    service.until_phase("ended");
    assert_eq!(replay(&service, &all).0, 202);
    assert_eq!(replayed(&service)["outcome"], "done");
    service.until_phase("ended");
    assert_eq!(output(service.folder.path(), "guarded"), expected.guarded);
}

/// It fails behind the row, while the replay waits for its last checkpoint: a restart of the
/// pipeline would repeat it for ever, or end without the row.
#[test]
fn a_replay_that_fails_the_pipeline_later_is_taken_back() {
    let text = |mode: &str| {
        format!(
            r#"
            name = "shop"
            plugins.hostile.path = "../plugins/hostile.wasm"
            [checkpoints]
            interval = "100ms"
            [sources.rows]
            type = "file"
            path = "../rows.jsonl"
            fields = {{ id = "utf8", n = "int64" }}
            [operators.kept]
            plugin = "hostile.misbehave"
            input = "rows"
            on_error = "fail"
            limits = {{ time = "500ms" }}
            parameters = {{ mode = "{mode}", at = "bad" }}
            [sinks.kept_rows]
            type = "file"
            path = "../kept.out"
            format = "json"
            input = "kept"
            "#
        )
    };
    let service = Service::start(&[]);
    let plugin = common::plugin_file("hostile");
    fs::copy(plugin, service.path("plugins/hostile.wasm")).expect("writable");
    let rows = "{\"id\":\"good\",\"n\":1}\n{\"id\":\"bad\",\"n\":\"two\"}\n";
    fs::write(service.path("rows.jsonl"), rows).expect("writable");
    service.write("shop", &text("loop"));
    service.until_seen();
    service.until_phase("ended");
    let letter = &letters(&service, "")[0];
    let edited = json!({ "letters": [{ "id": letter["id"], "row": { "id": "bad", "n": 2 } }] });
    assert_eq!(replay(&service, &edited).0, 202);
    let record = replayed(&service);
    assert_eq!(record["outcome"], "failed", "{record}");
    service.until_phase("ended");
    assert_eq!(letters(&service, "").len(), 1);

    service.write("shop", &text("nothing"));
    service.until("held", |_| service.outcomes().len() == 2);
    service.until_phase("ended");
    assert_eq!(replay(&service, &edited).0, 202);
    assert_eq!(replayed(&service)["outcome"], "done");
    service.until_phase("ended");
    assert_eq!(output(service.folder.path(), "kept").len(), 2);
}

/// What became of a letter is known when its file comes back.
#[test]
fn a_letter_is_not_replayed_twice_when_its_file_comes_back() {
    let expected = Expected::new();
    let of = |text: String, letters: &str| {
        text.replace("rate = 2000", "rate = 20000")
            .replace("../dead.jsonl", letters)
    };
    let service = start(&of(expected.bad("reject"), "../dead.jsonl"));
    service.until_phase("ended");
    let change = |number: usize, letters: &str| {
        service.write("shop", &of(shop(GOOD), letters));
        service.until("held", |_| service.outcomes().len() == number);
        service.until_phase("ended");
    };
    change(2, "../dead.jsonl");
    let all = json!({ "matching": { "node": "guarded" } });
    assert_eq!(replay(&service, &all).0, 202);
    assert_eq!(replayed(&service)["outcome"], "done");
    service.until_phase("ended");

    // Another file has another letter, of which something becomes.
    let text = fs::read_to_string(service.path("dead.jsonl")).expect("letters");
    let line = text
        .lines()
        .find(|line| line.contains("\"guarded\""))
        .expect("one");
    let other = line.replace("\"kind\":\"reject\"", "\"kind\":\"trap\"");
    fs::write(service.path("other.jsonl"), format!("{other}\n")).expect("writable");
    change(3, "../other.jsonl");
    let found = letters(&service, "");
    assert_eq!(found.len(), 1, "{found:?}");
    let dropped = json!({ "letters": [found[0]["id"]] }).to_string();
    assert_eq!(
        service.ask("POST", &format!("{PATH}/drop"), &dropped).0,
        204
    );

    change(4, "../dead.jsonl");
    assert!(letters(&service, "node=guarded").is_empty());
    let (status, answer) = replay(&service, &all);
    assert_eq!(status, 422, "all were replayed: {answer}");
    assert_eq!(output(service.folder.path(), "guarded"), expected.guarded);
}

/// What is not said clearly selects no letter.
#[test]
fn nothing_but_an_object_selects_letters() {
    let expected = Expected::new();
    let service = start(
        &expected
            .bad("reject")
            .replace("rate = 2000", "rate = 20000"),
    );
    service.until_phase("ended");
    let id = &letters(&service, "node=guarded&limit=1")[0]["id"];
    for (verb, body) in [
        ("dead-letters/replay", json!([[], {}])),
        ("dead-letters/replay", json!([null, [null, null]])),
        (
            "dead-letters/replay",
            json!({ "letters": [], "matching": [null, null] }),
        ),
        ("dead-letters/replay", json!({ "matching": [null, null] })),
        ("dead-letters/replay", json!({ "matching": [] })),
        (
            "dead-letters/replay",
            json!({ "letters": [[id, { "id": "a", "n": 1 }]] }),
        ),
        ("dead-letters/replay", json!({ "letters": [] })),
        (
            "dead-letters/replay",
            json!({ "letters": [], "matching": {} }),
        ),
        (
            "dead-letters/replay",
            json!({ "letters": null, "matching": {} }),
        ),
        (
            "dead-letters/replay",
            json!({ "letters": [{ "id": id }], "matching": {} }),
        ),
        ("dead-letters/replay", json!({ "matching": null })),
        ("dead-letters/replay", json!(null)),
        ("dead-letters/drop", json!([[id]])),
        ("dead-letters/drop", json!({ "letters": [] })),
        ("dead-letters/drop", json!({ "letters": [[id]] })),
        ("start", json!([[], null])),
        ("savepoints", json!(["before"])),
    ] {
        let path = format!("/api/v1/pipelines/shop/{verb}");
        let (status, answer) = service.ask("POST", &path, &body.to_string());
        let code = &answer["code"];
        assert_eq!(
            (status, code),
            (400, &json!("bad_request")),
            "{verb} {body}: {answer}"
        );
    }
    let row = json!({ "id": "b", "n": 2, "iid": "c" });
    let edited = json!({ "letters": [{ "id": id, "row": row }] });
    let (status, answer) = replay(&service, &edited);
    let why = answer["detail"].as_str().unwrap_or_default();
    assert!(
        status == 422 && why.contains("`iid`: did you mean `id`"),
        "{answer}"
    );
    assert_eq!(service.get("/api/v1/pipelines/shop/replays"), json!([]));
    assert!(letters(&service, "status=dropped").is_empty());
}

/// A request to replay is not forgotten over another one.
#[test]
fn a_pause_does_not_keep_a_replay_from_its_end() {
    let expected = Expected::new();
    let service = start(&expected.bad("reject"));
    service.until_read(1_000);
    until_held(&service, 1);
    service.write("shop", &shop(GOOD));
    until_held(&service, 2);
    let all = json!({ "matching": { "node": "guarded" } });
    assert_eq!(replay(&service, &all).0, 202);
    for verb in ["pause", "start"] {
        let (status, answer) = service.ask("POST", &format!("/api/v1/pipelines/shop/{verb}"), "");
        assert!(status < 300, "{answer}");
    }
    assert_eq!(replayed(&service)["outcome"], "done");
    service.until_phase("ended");
    expected.check(service.folder.path());
}

/// A change that is on probation, and gets no row, does not keep a replay from its end, though
/// the service is ended between.
#[test]
fn a_replay_waits_for_no_row_after_the_service_has_ended() {
    let text = |parameters: &str| {
        format!(
            r#"name = "shop"
            dead_letters = "../dead.jsonl"
            plugins.hostile.path = "../plugins/hostile.wasm"
            [checkpoints]
            interval = "100ms"
            [sources.lines]
            type = "file"
            path = "../lines.jsonl"
            follow = true
            format = "json"
            fields = {{ id = "utf8", n = "int64" }}
            [operators.guarded]
            plugin = "hostile.misbehave"
            parameters = {{ {parameters} }}
            input = "lines"
            [sinks.out]
            type = "file"
            path = "../guarded.out"
            format = "json"
            input = "guarded"
            "#
        )
    };
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let mut service = start(&text("mode = \"reject\", at = \"a\""));
        until_held(&service, 1);
        service.until("letters", |_| letters(&service, "node=guarded").len() == 1);
        service.write("shop", &text(GOOD));
        service.until_phase("probation");
        let all = json!({ "matching": { "node": "guarded" } });
        assert_eq!(replay(&service, &all).0, 202);
        service.end(signal);
        service.begin();
        assert_eq!(replayed(&service)["outcome"], "done");
        until_held(&service, 2);
        service.end(libc::SIGTERM);
        let rows = fs::read_to_string(service.path("guarded.out.part")).expect("it has begun");
        assert_eq!(rows.lines().count(), 1, "{rows}");
    }
}

/// Letters that came after the last checkpoint come again after a kill, when a replay of them
/// may have been asked for.
#[test]
fn a_kill_right_after_the_request_repeats_no_row() {
    let expected = Expected::new();
    let text = expected
        .bad("reject")
        .replace("interval = \"100ms\"", "interval = \"3s\"");
    let mut service = start(&text);
    service.until_read(1_000);
    for _ in 0..3 {
        service.until("letters", |_| !letters(&service, "node=guarded").is_empty());
        let open = letters(&service, "node=guarded&limit=10");
        let rows = open.iter().map(|letter| {
            let row = json!({ "id": format!("edited {}", letter["offset"]), "n": 1 });
            json!({ "id": letter["id"], "row": row })
        });
        let rows: Vec<Value> = rows.collect();
        assert_eq!(replay(&service, &json!({ "letters": rows })).0, 202);
        service.end(libc::SIGKILL);
        service.begin();
        // It is done, or cannot be since some have not come again.
        replayed(&service);
    }
    service.until_phase("ended");
    let replayed = letters(&service, "node=guarded&status=replayed&limit=1000");
    let mut edited: Vec<String> = output(service.folder.path(), "guarded")
        .into_iter()
        .filter(|row| row.contains("edited"))
        .collect();
    let rows = edited.len();
    edited.dedup();
    assert_eq!((edited.len(), replayed.len()), (rows, rows), "{edited:?}");
}

/// Pages have all letters, the newest first.
#[test]
fn letters_come_in_pages() {
    let expected = Expected::new();
    let service = start(&expected.bad("reject"));
    service.until_phase("ended");
    let all = letters(&service, "limit=1000&node=guarded");
    let mut paged: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("{PATH}?node=guarded&limit=7{cursor}"));
        assert_eq!(answer["count"], all.len());
        paged.extend(answer["letters"].as_array().expect("letters").clone());
        match answer["next"].as_u64() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(all.len() > 14);
    assert_eq!(paged, all);
    assert_eq!(service.ask("GET", &format!("{PATH}?limit=0"), "").0, 400);
    assert_eq!(
        service
            .ask("GET", &format!("{PATH}?kind=late&nodes=x"), "")
            .0,
        400
    );
    assert!(letters(&service, "kind=trap").is_empty());
}

#[test]
fn replays_lose_and_repeat_no_row_through_kills() {
    let expected = Expected::new();
    let seeds = std::env::var("SLUICEBOX_SEEDS")
        .ok()
        .and_then(|it| it.parse().ok());
    for seed in 0..seeds.unwrap_or(4_u64) {
        let mut service = start(&expected.bad("reject"));
        service.until_read(1_000);
        until_held(&service, 1);
        service.write("shop", &shop(GOOD));
        until_held(&service, 2);
        let (status, answer) = replay(&service, &json!({ "matching": { "node": "guarded" } }));
        assert_eq!(status, 202, "{answer}");
        for kill in 0..3 {
            // At other times with other seeds.
            let after = (seed * 7_919 + kill * 104_729) % 700;
            std::thread::sleep(Duration::from_millis(after));
            service.end(libc::SIGKILL);
            service.begin();
        }
        assert_eq!(replayed(&service)["outcome"], "done", "seed {seed}");
        service.until_phase("ended");
        eprintln!("seed {seed}: {} letters", answer["letters"]);
        expected.check(service.folder.path());
    }
}
