//! Creates plugins and pipelines to start from: files that build, pass their
//! own test and run unchanged, in any folder.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The sources of the SDK.
mod sdk;

/// A file of a scaffold: its path, and its text with `{{…}}` to fill in.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($folder:literal: $($path:literal <- $file:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("templates/", $folder, "/", $file)))),+]
    };
}

/// What a new plugin starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PluginKind {
    /// A filter, a map and an aggregate
    #[default]
    Mixed,
    /// A filter and a map: functions of a row
    Transform,
    /// An aggregate of the rows of a key and window
    Aggregate,
    /// A keyed process with a state and a timer
    Process,
    /// A look-up of rows in a table, by keys that it makes
    Lookup,
    /// A recommender with profiles of users and models of items
    Recommend,
}

impl PluginKind {
    /// The files that other kinds have otherwise.
    fn templates(self) -> &'static [Template] {
        match self {
            PluginKind::Mixed => templates!("plugin/mixed":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/readings.jsonl" <- "../readings.jsonl",
                "tests/first/expected/averages.jsonl" <- "averages.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
            PluginKind::Transform => templates!("plugin/transform":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/readings.jsonl" <- "../readings.jsonl",
                "tests/first/expected/converted.jsonl" <- "converted.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
            PluginKind::Aggregate => templates!("plugin/aggregate":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/readings.jsonl" <- "../readings.jsonl",
                "tests/first/expected/averages.jsonl" <- "averages.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
            PluginKind::Process => templates!("plugin/process":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/readings.jsonl" <- "../readings.jsonl",
                "tests/first/expected/silent.jsonl" <- "silent.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
            PluginKind::Lookup => templates!("plugin/lookup":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/baskets.jsonl" <- "baskets.jsonl",
                "tests/first/input/prices.jsonl" <- "prices.jsonl",
                "tests/first/expected/totals_out.jsonl" <- "totals.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
            PluginKind::Recommend => templates!("plugin/recommend":
                "src/lib.rs" <- "lib.rs.in",
                "pipeline.toml" <- "pipeline.toml.in",
                "tests/first/input/purchases.jsonl" <- "purchases.jsonl",
                "tests/first/expected/recommended.jsonl" <- "recommended.jsonl",
                "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
            ),
        }
    }

    /// The source of its pipeline.
    fn source(self) -> &'static str {
        match self {
            PluginKind::Lookup => "baskets",
            PluginKind::Recommend => "purchases",
            _ => "readings",
        }
    }

    /// The sink of its pipeline.
    fn sink(self) -> &'static str {
        match self {
            PluginKind::Mixed | PluginKind::Aggregate => "averages",
            PluginKind::Transform => "converted",
            PluginKind::Process => "silent",
            PluginKind::Lookup => "totals_out",
            PluginKind::Recommend => "recommended",
        }
    }
}

/// Templates of `Cargo.toml` and `.gitignore` have other names, so that cargo
/// and git do not read them here.
const PLUGIN: &[Template] = templates!("plugin":
    "Cargo.toml" <- "Cargo.toml.in",
    ".gitignore" <- "gitignore.in",
    "README.md" <- "README.md.in",
);

const PIPELINE: &[Template] = templates!("pipeline":
    ".gitignore" <- "gitignore.in",
    "README.md" <- "README.md.in",
    "pipeline.toml" <- "pipeline.toml.in",
    "tests/first/input/events.jsonl" <- "events.jsonl",
    "tests/first/expected/seen.jsonl" <- "seen.jsonl",
    "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
);

/// Names that cargo refuses for a package, or that would shadow Rust's own
/// crates or lints.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "sluicebox",
    "sluicebox_sdk",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

const PLUGIN_COMMANDS: &[&str] = &[
    "cargo test",
    "sluicebox build",
    "sluicebox run pipeline.toml",
    "sluicebox test",
];

const PIPELINE_COMMANDS: &[&str] = &["sluicebox run pipeline.toml", "sluicebox test"];

const NAME_LENGTH_MAX: usize = 64;

/// A scaffold that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub folder: PathBuf,
    /// Paths within the folder; the SDK's folder stands for its files.
    pub files: Vec<PathBuf>,
    /// Commands to run there next.
    pub next: &'static [&'static str],
}

#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("`{name}` cannot be a name: {reason}{}", suggested(.suggestion))]
    Name {
        name: String,
        reason: String,
        suggestion: Option<String>,
    },
    #[error("`{}` is already there; nothing was written. Choose another name or folder", .0.display())]
    Exists(PathBuf),
    #[error("`{}` is not the folder of the sluicebox-sdk crate: {reason}", .path.display())]
    Sdk { path: PathBuf, reason: String },
    #[error("cannot write `{}`: {cause}", .path.display())]
    Write { path: PathBuf, cause: io::Error },
}

/// Creates a plugin's crate in `folder` (by default named after it in the
/// current folder). It depends on the SDK at `sdk`, or else brings its own.
pub fn plugin(
    name: &str,
    kind: PluginKind,
    folder: Option<&Path>,
    sdk: Option<&Path>,
) -> Result<Created, NewError> {
    check_name(name)?;
    let dependency = match sdk {
        Some(path) => sdk_path(path)?,
        None => sdk::FOLDER.to_owned(),
    };
    let crate_name = name.replace('-', "_");
    let values = [
        ("name", name),
        ("crate_name", &crate_name),
        ("source", kind.source()),
        ("sink", kind.sink()),
        ("sdk_folder", sdk::FOLDER),
        ("sdk", &toml::Value::from(dependency).to_string()),
    ];
    let own_sdk = if sdk.is_some() {
        Vec::new()
    } else {
        sdk::files()
    };
    write(
        filled(&[PLUGIN, kind.templates()].concat(), &values),
        own_sdk,
        PLUGIN_COMMANDS,
        folder.unwrap_or(Path::new(name)),
    )
}

