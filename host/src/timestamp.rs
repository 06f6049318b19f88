//! Reads timestamps in the forms that sources have, and writes RFC 3339.
//!
//! Text has milliseconds only where they are not zero. Reading rounds down to whole
//! milliseconds, and says where it does.

/// Formats of a pipeline's own.
mod pattern;
/// Time zones.
pub mod zone;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::decimal;

pub use pattern::{PatternProblem, TimePattern};

/// 0001-01-01T00:00:00Z.
pub const FIRST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// A day in ms.
pub const DAY_MS: i64 = 86_400_000;

/// A time that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTime {
    pub ms: i64,
    /// Whether it was rounded down.
    pub is_cut: bool,
}

/// Times that were rounded down to ms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CutTimes {
    pub values: u64,
    /// One of them, as it was written, and as it was read.
    pub example: String,
}

/// The format of timestamps in a source's bytes. Columns always have ms.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum TimestampFormat {
    /// A number of ms, or RFC 3339 text.
    #[default]
    Any,
    /// A number of this unit, possibly with a fraction.
    Number(TimeUnit),
    /// A whole number of days.
    Days,
    Rfc3339,
    Pattern(Arc<TimePattern>),
}

/// The largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeUnit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl TimestampFormat {
    /// Reads a decimal number; a pattern reads its digits.
    pub fn read_number(&self, number: &[u8]) -> Option<ReadTime> {
        match self {
            TimestampFormat::Any => from_number(number, TimeUnit::Milliseconds),
            TimestampFormat::Number(unit) => from_number(number, *unit),
            TimestampFormat::Days => from_days(number),
            TimestampFormat::Rfc3339 => None,
            TimestampFormat::Pattern(pattern) => pattern.read(number),
        }
    }

    /// Reads a text that is not meant as a number.
    pub fn read_text(&self, text: &[u8]) -> Option<ReadTime> {
        match self {
            TimestampFormat::Any | TimestampFormat::Rfc3339 => read_rfc3339(text),
            TimestampFormat::Number(_) | TimestampFormat::Days => None,
            TimestampFormat::Pattern(pattern) => pattern.read(text),
        }
    }

    /// The unit of its numbers, if it reads any.
    pub fn unit(&self) -> Option<TimeUnit> {
        match self {
            TimestampFormat::Any => Some(TimeUnit::Milliseconds),
            TimestampFormat::Number(unit) => Some(*unit),
            TimestampFormat::Days | TimestampFormat::Rfc3339 | TimestampFormat::Pattern(_) => None,
        }
    }

    /// What a timestamp has to be, for messages.
    pub fn expected(&self) -> Cow<'static, str> {
        let expected = match self {
            TimestampFormat::Any => {
                "a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others)"
            }
            TimestampFormat::Number(TimeUnit::Seconds) => "a time in seconds since 1970",
            TimestampFormat::Number(TimeUnit::Milliseconds) => "a time in ms since 1970",
            TimestampFormat::Number(TimeUnit::Microseconds) => "a time in µs since 1970",
            TimestampFormat::Number(TimeUnit::Nanoseconds) => "a time in ns since 1970",
            TimestampFormat::Days => "a whole number of days since 1970",
            TimestampFormat::Rfc3339 => "a time as RFC 3339",
            TimestampFormat::Pattern(pattern) => {
                return format!("a time as `{}`", pattern.written()).into();
            }
        };
        expected.into()
    }
}

impl TimeUnit {
    pub const ALL: [TimeUnit; 4] = [
        TimeUnit::Seconds,
        TimeUnit::Milliseconds,
        TimeUnit::Microseconds,
        TimeUnit::Nanoseconds,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "seconds",
            TimeUnit::Milliseconds => "milliseconds",
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Nanoseconds => "nanoseconds",
        }
    }

    /// The type of fields with numbers of this unit, as in the pipeline's file.
    pub fn type_name(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "timestamp(s)",
            TimeUnit::Milliseconds => "timestamp(ms)",
            TimeUnit::Microseconds => "timestamp(us)",
            TimeUnit::Nanoseconds => "timestamp(ns)",
        }
    }

    /// How often it is in a second, as a power of ten.
    pub fn per_second(self) -> i8 {
        match self {
            TimeUnit::Seconds => 0,
            TimeUnit::Milliseconds => 3,
            TimeUnit::Microseconds => 6,
            TimeUnit::Nanoseconds => 9,
        }
    }
}

