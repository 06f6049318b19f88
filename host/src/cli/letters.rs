//! `sluicebox letters`: lists, replays and drops dead letters of a pipeline on a running host.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::CliError;
use super::client::{Client, HostArguments};
use super::format::{ago, cut, table};
use crate::clock::{Clock, SystemClock};
use crate::service::letters::{ReplayOutcome, ReplayRecord, WantedStatus};

#[derive(Subcommand)]
pub enum LettersCommand {
    /// List dead letters, the newest first
    List {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        of: Of,
        /// What became of them
        #[arg(long, value_enum, default_value_t)]
        status: WantedStatus,
        /// How many are shown at most: 1 to 1000
        #[arg(long, default_value = "20", value_name = "LETTERS")]
        limit: usize,
        /// Where to go on, as the answer before has said
        #[arg(long)]
        cursor: Option<String>,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Have the rows of dead letters go through the pipeline again, and wait for that
    Replay {
        /// The pipeline's name
        pipeline: String,
        /// The letters' ids
        #[arg(value_name = "LETTER", conflicts_with_all = ["all", "node", "kind"])]
        letters: Vec<String>,
        /// All that are open
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        of: Of,
        /// A row to take in place of that of the one letter, as JSON
        #[arg(long, value_name = "JSON", conflicts_with_all = ["all", "node", "kind"])]
        row: Option<String>,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Note that dead letters need nothing more; they stay in their file
    Drop {
        /// The pipeline's name
        pipeline: String,
        /// The letters' ids
        #[arg(value_name = "LETTER", required = true)]
        letters: Vec<String>,
        #[command(flatten)]
        host: HostArguments,
    },
    /// List the replays, and what became of them
    Replays {
        /// The pipeline's name
        pipeline: String,
        #[command(flatten)]
        host: HostArguments,
    },
}

#[derive(Args)]
pub struct Of {
    /// Only of this node
    #[arg(long)]
    node: Option<String>,
    /// Only of this kind, such as `decode`, `reject` or `trap`
    #[arg(long)]
    kind: Option<String>,
}

/// How long a replay may take before that is told.
const REPLAY_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much of an error and of a row is shown; `--json` has all.
const ERROR_CHARS: usize = 80;
const ROW_CHARS: usize = 100;

#[derive(Deserialize)]
struct View {
    letters: Vec<Letter>,
    count: usize,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct Letter {
    id: String,
    status: String,
    node: String,
    kind: String,
    error: String,
    row: Option<String>,
    payload: Option<String>,
    /// Why it cannot be replayed as it is.
    stays: Option<String>,
}

#[derive(Deserialize)]
struct Taken {
    replay: u64,
    letters: usize,
    left: Vec<Left>,
    more: usize,
    until: Option<String>,
}

#[derive(Deserialize)]
struct Left {
    id: String,
    why: String,
}

pub fn letters(command: &LettersCommand) -> Result<(), CliError> {
    match command {
        LettersCommand::List {
            pipeline,
            of,
            status,
            limit,
            cursor,
            host,
        } => {
            let client = host.client()?;
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str()), ("status", status.name())];
            let given = [("node", &of.node), ("kind", &of.kind), ("cursor", cursor)];
            for (name, value) in given {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            let answer = client.get(&[pipeline, "dead-letters"], &query)?;
            client.show(&answer, to_text)
        }
        LettersCommand::Replay {
            pipeline,
            letters,
            all,
            of,
            row,
            host,
        } => {
            let wanted = wanted(letters, *all, of, row.as_deref())?;
            replay(&host.client()?, pipeline, wanted)
        }
        LettersCommand::Drop {
            pipeline,
            letters,
            host,
        } => {
            let client = host.client()?;
            let body = json!({ "letters": letters }).to_string();
            client.post(&[pipeline, "dead-letters", "drop"], Some(body))?;
            client.tell("noted; they stay in the pipeline's file of dead letters\n")
        }
        LettersCommand::Replays { pipeline, host } => {
            let client = host.client()?;
            client.show(&client.get(&[pipeline, "replays"], &[])?, replays_to_text)
        }
    }
}

fn to_text(view: View) -> String {
    if view.letters.is_empty() {
        return "no such dead letters\n".to_owned();
    }
    let rows = view.letters.iter().map(|letter| {
        let row = letter.row.as_ref().or(letter.payload.as_ref());
        let stays = letter.stays.as_ref().map(|_| "stays".to_owned());
        vec![
            letter.id.clone(),
            stays.unwrap_or_else(|| letter.status.clone()),
            letter.node.clone(),
            letter.kind.clone(),
            cut(&letter.error, ERROR_CHARS),
            cut(row.map_or("-", String::as_str), ROW_CHARS),
        ]
    });
    let mut text = table(&["letter", "status", "node", "kind", "error", "row"], rows);
    text += &format!("{} of {}\n", view.letters.len(), view.count);
    if let Some(letter) = view.letters.iter().find(|letter| letter.stays.is_some()) {
        let why = letter.stays.as_deref().unwrap_or_default();
        text += &format!("{} cannot be replayed as it is: {why}\n", letter.id);
    }
    if let Some(next) = view.next {
        text += &format!("there are older ones: --cursor {next}\n");
    }
    text
}

/// Which letters to replay.
enum Wanted<'a> {
    /// The body of the request.
    Named(String),
    Matching(&'a Of),
}

fn wanted<'a>(
    letters: &[String],
    all: bool,
    of: &'a Of,
    row: Option<&str>,
) -> Result<Wanted<'a>, CliError> {
    if all || of.node.is_some() || of.kind.is_some() {
        return Ok(Wanted::Matching(of));
    }
    if letters.is_empty() {
        return Err(CliError::Usage(anyhow!(
            "name letters by their ids, which `sluicebox letters list` shows, or give --all, \
             --node or --kind"
        )));
    }
    let Some(row) = row else {
        let letters: Vec<_> = letters.iter().map(|id| json!({ "id": id })).collect();
        return Ok(Wanted::Named(json!({ "letters": letters }).to_string()));
    };
    let [id] = letters else {
        return Err(CliError::Usage(anyhow!(
            "--row is the row of one letter, and {} are named",
            letters.len()
        )));
    };
    // Numbers stay as they are written.
    let row: &RawValue = serde_json::from_str(row)
        .map_err(|error| CliError::Usage(anyhow!("--row is not JSON: {error}")))?;
    let id = json!(id);
    let body = format!("{{\"letters\":[{{\"id\":{id},\"row\":{row}}}]}}");
    Ok(Wanted::Named(body))
}

