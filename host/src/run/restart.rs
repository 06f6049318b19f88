//! Decides whether and when a failed pipeline is restarted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::RunError;
use crate::plan::RestartPlan;

/// The failures of a run so far.
pub struct Failures {
    plan: RestartPlan,
    /// Times of the failures within `within_ms`.
    recent: VecDeque<Instant>,
    count: u32,
}

/// When a failed run is tried again.
#[derive(Debug, PartialEq, Eq)]
pub struct Retry {
    pub delay: Duration,
    /// How many failures there were within `within_ms`, this one included.
    pub failures: u32,
    /// With one more than so many, it is given up.
    pub failures_max: u32,
}

impl Retry {
    /// Waits until it is time, and returns whether it is; not if `ended` comes before.
    pub async fn wait(&self, error: &RunError, ended: impl Future<Output = ()>) -> bool {
        tracing::warn!(
            "failed because of {}, and restarts in {}: {error}",
            error.fault().blame.name(),
            humantime::format_duration(self.delay)
        );
        tokio::select! {
            biased;
            () = ended => false,
            () = tokio::time::sleep(self.delay) => true,
        }
    }
}

impl Failures {
    pub fn new(plan: RestartPlan) -> Self {
        Failures {
            plan,
            recent: VecDeque::new(),
            count: 0,
        }
    }

    /// How often it was restarted.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Counts a failure. `None` to give up.
    pub fn add(&mut self, error: &RunError) -> Option<Retry> {
        self.add_at(error, Instant::now())
    }

    fn add_at(&mut self, error: &RunError, now: Instant) -> Option<Retry> {
        let RestartPlan::After {
            delay_ms,
            delay_ms_max,
            factor,
            failures_max,
            within_ms,
        } = self.plan
        else {
            return None;
        };
        if !error.fault().can_pass {
            return None;
        }
        let within = Duration::from_millis(within_ms);
        while let Some(first) = self.recent.front()
            && now.duration_since(*first) > within
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let in_a_row = self.recent.len();
        if in_a_row > failures_max as usize {
            return None;
        }
        self.count += 1;
        let grown = delay_ms as f64 * factor.powi(in_a_row as i32 - 1);
        Some(Retry {
            delay: Duration::from_millis((grown as u64).min(delay_ms_max)),
            failures: in_a_row as u32,
            failures_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blame::{Blame, Fault};
    use crate::operator::OperatorError;

    fn failure() -> RunError {
        RunError::Internal("it broke".to_owned())
    }

    #[test]
    fn delays_grow_and_the_run_is_given_up_after_too_many_failures() {
        let mut failures = Failures::new(RestartPlan::After {
            delay_ms: 100,
            delay_ms_max: 300,
            factor: 2.0,
            failures_max: 3,
            within_ms: 10_000,
        });
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let retry = |ms, failures| {
            Some(Retry {
                delay: Duration::from_millis(ms),
                failures,
                failures_max: 3,
            })
        };
        assert_eq!(failures.add_at(&failure(), at(0)), retry(100, 1));
        assert_eq!(failures.add_at(&failure(), at(1)), retry(200, 2));
        assert_eq!(failures.add_at(&failure(), at(2)), retry(300, 3));
        assert_eq!(failures.add_at(&failure(), at(3)), None);
        assert_eq!(
            failures.add_at(&failure(), at(60)),
            retry(100, 1),
            "old failures do not count"
        );
        assert_eq!(failures.count(), 4);
    }

    #[tokio::test]
    async fn a_restart_is_waited_for_unless_the_run_is_to_end() {
        let retry = |delay| Retry {
            delay,
            failures: 1,
            failures_max: 3,
        };
        let soon = retry(Duration::from_millis(1));
        assert!(soon.wait(&failure(), std::future::pending()).await);
        let late = retry(Duration::from_secs(600));
        assert!(!late.wait(&failure(), std::future::ready(())).await);
    }

    #[test]
    fn what_trying_again_cannot_help_is_not_tried_again() {
        let mut failures = Failures::new(RestartPlan::After {
            delay_ms: 1,
            delay_ms_max: 1,
            factor: 1.0,
            failures_max: 3,
            within_ms: 1_000,
        });
        let lasting = RunError::Restore {
            why: "other types".to_owned(),
            blame: Blame::Config,
        };
        assert_eq!(failures.add(&lasting), None);
        let row = OperatorError {
            node: "prices".to_owned(),
            message: "a row without a price".to_owned(),
            fault: Fault::ROW,
        };
        assert_eq!(failures.add(&row.into()), None);
        assert!(failures.add(&failure()).is_some());
        assert_eq!(Failures::new(RestartPlan::Never).add(&failure()), None);
    }
}
