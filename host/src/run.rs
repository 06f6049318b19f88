//! Turns a plan into tasks, connects them, and runs them to their end.

/// What of a pipeline outlives a failure.
mod durable;
/// Whether and when a pipeline starts again.
mod restart;
/// What a run goes on from.
mod restore;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::budget::Budget;
use crate::checkpoint::barrier::{DeadLetterMessage, TaskCheckpoints, Trigger};
use crate::checkpoint::coordinator::{CheckpointError, Coordinator, Done, Offload};
use crate::checkpoint::savepoint::Savepoints;
use crate::checkpoint::storage::StorageError;
use crate::checkpoint::transaction::{Transaction, TransactionError};
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::CheckpointId;
use crate::element::Element;
use crate::element::NodeId;
use crate::gate::Gate;
use crate::operator::OperatorError;
use crate::operator::transform::TransformOperator;
use crate::plan::{Exchange, NodeKind, OutPort, Plan};
use crate::progress::{
    CheckpointProgress, NodeProgress, NodeSnapshot, Role, StateProgress, StateSnapshot,
};
use crate::router::{Consumer, Router, owned};
use crate::sink::dead_letter::DeadLetters;
use crate::sink::{SinkContext, SinkError};
use crate::source::SourceContext;
use crate::source::reader::Reader;
use crate::state::stored::StoredTable;
use crate::stop::Stop;
use crate::task::{Head, Link, Task, TaskContext, TaskError, Work};
use crate::window::AggregateOperator;

pub use durable::Durable;

/// Elements that wait between two tasks, at most. Together with the batch
/// size this bounds what is under way.
const CHANNEL_ELEMENTS: usize = 8;

/// A pipeline that is ready to run.
pub struct Job {
    plan: Arc<Plan>,
    clock: Arc<dyn Clock>,
    nodes: Vec<Arc<NodeProgress>>,
    task_counts: Vec<usize>,
    stop: Stop,
    durable: Option<Durable>,
    offload: Offload,
    budget: Arc<Budget>,
    state: Arc<StateProgress>,
    savepoints: Savepoints,
    /// The checkpoint to start from, until the run has one of its own.
    from: Arc<Mutex<Option<String>>>,
}

/// What a run did, when it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub pipeline: String,
    pub seconds: f64,
    /// It was asked to stop before its inputs had ended.
    pub stopped: bool,
    /// How often it failed and was started again.
    pub restarts: u32,
    pub nodes: Vec<NodeSnapshot>,
    /// Of a pipeline with checkpoints.
    pub state: Option<StateSnapshot>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    DeadLetters(SinkError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Fence(#[from] TransactionError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Trying again would not help.
    #[error("the run cannot go on from its checkpoint: {0}")]
    Restore(String),
    /// A bug of the host's own.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl From<OperatorError> for RunError {
    fn from(error: OperatorError) -> Self {
        RunError::Task(TaskError::Operator(error))
    }
}

impl RunError {
    /// It says no more than that something else has failed too.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(
            self,
            RunError::Task(TaskError::Gone) | RunError::Checkpoint(CheckpointError::Gone)
        )
    }
}

/// A part of a run: a task, the coordinator, the writer of dead letters.
pub(crate) type Part = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

impl Job {
    pub fn new(plan: Plan, clock: Arc<dyn Clock>) -> Self {
        let task_counts = plan.tasks();
        let nodes = plan
            .nodes
            .iter()
            .zip(&task_counts)
            .map(|(node, &tasks)| {
                let role = match node.kind {
                    NodeKind::Source(_) => Role::Source,
                    NodeKind::Sink(_) => Role::Sink,
                    NodeKind::Transform(_) | NodeKind::Aggregate(_) => Role::Operator,
                };
                Arc::new(NodeProgress::new(&node.name, role, tasks))
            })
            .collect();
        let memory = plan.state.as_ref().map(|state| state.memory_bytes_max);
        let budget = Arc::new(Budget::new(memory.unwrap_or(usize::MAX)));
        Job {
            plan: Arc::new(plan),
            clock,
            nodes,
            task_counts,
            stop: Stop::default(),
            durable: None,
            offload: Offload::default(),
            savepoints: Savepoints::new(budget.clone(), None),
            state: Arc::new(StateProgress::new(budget.clone())),
            budget,
            from: Arc::default(),
        }
    }

