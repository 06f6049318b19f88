//! What outlives the revisions of a pipeline's plan: its name, storage, memory
//! budget, requests, and the history of its checkpoints.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::durable::Durable;
use super::looks::Looks;
use crate::budget::{Budget, HostMemory, MemoryGrant, NoMemory, WantedMemory};
use crate::checkpoint::coordinator::CompletedCheckpoint;
use crate::checkpoint::replacement::Replacement;
use crate::checkpoint::requests::Requests;
use crate::checkpoint::spared::{Spared, SparedCheckpoint};
use crate::clock::Clock;
use crate::plan::{NodeKind, Plan};
use crate::progress::{CheckpointProgress, Restarts, StateProgress};

/// How many checkpoints the history has at most.
const HISTORY_MAX: usize = 100;

/// A pipeline. Clones share everything.
#[derive(Clone)]
pub struct Pipeline {
    name: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durable: Option<Durable>,
    pub(super) requests: Requests,
    pub(super) budget: Arc<Budget>,
    pub(super) state: Arc<StateProgress>,
    pub(super) restarts: Arc<Restarts>,
    pub(super) spared: Spared,
    history: Arc<Mutex<VecDeque<CompletedCheckpoint>>>,
    looks: Looks,
    /// How many revisions of its plan there have been.
    revisions: Arc<AtomicU32>,
    memory_wanted: WantedMemory,
    /// What the host has granted of its memory.
    memory: Option<Arc<MemoryGrant>>,
    /// What replaces the logic of operators when that is requested.
    replacement: Arc<watch::Sender<Option<Arc<Replacement>>>>,
    /// What was asked of the start, until there is a newer checkpoint.
    wanted: Arc<Mutex<WantedStart>>,
}

/// What the user asks of a start.
#[derive(Clone, Default)]
pub(super) struct WantedStart {
    /// The checkpoint to start from, instead of the last one.
    pub from: Option<String>,
    /// The same, if it is kept for this.
    pub spared: Option<Arc<SparedCheckpoint>>,
    /// Nodes that start without what the checkpoint has of them.
    pub dropped: Vec<String>,
    /// Of these, keep what fits.
    pub if_needed: bool,
    /// Start without a checkpoint, and delete those that there are.
    pub fresh: bool,
}

impl Pipeline {
    /// A pipeline whose first revision is this plan.
    pub fn of(plan: &Plan, clock: Arc<dyn Clock>) -> Self {
        let memory = plan.state.as_ref().map(|state| state.memory_bytes_max);
        let requests = Requests::default();
        let budget = Budget::with_requests(requests.clone(), memory.unwrap_or(usize::MAX));
        let budget = Arc::new(budget);
        Pipeline {
            name: plan.name.as_str().into(),
            clock,
            durable: None,
            requests,
            state: Arc::new(StateProgress::new(budget.clone())),
            budget,
            restarts: Arc::default(),
            spared: Spared::default(),
            history: Arc::default(),
            looks: Looks::default(),
            revisions: Arc::default(),
            memory_wanted: match memory {
                Some(bytes) => WantedMemory::Bytes(bytes),
                None if keeps_states(plan) => WantedMemory::Unlimited,
                None => WantedMemory::Bytes(0),
            },
            memory: None,
            replacement: Arc::default(),
            wanted: Arc::default(),
        }
    }

    /// Keeps checkpoints in `durable`, and continues from the last one there. The
    /// plan says how often they are made.
    pub fn keeping(mut self, durable: Durable) -> Self {
        self.durable = Some(durable);
        self
    }

    /// Counts its restarts there, with those of other runs.
    pub fn counting(mut self, restarts: &Arc<Restarts>) -> Self {
        self.restarts = restarts.clone();
        self
    }

    /// Keeps these checkpoints, too.
    pub fn sparing(mut self, spared: &Spared) -> Self {
        self.spared = spared.clone();
        self
    }

    /// Takes the memory for its states from that of the host.
    pub fn within(mut self, memory: &Arc<HostMemory>) -> Result<Self, NoMemory> {
        let grant = memory.grant(&self.name, self.memory_wanted)?;
        self.memory = Some(Arc::new(grant));
        Ok(self)
    }

    /// The same pipeline without its storage and its memory: whoever looks at it must not
    /// keep the next run from them.
    pub fn seen(&self) -> Self {
        Pipeline {
            durable: None,
            memory: None,
            ..self.clone()
        }
    }

    /// Whether it is the same, not a later one of the same name.
    pub fn is_same(&self, other: &Pipeline) -> bool {
        Arc::ptr_eq(&self.history, &other.history)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes requests for checkpoints: a savepoint, a stop, a swap of the revision.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Requests that the operators of the running plan call other logic from a checkpoint
    /// on. An earlier request must have been answered.
    pub fn replace(&self, replacement: Arc<Replacement>) {
        self.replacement.send_replace(Some(replacement));
        self.requests.replace();
    }

    pub(super) fn replacement(&self) -> watch::Receiver<Option<Arc<Replacement>>> {
        self.replacement.subscribe()
    }

    /// Looks at the run that is going on, if one is.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    /// The checkpoints that were made since the process began, oldest first; the
    /// last hundred.
    pub fn history(&self) -> Vec<CompletedCheckpoint> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().cloned().collect()
    }

    /// The number of the next revision.
    pub(super) fn number_revision(&self) -> u32 {
        self.revisions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn wanted_start(&self) -> MutexGuard<'_, WantedStart> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a complete checkpoint.
    pub(super) fn record(&self, done: &CompletedCheckpoint) {
        tracing::debug!(
            checkpoint = done.id,
            purpose = done.purpose.name(),
            name = done.name,
            bytes = done.bytes,
            milliseconds = done.took.as_millis() as u64,
            "checkpoint done"
        );
        self.state.set_checkpoint(CheckpointProgress {
            id: done.id,
            bytes: done.bytes,
            completed_ms: done.completed_ms,
            milliseconds: done.took.as_millis() as u64,
        });
        // A restart continues from this one.
        let begun = std::mem::take(&mut *self.wanted_start());
        if let Some(spared) = begun.spared {
            spared.let_go();
        }
        if let Some(durable) = &self.durable {
            durable.done(done.id, done.name.as_deref());
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(done.clone());
    }
}

/// Whether any of its nodes keeps something for each key.
fn keeps_states(plan: &Plan) -> bool {
    let mut kinds = plan.nodes.iter().map(|node| &node.kind);
    kinds.any(|kind| match kind {
        NodeKind::Aggregate(_) | NodeKind::Process(_) | NodeKind::Join(_) => true,
        NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => false,
    })
}
