//! Whether a new revision does well, judged by its counters beside those of the revision
//! before.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::progress::{NodeProgress, Role};

/// Shares of rejected rows are compared from this many rows on, or at the end.
const ROWS_MIN: u64 = 100;
/// So many more rows may be rejected than before, as a share of those that came...
const REJECTED_SHARE_MORE: f64 = 0.01;
/// ...or so many times as many, whichever is more.
const REJECTED_TIMES: f64 = 3.0;
/// Both shares are seen in some of the rows only. How far what is seen now may be above the
/// true one by chance, in standard deviations: it is looked at again and again.
const CHANCE_NOW: f64 = 3.0;
/// How far what was seen before may be below.
const CHANCE_BEFORE: f64 = 2.0;

/// How many times as long as before a row may take, at the end...
const TIME_TIMES: f64 = 5.0;
/// ...if the operator has worked for so long. The first rows take longer than others.
const BUSY_MS_MIN: f64 = 100.0;
/// So much work tells more of the time of a row than what was known before, of more rows.
const BUSY_MS_KNOWN: f64 = 1_000.0;

/// What an operator did with its rows, with which a later revision is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    node: String,
    rows: u64,
    failed: u64,
    /// Absent in what older hosts have stored.
    failed_calls: Option<u64>,
    rejected: u64,
    /// Of the processors' time.
    busy_ms: f64,
    /// The rows that this was for, where they are not those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timed_rows: Option<u64>,
}

impl Baseline {
    fn timed_rows(&self) -> u64 {
        self.timed_rows.unwrap_or(self.rows)
    }
}

/// Judges a revision.
pub struct Probation {
    lasts: Duration,
    before: Vec<Baseline>,
    now: Vec<Arc<NodeProgress>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Open,
    Held,
    /// Why it has to be taken back.
    Failed(String),
}

/// What the operators have done so far.
pub fn baselines(nodes: &[Arc<NodeProgress>]) -> Vec<Baseline> {
    let operators = nodes.iter().filter(|node| node.role == Role::Operator);
    let baseline = |node: &Arc<NodeProgress>| {
        let busy_ms = node.processor_ms();
        let node = node.own();
        Baseline {
            node: node.name,
            rows: node.rows_in,
            failed: node.failed,
            failed_calls: Some(node.failed_calls),
            rejected: node.rejected,
            busy_ms,
            timed_rows: None,
        }
    };
    operators.map(baseline).collect()
}

/// What is known of operators after they did `now`: a few rows tell less than what they did
/// `before`. Of the time of a row, the first ones after a start tell little, even many of them.
pub fn newer(before: &[Baseline], now: Vec<Baseline>) -> Vec<Baseline> {
    let newer = |now: Baseline| {
        let Some(known) = before.iter().find(|before| before.node == now.node) else {
            return now;
        };
        if now.rows < ROWS_MIN && known.rows > now.rows {
            return known.clone();
        }
        if now.busy_ms < BUSY_MS_KNOWN && known.timed_rows() > now.rows {
            return Baseline {
                busy_ms: known.busy_ms,
                timed_rows: Some(known.timed_rows()),
                ..now
            };
        }
        now
    };
    now.into_iter().map(newer).collect()
}

impl Probation {
    /// Of a revision with the counters `now`, after one that did `before`.
    pub fn new(lasts: Duration, before: Vec<Baseline>, now: Vec<Arc<NodeProgress>>) -> Self {
        Probation { lasts, before, now }
    }

    /// Whether it is over after so long.
    pub fn is_over(&self, after: Duration) -> bool {
        after >= self.lasts
    }

