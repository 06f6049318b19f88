//! Tests syslog, datagrams and the TCP sink with a real host.
//!
//! `SLUICEBOX_KILLS` is how often the host is killed, `SLUICEBOX_SERVER_KILLS` how often the
//! server that a sink sends to is, and `SLUICEBOX_SEED` repeats random choices, though not
//! exact times.

/// A certificate for this machine.
#[path = "common/certificate.rs"]
mod certificate;
/// Runs that are killed.
#[path = "common/killed.rs"]
mod killed;
/// What a host says.
#[expect(dead_code, reason = "no run fails here")]
#[path = "common/said.rs"]
mod said;
/// Signals to runs.
#[path = "common/signal.rs"]
mod signal;
/// Waits for what others do.
#[path = "common/waiting.rs"]
mod waiting;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use expect_test::expect;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use killed::{Kills, host, tail};
use said::said;
use waiting::{free_address, until};

/// A folder with a pipeline.
struct Case(tempfile::TempDir);

impl Case {
    fn new(pipeline: &str) -> Case {
        let case = Case(tempfile::tempdir().expect("a temporary folder"));
        case.write("pipeline.toml", pipeline);
        case
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("it is writable");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }

    fn pipeline(&self) -> PathBuf {
        self.0.path().join("pipeline.toml")
    }

    /// What a command of the host says, which has to go well.
    fn succeed(&self, arguments: &[&str]) -> String {
        let (is_good, said) = said(host().args(arguments).arg(self.pipeline()));
        assert!(is_good, "{said}");
        said
    }

    fn run(&self) -> String {
        self.succeed(&["run", "--quiet"])
    }

    /// Starts a run that writes what it says to `log`, and its summary to `summary`.
    fn start(&self) -> Child {
        let file = |name| std::fs::File::create(self.0.path().join(name)).expect("a file");
        let mut command = host();
        command
            .args(["run", "--json"])
            .arg(self.pipeline())
            .stdout(file("summary"))
            .stderr(file("log"));
        let started = signal::not_ignored(&mut command).spawn();
        started.expect("the host starts")
    }
}

const SYSLOG: &str = r#"format = "syslog"
syslog = { zone = "Europe/Berlin", year = 2025 }
event_time = "timestamp"
names = { program = "appname", code = "facility" }
[sources.in.fields]
timestamp = "timestamp"
code = "int8?"
severity = "emerg|alert|crit|err|warning|notice|info|debug?"
hostname = "utf8?"
program = "utf8?"
procid = "int64?"
msgid = "utf8?"
message = "utf8"
"data?" = { "a@1?" = { n = "int64?", ip = "list<utf8>?" } }
"#;

const OUT: &str = "[sinks.out]\ntype = \"file\"\ninput = \"in\"\npath = \"out.jsonl\"\n";

const MESSAGES: [&str; 6] = [
    r#"<165>1 2003-10-11T22:14:15.003Z box app 17 ID47 [a@1 n="3" ip="::1" ip="10.0.0.1"][b x="1"] two "words""#,
    "<34>Oct 11 22:14:15 box su: 'su root' failed",
    "Jul  1 00:00:00 box cron[12]: (root) CMD (x)",
    "2026-01-31T12:00:00+01:00 box kernel: up",
    "not a message",
    "<13>Jan 31 12:00:00 box app[x]: a process without a number",
];

const READ: &str = r#"{"timestamp":"2003-10-11T22:14:15.003Z","code":20,"severity":"notice","hostname":"box","program":"app","procid":17,"msgid":"ID47","message":"two \"words\"","data":{"a@1":{"n":3,"ip":["::1","10.0.0.1"]}}}
{"timestamp":"2025-10-11T20:14:15Z","code":4,"severity":"crit","hostname":"box","program":"su","procid":null,"msgid":null,"message":"'su root' failed","data":null}
{"timestamp":"2025-06-30T22:00:00Z","code":null,"severity":null,"hostname":"box","program":"cron","procid":12,"msgid":null,"message":"(root) CMD (x)","data":null}
{"timestamp":"2026-01-31T11:00:00Z","code":null,"severity":null,"hostname":"box","program":"kernel","procid":null,"msgid":null,"message":"up","data":null}
"#;

