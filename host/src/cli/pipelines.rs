//! `sluicebox pipelines`: lists, shows and steers the pipelines of a running host.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::CliError;
use super::client::{Client, HostArguments};
use super::format::{ago, cut, short, size, span, table, time};
use super::plan::{self, PipelineFile};
use crate::clock::{Clock, SystemClock};
use crate::service::change::ChangePlan;

#[derive(Subcommand)]
pub enum PipelinesCommand {
    /// List the pipelines of a host: phase, rows read, bad rows, how far behind, what is wrong
    List {
        #[command(flatten)]
        host: HostArguments,
    },
    /// Show a pipeline: the rows, rates, watermark and load of each node, its state
    Show {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Write a pipeline's file on the host, unless it has mistakes or loses state
    Put {
        #[command(flatten)]
        file: PipelineFile,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Delete a pipeline's file on the host: it stops at a checkpoint, and keeps its state
    Delete {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Stop a pipeline at a checkpoint until it is started, and wait for that
    Pause {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Start a pipeline that was paused or has failed, or whose change was refused or taken
    /// back
    Start {
        /// The pipeline's name
        pipeline: String,
        /// Start this source, operator or sink without what the checkpoint has of it; may be
        /// repeated
        #[arg(long, value_name = "NODE")]
        drop: Vec<String>,
        /// Go back to this checkpoint (name or number), also if it runs; rows that topics
        /// received since are written again
        #[arg(long, value_name = "CHECKPOINT")]
        from: Option<String>,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Make a checkpoint now, and keep it under a name
    Savepoint {
        /// The pipeline's name
        pipeline: String,
        /// Letters, digits, `-`, `_` and `.`
        name: String,
        /// Delete the savepoint instead
        #[arg(long)]
        delete: bool,
        #[command(flatten)]
        host: HostArguments,
    },
    /// List the checkpoints that a pipeline can go back to
    Checkpoints {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        host: HostArguments,
    },
}

/// How long a pipeline may take to stop or to start before that is told.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A refusal that is still there by then is a new one.
const REFUSED_AFTER: Duration = Duration::from_secs(5);
/// Between the two looks that rates are computed from.
const RATE_OVER: Duration = Duration::from_secs(1);
/// How much of a reason a list shows.
const REASON_CHARS: usize = 80;

/// A pipeline in a list.
#[derive(Deserialize)]
struct Line {
    name: String,
    phase: String,
    since_ms: i64,
    rows_read: u64,
    restarts: u64,
    restarting: Option<Restarting>,
    bad_rows: u64,
    backlog: Option<u64>,
    behind_ms: Option<i64>,
    bottleneck: Option<Bottleneck>,
    checkpoint_ms: Option<i64>,
    failure: Option<String>,
    refusal: Option<String>,
}

/// What is too slow for its rows.
#[derive(Deserialize)]
struct Bottleneck {
    sentence: String,
}

/// A pipeline.
#[derive(Deserialize)]
struct View {
    name: String,
    phase: String,
    since_ms: i64,
    file: PathBuf,
    restarts: u64,
    restarting: Option<Restarting>,
    failure: Option<Failure>,
    refusal: Option<String>,
    revision: Option<Revision>,
}

impl View {
    /// When what runs was started.
    fn started_ms(&self) -> Option<i64> {
        Some(self.revision.as_ref()?.started_ms)
    }
}

#[derive(Deserialize)]
struct Failure {
    message: String,
    advice: String,
}

/// It has failed, and waits before it is restarted.
#[derive(Deserialize)]
struct Restarting {
    at_ms: i64,
    failures: u32,
    failures_max: u32,
    message: String,
}

impl Restarting {
    fn to_text(&self, now_ms: i64) -> String {
        format!(
            "failed ({} of {} times), and restarts in {}: {}",
            self.failures,
            self.failures_max,
            span(self.at_ms.saturating_sub(now_ms).max(0)),
            self.message
        )
    }
}

#[derive(Deserialize)]
struct Revision {
    digest: String,
    started_ms: i64,
    nodes: Vec<Node>,
    bottleneck: Option<Bottleneck>,
    state: Option<State>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    role: String,
    rows_in: u64,
    rows_out: u64,
    late: u64,
    rejected: u64,
    failed: u64,
    backlog: Option<u64>,
    watermark_ms: Option<i64>,
    load: Option<Load>,
    held_back_by: Option<HeldBackBy>,
}

/// The parts of their time in which its tasks work, wait for those behind them, and do neither.
#[derive(Deserialize)]
struct Load {
    busy: f64,
    blocked: f64,
    idle: f64,
}

/// The partition that holds back a watermark.
#[derive(Deserialize)]
struct HeldBackBy {
    partition: String,
    last_row_ms: i64,
}

#[derive(Deserialize)]
struct State {
    memory_bytes: u64,
    memory_bytes_max: u64,
    checkpoint: Option<LastCheckpoint>,
}

#[derive(Deserialize)]
struct LastCheckpoint {
    id: u64,
    bytes: u64,
    completed_ms: i64,
    milliseconds: u64,
}

#[derive(Deserialize)]
struct Checkpoint {
    id: u64,
    name: Option<String>,
    created_ms: i64,
    bytes: u64,
    damage: Option<String>,
}

pub fn pipelines(command: &PipelinesCommand) -> Result<(), CliError> {
    match command {
        PipelinesCommand::List { host } => {
            let client = host.client()?;
            client.show(&client.get(&[], &[])?, list)
        }
        PipelinesCommand::Show { pipeline, host } => show(&host.client()?, pipeline, host.json),
        PipelinesCommand::Put { file, host } => {
            let client = host.client()?;
            let name = file.name()?;
            let answer = file.send(&client, Method::PUT, &[&name])?;
            client.show(&answer, |change: ChangePlan| {
                let shown = plan::to_text(&name, &change);
                format!(
                    "{shown}it takes effect now: `sluicebox changes {name}` tells what becomes of it\n"
                )
            })
        }
        PipelinesCommand::Delete { pipeline, host } => {
            let client = host.client()?;
            client.ask(Method::DELETE, &[pipeline], &[], None)?;
            client.tell(&format!(
                "{pipeline}: its file is deleted; it stops at a checkpoint, and its state stays\n"
            ))
        }
        PipelinesCommand::Pause { pipeline, host } => {
            let client = host.client()?;
            client.post(&[pipeline, "pause"], None)?;
            settle(&client, pipeline, |now| now.phase == "paused")?;
            client.tell(&format!(
                "{pipeline} is paused; `sluicebox pipelines start {pipeline}` starts it again\n"
            ))
        }
        PipelinesCommand::Start {
            pipeline,
            drop,
            from,
            host,
        } => start(&host.client()?, pipeline, drop, from.as_deref()),
        PipelinesCommand::Savepoint {
            pipeline,
            name,
            delete: true,
            host,
        } => {
            let client = host.client()?;
            client.ask(Method::DELETE, &[pipeline, "savepoints", name], &[], None)?;
            client.tell(&format!("{name} of {pipeline} is deleted\n"))
        }
        PipelinesCommand::Savepoint {
            pipeline,
            name,
            delete: false,
            host,
        } => {
            let client = host.client()?;
            let body = json!({ "name": name }).to_string();
            let answer = client.post(&[pipeline, "savepoints"], Some(body))?;
            client.show(&answer, |saved: LastCheckpoint| {
                let size = size(saved.bytes);
                format!("checkpoint {} is saved as {name}: {size}\n", saved.id)
            })
        }
        PipelinesCommand::Checkpoints { pipeline, host } => {
            let client = host.client()?;
            let answer = client.get(&[pipeline, "checkpoints"], &[])?;
            client.show(&answer, checkpoints)
        }
    }
}

fn list(lines: Vec<Line>) -> String {
    if lines.is_empty() {
        return "no pipelines: `sluicebox pipelines put FILE` writes one\n".to_owned();
    }
    let now_ms = SystemClock.now_ms();
    let rows = lines.into_iter().map(|line| {
        let restarting = line.restarting.map(|it| it.to_text(now_ms));
        let wrong = restarting.or(line.failure).or(line.refusal);
        let wrong = wrong.or(line.bottleneck.map(|it| it.sentence));
        vec![
            line.name,
            line.phase,
            span(now_ms.saturating_sub(line.since_ms)),
            line.rows_read.to_string(),
            of_bad(line.bad_rows),
            line.backlog
                .map_or_else(|| "-".to_owned(), |it| it.to_string()),
            line.behind_ms.map_or_else(|| "-".to_owned(), span),
            line.checkpoint_ms
                .map_or_else(|| "-".to_owned(), |made_ms| ago(made_ms, now_ms)),
            of_bad(line.restarts),
            cut(&wrong.unwrap_or_default(), REASON_CHARS),
        ]
    });
    let header = [
        "pipeline",
        "phase",
        "for",
        ">rows read",
        ">bad",
        ">waiting",
        ">behind",
        "checkpoint",
        ">restarts",
        "",
    ];
    table(&header, rows)
}

/// How often something has happened that should not.
fn of_bad(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        count => count.to_string(),
    }
}

fn checkpoints(list: Vec<Checkpoint>) -> String {
    if list.is_empty() {
        return "no checkpoints yet\n".to_owned();
    }
    let now_ms = SystemClock.now_ms();
    let rows = list.into_iter().map(|made| {
        vec![
            made.id.to_string(),
            made.name.unwrap_or_else(|| "-".to_owned()),
            ago(made.created_ms, now_ms),
            size(made.bytes),
            made.damage
                .map_or_else(String::new, |damage| format!("not usable: {damage}")),
        ]
    });
    table(&[">id", "name", "made", ">size", ""], rows)
}

fn show(client: &Client, pipeline: &str, is_json: bool) -> Result<(), CliError> {
    let answer = client.get(&[pipeline], &[])?;
    let first: View = answer.read()?;
    let runs = ["running", "probation"].contains(&first.phase.as_str());
    if is_json || !runs {
        return client.show(&answer, |view: View| to_text(&view, &[]));
    }
    let before = Instant::now();
    std::thread::sleep(RATE_OVER);
    let second: View = client.get(&[pipeline], &[])?.read()?;
    let rates = rates(&first, &second, before.elapsed());
    super::print(&to_text(&second, &rates))
}

/// What a node does in a second.
struct Rate {
    rows_in: f64,
    rows_out: f64,
}

/// By node; empty where another revision runs since the first look.
fn rates(first: &View, second: &View, passed: Duration) -> Vec<Rate> {
    let (Some(first), Some(second)) = (&first.revision, &second.revision) else {
        return Vec::new();
    };
    if first.started_ms != second.started_ms || first.nodes.len() != second.nodes.len() {
        return Vec::new();
    }
    let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / passed.as_secs_f64();
    let nodes = first.nodes.iter().zip(&second.nodes);
    let rated = nodes.map(|(then, now)| Rate {
        rows_in: rate(then.rows_in, now.rows_in),
        rows_out: rate(then.rows_out, now.rows_out),
    });
    rated.collect()
}

fn to_text(view: &View, rates: &[Rate]) -> String {
    let now_ms = SystemClock.now_ms();
    let mut text = format!(
        "{}: {} for {}\n",
        view.name,
        view.phase,
        span(now_ms.saturating_sub(view.since_ms))
    );
    if let Some(restarting) = &view.restarting {
        text += &format!("  {}\n", restarting.to_text(now_ms));
    }
    if let Some(failure) = &view.failure {
        text += &format!("  failed: {}\n  {}\n", failure.message, failure.advice);
    }
    if let Some(refusal) = &view.refusal {
        text += &format!("  its newest content does not run: {refusal}\n");
    }
    text += &format!("  file     {}\n", view.file.display());
    if view.restarts > 0 {
        let restarts = view.restarts;
        text += &format!("  restarts {restarts} since the host was started\n");
    }
    let Some(revision) = &view.revision else {
        return text + "  it has not run since the host was started\n";
    };
    let since = ago(revision.started_ms, now_ms);
    text += &format!("  content  {}, started {since}\n", revision.digest);
    if let Some(state) = &revision.state {
        text += &format!(
            "  state    in memory {} of {}",
            size(state.memory_bytes),
            size(state.memory_bytes_max)
        );
        if let Some(last) = &state.checkpoint {
            let (bytes, ms) = (size(last.bytes), last.milliseconds);
            let made = ago(last.completed_ms, now_ms);
            text += &format!("; checkpoint {}: {bytes} in {ms} ms, {made}", last.id);
        }
        text.push('\n');
    }
    let header = [
        "node",
        "role",
        ">in",
        ">in/s",
        ">out",
        ">out/s",
        ">busy",
        ">blocked",
        ">idle",
        "watermark",
        ">behind",
        ">late",
        ">rejected",
        ">failed",
    ];
    let rows = revision.nodes.iter().enumerate();
    let rows = rows.map(|(at, node)| node_row(node, rates.get(at), now_ms));
    text += &format!("\n{}", table(&header, rows));
    if let Some(bottleneck) = &revision.bottleneck {
        text += &format!("{}\n", bottleneck.sentence);
    }
    // Sinks have what all sources before them have.
    let sources = revision.nodes.iter().filter(|node| node.role == "source");
    for node in sources {
        if let Some(backlog) = node.backlog {
            text += &format!("{backlog} messages wait for {}\n", node.name);
        }
        if let Some(HeldBackBy {
            partition,
            last_row_ms,
        }) = &node.held_back_by
        {
            let last = ago(*last_row_ms, now_ms);
            text += &format!(
                "the watermark of {} is that of its partition {partition}, whose last row came {last}\n",
                node.name
            );
        }
    }
    text
}

fn node_row(node: &Node, rate: Option<&Rate>, now_ms: i64) -> Vec<String> {
    let absent = || "-".to_owned();
    let (is_sink, is_operator) = (node.role == "sink", node.role == "operator");
    let rate_of = |part: fn(&Rate) -> f64| rate.map_or_else(absent, |rate| short(part(rate)));
    let part_of = |part: fn(&Load) -> f64| {
        let load = node.load.as_ref();
        load.map_or_else(absent, |load| format!("{:.0}%", part(load) * 100.0))
    };
    vec![
        node.name.clone(),
        node.role.clone(),
        node.rows_in.to_string(),
        rate_of(|rate| rate.rows_in),
        match is_sink {
            true => absent(),
            false => node.rows_out.to_string(),
        },
        match is_sink {
            true => absent(),
            false => rate_of(|rate| rate.rows_out),
        },
        match is_operator {
            true => part_of(|load| load.busy),
            false => absent(),
        },
        match is_sink {
            true => absent(),
            false => part_of(|load| load.blocked),
        },
        match is_operator {
            true => part_of(|load| load.idle),
            false => absent(),
        },
        node.watermark_ms.map_or_else(absent, time),
        node.watermark_ms
            .map_or_else(absent, |ms| span(now_ms.saturating_sub(ms))),
        of_bad(node.late),
        of_bad(node.rejected),
        of_bad(node.failed),
    ]
}

fn start(
    client: &Client,
    pipeline: &str,
    drop: &[String],
    from: Option<&str>,
) -> Result<(), CliError> {
    let before: View = client.get(&[pipeline], &[])?.read()?;
    let mut body = json!({ "drop": drop });
    if let Some(from) = from {
        body["from"] = json!(from);
    }
    client.post(&[pipeline, "start"], Some(body.to_string()))?;
    let asked = Instant::now();
    // A content that is refused again changes nothing where another one runs.
    let is_refused = |now: &View| now.refusal.is_some() && asked.elapsed() > REFUSED_AFTER;
    let is_settled = |now: &View| {
        let is_moving = ["planning", "starting"].contains(&now.phase.as_str());
        // One that waits for a restart is in the phase from before when that is over.
        let waits = before.restarting.is_some()
            && now.started_ms() == before.started_ms()
            && now.failure.is_none();
        let has_moved = !waits && now.since_ms != before.since_ms;
        !is_moving && (has_moved || is_refused(now))
    };
    let now = settle(client, pipeline, is_settled)?;
    if let Some(restarting) = &now.restarting {
        let why = restarting.to_text(SystemClock.now_ms());
        return Err(CliError::Failed(anyhow!("{pipeline} has {why}")));
    }
    match now.failure.filter(|_| now.phase == "failed") {
        Some(failure) => Err(CliError::Failed(anyhow!(
            "{pipeline} has failed: {}\n  {}",
            failure.message,
            failure.advice
        ))),
        None if now.refusal.is_some() => Err(CliError::Failed(anyhow!(
            "{pipeline} is in the phase `{}`, and its newest content does not run: {}",
            now.phase,
            now.refusal.unwrap_or_default()
        ))),
        None => client.tell(&format!("{pipeline} is in the phase `{}`\n", now.phase)),
    }
}

/// Waits until this holds of a pipeline.
fn settle(
    client: &Client,
    pipeline: &str,
    holds: impl Fn(&View) -> bool,
) -> Result<View, CliError> {
    let until = Instant::now() + SETTLE_MAX;
    loop {
        let now: View = client.get(&[pipeline], &[])?.read()?;
        if holds(&now) {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(CliError::Failed(anyhow!(
                "{pipeline} is still in the phase `{}` after {}; what was asked for is still \
                 wanted: `sluicebox pipelines show {pipeline}`",
                now.phase,
                span(SETTLE_MAX.as_millis() as i64)
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