/// Whether a row may have this event time: its year is one that RFC 3339 can write.
/// Another time is a number in the wrong unit, and one such row would advance the
/// watermark so far that every other row is late.
pub fn is_plausible(ms: i64) -> bool {
    (FIRST_MS..=LAST_MS).contains(&ms)
}

/// As RFC 3339 in UTC; the bare number where RFC 3339 has no year for it.
pub fn to_text(ms: i64) -> String {
    let mut text = Vec::with_capacity(24);
    write(&mut text, ms);
    String::from_utf8_lossy(&text).into_owned()
}

/// Appends the text of [`to_text`] to `out`.
pub fn write(out: &mut Vec<u8>, ms: i64) {
    if !is_plausible(ms) {
        out.extend_from_slice(ms.to_string().as_bytes());
        return;
    }
    let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
    let within = ms.rem_euclid(DAY_MS);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], within / 3_600_000);
    digits(&mut text[14..16], within / 60_000 % 60);
    digits(&mut text[17..19], within / 1_000 % 60);
    if within % 1_000 == 0 {
        text[19] = b'Z';
        out.extend_from_slice(&text[..20]);
    } else {
        digits(&mut text[20..23], within % 1_000);
        out.extend_from_slice(&text);
    }
}

/// Reads `2023-11-14T22:13:20Z`, perhaps with a fraction of a second, or an offset
/// instead of `Z`. `None` for everything else.
pub fn from_rfc3339(text: &[u8]) -> Option<i64> {
    read_rfc3339(text).map(|time| time.ms)
}

/// When a day of the years 1 to 9999 begins. `None` if there is no such day.
pub fn from_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_date = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day);
    is_date.then(|| days_before(year, month, day) * DAY_MS)
}

/// As [`from_rfc3339`].
fn read_rfc3339(text: &[u8]) -> Option<ReadTime> {
    let (date, rest) = text.split_at_checked(19)?;
    let punctuated = date[4] == b'-'
        && date[7] == b'-'
        && matches!(date[10], b'T' | b't' | b' ')
        && date[13] == b':'
        && date[16] == b':';
    if !punctuated {
        return None;
    }
    let year = number(&date[0..4])?;
    let month = number(&date[5..7])?;
    let day = number(&date[8..10])?;
    let hour = number(&date[11..13])?;
    let minute = number(&date[14..16])?;
    let second = number(&date[17..19])?;
    let midnight_ms = from_date(year, month, day)?;
    if hour >= 24 || minute >= 60 || second > 60 {
        return None;
    }
    let (fraction, rest) = match rest.split_first()? {
        (b'.', fraction) => {
            let end = fraction
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .filter(|&end| end > 0)?;
            fraction.split_at(end)
        }
        _ => (&b""[..], rest),
    };
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let [h1, h2, b':', m1, m2] = offset else {
                return None;
            };
            let hours = number(&[*h1, *h2]).filter(|&hours| hours < 24)?;
            let minutes = number(&[*m1, *m2]).filter(|&minutes| minutes < 60)?;
            let offset = hours * 60 + minutes;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = (hour * 60 + minute - offset_minutes) * 60 + second.min(59);
    let ms = midnight_ms + seconds * 1_000 + leading_millis(fraction);
    if second == 60 && !may_be_before_leap_second(ms) {
        return None;
    }
    Some(ReadTime {
        ms,
        is_cut: fraction.iter().skip(3).any(|&digit| digit != b'0'),
    })
}

