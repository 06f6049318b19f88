//! The loop that moves elements: one way in, a chain of operators, a way out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::checkpoint::barrier::{DeadLetterMessage, Report, TaskCheckpoints, Trigger};
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::snapshot::{NodeSnapshot, TaskSnapshot};
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::{CheckpointId, END_OF_TIME, Element, NodeId};
use crate::gate::{Gate, Merged};
use crate::operator::{Operator, OperatorError, Outbox};
use crate::progress::NodeProgress;
use crate::router::{Gone, Router};
use crate::sink::{Sink, SinkError};
use crate::source::SourceError;
use crate::source::reader::Reader;
use crate::stop::Stop;

/// A thread of control of a running pipeline.
pub struct Task {
    pub head: Head,
    /// Who reads the head's elements, the chain aside. Empty behind a gate.
    pub entry: Router,
    /// Each link hands its rows to the next one.
    pub chain: Vec<Link>,
    /// Which of its nodes' tasks this is.
    pub index: usize,
    pub context: TaskContext,
    /// Absent where the pipeline has no checkpoints.
    pub checkpoints: Option<TaskCheckpoints>,
}

/// Where a task's elements come from.
pub enum Head {
    Source {
        node: NodeId,
        reader: Box<Reader>,
        progress: Arc<NodeProgress>,
        /// It has no more rows, and waits for the last checkpoint.
        has_ended: bool,
    },
    Gate(Gate),
}

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

