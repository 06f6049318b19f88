//! Measures state that outlives its process: checkpoints during a run,
//! restores, and states larger than memory.
//!
//! The state is that of `cart.added`, keyed by user, in one window that never
//! ends: a key has 13 bytes and a state 16, which the host counts as 60 bytes
//! in memory. Processes that are compared are alive at the same time, each
//! stopped (SIGSTOP) while another one is measured.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluicebox::checkpoint::changes::Changes;
use sluicebox::checkpoint::manifest::Manifest;
use sluicebox::checkpoint::storage::folder::FolderStorage;
use sluicebox::checkpoint::storage::{CheckpointInfo, Storage, StorageError};
use sluicebox::clock::SystemClock;
use sluicebox::connector::memory::source::MemorySource;
use sluicebox::element::CheckpointId;
use sluicebox::plan::{NodeKind, Plan, StateBackend};
use sluicebox::plugin::PluginLoader;
use sluicebox::progress::NodeProgress;
use sluicebox::run::{Durable, Job, RunError, Summary};
use sluicebox::schema::{DataType, Field, Schema};
use sluicebox::stop::Stop;

use crate::{Arguments, BATCH_ROWS, START_MS, native, plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    CheckpointCost,
    Recovery,
    LargerThanMemory,
}

/// The memory of a key and its state, as the host counts it.
const KEY_BYTES: u64 = 60;
/// The length of a state in `recovery`, which cannot be compressed.
const BLOB_BYTES: usize = 200;
/// How many batches of keys steady phases repeat.
const POOL_BATCHES: usize = 512;
/// More rows than any phase needs.
const ROWS_MAX: u64 = 400_000_000;

pub fn measure(arguments: &Arguments, case: Case) -> anyhow::Result<Vec<serde_json::Value>> {
    match case {
        Case::CheckpointCost => checkpoint_cost(arguments),
        Case::Recovery => recovery(arguments),
        Case::LargerThanMemory => larger_than_memory(arguments),
    }
}

/// A measured process: how its state is built, and which phases its parent can
/// ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Subject {
    operator: Operator,
    folder: PathBuf,
    cores: usize,
    /// `None` for a run without checkpoints.
    interval_ms: Option<u64>,
    memory: String,
    rocksdb_memory: String,
    /// How many keys exist before anything is measured.
    keys: u64,
    /// Whether the state exists already in the folder.
    is_restored: bool,
    /// The phases that follow, in order.
    regions: Vec<Region>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    /// `cart.added`, in Wasm.
    Added,
    /// A long text for each key, native.
    Blob,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Region {
    rows: u64,
    distribution: KeyDistribution,
}

/// How rows choose their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyDistribution {
    /// All keys are equally likely.
    Uniform,
    /// Nine rows in ten have one of a hundredth of the keys.
    Skewed,
}

impl KeyDistribution {
    fn name(self) -> &'static str {
        match self {
            KeyDistribution::Uniform => "uniform",
            KeyDistribution::Skewed => "skewed",
        }
    }
}

/// A request to a measured process: rows or seconds to measure, from the start
/// of a region.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Turn {
    region: usize,
    rows: u64,
    seconds: f64,
}

/// The answer, which is also sent once the state is built.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Answer {
    rows: u64,
    seconds: f64,
    /// For a restore: until the storage is open, and until rows come through.
    open_seconds: f64,
    /// Checkpoints that were completed meanwhile.
    checkpoints: Vec<Written>,
    /// The peak memory of the process since the last answer, and its memory
    /// when the run started, which is the input.
    peak_bytes: u64,
    base_bytes: u64,
}

/// A checkpoint that was written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Written {
    /// From the start of the barrier to completion.
    took_ms: u64,
    /// The part of it spent in the storage.
    write_ms: u64,
    /// How many rows of state had changed, and their bytes.
    rows: u64,
    row_bytes: u64,
    /// The size of all its files.
    bytes: u64,
}

