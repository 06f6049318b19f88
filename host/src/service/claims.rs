//! What the pipelines that run have of files, pipes and folders: two must not write one
//! file at the same time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Shared;

/// What is claimed, by the names of the pipelines.
#[derive(Default)]
pub struct Claims(Mutex<Vec<(String, Shared)>>);

/// What one pipeline has until this is dropped.
pub struct Claim {
    claims: Arc<Claims>,
    pipeline: String,
}

impl Claims {
    /// Why a pipeline cannot run beside the others, if it cannot.
    pub fn conflict(&self, pipeline: &str, files: &Shared) -> Option<String> {
        conflict(&self.lock(), pipeline, files)
    }

    /// Claims what a pipeline uses while it runs, or says why it cannot.
    pub fn take(self: &Arc<Self>, pipeline: &str, files: &Shared) -> Result<Claim, String> {
        let mut claimed = self.lock();
        if let Some(why) = conflict(&claimed, pipeline, files) {
            return Err(why);
        }
        claimed.push((pipeline.to_owned(), files.clone()));
        drop(claimed);
        Ok(Claim {
            claims: self.clone(),
            pipeline: pipeline.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Shared)>> {
        // A panic elsewhere leaves no change half made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conflict(claimed: &[(String, Shared)], pipeline: &str, files: &Shared) -> Option<String> {
    let mut others = claimed.iter().filter(|(name, _)| name != pipeline);
    others.find_map(|(name, theirs)| files.conflict(name, theirs))
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.claims.lock();
        if let Some(at) = claimed.iter().position(|(name, _)| *name == self.pipeline) {
            claimed.remove(at);
        }
    }
}
