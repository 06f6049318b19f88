//! Rows on their way through a pipeline: columns, event times, and where each
//! row came from.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, TimestampMillisecondArray, UInt32Array,
};
use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use arrow_schema::ArrowError;
use arrow_select::take::take;

use crate::schema::Schema;

/// The time of a row whose event time is found by an operator that it has yet to pass.
pub const NO_TIME: i64 = i64::MIN;

/// Rows of one schema. Columns, times and origin have one entry a row.
///
/// A batch is cheap to clone: everything in it is shared.
#[derive(Clone, Debug)]
pub struct Batch {
    pub schema: Arc<Schema>,
    pub columns: Vec<ArrayRef>,
    /// Event time of each row, in ms since 1970; [`NO_TIME`] before it is known.
    pub times: ScalarBuffer<i64>,
    /// Absent for rows that were computed from many, as window results are.
    pub origin: Option<Origin>,
    /// The watermark before each row, in ms, in pipelines where timers fire between rows:
    /// within a batch, it is ahead of the one that came before the batch.
    pub watermarks: Option<ScalarBuffer<i64>>,
    /// Of changes of a table: which rows take back one that came before. Absent if none
    /// does.
    pub taken_back: Option<BooleanBuffer>,
}

/// Which rows of a source each row of a batch comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub block: Arc<Block>,
    /// The block's row of each row, or absent when they are the same rows.
    pub rows: Option<Arc<[u32]>>,
}

/// Rows as a source read them, kept while the pipeline holds any row made of
/// them, so that a dead letter can show the original.
#[derive(Debug)]
pub struct Block {
    pub source: Arc<str>,
    pub partition: Arc<str>,
    /// Position of each row in its partition: a byte offset for files, a count
    /// elsewhere.
    pub offsets: Offsets,
    pub payload: Payload,
    /// Of each row, if they are messages.
    pub envelopes: Vec<Envelope>,
}

/// What a message has besides its payload.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub key: Option<Box<[u8]>>,
    /// A JSON object, if it has any.
    pub headers: Option<String>,
    pub timestamp_ms: Option<i64>,
    /// It has no payload, which is not the same as an empty one.
    pub is_tombstone: bool,
}

#[derive(Debug)]
pub enum Offsets {
    /// Row `i` is at `first + i`.
    From(u64),
    /// The payload begins at this offset; row `i` begins where its span does.
    Bytes(u64),
    Each(Vec<u64>),
}

#[derive(Debug)]
pub enum Payload {
    /// The bytes that were decoded; row `i` is `data[spans[i]]`.
    Bytes {
        data: Buffer,
        spans: Vec<(u32, u32)>,
    },
    /// The source makes columns itself, as the generator does.
    Rows(RecordBatch),
}

impl Batch {
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// The newest event time of its rows, if it has any.
    pub fn newest_ms(&self) -> Option<i64> {
        self.times.iter().copied().max()
    }

    /// The batch of these rows, in this order; a row may be taken any number of
    /// times. All of them in order is the batch itself, uncopied.
    pub fn take(&self, rows: &[u32]) -> Batch {
        if is_identity(rows, self.rows()) {
            return self.clone();
        }
        Batch {
            schema: self.schema.clone(),
            columns: gather(&self.columns, rows),
            times: times_of(&self.times, rows),
            origin: self.origin_of(rows),
            watermarks: self.watermarks_of(rows),
            taken_back: self.taken_back_of(rows),
        }
    }

    /// Rows `start..start + len`, without copying columns.
    pub fn slice(&self, start: usize, len: usize) -> Batch {
        Batch {
            schema: self.schema.clone(),
            columns: self.columns.iter().map(|c| c.slice(start, len)).collect(),
            times: self.times.slice(start, len),
            origin: self.origin.as_ref().map(|origin| origin.slice(start, len)),
            watermarks: self
                .watermarks
                .as_ref()
                .map(|times| times.slice(start, len)),
            taken_back: self.taken_back.as_ref().map(|rows| rows.slice(start, len)),
        }
    }

    /// A batch of new columns. Row `i` gets the event time and origin of row
    /// `parents[i]` of this batch, and takes back what that takes back.
    pub fn derive(&self, schema: Arc<Schema>, columns: Vec<ArrayRef>, parents: &[u32]) -> Batch {
        if is_identity(parents, self.rows()) {
            return Batch {
                schema,
                columns,
                ..self.clone()
            };
        }
        Batch {
            schema,
            columns,
            times: times_of(&self.times, parents),
            origin: self.origin_of(parents),
            watermarks: self.watermarks_of(parents),
            taken_back: self.taken_back_of(parents),
        }
    }

    /// Bytes of its columns.
    pub fn bytes(&self) -> usize {
        bytes(&self.columns, &(0..self.rows()))
    }

    /// Whether a row takes back one that came before.
    pub fn is_taken_back(&self, row: usize) -> bool {
        let taken_back = self.taken_back.as_ref();
        taken_back.is_some_and(|rows| rows.value(row))
    }

