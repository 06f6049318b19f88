//! The loop that moves elements: one way in, a chain of operators, a way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::element::{END_OF_TIME, Element};
use crate::gate::{Gate, Merged};
use crate::operator::{DeadLetter, Operator, OperatorError, Outbox};
use crate::progress::NodeProgress;
use crate::router::{Gone, Router};
use crate::sink::{Sink, SinkError};
use crate::source::{Reader, SourceError};

/// A thread of control of a running pipeline.
pub struct Task {
    pub head: Head,
    /// Who reads the head's elements, the chain aside. Empty behind a gate.
    pub entry: Router,
    /// Each link hands its rows to the next one.
    pub chain: Vec<Link>,
    pub context: TaskContext,
}

/// Where a task's elements come from.
pub enum Head {
    Source {
        reader: Reader,
        progress: Arc<NodeProgress>,
    },
    Gate(Gate),
}

/// A node in a chain.
pub struct Link {
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

#[derive(Clone)]
pub struct TaskContext {
    pub clock: Arc<dyn Clock>,
    pub dead_letters: mpsc::Sender<Vec<DeadLetter>>,
    pub stop: Stop,
}

/// Asks a run to end early: sources read no more, what is under way is
/// finished, open windows do not fire, for their results would be wrong.
#[derive(Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    wake: Arc<watch::Sender<()>>,
}

/// Why a task, and the run with it, failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Another task failed first; its error is the one to show.
    #[error("another part of the pipeline stopped")]
    Gone,
}

impl From<Gone> for TaskError {
    fn from(_: Gone) -> Self {
        TaskError::Gone
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            asked: Arc::default(),
            wake: Arc::new(watch::Sender::new(())),
        }
    }
}

impl Stop {
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.wake.send_replace(());
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Comes back once a stop was asked for.
    async fn wait(&self) {
        let mut wake = self.wake.subscribe();
        while !self.asked() {
            // The sender lives as long as `self`.
            let _ = wake.changed().await;
        }
    }
}

/// An element on its way out, and by which of the task's routers.
struct Delivery {
    exit: Exit,
    element: Element,
}

#[derive(Clone, Copy)]
enum Exit {
    Entry,
    Main(usize),
    Late(usize),
}

/// What the head has for the chain.
enum Incoming {
    Batch(usize, crate::batch::Batch),
    Watermark(i64),
    Idle,
    End,
    /// A timer of the chain is due.
    Wake,
}

impl Task {
    /// Runs until all inputs have ended or something failed.
    pub async fn run(mut self) -> Result<(), TaskError> {
        let mut deliveries = Vec::new();
        let mut dead_letters = Vec::new();
        loop {
            let incoming = self.next(&mut dead_letters).await?;
            let ended = incoming.iter().any(|what| matches!(what, Incoming::End));
            for what in incoming {
                self.handle(what, &mut deliveries, &mut dead_letters)?;
                for delivery in deliveries.drain(..) {
                    self.router(delivery.exit).send(delivery.element).await?;
                }
                if !dead_letters.is_empty() {
                    let letters = std::mem::take(&mut dead_letters);
                    self.context
                        .dead_letters
                        .send(letters)
                        .await
                        .map_err(|_| Gone)?;
                }
            }
            if ended {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the head, or for the chain's next timer if that is earlier.
    async fn next(
        &mut self,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<Vec<Incoming>, TaskError> {
        let due = self.chain.iter().filter_map(Link::wake_at).min();
        let clock = self.context.clock.clone();
        let timer = async {
            match due {
                Some(due) => {
                    let wait_ms = u64::try_from(due.saturating_sub(clock.now_ms())).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                None => std::future::pending().await,
            }
        };
        let stop = self.context.stop.clone();
        tokio::select! {
            biased;
            () = timer => Ok(vec![Incoming::Wake]),
            incoming = self.head.next(&stop, dead_letters) => incoming,
        }
    }

    /// Takes one thing through the chain.
    fn handle(
        &mut self,
        what: Incoming,
        deliveries: &mut Vec<Delivery>,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<(), TaskError> {
        let mut flow = Flow {
            chain: &mut self.chain,
            clock: &*self.context.clock,
            deliveries,
            dead_letters,
        };
        let (edge, element) = match what {
            Incoming::Wake => return flow.wake(),
            Incoming::Batch(edge, batch) => (edge, Element::Batch(batch)),
            Incoming::Watermark(watermark) => (0, Element::Watermark(watermark)),
            Incoming::Idle => (0, Element::Idle),
            Incoming::End => (0, Element::End),
        };
        if !self.entry.consumers.is_empty() {
            flow.deliveries.push(Delivery {
                exit: Exit::Entry,
                element: element.clone(),
            });
        }
        flow.enter(0, edge, element)
    }

    fn router(&self, exit: Exit) -> &Router {
        match exit {
            Exit::Entry => &self.entry,
            Exit::Main(link) => &self.chain[link].router,
            Exit::Late(link) => &self.chain[link].late,
        }
    }
}

impl Head {
    async fn next(
        &mut self,
        stop: &Stop,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<Vec<Incoming>, TaskError> {
        match self {
            Head::Gate(gate) => Ok(match gate.next().await {
                Merged::Batch(edge, batch) => vec![Incoming::Batch(edge, batch)],
                // Windows that a stop leaves open have no result yet.
                Merged::Watermark(END_OF_TIME) if stop.asked() => Vec::new(),
                Merged::Watermark(watermark) => vec![Incoming::Watermark(watermark)],
                Merged::Idle => vec![Incoming::Idle],
                Merged::End => vec![Incoming::End],
            }),
            Head::Source { reader, progress } => {
                let pulled = tokio::select! {
                    biased;
                    () = stop.wait() => return Ok(vec![Incoming::End]),
                    pulled = reader.next() => pulled?,
                };
                let Some(pulled) = pulled else {
                    return Ok(vec![Incoming::Watermark(END_OF_TIME), Incoming::End]);
                };
                progress.add_in(pulled.rows_in as usize);
                progress.add_counts(crate::operator::Counts {
                    failed: pulled.failed,
                    ..Default::default()
                });
                if let Some(part) = pulled.progress {
                    progress.set_read(part);
                }
                dead_letters.extend(pulled.dead_letters);
                Ok(pulled
                    .elements
                    .into_iter()
                    .map(|element| match element {
                        Element::Batch(batch) => {
                            progress.add_out(batch.rows());
                            Incoming::Batch(0, batch)
                        }
                        Element::Watermark(watermark) => Incoming::Watermark(watermark),
                        Element::Idle => Incoming::Idle,
                        Element::End => Incoming::End,
                    })
                    .collect())
            }
        }
    }
}

impl Link {
    fn wake_at(&self) -> Option<i64> {
        match &self.work {
            Work::Operator(operator) => operator.wake_at(),
            Work::Sink(_) => None,
        }
    }
}

/// One element's way through the chain.
struct Flow<'a> {
    chain: &'a mut [Link],
    clock: &'a dyn Clock,
    deliveries: &'a mut Vec<Delivery>,
    dead_letters: &'a mut Vec<DeadLetter>,
}

impl Flow<'_> {
    /// Gives an element to a link, and what comes of it to those behind.
    fn enter(&mut self, index: usize, edge: usize, element: Element) -> Result<(), TaskError> {
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
                    Element::End => sink.finish()?,
                }
                Ok(())
            }
        }
    }

    fn wake(&mut self) -> Result<(), TaskError> {
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
