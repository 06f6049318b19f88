//! What can be seen of the run of a pipeline that is going on: the state of its operators,
//! and the rows that leave its nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use tokio::sync::{mpsc, oneshot};

use crate::element::NodeId;
use crate::state::error::StateError;
use crate::state::look::{Look, LookRequest, Seen};
use crate::state::stored::StoredTable;
use crate::tap::Tap;

/// How many looks wait for a task at most.
const WAITING_MAX: usize = 4;

/// What those see who look at a pipeline. Clones share it.
#[derive(Clone, Default)]
pub struct Looks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The nodes with state of the attempt that is running.
    nodes: RwLock<Vec<LookedAt>>,
    /// By the names of a node and of its output. They outlive attempts.
    taps: Mutex<BTreeMap<(String, String), Arc<Tap>>>,
}

/// A node with state.
struct LookedAt {
    node: NodeId,
    /// By task.
    tasks: Vec<mpsc::Sender<LookRequest>>,
    /// Of all its tasks, by table. Empty where the pipeline has no checkpoints.
    stored: Vec<StoredTable>,
}

/// Makes a task that can be looked at.
pub(super) fn channel() -> (mpsc::Sender<LookRequest>, mpsc::Receiver<LookRequest>) {
    mpsc::channel(WAITING_MAX)
}

/// Why nothing is seen.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("the pipeline is starting or stopping: try again")]
    Between,
    #[error("the pipeline keeps no checkpoints: look at the live state")]
    NoCheckpoints,
    #[error(transparent)]
    State(#[from] StateError),
}

impl Looks {
    /// How many tasks a node has.
    pub fn tasks(&self, node: NodeId) -> usize {
        self.with(node, |looked_at| looked_at.tasks.len())
            .unwrap_or(0)
    }

    /// Looks at the live state of a task. It answers between two elements: while it waits
    /// for those after it, so does the look.
    pub async fn live(&self, node: NodeId, task: usize, look: Look) -> Result<Seen, LookError> {
        let asked = self.with(node, |looked_at| looked_at.tasks.get(task).cloned());
        let asked = asked.flatten().ok_or(LookError::Between)?;
        let (answer, answered) = oneshot::channel();
        let request = LookRequest { node, look, answer };
        asked.send(request).await.map_err(|_| LookError::Between)?;
        Ok(answered.await.map_err(|_| LookError::Between)??)
    }

    /// Looks at the state of all tasks as of the last checkpoint. Blocks, and the end of
    /// the run waits for it.
    pub fn as_of_checkpoint(&self, node: NodeId, look: &Look) -> Result<Seen, LookError> {
        let looked = self.with(node, |looked_at| {
            let stored = looked_at.stored.get(look.table);
            let stored = stored.ok_or(LookError::NoCheckpoints)?;
            let mut seen = Seen::new(look.rows_max);
            stored.look(look, &mut seen).map_err(StateError::from)?;
            Ok(seen)
        });
        looked.unwrap_or(Err(LookError::Between))
    }

    /// Where the rows can be seen that leave by an output of a node.
    pub fn tap(&self, node: &str, output: &str) -> Arc<Tap> {
        let mut taps = self.0.taps.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (node.to_owned(), output.to_owned());
        taps.entry(name).or_default().clone()
    }

    /// Whether these are of the same pipeline, since it was opened.
    pub fn is_same(&self, other: &Looks) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Shows a run, until the answer is dropped.
    pub(super) fn open(&self) -> OpenLooks {
        self.write().clear();
        OpenLooks(self.clone())
    }

    /// Does this with a node with state of the run, which cannot end meanwhile.
    fn with<T>(&self, node: NodeId, see: impl FnOnce(&LookedAt) -> T) -> Option<T> {
        let nodes = self.0.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let looked_at = nodes.iter().find(|looked_at| looked_at.node == node);
        looked_at.map(see)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<LookedAt>> {
        self.0.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that can be looked at.
pub(super) struct OpenLooks(Looks);

impl OpenLooks {
    /// Shows a task of a node with state.
    pub fn add(
        &self,
        node: NodeId,
        task: mpsc::Sender<LookRequest>,
        stored: impl FnOnce() -> Vec<StoredTable>,
    ) {
        let mut nodes = self.0.write();
        match nodes.iter_mut().find(|looked_at| looked_at.node == node) {
            Some(looked_at) => looked_at.tasks.push(task),
            None => nodes.push(LookedAt {
                node,
                tasks: vec![task],
                stored: stored(),
            }),
        }
    }
}

/// Nobody may keep the storage from the next run.
impl Drop for OpenLooks {
    fn drop(&mut self) {
        self.0.write().clear();
    }
}
