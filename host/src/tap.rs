//! Lets somebody see rows on their way out of a node. A pipeline never waits for those who
//! look: they get as many rows a second as they ask for, and a count of the others.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::batch::Batch;

/// How many batches wait for a listener at most; more are left out.
const WAITING_MAX: usize = 64;

/// Where an output of a node can be listened to. All tasks of the node share it.
#[derive(Debug, Default)]
pub struct Tap {
    /// How many listeners there are: all that a batch costs where there are none.
    count: AtomicUsize,
    /// Tasks only read the list; it is written when a listener comes or goes.
    listeners: RwLock<Vec<Listener>>,
    /// How many rows no listener was shown, since a task does not wait until it can read.
    missed: AtomicU64,
}

/// The side of the pipeline.
#[derive(Debug)]
struct Listener {
    sender: mpsc::Sender<Batch>,
    left_out: Arc<AtomicU64>,
    allowance: Allowance,
}

/// How many rows may pass now. Tasks share it without a lock.
#[derive(Debug)]
struct Allowance {
    began: Instant,
    /// How long each row takes of it, in ns.
    row_ns: u64,
    /// Up to when it is used, in ns since it began.
    used_ns: AtomicU64,
}

/// What can be saved of an allowance.
const SAVED_NS: u64 = 1_000_000_000;

/// Receives some of the rows that leave by an output, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    tap: Arc<Tap>,
    receiver: mpsc::Receiver<Batch>,
    left_out: Arc<AtomicU64>,
    /// Those of the tap that were counted.
    missed: u64,
}

impl Tap {
    /// Shows a batch that leaves.
    #[inline]
    pub fn offer(&self, batch: &Batch) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.show(batch);
        }
    }

    #[cold]
    fn show(&self, batch: &Batch) {
        let listeners = match self.listeners.try_read() {
            Ok(listeners) => listeners,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let rows = batch.rows() as u64;
                self.missed.fetch_add(rows, Ordering::Relaxed);
                return;
            }
        };
        for listener in listeners.iter() {
            listener.show(batch);
        }
    }

    /// Listens to at most so many rows a second.
    pub fn listen(self: &Arc<Self>, rows_a_second: u32) -> Listening {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let left_out = Arc::new(AtomicU64::new(0));
        let mut listeners = self.lock();
        listeners.push(Listener {
            sender,
            left_out: left_out.clone(),
            allowance: Allowance::new(rows_a_second, Instant::now()),
        });
        self.count.store(listeners.len(), Ordering::Relaxed);
        drop(listeners);
        Listening {
            tap: self.clone(),
            receiver,
            left_out,
            missed: self.missed.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Vec<Listener>> {
        // A panic elsewhere leaves no change half made.
        self.listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    fn show(&self, batch: &Batch) {
        let rows = batch.rows();
        let shown = self.allowance.take(rows, Instant::now());
        let sent = shown > 0 && self.sender.try_send(sample(batch, shown)).is_ok();
        let left_out = if sent { rows - shown } else { rows };
        self.left_out.fetch_add(left_out as u64, Ordering::Relaxed);
    }
}

/// So many rows of a batch, evenly spread.
fn sample(batch: &Batch, count: usize) -> Batch {
    let rows: Vec<u32> = (0..count)
        .map(|row| (row * batch.rows() / count) as u32)
        .collect();
    Batch {
        // What was read stays in memory only for the pipeline.
        origin: None,
        ..batch.take(&rows)
    }
}

impl Allowance {
    fn new(rows_a_second: u32, began: Instant) -> Self {
        Allowance {
            began,
            row_ns: SAVED_NS / u64::from(rows_a_second.max(1)),
            used_ns: AtomicU64::new(0),
        }
    }

    /// How many of these rows may pass. At most those of a second are saved.
    fn take(&self, rows: usize, now: Instant) -> usize {
        let now_ns = now.saturating_duration_since(self.began).as_nanos() as u64;
        let mut used_ns = self.used_ns.load(Ordering::Relaxed);
        loop {
            let from_ns = used_ns.max(now_ns);
            let left_ns = (now_ns + SAVED_NS).saturating_sub(from_ns);
            let passing = rows.min((left_ns / self.row_ns.max(1)) as usize);
            let taken_ns = from_ns + passing as u64 * self.row_ns;
            let swapped = self.used_ns.compare_exchange_weak(
                used_ns,
                taken_ns,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return passing,
                // Another task has taken rows.
                Err(now) => used_ns = now,
            }
        }
    }
}

impl Listening {
    /// The next rows. The future may be dropped.
    pub async fn next(&mut self) -> Batch {
        match self.receiver.recv().await {
            Some(batch) => batch,
            // The tap has its other end for as long as this one.
            None => std::future::pending().await,
        }
    }

    /// How many rows were left out since it was last asked.
    pub fn take_left_out(&mut self) -> u64 {
        let missed = self.tap.missed.load(Ordering::Relaxed);
        let new = missed - std::mem::replace(&mut self.missed, missed);
        new + self.left_out.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.receiver.close();
        let mut listeners = self.tap.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        self.tap.count.store(listeners.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn batch(times: std::ops::Range<i64>) -> Batch {
        Batch {
            schema: Arc::default(),
            columns: Vec::new(),
            times: times.collect(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    #[tokio::test]
    async fn every_row_is_seen_or_counted_and_the_pipeline_never_waits() {
        let tap = Arc::new(Tap::default());
        tap.offer(&batch(0..10));
        let mut some = tap.listen(100);
        let mut all = tap.listen(u32::MAX);
        for _ in 0..10 * WAITING_MAX {
            tap.offer(&batch(0..30));
        }
        let mut seen = 0;
        while let Ok(batch) = some.receiver.try_recv() {
            assert!(batch.times.is_sorted());
            seen += batch.rows() as u64;
        }
        let rows = 300 * WAITING_MAX as u64;
        assert_eq!(seen + some.take_left_out(), rows);
        assert!((100..1_000).contains(&seen), "{seen}");
        let waiting = 30 * WAITING_MAX as u64;
        assert_eq!(all.take_left_out(), rows - waiting, "nobody has received");
        drop(all);
        assert_eq!(tap.count.load(Ordering::Relaxed), 1);
        drop(some);
        assert_eq!(tap.count.load(Ordering::Relaxed), 0);
        assert!(tap.lock().is_empty());
    }

    #[test]
    fn rows_are_spread_over_the_batch() {
        let times = sample(&batch(0..10), 4).times;
        assert_eq!(times.to_vec(), [0, 2, 5, 7]);
    }

    #[test]
    fn an_allowance_is_of_a_second() {
        let start = Instant::now();
        let allowance = Allowance::new(10, start);
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(allowance.take(7, start), 7);
        assert_eq!(allowance.take(7, start), 3);
        assert_eq!(allowance.take(7, after(250)), 2);
        assert_eq!(allowance.take(100, after(60_000)), 10, "no more are saved");
    }
}
