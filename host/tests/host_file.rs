//! Starts a service by its file, and has it read again.

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
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Client;
use tempfile::TempDir;

use service::{Service, WAIT};

/// A pipeline with states that may take this much memory.
fn shop(memory: &str) -> String {
    format!(
        r#"
        name = "shop"
        state.memory = "{memory}"
        checkpoints.interval = "100ms"
        [sources.actions]
        type = "generator"
        rate = 100
        [operators.totals]
        aggregate = {{ rows = "count()" }}
        key = "user_id"
        window = "running"
        input = "actions"
        [sinks.of_totals]
        type = "blackhole"
        input = "totals"
        "#
    )
}

/// A folder with a host's file, and a file of tokens.
fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("host.toml"), text).expect("writable");
    let made = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["token", "new", "--name", "operator", "--role", "admin"])
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    assert!(made.status.success());
    folder
}

/// How many of so many requests are answered with 429.
fn refused(service: &Service, requests: usize) -> usize {
    let answers = (0..requests).map(|_| service.ask("GET", "/api/v1/pipelines", "").0);
    answers.filter(|status| *status == 429).count()
}

#[test]
fn a_service_does_what_its_file_says_and_what_that_says_later() {
    let folder = folder("listen = \"127.0.0.1:1\"\nlimits.rate = 20\nmemory = \"64MiB\"\n");
    let file = folder.path().join("host.toml");
    let path = file.display().to_string();
    let shop_of = shop("48MiB");
    let pipelines = [("shop", &*shop_of)];
    let service = Service::start_with(&pipelines, &["--config", &path], Client::new());
    let log = || fs::read_to_string(service.path("log.txt")).expect("readable");
    let reload = |text: &str, told: &str| {
        let before = log().matches(told).count();
        fs::write(&file, text).expect("writable");
        service.send(libc::SIGHUP);
        let began = Instant::now();
        while log().matches(told).count() == before {
            assert!(began.elapsed() < WAIT, "never `{told}`: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    assert!(refused(&service, 400) > 0, "the rate is the file's");
    reload(
        "limits.rate = 1000000\nmemory = \"40MiB\"\n",
        "is read again",
    );
    assert_eq!(refused(&service, 400), 0);
    assert!(
        !log().contains("takes effect when the service is restarted"),
        "{}",
        log()
    );
    service.until_phase("running");

    // What runs has its memory; what starts from now on gets less.
    let start = "/api/v1/pipelines/shop/start";
    assert_eq!(service.ask("POST", start, "").0, 202);
    let failed = service.until_phase("failed");
    let why = failed["failure"]["message"].as_str().expect("why");
    assert!(why.contains("of the host's 41943040 are left"), "{why}");
    reload("limits.rate = 1000000\nthreads = 3\n", "`threads` of ");
    assert_eq!(service.ask("POST", start, "").0, 202);
    service.until_phase("running");

    reload("limits.rates = 3\n", "did you mean `rate`?");
    reload(
        "tokens = \"nothing.toml\"\n",
        "is not taken, and nothing changes",
    );
    assert_eq!(refused(&service, 400), 0);
    assert_eq!(service.ask("GET", "/api/v1/pipelines", "").0, 200);
    reload(
        "tokens = \"tokens.toml\"\nlimits.rate = 1000000\n",
        "is read again",
    );
    assert_eq!(service.ask("GET", "/api/v1/pipelines", "").0, 401);
    // Written as a whole or not, nobody gets in by it.
    for less in ["", "limits.rate = 1000000\n"] {
        reload(less, "it names no `tokens` any more");
        assert_eq!(service.ask("GET", "/api/v1/pipelines", "").0, 401, "{less}");
    }
}

#[test]
fn wrong_files_are_told() {
    let folder = folder("folder = \"here\"\nthread = 3\n");
    let serve = |arguments: &[&str], file: &Path| {
        let served = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .args(["serve", "--config"])
            .arg(file)
            .args(arguments)
            .output()
            .expect("it runs");
        let stderr = String::from_utf8_lossy(&served.stderr).into_owned();
        assert_eq!(served.status.code(), Some(2), "{stderr}");
        stderr
    };
    let file = folder.path().join("host.toml");
    let told = serve(&[], &file);
    for part in [
        "the host has an unknown key `thread`",
        "did you mean `threads`?",
        "host.toml:2:1",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let told = serve(&[], &folder.path().join("hosts.toml"));
    assert!(told.contains("cannot read the host's file"), "{told}");
    fs::write(&file, "folder = \"here\"\n").expect("writable");
    let told = serve(&[], &file);
    assert!(told.contains("here/pipelines"), "{told}");
    fs::create_dir_all(folder.path().join("here/pipelines")).expect("writable");
    fs::write(&file, "folder = \"here\"\nlisten = \"0.0.0.0:0\"\n").expect("writable");
    let told = serve(&[], &file);
    assert!(told.contains("sluicebox token new"), "{told}");
    let told = serve(&["--tokens", "nothing.toml"], &file);
    assert!(told.contains("nothing.toml"), "{told}");
    assert!(
        !folder.path().join("here/data").exists(),
        "nothing was made"
    );
}