/// Ten million keys, with a checkpoint each second and without.
fn checkpoint_cost(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    const KEYS: u64 = 10_000_000;
    const SEGMENT_ROWS: u64 = 6_000_000;
    const SEGMENTS: usize = 3;
    let cores = cores()?;
    let folder = scratch(arguments)?;
    let uniform_rows = SEGMENT_ROWS * (SEGMENTS as u64 + 1);
    let subject = |interval_ms| Subject {
        operator: Operator::Added,
        folder: folder.path().join("cost"),
        cores,
        interval_ms,
        memory: "8GiB".to_owned(),
        rocksdb_memory: "128MiB".to_owned(),
        keys: KEYS,
        is_restored: false,
        regions: vec![
            Region {
                rows: uniform_rows,
                distribution: KeyDistribution::Uniform,
            },
            Region {
                rows: ROWS_MAX,
                distribution: KeyDistribution::Skewed,
            },
        ],
    };
    let variants = [("no_checkpoints", None), ("every_1s", Some(1_000))];
    let mut processes = Vec::new();
    for (_, interval_ms) in variants {
        let mut process = Process::start(arguments, &subject(interval_ms))?;
        process.answer()?;
        process.pause()?;
        processes.push(process);
    }
    let mut results = Vec::new();
    for (region, distribution) in [KeyDistribution::Uniform, KeyDistribution::Skewed]
        .into_iter()
        .enumerate()
    {
        let mut turns: Vec<Vec<Answer>> = vec![Vec::new(); variants.len()];
        for _ in 0..SEGMENTS {
            for (process, turns) in processes.iter_mut().zip(&mut turns) {
                process.resume()?;
                turns.push(process.turn(Turn {
                    region,
                    rows: SEGMENT_ROWS,
                    seconds: f64::MAX,
                })?);
                process.pause()?;
            }
        }
        let mut rates = Vec::new();
        for ((variant, _), turns) in variants.iter().zip(&turns) {
            let (rows, seconds) = total(turns);
            let checkpoints: Vec<Written> =
                turns.iter().flat_map(|t| t.checkpoints.clone()).collect();
            let touched = middle(checkpoints.iter().map(|written| written.rows));
            let mut result = json!({
                "case": "checkpoint_cost",
                "variant": variant,
                "keys": distribution.name(),
                "state_keys": KEYS,
                "cores": cores,
                "rows": rows,
                "seconds": seconds,
                "rows_per_second": rows as f64 / seconds,
            });
            if !checkpoints.is_empty() {
                let middle_of = |field: fn(&Written) -> u64| middle(checkpoints.iter().map(field));
                // A turn's first checkpoint may have started before the pause.
                let whole = turns
                    .iter()
                    .flat_map(|turn| turn.checkpoints.iter().skip(1));
                let took: Vec<u64> = whole.map(|written| written.took_ms).collect();
                extend(
                    &mut result,
                    json!({
                        "checkpoints": checkpoints.len(),
                        "checkpoints_per_second": checkpoints.len() as f64 / seconds,
                        "checkpoint_ms": middle(took.iter().copied()),
                        "checkpoint_ms_max": took.iter().max(),
                        "write_ms": middle_of(|w| w.write_ms),
                        "changed_keys": touched,
                        "changed_bytes": middle_of(|w| w.row_bytes),
                        "checkpoint_bytes": middle_of(|w| w.bytes),
                        "changed_keys_part": touched as f64 / KEYS as f64,
                    }),
                );
            }
            eprintln!(
                "checkpoint_cost {variant} {}: {}",
                distribution.name(),
                brief(&result)
            );
            rates.push(rows as f64 / seconds);
            results.push(result);
        }
        eprintln!(
            "checkpoint_cost {}: {:.1}% slower",
            distribution.name(),
            (1.0 - rates[1] / rates[0]) * 100.0
        );
    }
    Ok(results)
}

/// From the start to the first rows, by the size of the state.
fn recovery(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    let cores = cores()?;
    let mut results = Vec::new();
    for megabytes in [10u64, 100, 1000] {
        let folder = scratch(arguments)?;
        let keys = megabytes * 1_000_000 / (BLOB_BYTES as u64 + 30);
        let subject = |is_restored, memory: &str| Subject {
            operator: Operator::Blob,
            folder: folder.path().join("recovery"),
            cores,
            // Only the checkpoint at the end is needed.
            interval_ms: Some(600_000),
            memory: memory.to_owned(),
            rocksdb_memory: "128MiB".to_owned(),
            keys,
            is_restored,
            regions: vec![Region {
                rows: ROWS_MAX,
                distribution: KeyDistribution::Uniform,
            }],
        };
        let mut process = Process::start(arguments, &subject(false, "8GiB"))?;
        process.answer()?;
        process.end()?;
        // States that fit into memory are read at once, others when they are
        // needed.
        for (variant, memory) in [("memory_256MiB", "256MiB"), ("memory_ample", "8GiB")] {
            let mut process = Process::start(arguments, &subject(true, memory))?;
            let answer = process.answer()?;
            drop(process);
            let result = json!({
                "case": "recovery",
                "variant": variant,
                "cores": cores,
                "state_keys": keys,
                "state_bytes": answer.checkpoints.first().map(|written| written.bytes),
                "seconds": answer.seconds,
                "open_seconds": answer.open_seconds,
                "peak_bytes": answer.peak_bytes.saturating_sub(answer.base_bytes),
            });
            eprintln!("recovery {variant}: {}", brief(&result));
            results.push(result);
        }
    }
    Ok(results)
}