    /// Has everything done on one thread, so that its order can be repeated.
    pub(crate) fn inline(mut self) -> Self {
        self.offload = Offload::Inline;
        self
    }

    /// Through which a checkpoint is asked for.
    pub(crate) fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }

    /// Has checkpoints kept there, and goes on from the last one. The plan says
    /// how often.
    pub fn keeping(mut self, durable: Durable) -> Self {
        self.savepoints = Savepoints::new(self.budget.clone(), durable.requests.clone());
        self.durable = Some(durable);
        self
    }

    /// Goes on from the checkpoint of this name or number, and not from the last
    /// one. Files of rows are cut to where they were; what topics and folders
    /// have got since comes again.
    pub fn starting_from(self, checkpoint: &str) -> Self {
        *self.from() = Some(checkpoint.to_owned());
        self
    }

    fn from(&self) -> MutexGuard<'_, Option<String>> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes checkpoints under names that are kept.
    pub fn savepoints(&self) -> Savepoints {
        self.savepoints.clone()
    }

    /// Counters of the nodes, in the plan's order, readable while it runs.
    pub fn progress(&self) -> Vec<Arc<NodeProgress>> {
        self.nodes.clone()
    }

    /// How large the state is, of a pipeline with checkpoints, readable while it
    /// runs.
    pub fn state(&self) -> Option<Arc<StateProgress>> {
        self.durable.as_ref().map(|_| self.state.clone())
    }

    /// Asks the run to end early.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until every input has ended, a stop was asked for, or something
    /// failed more often than the plan allows; then nothing of it goes on.
    pub async fn run(self) -> Result<Summary, RunError> {
        let started = Instant::now();
        // Ends with the run.
        let mut beside = JoinSet::new();
        beside.spawn(self.savepoints().serve());
        let mut failures = restart::Failures::new(self.plan.restart);
        while let Err(error) = self.attempt().await {
            let Some(delay) = failures.add(&error).filter(|_| !self.stop.asked()) else {
                return Err(error);
            };
            tracing::warn!(
                pipeline = self.plan.name,
                "failed, and is started again in {}: {error}",
                humantime::format_duration(delay)
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.wait() => return Err(error),
            }
        }
        if let Some(durable) = &self.durable {
            durable.finish().await;
        }
        Ok(Summary {
            pipeline: self.plan.name.clone(),
            seconds: started.elapsed().as_secs_f64(),
            stopped: self.stop.asked(),
            restarts: failures.count(),
            nodes: self.nodes.iter().map(|node| node.snapshot()).collect(),
            state: self.state().map(|state| state.snapshot()),
        })
    }

    /// Runs until the end, or until something fails.
    async fn attempt(&self) -> Result<(), RunError> {
        let mut running = JoinSet::new();
        for part in self.parts().await? {
            running.spawn(part);
        }
        let mut failure: Option<RunError> = None;
        while let Some(ended) = running.join_next().await {
            let error = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(join) => RunError::Internal(join.to_string()),
            };
            // The part whose end made this one stop says why.
            let is_echo = error.is_echo();
            if failure.is_none() || !is_echo {
                failure = Some(error);
            }
            if !is_echo {
                break;
            }
        }
        running.shutdown().await;
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Everything that has to run, connected and, where there is a checkpoint,
    /// as it was then.
    pub(crate) async fn parts(&self) -> Result<Vec<Part>, RunError> {
        let start = match &self.durable {
            Some(durable) => self.restore(durable).await?,
            None => restore::Start::fresh(&self.plan),
        };
        let (dead_letters, dead_letter_receiver) = mpsc::channel(CHANNEL_ELEMENTS);
        let (reports, report_receiver) = mpsc::unbounded_channel();
        // The first barrier goes before the first row: where a pipeline began
        // is in its first checkpoint.
        let first = Trigger {
            id: start.next,
            is_last: false,
        };
        let (trigger, trigger_receiver) = watch::channel(match start.is_fresh {
            true => first,
            false => Trigger::default(),
        });
        let (committed, committed_receiver) = watch::channel(start.next - 1);
        let checkpoints = self.durable.as_ref().map(|_| TaskCheckpoints {
            trigger: trigger_receiver,
            reports,
            committed: committed_receiver,
            passed: start.next - 1,
            heard: start.next - 1,
            first: start.is_fresh.then_some(start.next),
        });
        let writer = DeadLetterWriter {
            path: self.plan.dead_letters.clone(),
            kept: start.dead_letter_bytes,
            passed: start.next - 1,
        };
        let context = TaskContext {
            clock: self.clock.clone(),
            dead_letters: dead_letters.clone(),
            stop: self.stop.clone(),
        };
        let tasks = self.build(&start, context, checkpoints).await?;
        let mut parts: Vec<Part> = Vec::with_capacity(tasks.len() + 2);
        if let Some(durable) = &self.durable {
            let coordinator = Coordinator {
                plan: self.plan.clone(),
                tables: start.tables,
                interval: self.interval(),
                keep: self.plan.state.as_ref().map_or(2, |state| state.keep),
                storage: durable.storage.clone(),
                transaction: durable.transaction.clone(),
                offload: self.offload,
                clock: self.clock.clone(),
                stop: self.stop.clone(),
                budget: self.budget.clone(),
                savepoints: self.savepoints(),
                trigger,
                reports: report_receiver,
                committed,
                dead_letters,
                tasks: tasks.len(),
                source_tasks: tasks
                    .iter()
                    .filter(|task| matches!(task.head, Head::Source { .. }))
                    .count(),
                next: start.next,
                is_fresh: start.is_fresh,
                on_done: {
                    let durable = durable.clone();
                    let from = self.from.clone();
                    let state = self.state.clone();
                    Box::new(move |done| {
                        log_done(done);
                        state.set_checkpoint(CheckpointProgress {
                            id: done.id,
                            bytes: done.bytes,
                            milliseconds: done.took.as_millis() as u64,
                        });
                        // A restart goes on from this one.
                        from.lock().unwrap_or_else(PoisonError::into_inner).take();
                        durable.copy(done.id, done.name.is_some());
                    })
                },
            };
            parts.push(Box::pin(async { Ok(coordinator.run().await?) }));
        } else {
            drop(dead_letters);
        }
        parts.push(Box::pin(writer.run(dead_letter_receiver)));
        for task in tasks {
            parts.push(Box::pin(async { Ok(task.run().await?) }));
        }
        Ok(parts)
    }

    fn interval(&self) -> Duration {
        let interval_ms = self.plan.state.as_ref().map(|state| state.interval_ms);
        Duration::from_millis(interval_ms.unwrap_or(10_000))
    }

    /// Makes every task, connected to the others.
    async fn build(
        &self,
        start: &restore::Start,
        context: TaskContext,
        checkpoints: Option<TaskCheckpoints>,
    ) -> Result<Vec<Task>, RunError> {
        let chains = chains(&self.plan, &self.task_counts);
        let mut wiring = Wiring::new(&self.plan, &self.task_counts, &chains);
        let mut tasks = Vec::new();
        for chain in &chains {
            for index in 0..self.task_counts[chain[0]] {
                let (head, entry, members) = self.head(chain, index, start, &mut wiring).await?;
                let links = members
                    .iter()
                    .map(|&id| self.link(id, index, start, &mut wiring))
                    .collect::<Result<Vec<_>, RunError>>()?;
                tasks.push(Task {
                    head,
                    entry,
                    chain: links,
                    index,
                    context: context.clone(),
                    checkpoints: checkpoints.clone(),
                });
            }
        }
        Ok(tasks)
    }

    /// Where a task's elements come from, who else reads them, and the nodes
    /// of its chain.
    async fn head<'a>(
        &self,
        chain: &'a [NodeId],
        index: usize,
        start: &restore::Start,
        wiring: &mut Wiring,
    ) -> Result<(Head, Router, &'a [NodeId]), RunError> {
        let first = chain[0];
        let node = &self.plan.nodes[first];
        let NodeKind::Source(plan) = &node.kind else {
            let gate = Head::Gate(wiring.gate(first, index));
            return Ok((gate, Router::default(), chain));
        };
        let context = SourceContext {
            node: node.name.as_str().into(),
            schema: node.output.clone(),
            task: index,
            tasks: self.task_counts[first],
            batch_rows: self.plan.batch_rows,
            decode_workers: match self.offload {
                Offload::Threads => self.plan.parallelism,
                Offload::Inline => 1,
            },
            clock: self.clock.clone(),
            is_transactional: self
                .durable
                .as_ref()
                .is_some_and(|durable| durable.transaction.is_some()),
            restored: start.sources[first].clone(),
        };
        let reader = Reader::open(plan, context).await;
        let head = Head::Source {
            node: first,
            reader: Box::new(reader.map_err(TaskError::Source)?),
            progress: self.nodes[first].clone(),
            has_ended: false,
        };
        let entry = wiring.router(first, index, OutPort::Main);
        Ok((head, entry, &chain[1..]))
    }

    fn link(
        &self,
        id: NodeId,
        index: usize,
        start: &restore::Start,
        wiring: &mut Wiring,
    ) -> Result<Link, RunError> {
        let node = &self.plan.nodes[id];
        let work = match &node.kind {
            NodeKind::Source(_) => unreachable!("a source is the head of its task"),
            NodeKind::Transform(plan) => {
                let operator = TransformOperator::new(&node.name, plan, node.output.clone())?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Aggregate(plan) => {
                let shelf = self.shelf(id, index, start);
                let clock = self.clock.clone();
                let rows = self.plan.batch_rows;
                let operator = AggregateOperator::new(&node.name, plan, rows, clock, shelf)?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Sink(plan) => {
                let durable = self.durable.as_ref();
                let transaction = durable.and_then(|durable| durable.transaction.clone());
                let context = SinkContext {
                    is_checkpointed: self.durable.is_some(),
                    is_transactional: transaction.is_some(),
                    transactions: transaction
                        .and_then(Transaction::handle)
                        .into_iter()
                        .collect(),
                    restored: start.sinks[id].clone(),
                };
                let sink = plan.connector.open(&node.name, &node.output, &context);
                Work::Sink(sink.map_err(TaskError::Sink)?)
            }
        };
        Ok(Link {
            node: id,
            work,
            progress: self.nodes[id].clone(),
            task: index,
            router: wiring.router(id, index, OutPort::Main),
            late: wiring.router(id, index, OutPort::Late),
        })
    }

    /// Where the state of an aggregate's task is kept.
    fn shelf(&self, id: NodeId, index: usize, start: &restore::Start) -> Option<StoredTable> {
        let durable = self.durable.as_ref()?;
        Some(StoredTable {
            storage: durable.storage.clone(),
            table: start.tables[id]?,
            shards: owned(index, self.task_counts[id]),
            restored: start.aggregates[id],
            budget: self.budget.clone(),
        })
    }
}

fn log_done(done: &Done) {
    tracing::debug!(
        checkpoint = done.id,
        name = done.name,
        bytes = done.bytes,
        milliseconds = done.took.as_millis() as u64,
        "checkpoint done"
    );
}

/// Nodes that run in one task, in flow order: each is the only reader of the
/// one before, and gets its rows from the same task.
fn chains(plan: &Plan, task_counts: &[usize]) -> Vec<Vec<NodeId>> {
    let mut chains: Vec<Vec<NodeId>> = Vec::new();
    let mut chain_of = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let previous = match node.inputs.as_slice() {
            [edge] if edge.port == OutPort::Main => Some(edge).filter(|edge| {
                let same_task = match edge.exchange {
                    Exchange::Forward => task_counts[edge.from] == task_counts[id],
                    Exchange::Hash(_) => task_counts[edge.from] == 1 && task_counts[id] == 1,
                };
                same_task && readers(plan, edge.from) == 1
            }),
            _ => None,
        };
        match previous {
            Some(edge) => {
                let chain: usize = chain_of[edge.from];
                chains[chain].push(id);
                chain_of.push(chain);
            }
            None => {
                chain_of.push(chains.len());
                chains.push(vec![id]);
            }
        }
    }
    chains
}

