//! Runs a revision of a pipeline to its end, and starts it again when it fails.

/// Why a run failed.
mod error;
/// Where state and checkpoints are, and what rows are committed with.
mod durable;
/// What outlives revisions.
mod pipeline;
/// A plan as it is run.
mod revision;
/// What a run goes on from.
mod restore;
/// Channels between tasks.
mod wiring;
/// The file of dead letters.
mod dead_letters;
/// Tasks, made and run once.
mod attempt;
/// The threads of a pipeline.
mod threads;
/// Whether and when it is started again.
mod restart;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::attempt::Attempt;
use self::revision::Revision;
use crate::checkpoint::requests::Requests;
use crate::clock::Clock;
use crate::element::Purpose;
use crate::offload::Offload;
use crate::plan::Plan;
use crate::progress::{NodeProgress, NodeStatus, StateProgress, StateStatus};
use crate::stop::Stop;

pub(crate) use self::attempt::Part;
pub use self::durable::Durable;
pub use self::error::RunError;
pub use self::pipeline::Pipeline;

/// A revision of a pipeline that is ready to run.
pub struct Job {
    pipeline: Pipeline,
    revision: Revision,
    offload: Offload,
    /// As many as there are cores, unless told otherwise.
    threads: Option<usize>,
}

/// What a run did, when it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub pipeline: String,
    /// Of the plan, since the process began: the first is 1.
    pub revision: u32,
    pub seconds: f64,
    /// It was asked to stop before its inputs had ended.
    pub stopped: bool,
    /// It ended for the next revision to go on from its last checkpoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub swapped: bool,
    /// How often it failed and was started again.
    pub restarts: u32,
    pub nodes: Vec<NodeStatus>,
    /// Of a pipeline with checkpoints.
    pub state: Option<StateStatus>,
}

impl Job {
    /// The first revision of a pipeline.
    pub fn new(plan: Plan, clock: Arc<dyn Clock>) -> Self {
        Job::revision(&Pipeline::of(&plan, clock), plan)
    }

    /// The next revision of a pipeline, which goes on from its last checkpoint.
    /// The one before must have ended; a stop that was asked of that one is over.
    pub fn revision(pipeline: &Pipeline, plan: Plan) -> Self {
        pipeline.requests.stop().clear();
        Job {
            revision: Revision::new(pipeline.number_revision(), plan),
            pipeline: pipeline.clone(),
            offload: Offload::default(),
            threads: None,
        }
    }

    /// Has everything done on one thread, so that its order can be repeated.
    pub(crate) fn inline(mut self) -> Self {
        self.offload = Offload::Inline;
        self
    }

    /// Runs on so many threads.
    pub fn on_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Has checkpoints kept there, and goes on from the last one. The plan says
    /// how often.
    pub fn keeping(mut self, durable: Durable) -> Self {
        self.pipeline = self.pipeline.keeping(durable);
        self
    }

    /// Goes on from the checkpoint of this name or number, and not from the last
    /// one. Files of rows are cut to where they were; what topics and folders
    /// have got since comes again.
    pub fn starting_from(self, checkpoint: &str) -> Self {
        self.pipeline.start_from(Some(checkpoint));
        self
    }

    /// What outlives this revision.
    pub fn pipeline(&self) -> Pipeline {
        self.pipeline.clone()
    }

    /// Where checkpoints are asked for.
    pub fn requests(&self) -> Requests {
        self.pipeline.requests.clone()
    }

    /// Counters of the nodes, in the plan's order, readable while it runs.
    pub fn progress(&self) -> Vec<Arc<NodeProgress>> {
        self.revision.nodes.clone()
    }

    /// How large the state is, of a pipeline with checkpoints, readable while it
    /// runs.
    pub fn state(&self) -> Option<Arc<StateProgress>> {
        let durable = self.pipeline.durable.as_ref();
        durable.map(|_| self.pipeline.state.clone())
    }

    /// Asks the run to end early.
    pub fn stop(&self) -> Stop {
        self.pipeline.requests.stop().clone()
    }

    /// Runs until every input has ended, a stop or a swap was asked for, or
    /// something failed more often than the plan allows; then nothing of it goes
    /// on. It runs on threads of its own; whoever drops the future waits until
    /// they have let go.
    pub async fn run(self) -> Result<Summary, RunError> {
        let name = self.pipeline.name().to_owned();
        let span = tracing::error_span!("pipeline", name);
        let threads = self.threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        threads::run(&name, threads, self.run_here().instrument(span)).await?
    }

    async fn run_here(self) -> Result<Summary, RunError> {
        let started = Instant::now();
        let stop = self.stop();
        // Ends with the run.
        let mut beside = JoinSet::new();
        if let Some(durable) = self.pipeline.durable.clone() {
            let requests = self.requests();
            beside.spawn(async move { durable.serve(&requests).await });
        }
        let mut failures = restart::Failures::new(self.revision.plan.restart);
        while let Err(error) = self.attempt().run().await {
            let Some(delay) = failures.add(&error).filter(|_| !stop.asked()) else {
                return Err(error);
            };
            tracing::warn!(
                "failed because of {}, and is started again in {}: {error}",
                error.fault().blame.name(),
                humantime::format_duration(delay)
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.wait() => return Err(error),
            }
        }
        if let Some(durable) = &self.pipeline.durable {
            durable.finish().await;
        }
        let last = self.pipeline.history().pop();
        Ok(Summary {
            pipeline: self.pipeline.name().to_owned(),
            revision: self.revision.number,
            seconds: started.elapsed().as_secs_f64(),
            stopped: stop.asked(),
            swapped: last.is_some_and(|last| last.purpose == Purpose::Swap),
            restarts: failures.count(),
            nodes: self
                .revision
                .nodes
                .iter()
                .map(|node| node.snapshot())
                .collect(),
            state: self.state().map(|state| state.snapshot()),
        })
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            pipeline: &self.pipeline,
            revision: &self.revision,
            offload: self.offload,
        }
    }

    /// Everything of one attempt that has to run, for whoever decides the order.
    pub(crate) async fn parts(&self) -> Result<Vec<Part>, RunError> {
        self.attempt().parts().await
    }
}
