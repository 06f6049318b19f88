//! Times in a format that the pipeline spells out: `%d/%m/%Y %H:%M`, in a time
//! zone. The directives are those of strftime, and jiff reads them; the zones are
//! those of the copy that the host contains, so that no machine reads them
//! differently.

use jiff::civil::{DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::zone::{UnknownZone, ZONES, zone_named};
use super::{DAY_MS, ReadTime, may_be_before_leap_second, number};

/// A format that can be read: it was checked with [`SAMPLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePattern {
    pattern: String,
    zone: PatternZone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternZone {
    /// Texts have the local time of this zone.
    Of(TimeZone),
    /// Each text has an offset, a zone, or seconds since 1970.
    InText,
}

/// Why a format cannot be used, and what to do.
#[derive(Debug)]
pub struct PatternProblem {
    pub message: String,
    pub help: String,
}

impl From<UnknownZone> for PatternProblem {
    fn from(UnknownZone { message, help }: UnknownZone) -> Self {
        PatternProblem { message, help }
    }
}

const YEARS_400_MS: i64 = 146_097 * DAY_MS;

/// Every part differs from the others, from its default, and in the afternoon
/// from the hour on a clock.
const SAMPLE: DateTime = DateTime::constant(2021, 11, 24, 21, 35, 47, 123_456_789);

const DIRECTIVES: &str = "a format has directives such as %Y-%m-%d %H:%M:%S: %Y year (%y without \
     the century), %m month (%b or %B by name), %d day, %H hour (%I with %p for AM or PM), \
     %M minute, %S second, %.f its fraction, %z offset such as +0100";

impl TimePattern {
    /// `zone` is the name of a time zone, such as `Europe/London`, or an offset, such as
    /// `+02:00`; UTC by default.
    pub fn new(pattern: &str, zone: Option<&str>) -> Result<TimePattern, PatternProblem> {
        let sample = BrokenDownTime::from(&sample());
        let sample = sample
            .to_string(pattern)
            .and_then(|text| BrokenDownTime::parse(pattern, text))
            .map_err(|error| cannot_read(pattern, &cause(&error)))?;
        let is_placed = sample.offset().is_some()
            || sample.iana_time_zone().is_some()
            || sample.timestamp().is_some();
        if sample.timestamp().is_none() {
            check_complete(pattern, &sample)?;
        }
        let zone = match zone {
            Some(zone) if is_placed => {
                return Err(PatternProblem {
                    message: format!(
                        "texts of the format `{pattern}` say where they are from themselves, so \
                         they have no use for the time zone {zone}"
                    ),
                    help: format!("write timestamp({pattern})"),
                });
            }
            None if is_placed => PatternZone::InText,
            None => PatternZone::Of(TimeZone::UTC),
            Some(zone) => PatternZone::Of(match fixed_offset(zone) {
                Some(zone) => zone,
                None => zone_named(zone)?,
            }),
        };
        Ok(TimePattern {
            pattern: pattern.to_owned(),
            zone,
        })
    }

    /// As in the pipeline's file.
    pub fn written(&self) -> &str {
        &self.pattern
    }

    /// Reads a time in ms, rounded down; `None` if it does not have this format. A
    /// local time that occurs twice, as clocks are turned back, is the first of the
    /// two; one that clocks skip counts from before they were turned forward.
    pub fn read(&self, text: &[u8]) -> Option<ReadTime> {
        let time = self.read_clamped(text)?;
        let is_allowed = !self.has_second_60(text) || may_be_before_leap_second(time.ms);
        is_allowed.then_some(time)
    }

    /// Whether a text that can be read has the second 60, which is read as 59: with 61 in
    /// its place it cannot be read.
    fn has_second_60(&self, text: &[u8]) -> bool {
        let sixties = memchr::memmem::find_iter(text, b"60");
        sixties.into_iter().any(|at| {
            let mut other = text.to_vec();
            other[at + 1] = b'1';
            let is_read = |text: &[u8]| BrokenDownTime::parse(&self.pattern, text).is_ok();
            let is_bad = !is_read(&other);
            other[at..at + 2].copy_from_slice(b"59");
            is_bad && is_read(&other)
        })
    }

    fn read_clamped(&self, text: &[u8]) -> Option<ReadTime> {
        let mut read = BrokenDownTime::parse(&self.pattern, text).ok()?;
        // `24` is no year of four digits, and hardly one of two thousand years ago.
        if let Some(year @ 0..1_000) = read.year() {
            memchr::memmem::find(text, format!("{year:04}").as_bytes())?;
        }
        match &self.zone {
            PatternZone::Of(zone) => in_zone(read.to_datetime().ok()?, zone),
            PatternZone::InText => placed(&read).or_else(|| {
                let local = read.to_datetime().ok()?.checked_sub(400.years()).ok()?;
                read.set_year(Some(local.year())).ok()?;
                later(placed(&read)?)
            }),
        }
    }
}

/// Reads `+02:00`.
fn fixed_offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = match text.as_bytes() {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2] = *rest else {
        return None;
    };
    let hours = number(&[h1, h2]).filter(|hours| *hours < 24)?;
    let minutes = number(&[m1, m2]).filter(|minutes| *minutes < 60)?;
    let seconds = i32::try_from(sign * (hours * 60 + minutes) * 60).ok()?;
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

/// Timestamps end some hours before the year 9999 does, whose last day is how many say
/// that there is no end. Calendar, weekdays and the rules of time zones are the same 400
/// years before.
fn in_zone(local: DateTime, zone: &TimeZone) -> Option<ReadTime> {
    let read = |local| {
        let timestamp = zone.to_ambiguous_timestamp(local).compatible();
        timestamp.map(floor).ok()
    };
    read(local).or_else(|| later(read(local.checked_sub(400.years()).ok()?)?))
}

/// The time of a text that says where it is from.
fn placed(read: &BrokenDownTime) -> Option<ReadTime> {
    Some(floor(read.to_zoned_with(&ZONES).ok()?.timestamp()))
}

/// 400 years later.
fn later(time: ReadTime) -> Option<ReadTime> {
    Some(ReadTime {
        ms: time.ms.checked_add(YEARS_400_MS)?,
        ..time
    })
}

fn sample() -> jiff::Zoned {
    SAMPLE
        .to_zoned(TimeZone::UTC)
        .unwrap_or_else(|error| unreachable!("the sample is a time: {error}"))
}

/// Whether the sample can be told from what was read of it. Parts of a day may be
/// missing from the end.
fn check_complete(pattern: &str, read: &BrokenDownTime) -> Result<(), PatternProblem> {
    let read = read
        .to_datetime()
        .map_err(|error| cannot_read(pattern, &cause(&error)))?;
    let is_known = |time: Time| time == Time::midnight() || time.hour() == SAMPLE.hour();
    if read.date() != SAMPLE.date() || !is_known(read.time()) {
        return Err(cannot_read(
            pattern,
            "a time cannot be told from others, such as 9 in the morning and at night",
        ));
    }
    Ok(())
}

fn cannot_read(pattern: &str, cause: &str) -> PatternProblem {
    PatternProblem {
        message: format!("times cannot be read by the format `{pattern}`: {cause}"),
        help: DIRECTIVES.into(),
    }
}

/// Without the names of functions that nobody called by name.
fn cause(error: &jiff::Error) -> String {
    let text = error.to_string();
    ["strftime formatting failed: ", "strptime parsing failed: "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(&text)
        .to_owned()
}

fn floor(timestamp: Timestamp) -> ReadTime {
    let below_ms = timestamp.subsec_nanosecond() % 1_000_000;
    ReadTime {
        ms: timestamp.as_millisecond() - i64::from(below_ms < 0),
        is_cut: below_ms != 0,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use jiff::fmt::strtime;
    use proptest::prelude::*;

    use super::*;
    use crate::timestamp;

    fn read(pattern: &str, zone: Option<&str>, text: &str) -> Option<String> {
        let pattern = TimePattern::new(pattern, zone).unwrap();
        pattern
            .read(text.as_bytes())
            .map(|time| timestamp::to_text(time.ms))
    }

    #[test]
    fn reads_the_formats_of_real_files() {
        let check = |pattern: &str, text: &str, expected: &str| {
            assert_eq!(
                read(pattern, None, text).as_deref(),
                Some(expected),
                "{text}"
            );
        };
        check(
            "%Y-%m-%d %H:%M:%S",
            "2010-12-01 08:26:00",
            "2010-12-01T08:26:00Z",
        );
        check("%d/%m/%Y %H:%M", "1/12/2010 8:26", "2010-12-01T08:26:00Z");
        check("%m/%d/%Y %H:%M", "12/1/2010 8:26", "2010-12-01T08:26:00Z");
        check("%d.%m.%y", "01.12.10", "2010-12-01T00:00:00Z");
        check(
            "%b %d, %Y %I:%M %p",
            "Dec 1, 2010 9:05 PM",
            "2010-12-01T21:05:00Z",
        );
        check("%Y%m%d", "20101201", "2010-12-01T00:00:00Z");
        check("%F %T%.f", "1969-12-31 23:59:59.9995", {
            "1969-12-31T23:59:59.999Z"
        });
        check(
            "%d/%b/%Y:%T %z",
            "10/Oct/2000:13:55:36 -0700",
            "2000-10-10T20:55:36Z",
        );
        check(
            "%F %T %Q",
            "2024-07-01 12:00:00 Europe/London",
            "2024-07-01T11:00:00Z",
        );
        check("%s", "1291191960", "2010-12-01T08:26:00Z");
        check("%d/%m/%Y", "31/12/9999", "9999-12-31T00:00:00Z");
        check("%F %T", "9999-12-31 23:59:59", "9999-12-31T23:59:59Z");
        check("%d/%m/%Y %z", "31/12/9999 +0000", "9999-12-31T00:00:00Z");
        check(
            "%a %F %T%.f %:z",
            "Fri 9999-12-31 23:59:59.999 +00:00",
            "9999-12-31T23:59:59.999Z",
        );
        check(
            "%F %T %Q",
            "9999-12-31 12:00:00 Europe/London",
            "9999-12-31T12:00:00Z",
        );
        check("%Y-%j %z", "9999-365 -0500", "9999-12-31T05:00:00Z");
        check("%Y-%m-%d", "0024-01-05", "0024-01-05T00:00:00Z");
        check("%y-%m-%d", "24-01-05", "2024-01-05T00:00:00Z");
        assert_eq!(read("%Y-%m-%d", None, "24-01-05"), None);
        assert_eq!(read("%d/%m/%Y", None, "5/1/024"), None);
        assert_eq!(read("%F %z", None, "24-01-05 +0100"), None);
        for text in ["", "1/13/2010 8:26", "1/12/2010", "1/12/2010 8:26 ", "é"] {
            assert_eq!(read("%d/%m/%Y %H:%M", None, text), None, "{text}");
        }
    }

    #[test]
    fn a_second_60_is_a_leap_second_or_none() {
        let plain = |text| read("%F %T", None, text);
        assert_eq!(
            plain("2016-12-31 23:59:60").as_deref(),
            Some("2016-12-31T23:59:59Z")
        );
        assert_eq!(
            plain("2060-12-31 23:59:59").as_deref(),
            Some("2060-12-31T23:59:59Z")
        );
        assert_eq!(plain("2023-10-09 17:13:60"), None);
        assert_eq!(plain("2060-10-09 17:13:60"), None);
        let placed = |text| read("%F %T%.f %z", None, text);
        assert!(placed("2015-07-01 05:29:60.60 +0530").is_some());
        assert!(placed("2015-07-01 05:29:59.60 +0530").is_some());
        assert_eq!(placed("2015-07-01 05:28:60.60 +0530"), None);
        assert!(read("%s", None, "1604602360").is_some());
    }

    #[test]
    fn local_times_that_occur_twice_or_never_are_defined() {
        let london = |text: &str| read("%F %H:%M", Some("Europe/London"), text).unwrap();
        assert_eq!(london("2024-07-01 12:00"), "2024-07-01T11:00:00Z");
        assert_eq!(london("2024-12-01 12:00"), "2024-12-01T12:00:00Z");
        // Clocks skip from 1:00 to 2:00.
        assert_eq!(london("2024-03-31 00:59"), "2024-03-31T00:59:00Z");
        assert_eq!(london("2024-03-31 01:30"), "2024-03-31T01:30:00Z");
        assert_eq!(london("2024-03-31 02:30"), "2024-03-31T01:30:00Z");
        // Clocks go back from 2:00 to 1:00.
        assert_eq!(london("2024-10-27 01:30"), "2024-10-27T00:30:00Z");
        assert_eq!(london("2024-10-27 02:00"), "2024-10-27T02:00:00Z");
    }

    #[test]
    fn formats_that_lose_the_time_are_refused() {
        let mut problems = String::new();
        for (pattern, zone) in [
            ("%Y-%m-%d %", None),
            ("%Y-%q-%d", None),
            ("%H:%M", None),
            ("%Y-%m", None),
            ("%Y-%m-%d %I:%M", None),
            ("%Y-%m-%d %Z", None),
            ("%F %T %z", Some("Europe/London")),
            ("%s", Some("UTC")),
            ("%F", Some("Europe/Lodnon")),
            ("%F", Some("home")),
        ] {
            let problem = TimePattern::new(pattern, zone).unwrap_err();
            problems.push_str(&problem.message);
            if problem.help != DIRECTIVES {
                problems.push_str("; ");
                problems.push_str(&problem.help);
            }
            problems.push('\n');
        }
        expect![[r#"
            times cannot be read by the format `%Y-%m-%d %`: invalid format string, expected byte after `%`, but found end of format string
            times cannot be read by the format `%Y-%q-%d`: found unrecognized specifier directive `q`
            times cannot be read by the format `%H:%M`: date required to parse datetime: year required to parse date
            times cannot be read by the format `%Y-%m`: date required to parse datetime: a month/day, day-of-year or week date must be present to create a date, but none were found
            times cannot be read by the format `%Y-%m-%d %I:%M`: a time cannot be told from others, such as 9 in the morning and at night
            times cannot be read by the format `%Y-%m-%d %Z`: parsing time zone abbreviation is not allowed
            texts of the format `%F %T %z` say where they are from themselves, so they have no use for the time zone Europe/London; write timestamp(%F %T %z)
            texts of the format `%s` say where they are from themselves, so they have no use for the time zone UTC; write timestamp(%s)
            `Europe/Lodnon` is not a time zone; did you mean `Europe/London`?
            `home` is not a time zone; time zones have names such as UTC, Europe/London or America/New_York
        "#]].assert_eq(&problems);
    }

    proptest! {
        #[test]
        fn what_a_format_writes_is_read_back(
            ms in timestamp::FIRST_MS..=timestamp::LAST_MS,
            pattern in prop::sample::select(vec![
                "%Y-%m-%d %H:%M:%S%.f",
                "%-d/%-m/%Y %-H:%M:%S%.f",
                "%b %d, %Y %I:%M:%S%.f %p",
                "%Y-%j %T%.f",
                "%d/%b/%Y:%T%.f %:z",
            ]),
        ) {
            // The last day is past the end of timestamps.
            let local = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC).datetime();
            let local = local.checked_add(ms.milliseconds()).unwrap();
            let mut parts = BrokenDownTime::from(local);
            parts.set_offset(Some(Offset::UTC));
            let text = parts.to_string(pattern).unwrap();
            let read = TimePattern::new(pattern, None).unwrap().read(text.as_bytes());
            prop_assert_eq!(read, Some(ReadTime { ms, is_cut: false }), "{}", text);
        }

        #[test]
        fn a_local_time_is_read_back_in_its_zone(
            seconds in 0i64..4_000_000_000,
            zone in prop::sample::select(vec![
                "Europe/London", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe",
            ]),
        ) {
            let pattern = "%Y-%m-%d %H:%M:%S";
            let timestamp = Timestamp::from_second(seconds).unwrap();
            let zoned = timestamp.to_zoned(ZONES.get(zone).unwrap());
            let text = strtime::format(pattern, &zoned).unwrap();
            let read = TimePattern::new(pattern, Some(zone)).unwrap().read(text.as_bytes()).unwrap().ms;
            // Of two, it is the first.
            let again = Timestamp::from_millisecond(read).unwrap().to_zoned(ZONES.get(zone).unwrap());
            prop_assert_eq!(again.datetime(), zoned.datetime());
            prop_assert!(read <= seconds * 1_000);
        }

        #[test]
        fn never_panics(pattern in "[%a-zA-Z0-9:. -]{0,12}", text in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(pattern) = TimePattern::new(&pattern, None) {
                let _ = pattern.read(&text);
            }
        }
    }
}
