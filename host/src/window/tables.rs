//! Says which tables of keyed state an aggregate has in a checkpoint.

use crate::plan::{AggregatePlan, Window};
use crate::state::spec::{RowKind, TableSpec};

/// What the one table of an aggregate is for.
const ROLE: &str = "windows";

/// The tables of an aggregate. How a row is laid out is up to the kind of window.
pub fn tables(plan: &AggregatePlan) -> Vec<TableSpec> {
    let kind = match plan.window {
        Window::Tumbling { .. } => "tumbling",
        Window::Sliding { .. } => "sliding",
        Window::Session { .. } => "session",
        Window::Count { .. } => "count",
        Window::Running => "running",
    };
    let rows = RowKind {
        kind: kind.to_owned(),
        version: 1,
    };
    let state = &plan.operator.factory.info().state;
    vec![TableSpec::new(ROLE, &plan.key_schema, state, rows)]
}
