//! What sources and sinks have in common: how they are planned, and how they
//! are shown.
//!
//! A connector is a folder below this one, and a line in the [`registry`].
//! Nothing else knows which connectors there are. Each goes the same way: its
//! *kind* reads a table of the pipeline's file into *settings*, the planner has
//! the settings checked into a *connector*, and a run opens the connector. The
//! traits are in [`crate::source`] and [`crate::sink`].

/// Forgets rows.
pub mod blackhole;
/// Shows rows on the terminal.
pub mod console;
/// Files that are read and written.
pub mod file;
/// Shop events, made up.
pub mod generator;
/// Topics of Kafka that are read and written.
pub mod kafka;
/// Rows from the program and for it.
pub mod memory;
/// All connectors that a pipeline's file can name.
pub mod registry;
/// Rows that others send over TCP.
pub mod tcp;

use std::path::Path;

use serde_json::Value as Json;

use crate::config::diagnostics::Diagnostics;
use crate::files::Files;

/// What a connector is given to be planned with.
pub struct Planning<'a> {
    /// Whose settings are planned, for messages: "source `clicks`".
    pub title: &'a str,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The folder of the pipeline's file: paths are relative to it.
    pub folder: &'a Path,
    pub input_files: InputFiles,
    /// Where it says which files it reads and writes.
    pub files: &'a mut Files,
    pub mistakes: &'a mut Diagnostics,
}

/// What is asked of the files that sources read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFiles {
    MustExist,
    /// Rows come from elsewhere: files need not exist, and patterns match none.
    Replaced,
}

/// How a connector is shown by `sluicebox check`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// As `type` names it.
    pub connector: &'static str,
    /// How its rows are written, as `format` names it.
    pub format: Option<&'static str>,
    /// For people: lines below its name.
    pub lines: Vec<String>,
    /// For programs: an object of its settings, durations in ms and sizes in
    /// bytes. What may be secret is left out.
    pub settings: Json,
}

impl Description {
    /// The connector and its format in a line: "kafka, json".
    pub fn headline(&self) -> String {
        match self.format {
            Some(format) => format!("{}, {format}", self.connector),
            None => self.connector.to_owned(),
        }
    }

    /// All of it for programs, as an object.
    pub fn to_json(&self) -> Json {
        let mut json = serde_json::Map::new();
        json.insert("connector".to_owned(), self.connector.into());
        if let Some(format) = self.format {
            json.insert("format".to_owned(), format.into());
        }
        if let Json::Object(settings) = &self.settings {
            json.extend(settings.clone());
        }
        Json::Object(json)
    }
}

#[cfg(test)]
mod tests;
