//! How runs end: a failure says whose it is and what to do, and is tried again
//! only where that can help; signals stop a run; closed outputs do not.

/// Plugins, built once.
#[expect(dead_code, reason = "the host loads its own plugins")]
mod common;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use parquet::file::reader::SerializedFileReader;
use serde_json::Value;
use tempfile::TempDir;

const RESTART: &str = r#"
name = "failing"
[checkpoints]
[restart]
strategy = "fixed"
delay = "1ms"
failures = 2
"#;

const ROWS: &str = r#"
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { id = "utf8", n = "int64" }
on_error = "fail"
"#;

const OUT: &str = r#"
[sinks.out]
type = "file"
input = "rows"
path = "out.jsonl"
"#;

/// What is said of a failure, beside its message.
struct Failure {
    message: String,
    blame: String,
    advice: String,
    restarts: usize,
}

/// A run of a pipeline with these arguments.
fn run(pipeline: &str, arguments: &[&str], folder: &Path) -> Command {
    run_file(&format!("{RESTART}{pipeline}"), arguments, folder)
}

fn run_file(text: &str, arguments: &[&str], folder: &Path) -> Command {
    let path = folder.join("pipeline.toml");
    fs::write(&path, text).expect("it is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
    command
        .arg("run")
        .args(arguments)
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    signal::not_ignored(&mut command);
    command
}

/// Runs a pipeline on two rows, the second of which is `row`; it has to fail.
fn fail(pipeline: &str, row: &str, folder: &Path) -> Failure {
    let rows = format!("{{\"id\":\"good\",\"n\":1}}\n{row}\n");
    fs::write(folder.join("rows.jsonl"), rows).expect("it is writable");
    let output = run(pipeline, &["--json"], folder)
        .output()
        .expect("it starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stdout}\n{stderr}");
    let last: Value = stdout
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("no JSON on stdout\n{stdout}\n{stderr}"));
    assert_eq!(last["type"], "failure", "{last}");
    let field = |name: &str| last[name].as_str().expect("a text").to_owned();
    let failure = Failure {
        message: field("message"),
        blame: field("blame"),
        advice: field("advice"),
        restarts: stderr.matches(", and restarts in").count(),
    };
    let restarted = last["can_pass"] == true;
    assert_eq!(failure.restarts, if restarted { 2 } else { 0 }, "{stderr}");
    let ending = format!("error: {}\n  {}\n", failure.message, failure.advice);
    assert!(stderr.ends_with(&ending), "{stderr}");
    failure
}

/// An operator of the `hostile` plugin that does something at the row `bad`.
fn misbehaving(mode: &str) -> String {
    let plugin = common::plugin_file("hostile");
    format!(
        r#"
        [plugins.hostile]
        path = {plugin:?}
        {ROWS}
        [operators.kept]
        plugin = "hostile.misjudge"
        input = "rows"
        parameters = {{ mode = "{mode}", at = "bad" }}
        on_error = "fail"
        limits = {{ time = "100ms" }}
        [sinks.out]
        type = "file"
        input = "kept"
        path = "out.jsonl"
        "#
    )
}

const GOOD: &str = r#"{"id":"fine","n":2}"#;
const BAD: &str = r#"{"id":"bad","n":2}"#;

#[test]
fn a_row_that_must_not_fail_ends_the_run_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let row = r#"{"id":"bad","n":"two"}"#;
    let failure = fail(&format!("{ROWS}{OUT}"), row, folder.path());
    assert_eq!(failure.blame, "row", "{}", failure.message);
    assert!(failure.advice.contains("on_error"));
}

#[test]
fn a_plugin_that_is_too_slow_is_tried_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let failure = fail(&misbehaving("loop"), BAD, folder.path());
    assert_eq!(failure.blame, "plugin", "{}", failure.message);
    assert_eq!(failure.restarts, 2);
    assert!(failure.advice.contains("limits.time"));
}

#[test]
fn a_port_that_another_has_is_tried_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it listens");
    let pipeline = format!(
        r#"
        [sources.rows]
        type = "tcp"
        listen = "{address}"
        fields = {{ id = "utf8" }}
        {OUT}
        "#
    );
    let failure = fail(&pipeline, GOOD, folder.path());
    assert_eq!(failure.blame, "outside", "{}", failure.message);
    assert_eq!(failure.restarts, 2);
}

#[test]
fn a_plan_that_its_checkpoint_does_not_fit_is_not_tried_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counted = |window: &str| {
        format!(
            r#"
            [plugins.basics]
            path = {plugin:?}
            {ROWS}
            [operators.counted]
            plugin = "basics.count"
            input = "rows"
            window = {window}
            [sinks.out]
            type = "file"
            input = "counted"
            path = "out.jsonl"
            "#,
            plugin = common::plugin_file("basics"),
        )
    };
    // Its checkpoints stay.
    fail(
        &counted(r#""running""#),
        r#"{"id":"bad","n":"two"}"#,
        folder.path(),
    );
    let failure = fail(&counted("{ count = 2 }"), GOOD, folder.path());
    assert_eq!(failure.blame, "config", "{}", failure.message);
    assert!(failure.message.contains("counted"), "{}", failure.message);
}

/// What fails, and what is said of it.
struct Case {
    what: &'static str,
    prepare: fn(&Path),
    pipeline: String,
    row: &'static str,
    blame: &'static str,
    can_pass: bool,
}

impl Case {
    fn new(what: &'static str, pipeline: String, blame: &'static str, can_pass: bool) -> Self {
        Case {
            what,
            prepare: |_| {},
            pipeline,
            row: BAD,
            blame,
            can_pass,
        }
    }

    fn after(self, prepare: fn(&Path)) -> Self {
        Case { prepare, ..self }
    }
}

fn to_file(path: &str) -> String {
    let sink = OUT.replace("out.jsonl", path);
    format!("{ROWS}{sink}format = \"json\"")
}

fn of_file(path: &str) -> String {
    format!("{}{OUT}", ROWS.replace("rows.jsonl", path))
}

/// Runs the pipeline of rows to its end, so that the next run goes on.
fn run_before(folder: &Path) {
    fs::write(folder.join("rows.jsonl"), format!("{GOOD}\n{BAD}\n")).expect("it is writable");
    let output = run(&format!("{ROWS}{OUT}"), &["--quiet"], folder).output();
    assert!(output.expect("it starts").status.success());
}

/// Every kind of error that sources, sinks, plugins and checkpoints make without a broker:
/// what lasts is never tried again, and what may pass is.
#[test]
fn each_failure_is_tried_again_if_that_can_help_and_only_then() {
    // A machine that is busy takes its time.
    let patiently = |mode: &str| misbehaving(mode).replace("100ms", "60s");
    let large = patiently("output")
        .replace("misjudge", "misbehave")
        .replace("limits = {", "limits = { output = \"1KiB\",");
    let foreign = ROWS
        .replace("type = \"file\"", "type = \"tcp\"")
        .replace("path = \"rows.jsonl\"", "listen = \"192.0.2.1:9999\"")
        .replace("on_error = \"fail\"", "");
    let unknown = foreign.replace("192.0.2.1", "nohost.invalid");
    let state = "[state]\npath = \"state\"\n";
    let no_folder = "[state]\npath = \"rows.jsonl/state\"\n";
    let mut cases = vec![
        Case::new("a reject", patiently("reject"), "row", false),
        Case::new("a panic", patiently("panic"), "plugin", false),
        Case::new("a trap", patiently("trap"), "plugin", false),
        Case::new("no stack", patiently("recurse"), "plugin", false),
        Case::new("no memory", patiently("allocate"), "plugin", false),
        Case::new("a large answer", large, "plugin", false),
        Case::new("a loop", misbehaving("loop"), "plugin", true),
        Case::new("text as gzip", of_file("in.jsonl.gz"), "outside", false)
            .after(|folder| fs::write(folder.join("in.jsonl.gz"), GOOD).expect("a file")),
        Case::new("gzip as text", of_file("in.jsonl"), "outside", false)
            .after(|folder| fs::write(folder.join("in.jsonl"), b"\x1F\x8B\x08").expect("a file")),
        Case::new("a cut file", of_file("in.jsonl.gz"), "outside", false).after(|folder| {
            fs::write(folder.join("in.jsonl.gz"), b"\x1F\x8B\x08").expect("a file");
        }),
        Case::new("UTF-16", of_file("in.jsonl"), "outside", false)
            .after(|folder| fs::write(folder.join("in.jsonl"), b"\xFF\xFE{\0}\0").expect("a file")),
        Case::new(
            "a foreign address",
            format!("{foreign}{OUT}"),
            "outside",
            false,
        ),
        Case::new(
            "an unknown host",
            format!("{unknown}{OUT}"),
            "config",
            false,
        ),
        Case::new(
            "no place for copies",
            // Nobody can make a folder there.
            format!("{state}[checkpoints.upload]\nurl = \"file:///proc/nothing\"\n{ROWS}{OUT}"),
            "outside",
            false,
        ),
        Case::new(
            "a file for a folder",
            to_file("rows.jsonl/out"),
            "outside",
            false,
        ),
        Case::new("a folder for a file", to_file("folder"), "outside", false)
            .after(|folder| fs::create_dir(folder.join("folder")).expect("a folder")),
        Case::new("a socket for a file", to_file("socket"), "outside", false).after(|folder| {
            UnixListener::bind(folder.join("socket")).expect("a socket");
        }),
        Case::new("links in a circle", to_file("circle"), "outside", false)
            .after(|folder| symlink("circle", folder.join("circle")).expect("a link")),
        Case::new("a file that is there", to_file("there"), "outside", false)
            .after(|folder| fs::write(folder.join("there"), "1\n").expect("a file")),
        Case::new(
            "a device that is always full",
            to_file("/dev/full"),
            "outside",
            false,
        ),
        Case::new(
            "a file of the system",
            to_file("/proc/self/mem"),
            "outside",
            false,
        ),
        Case::new(
            "no place for state",
            format!("{no_folder}{ROWS}{OUT}"),
            "outside",
            false,
        ),
        Case::new(
            "an output that is gone",
            format!("{ROWS}{OUT}"),
            "outside",
            false,
        )
        .after(|folder| {
            run_before(folder);
            fs::remove_file(folder.join("out.jsonl")).expect("it is there");
        }),
        Case::new(
            "an output with more",
            format!("{ROWS}{OUT}"),
            "outside",
            false,
        )
        .after(|folder| {
            run_before(folder);
            fs::write(folder.join("out.jsonl"), "1\n".repeat(100)).expect("it is writable");
        }),
        Case::new(
            "another format",
            to_file("out.jsonl").replace("\"json\"", "\"csv\""),
            "config",
            false,
        )
        .after(run_before),
        Case::new(
            "a damaged checkpoint",
            format!("{ROWS}{OUT}"),
            "outside",
            false,
        )
        .after(|folder| {
            run_before(folder);
            let checkpoints = folder.join("failing.state/checkpoints");
            for (path, _) in tree(&checkpoints) {
                if path.is_file() {
                    fs::write(path, "damage").expect("it is writable");
                }
            }
        }),
    ];
    let mut broken = Case::new("a broken row", format!("{ROWS}{OUT}"), "row", false);
    broken.row = "{\"id\":\"bad\",\"n\":\"two\"}";
    cases.push(broken);
    let mut another = Case::new("another input", format!("{ROWS}{OUT}"), "outside", false);
    another = another.after(run_before);
    another.row = GOOD;
    cases.push(another);
    for case in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        (case.prepare)(folder.path());
        let failure = fail(&case.pipeline, case.row, folder.path());
        let said = format!("{}: {}", case.what, failure.message);
        assert_eq!(failure.blame, case.blame, "{said}");
        assert_eq!(failure.restarts > 0, case.can_pass, "{said}");
    }
}

