//! `sluicebox state`: shows what an operator of a running host keeps, of a key or of all.

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::CliError;
use super::client::HostArguments;
use super::format::{cut, table, time};

#[derive(Args)]
pub struct StateArguments {
    /// The pipeline's name
    pipeline: String,
    /// An aggregate, process or join
    operator: String,
    /// A JSON object of the key's fields, such as '{"user_id":"ann"}'; all keys without it
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
    /// As it is now, or as it was at the last checkpoint
    #[arg(long, value_enum, default_value_t)]
    as_of: AsOf,
    /// How many keys are shown at most: 1 to 1000
    #[arg(long, default_value = "20", value_name = "KEYS")]
    limit: usize,
    /// Where to go on, as the answer before has said
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum AsOf {
    #[default]
    Live,
    Checkpoint,
}

#[derive(Deserialize)]
struct View {
    /// The fields of the key.
    key: Vec<String>,
    entries: Vec<Entry>,
    next: Option<String>,
}

/// What is kept for a key. Numbers are shown as the host has written them.
#[derive(Deserialize)]
struct Entry {
    table: String,
    key: Box<RawValue>,
    start_ms: Option<i64>,
    end_ms: Option<i64>,
    rows: Option<u64>,
    newest_ms: Option<i64>,
    state: Option<Box<RawValue>>,
    #[serde(default)]
    timers: Vec<Timer>,
    #[serde(default)]
    kept_rows: Vec<KeptRow>,
    #[serde(default)]
    kept_rows_left_out: usize,
}

#[derive(Deserialize)]
struct Timer {
    name: String,
    at_ms: i64,
}

#[derive(Deserialize)]
struct KeptRow {
    row: Box<RawValue>,
}

/// How much is shown of a key and of what is kept for it; `--json` has all.
const KEY_CHARS: usize = 60;
const KEPT_CHARS: usize = 200;
/// So many kept rows of a key are shown.
const KEPT_ROWS: usize = 3;

pub fn state(arguments: &StateArguments) -> Result<(), CliError> {
    let client = arguments.host.client()?;
    let limit = arguments.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.push(match arguments.as_of {
        AsOf::Live => ("as_of", "live"),
        AsOf::Checkpoint => ("as_of", "checkpoint"),
    });
    let given = [("key", &arguments.key), ("cursor", &arguments.cursor)];
    for (name, value) in given {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let path = [
        &*arguments.pipeline,
        "operators",
        &arguments.operator,
        "state",
    ];
    client.show(&client.get(&path, &query)?, to_text)
}

fn to_text(view: View) -> String {
    if view.entries.is_empty() {
        let key = match view.key.is_empty() {
            true => "one for all rows".to_owned(),
            false => view.key.join(", "),
        };
        return format!("nothing is kept; the key is {key}\n");
    }
    let rows = view.entries.iter().map(|entry| {
        vec![
            entry.table.clone(),
            cut(entry.key.get(), KEY_CHARS),
            window(entry),
            entry.newest_ms.map_or_else(|| "-".to_owned(), time),
            cut(&kept(entry), KEPT_CHARS),
        ]
    });
    let mut text = table(&["table", "key", "window", "newest", "kept"], rows);
    if let Some(next) = &view.next {
        text += &format!("there may be more: --cursor {next}\n");
    }
    text
}

fn window(entry: &Entry) -> String {
    match (entry.start_ms, entry.end_ms) {
        (Some(start), Some(end)) => format!("{} to {}", time(start), time(end)),
        (Some(start), None) => format!("from {}", time(start)),
        _ => "-".to_owned(),
    }
}

fn kept(entry: &Entry) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(entry.state.as_ref().map(|state| state.get().to_owned()));
    parts.extend(entry.rows.map(|rows| format!("{rows} rows")));
    for timer in &entry.timers {
        parts.push(format!("timer {} at {}", timer.name, time(timer.at_ms)));
    }
    let count = entry.kept_rows.len() + entry.kept_rows_left_out;
    if count > 0 {
        let shown = entry.kept_rows.iter().take(KEPT_ROWS);
        let shown: Vec<&str> = shown.map(|kept| kept.row.get()).collect();
        parts.push(format!("{count} rows: {}", shown.join(" ")));
    }
    parts.join("; ")
}