/// What was wrong with the rows that became dead letters, and their payloads.
fn dead_letters(case: &Case) -> String {
    let letters = case.read("lines.dead.jsonl");
    let told = letters.lines().map(|line| {
        let letter: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let of = |key: &str| letter[key].as_str().unwrap_or("-").to_owned();
        format!("{}: {}\n", of("payload"), of("error"))
    });
    told.collect()
}

const BAD: &str = r#"not a message: byte 0: expected a priority such as <34>, or a time such as `Nov 29 11:04:03` or as RFC 3339, found `not a message`
<13>Jan 31 12:00:00 box app[x]: a process without a number: field `procid`: expected int64, found "x"
"#;

#[test]
fn syslog_is_read_from_files() {
    let case = Case::new(&format!(
        "name = \"lines\"\n[sources.in]\ntype = \"file\"\npath = \"log\"\n{SYSLOG}\n{OUT}"
    ));
    case.write("log", &(MESSAGES.join("\n") + "\n"));
    case.run();
    assert_eq!(case.read("out.jsonl"), READ);
    assert_eq!(dead_letters(&case), BAD);
}

#[test]
fn syslog_comes_in_frames() {
    let address = free_address();
    for framing in ["octet_counted", "newline", "length_prefixed"] {
        let case = Case::new(&format!(
            "name = \"lines\"\n[sources.in]\ntype = \"tcp\"\nlisten = \"{address}\"\n\
             connections = 1\nframing = \"{framing}\"\n{SYSLOG}\n{OUT}"
        ));
        let mut run = case.start();
        let mut client = None;
        until("the host listens", || {
            client = TcpStream::connect(&address).ok();
            client.is_some()
        });
        let mut client = client.expect("a connection");
        for message in MESSAGES {
            let length = message.len() as u32;
            let frame = match framing {
                "octet_counted" => format!("{length} {message}").into_bytes(),
                "newline" => format!("{message}\n").into_bytes(),
                _ => [&length.to_be_bytes(), message.as_bytes()].concat(),
            };
            client.write_all(&frame).expect("it reads");
        }
        drop(client);
        assert!(
            run.wait().is_ok_and(|ended| ended.success()),
            "{}",
            case.read("log")
        );
        assert_eq!(case.read("out.jsonl"), READ, "{framing}");
        assert_eq!(dead_letters(&case), BAD, "{framing}");
    }
}

#[test]
fn datagrams_are_rows() {
    for (source, datagrams, expected) in [
        (
            "fields = { n = \"int64\" }",
            vec!["{\"n\":1}", "{\"n\":2}\n\n{\"n\":3}\n"],
            "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n",
        ),
        (
            "format = \"raw\"\nframing = \"datagram\"\nfields = { line = \"utf8\" }",
            vec!["a\nb\r\n", "c"],
            "{\"line\":\"a\\nb\"}\n{\"line\":\"c\"}\n",
        ),
        (SYSLOG, MESSAGES.to_vec(), READ),
    ] {
        let address = free_address();
        let case = Case::new(&format!(
            "name = \"lines\"\n[sources.in]\ntype = \"udp\"\nlisten = \"{address}\"\n{source}\n{OUT}"
        ));
        let told = case.succeed(&["check"]);
        assert!(told.contains("at most once"), "{told}");
        let mut run = case.start();
        until("the host listens", || {
            case.read("log").contains("listening")
        });
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for datagram in &datagrams {
            socket
                .send_to(datagram.as_bytes(), &address)
                .expect("it is sent");
        }
        let name = "out.jsonl.part";
        until("rows are written", || {
            case.read(name).lines().count() == expected.lines().count()
        });
        signal::send(&run, libc::SIGTERM);
        assert!(
            run.wait().is_ok_and(|ended| ended.success()),
            "{}",
            case.read("log")
        );
        assert_eq!(case.read(name), expected);
    }
}

