//! The tables of keyed state of an aggregate, and the layout of their rows.
//!
//! The format, version 1, in the terms of [`entry_row`](crate::state::entry_row):
//!
//! | window | row |
//! |---|---|
//! | tumbling | flags u8 (1: early results wait), state |
//! | sliding, cumulate | number of the first leaf of the key's tree i64 (the least number: no tree), panes: index i64, flags u8 (1: early results wait), state |
//! | session | flags u8 (1: early results wait), sessions: first i64, last i64, flags u8 (1: fired, 2: fresh, 4: shown), number of states, states, if shown: number of spans, and of each start i64, end i64 |
//! | count, global | flags u8 (1: early results wait), rows u64, first i64, last i64, state |
//! | running, version 2 | flags u8 (1: a result waits, 2: one was told that is to be taken back), event time of the newest row i64, if both: the state of what was told, state |
//!
//! Panes and sessions follow one another to the row's end.
//!
//! Sessions in event time have a second table, of those that are over
//! (`window::ended`).

use crate::plan::{AggregatePlan, Window};
use crate::schema::Schema;
use crate::state::spec::{RowKind, TableSpec};

/// Flags of a key, or of a pane of it.
pub(super) const EARLY: u8 = 1;
/// Flag of a key of a running aggregate.
pub(super) const TOLD: u8 = 2;
/// Flags of a session.
pub(super) const FIRED: u8 = 1;
pub(super) const FRESH: u8 = 2;
pub(super) const SHOWN: u8 = 4;

/// What the tables of an aggregate are for.
const WINDOWS: &str = "windows";
const ENDED: &str = "ended sessions";

/// The tables of an aggregate. How a row is laid out is up to the kind of window.
pub fn tables(plan: &AggregatePlan) -> Vec<TableSpec> {
    let kind = match plan.window {
        Window::Tumbling { .. } => "tumbling",
        Window::Sliding { .. } => "sliding",
        Window::Cumulate { .. } => "cumulate",
        Window::Session { .. } => "session",
        Window::Count { .. } => "count",
        Window::Running => "running",
        Window::Global => "global",
    };
    let version = match plan.window {
        Window::Running => 2,
        _ => 1,
    };
    let table = |role, state, kind: &str| {
        TableSpec::new(role, &plan.key_schema, state, RowKind::new(kind, version))
    };
    let state = &plan.operator.factory.info().state;
    let mut tables = vec![table(WINDOWS, state, kind)];
    let is_session = matches!(plan.window, Window::Session { .. });
    if is_session && plan.window.has_late_rows() {
        tables.push(table(ENDED, &Schema::default(), "ended"));
    }
    tables
}
