//! A storage in memory, for tests, and for pipelines whose state need not outlive
//! the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{CheckpointInfo, Storage, StorageError};
use crate::checkpoint::changes::Changes;
use crate::checkpoint::manifest::Manifest;
use crate::element::CheckpointId;

/// A checkpoint is a copy of the ordered map; keys and values are shared.
#[derive(Default)]
pub struct MemoryStorage {
    contents: RwLock<Contents>,
}

#[derive(Default)]
struct Contents {
    rows: Arc<MemoryRows>,
    checkpoints: BTreeMap<CheckpointId, (Manifest, Arc<MemoryRows>)>,
}

type MemoryRows = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

impl MemoryStorage {
    pub fn new() -> Self {
        MemoryStorage::default()
    }

    /// Makes a checkpoint of changes, as a test does.
    #[cfg(test)]
    pub fn checkpoint(&self, id: CheckpointId, changes: Changes) {
        let manifest = Manifest {
            id,
            ..Manifest::default()
        };
        let written = self.write(manifest, vec![changes]);
        written.expect("memory takes everything");
    }

    // A panic elsewhere leaves nothing half written: changes are prepared first and
    // then put in place at once.
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> Result<Vec<CheckpointInfo>, StorageError> {
        let contents = self.read();
        let checkpoints = contents.checkpoints.values();
        Ok(checkpoints
            .map(|(manifest, rows)| info(manifest, rows))
            .collect())
    }

    fn restore(&self, id: CheckpointId) -> Result<Manifest, StorageError> {
        let mut contents = self.change();
        let (manifest, rows) = contents.checkpoints.get(&id).ok_or_else(|| missing(id))?;
        let (manifest, rows) = (manifest.clone(), rows.clone());
        contents.rows = rows;
        Ok(manifest)
    }

    fn reset(&self) -> Result<(), StorageError> {
        self.change().rows = Arc::default();
        Ok(())
    }

    fn write(
        &self,
        manifest: Manifest,
        changes: Vec<Changes>,
    ) -> Result<CheckpointInfo, StorageError> {
        let before = self.read().rows.clone();
        let rows = if changes.iter().all(Changes::is_empty) {
            before
        } else {
            Arc::new(changed(&before, &changes))
        };
        let info = info(&manifest, &rows);
        let mut contents = self.change();
        contents.rows = rows.clone();
        contents.checkpoints.insert(manifest.id, (manifest, rows));
        Ok(info)
    }

    fn rewrite(
        &self,
        next: &mut dyn FnMut() -> Result<Option<Changes>, StorageError>,
    ) -> Result<(), StorageError> {
        let mut parts = Vec::new();
        while let Some(part) = next()? {
            parts.push(part);
        }
        let rows = changed(&self.read().rows, &parts);
        self.change().rows = Arc::new(rows);
        Ok(())
    }

    fn delete(&self, id: CheckpointId) -> Result<(), StorageError> {
        let dropped = self.change().checkpoints.remove(&id);
        dropped.map(drop).ok_or_else(|| missing(id))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        let rows = self.read().rows.clone();
        Ok(keys
            .iter()
            .map(|key| rows.get(*key).map(|value| value.to_vec()))
            .collect())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let rows = self.read().rows.clone();
        for (key, value) in within(&rows, from, to) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

fn changed(before: &MemoryRows, changes: &[Changes]) -> MemoryRows {
    let mut rows = before.clone();
    for (from, to) in changes.iter().flat_map(Changes::ranges) {
        let gone: Vec<Arc<[u8]>> = within(&rows, from, to)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            rows.remove(&key);
        }
    }
    for changes in changes {
        for (key, value) in changes.rows() {
            match value {
                Some(value) => drop(rows.insert(key.into(), value.into())),
                None => drop(rows.remove(key)),
            }
        }
    }
    rows
}

fn within<'a>(
    rows: &'a MemoryRows,
    from: &[u8],
    to: &[u8],
) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Arc<[u8]>)> {
    // A range that ends before it starts would panic.
    let to = to.max(from);
    rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

fn info(manifest: &Manifest, rows: &MemoryRows) -> CheckpointInfo {
    let bytes = rows.iter().map(|(key, value)| key.len() + value.len());
    CheckpointInfo {
        id: manifest.id,
        name: manifest.name.clone(),
        created_ms: manifest.created_ms,
        is_transactional: !manifest.participants.is_empty(),
        participants: manifest.participants.clone(),
        bytes: bytes.sum::<usize>() as u64,
        damage: None,
        given_up: manifest.given_up.clone(),
    }
}

fn missing(id: CheckpointId) -> StorageError {
    StorageError::Missing {
        id,
        place: "memory".into(),
    }
}
