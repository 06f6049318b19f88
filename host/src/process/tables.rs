//! The table of keyed state of a process, and the layout of its rows.
//!
//! The format of a key's row, version 1, in the terms of
//! [`entry_row`](crate::state::entry_row): event time of the newest row i64; flags u8
//! (1: state, 2: timers in event time, 4: timers in processing time); for either kind of
//! timers that there are, their number, and of each the time i64, the length of the name
//! and the name; the state, if there is one.

use crate::plan::ProcessPlan;
use crate::state::spec::{RowKind, TableSpec};

pub(super) const HAS_STATE: u8 = 1;
pub(super) const HAS_EVENT_TIMERS: u8 = 2;
pub(super) const HAS_PROCESSING_TIMERS: u8 = 4;

/// What the table is for.
const KEYS: &str = "keys";

/// The tables of a process.
pub fn tables(plan: &ProcessPlan) -> Vec<TableSpec> {
    let rows = RowKind {
        kind: "process".to_owned(),
        version: 1,
    };
    let state = &plan.operator.factory.info().state;
    vec![TableSpec::new(KEYS, &plan.key_schema, state, rows)]
}
