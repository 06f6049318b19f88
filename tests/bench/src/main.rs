//! Benchmarks of the host: jobs on generated cart events, from JSON lines and from
//! memory, hand-written, with native operators, with Wasm operators and with functions of
//! the host. Each measurement runs in its own process, pinned to its cores.
//! What a key's state takes is measured by [`keys`], how long answers take by [`answers`], the
//! cost of durability by [`state`] and [`kafka`], what decoding messages costs by
//! [`decoding`], an example with several processes behind one another by [`social`],
//! databases and compressed files by [`edges`].

/// How long answers take.
mod answers;
/// Decoding of messages with a schema.
mod decoding;
/// Databases and compressed files, beside the tools that come with them.
mod edges;
/// The hand-written loops.
mod handwritten;
/// Commits to Kafka.
mod kafka;
/// What the state of a key takes.
mod keys;
/// Native operators in the same host.
mod native;
/// Real servers.
mod servers;
/// An example on a generated social network.
mod social;
/// State that outlives the process.
mod state;
/// Variants that are compared.
mod turns;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow_array::RecordBatch;
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use sluicebox::clock::SystemClock;
use sluicebox::config::Config;
use sluicebox::connector::generator::events::{self, Events, EventsPlan};
use sluicebox::connector::memory::source::MemorySource;
use sluicebox::logic::Loader;
use sluicebox::plan::{NodeKind, Plan};
use sluicebox::planner;
use sluicebox::plugin::PluginLoader;
use sluicebox::run::Job;

/// How far behind the newest row a row may be, in the events and in the jobs.
pub const OUT_OF_ORDERNESS_MS: i64 = 2_000;
/// How many adds of a user are an order.
pub const ITEMS_OF_ORDER: usize = 5;
const BATCH_ROWS: usize = 4096;
/// Event time of the first row.
const START_MS: i64 = 1_700_000_000_000;

#[derive(Clone, Parser)]
struct Arguments {
    /// Rows of input
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Runs of each measurement; the median is reported
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Only these cases
    #[arg(long = "case", value_enum)]
    cases: Vec<AnyCase>,
    /// Only these inputs, for cases that have several
    #[arg(long = "input", value_enum)]
    inputs: Vec<Input>,
    /// Only these variants, for cases that have several
    #[arg(long = "variant", value_enum)]
    variants: Vec<Variant>,
    /// Folder for inputs and results
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// The cart plugin
    #[arg(long)]
    plugin: PathBuf,
    /// The recommend plugin
    #[arg(long, default_value = "plugins/recommend/recommend.wasm")]
    recommend: PathBuf,
    /// Measure one case in this process, on so many cores, and print the
    /// seconds
    #[arg(long, hide = true)]
    cores: Option<usize>,
    /// Run as the measured process of a case of `state`
    #[arg(long, hide = true)]
    subject: Option<String>,
}

/// The values of `--case`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnyCase {
    Host(Case),
    Answers(answers::Case),
    Keys(keys::Case),
    Social(social::Case),
    State(state::Case),
    Kafka(kafka::Case),
    Edges(edges::Case),
    Decoding(decoding::Case),
}