#[test]
fn datagrams_that_are_dropped_are_counted() {
    const SENT: u64 = 5_000;
    let address = free_address();
    let case = Case::new(&format!(
        "name = \"lines\"\n[sources.in]\ntype = \"udp\"\nlisten = \"{address}\"\n\
         receive_buffer = \"64KiB\"\nformat = \"raw\"\nfields = {{ line = \"utf8\" }}\n{OUT}"
    ));
    let mut run = case.start();
    until("the host listens", || {
        case.read("log").contains("listening")
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // A host that does not come to reading.
    signal::send(&run, libc::SIGSTOP);
    for number in 0..SENT {
        let datagram = format!("{number:0100}");
        socket
            .send_to(datagram.as_bytes(), &address)
            .expect("it is sent");
    }
    signal::send(&run, libc::SIGCONT);
    until("it is told", || case.read("log").contains("has dropped"));
    // What is read has come to the file by then.
    std::thread::sleep(Duration::from_secs(2));
    signal::send(&run, libc::SIGTERM);
    assert!(run.wait().is_ok_and(|ended| ended.success()));
    let summary = case.read("summary");
    let summary = summary.lines().last().expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(summary).expect("it is JSON");
    let nodes = summary["nodes"].as_array().expect("nodes");
    let source = nodes
        .iter()
        .find(|node| node["name"] == "in")
        .expect("the source");
    let lost = source["lost"].as_u64().expect("some are lost");
    let read = source["rows_in"].as_u64().expect("some are read");
    assert_eq!(lost + read, SENT);
}

/// A server that reads lines, and can be gone for a while.
struct LineServer {
    address: String,
    /// Lines that were read to their ends.
    lines: Arc<Mutex<Vec<String>>>,
    is_gone: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How a server treats connections.
#[derive(Clone, Copy, PartialEq)]
enum Manners {
    /// It closes its side when it has read to the end.
    Good,
    /// It closes its first connections after so many lines or some more, whatever else
    /// comes. Were it to close them all, a host that sends more than these between two
    /// checkpoints would never have one.
    ClosesFirst { connections: usize, lines: usize },
    /// It keeps its side open.
    Open,
}

impl LineServer {
    fn start(manners: Manners) -> LineServer {
        let server = LineServer {
            address: free_address(),
            lines: Arc::default(),
            is_gone: Arc::default(),
            connections: Arc::default(),
            thread: Mutex::default(),
        };
        server.serve(manners);
        server
    }

    fn serve(&self, manners: Manners) {
        let (lines, is_gone) = (self.lines.clone(), self.is_gone.clone());
        let (address, connections) = (self.address.clone(), self.connections.clone());
        is_gone.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(&address).expect("the port is free");
        listener.set_nonblocking(true).expect("it is a socket");
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            while !is_gone.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let before = connections.fetch_add(1, Ordering::SeqCst);
                        let most = match manners {
                            Manners::ClosesFirst { connections, lines } if before < connections => {
                                lines
                            }
                            _ => usize::MAX,
                        };
                        let is_kept = manners == Manners::Open;
                        let ended = read_lines(stream, most, &lines, &is_gone);
                        kept.extend(ended.filter(|_| is_kept));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        *self.thread.lock().expect("no panic") = Some(thread);
    }

    fn call(&self, what: &str) {
        match what {
            "kill" => {
                self.is_gone.store(true, Ordering::SeqCst);
                let thread = self.thread.lock().expect("no panic").take();
                thread.expect("it runs").join().expect("no panic");
            }
            _ => self.serve(Manners::Good),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

/// Reads a connection to its end, and returns it. After the most lines, or when the server
/// is gone, it is closed with what was not read.
fn read_lines(
    mut stream: TcpStream,
    most: usize,
    lines: &Mutex<Vec<String>>,
    is_gone: &AtomicBool,
) -> Option<TcpStream> {
    stream.set_nonblocking(false).expect("it is a socket");
    let patience = Some(Duration::from_millis(5));
    stream.set_read_timeout(patience).expect("it is a socket");
    let mut text = Vec::new();
    let mut block = [0; 4_000];
    let mut count = 0;
    while !is_gone.load(Ordering::SeqCst) {
        match stream.read(&mut block) {
            Ok(0) => return Some(stream),
            Ok(length) => {
                text.extend_from_slice(&block[..length]);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line[..end]).into_owned();
                    lines.lock().expect("no panic").push(line);
                    count += 1;
                }
                if count >= most {
                    return None;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
    None
}

/// A pipeline that sends the rows of a file.
fn sending(server: &LineServer, head: &str, rest: &str) -> Case {
    Case::new(&format!(
        "name = \"lines\"\n{head}\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
         fields = {{ n = \"int64\", s = \"utf8?\" }}\n[sinks.out]\ntype = \"tcp\"\n\
         input = \"in\"\nserver = \"{}\"\n{rest}\n",
        server.address
    ))
}

const STATE: &str = "batch_rows = 100\n[state]\npath = \"state\"\n[checkpoints]\n\
                     interval = \"50ms\"\n[restart]\nstrategy = \"fixed\"\ndelay = \"50ms\"\n\
                     failures = 10000\n";

fn numbered(rows: usize) -> String {
    let mut text = String::new();
    for n in 0..rows {
        let _ = writeln!(text, "{{\"n\":{n},\"s\":null}}");
    }
    text
}

#[test]
fn rows_are_sent_as_lines() {
    for (head, format, expected) in [
        ("", "", ["{\"n\":1,\"s\":\"a,b\"}", "{\"n\":2,\"s\":null}"]),
        (STATE, "format = \"csv\"", ["1,\"a,b\"", "2,"]),
        (
            STATE,
            "confirmed = false",
            ["{\"n\":1,\"s\":\"a,b\"}", "{\"n\":2,\"s\":null}"],
        ),
    ] {
        let manners = match format.contains("confirmed") {
            true => Manners::Open,
            false => Manners::Good,
        };
        let server = LineServer::start(manners);
        let case = sending(&server, head, format);
        case.write("in.jsonl", "{\"n\":1,\"s\":\"a,b\"}\n{\"n\":2}\n");
        case.run();
        until("rows come", || server.lines().len() == 2);
        assert_eq!(server.lines(), expected, "{format}");
    }
}

/// What one host sends, another one reads.
#[test]
fn frames_are_read_as_they_are_sent() {
    let rows = ["plain", "", "two\nlines", "ü🦀", "12 x"];
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}", serde_json::json!({ "line": row }));
    }
    for framing in ["length_prefixed", "octet_counted"] {
        let address = free_address();
        let fields = "fields = { line = \"utf8\" }";
        let reading = Case::new(&format!(
            "name = \"lines\"\n[sources.in]\ntype = \"tcp\"\nlisten = \"{address}\"\n\
             framing = \"{framing}\"\nformat = \"raw\"\n{fields}\n{OUT}"
        ));
        let mut run = reading.start();
        until("the host listens", || {
            reading.read("log").contains("listening")
        });
        let sending = Case::new(&format!(
            "name = \"lines\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n{fields}\n\
             [sinks.out]\ntype = \"tcp\"\ninput = \"in\"\nserver = \"{address}\"\n\
             format = \"raw\"\nframing = \"{framing}\"\n"
        ));
        sending.write("in.jsonl", &text);
        sending.run();
        let name = "out.jsonl.part";
        until("rows are written", || {
            reading.read(name).lines().count() == rows.len()
        });
        signal::send(&run, libc::SIGTERM);
        assert!(run.wait().is_ok_and(|ended| ended.success()));
        assert_eq!(reading.read(name), text, "{framing}");
    }
}

#[test]
fn what_cannot_be_sent_says_why() {
    let server = LineServer::start(Manners::Good);
    let fails = |case: &Case| {
        let output = host()
            .args(["run", "--quiet"])
            .arg(case.pipeline())
            .output();
        let output = output.expect("the host runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).replace(&server.address, "ADDRESS")
    };
    let raw = "name = \"lines\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
               fields = { line = \"utf8\" }\n[sinks.out]\ntype = \"tcp\"\ninput = \"in\"\n\
               server = \"SERVER\"\nformat = \"raw\"\n";
    let case = Case::new(&raw.replace("SERVER", &server.address));
    case.write("in.jsonl", "{\"line\":\"a\\nb\"}\n");
    expect![[r#"
        error: sink `out`: cannot write to ADDRESS: a line cannot have a line end in it (`framing = "length_prefixed"` can); the row is {"line":"a\nb"}
          the row would fail again: correct it at its source, or have an operator leave such rows out
    "#]]
    .assert_eq(&fails(&case));
    let case = Case::new(&raw.replace("SERVER", "127.0.0.1:1"));
    case.write("in.jsonl", "");
    expect![[r#"
        error: sink `out`: cannot write to 127.0.0.1:1: Connection refused (os error 111)
          the cause lies outside the host and may pass: start the pipeline again when it has
    "#]]
    .assert_eq(&fails(&case));
}

/// A server that closes connections loses nothing where checkpoints wait for it.
#[test]
fn a_server_that_closes_connections_gets_all_rows() {
    // More than all connections that are closed take.
    const ROWS: usize = 20_000;
    let server = LineServer::start(Manners::ClosesFirst {
        connections: 6,
        lines: 3_001,
    });
    let case = sending(&server, STATE, "");
    case.write("in.jsonl", &numbered(ROWS));
    case.run();
    let lines: BTreeSet<String> = server.lines().into_iter().collect();
    assert_eq!(lines.len(), ROWS, "of {} lines", server.lines().len());
    assert!(server.connections.load(Ordering::SeqCst) > 6);
}

#[test]
fn rows_are_sent_encrypted() {
    let (certificate, key) = certificate::certificate().expect("a certificate");
    let method = SslMethod::tls();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(method).expect("an acceptor");
    let read = X509::from_pem(&certificate).expect("a certificate");
    acceptor.set_certificate(&read).expect("a certificate");
    let key = PKey::private_key_from_pem(&key).expect("a key");
    acceptor.set_private_key(&key).expect("a key");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let served = std::thread::spawn(move || {
        // The first client trusts nobody that it does not know.
        for stream in listener.incoming().take(2) {
            let mut text = String::new();
            if let Ok(mut stream) = acceptor.accept(stream.expect("a connection")) {
                stream.read_to_string(&mut text).expect("it is text");
                return text;
            }
        }
        String::new()
    });
    let case = Case::new(&format!(
        "name = \"lines\"\n{STATE}[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
         fields = {{ n = \"int64\" }}\n[sinks.out]\ntype = \"tcp\"\ninput = \"in\"\n\
         server = \"{address}\"\ntls = true\n"
    ));
    case.write("in.jsonl", "{\"n\":1}\n{\"n\":2}\n");
    case.write("trusted.pem", &String::from_utf8_lossy(&certificate));
    let run = |trusted: &str| {
        host()
            .args(["run", "--quiet"])
            .arg(case.pipeline())
            .env("SSL_CERT_FILE", case.0.path().join(trusted))
            .output()
            .expect("the host runs")
    };
    let refused = run("none.pem");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(said.contains("certificate"), "{said}");
    let taken = run("trusted.pem");
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(taken.status.success(), "{said}");
    assert_eq!(served.join().expect("no panic"), "{\"n\":1}\n{\"n\":2}\n");
}

const KILL_ROWS: usize = 50_000;

#[test]
fn nothing_is_lost_by_kills() {
    let server = LineServer::start(Manners::Good);
    let script = |what: &str| server.call(what);
    killed::in_rounds(&script, |_, kills| killed_round(&server, kills));
}

/// Runs one pipeline with kills until it ends by itself, and looks for all of its rows.
fn killed_round(server: &LineServer, kills: &mut Kills<'_>) -> usize {
    server.lines.lock().expect("no panic").clear();
    let case = sending(server, STATE, "");
    case.write("in.jsonl", &numbered(KILL_ROWS));
    let log = case.0.path().join("log");
    let done = kills.run(&case.pipeline(), &log);
    let lines: BTreeSet<String> = server.lines().into_iter().collect();
    let expected: BTreeSet<String> = numbered(KILL_ROWS).lines().map(str::to_owned).collect();
    assert!(lines == expected, "{} rows\n{}", lines.len(), tail(&log));
    done
}
