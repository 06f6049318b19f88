//! Calls into an operator that survive its failures: a new instance, the batch
//! cut in halves down to the guilty row, and that row given to the node's policy.
//!
//! A plugin keeps nothing between calls, so a call that failed has happened to
//! nobody and may be made again in parts. Parts of a batch give the same rows
//! as the whole.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_empty_array};
use arrow_select::concat::concat;

use super::dead_letter;
use super::{OperatorError, Outbox};
use crate::batch::Batch;
use crate::logic::{
    Columns, Factory, Failure, FailureKind, Kind, Logic, Output, Reject, Rows, States, Transformed,
};
use crate::plan::{OnError, OperatorPlan};

/// An operator's instance behind the node's error policy. Counts, and dead
/// letters where the policy asks for them, go to the outbox; an `Err` ends the
/// pipeline (`on_error = "fail"`, or the plugin cannot be opened any more).
pub struct Guard {
    node: Arc<str>,
    factory: Arc<dyn Factory>,
    on_error: OnError,
    /// Absent before the first call and after a failure.
    instance: Option<Box<dyn Logic>>,
}

/// What came of folding rows into states.
#[derive(Debug)]
pub struct Folded {
    /// One row a group.
    pub states: Vec<ArrayRef>,
    /// Rows that were rejected or failed on, ascending. They changed no state:
    /// a new group with no other row has the default state and nothing to tell.
    pub lost: Vec<u32>,
}

/// What a failure is about, for the dead letter.
enum Subject<'a> {
    Row(&'a Batch, u32),
    /// A state: its key and window as JSON.
    State(String),
}

impl Guard {
    /// Opens the first instance, so that a plugin that refuses says so at once.
    pub fn new(node: &str, plan: &OperatorPlan) -> Result<Self, OperatorError> {
        let mut guard = Guard {
            node: node.into(),
            factory: plan.factory.clone(),
            on_error: plan.on_error,
            instance: None,
        };
        guard.instance()?;
        Ok(guard)
    }

    /// Runs a filter or transform. `input` are the columns of `batch` that the
    /// operator reads, at least one row. Rows rejected or failed on have no output.
    pub fn transform(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        out: &mut Outbox,
    ) -> Result<Output, OperatorError> {
        let mut parts = Vec::new();
        let mut pending = vec![0..batch.rows()];
        while let Some(range) = pending.pop() {
            let columns = slice(input, &range);
            let called = self.call(range.len() == 1, |logic| {
                logic.transform(Columns {
                    rows: range.len(),
                    columns: &columns,
                })
            })?;
            match called {
                Ok(answer) => {
                    self.give_up_rejects(batch, range.start, &answer.rejects, out)?;
                    parts.push((range.start, answer));
                }
                Err(failure) if range.len() <= 1 => {
                    self.give_up(&Subject::Row(batch, range.start as u32), &failure, out)?;
                }
                Err(_) => pending.extend(halves(&range)),
            }
        }
        self.join_outputs(parts)
    }

    /// Folds rows, at least one, into states. `groups` has one entry a row.
    pub fn accumulate(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
    ) -> Result<Folded, OperatorError> {
        let (folded, _) = self.fold(batch, input, groups, states, out, |logic, i, g, s| {
            logic.accumulate(i, g, s).map(|done| (done, None))
        })?;
        Ok(folded)
    }

    /// The same, and the result after each row that was taken; parents are rows.
    pub fn accumulate_each(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
    ) -> Result<(Folded, Rows), OperatorError> {
        let (folded, results) =
            self.fold(batch, input, groups, states, out, |logic, i, g, s| {
                logic
                    .accumulate_each(i, g, s)
                    .map(|(done, rows)| (done, Some(rows)))
            })?;
        Ok((folded, self.join_rows(results)?))
    }

