//! Steers a running service from the command line, as its operators do.

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
use std::fs;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use service::{GOOD, Service, WAIT, shop_with};

const ROWS: u64 = 15_000;

/// A pipeline whose rows go through a plugin with these parameters, and are counted by `key`.
/// A second source has lines that are no rows.
fn shop(parameters: &str, key: &str) -> String {
    format!(
        r#"{}
        [sources.lines]
        type = "file"
        path = "../lines.jsonl"
        format = "json"
        fields = {{ id = "utf8", n = "int64" }}
        [operators.counted]
        aggregate = {{ rows = "count()", total = "sum(n)" }}
        key = "{key}"
        window = "running"
        input = "guarded"
        [sinks.counts]
        type = "file"
        path = "../counts.jsonl"
        format = "json"
        input = "counted"
        [sinks.read]
        type = "file"
        path = "../read.jsonl"
        format = "json"
        input = "lines"
        "#,
        shop_with("rate = 1000", &format!("parameters = {{ {parameters} }}"))
    )
}

const LINES: &str =
    "{\"id\":\"a\",\"n\":1}\n{\"id\":\"b\",\"n\":\"two\"}\n{\"id\":\"c\"}\n{\"id\":\"d\"}\n";

/// That pipeline with so many rows.
fn ending() -> String {
    shop(GOOD, "id").replace("rate = 1000\n", &format!("rate = 1000\ncount = {ROWS}\n"))
}

/// A service with this pipeline, which has run for a while.
fn started(text: &str) -> Service {
    let service = Service::start(&[]);
    fs::write(service.path("lines.jsonl"), LINES).expect("writable");
    service.write("shop", text);
    service.until_seen();
    service.until_read(300);
    service
}

fn run(service: &Service, arguments: &[&str]) -> Output {
    let host = format!("http://{}", service.address());
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(arguments)
        .current_dir(service.folder.path())
        .env("SLUICEBOX_HOST", host)
        .output()
        .expect("it runs")
}

