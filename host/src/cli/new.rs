//! Creates plugins and pipelines to start from: files that build, pass their
//! own test and run unchanged, in any folder.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file of a scaffold: its path, and its text with `{{…}}` to fill in.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($folder:literal: $($path:literal <- $file:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("templates/", $folder, "/", $file)))),+]
    };
}

/// Templates of `Cargo.toml` and `.gitignore` have other names, so that cargo
/// and git do not read them here.
const PLUGIN: &[Template] = templates!("plugin":
    "Cargo.toml" <- "Cargo.toml.in",
    ".gitignore" <- "gitignore.in",
    "README.md" <- "README.md.in",
    "src/lib.rs" <- "lib.rs.in",
    "pipeline.toml" <- "pipeline.toml.in",
    "tests/first/input/readings.jsonl" <- "readings.jsonl",
    "tests/first/expected/averages.jsonl" <- "averages.jsonl",
    "tests/first/expected/dead_letters.jsonl" <- "dead_letters.jsonl",
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
    /// Paths within the folder.
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
/// current folder). It depends on the SDK at `sdk`, or else on that of the
/// checkout that this binary was built from, or else on the released one.
pub fn plugin(name: &str, folder: Option<&Path>, sdk: Option<&Path>) -> Result<Created, NewError> {
    check_name(name)?;
    let dependency = sdk_dependency(sdk)?;
    let crate_name = name.replace('-', "_");
    let values = [
        ("name", name),
        ("crate_name", &crate_name),
        ("sdk", &dependency),
    ];
    write(
        PLUGIN,
        PLUGIN_COMMANDS,
        folder.unwrap_or(Path::new(name)),
        &values,
    )
}

/// Creates a pipeline's folder. It shows generated events until a plugin is
/// added.
pub fn pipeline(name: &str, folder: Option<&Path>) -> Result<Created, NewError> {
    check_name(name)?;
    write(
        PIPELINE,
        PIPELINE_COMMANDS,
        folder.unwrap_or(Path::new(name)),
        &[("name", name)],
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

/// The value of `sluicebox-sdk = …` in Cargo.toml.
fn sdk_dependency(given: Option<&Path>) -> Result<String, NewError> {
    if let Some(path) = given {
        return path_dependency(path);
    }
    // If the checkout is still there, its SDK has the contract of this binary,
    // which may not be released yet.
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    if let Ok(dependency) = path_dependency(&checkout) {
        return Ok(dependency);
    }
    Ok(format!("\"{}\"", env!("CARGO_PKG_VERSION")))
}

fn path_dependency(path: &Path) -> Result<String, NewError> {
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
    let folder = folder
        .to_str()
        .ok_or_else(|| refuse("its path is not UTF-8, which cargo cannot write down".to_owned()))?;
    Ok(format!("{{ path = {} }}", toml::Value::from(folder)))
}

/// Writes either all files or none: existing files are found before the first
/// one is written.
fn write(
    templates: &[Template],
    next: &'static [&'static str],
    folder: &Path,
    values: &[(&str, &str)],
) -> Result<Created, NewError> {
    if let Some((path, _)) = templates
        .iter()
        .find(|(path, _)| folder.join(path).exists())
    {
        return Err(NewError::Exists(folder.join(path)));
    }
    for (path, text) in templates {
        let path = folder.join(path);
        write_new(&path, &fill(text, values)).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => NewError::Exists(path),
            _ => NewError::Write { path, cause },
        })?;
    }
    Ok(Created {
        folder: folder.to_owned(),
        files: templates
            .iter()
            .map(|(path, _)| PathBuf::from(path))
            .collect(),
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

fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

#[cfg(test)]
mod tests;
