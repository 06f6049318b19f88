//! What people and programs see of the rows that a join keeps.

use super::tables::table_sides;
use crate::plan::{JoinPlan, Matching, RIGHT};
use crate::state::look::SeenRow;
use crate::state::row::RowError;
use crate::state::rows::{DELETED, read_rows};
use crate::state::shown::{Shown, show_buffered};

/// Shows a row of one of the tables, by its index.
pub fn show(plan: &JoinPlan, table: usize, seen: &SeenRow) -> Result<Shown, RowError> {
    let sides = table_sides(plan);
    let Some(&side) = sides.get(table) else {
        return Err(RowError::new("there is no such table"));
    };
    let has_versions = matches!(plan.rule.matching, Matching::AsOf(_)) && side == RIGHT;
    let mut columns = Vec::new();
    let rows = read_rows(&seen.row, &mut columns)?;
    show_buffered(&plan.sides[side].schema, &rows, &columns, |row| {
        has_versions && row.mark == DELETED
    })
}
