//! What people and programs see of the state of a process.

use super::entries::{KeyTimer, read_entry};
use super::tables::waiting_rows;
use crate::plan::ProcessPlan;
use crate::state::look::SeenRow;
use crate::state::row::RowError;
use crate::state::rows::read_rows;
use crate::state::shown::{Shown, ShownTimer, show_buffered, show_rows};

/// Shows a row of one of the tables, by its index.
pub fn show(plan: &ProcessPlan, table: usize, seen: &SeenRow) -> Result<Shown, RowError> {
    let info = plan.operator.factory.info();
    let mut states = Vec::new();
    if table > 0 {
        let rows = read_rows(&seen.row, &mut states)?;
        return show_buffered(&waiting_rows(&info.inputs), &rows, &states, |_| false);
    }
    let entry = read_entry(&seen.row, &mut states)?;
    let timers = entry.timers.map(|timers| *timers).unwrap_or_default();
    let shown = |in_processing_time: bool| {
        move |timer: KeyTimer| ShownTimer {
            name: timer.name.into(),
            at_ms: timer.time_ms,
            in_processing_time,
        }
    };
    let event = timers.event.into_iter().map(shown(false));
    Ok(Shown {
        newest_ms: Some(entry.newest_ms).filter(|&newest_ms| newest_ms > i64::MIN),
        state: show_rows(&info.state, &states)?.pop(),
        timers: event
            .chain(timers.processing.into_iter().map(shown(true)))
            .collect(),
        ..Shown::default()
    })
}
