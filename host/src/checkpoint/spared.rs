//! Checkpoints that somebody is going back to, which must not be deleted until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::element::CheckpointId;

/// Those of a pipeline. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Spared(Arc<Mutex<Vec<CheckpointId>>>);

impl Spared {
    /// Spares the checkpoint that `find` finds: none is deleted meanwhile.
    pub fn spare<E>(
        &self,
        find: impl FnOnce() -> Result<CheckpointId, E>,
    ) -> Result<SparedCheckpoint, E> {
        let mut spared = self.lock();
        let id = find()?;
        spared.push(id);
        Ok(SparedCheckpoint {
            id,
            spared: self.clone(),
            is_kept: AtomicBool::new(true),
        })
    }

    /// Those that must stay, locked for one who deletes others.
    pub fn lock(&self) -> MutexGuard<'_, Vec<CheckpointId>> {
        // A panic elsewhere leaves no change half made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A checkpoint that stays until nobody has this any more, or somebody lets it go.
#[derive(Debug)]
pub struct SparedCheckpoint {
    pub id: CheckpointId,
    spared: Spared,
    is_kept: AtomicBool,
}

impl SparedCheckpoint {
    /// A run has gone back to it, or does not any more.
    pub fn let_go(&self) {
        if self.is_kept.swap(false, Ordering::SeqCst) {
            let mut spared = self.spared.lock();
            // Others may be going back to the same.
            if let Some(index) = spared.iter().position(|&id| id == self.id) {
                spared.swap_remove(index);
            }
        }
    }

    /// Whether nobody has let it go.
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::SeqCst)
    }
}

impl Drop for SparedCheckpoint {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_stays_as_long_as_somebody_goes_back_to_it() {
        let spared = Spared::default();
        let spare = |id| spared.spare(|| Ok::<_, ()>(id)).expect("it is there");
        let (one, again, other) = (spare(3), spare(3), spare(5));
        one.let_go();
        assert!(!one.is_kept() && again.is_kept());
        drop(one);
        drop(other);
        assert_eq!(*spared.lock(), [3], "once for each");
        drop(again);
        assert!(spared.lock().is_empty());
        assert_eq!(spared.spare(|| Err("gone")).map(|it| it.id), Err("gone"));
    }
}
