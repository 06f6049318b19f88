use super::{Guard, ProcessGuard, Subject};
use crate::batch::Batch;
use crate::blame::Fault;
use crate::logic::{Columns, Failure, Instance, Keyed, Processed, Reject, Steps};
use crate::operator::{OperatorError, Outbox};
use crate::plan::OperatorPlan;
use crate::stop::Stop;

impl ProcessGuard {
    pub fn new(node: &str, plan: &OperatorPlan, stop: &Stop) -> Result<Self, OperatorError> {
        Guard::open(node, plan, Instance::process, stop)
    }

    /// One call. `is_last` says that the steps cannot be divided further.
    pub fn process(
        &mut self,
        is_last: bool,
        inputs: &[Columns<'_>],
        steps: &Steps,
        keyed: Keyed<'_>,
        out: &mut Outbox,
    ) -> Result<Result<Processed, Failure>, OperatorError> {
        self.call(is_last, &mut out.counts, |logic| {
            logic.process(inputs, steps, keyed)
        })
    }

    /// Counts rows that the process rejects, and applies `on_error` to them.
    pub fn reject_rows(
        &self,
        batch: &Batch,
        first_row: usize,
        rejects: &[Reject],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.handle_rejects(batch, first_row, rejects, out)
    }

    /// Counts a row that the process fails on, and applies `on_error` to it.
    pub fn fail_on_row(
        &self,
        batch: &Batch,
        row: usize,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.handle_failure(&Subject::Row(batch, row as u32), failure, out)
    }

    /// Counts a row that the process fails on, where a dead letter tells of it already.
    pub fn fail_again(&self, out: &mut Outbox) {
        out.counts.failed += 1;
        out.counts.lost += 1;
    }

    /// The same for a timer, which `subject` shows as JSON.
    pub fn fail_on_timer(
        &self,
        subject: String,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.handle_failure(&Subject::State(subject, None), failure, out)
    }

    /// The same for a timer that the process rejects.
    pub fn reject_timer(
        &self,
        subject: String,
        reason: &str,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        out.counts.rejected += 1;
        let subject = Subject::State(subject, None);
        self.apply_on_error(&subject, "reject", reason, None, Fault::ROW, out)
    }
}
