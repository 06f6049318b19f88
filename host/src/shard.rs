//! Says which shard a key belongs to. Keyed state is divided into shards, and
//! [`placement`](crate::placement) decides which task has which.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMillisecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_schema::{DataType, TimeUnit};
use twox_hash::XxHash3_64;

/// Number of shards of keyed state. It never changes: persisted rows are stored
/// by shard.
pub const SHARDS: u32 = 256;

/// The shard of each row.
pub fn shards<'a>(key: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> Vec<u32> {
    hashes(key, rows).into_iter().map(shard).collect()
}

/// The shard of a key with this hash.
pub fn shard(hash: u64) -> u32 {
    (hash >> 32) as u32 % SHARDS
}

/// The hash of each row's key. Part of the format of persisted state: a key must have
/// the same hash in every version.
pub fn hashes<'a>(key: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> Vec<u64> {
    let mut hashes = vec![0; rows];
    for column in key {
        hash_column(column, &mut hashes);
    }
    hashes
}

/// Mixes a column into the hashes of its rows.
fn hash_column(column: &ArrayRef, hashes: &mut [u64]) {
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            hash_rows(column, hashes, |row| mix(u64::from(values.value(row))));
        }
        DataType::Int8 => hash_integers::<Int8Type>(column, hashes, |v| v as u64),
        DataType::Int16 => hash_integers::<Int16Type>(column, hashes, |v| v as u64),
        DataType::Int32 => hash_integers::<Int32Type>(column, hashes, |v| v as u64),
        DataType::Int64 => hash_integers::<Int64Type>(column, hashes, |v| v as u64),
        DataType::UInt8 => hash_integers::<UInt8Type>(column, hashes, u64::from),
        DataType::UInt16 => hash_integers::<UInt16Type>(column, hashes, u64::from),
        DataType::UInt32 => hash_integers::<UInt32Type>(column, hashes, u64::from),
        DataType::UInt64 => hash_integers::<UInt64Type>(column, hashes, |v| v),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            hash_integers::<TimestampMillisecondType>(column, hashes, |v| v as u64);
        }
        DataType::Decimal128(..) => hash_integers::<Decimal128Type>(column, hashes, |units| {
            (units as u64) ^ mix((units >> 64) as u64)
        }),
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            hash_rows(column, hashes, |row| {
                XxHash3_64::oneshot(values.value(row).as_bytes())
            });
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            hash_rows(column, hashes, |row| XxHash3_64::oneshot(values.value(row)));
        }
        other => unreachable!("the planner lets no {other} be a key"),
    }
}

fn hash_integers<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    hashes: &mut [u64],
    bits: impl Fn(T::Native) -> u64,
) {
    let values: &PrimitiveArray<T> = column.as_primitive();
    hash_rows(column, hashes, |row| mix(bits(values.value(row))));
}

fn hash_rows(column: &ArrayRef, hashes: &mut [u64], hash: impl Fn(usize) -> u64) {
    for (row, known) in hashes.iter_mut().enumerate() {
        let value = if column.is_null(row) { 0 } else { hash(row) };
        *known = mix(known.rotate_left(5) ^ value);
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Decimal128Array, Int64Array, StringArray};

    use super::*;

    /// Persisted state is found by these.
    #[test]
    fn shards_are_the_same_for_ever() {
        let columns: [ArrayRef; 2] = [
            Arc::new(StringArray::from(vec!["anna", "ben", "carla", "anna"])),
            Arc::new(Int64Array::from(vec![Some(1), Some(-2), None, Some(1)])),
        ];
        let shards = [&columns[..1], &columns[1..], &columns[..]].map(|key| shards(key.iter(), 4));
        let decimals = Decimal128Array::from(vec![1230, -1230, 10_i128.pow(30), 0]);
        let decimals: ArrayRef = Arc::new(decimals);
        assert_eq!(super::shards([&decimals].into_iter(), 4), [81, 25, 129, 0]);
        assert_eq!(shards, [[99, 16, 30, 99], [9, 122, 0, 9], [22, 53, 41, 22]]);
    }
}
