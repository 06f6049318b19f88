//! The loop that moves elements: from a source or gate, through a chain of
//! operators, to routers.

// The source or gate that elements come from.
mod head;
// What each node of the chain does to an element.
mod chain;
// Sends what leaves the task.
mod courier;
// Why a task failed.
mod error;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use self::chain::{Link, Work};
pub use self::error::TaskError;
pub use self::head::Head;

use self::chain::Flow;
use self::courier::Courier;
use self::head::Incoming;
use crate::checkpoint::barrier::{DeadLetterMessage, Report, TaskCheckpoints};
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::snapshot::TaskSnapshot;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::{CheckpointId, END_OF_TIME, Element, Inlet, Purpose};
use crate::router::{Gone, Router};
use crate::sink::{Ending, Sink};
use crate::state::look::{LookRequest, Seen};
use crate::stop::Stop;

/// One task of a running pipeline: a source or gate, and a chain of nodes.
pub struct Task {
    /// Among all tasks of the run.
    pub number: usize,
    pub head: Head,
    /// Sends a source's elements to other tasks. Empty after a gate.
    pub entry: Arc<Router>,
    /// Each link passes the rows of its main output to the next one.
    pub chain: Vec<Link>,
    /// Which of its nodes' tasks this is.
    pub index: usize,
    pub context: TaskContext,
    /// Absent where the pipeline has no checkpoints.
    pub checkpoints: Option<TaskCheckpoints>,
    /// A later run, or revision, goes on from the last barrier.
    pub is_gone_on_from: bool,
    /// Looks at the state of its operators.
    pub looks: mpsc::Receiver<LookRequest>,
    /// How far the task has come to the end of event time.
    pub ending: EndOfTime,
}

/// How far a task has come to the end of event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndOfTime {
    #[default]
    Ahead,
    /// Its operators may have more to do.
    Begun,
    /// All that was due is done, and the coordinator knows.
    Reported,
}

#[derive(Clone)]
pub struct TaskContext {
    pub clock: Arc<dyn Clock>,
    pub dead_letters: mpsc::Sender<DeadLetterMessage>,
    pub stop: Stop,
}

impl Task {
    /// Runs until all inputs have ended or something failed.
    pub async fn run(mut self) -> Result<(), TaskError> {
        let passed = self.checkpoints.as_ref().map_or(0, |own| own.last_passed);
        let mut courier = Courier::new(self.context.dead_letters.clone(), passed);
        courier.is_patient = self.checkpoints.is_none();
        loop {
            let incoming = self.next(&mut courier.dead_letters).await?;
            // Before the rows beside them, of which there may be none.
            self.send(&mut courier).await?;
            let ended = incoming.iter().any(|what| matches!(what, Incoming::End));
            for what in incoming {
                // Without checkpoints, the end comes right behind the end of time.
                while matches!(what, Incoming::End) && self.goes_on() {
                    self.go_on(&mut courier).await?;
                }
                if let (Incoming::End, Some(id)) = (&what, self.uncommitted()) {
                    // A sink may only finish after its last rows are committed.
                    self.wait_for_commit(id).await?;
                }
                let began = matches!(what, Incoming::Batch(..)).then(Instant::now);
                let snapshot = self.handle(what, &mut courier)?;
                self.send(&mut courier).await?;
                if let (Some(began), Head::Source { reader, .. }) = (began, &self.head) {
                    reader.taken(began.elapsed());
                }
                if let Some((snapshot, own)) = snapshot.zip(self.checkpoints.as_mut()) {
                    own.last_passed = snapshot.checkpoint;
                    courier.passed = snapshot.checkpoint;
                    own.reports
                        .send(Report::Snapshot(snapshot))
                        .map_err(|_| Gone)?;
                }
            }
            if ended {
                return self.finish().await;
            }
            if self.goes_on() {
                self.go_on(&mut courier).await?;
            }
            self.report_end()?;
            tokio::task::yield_now().await;
        }
    }

    /// Sends what leaves the task. Its nodes are blocked while nobody has room for it.
    async fn send(&mut self, courier: &mut Courier) -> Result<(), Gone> {
        let mut sending = pin!(courier.send());
        tokio::select! {
            biased;
            sent = &mut sending => return sent,
            () = std::future::ready(()) => {}
        }
        self.block(true);
        let sent = sending.await;
        self.block(false);
        sent
    }

