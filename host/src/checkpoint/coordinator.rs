//! Starts checkpoints and sees them through: barrier, snapshots, one write,
//! commit, and the word to the sinks that it is done.
//!
//! One checkpoint is under way at a time. The next one is due an interval after
//! the last one began, at once when too much state has changed or a savepoint
//! was asked for, and for the last time when all inputs have ended or a stop was
//! asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::barrier::{DeadLetterMessage, Report, Trigger};
use super::changes::Changes;
use super::crash::{self, Place};
use super::manifest::{AggregateManifest, Manifest, NodeManifest, NodeManifestKind};
use super::savepoint::Savepoints;
use super::snapshot::{NodeSnapshot, SinkSnapshot, SourceSnapshot, TaskSnapshot};
use super::storage::{Storage, StorageError};
use super::transaction::{Transaction, TransactionError};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::element::CheckpointId;
use crate::plan::{NodeKind, Plan};
use crate::stop::Stop;

/// Why a checkpoint could not be made, and the run has to be restarted.
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
    /// The run is being torn down; another task's error is the one to show.
    #[error("a part of the pipeline stopped during a checkpoint")]
    Gone,
}

pub struct Coordinator {
    pub plan: Arc<Plan>,
    /// Of each node's rows of state.
    pub tables: Vec<Option<u32>>,
    pub interval: Duration,
    pub keep: usize,
    pub storage: Arc<dyn Storage>,
    pub transaction: Option<Arc<dyn Transaction>>,
    pub offload: Offload,
    pub clock: Arc<dyn Clock>,
    pub stop: Stop,
    /// Says when a checkpoint is wanted before the interval is over.
    pub budget: Arc<Budget>,
    /// Names to give to checkpoints.
    pub savepoints: Savepoints,
    pub trigger: watch::Sender<Trigger>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub committed: watch::Sender<CheckpointId>,
    pub dead_letters: mpsc::Sender<DeadLetterMessage>,
    /// How many tasks there are, and how many of them read a source.
    pub tasks: usize,
    pub source_tasks: usize,
    /// The number of the next checkpoint.
    pub next: CheckpointId,
    /// The run begins with nothing, or with a checkpoint that was chosen, and
    /// makes one of its own before any row.
    pub is_fresh: bool,
    pub on_done: Box<dyn Fn(&Done) + Send + Sync>,
}

/// A checkpoint that is done.
#[derive(Clone, Debug)]
pub struct Done {
    pub id: CheckpointId,
    /// Of a savepoint.
    pub name: Option<String>,
    pub bytes: u64,
    pub took: Duration,
}

/// Where calls run that block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// On a thread of their own, while tasks go on.
    #[default]
    Threads,
    /// Where they are called: for runs whose order must be repeatable.
    Inline,
}

impl Offload {
    pub async fn run<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => call(),
            Offload::Threads => match tokio::task::spawn_blocking(call).await {
                Ok(answer) => answer,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}

impl Coordinator {
    /// Runs until the last checkpoint is done.
    pub async fn run(mut self) -> Result<(), CheckpointError> {
        let mut ended = 0;
        let mut began = Instant::now();
        loop {
            let is_over = ended == self.source_tasks || self.stop.asked();
            if !is_over && !std::mem::take(&mut self.is_fresh) {
                tokio::select! {
                    biased;
                    () = self.stop.wait() => {}
                    () = tokio::time::sleep_until(began + self.interval) => {}
                    () = self.budget.pressed() => {}
                    report = self.reports.recv() => match report {
                        Some(Report::Ended) => {
                            ended += 1;
                            continue;
                        }
                        Some(Report::Snapshot(_)) => continue,
                        None => return Err(CheckpointError::Gone),
                    }
                }
            }
            began = Instant::now();
            // A source that ends now is still there for the next one.
            let is_last = is_over || self.stop.asked();
            let is_complete = ended == self.source_tasks;
            let done = self.checkpoint(is_last, is_complete, &mut ended).await?;
            (self.on_done)(&done);
            if is_last {
                return Ok(());
            }
        }
    }

