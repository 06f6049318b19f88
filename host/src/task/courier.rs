//! Sends what leaves a task: elements to other tasks, and dead letters to their
//! writer.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::barrier::DeadLetterMessage;
use crate::dead_letter::DeadLetter;
use crate::element::{CheckpointId, Element};
use crate::router::{Gone, Router};

pub(super) struct Courier {
    deliveries: Vec<(Arc<Router>, Element)>,
    pub dead_letters: Vec<DeadLetter>,
    /// The last barrier that the task has passed.
    pub passed: CheckpointId,
    writer: mpsc::Sender<DeadLetterMessage>,
    /// Whether it waits until its dead letters are written: without checkpoints, a file
    /// may get its name with the rows that come next.
    pub is_patient: bool,
}

impl Courier {
    pub fn new(writer: mpsc::Sender<DeadLetterMessage>, passed: CheckpointId) -> Self {
        Courier {
            deliveries: Vec::new(),
            dead_letters: Vec::new(),
            passed,
            writer,
            is_patient: false,
        }
    }

    /// Takes an element that a router is to send.
    pub fn take(&mut self, router: &Arc<Router>, element: &Element) {
        if let Element::Batch(batch) = element {
            router.tap.offer(batch);
        }
        if !router.consumers.is_empty() {
            self.deliveries.push((router.clone(), element.clone()));
        }
    }

    /// Sends all that it has, and waits while nobody has room for it.
    pub async fn send(&mut self) -> Result<(), Gone> {
        if !self.dead_letters.is_empty() {
            let written = std::mem::take(&mut self.dead_letters);
            let (answer, answered) = oneshot::channel();
            let message = DeadLetterMessage::Written(self.passed, written, answer);
            self.writer.send(message).await.map_err(|_| Gone)?;
            if self.is_patient {
                answered.await.map_err(|_| Gone)?;
            }
        }
        for (router, element) in self.deliveries.drain(..) {
            router.send(element).await?;
        }
        Ok(())
    }

    /// Sends all that it has in the middle of an element, so that it does not grow
    /// without bound. Where all tasks run on one thread, it has to keep it.
    pub fn send_now(&mut self) -> Result<(), Gone> {
        if self.deliveries.is_empty() && self.dead_letters.is_empty() {
            return Ok(());
        }
        match Handle::try_current() {
            Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| runtime.block_on(self.send()))
            }
            _ => Ok(()),
        }
    }

    /// How many elements it has.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.deliveries.len()
    }
}
