//! Measures what pipelines write to databases, and how they read and write compressed files,
//! beside the tools that come with these: `COPY` by psql, pipelining by redis-benchmark,
//! `gzip` and `zstd` in a pipe. Servers and tools have the same cores as everything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use sluicebox::clock::SystemClock;
use sluicebox::plugin::PluginLoader;
use sluicebox::run::{Durable, Job};

use crate::servers::Server;
use crate::state::scratch;
use crate::turns::Turns;
use crate::{Arguments, BATCH_ROWS, events_path, plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    /// Added to a table, or in place of the row of the same user.
    PostgresWrite,
    /// A hash of each user, and entries of one stream.
    RedisWrite,
    /// JSON lines in gzip and zstd, at the levels that the tools have by default.
    Compressed,
}

/// The rows are events; these are their fields in the pipelines, in PostgreSQL and, of one
/// event, in Redis.
const FIELDS: &str =
    r#"user_id = "utf8", item_id = "utf8", action = "utf8", quantity = "int64", ts = "timestamp""#;
const TABLES: &str = "
    CREATE TABLE events (user_id text NOT NULL, item_id text NOT NULL, action text NOT NULL,
                         quantity bigint NOT NULL, ts timestamptz NOT NULL);
    CREATE TABLE latest (LIKE events, PRIMARY KEY (user_id))";
const EVENT: &str =
    "user_id user-000001 item_id item-00001 action add quantity 5 ts 2023-11-14T22:13:20Z";

/// Where a pipeline makes checkpoints: how often it commits.
const CHECKPOINTS: &str = "[checkpoints]\ninterval = \"1s\"\n[restart]\nstrategy = \"never\"";

pub fn measure(arguments: &Arguments, case: Case) -> anyhow::Result<Vec<serde_json::Value>> {
    // A server takes several times as long as a file.
    let rows = match case {
        Case::PostgresWrite | Case::RedisWrite => arguments.rows.div_ceil(5),
        Case::Compressed => arguments.rows,
    };
    let arguments = &Arguments {
        rows,
        ..arguments.clone()
    };
    let events = write_events(arguments)?;
    let folder = scratch(arguments)?;
    let bench = Bench {
        arguments,
        folder: folder.path(),
        events,
    };
    // The server's user has to come to its files, which the scratch folder keeps from others.
    let servers = tempfile::tempdir()?;
    let started = match case {
        Case::PostgresWrite => Server::start("postgres/server.sh", servers.path()),
        Case::RedisWrite => Server::start("redis/server.sh", servers.path()),
        Case::Compressed => return bench.compressed(),
    };
    match (started, case) {
        (Ok(server), Case::PostgresWrite) => bench.postgres(&server),
        (Ok(server), _) => bench.redis(&server),
        (Err(why), _) => {
            println!("{case:?}: skipped, since there is no server: {why}");
            Ok(Vec::new())
        }
    }
}

/// The generated events of all cases without prices.
fn write_events(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    crate::write_events(arguments, crate::Case::Stateless)?;
    Ok(fs::canonicalize(events_path(
        arguments,
        crate::Case::Stateless,
    ))?)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    /// JSON lines.
    events: PathBuf,
}

