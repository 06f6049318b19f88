//! One attempt to run a revision: makes and connects its tasks, the coordinator of
//! its checkpoints, and the writer of dead letters.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Instrument;
use tracing::field::Empty;

use super::dead_letters::{DeadLetterWriter, TakenBack, Tasks};
use super::error::RunError;
use super::looks::{self, OpenLooks};
use super::pipeline::Pipeline;
use super::restore::{self, Start};
use super::revision::Revision;
use super::wiring::{CHANNEL_ELEMENTS, Wiring, chains};
use crate::checkpoint::barrier::{DeadLetterMessage, TaskCheckpoints};
use crate::checkpoint::coordinator::Coordinator;
use crate::checkpoint::manifest::LettersManifest;
use crate::checkpoint::transaction::Participants;
use crate::devices::open_with_reader;
use crate::element::{Barrier, NodeId, Purpose};
use crate::join::JoinOperator;
use crate::offload::Offload;
use crate::operator::transform::TransformOperator;
use crate::placement::Placement;
use crate::plan::state::{INTERVAL_MS, KEEP};
use crate::plan::{MAIN_OUTPUT, NodeKind, StateBackend};
use crate::process::ProcessOperator;
use crate::router::Router;
use crate::sink::dead_letter::{DeadLetters, Writer};
use crate::sink::{SinkContext, SinkError};
use crate::source::SourceContext;
use crate::source::pace::Pace;
use crate::source::reader::SourceReader;
use crate::source::silence::SilenceWatch;
use crate::source::watermark::SharedWatermarks;
use crate::state::stored::StoredTable;
use crate::task::{EndOfTime, Head, Link, Task, TaskContext, TaskError, Work};
use crate::traces;
use crate::window::AggregateOperator;

/// A task, the coordinator, or the writer of dead letters, running.
pub(crate) type AttemptFuture = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

/// What one attempt is made of.
pub(super) struct Attempt<'a> {
    pub pipeline: &'a Pipeline,
    pub revision: Arc<Revision>,
    /// Takes the revision that replaces this one at a barrier.
    pub current: &'a Arc<Mutex<Arc<Revision>>>,
    pub offload: Offload,
}

