//! What rows under construction are that are changes of a table.

use arrow_buffer::{BooleanBuffer, ScalarBuffer};

/// Rows that are changes. What is given may be none of them, or several.
#[derive(Debug)]
pub struct DecodedChanges {
    /// The index, among what was given, of what each row was made of.
    pub parents: Vec<u32>,
    /// Which rows take back one that came before.
    pub taken_back: BooleanBuffer,
    /// When each change was made, in ms; [`crate::batch::NO_TIME`] where that is not told: it
    /// is no earlier than the one before it.
    pub times: ScalarBuffer<i64>,
}

/// As [`DecodedChanges`], row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    parents: Vec<u32>,
    taken_back: Vec<bool>,
    times: Vec<i64>,
}

impl Changes {
    /// Says what the next row is.
    pub fn push(&mut self, is_taken_back: bool, time_ms: i64) {
        self.taken_back.push(is_taken_back);
        self.times.push(time_ms);
    }

    /// Says that the rows since the last call come from this message. Returns how many rows
    /// there are.
    pub fn end_message(&mut self, message: u32) -> usize {
        self.parents.resize(self.times.len(), message);
        self.parents.len()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.taken_back.truncate(rows);
        self.times.truncate(rows);
    }

    pub fn take(&mut self) -> DecodedChanges {
        DecodedChanges {
            parents: std::mem::take(&mut self.parents),
            taken_back: BooleanBuffer::from(std::mem::take(&mut self.taken_back)),
            times: std::mem::take(&mut self.times).into(),
        }
    }
}
