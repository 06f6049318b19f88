//! A case's folder: where its files lie and how expected rows are read and
//! written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::TestError;
use super::compare::Table;
use crate::schema::Schema;
use crate::suggest;

/// The expected file that is about no sink.
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// What is kept of a dead letter when expectations are written: neither its
/// place in the input, which is shuffled, nor the plugin's digest.
const LETTER_FIELDS: [&str; 4] = ["node", "kind", "error", "payload"];

/// A test of one pipeline.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its folder's name.
    pub name: String,
    pub folder: PathBuf,
    pub pipeline: PathBuf,
    pub settings: Settings,
}

/// A case's `test.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The pipeline's file, from the case's folder.
    pub pipeline: PathBuf,
    /// Whether runs with shuffled rows must give the same. Say `false` where a
    /// plugin's results depend on the order of a key's rows.
    pub disorder: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            pipeline: "../../pipeline.toml".into(),
            disorder: true,
        }
    }
}

/// The cases in a pipeline's folder, by name; or the one that the folder is.
pub fn find(folder: &Path) -> Result<Vec<Case>, TestError> {
    if folder.join("input").is_dir() {
        return Ok(vec![Case::read(folder)?]);
    }
    let mut cases = folders(&folder.join("tests"))?
        .into_iter()
        .filter(|case| case.join("input").is_dir())
        .map(|case| Case::read(&case))
        .collect::<Result<Vec<_>, _>>()?;
    if cases.is_empty() {
        return Err(TestError::NoTests(folder.to_owned()));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, TestError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(TestError::io(folder, &cause)),
    };
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()
        .map_err(|cause| TestError::io(folder, &cause))
}

impl Case {
    fn read(folder: &Path) -> Result<Case, TestError> {
        // `.` has no name of its own.
        let folder = folder
            .canonicalize()
            .map_err(|cause| TestError::io(folder, &cause))?;
        let path = folder.join("test.toml");
        let settings = match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| TestError::File {
                path,
                message: error.to_string(),
            })?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Settings::default(),
            Err(cause) => return Err(TestError::io(&path, &cause)),
        };
        let pipeline = folder.join(&settings.pipeline);
        let pipeline = pipeline
            .canonicalize()
            .map_err(|cause| TestError::io(&pipeline, &cause))?;
        Ok(Case {
            name: folder
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            folder,
            pipeline,
            settings,
        })
    }
}

/// Expected rows of the sinks and the dead letters that have any.
pub(super) struct Expectations {
    pub(super) rows: BTreeMap<String, Table>,
    pub(super) dead_letters: Option<Vec<Map<String, Value>>>,
}

