//! `sluicebox run`: a pipeline from its file to its end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::status::{Status, StatusStyle};
use super::{Trouble, load, loader};
use crate::clock::SystemClock;
use crate::run::{Durable, Job};

#[derive(Args)]
pub struct RunArguments {
    /// The pipeline's TOML file
    pipeline: PathBuf,
    /// Go on from this checkpoint, by its name or number, and not from the last
    /// one: rows that topics and folders have got since come again
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<String>,
    /// Show no progress, only errors
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Progress every second and the summary, as JSON lines on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &RunArguments) -> Result<(), Trouble> {
    let plan = load(&arguments.pipeline, &loader()?)?;
    let style = match (arguments.json, arguments.quiet) {
        (true, _) => StatusStyle::Json,
        (_, true) => StatusStyle::Quiet,
        _ => StatusStyle::People,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Failed(error.into()))?;
    runtime.block_on(async {
        let durable = Durable::open(&plan).map_err(|error| Trouble::Failed(error.into()))?;
        let mut job = Job::new(plan, Arc::new(SystemClock));
        match (durable, &arguments.from) {
            (Some(durable), from) => {
                job = job.keeping(durable);
                if let Some(from) = from {
                    job = job.starting_from(from);
                }
            }
            (None, Some(_)) => {
                return Err(Trouble::Usage(anyhow::anyhow!(
                    "there is nothing to start from: {} has no [checkpoints]",
                    arguments.pipeline.display()
                )));
            }
            (None, None) => {}
        }
        let status = Status::start(style, job.progress(), job.state());
        let stop = job.stop();
        tokio::spawn(async move {
            // Whoever asks twice does not want to wait.
            if tokio::signal::ctrl_c().await.is_ok() {
                tracing::info!(
                    "stopping: what is under way is finished; once more to quit at once"
                );
                stop.ask();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
        let ended = job.run().await;
        status.end(ended.as_ref().ok());
        ended
            .map(drop)
            .map_err(|error| Trouble::Failed(error.into()))
    })
}
