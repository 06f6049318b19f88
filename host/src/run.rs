//! Runs one revision of a pipeline's plan to its end, and restarts it when it
//! fails.

/// Why a run failed.
mod error;
/// Storage of state and checkpoints, and the participants in a commit.
mod durable;
/// What outlives the revisions of a plan.
mod pipeline;
/// One revision of a plan.
mod revision;
/// What a run starts without.
mod dropped;
/// Which checkpoint a run starts from.
mod restore;
/// Migrates the states of a restored checkpoint.
mod migration;
/// Channels between tasks.
mod wiring;
/// Writes the file of dead letters.
mod dead_letters;
/// Makes the tasks and runs them once.
mod attempt;
/// Looks at a run from outside.
mod looks;
/// The threads of a pipeline.
mod threads;
/// Whether and when a failed run is restarted.
mod restart;
/// Whether every row is accounted for.
mod reconcile;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::attempt::Attempt;
use self::revision::Revision;
use crate::checkpoint::requests::Requests;
use crate::checkpoint::spared::SparedCheckpoint;
use crate::clock::Clock;
use crate::element::Purpose;
use crate::offload::Offload;
use crate::plan::Plan;
use crate::progress::{NodeProgress, NodeStatus, Restarting, Role, StateProgress, StateStatus};
use crate::stop::Stop;

pub(crate) use self::attempt::AttemptFuture;
pub use self::dropped::Dropped;
pub use self::durable::{Durable, commit_context};
pub use self::error::RunError;
pub use self::looks::{LookError, Looks};
pub use self::pipeline::Pipeline;
pub use self::reconcile::{Imbalance, reconcile};
pub use self::restore::{check_not_cut, cut_since};

/// A revision of a pipeline that is ready to run.
pub struct Job {
    pipeline: Pipeline,
    /// The one that runs: another one may replace it at a barrier.
    current: Arc<Mutex<Arc<Revision>>>,
    offload: Offload,
    /// Absent: enough for all cores, and for plugins that hold theirs.
    threads: Option<usize>,
    /// How many of them work at a time; absent: as many as there are cores.
    cores: Option<usize>,
    stands_back: bool,
    /// Whether a failure of a row or plugin ends it, whatever the plan says.
    ends_at_bad_rows: bool,
}

/// What a run did, once it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub pipeline: String,
    /// The number of the plan's revision, from 1 on since the process began.
    pub revision: u32,
    pub seconds: f64,
    /// It was asked to stop before its inputs had ended.
    pub stopped: bool,
    /// It ended so that the next revision continues from its last checkpoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub swapped: bool,
    /// How often it failed and was restarted.
    pub restarts: u32,
    pub nodes: Vec<NodeStatus>,
    /// Where rows are not accounted for, since the last restart: a bug of the host.
    pub imbalances: Vec<Imbalance>,
    /// Absent where no row became a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLetterSummary>,
    /// Absent where the pipeline has no checkpoints.
    pub state: Option<StateStatus>,
}

/// The rows that became dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetterSummary {
    pub rows: u64,
    /// The file that they are in.
    pub path: PathBuf,
    /// What was wrong with the first one.
    pub first: String,
}

impl Summary {
    /// How many rows all sources together have read.
    pub fn rows_read(&self) -> u64 {
        self.of(Role::Source).map(|node| node.rows_in).sum()
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &NodeStatus> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// How many rows were read, if every one of them was bad and no sink got any;
    /// `None` where nothing was read, or something was good.
    pub fn rows_all_bad(&self) -> Option<u64> {
        let read = self.rows_read();
        let bad: u64 = self
            .nodes
            .iter()
            .map(|node| node.failed + node.rejected)
            .sum();
        let late: u64 = self.nodes.iter().map(|node| node.late).sum();
        let written: u64 = self.of(Role::Sink).map(|node| node.rows_in).sum();
        (read > 0 && bad >= read && late == 0 && written == 0).then_some(read)
    }
}

impl Job {
    /// The first revision of a pipeline.
    pub fn new(plan: Plan, clock: Arc<dyn Clock>) -> Self {
        Job::revision(&Pipeline::of(&plan, clock), plan)
    }

