//! Where states are in the rows of an aggregate's windows, for what migrates them.

use super::{count, running, session, sliding, tumbling};
use crate::plan::Window;
use crate::state::migration::LastState;
use crate::state::row::RowError;

/// Finds the states in a row of the table of windows.
pub fn states<'a>(
    window: Window,
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<LastState, RowError> {
    match window {
        Window::Tumbling { .. } => tumbling::read(row, states).map(drop)?,
        Window::Sliding { .. } | Window::Cumulate { .. } => {
            sliding::read_leaves(row, states)?;
            return Ok(LastState::AfterLength);
        }
        Window::Session { .. } => {
            session::states(row, states)?;
            return Ok(LastState::AfterLength);
        }
        Window::Count { .. } | Window::Global => count::read(row, states).map(drop)?,
        Window::Running => running::read(row, states).map(drop)?,
    }
    Ok(LastState::Rest)
}
