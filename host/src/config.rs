//! Reads a pipeline's file: which keys there are, and each value's type and
//! range by itself.
//!
//! Names and values keep their places in the file, so that messages can point
//! at them. What they mean together (whether an input exists, whether types
//! agree) is checked by [`crate::planner::build`], which reports mistakes in
//! the same way.

/// Mistakes and their places, and how they are shown.
pub mod diagnostics;
/// Reads secrets from outside the file, and hides those in it.
pub mod secrets;
/// Reads TOML tables key by key.
pub mod reader;
/// `event_time` and `watermark`.
mod event_time;
/// `[sources.NAME]`.
mod source;
/// Types of a source's fields.
pub mod column;
/// Names of fields, and keys.
mod key;
/// `input` of operators and sinks.
mod input;
/// `[plugins.NAME]`.
mod plugin;
/// Names of plugins' operators.
mod name;
/// What an operator runs, with a plugin or without.
mod runs;
/// `[operators.NAME]`.
mod operator;
/// `join` and `select` of an operator.
mod join;
/// `[sinks.NAME]`.
mod sink;
/// Formats of rows.
pub mod format;
/// `upsert` of a source.
mod upsert;
/// Schemas beside the pipeline's file.
pub mod messages;
/// `[state]`, `[checkpoints]` and `[restart]`.
mod state;
/// The file of a host.
pub mod host;
/// Reads and parses a file, with its mistakes.
mod file;

use std::path::Path;

pub use diagnostics::{ConfigFile, Diagnostics, Look, Mistake, Severity, Span};
pub use event_time::{EventTimeConfig, WatermarkConfig};
pub use input::{InputConfig, InputName};
pub use join::{JoinConfig, JoinedConfig, JoinedFrom, MatchingConfig, TableConfig};
pub use key::{KeyColumns, KeyConfig};
pub use name::OperatorName;
pub use operator::{BoundsChoice, EmitChoice, OperatorConfig, Setting};
pub use plugin::{PluginConfig, PluginFrom};
pub(crate) use reader::{NAME_PATTERN, NAMES, is_name};
pub use runs::{
    AggregateConfig, DeduplicateConfig, DropConfig, FilterConfig, OrderConfig, Runs, SelectConfig,
};
pub use sink::SinkConfig;
pub use source::{ChecksumConfig, SourceConfig};
pub use state::{Backend, CheckpointsConfig, RESTART, RestartConfig, StateConfig, UploadConfig};
pub use toml::Spanned;

use crate::connector::registry::{CONNECTORS, Registry};
use diagnostics::SecretAccess;
use file::FileKind;
use reader::{ConfigValue, Table};

/// A pipeline's file, read but not planned. Lists are in the order of the file.
#[derive(Debug)]
pub struct Config {
    pub origin: ConfigFile,
    pub name: Spanned<String>,
    pub parallelism: Option<usize>,
    pub batch_rows: Option<usize>,
    pub dead_letters: Option<Spanned<String>>,
    /// The files that secrets are read of.
    pub secret_files: Vec<Spanned<String>>,
    pub state: Option<StateConfig>,
    pub checkpoints: Option<CheckpointsConfig>,
    pub restart: Option<RestartConfig>,
    pub plugins: Vec<PluginConfig>,
    pub sources: Vec<SourceConfig>,
    pub operators: Vec<OperatorConfig>,
    pub sinks: Vec<SinkConfig>,
}

/// A larger file is not a pipeline: a data file was named by mistake.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;
const PIPELINE: FileKind = FileKind {
    the: "the pipeline",
    a: "a pipeline's file",
    advice: "give the path of a pipeline's TOML file; `sluicebox new pipeline NAME` makes one",
};
pub const PARALLELISM_MAX: i64 = 256;
pub const BATCH_ROWS_MAX: i64 = 65_536;

impl Config {
    /// Whether the pipeline makes checkpoints.
    pub fn has_checkpoints(&self) -> bool {
        self.state.is_some() || self.checkpoints.is_some()
    }

    /// Reads a pipeline's file.
    pub fn read(path: &Path) -> Result<Config, Diagnostics> {
        Config::read_with(path, SecretAccess::Read)
    }

    /// Reads a pipeline's file, and no secrets that it refers to: for tests, which
    /// replace its sources and sinks.
    pub fn read_without_secrets(path: &Path) -> Result<Config, Diagnostics> {
        Config::read_with(path, SecretAccess::LeftOut)
    }

