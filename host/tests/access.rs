//! Who may use a service: tokens with roles, TLS, limits.

/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// A certificate for this machine.
#[path = "common/certificate.rs"]
mod certificate;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName};
use reqwest::{Certificate, Client};
use serde_json::json;
use tempfile::TempDir;

use service::{Service, WAIT};

const PIPELINE: &str = r#"
    name = "shop"
    [sources.actions]
    type = "generator"
    rate = 100
    [operators.totals]
    aggregate = { rows = "count()" }
    key = "user_id"
    window = "running"
    input = "actions"
    [sinks.of_totals]
    type = "blackhole"
    input = "totals"
"#;

/// Runs `sluicebox token`, and returns what it prints.
fn token(file: &Path, arguments: &[&str]) -> Result<String, String> {
    let (command, rest) = arguments.split_first().expect("a command");
    let run = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["token", command, "--file"])
        .arg(file)
        .args(rest)
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match run.status.success() {
        true => Ok(text(&run.stdout)),
        false => Err(text(&run.stderr)),
    }
}

fn client(headers: &[(HeaderName, String)]) -> Client {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.parse().expect("a header")))
        .collect();
    let built = Client::builder().default_headers(headers).build();
    built.expect("it is built")
}

fn bearer(token: &str) -> Client {
    client(&[(AUTHORIZATION, format!("Bearer {token}"))])
}

