//! Tests the Redis sink with a real server and a real host.
//!
//! `SLUICEBOX_KILLS` is how often the host is killed, `SLUICEBOX_SERVER_KILLS` how often the
//! server is, and `SLUICEBOX_SEED` repeats random choices, though not exact times.

/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Plugins, built once.
#[expect(dead_code, reason = "no plugin is needed here")]
mod common;
/// Runs a pipeline as a test.
#[expect(dead_code, reason = "most pipelines are run by a real host")]
#[path = "common/pipeline.rs"]
mod pipeline;
/// Runs that are killed.
#[path = "common/killed.rs"]
mod killed;
/// A real server.
#[path = "common/redis.rs"]
mod redis;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use sluicebox::checkpoint::manifest::Manifest;
use sluicebox::checkpoint::transaction::Participant;
use sluicebox::plan::NodeKind;
use sluicebox::run::commit_context;
use sluicebox::stop::Stop;

use harness::Outcome;
use killed::{Kills, RUN_MAX, host, start, tail, wait};
use redis::{Server, server};

tests![
    a_row_is_what_it_is_said_to_be,
    every_type_has_a_text,
    results_that_are_gone_delete_their_keys,
    what_expires_and_what_is_long_goes,
    messages_come_to_those_who_listen,
    a_server_that_refuses_says_why,
    one_wrong_row_ends_the_run_with_its_text,
    rows_without_a_place_are_refused,
    a_run_that_was_replaced_writes_nothing,
    checkpoints_are_kept_that_a_server_has_forgotten,
    a_server_without_memory_says_so_and_loses_nothing,
    nothing_is_lost_or_doubled_by_kills,
];

/// A folder with a pipeline that reads `in.jsonl`.
struct Case<'a> {
    server: &'a Server,
    folder: tempfile::TempDir,
}

impl<'a> Case<'a> {
    /// A pipeline with this head, whose source has these fields, and these sinks: `SERVER`
    /// in them stands for how the server is reached.
    fn new(server: &'a Server, name: &str, head: &str, fields: &str, sinks: &str) -> Self {
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let reached = format!(
            "type = \"redis\"\nserver = \"{}\"\n\
             properties = {{ password = {{ env = \"SHOP_PASSWORD\" }} }}",
            server.address
        );
        let text = format!(
            "name = \"{name}\"\n{head}\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
             {fields}\n{}\n",
            sinks.replace("SERVER", &reached)
        );
        std::fs::write(case.pipeline(), text).expect("it is writable");
        case
    }

