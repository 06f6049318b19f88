//! What became of a pipeline's dead letters: which wait to be replayed, and which were
//! replayed or dropped. The letters themselves stay in the pipeline's file of dead letters.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// More replays are not remembered.
const REPLAYS_MAX: usize = 100;
/// So many letters are remembered that are not in the file.
const GONE_MAX: usize = 1_000_000;

/// What is remembered of the dead letters of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Letters {
    /// The replay that is under way.
    pub open: Option<Replay>,
    /// What became of replays, oldest first.
    pub replays: Vec<ReplayRecord>,
    /// The letters that need nothing more, by id. One that is not in the file is not
    /// forgotten: its file may come back, and its row must not be read twice.
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

impl LetterStatus {
    /// Whether the letter needs nothing more.
    pub fn is_settled(self) -> bool {
        matches!(self, LetterStatus::Replayed | LetterStatus::Dropped)
    }
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

/// What became of each letter.
pub struct Statuses<'a> {
    replaying: HashSet<&'a str>,
    settled: &'a BTreeMap<String, Settled>,
}

impl Statuses<'_> {
    pub fn of(&self, letter: &str) -> LetterStatus {
        if self.replaying.contains(letter) {
            return LetterStatus::Replaying;
        }
        match self.settled.get(letter) {
            None => LetterStatus::Open,
            Some(Settled::Replayed) => LetterStatus::Replayed,
            Some(Settled::Dropped) => LetterStatus::Dropped,
        }
    }
}

impl Letters {
    pub fn statuses(&self) -> Statuses<'_> {
        let open = self.open.iter().flat_map(|replay| &replay.rows);
        Statuses {
            replaying: open.map(|row| row.letter.as_str()).collect(),
            settled: &self.settled,
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

    /// Whether more can be remembered, where so many of those that need nothing more are in
    /// the file. The error says what to do.
    pub fn check_room(&self, in_file: usize) -> Result<(), String> {
        match self.settled.len().saturating_sub(in_file) < GONE_MAX {
            true => Ok(()),
            false => Err(format!(
                "{GONE_MAX} letters are remembered as replayed or dropped that are not in the \
                 file any more, and no more can be: where the files that they were in never come \
                 back, delete the pipeline's letters.json in the service's data folder while the \
                 service does not run"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(letter: &str) -> ReplayRow {
        ReplayRow {
            letter: letter.to_owned(),
            node: "n".to_owned(),
            port: None,
            time_ms: None,
            row: "{}".to_owned(),
        }
    }

    #[test]
    fn what_became_of_a_letter_is_remembered() {
        let mut letters = Letters::default();
        letters.open(vec![row("a")], 1);
        let status = |letters: &Letters, id| letters.statuses().of(id);
        assert_eq!(status(&letters, "a"), LetterStatus::Replaying);
        assert_eq!(status(&letters, "b"), LetterStatus::Open);
        letters.done();
        letters.drop(["b".to_owned()]);
        letters.open(vec![row("c")], 2);
        letters.failed("it is not there".to_owned());
        let json = serde_json::to_string(&letters).expect("it has texts alone");
        let read: Letters = serde_json::from_str(&json).expect("as it was written");
        assert_eq!(read, letters);
        assert_eq!(status(&read, "a"), LetterStatus::Replayed);
        assert_eq!(status(&read, "b"), LetterStatus::Dropped);
        assert_eq!(status(&read, "c"), LetterStatus::Open);
    }

    #[test]
    fn so_many_letters_that_are_gone_are_remembered() {
        let mut letters = Letters::default();
        letters.drop((0..GONE_MAX).map(|number| format!("{number:016x}")));
        let full = letters.check_room(0).expect_err("there is no room");
        assert!(full.contains("letters.json"), "{full}");
        letters.check_room(1).expect("one is in the file");
    }
}
