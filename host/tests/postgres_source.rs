//! Tests the PostgreSQL source with a real server and a real host.
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
/// A disk that can be full.
#[expect(dead_code, reason = "no disk is full here")]
#[path = "common/disk.rs"]
mod disk;
/// A real server.
#[expect(dead_code, reason = "some of it is for the sink's tests")]
#[path = "common/postgres.rs"]
mod postgres;
/// What a host says.
#[path = "common/said.rs"]
mod said;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use serde_json::Value;

use harness::Outcome;
use killed::{Kills, host, tail};
use postgres::{Server, server};
use said::{error_in, said};

tests![
    what_the_sink_writes_is_read_back,
    a_later_run_reads_what_is_new,
    rows_of_one_value_are_read_once,
    what_is_committed_late_is_waited_for,
    a_query_is_read_as_a_table_that_rows_are_looked_up_in,
    changes_are_read_with_the_rows_before_them,
    changes_are_read_by_a_key,
    changes_that_are_no_rows_are_told,
    what_the_log_does_not_tell_ends_the_run,
    another_column_is_not_gone_on_with,
    the_log_is_let_go_of_when_a_checkpoint_has_it,
    a_server_that_refuses_says_why,
    what_nothing_is_larger_than_is_refused,
    a_slot_is_read_by_one_pipeline,
    a_first_start_that_fails_leaves_nothing,
    an_altered_publication_ends_the_run,
    an_altered_publication_is_not_gone_on_with,
    a_slot_that_is_dropped_ends_the_run,
    what_the_log_has_let_go_of_is_refused_before_anything_is_changed,
    nothing_is_lost_or_doubled_by_kills,
];

/// A folder with a pipeline.
struct Case<'a> {
    server: &'a Server,
    folder: tempfile::TempDir,
}

const STATE: &str = "[state]\npath = \"state\"\n[checkpoints]\ninterval = \"50ms\"\n";

const OUT: &str =
    "[sinks.out]\ntype = \"file\"\ninput = \"in\"\npath = \"out.jsonl\"\nif_exists = \"append\"\n";

impl<'a> Case<'a> {
    /// `SERVER` in the pipeline stands for how the server is reached.
    fn new(server: &'a Server, pipeline: &str) -> Self {
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let reached = format!(
            "type = \"postgres\"\nserver = \"{}\"\ndatabase = \"shop\"\nuser = \"shop\"\n\
             properties = {{ password = {{ env = \"SHOP_PASSWORD\" }} }}",
            server.address
        );
        let path = case.pipeline();
        std::fs::write(path, pipeline.replace("SERVER", &reached)).expect("it is writable");
        case
    }

    /// A pipeline that reads to the end, and writes `out.jsonl`.
    fn reading(server: &'a Server, name: &str, source: &str, rest: &str) -> Self {
        let text = format!(
            "name = \"{name}\"\n{STATE}[sources.in]\nSERVER\nuntil = \"end\"\n{source}\n{rest}"
        );
        Case::new(server, &text)
    }

