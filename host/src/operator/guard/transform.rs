use std::ops::Range;

use arrow_array::ArrayRef;

use super::{CALL_BYTES_MAX, Guard, Parts, Subject, TransformGuard, slice};
use crate::batch::{Batch, bytes};
use crate::blame::Fault;
use crate::logic::{Columns, Instance, Kind, Output, Transform, Transformed};
use crate::operator::{Counts, OperatorError, Outbox};
use crate::plan::OperatorPlan;
use crate::stop::Stop;

impl TransformGuard {
    pub fn new(node: &str, plan: &OperatorPlan, stop: &Stop) -> Result<Self, OperatorError> {
        Guard::open(node, plan, Instance::transform, stop)
    }

    /// Calls a filter or transform. `input` are the columns of `batch` that the
    /// operator reads, with at least one row. Rows that are rejected or failed on
    /// have no output. `put` gets the output, in pieces if it is large.
    pub fn transform(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        out: &mut Outbox,
        mut put: impl FnMut(&Self, Output, &mut Outbox) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let mut parts = Vec::new();
        let mut bytes_made = 0;
        let mut rest = Parts::of(input, batch.rows());
        let transform = |logic: &mut (dyn Transform + 'static), part: &Range<usize>| {
            logic.transform(Columns {
                rows: part.len(),
                columns: &slice(input, part),
            })
        };
        while let Some((part, called)) = self.next_part(&mut rest, &mut out.counts, transform)? {
            match called {
                Ok(answer) => {
                    self.handle_rejects(batch, part.start, &answer.rejects, out)?;
                    count(&answer, part.len(), &mut out.counts);
                    if let Output::Rows(rows) = &answer.output {
                        bytes_made += bytes(&rows.columns, &(0..rows.parents.len()));
                    }
                    parts.push((part.start, answer));
                    if bytes_made > CALL_BYTES_MAX {
                        bytes_made = 0;
                        let joined = self.join_outputs(std::mem::take(&mut parts))?;
                        put(self, joined, out)?;
                    }
                }
                Err(failure) => {
                    self.handle_failure(&Subject::Row(batch, part.start as u32), &failure, out)?;
                }
            }
        }
        if !parts.is_empty() {
            put(self, self.join_outputs(parts)?, out)?;
        }
        Ok(())
    }

    /// Counts a row of the output that has no valid event time, and applies `on_error`
    /// to it.
    pub fn handle_untimed(
        &self,
        output: &Batch,
        row: u32,
        error: &str,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        out.counts.failed += 1;
        out.counts.unmade += 1;
        let subject = Subject::Row(output, row);
        self.apply_on_error(&subject, "event_time", error, None, Fault::ROW, out)
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
}

/// Counts what became of the rows of a call.
fn count(answer: &Transformed, rows: usize, counts: &mut Counts) {
    let answered = (rows - answer.rejects.len()) as u64;
    match &answer.output {
        Output::Selection(kept) => {
            let kept = kept.len() as u64;
            counts.taken += kept;
            counts.made += kept;
            counts.filtered += answered - kept;
        }
        Output::Rows(made) => {
            counts.taken += answered;
            counts.made += made.parents.len() as u64;
        }
    }
}