/// Connects as soon as somebody listens.
fn connect(address: SocketAddr) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "nobody listens: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where nobody listens.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it listens")
}

/// Runs a pipeline of rows over TCP in a folder, and connects to it. `source` is the
/// rest of the source's table.
fn listen(source: &str) -> (TempDir, Child, TcpStream) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let pipeline =
        format!("[sources.rows]\ntype = \"tcp\"\nlisten = \"{address}\"\n{source}\n{OUT}");
    let host = run(&pipeline, &["--json"], folder.path())
        .spawn()
        .expect("it starts");
    (folder, host, connect(address))
}

/// The last checkpoint of a run is in the data folder, and nowhere else.
#[test]
fn a_run_whose_checkpoint_could_not_be_copied_has_failed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (address, copies) = (free_address(), folder.path().join("copies"));
    let pipeline = format!(
        r#"
        name = "copied"
        state = {{ path = "state" }}
        checkpoints = {{ interval = "1h", upload = {{ url = "file://{}" }} }}
        [sources.rows]
        type = "tcp"
        listen = "{address}"
        connections = 1
        fields = {{ id = "utf8" }}
        {OUT}
        "#,
        copies.display()
    );
    let host = run_file(&pipeline, &["-q"], folder.path()).spawn();
    let host = host.expect("it starts");
    let mut client = connect(address);
    std::thread::sleep(Duration::from_millis(500));
    fs::remove_dir_all(&copies).expect("it was made at the start");
    fs::write(&copies, "").expect("it is writable");
    client.write_all(b"{\"id\":\"a\"}\n").expect("it listens");
    drop(client);
    let ended = Instant::now();
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("it could not be copied"), "{stderr}");
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}: {stderr}");
    let rows = fs::read_to_string(folder.path().join("out.jsonl")).expect("it was written");
    assert_eq!(rows.lines().count(), 1, "{rows}");
}

/// Nobody can send a row over TCP again.
fn end_by(number: i32) {
    let (folder, host, mut client) = listen("fields = { id = \"utf8\" }");
    client
        .write_all(b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n")
        .expect("it listens");
    std::thread::sleep(Duration::from_millis(500));
    signal::send(&host, number);
    if number == libc::SIGHUP {
        signal::send(&host, number);
    }
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains('\x1b'), "colours in a pipe: {stderr}");
    let rows = fs::read_to_string(folder.path().join("out.jsonl.part")).expect("it was written");
    assert_eq!(rows.lines().count(), 2, "{rows}");
}

#[test]
fn ctrl_c_keeps_the_rows_that_came() {
    end_by(libc::SIGINT);
}

#[test]
fn service_managers_stop_a_run_as_ctrl_c_does() {
    end_by(libc::SIGTERM);
}

/// The terminal and the shell tell it both.
#[test]
fn a_closed_terminal_stops_a_run_as_ctrl_c_does() {
    end_by(libc::SIGHUP);
}