    fn pipeline(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// What the host says, and whether it went well.
    fn command(&self, arguments: &[&str]) -> (bool, String) {
        let mut host = host();
        host.args(arguments).arg(self.pipeline());
        said(host.current_dir(self.folder.path()))
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
        error_in(&said.replace(&self.server.address, "SERVER"))
    }

    /// A host that runs until it is stopped.
    fn start(&self) -> Running {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("it is writable");
        let host = host()
            .args(["run", "--quiet"])
            .arg(self.pipeline())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Running(host.expect("the host starts"))
    }

    /// Waits until the run has written so many lines, and returns them.
    fn lines(&self, count: usize) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.read("out.jsonl.part");
            if text.lines().count() >= count {
                return text;
            }
            assert!(Instant::now() < until, "{text}\n{}", self.read("log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A host that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
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

/// Rows as JSON has them, in the order of their ids.
fn sorted(lines: &str) -> Vec<Value> {
    let rows = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let mut rows: Vec<Value> = rows.collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

fn what_the_sink_writes_is_read_back() -> Outcome {
    let server = server()?;
    let text = format!(
        "name = \"types-in\"\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n{TYPES}\n\
         [sinks.written]\nSERVER\ninput = \"in\"\ntable = \"types_read\"\n{OUT}"
    );
    let case = Case::new(server, &text);
    std::fs::write(case.folder.path().join("in.jsonl"), VALUES).expect("it is writable");
    let (is_good, ddl) = case.command(&["check", "--ddl"]);
    assert!(is_good, "{ddl}");
    server.sql(&ddl);
    let expected = sorted(&case.succeed());
    assert_eq!(expected.len(), 5);
    let source = format!("table = \"types_read\"\ngrowing = \"id\"\n{TYPES}");
    let read = Case::reading(server, "types-read", &source, OUT).succeed();
    assert_eq!(sorted(&read), expected);
    let source = format!("table = \"types_read\"\nlog = {{ key = \"id\" }}\n{TYPES}");
    let by_log = Case::reading(
        server,
        "types-log",
        &source,
        "[sinks.again]\nSERVER\ninput = \"in\"\ntable = \"types_again\"\nkey = \"id\"\n\
         deletes = true\n",
    );
    server
        .sql("CREATE TABLE types_again (LIKE types_read); ALTER TABLE types_again ADD UNIQUE (id)");
    server.sql("ALTER TABLE types_read ADD PRIMARY KEY (id)");
    by_log.succeed();
    server.sql("UPDATE types_read SET b = NOT b; DELETE FROM types_read WHERE id = 5");
    by_log.succeed();
    let differ = |from: &str, to: &str| {
        server.sql(&format!(
            "SELECT count(*) FROM (SELECT {from}::text FROM {from} EXCEPT \
             SELECT replace({to}::text, '{to}', '{from}') FROM {to}) AS d"
        ))
    };
    assert_eq!(differ("types_read", "types_again"), "0");
    assert_eq!(differ("types_again", "types_read"), "0");
    assert_eq!(server.sql("SELECT count(*) FROM types_again"), "4");
    Ok(())
}

const ID_NAME: &str = "fields = { id = \"int64\", name = \"utf8?\" }";

fn a_later_run_reads_what_is_new() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE later (id bigint PRIMARY KEY, name text)");
    let source = format!("table = \"later\"\ngrowing = \"id\"\n{ID_NAME}");
    let case = Case::reading(server, "later", &source, OUT);
    assert_eq!(case.succeed(), "");
    server.sql("INSERT INTO later VALUES (3, 'c'), (1, 'ä'), (7, NULL)");
    case.succeed();
    server.sql("INSERT INTO later SELECT n, 'n' FROM generate_series(8, 25000) AS n");
    case.succeed();
    let ids: Vec<i64> = sorted(&case.read("out.jsonl"))
        .iter()
        .filter_map(|row| row["id"].as_i64())
        .collect();
    let expected: Vec<i64> = [1, 3, 7].into_iter().chain(8..=25_000).collect();
    assert_eq!(ids, expected);
    Ok(())
}

fn rows_of_one_value_are_read_once() -> Outcome {
    let server = server()?;
    // More equal times than a page has, and rows that are equal in all.
    server.sql(
        "CREATE TABLE ties (id bigint, name text, at timestamptz); \
         INSERT INTO ties SELECT n % 9000, 'x', '2024-01-01' FROM generate_series(1, 25000) AS n; \
         INSERT INTO ties SELECT n, 'y', '2024-01-02' FROM generate_series(1, 10) AS n",
    );
    let source = format!("table = \"ties\"\ngrowing = \"at\"\n{ID_NAME}");
    let case = Case::reading(server, "ties", &source, OUT);
    assert_eq!(case.succeed().lines().count(), 25_010);
    assert_eq!(case.succeed().lines().count(), 25_010);
    server.sql("INSERT INTO ties VALUES (77, 'z', '2024-01-03')");
    assert_eq!(case.succeed().lines().count(), 25_011);
    Ok(())
}

fn what_is_committed_late_is_waited_for() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE late (id bigserial PRIMARY KEY, name text)");
    let source = format!("table = \"late\"\ngrowing = \"id\"\npoll_every = \"20ms\"\n{ID_NAME}");
    let text = format!("name = \"late\"\n{STATE}[sources.in]\nSERVER\n{source}\n{OUT}");
    let case = Case::new(server, &text);
    server.sql("INSERT INTO late (name) VALUES ('first')");
    let _running = case.start();
    case.lines(1);
    // It has drawn the smaller value, and commits after the larger one.
    let (host, port) = server.address.split_once(':').expect("a port");
    let mut slow = Command::new("psql")
        .args([
            "-X", "-q", "-h", host, "-p", port, "-U", "shop", "-d", "shop", "-c",
        ])
        .arg("BEGIN; INSERT INTO late (name) VALUES ('slow'); SELECT pg_sleep(2); COMMIT")
        .env("PGPASSWORD", "s3cret")
        .stdout(Stdio::null())
        .spawn()
        .expect("psql runs");
    std::thread::sleep(Duration::from_millis(500));
    server.sql("INSERT INTO late (name) VALUES ('quick')");
    let read = case.lines(3);
    assert!(slow.wait().expect("it ends").success());
    let names: Vec<Value> = sorted(&read)
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["first", "slow", "quick"]);
    Ok(())
}

fn a_query_is_read_as_a_table_that_rows_are_looked_up_in() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE prices (item text PRIMARY KEY, cents int, changed timestamptz); \
         INSERT INTO prices VALUES ('tea', 250, '2024-01-01'), ('mate', 300, '2024-01-01')",
    );
    let text = format!(
        r#"
name = "looked-up"
{STATE}
[sources.orders]
type = "file"
path = "orders.jsonl"
event_time = "ts"
fields = {{ item = "utf8", ts = "timestamp" }}
[sources.prices]
SERVER
query = "SELECT upper(item) AS item, cents * 2 AS cents, changed FROM prices -- doubled"
growing = "changed"
until = "end"
event_time = "changed"
watermark = {{ bootstrap = true }}
fields = {{ item = "utf8", cents = "int32", changed = "timestamp" }}
[operators.priced]
join = {{ kind = "left", as_of = "event_time" }}
input = {{ left = "orders", right = "prices" }}
key = "item"
select = {{ item = "left.item", cents = "right.cents" }}
{}"#,
        OUT.replace("\"in\"", "\"priced\"")
    );
    let case = Case::new(server, &text);
    let orders = r#"{"item":"TEA","ts":"2024-02-01T00:00:00Z"}
{"item":"nothing","ts":"2024-02-01T00:00:00Z"}
"#;
    std::fs::write(case.folder.path().join("orders.jsonl"), orders).expect("it is writable");
    let mut read: Vec<String> = case.succeed().lines().map(str::to_owned).collect();
    read.sort();
    let expected = [
        r#"{"item":"TEA","cents":500}"#,
        r#"{"item":"nothing","cents":null}"#,
    ];
    assert_eq!(read, expected);
    Ok(())
}

/// A sink that shows what becomes of rows.
fn shown() -> String {
    format!("{OUT}changes = \"change\"\n")
}

