//! Has the server read rows: all of them or none, or without those that it refuses.

use std::io::Cursor;
use std::ops::Range;

use futures_util::SinkExt;
use tokio_postgres::{Client, Statement, ToStatement};

use super::Failure;
use super::session::Answered;
use crate::blame::Blame;

/// How rows get to the table.
pub enum Statements {
    /// All of them or none.
    Whole {
        /// Before each `COPY`.
        before: Option<String>,
        copy: String,
        /// After it.
        after: Option<String>,
    },
    /// Where the server may refuse some.
    Apart(Apart),
}

/// What keeps rows that the server refuses apart from others.
pub struct Apart {
    /// Before the first.
    pub begin: String,
    pub copy: String,
    /// Write rows that were copied to a table of the connection: those with the numbers from
    /// `$1` on and before `$2`. None where they were copied to the table itself.
    pub write: Vec<String>,
    /// Behind the last.
    pub end: Option<String>,
    /// Whether the rows have a transaction of their own.
    pub commits: bool,
}

/// Keeps what was written up to here when what comes is undone.
pub const SAVE: &str = "SAVEPOINT sluicebox";
const SAVE_AGAIN: &str = "RELEASE SAVEPOINT sluicebox; SAVEPOINT sluicebox";
const UNDO: &str = "ROLLBACK TO SAVEPOINT sluicebox";
const RELEASE: &str = "RELEASE SAVEPOINT sluicebox";

/// A row that the server refuses, by its number among those that were sent, and what it says.
pub type Refused = (usize, String);

/// Has the server read rows, each with its line end. Returns those that it refuses, in their
/// order, if it may refuse some without the others.
pub async fn copy(
    client: &Client,
    statements: &Statements,
    rows: Vec<u8>,
    answered: &Answered,
) -> Result<Vec<Refused>, Failure> {
    let (before, copy, after) = match statements {
        Statements::Apart(apart) => return copy_apart(client, apart, &rows, answered).await,
        Statements::Whole {
            before,
            copy,
            after,
        } => (before, copy, after),
    };
    if let Some(before) = before {
        client.batch_execute(before).await?;
    }
    copy_in(client, copy.as_str(), rows).await?;
    if let Some(after) = after {
        client.batch_execute(after).await?;
    }
    Ok(Vec::new())
}

async fn copy_in<T: ?Sized + ToStatement>(
    client: &Client,
    copy: &T,
    rows: Vec<u8>,
) -> Result<(), Failure> {
    let copying = client.copy_in(copy).await?;
    let mut copying = std::pin::pin!(copying);
    copying.send(Cursor::new(rows)).await?;
    copying.finish().await?;
    Ok(())
}

/// Behind a savepoint, to which the transaction goes back if rows are refused. Rows of a table
/// of the connection are there before they are written to the other one, so that only that is
/// done again.
async fn copy_apart(
    client: &Client,
    apart: &Apart,
    rows: &[u8],
    answered: &Answered,
) -> Result<Vec<Refused>, Failure> {
    let ends = Vec::from_iter(memchr::memchr_iter(b'\n', rows).map(|end| end + 1));
    client.batch_execute(&apart.begin).await?;
    let mut series = Series {
        client,
        rows,
        ends,
        answered,
        refused: Vec::new(),
    };
    let copy = client.prepare(&apart.copy).await?;
    series.try_all(&Step::Copy(copy)).await?;
    if !apart.write.is_empty() {
        client.batch_execute(SAVE_AGAIN).await?;
        let mut write = Vec::new();
        for statement in &apart.write {
            write.push(client.prepare(statement).await?);
        }
        series.try_all(&Step::Write(write)).await?;
    }
    let mut refused = series.refused;
    refused.sort_by_key(|(row, _)| *row);
    if let Some(end) = &apart.end {
        client.batch_execute(end).await?;
    }
    client.batch_execute(RELEASE).await?;
    if apart.commits {
        let committed = client.batch_execute("COMMIT").await;
        committed.map_err(|error| Failure::from(error).at_commit())?;
    }
    Ok(refused)
}