/// Also in its first moments, in which it may end as any process does.
#[test]
fn a_signal_at_any_moment_ends_a_run() {
    let endless = "[sources.rows]\ntype = \"generator\"\nrate = 200\n";
    let sink = "[sinks.out]\ntype = \"blackhole\"\ninput = \"rows\"\n";
    let pipeline = format!("name = \"endless\"\n{endless}{sink}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..60 {
        let mut host = run_file(&pipeline, &["--quiet"], folder.path())
            .spawn()
            .expect("it starts");
        let wait = Duration::from_micros(random.u64(0..40_000));
        std::thread::sleep(wait);
        let number = [libc::SIGINT, libc::SIGTERM][random.usize(0..2)];
        signal::send(&host, number);
        let until = Instant::now() + Duration::from_secs(20);
        while host.try_wait().expect("our child").is_none() {
            if Instant::now() > until {
                host.kill().expect("our child");
                panic!("signal {number} after {wait:?} was lost");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn nohup_keeps_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (pipeline, mut server) = (folder.path().join("pipeline.toml"), Command::new("nohup"));
    let endless = "[sources.rows]\ntype = \"generator\"\nrate = 200\n";
    fs::write(&pipeline, format!("{RESTART}{endless}{OUT}")).expect("it is writable");
    let mut host = server
        .arg(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["run", "--quiet"])
        .arg(&pipeline)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nohup is there");
    std::thread::sleep(Duration::from_millis(1_000));
    signal::send(&host, libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(1_000));
    assert!(host.try_wait().expect("a state").is_none(), "it goes on");
    signal::send(&host, libc::SIGTERM);
    let output = host.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn bad_rows_say_what_they_look_like() {
    let (folder, host, mut client) = listen("connections = 1\nfields = { id = \"utf8\" }");
    let wide: Vec<u8> = "{\"id\":\"a\"}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    client.write_all(&wide).expect("it listens");
    drop(client);
    let output = host.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let dead = fs::read_to_string(folder.path().join("failing.dead.jsonl"));
    let dead = dead.expect("it was written");
    assert!(dead.contains("it looks like UTF-16"), "{dead}");
}

#[test]
fn csv_over_tcp_has_line_ends_in_its_fields() {
    let (folder, host, mut client) = listen(
        r#"
        connections = 1
        format = "csv"
        fields = { id = "utf8", n = "int64" }
        "#,
    );
    for piece in ["a,1\n\"two\n", "lines\",2\n", "\"open\nb,3\n"] {
        client.write_all(piece.as_bytes()).expect("it listens");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(client);
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let rows = fs::read_to_string(folder.path().join("out.jsonl")).expect("it was written");
    assert_eq!(
        rows,
        "{\"id\":\"a\",\"n\":1}\n{\"id\":\"two\\nlines\",\"n\":2}\n"
    );
    let dead = fs::read_to_string(folder.path().join("failing.dead.jsonl"));
    let dead = dead.expect("it was written");
    assert_eq!(dead.lines().count(), 1, "{dead}");
    let letter: Value = serde_json::from_str(&dead).expect("it is JSON");
    assert_eq!(letter["payload"], "\"open\nb,3\n");
}

/// Lines of any kind, from standard input.
fn lines(path: &str) -> String {
    format!(
        r#"
        [sources.rows]
        type = "file"
        path = "{path}"
        format = "raw"
        fields = {{ line = "utf8" }}
        {OUT}
        "#
    )
}

#[test]
fn standard_input_is_read_until_ctrl_c_and_by_the_next_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = || {
        run(&lines("-"), &["--json"], folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let mut host = start();
    let mut input = host.stdin.take().expect("it is piped");
    input.write_all(b"a\n\nb\nunfinished").expect("it reads");
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    signal::send(&host, libc::SIGINT);
    // Nothing more comes, and the input stays open.
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{stderr}");
    drop(input);
    let rows = |file: &str| fs::read_to_string(folder.path().join(file)).expect("it was written");
    let first = "{\"line\":\"a\"}\n{\"line\":\"\"}\n{\"line\":\"b\"}\n";
    assert_eq!(rows("out.jsonl.part"), first);
    let mut host = start();
    let mut input = host.stdin.take().expect("it is piped");
    input.write_all(b"c\r\nd").expect("it reads");
    drop(input);
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let second = format!("{first}{{\"line\":\"c\"}}\n{{\"line\":\"d\"}}\n");
    assert_eq!(rows("out.jsonl"), second);
}

/// As `sluicebox run pipeline.toml < <(command)` and a named pipe do.
#[test]
fn pipes_are_read_by_their_paths() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("there is a mkfifo").success());
    for path in ["/dev/stdin", "pipe"] {
        let mut host = run(&lines(path), &["--json", "--fresh"], folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = host.stdin.take().expect("it is piped");
        if path == "pipe" {
            fs::write(&pipe, "a\nb\n").expect("somebody reads");
        } else {
            input.write_all(b"a\nb\n").expect("it reads");
        }
        drop(input);
        let output = host.wait_with_output().expect("it is our child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let out = folder.path().join("out.jsonl");
        let rows = fs::read_to_string(&out).expect("it was written");
        assert_eq!(rows, "{\"line\":\"a\"}\n{\"line\":\"b\"}\n", "{path}");
        fs::remove_file(out).expect("it was there");
    }
}

/// Events for about three seconds.
const EVENTS: &str = r#"
[sources.rows]
type = "generator"
rate = 10000
count = 30000
"#;

/// Nobody listens at port 1.
const UNREACHABLE_TOPIC: &str = r#"
type = "kafka"
brokers = "127.0.0.1:1"
topic = "orders"
"#;

/// Starts a pipeline whose broker cannot be reached, and stops it.
fn stop_without_a_broker(pipeline: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = run_file(pipeline, &["-q"], folder.path())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        host.try_wait().expect("a state").is_none(),
        "it waits for the broker"
    );
    let asked = Instant::now();
    signal::send(&host, libc::SIGINT);
    host.wait().expect("it ends");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_source_without_its_broker_stops_at_once() {
    let rows = "fields = { id = \"utf8\", n = \"int64\" }";
    stop_without_a_broker(&format!(
        "{RESTART}[sources.rows]{UNREACHABLE_TOPIC}{rows}{OUT}"
    ));
}

const ROWS_FOR_A_TOPIC: &str = "[sources.rows]\ntype = \"generator\"\nrate = 10\n";

#[test]
fn a_transaction_without_its_broker_stops_at_once() {
    stop_without_a_broker(&format!(
        "{RESTART}{ROWS_FOR_A_TOPIC}[sinks.out]{UNREACHABLE_TOPIC}input = \"rows\""
    ));
}

#[test]
fn rows_without_their_broker_are_not_waited_for_when_a_run_stops() {
    // The source may have ended already, and a checkpoint may wait for the rows.
    for count in ["", "count = 3\n"] {
        for checkpoints in ["", "[checkpoints]\ndelivery = \"at_least_once\"\n"] {
            stop_without_a_broker(&format!(
                "name = \"stopped\"\n{checkpoints}{ROWS_FOR_A_TOPIC}{count}[sinks.out]\
                 {UNREACHABLE_TOPIC}input = \"rows\""
            ));
        }
    }
}

#[test]
fn a_looping_plugin_holds_up_neither_others_nor_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["1.jsonl", "2.jsonl"] {
        let row = format!("{BAD}\n");
        fs::write(folder.path().join(file), row).expect("it is writable");
    }
    let looping = misbehaving("loop")
        .replace("\"rows.jsonl\"", "[\"1.jsonl\", \"2.jsonl\"]")
        .replace("100ms", "60s");
    // As many tasks loop as there are cores.
    let pipeline = format!(
        r#"
        name = "looping"
        parallelism = 2
        {looping}
        [sources.others]
        type = "generator"
        rate = 1000
        [sinks.others_out]
        type = "file"
        input = "others"
        path = "others/out.jsonl"
        "#
    );
    let host = run_file(&pipeline, &["-q"], folder.path()).spawn();
    let host = host.expect("it starts");
    let until = Instant::now() + Duration::from_secs(20);
    let others = folder.path().join("others");
    while files_are_empty(&others) {
        assert!(Instant::now() < until, "the others get no rows");
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = Instant::now();
    signal::send(&host, libc::SIGINT);
    let output = host.wait_with_output().expect("it ends");
    let (took, stderr) = (asked.elapsed(), String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(10), "{took:?}: {stderr}");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("its plugin did not answer soon"),
        "{stderr}"
    );
}

#[test]
fn a_plugin_that_fails_on_each_row_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = format!("{BAD}\n").repeat(400_000);
    fs::write(folder.path().join("rows.jsonl"), rows).expect("it is writable");
    // Each row takes long, so that few of them do, too.
    let failing = misbehaving("allocate")
        .replace("\"fail\"", "\"dead_letter\"")
        .replace("time = \"100ms\"", "time = \"60s\", memory = \"512MiB\"");
    let pipeline = format!(
        "name = \"failing\"\nbatch_rows = 65536\nparallelism = 1\n\
         dead_letters = \"letters/dead.jsonl\"\n{failing}"
    );
    let host = run_file(&pipeline, &["-q"], folder.path()).spawn();
    let mut host = host.expect("it starts");
    std::thread::sleep(Duration::from_secs(2));
    let ended = host.try_wait().expect("it is our child");
    assert_eq!(ended, None, "it takes long");
    let asked = Instant::now();
    signal::send(&host, libc::SIGTERM);
    let output = host.wait_with_output().expect("it ends");
    let (took, stderr) = (asked.elapsed(), String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(15), "{took:?}: {stderr}");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("its plugin fails on row after row"),
        "{stderr}"
    );
}

/// Once, however many files and tasks there are.
#[test]
fn a_field_that_is_probably_misspelt_is_warned_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for part in 1..4 {
        let rows = "{\"id\":\"a\",\"n\":1,\"amout\":2}\n".repeat(part * 700);
        let file = folder.path().join(format!("rows-{part}.jsonl"));
        fs::write(file, rows).expect("it is writable");
    }
    let source = ROWS.replace("n = \"int64\"", "n = \"int64\", amount = \"int64?\"");
    let source = source.replace("\"rows.jsonl\"", "\"rows-*.jsonl\"");
    let pipeline = format!("name = \"misspelt\"\nparallelism = 2\n{source}{OUT}");
    let output = run_file(&pipeline, &["--quiet"], folder.path()).output();
    let output = output.expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let told = stderr.matches("`amout` is in them, which nobody reads: is `amount` meant?");
    assert_eq!(told.count(), 1, "{stderr}");
}

fn files_are_empty(folder: &Path) -> bool {
    let Ok(mut files) = fs::read_dir(folder) else {
        return true;
    };
    files.all(|file| {
        let metadata = file.and_then(|file| file.metadata());
        metadata.is_ok_and(|metadata| metadata.len() == 0)
    })
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_progress() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = run(&format!("{EVENTS}{OUT}"), &["--json"], folder.path())
        .spawn()
        .expect("it starts");
    drop(host.stdout.take());
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let rows = fs::read_to_string(folder.path().join("out.jsonl")).expect("it was written");
    assert_eq!(rows.lines().count(), 30_000);
}

/// Progress is told to whoever wants it: rows are not lost with it, but programs rely on
/// the summary.
#[test]
fn a_summary_that_cannot_be_printed_is_a_failure() {
    for (rest, code, said) in [
        (
            ">/dev/full",
            1,
            "summary cannot be printed to standard output: No space left",
        ),
        (">/dev/null", 0, ""),
        // As a script in Python or a daemon has it.
        ("1<>/dev/null", 0, ""),
        (">&-", 1, "error: standard output is closed"),
        ("1</dev/null", 1, "error: standard output is closed"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n"));
        rows.expect("it is writable");
        let output = redirected(&format!("{ROWS}{OUT}"), "--json", rest, folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{rest}: {stderr}");
        assert!(stderr.contains(said), "{rest}: {stderr}");
        // What cannot be told of is not begun.
        let is_done = folder.path().join("out.jsonl").exists();
        assert_eq!(is_done, !stderr.contains("is closed"), "{rest}: {stderr}");
    }
}

/// Runs a pipeline from a shell, with its descriptors redirected.
fn redirected(pipeline: &str, arguments: &str, rest: &str, folder: &Path) -> Output {
    let direct = run(pipeline, &[arguments], folder);
    in_shell(&direct, &format!("exec \"$@\" {rest}"), folder)
}

/// Runs a script, where the run is `"$@"`.
fn in_shell(direct: &Command, script: &str, folder: &Path) -> Output {
    let mut words = vec![direct.get_program()];
    words.extend(direct.get_args());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg("sh");
    let output = shell.args(words).current_dir(folder).output();
    output.expect("there is a shell")
}

/// Rust's runtime opens `/dev/null` in place of what is closed.
#[test]
fn what_is_closed_loses_no_row() {
    let to = |path: &str| {
        let sink = OUT.replace("\"out.jsonl\"", &format!("\"{path}\"\nformat = \"json\""));
        format!("{ROWS}{sink}")
    };
    let console = format!("{ROWS}[sinks.out]\ninput = \"rows\"\ntype = \"console\"\n");
    let input = format!(
        "{}format = \"json\"\n{OUT}",
        ROWS.replace("rows.jsonl", "-")
    );
    for (pipeline, rest, named) in [
        (&console, ">&-", "standard output"),
        (&console, "1</dev/null", "standard output"),
        (&to("-"), ">&-", "standard output"),
        (&to("/dev/fd/1"), ">&- 2>log", "standard output"),
        (&to("/dev/stderr"), "2>&-", "standard error"),
        (&input, "<&-", "standard input"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n"));
        rows.expect("it is writable");
        let output = redirected(pipeline, "--quiet", rest, folder.path());
        let log = fs::read(folder.path().join("log")).unwrap_or_default();
        let stderr = [output.stderr, log].concat();
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(output.status.code(), Some(1), "{pipeline} {rest}: {stderr}");
        let is_told = rest == "2>&-" || stderr.contains(&format!("{named} is closed"));
        assert!(is_told, "{rest}: {stderr}");
        assert!(!stderr.contains(", and restarts in"), "{rest}: {stderr}");
        assert!(!folder.path().join("out.jsonl").exists(), "{rest}");
    }
    for (pipeline, rest) in [
        (&console, ">/dev/null"),
        (&to("-"), ">/dev/null"),
        (&to("-"), "1<>/dev/null"),
        // Nothing of theirs is needed.
        (&to("-"), "<&- 2>&-"),
        (&to("out.jsonl"), "<&- >&- 2>&-"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n"));
        rows.expect("it is writable");
        let output = redirected(pipeline, "--quiet", rest, folder.path());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{pipeline} {rest}: {output:?}"
        );
    }
}

/// A file that a shell has opened has one place for the next byte, for all who write to it.
#[test]
fn nobody_writes_over_rows_in_what_the_run_was_started_with() {
    const STANDARD: [&str; 3] = [
        "exec \"$@\" >all 2>&1",
        "{ echo head; \"$@\" 2>log; echo tail; } >all",
        "{ echo head >all; { \"$@\"; echo tail; } >>all 2>&1; }",
    ];
    let stderr = ["{ echo head >&2; \"$@\"; echo tail >&2; } 2>all"];
    let third = ["{ echo head >&3; \"$@\" 2>log; echo tail >&3; } 3>all"];
    let cases = [
        ("-", &STANDARD[..]),
        ("/dev/stdout", &STANDARD),
        ("/dev/fd/1", &STANDARD),
        ("/proc/self/fd/1", &STANDARD),
        ("link", &STANDARD),
        ("/dev/stderr", &stderr),
        ("/proc/self/fd/2", &stderr),
        ("/dev/fd/3", &third),
    ];
    let good: Vec<String> = (0..40)
        .map(|n| format!("{{\"id\":\"row\",\"n\":{n}}}"))
        .collect();
    let bad: Vec<String> = (0..40).map(|n| format!("bad {n}")).collect();
    let sink = |path: &str| OUT.replace("\"out.jsonl\"", &format!("\"{path}\"\nformat = \"json\""));
    let letters = ROWS.replace("on_error = \"fail\"", "");
    for (path, scripts) in cases {
        let rows = format!("name = \"rows\"\n{ROWS}{}", sink(path));
        let letters = format!("name = \"letters\"\ndead_letters = \"{path}\"\n{letters}{OUT}");
        for (pipeline, input) in [(&rows, &good), (&letters, &bad)] {
            for script in scripts {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let at = |name: &str| folder.path().join(name);
                symlink("/dev/stdout", at("link")).expect("a link");
                fs::write(at("rows.jsonl"), input.join("\n")).expect("it is writable");
                let output = in_shell(
                    &run_file(pipeline, &[], folder.path()),
                    script,
                    folder.path(),
                );
                let text = fs::read_to_string(at("all")).expect("it was written");
                let how = format!("{path} {script}: {output:?}\n{text}");
                let lines: Vec<&str> = text.lines().collect();
                let first = lines.iter().position(|line| line.contains(&*input[0]));
                let first = first.expect(&how);
                for (line, row) in lines[first..].iter().zip(input) {
                    assert!(line.contains(&**row), "{row}: {how}");
                }
                let rest = &lines[first + input.len()..];
                if script.contains("head") {
                    assert_eq!((lines[0], rest.last()), ("head", Some(&"tail")), "{how}");
                }
                let has_summary = rest.iter().any(|line| line.contains("out"));
                assert_eq!(has_summary, !script.contains("2>log"), "{how}");
            }
        }
    }
}

/// Whose rows cannot be taken back.
#[test]
fn a_start_from_a_checkpoint_names_the_sinks_that_write_again() {
    let file = |path: &str| format!("type = \"file\"\nformat = \"json\"\npath = \"{path}\"");
    for (sink, is_told) in [
        (file("-"), true),
        (file("/dev/stderr"), true),
        ("type = \"console\"".to_owned(), true),
        (file("out.jsonl"), false),
        ("type = \"blackhole\"".to_owned(), false),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n"));
        rows.expect("it is writable");
        let pipeline = format!("{ROWS}[sinks.again]\ninput = \"rows\"\n{sink}\n");
        for arguments in [&["--quiet"][..], &["--quiet", "--from", "1"]] {
            let output = run(&pipeline, arguments, folder.path()).output();
            let output = output.expect("it starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{sink}: {stderr}");
            let is_from = arguments.len() > 1;
            let said = "starting from checkpoint 1";
            assert_eq!(stderr.contains(said), is_from, "{sink}: {stderr}");
            let said = "is written again, by `again`";
            assert_eq!(
                stderr.contains(said),
                is_from && is_told,
                "{sink}: {stderr}"
            );
        }
    }
}

/// Who has no plugin misses no cache.
#[test]
fn a_cache_that_cannot_be_used_is_told_with_plugins_alone() {
    for (pipeline, is_told) in [
        (format!("{ROWS}{OUT}"), false),
        (misbehaving("reject"), true),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = folder.path().join("rows.jsonl");
        fs::write(&rows, format!("{GOOD}\n")).expect("it is writable");
        let mut host = run(&pipeline, &["--quiet"], folder.path());
        let output = host.env("XDG_CACHE_HOME", &rows).output();
        let output = output.expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let said = "compiled plugins are not kept";
        assert_eq!(stderr.contains(said), is_told, "{stderr}");
    }
}

/// Which has no name that its user could change.
#[test]
fn compressed_standard_input_is_not_to_be_named() {
    let gzip = "\\037\\213\\010\\000\\n\\n";
    let zstd = "\\050\\265\\057\\375\\n\\n";
    for (path, compression, script, advised) in [
        ("-", "", format!("printf '{gzip}' | \"$@\""), "gzip"),
        (
            "/dev/stdin",
            "",
            format!("printf '{zstd}' | \"$@\""),
            "zstd",
        ),
        ("-", "", format!("printf '{gzip}' >in; \"$@\" <in"), "gzip"),
        (
            "/dev/stdin",
            "",
            format!("printf '{gzip}' >in; \"$@\" <in"),
            "gzip",
        ),
        ("-", "gzip", format!("printf '{zstd}' | \"$@\""), "zstd"),
        (
            "/dev/stdin",
            "gzip",
            format!("printf '{zstd}' >in; \"$@\" <in"),
            "zstd",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut rows = ROWS.replace("rows.jsonl", path) + "format = \"json\"\n";
        if !compression.is_empty() {
            rows += &format!("compression = \"{compression}\"\n");
        }
        let direct = run(&format!("{rows}{OUT}"), &["--quiet"], folder.path());
        let output = in_shell(&direct, &script, folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let how = format!("{path} {script}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{how}");
        let advice = format!("looks like {advised}: write `compression = \"{advised}\"`");
        assert!(stderr.contains(&advice), "{how}");
    }
}

/// Neither what it was started without, nor what it has opened itself.
#[test]
fn rows_go_to_no_descriptor_that_the_run_cannot_write_to() {
    for (path, rest) in [
        ("/dev/fd/3", "3<other.jsonl"),
        ("/dev/fd/3", "3>&-"),
        ("/proc/self/fd/5", ""),
        ("/dev/fd/4000000000", ""),
        ("/dev/stdin", "<other.jsonl"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [rows, other] = ["rows.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
        for path in [&rows, &other] {
            fs::write(path, format!("{GOOD}\n")).expect("it is writable");
        }
        let sink = OUT.replace("\"out.jsonl\"", &format!("\"{path}\"\nformat = \"json\""));
        let pipeline = format!("{ROWS}{sink}");
        let output = redirected(&pipeline, "--quiet", rest, folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path} {rest}: {stderr}");
        let said = "it is not open for writing: start the run with it";
        assert!(stderr.contains(said), "{path} {rest}: {stderr}");
        assert!(!stderr.contains(", and restarts in"), "{rest}: {stderr}");
        let text = fs::read_to_string(other).expect("it is there");
        assert_eq!(text, format!("{GOOD}\n"), "{path} {rest}");
    }
}

/// Whoever has read the run's standard output is gone, be it after the first byte: the run
/// ends at once, without a complaint.
fn end_without_a_reader(pipeline: &str, reads_first: bool, folder: &Path) {
    let mut host = run_file(pipeline, &["--quiet"], folder)
        .spawn()
        .expect("it starts");
    let mut stdout = host.stdout.take().expect("a pipe");
    if reads_first {
        stdout.read_exact(&mut [0]).expect("rows");
    }
    drop(stdout);
    let output = host.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(141), "{pipeline}: {stderr}");
    assert!(
        stderr.contains("its reader is gone"),
        "{pipeline}: {stderr}"
    );
    assert!(!stderr.contains("error:"), "{pipeline}: {stderr}");
    assert!(
        !stderr.contains(", and restarts in"),
        "{pipeline}: {stderr}"
    );
}

#[test]
fn a_console_that_is_closed_ends_the_run_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let console = "[sinks.out]\ntype = \"console\"\ninput = \"rows\"\n";
    let pipeline = format!("{RESTART}{EVENTS}{console}");
    end_without_a_reader(&pipeline, false, folder.path());
}

/// The rows that nobody has read come again.
#[test]
fn a_file_of_standard_output_that_is_closed_ends_the_run_at_once() {
    for path in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sink = OUT.replace("\"out.jsonl\"", &format!("\"{path}\"\nformat = \"json\""));
        let pipeline = format!("{EVENTS}{sink}");
        end_without_a_reader(&format!("{RESTART}{pipeline}"), true, folder.path());
        let output = run(&pipeline, &["--quiet"], folder.path())
            .output()
            .expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{path}: {stderr}");
        let rows = String::from_utf8_lossy(&output.stdout);
        assert_eq!(rows.lines().count(), 30_000, "{path}");
    }
}

#[test]
fn dead_letters_that_nobody_reads_end_the_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = ROWS.replace("on_error = \"fail\"", "");
    fs::write(folder.path().join("rows.jsonl"), "broken\n").expect("it is writable");
    let pipeline = format!("dead_letters = \"/dev/stdout\"\n{RESTART}{rows}{OUT}");
    end_without_a_reader(&pipeline, false, folder.path());
}

/// The names in a folder and below, and how long files are.
fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is a folder") {
            let entry = entry.expect("it can be read");
            let metadata = fs::symlink_metadata(entry.path()).expect("it is there");
            match metadata.is_dir() {
                true => {
                    folders.push(entry.path());
                    found.push((entry.path(), 0));
                }
                false => found.push((entry.path(), metadata.len())),
            }
        }
    }
    found.sort();
    found
}

/// No row is bad here: whether dead letters can be written is tried all the same.
#[test]
fn where_dead_letters_cannot_go_no_row_is_read() {
    for path in [
        "rows.jsonl/dead.jsonl",
        "folder",
        "/proc/nothing/dead.jsonl",
        "/dev/nothing",
        "circle",
    ] {
        for checkpoints in ["", RESTART] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let rows = ROWS.replace("on_error = \"fail\"", "");
            fs::write(folder.path().join("rows.jsonl"), GOOD).expect("it is writable");
            fs::create_dir(folder.path().join("folder")).expect("it is writable");
            symlink("circle", folder.path().join("circle")).expect("a link");
            let head = checkpoints.replace("name = \"failing\"", "");
            let pipeline =
                format!("name = \"failing\"\ndead_letters = \"{path}\"\n{head}{rows}{OUT}");
            let mut host = run_file(&pipeline, &["--json"], folder.path());
            let before = tree(folder.path());
            let output = host.output().expect("it starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{path}: {stderr}");
            let expected = "error: the dead letters cannot be written to ";
            assert!(stderr.contains(expected), "{path}: {stderr}");
            assert!(!stderr.contains(", and restarts in"), "{path}: {stderr}");
            let mut after = tree(folder.path());
            let state = folder.path().join("failing.state");
            after.retain(|(path, _)| !path.starts_with(&state));
            assert_eq!(after, before, "{path}");
        }
    }
}

/// No row is bad here: somebody's file is refused before one is read.
#[test]
fn dead_letters_are_added_to_dead_letters_alone() {
    let rows = ROWS.replace("on_error = \"fail\"", "");
    let letter = "{\"pipeline\":\"p\",\"node\":\"n\",\"kind\":\"k\",\"error\":\"e\",\
                  \"panic\":null,\"payload\":null,\"row\":null}\n";
    let mixed = format!("{letter}{GOOD}\n");
    for (name, text, mode, said) in [
        (
            "dead.jsonl",
            "id,n\na,1\n",
            0o644,
            "is no file of dead letters",
        ),
        ("dead.jsonl", "hunter2", 0o600, "is no file of dead letters"),
        ("dead.jsonl", GOOD, 0o644, "is no file of dead letters"),
        ("dead.jsonl", &mixed, 0o644, "is no file of dead letters"),
        (
            "dead.jsonl",
            "\u{0}\u{1}\u{2}",
            0o644,
            "is no file of dead letters",
        ),
        (
            "dead.jsonl.aside",
            "mine",
            0o644,
            "is no file of dead letters",
        ),
        ("dead.jsonl", letter, 0o444, "it is read-only"),
    ] {
        for (head, given) in [
            (RESTART, "dead.jsonl"),
            (RESTART, "link.jsonl"),
            ("name = \"failing\"", "dead.jsonl"),
        ] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let at = |name: &str| folder.path().join(name);
            fs::write(at("rows.jsonl"), GOOD).expect("it is writable");
            fs::write(at(name), text).expect("it is writable");
            symlink("dead.jsonl", at("link.jsonl")).expect("a link");
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(at(name), permissions).expect("it is ours");
            let pipeline = format!("dead_letters = \"{given}\"\n{head}{rows}{OUT}");
            let output = run_file(&pipeline, &["--quiet"], folder.path()).output();
            let output = output.expect("it starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            let what = format!("{name} {text:?} {given}: {stderr}");
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert!(stderr.contains(said), "{what}");
            assert!(
                stderr.contains("`dead_letters` gives them another"),
                "{what}"
            );
            assert!(!stderr.contains(", and restarts in"), "{what}");
            let found = fs::read_to_string(at(name)).expect("it is there");
            assert_eq!(found, text, "{what}");
            assert!(
                !at("out.jsonl").exists() && !at("out.jsonl.part").exists(),
                "{what}"
            );
        }
    }
}

/// What happens to the file while a run with checkpoints writes it.
#[test]
fn dead_letters_go_where_they_are_looked_for() {
    let (folder, mut host, mut client) = listen("fields = { id = \"utf8\" }");
    let at = |name: &str| folder.path().join(name);
    let dead = at("failing.dead.jsonl");
    let mut send = |bad: &str| {
        let row = format!("{bad}\n");
        client.write_all(row.as_bytes()).expect("it listens");
    };
    let wait_for = |bad: &str| {
        let until = Instant::now() + Duration::from_secs(30);
        let is_there = || fs::read_to_string(&dead).is_ok_and(|text| text.contains(bad));
        while !is_there() {
            assert!(Instant::now() < until, "{bad} is not there");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    send("first");
    wait_for("first");
    fs::rename(&dead, at("rotated.jsonl")).expect("it is there");
    send("second");
    wait_for("second");
    let rotated = fs::read_to_string(at("rotated.jsonl")).expect("it is there");
    assert_eq!(rotated.lines().count(), 1, "{rotated}");
    fs::remove_file(&dead).expect("it is there");
    send("third");
    wait_for("third");
    let text = fs::read_to_string(&dead).expect("it is there");
    assert_eq!(text.lines().count(), 1, "{text}");
    // Somebody's file.
    fs::remove_file(&dead).expect("it is there");
    fs::write(&dead, "id,n\na,1").expect("it is writable");
    send("fourth");
    let ended = host.wait().expect("it is our child");
    let mut stderr = String::new();
    let said = host
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut stderr);
    said.expect("it is text");
    assert_eq!(ended.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is no file of dead letters"), "{stderr}");
    assert!(!stderr.contains(", and restarts in"), "{stderr}");
    let text = fs::read_to_string(&dead).expect("it is there");
    assert_eq!(text, "id,n\na,1");
}

/// One signal ends a run that waits for the reader of a pipe, and says so once.
#[test]
fn a_pipe_without_a_reader_is_waited_for_until_a_signal() {
    let bad = ROWS.replace("on_error = \"fail\"", "");
    let to_pipe = to_file("pipe");
    let letters = format!("{bad}{OUT}");
    for (head, pipeline, text, code) in [
        ("", &to_pipe, GOOD, 0),
        ("[checkpoints]\n", &to_pipe, GOOD, 0),
        // Without their dead letters, rows are not done with.
        ("dead_letters = \"pipe\"\n", &letters, "broken", 1),
        (
            "dead_letters = \"pipe\"\n[checkpoints]\n",
            &letters,
            "broken",
            1,
        ),
    ] {
        for number in [Some(libc::SIGINT), Some(libc::SIGTERM), None] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let pipe = folder.path().join("pipe");
            let made = Command::new("mkfifo").arg(&pipe).status();
            assert!(made.expect("it is there").success());
            fs::write(folder.path().join("rows.jsonl"), format!("{text}\n")).expect("a file");
            let pipeline = format!("name = \"waiting\"\n{head}{pipeline}");
            let host = run_file(&pipeline, &["--quiet"], folder.path()).spawn();
            let mut host = host.expect("it starts");
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(host.try_wait().expect("our child"), None, "{pipeline}");
            let asked = Instant::now();
            let mut read = String::new();
            match number {
                Some(number) => signal::send(&host, number),
                None => {
                    let mut reader = File::open(&pipe).expect("a pipe");
                    reader.read_to_string(&mut read).expect("it is text");
                }
            }
            let output = host.wait_with_output().expect("it ends");
            let stderr = String::from_utf8_lossy(&output.stderr);
            let code = match number {
                Some(_) => code,
                // All rows were bad.
                None => 3 * code,
            };
            assert_eq!(output.status.code(), Some(code), "{pipeline}: {stderr}");
            assert!(asked.elapsed() < Duration::from_secs(5), "{stderr}");
            assert_eq!(
                stderr.matches("nobody reads the pipe").count(),
                1,
                "{stderr}"
            );
            assert_eq!(
                read.lines().count(),
                usize::from(number.is_none()),
                "{read}"
            );
            assert_eq!(
                folder.path().join("out.jsonl").exists(),
                code == 3,
                "{stderr}"
            );
        }
    }
}

/// Somebody has it open, and reads nothing.
#[test]
fn a_full_pipe_is_not_waited_for_after_a_signal() {
    let endless = "[sources.rows]\ntype = \"generator\"\n";
    let to = |sink: &str| format!("{endless}[sinks.out]\ninput = \"rows\"\n{sink}\n");
    let bad = ROWS.replace("on_error = \"fail\"", "");
    for (pipeline, head) in [
        (
            to("type = \"file\"\nformat = \"json\"\npath = \"pipe\""),
            "",
        ),
        (
            to("type = \"file\"\nformat = \"csv\"\npath = \"-\""),
            "[checkpoints]\n",
        ),
        (
            to("type = \"file\"\nformat = \"json\"\npath = \"/dev/stdout\""),
            "",
        ),
        (to("type = \"console\""), ""),
        (format!("{bad}{OUT}"), "dead_letters = \"-\"\n"),
        (
            format!("{bad}{OUT}"),
            "dead_letters = \"pipe\"\n[checkpoints]\n",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("it is there").success());
        let _reader = File::options().read(true).write(true).open(&pipe);
        fs::write(folder.path().join("rows.jsonl"), "bad\n".repeat(10_000)).expect("a file");
        let pipeline = format!("name = \"full\"\n{head}{pipeline}");
        let host = run_file(&pipeline, &["--quiet"], folder.path()).spawn();
        let mut host = host.expect("it starts");
        let _stdout = host.stdout.take();
        std::thread::sleep(Duration::from_millis(2_000));
        assert_eq!(host.try_wait().expect("our child"), None, "{pipeline}");
        let asked = Instant::now();
        signal::send(&host, libc::SIGINT);
        let output = host.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{pipeline}: {stderr}");
        assert!(
            stderr.contains("nobody reads what was written"),
            "{pipeline}: {stderr}"
        );
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "{pipeline}: {stderr}"
        );
    }
}

#[test]
fn dead_letters_go_to_standard_output_alone() {
    let bad = ROWS.replace("on_error = \"fail\"", "");
    let console = "[sinks.out]\ninput = \"rows\"\ntype = \"console\"\n";
    let printed = OUT.replace("\"out.jsonl\"", "\"-\"\nformat = \"json\"");
    for path in ["-", "/dev/stdout", "/dev/fd/1"] {
        for (sink, arguments, code, said) in [
            (
                OUT,
                "--quiet",
                3,
                "1 row became a dead letter in /dev/stdout",
            ),
            (OUT, "--json", 2, "the dead letters go there too"),
            (console, "--quiet", 2, "would be mixed on standard output"),
            (&printed, "--quiet", 2, "would be mixed on standard output"),
        ] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join("rows.jsonl"), "broken\n").expect("it is writable");
            let pipeline = format!("name = \"failing\"\ndead_letters = \"{path}\"\n{bad}{sink}");
            let output = run_file(&pipeline, &[arguments], folder.path()).output();
            let output = output.expect("it starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{path} {sink}: {stderr}");
            assert!(stderr.contains(said), "{path} {sink}: {stderr}");
            let letters = String::from_utf8_lossy(&output.stdout);
            let is_written = letters.contains("\"payload\":\"broken");
            assert_eq!(is_written, code == 3, "{letters}");
            assert!(!folder.path().join("-").exists());
        }
    }
}