#[derive(Clone)]
pub struct TaskContext {
    pub clock: Arc<dyn Clock>,
    pub dead_letters: mpsc::Sender<DeadLetterMessage>,
    pub stop: Stop,
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
    Barrier(CheckpointId, Vec<(NodeId, NodeSnapshot)>),
    End,
    /// A timer of the chain is due.
    Wake,
    /// The checkpoint is done.
    Committed(CheckpointId),
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
                if let (Incoming::End, Some(id)) = (&what, self.uncommitted()) {
                    // What a sink has ends only when it is there for good.
                    self.wait_for_commit(id).await?;
                }
                let snapshot = self.handle(what, &mut deliveries, &mut dead_letters)?;
                if !dead_letters.is_empty() {
                    let passed = self.checkpoints.as_ref().map_or(0, |own| own.passed);
                    let letters =
                        DeadLetterMessage::Written(passed, std::mem::take(&mut dead_letters));
                    let sent = self.context.dead_letters.send(letters).await;
                    sent.map_err(|_| Gone)?;
                }
                for delivery in deliveries.drain(..) {
                    self.router(delivery.exit).send(delivery.element).await?;
                }
                if let Some((snapshot, own)) = snapshot.zip(self.checkpoints.as_mut()) {
                    own.passed = snapshot.checkpoint;
                    own.reports
                        .send(Report::Snapshot(snapshot))
                        .map_err(|_| Gone)?;
                }
            }
            if ended {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    fn sinks(&mut self) -> impl Iterator<Item = &mut Box<dyn Sink>> {
        self.chain
            .iter_mut()
            .filter_map(|link| match &mut link.work {
                Work::Sink(sink) => Some(sink),
                Work::Operator(_) => None,
            })
    }

    /// Whether somebody here has something to do when a checkpoint is done.
    fn hears_of_commits(&mut self) -> bool {
        let of_head = match &self.head {
            Head::Source { reader, .. } => reader.hears_of_commits(),
            Head::Gate(_) => false,
        };
        of_head || self.sinks().next().is_some()
    }

    /// Somebody here takes no more before a checkpoint is done.
    fn is_full(&self) -> bool {
        self.chain.iter().any(|link| match &link.work {
            Work::Operator(operator) => operator.is_full(),
            Work::Sink(sink) => sink.is_full(),
        })
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), TaskError> {
        if let Some(own) = &mut self.checkpoints {
            own.heard = id;
        }
        if let Head::Source { reader, .. } = &mut self.head {
            reader.committed();
        }
        for sink in self.sinks() {
            sink.committed(id)?;
        }
        Ok(())
    }

    /// The barrier that has passed and whose checkpoint is waited for here.
    fn uncommitted(&mut self) -> Option<CheckpointId> {
        if !self.hears_of_commits() {
            return None;
        }
        self.unheard()
    }

    /// The barrier that has passed and whose checkpoint nobody here knows to be
    /// done.
    fn unheard(&self) -> Option<CheckpointId> {
        let own = self.checkpoints.as_ref()?;
        (own.heard < own.passed).then_some(own.passed)
    }

    async fn wait_for_commit(&mut self, id: CheckpointId) -> Result<(), TaskError> {
        if let Some(own) = &mut self.checkpoints {
            let waited = own.committed.wait_for(|&committed| committed >= id).await;
            waited.map_err(|_| Gone)?;
        }
        self.committed(id)
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
        // The barrier itself has to pass.
        let waits = self.is_full() && self.unheard().is_some();
        let hears_of_commits = waits || self.hears_of_commits();
        let trigger = self.checkpoints.clone();
        let commit = async {
            match &mut self.checkpoints {
                Some(own) if hears_of_commits => match own.committed.changed().await {
                    Ok(()) => *own.committed.borrow_and_update(),
                    Err(_) => std::future::pending().await,
                },
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            id = commit => Ok(vec![Incoming::Committed(id)]),
            () = timer => Ok(vec![Incoming::Wake]),
            incoming = self.head.next(&stop, trigger, dead_letters), if !waits => incoming,
        }
    }

    /// Takes one thing through the chain. Of a barrier comes what the task knows.
    fn handle(
        &mut self,
        what: Incoming,
        deliveries: &mut Vec<Delivery>,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<Option<TaskSnapshot>, TaskError> {
        let mut flow = Flow {
            chain: &mut self.chain,
            clock: &*self.context.clock,
            deliveries,
            dead_letters,
            snapshots: Vec::new(),
        };
        let mut checkpoint = None;
        let (edge, element) = match what {
            Incoming::Wake => {
                flow.wake()?;
                return Ok(None);
            }
            Incoming::Committed(id) => {
                self.committed(id)?;
                return Ok(None);
            }
            Incoming::Barrier(id, of_head) => {
                crash::point(Place::BarrierBefore);
                checkpoint = Some(id);
                flow.snapshots = of_head;
                (0, Element::Barrier(id))
            }
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
        flow.enter(0, edge, element)?;
        let nodes = flow.snapshots;
        Ok(checkpoint.map(|checkpoint| {
            crash::point(Place::FreezeAfter);
            TaskSnapshot {
                checkpoint,
                task: self.index,
                nodes,
            }
        }))
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
        checkpoints: Option<TaskCheckpoints>,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<Vec<Incoming>, TaskError> {
        match self {
            Head::Gate(gate) => Ok(match gate.next().await {
                Merged::Batch(edge, batch) => vec![Incoming::Batch(edge, batch)],
                // Windows that a stop leaves open have no result yet.
                Merged::Watermark(END_OF_TIME) if stop.asked() => Vec::new(),
                Merged::Watermark(watermark) => vec![Incoming::Watermark(watermark)],
                Merged::Idle => vec![Incoming::Idle],
                Merged::Barrier(id) => vec![Incoming::Barrier(id, Vec::new())],
                Merged::End => vec![Incoming::End],
            }),
            Head::Source {
                node,
                reader,
                progress,
                has_ended,
            } => {
                let pulled = tokio::select! {
                    biased;
                    trigger = next_trigger(checkpoints.as_ref(), stop) => {
                        let Some(Trigger { id, is_last }) = trigger else {
                            return Ok(vec![Incoming::End]);
                        };
                        let snapshot = NodeSnapshot::Source(reader.snapshot());
                        let mut incoming = vec![Incoming::Barrier(id, vec![(*node, snapshot)])];
                        if is_last {
                            incoming.push(Incoming::End);
                        }
                        return Ok(incoming);
                    }
                    pulled = async {
                        begun(checkpoints.as_ref()).await?;
                        Ok::<_, TaskError>(reader.next().await?)
                    }, if !*has_ended => pulled?,
                };
                let Some(pulled) = pulled else {
                    let Some(own) = checkpoints else {
                        return Ok(vec![Incoming::Watermark(END_OF_TIME), Incoming::End]);
                    };
                    // It stays for the checkpoints that are still to come.
                    *has_ended = true;
                    own.reports.send(Report::Ended).map_err(|_| Gone)?;
                    return Ok(vec![Incoming::Watermark(END_OF_TIME)]);
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
                        Element::Barrier(id) => Incoming::Barrier(id, Vec::new()),
                        Element::End => Incoming::End,
                    })
                    .collect())
            }
        }
    }
}

/// The barrier that a source is to start next; `None` when it is to end without
/// one. May be dropped while it waits.
async fn next_trigger(checkpoints: Option<&TaskCheckpoints>, stop: &Stop) -> Option<Trigger> {
    let Some(own) = checkpoints else {
        stop.wait().await;
        return None;
    };
    let mut trigger = own.trigger.clone();
    let next = trigger.wait_for(|trigger| trigger.id > own.passed).await;
    match next.map(|next| *next) {
        Ok(next) => Some(next),
        // Whoever starts barriers is gone: the run is being torn down.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for the checkpoint that the run begins with.
async fn begun(checkpoints: Option<&TaskCheckpoints>) -> Result<(), TaskError> {
    if let Some(own) = checkpoints
        && let Some(first) = own.first
    {
        let mut committed = own.committed.clone();
        let waited = committed.wait_for(|&committed| committed >= first).await;
        waited.map_err(|_| Gone)?;
    }
    Ok(())
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
    /// What nodes know, when a barrier passes them.
    snapshots: Vec<(NodeId, NodeSnapshot)>,
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
                    Element::Barrier(id) => {
                        let snapshot = NodeSnapshot::Sink(sink.barrier(id)?);
                        self.snapshots.push((link.node, snapshot));
                    }
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
