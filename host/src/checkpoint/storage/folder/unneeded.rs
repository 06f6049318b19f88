//! Deletes checkpoints that nobody needs.

use std::path::Path;

use super::{Archive, FolderLock};
use crate::checkpoint::storage::{CheckpointInfo, StorageError};
use crate::element::CheckpointId;

/// A running host may need its last checkpoint, and the one before until the
/// last is committed.
const NEEDED_BY_HOST: usize = 2;

/// Why a checkpoint is not deleted.
#[derive(Debug, thiserror::Error)]
pub enum NotDeleted {
    #[error(
        "checkpoint {id} is one of the last {NEEDED_BY_HOST}, which the host (process {pid}) may \
         need"
    )]
    Needed { id: CheckpointId, pid: String },
    #[error("checkpoint {id} is the only one that can be restored")]
    Only { id: CheckpointId },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Deletes a checkpoint of those that are `listed` of a data folder, unless a running host may
/// need it, or, if it is not to be deleted by force, it is the only one.
pub fn delete_unneeded(
    data: &Path,
    listed: &[CheckpointInfo],
    id: CheckpointId,
    by_force: bool,
) -> Result<(), NotDeleted> {
    let mut whole = listed.iter().rev().filter(|info| info.damage.is_none());
    let is_needed = whole.clone().take(NEEDED_BY_HOST).any(|info| info.id == id);
    let is_only = whole.next().is_some_and(|info| info.id == id) && whole.next().is_none();
    // The lock keeps a host from starting meanwhile.
    let _lock = match FolderLock::take(data) {
        Ok(lock) => Some(lock),
        Err(_) if !is_needed => None,
        Err(error) => {
            return Err(match FolderLock::owner(data) {
                Some(pid) => NotDeleted::Needed { id, pid },
                None => error.into(),
            });
        }
    };
    if is_only && !by_force {
        return Err(NotDeleted::Only { id });
    }
    Ok(Archive::of(data).delete(id)?)
}
