//! Asks a run to end early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Asks a run to end early: sources read no more, what is under way is
/// finished, and open windows do not fire, for their results would be wrong.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    wake: Arc<watch::Sender<()>>,
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            asked: Arc::default(),
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

    /// Takes the request back, once the run that was asked has ended.
    pub(crate) fn clear(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Returns once a stop was asked for.
    pub async fn wait(&self) {
        let mut wake = self.wake.subscribe();
        while !self.asked() {
            // The sender lives as long as `self`.
            let _ = wake.changed().await;
        }
    }
}
