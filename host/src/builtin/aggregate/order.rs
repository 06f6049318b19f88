//! Comparing values of a column.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray};

/// A column whose values have an order.
pub(super) trait Ordered: Array + Send + Sync + 'static {
    type Value<'a>: Copy;

    fn of(column: &ArrayRef) -> &Self;
    fn at(&self, row: usize) -> Self::Value<'_>;
    fn compare(one: Self::Value<'_>, other: Self::Value<'_>) -> Ordering;
}

/// Numbers with a total order: of floats, NaN is the largest, and -0 is before 0.
pub(super) trait TotalOrder: ArrowPrimitiveType {
    fn order(one: Self::Native, other: Self::Native) -> Ordering;
}

macro_rules! ordered_by_value {
    ($($numbers:ty)*) => {
        $(impl TotalOrder for $numbers {
            #[inline]
            fn order(one: Self::Native, other: Self::Native) -> Ordering {
                one.cmp(&other)
            }
        })*
    };
}

ordered_by_value!(Int8Type Int16Type Int32Type Int64Type TimestampMillisecondType);
ordered_by_value!(UInt8Type UInt16Type UInt32Type UInt64Type Decimal128Type);

macro_rules! ordered_floats {
    ($($numbers:ty)*) => {
        $(impl TotalOrder for $numbers {
            #[inline]
            fn order(one: Self::Native, other: Self::Native) -> Ordering {
                match (one.is_nan(), other.is_nan()) {
                    (false, false) => one.total_cmp(&other),
                    (one, other) => one.cmp(&other),
                }
            }
        })*
    };
}

ordered_floats!(Float32Type Float64Type);

impl<T: TotalOrder> Ordered for PrimitiveArray<T> {
    type Value<'a> = T::Native;

    fn of(column: &ArrayRef) -> &Self {
        column.as_primitive()
    }

    #[inline]
    fn at(&self, row: usize) -> T::Native {
        self.value(row)
    }

    #[inline]
    fn compare(one: T::Native, other: T::Native) -> Ordering {
        T::order(one, other)
    }
}

impl Ordered for BooleanArray {
    type Value<'a> = bool;

    fn of(column: &ArrayRef) -> &Self {
        column.as_boolean()
    }

    fn at(&self, row: usize) -> bool {
        self.value(row)
    }

    fn compare(one: bool, other: bool) -> Ordering {
        one.cmp(&other)
    }
}

impl Ordered for StringArray {
    type Value<'a> = &'a str;

    fn of(column: &ArrayRef) -> &Self {
        column.as_string()
    }

    fn at(&self, row: usize) -> &str {
        self.value(row)
    }

    fn compare(one: &str, other: &str) -> Ordering {
        one.cmp(other)
    }
}

impl Ordered for BinaryArray {
    type Value<'a> = &'a [u8];

    fn of(column: &ArrayRef) -> &Self {
        column.as_binary()
    }

    fn at(&self, row: usize) -> &[u8] {
        self.value(row)
    }

    fn compare(one: &[u8], other: &[u8]) -> Ordering {
        one.cmp(other)
    }
}

/// Chooses by the type of a column that has an order: `$column` is its array's type in
/// `$then`. `$other` is for lists and records.
macro_rules! for_ordered {
    ($data_type:expr, $column:ident => $then:expr, $other:expr) => {{
        use arrow_array::{
            BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array,
            Int16Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt8Array,
            UInt16Array, UInt32Array, UInt64Array,
        };
        use $crate::schema::DataType;
        macro_rules! with {
            ($array:ty) => {{
                type $column = $array;
                $then
            }};
        }
        match $data_type {
            DataType::Bool => with!(BooleanArray),
            DataType::Int8 => with!(Int8Array),
            DataType::Int16 => with!(Int16Array),
            DataType::Int32 => with!(Int32Array),
            DataType::Int64 => with!(Int64Array),
            DataType::UInt8 => with!(UInt8Array),
            DataType::UInt16 => with!(UInt16Array),
            DataType::UInt32 => with!(UInt32Array),
            DataType::UInt64 => with!(UInt64Array),
            DataType::Float32 => with!(Float32Array),
            DataType::Float64 => with!(Float64Array),
            DataType::Utf8 | DataType::Symbol(_) => with!(StringArray),
            DataType::Bytes => with!(BinaryArray),
            DataType::Timestamp => with!(TimestampMillisecondArray),
            DataType::Decimal { .. } => with!(Decimal128Array),
            DataType::List(_) | DataType::Record(_) => $other,
        }
    }};
}

pub(super) use for_ordered;