    fn block(&self, is_blocked: bool) {
        if let Head::Source { progress, .. } = &self.head {
            progress.block(self.index, is_blocked);
        }
        for link in &self.chain {
            link.progress.block(link.task, is_blocked);
        }
    }

    /// Whether an operator is to go on with what is due. Not behind a barrier that a later
    /// run goes on from: that one does it.
    fn goes_on(&self) -> bool {
        !self.is_gone_on_from && self.chain.iter().any(Link::has_more) && !self.waits()
    }

    /// Has operators process the next part of what is due.
    async fn go_on(&mut self, courier: &mut Courier) -> Result<(), TaskError> {
        let mut flow = Flow {
            chain: &mut self.chain,
            clock: &*self.context.clock,
            courier,
            snapshots: &mut Vec::new(),
        };
        flow.go_on()?;
        Ok(self.send(courier).await?)
    }

    /// Whether there is no room before the checkpoint in progress is written. Until the task
    /// has passed its barrier it must not wait, or the checkpoint would never be complete.
    fn waits(&self) -> bool {
        self.is_full() && self.unheard().is_some()
    }

    /// Tells the coordinator when all is done that is due at the end of event time: only
    /// then the last checkpoint has all results.
    fn report_end(&mut self) -> Result<(), TaskError> {
        if self.ending == EndOfTime::Begun
            && !self.chain.iter().any(Link::has_more)
            && let Some(own) = &self.checkpoints
        {
            own.reports.send(Report::Ended).map_err(|_| Gone)?;
            self.ending = EndOfTime::Reported;
        }
        Ok(())
    }

    /// Finishes the sinks: their rows are complete only with the dead letters of the
    /// others.
    async fn finish(mut self) -> Result<(), TaskError> {
        let ending = match self.is_gone_on_from || self.context.stop.asked() {
            true => Ending::Stopped,
            false => Ending::Complete,
        };
        let (answer, answered) = oneshot::channel();
        let ended = DeadLetterMessage::Ended(self.number, answer);
        let dead_letters = &self.context.dead_letters;
        dead_letters.send(ended).await.map_err(|_| Gone)?;
        if self.sinks().next().is_some() {
            answered.await.map_err(|_| Gone)?;
        }
        for sink in self.sinks() {
            sink.finish(ending)?;
        }
        Ok(())
    }

    fn sinks(&mut self) -> impl Iterator<Item = &mut Box<dyn Sink>> {
        self.chain
            .iter_mut()
            .filter_map(|link| match &mut link.work {
                Work::Sink(sink) => Some(sink),
                Work::Operator(_) => None,
            })
    }

    /// Whether a node of the task has to be told when a checkpoint is committed.
    fn wants_commits(&mut self) -> bool {
        let of_head = match &self.head {
            Head::Source { reader, .. } => reader.wants_commits(),
            Head::Gate { .. } => false,
        };
        of_head || self.sinks().next().is_some()
    }

    /// Whether a node of the task has no room before the next commit.
    fn is_full(&self) -> bool {
        self.chain.iter().any(|link| match &link.work {
            Work::Operator(operator) => operator.is_full(),
            Work::Sink(sink) => sink.is_full(),
        })
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), TaskError> {
        if let Some(own) = &mut self.checkpoints {
            own.last_told = id;
        }
        // The reader knows the positions of the last barrier alone.
        let is_last = (self.checkpoints.as_ref()).is_none_or(|own| own.last_passed == id);
        if let Head::Source { reader, .. } = &mut self.head
            && is_last
        {
            reader.committed();
        }
        for sink in self.sinks() {
            sink.committed(id)?;
        }
        Ok(())
    }

    /// The last barrier, if a node of the task waits for the commit of its
    /// checkpoint.
    fn uncommitted(&mut self) -> Option<CheckpointId> {
        if !self.wants_commits() {
            return None;
        }
        self.unheard()
    }

