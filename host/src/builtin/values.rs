//! The numbers of columns, of whatever type.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_schema::DataType as ArrowType;

use crate::decimal;

/// A column of signed integers.
pub fn integers(column: &ArrayRef) -> Cow<'_, [i64]> {
    match column.data_type() {
        ArrowType::Int8 => widened(column.as_primitive::<Int8Type>()),
        ArrowType::Int16 => widened(column.as_primitive::<Int16Type>()),
        ArrowType::Int32 => widened(column.as_primitive::<Int32Type>()),
        _ => Cow::Borrowed(column.as_primitive::<Int64Type>().values()),
    }
}

/// A column of unsigned integers.
pub fn naturals(column: &ArrayRef) -> Cow<'_, [u64]> {
    match column.data_type() {
        ArrowType::UInt8 => widened(column.as_primitive::<UInt8Type>()),
        ArrowType::UInt16 => widened(column.as_primitive::<UInt16Type>()),
        ArrowType::UInt32 => widened(column.as_primitive::<UInt32Type>()),
        _ => Cow::Borrowed(column.as_primitive::<UInt64Type>().values()),
    }
}

/// A column of decimals, in units of their last digit.
pub fn units(column: &ArrayRef) -> &[i128] {
    column.as_primitive::<Decimal128Type>().values()
}

/// A column of numbers of any type.
pub fn floats(column: &ArrayRef) -> Cow<'_, [f64]> {
    match column.data_type() {
        ArrowType::Float64 => Cow::Borrowed(column.as_primitive::<Float64Type>().values()),
        ArrowType::Float32 => widened(column.as_primitive::<Float32Type>()),
        ArrowType::UInt8 | ArrowType::UInt16 | ArrowType::UInt32 | ArrowType::UInt64 => {
            naturals(column).iter().map(|&value| value as f64).collect()
        }
        ArrowType::Decimal128(_, scale) => {
            let scale = scale.unsigned_abs();
            let units = units(column).iter();
            units
                .map(|&units| decimal::to_float(units, scale))
                .collect()
        }
        _ => integers(column).iter().map(|&value| value as f64).collect(),
    }
}

fn widened<T, N>(column: &PrimitiveArray<T>) -> Cow<'_, [N]>
where
    T: ArrowPrimitiveType,
    N: From<T::Native> + Clone,
{
    column
        .values()
        .iter()
        .map(|&value| N::from(value))
        .collect()
}
