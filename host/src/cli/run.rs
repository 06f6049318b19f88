//! `sluicebox run`: runs a pipeline until it ends.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::MultiProgress;

use super::signals::{self, Signals};
use super::status::{Status, StatusStyle, print_failure};
use super::{CliError, load, loader};
use crate::clock::SystemClock;
use crate::descriptors::{self, check_standard};
use crate::paths::is_standard_output;
use crate::plan::{Node, NodeKind, Plan};
use crate::run::{Durable, Job, Pipeline, RunError};
use crate::stop::Stop;

#[derive(Args)]
pub struct RunArguments {
    /// The pipeline's TOML file
    pipeline: PathBuf,
    /// Go on from this checkpoint (name or number) instead of the last one;
    /// rows that topics received since are written again
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<String>,
    /// Start this source, operator or sink without what the checkpoint has of it,
    /// or forget it if the pipeline does not have it any more; SOURCE/FILE is one file
    /// of a source, or those that a pattern with `*` matches; may be repeated
    #[arg(long, value_name = "NAME")]
    drop: Vec<String>,
    /// Start anew: delete the pipeline's checkpoints and savepoints, with their
    /// state and their copies, and read its inputs from the beginning. Outputs
    /// that are there are treated as their sinks say
    #[arg(long, conflicts_with_all = ["from", "drop"])]
    fresh: bool,
    /// Print no progress, only errors
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print progress every second and the summary as JSON lines on stdout; the
    /// run goes on if nobody reads them
    #[arg(long)]
    json: bool,
}

pub fn run(
    arguments: &RunArguments,
    live_lines: &MultiProgress,
    signals: Signals,
) -> Result<(), CliError> {
    let cannot_start = |cause: std::io::Error| {
        CliError::Failed(anyhow::anyhow!(
            "the run's threads cannot be started: {cause}"
        ))
    };
    let plan = load(&arguments.pipeline, &loader()?)?;
    if arguments.json {
        check_stdout(&plan)?;
    }
    let style = match (arguments.json, arguments.quiet) {
        (true, _) => StatusStyle::Json,
        (_, true) => StatusStyle::Quiet,
        _ => StatusStyle::People,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(cannot_start)?;
    runtime.block_on(async {
        let plan = Arc::new(plan);
        let pipeline = Pipeline::of(&plan, Arc::new(SystemClock));
        let mut job = Job::revision(&pipeline, plan.clone());
        let stop = job.stop();
        take_signals(&signals, stop.clone());
        if let Some(few) = descriptors::few() {
            tracing::warn!("{few}");
        }
        let durable = Durable::open_again(&plan, &stop).await.map_err(|error| {
            if arguments.json {
                print_failure(&error);
            }
            CliError::Run(error)
        })?;
        let wants_checkpoint = arguments.from.is_some() || !arguments.drop.is_empty();
        match durable {
            Some(durable) => {
                job = job.keeping(durable).dropping(&arguments.drop);
                if let Some(from) = &arguments.from {
                    job = job.starting_from(from);
                }
                if arguments.fresh {
                    job = job.starting_fresh();
                }
            }
            None if wants_checkpoint => {
                return Err(CliError::Usage(anyhow::anyhow!(
                    "there is no checkpoint to start from or drop from: {} has no [checkpoints]",
                    arguments.pipeline.display()
                )));
            }
            None => {}
        }
        let status = Status::start(style, live_lines, job.progress(), job.state());
        let ended = job.run().await;
        let shown = status.end(ended.as_ref());
        let summary = ended.map_err(|error| match error {
            RunError::Usage(why) => CliError::Usage(anyhow::anyhow!(why)),
            error => CliError::Run(error),
        })?;
        shown.map_err(|cause| {
            CliError::Failed(anyhow::anyhow!(
                "the run has ended well, and its summary cannot be printed to standard output: \
                 {cause}"
            ))
        })?;
        match summary.rows_all_bad() {
            Some(rows) if !summary.stopped => Err(CliError::AllBad { rows }),
            _ => Ok(()),
        }
    })
}

/// The first signal stops the run, the second ends it at once.
fn take_signals(signals: &Signals, stop: Stop) {
    signals.take(move |number| {
        if !stop.asked() {
            stop.ask();
            signals::log("stopping: finishing rows in progress; a second signal quits at once");
        } else if number != libc::SIGHUP {
            // A closed terminal tells the run twice, by itself and by the shell; any
            // other comes from somebody who does not want to wait.
            std::process::exit(128 + number);
        }
    });
}

/// Refuses what `--json` cannot be printed to, and a sink or dead letters that are written
/// there too: the lines would be mixed.
fn check_stdout(plan: &Plan) -> Result<(), CliError> {
    check_standard(1).map_err(|cause| CliError::Failed(cause.into()))?;
    let writes_there = |node: &&Node| match &node.kind {
        NodeKind::Sink(sink) => sink.connector.writes_stdout(),
        _ => false,
    };
    let letters = plan.dead_letters.as_deref();
    let (what, advice) = match plan.nodes.iter().find(writes_there) {
        None if letters.is_some_and(is_standard_output) => (
            "the dead letters go there too".to_owned(),
            "Give them a file (`dead_letters = \"…\"`)",
        ),
        None => return Ok(()),
        Some(sink) => (
            format!("sink `{}` writes its rows there too", sink.name),
            "Have it write to a file (`type = \"file\"` with a `path`)",
        ),
    };
    Err(CliError::Usage(anyhow::anyhow!(
        "`--json` prints progress to standard output, and {what}. {advice}, or run without `--json`"
    )))
}