    /// Judges it after it has run for so long.
    pub fn judge(&self, after: Duration) -> Verdict {
        let is_over = self.is_over(after);
        for now in baselines(&self.now) {
            let before = self.before.iter().find(|before| before.node == now.node);
            let why = failed(before, &now)
                .map(|why| self.with_first(why, &now.node))
                .or_else(|| failed_calls(before, &now))
                .or_else(|| rejected(before, &now, is_over))
                .or_else(|| slow(before, &now).filter(|_| is_over));
            if let Some(why) = why {
                return Verdict::Failed(why);
            }
        }
        match is_over {
            true => Verdict::Held,
            false => Verdict::Open,
        }
    }

    /// With what was wrong with the first bad row of this node, if it is known.
    fn with_first(&self, why: String, node: &str) -> String {
        let node = self.now.iter().find(|now| now.name == node);
        match node.and_then(|node| node.first_dead_letter()) {
            Some(first) => format!("{why}; its first bad row: {first}"),
            None => why,
        }
    }
}

/// The bounds of a share of which a part was seen: Wilson's score interval, so many standard
/// deviations wide to each side (Wilson, "Probable inference, the law of succession, and
/// statistical inference", 1927).
fn bounds(part: u64, of: u64, deviations: f64) -> Range<f64> {
    let (rows, squared) = (of.max(1) as f64, deviations * deviations);
    let share = part as f64 / rows;
    let middle = share + squared / (2.0 * rows);
    let spread = share * (1.0 - share).max(0.0) / rows + squared / (4.0 * rows * rows);
    let half = deviations * spread.sqrt();
    let scale = 1.0 + squared / rows;
    (middle - half) / scale..(middle + half) / scale
}

/// Whether the share is more than so many times that of before, and so much more; not by
/// chance. `before` and `now` are parts and of how many rows.
fn is_worse(before: (u64, u64), now: (u64, u64), more: f64) -> bool {
    let known = bounds(before.0, before.1, CHANCE_BEFORE).end;
    let bound = (known + more).max(known * REJECTED_TIMES);
    // One row may be the one in many.
    now.0 > 1 && bounds(now.0, now.1, CHANCE_NOW).start > bound
}

/// A plugin fails on no row that it was made for: one is enough, unless the one before
/// failed as well.
fn failed(before: Option<&Baseline>, now: &Baseline) -> Option<String> {
    let before = before.filter(|before| before.failed > 0);
    let is_worse = match before {
        Some(before) => is_worse((before.failed, before.rows), (now.failed, now.rows), 0.0),
        None => now.failed > 0,
    };
    is_worse.then(|| {
        format!(
            "operator `{}` has failed on {} of {} rows",
            now.node, now.failed, now.rows
        )
    })
}

/// Its calls fail, and have answers when they are repeated: no row is to blame, and sooner or
/// later one fails when that matters.
fn failed_calls(before: Option<&Baseline>, now: &Baseline) -> Option<String> {
    let known = match before {
        Some(before) => before.failed_calls?,
        None => 0,
    };
    let failed = now.failed_calls.filter(|&failed| failed > 0)?;
    let before = before.filter(|_| known > 0);
    let is_worse =
        before.is_none_or(|before| is_worse((known, before.rows), (failed, now.rows), 0.0));
    is_worse.then(|| {
        format!(
            "operator `{}` has failed in {failed} calls with {} rows, which had answers when they \
             were repeated",
            now.node, now.rows
        )
    })
}

fn rejected(before: Option<&Baseline>, now: &Baseline, is_over: bool) -> Option<String> {
    // What a new operator rejects cannot be compared, nor with one to which no row came.
    let before = before.filter(|before| before.rows > 0)?;
    let (known, seen) = ((before.rejected, before.rows), (now.rejected, now.rows));
    let is_worse = is_worse(known, seen, REJECTED_SHARE_MORE);
    let is_enough = now.rows >= ROWS_MIN || is_over;
    (is_worse && is_enough).then(|| {
        format!(
            "operator `{}` has rejected {} of {} rows; before, it was {} of {}",
            now.node, now.rejected, now.rows, before.rejected, before.rows
        )
    })
}

