//! A case's folder: finds its files, and reads and writes expected rows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::compare::ComparableRows;
use super::error::TestError;
use crate::schema::Schema;
use crate::suggest;

/// The name of the file of expected dead letters.
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// The fields of dead letters that are written as expectations: not the place
/// in the input, which is shuffled, nor the plugin's digest.
const DEAD_LETTER_FIELDS: [&str; 4] = ["node", "kind", "error", "payload"];

/// A test of one pipeline.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its folder's name.
    pub name: String,
    pub folder: PathBuf,
    pub pipeline: PathBuf,
    pub settings: CaseSettings,
}

/// A case's `test.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseSettings {
    /// The path of the pipeline's file from the case's folder.
    pub pipeline: PathBuf,
    /// Whether runs with shuffled rows must give the same results. Set it to
    /// `false` if a plugin's results depend on the order of a key's rows.
    pub disorder: bool,
}

impl Default for CaseSettings {
    fn default() -> Self {
        CaseSettings {
            pipeline: "../../pipeline.toml".into(),
            disorder: true,
        }
    }
}

/// The cases in a pipeline's folder by name, or the one case that `folder` is.
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
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => CaseSettings::default(),
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

/// The expected rows of sinks, and the expected dead letters, where given.
pub(super) struct Expectations {
    pub(super) rows: BTreeMap<String, ComparableRows>,
    pub(super) dead_letters: Option<Vec<Map<String, Value>>>,
}

impl Expectations {
    /// Reads expectations for these sinks, with their schemas.
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
            let table = ComparableRows::parse(schema, &lines).map_err(|(row, message)| {
                TestError::Line {
                    path,
                    line: row + 1,
                    message,
                }
            })?;
            rows.insert(sink.to_owned(), table);
        }
        let path = folder.join(format!("{DEAD_LETTERS}.jsonl"));
        let dead_letters = json_lines(&path)?;
        check_dead_letters(&path, dead_letters.as_deref().unwrap_or_default())?;
        if rows.is_empty() && dead_letters.is_none() {
            return Err(TestError::File {
                path: folder,
                message: format!(
                    "nothing is expected: put the rows of a sink into expected/SINK.jsonl \
                     (sinks: {}), or write the results with --update",
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

    /// Makes expectations of a run's output.
    pub(super) fn of(
        sinks: &[(&str, &Schema)],
        rows: &[Vec<Map<String, Value>>],
        dead_letters: &[Map<String, Value>],
    ) -> Result<Self, TestError> {
        let tables = sinks.iter().zip(rows).map(|((sink, schema), rows)| {
            let table = ComparableRows::parse(schema, rows)
                .map_err(|(_, message)| TestError::Internal(format!("sink `{sink}`: {message}")))?;
            Ok(((*sink).to_owned(), table))
        });
        let mut dead_letters: Vec<Map<String, Value>> = dead_letters
            .iter()
            .map(|dead_letter| {
                let fields = DEAD_LETTER_FIELDS
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), dead_letter.get(*name)?.clone())));
                fields.filter(|(_, value)| !value.is_null()).collect()
            })
            .collect();
        dead_letters
            .sort_by_cached_key(|dead_letter| Value::Object(dead_letter.clone()).to_string());
        Ok(Expectations {
            rows: tables.collect::<Result<_, TestError>>()?,
            dead_letters: Some(dead_letters),
        })
    }

    /// Writes a file for each sink, with rows in order of time. An empty file
    /// of dead letters means that there must be none.
    pub(super) fn write(&self, case: &Case) -> Result<Vec<PathBuf>, TestError> {
        let folder = case.folder.join("expected");
        fs::create_dir_all(&folder).map_err(|cause| TestError::io(&folder, &cause))?;
        let sinks = self
            .rows
            .iter()
            .map(|(sink, table)| (sink.as_str(), table.lines()));
        let dead_letters = self.dead_letters.iter().map(|dead_letters| {
            let lines = dead_letters
                .iter()
                .map(|dead_letter| Value::Object(dead_letter.clone()).to_string());
            (DEAD_LETTERS, lines.collect())
        });
        let mut written = Vec::new();
        for (name, lines) in sinks.chain(dead_letters) {
            let path = folder.join(format!("{name}.jsonl"));
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(&path, text).map_err(|cause| TestError::io(&path, &cause))?;
            written.push(path);
        }
        Ok(written)
    }
}

/// Refuses files that belong to no sink, since they would not be compared.
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

fn check_dead_letters(path: &Path, dead_letters: &[Map<String, Value>]) -> Result<(), TestError> {
    let known = serde_json::to_value(crate::dead_letter::DeadLetter::default())
        .map_err(|cause| TestError::Internal(cause.to_string()))?;
    for (row, dead_letter) in dead_letters.iter().enumerate() {
        let unknown = dead_letter
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

/// Reads a file with a JSON object a line; `None` if it does not exist.
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