/// A folder with a file of tokens, and two of them.
fn tokens() -> (TempDir, PathBuf, [String; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.toml");
    let new = |name: &str, role: &str| {
        token(&file, &["new", "--name", name, "--role", role]).expect("it is made")
    };
    let made = [new("dashboard", "read"), new("operator", "admin")];
    (folder, file, made)
}

#[test]
fn without_a_token_nothing_but_health_is_readable() {
    let (_folder, file, [read, admin]) = tokens();
    let text = fs::read_to_string(&file).expect("readable");
    assert!(!text.contains(&read) && !text.contains(&admin), "{text}");
    let arguments = ["--rate", "1000", "--tokens", file.to_str().expect("UTF-8")];
    let service = Service::start_with(&[("shop", PIPELINE)], &arguments, Client::new());
    let (by_reader, by_admin) = (bearer(&read), bearer(&admin));
    let ask = |client: &Client, method: &str, path: &str| service.ask_by(client, method, path, "");

    let (status, description) = ask(&by_reader, "GET", "/api/v1/openapi.json");
    assert_eq!(status, 200, "{description}");
    let text = description.to_string();
    assert!(!text.contains("\"parameters\":null"), "{text}");
    let paths = description["paths"].as_object().expect("paths");
    let described = paths.iter().flat_map(|(path, methods)| {
        let path = path.replace("{name}", "shop").replace("{node}", "totals");
        let path = path.replace("{digest}", "sha256:0");
        let path = path.replace("{savepoint}", "early");
        assert!(!path.contains('{'), "{path}");
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    let others = ["/", "/page/app.js", "/nothing", "/api/v1/openapi.json"];
    let others = others.map(|path| ("GET".to_owned(), path.to_owned()));
    for (method, path) in described.chain(others) {
        let (status, answer) = ask(&Client::new(), &method, &path);
        match path.as_str() {
            "/healthz" | "/readyz" => assert_eq!(status, 200, "{path}: {answer}"),
            _ => {
                assert_eq!(status, 401, "{method} {path}: {answer}");
                assert_eq!(answer["code"], "unauthorized", "{method} {path}");
            }
        }
        if method != "GET" {
            let (status, answer) = ask(&by_reader, &method, &path);
            assert_eq!(status, 403, "{method} {path}: {answer}");
        }
    }
    assert_eq!(ask(&by_reader, "GET", "/api/v1/pipelines/shop").0, 200);
    // Files may have passwords in them.
    let shop = ask(&by_admin, "GET", "/api/v1/pipelines/shop").1;
    let digest = shop["changes"][0]["digest"].clone();
    let digest = digest.as_str().expect("it has begun");
    let diff = format!("/api/v1/pipelines/shop/changes/{digest}/diff");
    for path in ["/api/v1/pipelines/shop/file", &diff] {
        let (status, answer) = ask(&by_reader, "GET", path);
        assert_eq!(status, 403, "{path}: {answer}");
        let (status, text) = ask(&by_admin, "GET", path);
        assert_eq!(status, 200, "{path}: {text}");
        assert!(
            text.as_str().expect("a text").contains("[sources."),
            "{path}: {text}"
        );
    }
    assert_eq!(ask(&by_reader, "GET", "/").0, 200);
    assert_eq!(
        ask(&by_admin, "POST", "/api/v1/pipelines/shop/pause").0,
        202
    );
    // As a browser sends what its user has typed, from a page of the host by any name.
    let password = |token: &str| {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(format!("me:{token}"))
    };
    let browser = client(&[
        (AUTHORIZATION, format!("Basic {}", password(&admin))),
        (HOST, "host.example".to_owned()),
    ]);
    assert_eq!(ask(&browser, "GET", "/api/v1/pipelines").0, 200);
    let foreign = client(&[
        (AUTHORIZATION, format!("Bearer {admin}")),
        (reqwest::header::ORIGIN, "http://evil.example".to_owned()),
    ]);
    assert_eq!(ask(&foreign, "POST", "/api/v1/pipelines/shop/start").0, 403);

    // A tail ends with its token.
    assert_eq!(
        ask(&by_admin, "POST", "/api/v1/pipelines/shop/start").0,
        202
    );
    let mut tail = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args([
            "tail",
            "shop",
            "totals",
            "--host",
            &format!("http://{}", service.address()),
        ])
        .env("SLUICEBOX_TOKEN", &admin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut rows = BufReader::new(tail.stdout.take().expect("it is piped")).lines();
    rows.next().expect("a row").expect("readable");
    token(&file, &["remove", "operator"]).expect("it is there");
    for row in rows {
        row.expect("readable");
    }
    let ended = tail.wait_with_output().expect("it is ours");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("its token is not valid any more"), "{told}");
    let began = Instant::now();
    while ask(&by_admin, "GET", "/api/v1/pipelines").0 != 401 {
        assert!(began.elapsed() < WAIT, "the token is never gone");
        std::thread::sleep(Duration::from_millis(100));
    }
    let guessing = bearer("sluicebox_guess");
    let refused = (0..60).map(|_| ask(&guessing, "GET", "/api/v1/pipelines").0);
    let refused: Vec<u16> = refused.collect();
    assert_eq!((refused[0], refused[59]), (401, 429), "{refused:?}");
    assert_eq!(ask(&by_reader, "GET", "/api/v1/pipelines").0, 200);
}

#[test]
fn tokens_are_made_listed_and_removed() {
    let (_folder, file, _) = tokens();
    let listed = token(&file, &["list"]).expect("it is there");
    assert_eq!(listed, "read   dashboard\nadmin  operator");
    let again = token(&file, &["new", "--name", "operator", "--role", "read"]);
    let error = again.expect_err("the name is taken");
    assert!(error.contains("has a token `operator`"), "{error}");
    let error = token(&file, &["new", "--name", "files", "--role", "read"]);
    let error = error.expect_err("the history says it of what no token has asked for");
    assert!(error.contains("take another name"), "{error}");
    let error = token(&file, &["remove", "nobody"]).expect_err("there is none");
    assert!(error.contains("no token `nobody`"), "{error}");
    token(&file, &["remove", "dashboard"]).expect("it is there");
    let serve = |arguments: &[&str]| {
        let service = tempfile::tempdir().expect("a folder");
        fs::create_dir(service.path().join("pipelines")).expect("writable");
        let run = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .arg("serve")
            .arg(service.path())
            .args(arguments)
            .output()
            .expect("it runs");
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    let error = serve(&["--listen", "0.0.0.0:0"]);
    assert!(error.contains("sluicebox token new"), "{error}");
    token(&file, &["remove", "operator"]).expect("it is there");
    let path = file.to_str().expect("UTF-8");
    let error = serve(&["--tokens", path]);
    assert!(error.contains("has no token"), "{error}");
    let error = serve(&["--tls-certificate", path, "--tls-key", path]);
    assert!(error.contains("tokens.toml: "), "{error}");
    let error = serve(&["--tls-key", path]);
    assert!(error.contains("--tls-certificate"), "{error}");
}

/// Writes a new certificate for `127.0.0.1`, and returns who trusts it.
fn certify(folder: &Path) -> Client {
    let (certificate, key) = certificate::certificate().expect("it is made");
    fs::write(folder.join("key.pem"), key).expect("writable");
    fs::write(folder.join("certificate.pem"), &certificate).expect("writable");
    let trusted = Certificate::from_pem(&certificate).expect("it is one");
    let built = Client::builder().add_root_certificate(trusted).build();
    built.expect("it is built")
}

#[test]
fn rows_and_tokens_are_encrypted_and_a_renewed_certificate_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = certify(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let arguments = ["--tls-certificate", &certificate, "--tls-key", &key];
    let service = Service::start_with(&[("shop", PIPELINE)], &arguments, client);
    assert_eq!(service.get("/healthz"), json!({ "status": "ok" }));

    // Junk, and clients that say nothing, do no harm.
    let mut silent = Vec::new();
    for length in 0..200 {
        let mut stream = TcpStream::connect(service.address()).expect("it listens");
        let junk: Vec<u8> = (0..length * 5).map(|_| fastrand::u8(..)).collect();
        // It may be closed by now.
        let _ = stream.write_all(&junk);
        silent.push(stream);
    }
    assert_eq!(service.get("/healthz"), json!({ "status": "ok" }));
    drop(silent);

    let renewed = certify(folder.path());
    let (status, _) = service.ask_by(&renewed, "GET", "/healthz", "");
    assert_eq!(status, 200);
}

#[test]
fn the_command_line_asks_with_a_token_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = certify(folder.path());
    let (_folder, file, [read, admin]) = tokens();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let arguments = [
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--tokens",
        file.to_str().expect("UTF-8"),
    ];
    let service = Service::start_with(&[("shop", PIPELINE)], &arguments, client);
    let run = |scheme: &str, arguments: &[&str], token: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .arg("pipelines")
            .args(arguments)
            .args(["--host", &format!("{scheme}://{}", service.address())])
            .env("SLUICEBOX_TOKEN", token)
            .output()
            .expect("it runs");
        let text = [ran.stdout, ran.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (ran.status.code(), text)
    };
    let trusted = |command: &[&'static str], token: &str| {
        run("https", &[command, &["--ca", &certificate]].concat(), token)
    };
    let (code, text) = trusted(&["list"], &read);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("shop"), "{text}");
    let by_file = path("token.txt");
    fs::write(&by_file, format!("{read}\n")).expect("writable");
    let (code, text) = run(
        "https",
        &["list", "--ca", &certificate, "--token-file", &by_file],
        "wrong",
    );
    assert_eq!(code, Some(0), "{text}");
    for (scheme, arguments, token, code, why) in [
        (
            "https",
            &["list", "--ca", &certificate][..],
            "",
            2,
            "--token-file",
        ),
        (
            "https",
            &["list", "--ca", &certificate],
            "wrong",
            2,
            "there is no such token",
        ),
        (
            "https",
            &["pause", "shop", "--ca", &certificate],
            &read,
            1,
            "role `admin`",
        ),
        (
            "https",
            &["list", "--ca", &certificate],
            "two\nlines",
            2,
            "no token has",
        ),
        ("https", &["list"], &read, 1, "--ca FILE"),
        (
            "https",
            &["list", "--ca", &by_file],
            &read,
            2,
            "no certificate",
        ),
        ("http", &["list"], &read, 1, "begins with https://"),
    ] {
        let (ended, text) = run(scheme, arguments, token);
        assert_eq!(ended, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(why), "{arguments:?}: {text}");
        assert!(!text.contains(&read), "{text}");
    }
    let (code, text) = trusted(&["pause", "shop"], &admin);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn an_address_that_asks_too_often_is_told() {
    let service = Service::start_with(&[], &["--rate", "20"], Client::new());
    let path = "/api/v1/pipelines";
    let answers: Vec<u16> = (0..400).map(|_| service.ask("GET", path, "").0).collect();
    assert!(answers.contains(&200) && answers.contains(&429));
    let probes = ["/healthz", "/readyz"].repeat(200);
    assert!(
        probes
            .iter()
            .all(|path| service.ask("GET", path, "").0 == 200)
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(service.ask("GET", path, "").0, 200, "it may ask again");
}
