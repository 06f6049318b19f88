//! Reads the event time of each row from a column.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType as ArrowType;

use crate::timestamp;

pub enum EventTimes {
    /// Every row has a valid one.
    All(ScalarBuffer<i64>),
    /// Only the rows of this mask have a valid one.
    Some(BooleanArray, ScalarBuffer<i64>),
}

/// `latest_ms` is the last time that is valid.
pub fn event_times(column: &ArrayRef, latest_ms: i64) -> EventTimes {
    let is_valid = |ms: i64| ms <= latest_ms && timestamp::is_plausible(ms);
    let values = time_values(column);
    let plausible = values.iter().all(|&ms| is_valid(ms));
    if plausible && column.null_count() == 0 && values.len() == column.len() {
        return EventTimes::All(values);
    }
    let times: Vec<Option<i64>> = (0..column.len())
        .map(|row| time_at(column, row).filter(|&ms| is_valid(ms)))
        .collect();
    let mask = times.iter().map(|time| Some(time.is_some())).collect();
    EventTimes::Some(mask, times.into_iter().flatten().collect())
}

/// Seconds from 1973 to 2286. In ms, they are the first months of 1970.
const SECONDS: std::ops::RangeInclusive<i64> = 100_000_000..=9_999_999_999;

/// Whether these event times in ms are probably seconds that were read as ms.
pub fn look_like_seconds(times_ms: &[i64]) -> bool {
    !times_ms.is_empty() && times_ms.iter().all(|ms| SECONDS.contains(ms))
}

/// The values of a timestamp or int64 column; the planner has checked the type.
fn time_values(column: &ArrayRef) -> ScalarBuffer<i64> {
    match column.data_type() {
        ArrowType::Int64 => column.as_primitive::<Int64Type>().values().clone(),
        ArrowType::Timestamp(_, _) => column
            .as_primitive_opt::<TimestampMillisecondType>()
            .map(|column| column.values().clone())
            .unwrap_or_default(),
        _ => ScalarBuffer::default(),
    }
}

pub fn time_at(column: &ArrayRef, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    time_values(column).get(row).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_were_read_as_ms_are_noticed() {
        assert!(look_like_seconds(&[1_700_000_000, 1_700_000_060]));
        assert!(!look_like_seconds(&[1_700_000_000_000]));
        assert!(!look_like_seconds(&[1_700_000_000, 1_700_000_000_000]));
        assert!(!look_like_seconds(&[0, 1_000, 60_000]));
        assert!(!look_like_seconds(&[]));
    }
}
