//! Tests the Redis source with a real server and a real host.
//!
//! `SLUICEBOX_KILLS` is how often the host is killed, `SLUICEBOX_SERVER_KILLS` how often the
//! server is, and `SLUICEBOX_SEED` repeats random choices, though not exact times.

/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Runs that are killed.
#[path = "common/killed.rs"]
mod killed;
/// A real server.
#[path = "common/redis.rs"]
mod redis;
/// What a host says.
#[path = "common/said.rs"]
mod said;
/// Signals to runs.
#[path = "common/signal.rs"]
mod signal;
/// Waits for what others do.
#[expect(dead_code, reason = "the server finds its own address")]
#[path = "common/waiting.rs"]
mod waiting;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use expect_test::{Expect, expect};

use harness::Outcome;
use killed::{Kills, host, tail};
use redis::{Server, server};
use said::{error_in, said};
use waiting::until;

tests![
    what_the_sink_writes_is_read_back,
    a_field_of_an_entry_may_have_the_row,
    a_stream_is_read_from_where_it_is_said,
    a_later_run_reads_what_is_new,
    streams_are_read_by_as_many_tasks,
    bad_entries_are_dead_letters_that_say_where_they_were,
    entries_that_are_gone_are_not_passed_over,
    a_server_that_refuses_says_why,
    channels_are_listened_to,
    nothing_is_lost_or_doubled_by_kills,
];

/// A folder with a pipeline.
struct Case<'a> {
    server: &'a Server,
    folder: tempfile::TempDir,
}

const REACHED: &str = "properties = { password = { env = \"SHOP_PASSWORD\" } }";

impl<'a> Case<'a> {
    /// `SERVER` in the pipeline stands for how the server is reached.
    fn new(server: &'a Server, pipeline: &str) -> Self {
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let reached = format!(
            "type = \"redis\"\nserver = \"{}\"\n{REACHED}",
            server.address
        );
        case.write("pipeline.toml", &pipeline.replace("SERVER", &reached));
        case
    }

