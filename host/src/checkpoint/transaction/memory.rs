//! A transaction over topics in memory, whose answers can get lost, for tests.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Participant, TransactionError};
use crate::blame::Fault;
use crate::checkpoint::manifest::Manifest;
use crate::element::CheckpointId;
use crate::stop::Stop;
use crate::topic::MemoryTopic;

pub struct MemoryTransaction {
    name: String,
    /// Prepared rows outlive the run, as in a database with prepared transactions.
    is_lasting: bool,
    topics: Vec<Arc<MemoryTopic>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    committed: Option<CheckpointId>,
    is_open: bool,
    /// The checkpoint whose rows are ready to be committed.
    prepared: Option<CheckpointId>,
    lost: Option<Lost>,
}

/// What happens to a commit whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The commit was made, and only its answer lost.
    Answer,
    /// The commit was not made.
    Request,
}

impl MemoryTransaction {
    pub fn new(topics: Vec<Arc<MemoryTopic>>) -> Self {
        MemoryTransaction {
            name: "memory".to_owned(),
            is_lasting: false,
            topics,
            state: Mutex::default(),
        }
    }

    /// Sets the name, where there are several.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Lets the next run commit prepared rows.
    pub fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    /// The next commit fails in this way.
    pub fn lose(&self, lost: Lost) {
        self.lock().lost = Some(lost);
    }

    fn publish(&self, state: &mut State, id: CheckpointId) {
        for topic in &self.topics {
            topic.commit();
        }
        state.committed = Some(id);
        state.prepared = None;
    }

    fn forget(&self, state: &mut State) {
        for topic in &self.topics {
            topic.abort();
        }
        state.prepared = None;
    }

    fn fail(&self, cause: &str) -> Result<(), TransactionError> {
        Err(TransactionError {
            what: format!("{}: commit", self.name),
            cause: cause.to_owned(),
            fault: Fault::OUTSIDE,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: it is whole after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Participant for MemoryTransaction {
    fn name(&self) -> &str {
        &self.name
    }

    fn fence(&self, _: &Stop) -> Result<Option<CheckpointId>, TransactionError> {
        let mut state = self.lock();
        state.is_open = false;
        if !self.is_lasting || state.prepared.is_none() {
            self.forget(&mut state);
        }
        Ok(state.committed)
    }

    fn begin(&self) -> Result<(), TransactionError> {
        self.lock().is_open = true;
        Ok(())
    }

    fn prepare(&self, id: CheckpointId) -> Result<(), TransactionError> {
        self.lock().prepared = Some(id);
        Ok(())
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.is_open) {
            return self.fail("no transaction is open");
        }
        let lost = state.lost.take();
        if lost != Some(Lost::Request) {
            self.publish(&mut state, manifest.id);
        }
        match lost {
            Some(_) => self.fail("the answer was lost"),
            None => Ok(()),
        }
    }

    fn can_commit_later(&self) -> bool {
        self.is_lasting
    }

    fn commit_later(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let mut state = self.lock();
        if state.prepared != Some(manifest.id) {
            return self.fail("the rows were not prepared");
        }
        self.publish(&mut state, manifest.id);
        Ok(())
    }

    fn abort(&self) -> Result<(), TransactionError> {
        self.forget(&mut self.lock());
        Ok(())
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