    fn pipeline(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    fn input(&self, rows: &str) -> &Self {
        std::fs::write(self.folder.path().join("in.jsonl"), rows).expect("it is writable");
        self
    }

    /// What the host says, and whether it went well.
    fn run(&self) -> (bool, String) {
        let output = host()
            .args(["run", "--quiet"])
            .arg(self.pipeline())
            .output()
            .expect("the host runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    fn succeed(&self) {
        let (is_good, said) = self.run();
        assert!(is_good, "{said}");
    }

    /// The message of a run that fails.
    fn fail(&self) -> String {
        let (is_good, said) = self.run();
        assert!(!is_good, "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        said.replace(&self.server.address, "ADDRESS")
    }
}

const STATE: &str = r#"batch_rows = 100
[state]
path = "state"
[checkpoints]
interval = "50ms"
"#;

const FIELDS: &str = "fields = { user = \"utf8\", item = \"utf8?\", n = \"int64\" }";

const ROWS: &str = r#"{"user":"ann","item":"a b","n":1}
{"user":"bob","item":"ünï\n🦀","n":-2}
{"user":"ann","n":3}
"#;

fn a_row_is_what_it_is_said_to_be() -> Outcome {
    let server = server()?;
    for (name, head) in [("kinds", ""), ("kinds-exactly", STATE)] {
        let sinks = r#"
[sinks.hash]
input = "in"
SERVER
as = "hash"
key = "NAME:hash:{user}"
[sinks.string]
input = "in"
SERVER
as = "string"
key = "NAME:string:{user}:{n}"
[sinks.value]
input = "in"
SERVER
as = "string"
key = "NAME:value:{user}"
value = "n"
[sinks.sorted]
input = "in"
SERVER
as = "sorted_set"
key = "NAME:sorted"
member = "user"
score = "n"
[sinks.list]
input = "in"
SERVER
as = "list"
key = "NAME:{{list}}"
value = "user"
[sinks.stream]
input = "in"
SERVER
as = "stream"
key = "NAME:stream"
"#;
        let sinks = sinks.replace("NAME", name);
        Case::new(server, name, head, FIELDS, &sinks)
            .input(ROWS)
            .succeed();
        let ask = |command: &str| server.ask(&Vec::from_iter(command.split(' ')));
        // The last row of `ann` has no item.
        assert_eq!(
            ask(&format!("--json HGETALL {name}:hash:ann")),
            r#"{"user":"ann","n":"3"}"#
        );
        assert_eq!(
            ask(&format!("--json HGETALL {name}:hash:bob")),
            r#"{"user":"bob","item":"ünï\n🦀","n":"-2"}"#
        );
        assert_eq!(
            ask(&format!("GET {name}:string:ann:3")),
            r#"{"user":"ann","item":null,"n":3}"#
        );
        assert_eq!(ask(&format!("GET {name}:value:ann")), "3");
        assert_eq!(
            ask(&format!("ZRANGE {name}:sorted 0 -1 WITHSCORES")),
            "bob\n-2\nann\n3"
        );
        assert_eq!(
            ask(&format!("LRANGE {name}:{{list}} 0 -1")),
            "ann\nbob\nann"
        );
        assert_eq!(ask(&format!("XLEN {name}:stream")), "3");
        let last = ask(&format!("XREVRANGE {name}:stream + - COUNT 1"));
        assert_eq!(last.split_once('\n').expect("fields").1, "user\nann\nn\n3");
    }
    Ok(())
}

fn every_type_has_a_text() -> Outcome {
    let server = server()?;
    let fields = r#"fields = { id = "int64", b = "bool?", u64 = "uint64?", f32 = "float32?", f64 = "float64?", d = "decimal(38,10)?", s = "utf8?", y = "bytes?", t = "timestamp?", k = "one|two?", l = "list<int64?>?", "r?" = { a = "utf8", n = "list<float64>?" } }"#;
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"hash\"\nkey = \"types:{id}\"";
    let case = Case::new(server, "types", "", fields, sinks);
    case.input(
        r#"{"id":1}
{"id":9223372036854775807,"b":true,"u64":18446744073709551615,"f32":3.4028235e38,"f64":5e-324,"d":-9999999999999999999999999999.9999999999,"s":"","y":"AAH/Cg==","t":1000,"k":"two","l":[1,null],"r":{"a":"\\ \" \n 🦀","n":[1.5]}}
{"id":-9223372036854775808,"f32":"NaN","f64":"-Infinity","s":"a\u0000b","t":253402300799999}
"#,
    );
    case.succeed();
    let all = ["1", "9223372036854775807", "-9223372036854775808"]
        .map(|id| server.ask(&["--json", "HGETALL", &format!("types:{id}")]));
    expect![[r#"
        {"id":"1"}
        {"id":"9223372036854775807","b":"true","u64":"18446744073709551615","f32":"3.4028235e+38","f64":"5e-324","d":"-9999999999999999999999999999.9999999999","s":"","y":"\u0000\u0001�\n","t":"1970-01-01T00:00:01Z","k":"two","l":"[1,null]","r":"{\"a\":\"\\\\ \\\" \\n 🦀\",\"n\":[1.5]}"}
        {"id":"-9223372036854775808","f32":"NaN","f64":"-Infinity","s":"a\u0000b","t":"9999-12-31T23:59:59.999Z"}
    "#]].assert_eq(&(all.join("\n") + "\n"));
    Ok(())
}

fn results_that_are_gone_delete_their_keys() -> Outcome {
    let server = server()?;
    let rest = r#"
[operators.by_name]
input = "in"
key = "name"
window = { session = "10s" }
allowed_lateness = "1h"
aggregate = { n = "count()" }
[sinks.hashes]
input = "by_name.changes"
SERVER
as = "hash"
key = "sessions:{name}:{window_start}"
deletes = true
[sinks.sorted]
input = "by_name.changes"
SERVER
as = "sorted_set"
key = "sessions:{name}"
member = "window_start"
score = "n"
deletes = true
"#;
    let fields = "fields = { name = \"utf8\", ts = \"timestamp\" }\nevent_time = \"ts\"\n\
                  watermark = { out_of_orderness = \"0s\" }";
    let case = Case::new(server, "sessions", STATE, fields, rest);
    // Two sessions, which a late row joins.
    let at =
        |name: &str, seconds: i64| format!("{{\"name\":\"{name}\",\"ts\":{}}}\n", seconds * 1000);
    let mut rows = at("a", 0) + &at("a", 12) + &at("b", 0) + &at("b", 100);
    for second in 0..2_000 {
        rows += &at("other", 200 + second);
    }
    rows += &at("a", 6);
    case.input(&rows).succeed();
    let keys = server.ask(&["--raw", "KEYS", "sessions:[ab]:*"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "sessions:a:1970-01-01T00:00:00Z",
            "sessions:b:1970-01-01T00:00:00Z",
            "sessions:b:1970-01-01T00:01:40Z",
        ]
    );
    assert_eq!(
        server.ask(&["ZRANGE", "sessions:a", "0", "-1", "WITHSCORES"]),
        "1970-01-01T00:00:00Z\n3"
    );
    Ok(())
}

fn what_expires_and_what_is_long_goes() -> Outcome {
    let server = server()?;
    let sinks = r#"
[sinks.string]
input = "in"
SERVER
as = "string"
key = "short:{n}"
expires = "1h"
[sinks.hash]
input = "in"
SERVER
as = "hash"
key = "short:hash"
expires = "1h"
[sinks.list]
input = "in"
SERVER
as = "list"
key = "last"
value = "n"
length = 3
"#;
    let case = Case::new(server, "short", "", FIELDS, sinks);
    let mut rows = String::new();
    for n in 0..1_000 {
        let _ = writeln!(rows, "{{\"user\":\"u\",\"n\":{n}}}");
    }
    case.input(&rows).succeed();
    for key in ["short:999", "short:hash"] {
        let left: u64 = server.ask(&["TTL", key]).parse().expect("a number");
        assert!((3_500..=3_600).contains(&left), "{key}: {left}");
    }
    assert_eq!(server.ask(&["LRANGE", "last", "0", "-1"]), "997\n998\n999");
    Ok(())
}

fn messages_come_to_those_who_listen() -> Outcome {
    let server = server()?;
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"publish\"\nkey = \"news:{user}\"";
    let case = Case::new(server, "news", "", FIELDS, sinks);
    case.input(ROWS);
    let (host, port) = server.address.split_once(':').expect("a port");
    let mut listening = Command::new("redis-cli")
        .args(["-h", host, "-p", port, "PSUBSCRIBE", "news:*"])
        .env("REDISCLI_AUTH", "s3cret")
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli runs");
    let until = Instant::now() + Duration::from_secs(20);
    while server.ask(&["PUBSUB", "NUMPAT"]) != "1" {
        assert!(Instant::now() < until, "nobody listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    case.succeed();
    std::thread::sleep(Duration::from_millis(300));
    listening.kill().expect("it runs");
    let heard = listening.wait_with_output().expect("it has ended").stdout;
    let heard = String::from_utf8_lossy(&heard);
    let messages: Vec<&str> = heard.lines().skip(3).collect();
    let messages: Vec<String> = messages.chunks(4).map(|it| it[2..].join(" ")).collect();
    expect![[r#"
        news:ann {"user":"ann","item":"a b","n":1}
        news:bob {"user":"bob","item":"ünï\n🦀","n":-2}
        news:ann {"user":"ann","item":null,"n":3}
    "#]]
    .assert_eq(&(messages.join("\n") + "\n"));
    Ok(())
}

fn a_server_that_refuses_says_why() -> Outcome {
    let server = server()?;
    let fails = |name: &str, from: &str, to: &str, head: &str, expected: Expect| {
        let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"hash\"\nkey = \"refused:{user}\"";
        let case = Case::new(server, name, head, FIELDS, sinks);
        let text = std::fs::read_to_string(case.pipeline()).expect("it is there");
        assert!(text.contains(from), "{from}");
        std::fs::write(case.pipeline(), text.replace(from, to)).expect("it is writable");
        case.input(ROWS);
        expected.assert_eq(&case.fail());
    };
    let secret = "{ env = \"SHOP_PASSWORD\" }";
    fails(
        "password",
        secret,
        "\"wrong\"",
        "",
        expect![[r#"
        error: sink `out`: cannot write to `refused:{user}` on ADDRESS, database 0: WRONGPASS the server does not take the user or the password; correct `user`, or the password in `properties`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    fails(
        "exactly",
        secret,
        "\"wrong\"",
        STATE,
        expect![[r#"
        error: pipeline `exactly`: cannot connect to ADDRESS, database 0: WRONGPASS the server does not take the user or the password; correct `user`, or the password in `properties`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    let properties = "properties = { password = { env = \"SHOP_PASSWORD\" } }";
    fails(
        "none",
        properties,
        "",
        "",
        expect![[r#"
        error: sink `out`: cannot write to `refused:{user}` on ADDRESS, database 0: NOAUTH Authentication required.; correct `user`, or the password in `properties`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    let address = format!("server = \"{}\"", server.address);
    // Nobody is there: that may pass, and is tried again, unless the pipeline says not to.
    let never = &format!("{STATE}[restart]\nstrategy = \"never\"");
    fails(
        "nobody",
        &address,
        "server = \"127.0.0.1:1\"",
        never,
        expect![[r#"
            error: pipeline `nobody`: cannot connect to 127.0.0.1:1, database 0: Connection refused (os error 111)
              the cause lies outside the host and may pass: start the pipeline again when it has
        "#]],
    );
    // Another type is in the way.
    server.ask(&["SET", "refused:ann", "1"]);
    fails(
        "type",
        "",
        "",
        "",
        expect![[r#"
        error: sink `out`: cannot write to `refused:{user}` on ADDRESS, database 0: WRONGTYPE Operation against a key holding the wrong kind of value; delete that key, or give the sink another `key`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    Ok(())
}

fn one_wrong_row_ends_the_run_with_its_text() -> Outcome {
    let server = server()?;
    let restart = "[restart]\nstrategy = \"fixed\"\ndelay = \"10ms\"\nfailures = 100\n";
    let restart = &format!("{STATE}{restart}");
    let fields = "fields = { user = \"utf8?\", score = \"float64?\" }";
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"sorted_set\"\nkey = \"w:{user}\"\n\
                 member = \"user\"\nscore = \"score\"";
    for (name, row, expected) in [
        (
            "wrong-member",
            r#"{"score":1}"#,
            expect![[r#"
            error: sink `out`: cannot write to `w:{user}` on ADDRESS, database 0: the field `user` is null; the row is {"user":null,"score":1.0}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
        ),
        (
            "wrong-score",
            r#"{"user":"ann","score":"NaN"}"#,
            expect![[r#"
            error: sink `out`: cannot write to `w:{user}` on ADDRESS, database 0: the field `score` is NaN, which is no score; the row is {"user":"ann","score":"NaN"}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
        ),
        (
            "no-score",
            r#"{"user":"ann"}"#,
            expect![[r#"
            error: sink `out`: cannot write to `w:{user}` on ADDRESS, database 0: the field `score` is null, and no score; the row is {"user":"ann","score":null}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
        ),
    ] {
        let case = Case::new(server, name, restart, fields, sinks);
        case.input(&format!("{{\"user\":\"bob\",\"score\":1}}\n{row}\n"));
        expected.assert_eq(&case.fail());
    }
    Ok(())
}

fn rows_without_a_place_are_refused() -> Outcome {
    let server = server()?;
    let fields = "fields = { user = \"utf8?\", score = \"float64?\" }";
    let mut rows = String::new();
    for number in 0..1_000 {
        let _ = match number {
            5 => writeln!(rows, "{{\"score\":5}}"),
            6 => writeln!(rows, "{{\"user\":\"u6\",\"score\":\"NaN\"}}"),
            999 => writeln!(rows, "{{\"user\":\"u999\"}}"),
            _ => writeln!(rows, "{{\"user\":\"u{number}\",\"score\":{number}}}"),
        };
    }
    let exactly = format!("parallelism = 2\n{STATE}");
    let at_least = format!("{exactly}delivery = \"at_least_once\"\n");
    for (name, head) in [
        ("refusing", "parallelism = 2\n"),
        ("refusing-exactly", &exactly),
        ("refusing-at-least", &at_least),
    ] {
        let sinks = format!(
            "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"sorted_set\"\nkey = \"{name}\"\n\
             member = \"user\"\nscore = \"score\"\non_error = \"dead_letter\""
        );
        let case = Case::new(server, name, head, fields, &sinks);
        case.input(&rows).succeed();
        assert_eq!(server.ask(&["ZCARD", name]), "997");
        let path = case.folder.path().join(format!("{name}.dead.jsonl"));
        let letters = std::fs::read_to_string(path).expect("dead letters");
        let told = letters.lines().map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(letter["kind"], "refused");
            let [row, error] = ["row", "error"].map(|it| letter[it].as_str().unwrap_or_default());
            format!("{error}: {row}\n")
        });
        let mut told = Vec::from_iter(told);
        told.sort();
        expect![[r#"
            the field `score` is NaN, which is no score: {"user":"u6","score":"NaN"}
            the field `score` is null, and no score: {"user":"u999","score":null}
            the field `user` is null: {"user":null,"score":5.0}
        "#]]
        .assert_eq(&told.concat());
    }
    Ok(())
}

/// The participant in the commits of a pipeline, as each of its runs has one.
fn participant(case: &Case<'_>) -> Arc<dyn Participant> {
    let text = std::fs::read_to_string(case.pipeline()).expect("it is there");
    let text = text.replace("{ env = \"SHOP_PASSWORD\" }", "\"s3cret\"");
    let plan = pipeline::plan_of(&text, case.folder.path());
    let context = commit_context(&plan);
    let mut sinks = plan.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Sink(sink) => sink.connector.participant(&context),
        _ => None,
    });
    sinks.next_back().expect("it takes part")
}

fn manifest(id: u64) -> Manifest {
    Manifest {
        id,
        ..Manifest::default()
    }
}

fn a_run_that_was_replaced_writes_nothing() -> Outcome {
    let server = server()?;
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"hash\"\nkey = \"r:{user}\"";
    let case = Case::new(server, "replaced", STATE, FIELDS, sinks);
    case.input("");
    let (older, newer) = (participant(&case), participant(&case));
    let stop = Stop::default();
    assert_eq!(older.fence(&stop).expect("it fences"), None);
    older.begin().expect("it begins");
    older.commit(&manifest(1)).expect("it commits");
    older.begin().expect("it begins");
    assert_eq!(newer.fence(&stop).expect("it fences"), Some(1));
    let told = older.commit(&manifest(2)).expect_err("it is fenced");
    assert!(told.to_string().contains("has taken over"), "{told}");
    assert!(!told.fault.can_pass);
    newer.begin().expect("it begins");
    newer.commit(&manifest(2)).expect("it commits");
    let told = older.begin().expect_err("it is fenced");
    assert!(told.to_string().contains("has taken over"), "{told}");
    let last = participant(&case);
    assert_eq!(last.fence(&stop).expect("it fences"), Some(2));
    Ok(())
}

/// A server that was emptied, or is another one, says nothing of what it had.
fn checkpoints_are_kept_that_a_server_has_forgotten() -> Outcome {
    let server = server()?;
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"list\"\nkey = \"forgotten\"\n\
                 value = \"n\"";
    let case = Case::new(server, "forgotten", STATE, FIELDS, sinks);
    case.input(ROWS).succeed();
    server.ask(&["DEL", "sluicebox:forgotten", "forgotten"]);
    let message = "error: the run cannot continue from its checkpoint: what was written up to \
                   checkpoint 1 was committed to redis, where it has none: it is another server, \
                   or was emptied or set back.";
    for _ in 0..2 {
        let said = case.fail();
        assert!(said.contains(message), "{said}");
    }
    let mut on = host();
    on.args(["run", "--quiet", "--from", "2"])
        .arg(case.pipeline());
    let output = on.output().expect("the host runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(server.ask(&["LRANGE", "forgotten", "0", "-1"]), "");
    case.input(&format!("{ROWS}{{\"user\":\"eve\",\"n\":4}}\n"));
    case.succeed();
    assert_eq!(server.ask(&["LRANGE", "forgotten", "0", "-1"]), "4");
    Ok(())
}

const FULL_ROWS: i64 = 50_000;

fn a_server_without_memory_says_so_and_loses_nothing() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let sinks = "[sinks.out]\ninput = \"in\"\nSERVER\nas = \"list\"\nkey = \"full\"\n\
                 value = \"user\"";
    let never = "[restart]\nstrategy = \"never\"\n";
    let always = "[restart]\nstrategy = \"fixed\"\ndelay = \"200ms\"\nfailures = 1000\n";
    for delivery in ["exactly_once", "at_least_once"] {
        server.ask(&["FLUSHALL"]);
        server.ask(&["CONFIG", "SET", "maxmemory", "4mb"]);
        let head = format!("{STATE}delivery = \"{delivery}\"\n");
        let case = Case::new(&server, delivery, &format!("{head}{never}"), FIELDS, sinks);
        let mut rows = String::new();
        for n in 0..FULL_ROWS {
            let _ = writeln!(rows, "{{\"user\":\"{n:0100}\",\"n\":{n}}}");
        }
        case.input(&rows);
        let oom = "OOM command not allowed when used memory > 'maxmemory'.; raise the server's \
                   `maxmemory`\n  the cause lies outside the host and may pass: start the \
                   pipeline again when it has";
        // The second run has no room from its first command on.
        for _ in 0..2 {
            let said = case.fail();
            assert!(said.contains(oom), "{said}");
            assert_eq!(said.matches("error:").count(), 1, "{said}");
        }
        // Where it may be tried again, it goes on by itself when there is room.
        let text = std::fs::read_to_string(case.pipeline()).expect("it is there");
        std::fs::write(case.pipeline(), text.replace(never, always)).expect("it is writable");
        let log = case.folder.path().join("log");
        let mut host = start(&case.pipeline(), &log, None);
        let ended = wait(&mut host, Duration::from_secs(2));
        assert_eq!(ended, None, "{}", tail(&log));
        assert!(tail(&log).contains("raise the server's `maxmemory`"));
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        let ended = wait(&mut host, RUN_MAX).expect("it ends");
        assert!(ended.success(), "{}", tail(&log));
        let list = server.ask(&["LRANGE", "full", "0", "-1"]);
        let mut ids: Vec<i64> = list
            .lines()
            .map(|id| id.parse().expect("a number"))
            .collect();
        ids.sort_unstable();
        if delivery == "at_least_once" {
            ids.dedup();
        }
        assert!(ids.iter().copied().eq(0..FULL_ROWS), "{}", ids.len());
    }
    Ok(())
}

const KILL_ROWS: i64 = 100_000;
const KEYS: i64 = 500;

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let script = |what: &str| server.call(what);
    killed::in_rounds(&script, |round, kills| killed_round(&server, round, kills));
    Ok(())
}

/// Runs one pipeline with kills until it ends by itself, and counts its rows: a list, which
/// is no upsert, tells what came twice.
fn killed_round(server: &Server, round: usize, kills: &mut Kills<'_>) -> usize {
    let sinks = format!(
        r#"
[operators.by_key]
input = "in"
key = "key"
window = "running"
aggregate = {{ n = "count()", total = "sum(id)" }}
[sinks.list]
input = "in"
SERVER
as = "list"
key = "kept:{round}"
value = "id"
[sinks.totals]
input = "by_key"
SERVER
as = "hash"
key = "total:{round}:{{key}}"
"#
    );
    let head = "parallelism = 2\nbatch_rows = 500\n[state]\npath = \"state\"\n[checkpoints]\n\
                interval = \"50ms\"\n[restart]\nstrategy = \"fixed\"\ndelay = \"100ms\"\n\
                failures = 1000\n";
    let fields = "fields = { id = \"int64\", key = \"int64\" }";
    let case = Case::new(server, &format!("kill-{round}"), head, fields, &sinks);
    let mut rows = String::new();
    for id in 0..KILL_ROWS {
        let _ = writeln!(rows, "{{\"id\":{id},\"key\":{}}}", id % KEYS);
    }
    case.input(&rows);
    let log = case.folder.path().join("log");
    let done = kills.run(&case.pipeline(), &log);
    let list = server.ask(&["LRANGE", &format!("kept:{round}"), "0", "-1"]);
    let mut ids: Vec<i64> = list
        .lines()
        .map(|id| id.parse().expect("a number"))
        .collect();
    ids.sort_unstable();
    assert!(
        ids.iter().copied().eq(0..KILL_ROWS),
        "{} rows\n{}",
        ids.len(),
        tail(&log)
    );
    let all = "local all = {} for key = 0, ARGV[1] - 1 do \
               local found = redis.call('HMGET', KEYS[1] .. key, 'n', 'total') \
               all[#all + 1] = found[1] .. ' ' .. found[2] end return all";
    let totals = server.ask(&[
        "EVAL",
        all,
        "1",
        &format!("total:{round}:"),
        &KEYS.to_string(),
    ]);
    let each = KILL_ROWS / KEYS;
    let expected = (0..KEYS).map(|key| {
        let total = each * key + KEYS * each * (each - 1) / 2;
        format!("{each} {total}")
    });
    let expected: Vec<String> = expected.collect();
    assert_eq!(totals, expected.join("\n"), "{}", tail(&log));
    done
}
