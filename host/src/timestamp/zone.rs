//! Time zones of the IANA database, which is part of the binary.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::suggest;

pub(super) static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Why a zone cannot be used, and what to do.
#[derive(Debug)]
pub struct UnknownZone {
    pub message: String,
    pub help: String,
}

/// A time zone. It is kept until the process ends, so that it can be copied; there
/// are some 600.
#[derive(Clone, Copy)]
pub struct Zone(&'static NamedZone);

struct NamedZone {
    name: String,
    zone: TimeZone,
}

static KNOWN: Mutex<BTreeMap<String, &'static NamedZone>> = Mutex::new(BTreeMap::new());

impl Zone {
    pub fn named(name: &str) -> Result<Zone, UnknownZone> {
        let zone = zone_named(name)?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let named = known.entry(name.to_owned()).or_insert_with(|| {
            Box::leak(Box::new(NamedZone {
                name: name.to_owned(),
                zone,
            }))
        });
        Ok(Zone(named))
    }

    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// What clocks in the zone show at this time, both in ms since 1970-01-01 00:00.
    pub fn local_ms(self, time_ms: i64) -> i64 {
        time_ms.saturating_add(self.offset_ms(time_ms))
    }

    /// The first time at which clocks in the zone show this, or later, where they skip
    /// it.
    pub fn time_ms(self, local_ms: i64) -> i64 {
        let time = Timestamp::from_millisecond(local_ms).and_then(|local| {
            let local = TimeZone::UTC.to_datetime(local);
            self.0.zone.to_ambiguous_timestamp(local).compatible()
        });
        match time {
            Ok(time) => time.as_millisecond(),
            // Outside the years that have zones.
            Err(_) => local_ms.saturating_sub(self.offset_ms(local_ms)),
        }
    }

    fn offset_ms(self, time_ms: i64) -> i64 {
        let (least, most) = (Timestamp::MIN, Timestamp::MAX);
        let time = Timestamp::from_millisecond(time_ms);
        let time = time.unwrap_or(if time_ms < 0 { least } else { most });
        i64::from(self.0.zone.to_offset(time).seconds()) * 1_000
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Zone::named(&name).map_err(|problem| de::Error::custom(problem.message))
    }
}

pub(super) fn zone_named(name: &str) -> Result<TimeZone, UnknownZone> {
    ZONES.get(name).map_err(|_| {
        let names = ZONES.available().map(|name| name.to_string());
        // There are some 600, of which those that begin otherwise are not meant.
        let first = name.get(..1).unwrap_or_default().to_ascii_uppercase();
        let names: Vec<String> = names.filter(|known| known.starts_with(&first)).collect();
        let nearest = suggest::nearest(name, names.iter().map(String::as_str));
        UnknownZone {
            message: format!("`{name}` is not a time zone"),
            help: match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => {
                    "time zones have names such as UTC, Europe/London or America/New_York".into()
                }
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn days_have_as_many_hours_as_clocks_say() {
        let berlin = Zone::named("Europe/Berlin").expect("it is known");
        let midnight = |day: &str| {
            let local: jiff::civil::DateTime = day.parse().expect("a date");
            let local = local.to_zoned(TimeZone::UTC).expect("it is in reach");
            berlin.time_ms(local.timestamp().as_millisecond())
        };
        let hours = |day: &str, next: &str| (midnight(next) - midnight(day)) / HOUR;
        assert_eq!(hours("2024-03-30", "2024-03-31"), 24);
        assert_eq!(hours("2024-03-31", "2024-04-01"), 23);
        assert_eq!(hours("2024-10-27", "2024-10-28"), 25);
        assert_eq!(berlin.local_ms(midnight("2024-07-01")) % (24 * HOUR), 0);
    }

    #[test]
    fn times_that_no_calendar_has_are_no_failure() {
        let berlin = Zone::named("Europe/Berlin").expect("it is known");
        for time_ms in [i64::MIN, -(1 << 62), 1 << 62, i64::MAX] {
            let back = berlin.time_ms(berlin.local_ms(time_ms));
            assert!(
                back.abs_diff(time_ms) <= 24 * HOUR as u64,
                "{time_ms} {back}"
            );
        }
    }

    #[test]
    fn a_zone_is_stored_by_its_name() {
        let zone = Zone::named("Asia/Kathmandu").expect("it is known");
        let text = serde_json::to_string(&zone).expect("it is text");
        assert_eq!(text, "\"Asia/Kathmandu\"");
        assert_eq!(serde_json::from_str::<Zone>(&text).ok(), Some(zone));
        assert!(serde_json::from_str::<Zone>("\"Mars/Olympus\"").is_err());
    }
}
