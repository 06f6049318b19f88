//! Knows how much a user does, and tells when it is far from that.

use sluicebox_sdk::prelude::*;

use crate::UserKey;

/// How much a user did in a window.
#[derive(Record)]
pub struct Counted {
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub actions: i64,
}

/// How much a user did in the last windows.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Recent {
    /// The oldest first; 0 for windows in which nothing was done.
    pub counts: Vec<i64>,
    /// The end of the newest.
    pub until: Timestamp,
}

#[derive(Record, Debug, PartialEq)]
pub struct Unusual<'a> {
    pub user_id: &'a str,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub actions: i64,
    /// The mean of the windows before.
    pub usual: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

/// Tells when a user does far more, or far less, in a window than in those before. Keyed
/// by user, behind a tumbling window.
#[operator(process)]
pub struct Usual {
    /// How many windows before count.
    #[parameter(default = 24)]
    pub windows: usize,
    /// How many of them there have to be before something is unusual.
    #[parameter(default = 6)]
    pub known: usize,
    /// How many standard deviations from the mean are unusual.
    #[parameter(default = 3.0)]
    pub deviations: f64,
    /// A deviation is taken to be at least this, or a user who always does the same would
    /// be unusual with each difference.
    #[parameter(default = 1.0)]
    pub least_deviation: f64,
}

impl Process for Usual {
    type Input<'a> = Counted;
    type Key<'a> = UserKey<'a>;
    type State = Recent;
    type Output<'a> = Unusual<'a>;

    fn row<'a>(
        &self,
        recent: &mut Option<Recent>,
        counted: Counted,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let Counted {
            window_start,
            window_end,
            actions,
        } = counted;
        let recent = recent.get_or_insert_with(|| Recent {
            counts: Vec::new(),
            until: window_start,
        });
        let length_ms = window_end.0.saturating_sub(window_start.0).max(1);
        let missing = window_start.0.saturating_sub(recent.until.0) / length_ms;
        let missing = usize::try_from(missing).unwrap_or(0).min(self.windows);
        recent.counts.resize(recent.counts.len() + missing, 0);
        self.forget(recent);
        if recent.counts.len() >= self.known.max(1) {
            let (usual, deviation) = mean_and_deviation(&recent.counts);
            let far = self.deviations * deviation.max(self.least_deviation);
            if (actions as f64 - usual).abs() > far {
                context.emit(Unusual {
                    user_id: context.key().user_id,
                    window_start,
                    window_end,
                    actions,
                    usual,
                    deviation,
                });
            }
        }
        recent.counts.push(actions);
        recent.until = window_end;
        self.forget(recent);
        Ok(())
    }
}

impl Usual {
    fn forget(&self, recent: &mut Recent) {
        let old = recent.counts.len().saturating_sub(self.windows);
        recent.counts.drain(..old);
    }
}

fn mean_and_deviation(counts: &[i64]) -> (f64, f64) {
    let n = counts.len() as f64;
    // A sum of integers may overflow, for each row that comes as long as they are kept.
    let mean = counts.iter().map(|&count| count as f64).sum::<f64>() / n;
    let squares = counts.iter().map(|&count| (count as f64 - mean).powi(2));
    (mean, (squares.sum::<f64>() / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    /// The windows of 10 ms that are unusual, of those with these numbers and counts.
    fn unusual(counts: &[(i64, i64)]) -> Vec<(i64, f64, f64)> {
        let usual = Usual {
            windows: 4,
            known: 2,
            deviations: 2.0,
            least_deviation: 1.0,
        };
        let mut user = OneKey::new(usual, UserKey { user_id: "ann" });
        let mut found = Vec::new();
        for &(number, actions) in counts {
            let window_start = Timestamp(10 * number);
            let window_end = Timestamp(10 * number + 10);
            let counted = Counted {
                window_start,
                window_end,
                actions,
            };
            let rows = user.row(window_end, counted).expect("not rejected");
            found.extend(rows.iter().map(|row| (number, row.usual, row.deviation)));
        }
        found
    }

    #[test]
    fn far_more_and_far_less_are_unusual() {
        assert_eq!(unusual(&[(0, 9), (1, 11), (2, 13)]), [(2, 10.0, 1.0)]);
        assert_eq!(unusual(&[(0, 9), (1, 11), (2, 12)]), []);
        assert_eq!(unusual(&[(0, 9), (1, 11), (2, 7)]), [(2, 10.0, 1.0)]);
    }

    #[test]
    fn windows_without_actions_count() {
        assert_eq!(
            unusual(&[(0, 4), (3, 6)]),
            [(3, 4.0 / 3.0, (32.0_f64 / 9.0).sqrt())]
        );
        assert_eq!(
            unusual(&[(0, 90), (1, 90), (1_000_000, 3)]),
            [(1_000_000, 0.0, 0.0)]
        );
    }

    #[test]
    fn only_the_last_windows_count() {
        let counts = [(0, 90), (1, 5), (2, 5), (3, 5), (4, 5), (5, 8)];
        let found = unusual(&counts);
        assert!(found.contains(&(5, 5.0, 0.0)), "{found:?}");
    }
}