    /// A pipeline that reads to the end of a stream, and writes `out.jsonl`.
    fn reading(server: &'a Server, head: &str, source: &str) -> Self {
        let text = format!(
            "name = \"reading\"\n{head}\n[sources.in]\nSERVER\nuntil = \"end\"\n{source}\n{OUT}"
        );
        Case::new(server, &text)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("it is writable");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn pipeline(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// What the host says, and whether it went well.
    fn command(&self, arguments: &[&str]) -> (bool, String) {
        said(host().args(arguments).arg(self.pipeline()))
    }

    /// What a run writes.
    fn succeed(&self) -> String {
        let (is_good, said) = self.command(&["run", "--quiet"]);
        assert!(is_good, "{said}");
        self.read("out.jsonl")
    }

    /// The message of a run that fails.
    fn fail(&self) -> String {
        let (is_good, said) = self.command(&["run", "--quiet"]);
        assert!(!is_good, "{said}");
        error_in(&said.replace(&self.server.address, "ADDRESS"))
    }
}

const OUT: &str = "[sinks.out]\ntype = \"file\"\ninput = \"in\"\npath = \"out.jsonl\"\n\
                   if_exists = \"replace\"\n";

const STATE: &str = "batch_rows = 100\n[state]\npath = \"state\"\n[checkpoints]\n\
                     interval = \"50ms\"\n[restart]\nstrategy = \"never\"\n";

const FIELDS: &str = "fields = { n = \"int64\" }";

/// Adds entries with the numbers `from..to`, all in one ms.
fn add(server: &Server, stream: &str, from: i64, to: i64) {
    let script = "for n = ARGV[1], ARGV[2] - 1 do \
                  redis.call('XADD', KEYS[1], '*', 'n', string.format('%d', n)) end";
    server.ask(&[
        "EVAL",
        script,
        "1",
        stream,
        &from.to_string(),
        &to.to_string(),
    ]);
}

fn rows(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn what_the_sink_writes_is_read_back() -> Outcome {
    let server = server()?;
    let fields = r#"fields = { id = "int64", b = "bool?", u64 = "uint64?", f32 = "float32?", f64 = "float64?", d = "decimal(38,10)?", s = "utf8?", y = "bytes?", t = "timestamp?", k = "one|two?", l = "list<int64?>?", "r?" = { a = "utf8", n = "list<float64>?" } }"#;
    let text = r#"{"id":1,"b":null,"u64":null,"f32":null,"f64":null,"d":null,"s":null,"y":null,"t":null,"k":null,"l":null,"r":null}
{"id":9223372036854775807,"b":true,"u64":18446744073709551615,"f32":3.4028235e+38,"f64":5e-324,"d":-9999999999999999999999999999.9999999999,"s":"","y":"AAH/Cg==","t":"1970-01-01T00:00:01Z","k":"two","l":[1,null],"r":{"a":"\\ \" \n 🦀","n":[1.5]}}
{"id":-9223372036854775808,"b":false,"u64":0,"f32":"NaN","f64":"-Infinity","d":0.0000000000,"s":"a\u0000b, \"1\" \r\n ü","y":"","t":"9999-12-31T23:59:59.999Z","k":"one","l":[],"r":{"a":"","n":null}}
"#;
    let rest = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"stream\"\nkey = \"types\"";
    let head = "name = \"writing\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"";
    let case = Case::new(server, &format!("{head}\n{fields}\n{rest}\n"));
    case.write("in.jsonl", text);
    case.succeed();
    for head in ["", STATE] {
        let read = Case::reading(server, head, &format!("stream = \"types\"\n{fields}"));
        assert_eq!(read.succeed(), text, "{head}");
    }
    Ok(())
}

fn a_field_of_an_entry_may_have_the_row() -> Outcome {
    let server = server()?;
    let add = |fields: &[&str]| server.ask(&[&["XADD", "forms", "5-1"], fields].concat());
    add(&[
        "x",
        "1",
        "json",
        "{\"n\":1,\"s\":\"a\"}",
        "csv",
        "1,a",
        "raw",
        " a\nb ",
    ]);
    let read = |source: &str| {
        Case::reading(server, "", &format!("stream = \"forms\"\n{source}")).succeed()
    };
    let fields = "fields = { n = \"int64\", s = \"utf8\" }";
    let json = read(&format!("payload = \"json\"\n{fields}"));
    assert_eq!(json, "{\"n\":1,\"s\":\"a\"}\n");
    let csv = read(&format!("payload = \"csv\"\nformat = \"csv\"\n{fields}"));
    assert_eq!(csv, "{\"n\":1,\"s\":\"a\"}\n");
    let raw = read(
        "payload = \"raw\"\nformat = \"raw\"\nfields = { line = \"utf8\" }\n\
         metadata = { stream = \"of\", timestamp = \"at\", id = \"id\" }",
    );
    assert_eq!(
        raw,
        "{\"line\":\" a\\nb \",\"of\":\"forms\",\"at\":\"1970-01-01T00:00:00.005Z\",\"id\":\"5-1\"}\n"
    );
    Ok(())
}

fn a_stream_is_read_from_where_it_is_said() -> Outcome {
    let server = server()?;
    for (id, n) in [
        ("1000-0", "0"),
        ("1000-1", "1"),
        ("2000-0", "2"),
        ("3000-5", "3"),
    ] {
        server.ask(&["XADD", "starts", id, "n", n]);
    }
    for (start, expected) in [
        ("earliest", rows(0..4)),
        ("latest", String::new()),
        ("1000-1", rows(1..4)),
        ("1000", rows(0..4)),
        ("1001-0", rows(2..4)),
        ("1970-01-01T00:00:02Z", rows(2..4)),
        ("9999999999999-0", String::new()),
    ] {
        for head in ["", STATE] {
            let source = format!("stream = \"starts\"\nstart = \"{start}\"\n{FIELDS}");
            let case = Case::reading(server, head, &source);
            assert_eq!(case.succeed(), expected, "{start} {head}");
        }
    }
    Ok(())
}

fn a_later_run_reads_what_is_new() -> Outcome {
    let server = server()?;
    let case = Case::reading(server, STATE, &format!("stream = \"later\"\n{FIELDS}"));
    // The stream need not be there yet.
    assert_eq!(case.succeed(), "");
    let mut done = 0;
    for more in [1, 3_000, 0, 700] {
        add(server, "later", done, done + more);
        done += more;
        assert_eq!(case.succeed(), rows(0..done));
    }
    // What was read may go.
    server.ask(&["XTRIM", "later", "MAXLEN", "0"]);
    assert_eq!(case.succeed(), rows(0..done));
    add(server, "later", done, done + 5);
    assert_eq!(case.succeed(), rows(0..done + 5));
    Ok(())
}

fn streams_are_read_by_as_many_tasks() -> Outcome {
    let server = server()?;
    for stream in 0..5 {
        add(
            server,
            &format!("several-{stream}"),
            stream * 2_000,
            (stream + 1) * 2_000,
        );
    }
    for parallelism in [1, 3, 8] {
        let source = format!(
            "stream = [\"several-0\", \"several-1\", \"several-2\", \"several-3\", \"several-4\"]\n{FIELDS}"
        );
        let head = format!("parallelism = {parallelism}\n{STATE}");
        let text = Case::reading(server, &head, &source).succeed();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_by_key(|line| (line.len(), *line));
        assert_eq!(lines.join("\n") + "\n", rows(0..10_000), "{parallelism}");
    }
    Ok(())
}

fn bad_entries_are_dead_letters_that_say_where_they_were() -> Outcome {
    let server = server()?;
    for (id, fields) in [
        ("7-1", ["n", "1"]),
        ("7-2", ["n", "1x"]),
        ("7-3", ["m", "2"]),
        ("8-0", ["n", "3"]),
    ] {
        server.ask(&["XADD", "bad", id, fields[0], fields[1]]);
    }
    let source = format!("stream = \"bad\"\n{FIELDS}\nmetadata = {{ id = \"id\" }}");
    let case = Case::reading(server, "", &source);
    assert_eq!(
        case.succeed(),
        "{\"n\":1,\"id\":\"7-1\"}\n{\"n\":3,\"id\":\"8-0\"}\n"
    );
    let letters = case.read("reading.dead.jsonl");
    let told = letters.lines().map(|line| {
        let letter: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let of = |key: &str| letter[key].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {}: {}\n",
            of("partition"),
            letter["offset"],
            of("key"),
            of("message_time"),
            of("payload"),
            of("error")
        )
    });
    expect![[r#"
        bad 7 7-2 1970-01-01T00:00:00.007Z {"n":"1x"}: field `n`: expected int64, found "1x"
        bad 7 7-3 1970-01-01T00:00:00.007Z {"m":"2"}: field `n` is missing
    "#]]
    .assert_eq(&told.collect::<String>());
    Ok(())
}

fn entries_that_are_gone_are_not_passed_over() -> Outcome {
    let server = server()?;
    let case = |stream: &str| {
        let case = Case::reading(server, STATE, &format!("stream = \"{stream}\"\n{FIELDS}"));
        add(server, stream, 0, 100);
        assert_eq!(case.succeed(), rows(0..100));
        case
    };
    let trimmed = case("trimmed");
    add(server, "trimmed", 100, 200);
    server.ask(&["XTRIM", "trimmed", "MAXLEN", "=", "70"]);
    let said = trimmed.fail();
    let at = said.find("after ").map(|at| at + 6).expect("it says where");
    let id = said[at..].split(',').next().expect("an id").to_owned();
    expect![[r#"
        error: source `in`: stream `trimmed`: entries are gone that come after ID, the last one that was read: up to 30 were trimmed away or deleted before they were read (have XADD or XTRIM keep more); to go on without them, drop what the checkpoint knows of this source (`sluicebox run --drop in`)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]]
    .assert_eq(&said.replace(&id, "ID"));
    let (is_good, said) = trimmed.command(&["run", "--quiet", "--drop", "in"]);
    assert!(is_good, "{said}");
    assert_eq!(trimmed.read("out.jsonl"), rows(0..100) + &rows(130..200));

    for (stream, more) in [("again", 50), ("again-longer", 300), ("deleted", 0)] {
        let again = case(stream);
        server.ask(&["DEL", stream]);
        if more > 0 {
            add(server, stream, 0, more);
        }
        let said = again.fail();
        assert!(
            said.contains("was deleted and created again"),
            "{stream}: {said}"
        );
        assert!(said.contains("100 were added"), "{stream}: {said}");
    }
    // Entries that somebody deletes once they are read are no loss.
    let consumed = case("consumed");
    server.ask(&["XTRIM", "consumed", "MAXLEN", "0"]);
    add(server, "consumed", 100, 120);
    assert_eq!(consumed.succeed(), rows(0..120));
    // Another source does not go on for it.
    let other = consumed
        .read("pipeline.toml")
        .replace("\"consumed\"", "\"deleted\"");
    consumed.write("pipeline.toml", &other);
    let said = consumed.fail();
    assert!(said.contains("had read the stream `consumed`"), "{said}");
    Ok(())
}

fn a_server_that_refuses_says_why() -> Outcome {
    let server = server()?;
    server.ask(&["SET", "no-stream", "1"]);
    server.ask(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">s3cret",
        "~mine",
        "&mine",
        "+xread",
        "+xinfo",
        "+multi",
        "+exec",
        "+ping",
        "+subscribe",
        "+client",
        "+select",
    ]);
    add(server, "mine", 0, 3);
    let source = |source: &str| Case::reading(server, STATE, &format!("{source}\n{FIELDS}"));
    let fails = |case: &Case<'_>, expected: Expect| expected.assert_eq(&case.fail());
    fails(
        &source("stream = \"no-stream\""),
        expect![[r#"
            error: source `in`: cannot read from ADDRESS, database 0: the key `no-stream` holds no stream but another kind of value: name the stream to read
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    let reader = source("user = \"reader\"\nstream = \"mine\"");
    assert_eq!(reader.succeed(), rows(0..3));
    let other = source("user = \"reader\"\nstream = \"no-stream\"");
    let said = other.fail();
    assert!(
        said.contains("NOPERM") && said.contains("ACL SETUSER"),
        "{said}"
    );
    let wrong = source("stream = \"mine\"");
    let text = wrong.read("pipeline.toml");
    wrong.write(
        "pipeline.toml",
        &text.replace("{ env = \"SHOP_PASSWORD\" }", "\"wrong\""),
    );
    fails(
        &wrong,
        expect![[r#"
            error: source `in`: cannot read from ADDRESS, database 0: WRONGPASS the server does not take the user or the password; correct `user`, or the password in `properties`
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    wrong.write(
        "pipeline.toml",
        &text.replace(&server.address, "127.0.0.1:1"),
    );
    fails(
        &wrong,
        expect![[r#"
            error: source `in`: cannot read from 127.0.0.1:1, database 0: Connection refused (os error 111)
              the cause lies outside the host and may pass: start the pipeline again when it has
        "#]],
    );
    Ok(())
}

/// Starts a run that ends when it is asked to.
fn start(case: &Case<'_>) -> Child {
    let log = std::fs::File::create(case.folder.path().join("log"));
    let mut command = host();
    command
        .args(["run", "--quiet"])
        .arg(case.pipeline())
        .stdout(Stdio::null())
        .stderr(log.expect("a file"));
    let started = signal::not_ignored(&mut command).spawn();
    started.expect("the host starts")
}

fn stop(mut run: Child) {
    signal::send(&run, libc::SIGTERM);
    assert!(run.wait().is_ok_and(|status| status.success()));
}

fn channels_are_listened_to() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let text = format!(
        "name = \"news\"\n{STATE}[sources.in]\nSERVER\nchannel = [\"news:*\", \"other\"]\n\
         metadata = {{ channel = \"from\" }}\n{FIELDS}\n[sinks.out]\ntype = \"file\"\n\
         input = \"in\"\npath = \"out.jsonl\"\nroll = {{ every = \"1s\" }}\n"
    );
    let case = Case::new(&server, &text);
    let (is_good, said) = case.command(&["check"]);
    assert!(is_good, "{said}");
    assert!(said.contains("at most once: messages are lost that come while nobody listens"));
    assert!(said.contains("cannot be read again"), "{said}");
    let run = start(&case);
    let listens = || server.ask(&["PUBSUB", "NUMPAT"]) == "1";
    until("it listens", listens);
    for (channel, message) in [
        ("news:a", "{\"n\":1}"),
        ("other", "{\"n\":2}"),
        ("else", "{\"n\":3}"),
    ] {
        server.ask(&["PUBLISH", channel, message]);
    }
    let written = || {
        let mut files: Vec<_> = std::fs::read_dir(case.folder.path())
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
            .filter(|path| !path.ends_with("news.dead.jsonl"))
            .collect();
        files.sort();
        let texts = files
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap_or_default());
        texts.collect::<String>()
    };
    let first = "{\"n\":1,\"from\":\"news:a\"}\n{\"n\":2,\"from\":\"other\"}\n";
    until("messages come", || written() == first);
    // It listens again when the server is there again.
    server.call("kill");
    server.call("again");
    until("it listens again", listens);
    server.ask(&["PUBLISH", "news:b", "{\"n\":4}"]);
    until("more come", || {
        written() == format!("{first}{{\"n\":4,\"from\":\"news:b\"}}\n")
    });
    stop(run);
    let log = case.read("log");
    assert!(
        log.contains("messages that are published meanwhile are lost"),
        "{log}"
    );
    Ok(())
}

const KILL_ROWS: i64 = 100_000;

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let script = |what: &str| server.call(what);
    killed::in_rounds(&script, |round, kills| killed_round(&server, round, kills));
    Ok(())
}

/// Runs one pipeline with kills until it ends by itself, and counts its rows.
fn killed_round(server: &Server, round: usize, kills: &mut Kills<'_>) -> usize {
    let streams = [format!("kept-{round}-a"), format!("kept-{round}-b")];
    let half = KILL_ROWS / 2;
    add(server, &streams[0], 0, half);
    add(server, &streams[1], half, KILL_ROWS);
    let head = "parallelism = 2\nbatch_rows = 500\n[state]\npath = \"state\"\n[checkpoints]\n\
                interval = \"50ms\"\n[restart]\nstrategy = \"fixed\"\ndelay = \"100ms\"\n\
                failures = 1000\n";
    let source = format!(
        "stream = [\"{}\", \"{}\"]\n{FIELDS}",
        streams[0], streams[1]
    );
    let case = Case::reading(server, head, &source);
    let log = case.folder.path().join("log");
    let done = kills.run(&case.pipeline(), &log);
    let text = case.read("out.jsonl");
    let mut numbers: Vec<i64> = text.lines().map(|line| number_of(line, &log)).collect();
    numbers.sort_unstable();
    let count = numbers.len();
    assert!(
        numbers.into_iter().eq(0..KILL_ROWS),
        "{count} rows\n{}",
        tail(&log)
    );
    server.ask(&["DEL", &streams[0], &streams[1]]);
    done
}

fn number_of(line: &str, log: &Path) -> i64 {
    let number = line
        .trim_start_matches("{\"n\":")
        .trim_end_matches('}')
        .parse();
    number.unwrap_or_else(|_| panic!("{line}\n{}", tail(log)))
}
