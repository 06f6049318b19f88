//! Tests the PostgreSQL sink with a real server and a real host.
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
/// A disk that can be full.
#[path = "common/disk.rs"]
mod disk;
/// A real server.
#[path = "common/postgres.rs"]
mod postgres;

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use sluicebox::checkpoint::manifest::Manifest;
use sluicebox::checkpoint::transaction::Participant;
use sluicebox::plan::NodeKind;
use sluicebox::run::commit_context;
use sluicebox::stop::Stop;

use disk::Disk;
use harness::Outcome;
use killed::{Kills, RUN_MAX, host, start, tail, wait};
use postgres::{Server, server};

tests![
    every_type_comes_back,
    columns_of_other_types_take_what_they_can_read,
    rows_replace_each_other_by_their_key,
    results_that_are_gone_delete_their_rows,
    rows_are_seen_when_their_checkpoint_is_committed,
    rows_come_without_checkpoints,
    a_table_that_does_not_fit_is_told_at_the_start,
    a_server_that_refuses_says_why,
    one_wrong_row_ends_the_run_with_its_text,
    refused_rows_are_dead_letters_and_the_others_are_written,
    a_batch_of_refused_rows_comes_to_an_end,
    a_row_that_cannot_be_deleted_is_refused,
    a_row_that_a_commit_refuses_ends_the_run,
    a_connection_with_tls_is_verified,
    a_run_that_was_replaced_writes_nothing,
    a_server_that_comes_back_is_written_on,
    a_lock_that_another_run_left_is_taken_away,
    a_full_tablespace_is_told_and_loses_nothing,
    a_full_disk_is_told_and_loses_nothing,
    nothing_is_lost_or_doubled_by_kills,
    refused_rows_are_letters_once_through_kills,
];

/// A folder with a pipeline that reads `in.jsonl`.
struct Case<'a> {
    server: &'a Server,
    folder: tempfile::TempDir,
}

