//! Plugins that a service keeps: uploaded, named by pipelines, shown, and deleted when nothing
//! needs them. And who has asked for a change.

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

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};

use service::{Service, WAIT};

/// A pipeline whose rows go through the plugin that `hostile` says, and are counted by user.
fn shop(hostile: &str, parameters: &str, key: &str) -> String {
    format!(
        r#"
        name = "shop"
        dead_letters = "../dead.jsonl"
        [plugins.hostile]
        {hostile}
        [checkpoints]
        interval = "100ms"
        [sources.actions]
        type = "generator"
        seed = 3
        users = 50
        rate = 1000
        [operators.rows]
        select = {{ id = "user_id", n = "quantity" }}
        input = "actions"
        [operators.guarded]
        plugin = "hostile.misbehave"
        parameters = {{ {parameters} }}
        input = "rows"
        [operators.counted]
        aggregate = {{ rows = "count()" }}
        key = "{key}"
        window = "running"
        input = "guarded"
        [sinks.counts]
        type = "blackhole"
        input = "counted"
        "#
    )
}

const GOOD: &str = "mode = \"nothing\"";

fn version(version: &str) -> String {
    shop(
        &format!("name = \"hostile\"\nversion = \"{version}\""),
        GOOD,
        "id",
    )
}

/// The plugin as it was built, which has this version.
fn built() -> (Vec<u8>, String) {
    let bytes = fs::read(common::plugin_file("hostile")).expect("it is built");
    (bytes, env!("CARGO_PKG_VERSION").to_owned())
}

/// The plugin as if it had been built with another version.
fn next() -> (Vec<u8>, String) {
    let (mut bytes, version) = built();
    let next = format!("{}9", &version[..version.len() - 1]);
    assert_ne!(next, version);
    let places: Vec<usize> = bytes
        .windows(version.len())
        .enumerate()
        .filter(|(_, found)| *found == version.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "it says its version");
    for at in places {
        bytes[at..at + version.len()].copy_from_slice(next.as_bytes());
    }
    (bytes, next)
}

/// The same with a section for people: other bytes, and the same version.
fn noted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(b"\0\x05\x04note");
    bytes
}

fn started(text: &str, arguments: &[&str]) -> Service {
    let arguments = [&["--rate", "1000000"], arguments].concat();
    let service = Service::start_with(&[("shop", text)], &arguments, Client::new());
    let began = Instant::now();
    while service.ask("GET", "/api/v1/pipelines/shop", "").0 == 404 {
        assert!(began.elapsed() < WAIT, "the file is never seen");
    }
    service
}

fn digest_of(service: &Service, version: &str) -> String {
    let list = service.get("/api/v1/plugins");
    let list = list.as_array().expect("a list").iter();
    let mut digests = list
        .filter(|it| it["version"] == version)
        .map(|it| &it["digest"]);
    let digest = digests.next().and_then(Value::as_str);
    digest.expect("it was uploaded").to_owned()
}