    fn read_with(path: &Path, secrets: SecretAccess) -> Result<Config, Diagnostics> {
        let file = path.display().to_string();
        let text = file::read(path, &PIPELINE, FILE_BYTES_MAX)?;
        Config::parse_all(&file, &text, CONNECTORS, secrets)
    }

    /// Reads a pipeline from text; `file` is its name for messages.
    pub fn parse(file: &str, text: &str) -> Result<Config, Diagnostics> {
        Config::parse_with(file, text, CONNECTORS)
    }

    /// As [`Config::parse`], with these connectors.
    pub fn parse_with(
        file: &str,
        text: &str,
        connectors: Registry<'_>,
    ) -> Result<Config, Diagnostics> {
        Config::parse_all(file, text, connectors, SecretAccess::Read)
    }

    fn parse_all(
        file: &str,
        text: &str,
        connectors: Registry<'_>,
        secrets: SecretAccess,
    ) -> Result<Config, Diagnostics> {
        let (document, mut mistakes) = file::parse(file, text)?;
        mistakes.secrets = secrets;
        let origin = mistakes.origin().clone();
        let secret_files = secrets::files(document.get_ref());
        secrets::refuse_credentials(document.get_ref(), &mut mistakes);
        // Other mistakes would quote them.
        if !mistakes.is_empty() {
            return Err(mistakes.sorted());
        }
        let table = Table::new("the pipeline", 0..0, document.get_ref());
        let config = read_pipeline(table, origin, secret_files, connectors, &mut mistakes);
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(mistakes.sorted()),
        }
    }
}

fn read_pipeline(
    mut table: Table,
    origin: ConfigFile,
    secret_files: Vec<Spanned<String>>,
    connectors: Registry<'_>,
    mistakes: &mut Diagnostics,
) -> Option<Config> {
    let name = table
        .required(
            "name",
            "it identifies the pipeline's checkpoints and dead letters",
            mistakes,
        )
        .and_then(|value| value.name("the name of the pipeline", mistakes));
    let parallelism = table
        .optional("parallelism")
        .and_then(|value| value.integer(1..=PARALLELISM_MAX, mistakes));
    let batch_rows = table
        .optional("batch_rows")
        .and_then(|value| value.integer(1..=BATCH_ROWS_MAX, mistakes));
    let dead_letters = table
        .optional("dead_letters")
        .and_then(|value| value.path(mistakes));
    let state = table
        .optional("state")
        .and_then(|value| state::read_state(&value, mistakes));
    let checkpoints = table
        .optional("checkpoints")
        .and_then(|value| state::read_checkpoints(&value, mistakes));
    let restart = table
        .optional("restart")
        .and_then(|value| state::read_restart(&value, mistakes));
    let plugins = read_sections(&mut table, "plugins", "plugin", mistakes, plugin::read);
    let sources = read_sections(
        &mut table,
        "sources",
        "source",
        mistakes,
        |name, table, mistakes| source::read(name, table, connectors.sources, mistakes),
    );
    let operators = read_sections(
        &mut table,
        "operators",
        "operator",
        mistakes,
        operator::read,
    );
    let sinks = read_sections(
        &mut table,
        "sinks",
        "sink",
        mistakes,
        |name, table, mistakes| sink::read(name, table, connectors.sinks, mistakes),
    );
    table.finish(mistakes);
    Some(Config {
        origin,
        name: name?,
        parallelism: parallelism.map(|n| *n.get_ref() as usize),
        batch_rows: batch_rows.map(|n| *n.get_ref() as usize),
        dead_letters,
        secret_files,
        state,
        checkpoints,
        restart,
        plugins,
        sources,
        operators,
        sinks,
    })
}

/// Reads the tables `[plural.NAME]` with `read`.
fn read_sections<T>(
    table: &mut Table,
    plural: &'static str,
    singular: &str,
    mistakes: &mut Diagnostics,
    read: impl Fn(Spanned<String>, Table, &mut Diagnostics) -> Option<T>,
) -> Vec<T> {
    let Some(sections) = table
        .optional(plural)
        .and_then(|value| value.table(mistakes))
    else {
        return Vec::new();
    };
    let read_one = |(name, value): (Spanned<String>, ConfigValue)| {
        let name_is_good =
            reader::check_name(&format!("the name of this {singular}"), &name, mistakes);
        let owner = format!("{singular} `{}`", name.get_ref());
        let table = value
            .named(&owner)
            .table(mistakes)?
            .owned_by(&owner, name.span());
        read(name, table, mistakes).filter(|_| name_is_good)
    };
    sections.into_entries().filter_map(read_one).collect()
}
