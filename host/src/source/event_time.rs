//! Reads the event time of each row from a field: of a source's rows, or of those that
//! an operator makes of them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType as ArrowType;

use crate::clock::Clock;
use crate::plan::FieldPath;
use crate::quantity::spoken_ms;
use crate::schema::Schema;
use crate::timestamp::{self, DAY_MS, TimeUnit};

/// Reads event times from a field.
pub struct TimeReader {
    /// The node in messages: "source `actions`".
    title: String,
    field: FieldPath,
    /// The field in messages.
    name: String,
    ahead: Ahead,
    made_by: TimesMadeBy,
    /// Whether times were told of that seem to be meant otherwise.
    is_doubt_told: bool,
    /// Whether times were read before.
    has_read: bool,
}

/// How far ahead of the clock event times may be.
pub struct Ahead {
    ms_max: Option<i64>,
    clock: Arc<dyn Clock>,
}

impl Ahead {
    pub fn new(ms_max: Option<i64>, clock: Arc<dyn Clock>) -> Self {
        Ahead { ms_max, clock }
    }

    /// Refuses those that are too far.
    pub fn check(&self, times: ScalarBuffer<i64>) -> EventTimes {
        let latest_ms = self.latest_ms();
        if times.iter().all(|&ms| ms <= latest_ms) {
            return EventTimes::All(times);
        }
        EventTimes::some(times.iter().map(|&ms| match ms <= latest_ms {
            true => Ok(ms),
            false => Err(self.too_far(ms)),
        }))
    }

    /// The last event time that a row may have now.
    fn latest_ms(&self) -> i64 {
        let latest = self.clock.today_ms().zip(self.ms_max);
        latest.map_or(i64::MAX, |(today, ahead)| today.saturating_add(ahead))
    }

    #[cold]
    fn too_far(&self, ms: i64) -> String {
        format!(
            "expected an event time at most {} ahead of the clock, found {} \
             (`watermark.max_ahead` allows more)",
            spoken_ms(self.ms_max.unwrap_or(0)),
            timestamp::to_text(ms)
        )
    }
}

/// Who can give event times another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimesMadeBy {
    /// A source, by the type of the field; it reads numbers in this unit, or no numbers.
    Source(Option<TimeUnit>),
    /// An operator's plugin.
    Plugin,
}

impl TimesMadeBy {
    /// The unit that numbers are taken to have.
    fn unit(self) -> Option<TimeUnit> {
        match self {
            TimesMadeBy::Source(unit) => unit,
            TimesMadeBy::Plugin => Some(TimeUnit::Milliseconds),
        }
    }
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

impl EventTimes {
    /// Of rows with these, or with what is wrong.
    fn some(all: impl Iterator<Item = Result<i64, String>>) -> Self {
        let (mut rows, mut times, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (row, time) in (0..).zip(all) {
            match time {
                Ok(ms) => {
                    rows.push(row);
                    times.push(ms);
                }
                Err(error) => bad.push((row, error)),
            }
        }
        EventTimes::Some {
            rows,
            times: times.into(),
            bad,
        }
    }
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
            ahead: Ahead::new(ahead_ms_max, clock),
            made_by,
            is_doubt_told: false,
            has_read: false,
        }
    }

    /// The event times of rows of these columns.
    pub fn read(&mut self, columns: &[ArrayRef]) -> EventTimes {
        let column = &self.field.values(columns);
        let latest_ms = self.ahead.latest_ms();
        let is_valid = |ms: i64| ms <= latest_ms && timestamp::is_plausible(ms);
        let values = time_values(column);
        let plausible = values.iter().all(|&ms| is_valid(ms));
        if plausible && column.null_count() == 0 && values.len() == column.len() {
            self.warn_of_doubt(&values);
            return EventTimes::All(values);
        }
        let times = (0..column.len()).map(|at| match time_at(column, at) {
            Some(ms) if is_valid(ms) => Ok(ms),
            time => Err(self.what_is_wrong(time)),
        });
        let read = EventTimes::some(times);
        if let EventTimes::Some { times, .. } = &read {
            self.warn_of_doubt(times);
        }
        read
    }