fn changes_are_read_with_the_rows_before_them() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE whole (id bigint PRIMARY KEY, name text, big text); \
         ALTER TABLE whole REPLICA IDENTITY FULL; \
         ALTER TABLE whole ALTER COLUMN big SET STORAGE EXTERNAL; \
         INSERT INTO whole VALUES (1, 'before', repeat('x', 5000))",
    );
    let source = "table = \"whole\"\nlog = {}\n\
                  fields = { id = \"int64\", name = \"utf8?\", big = \"utf8?\" }";
    let case = Case::reading(server, "whole", source, &shown());
    case.succeed();
    server.sql(
        "BEGIN; INSERT INTO whole VALUES (2, 'ü', NULL); UPDATE whole SET name = 'after' \
         WHERE id = 1; COMMIT",
    );
    server.sql("UPDATE whole SET id = 3 WHERE id = 2");
    server.sql("BEGIN; INSERT INTO whole VALUES (9, 'never', NULL); ROLLBACK");
    server.sql("CREATE TABLE other_one (id int); INSERT INTO other_one VALUES (1)");
    server.sql("DELETE FROM whole WHERE id = 3");
    let read = case.succeed().replace(&"x".repeat(5000), "LARGE");
    expect![[r#"
        {"id":1,"name":"before","big":"LARGE","change":"+"}
        {"id":2,"name":"ü","big":null,"change":"+"}
        {"id":1,"name":"before","big":"LARGE","change":"-"}
        {"id":1,"name":"after","big":"LARGE","change":"+"}
        {"id":2,"name":"ü","big":null,"change":"-"}
        {"id":3,"name":"ü","big":null,"change":"+"}
        {"id":3,"name":"ü","big":null,"change":"-"}
    "#]]
    .assert_eq(&read);
    assert_eq!(case.succeed().lines().count(), read.lines().count());
    Ok(())
}

fn changes_are_read_by_a_key() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE keyed (id bigint, shop text, name text, PRIMARY KEY (id, shop)); \
         INSERT INTO keyed VALUES (1, 'a', 'one'), (2, 'a', 'two')",
    );
    server.sql("CREATE TABLE keyed_copy (LIKE keyed INCLUDING ALL)");
    let source = "table = \"keyed\"\nlog = { key = [\"id\", \"shop\"], slot = \"by_key\" }\n\
                  fields = { id = \"int64\", shop = \"utf8\", name = \"utf8?\" }";
    let sink = "[sinks.out]\nSERVER\ninput = \"in\"\ntable = \"keyed_copy\"\n\
                key = [\"id\", \"shop\"]\ndeletes = true\n";
    let case = Case::reading(server, "keyed", source, sink);
    case.succeed();
    let copied = || server.sql("SELECT * FROM keyed_copy ORDER BY id, shop");
    assert_eq!(copied(), "1|a|one\n2|a|two");
    server.sql("UPDATE keyed SET name = 'uno' WHERE id = 1; DELETE FROM keyed WHERE id = 2");
    server.sql("INSERT INTO keyed VALUES (3, 'b', NULL); UPDATE keyed SET shop = 'c' WHERE id = 3");
    case.succeed();
    assert_eq!(copied(), "1|a|uno\n3|c|");
    Ok(())
}