/// Waits until this holds of a plugin.
fn until_plugin(service: &Service, digest: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let plugin = service.get(&format!("/api/v1/plugins/{digest}"));
        if holds(&plugin) {
            return plugin;
        }
        assert!(began.elapsed() < WAIT, "never: {plugin:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn delete(service: &Service, digest: &str) -> (u16, Value) {
    service.ask("DELETE", &format!("/api/v1/plugins/{digest}"), "")
}

fn run(folder: &Path, address: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(arguments)
        .current_dir(folder)
        .env("SLUICEBOX_HOST", format!("http://{address}"))
        .output()
        .expect("it runs")
}

/// What a command prints that ends with this exit code, on both streams.
fn told(service: &Service, code: i32, arguments: &[&str]) -> String {
    let output = run(service.folder.path(), service.address(), arguments);
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
fn a_pipeline_runs_the_version_that_it_names_until_its_file_names_another() {
    let (first, first_version) = built();
    let (second, second_version) = next();
    let mut service = started(&version(&first_version), &[]);
    let refused = service.until_phase("refused");
    has(
        refused["refusal"].as_str().expect("a reason"),
        &[
            "the service has no plugin `hostile`",
            "sluicebox plugins put FILE",
        ],
    );

    // It begins when the plugin is there.
    let (status, added) = service.upload(&first);
    assert_eq!(status, 201, "{added}");
    assert_eq!(added["name"], "hostile", "{added}");
    assert_eq!(added["version"], first_version, "{added}");
    assert_eq!(added["uploaded_by"], "http", "{added}");
    service.until("held", |shop| {
        shop["phase"] == "running" && shop["changes"][1]["outcome"] == "held"
    });
    assert_eq!(service.upload(&first).0, 200);
    let (status, problem) = service.upload(&noted(first.clone()));
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    has(
        &problem["detail"].to_string(),
        &["another one in its Cargo.toml"],
    );
    for (junk, why) in [
        (&b""[..], "is empty"),
        (b"junk", "is not a Wasm component"),
        (&first[..first.len() / 2], "is cut short"),
    ] {
        let (status, problem) = service.upload(junk);
        assert_eq!((status, &problem["code"]), (422, &json!("refused")));
        has(
            &problem["detail"].to_string(),
            &["plugin of the request", why],
        );
    }
    assert_eq!(service.upload(&vec![0; (64 << 20) + 1]).0, 413);

    let digest = digest_of(&service, &first_version);
    assert_eq!(added["digest"], digest);
    let all = json!(["wanted", "running", "held"]);
    let one = until_plugin(&service, &digest, |one| one["needed_by"][0]["uses"] == all);
    assert_eq!(one["needed_by"][0]["pipeline"], "shop", "{one}");
    let operators = one["operators"].as_array().expect("operators").iter();
    let mut names = operators.map(|operator| &operator["name"]);
    assert!(names.any(|name| name == "misbehave"), "{one}");
    let (status, problem) = delete(&service, &digest);
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    has(
        &problem["detail"].to_string(),
        &["is needed by shop (in its file, running"],
    );
    assert_eq!(delete(&service, "sha256:0").0, 404);

    // An upload changes no pipeline.
    assert_eq!(service.upload(&second).0, 201);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(service.outcomes(), ["refused", "held"]);
    let (status, _) = service.ask(
        "POST",
        "/api/v1/pipelines/shop/savepoints",
        "{\"name\": \"before\"}",
    );
    assert_eq!(status, 201);
    service.write("shop", &version(&second_version));
    let shop = service.until("held", |shop| shop["changes"][2]["outcome"] == "held");
    assert_eq!(shop["changes"][2]["in_place"], true, "{shop:#}");
    assert_eq!(shop["changes"][2]["plan"]["nodes"][3]["state"], "kept");

    // The savepoint could be gone back to with the version before.
    let one = until_plugin(&service, &digest, |one| {
        one["needed_by"][0]["uses"] == json!([])
    });
    let checkpoints = one["needed_by"][0]["checkpoints"].as_array();
    assert!(checkpoints.is_some_and(|them| !them.is_empty()), "{one}");
    assert_eq!(delete(&service, &digest).0, 409);

    // All of it is there after a crash.
    let before = service.get("/api/v1/plugins");
    service.end(libc::SIGKILL);
    service.begin();
    service.until_phase("running");
    let after = service.get("/api/v1/plugins");
    for (then, now) in [0, 1].map(|at| (&before[at], &after[at])) {
        for key in [
            "name",
            "version",
            "digest",
            "bytes",
            "uploaded_ms",
            "uploaded_by",
        ] {
            assert_eq!(then[key], now[key], "{key}");
        }
    }
    assert_eq!(service.outcomes(), ["refused", "held", "held"]);

    let text = service
        .ask("GET", "/api/v1/pipelines/shop/checkpoints", "")
        .1;
    let saved = text.as_array().expect("a list").iter();
    let mut saved = saved.filter(|made| made["name"] == "before");
    let saved = saved.next().expect("it is kept")["id"].to_string();
    let out = run(
        service.folder.path(),
        service.address(),
        &["checkpoints", "delete", "pipelines/shop.toml", &saved],
    );
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let began = Instant::now();
    while delete(&service, &digest).0 != 204 {
        assert!(began.elapsed() < WAIT, "something needs it for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    let file = format!("data/plugins/{}.wasm", digest.replace(':', "-"));
    assert!(!service.path(&file).exists(), "nothing needs its bytes");
    assert_eq!(service.shop()["phase"], "running");

    // By digest, which is the same plugin.
    let digest = digest_of(&service, &second_version);
    service.write("shop", &shop_of_digest(&digest));
    service.until("held", |shop| shop["changes"][3]["outcome"] == "held");
    assert_eq!(delete(&service, &digest).0, 409);
    service.write("shop", &version("7.0.0"));
    let refused = service.until("refused", |shop| shop["refusal"].is_string());
    has(
        refused["refusal"].as_str().expect("a reason"),
        &["no version `7.0.0` of `hostile`", &second_version],
    );
    assert_eq!(refused["phase"], "running");
}

fn shop_of_digest(digest: &str) -> String {
    shop(&format!("digest = \"{digest}\""), GOOD, "id")
}

/// An upload is there as a whole or not at all, whenever the service is killed.
#[test]
fn a_killed_upload_leaves_nothing_or_a_whole_plugin() {
    let (plugin, version) = built();
    let mut service = started(&self::version(&version), &[]);
    let mut came = 0;
    for round in 0..8 {
        let address = service.address().to_owned();
        let body = plugin.clone();
        let sending = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(&address).expect("it listens");
            let head = format!(
                "POST /api/v1/plugins HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            // It may be gone.
            let _ = stream.write_all(head.as_bytes());
            for part in body.chunks(body.len() / 20) {
                std::thread::sleep(Duration::from_millis(2));
                let _ = stream.write_all(part);
            }
            std::thread::sleep(Duration::from_secs(2));
        });
        std::thread::sleep(Duration::from_millis(round * 60));
        service.end(libc::SIGKILL);
        sending.join().expect("it has sent what it could");
        service.begin();
        let list = service.get("/api/v1/plugins");
        let Some(there) = list.get(0) else {
            continue;
        };
        came += 1;
        let digest = there["digest"].as_str().expect("a digest");
        service.get(&format!("/api/v1/plugins/{digest}"));
        service.until_phase("running");
        let record = format!("data/uploads/{}.json", digest.replace(':', "-"));
        service.end(libc::SIGTERM);
        fs::remove_file(service.path(&record)).expect("it is there");
        service.begin();
    }
    let kept = fs::read_dir(service.path("data/uploads")).expect("a folder");
    let left: Vec<_> = kept.map(|it| it.expect("readable").file_name()).collect();
    assert!(left.len() <= 1, "{left:?}");
    println!("{came} of 8 uploads came before the end");
}

#[test]
fn the_history_of_changes_says_who() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.toml");
    let made = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["token", "new", "--name", "ann", "--role", "admin", "--file"])
        .arg(&tokens)
        .output()
        .expect("it runs");
    let token = String::from_utf8(made.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned();
    let headers: HeaderMap = [(
        AUTHORIZATION,
        format!("Bearer {token}").parse().expect("a header"),
    )]
    .into_iter()
    .collect();
    let ann = Client::builder()
        .default_headers(headers)
        .build()
        .expect("it is built");
    let path = "path = \"../plugins/hostile.wasm\"";
    let with = |parameters: &str, key: &str| shop(path, parameters, key);
    let arguments = [
        "--rate",
        "1000000",
        "--tokens",
        tokens.to_str().expect("UTF-8"),
    ];
    let service = Service::start_with(&[("shop", &with(GOOD, "id"))], &arguments, ann);
    let by = |outcomes: &[(&str, &str)]| {
        let shop = service.until("so", |shop| {
            let changes = shop["changes"].as_array().expect("changes").iter();
            let outcomes = outcomes.iter().map(|(outcome, _)| *outcome);
            changes.map(|change| &change["outcome"]).eq(outcomes)
        });
        let changes = shop["changes"].as_array().expect("changes").iter();
        let by: Vec<&Value> = changes.map(|change| &change["by"]).collect();
        let expected: Vec<&str> = outcomes.iter().map(|(_, by)| *by).collect();
        assert_eq!(by, expected, "{shop:#}");
    };
    by(&[("held", "files")]);
    let put = |query: &str, text: &str| {
        let path = format!("/api/v1/pipelines/shop{query}");
        let (status, answer) = service.ask("PUT", &path, text);
        assert_eq!(status, 202, "{answer}");
    };
    put("", &with("mode = \"nothing\", amount = 1", "id"));
    by(&[("held", "files"), ("held", "ann")]);
    service.write("shop", &with("mode = \"panic\"", "id"));
    by(&[("held", "files"), ("held", "ann"), ("taken_back", "files")]);
    // Who wants it nevertheless.
    let (status, _) = service.ask("POST", "/api/v1/pipelines/shop/start", "");
    assert_eq!(status, 202);
    let so_far = [
        ("held", "files"),
        ("held", "ann"),
        ("taken_back", "files"),
        ("taken_back", "ann"),
    ];
    by(&so_far);
    put(
        "?drop=counted",
        &with("mode = \"nothing\", amount = 2", "n"),
    );
    by(&[&so_far[..], &[("held", "ann")]].concat());
    service.write("shop", &with(GOOD, "id"));
    by(&[&so_far[..], &[("held", "ann"), ("refused", "files")]].concat());
    let host = format!("http://{}", service.address());
    let shown = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["changes", "shop", "--host", &host])
        .env("SLUICEBOX_TOKEN", &token)
        .output()
        .expect("it runs");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    let by_ann = shown
        .lines()
        .filter(|line| line.contains("  ann  "))
        .count();
    assert_eq!(by_ann, 3, "{shown}");

    let (plugin, _) = built();
    let (status, added) = service.upload(&plugin);
    assert_eq!((status, &added["uploaded_by"]), (201, &json!("ann")));
}

#[test]
fn plugins_are_put_listed_shown_and_deleted_from_the_command_line() {
    let (plugin, version) = built();
    let service = started(&self::version(&version), &[]);
    fs::write(service.path("new.wasm"), &plugin).expect("writable");
    has(&told(&service, 0, &["plugins", "list"]), &["no plugins"]);
    let put = told(&service, 0, &["plugins", "put", "new.wasm"]);
    let named = format!("{{ name = \"hostile\", version = \"{version}\" }}");
    has(&put, &[&format!("hostile {version}"), &named, "sha256:"]);
    let began = Instant::now();
    while !told(&service, 0, &["plugins", "list"]).contains("to go back to") {
        assert!(began.elapsed() < WAIT, "it never holds");
    }
    has(
        &told(&service, 0, &["plugins", "list"]),
        &[
            "hostile",
            &version,
            "http",
            "shop (in its file, running, to go back to",
        ],
    );
    let title = format!("hostile@{version}");
    has(
        &told(&service, 0, &["plugins", "show", &title]),
        &["misbehave", "parameters", "by http, needed by shop"],
    );
    let json = told(&service, 0, &["plugins", "list", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let digest = json[0]["digest"].as_str().expect("a digest");
    let shown = told(&service, 0, &["plugins", "show", &digest[..20], "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let inspected = told(&service, 0, &["inspect", "--json", "new.wasm"]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    for (key, value) in inspected.as_object().expect("an object") {
        assert_eq!(shown[key], *value, "{key}");
    }
    has(
        &told(&service, 1, &["plugins", "delete", &title]),
        &["is needed by shop"],
    );
    has(
        &told(&service, 2, &["plugins", "show", "hostil"]),
        &["there is no plugin `hostil`", &title],
    );
    fs::write(service.path("junk.wasm"), "junk").expect("writable");
    has(
        &told(&service, 2, &["plugins", "put", "junk.wasm"]),
        &["is not a Wasm component"],
    );
    has(
        &told(&service, 2, &["plugins", "put", "nothing.wasm"]),
        &["cannot read the plugin nothing.wasm"],
    );
    fs::write(service.path("other.wasm"), noted(plugin)).expect("writable");
    has(
        &told(&service, 1, &["plugins", "put", "other.wasm"]),
        &["with other bytes"],
    );
    told(&service, 0, &["pipelines", "delete", "shop"]);
    let began = Instant::now();
    while run(
        service.folder.path(),
        service.address(),
        &["plugins", "delete", "hostile"],
    )
    .status
    .code()
        != Some(0)
    {
        assert!(began.elapsed() < WAIT, "something needs it for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    has(&told(&service, 0, &["plugins", "list"]), &["no plugins"]);
}

#[test]
fn without_a_service_a_plugin_is_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = version("0.1.0").replace("rate = 1000", "count = 10");
    fs::write(folder.path().join("shop.toml"), text).expect("writable");
    for command in [&["run"][..], &["check"]] {
        let output = run(
            folder.path(),
            "127.0.0.1:1",
            &[command, &["shop.toml"]].concat(),
        );
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
        has(
            &text,
            &[
                "plugin `hostile` is one of a service",
                "name the plugin's .wasm file by `path` instead",
                "there is no service here",
            ],
        );
    }
}
