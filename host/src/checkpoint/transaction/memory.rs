//! A transaction over topics in memory, with outcomes that get lost: for tests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Transaction, TransactionError};
use crate::checkpoint::manifest::Manifest;
use crate::element::CheckpointId;
use crate::topic::MemoryTopic;

pub struct MemoryTransaction {
    topics: Vec<Arc<MemoryTopic>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    committed: Option<CheckpointId>,
    is_open: bool,
    lost: Option<Lost>,
}

/// What happens to a commit whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was done all the same.
    Answer,
    /// It was not done.
    Request,
}

impl MemoryTransaction {
    pub fn new(topics: Vec<Arc<MemoryTopic>>) -> Self {
        MemoryTransaction {
            topics,
            state: Mutex::default(),
        }
    }

    /// The next commit fails in this way.
    pub fn lose(&self, lost: Lost) {
        self.lock().lost = Some(lost);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: it is whole after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction for MemoryTransaction {
    fn fence(&self) -> Result<Option<CheckpointId>, TransactionError> {
        let mut state = self.lock();
        state.is_open = false;
        for topic in &self.topics {
            topic.abort();
        }
        Ok(state.committed)
    }

    fn begin(&self) -> Result<(), TransactionError> {
        self.lock().is_open = true;
        Ok(())
    }

    fn flush(&self) -> Result<(), TransactionError> {
        Ok(())
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let mut state = self.lock();
        let fail = |cause: &str| {
            Err(TransactionError {
                what: "commit".to_owned(),
                cause: cause.to_owned(),
            })
        };
        if !std::mem::take(&mut state.is_open) {
            return fail("no transaction is open");
        }
        let lost = state.lost.take();
        if lost != Some(Lost::Request) {
            for topic in &self.topics {
                topic.commit();
            }
            state.committed = Some(manifest.id);
        }
        match lost {
            Some(_) => fail("the answer was lost"),
            None => Ok(()),
        }
    }
}
