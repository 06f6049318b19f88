//! Runs a pipeline on one thread in an order that a seed decides: which task
//! runs next, when a checkpoint is made, and when everything is stopped or killed.
//! The same seed gives the same run, so a failure can be reproduced.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::run::{AttemptFuture, Job, RunError};

/// Runs a pipeline in the order that a seed decides.
pub struct Simulation {
    random: fastrand::Rng,
    /// On average, one step of this many requests a checkpoint.
    checkpoint_one_in: u64,
    /// After how many steps of the next run it is asked to stop.
    stop_after: Option<u64>,
}

/// How a simulated run ended.
#[derive(Debug)]
pub enum Ended {
    /// The pipeline ended, or was stopped.
    Done,
    Failed(RunError),
    /// It was killed after the given number of steps.
    Killed,
}

/// A part of the run, and whether it is ready to be polled.
struct SimulatedPart {
    part: AttemptFuture,
    is_ready: Arc<Ready>,
}

#[derive(Debug)]
struct Ready {
    is_ready: AtomicBool,
    /// Wakes the simulation itself.
    outer: Waker,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.is_ready.store(true, Ordering::SeqCst);
        self.outer.wake_by_ref();
    }
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Simulation {
            checkpoint_one_in: random.u64(5..200),
            random,
            stop_after: None,
        }
    }

    /// Has the next run asked to stop after a number of steps.
    pub fn stop_after(&mut self, steps: u64) {
        self.stop_after = Some(steps);
    }

    /// Runs a job until it ends, or for a number of steps. A step polls one
    /// task.
    pub fn run(&mut self, job: Job, steps_max: Option<u64>) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.drive(job.inline(), steps_max)),
            Err(error) => Ended::Failed(RunError::Internal(error.to_string())),
        }
    }

    async fn drive(&mut self, job: Job, steps_max: Option<u64>) -> Ended {
        let parts = match job.futures().await {
            Ok(parts) => parts,
            Err(error) => return Ended::Failed(error),
        };
        let requests = job.requests();
        let stop_after = self.stop_after.take();
        let mut running: Vec<SimulatedPart> = Vec::new();
        let mut parts = Some(parts);
        let mut steps = 0;
        let mut failure: Option<RunError> = None;
        poll_fn(|context| {
            if let Some(parts) = parts.take() {
                running = parts.into_iter().map(|part| start(part, context)).collect();
            }
            if running.is_empty() {
                let ended = failure.take().map_or_else(|| reconciled(&job), Err);
                return Poll::Ready(match ended {
                    Ok(()) => Ended::Done,
                    Err(error) => Ended::Failed(error),
                });
            }
            let ready: Vec<usize> = (0..running.len())
                .filter(|&index| running[index].is_ready.is_ready.load(Ordering::SeqCst))
                .collect();
            let Some(&index) = self.random.choice(&ready) else {
                // The part that becomes ready first wakes this.
                return Poll::Pending;
            };
            if steps_max == Some(steps) {
                return Poll::Ready(Ended::Killed);
            }
            if stop_after == Some(steps) {
                requests.stop().ask();
            }
            steps += 1;
            if self.random.u64(0..self.checkpoint_one_in) == 0 {
                requests.memory_pressure();
            }
            let chosen = &mut running[index];
            chosen.is_ready.is_ready.store(false, Ordering::SeqCst);
            let waker = Waker::from(chosen.is_ready.clone());
            if let Poll::Ready(ended) = chosen.part.as_mut().poll(&mut Context::from_waker(&waker))
            {
                drop(running.swap_remove(index));
                if let Err(error) = ended {
                    let is_echo = error.is_echo();
                    if failure.is_none() || !is_echo {
                        failure = Some(error);
                    }
                    if !is_echo {
                        running.clear();
                    }
                }
            }
            // Lets the runtime wake tasks that have yielded.
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }
}

/// Refuses a run that has ended, and whose rows are not accounted for.
fn reconciled(job: &Job) -> Result<(), RunError> {
    let imbalances = job.reconcile(!job.stop().asked());
    match imbalances.first() {
        Some(imbalance) => Err(RunError::Internal(imbalance.to_string())),
        None => Ok(()),
    }
}

fn start(part: AttemptFuture, context: &Context<'_>) -> SimulatedPart {
    SimulatedPart {
        // The simulation decides whose turn it is, not tokio's budget.
        part: Box::pin(tokio::task::unconstrained(part)),
        is_ready: Arc::new(Ready {
            is_ready: AtomicBool::new(true),
            outer: context.waker().clone(),
        }),
    }
}