/// A memory budget of a quarter of the state, compared with one for all of it.
fn larger_than_memory(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    const KEYS: u64 = 4_000_000;
    const SECONDS: f64 = 5.0;
    let cores = cores()?;
    let folder = scratch(arguments)?;
    let quarter = KEYS * KEY_BYTES / 4;
    let variants = [
        ("in_memory", "8GiB".to_owned()),
        ("memory_quarter", format!("{quarter}B")),
    ];
    let mut processes = Vec::new();
    for (variant, memory) in &variants {
        let subject = Subject {
            operator: Operator::Added,
            folder: folder.path().join(variant),
            cores,
            interval_ms: Some(1_000),
            memory: memory.clone(),
            rocksdb_memory: "32MiB".to_owned(),
            keys: KEYS,
            is_restored: false,
            regions: vec![
                Region {
                    rows: ROWS_MAX,
                    distribution: KeyDistribution::Uniform,
                },
                Region {
                    rows: ROWS_MAX,
                    distribution: KeyDistribution::Skewed,
                },
            ],
        };
        for (region, distribution) in [KeyDistribution::Uniform, KeyDistribution::Skewed]
            .into_iter()
            .enumerate()
        {
            let subject = Subject {
                regions: vec![subject.regions[region]],
                folder: subject.folder.join(distribution.name()),
                ..subject.clone()
            };
            let mut process = Process::start(arguments, &subject)?;
            let filled = process.answer()?;
            process.pause()?;
            processes.push((*variant, distribution, process, filled, Vec::new()));
        }
    }
    for _ in 0..2 {
        for (_, _, process, _, turns) in &mut processes {
            process.resume()?;
            turns.push(process.turn(Turn {
                region: 0,
                rows: ROWS_MAX,
                seconds: SECONDS,
            })?);
            process.pause()?;
        }
    }
    let mut results = Vec::new();
    for (variant, distribution, _, filled, turns) in &processes {
        let (rows, seconds) = total(turns);
        let peak = turns.iter().map(|turn| turn.peak_bytes).max().unwrap_or(0);
        let result = json!({
            "case": "larger_than_memory",
            "variant": variant,
            "keys": distribution.name(),
            "cores": cores,
            "state_keys": KEYS,
            "state_bytes": KEYS * KEY_BYTES,
            "memory_bytes": if *variant == "in_memory" { KEYS * KEY_BYTES } else { quarter },
            "rows": rows,
            "seconds": seconds,
            "rows_per_second": rows as f64 / seconds,
            // Without the input, which is in memory.
            "peak_filling_bytes": filled.peak_bytes.saturating_sub(filled.base_bytes),
            "peak_steady_bytes": peak.saturating_sub(filled.base_bytes),
        });
        eprintln!(
            "larger_than_memory {variant} {}: {}",
            distribution.name(),
            brief(&result)
        );
        results.push(result);
    }
    Ok(results)
}

