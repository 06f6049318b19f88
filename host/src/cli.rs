//! The command line: what each command takes and does. Exit codes: 0 done,
//! 1 a run or test failed, 2 wrong usage or config.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::plan::Plan;
use crate::plugin::WasmLoader;

/// `sluicebox build`: a plugin's crate into a component.
pub mod build;
/// `sluicebox new`: plugins and pipelines to start from.
pub mod new;
/// `sluicebox run`.
pub mod run;
/// What people see of a run while it goes on, and at its end.
pub mod status;

/// Streaming pipelines whose operators are WebAssembly plugins.
#[derive(Parser)]
#[command(name = "sluicebox", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline until its inputs end or Ctrl-C
    Run(run::RunArguments),
    /// Check a pipeline and draw its plan, with the types on each edge
    Check {
        /// The pipeline's TOML file
        pipeline: PathBuf,
        /// The plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin holds: operators, schemas, parameters, imports
    Inspect {
        /// The plugin's .wasm file
        plugin: PathBuf,
        /// The same as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A command that did not do what it was asked to.
pub enum Trouble {
    /// Wrong usage or config, already worded for people.
    Usage(anyhow::Error),
    /// It was tried and failed.
    Failed(anyhow::Error),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    let done = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check { pipeline, json } => check(&pipeline, json),
        Command::Inspect { plugin, json } => inspect(&plugin, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Failed(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
        Err(Trouble::Usage(error)) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(_pipeline: &Path, _json: bool) -> Result<(), Trouble> {
    todo!()
}

fn inspect(_plugin: &Path, _json: bool) -> Result<(), Trouble> {
    todo!()
}

/// Reads and checks a pipeline file.
pub fn load(_pipeline: &Path) -> Result<Plan, Trouble> {
    let _ = WasmLoader::new;
    let _: Option<Config> = None;
    todo!()
}

/// Plugins and the host log to stderr, at `SLUICEBOX_LOG` (default `info`).
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICEBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(status::LogWriter)
        .with_target(false)
        .init();
}
