//! Parts of the row of an entry: numbers, flags and states, as operators write
//! and read them around the states of a key.
//!
//! Numbers are little-endian, a length is a u32, and a state is a
//! [`row`](super::row) of the operator's state, behind its length where others
//! follow.

use super::row::RowError;

pub fn write_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A state with its length in front.
pub fn write_state(state: &[u8], out: &mut Vec<u8>) {
    write_length(state.len(), out);
    out.extend_from_slice(state);
}

pub fn write_length(length: usize, out: &mut Vec<u8>) {
    // A state of 4 GiB is none that a plugin may have.
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// What is left of a row.
pub struct EntryReader<'a>(pub &'a [u8]);

impl<'a> EntryReader<'a> {
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
