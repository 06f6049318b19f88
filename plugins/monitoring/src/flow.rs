//! Computes rates of events.

use sluicebox_sdk::prelude::*;

use crate::Action;

/// An event with its share of the data.
#[derive(Record)]
pub struct Event {
    pub action: Action,
    /// The size of the data that came with it.
    pub bytes: i64,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub events: i64,
    pub bytes: i64,
    pub orders: i64,
    pub errors: i64,
}

/// The rates of a window.
#[derive(Record, Debug, PartialEq)]
pub struct Rates {
    pub events: i64,
    /// Bytes a second: R = dD/dt.
    pub rate: f64,
    /// Purchases a second.
    pub order_rate: f64,
    /// Which part of the events are errors, from 0 to 1.
    pub error_share: f64,
}

/// How much data, how many orders and which share of errors there are. Keyed by source,
/// in sliding windows.
#[operator]
pub struct Flow;

impl Aggregate for Flow {
    type Input<'a> = Event;
    type State = Counts;
    type Output<'a> = Rates;

    fn accumulate(&self, counts: &mut Counts, event: Event) -> Result<(), Reject> {
        if event.bytes < 0 {
            reject!("`bytes` is {}, expected at least 0", event.bytes);
        }
        counts.bytes = counts.bytes.saturating_add(event.bytes);
        counts.events += 1;
        counts.orders += i64::from(event.action == Action::Purchase);
        counts.errors += i64::from(event.action == Action::Error);
        Ok(())
    }

    fn merge(&self, counts: &mut Counts, later: Counts) {
        counts.events += later.events;
        counts.bytes = counts.bytes.saturating_add(later.bytes);
        counts.orders += later.orders;
        counts.errors += later.errors;
    }

    fn finish(&self, counts: &Counts, window: Window) -> Rates {
        let seconds = window.duration_ms() as f64 / 1000.0;
        Rates {
            events: counts.events,
            rate: counts.bytes as f64 / seconds,
            order_rate: counts.orders as f64 / seconds,
            error_share: counts.errors as f64 / counts.events as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Window = Window {
        start: Timestamp(0),
        end: Timestamp(60_000),
    };

    fn counts(events: &[(Action, i64)]) -> Counts {
        let mut counts = Counts::default();
        for &(action, bytes) in events {
            Flow.accumulate(&mut counts, Event { action, bytes })
                .unwrap();
        }
        counts
    }

    #[test]
    fn rates_are_by_second_and_shares_by_event() {
        let events = [
            (Action::View, 100),
            (Action::Purchase, 50),
            (Action::Error, 0),
            (Action::Cart, 150),
        ];
        let expected = Rates {
            events: 4,
            rate: 5.0,
            order_rate: 1.0 / 60.0,
            error_share: 0.25,
        };
        for cut in 0..=events.len() {
            let mut first = counts(&events[..cut]);
            Flow.merge(&mut first, counts(&events[cut..]));
            assert_eq!(Flow.finish(&first, MINUTE), expected);
        }
    }

    #[test]
    fn bytes_are_not_negative() {
        let event = Event {
            action: Action::View,
            bytes: -1,
        };
        let rejected = Flow.accumulate(&mut Counts::default(), event);
        let rejected = rejected.expect_err("it is negative");
        assert_eq!(rejected.reason(), "`bytes` is -1, expected at least 0");
    }
}
