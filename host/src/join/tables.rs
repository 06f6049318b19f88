//! The tables of keyed state of a join. Their rows are laid out as
//! [`rows`](crate::state::rows) says.
//!
//! Which pane a row is in is a part of the format, version 1: with an interval, its time
//! over the length that `join::interval` says; with a window, the number of
//! the window's pane; of left rows that wait for versions, its time over a minute. All
//! versions are in pane 0.

use crate::plan::{JoinPlan, LEFT, Matching, RIGHT, Version};
use crate::state::spec::{RowKind, TableSpec};

const LEFT_ROWS: &str = "left rows";
const RIGHT_ROWS: &str = "right rows";
const VERSIONS: &str = "versions";

/// The tables of a join.
pub fn tables(plan: &JoinPlan) -> Vec<TableSpec> {
    let is_as_of = matches!(plan.rule.matching, Matching::AsOf(_));
    let table = |side: usize| {
        let role = match (side, is_as_of) {
            (RIGHT, true) => VERSIONS,
            (RIGHT, false) => RIGHT_ROWS,
            _ => LEFT_ROWS,
        };
        let state = &plan.sides[side].schema;
        TableSpec::new(role, &plan.key_schema, state, RowKind::buffered())
    };
    table_sides(plan).iter().map(|&side| table(side)).collect()
}

/// The side whose rows are in each table.
pub(super) fn table_sides(plan: &JoinPlan) -> &'static [usize] {
    match plan.rule.matching {
        Matching::Interval { .. } | Matching::Window(_) => &[LEFT, RIGHT],
        Matching::AsOf(Version::EventTime) => &[RIGHT, LEFT],
        Matching::AsOf(Version::Latest) if plan.waits_for_table => &[RIGHT, LEFT],
        Matching::AsOf(Version::Latest) => &[RIGHT],
    }
}
