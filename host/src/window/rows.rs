//! What windows keep of a key, as a row of state: how it is written and read.
//!
//! The format, version 1. Numbers are little-endian, a length is a u32, and a
//! state is a [`row`](crate::state::row) of the operator's state, behind its
//! length where others follow.
//!
//! | window | row |
//! |---|---|
//! | tumbling | flags u8 (1: early results wait), state |
//! | sliding | number of the first leaf of the key's tree i64 (the least number: no tree), panes: index i64, flags u8 (1: early results wait), state |
//! | session | flags u8 (1: early results wait), sessions: first i64, last i64, flags u8 (1: fired, 2: fresh), number of states, states |
//! | count | flags u8 (1: early results wait), rows u64, first i64, last i64, state |
//! | running | event time of the newest row i64, state |
//!
//! Panes and sessions follow one another to the row's end.

use crate::state::row::RowError;

pub(super) const EARLY: u8 = 1;
pub(super) const FIRED: u8 = 1;
pub(super) const FRESH: u8 = 2;

pub(super) fn write_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A state with its length in front.
pub(super) fn write_state(state: &[u8], out: &mut Vec<u8>) {
    write_length(state.len(), out);
    out.extend_from_slice(state);
}

pub(super) fn write_length(length: usize, out: &mut Vec<u8>) {
    // A state of 4 GiB is none that a plugin may have.
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// What is left of a row.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub fn flags(&mut self) -> Result<u8, RowError> {
        Ok(self.take(1)?[0])
    }

    pub fn i64(&mut self) -> Result<i64, RowError> {
        let bytes = self.take(8)?;
        Ok(bytes.try_into().map_or(0, i64::from_le_bytes))
    }

    pub fn length(&mut self) -> Result<usize, RowError> {
        let bytes = self.take(4)?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes) as usize)
    }

    /// A state with its length in front.
    pub fn state(&mut self) -> Result<&'a [u8], RowError> {
        let length = self.length()?;
        self.take(length)
    }

    /// The rest is a state.
    pub fn last_state(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RowError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| RowError::new("a row of state ends in the middle"))?;
        self.0 = rest;
        Ok(taken)
    }
}
