//! Rows of an array, picked by index: how a column that an operator passes on
//! untouched follows the rows it keeps.
//!
//! `arrow_select::take` would do, were it not that a plugin chooses the
//! indices: so the size of the result is known before it is made. Indices that
//! mostly count up by one are copied in runs.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, ByteArrayType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericByteArray, ListArray, PrimitiveArray, StructArray,
    downcast_primitive_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType as ArrowType;

/// The result would be larger than it may.
#[derive(Debug)]
pub struct TooLarge;

/// Rows of `array`, in the order of `rows`, each of which is below its length.
/// `bytes_left` goes down by the size of the result.
pub fn gather(
    array: &ArrayRef,
    rows: &[u32],
    bytes_left: &mut usize,
) -> Result<ArrayRef, TooLarge> {
    let array: &dyn Array = array;
    let nulls = match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => None,
        Some(nulls) => {
            spend(bytes_left, rows.len() / 8)?;
            Some(NullBuffer::new(gather_bits(nulls.inner(), rows)))
        }
    };
    Ok(downcast_primitive_array!(
        array => Arc::new(gather_primitive(array, rows, nulls, bytes_left)?),
        ArrowType::Boolean => {
            spend(bytes_left, rows.len() / 8)?;
            Arc::new(BooleanArray::new(gather_bits(array.as_boolean().values(), rows), nulls))
        }
        ArrowType::Utf8 => Arc::new(gather_bytes(array.as_string::<i32>(), rows, nulls, bytes_left)?),
        ArrowType::Binary => Arc::new(gather_bytes(array.as_binary::<i32>(), rows, nulls, bytes_left)?),
        ArrowType::List(_) => Arc::new(gather_lists(array.as_list::<i32>(), rows, nulls, bytes_left)?),
        ArrowType::Struct(fields) => {
            let columns = array
                .as_struct()
                .columns()
                .iter()
                .map(|column| gather(column, rows, bytes_left))
                .collect::<Result<_, _>>()?;
            // SAFETY: the members have the types that they had, and one length.
            Arc::new(unsafe {
                StructArray::new_unchecked_with_length(fields.clone(), columns, nulls, rows.len())
            })
        }
        other => unreachable!("{other} is none of the types that columns have")
    ))
}

fn gather_primitive<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    rows: &[u32],
    nulls: Option<NullBuffer>,
    bytes_left: &mut usize,
) -> Result<PrimitiveArray<T>, TooLarge> {
    spend(
        bytes_left,
        rows.len().saturating_mul(size_of::<T::Native>()),
    )?;
    let values = array.values();
    let picked: Vec<T::Native> = rows.iter().map(|&row| values[row as usize]).collect();
    let gathered = PrimitiveArray::<T>::new(picked.into(), nulls);
    Ok(gathered.with_data_type(array.data_type().clone()))
}

fn gather_bits(bits: &BooleanBuffer, rows: &[u32]) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows.len(), |i| bits.value(rows[i] as usize))
}

fn gather_bytes<T: ByteArrayType<Offset = i32>>(
    array: &GenericByteArray<T>,
    rows: &[u32],
    nulls: Option<NullBuffer>,
    bytes_left: &mut usize,
) -> Result<GenericByteArray<T>, TooLarge> {
    let offsets = array.value_offsets();
    let picked = gather_offsets(offsets, rows, size_of::<u8>(), bytes_left)?;
    let data = array.value_data();
    let mut values = Vec::with_capacity(picked[picked.len() - 1] as usize);
    for run in runs(rows) {
        values.extend_from_slice(&data[offsets[run.start] as usize..offsets[run.end] as usize]);
    }
    let picked = OffsetBuffer::new(picked.into());
    // SAFETY: whole values of the same array, one after the other, and the
    // offsets are sums of their lengths.
    Ok(unsafe { GenericByteArray::new_unchecked(picked, Buffer::from_vec(values), nulls) })
}

fn gather_lists(
    array: &ListArray,
    rows: &[u32],
    nulls: Option<NullBuffer>,
    bytes_left: &mut usize,
) -> Result<ListArray, TooLarge> {
    let ArrowType::List(element) = array.data_type() else {
        unreachable!("a list array is of a list type");
    };
    let offsets = array.value_offsets();
    let picked = gather_offsets(offsets, rows, size_of::<u32>(), bytes_left)?;
    let mut elements = Vec::with_capacity(picked[picked.len() - 1] as usize);
    for run in runs(rows) {
        elements.extend(offsets[run.start] as u32..offsets[run.end] as u32);
    }
    let elements = gather(array.values(), &elements, bytes_left)?;
    let picked = OffsetBuffer::new(picked.into());
    Ok(ListArray::new(Arc::clone(element), picked, elements, nulls))
}

/// Offsets of the picked rows, if what they lie in is not too large: so many
/// bytes for each thing that they count.
fn gather_offsets(
    offsets: &[i32],
    rows: &[u32],
    bytes_each: usize,
    bytes_left: &mut usize,
) -> Result<Vec<i32>, TooLarge> {
    spend(bytes_left, rows.len().saturating_mul(size_of::<i32>()))?;
    let mut total = 0u64;
    let mut picked = Vec::with_capacity(rows.len() + 1);
    picked.push(0);
    for &row in rows {
        let row = row as usize;
        total += (offsets[row + 1] - offsets[row]) as u64;
        // Wraps where the total is found to be too much in the end.
        picked.push(total as i32);
    }
    if total > i32::MAX as u64 {
        return Err(TooLarge);
    }
    spend(bytes_left, (total as usize).saturating_mul(bytes_each))?;
    Ok(picked)
}

/// Rows that follow one another, as ranges.
fn runs(rows: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = *rows.get(at)? as usize;
        let mut end = first + 1;
        at += 1;
        while rows.get(at).is_some_and(|&row| row as usize == end) {
            at += 1;
            end += 1;
        }
        Some(first..end)
    })
}

fn spend(bytes_left: &mut usize, bytes: usize) -> Result<(), TooLarge> {
    *bytes_left = bytes_left.checked_sub(bytes).ok_or(TooLarge)?;
    Ok(())
}
