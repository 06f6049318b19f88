//! The tables of keyed state of a process, and the layout of their rows.
//!
//! Rows that wait for the watermark, where they are taken in order of event time, are laid
//! out as [`rows`](crate::state::rows) says. Their panes, version 1, are minutes. Their
//! mark is the input that they came by, and their columns are those of all inputs, of
//! which the others' are missing.
//!
//! The format of a key's row, version 1, in the terms of
//! [`entry_row`](crate::state::entry_row): event time of the newest row i64; flags u8
//! (1: state, 2: timers in event time, 4: timers in processing time); for either kind of
//! timers that there are, their number, and of each the time i64, the length of the name
//! and the name; the state, if there is one.

use crate::logic::Port;
use crate::plan::{ProcessPlan, RowOrder};
use crate::schema::{Field, Schema};
use crate::state::spec::{RowKind, TableSpec};

pub(super) const HAS_STATE: u8 = 1;
pub(super) const HAS_EVENT_TIMERS: u8 = 2;
pub(super) const HAS_PROCESSING_TIMERS: u8 = 4;

/// What the tables are for.
const KEYS: &str = "keys";
const WAITING: &str = "waiting rows";

/// The tables of a process.
pub fn tables(plan: &ProcessPlan) -> Vec<TableSpec> {
    let process = RowKind::new("process", 1);
    let state = &plan.operator.factory.info().state;
    let key = &plan.key_schema;
    let mut tables = vec![TableSpec::new(KEYS, key, state, process)];
    if plan.order == RowOrder::EventTime {
        let rows = waiting_rows(&plan.operator.factory.info().inputs);
        tables.push(TableSpec::new(WAITING, key, &rows, RowKind::buffered()));
    }
    tables
}

/// The columns of rows that wait: those of all inputs.
pub(super) fn waiting_rows(inputs: &[Port]) -> Schema {
    let columns = |port: &Port| -> Vec<Field> {
        let column = |field: &Field| {
            let name = match inputs {
                [_] => field.name.clone(),
                _ => format!("{}.{}", port.name, field.name),
            };
            Field::new(
                &name,
                field.data_type.clone(),
                field.nullable || inputs.len() > 1,
            )
        };
        port.schema.fields.iter().map(column).collect()
    };
    Schema::new(inputs.iter().flat_map(columns).collect())
}