fn changes_that_are_no_rows_are_told() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE odd (id bigint PRIMARY KEY, name text, big text); \
         ALTER TABLE odd ALTER COLUMN big SET STORAGE EXTERNAL; \
         INSERT INTO odd VALUES (1, 'one', repeat('x', 5000))",
    );
    server.sql("CREATE TABLE odd_copy (LIKE odd INCLUDING ALL)");
    let source = "table = \"odd\"\nlog = { key = \"id\" }\n\
                  fields = { id = \"int64\", name = \"utf8?\", big = \"utf8?\" }";
    let sink = "[sinks.out]\nSERVER\ninput = \"in\"\ntable = \"odd_copy\"\nkey = \"id\"\n\
                deletes = true\n";
    let case = Case::reading(server, "odd", source, sink);
    case.succeed();
    server.sql("UPDATE odd SET name = 'uno'");
    server.sql("UPDATE odd SET big = 'small'");
    server.sql("TRUNCATE odd");
    server.sql("INSERT INTO odd VALUES (2, 'two', 'y')");
    case.succeed();
    assert_eq!(
        server.sql("SELECT * FROM odd_copy ORDER BY id"),
        "1|uno|small\n2|two|y"
    );
    let letters = case.read("odd.dead.jsonl");
    let letters = letters.lines().map(|line| {
        let letter: Value = serde_json::from_str(line).expect("JSON");
        format!("{}: {}\n", letter["error"], letter["payload"])
    });
    expect![[r#"
        "field `big` is a large value that the change has left as it was, and that the server has not told of; it tells with ALTER TABLE … REPLICA IDENTITY FULL": "{\"id\":1,\"name\":\"uno\",\"big\":null}"
        "the table odd was emptied (TRUNCATE), which does not tell the rows that are gone: start with them anew (`--drop`)": "TRUNCATE"
    "#]].assert_eq(&letters.collect::<String>());
    // A column goes away while the pipeline does not run.
    server.sql("ALTER TABLE odd RENAME COLUMN name TO title; INSERT INTO odd VALUES (3, 'a', 'b')");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: column "name" does not exist (SQLSTATE 42703); correct `fields` or `names`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    Ok(())
}

fn what_the_log_does_not_tell_ends_the_run() -> Outcome {
    let server = server()?;
    let table = "CREATE TABLE untold (id bigint PRIMARY KEY, state char(6), ok bool, host inet); \
                 ALTER TABLE untold REPLICA IDENTITY FULL; \
                 INSERT INTO untold VALUES (1, 'new', true, '::1')";
    server.sql(table);
    let source = "table = \"untold\"\nlog = {}\n\
                  fields = { id = \"int64\", state = \"utf8?\", ok = \"utf8?\", host = \"utf8?\" }";
    let case = Case::reading(server, "untold", source, &shown());
    case.succeed();
    server.sql("UPDATE untold SET state = 'paid', ok = false");
    expect![[r#"
        {"id":1,"state":"new   ","ok":"t","host":"::1","change":"+"}
        {"id":1,"state":"new   ","ok":"t","host":"::1","change":"-"}
        {"id":1,"state":"paid  ","ok":"f","host":"::1","change":"+"}
    "#]]
    .assert_eq(&case.succeed());
    // Between two runs, a column gets another name.
    server.sql("UPDATE untold SET ok = NULL");
    server.sql("ALTER TABLE untold RENAME state TO stage");
    let text = case.read("pipeline.toml");
    let names = "names = { state = \"stage\" }\nfields";
    std::fs::write(case.pipeline(), text.replace("fields", names)).expect("it is writable");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the table untold was changed, or does not publish all of its columns: it has no column `stage` in this part of the log. Have `names` say what it was called then, read up to here without the field, or begin anew with the rows that are there (`--drop`)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    std::fs::write(case.pipeline(), text).expect("it is writable");
    server.sql("ALTER TABLE untold RENAME stage TO state");
    case.succeed();
    server.sql("DROP TABLE untold");
    server.sql(table);
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the publication `sluicebox_untold_untold` does not have the table, as when it was made anew: ALTER PUBLICATION "sluicebox_untold_untold" ADD TABLE "untold"; what has changed meanwhile is not told, so begin anew then with the rows that are there (`--drop`)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    Ok(())
}

fn another_column_is_not_gone_on_with() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE two_grow (id bigint, name bigint)");
    server.sql("INSERT INTO two_grow VALUES (1, 5), (2, 4)");
    let source = "table = \"two_grow\"\ngrowing = \"id\"\nfields = { id = \"int64\" }";
    let case = Case::reading(server, "two-grow", source, OUT);
    case.succeed();
    let text = case.read("pipeline.toml");
    let text = text.replace("growing = \"id\"", "growing = \"name\"");
    std::fs::write(case.pipeline(), text).expect("it is writable");
    expect![[r#"
        error: source `in`: the checkpoint had read two_grow, which the source does not read any more, or not in this way: read it as before, or drop what the checkpoint knows of this source (`sluicebox run --drop in`)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    Ok(())
}

fn the_log_is_let_go_of_when_a_checkpoint_has_it() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE held (id bigint PRIMARY KEY, name text)");
    let source = format!(
        "table = \"held\"\npoll_every = \"20ms\"\nlog = {{ key = \"id\", slot = \"held\" }}\n{ID_NAME}"
    );
    server.sql("CREATE TABLE held_copy_of (LIKE held INCLUDING ALL)");
    let text = format!(
        "name = \"held\"\n{STATE}[sources.in]\nSERVER\n{source}\n[sinks.out]\nSERVER\n\
         input = \"in\"\ntable = \"held_copy_of\"\nkey = \"id\"\ndeletes = true\n"
    );
    let case = Case::new(server, &text);
    let running = case.start();
    let until = |what: &str, sql: &str, expected: &str| {
        let until = Instant::now() + Duration::from_secs(30);
        while server.sql(sql) != expected {
            assert!(Instant::now() < until, "{what}\n{}", case.read("log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'held'";
    until("the slot is made", slots, "1");
    until(
        "its copy is gone",
        "SELECT to_regclass('held_copy') IS NULL AND EXISTS (SELECT FROM pg_replication_slots WHERE slot_name LIKE 'held\\_%')",
        "t",
    );
    let at = server.sql("SELECT pg_current_wal_lsn()");
    server.sql("INSERT INTO held SELECT n, 'n' FROM generate_series(1, 1000) AS n");
    until("the rows come", "SELECT count(*) FROM held_copy_of", "1000");
    let confirmed = format!(
        "SELECT confirmed_flush_lsn > '{at}' FROM pg_replication_slots WHERE slot_name = 'held'"
    );
    until("the slot moves on", &confirmed, "t");
    drop(running);
    until(
        "its reader is gone",
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'held\\_%'",
        "0",
    );
    let (is_good, said) = case.command(&["release"]);
    assert!(is_good, "{said}");
    assert_eq!(said, "source `in`: the slot `held` is dropped\n");
    let publications = "SELECT count(*) FROM pg_publication WHERE pubname = 'held'";
    assert_eq!(server.sql(publications), "0");
    // What came since is gone, which the next run tells.
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the slot `held` is gone, and with it the changes since the checkpoint: let go of what the checkpoint knows of this source (`--drop`), which begins anew with the rows that are there
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    Ok(())
}

fn a_server_that_refuses_says_why() -> Outcome {
    let server = server()?;
    server.sql("CREATE TABLE refused (id bigint PRIMARY KEY, name text, data bytea)");
    let fails = |name: &str, source: &str, expected: Expect| {
        let is_log = source.contains("log =");
        let sink = if is_log { shown() } else { OUT.to_owned() };
        let case = Case::reading(server, name, source, &sink);
        expected.assert_eq(&case.fail());
    };
    fails(
        "absent",
        "table = \"nowhere\"\ngrowing = \"id\"\nfields = { id = \"int64\" }",
        expect![[r#"
            error: source `in`: database `shop` on SERVER: relation "nowhere" does not exist (SQLSTATE 42P01); create the table (`sluicebox check --ddl` prints those of sinks), or correct `table`
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "column",
        "table = \"refused\"\ngrowing = \"nothing\"\nfields = { id = \"int64\" }",
        expect![[r#"
            error: source `in`: database `shop` on SERVER: column "nothing" does not exist (SQLSTATE 42703); correct `fields` or `names`
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "types",
        "table = \"refused\"\ngrowing = \"data\"\n\
         fields = { id = \"bool\", name = \"int64?\", data = \"utf8?\" }",
        expect![[r#"
            error: source `in`: database `shop` on SERVER: the field `id: bool` is read of a column of the type int8; the field `name: int64?` is read of a column of the type text; the field `data: utf8?` is read of a column of the type bytea: give each a type that goes with it
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    fails(
        "grows",
        "table = \"refused\"\ngrowing = \"data\"\nfields = { id = \"int64\" }",
        expect![[r#"
            error: source `in`: database `shop` on SERVER: `growing` names the column `data`, whose type is bytea: it has to be a whole number, a numeric, a time, a date, a text or a uuid
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    let log =
        |log: &str| format!("table = \"refused\"\nlog = {log}\nfields = {{ id = \"int64\" }}");
    server
        .sql("CREATE TABLE other_table (id int); CREATE PUBLICATION others FOR TABLE other_table");
    fails(
        "not-whole",
        &log("{ copy = false }"),
        expect![[r#"
        error: source `in`: database `shop` on SERVER: the table refused does not tell whole rows before they change: ALTER TABLE … REPLICA IDENTITY FULL has it do that, or name its `key`
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    server.sql("ALTER TABLE refused REPLICA IDENTITY FULL");
    fails(
        "publication",
        &log("{ publication = \"others\" }"),
        expect![[r#"
            error: source `in`: database `shop` on SERVER: the publication `others` does not have the table, as when it was made anew: ALTER PUBLICATION "others" ADD TABLE "refused"; what has changed meanwhile is not told, so begin anew then with the rows that are there (`--drop`)
              the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
        "#]],
    );
    server.sql("CREATE TABLE without_key (id bigint)");
    let by_key = log("{ key = \"id\" }").replace("refused", "without_key");
    server.sql("CREATE TABLE without_key_copy (id bigint PRIMARY KEY)");
    let sink = "[sinks.out]\nSERVER\ninput = \"in\"\ntable = \"without_key_copy\"\n\
                key = \"id\"\ndeletes = true\n";
    let case = Case::reading(server, "without-key", &by_key, sink);
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the table without_key has no primary key, and tells nothing of rows before they change: ALTER TABLE … REPLICA IDENTITY USING INDEX, or FULL has it do that
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&case.fail());
    // It was not published: then it would take no more updates.
    server.sql("INSERT INTO without_key VALUES (1); UPDATE without_key SET id = 2");
    server.sql(
        "CREATE TABLE part_told (id bigint, name text); \
         ALTER TABLE part_told REPLICA IDENTITY FULL; \
         CREATE PUBLICATION part_told FOR TABLE part_told (id)",
    );
    let part = log("{ publication = \"part_told\" }").replace("refused", "part_told");
    fails(
        "part-told",
        &part,
        expect![[r#"
        error: source `in`: database `shop` on SERVER: the publication `part_told` leaves columns or rows of the table out: ALTER PUBLICATION "part_told" SET TABLE "part_told"
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]],
    );
    Ok(())
}

fn what_nothing_is_larger_than_is_refused() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE endless (id bigint, name text, at timestamptz, n numeric, f float8); \
         INSERT INTO endless VALUES (1, 'NaN', '2024-01-01', 1, 1)",
    );
    let by = |column: &str| {
        let source = format!("table = \"endless\"\ngrowing = \"{column}\"\n{ID_NAME}");
        Case::reading(server, &format!("endless-{column}"), &source, OUT)
    };
    let at = by("at");
    at.succeed();
    server.sql("INSERT INTO endless VALUES (2, 'ü', 'infinity', 'NaN', 'NaN')");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: `growing` names the column `at` of endless, and it is infinity in the row {"id":2,"name":"ü"}: no value is larger, and no later row would be found. Give it another value, or none, or read a `query` that leaves such rows out
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&at.fail());
    expect![[r#"
        error: source `in`: database `shop` on SERVER: `growing` names the column `n` of endless, and it is NaN in the row {"id":2,"name":"ü"}: no value is larger, and no later row would be found. Give it another value, or none, or read a `query` that leaves such rows out
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&by("n").fail());
    expect![[r#"
        error: source `in`: database `shop` on SERVER: `growing` names the column `f`, whose type is float8: it has to be a whole number, a numeric, a time, a date, a text or a uuid
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&by("f").fail());
    server.sql("UPDATE endless SET at = '2024-01-02' WHERE id = 2");
    server.sql("INSERT INTO endless VALUES (3, 'later', '2024-01-03', 1, 1)");
    assert_eq!(at.succeed().lines().count(), 3);
    // As a text it is one like others.
    assert_eq!(by("name").succeed().lines().count(), 3);
    Ok(())
}

fn a_slot_is_read_by_one_pipeline() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE one_reader (id bigint PRIMARY KEY); \
         ALTER TABLE one_reader REPLICA IDENTITY FULL; INSERT INTO one_reader VALUES (1)",
    );
    let text = format!(
        "name = \"NAME\"\n{STATE}[sources.in]\nSERVER\ntable = \"one_reader\"\n\
         log = {{ slot = \"one_reader\" }}\nfields = {{ id = \"int64\" }}\n{}",
        shown()
    );
    let first = Case::new(server, &text.replace("NAME", "reads-first"));
    let _running = first.start();
    first.lines(1);
    let second = Case::new(server, &text.replace("NAME", "reads-second"));
    let failed = second.fail();
    let pid = server
        .sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name LIKE 'one\\_reader\\_%'");
    let failed = failed.replace(&pid, "PID");
    let (before, since) = failed.split_once(" since ").expect("when it began");
    let (_, after) = since.split_once(')').expect("an end");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the slot `one_reader` is used by the server's process PID (shop sluicebox 127.0.0.1). If that is another pipeline, give this one a slot of its own (`slot` of `log`); a reader that is gone is ended by SELECT pg_terminate_backend(PID)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&format!("{before}){after}"));
    let (is_good, said) = second.command(&["release"]);
    assert!(!is_good && said.contains("is used by"), "{said}");
    // The one that was there reads on.
    server.sql("INSERT INTO one_reader VALUES (2)");
    first.lines(2);
    Ok(())
}

/// What a source keeps on the server, by its slot's name.
fn left_on(server: &Server, slot: &str) -> String {
    server.sql(&format!(
        "SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE slot_name LIKE '{slot}%' \
         UNION SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE '{slot}%' \
         UNION SELECT 'table ' || relname FROM pg_class WHERE relname LIKE '{slot}%'"
    ))
}

fn a_first_start_that_fails_leaves_nothing() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE SCHEMA closed; CREATE TABLE closed.guarded (id bigint PRIMARY KEY); \
         ALTER TABLE closed.guarded REPLICA IDENTITY FULL; \
         INSERT INTO closed.guarded VALUES (1)",
    );
    server.sql_as("postgres", "CREATE ROLE poor LOGIN PASSWORD 's3cret'");
    let source = "table = \"closed.guarded\"\nlog = { slot = \"poor_slot\" }\n\
                  fields = { id = \"int64\" }";
    let case = Case::reading(server, "poor", source, &shown());
    let text = case
        .read("pipeline.toml")
        .replace("user = \"shop\"", "user = \"poor\"");
    std::fs::write(case.pipeline(), text).expect("it is writable");
    let fails = |expected: Expect| {
        expected.assert_eq(&case.fail());
        assert_eq!(left_on(server, "poor_slot"), "");
    };
    fails(expect![[r#"
        error: source `in`: database `shop` on SERVER: its user may not read the table closed.guarded: GRANT USAGE ON SCHEMA "closed" TO "poor"; GRANT SELECT ON "closed"."guarded" TO "poor"
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]]);
    server.sql("GRANT USAGE ON SCHEMA \"closed\" TO \"poor\"");
    fails(expect![[r#"
        error: source `in`: database `shop` on SERVER: its user may not read the table closed.guarded: GRANT SELECT ON "closed"."guarded" TO "poor"
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]]);
    server.sql("GRANT SELECT ON closed.guarded TO poor");
    server.sql("ALTER TABLE closed.guarded ENABLE ROW LEVEL SECURITY");
    fails(expect![[r#"
        error: source `in`: database `shop` on SERVER: its user may not read the log: ALTER ROLE "poor" REPLICATION; and may not make the table "poor_slot_copy", which the rows that are there are copied to: GRANT CREATE ON SCHEMA "public" TO "poor" (or do without these rows: `copy = false`); and may not see all rows of the table, as the log does: ALTER ROLE "poor" BYPASSRLS; and may not publish the table, which others own: have its owner CREATE PUBLICATION "poor_slot" FOR TABLE "closed"."guarded" WITH (publish_via_partition_root = true)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]]);
    server.sql_as(
        "postgres",
        "ALTER ROLE poor REPLICATION BYPASSRLS; GRANT CREATE ON SCHEMA public TO poor; \
         ALTER TABLE closed.guarded OWNER TO poor",
    );
    fails(expect![[r#"
        error: source `in`: database `shop` on SERVER: its user may not make the publication `poor_slot`: GRANT CREATE ON DATABASE "shop" TO "poor" (or have a superuser CREATE PUBLICATION "poor_slot" FOR TABLE "closed"."guarded" WITH (publish_via_partition_root = true))
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]]);
    server.sql("GRANT CREATE ON DATABASE shop TO poor");
    // What nobody can foresee, when the slot of the connection is there.
    server.sql_as(
        "postgres",
        "CREATE FUNCTION refuse_copy() RETURNS event_trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF current_query() LIKE '%poor_slot_copy%' THEN RAISE 'not here'; END IF; END $$; \
         CREATE EVENT TRIGGER refuse_copy ON ddl_command_end EXECUTE FUNCTION refuse_copy()",
    );
    let failed = case.fail();
    assert!(failed.contains("not here"), "{failed}");
    assert_eq!(left_on(server, "poor_slot"), "");
    server.sql_as("postgres", "DROP EVENT TRIGGER refuse_copy");
    assert_eq!(case.succeed(), "{\"id\":1,\"change\":\"+\"}\n");
    assert!(left_on(server, "poor_slot").contains("slot poor_slot"));
    // The end came before the copy was dropped, as a rule: the next run does that.
    let text = case.read("pipeline.toml").replace("until = \"end\"\n", "");
    std::fs::write(case.pipeline(), text).expect("it is writable");
    let running = case.start();
    let until = Instant::now() + Duration::from_secs(30);
    while left_on(server, "poor_slot").contains("table") {
        assert!(Instant::now() < until, "{}", case.read("log"));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    // Another part of the pipeline cannot start.
    server.sql("CREATE TABLE well (id bigint PRIMARY KEY)");
    let source = "table = \"well\"\nlog = { key = \"id\", slot = \"well_slot\" }\n\
                  fields = { id = \"int64\" }";
    let sink = "[sinks.out]\nSERVER\ninput = \"in\"\ntable = \"no_such_table\"\nkey = \"id\"\n\
                deletes = true\n";
    let case = Case::reading(server, "well", source, sink);
    let failed = case.fail();
    assert!(failed.contains("no_such_table"), "{failed}");
    assert_eq!(left_on(server, "well_slot"), "");
    Ok(())
}

/// A host that reads a table's changes, when it has read the first row.
fn reading_changes<'a>(server: &'a Server, table: &str) -> (Case<'a>, Running) {
    server.sql(&format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY); \
         ALTER TABLE {table} REPLICA IDENTITY FULL; INSERT INTO {table} VALUES (1)"
    ));
    let text = format!(
        "name = \"{}\"\n{STATE}[sources.in]\nSERVER\ntable = \"{table}\"\n\
         log = {{ slot = \"{table}\" }}\npoll_every = \"50ms\"\nfields = {{ id = \"int64\" }}\n{}",
        table.replace('_', "-"),
        shown()
    );
    let case = Case::new(server, &text);
    let running = case.start();
    case.lines(1);
    (case, running)
}

impl Running {
    /// The error that the run ends with by itself.
    fn ends_with(&mut self, case: &Case<'_>) -> String {
        let ended = killed::wait(&mut self.0, Duration::from_secs(30));
        let log = case.read("log").replace(&case.server.address, "SERVER");
        assert!(ended.is_some_and(|ended| !ended.success()), "{log}");
        error_in(&log)
    }
}

fn an_altered_publication_ends_the_run() -> Outcome {
    let server = server()?;
    let (case, mut running) = reading_changes(server, "left_out");
    server.sql("INSERT INTO left_out VALUES (2)");
    case.lines(2);
    server.sql("CREATE TABLE beside_it (id int); ALTER PUBLICATION left_out ADD TABLE beside_it");
    server.sql("INSERT INTO left_out VALUES (3)");
    case.lines(3);
    let at = server.sql("SELECT pg_current_wal_insert_lsn()");
    server.sql("ALTER PUBLICATION left_out SET TABLE beside_it; INSERT INTO left_out VALUES (4)");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the publication `left_out` does not have the table, as when it was made anew: ALTER PUBLICATION "left_out" ADD TABLE "left_out"; what has changed meanwhile is not told, so begin anew then with the rows that are there (`--drop`)
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&running.ends_with(&case));
    let kept = server.sql(&format!(
        "SELECT confirmed_flush_lsn <= '{at}' FROM pg_replication_slots \
         WHERE slot_name = 'left_out'"
    ));
    assert_eq!(kept, "t", "the log is kept from before the change on");
    // Adding it alone would lose a row.
    server.sql("ALTER PUBLICATION left_out ADD TABLE left_out");
    let altered = expect![[r#"
        error: source `in`: database `shop` on SERVER: the publication `left_out` was altered or made anew since its changes began to be read, and tells nothing of what it has left out meanwhile: let go of what the checkpoint knows of this source (`--drop`), which begins anew with the rows that are there
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]];
    altered.assert_eq(&case.fail());
    let text = case
        .read("pipeline.toml")
        .replace("table =", "until = \"end\"\ntable =");
    std::fs::write(case.pipeline(), text).expect("it is writable");
    let (is_good, said) = case.command(&["run", "--quiet", "--drop", "in"]);
    assert!(is_good, "{said}");
    let read = case.read("out.jsonl");
    assert_eq!(read.lines().filter(|line| line.contains(":4,")).count(), 1);
    Ok(())
}

fn an_altered_publication_is_not_gone_on_with() -> Outcome {
    let server = server()?;
    // A moment later nothing is to be seen of it.
    let (case, mut running) = reading_changes(server, "back_again");
    server.sql("ALTER PUBLICATION back_again DROP TABLE back_again");
    server.sql("INSERT INTO back_again VALUES (2)");
    server.sql("ALTER PUBLICATION back_again ADD TABLE back_again");
    server.sql("INSERT INTO back_again VALUES (3)");
    let failed = running.ends_with(&case);
    assert!(
        failed.contains("was altered or made anew") || failed.contains("does not have the table"),
        "{failed}"
    );
    let failed = case.fail();
    assert!(failed.contains("was altered or made anew"), "{failed}");
    let (case, mut running) = reading_changes(server, "gone_away");
    server.sql("DROP PUBLICATION gone_away; INSERT INTO gone_away VALUES (2)");
    expect![[r#"
        error: source `in`: database `shop` on SERVER: the publication `gone_away` is gone, and with it what has changed since: let go of what the checkpoint knows of this source (`--drop`), which begins anew with the rows that are there
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]].assert_eq(&running.ends_with(&case));
    Ok(())
}

fn what_the_log_has_let_go_of_is_refused_before_anything_is_changed() -> Outcome {
    let server = server()?;
    server.sql(
        "CREATE TABLE earlier (id bigint PRIMARY KEY); INSERT INTO earlier VALUES (1); \
         ALTER TABLE earlier REPLICA IDENTITY FULL",
    );
    let source = "table = \"earlier\"\nlog = {}\nfields = { id = \"int64\" }";
    let case = Case::reading(server, "earlier", source, &shown());
    let to_the_end = case.read("pipeline.toml");
    let write = |text: &str| std::fs::write(case.pipeline(), text).expect("it is writable");
    write(&to_the_end.replace("50ms", "1h"));
    case.succeed();
    let at = server.sql("SELECT pg_current_wal_lsn()");
    server.sql("INSERT INTO earlier VALUES (2)");
    write(
        &to_the_end
            .replace("until = \"end\"\n", "")
            .replace("\"50ms\"", "\"50ms\"\nkeep = 1000"),
    );
    let running = case.start();
    case.lines(2);
    let has_let_go = format!(
        "SELECT confirmed_flush_lsn > '{at}' FROM pg_replication_slots WHERE slot_name = \
         'sluicebox_earlier_earlier'"
    );
    let until = Instant::now() + Duration::from_secs(30);
    while server.sql(&has_let_go) != "t" {
        assert!(Instant::now() < until, "{}", case.read("log"));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    let read = case.read("out.jsonl.part");
    let (is_good, said) = case.command(&["run", "--quiet", "--from", "2"]);
    assert!(
        !is_good && said.contains("the slot `sluicebox_earlier_earlier` was moved on"),
        "{said}"
    );
    assert_eq!(case.read("out.jsonl.part"), read);
    write(&to_the_end);
    assert_eq!(case.succeed(), read, "it goes on as before");
    Ok(())
}

/// The connection's own copy of it could be read on, and nobody would go on from there.
fn a_slot_that_is_dropped_ends_the_run() -> Outcome {
    let server = server()?;
    let (case, mut running) = reading_changes(server, "dropped");
    server.sql("SELECT pg_drop_replication_slot('dropped'); INSERT INTO dropped VALUES (2)");
    let gone = expect![[r#"
        error: source `in`: database `shop` on SERVER: the slot `dropped` is gone, and with it the changes since the checkpoint: let go of what the checkpoint knows of this source (`--drop`), which begins anew with the rows that are there
          the cause lies outside the host and does not pass by itself: put it right, then start the pipeline again
    "#]];
    gone.assert_eq(&running.ends_with(&case));
    gone.assert_eq(&case.fail());
    Ok(())
}

const ROWS: i64 = 40_000;

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    server()?;
    let server = Server::start().expect("a server of its own");
    let script = |what: &str| server.call(what);
    killed::in_rounds(&script, |round, kills| killed_round(&server, round, kills));
    Ok(())
}

/// Copies a table, then its changes, and reads it by a column, with kills until each run ends by
/// itself; compares what has come.
fn killed_round(server: &Server, round: usize, kills: &mut Kills<'_>) -> usize {
    server.sql(&format!(
        "CREATE TABLE kept_{round} (id bigint PRIMARY KEY, grp int, cents bigint); \
         ALTER TABLE kept_{round} REPLICA IDENTITY FULL; \
         INSERT INTO kept_{round} SELECT n, n % 100, n FROM generate_series(1, {ROWS}) AS n; \
         CREATE TABLE copy_{round} (LIKE kept_{round} INCLUDING ALL); \
         CREATE TABLE read_{round} (id bigint, grp int, cents bigint); \
         CREATE TABLE totals_{round} (grp int PRIMARY KEY, n bigint, cents numeric)"
    ));
    let text = format!(
        r#"
name = "kill-{round}"
parallelism = 2
batch_rows = 500
{STATE}
[restart]
strategy = "fixed"
delay = "100ms"
failures = 1000
[sources.in]
SERVER
table = "kept_{round}"
log = {{}}
poll_every = "50ms"
until = "end"
fields = {{ id = "int64", grp = "int32", cents = "int64" }}
[sources.polled]
SERVER
table = "kept_{round}"
growing = "id"
poll_every = "50ms"
until = "end"
fields = {{ id = "int64", grp = "int32", cents = "int64" }}
[operators.totals]
input = "in"
key = "grp"
window = "running"
aggregate = {{ n = "count()", cents = "sum(cents)" }}
[sinks.copied]
SERVER
input = "in"
table = "copy_{round}"
key = "id"
deletes = true
[sinks.read]
SERVER
input = "polled"
table = "read_{round}"
[sinks.totals_out]
SERVER
input = "totals.changes"
table = "totals_{round}"
key = "grp"
deletes = true
"#
    );
    let case = Case::new(server, &text);
    let log = case.folder.path().join("log");
    let mut done = kills.run(&case.pipeline(), &log);
    // Transactions of all sizes, one of them with more rows than are read at a time.
    for part in 0..40 {
        server.sql(&format!(
            "BEGIN; UPDATE kept_{round} SET cents = cents + 1, grp = (grp + 1) % 100 \
             WHERE id % 40 = {part}; \
             DELETE FROM kept_{round} WHERE id % 400 = {part}; \
             INSERT INTO kept_{round} SELECT {ROWS} + {part} * 1000 + n, n % 100, n \
             FROM generate_series(1, 500) AS n; COMMIT"
        ));
    }
    server.sql(&format!("UPDATE kept_{round} SET cents = cents + 1"));
    done += kills.run(&case.pipeline(), &log);
    let same = |what: &str, one: &str, other: &str| {
        let differ = server.sql(&format!(
            "SELECT count(*) FROM (({one} EXCEPT ALL {other}) UNION ALL \
             ({other} EXCEPT ALL {one})) AS d"
        ));
        assert_eq!(differ, "0", "{what}\n{}", tail(&log));
    };
    let all = |table: &str| format!("SELECT * FROM {table}_{round}");
    same("the copy", &all("kept"), &all("copy"));
    let totals = format!("SELECT grp, count(*), sum(cents) FROM kept_{round} GROUP BY grp");
    same("totals", &totals, &all("totals"));
    let counted = server.sql(&format!(
        "SELECT count(*), count(DISTINCT id) FROM read_{round}"
    ));
    // By their column, new rows are found alone, which are there at the end.
    let expected = server.sql(&format!(
        "SELECT {ROWS} + count(*) FROM kept_{round} WHERE id > {ROWS}"
    ));
    assert_eq!(counted, format!("{expected}|{expected}"), "{}", tail(&log));
    // Slots are few.
    let (is_good, said) = case.command(&["release"]);
    assert!(is_good, "{said}");
    done
}
