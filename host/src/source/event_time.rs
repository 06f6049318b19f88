//! Reads the event time of each row from a field: of a source's rows, or of those that
//! an operator makes of them.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType as ArrowType;

use crate::clock::Clock;
use crate::plan::FieldPath;
use crate::schema::Schema;
use crate::timestamp;

/// Reads event times from a field.
pub struct TimeReader {
    /// The node in messages: "source `actions`".
    title: String,
    field: FieldPath,
    /// The field in messages.
    name: String,
    /// How far ahead of the clock a time may be, in ms.
    ahead_ms_max: Option<i64>,
    clock: Arc<dyn Clock>,
    made_by: TimesMadeBy,
    /// Whether times in seconds were told of.
    seconds_are_told: bool,
}

/// Who can give event times another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimesMadeBy {
    /// A source, by the type of the field.
    Source,
    /// An operator's plugin.
    Plugin,
}

pub enum EventTimes {
    /// Every row has a valid one.
    All(ScalarBuffer<i64>),
    /// Only these rows have a valid one.
    Some {
        rows: Vec<u32>,
        times: ScalarBuffer<i64>,
        /// The other rows, each with what is wrong.
        bad: Vec<(u32, String)>,
    },
}

impl TimeReader {
    pub fn new(
        title: String,
        field: FieldPath,
        schema: &Schema,
        ahead_ms_max: Option<i64>,
        clock: Arc<dyn Clock>,
        made_by: TimesMadeBy,
    ) -> Self {
        TimeReader {
            title,
            name: field.name(schema),
            field,
            ahead_ms_max,
            clock,
            made_by,
            seconds_are_told: false,
        }
    }

    /// The event times of rows of these columns.
    pub fn read(&mut self, columns: &[ArrayRef]) -> EventTimes {
        let column = &self.field.values(columns);
        let latest_ms = self.latest_ms();
        let is_valid = |ms: i64| ms <= latest_ms && timestamp::is_plausible(ms);
        let values = time_values(column);
        let plausible = values.iter().all(|&ms| is_valid(ms));
        if plausible && column.null_count() == 0 && values.len() == column.len() {
            self.warn_of_seconds(&values);
            return EventTimes::All(values);
        }
        let mut rows = Vec::new();
        let mut times = Vec::new();
        let mut bad = Vec::new();
        for (row, at) in (0..).zip(0..column.len()) {
            match time_at(column, at) {
                Some(ms) if is_valid(ms) => {
                    rows.push(row);
                    times.push(ms);
                }
                time => bad.push((row, self.what_is_wrong(time))),
            }
        }
        self.warn_of_seconds(&times);
        EventTimes::Some {
            rows,
            times: times.into(),
            bad,
        }
    }

    /// The last event time that a row may have now.
    fn latest_ms(&self) -> i64 {
        let today_ms = self.clock.today_ms();
        let latest = today_ms.zip(self.ahead_ms_max);
        latest.map_or(i64::MAX, |(today, ahead)| today.saturating_add(ahead))
    }

    #[cold]
    fn what_is_wrong(&self, time: Option<i64>) -> String {
        let name = &self.name;
        let expected =
            format!("field `{name}`: expected an event time in the years 1 to 9999, in ms");
        match time {
            Some(ms) if timestamp::is_plausible(ms) => format!(
                "field `{name}`: expected an event time at most {} ahead of the clock, found {} \
                 (`watermark.max_ahead` allows more){}",
                humantime::format_duration(Duration::from_millis(
                    self.ahead_ms_max.map_or(0, i64::unsigned_abs)
                )),
                timestamp::to_text(ms),
                self.in_smaller_unit(ms)
            ),
            Some(ms) => format!("{expected}, found {ms}{}", self.in_smaller_unit(ms)),
            None => format!("{expected}, found null"),
        }
    }

    /// What a number is if it was meant to be in a smaller unit, where that is a time of
    /// today.
    fn in_smaller_unit(&self, ms: i64) -> String {
        let units = [
            (
                "microseconds",
                1_000,
                "divide them by 1,000",
                "timestamp(us)",
            ),
            (
                "nanoseconds",
                1_000_000,
                "divide them by 1,000,000",
                "timestamp(ns)",
            ),
        ];
        let units = units.into_iter();
        let mut meant = units.filter(|(_, factor, ..)| OF_TODAY_MS.contains(&(ms / factor)));
        let Some((unit, factor, divide, type_name)) = meant.next() else {
            return String::new();
        };
        let help = match self.made_by {
            TimesMadeBy::Source => format!("give the field the type `\"{type_name}\"`"),
            TimesMadeBy::Plugin => format!("have the plugin {divide}"),
        };
        let meant = timestamp::to_text(ms / factor);
        format!("; this looks like {unit}, as those of {meant}: {help} if it is")
    }

    fn warn_of_seconds(&mut self, times_ms: &[i64]) {
        if self.seconds_are_told || !look_like_seconds(times_ms) {
            return;
        }
        self.seconds_are_told = true;
        let ms = times_ms[0];
        let help = match self.made_by {
            TimesMadeBy::Source => "Give the field the type `\"timestamp(s)\"`",
            TimesMadeBy::Plugin => "Have the plugin multiply them by 1,000",
        };
        tracing::warn!(
            "{}: the event times in field `{}` are in 1970, such as {}: {ms} was read as ms, and \
             is probably in seconds. {help}",
            self.title,
            self.name,
            timestamp::to_text(ms)
        );
    }
}

/// From 1973 to 2286.
const OF_TODAY_MS: std::ops::RangeInclusive<i64> = 100_000_000_000..=9_999_999_999_999;

/// The same in seconds. In ms, they are the first months of 1970.
const SECONDS: std::ops::RangeInclusive<i64> = 100_000_000..=9_999_999_999;

/// Whether these event times in ms are probably seconds that were read as ms.
fn look_like_seconds(times_ms: &[i64]) -> bool {
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

fn time_at(column: &ArrayRef, row: usize) -> Option<i64> {
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