impl ValueEnum for AnyCase {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            AnyCase::Host(Case::Stateless),
            AnyCase::Host(Case::Filter),
            AnyCase::Host(Case::Tumbling),
            AnyCase::Host(Case::SlidingTop10),
            AnyCase::Host(Case::Sessions),
            AnyCase::Host(Case::Process),
            AnyCase::Host(Case::IntervalJoin),
            AnyCase::Host(Case::AsOfJoin),
            AnyCase::Host(Case::Lookup),
            AnyCase::Host(Case::Recommend),
            AnyCase::Answers(answers::Case::RecommendLatency),
            AnyCase::Keys(keys::Case::StateBytes),
            AnyCase::Social(social::Case::Notify),
            AnyCase::State(state::Case::CheckpointCost),
            AnyCase::State(state::Case::Recovery),
            AnyCase::State(state::Case::LargerThanMemory),
            AnyCase::Kafka(kafka::Case::KafkaCopy),
            AnyCase::Kafka(kafka::Case::KafkaLatency),
            AnyCase::Edges(edges::Case::PostgresWrite),
            AnyCase::Edges(edges::Case::RedisWrite),
            AnyCase::Edges(edges::Case::Compressed),
            AnyCase::Decoding(decoding::Case::AvroDecoding),
            AnyCase::Decoding(decoding::Case::ProtobufDecoding),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            AnyCase::Host(case) => case.to_possible_value(),
            AnyCase::Answers(case) => case.to_possible_value(),
            AnyCase::Keys(case) => case.to_possible_value(),
            AnyCase::Social(case) => case.to_possible_value(),
            AnyCase::State(case) => case.to_possible_value(),
            AnyCase::Kafka(case) => case.to_possible_value(),
            AnyCase::Edges(case) => case.to_possible_value(),
            AnyCase::Decoding(case) => case.to_possible_value(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Case {
    Stateless,
    /// A plugin's filter, and the host's.
    Filter,
    Tumbling,
    #[serde(rename = "sliding_top10")]
    #[value(name = "sliding_top10")]
    SlidingTop10,
    Sessions,
    Process,
    /// A join needs no plugin; a filter of its input is one.
    IntervalJoin,
    AsOfJoin,
    /// Bills of orders by the prices of their items.
    Lookup,
    /// Each row asks, of up to 20 items of its user with up to 50 neighbours each, for the
    /// ten best.
    Recommend,
}

impl Case {
    /// Of the rows that are asked for, how many the case is measured with.
    fn rows(self, rows: u64) -> u64 {
        match self {
            // Each is many times as much work.
            Case::Recommend => rows.div_ceil(20),
            _ => rows,
        }
    }

    /// Whether its rows have prices.
    fn prices(self) -> bool {
        self == Case::Lookup
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
enum Input {
    Json,
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
enum Variant {
    HandWritten,
    NativeOperator,
    Wasm,
    /// With functions of the host instead of the aggregate, where there are any.
    Functions,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measurement {
    case: Case,
    input: Input,
    variant: Variant,
    cores: usize,
    rows: u64,
    seconds: f64,
    rows_per_second: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match (&arguments.subject, arguments.cores) {
        (Some(subject), _) => state::run_as_subject(&arguments, subject),
        (None, Some(cores)) => measure_here(&arguments, cores),
        (None, None) => measure_all(&arguments),
    }
}

fn measure_all(arguments: &Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.folder)
        .with_context(|| format!("making {}", arguments.folder.display()))?;
    let cases = chosen(&arguments.cases);
    let measurements = measure_host(arguments, &cases)?;
    let mut results = measurements
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()?;
    if cases.contains(&AnyCase::Answers(answers::Case::RecommendLatency)) {
        results.extend(answers::measure(arguments)?);
    }
    if cases.contains(&AnyCase::Keys(keys::Case::StateBytes)) {
        results.extend(keys::measure(arguments)?);
    }
    if cases.contains(&AnyCase::Social(social::Case::Notify)) {
        results.extend(social::measure(arguments)?);
    }
    let of_decoding = cases.iter().filter_map(|case| match case {
        AnyCase::Decoding(case) => Some(*case),
        _ => None,
    });
    for case in of_decoding {
        results.push(decoding::measure(arguments, case)?);
    }
    let of_state = cases.iter().filter_map(|case| match case {
        AnyCase::State(case) => Some(*case),
        _ => None,
    });
    for case in of_state {
        results.extend(state::measure(arguments, case)?);
    }
    let of_kafka = cases.iter().filter_map(|case| match case {
        AnyCase::Kafka(case) => Some(*case),
        _ => None,
    });
    results.extend(kafka::measure(arguments, &of_kafka.collect::<Vec<_>>())?);
    let of_edges = cases.iter().filter_map(|case| match case {
        AnyCase::Edges(case) => Some(*case),
        _ => None,
    });
    for case in of_edges {
        results.extend(edges::measure(arguments, case)?);
    }
    let path = arguments.folder.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(&results)?)?;
    if !measurements.is_empty() {
        println!("{}", table(&measurements)?);
    }
    println!("written to {}", path.display());
    Ok(())
}

fn measure_host(arguments: &Arguments, cases: &[AnyCase]) -> anyhow::Result<Vec<Measurement>> {
    let cases: Vec<Case> = cases
        .iter()
        .filter_map(|case| match case {
            AnyCase::Host(case) => Some(*case),
            _ => None,
        })
        .collect();
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let all_cores = std::thread::available_parallelism()?.get();
    let mut measurements: Vec<Measurement> = Vec::new();
    for case in cases {
        let arguments = &Arguments {
            rows: case.rows(arguments.rows),
            ..arguments.clone()
        };
        write_events(arguments, case)?;
        for input in chosen(&arguments.inputs) {
            let mut wanted = Vec::new();
            for variant in chosen(&arguments.variants) {
                // Firing timers, and what is before and behind a look-up or a recommender, is
                // the plugin's part, which only the SDK has.
                let is_missing = match variant {
                    Variant::Functions => !matches!(case, Case::Tumbling | Case::Filter),
                    Variant::NativeOperator => {
                        matches!(case, Case::Process | Case::Lookup | Case::Recommend)
                    }
                    _ => false,
                };
                if is_missing {
                    continue;
                }
                wanted.push((variant, 1));
                if variant != Variant::HandWritten && all_cores > 1 {
                    wanted.push((variant, all_cores));
                }
            }
            // Repeats are interleaved, so that a slow minute of the machine
            // affects all variants.
            let mut seconds = vec![Vec::new(); wanted.len()];
            for _ in 0..arguments.repeats {
                for (&(variant, cores), seconds) in wanted.iter().zip(&mut seconds) {
                    seconds.push(measure(arguments, case, input, variant, cores)?);
                }
            }
            for ((variant, cores), mut seconds) in wanted.into_iter().zip(seconds) {
                seconds.sort_by(f64::total_cmp);
                let seconds = seconds[seconds.len() / 2];
                let rows_per_second = arguments.rows as f64 / seconds;
                eprintln!(
                    "{case:?} {input:?} {variant:?} {cores}: {:.2} M rows/s",
                    rows_per_second / 1e6
                );
                measurements.push(Measurement {
                    case,
                    input,
                    variant,
                    cores,
                    rows: arguments.rows,
                    seconds,
                    rows_per_second,
                });
            }
        }
    }
    Ok(measurements)
}

/// Runs one measurement in its own process.
fn measure(
    arguments: &Arguments,
    case: Case,
    input: Input,
    variant: Variant,
    cores: usize,
) -> anyhow::Result<f64> {
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    };
    let output = Command::new("taskset")
        .args(["--cpu-list", &format!("0-{}", cores - 1)])
        .arg(std::env::current_exe()?)
        .args([
            "--rows",
            &arguments.rows.to_string(),
            "--cores",
            &cores.to_string(),
        ])
        .args(["--case", &name(&|| case.to_possible_value())])
        .args(["--input", &name(&|| input.to_possible_value())])
        .args(["--variant", &name(&|| variant.to_possible_value())])
        .arg("--folder")
        .arg(&arguments.folder)
        .arg("--plugin")
        .arg(&arguments.plugin)
        .arg("--recommend")
        .arg(&arguments.recommend)
        .output()
        .context("starting a measurement under taskset (package util-linux)")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout)?;
    printed
        .trim()
        .parse()
        .with_context(|| format!("reading seconds from {printed:?}"))
}

fn measure_here(arguments: &Arguments, cores: usize) -> anyhow::Result<()> {
    let ([AnyCase::Host(case)], [input], [variant]) =
        (&*arguments.cases, &*arguments.inputs, &*arguments.variants)
    else {
        anyhow::bail!("--cores measures one case, input and variant");
    };
    let events = events_path(arguments, *case);
    let batches = match input {
        Input::Memory => in_memory(&generator(arguments.rows, *case))?,
        Input::Json => Vec::new(),
    };
    let seconds = match (variant, input) {
        (Variant::HandWritten, Input::Json) => {
            let started = Instant::now();
            let lines = fs::read(&events)?;
            let rows = handwritten::over_lines(*case, &lines)?;
            ensure!(rows == arguments.rows, "{rows} rows were read");
            started.elapsed().as_secs_f64()
        }
        (Variant::HandWritten, Input::Memory) => {
            let started = Instant::now();
            let rows = handwritten::over_columns(*case, &batches);
            ensure!(rows == arguments.rows, "{rows} rows were read");
            started.elapsed().as_secs_f64()
        }
        (Variant::NativeOperator, _) => run_pipeline(
            arguments,
            *case,
            *variant,
            cores,
            batches,
            &native::NativeLoader,
        )?,
        (Variant::Wasm | Variant::Functions, _) => {
            let loader = PluginLoader::new()?;
            run_pipeline(arguments, *case, *variant, cores, batches, &loader)?
        }
    };
    println!("{seconds}");
    Ok(())
}

/// Seconds from the first row to the end; plugins are compiled before.
fn run_pipeline(
    arguments: &Arguments,
    case: Case,
    variant: Variant,
    cores: usize,
    batches: Vec<RecordBatch>,
    loader: &dyn Loader,
) -> anyhow::Result<f64> {
    let text = pipeline(arguments, case, variant, cores)?;
    let plan = plan(&text, loader)?;
    let plan = if batches.is_empty() {
        plan
    } else {
        from_memory(plan, batches, cores)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?;
    let started = Instant::now();
    let summary = runtime.block_on(
        Job::new(plan, Arc::new(SystemClock))
            .on_threads(cores)
            .run(),
    )?;
    let seconds = started.elapsed().as_secs_f64();
    let source = &summary.nodes[0];
    ensure!(
        source.rows_in == arguments.rows,
        "{} rows were read",
        source.rows_in
    );
    for node in &summary.nodes {
        ensure!(
            node.failed == 0 && node.rejected == 0,
            "{} lost rows",
            node.name
        );
    }
    Ok(seconds)
}

fn plan(text: &str, loader: &dyn Loader) -> anyhow::Result<Plan> {
    let config = Config::parse("bench.toml", text).map_err(anyhow::Error::from)?;
    planner::build(&config, Path::new("."), loader).map_err(anyhow::Error::from)
}

/// Replaces the source by rows in memory, in as many partitions as cores.
fn from_memory(mut plan: Plan, batches: Vec<RecordBatch>, cores: usize) -> Plan {
    let mut partitions = vec![Vec::new(); cores];
    for (index, batch) in batches.into_iter().enumerate() {
        partitions[index % cores].push(batch);
    }
    for node in &mut plan.nodes {
        if let NodeKind::Source(source) = &mut node.kind {
            source.connector = Box::new(MemorySource::new(std::mem::take(&mut partitions)));
        }
    }
    plan
}

fn pipeline(
    arguments: &Arguments,
    case: Case,
    variant: Variant,
    cores: usize,
) -> anyhow::Result<String> {
    let events = fs::canonicalize(events_path(arguments, case))?;
    let prices = match case.prices() {
        true => ", price = \"decimal(9,2)\"",
        false => "",
    };
    let source = format!(
        r#"
        type = "file"
        path = {events:?}
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "{OUT_OF_ORDERNESS_MS}ms" }}
        fields = {{ user_id = "utf8", item_id = "utf8", action = "utf8", quantity = "int64", ts = "timestamp(ms)"{prices} }}
        "#
    );
    of_source(arguments, &source, case, variant, cores)
}

/// The same rows, without an end, from the generator.
fn generated(
    arguments: &Arguments,
    case: Case,
    variant: Variant,
    cores: usize,
) -> anyhow::Result<String> {
    let EventsPlan {
        seed,
        users,
        items,
        events_per_second,
        jitter_ms,
        prices,
        ..
    } = generator(arguments.rows, case);
    let source = format!(
        r#"
        type = "generator"
        seed = {seed}
        users = {users}
        items = {items}
        events_per_second = {events_per_second}
        jitter = "{jitter_ms}ms"
        prices = {prices}
        "#
    );
    of_source(arguments, &source, case, variant, cores)
}

fn of_source(
    arguments: &Arguments,
    source: &str,
    case: Case,
    variant: Variant,
    cores: usize,
) -> anyhow::Result<String> {
    // What a plugin does with each row.
    let first = match case {
        Case::Filter | Case::Recommend | Case::Sessions => "",
        Case::Stateless | Case::Process => {
            r#"
            [operators.changes]
            plugin = "cart.changes"
            input = "events"
            "#
        }
        Case::Tumbling
        | Case::SlidingTop10
        | Case::IntervalJoin
        | Case::AsOfJoin
        | Case::Lookup => {
            r#"
            [operators.adds]
            plugin = "cart.adds"
            input = "events"
            "#
        }
    };
    let operators = match case {
        Case::Stateless => "",
        Case::Filter if variant == Variant::Functions => {
            r#"
            [operators.kept]
            filter = "action == 'add'"
            input = "events"
            "#
        }
        Case::Filter => {
            r#"
            [operators.kept]
            plugin = "cart.adds"
            input = "events"
            "#
        }
        Case::Lookup => {
            r#"
            [operators.orders]
            aggregate = { items = "top(5, item_id)" }
            input = "adds"
            key = "user_id"
            window = { count = 5 }
            bounds = false
            [operators.named]
            select = { order_id = "user_id", user_id = "user_id", items = "items" }
            input = "orders"
            [operators.shown]
            filter = "action == 'view'"
            input = "events"
            [operators.bills]
            plugin = "cart.bill"
            input = "named"
            table = "shown"
            "#
        }
        Case::Recommend => {
            r#"
            [operators.interactions]
            select = { user_id = "user_id", item_id = "item_id", action = "action", category = "action" }
            input = "events"
            [operators.suggested]
            plugin = "recommend.items"
            input = "interactions"
            key = { user = "user_id", item = "item_id" }
            parameters = { neighbours = 50 }
            "#
        }
        Case::Tumbling if variant == Variant::Functions => {
            r#"
            [operators.added]
            aggregate = { count = "count()", sum = "sum(quantity)" }
            input = "adds"
            key = "user_id"
            window = { tumbling = "1m" }
            "#
        }
        Case::Tumbling => {
            r#"
            [operators.added]
            plugin = "cart.added"
            input = "adds"
            key = "user_id"
            window = { tumbling = "1m" }
            "#
        }
        Case::SlidingTop10 => {
            r#"
            [operators.item_counts]
            plugin = "cart.item_counts"
            input = "adds"
            key = "item_id"
            window = { sliding = "60s", every = "5s" }
            [operators.top]
            plugin = "cart.top"
            input = "item_counts"
            key = ["window_start", "window_end"]
            window = { tumbling = "5s" }
            bounds = false
            "#
        }
        Case::Process => {
            r#"
            [operators.left]
            plugin = "cart.left_carts"
            input = "changes"
            key = "user_id"
            "#
        }
        Case::IntervalJoin => {
            r#"
            [operators.joined]
            join = { kind = "inner", before = "0s", after = "10s" }
            input = { left = "adds", right = "events" }
            key = "user_id"
            select = { user_id = "key.user_id", added = "left.item_id", then = "right.item_id" }
            "#
        }
        Case::AsOfJoin => {
            r#"
            [operators.joined]
            join = { kind = "left", as_of = "event_time" }
            input = { left = "events", right = "adds" }
            key = "user_id"
            select = { user_id = "left.user_id", action = "left.action", added = "right.item_id" }
            "#
        }
        Case::Sessions => {
            r#"
            [operators.session]
            plugin = "cart.session"
            input = "events"
            key = "user_id"
            window = { session = "30s" }
            "#
        }
    };
    let last = match case {
        Case::Stateless => "changes",
        Case::Filter => "kept",
        Case::Tumbling => "added",
        Case::SlidingTop10 => "top",
        Case::Sessions => "session",
        Case::Process => "left",
        Case::IntervalJoin | Case::AsOfJoin => "joined",
        Case::Lookup => "bills",
        Case::Recommend => "suggested",
    };
    let recommend = match case {
        Case::Recommend => format!(
            "plugins.recommend.path = {:?}",
            fs::canonicalize(&arguments.recommend)?
        ),
        _ => String::new(),
    };
    let mut text = format!(
        r#"
        name = "bench"
        parallelism = {cores}
        batch_rows = {BATCH_ROWS}
        plugins.cart.path = {plugin:?}
        {recommend}
        [sources.events]
        {source}
        "#,
        plugin = fs::canonicalize(&arguments.plugin)?,
    );
    writeln!(
        text,
        "{first}{operators}\n[sinks.out]\ntype = \"blackhole\"\ninput = \"{last}\""
    )?;
    Ok(text)
}

fn in_memory(plan: &EventsPlan) -> anyhow::Result<Vec<RecordBatch>> {
    let schema = Arc::new(events::schema(plan.prices).to_arrow());
    let events = Events::new(plan, START_MS);
    let count = plan.count.unwrap_or(0);
    let batches = (0..count).step_by(BATCH_ROWS).map(|first| {
        let rows = BATCH_ROWS.min((count - first) as usize);
        Ok(RecordBatch::try_new(
            schema.clone(),
            events.rows(first, rows),
        )?)
    });
    batches.collect()
}

fn generator(rows: u64, case: Case) -> EventsPlan {
    EventsPlan {
        seed: 1,
        rate: None,
        count: Some(rows),
        users: 100_000,
        items: 20_000,
        start_ms: Some(START_MS),
        events_per_second: 500.0,
        jitter_ms: OUT_OF_ORDERNESS_MS as u64,
        broken_one_in: 0,
        prices: case.prices(),
    }
}

fn events_path(arguments: &Arguments, case: Case) -> PathBuf {
    let what = if case.prices() { "priced" } else { "events" };
    let name = format!("{what}-{}.jsonl", arguments.rows);
    arguments.folder.join(name)
}

fn write_events(arguments: &Arguments, case: Case) -> anyhow::Result<()> {
    let path = events_path(arguments, case);
    if path.exists() {
        return Ok(());
    }
    eprintln!("writing {} events to {}", arguments.rows, path.display());
    let unfinished = path.with_extension("part");
    let mut file = BufWriter::new(File::create(&unfinished)?);
    events::write_json_lines(&generator(arguments.rows, case), &mut file)?;
    drop(file);
    fs::rename(&unfinished, &path)?;
    Ok(())
}

fn chosen<T: ValueEnum + Copy>(wanted: &[T]) -> Vec<T> {
    if wanted.is_empty() {
        T::value_variants().to_vec()
    } else {
        wanted.to_vec()
    }
}

/// A line for each case, input and number of cores, with Wasm relative to the
/// others.
fn table(measurements: &[Measurement]) -> anyhow::Result<comfy_table::Table> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "M rows/s",
        "input",
        "cores",
        "hand-written",
        "native operator",
        "wasm",
        "functions",
        "wasm/native",
        "sandbox share",
        "wasm/hand-written",
    ]);
    for wasm in measurements.iter().filter(|m| m.variant == Variant::Wasm) {
        let beside = |variant: Variant, cores: usize| {
            measurements
                .iter()
                .find(|m| {
                    m.variant == variant
                        && m.cores == cores
                        && (m.case, m.input) == (wasm.case, wasm.input)
                })
                .map(|m| m.rows_per_second)
        };
        let native = beside(Variant::NativeOperator, wasm.cores);
        let hand_written = beside(Variant::HandWritten, 1);
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |r| format!("{:.2}", r / 1e6));
        let ratio = |other: Option<f64>| {
            other.map_or("-".to_owned(), |other| {
                format!("{:.2}", wasm.rows_per_second / other)
            })
        };
        table.add_row([
            serde_json::to_value(wasm.case)?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            format!("{:?}", wasm.input).to_lowercase(),
            wasm.cores.to_string(),
            rate(hand_written),
            rate(native),
            rate(Some(wasm.rows_per_second)),
            rate(beside(Variant::Functions, wasm.cores)),
            ratio(native),
            native.map_or("-".to_owned(), |native| {
                format!("{:.0}%", (1.0 - wasm.rows_per_second / native) * 100.0)
            }),
            ratio(hand_written),
        ]);
    }
    Ok(table)
}
