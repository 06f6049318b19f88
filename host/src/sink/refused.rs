//! Rows that a sink cannot write, or that the system outside refuses, and what the sink's
//! `on_error` has become of them.

use std::ops::Range;

use crate::batch::Batch;
use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::dead_letter::{DeadLetter, OnError, of_row};
use crate::json::render_row;
use crate::text::truncate;

/// Trying a row again is not among them: whether all rows may pass later is for `[restart]`.
const POLICIES: &[(&str, OnError)] = &[
    ("fail", OnError::Fail),
    ("skip", OnError::Skip),
    ("dead_letter", OnError::DeadLetter),
];

/// Reads the `on_error` of a sink. `None` means that it has reported a mistake.
pub fn read_on_error(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<OnError> {
    match table.optional("on_error") {
        Some(value) => Some(value.choice(POLICIES, mistakes)?.into_inner()),
        None => Some(OnError::Fail),
    }
}

/// The line about it in a plan.
pub fn describe_refused(on_error: OnError) -> String {
    let policy = match on_error {
        OnError::Fail => "fail",
        OnError::Skip => "skip",
        OnError::DeadLetter | OnError::Retry(_) => "dead letter",
    };
    format!("refused rows: {policy}")
}

/// Rows that a sink could not write, and goes on without.
#[derive(Debug, Default)]
pub struct RefusedRows {
    pub rows: u64,
    /// Of those that are to become such.
    pub dead_letters: Vec<DeadLetter>,
}

/// Refuses the rows of a sink as its `on_error` says.
pub struct Refusals {
    node: String,
    on_error: OnError,
    /// Those that nobody has taken yet.
    refused: RefusedRows,
    /// The first of them that is skipped, and why.
    skipped: Option<String>,
}

impl Refusals {
    pub fn new(node: &str, on_error: OnError) -> Self {
        Refusals {
            node: node.to_owned(),
            on_error,
            refused: RefusedRows::default(),
            skipped: None,
        }
    }

    /// Whether the sink goes on without rows that are refused.
    pub fn goes_on(&self) -> bool {
        self.on_error != OnError::Fail
    }

    /// Goes on without a row, or returns the cause of the sink's failure.
    pub fn refuse_row(&mut self, batch: &Batch, row: usize, why: &str) -> Result<(), String> {
        self.refuse(std::iter::once((batch, row)), why)
    }

    /// Goes on without rows, or returns the cause of the sink's failure.
    pub fn refuse<'b>(
        &mut self,
        rows: impl Iterator<Item = (&'b Batch, usize)>,
        why: &str,
    ) -> Result<(), String> {
        let mut rows = rows.peekable();
        let first = rows.peek().map(|(batch, row)| shown(batch, *row));
        let first = first.unwrap_or_default();
        match self.on_error {
            OnError::Fail => {
                return Err(match rows.count() {
                    1 => format!("{why}; the row is {first}"),
                    count => format!("{why}; the first of {count} rows is {first}"),
                });
            }
            OnError::Skip => {
                let told = || format!("{why}: {first}");
                self.skipped.get_or_insert_with(told);
                self.refused.rows += rows.count() as u64;
            }
            OnError::DeadLetter | OnError::Retry(_) => {
                let known = self.refused.dead_letters.len();
                let letters = rows.map(|(batch, row)| DeadLetter {
                    node: self.node.clone(),
                    kind: "refused".to_owned(),
                    error: match batch.is_taken_back(row) {
                        true => format!("{why}; the row was to be taken back"),
                        false => why.to_owned(),
                    },
                    ..of_row(batch, row)
                });
                self.refused.dead_letters.extend(letters);
                self.refused.rows += (self.refused.dead_letters.len() - known) as u64;
            }
        }
        Ok(())
    }

    /// The rows that were refused since the last call.
    pub fn take(&mut self) -> RefusedRows {
        if let Some(first) = self.skipped.take() {
            let (node, rows) = (&self.node, self.refused.rows);
            tracing::warn!("sink `{node}`: skipped {rows} rows; the first: {first}");
        }
        std::mem::take(&mut self.refused)
    }
}

/// Rows that are on their way, in their batches and in their order.
#[derive(Debug, Default)]
pub struct SentRows(Vec<(Batch, Range<usize>)>);

impl SentRows {
    pub fn push(&mut self, batch: &Batch, rows: Range<usize>) {
        if !rows.is_empty() {
            self.0.push((batch.clone(), rows));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Batch, usize)> {
        let batches = self.0.iter();
        batches.flat_map(|(batch, rows)| rows.clone().map(move |row| (batch, row)))
    }
}

/// How much of a row a message shows.
const SHOWN_BYTES_MAX: usize = 300;

/// A row that cannot be written, as a message shows it.
pub fn shown(batch: &Batch, row: usize) -> String {
    let mut shown = render_row(batch, row);
    truncate(&mut shown, SHOWN_BYTES_MAX);
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;

    use super::*;
    use crate::schema::{DataType, Field, Schema};

    fn batch(ids: Vec<i64>) -> Batch {
        Batch {
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            times: vec![0; ids.len()].into(),
            columns: vec![Arc::new(Int64Array::from(ids))],
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    /// Refuses the rows 0 and 2 of two batches, and the others of the second.
    fn refuse(on_error: OnError) -> (Result<(), String>, RefusedRows) {
        let mut sent = SentRows::default();
        sent.push(&batch(vec![1, 2]), 0..1);
        sent.push(&batch(vec![3]), 0..0);
        sent.push(&batch(vec![4, 5, 6]), 1..3);
        let mut refusals = Refusals::new("out", on_error);
        let done = refusals.refuse(sent.iter(), "no room");
        (done, refusals.take())
    }

    #[test]
    fn refused_rows_are_as_the_policy_says() {
        let (done, refused) = refuse(OnError::Fail);
        assert_eq!(
            done,
            Err("no room; the first of 3 rows is {\"id\":1}".to_owned())
        );
        assert_eq!(refused.rows, 0);
        let (done, refused) = refuse(OnError::Skip);
        assert_eq!((done, refused.rows), (Ok(()), 3));
        assert_eq!(refused.dead_letters, []);
        let (done, refused) = refuse(OnError::DeadLetter);
        assert_eq!((done, refused.rows), (Ok(()), 3));
        let told = refused.dead_letters.iter().map(|letter| {
            let (node, kind, error) = (&letter.node, &letter.kind, &letter.error);
            let payload = letter.payload.as_deref().unwrap_or_default();
            format!("{node} {kind} {error} {payload}")
        });
        assert_eq!(
            Vec::from_iter(told),
            [
                "out refused no room {\"id\":1}",
                "out refused no room {\"id\":5}",
                "out refused no room {\"id\":6}"
            ]
        );
    }

    #[test]
    fn what_was_taken_is_not_there_again() {
        let mut refusals = Refusals::new("out", OnError::Skip);
        let refused = batch(vec![7]);
        refusals.refuse([(&refused, 0)].into_iter(), "why").unwrap();
        assert_eq!(refusals.take().rows, 1);
        assert_eq!(refusals.take().rows, 0);
    }

    #[test]
    fn a_letter_says_that_its_row_was_to_be_taken_back() {
        let mut refusals = Refusals::new("out", OnError::DeadLetter);
        let mut refused = batch(vec![7, 8]);
        refused.taken_back = Some(vec![true, false].into());
        let rows = [(&refused, 0), (&refused, 1)];
        refusals.refuse(rows.into_iter(), "why").unwrap();
        let errors = refusals.take().dead_letters.into_iter();
        let errors = Vec::from_iter(errors.map(|letter| letter.error));
        assert_eq!(errors, ["why; the row was to be taken back", "why"]);
    }
}
