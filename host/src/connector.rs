//! Connectors: the systems that rows are read from and written to. Here is what
//! sources and sinks share: what they are planned with, and how they are
//! described.
//!
//! A connector is a folder below this one and a line in the [`registry`]; no
//! other code names it. All work the same way: the connector's *kind* reads a
//! table of the pipeline's file into *settings*, the planner checks the
//! settings and gets a *connector*, and a run opens the connector. The traits
//! are in [`crate::source`] and [`crate::sink`].

/// Columns of what messages have beside their payload.
mod beside;
/// Discards rows.
pub mod blackhole;
/// Receives rows by HTTP, and posts them.
pub mod http;
/// Prints rows on the terminal.
pub mod console;
/// Reads and writes files.
pub mod file;
/// Generates shop events.
pub mod generator;
/// Reads and writes Kafka topics.
pub mod kafka;
/// Addresses that sources listen on.
mod listen;
/// Collects messages, to decode them together.
mod messages;
/// Exchanges rows with the program that embeds the host.
pub mod memory;
/// Threads for connections.
mod network;
/// Reads and writes PostgreSQL's tables.
pub mod postgres;
/// Reads Redis' streams and channels, and writes its keys too.
pub mod redis;
/// Reads rows of dead letters again.
pub mod replay;
/// All connectors that a pipeline's file can name.
pub mod registry;
/// What connectors of servers share.
mod server;
/// Rows as text, each in its line.
mod text_rows;
/// Receives rows over TCP, and sends them.
pub mod tcp;
/// Texts with fields of the row in them.
mod template;
/// Receives datagrams.
pub mod udp;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::files::Files;

/// The name of [`replay`] in descriptions and checkpoints.
pub const REPLAY: &str = "replay";

/// What the planner gives a connector to check its settings with.
pub struct Planning<'a> {
    /// Names the source or sink in messages: "source `clicks`".
    pub title: &'a str,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The folder of the pipeline's file: paths are relative to it.
    pub folder: &'a Path,
    /// Whether the pipeline makes checkpoints.
    pub has_checkpoints: bool,
    pub input_files: InputFiles,
    /// The connector adds the files that it reads and writes.
    pub files: &'a mut Files,
    pub reserved: &'a mut Reserved,
    pub mistakes: &'a mut Diagnostics,
}

/// What one source of a pipeline has for itself, such as a slot of a server: who, and where
/// that is written.
#[derive(Default)]
pub struct Reserved(BTreeMap<String, (String, Span)>);

impl Planning<'_> {
    /// Has `what` for itself. `None` means that another source has it, which was reported.
    pub fn reserve(&mut self, what: String, place: Span, help: &'static str) -> Option<()> {
        if let Some((other, theirs)) = self.reserved.0.get(&what) {
            self.mistakes.push(
                Mistake::new(format!(
                    "{other} and {} cannot both have {what}: only one can read with it",
                    self.title
                ))
                .at(theirs.clone(), "")
                .at(place, "")
                .help(help),
            );
            return None;
        }
        self.reserved.0.insert(what, (self.title.to_owned(), place));
        Some(())
    }
}

/// Whether the files that sources read are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFiles {
    MustExist,
    /// There is a checkpoint, which may have read them to their ends: what that means for
    /// a pattern that matches none, the run decides.
    MayBeGone,
    /// Rows come from elsewhere: files need not exist, and patterns match none.
    Replaced,
}

/// How `sluicebox check` shows a connector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Its name, as in `type`.
    pub connector: &'static str,
    /// The format of its rows, as in `format`.
    pub format: Option<&'static str>,
    /// Lines for people, shown below its name.
    pub lines: Vec<String>,
    /// Where a sink's rows are, if they are kept together from one run to the
    /// next: a checkpoint belongs to the rows at this place.
    pub place: Option<String>,
    /// Whether all rows at that place have the same columns: a table.
    pub has_columns: bool,
    /// Settings for programs: an object with durations in ms and sizes in
    /// bytes, and without anything that may be secret.
    pub settings: Json,
}

impl Description {
    /// The connector and its format in one line: "kafka, json".
    pub fn headline(&self) -> String {
        match self.format {
            Some(format) => format!("{}, {format}", self.connector),
            None => self.connector.to_owned(),
        }
    }

    /// The whole description for programs, as an object.
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
