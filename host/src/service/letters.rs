//! What became of a pipeline's dead letters: which wait to be replayed, and which were
//! replayed or dropped. The letters themselves stay in the pipeline's file of dead letters.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// More replays are not remembered.
const REPLAYS_MAX: usize = 100;

/// What is remembered of the dead letters of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Letters {
    /// The replay that is under way.
    pub open: Option<Replay>,
    /// What became of replays, oldest first.
    pub replays: Vec<ReplayRecord>,
    /// The letters that need nothing more, by id.
    settled: BTreeMap<String, Settled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Settled {
    Replayed,
    Dropped,
}

/// Rows of dead letters that go through the pipeline again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    pub number: u64,
    /// Whether a checkpoint has all letters, and the next run reads the rows. Until then a
    /// crash may take letters back.
    pub is_begun: bool,
    pub rows: Vec<ReplayRow>,
}

/// A row that goes where it has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRow {
    /// The letter's id.
    pub letter: String,
    /// The node that it goes to; of a source, to all that read it.
    pub node: String,
    /// The input, by the port's name.
    pub port: Option<String>,
    /// Its event time, in ms; absent where the row has it.
    pub time_ms: Option<i64>,
    /// The row as JSON.
    pub row: String,
}

/// A replay, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReplayRecord {
    pub number: u64,
    pub at_ms: i64,
    /// How many letters it has.
    pub letters: usize,
    pub outcome: ReplayOutcome,
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// It waits for a checkpoint, or its rows are read.
    Open,
    /// All of its rows were read, and a checkpoint has what they did.
    Done,
    /// It could not be done: its letters are open again, except for those whose rows a
    /// checkpoint has, as after a savepoint meanwhile.
    Failed,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    /// Nothing was done about it.
    Open,
    /// It is being replayed.
    Replaying,
    /// Its row went through the pipeline again; if it failed again, that is another letter.
    Replayed,
    /// Somebody has said that it needs nothing.
    Dropped,
}

/// Which letters are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WantedStatus {
    #[default]
    Open,
    Replaying,
    Replayed,
    Dropped,
    All,
}

impl WantedStatus {
    pub fn has(self, status: LetterStatus) -> bool {
        match self {
            WantedStatus::All => true,
            WantedStatus::Open => status == LetterStatus::Open,
            WantedStatus::Replaying => status == LetterStatus::Replaying,
            WantedStatus::Replayed => status == LetterStatus::Replayed,
            WantedStatus::Dropped => status == LetterStatus::Dropped,
        }
    }

    /// As it is written in requests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            WantedStatus::Open => "open",
            WantedStatus::Replaying => "replaying",
            WantedStatus::Replayed => "replayed",
            WantedStatus::Dropped => "dropped",
            WantedStatus::All => "all",
        }
    }
}

impl Letters {
    pub fn status(&self, letter: &str) -> LetterStatus {
        let mut open = self.open.iter().flat_map(|replay| &replay.rows);
        if open.any(|row| row.letter == letter) {
            return LetterStatus::Replaying;
        }
        match self.settled.get(letter) {
            None => LetterStatus::Open,
            Some(Settled::Replayed) => LetterStatus::Replayed,
            Some(Settled::Dropped) => LetterStatus::Dropped,
        }
    }

    /// Opens a replay. There is none open.
    pub fn open(&mut self, rows: Vec<ReplayRow>, at_ms: i64) -> u64 {
        let number = self.replays.last().map_or(1, |last| last.number + 1);
        if self.replays.len() == REPLAYS_MAX {
            self.replays.remove(0);
        }
        self.replays.push(ReplayRecord {
            number,
            at_ms,
            letters: rows.len(),
            outcome: ReplayOutcome::Open,
            why: None,
        });
        self.open = Some(Replay {
            number,
            is_begun: false,
            rows,
        });
        number
    }

    /// A checkpoint has all letters of the open replay. Returns whether there is one.
    pub fn begin(&mut self) -> bool {
        if let Some(replay) = &mut self.open {
            replay.is_begun = true;
        }
        self.open.is_some()
    }

    /// All rows of the open replay were read.
    pub fn done(&mut self) {
        let rows = self.open.take().into_iter().flat_map(|replay| replay.rows);
        let settled = rows.map(|row| (row.letter, Settled::Replayed));
        self.settled.extend(settled);
        if let Some(last) = self.replays.last_mut() {
            last.outcome = ReplayOutcome::Done;
        }
    }

    /// The open replay cannot be done, and no checkpoint has more of its rows.
    pub fn failed(&mut self, why: String) {
        self.open = None;
        if let Some(last) = self.replays.last_mut() {
            last.outcome = ReplayOutcome::Failed;
            last.why = Some(why);
        }
    }

    /// The open replay cannot go on: these of its letters were replayed, and the others are
    /// open again.
    pub fn given_up(&mut self, replayed: &BTreeSet<String>, why: String) {
        let settled = replayed.iter().map(|id| (id.clone(), Settled::Replayed));
        self.settled.extend(settled);
        self.failed(why);
    }

    pub fn drop(&mut self, letters: impl IntoIterator<Item = String>) {
        let dropped = letters.into_iter().map(|id| (id, Settled::Dropped));
        self.settled.extend(dropped);
    }

    /// Forgets what became of letters that are not in the file any more.
    pub fn keep(&mut self, there: &BTreeSet<String>) {
        self.settled.retain(|id, _| there.contains(id));
    }
}
