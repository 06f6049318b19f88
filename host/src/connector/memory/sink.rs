//! Writes rows to a topic in memory, with transactions as Kafka has them.

use std::sync::Arc;

use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::connector::Description;
use crate::element::CheckpointId;
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError};
use crate::topic::MemoryTopic;

/// The topic to write.
pub struct MemorySink {
    topic: Arc<MemoryTopic>,
}

impl MemorySink {
    pub fn new(topic: Arc<MemoryTopic>) -> Self {
        MemorySink { topic }
    }
}

impl SinkConnector for MemorySink {
    fn describe(&self) -> Description {
        Description {
            connector: "memory",
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn open(
        &self,
        _: &str,
        _: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let topic = self.topic.clone();
        let is_transactional = !context.participants.is_empty();
        Ok(Box::new(MemoryWriter::new(topic, is_transactional)))
    }
}

struct MemoryWriter {
    topic: Arc<MemoryTopic>,
    is_transactional: bool,
    /// A barrier has passed and its checkpoint is not committed: rows after it
    /// belong to the next transaction.
    is_waiting: bool,
    kept: Vec<Batch>,
}

impl MemoryWriter {
    fn new(topic: Arc<MemoryTopic>, is_transactional: bool) -> Self {
        MemoryWriter {
            topic,
            is_transactional,
            is_waiting: false,
            kept: Vec::new(),
        }
    }
}

impl Sink for MemoryWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.is_waiting {
            self.kept.push(batch.clone());
        } else if self.is_transactional {
            self.topic.add_open([batch.clone()]);
        } else {
            self.topic.add_visible([batch.clone()]);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.is_waiting = self.is_transactional;
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        self.is_waiting = false;
        self.topic.add_open(self.kept.drain(..));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}

/// How many batches may wait for a commit.
const KEPT_MAX: usize = 16;