impl Bench<'_> {
    fn postgres(&self, server: &Server) -> anyhow::Result<Vec<serde_json::Value>> {
        let sql = |sql: &str| succeed(psql(server).arg("--command").arg(sql));
        sql(TABLES)?;
        let sink = |table: &str, key: &str| {
            format!(
                r#"
                type = "postgres"
                server = "{address}"
                database = "shop"
                user = "shop"
                table = "{table}"
                {key}
                properties = {{ password = "s3cret" }}
                "#,
                address = server.address,
            )
        };
        let upsert = sink("latest", "key = \"user_id\"");
        let insert = sink("events", "");
        // The same rows as a file for psql.
        let copied = self.folder.join("events.tsv");
        self.write_to("first", "", &insert)?;
        sql(&format!("\\copy events TO '{}'", copied.display()))?;
        let copy = format!("\\copy events FROM '{}'", copied.display());
        let came = format!("\\copy came FROM '{}'", copied.display());
        let copy_and_upsert = [
            "CREATE TEMPORARY TABLE came (LIKE events)",
            &came,
            "INSERT INTO latest SELECT DISTINCT ON (user_id) * FROM came ORDER BY user_id, ts DESC
             ON CONFLICT (user_id) DO UPDATE SET item_id = EXCLUDED.item_id,
             action = EXCLUDED.action, quantity = EXCLUDED.quantity, ts = EXCLUDED.ts",
        ];
        let (mut inserts, mut upserts) = (Turns::default(), Turns::default());
        for round in 0..self.arguments.repeats {
            for variant in ["psql_copy", "insert", "insert_exactly_once"] {
                sql("TRUNCATE events")?;
                let seconds = match variant {
                    "psql_copy" => timed(|| sql(&copy))?,
                    "insert" => self.write_to(&format!("{variant}-{round}"), "", &insert)?,
                    _ => self.write_to(&format!("{variant}-{round}"), CHECKPOINTS, &insert)?,
                };
                inserts.note(variant, seconds);
                let rows = sql("SELECT count(*) FROM events")?;
                ensure!(
                    rows.trim() == self.arguments.rows.to_string(),
                    "{rows} rows"
                );
            }
            for variant in ["psql_copy_and_upsert", "upsert", "upsert_exactly_once"] {
                sql("TRUNCATE latest")?;
                let seconds = match variant {
                    "psql_copy_and_upsert" => timed(|| {
                        let mut psql = psql(server);
                        for statement in copy_and_upsert {
                            psql.arg("--command").arg(statement);
                        }
                        succeed(&mut psql)
                    })?,
                    "upsert" => self.write_to(&format!("{variant}-{round}"), "", &upsert)?,
                    _ => self.write_to(&format!("{variant}-{round}"), CHECKPOINTS, &upsert)?,
                };
                upserts.note(variant, seconds);
            }
        }
        let (case, rows) = ("postgres_write", self.arguments.rows);
        let mut results = inserts.results(case, rows, &["psql_copy"])?;
        results.extend(upserts.results(case, rows, &["psql_copy_and_upsert"])?);
        Ok(results)
    }

    fn redis(&self, server: &Server) -> anyhow::Result<Vec<serde_json::Value>> {
        let (host, port) = server.place();
        let ask = |arguments: &[&str]| {
            let mut ask = Command::new("redis-cli");
            ask.args(["-h", host, "-p", port]).args(arguments);
            succeed(ask.env("REDISCLI_AUTH", "s3cret"))
        };
        // As Redis has it by default: tests wait for the disk after each command.
        ask(&["CONFIG", "SET", "appendfsync", "everysec"])?;
        let rows = self.arguments.rows.to_string();
        let mut results = Vec::new();
        for (kind, key, command) in [
            ("hash", "latest:{user_id}", "HSET latest:user-__rand_int__"),
            ("stream", "events", "XADD events *"),
        ] {
            let sink = format!(
                r#"
                type = "redis"
                server = "{address}"
                properties = {{ password = "s3cret" }}
                as = "{kind}"
                key = "{key}"
                "#,
                address = server.address,
            );
            let benchmark = format!("{kind}_redis_benchmark");
            let at_once = format!("{kind}_at_least_once");
            let committed = format!("{kind}_exactly_once");
            let mut turns = Turns::default();
            for round in 0..self.arguments.repeats {
                ask(&["FLUSHALL"])?;
                let seconds = timed(|| {
                    let mut bench = Command::new("redis-benchmark");
                    bench.args(["-h", host, "-p", port, "-a", "s3cret", "-q"]);
                    // The host has one connection, and sends some thousand commands at once.
                    bench.args(["-c", "1", "-P", "2000", "-r", "100000", "-n", &rows]);
                    succeed(bench.args(command.split(' ')).args(EVENT.split(' ')))
                })?;
                turns.note(&benchmark, seconds);
                for (variant, head) in [(&at_once, ""), (&committed, CHECKPOINTS)] {
                    ask(&["FLUSHALL"])?;
                    let seconds = self.write_to(&format!("{variant}-{round}"), head, &sink)?;
                    turns.note(variant, seconds);
                    if kind == "stream" {
                        let entries = ask(&["XLEN", "events"])?;
                        ensure!(entries.trim() == rows, "{entries} entries");
                    }
                }
            }
            let rows = self.arguments.rows;
            results.extend(turns.results("redis_write", rows, &[benchmark.as_str()])?);
        }
        Ok(results)
    }

    fn compressed(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let mut results = Vec::new();
        let blackhole = "type = \"blackhole\"";
        let to = |path: &Path| {
            format!("type = \"file\"\npath = {path:?}\nif_exists = \"replace\"\nformat = \"json\"")
        };
        for (tool, extension) in [("gzip", "gz"), ("zstd", "zst")] {
            let packed = self.folder.join("events.jsonl").with_extension(extension);
            succeed(&mut shell(
                &format!("exec {tool} -c \"$1\" > \"$2\""),
                [&self.events, &packed],
            ))
            .with_context(|| format!("compressing with {tool}"))?;
            let pipe = self.folder.join(format!("{tool}.pipe"));
            succeed(Command::new("mkfifo").arg(&pipe))?;
            let written = self.folder.join(format!("written.jsonl.{extension}"));
            let piped = self.folder.join(format!("piped.jsonl.{extension}"));
            let (read, read_piped) = (format!("{tool}_read"), format!("{tool}_read_piped"));
            let (write, write_piped) = (format!("{tool}_write"), format!("{tool}_write_piped"));
            let (mut reads, mut writes) = (Turns::default(), Turns::default());
            for _ in 0..self.arguments.repeats {
                reads.note(
                    "plain_read",
                    self.run("compressed", "", &self.events, blackhole)?,
                );
                reads.note(&read, self.run("compressed", "", &packed, blackhole)?);
                let seconds = timed(|| {
                    let script = format!("exec {tool} -dc \"$1\" > \"$2\"");
                    let unpacking = Beside(shell(&script, [&packed, &pipe]).spawn()?);
                    self.run("compressed", "", &pipe, blackhole)?;
                    unpacking.wait()
                })?;
                reads.note(&read_piped, seconds);
                let plain = self.folder.join("written.jsonl");
                writes.note(
                    "plain_write",
                    self.run("compressed", "", &self.events, &to(&plain))?,
                );
                writes.note(
                    &write,
                    self.run("compressed", "", &self.events, &to(&written))?,
                );
                let seconds = timed(|| {
                    let script = format!("exec {tool} -c < \"$1\" > \"$2\"");
                    let packing = Beside(shell(&script, [&pipe, &piped]).spawn()?);
                    self.run("compressed", "", &self.events, &to(&pipe))?;
                    packing.wait()
                })?;
                writes.note(&write_piped, seconds);
            }
            for (path, by) in [(&written, "the host"), (&piped, tool)] {
                let size = fs::metadata(path)?.len();
                eprintln!("compressed {tool}: {:.1} MB by {by}", size as f64 / 1e6);
            }
            let rows = self.arguments.rows;
            let beside = ["plain_read", &read_piped];
            results.extend(reads.results("compressed", rows, &beside)?);
            let beside = ["plain_write", &write_piped];
            results.extend(writes.results("compressed", rows, &beside)?);
        }
        Ok(results)
    }

    /// Writes all events to a sink. A pipeline that commits has to have a name of its own.
    fn write_to(&self, name: &str, head: &str, sink: &str) -> anyhow::Result<f64> {
        self.run(name, head, &self.events, sink)
    }

    /// Seconds from the start of a pipeline from a path to a sink to its end.
    fn run(&self, name: &str, head: &str, path: &Path, sink: &str) -> anyhow::Result<f64> {
        let cores = std::thread::available_parallelism()?.get();
        let state = match head {
            "" => String::new(),
            _ => format!("[state]\npath = {:?}", self.folder.join(name)),
        };
        let text = format!(
            r#"
            name = "{name}"
            parallelism = {cores}
            batch_rows = {BATCH_ROWS}
            {head}
            {state}
            [sources.events]
            type = "file"
            path = {path:?}
            format = "json"
            fields = {{ {FIELDS} }}
            [sinks.out]
            input = "events"
            {sink}
            "#
        );
        let plan = plan(&text, &PluginLoader::new()?)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores)
            .enable_all()
            .build()?;
        let durable = runtime.block_on(async { Durable::open(&plan) })?;
        let job = Job::new(plan, Arc::new(SystemClock)).on_threads(cores);
        let job = match durable {
            Some(durable) => job.keeping(durable),
            None => job,
        };
        let started = Instant::now();
        let summary = runtime.block_on(job.run())?;
        let seconds = started.elapsed().as_secs_f64();
        let (source, rows) = (&summary.nodes[0], self.arguments.rows);
        ensure!(source.rows_in == rows, "{} rows were read", source.rows_in);
        ensure!(source.failed == 0, "{} rows are bad", source.failed);
        Ok(seconds)
    }
}

fn psql(server: &Server) -> Command {
    let (host, port) = server.place();
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-h", host, "-p", port, "-U", "shop", "-d", "shop"])
        .env("PGPASSWORD", "s3cret");
    psql
}

/// A script with paths as its arguments.
fn shell(script: &str, paths: [&PathBuf; 2]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args(paths);
    shell
}

/// What a command prints.
fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {name}"))?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn timed<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let started = Instant::now();
    what()?;
    Ok(started.elapsed().as_secs_f64())
}

/// A process at the other end of a pipe, which ends with the measurement.
struct Beside(Child);

impl Beside {
    fn wait(mut self) -> anyhow::Result<()> {
        let ended = self.0.wait()?;
        ensure!(ended.success(), "the other end of the pipe: {ended}");
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nothing is there to be ended where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
