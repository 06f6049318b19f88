//! What calendars and clocks show at a time, in UTC or so far from it. There are no names of
//! time zones, which would bring tables of their history into every plugin.

use crate::Timestamp;

/// A date and a time of day.
///
/// ```
/// use sluicebox_sdk::{Timestamp, Weekday};
///
/// let time = Timestamp(1_709_164_799_999).in_utc();
/// assert_eq!((time.year, time.month, time.day), (2024, 2, 28));
/// assert_eq!((time.hour, time.minute, time.second), (23, 59, 59));
/// assert_eq!(time.weekday(), Weekday::Wednesday);
///
/// // Two hours ahead of UTC it is tomorrow.
/// let time = Timestamp(1_709_164_799_999).at_offset(2 * 60);
/// assert_eq!((time.month, time.day, time.hour), (2, 29, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalendarTime {
    /// Of the Gregorian calendar, also before it was introduced; 0 is the year before 1.
    pub year: i32,
    /// From 1, January.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// From 0 to 23.
    pub hour: u8,
    /// From 0 to 59.
    pub minute: u8,
    /// From 0 to 59: there are no leap seconds.
    pub second: u8,
    /// From 0 to 999.
    pub millisecond: u16,
}

/// A day of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const MINUTE_MS: i64 = 60 * 1_000;

impl Timestamp {
    /// What calendars and clocks show in UTC.
    pub fn in_utc(self) -> CalendarTime {
        self.at_offset(0)
    }

    /// What they show this many minutes ahead of UTC, or behind it if negative. A zone where
    /// clocks change has two offsets.
    pub fn at_offset(self, minutes: i32) -> CalendarTime {
        let ms = self.0.saturating_add(i64::from(minutes) * MINUTE_MS);
        let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
        let of_day = ms.rem_euclid(DAY_MS);
        CalendarTime {
            year,
            month,
            day,
            hour: (of_day / 3_600_000) as u8,
            minute: (of_day / MINUTE_MS % 60) as u8,
            second: (of_day / 1_000 % 60) as u8,
            millisecond: (of_day % 1_000) as u16,
        }
    }
}

impl CalendarTime {
    /// The day of the week.
    pub fn weekday(self) -> Weekday {
        // 1970-01-01 was a Thursday.
        match (days_to(self.year, self.month, self.day) + 3).rem_euclid(7) {
            0 => Weekday::Monday,
            1 => Weekday::Tuesday,
            2 => Weekday::Wednesday,
            3 => Weekday::Thursday,
            4 => Weekday::Friday,
            5 => Weekday::Saturday,
            _ => Weekday::Sunday,
        }
    }

    /// The day of the year, from 1.
    pub fn day_of_year(self) -> u16 {
        let first = days_to(self.year, 1, 1);
        (days_to(self.year, self.month, self.day) - first + 1) as u16
    }
}

/// Years of 400 years have the same dates and weekdays.
const ERA_DAYS: i64 = 146_097;

/// The date so many days after 1970-01-01, by Howard Hinnant's `civil_from_days`: years
/// start in March, so that a leap day is the last of its year.
fn date_of(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(ERA_DAYS);
    let of_era = days.rem_euclid(ERA_DAYS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year as i32, month as u8, day as u8)
}

/// The opposite.
fn days_to(year: i32, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    year.div_euclid(400) * ERA_DAYS + days - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_leap(year: i32) -> bool {
        year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    }

    /// Walks day by day through more than all dates that repeat.
    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1570, 1, 1);
        let start = days_to(year, month, day);
        let mut weekday = CalendarTime {
            year,
            month,
            day,
            ..Timestamp(0).in_utc()
        }
        .weekday() as i64;
        let mut of_year = 1;
        for days in start..start + 3 * ERA_DAYS {
            assert_eq!(date_of(days), (year, month, day), "{days}");
            assert_eq!(days_to(year, month, day), days);
            let time = Timestamp(days * DAY_MS).in_utc();
            assert_eq!(time.weekday() as i64, weekday);
            assert_eq!(time.day_of_year(), of_year);
            let length = match month {
                2 if is_leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            weekday = (weekday + 1) % 7;
            of_year += 1;
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month, of_year) = (year + 1, 1, 1);
            }
        }
    }

    #[test]
    fn times_of_day_count_from_midnight_before_1970_too() {
        let time = Timestamp(-1).in_utc();
        assert_eq!((time.year, time.month, time.day), (1969, 12, 31));
        assert_eq!((time.hour, time.minute, time.second), (23, 59, 59));
        assert_eq!(time.millisecond, 999);
        assert_eq!(time.weekday(), Weekday::Wednesday);
        let time = Timestamp(0).at_offset(-90);
        assert_eq!((time.day, time.hour, time.minute), (31, 22, 30));
    }

    #[test]
    fn the_first_and_last_times_have_dates() {
        assert_eq!(Timestamp(i64::MAX).at_offset(60).year, 292_278_994);
        assert_eq!(Timestamp(i64::MIN).at_offset(-60).year, -292_275_055);
    }
}
