//! The command line: which commands there are, and what each one does. Exit
//! codes: 0 success, 1 a run or test failed, 2 wrong usage or config, 3 a run ended
//! well but every row that it read was bad, 141 nobody reads the rows that a run prints.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::MultiProgress;
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::signals::Signals;
use self::status::LogStyle;
use self::traces::Traces;
use crate::config::diagnostics::shorten;
use crate::config::{Config, Diagnostics};
use crate::descriptors;
use crate::plan::draw::draw;
use crate::plan::json::to_json;
use crate::plan::{NodeKind, Plan};
use crate::planner;
use crate::plugin::PluginLoader;
use crate::run::RunError;

/// `sluicebox build`: builds a plugin's crate into a component.
pub mod build;
/// `sluicebox dev`: has a pipeline follow what its authors write.
pub mod dev;
/// `sluicebox changes`: what became of the changes of a pipeline.
pub mod changes;
/// `sluicebox checkpoints`: lists, checks, saves and deletes checkpoints.
pub mod checkpoints;
/// Asks a running host.
pub mod client;
/// Tables, sizes and times for people.
mod format;
/// `sluicebox letters`: lists, replays and drops dead letters.
pub mod letters;
/// `sluicebox new`: creates plugins and pipelines to start from.
pub mod new;
/// `sluicebox pipelines`: lists, shows and steers pipelines of a host.
pub mod pipelines;
/// `sluicebox plan`: what a file would change on a host.
pub mod plan;
/// `sluicebox plugins`: the plugins that a host keeps.
pub mod plugins;
/// Prints to stdout and stderr.
mod print;
/// `sluicebox run`.
pub mod run;
/// `sluicebox serve`.
pub mod serve;
/// The signals that end a command.
mod signals;
/// `sluicebox state`: shows what an operator keeps.
pub mod state;
/// Shows the progress of a run, and its summary.
pub mod status;
/// `sluicebox tail`: shows rows as they leave a node.
pub mod tail;
/// `sluicebox token`: makes the tokens of a service.
pub mod token;
/// Sends spans to a collector.
mod traces;
/// `sluicebox test`: compares a pipeline's rows with the expected ones.
pub mod test;

