//! Gathers rows of an array by index, for a column that a plugin passes on
//! unchanged.
//!
//! Unlike `arrow_select::take`, it computes the size of a result before it
//! makes it, since a plugin chooses the indices. And operators mostly keep most
//! rows, so consecutive indices are copied as runs, which are found once for
//! all columns.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, ByteArrayType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericByteArray, ListArray, PrimitiveArray, StructArray,
    downcast_primitive_array,
};
use arrow_buffer::builder::BooleanBufferBuilder;
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType as ArrowType;

/// Runs that are shorter on average do not pay.
const RUN_ROWS_MIN: usize = 4;
/// Values up to this length are copied with this length.
const SHORT_BYTES: usize = 16;

/// The result would exceed the limit.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The rows to gather, in order. They must be valid for every array.
#[derive(Debug)]
pub struct Picks<'a> {
    rows: PickedRows<'a>,
    len: usize,
}

#[derive(Debug)]
enum PickedRows<'a> {
    /// No run is empty.
    Runs(Vec<Range<usize>>),
    Scattered(&'a [u32]),
}

impl<'a> Picks<'a> {
    pub fn new(rows: &'a [u32]) -> Self {
        let breaks: usize = rows
            .iter()
            .zip(rows.iter().skip(1))
            .map(|(&row, &next)| usize::from(row.wrapping_add(1) != next))
            .sum();
        let len = rows.len();
        let rows = if breaks > len / RUN_ROWS_MIN {
            PickedRows::Scattered(rows)
        } else {
            let mut runs: Vec<Range<usize>> = Vec::with_capacity(breaks + 1);
            for &row in rows {
                push_run(&mut runs, row as usize..row as usize + 1);
            }
            PickedRows::Runs(runs)
        };
        Picks { rows, len }
    }

