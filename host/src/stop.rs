//! The request to end a run early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Asks a run to end early: sources stop reading, rows on their way are finished,
/// and open windows do not fire, since their results would be incomplete.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
    hurried: Arc<AtomicBool>,
    wake: Arc<watch::Sender<()>>,
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            asked: Arc::default(),
            given_up: Arc::default(),
            hurried: Arc::default(),
            wake: Arc::new(watch::Sender::new(())),
        }
    }
}

impl Stop {
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.wake.send_replace(());
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Has plugins' calls end at once: the run is dropped, and nothing of it is kept.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Has plugins' calls end soon, or not any more: something waits for a barrier, which passes
    /// no call that does not end.
    pub fn hurry(&self, hurries: bool) {
        self.hurried.store(hurries, Ordering::SeqCst);
    }

    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }

    /// Withdraws the request after the run has ended.
    pub(crate) fn clear(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Waits until the run is asked to stop.
    pub async fn wait(&self) {
        let mut wake = self.wake.subscribe();
        while !self.asked() {
            // The sender lives as long as `self`.
            let _ = wake.changed().await;
        }
    }
}
