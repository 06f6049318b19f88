//! Starts checkpoints and completes them: sends the barrier, collects snapshots, has
//! them written and committed, and tells the tasks.
//!
//! One checkpoint is made at a time. The next one starts an interval after the last
//! one started, earlier on request, and for the last time when all inputs have
//! ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::barrier::{DeadLetterMessage, Report};
use super::changes::Changes;
use super::crash::{self, Place};
use super::manifest::{
    GivenUp, LettersManifest, Manifest, NodeManifest, OperatorManifest, ProgressManifest,
};
use super::replacement::Replacement;
use super::requests::Requests;
use super::snapshot::{NodeSnapshot, OperatorSnapshot, SinkSnapshot, SourceSnapshot, TaskSnapshot};
use super::spared::Spared;
use super::storage::{Storage, StorageError};
use super::transaction::{Participants, TransactionError};
use crate::blame::Fault;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::element::{Barrier, CheckpointId, Purpose};
use crate::offload::Offload;
use crate::plan::change::{NodeClass, NodeDescription};
use crate::traces;

/// Why a checkpoint failed, and the run with it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint {id} cannot be written: {cause}")]
    Storage {
        id: CheckpointId,
        cause: StorageError,
    },
    #[error("checkpoint {id} cannot be committed: {cause}")]
    Transaction {
        id: CheckpointId,
        cause: TransactionError,
    },
    /// The run is ending because of another error, which is the one to show.
    #[error("a part of the pipeline stopped during a checkpoint")]
    Gone,
}

impl CheckpointError {
    pub fn fault(&self) -> Fault {
        match self {
            CheckpointError::Storage { cause, .. } => cause.fault(),
            CheckpointError::Transaction { cause, .. } => cause.fault,
            CheckpointError::Gone => Fault::OUTSIDE,
        }
    }
}

pub struct Coordinator {
    pub pipeline: String,
    pub nodes: Vec<NodeDescription>,
    /// The numbers of the tables of each node's state.
    pub tables: Vec<Vec<u32>>,
    /// Deletes the rows of dropped operators, with the first checkpoint.
    pub obsolete: Changes,
    pub interval: Duration,
    pub keep: usize,
    pub spared: Spared,
    pub storage: Arc<dyn Storage>,
    pub participants: Participants,
    pub offload: Offload,
    pub clock: Arc<dyn Clock>,
    /// Requests for checkpoints before the interval has passed.
    pub requests: Requests,
    /// The coordinator tells it of each written checkpoint.
    pub budget: Arc<Budget>,
    pub trigger: watch::Sender<Barrier>,
    /// What replaces logic when it is requested.
    pub replacement: watch::Receiver<Option<Arc<Replacement>>>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub committed: watch::Sender<CheckpointId>,
    pub dead_letters: mpsc::Sender<DeadLetterMessage>,
    /// What manifests say of them. Those that were taken back are named by the first.
    pub letters: Option<LettersManifest>,
    /// The checkpoints that are no longer before the next ones.
    pub given_up: Vec<GivenUp>,
    /// How many tasks there are.
    pub tasks: usize,
    /// The number of the next checkpoint.
    pub next: CheckpointId,
    /// The run starts without a checkpoint, or from a chosen one, and makes one of
    /// its own before the first row.
    pub checkpoints_first: bool,
    pub on_done: OnDone,
}

/// Takes each complete checkpoint, and what has replaced logic at its barrier.
pub type OnDone = Box<dyn Fn(&CompletedCheckpoint, Option<&Replacement>) + Send + Sync>;

/// A complete checkpoint.
#[derive(Clone, Debug)]
pub struct CompletedCheckpoint {
    pub id: CheckpointId,
    pub purpose: Purpose,
    /// Only a savepoint has one.
    pub name: Option<String>,
    pub bytes: u64,
    pub completed_ms: i64,
    pub took: Duration,
}