impl<'a> Case<'a> {
    /// A pipeline with this head, whose source has these fields, and this sink.
    fn new(server: &'a Server, name: &str, head: &str, fields: &str, sink: &str) -> Self {
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let text = format!(
            r#"
name = "{name}"
{head}
[sources.in]
type = "file"
path = "in.jsonl"
{fields}
[sinks.out]
type = "postgres"
server = "{}"
database = "shop"
user = "shop"
{sink}
"#,
            server.address
        );
        let has_properties = sink.contains("properties");
        let password = "properties = { password = { env = \"SHOP_PASSWORD\" } }\n";
        let text = if has_properties {
            text
        } else {
            text + password
        };
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
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = host()
            .args(arguments)
            .arg(self.pipeline())
            .output()
            .expect("the host runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout);
        (output.status.success(), format!("{printed}{said}"))
    }

    fn succeed(&self) {
        let (is_good, said) = self.run(&["run", "--quiet"]);
        assert!(is_good, "{said}");
    }

    /// The message of a run that fails.
    fn fail(&self) -> String {
        let (is_good, said) = self.run(&["run", "--quiet"]);
        assert!(!is_good, "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        let folder = self.folder.path().to_string_lossy().into_owned();
        said.replace(&self.server.address, "SERVER")
            .replace(&folder, "FOLDER")
    }

    /// Makes the tables that `sluicebox check --ddl` prints.
    fn create(&self) -> String {
        let (is_good, ddl) = self.run(&["check", "--ddl"]);
        assert!(is_good, "{ddl}");
        self.server.sql(&ddl);
        ddl
    }
}

const TYPES: &str = r#"fields = { id = "int64", b = "bool?", i8 = "int8?", i16 = "int16?", i32 = "int32?", u8 = "uint8?", u16 = "uint16?", u32 = "uint32?", u64 = "uint64?", f32 = "float32?", f64 = "float64?", d = "decimal(38,10)?", s = "utf8?", y = "bytes?", t = "timestamp?", k = "one|two?", l = "list<int64?>?", ls = "list<utf8?>?", lt = "list<timestamp>?", ll = "list<list<int64>>?", "r?" = { a = "utf8", n = "list<float64>?" }, "lr?" = [{ a = "int64" }] }"#;

/// One row without anything, and ones with the extremes of each type.
const VALUES: &str = r#"{"id":1}
{"id":2,"b":true,"i8":-128,"i16":-32768,"i32":-2147483648,"u8":0,"u16":0,"u32":0,"u64":0,"f32":-3.4028235e38,"f64":-1.7976931348623157e308,"d":-9999999999999999999999999999.9999999999,"s":"","y":"","t":-62135596800000,"k":"one","l":[],"ls":[],"lt":[],"r":{"a":"","n":[]},"lr":[],"ll":[]}
{"id":9223372036854775807,"b":false,"i8":127,"i16":32767,"i32":2147483647,"u8":255,"u16":65535,"u32":4294967295,"u64":18446744073709551615,"f32":3.4028235e38,"f64":5e-324,"d":9999999999999999999999999999.9999999999,"s":"tab\tline\nreturn\r\\N \\. 'quote' \"double\" ünïcödé 🦀","y":"AAH/Cg==","t":253402300799999,"k":"two","l":[1,null,-9223372036854775808],"ls":["a,b","","{\"x\"}","NULL",null,"tab\t\\"],"lt":["2024-02-29T23:59:59.999Z"],"r":{"a":"\\ \" \n 🦀","n":[1.5]},"lr":[{"a":1}],"ll":[[1],[],[2,3]]}
{"id":-9223372036854775808,"f32":"NaN","f64":"NaN"}
{"id":5,"f32":"Infinity","f64":"-Infinity"}
"#;

fn every_type_comes_back() -> Outcome {
    let server = server()?;
    let sink = "input = \"in\"\ntable = \"types\"";
    let case = Case::new(server, "types", "", TYPES, sink);
    let ddl = case.input(VALUES).create();
    expect![[r#"
        CREATE TABLE "types" (
            "id" bigint NOT NULL,
            "b" boolean,
            "i8" smallint,
            "i16" smallint,
            "i32" integer,
            "u8" smallint,
            "u16" integer,
            "u32" bigint,
            "u64" numeric(20,0),
            "f32" real,
            "f64" double precision,
            "d" numeric(38,10),
            "s" text,
            "y" bytea,
            "t" timestamptz,
            "k" text,
            "l" bigint[],
            "ls" text[],
            "lt" timestamptz[],
            "ll" jsonb,
            "r" jsonb,
            "lr" jsonb
        );
    "#]]
    .assert_eq(&ddl);
    case.succeed();
    let rows = server.sql("SELECT row_to_json(types) FROM types ORDER BY id");
    expect![[r#"
        {"id":-9223372036854775808,"b":null,"i8":null,"i16":null,"i32":null,"u8":null,"u16":null,"u32":null,"u64":null,"f32":"NaN","f64":"NaN","d":null,"s":null,"y":null,"t":null,"k":null,"l":null,"ls":null,"lt":null,"ll":null,"r":null,"lr":null}
        {"id":1,"b":null,"i8":null,"i16":null,"i32":null,"u8":null,"u16":null,"u32":null,"u64":null,"f32":null,"f64":null,"d":null,"s":null,"y":null,"t":null,"k":null,"l":null,"ls":null,"lt":null,"ll":null,"r":null,"lr":null}
        {"id":2,"b":true,"i8":-128,"i16":-32768,"i32":-2147483648,"u8":0,"u16":0,"u32":0,"u64":0,"f32":-3.4028235e+38,"f64":-1.7976931348623157e+308,"d":-9999999999999999999999999999.9999999999,"s":"","y":"\\x","t":"0001-01-01T00:00:00+00:00","k":"one","l":[],"ls":[],"lt":[],"ll":[],"r":{"a": "", "n": []},"lr":[]}
        {"id":5,"b":null,"i8":null,"i16":null,"i32":null,"u8":null,"u16":null,"u32":null,"u64":null,"f32":"Infinity","f64":"-Infinity","d":null,"s":null,"y":null,"t":null,"k":null,"l":null,"ls":null,"lt":null,"ll":null,"r":null,"lr":null}
        {"id":9223372036854775807,"b":false,"i8":127,"i16":32767,"i32":2147483647,"u8":255,"u16":65535,"u32":4294967295,"u64":18446744073709551615,"f32":3.4028235e+38,"f64":5e-324,"d":9999999999999999999999999999.9999999999,"s":"tab\tline\nreturn\r\\N \\. 'quote' \"double\" ünïcödé 🦀","y":"\\x0001ff0a","t":"9999-12-31T23:59:59.999+00:00","k":"two","l":[1,null,-9223372036854775808],"ls":["a,b","","{\"x\"}","NULL",null,"tab\t\\"],"lt":["2024-02-29T23:59:59.999+00:00"],"ll":[[1], [], [2, 3]],"r":{"a": "\\ \" \n 🦀", "n": [1.5]},"lr":[{"a": 1}]}"#]].assert_eq(&rows);
    // By a key, rows go another way.
    let sink = "input = \"in\"\ntable = \"keyed_types\"\nkey = \"id\"";
    let case = Case::new(server, "keyed-types", "", TYPES, sink);
    case.input(VALUES).create();
    case.succeed();
    let keyed = server.sql("SELECT row_to_json(keyed_types) FROM keyed_types ORDER BY id");
    assert_eq!(keyed, rows);
    Ok(())
}

fn columns_of_other_types_take_what_they_can_read() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); \
         CREATE DOMAIN cents AS numeric(12,0) CHECK (VALUE >= 0); \
         CREATE TABLE other (number numeric, \"Id\" uuid, mood mood, day date, cents cents, \
            local timestamp, note varchar(10), made timestamptz DEFAULT now(), tags jsonb)",
    );
    let fields = r#"fields = { n = "int64", id = "utf8", mood = "utf8", day = "utf8", cents = "int32", local = "timestamp", note = "utf8?", tags = "list<utf8>" }"#;
    let sink = "input = \"in\"\ntable = \"public.other\"\n\
                names = { n = \"number\", id = \"Id\" }";
    let case = Case::new(server, "other", "", fields, sink);
    case.input(
        "{\"n\":12,\"id\":\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\",\"mood\":\"bad\",\
         \"day\":\"2024-02-29\",\"cents\":5,\"local\":1000,\"note\":\"ünïcödé🦀\",\"tags\":[\"a\"]}\n",
    );
    case.succeed();
    let row =
        "SELECT number, \"Id\", mood, day, cents, local, note, made IS NOT NULL, tags FROM other";
    expect![[r#"12|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|bad|2024-02-29|5|1970-01-01 00:00:01|ünïcödé🦀|t|["a"]"#]].assert_eq(&server.sql(row));
    Ok(())
}

const ID_NAME: &str = "fields = { id = \"int64\", name = \"utf8?\" }";

const STATE: &str = r#"batch_rows = 100
[state]
path = "state"
[checkpoints]
interval = "50ms"
"#;

fn rows_replace_each_other_by_their_key() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE latest (id bigint PRIMARY KEY, name text, other int DEFAULT 7)");
    server.sql("INSERT INTO latest VALUES (1, 'before', 1), (9, 'stays', 9)");
    let sink = "input = \"in\"\ntable = \"latest\"\nkey = [\"id\"]";
    let mut rows = String::new();
    for number in 0..30_000 {
        let _ = writeln!(rows, "{{\"id\":{},\"name\":\"n{number}\"}}", number % 3);
    }
    let at_least = format!("{STATE}delivery = \"at_least_once\"\n");
    for (name, head) in [
        ("latest", ""),
        ("latest-exactly", STATE),
        ("latest-at-least", &at_least),
    ] {
        server.sql("UPDATE latest SET name = 'before'");
        Case::new(server, name, head, ID_NAME, sink)
            .input(&rows)
            .succeed();
        let found = server.sql("SELECT * FROM latest ORDER BY id");
        assert_eq!(found, "0|n29997|7\n1|n29998|1\n2|n29999|7\n9|before|9");
    }
    // Where there is nothing but the key, a row that is there stays.
    server.sql("CREATE TABLE seen (id bigint PRIMARY KEY)");
    let sink = "input = \"in\"\ntable = \"seen\"\nkey = \"id\"";
    let fields = "fields = { id = \"int64\" }";
    Case::new(server, "seen", "", fields, sink)
        .input(&rows)
        .succeed();
    assert_eq!(server.sql("SELECT count(*) FROM seen"), "3");
    Ok(())
}

fn results_that_are_gone_delete_their_rows() -> Outcome {
    let server = server()?;
    let sink = r#"
input = "by_name.changes"
table = "sessions"
key = ["name", "window_start"]
deletes = true
[operators.by_name]
input = "in"
key = "name"
window = { session = "10s" }
allowed_lateness = "1h"
aggregate = { n = "count()" }
"#;
    let (operator, sink) = (
        sink.split_once("[operators").expect("an operator").1,
        sink.split_once("[operators").expect("an operator").0,
    );
    let head = format!("{STATE}[operators{operator}");
    let fields = "fields = { name = \"utf8\", ts = \"timestamp\" }\nevent_time = \"ts\"\n\
                  watermark = { out_of_orderness = \"0s\" }";
    let case = Case::new(server, "sessions", &head, fields, sink);
    // Two sessions, which a late row joins.
    let at =
        |name: &str, seconds: i64| format!("{{\"name\":\"{name}\",\"ts\":{}}}\n", seconds * 1000);
    let mut rows = at("a", 0) + &at("a", 12) + &at("b", 0) + &at("b", 100);
    for second in 0..2_000 {
        rows += &at("other", 200 + second);
    }
    rows += &at("a", 6);
    case.input(&rows).create();
    case.succeed();
    let found = server.sql(
        "SELECT name, extract(epoch FROM window_start), n FROM sessions \
                            WHERE name <> 'other' ORDER BY 1, 2",
    );
    assert_eq!(found, "a|0.000000|3\nb|0.000000|1\nb|100.000000|1");
    Ok(())
}

/// A host that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is true.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows_are_seen_when_their_checkpoint_is_committed() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE committed (id bigint, name text)");
    let sink = "input = \"in\"\ntable = \"committed\"";
    let head = STATE.replace("50ms", "3s");
    let fields = "fields = { id = \"int64\", name = \"utf8?\" }";
    let case = Case::new(server, "committed", &head, fields, sink);
    // A source that does not end: a named pipe.
    let pipe = case.folder.path().join("in.jsonl");
    let made = Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let mut host = host()
        .args(["run", "--quiet"])
        .arg(case.pipeline())
        .stderr(Stdio::null())
        .spawn()
        .expect("the host starts");
    let mut writer = File::options().write(true).open(&pipe).expect("a reader");
    let checkpoint = || {
        server.sql(
            "SELECT coalesce(max(checkpoint), 0) FROM sluicebox_checkpoints \
             WHERE pipeline = 'committed'",
        )
    };
    wait_until("the first checkpoint is committed", || {
        server.sql("SELECT to_regclass('sluicebox_checkpoints') IS NOT NULL") == "t"
            && checkpoint() != "0"
    });
    let before = checkpoint();
    std::io::Write::write_all(&mut writer, b"{\"id\":1}\n{\"id\":2}\n").expect("it is read");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(
        checkpoint(),
        before,
        "the interval is too short for this test"
    );
    assert_eq!(server.sql("SELECT count(*) FROM committed"), "0");
    wait_until("the next checkpoint is committed", || {
        checkpoint() != before
    });
    assert_eq!(server.sql("SELECT count(*) FROM committed"), "2");
    drop(writer);
    let ended = wait(&mut host, RUN_MAX).expect("it ends");
    assert!(ended.success());
    Ok(())
}

fn rows_come_without_checkpoints() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE at_once (id bigint, name text)");
    let sink = "input = \"in\"\ntable = \"at_once\"";
    let mut rows = String::new();
    for id in 0..100_000 {
        let _ = writeln!(rows, "{{\"id\":{id},\"name\":\"ü\\n\"}}");
    }
    let case = Case::new(server, "at-once", "", ID_NAME, sink);
    case.input(&rows).succeed();
    let counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM at_once";
    assert_eq!(server.sql(counted), "100000|100000|4999950000");
    Ok(())
}

fn a_table_that_does_not_fit_is_told_at_the_start() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE misfit (\"ID\" bigint, name int, amount numeric(5,2), must int NOT NULL, \
            also int GENERATED ALWAYS AS (must + 1) STORED, tags int[]); \
         CREATE VIEW seen_only AS SELECT 1 AS id",
    );
    let fields = r#"fields = { id = "int64", name = "utf8", amount = "decimal(10,2)", also = "int32", tags = "list<utf8>" }"#;
    let fails = |name: &str, sink: &str, fields: &str, expected: Expect| {
        let case = Case::new(server, name, "", fields, sink);
        case.input("{\"id\":1}\n");
        expected.assert_eq(&case.fail());
    };
    fails(
        "misfit",
        "input = \"in\"\ntable = \"misfit\"\nkey = \"id\"",
        fields,
        expect![[r#"
            error: sink `out`: cannot write to table `misfit` of database `shop` on SERVER: it has no column `id` for the field `id` (int64): ALTER TABLE "misfit" ADD COLUMN "id" bigint, or name another column in `names`; its column `name` is integer, which does not hold all values of the field `name` (utf8): use text, or another type of the field; its column `amount` is numeric(5,2), which does not hold all values of the field `amount` (decimal(10,2)): use numeric(10,2), or another type of the field; its column `also` is generated always, and the field `also` cannot go there; its column `tags` is integer[], which does not hold all values of the field `tags` (list<utf8>): use text[], or another type of the field; its column `must` is NOT NULL without a default, and no field goes there: add one, or ALTER TABLE "misfit" ALTER COLUMN "must" DROP NOT NULL; it has no unique index on the key (id): ALTER TABLE "misfit" ADD UNIQUE ("id")
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "absent",
        "input = \"in\"\ntable = \"Misfit\"",
        fields,
        expect![[r#"
            error: sink `out`: cannot write to table `Misfit` of database `shop` on SERVER: there is no such table; create it, as `sluicebox check --ddl` prints it, or correct `table`, where capital letters count
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "view",
        "input = \"in\"\ntable = \"seen_only\"",
        "fields = { id = \"int64\" }",
        expect![[r#"
            error: sink `out`: cannot write to table `seen_only` of database `shop` on SERVER: seen_only is no table but a view or the like
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    server.sql_as(
        "postgres",
        "CREATE TABLE foreign_one (id bigint); GRANT SELECT ON foreign_one TO shop",
    );
    fails(
        "denied",
        "input = \"in\"\ntable = \"foreign_one\"",
        "fields = { id = \"int64\" }",
        expect![[r#"
            error: sink `out`: cannot write to table `foreign_one` of database `shop` on SERVER: its user may not INSERT: GRANT INSERT ON "foreign_one" TO … allows it
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    Ok(())
}

fn a_server_that_refuses_says_why() -> Outcome {
    let server = server()?;
    let fails = |name: &str, from: &str, to: &str, head: &str, expected: Expect| {
        let sink = "input = \"in\"\ntable = \"nothing\"\n\
                    properties = { password = { env = \"SHOP_PASSWORD\" } }";
        let case = Case::new(server, name, head, ID_NAME, sink);
        let text = std::fs::read_to_string(case.pipeline()).expect("it is there");
        assert!(text.contains(from), "{from}");
        std::fs::write(case.pipeline(), text.replace(from, to)).expect("it is writable");
        case.input("");
        expected.assert_eq(&case.fail());
    };
    let secret = "{ env = \"SHOP_PASSWORD\" }";
    fails(
        "password",
        secret,
        "\"wrong\"",
        "",
        expect![[r#"
        error: sink `out`: cannot write to table `nothing` of database `shop` on SERVER: password authentication failed for user "shop" (SQLSTATE 28P01); correct `user` or the password in `properties`, or allow this user in the server's pg_hba.conf
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    fails(
        "exactly-password",
        secret,
        "\"wrong\"",
        STATE,
        expect![[r#"
            error: pipeline `exactly-password`: cannot connect to database `shop` on SERVER: password authentication failed for user "shop" (SQLSTATE 28P01); correct `user` or the password in `properties`, or allow this user in the server's pg_hba.conf
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "database",
        "database = \"shop\"",
        "database = \"chop\"",
        "",
        expect![[r#"
            error: sink `out`: cannot write to table `nothing` of database `chop` on SERVER: database "chop" does not exist (SQLSTATE 3D000); create the database, or correct `database`
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "no-password",
        "password = { env",
        "options = { env",
        "",
        expect![[r#"
            error: sink `out`: cannot write to table `nothing` of database `shop` on SERVER: invalid configuration: password missing
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    // Nobody is there: that may pass, and is tried again, unless the pipeline says not to.
    fails(
        "nobody",
        &format!("server = \"{}\"", server.address),
        "server = \"127.0.0.1:1\"",
        &format!("{STATE}[restart]\nstrategy = \"never\""),
        expect![[r#"
            error: pipeline `nobody`: cannot connect to database `shop` on 127.0.0.1:1: error connecting to server: Connection refused (os error 111)
              the cause lies outside the host and may pass: start the pipeline again when it has
        "#]],
    );
    Ok(())
}

fn one_wrong_row_ends_the_run_with_its_text() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE strict (id bigint PRIMARY KEY, name varchar(5) CHECK (name <> 'no'), \
            ts timestamptz)",
    );
    let fields = r#"fields = { id = "int64?", name = "utf8?", ts = "timestamp?" }"#;
    let restart = "[restart]\nstrategy = \"fixed\"\ndelay = \"10ms\"\nfailures = 100\n";
    let fails = |name: &str, more: &str, row: &str, expected: Expect| {
        server.sql("DELETE FROM strict");
        let sink = format!("input = \"in\"\ntable = \"strict\"\n{more}");
        let head = format!("{STATE}{restart}");
        let case = Case::new(server, name, &head, fields, &sink);
        case.input(&format!("{{\"id\":1,\"name\":\"good\"}}\n{row}\n"));
        let said = case.fail();
        // The time at the beginning of a line of the log.
        let lines = said
            .lines()
            .filter(|line| !line.contains(" WARN "))
            .map(|line| line.split_once(" ERROR ").map_or(line, |(_, rest)| rest));
        expected.assert_eq(&(Vec::from_iter(lines).join("\n") + "\n"));
    };
    fails(
        "zero",
        "",
        r#"{"id":2,"name":"a\u0000b"}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: the field `name` has the character U+0000, which no text there can have; the row is {"id":2,"name":"a\u0000b","ts":null}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    fails(
        "time",
        "",
        r#"{"id":2,"ts":9224318016000000}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: the field `ts` is a time that PostgreSQL does not have (9224318016000000 ms since 1970): its years go from 4714 BC to 294276; the row is {"id":2,"name":null,"ts":9224318016000000}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    fails(
        "long",
        "",
        r#"{"id":2,"name":"too long"}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: value too long for type character varying(5); COPY strict, line 2, column name: "too long" (SQLSTATE 22001)
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    fails(
        "check",
        "key = \"id\"",
        r#"{"id":2,"name":"no"}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: new row for relation "strict" violates check constraint "strict_name_check"; Failing row contains (2, no, null) (SQLSTATE 23514)
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    fails(
        "twice",
        "",
        r#"{"id":1,"name":"again"}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: duplicate key value violates unique constraint "strict_pkey"; Key (id)=(1) already exists; COPY strict, line 2 (SQLSTATE 23505)
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    fails(
        "null",
        "key = \"id\"",
        r#"{"name":"x"}"#,
        expect![[r#"
            error: sink `out`: cannot write to table `strict` of database `shop` on SERVER: the field `id` is null, and rows replace each other by it; the row is {"id":null,"name":"x","ts":null}
              the row would fail again: correct it at its source, or have `on_error` skip such rows or keep them as dead letters
        "#]],
    );
    assert_eq!(server.sql("SELECT count(*) FROM strict"), "0");
    Ok(())
}

/// Rows of which the server, or the host itself, refuses some, each for another reason.
fn refusable() -> (String, usize) {
    let (mut rows, mut bad) = (String::new(), 0);
    for id in 0..1_000 {
        let why = match id {
            5 => r#""name":"a\u0000b""#,
            6 => r#""ts":9224318016000000"#,
            7 | 300 | 999 => r#""name":"no""#,
            8 => r#""name":"too long""#,
            301 => r#""name":"raise""#,
            302 => r#""n":9999"#,
            303 => r#""other":4"#,
            500 => r#""must":null"#,
            _ => r#""name":"good""#,
        };
        bad += usize::from(!why.contains("good"));
        let must = if why.contains("must") {
            ""
        } else {
            ",\"must\":1"
        };
        let _ = writeln!(rows, "{{\"id\":{id},{why}{must}}}");
    }
    (rows, bad)
}

const REFUSABLE: &str = r#"fields = { id = "int64?", name = "utf8?", n = "int64?", other = "int64?", must = "int64?", ts = "timestamp?" }"#;

/// Makes a table that refuses rows, and returns its columns for the sink.
fn refusing(server: &Server, table: &str) -> String {
    server.sql(&format!(
        "CREATE TABLE others_of_{table} (other bigint PRIMARY KEY); \
         CREATE FUNCTION raises_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF NEW.name = 'raise' THEN RAISE EXCEPTION 'not this one' USING HINT = 'another'; \
            END IF; RETURN NEW; END $$; \
         CREATE TABLE {table} (id bigint PRIMARY KEY, name varchar(5) CHECK (name <> 'no'), \
            n bigint, twice numeric(4,0) GENERATED ALWAYS AS (n * 2) STORED, \
            other bigint REFERENCES others_of_{table}, must bigint NOT NULL, ts timestamptz); \
         CREATE TRIGGER raises BEFORE INSERT OR UPDATE ON {table} \
            FOR EACH ROW EXECUTE FUNCTION raises_{table}()"
    ));
    format!("input = \"in\"\ntable = \"{table}\"\non_error = \"dead_letter\"\n")
}

/// The dead letters of a pipeline as lines, in the order of their rows.
fn letters(case: &Case<'_>, name: &str) -> Vec<(u64, serde_json::Value)> {
    let path = case.folder.path().join(format!("{name}.dead.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let letters = text.lines().map(|line| {
        let letter: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(letter["kind"], "refused", "{letter}");
        let row = letter["row"].as_str().expect("a row");
        let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
        (row["id"].as_u64().unwrap_or(u64::MAX), letter)
    });
    let mut letters = Vec::from_iter(letters);
    letters.sort_by_key(|(id, _)| *id);
    letters
}

fn refused_rows_are_dead_letters_and_the_others_are_written() -> Outcome {
    let server = server()?;
    let (mut rows, mut bad) = refusable();
    // By a key it would take the place of the first.
    let again = "{\"id\":17,\"name\":\"again\",\"must\":1}\n";
    let keyless = "{\"name\":\"x\",\"must\":1}\n";
    rows += again;
    bad += 1;
    let exactly = format!("parallelism = 2\n{STATE}");
    let at_least = format!("{exactly}delivery = \"at_least_once\"\n");
    let expected_of_copies = expect![[r#"
        5: the field `name` has the character U+0000, which no text there can have
        6: the field `ts` is a time that PostgreSQL does not have (9224318016000000 ms since 1970): its years go from 4714 BC to 294276
        7: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (7, no, null, null, null, 1, null); COPY TABLE, line 1: "7	no	\N	\N	1	\N" (SQLSTATE 23514)
        8: value too long for type character varying(5); COPY TABLE, line 1, column name: "too long" (SQLSTATE 22001)
        17: duplicate key value violates unique constraint "TABLE_pkey"; Key (id)=(17) already exists; COPY TABLE, line 1: "17	again	\N	\N	1	\N" (SQLSTATE 23505)
        300: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (300, no, null, null, null, 1, null); COPY TABLE, line 1: "300	no	\N	\N	1	\N" (SQLSTATE 23514)
        301: not this one; PL/pgSQL function raises_TABLE() line 1 at RAISE; another (SQLSTATE P0001)
        302: numeric field overflow; A field with precision 4, scale 0 must round to an absolute value less than 10^4; COPY TABLE, line 1: "302	\N	9999	\N	1	\N" (SQLSTATE 22003)
        303: insert or update on table "TABLE" violates foreign key constraint "TABLE_other_fkey"; Key (other)=(4) is not present in table "others_of_TABLE" (SQLSTATE 23503)
        500: null value in column "must" of relation "TABLE" violates not-null constraint; Failing row contains (500, null, null, null, null, null, null); COPY TABLE, line 1: "500	\N	\N	\N	\N	\N" (SQLSTATE 23502)
        999: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (999, no, null, null, null, 1, null); COPY TABLE, line 1: "999	no	\N	\N	1	\N" (SQLSTATE 23514)
    "#]];
    let expected_by_key = expect![[r#"
        5: the field `name` has the character U+0000, which no text there can have
        6: the field `ts` is a time that PostgreSQL does not have (9224318016000000 ms since 1970): its years go from 4714 BC to 294276
        7: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (7, no, null, null, null, 1, null) (SQLSTATE 23514)
        8: value too long for type character varying(5); COPY sluicebox_8bb391102a99f3c9, line 1, column name: "too long" (SQLSTATE 22001)
        300: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (300, no, null, null, null, 1, null) (SQLSTATE 23514)
        301: not this one; PL/pgSQL function raises_TABLE() line 1 at RAISE; another (SQLSTATE P0001)
        302: numeric field overflow; A field with precision 4, scale 0 must round to an absolute value less than 10^4 (SQLSTATE 22003)
        303: insert or update on table "TABLE" violates foreign key constraint "TABLE_other_fkey"; Key (other)=(4) is not present in table "others_of_TABLE" (SQLSTATE 23503)
        500: null value in column "must" of relation "TABLE" violates not-null constraint; Failing row contains (500, null, null, null, null, null, null) (SQLSTATE 23502)
        999: new row for relation "TABLE" violates check constraint "TABLE_name_check"; Failing row contains (999, no, null, null, null, 1, null) (SQLSTATE 23514)
        -1: the field `id` is null, and rows replace each other by it
    "#]];
    for (number, (key, head)) in [
        ("", "parallelism = 2"),
        ("", &exactly),
        ("", &at_least),
        ("key = \"id\"", "parallelism = 2"),
        ("key = \"id\"", &exactly),
        ("key = \"id\"", &at_least),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("refusing_{number}");
        let sink = refusing(server, &table) + key;
        let case = Case::new(server, &table, head, REFUSABLE, &sink);
        let rows = match key {
            "" => rows.clone(),
            _ => rows.replace(again, keyless),
        };
        let (is_good, said) = case.input(&rows).run(&["run"]);
        assert!(is_good, "{said}");
        assert!(said.contains("every row is accounted for"), "{said}");
        let mut told = String::new();
        for (id, letter) in letters(&case, &table) {
            let error = letter["error"].as_str().expect("a text");
            let _ = writeln!(
                told,
                "{}: {}",
                id.cast_signed(),
                error.replace(&table, "TABLE")
            );
        }
        match key {
            "" => expected_of_copies.assert_eq(&told),
            _ => expected_by_key.assert_eq(&told),
        }
        assert_eq!(told.lines().count(), bad);
        let found =
            format!("SELECT count(*), sum(id), count(*) FILTER (WHERE name = 'good') FROM {table}");
        let sum = 999 * 500
            - [5, 6, 7, 300, 999, 8, 301, 302, 303, 500]
                .iter()
                .sum::<i32>();
        assert_eq!(server.sql(&found), format!("990|{sum}|990"), "{table}");
    }
    Ok(())
}

fn a_batch_of_refused_rows_comes_to_an_end() -> Outcome {
    let server = server()?;
    let mut rows = String::new();
    for id in 0..5_000 {
        let _ = writeln!(rows, "{{\"id\":{id},\"name\":\"no\",\"must\":1}}");
    }
    rows += "{\"id\":5000,\"name\":\"good\",\"must\":1}\n";
    for (name, key) in [("all_refused", ""), ("all_refused_by_key", "key = \"id\"")] {
        let sink = refusing(server, name) + key;
        let case = Case::new(server, name, STATE, REFUSABLE, &sink);
        let began = Instant::now();
        case.input(&rows).succeed();
        eprintln!("{name}: {:?}", began.elapsed());
        assert_eq!(letters(&case, name).len(), 5_000);
        assert_eq!(server.sql(&format!("SELECT id FROM {name}")), "5000");
    }
    // They are counted alone, if the sink says so.
    let sink = refusing(server, "skipping").replace("dead_letter", "skip");
    let case = Case::new(server, "skipping", "", REFUSABLE, &sink);
    let (is_good, said) = case.input(&rows).run(&["run", "--quiet"]);
    assert!(is_good && said.contains("sink `out`: skipped "), "{said}");
    assert_eq!(letters(&case, "skipping").len(), 0);
    Ok(())
}

fn a_row_that_cannot_be_deleted_is_refused() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF OLD.name = 'a' THEN RAISE EXCEPTION 'a stays'; END IF; RETURN OLD; END $$; \
         CREATE TABLE kept_sessions (name text NOT NULL, window_start timestamptz NOT NULL, \
            window_end timestamptz NOT NULL, n bigint NOT NULL, \
            UNIQUE (name, window_start)); \
         INSERT INTO kept_sessions VALUES ('a', 'epoch'::timestamptz + '12s', now(), 0); \
         CREATE TRIGGER keeps BEFORE DELETE ON kept_sessions \
            FOR EACH ROW EXECUTE FUNCTION keeps()",
    );
    let sink = "input = \"by_name.changes\"\ntable = \"kept_sessions\"\n\
                key = [\"name\", \"window_start\"]\ndeletes = true\non_error = \"dead_letter\"";
    let head = format!(
        "{STATE}[operators.by_name]\ninput = \"in\"\nkey = \"name\"\n\
         window = {{ session = \"10s\" }}\nallowed_lateness = \"1h\"\n\
         aggregate = {{ n = \"count()\" }}\n"
    );
    let fields = "fields = { name = \"utf8\", ts = \"timestamp\" }\nevent_time = \"ts\"\n\
                  watermark = { out_of_orderness = \"0s\" }";
    let case = Case::new(server, "kept-sessions", &head, fields, sink);
    let at =
        |name: &str, seconds: i64| format!("{{\"name\":\"{name}\",\"ts\":{}}}\n", seconds * 1000);
    // Two sessions of each name, which a late row joins.
    let mut rows = at("a", 0) + &at("a", 12) + &at("b", 0) + &at("b", 12);
    for second in 0..2_000 {
        rows += &at("other", 200 + second);
    }
    case.input(&(rows + &at("a", 6) + &at("b", 6))).succeed();
    let found = server.sql(
        "SELECT name, extract(epoch FROM window_start)::int, n FROM kept_sessions \
         WHERE name <> 'other' ORDER BY 1, 2",
    );
    assert_eq!(found, "a|0|3\na|12|1\nb|0|3");
    let path = case.folder.path().join("kept-sessions.dead.jsonl");
    let text = std::fs::read_to_string(path).expect("a dead letter");
    let letter: serde_json::Value = serde_json::from_str(&text).expect("one");
    assert_eq!(letter["kind"], "refused");
    let error = letter["error"].as_str().expect("a text");
    assert!(error.contains("a stays"), "{error}");
    assert!(error.ends_with("; the row was to be taken back"), "{error}");
    Ok(())
}

fn a_row_that_a_commit_refuses_ends_the_run() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE somewhere (other bigint PRIMARY KEY)");
    let at_least = format!("{STATE}delivery = \"at_least_once\"\n");
    for (name, head) in [("deferred", STATE), ("deferred_at_least", &at_least)] {
        server.sql(&format!(
            "CREATE TABLE {name} (id bigint, other bigint REFERENCES somewhere \
                DEFERRABLE INITIALLY DEFERRED)"
        ));
        let sink = format!("input = \"in\"\ntable = \"{name}\"\non_error = \"dead_letter\"");
        let fields = "fields = { id = \"int64\", other = \"int64?\" }";
        let case = Case::new(server, name, head, fields, &sink);
        let said = case.input("{\"id\":1}\n{\"id\":2,\"other\":7}\n").fail();
        assert!(
            said.contains("(SQLSTATE 23503); the constraint is DEFERRED"),
            "{said}"
        );
        let advice = "correct it at its source, or have an operator leave such rows out";
        assert!(said.contains(advice), "{said}");
        assert_eq!(server.sql(&format!("SELECT count(*) FROM {name}")), "0");
    }
    Ok(())
}

fn a_connection_with_tls_is_verified() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE secure (id bigint, name text)");
    let trusted = server.folder.join("trusted.pem");
    let runs = |name: &str, properties: &str| {
        let sink = format!(
            "input = \"in\"\ntable = \"secure\"\n\
             properties = {{ password = {{ env = \"SHOP_PASSWORD\" }}, {properties} }}"
        );
        let case = Case::new(server, name, "", ID_NAME, &sink);
        case.input("{\"id\":1}\n");
        case.run(&["run", "--quiet"])
    };
    let verified = format!(
        "sslmode = \"verify-full\", sslrootcert = \"{}\"",
        trusted.display()
    );
    let (is_good, said) = runs("verified", &verified);
    assert!(is_good, "{said}");
    let (is_good, said) = runs("required", "sslmode = \"require\"");
    assert!(is_good, "{said}");
    // Nobody vouches for this certificate.
    let (is_good, said) = runs("unknown", "sslmode = \"verify-full\"");
    assert!(!is_good && said.contains("certificate"), "{said}");
    assert_eq!(server.sql("SELECT count(*) FROM secure"), "2");
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
    let sink = "input = \"in\"\ntable = \"nothing\"";
    let case = Case::new(server, "replaced", STATE, ID_NAME, sink);
    case.input("");
    let (older, newer) = (participant(&case), participant(&case));
    let stop = Stop::default();
    assert_eq!(older.fence(&stop).expect("it fences"), None);
    older.begin().expect("it begins");
    older.commit(&manifest(1)).expect("it commits");
    older.begin().expect("it begins");
    // The older one has a transaction open, which the newer one ends.
    assert_eq!(newer.fence(&stop).expect("it fences"), Some(1));
    newer.begin().expect("it begins");
    assert!(older.commit(&manifest(2)).is_err());
    newer.commit(&manifest(2)).expect("it commits");
    // One that had none open when it was fenced is told.
    let last = participant(&case);
    assert_eq!(last.fence(&stop).expect("it fences"), Some(2));
    let told = newer.begin().expect_err("it is fenced");
    assert!(told.to_string().contains("has taken over"), "{told}");
    assert!(!told.fault.can_pass);
    // So is one that began before the others' fence and was not ended.
    let (slow, quick) = (participant(&case), participant(&case));
    slow.fence(&stop).expect("it fences");
    slow.begin().expect("it begins");
    server.sql("UPDATE sluicebox_checkpoints SET epoch = epoch + 1 WHERE pipeline = 'replaced'");
    let told = slow.commit(&manifest(9)).expect_err("it is fenced");
    assert!(told.to_string().contains("has taken over"), "{told}");
    drop(slow);
    assert_eq!(quick.fence(&stop).expect("it fences"), Some(2));
    Ok(())
}

fn a_lock_that_another_run_left_is_taken_away() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE held (id bigint PRIMARY KEY, name text)");
    let sink = "input = \"in\"\ntable = \"held\"\nkey = \"id\"";
    let head = STATE.replace("50ms", "1h");
    let case = Case::new(server, "held", &head, ID_NAME, sink);
    let pipe = case.folder.path().join("in.jsonl");
    let made = Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    // A host that has written a row, which is not committed, and is frozen.
    let frozen = host()
        .args(["run", "--quiet"])
        .arg(case.pipeline())
        .stderr(Stdio::null())
        .spawn();
    let frozen = Killed(frozen.expect("the host starts"));
    let mut writer = File::options().write(true).open(&pipe).expect("a reader");
    let mut rows = String::new();
    for id in 0..200_000 {
        let _ = writeln!(rows, "{{\"id\":{id},\"name\":\"of the frozen one\"}}");
    }
    std::io::Write::write_all(&mut writer, rows.as_bytes()).expect("it is read");
    let writes = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                  WHERE c.relname = 'held' AND l.mode = 'RowExclusiveLock'";
    wait_until("its rows are locked", || server.sql(writes) == "t");
    let stopped = Command::new("kill")
        .args(["-STOP", &frozen.0.id().to_string()])
        .status();
    assert!(stopped.expect("kill runs").success());
    // Another host with the same pipeline, elsewhere, which knows of no checkpoint.
    let other = Case::new(server, "held", STATE, ID_NAME, sink);
    other.input("{\"id\":5,\"name\":\"of the other one\"}\n");
    let (is_good, said) = other.run(&["run", "--quiet", "--fresh"]);
    assert!(is_good, "{said}");
    drop(frozen);
    assert_eq!(server.sql("SELECT * FROM held"), "5|of the other one");
    Ok(())
}

fn a_server_that_comes_back_is_written_on() -> Outcome {
    // One that may be killed.
    server()?;
    let server = Server::start().expect("a server of its own");
    server.sql("CREATE TABLE back (id bigint, name text)");
    let sink = "input = \"in\"\ntable = \"back\"";
    let head =
        format!("{STATE}[restart]\nstrategy = \"fixed\"\ndelay = \"100ms\"\nfailures = 1000\n");
    let case = Case::new(&server, "back", &head, ID_NAME, sink);
    let mut rows = String::new();
    for id in 0..300_000 {
        let _ = writeln!(
            rows,
            "{{\"id\":{id},\"name\":\"some text to make it longer\"}}"
        );
    }
    case.input(&rows);
    let log = case.folder.path().join("log");
    let mut host = start(&case.pipeline(), &log, None);
    for _ in 0..3 {
        let ended = wait(&mut host, Duration::from_millis(400));
        assert!(ended.is_none_or(|ended| ended.success()), "{}", tail(&log));
        server.call("kill");
        std::thread::sleep(Duration::from_millis(300));
        server.call("again");
    }
    let ended = wait(&mut host, RUN_MAX).expect("it ends");
    assert!(ended.success(), "{}", tail(&log));
    let counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM back";
    assert_eq!(server.sql(counted), "300000|300000|44999850000");
    Ok(())
}

const FULL_ROWS: i64 = 100_000;

/// The table has no room, while the server has some for all else.
fn a_full_tablespace_is_told_and_loses_nothing() -> Outcome {
    server()?;
    let disk = Disk::mount(64)?;
    let server = Server::start().expect("a server of its own");
    let space = disk.path().join("space");
    std::fs::create_dir(&space).expect("it is writable");
    let data = std::fs::metadata(server.folder.join("data")).expect("it is there");
    std::os::unix::fs::chown(&space, Some(data.uid()), Some(data.gid())).expect("root may");
    let made = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
    server.sql_as("postgres", &made);
    server.sql_as("postgres", "GRANT CREATE ON TABLESPACE small TO shop");
    until_there_is_room(&server, &disk, 4, "TABLESPACE small");
    Ok(())
}

/// Neither has the server, which ends when it cannot write its log.
fn a_full_disk_is_told_and_loses_nothing() -> Outcome {
    server()?;
    let disk = Disk::mount(256)?;
    let server = Server::start_on(&disk).expect("a server of its own");
    until_there_is_room(&server, &disk, 12, "");
    server.call("kill");
    Ok(())
}

/// Fills `disk` but for some MiB, has a pipeline write to a table, sees what it says, makes
/// room and sees that it goes on. `table` says where the table is.
fn until_there_is_room(server: &Server, disk: &Disk, mebibytes: u64, table: &str) {
    server.sql(&format!(
        "CREATE TABLE filled (id bigint, name text) {table}"
    ));
    disk.fill(mebibytes);
    let sink = "input = \"in\"\ntable = \"filled\"";
    let head =
        format!("{STATE}[restart]\nstrategy = \"fixed\"\ndelay = \"200ms\"\nfailures = 1000\n");
    let case = Case::new(server, "full", &head, ID_NAME, sink);
    let mut rows = String::new();
    for id in 0..FULL_ROWS {
        let _ = writeln!(rows, "{{\"id\":{id},\"name\":\"{id:0100}\"}}");
    }
    case.input(&rows);
    let log = case.folder.path().join("log");
    let mut host = start(&case.pipeline(), &log, None);
    wait_until("it says what is full", || {
        assert_eq!(wait(&mut host, Duration::ZERO), None, "{}", tail(&log));
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.contains("No space left on device")
            && said.contains("(SQLSTATE 53100); make room where the server keeps its data")
    });
    // It goes on trying, and to write what there is room for.
    let ended = wait(&mut host, Duration::from_secs(1));
    assert_eq!(ended, None, "{}", tail(&log));
    disk.make_room();
    // Without room for its log, the server has ended.
    server.call("restart");
    let ended = wait(&mut host, RUN_MAX).expect("it ends");
    assert!(ended.success(), "{}", tail(&log));
    let counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM filled";
    let sum = FULL_ROWS * (FULL_ROWS - 1) / 2;
    let expected = format!("{FULL_ROWS}|{FULL_ROWS}|{sum}");
    assert_eq!(server.sql(counted), expected, "{}", tail(&log));
}

const ROWS: i64 = 150_000;
const KEYS: i64 = 500;

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let script = |what: &str| server.call(what);
    killed::in_rounds(&script, |round, kills| killed_round(&server, round, kills));
    Ok(())
}

/// Runs one pipeline with kills until it ends by itself, and counts its rows.
fn killed_round(server: &Server, round: usize, kills: &mut Kills<'_>) -> usize {
    let sink = format!(
        r#"
input = "in"
table = "kept_{round}"
properties = {{ password = {{ env = "SHOP_PASSWORD" }} }}
[sinks.totals]
type = "postgres"
server = "{address}"
database = "shop"
user = "shop"
input = "by_key"
table = "totals_{round}"
key = "key"
properties = {{ password = {{ env = "SHOP_PASSWORD" }} }}
[operators.by_key]
input = "in"
key = "key"
window = "running"
aggregate = {{ n = "count()", total = "sum(id)" }}
"#,
        address = server.address
    );
    let head = "parallelism = 2\nbatch_rows = 500\n[state]\npath = \"state\"\n[checkpoints]\n\
                interval = \"50ms\"\n[restart]\nstrategy = \"fixed\"\ndelay = \"100ms\"\n\
                failures = 1000\n";
    let fields = "fields = { id = \"int64\", key = \"int64\" }";
    let case = Case::new(server, &format!("kill-{round}"), head, fields, &sink);
    let mut rows = String::new();
    for id in 0..ROWS {
        let _ = writeln!(rows, "{{\"id\":{id},\"key\":{}}}", id % KEYS);
    }
    case.input(&rows).create();
    let log = case.folder.path().join("log");
    let done = kills.run(&case.pipeline(), &log);
    let kept = format!("SELECT count(*), count(DISTINCT id), sum(id) FROM kept_{round}");
    let sum = ROWS * (ROWS - 1) / 2;
    assert_eq!(
        server.sql(&kept),
        format!("{ROWS}|{ROWS}|{sum}"),
        "{}",
        tail(&log)
    );
    let totals = format!("SELECT count(*), min(n), max(n), sum(total) FROM totals_{round}");
    let each = ROWS / KEYS;
    assert_eq!(
        server.sql(&totals),
        format!("{KEYS}|{each}|{each}|{sum}"),
        "{}",
        tail(&log)
    );
    done
}

/// Every hundredth row is refused by one of two sinks, which share a transaction.
fn refused_rows_are_letters_once_through_kills() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let script = |what: &str| server.call(what);
    killed::in_rounds_of((8, 1), &script, |round, kills| {
        refusing_round(&server, round, kills)
    });
    Ok(())
}

fn refusing_round(server: &Server, round: usize, kills: &mut Kills<'_>) -> usize {
    let other = |name: &str, more: &str| {
        format!(
            "[sinks.{name}]\ntype = \"postgres\"\nserver = \"{}\"\ndatabase = \"shop\"\n\
             user = \"shop\"\ninput = \"in\"\ntable = \"{name}_{round}\"\n{more}\n\
             properties = {{ password = {{ env = \"SHOP_PASSWORD\" }} }}\n",
            server.address
        )
    };
    let sink = format!(
        "input = \"in\"\ntable = \"some_{round}\"\non_error = \"dead_letter\"\n\
         properties = {{ password = {{ env = \"SHOP_PASSWORD\" }} }}\n{}{}",
        other("every", ""),
        other("keyed", "key = \"id\"\non_error = \"dead_letter\"")
    );
    for (table, check) in [
        ("some", "id % 100 <> 7"),
        ("every", "true"),
        ("keyed", "id % 200 <> 9"),
    ] {
        server.sql(&format!(
            "CREATE TABLE {table}_{round} (id bigint PRIMARY KEY, name text, CHECK ({check}))"
        ));
    }
    let head = "parallelism = 2\nbatch_rows = 500\n[state]\npath = \"state\"\n[checkpoints]\n\
                interval = \"50ms\"\n[restart]\nstrategy = \"fixed\"\ndelay = \"100ms\"\n\
                failures = 1000\n";
    let name = format!("refusing-{round}");
    let case = Case::new(server, &name, head, ID_NAME, &sink);
    let mut rows = String::new();
    let count = 30_000;
    for id in 0..count {
        let _ = writeln!(rows, "{{\"id\":{id},\"name\":\"x\"}}");
    }
    case.input(&rows);
    let log = case.folder.path().join("log");
    let done = kills.run(&case.pipeline(), &log);
    for (table, good) in [
        ("some", count - count / 100),
        ("every", count),
        ("keyed", count - count / 200),
    ] {
        let found = server.sql(&format!("SELECT count(*) FROM {table}_{round}"));
        assert_eq!(found, good.to_string(), "{table}: {}", tail(&log));
    }
    let refused = letters(&case, &name).into_iter();
    let refused = refused.map(|(id, letter)| (letter["node"].to_string(), id));
    let mut refused = Vec::from_iter(refused);
    refused.sort();
    let of = |node: &str, every: u64, rest: u64| {
        let ids = (0..count as u64).filter(move |id| id % every == rest);
        let node = format!("\"{node}\"");
        Vec::from_iter(ids.map(move |id| (node.clone(), id)))
    };
    let mut expected = of("out", 100, 7);
    expected.extend(of("keyed", 200, 9));
    expected.sort();
    assert_eq!(refused, expected, "{}", tail(&log));
    done
}