/// What a shell has redirected is the user's, whatever is in it.
#[test]
fn dead_letters_go_behind_what_standard_output_has() {
    let bad = ROWS.replace("on_error = \"fail\"", "");
    for head in ["", "[checkpoints]\n"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("rows.jsonl"), "broken\nworse\n").expect("it is writable");
        fs::write(at("log"), "as it was").expect("it is writable");
        let log = File::options().append(true).open(at("log"));
        let pipeline = format!("name = \"failing\"\ndead_letters = \"-\"\n{head}{bad}{OUT}");
        let mut host = run_file(&pipeline, &["--quiet"], folder.path());
        let host = host.stdout(log.expect("it is there")).spawn();
        let output = host
            .expect("it starts")
            .wait_with_output()
            .expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        let text = fs::read_to_string(at("log")).expect("it is there");
        assert!(
            text.starts_with("as it was{\"pipeline\":\"failing\""),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}

#[test]
fn without_dead_letters_their_place_is_as_it_was() {
    let rows = ROWS.replace("on_error = \"fail\"", "");
    for path in ["dead.jsonl", "new/deep/dead.jsonl", "there.jsonl", "pipe"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("rows.jsonl"), GOOD).expect("it is writable");
        fs::write(at("out.jsonl"), "").expect("it is writable");
        // A line that has no end yet.
        fs::write(at("there.jsonl"), "{\"pipeline\":\"good\",").expect("it is writable");
        let made = Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.expect("it is there").success());
        let changed = |name: &str| {
            let found = fs::symlink_metadata(at(name)).expect("it is there");
            (found.ino(), found.mtime_nsec())
        };
        let was = changed("there.jsonl");
        let pipeline = format!("name = \"good\"\ndead_letters = \"{path}\"\n{rows}{OUT}");
        let mut host = run_file(&pipeline, &["--quiet"], folder.path());
        let before = tree(folder.path());
        let output = host.output().expect("it starts");
        assert!(output.status.success(), "{path}: {output:?}");
        assert_eq!(
            fs::read_to_string(at("out.jsonl")).ok(),
            Some(format!("{GOOD}\n"))
        );
        fs::write(at("out.jsonl"), "").expect("it is writable");
        assert_eq!(tree(folder.path()), before, "{path}");
        assert_eq!(changed("there.jsonl"), was, "{path}");
    }
}