impl Coordinator {
    /// Runs until the last checkpoint is complete.
    pub async fn run(mut self) -> Result<(), CheckpointError> {
        let mut ended = 0;
        let mut began = Instant::now();
        loop {
            // Tasks have found the barrier of the first one when they were made.
            let purpose = if std::mem::take(&mut self.checkpoints_first) {
                Purpose::Start
            } else if self.requests.stop().asked() {
                Purpose::Stop
            } else if ended == self.tasks {
                Purpose::End
            } else {
                let requests = self.requests.clone();
                let due = async {
                    tokio::time::sleep_until(began + self.interval).await;
                    requests.released().await;
                };
                tokio::select! {
                    biased;
                    () = self.requests.wait() => match self.requests.next() {
                        Some(purpose) => purpose,
                        None => continue,
                    },
                    () = due => Purpose::Interval,
                    report = self.reports.recv() => match report {
                        Some(Report::Ended) => {
                            ended += 1;
                            continue;
                        }
                        Some(Report::Snapshot(_)) => continue,
                        None => return Err(CheckpointError::Gone),
                    }
                }
            };
            began = Instant::now();
            // A task that ends during this checkpoint stays for the next one.
            let span = traces::span!(
                "checkpoint",
                pipeline = self.pipeline,
                checkpoint = self.next,
                purpose = purpose.name(),
                bytes = Empty,
            );
            let done = self.checkpoint(purpose, &mut ended);
            let done = done.instrument(span.clone()).await;
            let done = done.inspect_err(|error| traces::fail(&span, error))?;
            span.record("bytes", done.bytes);
            self.requests.done(purpose, done.name.as_deref());
            (self.on_done)(&done, self.replaced(purpose).as_deref());
            if purpose.is_last() {
                return Ok(());
            }
        }
    }

    async fn checkpoint(
        &mut self,
        purpose: Purpose,
        ended: &mut usize,
    ) -> Result<CompletedCheckpoint, CheckpointError> {
        let began = Instant::now();
        let id = self.next;
        self.next += 1;
        self.requests.begin();
        self.trigger.send_replace(Barrier { id, purpose });
        let aligning = self.collect(id, ended).instrument(traces::span!("align"));
        let snapshots = aligning.await?;
        let replaced = self.replaced(purpose);
        if let Some(replaced) = &replaced {
            replaced.set_passed(began.elapsed());
        }
        crash::point(Place::BarrierAfter);
        let dead_letter_bytes = self.dead_letter_bytes(id).await?;
        let (mut manifest, changes) = self.assemble(id, snapshots);
        manifest.name = self.requests.savepoint_name();
        manifest.purpose = purpose;
        manifest.participants = self.participants.names();
        manifest.dead_letter_bytes = dead_letter_bytes;
        manifest.dead_letters.clone_from(&self.letters);
        manifest.given_up.clone_from(&self.given_up);
        if let Some(letters) = &mut self.letters {
            letters.taken_back.clear();
        }
        if let Some(replaced) = replaced {
            // What is in this checkpoint, the plan before has made.
            self.nodes.clone_from(&replaced.description);
        }

        if !self.participants.is_empty() {
            let participants = self.participants.clone();
            let preparing = self.offload.run(move || participants.prepare(id));
            let prepared = preparing.instrument(traces::span!("prepare")).await;
            prepared.map_err(|cause| CheckpointError::Transaction { id, cause })?;
        }
        let storage = self.storage.clone();
        let to_write = manifest.clone();
        let writing = self
            .offload
            .run(move || storage.write(to_write, changes))
            .instrument(traces::span!("write"));
        let written = writing
            .await
            .map_err(|cause| CheckpointError::Storage { id, cause })?;
        self.budget.add_write();
        if !self.participants.is_empty() {
            let participants = self.participants.clone();
            let committed = self.offload.run(move || {
                participants.commit(&manifest)?;
                participants.begin()
            });
            let committed = committed.instrument(traces::span!("commit")).await;
            committed.map_err(|cause| CheckpointError::Transaction { id, cause })?;
        }
        crash::point(Place::DeliverBefore);
        self.committed.send_replace(id);
        crash::point(Place::DeliverAfter);
        self.prune(id).await;
        Ok(CompletedCheckpoint {
            id,
            purpose,
            name: written.name,
            bytes: written.bytes,
            completed_ms: self.clock.now_ms(),
            took: began.elapsed(),
        })
    }

    /// What replaces logic at a barrier of this purpose.
    fn replaced(&self, purpose: Purpose) -> Option<Arc<Replacement>> {
        let replacement = self.replacement.borrow().clone();
        replacement.filter(|_| purpose == Purpose::Replace)
    }

    /// Waits for the snapshots of all tasks.
    async fn collect(
        &mut self,
        id: CheckpointId,
        ended: &mut usize,
    ) -> Result<Vec<TaskSnapshot>, CheckpointError> {
        let mut snapshots = Vec::with_capacity(self.tasks);
        while snapshots.len() < self.tasks {
            match self.reports.recv().await {
                Some(Report::Snapshot(snapshot)) if snapshot.checkpoint == id => {
                    snapshots.push(snapshot);
                }
                Some(Report::Snapshot(_)) => {}
                Some(Report::Ended) => *ended += 1,
                None => return Err(CheckpointError::Gone),
            }
        }
        Ok(snapshots)
    }

