//! The parts of an entry's row in the storage: numbers, flags and states.
//!
//! Numbers are little-endian, a length is a u32, and a state is a
//! [`row`](super::row) of the operator's state, after its length where something
//! follows.

use super::row::RowError;

/// Bytes of a length.
pub const LENGTH_BYTES: usize = size_of::<u32>();

pub fn write_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a state, after its length.
pub fn write_state(state: &[u8], out: &mut Vec<u8>) {
    write_length(state.len(), out);
    out.extend_from_slice(state);
}

pub fn write_length(length: usize, out: &mut Vec<u8>) {
    // A plugin cannot have a state of 4 GiB.
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// Reads a row part by part; has the bytes that are left.
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

    /// A state after its length.
    pub fn state(&mut self) -> Result<&'a [u8], RowError> {
        let length = self.length()?;
        self.take(length)
    }

    /// The rest of the row, as a state.
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