    /// The columns as Arrow's `RecordBatch`, without times and origin.
    pub fn to_arrow(&self) -> Result<RecordBatch, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows()));
        let schema = Arc::new(self.schema.to_arrow());
        RecordBatch::try_new_with_options(schema, self.columns.clone(), &options)
    }

    fn watermarks_of(&self, rows: &[u32]) -> Option<ScalarBuffer<i64>> {
        let watermarks = self.watermarks.as_ref();
        watermarks.map(|watermarks| times_of(watermarks, rows))
    }

    fn taken_back_of(&self, rows: &[u32]) -> Option<BooleanBuffer> {
        let taken_back = self.taken_back.as_ref()?;
        let is_taken_back = |row: &u32| taken_back.value(*row as usize);
        Some(rows.iter().map(is_taken_back).collect())
    }

    /// The origin of these rows.
    pub fn origin_of(&self, rows: &[u32]) -> Option<Origin> {
        self.origin.as_ref().map(|origin| origin.take(rows))
    }
}

impl Origin {
    /// The row of the block that a row of the batch comes from.
    pub fn row(&self, row: usize) -> u32 {
        match &self.rows {
            Some(rows) => rows[row],
            // A block has fewer rows than u32 holds: its spans are u32.
            None => row as u32,
        }
    }

    fn take(&self, rows: &[u32]) -> Origin {
        let rows = match &self.rows {
            Some(known) => rows.iter().map(|&row| known[row as usize]).collect(),
            None => rows.into(),
        };
        Origin {
            block: self.block.clone(),
            rows: Some(rows),
        }
    }

    fn slice(&self, start: usize, len: usize) -> Origin {
        let rows = match &self.rows {
            Some(known) => Some(known[start..start + len].into()),
            None if start == 0 => None,
            None => Some((start as u32..(start + len) as u32).collect()),
        };
        Origin {
            block: self.block.clone(),
            rows,
        }
    }
}

/// Bytes of these rows.
pub fn bytes(columns: &[ArrayRef], rows: &Range<usize>) -> usize {
    let columns = columns.iter().map(|column| bytes_of(column, rows));
    columns.fold(0, usize::saturating_add)
}

/// Bytes of these rows of a column. Arrow counts all elements of a list's column, however
/// few of its rows are asked for.
fn bytes_of(column: &dyn Array, rows: &Range<usize>) -> usize {
    let validity = column.nulls().map_or(0, |_| rows.len().div_ceil(8));
    if let Some(lists) = column.as_list_opt::<i32>() {
        let offsets = lists.value_offsets();
        let elements = offsets[rows.start] as usize..offsets[rows.end] as usize;
        let ends = rows.len() * size_of::<i32>();
        return (validity + ends).saturating_add(bytes_of(lists.values(), &elements));
    }
    if let Some(record) = column.as_struct_opt() {
        return validity.saturating_add(bytes(record.columns(), rows));
    }
    let slice = column.slice(rows.start, rows.len()).to_data();
    // An error says that the size exceeds the address space.
    slice.get_slice_memory_size().unwrap_or(usize::MAX)
}

fn times_of(times: &[i64], rows: &[u32]) -> ScalarBuffer<i64> {
    rows.iter().map(|&row| times[row as usize]).collect()
}

/// These columns of a batch.
pub fn pick(batch: &Batch, columns: &[usize]) -> Vec<ArrayRef> {
    let picked = columns.iter();
    picked
        .map(|&column| batch.columns[column].clone())
        .collect()
}

/// A column of times, in ms.
pub fn timestamps(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC"))
}

/// These rows of each column. All of them in order are the columns themselves.
pub fn gather(columns: &[ArrayRef], rows: &[u32]) -> Vec<ArrayRef> {
    if columns
        .first()
        .is_some_and(|first| is_identity(rows, first.len()))
    {
        return columns.to_vec();
    }
    let indices = UInt32Array::from(rows.to_vec());
    columns
        .iter()
        .map(|column| {
            take(column, &indices, None)
                .unwrap_or_else(|error| unreachable!("rows are within the batch: {error}"))
        })
        .collect()
}

/// Whether these are all rows of `0..len`, in order.
fn is_identity(rows: &[u32], len: usize) -> bool {
    rows.len() == len && rows.iter().enumerate().all(|(i, &row)| row as usize == i)
}

impl Block {
    pub fn offset(&self, row: u32) -> u64 {
        match &self.offsets {
            Offsets::From(first) => first + u64::from(row),
            Offsets::Bytes(first) => {
                let within = match &self.payload {
                    Payload::Bytes { spans, .. } => spans[row as usize].0,
                    Payload::Rows(_) => row,
                };
                first + u64::from(within)
            }
            Offsets::Each(offsets) => offsets[row as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use arrow_array::types::Int64Type;
    use arrow_array::{ListArray, StructArray};

    use super::*;

    /// Lists of ten numbers each.
    fn lists(rows: usize) -> ArrayRef {
        let numbers = || (0..10).map(Some);
        let lists = (0..rows).map(|_| Some(numbers()));
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
    }

    #[test]
    fn rows_with_lists_have_the_bytes_of_their_own_elements() {
        let list = lists(1_000);
        let row = bytes(from_ref(&list), &(7..8));
        assert!((80..100).contains(&row), "{row}");
        assert_eq!(bytes(&[list.slice(500, 10)], &(2..3)), row);
        assert_eq!(bytes(from_ref(&list), &(0..1_000)), 1_000 * row);
        let record = StructArray::try_from(vec![("list", list)]).expect("one column");
        assert_eq!(bytes(&[Arc::new(record)], &(7..8)), row);
        assert_eq!(bytes(&[lists(0)], &(0..0)), 0);
    }
}