    #[cold]
    fn what_is_wrong(&self, time: Option<i64>) -> String {
        let name = &self.name;
        let expected = format!("field `{name}`: expected an event time in the years 1 to 9999");
        match time {
            Some(ms) if timestamp::is_plausible(ms) => format!(
                "field `{name}`: {}{}",
                self.ahead.too_far(ms),
                self.digits_of_date(ms)
                    .unwrap_or_else(|| self.in_smaller_unit(ms, "if it is a number, this"))
            ),
            Some(ms) => {
                let unit = self.made_by.unit().unwrap_or(TimeUnit::Milliseconds);
                let (written, number) = match unit {
                    TimeUnit::Milliseconds => ("ms", ms.into()),
                    unit => (unit.name(), in_unit(ms, unit)),
                };
                let meant = self.in_smaller_unit(ms, "this");
                format!("{expected}, in {written}, found {number}{meant}")
            }
            None => format!("{expected}, in ms, found null"),
        }
    }

    /// What a number is if it was meant to be in a smaller unit, where that is a time of
    /// today; `this` is what the sentence calls it.
    fn in_smaller_unit(&self, ms: i64, this: &str) -> String {
        let read = self.made_by.unit();
        let smaller = TimeUnit::ALL.into_iter().filter(|&unit| Some(unit) > read);
        let mut meant = smaller.filter_map(|unit| Some((unit, meant_ms(ms, read?, unit)?)));
        let Some((unit, meant_ms)) = meant.next() else {
            return String::new();
        };
        format!(
            "; {this} looks like {}, as those of {}: {} if it is",
            unit.name(),
            timestamp::to_text(meant_ms),
            self.advice(unit)
        )
    }

    /// What a number is if it was meant as the digits of a date.
    fn digits_of_date(&self, ms: i64) -> Option<String> {
        let read = self.made_by.unit()?;
        let pattern = digits_of_dates(&[ms], read)?;
        Some(format!(
            "; {} looks like the digits of a date: {} if it is",
            in_unit(ms, read),
            self.advice_for_dates(pattern)
        ))
    }

    fn advice_for_dates(&self, pattern: &str) -> String {
        match self.made_by {
            TimesMadeBy::Source(_) => {
                format!("give the field the type `\"timestamp({pattern})\"`")
            }
            TimesMadeBy::Plugin => "have the plugin make times of them".to_owned(),
        }
    }

    fn advice_for_days(&self) -> &'static str {
        match self.made_by {
            TimesMadeBy::Source(_) => {
                "have the spreadsheet write dates as text, as in `\"timestamp(%Y-%m-%d %H:%M)\"`"
            }
            TimesMadeBy::Plugin => "have the plugin make times of them",
        }
    }

    /// Warns of numbers that seem to be times in a larger unit, or the digits of dates.
    fn warn_of_doubt(&mut self, times_ms: &[i64]) {
        let is_first = !self.has_read;
        self.has_read |= !times_ms.is_empty();
        if self.is_doubt_told {
            return;
        }
        let Some(read) = self.made_by.unit() else {
            return;
        };
        if let Some(pattern) = digits_of_dates(times_ms, read) {
            self.is_doubt_told = true;
            tracing::warn!(
                "{}: the event times in field `{}` look like the digits of dates, such as {}, \
                 and were read as {} since 1970, as {}. If they are dates, {}",
                self.title,
                self.name,
                in_unit(times_ms[0], read),
                read.name(),
                timestamp::to_text(times_ms[0]),
                self.advice_for_dates(pattern)
            );
            return;
        }
        if is_first && let Some(day_ms) = days_of_spreadsheets(times_ms, read) {
            self.is_doubt_told = true;
            tracing::warn!(
                "{}: the event times in field `{}` are in 1970, such as {}: they were read as {}, \
                 and look like the days since 1899-12-30 by which spreadsheets count, {} for {}. \
                 If they are, {}",
                self.title,
                self.name,
                timestamp::to_text(times_ms[0]),
                read.name(),
                in_unit(times_ms[0], read),
                timestamp::to_text(day_ms),
                self.advice_for_days()
            );
            return;
        }
        let Some(unit) = larger_unit(times_ms, read) else {
            return;
        };
        self.is_doubt_told = true;
        let ms = times_ms[0];
        tracing::warn!(
            "{}: the event times in field `{}` are in 1970, such as {}: they were read as {}, and \
             are probably {}. If they are, {}",
            self.title,
            self.name,
            timestamp::to_text(ms),
            read.name(),
            unit.name(),
            self.advice(unit)
        );
    }

    /// What to do if times are in this unit.
    fn advice(&self, unit: TimeUnit) -> String {
        match self.made_by {
            TimesMadeBy::Source(_) => format!("give the field the type `\"{}\"`", unit.type_name()),
            TimesMadeBy::Plugin => {
                let advice = match unit {
                    TimeUnit::Seconds => "have the plugin multiply them by 1,000",
                    TimeUnit::Milliseconds => "have the plugin leave them as they are",
                    TimeUnit::Microseconds => "have the plugin divide them by 1,000",
                    TimeUnit::Nanoseconds => "have the plugin divide them by 1,000,000",
                };
                advice.to_owned()
            }
        }
    }
}