    /// The next revision of a pipeline, which continues from its last checkpoint.
    /// The previous one must have ended; this withdraws its request to stop.
    pub fn revision(pipeline: &Pipeline, plan: impl Into<Arc<Plan>>) -> Self {
        pipeline.requests.stop().clear();
        Job {
            current: Arc::new(Mutex::new(Arc::new(Revision::new(
                pipeline.number_revision(),
                plan.into(),
            )))),
            pipeline: pipeline.clone(),
            offload: Offload::default(),
            threads: None,
            cores: None,
            stands_back: false,
            ends_at_bad_rows: false,
        }
    }

    /// Runs blocking calls on the task's thread, so that their order is
    /// repeatable.
    pub(crate) fn inline(mut self) -> Self {
        self.offload = Offload::Inline;
        self
    }

    /// Is not restarted after a failure that a row or a plugin is to blame for, whatever the
    /// plan says.
    pub fn ending_at_bad_rows(mut self) -> Self {
        self.ends_at_bad_rows = true;
        self
    }

    /// Sets the number of threads.
    pub fn on_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets how many threads work at a time beside those that plugins hold, in place of one
    /// for each core.
    pub fn on_cores(mut self, cores: usize) -> Self {
        self.cores = Some(cores);
        self
    }

    /// Has other threads of the process go before those of the run, as ones that answer
    /// requests.
    pub fn standing_back(mut self) -> Self {
        self.stands_back = true;
        self
    }

    /// Keeps checkpoints in `durable`, and continues from the last one there. The
    /// plan says how often they are made.
    pub fn keeping(mut self, durable: Durable) -> Self {
        self.pipeline = self.pipeline.keeping(durable);
        self
    }

    /// Starts from the checkpoint of this name or number, not from the last one.
    /// Output files are cut to their length at the checkpoint, and later numbered ones are
    /// deleted; sinks that cannot take rows back, as of topics, write those after it again.
    pub fn starting_from(self, checkpoint: &str) -> Self {
        self.pipeline.wanted_start().from = Some(checkpoint.to_owned());
        self
    }

    /// The same, with a checkpoint that is kept until the run has made one of its own.
    pub fn going_back_to(self, spared: &Arc<SparedCheckpoint>) -> Self {
        self.pipeline.wanted_start().spared = Some(spared.clone());
        self.starting_from(&spared.id.to_string())
    }

    /// Starts these nodes without what the checkpoint has of them: a source from
    /// the beginning, a sink with a new file, an operator without state. Nodes that
    /// are not in the plan any more are forgotten.
    pub fn dropping(self, nodes: &[String]) -> Self {
        self.pipeline.wanted_start().dropped = nodes.to_vec();
        self
    }

    /// Of what is dropped, keeps what fits, and misses nothing that is gone: the same was
    /// dropped before, or is still to be.
    pub fn if_needed(self) -> Self {
        self.pipeline.wanted_start().if_needed = true;
        self
    }

    /// Starts without a checkpoint, and deletes those that there are, savepoints
    /// and copies included, once everything could be opened.
    pub fn starting_fresh(self) -> Self {
        self.pipeline.wanted_start().fresh = true;
        self
    }

    /// What outlives this revision.
    pub fn pipeline(&self) -> Pipeline {
        self.pipeline.clone()
    }

    /// Takes requests for checkpoints.
    pub fn requests(&self) -> Requests {
        self.pipeline.requests.clone()
    }

    /// Counters of the nodes, in the plan's order, readable while it runs.
    pub fn progress(&self) -> Vec<Arc<NodeProgress>> {
        self.current().nodes.clone()
    }

