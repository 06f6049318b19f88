//! Calls into an operator that survive its failures: a new instance, the batch
//! cut in halves down to the guilty row, and that row given to the node's policy.

use std::sync::Arc;

use arrow_array::ArrayRef;

use super::{OperatorError, Outbox};
use crate::batch::Batch;
use crate::logic::{Columns, Output, Rows, States};
use crate::plan::OperatorPlan;

/// An operator's instance behind the node's error policy. Counts, and dead
/// letters where the policy asks for them, go to the outbox; an `Err` ends the
/// pipeline (`on_error = "fail"`, or the plugin cannot be opened any more).
pub struct Guard {
    _todo: Arc<str>,
}

impl Guard {
    pub fn new(node: &str, plan: &OperatorPlan) -> Result<Self, OperatorError> {
        todo!("{node} {}", plan.factory.digest())
    }

    /// `input` are the columns of `batch` that the operator reads. Rows
    /// rejected or failed on have no output.
    pub fn transform(&mut self, batch: &Batch, input: &[ArrayRef], out: &mut Outbox) -> Result<Output, OperatorError> {
        todo!("{batch:?} {input:?} {out:?}")
    }

    /// New states, one row a group; a rejected or failing row leaves its
    /// group's state as it was. `groups` has one entry a row of `batch`.
    pub fn accumulate(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        todo!("{batch:?} {input:?} {groups:?} {states:?} {out:?}")
    }

    /// The same, and the result after each row that was taken.
    pub fn accumulate_each(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        out: &mut Outbox,
    ) -> Result<(Vec<ArrayRef>, Rows), OperatorError> {
        todo!("{batch:?} {input:?} {groups:?} {states:?} {out:?}")
    }

    /// One state a group. A group whose merge fails keeps its first state, and
    /// counts as one failed row; `subject` renders a group (its key and window
    /// as JSON) for the dead letter.
    pub fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        todo!("{states:?} {groups:?} {out:?} {}", subject(0))
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
        todo!("{states:?} {starts:?} {ends:?} {out:?} {}", subject(0))
    }
}
