use std::ops::Range;

use arrow_array::ArrayRef;

use super::{AggregateGuard, Guard, Parts, Subject, slice};
use crate::batch::Batch;
use crate::logic::{Accumulated, Aggregate, Columns, Failure, Instance, Rows, States};
use crate::operator::{OperatorError, Outbox};
use crate::plan::OperatorPlan;

/// The outcome of folding rows into states.
#[derive(Debug)]
pub struct Folded {
    /// One row a group.
    pub states: Vec<ArrayRef>,
    /// Rows that were rejected or failed on, ascending. They changed no state: a new
    /// group that has only such rows has the default state, and no result.
    pub lost: Vec<u32>,
}

impl AggregateGuard {
    pub fn new(node: &str, plan: &OperatorPlan) -> Result<Self, OperatorError> {
        Guard::open(node, plan, Instance::aggregate, |logic| logic.log_failed())
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

    /// Like `accumulate`, with the result after each row; parents are rows.
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

    /// Merges the states of each group into one. A group whose merge fails keeps its
    /// first state and counts as one failed row; `subject` renders a group (its key
    /// and window as JSON) for the dead letter.
    pub fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let group_count = groups.last().map_or(0, |last| *last as usize + 1);
        let mut parts = Vec::new();
        let mut rest = Parts::whole(group_count);
        let rows_of = |part: &Range<usize>| {
            groups.partition_point(|&group| (group as usize) < part.start)
                ..groups.partition_point(|&group| (group as usize) < part.end)
        };
        let merge = |logic: &mut (dyn Aggregate + 'static), part: &Range<usize>| {
            let rows = rows_of(part);
            let first = part.start as u32;
            let groups: Vec<u32> = groups[rows.clone()].iter().map(|g| g - first).collect();
            let columns = slice(states.columns, &rows);
            let states = Columns {
                rows: rows.len(),
                columns: &columns,
            };
            logic.merge(states, &groups)
        };
        while let Some((part, called)) = self.next_part(&mut rest, merge)? {
            match called {
                Ok(merged) => parts.push(merged),
                Err(failure) => {
                    let subject = Subject::State(subject(part.start as u32));
                    self.handle_failure(&subject, &failure, out)?;
                    let first = rows_of(&part).start;
                    parts.push(slice(states.columns, &(first..first + part.len())));
                }
            }
        }
        self.join_columns(parts)
    }

    /// The results of states; a state whose `finish` fails has none. `subject` renders
    /// a state's key and window as JSON for the dead letter.
    pub fn finish(
        &mut self,
        states: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Rows, OperatorError> {
        let mut parts = Vec::new();
        let mut rest = Parts::whole(states.rows);
        let finish = |logic: &mut (dyn Aggregate + 'static), part: &Range<usize>| {
            let columns = slice(states.columns, part);
            let states = Columns {
                rows: part.len(),
                columns: &columns,
            };
            logic.finish(states, &starts[part.clone()], &ends[part.clone()])
        };
        while let Some((part, called)) = self.next_part(&mut rest, finish)? {
            match called {
                Ok(rows) => parts.push((part.start, rows)),
                Err(failure) => {
                    let subject = Subject::State(subject(part.start as u32));
                    self.handle_failure(&subject, &failure, out)?;
                }
            }
        }
        self.join_rows(parts)
    }

    /// Folds the parts of a batch in order, each into the states after the previous
    /// one.
    fn fold(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
        accumulate: impl Fn(
            &mut dyn Aggregate,
            Columns<'_>,
            &[u32],
            States<'_>,
        ) -> Result<(Accumulated, Option<Rows>), Failure>,
    ) -> Result<(Folded, Vec<(usize, Rows)>), OperatorError> {
        let mut current = states.existing.columns.to_vec();
        let mut existing = states.existing.rows;
        let mut lost = Vec::new();
        let mut results = Vec::new();
        let mut rest = Parts::whole(batch.rows());
        loop {
            let part = self.next_part(&mut rest, |logic, part| {
                let columns = slice(input, part);
                let rows = Columns {
                    rows: part.len(),
                    columns: &columns,
                };
                let states = States {
                    existing: Columns {
                        rows: existing,
                        columns: &current,
                    },
                    groups: states.groups,
                };
                accumulate(logic, rows, &groups[part.clone()], states)
            })?;
            match part {
                None => break,
                Some((part, Ok((done, rows)))) => {
                    self.handle_rejects(batch, part.start, &done.rejects, out)?;
                    lost.extend(done.rejects.iter().map(|r| r.row + part.start as u32));
                    results.extend(rows.map(|rows| (part.start, rows)));
                    current = done.states;
                    existing = states.groups;
                }
                Some((part, Err(failure))) => {
                    let row = part.start as u32;
                    self.handle_failure(&Subject::Row(batch, row), &failure, out)?;
                    lost.push(row);
                }
            }
        }
        if existing < states.groups {
            // Every row failed: new groups get default states.
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

    /// The states of groups without rows, from a call without rows.
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
        called.map(|done| done.states).map_err(|failure| {
            let message = format!("failed on no rows at all: {failure}");
            self.fatal(message, failure.fault())
        })
    }
}