fn readers(plan: &Plan, id: NodeId) -> usize {
    let edges = plan.nodes.iter().flat_map(|node| &node.inputs);
    edges
        .filter(|edge| edge.from == id && edge.port == OutPort::Main)
        .count()
}

/// What a task's gate reads: channels, each with the index of its edge.
type Inputs = Vec<(usize, mpsc::Receiver<Element>)>;

/// The channels between tasks.
struct Wiring {
    routers: Vec<Vec<[Router; 2]>>,
    gates: Vec<Vec<Inputs>>,
}

impl Wiring {
    fn new(plan: &Plan, task_counts: &[usize], chains: &[Vec<NodeId>]) -> Self {
        let mut wiring = Wiring {
            routers: task_counts
                .iter()
                .map(|&tasks| (0..tasks).map(|_| Default::default()).collect())
                .collect(),
            gates: task_counts
                .iter()
                .map(|&tasks| (0..tasks).map(|_| Vec::new()).collect())
                .collect(),
        };
        for &id in chains.iter().map(|chain| &chain[0]) {
            for (index, edge) in plan.nodes[id].inputs.iter().enumerate() {
                for upstream in 0..task_counts[edge.from] {
                    let mut connect = |downstream: usize| {
                        let (sender, receiver) = mpsc::channel(CHANNEL_ELEMENTS);
                        wiring.gates[id][downstream].push((index, receiver));
                        sender
                    };
                    let consumer = match &edge.exchange {
                        Exchange::Forward => Consumer::One(connect(upstream % task_counts[id])),
                        Exchange::Hash(_) if task_counts[id] == 1 => Consumer::One(connect(0)),
                        Exchange::Hash(key) => Consumer::Sharded {
                            key: key.clone(),
                            tasks: (0..task_counts[id]).map(connect).collect(),
                        },
                    };
                    let router = &mut wiring.routers[edge.from][upstream];
                    router[edge.port as usize].consumers.push(consumer);
                }
            }
        }
        wiring
    }

