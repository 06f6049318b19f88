//! Runs filters and transforms. Each output row gets the event time and origin of
//! its parent.

use std::sync::Arc;

use super::guard::TransformGuard;
use super::{Operator, OperatorError, Outbox};
use crate::batch::Batch;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::element::Inlet;
use crate::logic::Output;
use crate::plan::{MAIN_OUTPUT, TransformPlan};
use crate::schema::Schema;
use crate::stop::Stop;

pub struct TransformOperator {
    guard: TransformGuard,
    /// Which columns of each edge of the input the plugin reads.
    columns: Vec<Vec<usize>>,
    output: Arc<Schema>,
}

impl TransformOperator {
    pub fn new(
        node: &str,
        plan: &TransformPlan,
        output: Arc<Schema>,
        stop: &Stop,
    ) -> Result<Self, OperatorError> {
        Ok(TransformOperator {
            guard: TransformGuard::new(node, &plan.operator, stop)?,
            columns: plan.columns.clone(),
            output,
        })
    }
}

impl Operator for TransformOperator {
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        let input: Vec<_> = self.columns[inlet.edge]
            .iter()
            .map(|&column| batch.columns[column].clone())
            .collect();
        let schema = &self.output;
        let put = |output, out: &mut Outbox| {
            let result = match output {
                Output::Selection(kept) => batch.take(&kept),
                Output::Rows(rows) => batch.derive(schema.clone(), rows.columns, &rows.parents),
            };
            if result.rows() > 0 {
                out.put(MAIN_OUTPUT, result);
            }
        };
        self.guard.transform(&batch, &input, out, put)
    }

    fn watermark(&mut self, _watermark_ms: i64, _out: &mut Outbox) -> Result<(), OperatorError> {
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        Ok(None)
    }

    fn wake_at(&self) -> Option<i64> {
        None
    }

    fn wake(&mut self, _now_ms: i64, _out: &mut Outbox) -> Result<(), OperatorError> {
        Ok(())
    }
}