/// A row takes longer than before, be it that the operator is still at work on it.
fn slow(before: Option<&Baseline>, now: &Baseline) -> Option<String> {
    let before = before.filter(|before| before.timed_rows() > 0)?;
    let each = |node: &Baseline| node.busy_ms / node.timed_rows().max(1) as f64;
    let is_worse = now.busy_ms > BUSY_MS_MIN && each(now) > each(before) * TIME_TIMES;
    is_worse.then(|| {
        format!(
            "operator `{}` has worked {:.3} ms on each of {} rows; before, it was {:.3} ms",
            now.node,
            each(now),
            now.rows,
            each(before)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Counts;

    fn node(rows: usize, failed: u64, rejected: u64) -> Arc<NodeProgress> {
        let node = NodeProgress::new("clean", Role::Operator, 1);
        node.add_in(rows);
        node.add_counts(Counts {
            rejected,
            failed,
            ..Counts::default()
        });
        Arc::new(node)
    }

    fn judge(before: Option<Arc<NodeProgress>>, now: Arc<NodeProgress>, seconds: u64) -> Verdict {
        let before = baselines(before.as_slice());
        let probation = Probation::new(Duration::from_secs(10), before, vec![now]);
        probation.judge(Duration::from_secs(seconds))
    }

    #[test]
    fn a_revision_that_fails_where_the_one_before_did_not_is_taken_back() {
        let well = || Some(node(10_000, 0, 0));
        assert_eq!(judge(well(), node(500, 0, 0), 1), Verdict::Open);
        assert_eq!(judge(well(), node(500, 0, 0), 10), Verdict::Held);
        let failed = judge(well(), node(500, 1, 0), 1);
        assert!(matches!(failed, Verdict::Failed(why) if why.contains("1 of 500 rows")));
        // As before.
        let ill = || Some(node(1_000, 10, 0));
        assert_eq!(judge(ill(), node(500, 6, 0), 1), Verdict::Open);
        assert_eq!(judge(ill(), node(1, 1, 0), 1), Verdict::Open, "by chance");
        assert!(matches!(
            judge(ill(), node(500, 50, 0), 1),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            judge(None, node(500, 1, 0), 1),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn a_revision_whose_calls_fail_and_are_repeated_is_taken_back() {
        let node = |rows: usize, failed_calls| {
            let node = NodeProgress::new("clean", Role::Operator, 1);
            node.add_in(rows);
            node.add_counts(Counts {
                failed_calls,
                ..Counts::default()
            });
            Arc::new(node)
        };
        let well = || Some(node(10_000, 0));
        assert_eq!(judge(well(), node(5_000, 0), 10), Verdict::Held);
        let failed = judge(well(), node(5_000, 1), 1);
        assert!(
            matches!(failed, Verdict::Failed(why) if why.contains("in 1 calls with 5000 rows"))
        );
        assert!(matches!(judge(None, node(5_000, 1), 1), Verdict::Failed(_)));
        // As before.
        assert_eq!(
            judge(Some(node(10_000, 10)), node(500, 1), 10),
            Verdict::Held
        );
        // An older host has not counted them.
        let unknown = Baseline {
            failed_calls: None,
            ..baselines(&[node(10_000, 0)]).remove(0)
        };
        let now = baselines(&[node(500, 10)]).remove(0);
        assert_eq!(failed_calls(Some(&unknown), &now), None);
    }

    #[test]
    fn a_revision_that_takes_many_times_as_long_is_taken_back_at_the_end() {
        let node = |rows, busy_ms| Baseline {
            node: "clean".to_owned(),
            rows,
            failed: 0,
            failed_calls: Some(0),
            rejected: 0,
            busy_ms,
            timed_rows: None,
        };
        let before = node(10_000, 100.0);
        assert!(slow(Some(&before), &node(10_000, 1_000.0)).is_some());
        assert!(slow(Some(&before), &node(64, 500.0)).is_some(), "it loops");
        assert!(slow(Some(&before), &node(10_000, 400.0)).is_none());
        assert!(slow(Some(&before), &node(10, 50.0)).is_none(), "it begins");
        assert!(slow(None, &node(10_000, 1_000.0)).is_none());
    }

    #[test]
    fn a_jump_in_rejected_rows_is_taken_back() {
        let well = || Some(node(10_000, 0, 100));
        assert_eq!(judge(well(), node(500, 0, 9), 1), Verdict::Open);
        assert!(matches!(
            judge(well(), node(500, 0, 400), 1),
            Verdict::Failed(_)
        ));
        // A few rows say nothing, until there are no more.
        assert_eq!(judge(well(), node(10, 0, 5), 1), Verdict::Open);
        assert!(matches!(
            judge(well(), node(10, 0, 5), 10),
            Verdict::Failed(_)
        ));
        // What chance explains.
        assert_eq!(
            judge(Some(node(125, 0, 0)), node(100, 0, 2), 10),
            Verdict::Held
        );
        assert_eq!(
            judge(Some(node(100_000, 0, 500)), node(100, 0, 2), 10),
            Verdict::Held
        );
        assert!(matches!(
            judge(Some(node(100_000, 0, 500)), node(10_000, 0, 400), 1),
            Verdict::Failed(why) if why.contains("400 of 10000 rows; before, it was 500 of 100000")
        ));
        // A new operator may reject.
        assert_eq!(judge(None, node(500, 0, 400), 10), Verdict::Held);
        assert_eq!(
            judge(Some(node(0, 0, 0)), node(500, 0, 400), 10),
            Verdict::Held
        );
    }

    #[test]
    fn nothing_has_held_before_the_time_is_over() {
        let probation = Probation::new(Duration::from_secs(10), Vec::new(), Vec::new());
        for (after, verdict) in [
            (Duration::from_nanos(9_999_999_999), Verdict::Open),
            (Duration::from_secs(10), Verdict::Held),
        ] {
            assert_eq!(probation.is_over(after), verdict == Verdict::Held);
            assert_eq!(probation.judge(after), verdict);
        }
    }

    #[test]
    fn a_few_rows_do_not_tell_how_an_operator_does() {
        let of = |rows, rejected| baselines(&[node(rows, 0, rejected)]);
        assert_eq!(newer(&of(10_000, 100), of(3, 0)), of(10_000, 100));
        assert_eq!(newer(&of(10_000, 100), of(100, 0))[0].rejected, 0);
        assert_eq!(newer(&of(2, 1), of(3, 0)), of(3, 0));
        assert_eq!(newer(&[], of(3, 0)), of(3, 0));
        assert_eq!(newer(&of(10_000, 0), of(500, 90))[0].rejected, 90);
    }

    #[test]
    fn what_a_row_takes_is_not_known_by_the_first_ones_after_a_start() {
        let of = |rows, busy_ms| Baseline {
            busy_ms,
            ..baselines(&[node(rows, 0, 0)]).remove(0)
        };
        let known = [of(10_000, 100.0)];
        let cold = newer(&known, vec![of(500, 250.0)]);
        assert_eq!(cold[0].rows, 500);
        let slow_one = of(200, 100.5);
        assert!(slow(Some(&cold[0]), &slow_one).is_some(), "{cold:?}");
        // Also once more, and as it is read from the ledger.
        let text = serde_json::to_string(&newer(&cold, vec![of(600, 300.0)])).expect("JSON");
        let read: Vec<Baseline> = serde_json::from_str(&text).expect("baselines");
        assert!(slow(Some(&read[0]), &slow_one).is_some(), "{read:?}");
        // It has become so.
        let warm = newer(&read, vec![of(4_000, 2_000.0)]);
        assert_eq!(slow(Some(&warm[0]), &slow_one), None);
        let more = newer(&read, vec![of(20_000, 300.0)]);
        assert_eq!(more, [of(20_000, 300.0)]);
    }
}
