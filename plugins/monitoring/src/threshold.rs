//! Watches a measure, with hysteresis.

use sluicebox_sdk::prelude::*;

use crate::{Alarm, SourceKey};

/// The rates of a source in a window.
#[derive(Record)]
pub struct Measured {
    pub window_end: Timestamp,
    pub rate: f64,
    pub order_rate: f64,
    pub error_share: f64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Rate,
    OrderRate,
    ErrorShare,
}

/// A state that is there only during an alarm.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Since {
    pub since: Timestamp,
}

#[derive(Record, Debug, PartialEq)]
pub struct Alert<'a> {
    pub source: &'a str,
    pub measure: Measure,
    pub alarm: Alarm,
    pub value: f64,
    /// The end of the window that raised the alarm.
    pub since: Timestamp,
    /// The end of the window with the value.
    pub at: Timestamp,
}

/// Tells when a measure is too high, and when that is over. Keyed by source.
///
/// Between the two thresholds nothing changes, so that a measure that moves around one of
/// them is not told of each time.
#[operator(process)]
pub struct Threshold {
    /// What is watched.
    pub measure: Measure,
    /// The value from which on an alarm is raised.
    pub raise: f64,
    /// The value at which it is over: less than `raise`, or more if low values are the
    /// bad ones.
    pub clear: f64,
}

impl Threshold {
    fn is_bad(&self, value: f64) -> bool {
        match self.raise >= self.clear {
            true => value >= self.raise,
            false => value <= self.raise,
        }
    }

    fn is_good(&self, value: f64) -> bool {
        match self.raise >= self.clear {
            true => value < self.raise && value <= self.clear,
            false => value >= self.clear,
        }
    }
}

impl Process for Threshold {
    type Input<'a> = Measured;
    type Key<'a> = SourceKey<'a>;
    type State = Since;
    type Output<'a> = Alert<'a>;

    fn row<'a>(
        &self,
        since: &mut Option<Since>,
        measured: Measured,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let at = measured.window_end;
        let value = match self.measure {
            Measure::Rate => measured.rate,
            Measure::OrderRate => measured.order_rate,
            Measure::ErrorShare => measured.error_share,
        };
        let (alarm, since) = match since.take() {
            None if self.is_bad(value) => {
                *since = Some(Since { since: at });
                (Alarm::Raised, at)
            }
            Some(raised) if self.is_good(value) => (Alarm::Over, raised.since),
            unchanged => {
                *since = unchanged;
                return Ok(());
            }
        };
        context.emit(Alert {
            source: context.key().source,
            measure: self.measure,
            alarm,
            value,
            since,
            at,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    /// The alarms of values, with the number of the value.
    fn alarms(raise: f64, clear: f64, values: &[f64]) -> Vec<(Alarm, i64)> {
        let threshold = Threshold {
            measure: Measure::Rate,
            raise,
            clear,
        };
        let mut key = OneKey::new(threshold, SourceKey { source: "web" });
        let mut alarms = Vec::new();
        for (&rate, at) in values.iter().zip(0..) {
            let window_end = Timestamp(at);
            let measured = Measured {
                window_end,
                rate,
                order_rate: -rate,
                error_share: 0.0,
            };
            let alerts = key.row(window_end, measured).expect("it is not rejected");
            alarms.extend(alerts.iter().map(|alert| (alert.alarm, alert.at.0)));
        }
        alarms
    }

    #[test]
    fn an_alarm_is_told_once_and_when_it_is_over() {
        let values = [9.9, 10.0, 12.0, 9.0, 10.0, 5.1, 5.0, 1.0, 9.0, 11.0];
        assert_eq!(
            alarms(10.0, 5.0, &values),
            [(Alarm::Raised, 1), (Alarm::Over, 6), (Alarm::Raised, 9)]
        );
    }

    #[test]
    fn low_values_may_be_the_bad_ones() {
        let values = [5.1, 5.0, 1.0, 9.9, 10.0, 6.0];
        assert_eq!(
            alarms(5.0, 10.0, &values),
            [(Alarm::Raised, 1), (Alarm::Over, 4)]
        );
    }

    #[test]
    fn one_threshold_is_enough() {
        let values = [9.9, 10.0, 10.0, 9.9];
        assert_eq!(
            alarms(10.0, 10.0, &values),
            [(Alarm::Raised, 1), (Alarm::Over, 3)]
        );
    }
}
