//! Waits for a store that may not answer: shortly for what a run can do without, and never
//! without a word.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::Instrument;

use super::RemoteStore;
use crate::blame::Fault;
use crate::checkpoint::storage::StorageError;

/// How long a run waits for what it can do without.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long the store has for an answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How often a wait is told of.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What becomes of a question that a run can do without.
pub enum Asked<T> {
    Answered(Result<T, StorageError>),
    /// It is answered in the background, within [`ANSWER_MAX`].
    Waiting(JoinHandle<Result<T, StorageError>>),
}

impl RemoteStore {
    /// Asks the store for what a run can do without, and waits shortly: not at all if the
    /// last question has no answer yet.
    pub async fn soon<T: Send + 'static>(
        self: &Arc<Self>,
        asked: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Asked<T> {
        let grace = match self.is_silent.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => GRACE,
        };
        let store = self.clone();
        let bounded = async move {
            let answered = tokio::time::timeout(ANSWER_MAX, asked).await;
            store.is_silent.store(answered.is_err(), Ordering::Relaxed);
            answered.unwrap_or_else(|_| Err(store.silent(None, ANSWER_MAX)))
        };
        let mut asking = tokio::spawn(bounded.in_current_span());
        match tokio::time::timeout(grace, &mut asking).await {
            Ok(Ok(answered)) => Asked::Answered(answered),
            Ok(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and drops the caller.
                Err(_cancelled) => std::future::pending().await,
            },
            Err(_) => {
                self.is_silent.store(true, Ordering::Relaxed);
                Asked::Waiting(asking)
            }
        }
    }

    /// Waits for what nothing goes on without, and says so, every so often. `what` is what the
    /// store is asked for: "for its checkpoints". Without `limit`, each request has its own.
    pub async fn answer<T>(
        &self,
        what: &str,
        limit: Option<Duration>,
        asked: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let at_most = limit.map_or(String::new(), |limit| format!(", {limit:?} at most"));
        let began = Instant::now();
        tokio::pin!(asked);
        loop {
            let waited = began.elapsed();
            let left = limit.map_or(TELL_EVERY, |limit| limit.saturating_sub(waited));
            match tokio::time::timeout(left.min(TELL_EVERY), &mut asked).await {
                Ok(answered) => return answered,
                Err(_) => match limit.filter(|&limit| began.elapsed() >= limit) {
                    Some(limit) => return Err(self.silent(Some(what), limit)),
                    None => tracing::warn!(
                        "waiting for the object store {}, asked {what}: {:.0?} by now{at_most}",
                        self.url,
                        began.elapsed()
                    ),
                },
            }
        }
    }

    fn silent(&self, what: Option<&str>, within: Duration) -> StorageError {
        let what = what.map_or(String::new(), |what| format!(", and was asked {what}"));
        StorageError::Other {
            message: format!(
                "the object store {} has not answered within {within:?}{what}: see that it runs, \
                 and that `url` and `endpoint` of `upload` and the network lead to it",
                self.url
            ),
            fault: Fault::OUTSIDE,
        }
    }
}