/// From 1973 to 2286.
const OF_TODAY_MS: std::ops::RangeInclusive<i64> = 100_000_000_000..=9_999_999_999_999;

/// The time of a number that was read in one unit, if it is meant in another one, and a time
/// of today then.
fn meant_ms(ms: i64, read: TimeUnit, meant: TimeUnit) -> Option<i64> {
    let power = i32::from(read.per_second()) - i32::from(meant.per_second());
    let times = 10_i64.pow(power.unsigned_abs());
    let ms = match power < 0 {
        true => ms / times,
        false => ms.checked_mul(times)?,
    };
    OF_TODAY_MS.contains(&ms).then_some(ms)
}

/// The larger unit in which these times, which were read in one unit, are all of today. They
/// are of the first months of 1970 then.
fn larger_unit(times_ms: &[i64], read: TimeUnit) -> Option<TimeUnit> {
    let larger = TimeUnit::ALL.into_iter().filter(|unit| *unit < read);
    let is_meant = |unit: &TimeUnit| {
        let mut times = times_ms.iter();
        !times_ms.is_empty() && times.all(|&ms| meant_ms(ms, read, *unit).is_some())
    };
    larger.rev().find(is_meant)
}

/// Where spreadsheets begin to count days, in ms.
const FIRST_DAY_MS: i64 = -25_569 * DAY_MS;

/// The time of the first number if all seem to be days as spreadsheets count them, of the
/// years 1990 to 2060, perhaps with a fraction.
fn days_of_spreadsheets(times_ms: &[i64], read: TimeUnit) -> Option<i64> {
    let days = |ms: i64| in_unit(ms, read);
    let first = days(*times_ms.first()?);
    let is_day = |ms: &i64| (32_874..58_806).contains(&days(*ms));
    let first_ms = i64::try_from(first).ok()?.checked_mul(DAY_MS)?;
    times_ms
        .iter()
        .all(is_day)
        .then_some(first_ms + FIRST_DAY_MS)
}

/// The number of a time as it was written, without a fraction that was cut.
fn in_unit(ms: i64, unit: TimeUnit) -> i128 {
    let power = i32::from(unit.per_second()) - i32::from(TimeUnit::Milliseconds.per_second());
    let times = 10_i128.pow(power.unsigned_abs());
    match power < 0 {
        true => i128::from(ms).div_euclid(times),
        false => i128::from(ms) * times,
    }
}

