//! Plants secrets wherever a pipeline may have them, by right or by mistake, and looks for
//! them in all that commands print and the service answers.

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
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use service::{Service, WAIT};

/// What begins each secret, and stands nowhere else.
const MARK: &str = "hunter2";

const VARIABLE: &str = "SLUICEBOX_TEST_SECRET";

/// Settings of Kafka with a secret of each kind. Nobody listens at the address.
const KAFKA: &str = r#"
    brokers = "127.0.0.1:9"
    topic = "orders"
    properties = { "security.protocol" = "SASL_SSL", "sasl.mechanism" = "PLAIN", "sasl.username" = "hunter2-user", "sasl.password" = { env = "SLUICEBOX_TEST_SECRET" }, "ssl.key.password" = { file = "secret.txt" }, "ssl.keystore.password" = "hunter2-literal", "socket.connection.setup.timeout.ms" = 1000 }
"#;

const ROWS: &str = "[sources.rows]\ntype = \"generator\"\nrate = 100\nusers = 5\n";
const OUT: &str = "[sinks.out]\ntype = \"blackhole\"\ninput = \"rows\"\n";

/// Pipelines called `planted` with secrets that are in their places.
fn good() -> Vec<String> {
    let source = format!(
        "[sources.rows]\ntype = \"kafka\"\nformat = \"json\"\nfields = {{ id = \"utf8\" }}\n{KAFKA}{OUT}"
    );
    let sink = format!("{ROWS}[sinks.out]\ntype = \"kafka\"\ninput = \"rows\"\n{KAFKA}");
    let upload = format!(
        "[checkpoints]\ninterval = \"100ms\"\nupload = {{ url = \"s3://bucket/copies\", options = {{ \
         aws_access_key_id = \"hunter2-id\", aws_secret_access_key = {{ env = \"{VARIABLE}\" }}, \
         aws_session_token = {{ file = \"secret.txt\" }}, aws_endpoint = \"http://127.0.0.1:9\", \
         aws_allow_http = \"true\" }} }}\n{ROWS}{OUT}"
    );
    let pipelines = [source, sink, upload].map(|rest| format!("name = \"planted\"\n{rest}"));
    pipelines.to_vec()
}

/// The same with mistakes beside the secrets, and with secrets where they do not belong.
fn bad() -> Vec<String> {
    let mut texts = Vec::new();
    for text in good() {
        texts.push(text.replace("\"sasl.password\"", "\"sasl.pasword\""));
        texts.push(text.replace("aws_secret_access_key", "aws_secret_acess_key"));
        texts.push(text.replace("properties =", "proprties ="));
        texts.push(text.replace("options =", "optoins ="));
        texts.push(text.replace("input = \"rows\"", "input = \"rowz\""));
        texts.push(text.replace(
            "{ file = \"secret.txt\" }",
            "{ file = \"secret.txt\", x = 1 }",
        ));
        texts.push(text.replace("\"PLAIN\"", "5.5.5"));
        texts.push(text.replace("name = \"planted\"", "name = \"other\""));
        // It is no TOML behind this.
        texts.push(format!("{text}\n[[[\n"));
        for address in [
            "hunter2-user:hunter2@host:9092",
            "127.0.0.1:9,hunter2:b@host:1",
        ] {
            texts.push(text.replace("127.0.0.1:9\"", &format!("{address}\"")));
        }
        for url in [
            "s3://hunter2:x@bucket/p",
            "s3://hunt/hunter2@bucket",
            "s3://key:hunter2/x?y#z@bucket/p",
            "s3://bucket/p?X-Amz-Signature=hunter2",
            "https://hunter2@bucket.s3.amazonaws.com/p",
            "nothing://user:hunter2@bucket",
        ] {
            texts.push(text.replace("s3://bucket/copies", url));
        }
    }
    let good = good();
    texts.retain(|text| !good.contains(text));
    texts
}

fn clean(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(MARK));
    assert!(line.is_none(), "{what} shows a secret: {line:?}");
}

#[test]
fn no_secret_is_shown() {
    commands_show_none();
    the_service_shows_none();
}

/// What a command prints, which gets a signal if it takes long.
fn printed(arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
    command
        .args(arguments)
        .current_dir(folder)
        .env(VARIABLE, "hunter2-variable")
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(fs::File::create(folder.join("stdout")).expect("writable"))
        .stderr(fs::File::create(folder.join("stderr")).expect("writable"));
    let mut child = signal::not_ignored(&mut command)
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    let mut asked = 0;
    while child.try_wait().expect("it is ours").is_none() {
        if began.elapsed() > Duration::from_secs(3) * (asked + 1) {
            signal::send(&child, libc::SIGINT);
            asked += 1;
        }
        assert!(began.elapsed() < WAIT, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("text");
    read("stdout") + &read("stderr")
}

fn commands_show_none() {
    for (text, runs) in good()
        .iter()
        .map(|text| (text, true))
        .chain(bad().iter().map(|text| (text, false)))
    {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("secret.txt"), "hunter2-file\n").expect("writable");
        fs::write(folder.path().join("p.toml"), text).expect("writable");
        for arguments in [&["check", "p.toml"][..], &["check", "--json", "p.toml"]] {
            let shown = printed(arguments, folder.path());
            clean(&format!("{arguments:?} of {text}"), &shown);
            assert!(!shown.is_empty());
        }
        if runs {
            let shown = printed(&["run", "--json", "p.toml"], folder.path());
            clean(&format!("run of {text}"), &shown);
            assert!(!shown.is_empty());
        }
    }
}

fn the_service_shows_none() {
    // SAFETY: no other thread reads the environment now: this program has one test.
    unsafe { std::env::set_var(VARIABLE, "hunter2-variable") };
    let service = Service::start(&[]);
    fs::write(service.path("pipelines/secret.txt"), "hunter2-file\n").expect("writable");
    let ask = |method: &str, path: &str, body: &str| {
        let (status, answer) = service.ask(method, path, body);
        clean(&format!("{method} {path} of {body}"), &answer.to_string());
        status
    };
    let look = |name: &str, text: &str| {
        for path in [
            "",
            "/graph",
            "/replays",
            "/dead-letters",
            "/operators/out/state",
        ] {
            ask("GET", &format!("/api/v1/pipelines/{name}{path}"), text);
        }
        for path in ["/api/v1/pipelines", "/metrics", "/readyz", "/"] {
            ask("GET", path, text);
        }
        let log = fs::read_to_string(service.path("log.txt")).expect("a log");
        clean(&format!("the log of {text}"), &log);
    };
    for (number, text) in good().iter().enumerate() {
        let name = format!("planted{number}");
        let text = text.replace("\"planted\"", &format!("\"{name}\""));
        let path = format!("/api/v1/pipelines/{name}");
        assert_eq!(ask("POST", &format!("{path}/plan"), &text), 200, "{text}");
        assert_eq!(ask("PUT", &path, &text), 202, "{text}");
        std::thread::sleep(Duration::from_secs(3));
        look(&name, &text);
    }
    for text in bad() {
        assert_eq!(
            ask("POST", "/api/v1/pipelines/planted/plan", &text),
            422,
            "{text}"
        );
        assert_eq!(
            ask("PUT", "/api/v1/pipelines/planted", &text),
            422,
            "{text}"
        );
    }
    // As a file that somebody writes, which is not looked at before.
    for text in bad() {
        service.write("planted", &text);
        std::thread::sleep(Duration::from_millis(400));
        look("planted", &text);
    }
}