/// Streaming pipelines whose operators are WebAssembly plugins.
#[derive(Parser)]
#[command(name = "sluicebox", version, about, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline until its inputs end or Ctrl-C
    Run(run::RunArguments),
    /// Run a pipeline while you write it and its plugins: each save is built, and takes over
    /// with the state
    Dev(dev::DevArguments),
    /// Run the pipelines of a folder as a service, and take changes of them
    Serve(serve::ServeArguments),
    /// List, show, put, pause and start the pipelines of a running service
    #[command(subcommand)]
    Pipelines(pipelines::PipelinesCommand),
    /// List, show, put and delete the plugins that a running service keeps
    #[command(subcommand)]
    Plugins(plugins::PluginsCommand),
    /// Show what a pipeline's file would change in a running service
    Plan(plan::PlanArguments),
    /// Show what became of the changes of a pipeline in a running service
    Changes(changes::ChangesArguments),
    /// Show what an operator keeps in a running service, of a key or of all
    State(state::StateArguments),
    /// Show rows of a running service as they leave a node
    Tail(tail::TailArguments),
    /// List, replay and drop dead letters of a running service
    #[command(subcommand)]
    Letters(letters::LettersCommand),
    /// Check a pipeline and draw its plan, with the types on each edge
    Check {
        /// The pipeline's TOML file
        pipeline: PathBuf,
        /// Print the plan as JSON
        #[arg(long)]
        json: bool,
        /// Print the SQL statements that make the tables which its sinks write
        #[arg(long, conflicts_with = "json")]
        ddl: bool,
    },
    /// Let go of what servers keep for the sources of a pipeline that is not run any more:
    /// replication slots, which keep a server's log
    Release {
        /// The pipeline's TOML file
        pipeline: PathBuf,
    },
    /// Build the plugin of a crate, and put its .wasm beside its Cargo.toml
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        path: PathBuf,
    },
    /// List, show, verify, save and delete a pipeline's checkpoints
    #[command(subcommand)]
    Checkpoints(checkpoints::CheckpointsCommand),
    /// Test a pipeline: run it on input rows and compare the results with
    /// expected rows
    Test(test::TestArguments),
    /// Make, list and remove the tokens by which a service is used
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Create a plugin or a pipeline
    #[command(subcommand)]
    New(New),
    /// Show a plugin's operators, schemas, parameters, exports and imports
    Inspect {
        /// The plugin's .wasm file
        plugin: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum New {
    /// Create a crate with operators to start from, their tests and a pipeline
    Plugin {
        name: String,
        /// Which operators it starts with
        #[arg(long, value_enum, default_value_t)]
        kind: new::PluginKind,
        /// Folder to create; by default named after the plugin
        #[arg(long)]
        path: Option<PathBuf>,
        /// Folder of a sluicebox-sdk crate to depend on, instead of the copy that
        /// the plugin gets
        #[arg(long)]
        sdk: Option<PathBuf>,
    },
    /// Create a pipeline on generated events, to be adapted
    Pipeline {
        name: String,
        /// Folder to create; by default named after the pipeline
        #[arg(long)]
        path: Option<PathBuf>,
    },
}

/// Why a command failed.
pub enum CliError {
    /// Wrong usage.
    Usage(anyhow::Error),
    /// The pipeline's file has mistakes.
    Config(Diagnostics),
    /// The command was tried and failed.
    Failed(anyhow::Error),
    /// A run failed.
    Run(RunError),
    /// A run ended well, and every row of this many that it read was bad.
    AllBad { rows: u64 },
}

/// The exit code of tools that the signal SIGPIPE ends, as shells show it.
const READER_IS_GONE: u8 = 141;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match CommandLine::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => return tell(&answer),
    };
    descriptors::raise_limit();
    let live_lines = MultiProgress::new();
    let levels = Targets::new().with_default(LevelFilter::INFO);
    let begun = begin(&arguments.command);
    start_logging(
        &live_lines,
        match &arguments.command {
            // It prints these news itself.
            Command::Dev(_) => levels.with_target(dev::TOLD, LevelFilter::OFF),
            // Of a dozen runs, whose report is what counts.
            Command::Test(_) => levels.with_default(LevelFilter::OFF),
            _ => levels,
        },
        begun.as_ref().ok().and_then(|(_, traces)| traces.as_ref()),
    );
    // Spans are sent until the end.
    let (done, _traces) = match begun {
        Ok((signals, traces)) => (carry_out(arguments.command, signals, &live_lines), traces),
        Err(error) => (Err(error), None),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Failed(error)) => {
            print::error(advised(format!("{error:#}")));
            ExitCode::from(1)
        }
        Err(CliError::Run(error)) if error.reader_is_gone() => {
            tracing::info!("{error}: the run ends");
            ExitCode::from(READER_IS_GONE)
        }
        Err(CliError::Run(error)) => {
            let advice = error.fault().advice();
            print::error(advised(format!("{error}\n  {advice}")));
            ExitCode::from(1)
        }
        Err(CliError::AllBad { rows }) => {
            let line = match rows {
                1 => "the only row that was read was bad: it cannot be decoded, or a plugin \
                      rejected it or failed"
                    .to_owned(),
                rows => format!(
                    "all {rows} rows that were read were bad: they cannot be decoded, or the \
                     plugins rejected them or failed"
                ),
            };
            print::error(format_args!("{line}"));
            ExitCode::from(3)
        }
        Err(CliError::Usage(error)) => {
            let mut message = format!("{error:#}");
            shorten(&mut message);
            print::error(advised(message));
            ExitCode::from(2)
        }
        Err(CliError::Config(mistakes)) => {
            print::diagnostics(&mistakes);
            ExitCode::from(2)
        }
    }
}

