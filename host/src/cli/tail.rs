//! `sluicebox tail`: shows rows of a running host as they leave a node.

use anyhow::anyhow;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::client::HostArguments;
use super::format::time;
use super::{CliError, print};

#[derive(Args)]
pub struct TailArguments {
    /// The pipeline's name
    pipeline: String,
    /// A node, or `NODE.OUTPUT` for another output than its main one
    from: String,
    /// How many rows a second are shown at most: 1 to 1000
    #[arg(long, default_value = "10", value_name = "ROWS")]
    rate: u32,
    /// End after so many rows
    #[arg(long, value_name = "ROWS")]
    count: Option<u64>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct Row {
    time_ms: Option<i64>,
    #[serde(default)]
    taken_back: bool,
    row: Box<RawValue>,
}

#[derive(Deserialize)]
struct LeftOut {
    rows: u64,
}

#[derive(Deserialize)]
struct End {
    why: String,
}

pub fn tail(arguments: &TailArguments) -> Result<(), CliError> {
    let client = arguments.host.client()?;
    let rate = arguments.rate.to_string();
    let query = [("from", arguments.from.as_str()), ("rate", &rate)];
    let mut events = Events::default();
    let mut shown = 0;
    let mut has_ended = false;
    let path = [&*arguments.pipeline, "tail"];
    let is_cut = client.follow(&path, &query, |bytes| {
        for event in events.take(bytes) {
            has_ended |= event.name == "end";
            shown += u64::from(event.name == "row");
            let goes_on = match arguments.host.json {
                true => event.show_json(),
                false => event.show(),
            };
            if !goes_on? || arguments.count.is_some_and(|count| shown >= count) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    match is_cut && !has_ended {
        true => Err(CliError::Failed(anyhow!(
            "the host has broken off: rows may have passed since; ask again"
        ))),
        false => Ok(()),
    }
}

/// A server-sent event.
#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    data: String,
}

impl Event {
    /// Returns whether somebody may still read.
    fn show(&self) -> Result<bool, CliError> {
        let line = match self.name.as_str() {
            "row" => {
                let row: Row = self.read()?;
                let time = row.time_ms.map_or_else(|| "-".to_owned(), time);
                let mark = if row.taken_back { "  taken back" } else { "" };
                format!("{time}{mark}  {}", row.row.get())
            }
            "left_out" => {
                let LeftOut { rows } = self.read()?;
                print::stderr(format_args!("… {rows} rows left out\n"));
                return Ok(true);
            }
            "end" => {
                let End { why } = self.read()?;
                print::stderr(format_args!("the end: {why}\n"));
                return Ok(true);
            }
            // Of a newer host.
            _ => return Ok(true),
        };
        printed(&line)
    }

    fn show_json(&self) -> Result<bool, CliError> {
        let data: Box<RawValue> = self.read()?;
        let name = json!(self.name);
        printed(&format!("{{\"event\":{name},\"data\":{data}}}"))
    }

    fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CliError> {
        serde_json::from_str(&self.data).map_err(|error| {
            let name = &self.name;
            CliError::Failed(anyhow!(
                "an event `{name}` of the host cannot be read: {error}"
            ))
        })
    }
}

fn printed(line: &str) -> Result<bool, CliError> {
    print::line(line).map_err(|error| CliError::Failed(error.into()))
}

/// Takes server-sent events apart.
#[derive(Default)]
struct Events {
    /// What has come of the next line.
    line: Vec<u8>,
    name: String,
    data: String,
}

impl Events {
    /// The events that are whole with these bytes.
    fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.take_line(line.trim_end_matches(['\r', '\n'])));
            }
        }
        events
    }

    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = Event {
                name: std::mem::take(&mut self.name),
                data: std::mem::take(&mut self.data),
            };
            return (!event.name.is_empty()).then_some(event);
        }
        // Lines that begin with a colon keep the connection alive.
        let (field, value) = line.split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_come() {
        let text = ":\n\nevent: row\ndata: {\"n\":\"é\"}\n\nevent: end\ndata: {}\n\nevent: row\n";
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        let expected = [event("row", "{\"n\":\"é\"}"), event("end", "{}")];
        for length in 1..text.len() {
            let mut events = Events::default();
            let parts = text.as_bytes().chunks(length);
            let taken: Vec<Event> = parts.flat_map(|part| events.take(part)).collect();
            assert_eq!(taken, expected, "in parts of {length}");
        }
    }
}