/// A measured process, seen from its parent.
struct Process {
    child: Child,
    tells: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &Arguments, subject: &Subject) -> anyhow::Result<Process> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--plugin")
            .arg(&arguments.plugin)
            .arg("--subject")
            .arg(serde_json::to_string(subject)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a process to measure")?;
        Ok(Process {
            tells: child.stdin.take().context("its input")?,
            answers: BufReader::new(child.stdout.take().context("its output")?),
            child,
        })
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the measured process ended");
        Ok(serde_json::from_str(&line)?)
    }

    fn turn(&mut self, turn: Turn) -> anyhow::Result<Answer> {
        writeln!(self.tells, "{}", serde_json::to_string(&turn)?)?;
        self.answer()
    }

    fn pause(&self) -> anyhow::Result<()> {
        self.signal("-STOP")
    }

    fn resume(&self) -> anyhow::Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status()?;
        ensure!(status.success(), "kill {signal} {pid} failed");
        Ok(())
    }

    /// Lets it end by itself, with a last checkpoint.
    fn end(mut self) -> anyhow::Result<()> {
        writeln!(self.tells)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the measured process failed");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing in it is worth waiting for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as the measured process.
pub fn run_as_subject(arguments: &Arguments, subject: &str) -> anyhow::Result<()> {
    let subject: Subject = serde_json::from_str(subject)?;
    let log = Log::default();
    watch_checkpoints(log.clone());
    let plan = subject.plan(arguments)?;
    let base_bytes = memory("VmRSS")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(subject.cores)
        .enable_all()
        .build()?;
    let started = Instant::now();
    let storage = subject.storage(&plan, &log)?;
    let open_seconds = started.elapsed().as_secs_f64();
    let mut found = Vec::new();
    if let Some(storage) = storage.as_ref().filter(|_| subject.is_restored) {
        let known = storage.list()?;
        let last = known.last().context("there is no checkpoint")?;
        found.push(Written {
            bytes: last.bytes,
            ..Written::default()
        });
    }
    let mut job = Job::new(plan, Arc::new(SystemClock)).on_threads(subject.cores);
    if let Some(storage) = storage {
        job = job.keeping(Durable::new(storage));
    }
    let mut running = Running {
        progress: job.progress().swap_remove(1),
        stop: job.stop(),
        run: Some(runtime.spawn(job.run())),
        runtime,
    };
    let answer = |answer: Answer| -> anyhow::Result<()> {
        let answer = Answer {
            peak_bytes: memory("VmHWM")?,
            base_bytes,
            ..answer
        };
        println!("{}", serde_json::to_string(&answer)?);
        // Resets the peak.
        fs::write("/proc/self/clear_refs", "5")?;
        Ok(())
    };
    let ready = match subject.is_restored {
        // When the second batch is requested, the first one is through.
        true => BATCH_ROWS as u64 + 1,
        false => subject.keys,
    };
    running.wait_for(ready, f64::MAX)?;
    answer(Answer {
        rows: running.rows(),
        seconds: started.elapsed().as_secs_f64(),
        open_seconds,
        checkpoints: found,
        ..Answer::default()
    })?;
    for line in std::io::stdin().lines() {
        let line = line?;
        if line.is_empty() {
            running.end()?;
            return Ok(());
        }
        let turn: Turn = serde_json::from_str(&line)?;
        let before: u64 = subject.regions[..turn.region].iter().map(|r| r.rows).sum();
        running.wait_for(subject.keys + before, f64::MAX)?;
        log.take();
        let from = running.rows();
        let began = Instant::now();
        running.wait_for(from + turn.rows, turn.seconds)?;
        answer(Answer {
            rows: running.rows() - from,
            seconds: began.elapsed().as_secs_f64(),
            checkpoints: log.take(),
            ..Answer::default()
        })?;
    }
    // The parent is gone.
    std::process::exit(0)
}

/// The run of a measured process.
struct Running {
    /// The counters of the aggregate.
    progress: Arc<NodeProgress>,
    stop: Stop,
    run: Option<tokio::task::JoinHandle<Result<Summary, RunError>>>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn rows(&self) -> u64 {
        self.progress.snapshot().rows_in
    }

    fn wait_for(&mut self, rows: u64, seconds: f64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.rows() < rows && began.elapsed().as_secs_f64() < seconds {
            if self.run.as_ref().is_none_or(|run| run.is_finished()) {
                self.end()?;
                bail!("the run ended at row {}", self.rows());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.stop.ask();
        if let Some(run) = self.run.take() {
            self.runtime.block_on(run)??;
        }
        Ok(())
    }
}

impl Subject {
    fn plan(&self, arguments: &Arguments) -> anyhow::Result<Plan> {
        fs::create_dir_all(&self.folder)?;
        // Rows come from memory, but the planner checks that the file exists.
        let unread = self.folder.join("unread.jsonl");
        fs::write(&unread, "")?;
        let operator = match self.operator {
            Operator::Added => "added",
            Operator::Blob => "blob",
        };
        let checkpoints = match self.interval_ms {
            Some(interval_ms) => format!(
                r#"
                [state]
                path = {path:?}
                memory = "{memory}"
                rocksdb_memory = "{rocksdb_memory}"
                [checkpoints]
                interval = "{interval_ms}ms"
                "#,
                path = self.folder.join("state"),
                memory = self.memory,
                rocksdb_memory = self.rocksdb_memory,
            ),
            None => String::new(),
        };
        let text = format!(
            r#"
            name = "bench"
            parallelism = {cores}
            batch_rows = {BATCH_ROWS}
            plugins.cart.path = {plugin:?}
            {checkpoints}
            [sources.rows]
            type = "file"
            path = {unread:?}
            event_time = "ts"
            fields = {{ user_id = "utf8", blob = "utf8", quantity = "int64", ts = "timestamp(ms)" }}
            [operators.state]
            plugin = "cart.{operator}"
            input = "rows"
            key = "user_id"
            window = {{ tumbling = "36500d" }}
            [sinks.out]
            type = "blackhole"
            input = "state"
            "#,
            cores = self.cores,
            plugin = fs::canonicalize(&arguments.plugin)?,
        );
        let mut plan = match self.operator {
            Operator::Added => plan(&text, &PluginLoader::new()?)?,
            Operator::Blob => plan(&text, &native::NativeLoader)?,
        };
        for node in &mut plan.nodes {
            if let NodeKind::Source(source) = &mut node.kind {
                let partitions = (0..self.cores).map(|index| self.input(index));
                let partitions = partitions.collect::<anyhow::Result<_>>()?;
                source.connector = Box::new(MemorySource::new(partitions));
            }
        }
        Ok(plan)
    }

    /// The rows of one partition: each key once, then those of the regions.
    fn input(&self, partition: usize) -> anyhow::Result<Vec<RecordBatch>> {
        let cores = self.cores as u64;
        let mut random = fastrand::Rng::with_seed(partition as u64);
        let made = SharedColumns::new(self.operator, &mut random)?;
        let mut batches = Vec::new();
        let keys: Vec<u64> = (partition as u64..self.keys).step_by(self.cores).collect();
        for (index, keys) in keys.chunks(BATCH_ROWS).enumerate() {
            batches.push(made.batch(index, keys.iter().copied())?);
        }
        for region in &self.regions {
            let pool = (0..POOL_BATCHES)
                .map(|index| {
                    let keys = (0..BATCH_ROWS).map(|_| match region.distribution {
                        KeyDistribution::Skewed if random.u8(0..10) > 0 => {
                            random.u64(0..self.keys / 100) * 100
                        }
                        _ => random.u64(0..self.keys),
                    });
                    made.batch(index, keys.collect::<Vec<_>>().into_iter())
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            let rows = region.rows / cores;
            let count = rows.div_ceil(BATCH_ROWS as u64) as usize;
            batches.extend(pool.iter().cycle().take(count).cloned());
        }
        Ok(batches)
    }

    fn storage(&self, plan: &Plan, log: &Log) -> anyhow::Result<Option<Arc<dyn Storage>>> {
        let Some(state) = &plan.state else {
            return Ok(None);
        };
        let StateBackend::RocksDb {
            folder,
            memory_bytes_max,
            ..
        } = &state.backend
        else {
            bail!("the state is not in a folder");
        };
        Ok(Some(Arc::new(RecordingStorage {
            inner: FolderStorage::open(folder, *memory_bytes_max)?,
            log: log.clone(),
        })))
    }
}

/// Columns that batches share.
struct SharedColumns {
    schema: Arc<arrow_schema::Schema>,
    blobs: Vec<ArrayRef>,
    quantity: ArrayRef,
    ts: ArrayRef,
}

impl SharedColumns {
    fn new(operator: Operator, random: &mut fastrand::Rng) -> anyhow::Result<SharedColumns> {
        let field = |name, data_type| Field::new(name, data_type, false);
        let schema = Schema::new(vec![
            field("user_id", DataType::Utf8),
            field("blob", DataType::Utf8),
            field("quantity", DataType::Int64),
            field("ts", DataType::Timestamp),
        ]);
        let (columns, length) = match operator {
            Operator::Added => (1, 0),
            Operator::Blob => (64, BLOB_BYTES),
        };
        let blobs = (0..columns).map(|_| {
            let blob = |_| -> String { (0..length).map(|_| random.alphanumeric()).collect() };
            let texts = (0..BATCH_ROWS).map(blob);
            Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
        });
        let ts = TimestampMillisecondArray::from(vec![START_MS; BATCH_ROWS]);
        Ok(SharedColumns {
            schema: Arc::new(schema.to_arrow()),
            blobs: blobs.collect(),
            quantity: Arc::new(Int64Array::from(vec![1; BATCH_ROWS])),
            ts: Arc::new(ts.with_timezone("UTC")),
        })
    }

    fn batch(
        &self,
        index: usize,
        keys: impl ExactSizeIterator<Item = u64>,
    ) -> anyhow::Result<RecordBatch> {
        let rows = keys.len();
        let keys = keys.map(|key| format!("user-{key:08}"));
        let blobs = &self.blobs[index % self.blobs.len()];
        let columns = vec![
            Arc::new(StringArray::from_iter_values(keys)) as ArrayRef,
            blobs.slice(0, rows),
            self.quantity.slice(0, rows),
            self.ts.slice(0, rows),
        ];
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// Checkpoints that were written and completed.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Logged>>);

#[derive(Default)]
struct Logged {
    written: VecDeque<Written>,
    done: Vec<Written>,
}

impl Log {
    fn write(&self, written: Written) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.written.push_back(written);
    }

    fn end(&self, took_ms: u64) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = logged.written.pop_front() {
            logged.done.push(Written { took_ms, ..written });
        }
    }

    /// The checkpoints since the last call.
    fn take(&self) -> Vec<Written> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut logged.done)
    }
}

/// A storage that records what is written.
struct RecordingStorage {
    inner: FolderStorage,
    log: Log,
}

impl Storage for RecordingStorage {
    fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError> {
        self.inner.list()
    }

    fn restore(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        self.inner.restore(id)
    }

    fn reset(&self) -> Result<(), StorageError> {
        self.inner.reset()
    }

    fn write(
        &self,
        manifest: Manifest,
        changes: Vec<Changes>,
    ) -> Result<CheckpointInfo, StorageError> {
        let changed = || changes.iter().flat_map(Changes::rows);
        let rows = changed().count() as u64;
        let row_bytes = changed().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len));
        let row_bytes = row_bytes.sum::<usize>() as u64;
        let began = Instant::now();
        let info = self.inner.write(manifest, changes)?;
        self.log.write(Written {
            took_ms: 0,
            write_ms: began.elapsed().as_millis() as u64,
            rows,
            row_bytes,
            bytes: info.bytes,
        });
        Ok(info)
    }

    fn rewrite(
        &self,
        next: &mut dyn FnMut() -> Result<Option<Changes>, StorageError>,
    ) -> Result<(), StorageError> {
        self.inner.rewrite(next)
    }

    fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        self.inner.delete(id)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.inner.get_many(keys)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.inner.scan(from, to, visit)
    }
}