    /// The last barrier, if the task has not been told of its commit.
    fn unheard(&self) -> Option<CheckpointId> {
        let own = self.checkpoints.as_ref()?;
        (own.last_told < own.last_passed).then_some(own.last_passed)
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
        // What is due behind a barrier that a later run goes on from, that one does.
        let due = match self.is_gone_on_from {
            true => None,
            false => self.chain.iter().filter_map(Link::wake_at).min(),
        };
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
        let waits = self.waits();
        let goes_on = self.goes_on();
        let wants_commits = waits || self.wants_commits();
        let trigger = self.checkpoints.clone();
        let commit = async {
            match &mut self.checkpoints {
                Some(own) if wants_commits => match own.committed.changed().await {
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
            // Neither has to wait until there is none of the other.
            incoming = async {
                tokio::select! {
                    Some(look) = self.looks.recv() => Ok(vec![Incoming::Look(look)]),
                    incoming = self.head.next(&stop, trigger, dead_letters), if !waits => incoming,
                    else => std::future::pending().await,
                }
            } => incoming,
            () = std::future::ready(()), if goes_on => Ok(Vec::new()),
        }
    }

    /// Has the operators of the chain call the logic that takes over at this barrier.
    fn replace(&mut self) -> Result<(), TaskError> {
        let own = self.checkpoints.as_ref();
        let Some(replacement) = own.and_then(|own| own.replacement.borrow().clone()) else {
            return Ok(());
        };
        for link in &mut self.chain {
            link.progress = replacement.nodes[link.node].clone();
            if let (Work::Operator(operator), Some(logic)) =
                (&mut link.work, replacement.logic(link.node))
            {
                operator.replace(logic.clone())?;
            }
        }
        Ok(())
    }

    /// Shows the state of an operator. That somebody looks never makes a run fail.
    fn look(&mut self, request: LookRequest) {
        let LookRequest { node, look, answer } = request;
        let mut seen = Seen::new(look.rows_max);
        let looked = self.chain.iter_mut().find(|link| link.node == node);
        let looked = looked.map(|link| match &mut link.work {
            Work::Operator(operator) => operator.look(&look, &mut seen),
            Work::Sink(_) => Ok(()),
        });
        // Whoever asked may have gone.
        let _ = answer.send(looked.unwrap_or(Ok(())).map(|()| seen));
    }

    /// Passes one element through the chain. Returns the task's snapshot at a
    /// barrier.
    fn handle(
        &mut self,
        what: Incoming,
        courier: &mut Courier,
    ) -> Result<Option<TaskSnapshot>, TaskError> {
        let mut nodes = Vec::new();
        if let Incoming::Watermark(END_OF_TIME) = what {
            self.ending = EndOfTime::Begun;
        }
        let mut flow = Flow {
            chain: &mut self.chain,
            clock: &*self.context.clock,
            courier,
            snapshots: &mut nodes,
        };
        let mut checkpoint = None;
        let mut replaces = false;
        let (inlet, element) = match what {
            Incoming::Wake => {
                flow.wake()?;
                return Ok(None);
            }
            Incoming::Committed(id) => {
                self.committed(id)?;
                return Ok(None);
            }
            Incoming::Look(request) => {
                self.look(request);
                return Ok(None);
            }
            Incoming::Barrier(barrier, of_head) => {
                crash::point(Place::BarrierBefore);
                checkpoint = Some(barrier.id);
                replaces = barrier.purpose == Purpose::Replace;
                self.is_gone_on_from = barrier.purpose.leaves_windows_open();
                *flow.snapshots = of_head;
                (Inlet::default(), Element::Barrier(barrier))
            }
            Incoming::Batch(inlet, batch) => (inlet, Element::Batch(batch)),
            Incoming::Watermark(watermark) => (Inlet::default(), Element::Watermark(watermark)),
            Incoming::Idle => (Inlet::default(), Element::Idle),
            Incoming::End => (Inlet::default(), Element::End),
        };
        flow.courier.take(&self.entry, &element);
        flow.enter(inlet, element)?;
        if replaces {
            self.replace()?;
        }
        Ok(checkpoint.map(|checkpoint| {
            crash::point(Place::SnapshotAfter);
            TaskSnapshot {
                checkpoint,
                task: self.index,
                nodes,
            }
        }))
    }
}
