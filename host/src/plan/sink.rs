//! A sink in the plan: where rows go.

use crate::sink::SinkConnector;

pub struct SinkPlan {
    pub connector: Box<dyn SinkConnector>,
}