/// What stands for a file on a disk that is full.
fn full_disk() -> File {
    let full = File::options().write(true).open("/dev/full");
    full.expect("it is a device of Linux")
}

/// What keeps no rows, or would be destroyed by them, is refused before a row is read.
#[test]
fn dead_letters_do_not_go_to_disks_and_files_of_the_system() {
    let source = ROWS.replace("on_error = \"fail\"", "");
    for (path, said) in [
        ("/dev/full", "it is a device that is always full"),
        ("/proc/self/mem", "it is a file of the system"),
        ("/proc/self/comm", "it is a file of the system"),
        ("/dev/loop0", "it is a disk (a block device)"),
        ("/dev/mem", "it is the memory of the machine"),
    ] {
        if !Path::new(path).exists() {
            continue;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("rows.jsonl"), "broken\n").expect("it is writable");
        let pipeline = format!("dead_letters = \"{path}\"\n{RESTART}\n{source}{OUT}");
        let output = run_file(&pipeline, &["--json"], folder.path()).output();
        let output = output.expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path}: {stderr}");
        let expected = format!("the dead letters cannot be written to {path}: {said}");
        assert!(stderr.contains(&expected), "{path}: {stderr}");
        assert!(!stderr.contains("restarts in"), "{path}: {stderr}");
        assert!(!folder.path().join("out.jsonl").exists(), "{path}");
    }
}

/// A disk that is full may be so for a while only.
#[test]
fn no_output_is_complete_without_its_dead_letters() {
    let source = ROWS.replace("on_error = \"fail\"", "");
    let checked = r#"
        [operators.checked]
        filter = "n * 2 > 0"
        input = "rows"
        [sinks.kept]
        type = "file"
        input = "checked"
        path = "kept.jsonl"
        "#;
    let good = format!("{GOOD}\n").repeat(5_000);
    let overflowing = format!("{{\"id\":\"large\",\"n\":{}}}\n", i64::MAX);
    for bad in ["broken\n", &overflowing] {
        // It comes first, in the middle, and last.
        let lines = [
            format!("{bad}{good}"),
            format!("{good}{bad}{good}"),
            format!("{good}{bad}"),
        ];
        for (lines, checkpoints) in lines.iter().zip([false, true, false].iter().cycle()) {
            for size in [1, 4096] {
                let folder = tempfile::tempdir().expect("a temporary folder");
                for part in ["rows-1.jsonl", "rows-2.jsonl"] {
                    fs::write(folder.path().join(part), lines).expect("it is writable");
                }
                let head = match checkpoints {
                    true => RESTART,
                    false => "name = \"failing\"",
                };
                let pipeline = format!(
                    "dead_letters = \"/dev/stdout\"\nparallelism = 2\nbatch_rows = {size}\n\
                     {head}\n{source}{OUT}{checked}"
                );
                let pipeline = pipeline.replace("\"rows.jsonl\"", "\"rows-*.jsonl\"");
                let output = run_file(&pipeline, &["--quiet"], folder.path())
                    .stdout(full_disk())
                    .output()
                    .expect("it starts");
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{stderr}");
                let expected = "the dead letters cannot be written to /dev/stdout: No space left";
                assert!(stderr.contains(expected), "{stderr}");
                assert!(stderr.contains("may pass"), "{stderr}");
                let restarts = stderr.matches(", and restarts in").count();
                assert_eq!(restarts, if *checkpoints { 2 } else { 0 }, "{stderr}");
                for name in ["out.jsonl", "kept.jsonl"] {
                    assert!(!folder.path().join(name).exists(), "{name}: {stderr}");
                }
            }
        }
    }
}

