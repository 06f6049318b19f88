//! Rows on their way through a pipeline: columns, event times, and where each
//! row came from.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::ScalarBuffer;

use crate::schema::Schema;

/// Rows of one schema. Columns, times and origin have one entry a row.
///
/// A batch is cheap to clone: everything in it is shared.
#[derive(Clone, Debug)]
pub struct Batch {
    pub schema: Arc<Schema>,
    pub columns: Vec<ArrayRef>,
    /// Event time of each row, in ms since 1970.
    pub times: ScalarBuffer<i64>,
    /// Absent for rows that were computed from many, as window results are.
    pub origin: Option<Origin>,
}

/// Which rows of a source each row of a batch comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub block: Arc<Block>,
    /// The block's row of each row, or absent when they are the same rows.
    pub rows: Option<Arc<[u32]>>,
}

/// Rows as a source read them, kept while any row that comes from them is on
/// its way, so that a dead letter can show the original.
#[derive(Debug)]
pub struct Block {
    pub source: Arc<str>,
    pub partition: Arc<str>,
    /// Position of each row in its partition: a byte offset for files, a count
    /// elsewhere.
    pub offsets: Offsets,
    pub payload: Payload,
}

#[derive(Debug)]
pub enum Offsets {
    /// Row `i` is at `first + i`.
    From(u64),
    Each(Vec<u64>),
}

#[derive(Debug)]
pub enum Payload {
    /// The bytes that were decoded; row `i` is `data[spans[i]]`.
    Bytes {
        data: Arc<[u8]>,
        spans: Vec<(u32, u32)>,
    },
    /// The source makes columns itself, as the generator does.
    Rows(RecordBatch),
}

impl Batch {
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The batch of these rows, in this order; a row may be taken any number of times.
    pub fn take(&self, rows: &[u32]) -> Batch {
        todo!("{rows:?}")
    }

    /// Rows `start..start + len`, without copying columns.
    pub fn slice(&self, start: usize, len: usize) -> Batch {
        todo!("{start} {len}")
    }
}

impl Block {
    pub fn offset(&self, row: u32) -> u64 {
        match &self.offsets {
            Offsets::From(first) => first + u64::from(row),
            Offsets::Each(offsets) => offsets[row as usize],
        }
    }
}