/// Replays letters, part by part, and waits for that.
fn replay(client: &Client, pipeline: &str, wanted: Wanted<'_>) -> Result<(), CliError> {
    let of = match wanted {
        Wanted::Named(body) => {
            replay_part(client, pipeline, body)?;
            None
        }
        Wanted::Matching(of) => Some(of),
    };
    // Letters that come meanwhile do not count: rows that fail again are letters again.
    let mut until = None;
    while let Some(Of { node, kind }) = of {
        let matching = json!({ "node": node, "kind": kind, "until": until });
        let body = json!({ "matching": matching }).to_string();
        let taken = replay_part(client, pipeline, body)?;
        match taken.more {
            0 => break,
            more => client.tell(&format!("{more} more match\n"))?,
        }
        until = taken.until;
    }
    client.tell("all were read again; those that have failed again are new letters\n")
}

fn replay_part(client: &Client, pipeline: &str, body: String) -> Result<Taken, CliError> {
    let answer = client.post(&[pipeline, "dead-letters", "replay"], Some(body))?;
    client.show(&answer, |taken: Taken| {
        let mut text = format!("replay {}: {} letters\n", taken.replay, taken.letters);
        for left in taken.left {
            text += &format!("  {} is left: {}\n", left.id, left.why);
        }
        text
    })?;
    let taken: Taken = answer.read()?;
    let replay = taken.replay;
    let until = Instant::now() + REPLAY_MAX;
    while Instant::now() < until {
        let replays: Vec<ReplayRecord> = client.get(&[pipeline, "replays"], &[])?.read()?;
        let found = replays.into_iter().find(|found| found.number == replay);
        let Some(found) = found else {
            break;
        };
        match found.outcome {
            ReplayOutcome::Open => std::thread::sleep(LOOK_EVERY),
            ReplayOutcome::Done => return Ok(taken),
            ReplayOutcome::Failed => {
                let why = found.why.unwrap_or_default();
                return Err(CliError::Failed(anyhow!(
                    "the replay could not be done, and its letters are open again: {why}"
                )));
            }
        }
    }
    Err(CliError::Failed(anyhow!(
        "replay {replay} is not done yet: `sluicebox letters replays {pipeline}` shows when it is"
    )))
}

fn replays_to_text(replays: Vec<ReplayRecord>) -> String {
    if replays.is_empty() {
        return "no replays yet\n".to_owned();
    }
    let now_ms = SystemClock.now_ms();
    let rows = replays.into_iter().map(|replay| {
        let outcome = match replay.outcome {
            ReplayOutcome::Open => "open",
            ReplayOutcome::Done => "done",
            ReplayOutcome::Failed => "failed",
        };
        vec![
            replay.number.to_string(),
            ago(replay.at_ms, now_ms),
            replay.letters.to_string(),
            outcome.to_owned(),
            replay.why.unwrap_or_default(),
        ]
    });
    table(&[">replay", "when", ">letters", "outcome", ""], rows)
}
