//! Makes a plugin's input of arrays: borrows their buffers, and copies only
//! where an array is a slice that does not start where its buffers do.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ByteArrayType, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, GenericByteArray, ListArray, StructArray};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType as ArrowType;

use crate::logic::{Columns, Failure, FailureKind};
use crate::plugin::contract::{BatchRef, ColumnRef, PackedRef, ValuesRef};
use crate::schema::{DataType, Field, Schema};

/// The columns of a call, ready to be borrowed.
pub struct CallInput<'a> {
    rows: u32,
    columns: Vec<Flat<'a>>,
    schema: &'a Schema,
}

enum Flat<'a> {
    Given(&'a ArrayRef),
    Rebased(ArrayRef),
}

impl<'a> CallInput<'a> {
    pub fn new(schema: &'a Schema, given: Columns<'a>) -> Result<Self, Failure> {
        if schema.fields.len() != given.columns.len() {
            return Err(mismatch(format!(
                "{} columns for a schema of {}",
                given.columns.len(),
                schema.fields.len()
            )));
        }
        let rows = count(given.rows)?;
        let mut columns = Vec::with_capacity(given.columns.len());
        for column in given.columns {
            if column.len() != given.rows {
                return Err(mismatch(format!(
                    "a column of {} in a batch of {rows} rows",
                    column.len()
                )));
            }
            columns.push(if is_flat(column) {
                Flat::Given(column)
            } else {
                Flat::Rebased(rebased(column))
            });
        }
        Ok(CallInput {
            rows,
            columns,
            schema,
        })
    }

    pub fn batch(&self) -> Result<BatchRef<'_>, Failure> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for (field, column) in self.schema.fields.iter().zip(&self.columns) {
            let array = match column {
                Flat::Given(array) => *array,
                Flat::Rebased(array) => array,
            };
            push(field, array, &mut columns)?;
        }
        Ok(BatchRef {
            rows: self.rows,
            columns,
        })
    }
}

/// A number of rows or groups as the contract's type.
pub fn count(rows: usize) -> Result<u32, Failure> {
    u32::try_from(rows).map_err(|_| mismatch(format!("{rows} rows at once")))
}

