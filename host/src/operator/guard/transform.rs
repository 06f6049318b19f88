use std::ops::Range;

use arrow_array::ArrayRef;

use super::{Guard, Parts, Subject, TransformGuard, slice};
use crate::batch::Batch;
use crate::logic::{Columns, Instance, Kind, Output, Transform, Transformed};
use crate::operator::{OperatorError, Outbox};
use crate::plan::OperatorPlan;

impl TransformGuard {
    pub fn new(node: &str, plan: &OperatorPlan) -> Result<Self, OperatorError> {
        Guard::open(node, plan, Instance::transform, |logic| logic.log_failed())
    }

    /// Calls a filter or transform. `input` are the columns of `batch` that the
    /// operator reads, with at least one row. Rows that are rejected or failed on
    /// have no output.
    pub fn transform(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        out: &mut Outbox,
    ) -> Result<Output, OperatorError> {
        let mut parts = Vec::new();
        let mut rest = Parts::whole(batch.rows());
        let transform = |logic: &mut (dyn Transform + 'static), part: &Range<usize>| {
            logic.transform(Columns {
                rows: part.len(),
                columns: &slice(input, part),
            })
        };
        while let Some((part, called)) = self.next_part(&mut rest, transform)? {
            match called {
                Ok(answer) => {
                    self.handle_rejects(batch, part.start, &answer.rejects, out)?;
                    parts.push((part.start, answer));
                }
                Err(failure) => {
                    self.handle_failure(&Subject::Row(batch, part.start as u32), &failure, out)?;
                }
            }
        }
        self.join_outputs(parts)
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