/// Whether a leap second, which counts as this second before it, may follow: there are such
/// at the end of a June or December in UTC, since 1972.
fn may_be_before_leap_second(ms: i64) -> bool {
    let after = ms.div_euclid(1_000) * 1_000 + 1_000;
    let (year, month, day) = date_of(after.div_euclid(DAY_MS));
    after % DAY_MS == 0
        && year >= 1972
        && matches!((month, day), (1 | 7, 1))
        && (year, month) != (1972, 1)
}

/// Reads a decimal number, such as `1700000000.25` or `1.7e9`, rounded down to whole ms.
pub fn from_number(text: &[u8], unit: TimeUnit) -> Option<ReadTime> {
    let (ms, is_whole) = decimal::floor(
        text,
        TimeUnit::Milliseconds.per_second() - unit.per_second(),
    )?;
    Some(ReadTime {
        ms,
        is_cut: !is_whole,
    })
}

/// Reads a whole number of days.
fn from_days(text: &[u8]) -> Option<ReadTime> {
    let days = i64::try_from(decimal::whole(text).ok()?).ok()?;
    Some(ReadTime {
        ms: days.checked_mul(DAY_MS)?,
        is_cut: false,
    })
}

/// The first three digits after the point.
fn leading_millis(fraction: &[u8]) -> i64 {
    [100, 10, 1]
        .iter()
        .zip(fraction)
        .map(|(unit, digit)| unit * i64::from(digit - b'0'))
        .sum()
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + i64::from(digit))
    })
}

