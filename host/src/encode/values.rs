//! Values of columns and names in schemas, as all encoders read them.

use std::ops::Range;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::DataType as ArrowType;

/// A whole number; one of 64 bits without a sign as the one of the same bits.
pub fn whole(array: &ArrayRef, row: usize) -> i64 {
    match array.data_type() {
        ArrowType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        ArrowType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        ArrowType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        ArrowType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        ArrowType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        ArrowType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        ArrowType::UInt64 => array.as_primitive::<UInt64Type>().value(row).cast_signed(),
        _ => array.as_primitive::<Int64Type>().value(row),
    }
}

/// A float of 32 bits, as its bytes.
pub fn float(array: &ArrayRef, row: usize) -> [u8; 4] {
    array.as_primitive::<Float32Type>().value(row).to_le_bytes()
}

/// A float of 32 or 64 bits, as the bytes of one of 64.
pub fn double(array: &ArrayRef, row: usize) -> [u8; 8] {
    let value: f64 = match array.data_type() {
        ArrowType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        _ => array.as_primitive::<Float64Type>().value(row),
    };
    value.to_le_bytes()
}

/// Where the elements of a row's list are.
pub fn range(offsets: &[i32], row: usize) -> Range<usize> {
    let at = |index: usize| usize::try_from(offsets[index]).unwrap_or_default();
    at(row)..at(row + 1)
}

/// A text as a name in a schema, with _ for what names do not have.
pub fn identifier(text: &str) -> String {
    let is_good = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut name: String = text
        .chars()
        .map(|char| if is_good(char) { char } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}
