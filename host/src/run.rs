//! Turns a plan into tasks, connects them, and runs them to their end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::element::Element;
use crate::gate::Gate;
use crate::operator::transform::TransformOperator;
use crate::operator::{DeadLetter, OperatorError};
use crate::plan::{Exchange, NodeId, NodeKind, OutPort, Plan};
use crate::progress::{NodeProgress, NodeSnapshot, Role};
use crate::router::{Consumer, Router};
use crate::sink::dead_letter::DeadLetters;
use crate::sink::{self, SinkError};
use crate::source::{self, SourceContext};
use crate::task::{Head, Link, Stop, Task, TaskContext, TaskError, Work};
use crate::window::AggregateOperator;

/// Elements that wait between two tasks, at most. Together with the batch
/// size this bounds what is under way.
const CHANNEL_ELEMENTS: usize = 8;

/// A pipeline that is ready to run.
pub struct Job {
    plan: Plan,
    clock: Arc<dyn Clock>,
    nodes: Vec<Arc<NodeProgress>>,
    task_counts: Vec<usize>,
    stop: Stop,
}

/// What a run did, when it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub pipeline: String,
    pub seconds: f64,
    /// It was asked to stop before its inputs had ended.
    pub stopped: bool,
    pub nodes: Vec<NodeSnapshot>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    DeadLetters(SinkError),
    /// A bug of the host's own.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl From<OperatorError> for RunError {
    fn from(error: OperatorError) -> Self {
        RunError::Task(TaskError::Operator(error))
    }
}

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
        Job {
            plan,
            clock,
            nodes,
            task_counts,
            stop: Stop::default(),
        }
    }

    /// Counters of the nodes, in the plan's order, readable while it runs.
    pub fn progress(&self) -> Vec<Arc<NodeProgress>> {
        self.nodes.clone()
    }

    /// Asks the run to end early.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until every input has ended, a stop was asked for, or something
    /// failed; then nothing of it goes on.
    pub async fn run(self) -> Result<Summary, RunError> {
        let started = Instant::now();
        let (dead_letters, dead_letter_receiver) = mpsc::channel(CHANNEL_ELEMENTS);
        let mut writer = JoinSet::new();
        writer.spawn(write_dead_letters(
            self.plan.dead_letters.clone(),
            dead_letter_receiver,
        ));
        let tasks = self.build(dead_letters).await?;
        let mut running = JoinSet::new();
        for task in tasks {
            running.spawn(task.run());
        }
        let mut failure = None;
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                // The task whose end made this one stop says why.
                Ok(Err(TaskError::Gone)) if failure.is_none() => {
                    failure = Some(RunError::Task(TaskError::Gone));
                }
                Ok(Err(TaskError::Gone)) => {}
                Ok(Err(error)) => {
                    failure = Some(error.into());
                    break;
                }
                Err(join) => {
                    failure = Some(RunError::Internal(join.to_string()));
                    break;
                }
            }
        }
        running.shutdown().await;
        // The tasks' senders are gone: the writer ends when it has written all.
        let written = match writer.join_next().await {
            Some(Ok(written)) => written.map_err(RunError::DeadLetters),
            Some(Err(join)) => Err(RunError::Internal(join.to_string())),
            None => Ok(()),
        };
        match failure {
            Some(RunError::Task(TaskError::Gone)) | None => written?,
            Some(error) => return Err(error),
        }
        Ok(Summary {
            pipeline: self.plan.name.clone(),
            seconds: started.elapsed().as_secs_f64(),
            stopped: self.stop.asked(),
            nodes: self.nodes.iter().map(|node| node.snapshot()).collect(),
        })
    }

    /// Makes every task, connected to the others.
    async fn build(
        &self,
        dead_letters: mpsc::Sender<Vec<DeadLetter>>,
    ) -> Result<Vec<Task>, RunError> {
        let context = TaskContext {
            clock: self.clock.clone(),
            dead_letters,
            stop: self.stop.clone(),
        };
        let chains = chains(&self.plan, &self.task_counts);
        let mut wiring = Wiring::new(&self.plan, &self.task_counts, &chains);
        let mut tasks = Vec::new();
        for chain in &chains {
            for index in 0..self.task_counts[chain[0]] {
                tasks.push(
                    self.task(chain, index, &mut wiring, context.clone())
                        .await?,
                );
            }
        }
        Ok(tasks)
    }

    async fn task(
        &self,
        chain: &[NodeId],
        index: usize,
        wiring: &mut Wiring,
        context: TaskContext,
    ) -> Result<Task, RunError> {
        let first = &self.plan.nodes[chain[0]];
        let (head, entry, members) = match &first.kind {
            NodeKind::Source(plan) => {
                let reader = source::open(
                    plan,
                    SourceContext {
                        node: first.name.as_str().into(),
                        schema: first.output.clone(),
                        task: index,
                        tasks: self.task_counts[chain[0]],
                        batch_rows: self.plan.batch_rows,
                        decode_workers: self.plan.parallelism,
                        clock: self.clock.clone(),
                    },
                )
                .await
                .map_err(TaskError::Source)?;
                let head = Head::Source {
                    reader,
                    progress: self.nodes[chain[0]].clone(),
                };
                (
                    head,
                    wiring.router(chain[0], index, OutPort::Main),
                    &chain[1..],
                )
            }
            _ => (
                Head::Gate(wiring.gate(chain[0], index)),
                Router::default(),
                chain,
            ),
        };
        let links = members
            .iter()
            .map(|&id| self.link(id, index, wiring))
            .collect::<Result<Vec<_>, RunError>>()?;
        Ok(Task {
            head,
            entry,
            chain: links,
            context,
        })
    }

    fn link(&self, id: NodeId, index: usize, wiring: &mut Wiring) -> Result<Link, RunError> {
        let node = &self.plan.nodes[id];
        let work = match &node.kind {
            NodeKind::Source(_) => unreachable!("a source is the head of its task"),
            NodeKind::Transform(plan) => {
                let operator = TransformOperator::new(&node.name, plan, node.output.clone())?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Aggregate(plan) => Work::Operator(Box::new(AggregateOperator::new(
                &node.name,
                plan,
                self.plan.batch_rows,
                self.clock.clone(),
            )?)),
            NodeKind::Sink(plan) => {
                let sink = sink::open(&node.name, plan, &node.output).map_err(TaskError::Sink)?;
                Work::Sink(sink)
            }
        };
        Ok(Link {
            work,
            progress: self.nodes[id].clone(),
            task: index,
            router: wiring.router(id, index, OutPort::Main),
            late: wiring.router(id, index, OutPort::Late),
        })
    }
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

/// The channels between tasks.
struct Wiring {
    routers: Vec<Vec<[Router; 2]>>,
    gates: Vec<Vec<Vec<(usize, mpsc::Receiver<Element>)>>>,
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
/// there is one.
async fn write_dead_letters(
    path: Option<PathBuf>,
    mut letters: mpsc::Receiver<Vec<DeadLetter>>,
) -> Result<(), SinkError> {
    let mut writer: Option<DeadLetters> = None;
    while let Some(letters) = letters.recv().await {
        let Some(path) = &path else { continue };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(DeadLetters::open(path)?),
        };
        writer.write(&letters)?;
    }
    Ok(())
}
