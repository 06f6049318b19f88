//! The operators and sinks of a task, each of which hands its rows to the next
//! one and to the tasks that read them.

use std::sync::Arc;

use super::error::TaskError;
use crate::checkpoint::snapshot::NodeSnapshot;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::Element;
use crate::element::NodeId;
use crate::operator::{Operator, Outbox};
use crate::progress::NodeProgress;
use crate::router::Router;
use crate::sink::Sink;

/// A node in a chain.
pub struct Link {
    pub node: NodeId,
    pub work: Work,
    pub progress: Arc<NodeProgress>,
    /// Which of the node's tasks this is.
    pub task: usize,
    /// Who reads the node's output, the next link aside.
    pub router: Router,
    /// Who reads the rows that came too late.
    pub late: Router,
}

pub enum Work {
    Operator(Box<dyn Operator>),
    Sink(Box<dyn Sink>),
}

/// An element on its way out, and by which of the task's routers.
pub(super) struct Delivery {
    pub exit: Exit,
    pub element: Element,
}

#[derive(Clone, Copy)]
pub(super) enum Exit {
    Entry,
    Main(usize),
    Late(usize),
}

impl Link {
    pub(super) fn wake_at(&self) -> Option<i64> {
        match &self.work {
            Work::Operator(operator) => operator.wake_at(),
            Work::Sink(_) => None,
        }
    }
}

/// One element's way through the chain.
pub(super) struct Flow<'a> {
    pub chain: &'a mut [Link],
    pub clock: &'a dyn Clock,
    pub deliveries: &'a mut Vec<Delivery>,
    pub dead_letters: &'a mut Vec<DeadLetter>,
    /// What nodes know, when a barrier passes them.
    pub snapshots: Vec<(NodeId, NodeSnapshot)>,
}

impl Flow<'_> {
    /// Gives an element to a link, and what comes of it to those behind.
    pub(super) fn enter(
        &mut self,
        index: usize,
        edge: usize,
        element: Element,
    ) -> Result<(), TaskError> {
        if index == self.chain.len() {
            return Ok(());
        }
        let link = &mut self.chain[index];
        let mut out = Outbox::default();
        match &mut link.work {
            Work::Operator(operator) => match element {
                Element::Batch(batch) => {
                    link.progress.add_in(batch.rows());
                    operator.rows(edge, batch, &mut out)?;
                    self.leave(index, out)
                }
                Element::Watermark(watermark) => {
                    operator.watermark(watermark, &mut out)?;
                    link.progress.set_watermark(link.task, watermark);
                    self.leave(index, out)?;
                    self.pass(index, Element::Watermark(watermark))
                }
                Element::Barrier(_) => {
                    if let Some(snapshot) = operator.snapshot()? {
                        let snapshot = NodeSnapshot::Operator(snapshot);
                        self.snapshots.push((link.node, snapshot));
                    }
                    self.pass(index, element)
                }
                Element::Idle | Element::End => self.pass(index, element),
            },
            Work::Sink(sink) => {
                match element {
                    Element::Batch(batch) => {
                        link.progress.add_in(batch.rows());
                        sink.write(&batch)?;
                    }
                    Element::Watermark(watermark) => {
                        link.progress.set_watermark(link.task, watermark);
                        sink.flush()?;
                    }
                    Element::Idle => sink.flush()?,
                    Element::Barrier(barrier) => {
                        let snapshot = NodeSnapshot::Sink(sink.barrier(barrier.id)?);
                        self.snapshots.push((link.node, snapshot));
                    }
                    Element::End => sink.finish()?,
                }
                Ok(())
            }
        }
    }

    pub(super) fn wake(&mut self) -> Result<(), TaskError> {
        let now_ms = self.clock.now_ms();
        for index in 0..self.chain.len() {
            let link = &mut self.chain[index];
            if link.wake_at().is_some_and(|due| due <= now_ms)
                && let Work::Operator(operator) = &mut link.work
            {
                let mut out = Outbox::default();
                operator.wake(now_ms, &mut out)?;
                self.leave(index, out)?;
            }
        }
        Ok(())
    }

    /// What a link has put out goes to the next one and to its routers.
    fn leave(&mut self, index: usize, out: Outbox) -> Result<(), TaskError> {
        let progress = &self.chain[index].progress;
        progress.add_counts(out.counts);
        self.dead_letters.extend(out.dead_letters);
        for batch in out.late {
            self.late(index, Element::Batch(batch));
        }
        for batch in out.rows {
            self.chain[index].progress.add_out(batch.rows());
            self.forward(index, Element::Batch(batch))?;
        }
        Ok(())
    }

    /// Time and the end go to everybody who reads from the link.
    fn pass(&mut self, index: usize, element: Element) -> Result<(), TaskError> {
        self.late(index, element.clone());
        self.forward(index, element)
    }

    fn forward(&mut self, index: usize, element: Element) -> Result<(), TaskError> {
        if !self.chain[index].router.consumers.is_empty() {
            self.deliveries.push(Delivery {
                exit: Exit::Main(index),
                element: element.clone(),
            });
        }
        self.enter(index + 1, 0, element)
    }

    fn late(&mut self, index: usize, element: Element) {
        if !self.chain[index].late.consumers.is_empty() {
            self.deliveries.push(Delivery {
                exit: Exit::Late(index),
                element,
            });
        }
    }
}
