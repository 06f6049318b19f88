//! Tells rows apart that have been taken to pieces: by a hash of their content and time.
//!
//! Rows that are equal, at the same time, need not be told apart: what belongs to one of them
//! may as well belong to another.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::bindings::sluicebox::plugin::columns::Values;
use crate::record::columns;
use crate::{Record, Timestamp};

/// 128 bits that tell a row from all others.
pub fn identity<'a, R: Record<'a>>(row: &R, time: Timestamp) -> [u64; 2] {
    let batch = columns(std::slice::from_ref(row));
    [0u8, 1].map(|half| {
        let mut hasher = DefaultHasher::new();
        (half, time.0).hash(&mut hasher);
        for column in &batch.columns {
            column.validity.hash(&mut hasher);
            hash(&column.values, &mut hasher);
        }
        hasher.finish()
    })
}

fn hash(values: &Values, hasher: &mut impl Hasher) {
    match values {
        Values::None => {}
        Values::Bits(values) | Values::Uint8(values) | Values::Decimals(values) => {
            values.hash(hasher);
        }
        Values::Int8(values) => values.hash(hasher),
        Values::Int16(values) => values.hash(hasher),
        Values::Int32(values) => values.hash(hasher),
        Values::Int64(values) => values.hash(hasher),
        Values::Uint16(values) => values.hash(hasher),
        Values::Uint32(values) | Values::Ends(values) => values.hash(hasher),
        Values::Uint64(values) => values.hash(hasher),
        Values::Float32(values) => values.iter().for_each(|value| value.to_bits().hash(hasher)),
        Values::Float64(values) => values.iter().for_each(|value| value.to_bits().hash(hasher)),
        Values::Packed(packed) => {
            packed.ends.hash(hasher);
            packed.data.hash(hasher);
        }
        Values::Input(input) => input.hash(hasher),
    }
}
