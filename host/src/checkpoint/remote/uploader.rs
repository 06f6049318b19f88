//! Uploads checkpoints while the pipeline runs: always the newest, and every
//! savepoint. Logs failures and tries again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::RemoteStore;
use crate::blame::Fault;
use crate::checkpoint::storage::StorageError;
use crate::checkpoint::storage::folder::Archive;
use crate::element::CheckpointId;

/// The delay after a failure, which doubles from the first to the second.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A task that ends when this is dropped.
pub struct Uploader {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    wanted: std::sync::Mutex<Wanted>,
    changed: Notify,
    /// Has a failed upload tried again without a delay.
    hurried: Notify,
}

#[derive(Default)]
struct Wanted {
    newest: Option<CheckpointId>,
    savepoints: Vec<CheckpointId>,
    is_uploading: bool,
    /// Why the last try failed.
    failed: Option<StorageError>,
    /// How often the end of the uploads was waited for. A try that began before tells
    /// nothing of what was put right since.
    waits: usize,
}

impl Uploader {
    /// Keeps `keep` checkpoints in the store, and all savepoints.
    pub fn start(remote: Arc<RemoteStore>, archive: Archive, keep: usize) -> Uploader {
        let shared = Arc::new(Shared {
            wanted: std::sync::Mutex::default(),
            changed: Notify::new(),
            hurried: Notify::new(),
        });
        let task = tokio::spawn(run(shared.clone(), remote, archive, keep));
        Uploader { shared, task }
    }

    /// Uploads a complete local checkpoint, unless a newer one comes before its
    /// upload starts. A savepoint is uploaded in any case.
    pub fn want(&self, id: CheckpointId, is_savepoint: bool) {
        self.shared.change(|wanted| match is_savepoint {
            true => wanted.savepoints.push(id),
            false => wanted.newest = Some(id),
        });
        self.shared.changed.notify_waiters();
    }

    /// Waits until all uploads are complete, but no longer than `at_most`, and not where
    /// one fails for good. Returns why they are not.
    pub async fn finish(&self, at_most: Duration) -> Result<(), StorageError> {
        // What has failed may have been put right since.
        self.shared.change(|wanted| {
            if !wanted.is_done() {
                wanted.failed = None;
                wanted.waits += 1;
            }
        });
        self.shared.hurried.notify_one();
        let done = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(ended) = self.shared.change(Wanted::ending) {
                    return ended;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(at_most, done).await;
        waited.unwrap_or_else(|_| {
            let failed = self.shared.change(|wanted| wanted.failed.take());
            Err(failed.unwrap_or_else(|| StorageError::Other {
                message: format!("the upload has not ended within {at_most:?}"),
                fault: Fault::OUTSIDE,
            }))
        })
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Wanted) -> T) -> T {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted)
    }
}

impl Wanted {
    /// The next checkpoint to upload. It stays wanted until `ended` is called.
    fn next(&mut self) -> Option<CheckpointId> {
        let next = self.savepoints.first().copied().or(self.newest);
        self.is_uploading = next.is_some();
        next
    }

    fn ended(&mut self, id: CheckpointId, failed: Option<StorageError>) {
        self.is_uploading = false;
        self.failed = failed;
        self.savepoints.retain(|savepoint| *savepoint != id);
        self.newest = self.newest.filter(|newest| *newest != id);
    }

    fn is_done(&self) -> bool {
        !self.is_uploading && self.newest.is_none() && self.savepoints.is_empty()
    }

    /// How the uploads have ended, if they have.
    fn ending(&mut self) -> Option<Result<(), StorageError>> {
        let is_done = self.is_done();
        let is_final = |failed: &mut StorageError| is_done || !failed.fault().can_pass;
        match self.failed.take_if(is_final) {
            Some(failed) => Some(Err(failed)),
            None => is_done.then_some(Ok(())),
        }
    }
}

async fn run(shared: Arc<Shared>, remote: Arc<RemoteStore>, archive: Archive, keep: usize) {
    let mut retry = RETRY_MIN;
    loop {
        let changed = shared.changed.notified();
        let Some(id) = shared.change(Wanted::next) else {
            changed.await;
            continue;
        };
        let waits = shared.change(|wanted| wanted.waits);
        let mut failed = None;
        match remote.upload(&archive, id).await {
            Ok(_) => {
                if let Err(error) = remote.prune(keep).await {
                    tracing::error!("old copies of checkpoints cannot be deleted: {error}");
                }
            }
            // Deleted before its turn came: a newer one is wanted, or will be.
            Err(StorageError::Missing { .. }) => {}
            // Trying again would not help.
            Err(error @ StorageError::Damaged { .. }) => {
                tracing::error!("checkpoint {id} is not uploaded: {error}");
                failed = Some(error);
            }
            Err(error) => {
                let delay = retry;
                tracing::error!(
                    "checkpoint {id} is not uploaded: {error}; trying again in {delay:.0?}"
                );
                shared.change(|wanted| {
                    if wanted.waits == waits {
                        wanted.failed = Some(error);
                    }
                });
                shared.changed.notify_waiters();
                let _ = tokio::time::timeout(delay, shared.hurried.notified()).await;
                retry = (retry * 2).min(RETRY_MAX);
                continue;
            }
        }
        retry = RETRY_MIN;
        shared.change(|wanted| wanted.ended(id, failed));
        shared.changed.notify_waiters();
    }
}
