//! The command line: what each command takes and does. Exit codes: 0 done,
//! 1 a run or test failed, 2 wrong usage or config.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, Diagnostics, Look};
use crate::plan::Plan;
use crate::plan::draw::draw;
use crate::plan::json::to_json;
use crate::planner;
use crate::plugin::PluginLoader;

/// `sluicebox build`: a plugin's crate into a component.
pub mod build;
/// `sluicebox checkpoints`: what a pipeline can go on from.
pub mod checkpoints;
/// `sluicebox new`: plugins and pipelines to start from.
pub mod new;
/// `sluicebox run`.
pub mod run;
/// What people see of a run while it goes on, and at its end.
pub mod status;
/// `sluicebox test`: input rows, and the rows expected of them.
pub mod test;

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
    /// Build the plugin of a crate, and put its .wasm beside its Cargo.toml
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        path: PathBuf,
    },
    /// List, show, verify, save and drop a pipeline's checkpoints
    #[command(subcommand)]
    Checkpoints(checkpoints::CheckpointsCommand),
    /// Test a pipeline: input rows, and the rows expected of them
    Test(test::TestArguments),
    /// Start a plugin or a pipeline
    #[command(subcommand)]
    New(New),
    /// Show what a plugin holds: operators, schemas, parameters, imports
    Inspect {
        /// The plugin's .wasm file
        plugin: PathBuf,
        /// The same as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum New {
    /// A crate with a filter, a map and an aggregate, their tests and a pipeline
    Plugin {
        name: String,
        /// Where; a folder of its name by default
        #[arg(long)]
        path: Option<PathBuf>,
        /// The folder of the sluicebox-sdk crate, to use it from there
        #[arg(long)]
        sdk: Option<PathBuf>,
    },
    /// A pipeline on generated events, to be changed
    Pipeline {
        name: String,
        /// Where; a folder of its name by default
        #[arg(long)]
        path: Option<PathBuf>,
    },
}

/// A command that did not do what it was asked to.
pub enum Trouble {
    /// Wrong usage.
    Usage(anyhow::Error),
    /// A pipeline's file is wrong.
    Config(Diagnostics),
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
        Command::Build { path } => build(&path),
        Command::Checkpoints(command) => checkpoints::checkpoints(&command),
        Command::Test(arguments) => test::test(&arguments),
        Command::New(New::Plugin { name, path, sdk }) => {
            created(new::plugin(&name, path.as_deref(), sdk.as_deref()))
        }
        Command::New(New::Pipeline { name, path }) => {
            created(new::pipeline(&name, path.as_deref()))
        }
        Command::Inspect { plugin, json } => inspect(&plugin, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Failed(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
        Err(Trouble::Usage(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
        Err(Trouble::Config(mistakes)) => {
            eprint!("{}", mistakes.render(Look::for_stderr()));
            ExitCode::from(2)
        }
    }
}

fn check(pipeline: &Path, json: bool) -> Result<(), Trouble> {
    let plan = load(pipeline, &loader()?)?;
    if json {
        print_json(&to_json(&plan))
    } else {
        print(&draw(&plan))
    }
}

fn build(path: &Path) -> Result<(), Trouble> {
    let built = build::build(path, &loader()?).map_err(|error| Trouble::Failed(error.into()))?;
    print(&format!("{built}\n"))
}

fn created(created: Result<new::Created, new::NewError>) -> Result<(), Trouble> {
    let created = created.map_err(|error| Trouble::Usage(error.into()))?;
    print(&format!("{created}\n"))
}

fn inspect(plugin: &Path, json: bool) -> Result<(), Trouble> {
    let plugin = loader()?
        .plugin(plugin)
        .map_err(|error| Trouble::Usage(error.into()))?;
    let inspection = plugin.inspect();
    if json {
        print_json(&inspection)
    } else {
        print(&format!("{}\n", inspection.to_text()))
    }
}

/// Reads and checks a pipeline's file.
fn load(pipeline: &Path, loader: &PluginLoader) -> Result<Plan, Trouble> {
    let config = Config::read(pipeline).map_err(Trouble::Config)?;
    let folder = pipeline.parent().unwrap_or(Path::new("."));
    let plan = planner::build(&config, folder, loader).map_err(Trouble::Config)?;
    let warnings = planner::warnings(&config, &plan);
    if !warnings.is_empty() {
        eprint!("{}", warnings.render(Look::for_stderr()));
    }
    Ok(plan)
}

fn loader() -> Result<PluginLoader, Trouble> {
    PluginLoader::new().map_err(|error| Trouble::Failed(error.into()))
}

/// To stdout. That nobody reads on, as behind `| head`, is no failure.
fn print(text: &str) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble::Failed(error.into())),
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Trouble> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Trouble::Failed(error.into()))?;
    print(&format!("{text}\n"))
}

/// Plugins and the host log to stderr, at `SLUICEBOX_LOG`: a level, or levels by
/// module (`info,sluicebox::run=debug`). Default `info`.
fn start_logging() {
    let wanted = std::env::var("SLUICEBOX_LOG").unwrap_or_default();
    let levels: Result<Targets, _> = wanted.parse();
    let is_wrong = levels.is_err();
    let levels = levels.ok().filter(|_| !wanted.is_empty());
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(status::LogWriter)
        .with_target(false)
        .with_filter(levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)));
    tracing_subscriber::registry().with(to_stderr).init();
    if is_wrong {
        tracing::warn!(
            "SLUICEBOX_LOG is {wanted:?}, which names no level: take one of error, warn, info, \
             debug and trace"
        );
    }
}