/// The pattern of dates whose digits these times seem to be, if all are: `20240131` read as
/// a number of ms would be in 1970.
fn digits_of_dates(times_ms: &[i64], read: TimeUnit) -> Option<&'static str> {
    const PATTERNS: [(i128, &str); 3] = [
        (1, "%Y%m%d"),
        (10_000, "%Y%m%d%H%M"),
        (1_000_000, "%Y%m%d%H%M%S"),
    ];
    // Smaller units have more digits than dates.
    if times_ms.is_empty() || read > TimeUnit::Milliseconds {
        return None;
    }
    let is_date = |number: i128, times: i128| {
        let (date, time) = (number / times, number % times);
        let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
        let (hour, minute, second) = match times {
            1 => (0, 0, 0),
            10_000 => (time / 100, time % 100, 0),
            _ => (time / 10_000, time / 100 % 100, time % 100),
        };
        (1900..2100).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && (hour, minute, second) < (24, 0, 0)
            && minute < 60
            && second < 60
    };
    let found = PATTERNS.iter().find(|(times, _)| {
        let mut numbers = times_ms.iter().map(|&ms| in_unit(ms, read));
        numbers.all(|number| is_date(number, *times))
    });
    found.map(|(_, pattern)| *pattern)
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
    fn digits_of_dates_are_noticed() {
        use TimeUnit::{Microseconds, Milliseconds, Seconds};
        for (numbers, pattern) in [
            (&[20_240_131, 20_240_201][..], Some("%Y%m%d")),
            (&[19_991_231], Some("%Y%m%d")),
            (&[202_401_312_359], Some("%Y%m%d%H%M")),
            (&[20_240_131_235_959], Some("%Y%m%d%H%M%S")),
            (&[20_240_131, 20_240_199], None),
            (&[20_241_301], None),
            (&[0], None),
            (&[1_700_000_000_123], None),
            (&[], None),
        ] {
            assert_eq!(
                digits_of_dates(numbers, Milliseconds),
                pattern,
                "{numbers:?}"
            );
        }
        assert_eq!(digits_of_dates(&[20_240_131_000], Seconds), Some("%Y%m%d"));
        assert_eq!(digits_of_dates(&[20_240_131], Microseconds), None);
    }

    #[test]
    fn days_of_spreadsheets_are_noticed() {
        use TimeUnit::{Milliseconds, Seconds};
        let shown = |times: &[i64], read| days_of_spreadsheets(times, read).map(timestamp::to_text);
        let day = Some("2023-03-15T00:00:00Z".to_owned());
        assert_eq!(shown(&[45_000, 45_001], Milliseconds), day);
        assert_eq!(shown(&[45_000_500], Seconds), day);
        for times in [
            &[][..],
            &[0, 45_000],
            &[45_000, 1_700_000_000_000],
            &[7],
            &[60_000],
        ] {
            assert_eq!(shown(times, Milliseconds), None, "{times:?}");
        }
    }

    #[test]
    fn a_number_is_shown_as_it_was_written() {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
        assert_eq!(in_unit(1_700_000_000_000_000, Seconds), 1_700_000_000_000);
        assert_eq!(in_unit(-1_500, Seconds), -2);
        assert_eq!(in_unit(1_500, Milliseconds), 1_500);
        assert_eq!(in_unit(1_500, Microseconds), 1_500_000);
        assert_eq!(
            in_unit(i64::MAX, Nanoseconds),
            i128::from(i64::MAX) * 1_000_000
        );
    }

    #[test]
    fn larger_units_are_noticed() {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
        let now = 1_700_000_000;
        assert_eq!(larger_unit(&[now, now + 60], Milliseconds), Some(Seconds));
        assert_eq!(larger_unit(&[now * 1_000], Milliseconds), None);
        assert_eq!(larger_unit(&[now, now * 1_000], Milliseconds), None);
        assert_eq!(larger_unit(&[0, 1_000, 60_000], Milliseconds), None);
        assert_eq!(larger_unit(&[], Milliseconds), None);
        assert_eq!(larger_unit(&[now / 1_000], Microseconds), Some(Seconds));
        assert_eq!(larger_unit(&[now], Microseconds), Some(Milliseconds));
        assert_eq!(larger_unit(&[now / 1_000_000], Nanoseconds), Some(Seconds));
        assert_eq!(larger_unit(&[now / 1_000], Nanoseconds), Some(Milliseconds));
        assert_eq!(larger_unit(&[now], Nanoseconds), Some(Microseconds));
        assert_eq!(larger_unit(&[now * 1_000], Nanoseconds), None);
    }
}
