//! Which transactions a copy of the table has seen.

use serde::{Deserialize, Serialize};

/// A snapshot of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// All transactions below have ended, none from here on has begun.
    ended: u64,
    next: u64,
    /// Those in between that had not ended.
    running: Vec<u64>,
    /// What is committed from here on in the log is not seen.
    pub until: u64,
    /// When it was taken, in ms.
    pub taken_ms: i64,
}

impl Snapshot {
    /// Reads `10:20:10,14`, as the server shows it.
    pub fn parse(text: &str, until: u64, taken_ms: i64) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (ended, next) = (number()?, number()?);
        let running = parts.next()?.split(',').filter(|text| !text.is_empty());
        Some(Snapshot {
            ended,
            next,
            running: running
                .map(|text| text.parse().ok())
                .collect::<Option<_>>()?,
            until,
            taken_ms,
        })
    }

    /// Whether it has seen a transaction, whose commit is there in the log. The log has the
    /// lower half of the transaction's number.
    pub fn has_seen(&self, transaction: u32, commit: u64) -> bool {
        if commit >= self.until {
            return false;
        }
        let before = (self.next as u32).wrapping_sub(transaction).cast_signed();
        if before <= 0 {
            return false;
        }
        let number = self.next.saturating_sub(u64::from(before.unsigned_abs()));
        number < self.ended || !self.running.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_seen_what_was_committed_before() {
        let next = (1_u64 << 32) + 3;
        let text = format!("{}:{next}:{},{}", next - 10, next - 10, next - 5);
        let snapshot = Snapshot::parse(&text, 100, 0).expect("a snapshot");
        let seen = |before: u64, commit| snapshot.has_seen((next - before) as u32, commit);
        assert!(seen(1, 99) && seen(4, 99) && seen(6, 99) && seen(11, 99) && seen(1_000, 0));
        assert!(!seen(5, 99) && !seen(10, 99), "they ran");
        assert!(
            !seen(1, 100) && !seen(1_000, 200),
            "they are behind it in the log"
        );
        assert!(!snapshot.has_seen(next as u32, 99));
        assert!(!snapshot.has_seen(next as u32 + 7, 99));
        for text in ["", "1", "1:2", "1:2:x", "x:2:"] {
            assert_eq!(Snapshot::parse(text, 0, 0), None, "{text}");
        }
        assert!(Snapshot::parse("1:2:", 9, 0).is_some_and(|it| it.has_seen(1, 0)));
    }
}