    fn router(&mut self, id: NodeId, task: usize, port: OutPort) -> Router {
        std::mem::take(&mut self.routers[id][task][port as usize])
    }

    fn gate(&mut self, id: NodeId, task: usize) -> Gate {
        Gate::new(std::mem::take(&mut self.gates[id][task]))
    }
}

/// Writes the dead letters of all tasks to one file, which exists only once
/// there is one. Letters of the next checkpoint wait until all tasks have passed
/// the barrier.
struct DeadLetterWriter {
    path: Option<PathBuf>,
    /// Bytes of the file that are the checkpoint's that the run goes on from.
    kept: Option<u64>,
    /// The last barrier that all tasks have passed.
    passed: CheckpointId,
}

impl DeadLetterWriter {
    async fn run(mut self, mut letters: mpsc::Receiver<DeadLetterMessage>) -> Result<(), RunError> {
        let mut file = None;
        // What is behind the checkpoint has to go even if no letter comes.
        if self.kept.is_some() && self.path.as_ref().is_some_and(|path| path.exists()) {
            self.open(&mut file).map_err(RunError::DeadLetters)?;
        }
        let mut ahead = Vec::new();
        while let Some(message) = letters.recv().await {
            match message {
                DeadLetterMessage::Written(passed, letters) if passed > self.passed => {
                    ahead.extend(letters);
                }
                DeadLetterMessage::Written(_, letters) => self
                    .write(&mut file, &letters)
                    .map_err(RunError::DeadLetters)?,
                DeadLetterMessage::Barrier(id, answer) => {
                    self.passed = id;
                    let bytes = self.sync(&mut file).map_err(RunError::DeadLetters)?;
                    // Nobody waits for it when the run is being torn down.
                    let _ = answer.send(bytes);
                    self.write(&mut file, &std::mem::take(&mut ahead))
                        .map_err(RunError::DeadLetters)?;
                }
            }
        }
        Ok(())
    }

    fn write(
        &self,
        file: &mut Option<DeadLetters>,
        letters: &[DeadLetter],
    ) -> Result<(), SinkError> {
        if letters.is_empty() {
            return Ok(());
        }
        self.open(file)?;
        match file {
            Some(file) => file.write(letters),
            None => Ok(()),
        }
    }

    fn open(&self, file: &mut Option<DeadLetters>) -> Result<(), SinkError> {
        if let (None, Some(path)) = (&file, &self.path) {
            *file = Some(DeadLetters::open(path, self.kept)?);
        }
        Ok(())
    }

    /// The length of the file, once all of it is on the disk.
    fn sync(&self, file: &mut Option<DeadLetters>) -> Result<u64, SinkError> {
        match (file, &self.path) {
            (Some(file), _) => file.sync(),
            // No letter yet: what is there is an earlier run's.
            (None, Some(path)) => Ok(std::fs::metadata(path).map_or(0, |found| found.len())),
            (None, None) => Ok(0),
        }
    }
}
