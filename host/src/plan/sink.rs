//! A sink in the plan.

use crate::sink::SinkConnector;

pub struct SinkPlan {
    pub connector: Box<dyn SinkConnector>,
}
