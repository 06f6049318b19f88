//! The commit of a checkpoint: what makes its rows and its progress visible.
//!
//! Whoever takes part, a broker or a database, is a participant. Rows of
//! checkpoint N go to it uncommitted. When all participants are prepared and N is
//! durable, each commits N, one after the other; only then do rows of N + 1 go
//! out. Which N holds is therefore for the participants to say, and not for the
//! storage: a pipeline that starts first fences whoever had it before, then asks,
//! and restores exactly that N.
//!
//! A process may die between two commits, so that participants disagree: some
//! have committed N, and the others N - 1. N holds then, and the others commit it
//! when the pipeline starts, out of what they were prepared with. A participant
//! that cannot do that, because its rows are lost with the process, commits before
//! those that can; so there is no disagreement with one of them, and with two the
//! run stops and says so.
//!
//! Calls may block. After any error the outcome is unknown, and the pipeline
//! has to be restarted.

/// Of Kafka.
pub mod kafka;
/// In memory.
pub mod memory;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use super::manifest::Manifest;
use crate::blame::Fault;
use crate::element::CheckpointId;

pub trait Participant: Send + Sync {
    /// Under which checkpoints list it: the same for the pipeline's life.
    fn name(&self) -> &str;

    /// Ends what an earlier owner has left open, locks it out, and tells the
    /// last checkpoint that was committed. Rows that were prepared stay if they
    /// can be committed later.
    fn fence(&self) -> Result<Option<CheckpointId>, TransactionError>;

    /// Begins to take the next rows.
    fn begin(&self) -> Result<(), TransactionError>;

    /// Waits until all rows of this checkpoint have arrived.
    fn prepare(&self, id: CheckpointId) -> Result<(), TransactionError>;

    /// Commits the rows since [`Participant::begin`], with the checkpoint's
    /// number and the positions of its sources.
    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError>;

    /// Whether rows that were prepared outlive the process and can be committed
    /// by the next one.
    fn can_commit_later(&self) -> bool {
        false
    }

    /// Commits rows that the process before has prepared for this checkpoint.
    /// Asked only of a participant that can.
    fn commit_later(&self, _: &Manifest) -> Result<(), TransactionError> {
        Ok(())
    }

    /// Forgets the rows that were prepared and not committed. Called between
    /// [`Participant::fence`] and [`Participant::begin`].
    fn abort(&self) -> Result<(), TransactionError>;

    /// What the sinks of this participant write with. Each knows the type of its
    /// own.
    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct TransactionError {
    pub what: String,
    pub cause: String,
    pub fault: Fault,
}

/// Those who take part in a pipeline's commits, in the order in which they
/// commit.
#[derive(Clone, Default)]
pub struct Participants {
    all: Vec<Arc<dyn Participant>>,
}

/// What each participant has committed last, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed(Vec<Option<CheckpointId>>);

impl Participants {
    /// Adds one. Those that cannot commit later come first.
    pub fn add(&mut self, participant: Arc<dyn Participant>) {
        self.all.push(participant);
        self.all
            .sort_by_key(|participant| participant.can_commit_later());
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn names(&self) -> Vec<String> {
        let names = self.all.iter().map(|participant| participant.name());
        names.map(str::to_owned).collect()
    }

    /// What sinks of this kind write with, if it takes part.
    pub fn handle<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let mut handles = self
            .all
            .iter()
            .map(|participant| participant.clone().handle());
        handles.find_map(|handle| handle.downcast().ok())
    }

    /// Locks out whoever had the pipeline before. What it gives is final: nobody
    /// can commit any more.
    pub fn fence(&self) -> Result<Committed, TransactionError> {
        let fenced = self.all.iter().map(|participant| participant.fence());
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

    /// Commits a checkpoint that is durable, with one participant after the
    /// other.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        self.all
            .iter()
            .try_for_each(|participant| participant.commit(manifest))
    }

    /// Says why participants cannot agree on this checkpoint, which the run is to
    /// go on from, if so.
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
             {name} was to commit are lost. Start from an earlier checkpoint by `--from`, so that \
             they come again, or anew under another name",
            other.join(", "),
            match last {
                Some(last) => format!("only checkpoint {last}"),
                None => "none".to_owned(),
            }
        ))
    }

    /// Has all participants commit the checkpoint that the run goes on from, and
    /// forget everything behind it.
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

    /// Those that took part in a checkpoint and have not committed it.
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
