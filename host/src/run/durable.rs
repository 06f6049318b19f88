//! What outlives a failure of a pipeline: the storage of its checkpoints, their
//! copies, and the participants in their commit.

use std::sync::Arc;
use std::time::Duration;

use super::error::RunError;
use super::restart::Failures;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::remote::RemoteStore;
use crate::checkpoint::remote::uploader::Uploader;
use crate::checkpoint::requests::Requests;
use crate::checkpoint::savepoint::SavepointFolder;
use crate::checkpoint::storage::folder::FolderStorage;
use crate::checkpoint::storage::memory::MemoryStorage;
use crate::checkpoint::storage::{CheckpointInfo, Storage, StorageError};
use crate::checkpoint::transaction::{Participant, Participants};
use crate::element::CheckpointId;
use crate::offload::Offload;
use crate::plan::{Delivery, NodeKind, Plan, StateBackend};
use crate::sink::CommitContext;
use crate::stop::Stop;

/// How long the end of a run waits for the last upload.
const UPLOAD_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Durable {
    pub storage: Arc<dyn Storage>,
    pub participants: Participants,
    copies: Option<Arc<Copies>>,
    /// Takes requests for savepoints from other processes.
    savepoints: Option<SavepointFolder>,
}

/// Copies of the checkpoints in an object store.
struct Copies {
    folder: Arc<FolderStorage>,
    remote: Arc<RemoteStore>,
    uploader: Uploader,
}

impl Durable {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Durable {
            storage,
            participants: Participants::default(),
            copies: None,
            savepoints: None,
        }
    }

    /// Adds a participant in the commit of each checkpoint.
    pub fn committing(mut self, participant: Arc<dyn Participant>) -> Self {
        self.participants.add(participant);
        self
    }

    /// The same storage, for another plan of the pipeline.
    pub fn for_plan(&self, plan: &Plan) -> Self {
        let mut durable = self.clone();
        durable.participants = Participants::default();
        durable.committing_for(plan)
    }

    /// Adds the participants that the plan's sinks need. All sinks of one system
    /// have one participant: the planner checks that they can.
    fn committing_for(mut self, plan: &Plan) -> Self {
        let delivery = plan.state.as_ref().map(|state| state.delivery);
        if delivery != Some(Delivery::ExactlyOnce) {
            return self;
        }
        let context = commit_context(plan);
        for node in &plan.nodes {
            if let NodeKind::Sink(sink) = &node.kind
                && let Some(participant) = sink.connector.participant(&context)
                && !self.participants.has(participant.name())
            {
                self = self.committing(participant);
            }
        }
        self
    }

    /// Opens what the plan asks for; `None` for a plan without checkpoints.
    /// Must be called within a tokio runtime.
    pub fn open(plan: &Plan) -> Result<Option<Durable>, RunError> {
        let Some(state) = &plan.state else {
            return Ok(None);
        };
        let StateBackend::RocksDb {
            folder,
            memory_bytes_max,
            remote,
        } = &state.backend
        else {
            let durable = Durable::new(Arc::new(MemoryStorage::new()));
            return Ok(Some(durable.committing_for(plan)));
        };
        let savepoints = SavepointFolder::of(folder);
        let folder = Arc::new(FolderStorage::open(folder, *memory_bytes_max)?);
        let mut durable = Durable::new(folder.clone()).committing_for(plan);
        durable.savepoints = Some(savepoints);
        if let Some(remote) = remote {
            let remote = Arc::new(RemoteStore::new(remote, &plan.name)?);
            let archive = folder.archive().clone();
            durable.copies = Some(Arc::new(Copies {
                uploader: Uploader::start(remote.clone(), archive, state.keep),
                folder,
                remote,
            }));
        }
        Ok(Some(durable))
    }

    /// As [`Durable::open`], again after each failure that may pass, as the plan says.
    pub async fn open_again(plan: &Plan, stop: &Stop) -> Result<Option<Durable>, RunError> {
        let mut failures = Failures::new(plan.restart);
        loop {
            match Durable::open(plan) {
                Ok(durable) => return Ok(durable),
                Err(error) => failures.wait(error, stop).await?,
            }
        }
    }

    /// Checkpoints that can be restored, here or from a copy, oldest first.
    pub(super) async fn list(&self, offload: Offload) -> Result<Vec<CheckpointInfo>, StorageError> {
        let storage = self.storage.clone();
        let local = offload.run(move || storage.list()).await?;
        let Some(copies) = &self.copies else {
            return Ok(local);
        };
        match copies.remote.list_with(local.clone()).await {
            // An undamaged checkpoint here is enough to start from.
            Err(error) if local.iter().any(|local| local.damage.is_none()) => {
                tracing::error!("copies of checkpoints cannot be listed: {error}");
                Ok(local)
            }
            listed => listed,
        }
    }

    pub(super) async fn restore(
        &self,
        id: CheckpointId,
        offload: Offload,
    ) -> Result<Manifest, StorageError> {
        match &self.copies {
            Some(copies) => copies.remote.restore(copies.folder.clone(), id).await,
            None => {
                let storage = self.storage.clone();
                offload.run(move || storage.restore(id)).await
            }
        }
    }

    /// Deletes the copy of a checkpoint that will not be restored.
    pub(super) async fn drop_copy(&self, id: CheckpointId) -> Result<(), StorageError> {
        let Some(copies) = &self.copies else {
            return Ok(());
        };
        match copies.remote.delete(id).await {
            Err(StorageError::Missing { .. }) => Ok(()),
            dropped => dropped,
        }
    }

    /// Has a complete checkpoint copied, and answers the request for it.
    pub(super) fn done(&self, id: CheckpointId, name: Option<&str>) {
        if let Some(copies) = &self.copies {
            copies.uploader.want(id, name.is_some());
        }
        if let Some((folder, name)) = self.savepoints.as_ref().zip(name) {
            folder.answer(name);
        }
    }

    /// Passes on requests for savepoints from other processes.
    pub(super) async fn serve(&self, requests: &Requests) {
        if let Some(folder) = &self.savepoints {
            folder.serve(requests).await;
        }
    }

    /// Checks that copies can be made, as far as this does not pass by itself.
    pub(super) async fn check_copies(&self) -> Result<(), StorageError> {
        match &self.copies {
            Some(copies) => copies.remote.check_writable().await,
            None => Ok(()),
        }
    }

    /// Waits for the last copy.
    pub(super) async fn finish(&self) -> Result<(), RunError> {
        let Some(copies) = &self.copies else {
            return Ok(());
        };
        let finished = copies.uploader.finish(UPLOAD_WAIT).await;
        finished.map_err(RunError::Copies)
    }
}

/// What the participants in the commit of a plan's rows have to know.
pub fn commit_context(plan: &Plan) -> CommitContext<'_> {
    let sources = plan.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Source(source) => Some((node.name.as_str(), &*source.connector)),
        _ => None,
    });
    CommitContext {
        name: &plan.name,
        checkpoint_interval_ms: plan.state.as_ref().map_or(0, |state| state.interval_ms),
        sources: sources.collect(),
    }
}