    fn current(&self) -> Arc<Revision> {
        // A panic elsewhere leaves no change half made.
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// How large the state is, readable while it runs; absent where the pipeline
    /// has no checkpoints.
    pub fn state(&self) -> Option<Arc<StateProgress>> {
        let durable = self.pipeline.durable.as_ref();
        durable.map(|_| self.pipeline.state.clone())
    }

    /// Asks the run to end early.
    pub fn stop(&self) -> Stop {
        self.pipeline.requests.stop().clone()
    }

    /// Runs until every input has ended, a stop or swap was requested, or it
    /// failed more often than the plan allows. It runs on threads of its own, and
    /// dropping the future waits until these have ended.
    pub async fn run(self) -> Result<Summary, RunError> {
        let name = self.pipeline.name().to_owned();
        // A service has such a span, too.
        let span = tracing::error_span!(parent: None, "of", pipeline = name);
        let threads = self.threads.unwrap_or_else(|| {
            let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let cores = self.cores.unwrap_or_else(cores);
            // A call into a plugin holds its thread, whatever the plugin does
            // meanwhile: other tasks have threads left.
            cores + self.current().plugin_tasks()
        });
        let stands_back = self.stands_back;
        let run = self.run_here().instrument(span);
        threads::run(&name, threads, stands_back, run).await?
    }

    async fn run_here(self) -> Result<Summary, RunError> {
        let started = Instant::now();
        let (stop, requests) = (self.stop(), self.requests());
        // Ends with the run.
        let mut beside = JoinSet::new();
        if let Some(durable) = self.pipeline.durable.clone() {
            let requests = requests.clone();
            beside.spawn(async move { durable.serve(&requests).await });
        }
        if let Some(durable) = &self.pipeline.durable {
            durable.check_copies().await?;
        }
        let mut failures = restart::Failures::new(self.current().plan.restart);
        while let Err(error) = self.attempt().run().await {
            if error.fault().is_of_row() && self.ends_at_bad_rows {
                return Err(error);
            }
            let retry = failures.add(&error);
            let Some(retry) = retry.filter(|_| !requests.ends_at_failure()) else {
                return Err(error);
            };
            // Nobody takes what this attempt has read for what the next one has.
            for node in &self.current().nodes {
                node.forget_read();
            }
            requests.restarted();
            let _waits = self
                .pipeline
                .restarts
                .begin(self.restarting(&retry, &error));
            if !retry.wait(&error, requests.until_ends_at_failure()).await {
                return Err(error);
            }
        }
        if let Some(durable) = &self.pipeline.durable {
            durable.finish().await?;
        }
        let last = self.pipeline.history().pop();
        let revision = self.current();
        let swapped = last.is_some_and(|last| last.purpose == Purpose::Swap);
        let imbalances = self.reconcile(!stop.asked() && !swapped);
        for imbalance in &imbalances {
            tracing::error!("rows are not accounted for, please report it: {imbalance}");
        }
        Ok(Summary {
            pipeline: self.pipeline.name().to_owned(),
            revision: revision.number,
            seconds: started.elapsed().as_secs_f64(),
            stopped: stop.asked(),
            swapped,
            restarts: failures.count(),
            nodes: revision.nodes.iter().map(|node| node.snapshot()).collect(),
            imbalances,
            dead_letters: dead_letters(&revision),
            state: self.state().map(|state| state.snapshot()),
        })
    }

    fn restarting(&self, retry: &restart::Retry, error: &RunError) -> Restarting {
        let failed_ms = self.pipeline.clock.now_ms();
        Restarting {
            at_ms: failed_ms.saturating_add_unsigned(retry.delay.as_millis() as u64),
            failed_ms,
            failures: retry.failures,
            failures_max: retry.failures_max,
            message: error.to_string(),
            blame: error.fault().blame,
        }
    }

    /// Where the rows of the last attempt, which has ended well, are not accounted for.
    pub(crate) fn reconcile(&self, is_complete: bool) -> Vec<Imbalance> {
        let revision = self.current();
        reconcile(&revision.plan, &revision.nodes, is_complete)
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            pipeline: &self.pipeline,
            revision: self.current(),
            current: &self.current,
            offload: self.offload,
        }
    }

    /// The futures of one attempt, for a caller that decides their order.
    pub(crate) async fn futures(&self) -> Result<Vec<AttemptFuture>, RunError> {
        self.attempt().futures().await
    }
}

fn dead_letters(revision: &Revision) -> Option<DeadLetterSummary> {
    let nodes = &revision.nodes;
    let first = nodes.iter().find_map(|node| node.first_dead_letter())?;
    Some(DeadLetterSummary {
        rows: nodes.iter().map(|node| node.dead_letters()).sum(),
        path: revision.plan.dead_letters.clone()?,
        first: first.to_owned(),
    })
}