/// Has those commands take signals that run for long, and send spans if somebody wants them.
/// In this order: all threads are to leave signals alone.
fn begin(command: &Command) -> Result<(Signals, Option<Traces>), CliError> {
    if !matches!(
        command,
        Command::Run(_) | Command::Serve(_) | Command::Dev(_)
    ) {
        return Ok((Signals::default(), None));
    }
    let cannot_start = |cause| {
        CliError::Failed(anyhow::anyhow!(
            "the threads of this process cannot be started: {cause}"
        ))
    };
    let signals = Signals::start().map_err(cannot_start)?;
    let traces = Traces::of_environment().map_err(|error| {
        CliError::Usage(anyhow::anyhow!(
            "traces cannot be sent as OTEL_EXPORTER_OTLP_ENDPOINT and the variables beside it \
             say: {error}"
        ))
    })?;
    Ok((signals, traces))
}

fn carry_out(
    command: Command,
    signals: Signals,
    live_lines: &MultiProgress,
) -> Result<(), CliError> {
    match command {
        Command::Run(arguments) => run::run(&arguments, live_lines, signals),
        Command::Dev(arguments) => dev::dev(&arguments, signals),
        Command::Serve(arguments) => serve::serve(arguments, signals),
        Command::Pipelines(command) => pipelines::pipelines(&command),
        Command::Plugins(command) => plugins::plugins(&command),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Changes(arguments) => changes::changes(&arguments),
        Command::State(arguments) => state::state(&arguments),
        Command::Tail(arguments) => tail::tail(&arguments),
        Command::Letters(command) => letters::letters(&command),
        Command::Check {
            pipeline,
            json,
            ddl,
        } => check(&pipeline, json, ddl),
        Command::Release { pipeline } => release(&pipeline),
        Command::Build { path } => build(&path),
        Command::Checkpoints(command) => checkpoints::checkpoints(&command),
        Command::Test(arguments) => test::test(&arguments),
        Command::Token(command) => token::token(&command),
        Command::New(New::Plugin {
            name,
            kind,
            path,
            sdk,
        }) => created(new::plugin(&name, kind, path.as_deref(), sdk.as_deref())),
        Command::New(New::Pipeline { name, path }) => {
            created(new::pipeline(&name, path.as_deref()))
        }
        Command::Inspect { plugin, json } => inspect(&plugin, json),
    }
}

/// An error with what to do where it comes of too few descriptors, whatever failed.
fn advised(error: String) -> String {
    match descriptors::advice(&error) {
        Some(advice) => format!("{error}\n  {advice}"),
        None => error,
    }
}

/// Prints what the command line is answered with: the help, the version or a mistake.
fn tell(answer: &clap::Error) -> ExitCode {
    match print::answer(answer) {
        Ok(()) if answer.use_stderr() => ExitCode::from(2),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(format_args!("cannot print to standard output: {error}"));
            ExitCode::from(1)
        }
    }
}

fn check(pipeline: &Path, json: bool, ddl: bool) -> Result<(), CliError> {
    let plan = load(pipeline, &loader()?)?;
    if json {
        print_json(&to_json(&plan))
    } else if ddl {
        print(&statements(&plan))
    } else {
        print(&draw(&plan))
    }
}

/// Has all sources let go of what their servers keep.
fn release(pipeline: &Path) -> Result<(), CliError> {
    let plan = load(pipeline, &loader()?)?;
    let mut told = String::new();
    for node in &plan.nodes {
        if let NodeKind::Source(source) = &node.kind {
            let name = &node.name;
            let released = source.connector.release();
            let released = released
                .map_err(|why| CliError::Failed(anyhow::anyhow!("source `{name}`: {why}")))?;
            for what in released {
                told.push_str(&format!("source `{name}`: {what} is dropped\n"));
            }
        }
    }
    match told.is_empty() {
        true => print("nothing is kept for its sources\n"),
        false => print(&told),
    }
}