    /// Gathers rows of `array`, and takes the copied bytes off `bytes_left`.
    pub fn of(&self, array: &ArrayRef, bytes_left: &mut usize) -> Result<ArrayRef, TooLarge> {
        if let PickedRows::Runs(runs) = &self.rows
            && let [run] = &runs[..]
        {
            return Ok(match run.len() == array.len() {
                true => Arc::clone(array),
                false => array.slice(run.start, run.len()),
            });
        }
        let array: &dyn Array = array;
        let nulls = match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => None,
            Some(nulls) => Some(NullBuffer::new(self.bits(nulls.inner(), bytes_left)?)),
        };
        Ok(downcast_primitive_array!(
            array => Arc::new(self.primitive(array, nulls, bytes_left)?),
            ArrowType::Boolean => {
                let bits = self.bits(array.as_boolean().values(), bytes_left)?;
                Arc::new(BooleanArray::new(bits, nulls))
            }
            ArrowType::Utf8 => Arc::new(self.bytes(array.as_string::<i32>(), nulls, bytes_left)?),
            ArrowType::Binary => Arc::new(self.bytes(array.as_binary::<i32>(), nulls, bytes_left)?),
            ArrowType::List(_) => Arc::new(self.lists(array.as_list::<i32>(), nulls, bytes_left)?),
            ArrowType::Struct(fields) => {
                let columns = array
                    .as_struct()
                    .columns()
                    .iter()
                    .map(|column| self.of(column, bytes_left))
                    .collect::<Result<_, _>>()?;
                // SAFETY: the members keep their types and have the same
                // length.
                Arc::new(unsafe {
                    StructArray::new_unchecked_with_length(
                        fields.clone(),
                        columns,
                        nulls,
                        self.len,
                    )
                })
            }
            other => unreachable!("{other} is none of the types that columns have")
        ))
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        array: &PrimitiveArray<T>,
        nulls: Option<NullBuffer>,
        bytes_left: &mut usize,
    ) -> Result<PrimitiveArray<T>, TooLarge> {
        spend(bytes_left, self.len, size_of::<T::Native>())?;
        let values = array.values();
        let picked = match &self.rows {
            PickedRows::Scattered(rows) => rows.iter().map(|&row| values[row as usize]).collect(),
            PickedRows::Runs(runs) => {
                let mut picked = Vec::with_capacity(self.len);
                for run in runs {
                    picked.extend_from_slice(&values[run.clone()]);
                }
                picked
            }
        };
        let picked = PrimitiveArray::<T>::new(picked.into(), nulls);
        Ok(picked.with_data_type(array.data_type().clone()))
    }

    fn bits(
        &self,
        bits: &BooleanBuffer,
        bytes_left: &mut usize,
    ) -> Result<BooleanBuffer, TooLarge> {
        spend(bytes_left, self.len.div_ceil(8), 1)?;
        Ok(match &self.rows {
            PickedRows::Scattered(rows) => {
                BooleanBuffer::collect_bool(rows.len(), |i| bits.value(rows[i] as usize))
            }
            PickedRows::Runs(runs) => {
                let mut picked = BooleanBufferBuilder::new(self.len);
                for run in runs {
                    picked.append_buffer(&bits.slice(run.start, run.len()));
                }
                picked.finish()
            }
        })
    }

    fn bytes<T: ByteArrayType<Offset = i32>>(
        &self,
        array: &GenericByteArray<T>,
        nulls: Option<NullBuffer>,
        bytes_left: &mut usize,
    ) -> Result<GenericByteArray<T>, TooLarge> {
        let offsets = array.value_offsets();
        let data = array.value_data();
        let (picked, total) = self.offsets(offsets, 1, bytes_left)?;
        let mut values = Vec::with_capacity(total + SHORT_BYTES);
        match &self.rows {
            PickedRows::Scattered(rows) => copy_values(offsets, data, rows, &mut values),
            PickedRows::Runs(runs) => {
                for run in runs {
                    let bytes = offsets[run.start] as usize..offsets[run.end] as usize;
                    values.extend_from_slice(&data[bytes]);
                }
            }
        }
        // SAFETY: these are whole values of the same array, one after another,
        // and the offsets are the sums of their lengths.
        Ok(unsafe { GenericByteArray::new_unchecked(picked, Buffer::from_vec(values), nulls) })
    }

    fn lists(
        &self,
        array: &ListArray,
        nulls: Option<NullBuffer>,
        bytes_left: &mut usize,
    ) -> Result<ListArray, TooLarge> {
        let offsets = array.value_offsets();
        // The elements are counted when they are gathered themselves.
        let (picked, total) = self.offsets(offsets, 0, bytes_left)?;
        let mut elements = Vec::new();
        let mut pick = |lists: Range<usize>| {
            push_run(
                &mut elements,
                offsets[lists.start] as usize..offsets[lists.end] as usize,
            );
        };
        match &self.rows {
            PickedRows::Scattered(rows) => rows
                .iter()
                .for_each(|&row| pick(row as usize..row as usize + 1)),
            PickedRows::Runs(runs) => runs.iter().cloned().for_each(pick),
        }
        let elements = Picks {
            rows: PickedRows::Runs(elements),
            len: total,
        };
        let elements = elements.of(array.values(), bytes_left)?;
        let field = match array.data_type() {
            ArrowType::List(field) => Arc::clone(field),
            other => unreachable!("a list array of type {other}"),
        };
        // SAFETY: the last offset is the number of gathered elements.
        Ok(unsafe { ListArray::new_unchecked(field, picked, elements, nulls) })
    }

    /// The offsets of the gathered values and where the last one ends. Fails if
    /// their contents, at `bytes_each` for each unit that the offsets count,
    /// are too large.
    fn offsets(
        &self,
        offsets: &[i32],
        bytes_each: usize,
        bytes_left: &mut usize,
    ) -> Result<(OffsetBuffer<i32>, usize), TooLarge> {
        spend(bytes_left, self.len, size_of::<i32>())?;
        let mut picked = Vec::with_capacity(self.len + 1);
        picked.push(0);
        // Larger sums wrap here, and are refused below.
        let mut end = 0u64;
        match &self.rows {
            PickedRows::Scattered(rows) => picked.extend(rows.iter().map(|&row| {
                let row = row as usize;
                end += (offsets[row + 1] - offsets[row]) as u64;
                end as i32
            })),
            PickedRows::Runs(runs) => {
                for run in runs {
                    let moved = (end as i32).wrapping_sub(offsets[run.start]);
                    let ends = &offsets[run.start + 1..=run.end];
                    picked.extend(ends.iter().map(|offset| offset.wrapping_add(moved)));
                    end += (offsets[run.end] - offsets[run.start]) as u64;
                }
            }
        }
        if i32::try_from(end).is_err() {
            return Err(TooLarge);
        }
        let total = end as usize;
        spend(bytes_left, total, bytes_each)?;
        // SAFETY: sums of lengths, which are not negative; the last one fits.
        Ok((unsafe { OffsetBuffer::new_unchecked(picked.into()) }, total))
    }
}

/// Appends values to `out` one by one; it has room for all of them and for
/// [`SHORT_BYTES`] more. Most values are short: copying a fixed number of bytes
/// and cutting off the rest is much faster than a copy of variable length.
fn copy_values(offsets: &[i32], data: &[u8], rows: &[u32], out: &mut Vec<u8>) {
    for &row in rows {
        let start = offsets[row as usize] as usize;
        let end = offsets[row as usize + 1] as usize;
        let room = out.capacity() - out.len() >= SHORT_BYTES;
        match data.get(start..start + SHORT_BYTES) {
            Some(wide) if room && end - start <= SHORT_BYTES => {
                // SAFETY: both sides have this many bytes, `out` beyond its
                // length, which afterwards covers only written bytes.
                unsafe {
                    let to = out.as_mut_ptr().add(out.len());
                    std::ptr::copy_nonoverlapping(wide.as_ptr(), to, SHORT_BYTES);
                    out.set_len(out.len() + (end - start));
                }
            }
            _ => out.extend_from_slice(&data[start..end]),
        }
    }
}

fn push_run(runs: &mut Vec<Range<usize>>, run: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ if run.is_empty() => {}
        _ => runs.push(run),
    }
}

fn spend(bytes_left: &mut usize, count: usize, bytes_each: usize) -> Result<(), TooLarge> {
    let bytes = count.checked_mul(bytes_each).ok_or(TooLarge)?;
    *bytes_left = bytes_left.checked_sub(bytes).ok_or(TooLarge)?;
    Ok(())
}
