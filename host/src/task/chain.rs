//! Passes elements through a task's chain: each node's output goes to the next node
//! and to routers.

use std::sync::Arc;

use super::error::TaskError;
use crate::checkpoint::snapshot::NodeSnapshot;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::{Element, Inlet, NodeId};
use crate::operator::{Operator, Outbox};
use crate::plan::MAIN_OUTPUT;
use crate::progress::NodeProgress;
use crate::router::Router;
use crate::sink::{Ending, Sink};

/// A node in a chain.
pub struct Link {
    pub node: NodeId,
    pub work: Work,
    pub progress: Arc<NodeProgress>,
    /// Which of the node's tasks this is.
    pub task: usize,
    /// One for each of the node's outputs. The main output goes to the next link, too.
    pub outputs: Vec<Router>,
    /// When a sink is flushed at the latest, in ms of the clock, if it has rows.
    pub flush_at_ms: Option<i64>,
}

/// How long rows lie in a sink's buffer at most, in ms, while time does not
/// advance.
const FLUSH_AFTER_MS: i64 = 200;

pub enum Work {
    Operator(Box<dyn Operator>),
    Sink(Box<dyn Sink>),
}

/// An element that leaves the task, and the router that sends it.
pub(super) struct Delivery {
    pub exit: Exit,
    pub element: Element,
}

#[derive(Clone, Copy)]
pub(super) enum Exit {
    Entry,
    /// An output of a link.
    Output(usize, usize),
}

impl Link {
    pub(super) fn wake_at(&self) -> Option<i64> {
        match &self.work {
            Work::Operator(operator) => operator.wake_at(),
            Work::Sink(_) => self.flush_at_ms,
        }
    }
}

/// One element's way through the chain.
pub(super) struct Flow<'a> {
    pub chain: &'a mut [Link],
    pub clock: &'a dyn Clock,
    /// How the input ends, if it ends now.
    pub ending: Ending,
    pub deliveries: &'a mut Vec<Delivery>,
    pub dead_letters: &'a mut Vec<DeadLetter>,
    /// Snapshots of the nodes that a barrier has passed.
    pub snapshots: Vec<(NodeId, NodeSnapshot)>,
}

impl Flow<'_> {
    /// Passes an element to a link, and the link's output to the following ones.
    pub(super) fn enter(
        &mut self,
        index: usize,
        inlet: Inlet,
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
                    operator.rows(inlet, batch, &mut out)?;
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
                        let clock = self.clock;
                        link.flush_at_ms
                            .get_or_insert_with(|| clock.now_ms().saturating_add(FLUSH_AFTER_MS));
                    }
                    Element::Watermark(watermark) => {
                        link.progress.set_watermark(link.task, watermark);
                        link.flush_at_ms = None;
                        sink.flush()?;
                    }
                    Element::Idle => {
                        link.flush_at_ms = None;
                        sink.flush()?;
                    }
                    Element::Barrier(barrier) => {
                        let snapshot = NodeSnapshot::Sink(sink.barrier(barrier.id)?);
                        self.snapshots.push((link.node, snapshot));
                    }
                    Element::End => {
                        link.flush_at_ms = None;
                        sink.finish(self.ending)?;
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn wake(&mut self) -> Result<(), TaskError> {
        let now_ms = self.clock.now_ms();
        for index in 0..self.chain.len() {
            let link = &mut self.chain[index];
            if link.wake_at().is_none_or(|due| due > now_ms) {
                continue;
            }
            match &mut link.work {
                Work::Operator(operator) => {
                    let mut out = Outbox::default();
                    operator.wake(now_ms, &mut out)?;
                    self.leave(index, out)?;
                }
                Work::Sink(sink) => {
                    link.flush_at_ms = None;
                    sink.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Passes a link's output to the next link and to its routers.
    fn leave(&mut self, index: usize, out: Outbox) -> Result<(), TaskError> {
        let progress = &self.chain[index].progress;
        progress.add_counts(out.counts);
        progress.add_dead_letters(&out.dead_letters);
        self.dead_letters.extend(out.dead_letters);
        for (port, batch) in out.batches {
            self.put_out(index, port, Element::Batch(batch))?;
        }
        Ok(())
    }

    /// Passes an element that is not a batch to all of a link's outputs.
    fn pass(&mut self, index: usize, element: Element) -> Result<(), TaskError> {
        for port in 0..self.chain[index].outputs.len() {
            self.put_out(index, port, element.clone())?;
        }
        Ok(())
    }

    fn put_out(&mut self, index: usize, port: usize, element: Element) -> Result<(), TaskError> {
        if !self.chain[index].outputs[port].consumers.is_empty() {
            self.deliveries.push(Delivery {
                exit: Exit::Output(index, port),
                element: element.clone(),
            });
        }
        match port {
            // The next link has no edge but this one.
            MAIN_OUTPUT => self.enter(index + 1, Inlet::default(), element),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::batch::Batch;
    use crate::checkpoint::snapshot::OperatorSnapshot;
    use crate::clock::ManualClock;
    use crate::operator::OperatorError;
    use crate::progress::Role;
    use crate::router::Consumer;

    /// Has two inputs and two outputs, and emits the rows of each input by
    /// the other output.
    struct Crossing;

    impl Operator for Crossing {
        fn rows(
            &mut self,
            inlet: Inlet,
            batch: Batch,
            out: &mut Outbox,
        ) -> Result<(), OperatorError> {
            out.put(1 - inlet.port, batch);
            Ok(())
        }

        fn watermark(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }

        fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
            Ok(None)
        }

        fn wake_at(&self) -> Option<i64> {
            None
        }

        fn wake(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }
    }

    fn batch(rows: i64) -> Element {
        Element::Batch(Batch {
            schema: Arc::default(),
            columns: Vec::new(),
            times: (0..rows).collect(),
            origin: None,
        })
    }

    #[test]
    fn rows_leave_by_the_output_that_the_operator_names_and_time_by_all() {
        let mut readers = Vec::new();
        let mut router = || {
            let (sender, reader) = mpsc::channel(1);
            readers.push(reader);
            Router {
                consumers: vec![Consumer::One(sender)],
            }
        };
        let progress = Arc::new(NodeProgress::new("crossing", Role::Operator, 1));
        let mut chain = [Link {
            node: 0,
            work: Work::Operator(Box::new(Crossing)),
            progress: progress.clone(),
            task: 0,
            outputs: vec![router(), router()],
            flush_at_ms: None,
        }];
        let mut deliveries = Vec::new();
        let mut flow = Flow {
            chain: &mut chain,
            clock: &ManualClock::default(),
            ending: Ending::Complete,
            deliveries: &mut deliveries,
            dead_letters: &mut Vec::new(),
            snapshots: Vec::new(),
        };
        let inlet = |port| Inlet { port, edge: 0 };
        for (inlet, element) in [
            (inlet(0), batch(1)),
            (inlet(1), batch(2)),
            (inlet(0), Element::Watermark(7)),
        ] {
            flow.enter(0, inlet, element).unwrap();
        }
        let left: Vec<String> = deliveries
            .iter()
            .map(|Delivery { exit, element }| match (exit, element) {
                (Exit::Output(0, port), Element::Batch(batch)) => {
                    format!("{} rows by {port}", batch.rows())
                }
                (Exit::Output(0, port), Element::Watermark(time)) => format!("{time} by {port}"),
                (_, element) => panic!("{element:?} is from nowhere"),
            })
            .collect();
        assert_eq!(left, ["1 rows by 1", "2 rows by 0", "7 by 0", "7 by 1"]);
        assert_eq!(progress.snapshot().rows_out, 3);
    }
}
