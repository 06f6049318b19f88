//! Where the state is in the row of a process's key, for what migrates it.

use super::entries::read_entry;
use crate::state::migration::LastState;
use crate::state::row::RowError;

/// Finds the state in a row of the table of keys, if it has one.
pub fn states<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<LastState, RowError> {
    read_entry(row, states)?;
    Ok(LastState::Rest)
}