/// Numbered files get their names while the run goes on.
#[test]
fn no_numbered_file_is_complete_behind_a_dead_letter_that_is_lost() {
    let source = ROWS.replace("on_error = \"fail\"", "");
    let sink = format!("{OUT}roll = {{ size = \"1KiB\" }}\n");
    for size in [1, 4096] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lines = format!("broken\n{}", format!("{GOOD}\n").repeat(50_000));
        fs::write(folder.path().join("rows.jsonl"), lines).expect("it is writable");
        let pipeline = format!(
            "name = \"failing\"\ndead_letters = \"/dev/stdout\"\nbatch_rows = {size}\n\
             {source}{sink}"
        );
        let output = run_file(&pipeline, &["--quiet"], folder.path())
            .stdout(full_disk())
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let named = |(path, _): &(PathBuf, u64)| path.ends_with("out-000001.jsonl");
        assert!(!tree(folder.path()).iter().any(named), "of {size}");
    }
}

/// An output waits for the dead letters of what ends with its own sources, and for
/// nothing else.
#[test]
fn an_output_is_complete_while_another_source_has_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(
        folder.path().join("rows.jsonl"),
        format!("{GOOD}\nbroken\n"),
    )
    .expect("a file");
    let rows = ROWS.replace("on_error = \"fail\"", "");
    let address = free_address();
    let pipeline = format!(
        r#"
        name = "failing"
        {rows}
        {OUT}
        [sources.endless]
        type = "tcp"
        listen = "{address}"
        fields = {{ id = "utf8", n = "int64" }}
        [operators.both]
        filter = "n > 0"
        input = ["rows", "endless"]
        [sinks.more]
        type = "file"
        input = "both"
        path = "more.jsonl"
        "#
    );
    let host = run_file(&pipeline, &["--quiet"], folder.path()).spawn();
    let mut host = host.expect("it starts");
    let until = Instant::now() + Duration::from_secs(30);
    while !folder.path().join("out.jsonl").exists() {
        let ended = host.try_wait().expect("a state");
        assert!(ended.is_none() && Instant::now() < until, "{ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let dead = fs::read_to_string(folder.path().join("failing.dead.jsonl"));
    assert_eq!(dead.expect("it was written").lines().count(), 1);
    assert!(!folder.path().join("more.jsonl").exists());
    signal::send(&host, libc::SIGTERM);
    assert!(host.wait().expect("it is our child").success());
}

/// Where no checkpoint outlives the process, every start is without one.
#[test]
fn only_where_checkpoints_stay_it_is_advised_to_drop_them() {
    let in_memory = format!("{RESTART}[state]\nbackend = \"memory\"\n");
    for (head, expected) in [
        (RESTART, "`sluicebox run --drop rows/rows.jsonl`) to read"),
        (&in_memory, "or start the pipeline again to read it"),
        (
            "name = \"failing\"",
            "or start the pipeline again to read it",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = folder.path().join("rows.jsonl");
        fs::write(&rows, format!("{GOOD}\n").repeat(100_000)).expect("it is writable");
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("it is there").success());
        let sink = OUT.replace("out.jsonl\"", "pipe\"\nformat = \"json\"");
        let pipeline = format!("batch_rows = 10\n{head}{ROWS}{sink}");
        let host = run_file(&pipeline, &["--quiet"], folder.path()).spawn();
        let host = host.expect("it starts");
        // It waits for its reader, and so it has not read everything.
        let mut reader = File::open(&pipe).expect("a pipe");
        reader.read_exact(&mut [0]).expect("rows");
        fs::write(&rows, "short\n").expect("it is writable");
        reader.read_to_end(&mut Vec::new()).expect("rows");
        let output = host.wait_with_output().expect("it is our child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("put back the one that was read"),
            "{stderr}"
        );
        assert!(stderr.contains(expected), "{stderr}");
        let advised = stderr.contains("--drop");
        assert_eq!(advised, expected.contains("--drop"), "{stderr}");
    }
}

#[test]
fn parquet_for_each_checkpoint_is_not_for_standard_output() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), GOOD).expect("it is writable");
    let sink = OUT.replace("\"out.jsonl\"", "\"-\"\nformat = \"parquet\"");
    let output = run(&format!("{ROWS}{sink}"), &["--quiet"], folder.path())
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a Parquet file of its own"), "{stderr}");
    assert!(!stderr.contains(", and restarts in"), "{stderr}");
}

#[test]
fn a_second_signal_ends_a_run_whose_log_nobody_reads() {
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    let set_blocking = |blocks: bool| {
        let flags = if blocks { 0 } else { libc::O_NONBLOCK };
        // SAFETY: the pipe is open, and these are flags that it has.
        let set = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) };
        assert_eq!(set, 0);
    };
    set_blocking(false);
    while (&writer).write(b"x").is_ok() {}
    set_blocking(true);
    writer.flush().expect("nothing is buffered");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let endless = "name = \"endless\"\n[sources.rows]\ntype = \"generator\"\nrate = 200\n";
    let sink = "[sinks.out]\ntype = \"file\"\npath = \"out.jsonl\"\ninput = \"rows\"\n";
    let mut host = run_file(&format!("{endless}{sink}"), &["--quiet"], folder.path());
    let mut host = host.stderr(writer).spawn().expect("it starts");
    let part = folder.path().join("out.jsonl.part");
    let until = Instant::now() + Duration::from_secs(30);
    while !part.exists() {
        assert!(Instant::now() < until, "it never begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    while host.try_wait().expect("our child").is_none() {
        if Instant::now() > until {
            host.kill().expect("our child");
            panic!("no signal ends it");
        }
        signal::send(&host, libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_full_stderr_is_no_crash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let full = File::options().write(true).open("/dev/full");
    let wrong = run("[sinks.out]", &[], folder.path())
        .stderr(full.expect("Linux has it"))
        .status()
        .expect("it starts");
    assert_eq!(wrong.code(), Some(2));
}

/// So are scripts told that they have no help and no version.
#[test]
fn help_that_cannot_be_printed_is_a_failure() {
    for (rest, code, said) in [
        (
            "--help >/dev/full",
            1,
            "error: cannot print to standard output: No space left",
        ),
        ("run --help >/dev/full", 1, "No space left"),
        ("--version >/dev/full", 1, "No space left"),
        ("--version >&-", 1, "standard output is closed"),
        ("--help >/dev/null", 0, ""),
        ("--version | true", 0, ""),
        ("--wrong", 2, "--wrong"),
        ("", 2, "Usage"),
        ("--wrong 2>/dev/full", 2, ""),
    ] {
        let script = format!("set -o pipefail; \"$0\" {rest}");
        let output = Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_sluicebox")])
            .output()
            .expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{rest}: {stderr}");
        assert!(stderr.contains(said), "{rest}: {stderr}");
    }
}

/// Endpoints of stores with which requests cannot even be made.
#[test]
fn an_endpoint_that_cannot_be_used_is_refused_by_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), "").expect("it is writable");
    let keys = "aws_access_key_id = \"a\", aws_secret_access_key = \"b\"";
    for (options, variable, said) in [
        (
            ", endpoint = \"nonsense\"",
            None,
            "the option `endpoint` is no address",
        ),
        (
            ", endpoint = \"http://store\"",
            None,
            "`allow_http = \"true\"`",
        ),
        (
            "",
            Some(("AWS_ENDPOINT", "localhost:9000")),
            "AWS_ENDPOINT is no address",
        ),
        (
            "",
            Some(("AWS_ENDPOINT_URL", "")),
            "AWS_ENDPOINT_URL is no address",
        ),
        (
            "",
            Some(("AWS_ENDPOINT_URL_S3", "ftp://store")),
            "AWS_ENDPOINT_URL_S3 is no address",
        ),
        (
            "",
            Some(("AWS_REGION", "no such")),
            "AWS_REGION is no region",
        ),
        (
            ", endpoint = \"https://store\"",
            Some(("AWS_ENDPOINT", "nonsense")),
            "",
        ),
    ] {
        let pipeline = format!(
            "name = \"copied\"\n[state]\n[checkpoints.upload]\nurl = \"s3://bucket\"\n\
             options = {{ {keys}{options} }}\n{ROWS}{OUT}"
        );
        let path = folder.path().join("pipeline.toml");
        fs::write(&path, pipeline).expect("it is writable");
        let output = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .arg("check")
            .arg(&path)
            .envs(variable)
            .output()
            .expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = if said.is_empty() { 0 } else { 2 };
        assert_eq!(
            output.status.code(),
            Some(code),
            "{options} {variable:?}: {stderr}"
        );
        // Messages are wrapped in a frame.
        let words: Vec<&str> = stderr.split([' ', '\n', '│', '×', '╰', '─']).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        assert!(
            words.join(" ").contains(said),
            "{options} {variable:?}: {stderr}"
        );
    }
}

/// A store for copies that takes connections and answers nothing.
#[test]
fn a_silent_store_holds_no_rows_up_where_there_is_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n")).expect("it is writable");
    let before = format!("name = \"copied\"\n[state]\n[checkpoints]\n{ROWS}{OUT}");
    let ended = run_file(&before, &["--quiet"], folder.path()).output();
    assert!(ended.expect("it starts").status.success());

    let store = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = store.local_addr().expect("an address");
    std::thread::spawn(move || Vec::from_iter(store.incoming()));
    let upload = format!(
        "[checkpoints]\n[checkpoints.upload]\nurl = \"s3://bucket\"\noptions = {{ endpoint = \
         \"http://{address}\", allow_http = \"true\", aws_access_key_id = \"a\", \
         aws_secret_access_key = \"b\", region = \"r\" }}\n"
    );
    let more = format!("{GOOD}\n").repeat(1_000);
    fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n{more}")).expect("it is writable");
    let began = Instant::now();
    let pipeline = before.replace("[checkpoints]\n", &upload);
    let host = run_file(&pipeline, &["--json"], folder.path()).spawn();
    let mut host = host.expect("it starts");
    let lines = BufReader::new(host.stdout.take().expect("it is piped")).lines();
    let has_rows =
        |line: std::io::Result<String>| line.is_ok_and(|it| it.contains("\"rows_out\":1000"));
    let have_come = lines.into_iter().any(has_rows);
    let waited = began.elapsed();
    // It would wait for its last copy.
    host.kill().expect("it runs");
    let output = host.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(have_come, "{said}");
    assert!(waited < Duration::from_secs(30), "{waited:?}: {said}");
    assert!(
        said.contains("does not answer: starting from a checkpoint that is here"),
        "{said}"
    );
}