/// Reads from the host's log how long each checkpoint took.
fn watch_checkpoints(log: Log) {
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;

    struct Watch(Log);
    struct Took<'a>(&'a Log);

    impl<S: tracing::Subscriber> Layer<S> for Watch {
        fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
            event.record(&mut Took(&self.0));
        }
    }

    impl Visit for Took<'_> {
        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "milliseconds" {
                self.0.end(value);
            }
        }

        fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
    }

    let of_runs = tracing_subscriber::filter::Targets::new()
        .with_target("sluicebox::run", tracing::Level::DEBUG);
    tracing_subscriber::registry()
        .with(Watch(log).with_filter(of_runs))
        .init();
}

/// A value from this process's `/proc` status, in bytes.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.context("no such line")?.parse()?;
    Ok(kilobytes * 1024)
}

fn cores() -> anyhow::Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// A temporary folder beside the results.
pub fn scratch(arguments: &Arguments) -> anyhow::Result<tempfile::TempDir> {
    let folder: &Path = &fs::canonicalize(&arguments.folder)?;
    Ok(tempfile::Builder::new()
        .prefix("state-")
        .tempdir_in(folder)?)
}

fn total(turns: &[Answer]) -> (u64, f64) {
    let rows = turns.iter().map(|turn| turn.rows).sum();
    (rows, turns.iter().map(|turn| turn.seconds).sum())
}

pub fn middle(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

pub fn extend(result: &mut serde_json::Value, more: serde_json::Value) {
    if let (Some(result), serde_json::Value::Object(more)) = (result.as_object_mut(), more) {
        result.extend(more);
    }
}

/// The figures of a result in one line.
pub fn brief(result: &serde_json::Value) -> String {
    let Some(fields) = result.as_object() else {
        return String::new();
    };
    let figures = fields.iter().filter_map(|(name, value)| {
        let number = value.as_f64()?;
        Some(match name.as_str() {
            "cores" | "rows" => return None,
            name if name.ends_with("_bytes") => format!("{name} {:.1} MB", number / 1e6),
            name if name.ends_with("rows_per_second") => {
                format!("{:.3} M rows/s", number / 1e6)
            }
            name if number.fract() == 0.0 => format!("{name} {number}"),
            name => format!("{name} {number:.3}"),
        })
    });
    figures.collect::<Vec<_>>().join(", ")
}
