//! What a storage of state and checkpoints is.
//!
//! A storage has *current rows*, ordered by key, that only
//! [`Storage::write`] and [`Storage::rewrite`] change, and *checkpoints*: the rows as they were when
//! each was written, with its manifest. Calls may block.

/// In memory.
pub mod memory;
/// In a folder, with RocksDB.
pub mod folder;

use super::changes::Changes;
use super::manifest::{GivenUp, Manifest};
use crate::blame::Fault;
use crate::element::CheckpointId;
use crate::suggest;

pub trait Storage: Send + Sync {
    /// Checkpoints that can be restored, oldest first, savepoints included.
    /// Damaged ones are in the list, with what is wrong.
    fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError>;

    /// Checks a checkpoint, makes its rows the current ones, and returns its
    /// manifest.
    fn restore(&self, id: CheckpointId) -> Result<Manifest, StorageError>;

    /// Removes all current rows. Checkpoints stay.
    fn reset(&self) -> Result<(), StorageError>;

    /// Changes the current rows and makes a checkpoint of them, atomically: after a
    /// crash the checkpoint is complete or does not exist. The storage adds the
    /// list of files to the manifest.
    fn write(
        &self,
        manifest: Manifest,
        changes: Vec<Changes>,
    ) -> Result<CheckpointInfo, StorageError>;

    /// Changes the current rows without a checkpoint: a restore undoes it. `next` returns
    /// one part of the changes after another, and may read rows that are in none of those
    /// before.
    fn rewrite(
        &self,
        next: &mut dyn FnMut() -> Result<Option<Changes>, StorageError>,
    ) -> Result<(), StorageError>;

    /// Deletes a checkpoint.
    fn delete(&self, id: CheckpointId) -> Result<(), StorageError>;

    /// The values of these keys among the current rows.
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError>;

    /// Visits the current rows with keys in `from..to` in order, until the visitor
    /// returns false.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError>;
}

/// What a list shows of a checkpoint.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct CheckpointInfo {
    pub id: CheckpointId,
    /// Only a savepoint has one; it is kept until somebody deletes it.
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Whether it counts only if the participants have committed it.
    pub is_transactional: bool,
    /// What these are.
    #[serde(skip)]
    #[schema(ignore)]
    pub participants: Vec<String>,
    /// Size of all its files.
    pub bytes: u64,
    /// What is wrong with it, if it cannot be gone back to.
    pub damage: Option<String>,
    /// The checkpoints before it that it does not go on from.
    #[serde(skip)]
    #[schema(ignore)]
    pub given_up: Vec<GivenUp>,
}

/// The checkpoint of this number, or the newest of this name.
pub fn find<'a>(list: &'a [CheckpointInfo], wanted: &str) -> Option<&'a CheckpointInfo> {
    let is_wanted = |info: &&CheckpointInfo| {
        info.name.as_deref() == Some(wanted) || info.id.to_string() == wanted
    };
    list.iter().rev().find(is_wanted)
}

/// Whether a run has gone back behind this checkpoint since.
pub fn is_given_up(list: &[CheckpointInfo], id: CheckpointId) -> bool {
    let newest = list.iter().rfind(|info| info.damage.is_none());
    newest.is_some_and(|newest| newest.given_up.iter().any(|given_up| given_up.has(id)))
}

/// A running host may need its last checkpoint, and the one before until the
/// last is committed.
pub const NEEDED_BY_HOST: usize = 2;

/// Whether a running host may need this one of its checkpoints.
pub fn may_be_needed(list: &[CheckpointInfo], id: CheckpointId) -> bool {
    let whole = list.iter().rev().filter(|info| info.damage.is_none());
    whole.take(NEEDED_BY_HOST).any(|info| info.id == id)
}

/// The message that a checkpoint does not exist, with those that do.
pub fn not_found(list: &[CheckpointInfo], wanted: &str) -> String {
    let ids = list.iter().rev().map(|info| info.id.to_string());
    let names = list.iter().filter_map(|info| info.name.clone());
    let known: Vec<String> = names.chain(ids).collect();
    let help = suggest::help(wanted, "checkpoints", known.iter().map(String::as_str));
    format!("there is no checkpoint `{wanted}`; {help}")
}

/// Why state or a checkpoint cannot be read or written: what was tried, where,
/// what went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{what}: {cause}")]
    Io { what: String, cause: std::io::Error },
    #[error("checkpoint {id} is damaged: {message}")]
    Damaged { id: CheckpointId, message: String },
    #[error("there is no checkpoint {id} in {place}")]
    Missing { id: CheckpointId, place: String },
    #[error("{message}")]
    Other { message: String, fault: Fault },
}

impl StorageError {
    pub fn fault(&self) -> Fault {
        match self {
            StorageError::Io { cause, .. } => Fault::of_io(cause),
            StorageError::Damaged { .. } | StorageError::Missing { .. } => Fault::OUTSIDE_LASTING,
            StorageError::Other { fault, .. } => *fault,
        }
    }
}