    async fn checkpoint(
        &mut self,
        is_last: bool,
        is_complete: bool,
        ended: &mut usize,
    ) -> Result<Done, CheckpointError> {
        let began = Instant::now();
        let id = self.next;
        self.next += 1;
        self.trigger.send_replace(Trigger { id, is_last });
        let snapshots = self.collect(id, ended).await?;
        crash::point(Place::BarrierAfter);
        let dead_letter_bytes = self.dead_letter_bytes(id).await?;
        let (mut manifest, changes) = self.assemble(id, snapshots);
        manifest.name = self.savepoints.next();
        manifest.is_complete = is_complete;
        manifest.is_transactional = self.transaction.is_some();
        manifest.dead_letter_bytes = dead_letter_bytes;

        if let Some(transaction) = self.transaction.clone() {
            let flushed = self.offload.run(move || transaction.flush()).await;
            flushed.map_err(|cause| CheckpointError::Transaction { id, cause })?;
        }
        let storage = self.storage.clone();
        let to_write = manifest.clone();
        let written = self
            .offload
            .run(move || storage.write(to_write, changes))
            .await
            .map_err(|cause| CheckpointError::Storage { id, cause })?;
        self.budget.add_write();
        if let Some(transaction) = self.transaction.clone() {
            let committed = self.offload.run(move || {
                transaction.commit(&manifest)?;
                transaction.begin()
            });
            let committed = committed.await;
            committed.map_err(|cause| CheckpointError::Transaction { id, cause })?;
        }
        crash::point(Place::DeliverBefore);
        self.committed.send_replace(id);
        crash::point(Place::DeliverAfter);
        self.prune(id).await;
        if let Some(name) = &written.name {
            self.savepoints.done(name);
        }
        Ok(Done {
            id,
            name: written.name,
            bytes: written.bytes,
            took: began.elapsed(),
        })
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

    /// What the tasks have handed over, by node.
    fn assemble(
        &self,
        id: CheckpointId,
        mut snapshots: Vec<TaskSnapshot>,
    ) -> (Manifest, Vec<Changes>) {
        // Snapshots come in any order; what is written must not.
        snapshots.sort_by_key(|snapshot| snapshot.task);
        let nodes = self.plan.nodes.len();
        let mut sources: Vec<Vec<SourceSnapshot>> = vec![Vec::new(); nodes];
        let mut times: Vec<Vec<Option<i64>>> = vec![Vec::new(); nodes];
        let mut sinks: Vec<SinkSnapshot> = vec![SinkSnapshot::default(); nodes];
        let mut changes = Vec::new();
        for (node, snapshot) in snapshots.into_iter().flat_map(|task| task.nodes) {
            match snapshot {
                NodeSnapshot::Source(snapshot) => sources[node].push(snapshot),
                NodeSnapshot::Operator(snapshot) => {
                    times[node].push(snapshot.time_ms);
                    changes.push(snapshot.changes);
                }
                NodeSnapshot::Sink(snapshot) => sinks[node] = snapshot,
            }
        }
        let nodes = self.plan.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(id, node)| {
            let kind = match &node.kind {
                NodeKind::Source(_) => NodeManifestKind::Source {
                    tasks: std::mem::take(&mut sources[id]),
                },
                NodeKind::Aggregate(plan) => NodeManifestKind::Aggregate(AggregateManifest {
                    // `None` is the least: a task that knows no time yet.
                    time_ms: times[id].iter().copied().min().flatten(),
                    ..AggregateManifest::of(plan, self.tables[id]?)
                }),
                NodeKind::Sink(_) => NodeManifestKind::Sink(std::mem::take(&mut sinks[id])),
                NodeKind::Transform(_) => return None,
            };
            Some(NodeManifest {
                name: node.name.clone(),
                kind,
            })
        });
        let manifest = Manifest {
            id,
            created_ms: self.clock.now_ms(),
            pipeline: self.plan.name.clone(),
            nodes: nodes.collect(),
            ..Manifest::default()
        };
        (manifest, changes)
    }

    /// Drops checkpoints that are not kept. The one before this one is, always:
    /// a commit may turn out not to have happened.
    async fn prune(&self, id: CheckpointId) {
        let storage = self.storage.clone();
        let keep = self.keep.max(2);
        let pruned = self.offload.run(move || {
            let mut known = storage.list()?;
            known.retain(|known| known.name.is_none() && known.id <= id);
            let dropped = known.len().saturating_sub(keep);
            for old in &known[..dropped] {
                storage.delete(old.id)?;
            }
            Ok::<_, StorageError>(())
        });
        if let Err(error) = pruned.await {
            tracing::warn!("old checkpoints cannot be dropped: {error}");
        }
    }
}
