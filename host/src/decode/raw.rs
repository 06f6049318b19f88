//! Decodes rows that are a single value: bytes, or text.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use crate::schema::{DataType, Schema};

/// Rows under construction.
#[derive(Clone, Debug)]
pub(super) struct RawRows {
    is_bytes: bool,
    data: Vec<u8>,
    /// The start of each row, and the end of the last.
    offsets: Vec<i32>,
}

impl RawRows {
    /// The schema has one field, and the planner has checked that it is bytes
    /// or text.
    pub fn new(schema: &Schema) -> Self {
        let first = schema.fields.first();
        RawRows {
            is_bytes: first.is_some_and(|field| field.data_type == DataType::Bytes),
            data: Vec::new(),
            offsets: vec![0],
        }
    }

    pub fn is_bytes(&self) -> bool {
        self.is_bytes
    }

    /// Adds a row; the caller has checked that it is UTF-8 if the column is
    /// text.
    pub fn push(&mut self, row: &[u8]) {
        self.data.extend_from_slice(row);
        // A block has at most 1 GiB.
        self.offsets.push(self.data.len() as i32);
    }

    pub fn take(&mut self) -> Vec<ArrayRef> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let data = Buffer::from_vec(std::mem::take(&mut self.data));
        if self.is_bytes {
            return vec![Arc::new(BinaryArray::new(offsets, data, None))];
        }
        match StringArray::try_new(offsets, data, None) {
            Ok(texts) => vec![Arc::new(texts)],
            Err(error) => unreachable!("each row was seen to be text: {error}"),
        }
    }
}