#[test]
fn what_an_error_quotes_does_not_reach_the_terminal_raw() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let row = "{\"id\":\"\u{1b}]0;owned\u{7}\",\"n\":\"\u{1b}[2J\"}";
    fs::write(folder.path().join("rows.jsonl"), format!("{row}\n")).expect("it is writable");
    let output = run(&format!("{ROWS}{OUT}"), &["--quiet"], folder.path())
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains(['\u{1b}', '\u{7}']), "{stderr:?}");
}

#[test]
fn secrets_are_not_quoted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipeline = r#"
        [sources.rows]
        type = "kafka"
        brokers = "127.0.0.1:1"
        topic = "rows"
        properties = { "sasl.pasword" = "hunter2", "linger.ms" = true }
        fields = { id = "utf8" }
        "#;
    let output = run(&format!("{pipeline}{OUT}"), &["--quiet"], folder.path())
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("sasl.pasword"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn only_the_owner_can_read_states_and_dead_letters() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = ROWS.replace("on_error = \"fail\"", "");
    fs::write(folder.path().join("rows.jsonl"), "broken\n").expect("it is writable");
    let output = run(&format!("{rows}{OUT}"), &["--quiet"], folder.path())
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for name in ["failing.dead.jsonl", "failing.state"] {
        let found = fs::metadata(folder.path().join(name)).expect(name);
        assert_eq!(found.permissions().mode() & 0o077, 0, "{name}");
    }
}

/// Runs a pipeline without checkpoints on these rows: its exit code, and what it
/// says on stderr.
fn said(pipeline: &str, rows: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), rows).expect("it is writable");
    let pipeline = format!("name = \"bad\"\n{pipeline}");
    let output = run_file(&pipeline, arguments, folder.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn bad_rows_are_told_of_at_the_end() {
    let pipeline = format!("{ROWS}{OUT}").replace("on_error = \"fail\"", "");
    let good = "{\"id\":\"fine\",\"n\":2}\n";
    let bad = "{\"id\":\"worse\",\"n\":\"two\"}\n";
    for arguments in [&["--quiet"][..], &[]] {
        let (code, text) = said(&pipeline, good, arguments);
        assert_eq!(code, Some(0), "{text}");
        assert!(!text.contains("dead letter"), "{text}");

        let (code, text) = said(&pipeline, &format!("{good}{bad}{bad}"), arguments);
        assert_eq!(code, Some(0), "{text}");
        let line = text.lines().find(|line| line.contains("dead letters"));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        for expected in [
            "2 rows became dead letters in ",
            "/bad.dead.jsonl; the first: decode: ",
        ] {
            assert!(line.contains(expected), "{line}");
        }

        let (code, text) = said(&pipeline, &bad.repeat(3), arguments);
        assert_eq!(code, Some(3), "{text}");
        assert!(
            text.contains("all 3 rows that were read were bad"),
            "{text}"
        );
        assert!(text.contains("3 rows became dead letters in "), "{text}");
    }
    let (code, text) = said(&pipeline, "", &["--quiet"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));
}

#[test]
fn other_units_that_are_read_as_ms_are_told_of() {
    let pipeline = r#"
        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        event_time = "ts"
        fields = { ts = "TYPE" }
        [sinks.out]
        type = "blackhole"
        input = "rows"
    "#;
    let rows = "{\"ts\":1700000000}\n{\"ts\":1700000060}\n".repeat(5_000);
    let (code, text) = said(&pipeline.replace("TYPE", "timestamp"), &rows, &["-q"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.matches("timestamp(s)").count(), 1, "{text}");
    assert!(text.contains("field `ts` are in 1970"), "{text}");
    let (code, text) = said(&pipeline.replace("TYPE", "timestamp(s)"), &rows, &["-q"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));

    // Smaller units are too far ahead, or no time at all.
    for (type_name, digits, expected) in [
        (
            "timestamp(us)",
            "000000",
            "microseconds, as those of 2023-11-14T22:13:20Z",
        ),
        (
            "timestamp(ns)",
            "000000000",
            "nanoseconds, as those of 2023-11-14T22:13:20Z",
        ),
        (
            "timestamp(us)",
            "00000",
            "microseconds, as those of 1975-05-22T14:13:20Z",
        ),
    ] {
        let rows = format!("{{\"ts\":1700000000{digits}}}\n");
        let (_, text) = said(&pipeline.replace("TYPE", "timestamp"), &rows, &["-q"]);
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(type_name), "{text}");
        let (code, text) = said(&pipeline.replace("TYPE", type_name), &rows, &["-q"]);
        assert_eq!((code, text.as_str()), (Some(0), ""));
    }

    // Nor are other units read as smaller ones in silence.
    for (read, number, meant) in [
        ("timestamp(us)", "1700000000", "timestamp(s)"),
        ("timestamp(us)", "1700000000000", "timestamp(ms)"),
        ("timestamp(ns)", "1700000000", "timestamp(s)"),
        ("timestamp(ns)", "1700000000000", "timestamp(ms)"),
        ("timestamp(ns)", "1700000000000000", "timestamp(us)"),
        ("timestamp(s)", "1700000000000", "timestamp(ms)"),
        ("timestamp(ms)", "1700000000", "timestamp(s)"),
    ] {
        let rows = format!("{{\"ts\":{number}}}\n").repeat(5_000);
        let (_, text) = said(&pipeline.replace("TYPE", read), &rows, &["-q"]);
        assert_eq!(text.matches(meant).count(), 1, "{read}, {number}: {text}");
    }
}

#[test]
fn times_that_are_cut_to_ms_are_told_of_once() {
    let pipeline = r#"
        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        fields = { ts = "timestamp" }
        [sinks.out]
        type = "blackhole"
        input = "rows"
    "#;
    let rows = "{\"ts\":\"2024-01-01T10:00:00.123456Z\"}\n{\"ts\":1704103200123.75}\n";
    let rows = rows.repeat(5_000);
    let read = "`2024-01-01T10:00:00.123456Z` of field `ts` was read as 2024-01-01T10:00:00.123Z";
    for arguments in [&["-q"][..], &[]] {
        let (code, text) = said(pipeline, &rows, arguments);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(
            text.matches("source `rows`: times are kept").count(),
            1,
            "{text}"
        );
        assert!(
            text.contains("10000 times of rows had more digits"),
            "{text}"
        );
        assert_eq!(text.matches(read).count(), 2, "{text}");
    }
    let exact = "{\"ts\":\"2024-01-01T10:00:00.123000Z\"}\n{\"ts\":1.7041032e12}\n";
    assert_eq!(said(pipeline, exact, &["-q"]), (Some(0), String::new()));
}

#[test]
fn rows_and_progress_do_not_mix_on_stdout() {
    for sink in [
        "type = \"console\"",
        "type = \"file\"\nformat = \"json\"\npath = \"-\"",
    ] {
        let pipeline = format!("{ROWS}[sinks.out]\ninput = \"rows\"\n{sink}\n");
        let (code, text) = said(&pipeline, "", &["--json"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains("sink `out` writes its rows there too"),
            "{text}"
        );
        let (code, text) = said(&pipeline, "", &["-q"]);
        assert_eq!(code, Some(0), "{text}");
    }
}

/// Whose lines would be mixed.
#[test]
fn sinks_do_not_share_a_pipe_or_a_device() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    fs::write(here.join("rows.jsonl"), "").expect("it is writable");
    let made = Command::new("mkfifo").arg(here.join("pipe")).status();
    assert!(made.expect("it is there").success());
    symlink("/dev/stdout", here.join("link")).expect("a link");
    let console = "type = \"console\"".to_owned();
    let file = |path: &str| format!("type = \"file\"\nformat = \"json\"\npath = \"{path}\"");
    for (one, other, is_refused) in [
        (file("-"), file("-"), true),
        (file("-"), file("/dev/stdout"), true),
        (file("/dev/fd/1"), file("/proc/self/fd/1"), true),
        (file("link"), file("-"), true),
        (file("/dev/stderr"), file("/dev/stderr"), true),
        (file("pipe"), file("./pipe"), true),
        (file("-"), console.clone(), true),
        (console.clone(), file("/dev/stdout"), true),
        (console.clone(), console.clone(), false),
        (console, file("/dev/stderr"), false),
        (file("-"), file("/dev/stderr"), false),
        (file("/dev/null"), file("/dev/null"), false),
    ] {
        let pipeline = format!(
            "name = \"p\"\n{ROWS}[sinks.one]\ninput = \"rows\"\n{one}\n\
             [sinks.other]\ninput = \"rows\"\n{other}\n"
        );
        fs::write(here.join("pipeline.toml"), pipeline).expect("it is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        let checked = command.arg("check").arg(here.join("pipeline.toml"));
        let output = checked.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let how = format!("{one}\n{other}\n{said}");
        assert_eq!(
            output.status.code(),
            Some(if is_refused { 2 } else { 0 }),
            "{how}"
        );
        assert_eq!(said.contains("used twice"), is_refused, "{how}");
    }
}

/// Also where it is so with what is added to it only.
#[test]
fn a_name_that_is_too_long_is_a_mistake() {
    let n = |length: usize| "n".repeat(length);
    let to = |path: &str, more: &str| {
        let path = format!("\"{path}\"\nformat = \"json\"\n{more}");
        format!(
            "name = \"long\"\n{ROWS}{}",
            OUT.replace("\"out.jsonl\"", &path)
        )
    };
    let letters = |path: &str| {
        let rows = ROWS.replace("on_error = \"fail\"", "");
        format!("name = \"long\"\ndead_letters = \"{path}\"\n{rows}{OUT}")
    };
    let state = |path: &str| format!("name = \"long\"\n[state]\npath = \"{path}\"\n{ROWS}{OUT}");
    let roll = "roll = { size = \"1KiB\" }";
    for (pipeline, is_too_long) in [
        (to(&n(255), ""), true),
        (to(&n(251), ""), true),
        (to(&n(250), ""), false),
        (to(&"\u{e9}".repeat(126), ""), true),
        (to(&format!("{}/out", n(256)), ""), true),
        (to(&format!("new/{}/out", n(256)), ""), true),
        (to(&format!("new/{}", n(250)), ""), false),
        (to(&n(250), roll), true),
        (letters(&n(255)), true),
        // What is put aside could not have its name.
        (letters(&n(250)), true),
        (letters(&format!("new/{}", n(250))), true),
        (letters(&format!("new/{}/dead.jsonl", n(256))), true),
        (letters(&n(249)), false),
        (state(&n(256)), true),
        (state(&n(255)), false),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("rows.jsonl"), GOOD).expect("it is writable");
        let output = run_file(&pipeline, &["-q"], folder.path()).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let code = if is_too_long { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{pipeline}: {said}");
        let is_said = said.contains("a name is too long for the file system");
        assert_eq!(is_said, is_too_long, "{pipeline}: {said}");
    }
}

#[test]
fn long_names_on_the_command_line_are_not_repeated_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), GOOD).expect("it is writable");
    let name = "n".repeat(100_000);
    for option in ["--drop", "--from"] {
        for _ in 0..2 {
            let pipeline = format!("{ROWS}{OUT}");
            let output = run(&pipeline, &["-q", option, &name], folder.path()).output();
            let output = output.expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{option}: {}", said.len());
            assert!(said.len() < 2_000, "{option}: {}", said.len());
            assert!(said.contains("nnn"), "{option}: {said}");
            // With a checkpoint, and without.
            let output = run(&pipeline, &["-q"], folder.path()).output();
            output.expect("it starts");
        }
    }
}