impl Expectations {
    /// `sinks` are the pipeline's, with what they take.
    pub(super) fn read(case: &Case, sinks: &[(&str, &Schema)]) -> Result<Self, TestError> {
        let folder = case.folder.join("expected");
        check_names(
            &folder,
            "sink",
            sinks.iter().map(|sink| sink.0).chain([DEAD_LETTERS]),
        )?;
        let mut rows = BTreeMap::new();
        for &(sink, schema) in sinks {
            let path = folder.join(format!("{sink}.jsonl"));
            let Some(lines) = json_lines(&path)? else {
                continue;
            };
            let table = Table::parse(schema, &lines).map_err(|(row, message)| TestError::Line {
                path,
                line: row + 1,
                message,
            })?;
            rows.insert(sink.to_owned(), table);
        }
        let path = folder.join(format!("{DEAD_LETTERS}.jsonl"));
        let dead_letters = json_lines(&path)?;
        check_letters(&path, dead_letters.as_deref().unwrap_or_default())?;
        if rows.is_empty() && dead_letters.is_none() {
            return Err(TestError::File {
                path: folder,
                message: format!(
                    "nothing is expected: put the rows of a sink into expected/SINK.jsonl \
                     (sinks: {}), or write what comes with --update",
                    sinks
                        .iter()
                        .map(|sink| sink.0)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            });
        }
        Ok(Expectations { rows, dead_letters })
    }

    /// What a run gave, as what others must give.
    pub(super) fn of(
        sinks: &[(&str, &Schema)],
        rows: &[Vec<Map<String, Value>>],
        dead_letters: &[Map<String, Value>],
    ) -> Result<Self, TestError> {
        let tables = sinks.iter().zip(rows).map(|((sink, schema), rows)| {
            let table = Table::parse(schema, rows)
                .map_err(|(_, message)| TestError::Internal(format!("sink `{sink}`: {message}")))?;
            Ok(((*sink).to_owned(), table))
        });
        let mut letters: Vec<Map<String, Value>> = dead_letters
            .iter()
            .map(|letter| {
                let fields = LETTER_FIELDS
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), letter.get(*name)?.clone())));
                fields.filter(|(_, value)| !value.is_null()).collect()
            })
            .collect();
        letters.sort_by_cached_key(|letter| Value::Object(letter.clone()).to_string());
        Ok(Expectations {
            rows: tables.collect::<Result<_, TestError>>()?,
            dead_letters: Some(letters),
        })
    }

    /// One file a sink, with the rows in order of time. An empty file for dead
    /// letters says that there must be none.
    pub(super) fn write(&self, case: &Case) -> Result<Vec<PathBuf>, TestError> {
        let folder = case.folder.join("expected");
        fs::create_dir_all(&folder).map_err(|cause| TestError::io(&folder, &cause))?;
        let sinks = self
            .rows
            .iter()
            .map(|(sink, table)| (sink.as_str(), table.lines()));
        let letters = self.dead_letters.iter().map(|letters| {
            let lines = letters
                .iter()
                .map(|letter| Value::Object(letter.clone()).to_string());
            (DEAD_LETTERS, lines.collect())
        });
        let mut written = Vec::new();
        for (name, lines) in sinks.chain(letters) {
            let path = folder.join(format!("{name}.jsonl"));
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(&path, text).map_err(|cause| TestError::io(&path, &cause))?;
            written.push(path);
        }
        Ok(written)
    }
}

/// Refuses files whose name means nothing, which otherwise would be compared
/// with nothing.
pub(super) fn check_names<'n>(
    folder: &Path,
    what: &str,
    names: impl Iterator<Item = &'n str>,
) -> Result<(), TestError> {
    let names: Vec<&str> = names.collect();
    for path in folders(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.starts_with('.') || names.contains(&&*stem) {
            continue;
        }
        let help = suggest::help(&stem, &format!("{what}s"), names.iter().copied());
        return Err(TestError::File {
            message: format!("the pipeline has no {what} `{stem}`: {help}"),
            path,
        });
    }
    Ok(())
}

fn check_letters(path: &Path, letters: &[Map<String, Value>]) -> Result<(), TestError> {
    let known = serde_json::to_value(crate::dead_letter::DeadLetter::default())
        .map_err(|cause| TestError::Internal(cause.to_string()))?;
    for (row, letter) in letters.iter().enumerate() {
        let unknown = letter
            .keys()
            .find(|name| known.get(name.as_str()).is_none());
        if let Some(unknown) = unknown {
            let names = known
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str());
            let help = suggest::help(unknown, "fields", names);
            return Err(TestError::Line {
                path: path.to_owned(),
                line: row + 1,
                message: format!("a dead letter has no field `{unknown}`: {help}"),
            });
        }
    }
    Ok(())
}

/// The rows of a file with one JSON object a line; `None` where it is absent.
pub(super) fn json_lines(path: &Path) -> Result<Option<Vec<Map<String, Value>>>, TestError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(TestError::io(path, &cause)),
    };
    let rows = text.trim_end().lines().enumerate().map(|(row, line)| {
        serde_json::from_str(line).map_err(|cause| TestError::Line {
            path: path.to_owned(),
            line: row + 1,
            message: format!("expected one JSON object a line: {cause}"),
        })
    });
    rows.collect::<Result<_, _>>().map(Some)
}
