//! Passes rows on in order of event time.
//!
//! The host treats it as a process without state that takes rows in this order: it holds
//! them until the watermark has passed them, and puts aside those that come behind it.

use std::sync::Arc;

use crate::logic::{
    Callee, Columns, Factory, Failure, GroupTimers, Instance, Keyed, Kind, OperatorInfo, Port,
    Process, Processed, Rows, Step, Steps, TimedRows,
};
use crate::schema::Schema;

/// Makes instances.
pub struct Order {
    info: OperatorInfo,
}

impl Order {
    /// For rows of these fields.
    pub fn new(rows: Schema) -> Self {
        let rows = vec![Port::main(Arc::new(rows))];
        Order {
            info: OperatorInfo::new("order", Kind::Process, rows.clone(), rows),
        }
    }
}

impl Factory for Order {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Process(Box::new(OrderInstance)))
    }
}

struct OrderInstance;

impl Callee for OrderInstance {}

impl Process for OrderInstance {
    fn process(
        &mut self,
        inputs: &[Columns<'_>],
        steps: &Steps,
        _: Keyed<'_>,
    ) -> Result<Processed, Failure> {
        let codes = steps.inputs.iter().enumerate();
        let with_row = codes.filter(|(_, code)| Step::has_row(**code, inputs.len()));
        let parents: Vec<u32> = with_row.map(|(step, _)| step as u32).collect();
        let times = parents.iter().map(|&step| steps.times[step as usize]);
        Ok(Processed {
            groups: Vec::new(),
            states: Vec::new(),
            event_timers: GroupTimers::default(),
            processing_timers: GroupTimers::default(),
            outputs: vec![TimedRows {
                times: times.collect(),
                rows: Rows {
                    parents,
                    columns: inputs[0].columns.to_vec(),
                },
            }],
            rejects: Vec::new(),
            rejected_timers: Vec::new(),
        })
    }
}