fn digits(text: &mut [u8], mut number: i64) {
    for place in text.iter_mut().rev() {
        // A remainder of ten is one digit.
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted
/// from March, so that a leap day is a year's last (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_before`], from the same source.
pub(crate) fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_has_milliseconds_only_where_they_are_not_zero() {
        assert_eq!(to_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(to_text(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(to_text(FIRST_MS), "0001-01-01T00:00:00Z");
        assert_eq!(to_text(LAST_MS), "9999-12-31T23:59:59.999Z");
        assert_eq!(to_text(i64::MAX), i64::MAX.to_string());
        assert_eq!(to_text(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn reads_offsets_fractions_and_leap_days() {
        let read = |text: &str| from_rfc3339(text.as_bytes());
        assert_eq!(read("2023-10-09T17:13:20+00:00"), Some(1_696_871_600_000));
        assert_eq!(read("2023-10-09T19:13:20.2+02:00"), Some(1_696_871_600_200));
        assert_eq!(read("2023-10-09 17:13:20.1239Z"), Some(1_696_871_600_123));
        assert_eq!(read("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        assert_eq!(read("1969-12-31T23:59:59.999z"), Some(-1));
        assert_eq!(read("2016-12-31T23:59:60Z"), Some(1_483_228_799_000));
        assert_eq!(read("2016-12-31T15:59:60.5-08:00"), Some(1_483_228_799_500));
        assert_eq!(read("2015-07-01T05:29:60+05:30"), Some(1_435_708_799_000));
    }

    #[test]
    fn what_is_cut_is_known() {
        let number = |text: &str, unit| from_number(text.as_bytes(), unit).unwrap().is_cut;
        for (text, unit, is_cut) in [
            ("1704103200123.75", TimeUnit::Milliseconds, true),
            ("1704103200123.00", TimeUnit::Milliseconds, false),
            ("1704103200.123", TimeUnit::Seconds, false),
            ("1704103200.1234", TimeUnit::Seconds, true),
            ("1704103200123000", TimeUnit::Microseconds, false),
            ("1704103200123456", TimeUnit::Microseconds, true),
            ("1e-4", TimeUnit::Seconds, true),
        ] {
            assert_eq!(number(text, unit), is_cut, "{text}");
        }
        for (text, is_cut) in [
            ("2024-01-01T10:00:00Z", false),
            ("2024-01-01T10:00:00.123000Z", false),
            ("2024-01-01T10:00:00.123456Z", true),
            ("2024-01-01T10:00:00.0000001+01:00", true),
        ] {
            let read = read_rfc3339(text.as_bytes()).unwrap();
            assert_eq!(read.is_cut, is_cut, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_rfc3339() {
        for text in [
            "",
            "2023-10-09",
            "2023-10-09T17:13:20",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-10-09T24:00:00Z",
            "2023-10-09T17:13:20.Z",
            "2023-10-09T17:13:60Z",
            "2023-10-09T23:59:60Z",
            "1971-12-31T23:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "2016-12-31T23:59:61Z",
            "2023-10-09T17:13:20+0200",
            "2023-10-09T17:13:20ZZ",
            "2023-10-09T17:13:2éZ",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_exact_and_rounded_down() {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
        let read = |text: &str, unit| from_number(text.as_bytes(), unit).map(|time| time.ms);
        assert_eq!(read("1700000000.25", Seconds), Some(1_700_000_000_250));
        assert_eq!(read("-0.0015", Seconds), Some(-2));
        assert_eq!(read("-0.001", Seconds), Some(-1));
        assert_eq!(read("9223372036854775807", Seconds), None);
        assert_eq!(
            read("1700000000000.999", Milliseconds),
            Some(1_700_000_000_000)
        );
        assert_eq!(read("-1.5", Milliseconds), Some(-2));
        assert_eq!(read("1999", Microseconds), Some(1));
        assert_eq!(read("-1000", Microseconds), Some(-1));
        assert_eq!(read("-1000.5", Microseconds), Some(-2));
        assert_eq!(read("-1", Nanoseconds), Some(-1));
        assert_eq!(
            read("1700000000123999999", Nanoseconds),
            Some(1_700_000_000_123)
        );
        assert_eq!(read("1.7e12", Milliseconds), Some(1_700_000_000_000));
        assert_eq!(read("17e8", Seconds), Some(1_700_000_000_000));
        assert_eq!(read("-15e-1", Milliseconds), Some(-2));
        assert_eq!(read("0e999999999999999999999", Seconds), Some(0));
        assert_eq!(read("1e-999999999999999999999", Seconds), Some(0));
        assert_eq!(read("-1e-40", Seconds), Some(-1));
        assert_eq!(read("1e999999999999999999999", Nanoseconds), None);
        for text in ["", "-", ".", "e3", "1e", "1 ", "1,5", "NaN"] {
            assert_eq!(read(text, Seconds), None, "{text}");
        }
    }

    proptest! {
        #[test]
        // Jiff ends a day early, so that every offset can be added.
        fn agrees_with_jiff(ms in FIRST_MS..=LAST_MS - 2 * DAY_MS) {
            let text = to_text(ms);
            prop_assert_eq!(from_rfc3339(text.as_bytes()), Some(ms));
            let jiff: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(jiff.as_millisecond(), ms);
        }

        #[test]
        fn numbers_are_cut_below_a_millisecond(
            nanoseconds in -4_000_000_000_000_000_000i64..4_000_000_000_000_000_000,
            unit in prop::sample::select(TimeUnit::ALL.to_vec()),
            is_scientific in any::<bool>(),
        ) {
            let below = 9 - unit.per_second() as usize;
            let sign = if nanoseconds < 0 { "-" } else { "" };
            let digits = format!("{:0>width$}", nanoseconds.unsigned_abs(), width = below + 1);
            let (whole, fraction) = digits.split_at(digits.len() - below);
            let text = match is_scientific {
                true => format!("{sign}{digits}e-{below}"),
                false if fraction.is_empty() => format!("{sign}{whole}"),
                false => format!("{sign}{whole}.{fraction}"),
            };
            let expected = ReadTime {
                ms: nanoseconds.div_euclid(1_000_000),
                is_cut: nanoseconds.rem_euclid(1_000_000) != 0,
            };
            prop_assert_eq!(from_number(text.as_bytes(), unit), Some(expected), "{}", text);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = from_rfc3339(&bytes);
            let _ = from_number(&bytes, TimeUnit::Seconds);
        }
    }
}
