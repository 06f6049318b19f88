//! Has the server read rows: all of them or none, or without those that it refuses.

use std::io::Cursor;
use std::ops::Range;

use futures_util::SinkExt;
use tokio_postgres::{Client, ToStatement};

use super::Failure;
use super::session::Answered;
use crate::blame::Blame;

/// How rows get to the table.
pub struct Statements {
    /// Before each `COPY`.
    pub before: Option<String>,
    pub copy: String,
    /// After it.
    pub after: Option<String>,
    /// Where the server may refuse some of the rows.
    pub apart: Option<Apart>,
}

/// What keeps rows that the server refuses apart from others, around the statements above.
pub struct Apart {
    /// Before the first.
    pub begin: String,
    /// Empties the table that rows go to first: what was undone is still in its file, and
    /// would be read again each time.
    pub empty: Option<String>,
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
    match &statements.apart {
        Some(apart) => copy_apart(client, statements, apart, &rows, answered).await,
        None => {
            write(client, statements, &*statements.copy, rows).await?;
            Ok(Vec::new())
        }
    }
}

async fn write<T: ?Sized + ToStatement>(
    client: &Client,
    statements: &Statements,
    copy: &T,
    rows: Vec<u8>,
) -> Result<(), Failure> {
    if let Some(before) = &statements.before {
        client.batch_execute(before).await?;
    }
    let copying = client.copy_in(copy).await?;
    let mut copying = std::pin::pin!(copying);
    copying.send(Cursor::new(rows)).await?;
    copying.finish().await?;
    if let Some(after) = &statements.after {
        client.batch_execute(after).await?;
    }
    Ok(())
}

/// Behind a savepoint, to which the transaction goes back if rows are refused. Fewer are tried
/// then, until one is known to be bad: the server does not always tell which one it is.
async fn copy_apart(
    client: &Client,
    statements: &Statements,
    apart: &Apart,
    rows: &[u8],
    answered: &Answered,
) -> Result<Vec<Refused>, Failure> {
    let ends = Vec::from_iter(memchr::memchr_iter(b'\n', rows).map(|end| end + 1));
    let lines = |range: &Range<usize>| {
        let start = match range.start {
            0 => 0,
            first => ends[first - 1],
        };
        rows[start..ends[range.end - 1]].to_vec()
    };
    client.batch_execute(&apart.begin).await?;
    let copy = client.prepare(&statements.copy).await?;
    let mut refused = Vec::new();
    let mut tries = Tries::of(ends.len());
    while let Some(range) = tries.next() {
        let written = write(client, statements, &copy, lines(&range)).await;
        answered.note();
        match written {
            Ok(()) => {
                tries.went_well(&range);
                if tries.next().is_some() {
                    client.batch_execute(SAVE_AGAIN).await?;
                }
            }
            Err(failure) if failure.fault.blame != Blame::Row => return Err(failure),
            Err(failure) => {
                client.batch_execute(UNDO).await?;
                match (tries.failed(&range), &apart.empty) {
                    (Some(row), _) => refused.push((row, failure.cause)),
                    (None, Some(empty)) => {
                        client.batch_execute(empty).await?;
                        client.batch_execute(SAVE_AGAIN).await?;
                    }
                    (None, None) => {}
                }
            }
        }
    }
    client.batch_execute(RELEASE).await?;
    if apart.commits {
        let committed = client.batch_execute("COMMIT").await;
        committed.map_err(|error| Failure::from(error).at_commit())?;
    }
    Ok(refused)
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