/// Adds a column and its nested columns, depth first.
fn push<'a>(
    field: &Field,
    array: &'a dyn Array,
    out: &mut Vec<ColumnRef<'a>>,
) -> Result<(), Failure> {
    let values = match &field.data_type {
        DataType::Bool => array
            .as_boolean_opt()
            .map(|a| ValuesRef::Bits(bits(a.values()))),
        DataType::Int8 => primitive::<Int8Type>(array).map(ValuesRef::Int8),
        DataType::Int16 => primitive::<Int16Type>(array).map(ValuesRef::Int16),
        DataType::Int32 => primitive::<Int32Type>(array).map(ValuesRef::Int32),
        DataType::Int64 => primitive::<Int64Type>(array).map(ValuesRef::Int64),
        DataType::UInt8 => primitive::<UInt8Type>(array).map(ValuesRef::UInt8),
        DataType::UInt16 => primitive::<UInt16Type>(array).map(ValuesRef::UInt16),
        DataType::UInt32 => primitive::<UInt32Type>(array).map(ValuesRef::UInt32),
        DataType::UInt64 => primitive::<UInt64Type>(array).map(ValuesRef::UInt64),
        DataType::Float32 => primitive::<Float32Type>(array).map(ValuesRef::Float32),
        DataType::Float64 => primitive::<Float64Type>(array).map(ValuesRef::Float64),
        // As the contract says where the least significant byte is the first, as here.
        DataType::Decimal { .. } => primitive::<Decimal128Type>(array)
            .map(|units| ValuesRef::Decimals(bytemuck::cast_slice(units))),
        DataType::Timestamp => primitive::<TimestampMillisecondType>(array).map(ValuesRef::Int64),
        DataType::Utf8 | DataType::Symbol(_) => array
            .as_string_opt::<i32>()
            .map(|a| packed(a.offsets(), a.value_data())),
        DataType::Bytes => array
            .as_binary_opt::<i32>()
            .map(|a| packed(a.offsets(), a.value_data())),
        DataType::List(_) => array
            .as_list_opt::<i32>()
            .map(|a| ValuesRef::Ends(ends(a.offsets()))),
        DataType::Record(_) => array.as_struct_opt().map(|_| ValuesRef::None),
    };
    let Some(values) = values else {
        return Err(mismatch(format!(
            "column `{field}` is {}",
            array.data_type()
        )));
    };
    out.push(ColumnRef {
        // Below a missing record, Arrow allows a null in a member without
        // nulls; the plugin sees the record's validity first.
        validity: array
            .nulls()
            .filter(|nulls| field.nullable && nulls.null_count() > 0)
            .map(|nulls| bits(nulls.inner())),
        values,
    });
    match &field.data_type {
        DataType::List(element) => push(element, array.as_list::<i32>().values(), out),
        DataType::Record(members) => {
            let columns = array.as_struct().columns();
            if columns.len() != members.len() {
                return Err(mismatch(format!(
                    "column `{field}` has {} members",
                    columns.len()
                )));
            }
            members
                .iter()
                .zip(columns)
                .try_for_each(|(member, column)| push(member, column, out))
        }
        _ => Ok(()),
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<&[T::Native]> {
    array.as_primitive_opt::<T>().map(|array| &**array.values())
}

fn packed<'a>(offsets: &'a OffsetBuffer<i32>, data: &'a [u8]) -> ValuesRef<'a> {
    let ends = ends(offsets);
    let used = ends.last().map_or(0, |&end| end as usize);
    ValuesRef::Packed(PackedRef {
        ends,
        data: data.get(..used).unwrap_or(data),
    })
}

/// Where each value ends. The array has been rebased, so the first starts at 0.
fn ends(offsets: &OffsetBuffer<i32>) -> &[u32] {
    bytemuck::cast_slice(&offsets[1..])
}

/// The bytes of a bitmap that has been rebased to a whole byte.
fn bits(bits: &BooleanBuffer) -> &[u8] {
    let start = bits.offset() / 8;
    &bits.values()[start..start + bits.len().div_ceil(8)]
}

/// Whether all buffers start where the array does: offsets at 0, bitmaps at a
/// whole byte, elements at the first list's.
fn is_flat(array: &dyn Array) -> bool {
    let starts_with_byte = |bits: &BooleanBuffer| bits.offset().is_multiple_of(8);
    if !array
        .nulls()
        .is_none_or(|nulls| starts_with_byte(nulls.inner()))
    {
        return false;
    }
    match array.data_type() {
        ArrowType::Boolean => starts_with_byte(array.as_boolean().values()),
        ArrowType::Utf8 => array.as_string::<i32>().offsets()[0] == 0,
        ArrowType::Binary => array.as_binary::<i32>().offsets()[0] == 0,
        ArrowType::List(_) => {
            let lists = array.as_list::<i32>();
            let offsets = lists.offsets();
            let elements = lists.values();
            offsets[0] == 0
                && offsets[offsets.len() - 1] as usize == elements.len()
                && is_flat(elements)
        }
        ArrowType::Struct(_) => array
            .as_struct()
            .columns()
            .iter()
            .all(|column| is_flat(column)),
        _ => true,
    }
}

/// The same array with buffers that start where it does. Offsets and bitmaps
/// are copied; texts and numbers stay shared.
fn rebased(array: &dyn Array) -> ArrayRef {
    let nulls = array
        .nulls()
        .map(|nulls| NullBuffer::new(realigned(nulls.inner())));
    match array.data_type() {
        ArrowType::Boolean => {
            let bits = realigned(array.as_boolean().values());
            Arc::new(BooleanArray::new(bits, nulls))
        }
        ArrowType::Utf8 => Arc::new(rebased_bytes(array.as_string::<i32>(), nulls)),
        ArrowType::Binary => Arc::new(rebased_bytes(array.as_binary::<i32>(), nulls)),
        ArrowType::List(element) => {
            let lists = array.as_list::<i32>();
            let (offsets, start, end) = from_zero(lists.offsets());
            let elements = rebased(&lists.values().slice(start, end - start));
            Arc::new(ListArray::new(
                Arc::clone(element),
                offsets,
                elements,
                nulls,
            ))
        }
        ArrowType::Struct(fields) => {
            let records = array.as_struct();
            let columns = records
                .columns()
                .iter()
                .map(|column| rebased(column))
                .collect();
            // SAFETY: the members keep their types and lengths.
            Arc::new(unsafe {
                StructArray::new_unchecked_with_length(
                    fields.clone(),
                    columns,
                    nulls,
                    records.len(),
                )
            })
        }
        _ => {
            let data = array.to_data().into_builder().nulls(nulls);
            // SAFETY: the same values with the same nulls.
            arrow_array::make_array(unsafe { data.build_unchecked() })
        }
    }
}

fn rebased_bytes<T: ByteArrayType<Offset = i32>>(
    array: &GenericByteArray<T>,
    nulls: Option<NullBuffer>,
) -> GenericByteArray<T> {
    let (offsets, start, end) = from_zero(array.offsets());
    let values = array.values().slice_with_length(start, end - start);
    // SAFETY: the same values, cut where the first starts and the last ends,
    // with their offsets less the first one.
    unsafe { GenericByteArray::new_unchecked(offsets, values, nulls) }
}

/// The offsets less the first one, and the range that they covered.
fn from_zero(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let start = offsets[0];
    let end = offsets[offsets.len() - 1];
    let moved: ScalarBuffer<i32> = offsets.iter().map(|offset| offset - start).collect();
    (OffsetBuffer::new(moved), start as usize, end as usize)
}

fn realigned(bits: &BooleanBuffer) -> BooleanBuffer {
    BooleanBuffer::new(bits.sliced(), 0, bits.len())
}

/// A bug in the host: it passes columns that the operator does not read.
fn mismatch(what: String) -> Failure {
    Failure::new(
        FailureKind::Contract,
        format!("the host gave it {what}, which is a bug in Sluicebox"),
    )
}