/// What a command prints that must succeed.
fn told(service: &Service, arguments: &[&str]) -> String {
    let output = run(service, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(service: &Service, arguments: &[&str]) -> Value {
    let text = told(service, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// What a command prints, with its error, that must end with this exit code.
fn refused(service: &Service, code: i32, arguments: &[&str]) -> String {
    let output = run(service, arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn pipelines_are_listed_shown_paused_and_started() {
    let service = started(&shop(GOOD, "id"));
    has(
        &told(&service, &["pipelines", "list"]),
        &["shop", "running"],
    );
    let list = json(&service, &["pipelines", "list"]);
    assert_eq!(list[0]["name"], "shop");
    assert_eq!(list[0]["bad_rows"], 3, "lines that are no such rows");
    let is_long_ago = list[0]["behind_ms"].as_i64() > Some(0);
    assert!(is_long_ago, "rows of 2024: {list}");
    // Whoever looks early sees no load yet.
    service.until("looked at", |shop| {
        shop["revision"]["nodes"][3]["load"]["idle"].is_number()
    });
    has(
        &told(&service, &["pipelines", "show", "shop"]),
        &[
            "the watermark of actions is that of its partition ",
            "in/s",
            "busy",
            "behind",
            "guarded",
            "shop.toml",
            "checkpoint ",
        ],
    );
    assert_eq!(
        json(&service, &["pipelines", "show", "shop"])["revision"]["nodes"][3]["name"],
        "guarded"
    );
    has(
        &told(&service, &["pipelines", "pause", "shop"]),
        &["shop is paused"],
    );
    assert_eq!(service.shop()["phase"], "paused");
    let stopped = told(&service, &["pipelines", "show", "shop"]);
    assert!(
        stopped.contains("paused") && !stopped.contains('%'),
        "{stopped}"
    );
    has(
        &told(&service, &["pipelines", "start", "shop"]),
        &["running"],
    );
    has(
        &refused(&service, 2, &["pipelines", "show", "shpo"]),
        &["there is no pipeline `shpo`", "did you mean `shop`?"],
    );
    let at = ["--host", "127.0.0.1:1"];
    has(
        &refused(&service, 1, &[&["pipelines", "list"][..], &at].concat()),
        &[
            "no host answers at http://127.0.0.1:1/",
            "sluicebox serve",
            "SLUICEBOX_HOST",
        ],
    );
    told(&service, &["pipelines", "delete", "shop"]);
    let began = Instant::now();
    while !told(&service, &["pipelines", "list"]).contains("no pipelines") {
        assert!(began.elapsed() < WAIT, "it never goes");
    }
}

#[test]
fn a_pipeline_that_waits_for_a_restart_is_listed_as_such() {
    let text = shop("mode = \"loop\"", "id").replace(
        "parameters =",
        "limits = { time = \"200ms\" }\non_error = \"fail\"\nparameters =",
    );
    let service = Service::start(&[]);
    fs::write(service.path("lines.jsonl"), LINES).expect("writable");
    service.write("shop", &format!("{text}\n[restart]\ndelay = \"1m\"\n"));
    service.until_seen();
    service.until_phase("restarting");
    let list = told(&service, &["pipelines", "list"]);
    has(
        &list,
        &["restarting", "failed (1 of ", " times), and restarts in "],
    );
    has(
        &told(&service, &["pipelines", "show", "shop"]),
        &[
            "shop: restarting for ",
            "times), and restarts in ",
            "operator `guarded`",
            "restarts 1 since the host was started",
        ],
    );
}

#[test]
fn a_change_is_planned_put_and_told() {
    let service = started(&shop(GOOD, "id"));
    let file = |text: &str| fs::write(service.path("new.toml"), text).expect("writable");
    let changes = || told(&service, &["changes", "shop"]);
    file(&shop(GOOD, "id"));
    has(
        &told(&service, &["plan", "new.toml"]),
        &["unchanged", "no node is another"],
    );
    file(&shop("mode = \"log\", amount = 0", "id"));
    has(
        &told(&service, &["plan", "new.toml"]),
        &["guarded", "changed", "kept", "takes over in place"],
    );
    assert_eq!(json(&service, &["plan", "new.toml"])["in_place"], true);
    assert!(!changes().contains("in place"), "a plan changes nothing");
    has(
        &told(&service, &["pipelines", "put", "new.toml"]),
        &["in place", "changes shop"],
    );
    let began = Instant::now();
    while changes().matches("held").count() < 2 {
        assert!(began.elapsed() < WAIT, "it never holds: {}", changes());
    }
    has(&changes(), &["guarded changed", " ms", "in place"]);
    let newest = service.shop()["changes"][1]["digest"].clone();
    let newest = &newest.as_str().expect("a digest")[..15];
    has(
        &told(&service, &["changes", "shop", "--diff", newest]),
        &[
            "@@",
            "-        parameters = ",
            "+        parameters = ",
            "amount = 0",
        ],
    );
    refused(
        &service,
        2,
        &["changes", "shop", "--diff", "sha256:nothing"],
    );

    // Another key: the state would get lost.
    file(&shop(GOOD, "n"));
    has(
        &refused(&service, 2, &["plan", "new.toml"]),
        &[
            "incompatible",
            "operator `counted` cannot keep its state",
            "it would not take over",
        ],
    );
    has(
        &refused(&service, 2, &["pipelines", "put", "new.toml"]),
        &["operator `counted` cannot keep its state", "drop"],
    );
    let agreed = ["--drop", "counted"];
    has(
        &told(&service, &[&["plan", "new.toml"][..], &agreed].concat()),
        &["dropped"],
    );
    let before = service.shop()["revision"]["digest"].clone();
    told(
        &service,
        &[&["pipelines", "put", "new.toml"][..], &agreed].concat(),
    );
    service.until("held", |shop| {
        shop["phase"] == "running" && shop["revision"]["digest"] != before
    });
    has(&changes(), &["state dropped"]);
    assert!(!service.outcomes().contains(&"refused".to_owned()));
    let text = fs::read_to_string(service.path("pipelines/shop.toml")).expect("there");
    assert_eq!(text, shop(GOOD, "n"));

    file("name = \"shop\"\nsources = 3");
    has(
        &refused(&service, 2, &["plan", "new.toml"]),
        &["must be a table", ":2"],
    );
}

#[test]
fn a_pipeline_goes_back_to_a_savepoint() {
    let mut service = started(&ending());
    let saved = told(&service, &["pipelines", "savepoint", "shop", "early"]);
    has(&saved, &["is saved as early"]);
    told(&service, &["pipelines", "savepoint", "shop", "spare"]);
    let read = |shop: &Value| shop["revision"]["nodes"][0]["rows_in"].as_u64();
    let then = read(&service.shop()).expect("a count");
    service.until_read(then + 1_000);
    has(
        &told(&service, &["pipelines", "checkpoints", "shop"]),
        &["early", "spare", "now", "ago"],
    );
    let delete = ["pipelines", "savepoint", "shop", "spare", "--delete"];
    has(&told(&service, &delete), &["spare of shop is deleted"]);
    has(
        &refused(&service, 2, &delete),
        &["there is no savepoint `spare`", "early"],
    );
    has(
        &refused(
            &service,
            2,
            &["pipelines", "start", "shop", "--from", "erly"],
        ),
        &["there is no checkpoint `erly`", "did you mean `early`?"],
    );
    // Also when it has not run since the service was started.
    told(&service, &["pipelines", "pause", "shop"]);
    assert!(service.end(libc::SIGTERM).success());
    service.begin();
    has(
        &told(&service, &["pipelines", "checkpoints", "shop"]),
        &["early"],
    );
    let back = ["pipelines", "start", "shop", "--from", "early"];
    has(&told(&service, &back), &["running"]);
    let shop = service.until_phase("ended");
    let again = read(&shop);
    assert!(
        again >= Some(ROWS - then),
        "only {again:?} rows were read again, from {then} on"
    );
    let counts = fs::read_to_string(service.path("counts.jsonl")).expect("it is complete");
    let last: BTreeMap<String, u64> = counts
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("a row");
            (
                row["id"].to_string(),
                row["rows"].as_u64().expect("a count"),
            )
        })
        .collect();
    assert_eq!(last.values().sum::<u64>(), ROWS, "{last:?}");

    // The checkpoint has another key.
    service.write("shop", &ending().replace("key = \"id\"", "key = \"n\""));
    service.until("refused", |shop| shop["refusal"].is_string());
    has(
        &refused(&service, 2, &back),
        &["checkpoint ", "operator `counted` cannot keep its state"],
    );
}

#[test]
fn state_rows_and_dead_letters_are_shown() {
    let mut service = started(&shop(GOOD, "id"));
    let all = told(&service, &["state", "shop", "counted", "--limit", "5"]);
    has(
        &all,
        &["window", "{\"id\":\"user-0000", "\"count()\":", "--cursor "],
    );
    let key = json(&service, &["state", "shop", "counted"])["entries"][0]["key"].to_string();
    let one = json(&service, &["state", "shop", "counted", "--key", &key]);
    assert_eq!(one["entries"].as_array().map(Vec::len), Some(1), "{one}");
    has(
        &refused(&service, 2, &["state", "shop", "counted", "--key", "{}"]),
        &["id: utf8"],
    );

    let rows = told(
        &service,
        &["tail", "shop", "guarded", "--count", "3", "--rate", "1000"],
    );
    assert_eq!(rows.lines().count(), 3, "{rows}");
    has(&rows, &["2024-01-01T10:", "\"id\":\"user-0000"]);
    let events = told(
        &service,
        &["tail", "shop", "guarded", "--count", "2", "--json"],
    );
    for event in events.lines() {
        let event: Value = serde_json::from_str(event).expect("JSON");
        assert!(["row", "left_out"].contains(&event["event"].as_str().expect("a name")));
    }
    has(
        &refused(&service, 2, &["tail", "shop", "gaurded"]),
        &["did you mean `guarded`?"],
    );

    let letters = told(&service, &["letters", "list", "shop"]);
    has(&letters, &["decode", "{\"id\":\"c\"}", "3 of 3"]);
    let list = json(&service, &["letters", "list", "shop", "--kind", "decode"]);
    let id = |at: usize| {
        list["letters"][at]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    told(&service, &["letters", "drop", "shop", &id(0)]);
    has(&told(&service, &["letters", "list", "shop"]), &["2 of 2"]);
    let row = r#"{"id":"c","n":12345678901234567}"#;
    let edited = ["letters", "replay", "shop", &id(1), "--row", row];
    has(
        &told(&service, &edited),
        &["replay 1: 1 letters", "all were read again"],
    );
    has(&told(&service, &["letters", "replays", "shop"]), &["done"]);
    has(
        &told(
            &service,
            &["letters", "list", "shop", "--status", "replayed"],
        ),
        &["1 of 1"],
    );
    has(&refused(&service, 1, &edited), &["is not open"]);
    has(
        &refused(&service, 2, &["letters", "replay", "shop"]),
        &["--all"],
    );
    told(&service, &["pipelines", "pause", "shop"]);
    let read = fs::read_to_string(service.path("read.jsonl.part")).expect("it is there");
    has(&read, &["12345678901234567"]);

    // A pipeline that stays paused has its letters after a restart, too.
    service.end(libc::SIGTERM);
    service.begin();
    service.until_phase("paused");
    has(&told(&service, &["letters", "list", "shop"]), &["1 of 1"]);
    let left = json(&service, &["letters", "list", "shop"]);
    let left = left["letters"][0]["id"].as_str().expect("an id");
    told(&service, &["letters", "drop", "shop", left]);
}

#[test]
fn nodes_that_wait_for_others_are_shown_with_the_cause() {
    let service = Service::start(&[]);
    let pipe = service.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    // Somebody has it open, and reads nothing.
    let reader = fs::File::options().read(true).write(true).open(&pipe);
    let _reader = reader.expect("it is there");
    service.write(
        "full",
        r#"
        name = "full"
        parallelism = 2
        [sources.actions]
        type = "generator"
        [operators.counted]
        aggregate = { rows = "count()" }
        key = "user_id"
        window = "running"
        input = "actions"
        [sinks.out]
        type = "file"
        path = "../pipe"
        format = "json"
        input = "counted"
        "#,
    );
    let began = Instant::now();
    loop {
        let shown = run(&service, &["pipelines", "show", "full"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        // Which of them depends on where the rows have come to.
        if shown.contains("transient so far") && shown.contains("sink") {
            has(&shown, &["hold", "actions", "idle"]);
            break;
        }
        assert!(began.elapsed() < WAIT, "{shown}");
    }
}
