//! What outlives a failure of a pipeline: the storage of its checkpoints, their
//! copies, and the participants in their commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tracing::Instrument;

use super::error::RunError;
use super::restart::Failures;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::remote::RemoteStore;
use crate::checkpoint::remote::uploader::Uploader;
use crate::checkpoint::remote::waiting::{ANSWER_MAX, Asked};
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
                Err(error) => match failures.add(&error).filter(|_| !stop.asked()) {
                    Some(retry) if retry.wait(&error, stop.wait()).await => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Checkpoints that can be restored, here or from a copy, oldest first. The store of the
    /// copies is waited for only if those that are here are not enough.
    pub(super) async fn list(
        &self,
        is_enough: impl Fn(&[CheckpointInfo]) -> bool,
        offload: Offload,
    ) -> Result<Vec<CheckpointInfo>, StorageError> {
        let storage = self.storage.clone();
        let local = offload.run(move || storage.list()).await?;
        let Some(copies) = &self.copies else {
            return Ok(local);
        };
        let remote = copies.remote.clone();
        if !is_enough(&local) {
            let url = &remote.url;
            tracing::info!(
                "asking the object store {url} for its checkpoints, since those that are here are \
                 not enough for the start: {ANSWER_MAX:?} at most"
            );
            let listed = remote.list_with(local);
            return remote
                .answer("for its checkpoints", Some(ANSWER_MAX), listed)
                .await;
        }
        let here = local.clone();
        let listed = remote.soon({
            let remote = remote.clone();
            async move { remote.list_with(here).await }
        });
        match listed.await {
            Asked::Answered(Ok(listed)) => Ok(listed),
            Asked::Answered(Err(error)) => {
                tracing::error!("copies of checkpoints cannot be listed: {error}");
                Ok(local)
            }
            Asked::Waiting(listed) => {
                tracing::warn!(
                    "the object store {} does not answer: starting from a checkpoint that is here, \
                     without waiting for what the store has; it is asked for {ANSWER_MAX:?} at most",
                    remote.url
                );
                let copies = copies.clone();
                let watching = async move { copies.compare_late(listed.await).await };
                tokio::spawn(watching.in_current_span());
                Ok(local)
            }
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
        let what = format!("to delete its copy of checkpoint {id}");
        let deleted = copies.remote.delete(id);
        let deleted = copies.remote.answer(&what, Some(ANSWER_MAX), deleted);
        match deleted.await {
            Err(StorageError::Missing { .. }) => Ok(()),
            dropped => dropped,
        }
    }

    /// The same without waiting for it where the store is silent. Later checkpoints have
    /// later numbers, whether it is there or not.
    pub(super) async fn drop_copy_soon(&self, id: CheckpointId) -> Result<(), StorageError> {
        let Some(copies) = &self.copies else {
            return Ok(());
        };
        let remote = copies.remote.clone();
        match copies
            .remote
            .soon(async move { remote.delete(id).await })
            .await
        {
            Asked::Answered(Err(StorageError::Missing { .. })) => Ok(()),
            Asked::Answered(dropped) => dropped,
            Asked::Waiting(_) => {
                tracing::warn!(
                    "the object store {} does not answer, and may keep its copy of checkpoint \
                     {id}, which is not gone on from",
                    copies.remote.url
                );
                Ok(())
            }
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

    /// Checks that copies can be made, as far as this does not pass by itself, and is known
    /// soon.
    pub(super) async fn check_copies(&self) -> Result<(), StorageError> {
        let Some(copies) = &self.copies else {
            return Ok(());
        };
        let remote = copies.remote.clone();
        remote.check_credentials().await?;
        let checked = remote.soon({
            let remote = remote.clone();
            async move { remote.check_writable().await }
        });
        match checked.await {
            Asked::Answered(checked) => checked,
            Asked::Waiting(checked) => {
                let url = &remote.url;
                tracing::warn!("checkpoints cannot be copied yet: {url} does not answer");
                let told = async move {
                    if let Ok(Err(error)) = checked.await {
                        tracing::error!("checkpoints cannot be copied: {error}");
                    }
                };
                tokio::spawn(told.in_current_span());
                Ok(())
            }
        }
    }

    /// Waits for the last copy.
    pub(super) async fn finish(&self) -> Result<(), RunError> {
        let Some(copies) = &self.copies else {
            return Ok(());
        };
        let what = "to take the copy of the last checkpoint";
        let finished = copies.uploader.finish(UPLOAD_WAIT);
        let finished = copies.remote.answer(what, None, finished).await;
        finished.map_err(RunError::Copies)
    }
}

impl Copies {
    /// Says what a store has told too late for the start.
    async fn compare_late(
        &self,
        listed: Result<Result<Vec<CheckpointInfo>, StorageError>, JoinError>,
    ) {
        let listed = match listed {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                tracing::error!("copies of checkpoints cannot be listed: {error}");
                return;
            }
            // The run has ended.
            Err(_) => return,
        };
        let folder = self.folder.clone();
        let here = Offload::Threads.run(move || folder.list()).await;
        let newest = |list: &[CheckpointInfo]| list.iter().map(|known| known.id).max();
        let here = here.ok().as_deref().and_then(newest);
        if let Some(newer) = newest(&listed).filter(|&id| Some(id) > here) {
            tracing::error!(
                "the object store {} has checkpoint {newer}, which is newer than all that were \
                 here when the run started, before the store had answered: if this run should \
                 have gone on from it, stop it and start it with `--from {newer}`",
                self.remote.url
            );
        }
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