/// Starts this command where little is allowed.
fn limited(limit: &str, run: &Command) -> Command {
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(format!("{limit}; exec \"$0\" \"$@\""));
    command.arg(run.get_program()).args(run.get_args());
    command
}

/// No time makes it go well.
#[test]
fn too_few_open_files_end_a_run_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n")).expect("it is writable");
    let pipeline = run(&format!("{ROWS}{OUT}"), &[], folder.path());
    let output = limited("ulimit -n 15", &pipeline)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Too many open files"), "{said}");
    assert!(
        said.contains("may have 15 files and connections open"),
        "{said}"
    );
    assert!(!said.contains(", and restarts in"), "{said}");
}

/// As a run is that fails later.
#[test]
fn a_state_that_cannot_be_opened_for_a_while_is_tried_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rows.jsonl"), format!("{GOOD}\n")).expect("it is writable");
    let pipeline = run(&format!("{ROWS}{OUT}"), &[], folder.path());
    let limit = "trap '' XFSZ; ulimit -f 0";
    let output = limited(limit, &pipeline).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert_eq!(said.matches(", and restarts in").count(), 2, "{said}");
}

/// It is a mistake of whoever starts them, and one of them would wait for the other.
#[test]
fn what_another_run_uses_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    let endless = "[sources.rows]\ntype = \"generator\"\nrate = 200\n";
    let mut first = run(&format!("{endless}{OUT}"), &["-q"], here);
    let mut first = first.stderr(Stdio::null()).spawn().expect("it starts");
    let until = Instant::now() + Duration::from_secs(60);
    while !here.join("out.jsonl.part").exists() {
        assert!(Instant::now() < until, "it writes nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (name, used) in [
        ("failing", "keeps its state in"),
        ("other", "another run is writing it"),
    ] {
        let text =
            format!("{RESTART}{endless}{OUT}").replace("\"failing\"", &format!("\"{name}\""));
        let path = here.join("second.toml");
        fs::write(&path, text).expect("it is writable");
        let mut second = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        let output = second
            .args(["run", "-q"])
            .arg(&path)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(used), "{said}");
        assert!(!said.contains(", and restarts in"), "{said}");
    }
    first.kill().expect("it runs");
    first.wait().expect("it is our child");
}

/// A name of a megabyte is not printed as a whole.
#[test]
fn messages_about_long_names_are_short() {
    let name = "n".repeat(1 << 20);
    let pipeline =
        format!("{ROWS}[sinks.{name}]\ntype = \"file\"\npath = \"{name}\"\ninput = \"{name}s\"\n");
    let (code, text) = said(&pipeline, "", &[]);
    assert_eq!(code, Some(2));
    assert!(text.len() < 20_000, "{} bytes", text.len());
    assert!(text.contains("nnn…"), "{text}");
}

/// Files of sinks, and what else their tables have.
const FILES: [(&str, &str); 7] = [
    ("out.jsonl", ""),
    ("out.csv", ""),
    ("out.jsonl.gz", ""),
    ("out.csv.zst", ""),
    ("out.parquet", ""),
    ("out.jsonl", "roll = { size = \"20KiB\" }"),
    ("out.csv.gz", "roll = { size = \"2KiB\" }"),
];

/// A run that takes a second.
fn events_to(file: &str, rest: &str, checkpoints: &str) -> String {
    format!(
        r#"
        name = "stopped"
        {checkpoints}
        [sources.rows]
        type = "generator"
        rate = 8000
        count = 6000
        start = 2026-01-31T12:00:00Z
        [sinks.out]
        type = "file"
        input = "rows"
        path = "{file}"
        {rest}
        "#
    )
}

/// The rows in the files that have their names, in order. Each is whole.
fn finished_rows(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name()?.to_str()?;
            let is_output = name.starts_with("out") && !name.ends_with(".part");
            let number = name.trim_start_matches("out-").split('.').next()?;
            is_output.then(|| (number.parse().unwrap_or(0), path.clone()))
        })
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|(_, path)| whole_rows(path))
        .collect()
}

/// The rows of a file that has its name.
fn whole_rows(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    let file = File::open(path).expect(&name);
    if name.ends_with(".parquet") {
        let reader = SerializedFileReader::new(file).expect(&name);
        let rows = reader.into_iter();
        return rows.map(|row| row.expect(&name).to_string()).collect();
    }
    let mut decoder: Box<dyn Read> = match &name {
        name if name.ends_with(".gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        name if name.ends_with(".zst") => Box::new(zstd::Decoder::new(file).expect(name)),
        _ => Box::new(file),
    };
    let mut text = String::new();
    decoder.read_to_string(&mut text).expect(&name);
    assert!(text.is_empty() || text.ends_with('\n'), "{name}");
    let head = usize::from(name.contains(".csv"));
    text.lines().skip(head).map(str::to_owned).collect()
}

/// Stops runs by any signal at any time.
fn stop_at_any_time(seed: u64, file: &str, rest: &str, checkpoints: &str) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pipeline = events_to(file, rest, checkpoints);
    let what = format!("seed {seed}: {file} {rest} {checkpoints}");
    let run_in = |folder: &Path| run_file(&pipeline, &["--quiet"], folder);
    let reference = tempfile::tempdir().expect("a temporary folder");
    let ended = run_in(reference.path()).status().expect("it starts");
    assert!(ended.success(), "{what}");
    let expected = finished_rows(reference.path());
    assert_eq!(expected.len(), 6_000, "{what}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut stopped = 0;
    while stopped < 3 {
        let mut host = run_in(folder.path()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(random.u64(100..800)));
        let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGKILL];
        let number = numbers[random.usize(0..4)];
        let has_ended = host.try_wait().expect("a state").is_some();
        if !has_ended {
            signal::send(&host, number);
        }
        let output = host.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        let asked = number != libc::SIGKILL;
        if asked && output.status.code() != Some(0) {
            // It is not ready to be asked in the first moments.
            assert_eq!(output.status.code(), None, "{what}: {said}");
        }
        let found = finished_rows(folder.path());
        assert!(expected.starts_with(&found), "{what}: {} rows", found.len());
        let has_several = !checkpoints.is_empty() && file.ends_with(".parquet");
        let is_one_file = !rest.contains("roll") && !has_several;
        if is_one_file && !found.is_empty() {
            assert_eq!(found.len(), expected.len(), "{what}: {said}");
        }
        if checkpoints.is_empty() {
            return;
        }
        if has_ended {
            break;
        }
        stopped += 1;
    }
    let output = run_in(folder.path()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}: {said}");
    assert_eq!(finished_rows(folder.path()), expected, "{what}");
}

#[test]
fn what_is_stopped_at_any_time_is_whole_and_goes_on() {
    std::thread::scope(|scope| {
        for (seed, (file, rest)) in (0..).zip(FILES) {
            scope.spawn(move || {
                stop_at_any_time(seed, file, rest, "[checkpoints]\ninterval = \"30ms\"");
                for seed in seed..seed + 3 {
                    stop_at_any_time(seed, file, rest, "");
                }
            });
        }
    });
}

/// The newest checkpoint cannot be restored, and the one before it is older than what was
/// written: no row comes twice.
#[test]
fn a_damaged_checkpoint_doubles_no_row() {
    for (file, rest) in FILES {
        let pipeline = events_to(file, rest, "[checkpoints]\ninterval = \"30ms\"");
        let what = format!("{file} {rest}");
        let run_in = |folder: &Path, arguments: &[&str]| run_file(&pipeline, arguments, folder);
        let reference = tempfile::tempdir().expect("a temporary folder");
        let ended = run_in(reference.path(), &["-q"]).status();
        assert!(ended.expect("it starts").success(), "{what}");
        let expected = finished_rows(reference.path());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let checkpoints = folder.path().join("stopped.state/checkpoints");
        let numbers = || -> Vec<u64> {
            let entries = fs::read_dir(&checkpoints).into_iter().flatten();
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
            numbers.sort_unstable();
            numbers
        };
        for from in [&["-q"][..], &["-q", "--from"]] {
            let mut host = run_in(folder.path(), &["-q"]).spawn().expect("it starts");
            let began = Instant::now();
            while numbers().len() < 2 && began.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(10));
            }
            host.kill().expect("it is our child");
            host.wait().expect("it is our child");
            let known = numbers();
            let [.., before, last] = known[..] else {
                panic!("{what}: {known:?}");
            };
            let before = before.to_string();
            let mut arguments = from.to_vec();
            if from.len() == 1 {
                let manifest = checkpoints.join(format!("{last}/sluicebox.manifest"));
                fs::write(manifest, "damaged").expect("it is writable");
            } else {
                arguments.push(&before);
            }
            let output = run_in(folder.path(), &arguments).output();
            let output = output.expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{what}: {said}");
            assert_eq!(finished_rows(folder.path()), expected, "{what} {from:?}");
            for entry in fs::read_dir(folder.path()).expect("a folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => fs::remove_dir_all(path).expect("it is ours"),
                    false => fs::remove_file(path).expect("it is ours"),
                }
            }
        }
    }
}

#[test]
fn no_text_of_rows_reaches_the_terminal_raw() {
    let pieces = [
        "\u{1b}[2J",
        "\u{1b}]0;owned\u{7}",
        "\r",
        "\u{8}",
        "\t",
        "\u{9b}31m",
        "\u{7f}",
        "\u{0}",
        "a",
        "é",
        "\"",
        "\\",
        "{",
        "\u{85}",
        "\n",
    ];
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = || -> String {
            let count = random.usize(1..6);
            (0..count)
                .map(|_| pieces[random.usize(0..pieces.len())])
                .collect()
        };
        let mut rows = String::new();
        for _ in 0..40 {
            let good = serde_json::json!({"id": text(), "n": 1});
            let bad = serde_json::json!({"id": text(), "n": text()});
            let raw = text().replace('\n', "");
            rows += &format!("{good}\n{bad}\n{{\"id\":\"{raw}\",\"n\":1}}\n{raw}\n");
        }
        for policy in ["dead_letter", "skip", "fail"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join("rows.jsonl"), &rows).expect("it is writable");
            let source = ROWS.replace("fail", policy);
            let sink = "[sinks.out]\ntype = \"console\"\ninput = \"rows\"\n";
            let output = run(&format!("{source}{sink}"), &[], folder.path()).output();
            let output = output.expect("it starts");
            let printed = [output.stdout, output.stderr].concat();
            let printed = String::from_utf8(printed).expect("it is text");
            let raw = printed.lines().find(|line| line.contains(char::is_control));
            assert_eq!(raw, None, "seed {seed}, {policy}");
        }
    }
}
