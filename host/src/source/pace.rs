//! How many rows a source hands out at a time, so that those behind it are done with them
//! soon: a barrier waits for all rows before it, and where a row costs milliseconds, those of
//! a few full batches take minutes.
//!
//! It begins with few rows, and has more or fewer of them by how long the tasks behind take
//! them, as TCP does with its window (Jacobson, Congestion Avoidance and Control, SIGCOMM
//! 1988).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many rows there are at first, and at least.
const ROWS_MIN: usize = 64;
/// No batch has more.
const ROWS_MAX: usize = 1 << 16;
/// So many batches have to be taken soon until there are more rows: channels take some at once,
/// however long the work behind them takes.
const SOON_BATCHES: usize = 32;
/// What soon means.
const SOON: Duration = Duration::from_millis(50);
/// A batch that takes longer has too many.
const LATE: Duration = Duration::from_millis(250);

/// Shared by a source's task and what reads its input.
#[derive(Debug)]
pub struct Pace {
    rows: AtomicUsize,
    /// How many batches were taken soon, one after the other.
    soon: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            rows: AtomicUsize::new(ROWS_MIN),
            soon: AtomicUsize::new(0),
        }
    }
}

impl Pace {
    /// Without regard to time, for runs that are to be repeatable.
    pub fn unbound() -> Self {
        Pace {
            rows: AtomicUsize::new(usize::MAX),
            soon: AtomicUsize::new(0),
        }
    }

    pub fn rows_max(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Notes how long it took until a batch was processed in its task, and those behind it
    /// had room for what came out.
    pub fn note(&self, took: Duration) {
        let rows = self.rows_max();
        if rows == usize::MAX {
            return;
        }
        let soon = match took < SOON {
            true => self.soon.load(Ordering::Relaxed) + 1,
            false => 0,
        };
        if took > LATE {
            self.rows.store((rows / 2).max(ROWS_MIN), Ordering::Relaxed);
        } else if soon == SOON_BATCHES {
            self.rows.store((rows * 2).min(ROWS_MAX), Ordering::Relaxed);
        }
        self.soon.store(soon % SOON_BATCHES, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of rows, where each takes so long.
    fn paced(batches: usize, us_each: u64) -> Vec<usize> {
        let pace = Pace::default();
        let next = |_| {
            let rows = pace.rows_max().min(4_096);
            pace.note(Duration::from_micros(us_each) * rows as u32);
            rows
        };
        (0..batches).map(next).collect()
    }

    #[test]
    fn fast_rows_come_in_full_batches_soon() {
        let found = paced(7 * SOON_BATCHES, 1);
        let sizes: Vec<usize> = found.chunks(SOON_BATCHES).map(|some| some[0]).collect();
        assert_eq!(sizes, [64, 128, 256, 512, 1024, 2048, 4096]);
    }

    #[test]
    fn slow_rows_come_in_batches_that_are_done_soon() {
        for (us_each, most) in [(100, 1_024), (1_000, 128), (100_000, 64)] {
            let found = paced(20 * SOON_BATCHES, us_each);
            assert!(found.iter().max() <= Some(&most), "{us_each}: {found:?}");
        }
    }

    #[test]
    fn more_rows_come_once_they_are_fast_again() {
        let pace = Pace::default();
        for _ in 0..5 {
            pace.note(Duration::from_secs(1));
        }
        assert_eq!(pace.rows_max(), ROWS_MIN);
        for _ in 0..6 * SOON_BATCHES {
            pace.note(Duration::ZERO);
        }
        assert_eq!(pace.rows_max(), 4_096);
        pace.note(Duration::from_millis(300));
        assert_eq!(pace.rows_max(), 2_048);
        assert_eq!(Pace::unbound().rows_max(), usize::MAX);
    }
}