    /// One state a group. A group whose merge fails keeps its first state and
    /// counts as one failed row; `subject` renders a group (its key and window
    /// as JSON) for the dead letter.
    pub fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let group_count = groups.last().map_or(0, |last| *last as usize + 1);
        let mut parts = Vec::new();
        let mut pending = vec![0..group_count];
        while let Some(range) = pending.pop() {
            let rows = groups.partition_point(|&group| (group as usize) < range.start)
                ..groups.partition_point(|&group| (group as usize) < range.end);
            let columns = slice(states.columns, &rows);
            let local: Vec<u32> = groups[rows.clone()]
                .iter()
                .map(|group| group - range.start as u32)
                .collect();
            let called = self.call(range.len() == 1, |logic| {
                logic.merge(
                    Columns {
                        rows: rows.len(),
                        columns: &columns,
                    },
                    &local,
                )
            })?;
            match called {
                Ok(merged) => parts.push(merged),
                Err(failure) if range.len() <= 1 => {
                    let subject = Subject::State(subject(range.start as u32));
                    self.give_up(&subject, &failure, out)?;
                    parts.push(slice(
                        states.columns,
                        &(rows.start..rows.start + range.len()),
                    ));
                }
                Err(_) => pending.extend(halves(&range)),
            }
        }
        self.join_columns(parts)
    }

    /// Results of states; a state whose finish fails has none. `subject`
    /// renders a state's key and window as JSON.
    pub fn finish(
        &mut self,
        states: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Rows, OperatorError> {
        let mut parts = Vec::new();
        let mut pending = vec![0..states.rows];
        while let Some(range) = pending.pop() {
            let columns = slice(states.columns, &range);
            let called = self.call(range.len() == 1, |logic| {
                logic.finish(
                    Columns {
                        rows: range.len(),
                        columns: &columns,
                    },
                    &starts[range.clone()],
                    &ends[range.clone()],
                )
            })?;
            match called {
                Ok(rows) => parts.push((range.start, rows)),
                Err(failure) if range.len() <= 1 => {
                    let subject = Subject::State(subject(range.start as u32));
                    self.give_up(&subject, &failure, out)?;
                }
                Err(_) => pending.extend(halves(&range)),
            }
        }
        self.join_rows(parts)
    }

    /// Parts of a batch are folded in order, each on the states that the one
    /// before has left.
    fn fold(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
        accumulate: impl Fn(
            &mut dyn Logic,
            Columns<'_>,
            &[u32],
            States<'_>,
        ) -> Result<(crate::logic::Accumulated, Option<Rows>), Failure>,
    ) -> Result<(Folded, Vec<(usize, Rows)>), OperatorError> {
        let mut current = states.existing.columns.to_vec();
        let mut existing = states.existing.rows;
        let mut lost = Vec::new();
        let mut results = Vec::new();
        let mut pending = vec![0..batch.rows()];
        while let Some(range) = pending.pop() {
            let columns = slice(input, &range);
            let called = self.call(range.len() == 1, |logic| {
                accumulate(
                    logic,
                    Columns {
                        rows: range.len(),
                        columns: &columns,
                    },
                    &groups[range.clone()],
                    States {
                        existing: Columns {
                            rows: existing,
                            columns: &current,
                        },
                        groups: states.groups,
                    },
                )
            })?;
            match called {
                Ok((done, rows)) => {
                    self.give_up_rejects(batch, range.start, &done.rejects, out)?;
                    lost.extend(done.rejects.iter().map(|r| r.row + range.start as u32));
                    results.extend(rows.map(|rows| (range.start, rows)));
                    current = done.states;
                    existing = states.groups;
                }
                Err(failure) if range.len() <= 1 => {
                    self.give_up(&Subject::Row(batch, range.start as u32), &failure, out)?;
                    lost.push(range.start as u32);
                }
                Err(_) => pending.extend(halves(&range)),
            }
        }
        if existing < states.groups {
            // Every row failed: the groups are what no row at all leaves.
            current = self.defaults(input, &current, existing, states.groups)?;
        }
        Ok((
            Folded {
                states: current,
                lost,
            },
            results,
        ))
    }

    /// The states of groups after no rows: an accumulate of nothing.
    fn defaults(
        &mut self,
        input: &[ArrayRef],
        existing_columns: &[ArrayRef],
        existing: usize,
        groups: usize,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let columns = slice(input, &(0..0));
        let called = self.call(true, |logic| {
            logic.accumulate(
                Columns {
                    rows: 0,
                    columns: &columns,
                },
                &[],
                States {
                    existing: Columns {
                        rows: existing,
                        columns: existing_columns,
                    },
                    groups,
                },
            )
        })?;
        called
            .map(|done| done.states)
            .map_err(|failure| self.fatal(format!("failed on no rows at all: {failure}")))
    }

    /// One call, on a new instance when the last one is gone. `last` says that
    /// the input cannot be cut further: then the policy's retries are made.
    fn call<T>(
        &mut self,
        last: bool,
        mut call: impl FnMut(&mut dyn Logic) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, OperatorError> {
        let mut attempts_left = match self.on_error {
            OnError::Retry(more) if last => more,
            _ => 0,
        };
        loop {
            match call(self.instance()?) {
                Ok(answer) => return Ok(Ok(answer)),
                Err(failure) => {
                    self.instance = None;
                    if attempts_left == 0 {
                        return Ok(Err(failure));
                    }
                    attempts_left -= 1;
                }
            }
        }
    }

    fn instance(&mut self) -> Result<&mut dyn Logic, OperatorError> {
        if self.instance.is_none() {
            let opened = self.factory.instance().map_err(|failure| {
                self.fatal(format!("its plugin could not be opened: {failure}"))
            })?;
            self.instance = Some(opened);
        }
        match &mut self.instance {
            Some(instance) => Ok(instance.as_mut()),
            None => unreachable!("it was just opened"),
        }
    }

    fn give_up_rejects(
        &self,
        batch: &Batch,
        first_row: usize,
        rejects: &[Reject],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        for reject in rejects {
            out.counts.rejected += 1;
            let row = first_row as u32 + reject.row;
            self.apply_policy(
                &Subject::Row(batch, row),
                "reject",
                &reject.reason,
                None,
                out,
            )?;
        }
        Ok(())
    }

    fn give_up(
        &self,
        subject: &Subject<'_>,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        out.counts.failed += 1;
        let panic = failure.panic.as_deref();
        self.apply_policy(
            subject,
            kind_name(failure.kind),
            &failure.message,
            panic,
            out,
        )
    }

    fn apply_policy(
        &self,
        subject: &Subject<'_>,
        kind: &str,
        error: &str,
        panic: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut letter = match subject {
            Subject::Row(batch, row) => dead_letter::of_row(batch, *row as usize),
            Subject::State(rendered) => dead_letter::of_state(rendered),
        };
        letter.node = self.node.to_string();
        letter.plugin = Some(self.factory.info().name.clone());
        letter.plugin_digest = Some(self.factory.digest().to_owned());
        letter.kind = kind.to_owned();
        letter.error = error.to_owned();
        letter.panic = panic.map(str::to_owned);
        match self.on_error {
            OnError::Fail => Err(self.fatal(dead_letter::sentence(&letter))),
            OnError::Skip => {
                tracing::warn!(operator = %self.node, "skipped: {}", dead_letter::sentence(&letter));
                Ok(())
            }
            OnError::DeadLetter | OnError::Retry(_) => {
                out.dead_letters.push(letter);
                Ok(())
            }
        }
    }

    fn join_outputs(&self, mut parts: Vec<(usize, Transformed)>) -> Result<Output, OperatorError> {
        if parts.len() == 1 && parts[0].0 == 0 {
            let (_, only) = parts.remove(0);
            return Ok(only.output);
        }
        let mut selection = Vec::new();
        let mut rows = Vec::new();
        for (first, part) in parts {
            match part.output {
                Output::Selection(kept) => {
                    selection.extend(kept.iter().map(|row| row + first as u32));
                }
                Output::Rows(more) => rows.push((first, more)),
            }
        }
        if self.factory.info().kind == Kind::Filter {
            return Ok(Output::Selection(selection));
        }
        self.join_rows(rows).map(Output::Rows)
    }

    /// Parts with the row at which each started.
    fn join_rows(&self, mut parts: Vec<(usize, Rows)>) -> Result<Rows, OperatorError> {
        if parts.is_empty() {
            let output = &self.factory.info().output.fields;
            let empty = output
                .iter()
                .map(|field| new_empty_array(&field.data_type.to_arrow()));
            return Ok(Rows {
                parents: Vec::new(),
                columns: empty.collect(),
            });
        }
        if parts.len() == 1 && parts[0].0 == 0 {
            return Ok(parts.remove(0).1);
        }
        let mut parents = Vec::new();
        let mut columns = Vec::new();
        for (first, part) in parts {
            parents.extend(part.parents.iter().map(|parent| parent + first as u32));
            columns.push(part.columns);
        }
        Ok(Rows {
            parents,
            columns: self.join_columns(columns)?,
        })
    }

    fn join_columns(&self, mut parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>, OperatorError> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let count = parts.first().map_or(0, Vec::len);
        (0..count)
            .map(|column| {
                let arrays: Vec<&dyn Array> =
                    parts.iter().map(|part| part[column].as_ref()).collect();
                concat(&arrays).map_err(|error| self.fatal(error.to_string()))
            })
            .collect()
    }

    fn fatal(&self, message: String) -> OperatorError {
        OperatorError {
            node: self.node.to_string(),
            message,
        }
    }
}

/// In the order in which a stack gives them back: the first half on top.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}

fn slice(columns: &[ArrayRef], rows: &Range<usize>) -> Vec<ArrayRef> {
    columns
        .iter()
        .map(|column| column.slice(rows.start, rows.len()))
        .collect()
}

fn kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Trap => "trap",
        FailureKind::Deadline => "deadline",
        FailureKind::Memory => "memory",
        FailureKind::OutputSize => "output_size",
        FailureKind::Contract => "contract",
        FailureKind::Open => "open",
    }
}

#[cfg(test)]
mod tests;