    async fn dead_letter_bytes(&self, id: CheckpointId) -> Result<Option<u64>, CheckpointError> {
        let (answer, answered) = oneshot::channel();
        let sent = self
            .dead_letters
            .send(DeadLetterMessage::Barrier(id, answer))
            .await;
        sent.map_err(|_| CheckpointError::Gone)?;
        answered.await.map(Some).map_err(|_| CheckpointError::Gone)
    }

    /// Makes a manifest, and changes to write, of the tasks' snapshots.
    fn assemble(
        &mut self,
        id: CheckpointId,
        mut snapshots: Vec<TaskSnapshot>,
    ) -> (Manifest, Vec<Changes>) {
        // Snapshots come in any order, but the manifest must not depend on it.
        snapshots.sort_by_key(|snapshot| snapshot.task);
        let nodes = self.nodes.len();
        let mut sources: Vec<Vec<SourceSnapshot>> = vec![Vec::new(); nodes];
        let mut operators: Vec<Option<OperatorManifest>> = vec![None; nodes];
        let mut sinks: Vec<SinkSnapshot> = vec![SinkSnapshot::default(); nodes];
        let mut changes = Vec::new();
        let obsolete = std::mem::take(&mut self.obsolete);
        changes.extend(Some(obsolete).filter(|changes| !changes.is_empty()));
        for (node, snapshot) in snapshots.into_iter().flat_map(|task| task.nodes) {
            match snapshot {
                NodeSnapshot::Source(snapshot) => sources[node].push(snapshot),
                NodeSnapshot::Operator(snapshot) => {
                    let of_others = operators[node].take();
                    operators[node] = Some(progress_of_all(of_others, &snapshot));
                    changes.push(snapshot.changes);
                }
                NodeSnapshot::Sink(snapshot) => sinks[node] = snapshot,
            }
        }
        let nodes = self.nodes.iter().enumerate().map(|(id, description)| {
            let progress = match description.class {
                NodeClass::Source => ProgressManifest::Source(std::mem::take(&mut sources[id])),
                NodeClass::Sink => ProgressManifest::Sink(std::mem::take(&mut sinks[id])),
                _ if description.tables.is_empty() => ProgressManifest::Nothing,
                NodeClass::Transform
                | NodeClass::Aggregate
                | NodeClass::Process
                | NodeClass::Join => ProgressManifest::Operator(OperatorManifest {
                    tables: self.tables[id].clone(),
                    ..operators[id].take().unwrap_or_default()
                }),
            };
            NodeManifest {
                description: description.clone(),
                progress,
            }
        });
        let manifest = Manifest {
            id,
            created_ms: self.clock.now_ms(),
            pipeline: self.pipeline.clone(),
            nodes: nodes.collect(),
            ..Manifest::default()
        };
        (manifest, changes)
    }

    /// Deletes old checkpoints. The one before this one is always kept, since a
    /// participant may turn out not to have committed this one.
    async fn prune(&self, id: CheckpointId) {
        let storage = self.storage.clone();
        let (keep, spared) = (self.keep.max(2), self.spared.clone());
        let pruned = self.offload.run(move || {
            let spared = spared.lock();
            let mut known = storage.list()?;
            known.retain(|known| known.name.is_none() && known.id <= id);
            let dropped = known.len().saturating_sub(keep);
            let old = known[..dropped].iter().map(|known| known.id);
            for old in old.filter(|id| !spared.contains(id)) {
                storage.delete(old)?;
            }
            Ok::<_, StorageError>(())
        });
        if let Err(error) = pruned.await {
            tracing::warn!("old checkpoints cannot be deleted: {error}");
        }
    }
}

/// The progress of an operator's tasks, of which this is one more.
fn progress_of_all(
    others: Option<OperatorManifest>,
    snapshot: &OperatorSnapshot,
) -> OperatorManifest {
    let OperatorSnapshot {
        time_ms,
        newest_ms,
        ended_ms,
        ..
    } = *snapshot;
    let others = others.unwrap_or(OperatorManifest {
        time_ms,
        ..OperatorManifest::default()
    });
    OperatorManifest {
        // `None`, of a task without a watermark, is the least.
        time_ms: others.time_ms.min(time_ms),
        newest_ms: others.newest_ms.max(newest_ms),
        ended_ms: others.ended_ms.max(ended_ms),
        ..others
    }
}
