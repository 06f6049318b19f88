//! A sink in the plan.

use crate::schema::{DataType, Field};
use crate::sink::SinkConnector;

pub struct SinkPlan {
    pub connector: Box<dyn SinkConnector>,
    /// Whether the last column of its schema says what becomes of each row:
    /// [`change_field`].
    pub tells_changes: bool,
}

/// How a sink writes that a row was added.
pub const ADDED: &str = "+";

/// How a sink writes that an equal row which was added before is taken back.
pub const TAKEN_BACK: &str = "-";

/// The column that says so.
pub fn change_field(name: &str) -> Field {
    let values = [ADDED, TAKEN_BACK].map(str::to_owned);
    Field::new(name, DataType::Symbol(values.into()), false)
}