/// The statements that make what the sinks write, each once.
fn statements(plan: &Plan) -> String {
    let delivery = plan.state.as_ref().map(|state| state.delivery);
    let mut all: Vec<String> = Vec::new();
    for node in &plan.nodes {
        if let NodeKind::Sink(sink) = &node.kind {
            for statement in sink.connector.ddl(delivery) {
                if !all.contains(&statement) {
                    all.push(statement);
                }
            }
        }
    }
    match all.is_empty() {
        true => "-- no sink writes a table\n".to_owned(),
        false => all.join("\n\n") + "\n",
    }
}

fn build(path: &Path) -> Result<(), CliError> {
    let built = build::build(path, &loader()?).map_err(|error| match error.is_wrong_usage() {
        true => CliError::Usage(error.into()),
        false => CliError::Failed(error.into()),
    })?;
    print(&format!("{built}\n"))
}

fn created(created: Result<new::Created, new::NewError>) -> Result<(), CliError> {
    let created = created.map_err(|error| CliError::Usage(error.into()))?;
    print(&format!("{created}\n"))
}

fn inspect(plugin: &Path, json: bool) -> Result<(), CliError> {
    let plugin = loader()?
        .plugin(plugin)
        .map_err(|error| CliError::Usage(error.into()))?;
    let inspection = plugin.inspect();
    if json {
        print_json(&inspection)
    } else {
        print(&format!("{}\n", inspection.to_text()))
    }
}

/// Reads and plans a pipeline's file.
fn load(pipeline: &Path, loader: &PluginLoader) -> Result<Plan, CliError> {
    let config = Config::read(pipeline).map_err(CliError::Config)?;
    let folder = pipeline.parent().unwrap_or(Path::new("."));
    let plan = planner::build(&config, folder, loader).map_err(CliError::Config)?;
    let warnings = planner::warnings(&config, &plan);
    if !warnings.is_empty() {
        print::diagnostics(&warnings);
    }
    Ok(plan)
}

fn loader() -> Result<PluginLoader, CliError> {
    let loader = PluginLoader::new().map_err(|error| CliError::Failed(error.into()))?;
    Ok(loader.with_user_cache())
}

fn print(text: &str) -> Result<(), CliError> {
    print::stdout(text).map_err(|error| CliError::Failed(error.into()))
}

fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    print::json(value, true).map_err(|error| CliError::Failed(error.into()))
}

/// Plugins and the host log to stderr, as `SLUICEBOX_LOG` says: a level, or
/// levels by module (`info,sluicebox::run=debug`), or else by `default`; as text, or as
/// objects where `SLUICEBOX_LOG_FORMAT` is `json`. Spans go to `traces`.
fn start_logging(live_lines: &MultiProgress, default: Targets, traces: Option<&Traces>) {
    let wanted = std::env::var("SLUICEBOX_LOG").unwrap_or_default();
    let levels: Result<Targets, _> = wanted.parse();
    let is_wrong = levels.is_err();
    let levels = levels.ok().filter(|_| !wanted.is_empty());
    let format = std::env::var("SLUICEBOX_LOG_FORMAT").unwrap_or_default();
    let has_colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = match (format.as_str(), has_colours) {
        ("json", _) => LogStyle::Json,
        (_, true) => LogStyle::ColouredText,
        (_, false) => LogStyle::Text,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(status::LogWriter::above(live_lines, style))
        .with_ansi(style == LogStyle::ColouredText)
        // They would be printed to stderr, which is what has failed.
        .log_internal_errors(false);
    let lines = match style {
        LogStyle::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
        LogStyle::Text | LogStyle::ColouredText => lines.with_target(false).boxed(),
    };
    let to_stderr = lines.with_filter(levels.unwrap_or(default));
    tracing_subscriber::registry()
        .with(to_stderr)
        .with(traces.map(Traces::layer))
        .init();
    if is_wrong {
        tracing::warn!(
            "SLUICEBOX_LOG is {wanted:?}, which names no level: use one of error, warn, info, \
             debug and trace"
        );
    }
    if !["", "text", "json"].contains(&format.as_str()) {
        tracing::warn!("SLUICEBOX_LOG_FORMAT is {format:?}, which is no format: use text or json");
    }
}