/// What is done with rows.
enum Step {
    Copy(Statement),
    Write(Vec<Statement>),
}

/// Rows that are written without those that the server refuses.
struct Series<'s> {
    client: &'s Client,
    rows: &'s [u8],
    /// Where each ends.
    ends: Vec<usize>,
    answered: &'s Answered,
    refused: Vec<Refused>,
}

impl Series<'_> {
    /// Does it with all rows. Where some are refused, fewer are tried, until one is known to
    /// be bad: the server does not always tell which one it is.
    async fn try_all(&mut self, step: &Step) -> Result<(), Failure> {
        let mut tries = Tries::of(self.ends.len());
        while let Some(range) = tries.next() {
            let tried = self.try_some(step, &range).await;
            self.answered.note();
            match tried {
                Ok(()) => {
                    tries.went_well(&range);
                    if tries.next().is_some() {
                        self.client.batch_execute(SAVE_AGAIN).await?;
                    }
                }
                Err(failure) if failure.fault.blame != Blame::Row => return Err(failure),
                Err(failure) => {
                    self.client.batch_execute(UNDO).await?;
                    if let Some(row) = tries.failed(&range) {
                        self.refused.push((row, failure.cause));
                    }
                }
            }
        }
        Ok(())
    }

    async fn try_some(&self, step: &Step, range: &Range<usize>) -> Result<(), Failure> {
        match step {
            Step::Copy(copy) => copy_in(self.client, copy, self.lines(range)).await,
            Step::Write(statements) => {
                let (start, end) = (range.start as i64, range.end as i64);
                for statement in statements {
                    self.client.execute(statement, &[&start, &end]).await?;
                }
                Ok(())
            }
        }
    }

    fn lines(&self, range: &Range<usize>) -> Vec<u8> {
        let start = match range.start {
            0 => 0,
            first => self.ends[first - 1],
        };
        self.rows[start..self.ends[range.end - 1]].to_vec()
    }
}

/// Which rows are tried next: half as many after a failure, twice as many after a success.
struct Tries {
    first: usize,
    size: usize,
    count: usize,
}

impl Tries {
    fn of(count: usize) -> Self {
        Tries {
            first: 0,
            size: count,
            count,
        }
    }

    fn next(&self) -> Option<Range<usize>> {
        let end = self.count.min(self.first + self.size);
        Some(self.first..end).filter(|range| !range.is_empty())
    }

    fn went_well(&mut self, range: &Range<usize>) {
        self.first = range.end;
        self.size *= 2;
    }

    /// Returns the row if it was the only one.
    fn failed(&mut self, range: &Range<usize>) -> Option<usize> {
        if range.len() > 1 {
            self.size = range.len() / 2;
            return None;
        }
        self.size = 1;
        self.first = range.end;
        Some(range.start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many rows are bad, the others are written once, in their order, and the
        /// work is bounded.
        #[test]
        fn bad_rows_are_found_by_trying(
            count in 1..300_usize,
            bad in prop::collection::btree_set(0..300_usize, 0..300),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < count).collect();
            let (mut written, mut refused, mut tried) = (Vec::new(), Vec::new(), 0);
            let mut tries = Tries::of(count);
            while let Some(range) = tries.next() {
                tried += 1;
                match bad.range(range.clone()).next() {
                    None => {
                        written.extend(range.clone());
                        tries.went_well(&range);
                    }
                    Some(_) => refused.extend(tries.failed(&range)),
                }
            }
            prop_assert_eq!(&refused, &Vec::from_iter(bad.iter().copied()));
            let good = (0..count).filter(|row| !bad.contains(row));
            prop_assert_eq!(written, Vec::from_iter(good));
            let levels = count.next_power_of_two().ilog2() as usize + 1;
            let most = (2 * count + levels).min(1 + 4 * levels * bad.len());
            prop_assert!(tried <= most, "{} tries, {} at most", tried, most);
        }
    }
}