impl Attempt<'_> {
    /// Runs until the end, or until something fails.
    pub async fn run(&self) -> Result<(), RunError> {
        let futures = tokio::select! {
            biased;
            futures = self.futures() => futures?,
            // Systems outside may let it wait for long, and nothing was read yet.
            () = self.pipeline.requests.stop().wait() => return Ok(()),
        };
        let mut running = JoinSet::new();
        for future in futures {
            running.spawn(future.in_current_span());
        }
        let mut failure: Option<RunError> = None;
        while let Some(ended) = running.join_next().await {
            let error = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(join) => RunError::Internal(join.to_string()),
            };
            // An echo says only that another one stopped; that one says why.
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

    /// Everything that has to run, connected, and restored from the checkpoint
    /// that the run starts from.
    pub async fn futures(&self) -> Result<Vec<AttemptFuture>, RunError> {
        let plan = &self.revision.plan;
        if let Some(path) = &plan.dead_letters {
            // Better now than at the first bad row, after hours of work.
            DeadLetters::try_path(path).map_err(RunError::DeadLetters)?;
        }
        let mut start = match &self.pipeline.durable {
            Some(durable) => {
                let span = traces::span!(
                    "restore",
                    pipeline = self.pipeline.name(),
                    checkpoint = Empty,
                );
                let restored =
                    restore::restore(self.pipeline, &self.revision, durable, self.offload);
                let restored = restored.instrument(span.clone()).await;
                let start = restored.inspect_err(|error| traces::fail(&span, error))?;
                span.record("checkpoint", start.next - 1);
                start
            }
            None => Start::fresh(&self.revision),
        };
        for (node, restored) in self.revision.nodes.iter().zip(&start.operators) {
            node.ledger.begin(restored.is_some());
        }
        let (dead_letters, dead_letter_receiver) = mpsc::channel(CHANNEL_ELEMENTS);
        let (reports, report_receiver) = mpsc::unbounded_channel();
        // The first barrier precedes the first row, so that the first checkpoint
        // records the starting point.
        let first = Barrier {
            id: start.next,
            purpose: Purpose::Start,
        };
        let (trigger, trigger_receiver) = watch::channel(match start.checkpoints_first {
            true => first,
            false => Barrier::default(),
        });
        let (committed, committed_receiver) = watch::channel(start.next - 1);
        let first = start.checkpoints_first.then_some(start.next);
        let durable = self.pipeline.durable.as_ref();
        let checkpoints = durable.map(|_| TaskCheckpoints {
            trigger: trigger_receiver,
            replacement: self.pipeline.replacement(),
            reports,
            committed: committed_receiver.clone(),
            last_passed: start.next - 1,
            last_told: start.next - 1,
            first,
        });
        let started_ms = start
            .started_ms
            .unwrap_or_else(|| self.pipeline.clock.now_ms());
        let chains = chains(plan, &self.revision.task_counts);
        let first_nodes = chains.iter().flat_map(|chain| {
            let tasks = self.revision.task_counts[chain[0]];
            std::iter::repeat_n(chain[0], tasks)
        });
        let writer = DeadLetterWriter {
            tasks: Tasks::of(plan, first_nodes),
            writer: Writer {
                pipeline: plan.name.clone(),
                started_ms: durable.map(|_| started_ms),
            },
            path: plan.dead_letters.clone(),
            stop: self.pipeline.requests.stop().clone(),
            taken_back: start
                .letters
                .iter()
                .map(|letters| TakenBack::of(letters, started_ms, plan))
                .collect(),
            passed: start.next - 1,
            first: durable.and(first).map(|first| (first, committed_receiver)),
        };
        let letters = LettersManifest {
            started_ms,
            place: plan.dead_letter_place(),
            taken_back: match first {
                Some(_) => std::mem::take(&mut start.letters),
                None => Vec::new(),
            },
        };
        let context = TaskContext {
            clock: self.pipeline.clock.clone(),
            dead_letters: dead_letters.clone(),
            stop: self.pipeline.requests.stop().clone(),
        };
        let _readers = self.wait_for_readers().await?;
        let looks = self.pipeline.looks().open();
        let tasks = self
            .build(&chains, &start, context, checkpoints, &looks)
            .await?;
        if let (Some(durable), Some(forgotten)) = (durable, &start.forgotten) {
            // Not before all outputs could be opened: a run that is refused loses
            // nothing.
            restore::forget(durable, forgotten, self.offload).await?;
        }
        if !start.lost.is_empty() {
            // Behind the checkpoint before the first row, where those of later checkpoints are
            // taken back.
            let after = first.unwrap_or(start.next - 1);
            let (answer, _) = oneshot::channel();
            let message = DeadLetterMessage::Written(after, start.lost, answer);
            // There is room for it: nobody has sent anything yet.
            let _ = dead_letters.try_send(message);
        }
        let mut futures: Vec<AttemptFuture> = Vec::with_capacity(tasks.len() + 2);
        if let Some(durable) = durable {
            let coordinator = Coordinator {
                pipeline: plan.name.clone(),
                nodes: self.revision.description.clone(),
                tables: start.tables,
                obsolete: start.obsolete,
                interval: self.interval(),
                keep: plan.state.as_ref().map_or(KEEP, |state| state.keep),
                spared: self.pipeline.spared.clone(),
                storage: durable.storage.clone(),
                participants: durable.participants.clone(),
                offload: self.offload,
                clock: self.pipeline.clock.clone(),
                requests: self.pipeline.requests.clone(),
                budget: self.pipeline.budget.clone(),
                trigger,
                replacement: self.pipeline.replacement(),
                reports: report_receiver,
                committed,
                dead_letters,
                letters: Some(letters),
                given_up: start.given_up,
                tasks: tasks.len(),
                next: start.next,
                checkpoints_first: start.checkpoints_first,
                on_done: {
                    let pipeline = self.pipeline.clone();
                    let current = self.current.clone();
                    Box::new(move |done, replaced| {
                        pipeline.record(done);
                        if let Some(replaced) = replaced {
                            // A restart begins with it.
                            let number = pipeline.number_revision();
                            let mut current =
                                current.lock().unwrap_or_else(PoisonError::into_inner);
                            *current = Arc::new(current.replaced(number, replaced));
                        }
                    })
                },
            };
            futures.push(Box::pin(async { Ok(coordinator.run().await?) }));
        } else {
            drop(dead_letters);
        }
        let writing = writer.run(dead_letter_receiver);
        futures.push(Box::pin(async {
            // It ends behind the tasks.
            let _looks = looks;
            writing.await.map_err(RunError::DeadLetters)
        }));
        for task in tasks {
            futures.push(Box::pin(async { Ok(task.run().await?) }));
        }
        Ok(futures)
    }

    fn interval(&self) -> Duration {
        let state = self.revision.plan.state.as_ref();
        Duration::from_millis(state.map_or(INTERVAL_MS, |state| state.interval_ms))
    }

    /// The participants in the commit of a checkpoint.
    fn participants(&self) -> Participants {
        let durable = self.pipeline.durable.as_ref();
        durable.map_or_else(Participants::default, |durable| {
            durable.participants.clone()
        })
    }

    /// Whether there are checkpoints after the process has ended.
    fn are_checkpoints_kept(&self) -> bool {
        let state = self.revision.plan.state.as_ref();
        state.is_some_and(|state| matches!(state.backend, StateBackend::RocksDb { .. }))
    }

    fn placement(&self, node: NodeId, task: usize) -> Placement {
        Placement::on_one_host(task, self.revision.task_counts[node])
    }

    /// Waits until the named pipes that sinks write to have readers, who do not see their
    /// end while the returned files are open.
    async fn wait_for_readers(&self) -> Result<Vec<File>, RunError> {
        let mut opened = Vec::new();
        for node in &self.revision.plan.nodes {
            if let NodeKind::Sink(sink) = &node.kind
                && let Some(pipe) = sink.connector.pipe()
            {
                let what = format!("sink `{}`", node.name);
                let file = open_with_reader(pipe, &what).await;
                let file = file.map_err(|cause| SinkError::of_file(&node.name, pipe, &cause));
                opened.push(file.map_err(TaskError::Sink)?);
            }
        }
        Ok(opened)
    }

    /// Makes every task, connected to the others.
    async fn build(
        &self,
        chains: &[Vec<NodeId>],
        start: &Start,
        context: TaskContext,
        checkpoints: Option<TaskCheckpoints>,
        looks: &OpenLooks,
    ) -> Result<Vec<Task>, RunError> {
        let mut wiring = Wiring::new(
            &self.revision.plan,
            &self.revision.task_counts,
            chains,
            self.pipeline.looks(),
        );
        let watches = SilenceWatch::of_plan(&self.revision.plan);
        let mut tasks = Vec::new();
        for chain in chains {
            for index in 0..self.revision.task_counts[chain[0]] {
                let head = self.head(chain, index, start, &watches, &mut wiring);
                let (head, entry, members) = head.await?;
                let watermarks = match &head {
                    Head::Source { reader, .. } => Some(reader.watermarks()),
                    Head::Gate { .. } => None,
                };
                let links = members
                    .iter()
                    .map(|&id| self.link(id, index, start, watermarks.as_ref(), &mut wiring))
                    .collect::<Result<Vec<_>, RunError>>()?;
                let (looker, looked_at) = looks::channel();
                for &id in members {
                    if self.revision.plan.nodes[id].kind.has_state() {
                        looks.add(id, looker.clone(), || {
                            self.stored(id, Placement::on_one_host(0, 1), start)
                        });
                    }
                }
                tasks.push(Task {
                    number: tasks.len(),
                    head,
                    entry,
                    chain: links,
                    index,
                    context: context.clone(),
                    checkpoints: checkpoints.clone(),
                    is_gone_on_from: false,
                    looks: looked_at,
                    ending: EndOfTime::default(),
                });
            }
        }
        Ok(tasks)
    }

    /// A task's source or gate, the router of a source's output, and the nodes of
    /// the task's chain.
    async fn head<'a>(
        &self,
        chain: &'a [NodeId],
        index: usize,
        start: &Start,
        watches: &[Vec<Arc<SilenceWatch>>],
        wiring: &mut Wiring,
    ) -> Result<(Head, Arc<Router>, &'a [NodeId]), RunError> {
        let first = chain[0];
        let node = &self.revision.plan.nodes[first];
        let NodeKind::Source(plan) = &node.kind else {
            let gate = Head::Gate {
                gate: wiring.gate(first, index),
                leaves_windows_open: false,
            };
            return Ok((gate, Arc::default(), chain));
        };
        let context = SourceContext {
            node: node.name.as_str().into(),
            schema: node.schema().clone(),
            placement: self.placement(first, index),
            batch_rows: self.revision.plan.batch_rows,
            budget: self.pipeline.budget.clone(),
            pace: Arc::new(match self.offload {
                Offload::Threads => Pace::default(),
                Offload::Inline => Pace::unbound(),
            }),
            decode_workers: match self.offload {
                Offload::Threads => self.revision.plan.parallelism,
                Offload::Inline => 1,
            },
            clock: self.pipeline.clock.clone(),
            is_transactional: self.participants().commit_positions_of(&node.name),
            bootstraps: plan.bootstraps,
            is_checkpointed: self.pipeline.durable.is_some(),
            are_checkpoints_kept: self.are_checkpoints_kept(),
            restored: start.sources[first].clone(),
            left_by_others: start.left_by_others[first].clone(),
            stop: self.pipeline.requests.stop().clone(),
        };
        let reader = SourceReader::open(plan, context).await;
        let reader = reader.map_err(TaskError::Source)?;
        let reader = reader.watching(&watches[first]);
        self.revision.nodes[first].set_backlog(index, reader.backlog());
        let head = Head::Source {
            node: first,
            reader: Box::new(reader),
            progress: self.revision.nodes[first].clone(),
            task: index,
            has_ended: false,
        };
        let entry = wiring.routers(first, index).swap_remove(MAIN_OUTPUT);
        Ok((head, entry, &chain[1..]))
    }

    /// `watermarks` are those of the source in the task, if there is one.
    fn link(
        &self,
        id: NodeId,
        index: usize,
        start: &Start,
        watermarks: Option<&SharedWatermarks>,
        wiring: &mut Wiring,
    ) -> Result<Link, RunError> {
        let node = &self.revision.plan.nodes[id];
        let stop = self.pipeline.requests.stop();
        let work = match &node.kind {
            NodeKind::Source(_) => unreachable!("a source is the head of its task"),
            NodeKind::Transform(plan) => {
                let mut operator =
                    TransformOperator::new(&node.name, plan, node.schema().clone(), stop)?;
                if let Some(time) = &plan.event_time {
                    let Some(watermarks) = watermarks else {
                        unreachable!("an operator with event times is in its source's task");
                    };
                    let clock = self.pipeline.clock.clone();
                    operator = operator.timing(&node.name, time, watermarks.clone(), clock);
                }
                Work::Operator(Box::new(operator))
            }
            NodeKind::Aggregate(plan) => {
                let stored = self.stored(id, self.placement(id, index), start);
                let clock = self.pipeline.clock.clone();
                let rows = self.revision.plan.batch_rows;
                let operator = AggregateOperator::new(&node.name, plan, rows, clock, stored, stop)?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Process(plan) => {
                let stored = self.stored(id, self.placement(id, index), start);
                let clock = self.pipeline.clock.clone();
                let rows = self.revision.plan.batch_rows;
                let operator = ProcessOperator::new(&node.name, plan, rows, clock, stored, stop)?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Join(plan) => {
                let stored = self.stored(id, self.placement(id, index), start);
                let clock = self.pipeline.clock.clone();
                let rows = self.revision.plan.batch_rows;
                let output = node.schema().clone();
                let operator = JoinOperator::new(&node.name, plan, output, rows, clock, stored)?;
                Work::Operator(Box::new(operator))
            }
            NodeKind::Sink(plan) => {
                let context = SinkContext {
                    pipeline: self.revision.plan.name.clone(),
                    is_checkpointed: self.pipeline.durable.is_some(),
                    are_checkpoints_kept: self.are_checkpoints_kept(),
                    waits_for_commit: self.pipeline.durable.is_some() && start.checkpoints_first,
                    participants: self.participants(),
                    checkpoint: start.checkpoint,
                    restored: start.sinks[id].clone(),
                    goes_back_to: start.goes_back_to,
                    left_behind: start.left_behind[id].clone(),
                    clock: self.pipeline.clock.clone(),
                    stop: self.pipeline.requests.stop().clone(),
                };
                let sink = plan.connector.open(&node.name, node.schema(), &context);
                Work::Sink(sink.map_err(TaskError::Sink)?)
            }
        };
        let changes = match &node.kind {
            NodeKind::Sink(sink) if sink.tells_changes => Some(node.schema().clone()),
            _ => None,
        };
        let progress = self.revision.nodes[id].clone();
        if start.operators[id].is_some_and(|restored| restored.had_ended()) {
            progress.set_had_ended();
        }
        Ok(Link {
            node: id,
            work,
            progress,
            task: index,
            outputs: wiring.routers(id, index),
            changes,
            flush_at_ms: None,
            held: None,
        })
    }

    /// The stored tables of one task of a keyed operator.
    fn stored(&self, id: NodeId, placement: Placement, start: &Start) -> Vec<StoredTable> {
        let Some(durable) = &self.pipeline.durable else {
            return Vec::new();
        };
        let tables = start.tables[id].iter().map(|&table| StoredTable {
            storage: durable.storage.clone(),
            table,
            shards: placement.shards(),
            restored: start.operators[id],
            budget: self.pipeline.budget.clone(),
        });
        tables.collect()
    }
}
