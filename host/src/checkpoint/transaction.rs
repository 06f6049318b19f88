//! The commit of a checkpoint, which makes its rows visible together with its
//! progress.
//!
//! A participant is a broker or a database that takes part in the commit. Sinks
//! write the rows of checkpoint N to it uncommitted. When all participants are
//! prepared and N is durable, they commit N one after another; only then do sinks
//! write rows of N + 1. So the participants, not the storage, know which N is
//! valid: a pipeline that starts first fences any earlier run, then asks them, and
//! restores exactly that N.
//!
//! A process may die between two commits: then some participants have committed N,
//! and the others N - 1. N is valid then, and the others commit it when the
//! pipeline starts, from what they have prepared. A participant that cannot do
//! that, because its uncommitted rows are lost with the process, commits before
//! those that can. So one such participant never disagrees with the others; two of
//! them may, and then the run stops with an error.
//!
//! Calls may block. After an error the outcome is unknown, and the pipeline has to
//! be restarted.

/// A transaction in memory, for tests.
pub mod memory;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use super::manifest::Manifest;
use crate::blame::Fault;
use crate::element::CheckpointId;
use crate::stop::Stop;

pub trait Participant: Send + Sync {
    /// Its name in checkpoints, which never changes.
    fn name(&self) -> &str;

    /// Fences any earlier run, ends its open transaction, and returns the last
    /// committed checkpoint. Prepared rows stay if they can be committed later.
    /// May fail as soon as the run is asked to stop.
    fn fence(&self, stop: &Stop) -> Result<Option<CheckpointId>, TransactionError>;

    /// Begins a transaction for the next rows.
    fn begin(&self) -> Result<(), TransactionError>;

    /// Waits until all rows of this checkpoint have arrived.
    fn prepare(&self, id: CheckpointId) -> Result<(), TransactionError>;

    /// Commits the rows since [`Participant::begin`], with the checkpoint's
    /// number and the positions of its sources.
    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError>;

    /// Whether the positions of this source are committed where its own system looks for them.
    fn commits_positions_of(&self, _source: &str) -> bool {
        false
    }

    /// Whether prepared rows outlive the process, so that the next one can commit
    /// them.
    fn can_commit_later(&self) -> bool {
        false
    }

    /// Commits rows that an earlier process has prepared for this checkpoint. Called
    /// only where [`Participant::can_commit_later`].
    fn commit_later(&self, _: &Manifest) -> Result<(), TransactionError> {
        Ok(())
    }

    /// Drops rows that were prepared and not committed. Called between
    /// [`Participant::fence`] and [`Participant::begin`].
    fn abort(&self) -> Result<(), TransactionError>;

    /// What the sinks of this participant write with; they know its type.
    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct TransactionError {
    pub what: String,
    pub cause: String,
    pub fault: Fault,
}

/// The participants in a pipeline's commits, in the order in which they commit.
#[derive(Clone, Default)]
pub struct Participants {
    all: Vec<Arc<dyn Participant>>,
}

/// The checkpoint that each participant has committed last, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed(Vec<Option<CheckpointId>>);

impl Participants {
    /// Adds a participant. Those that cannot commit later come first.
    pub fn add(&mut self, participant: Arc<dyn Participant>) {
        self.all.push(participant);
        self.all
            .sort_by_key(|participant| participant.can_commit_later());
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.all
            .iter()
            .any(|participant| participant.name() == name)
    }

    /// Whether one of those with these names takes part.
    pub fn have_some(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    pub fn names(&self) -> Vec<String> {
        let names = self.all.iter().map(|participant| participant.name());
        names.map(str::to_owned).collect()
    }

    /// Whether one of them commits the positions of this source.
    pub fn commit_positions_of(&self, source: &str) -> bool {
        let mut all = self.all.iter();
        all.any(|participant| participant.commits_positions_of(source))
    }

    /// The handle that sinks of this kind write with, if its participant takes part.
    pub fn handle<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let mut handles = self
            .all
            .iter()
            .map(|participant| participant.clone().handle());
        handles.find_map(|handle| handle.downcast().ok())
    }

    /// Fences any earlier run, so that it cannot commit any more, and returns what
    /// was committed.
    pub fn fence(&self, stop: &Stop) -> Result<Committed, TransactionError> {
        let fenced = self.all.iter().map(|participant| participant.fence(stop));
        fenced.collect::<Result<_, _>>().map(Committed)
    }

    pub fn begin(&self) -> Result<(), TransactionError> {
        self.all
            .iter()
            .try_for_each(|participant| participant.begin())
    }

    pub fn prepare(&self, id: CheckpointId) -> Result<(), TransactionError> {
        self.all
            .iter()
            .try_for_each(|participant| participant.prepare(id))
    }

    /// Commits a durable checkpoint with one participant after another.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        self.all
            .iter()
            .try_for_each(|participant| participant.commit(manifest))
    }

    /// Why the participants cannot agree on the checkpoint to restore; `None` if
    /// they can.
    pub fn disagreement(&self, committed: &Committed, manifest: &Manifest) -> Option<String> {
        let behind = self.behind(committed, manifest);
        let lost = behind.into_iter().find(|(it, _)| !it.can_commit_later())?;
        let (participant, last) = lost;
        let (name, id) = (participant.name(), manifest.id);
        let others = self.all.iter().zip(&committed.0);
        let other = others.filter(|(_, last)| **last == Some(id));
        let other: Vec<&str> = other.map(|(other, _)| other.name()).collect();
        Some(format!(
            "{} has committed checkpoint {id}, and {name} {}: the rows of checkpoint {id} that \
             {name} was to commit are lost. Start from an earlier checkpoint with `--from`, which \
             writes them again, or anew with `--fresh`",
            other.join(", "),
            match last {
                Some(last) => format!("only checkpoint {last}"),
                None => "none".to_owned(),
            }
        ))
    }

    /// Has all participants commit the restored checkpoint, and drop uncommitted
    /// rows.
    pub fn settle(
        &self,
        committed: &Committed,
        manifest: Option<&Manifest>,
    ) -> Result<(), TransactionError> {
        if let Some(manifest) = manifest {
            for (participant, _) in self.behind(committed, manifest) {
                participant.commit_later(manifest)?;
            }
        }
        self.all
            .iter()
            .try_for_each(|participant| participant.abort())
    }

    /// The participants that took part in a checkpoint and have not committed it.
    fn behind(
        &self,
        committed: &Committed,
        manifest: &Manifest,
    ) -> Vec<(&Arc<dyn Participant>, Option<CheckpointId>)> {
        let all = self.all.iter().zip(committed.0.iter().copied());
        all.filter(|(participant, last)| {
            let took_part = manifest
                .participants
                .iter()
                .any(|name| name == participant.name());
            took_part && *last < Some(manifest.id)
        })
        .collect()
    }
}

impl Committed {
    /// The newest checkpoint that a participant has committed.
    pub fn newest(&self) -> Option<CheckpointId> {
        self.0.iter().copied().max().flatten()
    }
}