/// Creates a pipeline's folder. It shows generated events until a plugin is
/// added.
pub fn pipeline(name: &str, folder: Option<&Path>) -> Result<Created, NewError> {
    check_name(name)?;
    write(
        filled(PIPELINE, &[("name", name)]),
        Vec::new(),
        PIPELINE_COMMANDS,
        folder.unwrap_or(Path::new(name)),
    )
}

/// Allows lower-case letters, digits, `-` and `_`, so that one name can be used
/// for the crate, the file, the pipeline's table and `name.operator`.
fn check_name(name: &str) -> Result<(), NewError> {
    let refuse = |reason: &str| {
        Err(NewError::Name {
            name: name.to_owned(),
            reason: reason.to_owned(),
            suggestion: suggestion(name),
        })
    };
    if name.is_empty() {
        refuse("it is empty")
    } else if name.len() > NAME_LENGTH_MAX {
        refuse(&format!("it is longer than {NAME_LENGTH_MAX} characters"))
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        refuse("it must start with a lower-case letter")
    } else if let Some(bad) = name.chars().find(|&c| !allowed(c)) {
        refuse(&format!(
            "`{}` is not a lower-case letter, digit, `-` or `_`",
            bad.escape_default()
        ))
    } else if RESERVED.contains(&name.replace('-', "_").as_str()) {
        refuse("it is reserved by Rust or cargo")
    } else {
        Ok(())
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// The nearest valid name: `My Plugin` gives `my-plugin`.
fn suggestion(name: &str) -> Option<String> {
    let words: Vec<String> = name
        .to_ascii_lowercase()
        .split(|c| !allowed(c))
        .map(|word| word.trim_start_matches(|c: char| !c.is_ascii_lowercase()))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let mut near = words.join("-");
    near.truncate(NAME_LENGTH_MAX);
    if RESERVED.contains(&near.replace('-', "_").as_str()) {
        near = format!("my-{near}");
    }
    (near != name && check_name(&near).is_ok()).then_some(near)
}

fn suggested(name: &Option<String>) -> String {
    name.as_ref()
        .map_or_else(String::new, |name| format!(". How about `{name}`?"))
}

/// The full path of the SDK's crate in the folder `path`.
fn sdk_path(path: &Path) -> Result<String, NewError> {
    let refuse = |reason: String| NewError::Sdk {
        path: path.to_owned(),
        reason,
    };
    let folder = path
        .canonicalize()
        .map_err(|cause| refuse(cause.to_string()))?;
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)
        .map_err(|cause| refuse(format!("Cargo.toml in it: {cause}")))?;
    let named: toml::Table = text
        .parse()
        .map_err(|cause| refuse(format!("its Cargo.toml: {cause}")))?;
    let name = named
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str);
    if name != Some("sluicebox-sdk") {
        return Err(refuse(format!(
            "it contains {}",
            name.map_or_else(|| "no package".to_owned(), |name| format!("`{name}`"))
        )));
    }
    let folder = folder.into_os_string().into_string();
    folder.map_err(|_| refuse("its path is not UTF-8, which cargo cannot write down".to_owned()))
}

/// Writes either all files or none: existing files are found before the first
/// one is written. `own_sdk` goes into a folder of its own.
fn write(
    files: Vec<(&'static str, String)>,
    own_sdk: Vec<(&'static str, String)>,
    next: &'static [&'static str],
    folder: &Path,
) -> Result<Created, NewError> {
    let mut listed: Vec<PathBuf> = files.iter().map(|(path, _)| PathBuf::from(path)).collect();
    if !own_sdk.is_empty() {
        listed.push(PathBuf::from(sdk::FOLDER));
    }
    if let Some(path) = listed.iter().find(|path| folder.join(path).exists()) {
        return Err(NewError::Exists(folder.join(path)));
    }
    let sdk_folder = folder.join(sdk::FOLDER);
    let files = files
        .into_iter()
        .map(|(path, text)| (folder.join(path), text));
    let own_sdk = own_sdk
        .into_iter()
        .map(|(path, text)| (sdk_folder.join(path), text));
    for (path, text) in files.chain(own_sdk) {
        write_new(&path, &text).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => NewError::Exists(path),
            _ => NewError::Write { path, cause },
        })?;
    }
    Ok(Created {
        folder: folder.to_owned(),
        files: listed,
        next,
    })
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "made {}:", self.folder.display())?;
        for file in &self.files {
            writeln!(f, "  {}", file.display())?;
        }
        write!(f, "in it, try: {}", self.next.join(", "))
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn filled(templates: &[Template], values: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let filled = templates.iter().map(|(path, text)| {
        let text = values
            .iter()
            .fold((*text).to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{{{name}}}}}"), value)
            });
        (*path, text)
    });
    filled.collect()
}

#[cfg(test)]
mod tests;
