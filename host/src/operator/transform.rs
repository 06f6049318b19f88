//! Runs filters and transforms. Each output row gets the origin and event time of its
//! parent, or its own event time, from a field.

use std::sync::Arc;

use super::guard::TransformGuard;
use super::{Operator, OperatorError, Outbox};
use crate::batch::Batch;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::clock::Clock;
use crate::element::{Element, Inlet};
use crate::logic::{Factory, Output};
use crate::plan::{MAIN_OUTPUT, OperatorTime, TransformPlan};
use crate::schema::Schema;
use crate::source::event_time::{EventTimes, TimeReader, TimesMadeBy};
use crate::source::watermark::SharedWatermarks;
use crate::stop::Stop;

pub struct TransformOperator {
    guard: TransformGuard,
    /// Which columns of each edge of the input the plugin reads.
    columns: Vec<Vec<usize>>,
    output: Arc<Schema>,
    timer: Option<Timer>,
}

/// Gives rows their event time.
struct Timer {
    reader: TimeReader,
    /// Of the source that the rows come from.
    watermarks: SharedWatermarks,
    clock: Arc<dyn Clock>,
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
            timer: None,
        })
    }

    /// Has it give its rows their event time, and advance the watermarks of the source
    /// that it gets all its rows from, in the same task.
    pub fn timing(
        mut self,
        node: &str,
        time: &OperatorTime,
        watermarks: SharedWatermarks,
        clock: Arc<dyn Clock>,
    ) -> Self {
        self.timer = Some(Timer {
            reader: TimeReader::new(
                format!("operator `{node}`"),
                time.field.clone(),
                &self.output,
                time.ahead_ms_max,
                clock.clone(),
                TimesMadeBy::Plugin,
            ),
            watermarks,
            clock,
        });
        self
    }
}

impl Timer {
    /// Emits the rows that have a valid event time, with the watermarks that they cause.
    /// The others go to `on_error`.
    fn put(
        &mut self,
        guard: &TransformGuard,
        mut batch: Batch,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        batch.times = match self.reader.read(&batch.columns) {
            EventTimes::All(times) => times,
            EventTimes::Some { rows, times, bad } => {
                for (row, error) in bad {
                    guard.handle_untimed(&batch, row, &error, out)?;
                }
                batch = batch.take(&rows);
                times
            }
        };
        if batch.rows() == 0 {
            return Ok(());
        }
        let mut elements = Vec::new();
        let now_ms = self.clock.now_ms();
        self.watermarks
            .lock()
            .observe_current(batch, now_ms, &mut elements);
        for element in elements {
            match element {
                Element::Batch(batch) => out.put(MAIN_OUTPUT, batch),
                time => out.put_time(MAIN_OUTPUT, time),
            }
        }
        Ok(())
    }
}

impl Operator for TransformOperator {
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        let input: Vec<_> = self.columns[inlet.edge]
            .iter()
            .map(|&column| batch.columns[column].clone())
            .collect();
        let schema = &self.output;
        let timer = &mut self.timer;
        let put = |guard: &TransformGuard, output, out: &mut Outbox| {
            let result = match output {
                Output::Selection(kept) => batch.take(&kept),
                Output::Rows(rows) => batch.derive(schema.clone(), rows.columns, &rows.parents),
            };
            match timer {
                _ if result.rows() == 0 => {}
                Some(timer) => timer.put(guard, result, out)?,
                None => out.put(MAIN_OUTPUT, result),
            }
            Ok(())
        };
        self.guard.transform(&batch, &input, out, put)
    }

    fn watermark(&mut self, _watermark_ms: i64, _out: &mut Outbox) -> Result<(), OperatorError> {
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        Ok(None)
    }

    fn replace(&mut self, factory: Arc<dyn Factory>) -> Result<(), OperatorError> {
        self.guard.replace(factory)
    }

    fn wake_at(&self) -> Option<i64> {
        None
    }

    fn wake(&mut self, _now_ms: i64, _out: &mut Outbox) -> Result<(), OperatorError> {
        Ok(())
    }
}
