//! Runs what is wanted of a pipeline, and goes back to what ran before where a change does
//! not hold.

/// Replays dead letters.
mod replaying;

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, block_in_place, spawn_blocking};
use tokio::time::{self, MissedTickBehavior, timeout};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::change::ChangePlan;
use super::content::Content;
use super::hosted::{Context, Failure, Hosted, News, Phase, Running, Wanted};
use super::kept::Kept;
use super::probation::{Baseline, Probation, Verdict, baselines, newer};
use super::recent::Recent;
use super::revision::{Planned, States};
use super::shadow::{Comparison, compare};
use super::store::{Agreed, ChangeOutcome, ChangeRecord, Ledger};
use crate::checkpoint::replacement::Replacement;
use crate::checkpoint::requests::Requests;
use crate::checkpoint::spared::SparedCheckpoint;
use crate::plan::StateBackend;
use crate::progress::{NodeProgress, Role};
use crate::run::{Durable, Job, Pipeline, RunError, Summary};
use crate::traces;

/// How often a new revision is looked at until it has held.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A change that waits for longer is shown as waiting.
const WAIT_SHOWN: Duration = Duration::from_secs(1);

/// How often it is looked at how busy nodes are.
const LOOK_AT_LOAD_EVERY: Duration = Duration::from_secs(1);

/// Runs what is wanted of a pipeline until it leaves.
pub async fn supervise(hosted: Arc<Hosted>, context: Arc<Context>) {
    // Until it leaves.
    let mut watching = JoinSet::new();
    watching.spawn(watch_load(hosted.clone()));
    let course = Course {
        wanted: hosted.wanted(),
        hosted,
        context,
        held: None,
        next: None,
        handled: None,
        rests: None,
        in_memory: None,
        opened: None,
        left_open: None,
        looked_for_replays: None,
        replayed: None,
    };
    let span = tracing::error_span!("of", pipeline = course.hosted.name);
    course.follow().instrument(span).await;
}

async fn watch_load(hosted: Arc<Hosted>) {
    let mut looks = time::interval(LOOK_AT_LOAD_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        hosted.look_at_load();
    }
}

/// A content to run next.
#[derive(Clone)]
struct Next {
    planned: Arc<Planned>,
    /// Who has asked for it, if that is known.
    by: Option<String>,
    /// What it changes; absent for the first one, and for one that has run before.
    change: Option<ChangePlan>,
    /// The nodes that begin without what is kept of them.
    dropped: Vec<String>,
    /// Whether what fits is kept: that was agreed to for a content, perhaps before the service
    /// was restarted, or the pipeline paused.
    if_needed: bool,
    /// The checkpoint to go back to, instead of the last one.
    from: Option<Arc<SparedCheckpoint>>,
    /// When the revision before was asked to end.
    asked: Option<Instant>,
    /// Whether it reads dead letters again: it ends when it has.
    is_replay: bool,
    /// Whether it begins without the checkpoints in memory of the one before.
    anew: bool,
    /// Until it is known what becomes of it.
    span: Span,
}

impl Next {
    /// A content that has run before.
    fn again(planned: Arc<Planned>) -> Self {
        Next {
            planned,
            by: None,
            change: None,
            dropped: Vec::new(),
            if_needed: false,
            from: None,
            asked: None,
            is_replay: false,
            anew: false,
            span: Span::none(),
        }
    }

    /// Whether it can take the place of what runs in its tasks.
    fn is_in_place(&self) -> bool {
        self.from.is_none() && self.change.as_ref().is_some_and(|change| change.in_place)
    }
}

/// A content that takes the place of the one before as soon as a barrier has passed.
struct Handover {
    next: Next,
    replacement: Arc<Replacement>,
    /// When it is told that it waits for the barrier, until it is.
    told_at: Option<time::Instant>,
}

/// Why a content is not run.
struct Refusal {
    why: String,
    change: Option<ChangePlan>,
}

/// The decisions about one pipeline, one after the other.
struct Course {
    hosted: Arc<Hosted>,
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    /// The content that has held.
    held: Option<Arc<Planned>>,
    next: Option<Next>,
    /// The digest and the number of starts that were decided about.
    handled: Option<(Option<String>, u64)>,
    /// As what it rests, after a run has ended or failed: nothing runs then before
    /// something new is accepted.
    rests: Option<Phase>,
    /// Checkpoints in memory, which the next revision goes on from.
    in_memory: Option<Durable>,
    /// What the run has opened.
    opened: Option<Opened>,
    /// What one that was taken back has opened: the one before goes on with it.
    left_open: Option<Opened>,
    /// At which number of requests it has looked for a replay. Absent where one may be open
    /// from before.
    looked_for_replays: Option<u64>,
    /// A replay that was planned, and runs next.
    replayed: Option<Arc<Planned>>,
}

/// The state and the transaction of a run.
struct Opened {
    durable: Durable,
    /// The content that has opened them.
    by: Arc<Planned>,
}

impl Course {
    async fn follow(mut self) {
        if self.open_replay().is_none() {
            self.looked_for_replays = Some(0);
        }
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.remember(|ledger| ledger.paused = wanted.paused);
            if wanted.leaves {
                self.show(Phase::Stopped);
                return;
            }
            let waits_as = if wanted.paused {
                Some(Phase::Paused)
            } else if wanted.content.is_none() {
                Some(Phase::Planning)
            } else if let Some(rests) = self.resume_replay().await {
                rests
            } else {
                self.decide(&wanted).await;
                let rests = self.rests.unwrap_or(Phase::Refused);
                self.next.is_none().then_some(rests)
            };
            let has_ended = match (waits_as, self.next.clone()) {
                // What is wanted by its end may not have been decided about.
                (None, Some(next)) => {
                    let has_ended = self.run(next).await;
                    has_ended && self.handled.as_ref() == Some(&self.wanted.borrow().key())
                }
                (phase, _) => {
                    self.left_open = None;
                    self.show(phase.unwrap_or(Phase::Refused));
                    true
                }
            };
            if has_ended && self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Decides what runs next, if something new is wanted.
    async fn decide(&mut self, wanted: &Wanted) {
        if self.handled.as_ref() == Some(&wanted.key()) {
            return;
        }
        self.show(Phase::Planning);
        self.remember_held().await;
        let wanted = &self.attributed(wanted);
        match self.consider(wanted, self.held.clone()).await {
            Some(Ok(next)) => self.accept(next),
            Some(Err(refusal)) => self.refuse(wanted, refusal),
            None => {}
        }
        self.handled = Some(wanted.key());
        if self.next.is_none() && self.rests.is_none() {
            self.next = self.held.clone().map(Next::again);
        }
    }

    /// A content that was decided about before is tried again for whoever has asked for that.
    fn attributed(&self, wanted: &Wanted) -> Wanted {
        let mut wanted = wanted.clone();
        let (digest, starts) = wanted.key();
        let handled = self.handled.as_ref();
        if handled.is_some_and(|(of, then)| *of == digest && *then != starts) {
            wanted.by = wanted.started_by.take();
        }
        wanted
    }

    async fn remember_held(&mut self) {
        if self.held.is_none() {
            self.held = self.remembered().await;
        }
    }

    /// The content that has held before the service was restarted.
    async fn remembered(&self) -> Option<Arc<Planned>> {
        let store = &self.context.store;
        let ledger = store.ledger(&self.hosted.name).ok()?;
        let content = store.content(&self.hosted.name, ledger.held.as_deref()?);
        let content = content.map_err(|error| self.log(&error)).ok()?;
        let planned = plan(&self.hosted, &self.context, Arc::new(content)).await;
        planned
            .map_err(|refusal| tracing::warn!("{}", refusal.why))
            .ok()
    }

    /// Plans what is wanted after `then`; `None` where nothing is. What was taken back is
    /// not tried again, unless somebody asks for it.
    fn consider(
        &self,
        wanted: &Wanted,
        then: Option<Arc<Planned>>,
    ) -> impl Future<Output = Option<Result<Next, Refusal>>> + Send + 'static {
        let (hosted, context) = (self.hosted.clone(), self.context.clone());
        let anew = self.rests == Some(Phase::Ended) && self.is_temporary();
        let handled = self.handled.as_ref();
        let is_asked = wanted.starts != handled.map_or(0, |(_, starts)| *starts);
        let (content, by) = (wanted.content.clone(), wanted.by.clone());
        let span = traces::span!(
            "change",
            pipeline = hosted.name,
            content = content
                .as_ref()
                .and_then(|it| Some(&*it.as_ref().ok()?.digest)),
            by,
            outcome = Empty,
            in_place = Empty,
            pause_ms = Empty,
        );
        // What was agreed to once is not agreed to for ever, but until it is done.
        let may_fit = is_asked && wanted.if_needed;
        let (mut dropped, from) = match is_asked {
            true => (wanted.dropped.clone(), wanted.from.clone()),
            false => (Vec::new(), None),
        };
        let considered = async move {
            let refuse = |why: String| Refusal { why, change: None };
            let content = match content? {
                Ok(content) => content,
                Err(why) => return Some(Err(refuse(why))),
            };
            let ledger = match context.store.ledger(&hosted.name) {
                Ok(ledger) => ledger,
                Err(error) => return Some(Err(refuse(error.to_string()))),
            };
            if let (false, Some(why)) = (is_asked, ledger.taken_back(&content.digest)) {
                return Some(Err(refuse(format!("it was tried and taken back: {why}"))));
            }
            let agreed = ledger.agreed.filter(|agreed| {
                dropped.is_empty() && from.is_none() && agreed.digest == content.digest
            });
            let if_needed = agreed.is_some() || may_fit;
            dropped = agreed.map_or(dropped, |agreed| agreed.dropped);
            let planning = plan(&hosted, &context, content).instrument(traces::span!("plan"));
            let planned = match planning.await {
                Ok(planned) => planned,
                Err(refusal) => return Some(Err(refusal)),
            };
            let mut change = None;
            let conflict = hosted.claims.conflict(&hosted.name, &planned.plan.files);
            if !dropped.is_empty() && !if_needed && from.is_none() {
                let (then, next) = (then.clone(), planned.plan.clone());
                let names = dropped.clone();
                let lacking = spawn_blocking(move || Kept::of(then, &next).lacks(&names)).await;
                if let Some(why) = lacking.unwrap_or_else(|error| Some(error.to_string())) {
                    return Some(Err(refuse(why)));
                }
            }
            if let Some(then) = then.filter(|then| then.content.digest != planned.content.digest) {
                let mut plan = planned.change_from(&then, &dropped);
                if !if_needed {
                    plan = plan.dropping(&dropped);
                }
                if anew {
                    plan = plan.anew();
                }
                let tried = tried(&hosted, &planned).instrument(traces::span!("shadow"));
                plan.compare(tried.await);
                let keeps = then.plan.state.is_some() && planned.plan.state.is_some();
                if let (true, Some(why)) = (keeps, plan.loses()) {
                    return Some(Err(Refusal {
                        why,
                        change: Some(plan),
                    }));
                }
                change = Some(plan);
            }
            if let Some(why) = conflict {
                return Some(Err(Refusal { why, change }));
            }
            Some(Ok(Next {
                planned,
                by,
                change,
                dropped,
                if_needed,
                from,
                asked: None,
                is_replay: false,
                anew,
                span: Span::current(),
            }))
        };
        async move {
            let considered = considered.instrument(span.clone()).await;
            if let Some(Err(refusal)) = &considered {
                span.record("outcome", ChangeOutcome::Refused.name());
                traces::fail(&span, &refusal.why);
            }
            considered
        }
    }

    /// Whether the checkpoints of what has held are in memory since its file names no other
    /// place.
    fn is_temporary(&self) -> bool {
        let state = self.held.as_ref().and_then(|held| held.plan.state.as_ref());
        self.context.states != States::AsWritten
            && state.is_some_and(|state| state.backend == StateBackend::Memory)
    }

    fn accept(&mut self, next: Next) {
        self.hosted.lock().refusal = None;
        self.rests = None;
        self.next = Some(next);
    }

    /// A run has ended by itself.
    fn rest(&mut self, phase: Phase) {
        self.rests = Some(phase);
        self.next = None;
        self.show(phase);
    }

    fn refuse(&self, wanted: &Wanted, refusal: Refusal) {
        tracing::error!("its new content is refused: {}", refusal.why);
        self.hosted.lock().refusal = Some(refusal.why.clone());
        if let Some(Ok(content)) = &wanted.content {
            let change = self.change(content, ChangeOutcome::Refused, Some(refusal.why));
            let change = ChangeRecord {
                by: wanted.by.clone(),
                plan: refusal.change,
                ..change
            };
            self.hosted.tell(News::Change(change.clone()));
            self.remember(|ledger| {
                ledger
                    .agreed
                    .take_if(|agreed| agreed.digest == change.digest);
                // What was taken back stays so when the service is restarted.
                if ledger.taken_back(&change.digest).is_none() {
                    ledger.record(change);
                }
            });
            self.keep_text(content);
        }
    }

    fn change(
        &self,
        content: &Content,
        outcome: ChangeOutcome,
        why: Option<String>,
    ) -> ChangeRecord {
        ChangeRecord {
            at_ms: self.context.clock.now_ms(),
            digest: content.digest.clone(),
            then: self.held.as_ref().map(|held| held.content.digest.clone()),
            by: None,
            outcome,
            why,
            plan: None,
            pause_ms: None,
            in_place: false,
        }
    }

    /// Runs a content until it has ended, or something else is wanted. Returns whether
    /// there is nothing to do until then.
    async fn run(&mut self, next: Next) -> bool {
        let digest = next.planned.content.digest.clone();
        let is_held = |held: &Arc<Planned>| held.content.digest == digest;
        let is_new = !self.held.as_ref().is_some_and(is_held);
        let on_probation = is_new && self.held.is_some();
        self.show(Phase::Starting);
        let files = &next.planned.plan.files;
        let claim = self.hosted.claims.take(&self.hosted.name, files);
        let mut trial = Trial {
            next,
            is_open: is_new,
            on_probation,
            began: None,
            pause_ms: None,
            in_place: false,
            since: Instant::now(),
            read_before: 0,
        };
        match is_new {
            true => self.record(&trial, ChangeOutcome::Probation, None),
            false => self.remember(|ledger| ledger.begin(&digest)),
        }
        let _claim = match claim {
            Ok(claim) => claim,
            // Another one has begun since this one was planned.
            Err(why) => return self.failed(trial, &RunError::Usage(why)),
        };
        let job = match self.job(&trial).await {
            Ok(job) => job,
            Err(error) => return self.failed(trial, &error),
        };
        trial.since = Instant::now();
        self.hosted.lock().failure = None;
        self.show(match on_probation {
            true => Phase::Probation,
            false => Phase::Running,
        });
        let driven = self.drive(job, &mut trial).await;
        let is_over = driven.unwrap_or_else(|error| self.failed(trial, &error));
        self.opened = None;
        is_over
    }

    /// Opens the state and makes the run.
    async fn job(&mut self, trial: &Trial) -> Result<Job, RunError> {
        let planned = trial.next.planned.clone();
        if trial.next.anew {
            self.in_memory = None;
            self.left_open = None;
        }
        let plan = planned.plan.clone();
        let state = plan.state.as_ref();
        let is_in_memory = state.is_some_and(|state| state.backend == StateBackend::Memory);
        let left_open = self.left_open.take();
        let left_open = left_open.filter(|left| planned.differs_in_logic_alone(&left.by));
        let in_memory = self.in_memory.take().filter(|_| is_in_memory);
        let durable = match (in_memory, left_open) {
            (Some(durable), _) => Some(durable.for_plan(&plan)),
            (None, Some(left)) => Some(left.durable),
            (None, None) => {
                let opening = spawn_blocking(move || Durable::open(&plan)).await;
                opening.map_err(|error| RunError::Internal(error.to_string()))??
            }
        };
        if is_in_memory {
            self.in_memory.clone_from(&durable);
        }
        self.opened = durable.clone().map(|durable| Opened {
            durable,
            by: planned.clone(),
        });
        let pipeline = Pipeline::of(&planned.plan, self.context.clock.clone());
        let pipeline = pipeline.counting(&self.hosted.restarts);
        let mut pipeline = pipeline.sparing(&self.hosted.spared);
        if let Some(durable) = durable {
            pipeline = pipeline.keeping(durable);
        }
        let within = pipeline.within(&self.context.memory);
        let pipeline = within.map_err(|error| RunError::Usage(error.to_string()))?;
        let mut job = Job::revision(&pipeline, planned.plan.clone()).standing_back();
        if let Some(threads) = self.context.threads {
            job = job.on_cores(threads);
        }
        if !trial.next.dropped.is_empty() {
            job = job.dropping(&trial.next.dropped);
        }
        if trial.next.if_needed {
            job = job.if_needed();
        }
        if let Some(from) = &trial.next.from {
            job = job.going_back_to(from);
        }
        if trial.next.is_replay {
            job = job.ending_at_bad_rows();
        }
        job.requests()
            .hold_back(trial.on_probation || trial.next.is_replay);
        self.hosted.lock().running = Some(Running {
            nodes: job.progress(),
            state: job.state(),
            pipeline: pipeline.seen(),
            started_ms: self.context.clock.now_ms(),
            recent: Arc::new(Recent::of(&planned.plan, pipeline.looks())),
            planned,
        });
        Ok(job)
    }

    /// Waits for the end of a run, and for what is wanted meanwhile.
    async fn drive(&mut self, job: Job, trial: &mut Trial) -> Result<bool, RunError> {
        let requests = job.requests();
        let has_checkpoints = trial.next.planned.plan.state.is_some();
        let ledger = block_in_place(|| self.context.store.ledger(&self.hosted.name));
        let before = ledger.map_or_else(|_| Vec::new(), |ledger| ledger.baselines);
        let mut nodes = job.progress();
        let pipeline = job.pipeline().seen();
        let mut probation = Probation::new(self.context.probation.get(), before, nodes.clone());
        let mut looks = time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut planning: Option<JoinHandle<Option<Result<Next, Refusal>>>> = None;
        let mut considered = None;
        let mut handover: Option<Handover> = None;
        let mut replay: Option<JoinHandle<Option<Result<Planned, String>>>> = None;
        let mut attempt = requests.attempt();
        let mut running = Box::pin(job.run());
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.leaves || wanted.paused {
                if replay.is_some() {
                    self.looked_for_replays = None;
                }
                if trial.is_uncommitted() {
                    // It has not held: a last checkpoint would commit what it put out.
                    give_up(running, &requests);
                    return Ok(false);
                }
                requests.stop().ask();
                let ended = running.await;
                let stopped = self.stopped(trial, &nodes, ended);
                if let Some(handover) = handover {
                    self.accept(handover.next);
                }
                return stopped;
            }
            let is_free = planning.is_none()
                && handover.is_none()
                && replay.is_none()
                && !trial.next.is_replay;
            if is_free && !trial.is_open && self.looked_for_replays != Some(wanted.replays) {
                self.looked_for_replays = Some(wanted.replays);
                replay = Some(self.plan_replay(trial.next.planned.clone()));
                continue;
            }
            if is_free && self.handled.as_ref() != Some(&wanted.key()) {
                // The first content may not have held yet.
                let then = self.held.clone().unwrap_or(trial.next.planned.clone());
                let wanted = self.attributed(&wanted);
                planning = Some(tokio::spawn(self.consider(&wanted, Some(then))));
                considered = Some(wanted);
            }
            tokio::select! {
                biased;
                took = async { handover.as_ref().expect("there is one").replacement.passed().await }, if handover.is_some() => {
                    let Some(Handover { next, replacement, .. }) = handover.take() else {
                        continue;
                    };
                    let before = self.remember_baselines(&nodes);
                    nodes.clone_from(&replacement.nodes);
                    probation = Probation::new(self.context.probation.get(), before, nodes.clone());
                    requests.give_way(false);
                    self.take_place(trial, next, &replacement, took);
                }
                ended = &mut running => {
                    let Some(Handover { next, .. }) = handover else {
                        let summary = ended?;
                        if trial.next.is_replay {
                            self.end_replay();
                        }
                        if summary.swapped {
                            return self.stopped(trial, &nodes, Ok(summary));
                        }
                        let is_over = self.ended(trial, &probation, &nodes, &summary);
                        return Ok(is_over && replay.is_none());
                    };
                    match ended {
                        Ok(summary) => {
                            self.ended(trial, &probation, &nodes, &summary);
                        }
                        // What comes next goes on from the last checkpoint.
                        Err(error) => self.log(&error),
                    }
                    self.accept(next);
                    return Ok(false);
                }
                () = until(handover.as_ref().and_then(|it| it.told_at)) => {
                    if let Some(handover) = &mut handover {
                        handover.told_at = None;
                        self.tell_waiting(&handover.next, &nodes);
                    }
                }
                _ = self.wanted.changed() => {}
                planned = async { planning.as_mut().expect("there is one").await }, if planning.is_some() => {
                    planning = None;
                    let wanted = considered.take().unwrap_or_default();
                    let starts = self.handled.replace(wanted.key()).map(|(_, starts)| starts);
                    let is_asked = starts.is_some_and(|starts| starts != wanted.starts);
                    let runs = &trial.next.planned.content.digest;
                    match planned {
                        // Somebody has changed it back before it took effect.
                        Ok(Some(Ok(next))) if !is_asked && next.planned.content.digest == *runs => {
                            self.hosted.lock().refusal = None;
                        }
                        Ok(Some(Ok(mut next))) => {
                            next.asked = Some(Instant::now());
                            // It goes on from the last checkpoint if what runs fails before
                            // the next one, or waits to be restarted.
                            requests.give_way(true);
                            if trial.is_uncommitted() {
                                give_up(running, &requests);
                                self.record(trial, ChangeOutcome::Replaced, None);
                                self.accept(next);
                                return Ok(false);
                            }
                            match (trial.is_open, trial.on_probation) {
                                (true, false) => self.hold(trial, &nodes),
                                (true, true) => {
                                    self.record(trial, ChangeOutcome::Replaced, None);
                                    // Nobody goes back from it any more.
                                    trial.on_probation = false;
                                }
                                (false, _) => {}
                            }
                            if next.is_in_place() {
                                let (then, now) = (&trial.next.planned.plan, &next.planned.plan);
                                let replacement = Replacement::new(then, &nodes, now.clone());
                                let replacement = Arc::new(replacement);
                                // Before the barrier, behind which nothing may be committed.
                                requests.hold_back(true);
                                pipeline.replace(replacement.clone());
                                let told_at = time::Instant::now() + WAIT_SHOWN;
                                handover = Some(Handover {
                                    next,
                                    replacement,
                                    told_at: Some(told_at),
                                });
                                continue;
                            }
                            match has_checkpoints {
                                true => requests.swap(),
                                false => requests.stop().ask(),
                            }
                            let ending = self.end(running, &requests);
                            let ended = self.wait_for(ending, &next, &nodes).await;
                            let stopped = self.stopped(trial, &nodes, ended);
                            self.accept(next);
                            return stopped;
                        }
                        Ok(Some(Err(refusal))) => self.refuse(&wanted, refusal),
                        Ok(None) => {}
                        Err(error) => self.log(&error),
                    }
                }
                planned = async { replay.as_mut().expect("there is one").await }, if replay.is_some() => {
                    replay = None;
                    match planned {
                        Ok(Some(Ok(planned))) => {
                            requests.swap();
                            let ended = self.end(running, &requests).await;
                            if ended.is_err() && requests.ends_at_failure() {
                                // The next run looks for it again.
                                self.looked_for_replays = None;
                            }
                            if ended.is_ok() {
                                self.begin_replay(planned);
                            }
                            return self.stopped(trial, &nodes, ended);
                        }
                        Ok(Some(Err(why))) => self.refuse_replay(why),
                        Ok(None) => {}
                        Err(error) => self.log(&error),
                    }
                }
                _ = looks.tick(), if trial.is_open || trial.next.is_replay => {
                    if trial.next.is_replay {
                        let attempt = requests.attempt();
                        if replaying::has_read_all(&nodes) {
                            requests.swap_after(attempt);
                        }
                        continue;
                    }
                    // An attempt that fails meanwhile tells nothing of what has changed.
                    if std::mem::replace(&mut attempt, requests.attempt()) != requests.attempt() {
                        trial.since = Instant::now();
                    }
                    trial.look(&nodes);
                    let Some(began) = trial.began else {
                        // Who asks for a replay does not wait until other rows come; nor do
                        // rows that pass by what has changed wait for a commit.
                        let is_due = trial.since.elapsed() >= self.context.probation.get();
                        if is_due && (self.waits_for_replay(&wanted) || trial.has_passed_rows(&nodes)) {
                            self.hold(trial, &nodes);
                            requests.hold_back(false);
                            self.show(Phase::Running);
                        }
                        continue;
                    };
                    // One time for all: what is open by one must not have held by a later one.
                    let after = began.elapsed();
                    match probation.judge(after) {
                        Verdict::Open => {}
                        Verdict::Failed(why) if trial.on_probation => {
                            // Its threads end first: they have the state open.
                            give_up(running, &requests);
                            return Ok(self.take_back(trial, &why));
                        }
                        Verdict::Failed(_) if !probation.is_over(after) => {}
                        Verdict::Failed(_) | Verdict::Held => {
                            self.hold(trial, &nodes);
                            requests.hold_back(false);
                            self.show(Phase::Running);
                        }
                    }
                }
            }
        }
    }

    /// Waits for what runs to end, and has the history say so if that lasts.
    async fn wait_for<T>(
        &self,
        ending: impl Future<Output = T>,
        next: &Next,
        nodes: &[Arc<NodeProgress>],
    ) -> T {
        let mut ending = pin!(ending);
        if let Ok(ended) = timeout(WAIT_SHOWN, &mut ending).await {
            return ended;
        }
        self.tell_waiting(next, nodes);
        ending.await
    }

    /// Has the history show a change that waits for what runs.
    fn tell_waiting(&self, next: &Next, nodes: &[Arc<NodeProgress>]) {
        if next.change.is_none() {
            return;
        }
        let busiest = nodes.iter().max_by_key(|node| node.works_for());
        let busiest = busiest.filter(|node| node.works_for() >= WAIT_SHOWN);
        let why = match busiest {
            Some(node) => format!(
                "operator `{}` has worked on the same rows for {} s, and what runs cannot end or \
                 come to a checkpoint before that; a plugin's call that does not end soon is given \
                 up, and the change goes on from the last checkpoint",
                node.name,
                node.works_for().as_secs()
            ),
            None => {
                "rows that were read before are still on their way through what runs".to_owned()
            }
        };
        let content = &next.planned.content;
        let change = ChangeRecord {
            by: next.by.clone(),
            plan: next.change.clone(),
            ..self.change(content, ChangeOutcome::Waiting, Some(why))
        };
        self.hosted.tell(News::Change(change.clone()));
        self.remember(|ledger| ledger.record(change));
        self.keep_text(content);
    }

    /// Waits for the end of a run at its next checkpoint. It is not waited for through
    /// restarts once something else is wanted.
    async fn end(
        &self,
        mut running: impl Future<Output = Result<Summary, RunError>> + Unpin,
        requests: &Requests,
    ) -> Result<Summary, RunError> {
        // Whoever comes next sees what is wanted for the first time, too.
        let mut wanted = self.wanted.clone();
        loop {
            tokio::select! {
                biased;
                ended = &mut running => return ended,
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update();
                    if wanted.leaves || wanted.paused {
                        requests.stop().ask();
                    } else if self.handled.as_ref() != Some(&wanted.key()) {
                        requests.give_way(true);
                    }
                }
            }
        }
    }

    /// A content has taken the place of the one before in its tasks, on probation.
    fn take_place(
        &mut self,
        trial: &mut Trial,
        next: Next,
        replacement: &Replacement,
        took: Duration,
    ) {
        if let Some(running) = &mut self.hosted.lock().running {
            running.planned = next.planned.clone();
            running.nodes.clone_from(&replacement.nodes);
            running.started_ms = self.context.clock.now_ms();
        }
        replacement.nodes.iter().for_each(|node| node.take_over());
        self.accept(next.clone());
        *trial = Trial {
            next,
            is_open: true,
            on_probation: true,
            began: None,
            pause_ms: Some(took.as_millis() as u64),
            in_place: true,
            since: Instant::now(),
            read_before: rows_read(&replacement.nodes),
        };
        self.record(trial, ChangeOutcome::Probation, None);
        self.show(Phase::Probation);
    }

    /// A run has ended as it was asked to.
    fn stopped(
        &mut self,
        trial: &mut Trial,
        nodes: &[Arc<NodeProgress>],
        ended: Result<Summary, RunError>,
    ) -> Result<bool, RunError> {
        match ended {
            Ok(_) => {
                if !trial.is_open && !trial.next.is_replay {
                    self.remember_baselines(nodes);
                }
                self.next = self.next.take().map(|next| Next::again(next.planned));
                Ok(false)
            }
            Err(error) if trial.can_be_taken_back() => Err(error),
            // What comes next goes on from the last checkpoint.
            Err(error) => {
                self.log(&error);
                Ok(false)
            }
        }
    }

    /// A run has ended by itself.
    fn ended(
        &mut self,
        trial: &mut Trial,
        probation: &Probation,
        nodes: &[Arc<NodeProgress>],
        summary: &Summary,
    ) -> bool {
        if let (true, Verdict::Failed(why)) =
            (trial.can_be_taken_back(), probation.judge(Duration::MAX))
        {
            return self.take_back(trial, &why);
        }
        if trial.is_open {
            self.hold(trial, nodes);
        }
        tracing::info!(rows = summary.rows_read(), "its inputs have ended");
        self.rest(Phase::Ended);
        true
    }

    /// A run has failed, or could not be started.
    fn failed(&mut self, mut trial: Trial, error: &RunError) -> bool {
        let fault = error.fault();
        if trial.can_be_taken_back() {
            if !fault.is_of_row() {
                // It may be what it has opened that has failed.
                self.opened = None;
            }
            return self.take_back(&mut trial, &error.to_string());
        }
        if trial.next.is_replay && fault.is_of_row() && self.give_up_replay(error.to_string()) {
            self.next = self.held.clone().map(Next::again);
            return false;
        }
        // The next start opens it again.
        self.opened = None;
        if self.goes_on_instead(&trial.next, error) {
            return false;
        }
        tracing::error!("failed: {error}; {}", fault.advice());
        self.hosted.lock().failure = Some(Failure {
            message: error.to_string(),
            blame: fault.blame,
            can_pass: fault.can_pass,
            advice: fault.advice(),
            at_ms: self.context.clock.now_ms(),
        });
        self.rest(Phase::Failed);
        true
    }

    /// Goes on from the newest checkpoint, if a run was ended for another one that cannot be
    /// gone back to: until the run that tries has made a checkpoint, all is as it was.
    fn goes_on_instead(&mut self, next: &Next, error: &RunError) -> bool {
        let was_running = next.asked.is_some();
        let Some(from) = next.from.as_ref().filter(|it| was_running && it.is_kept()) else {
            return false;
        };
        from.let_go();
        let why = format!(
            "it cannot go back to checkpoint {}, and goes on from its newest one: {error}",
            from.id
        );
        tracing::error!("{why}");
        self.hosted.lock().refusal = Some(why);
        self.next = Some(Next::again(next.planned.clone()));
        true
    }

    /// Goes back to the content that has held.
    fn take_back(&mut self, trial: &mut Trial, why: &str) -> bool {
        trial.is_open = false;
        self.left_open = self.opened.take();
        tracing::error!("its new content is taken back, and the one before runs again: {why}");
        self.hosted.lock().refusal = Some(format!("it was tried and taken back: {why}"));
        self.record(trial, ChangeOutcome::TakenBack, Some(why.to_owned()));
        if trial.next.anew {
            // The one before had ended.
            self.rest(Phase::Ended);
            return true;
        }
        self.next = self.held.clone().map(Next::again);
        false
    }

    /// The content has held, and is what is gone back to from now on.
    fn hold(&mut self, trial: &mut Trial, nodes: &[Arc<NodeProgress>]) {
        trial.is_open = false;
        trial.look(nodes);
        let planned = trial.next.planned.clone();
        // Until the ledger names this one, a crash goes back to the one before.
        let before = self.held.as_ref().map(|held| &*held.content.digest);
        self.keep_content(&planned.content, before.as_slice());
        self.record(trial, ChangeOutcome::Held, None);
        self.keep_content(&planned.content, &[]);
        trial.next.span = Span::none();
        self.remember_baselines(nodes);
        self.next = Some(Next::again(planned.clone()));
        self.held = Some(planned);
    }

    /// Keeps a content with its plugins, and the others that are needed.
    fn keep_content(&self, content: &Content, needed: &[&str]) {
        let store = &self.context.store;
        let kept = block_in_place(|| store.keep_content(&self.hosted.name, content, needed));
        if let Err(error) = kept {
            self.log(&error);
        }
    }

    fn record(&self, trial: &Trial, outcome: ChangeOutcome, why: Option<String>) {
        let change = ChangeRecord {
            by: trial.next.by.clone(),
            plan: trial.next.change.clone(),
            pause_ms: trial.pause_ms,
            in_place: trial.in_place,
            ..self.change(&trial.next.planned.content, outcome, why)
        };
        if outcome != ChangeOutcome::Probation {
            let span = &trial.next.span;
            span.record("outcome", outcome.name());
            span.record("in_place", change.in_place);
            if let Some(pause_ms) = change.pause_ms {
                span.record("pause_ms", pause_ms);
            }
            if let Some(why) = &change.why {
                traces::fail(span, why);
            }
        }
        self.hosted.tell(News::Change(change.clone()));
        let digest = trial.next.planned.content.digest.clone();
        let has_agreed = !trial.next.dropped.is_empty();
        let wanted = self
            .hosted
            .wanted_content()
            .map(|wanted| wanted.digest.clone());
        // At once: a crash must not come between.
        self.remember(|ledger| {
            ledger.record(change);
            let is_needed = |agreed: &Agreed| match outcome {
                ChangeOutcome::Probation if agreed.digest == digest => has_agreed,
                ChangeOutcome::TakenBack if agreed.digest == digest => false,
                // It may be of one that comes next.
                _ => agreed.digest == digest || Some(&agreed.digest) == wanted.as_ref(),
            };
            ledger.agreed.take_if(|agreed| !is_needed(agreed));
            if outcome == ChangeOutcome::Held {
                ledger.held = Some(digest);
            }
        });
        self.keep_text(&trial.next.planned.content);
    }

    /// Keeps a content's file, beside the history that has it.
    fn keep_text(&self, content: &Content) {
        let store = &self.context.store;
        let kept = block_in_place(|| store.keep_text(&self.hosted.name, content));
        if let Err(error) = kept {
            self.log(&error);
        }
    }

    /// Changes the ledger. One that cannot be written is logged: the pipeline runs on.
    fn remember(&self, change: impl FnOnce(&mut Ledger)) {
        let store = &self.context.store;
        let name = &self.hosted.name;
        if let Err(error) = block_in_place(|| store.change_ledger(name, change)) {
            self.log(&error);
        }
    }

    /// Notes how operators do, with which the next content is compared, and returns it.
    fn remember_baselines(&self, nodes: &[Arc<NodeProgress>]) -> Vec<Baseline> {
        let mut noted = baselines(nodes);
        self.remember(|ledger| {
            noted = newer(&ledger.baselines, baselines(nodes));
            ledger.baselines.clone_from(&noted);
        });
        noted
    }

    fn show(&self, phase: Phase) {
        let now_ms = self.context.clock.now_ms();
        let mut shown = self.hosted.lock();
        if shown.phase != phase {
            shown.phase = phase;
            shown.since_ms = now_ms;
            self.hosted.tell(News::Phase(phase));
        }
    }

    fn log(&self, error: &dyn std::fmt::Display) {
        tracing::error!("{error}");
    }
}

/// A content that runs, and what is known of how it does.
struct Trial {
    next: Next,
    /// Whether it is still to be decided if it holds.
    is_open: bool,
    /// Whether it is taken back if it does not hold.
    on_probation: bool,
    /// When it was seen that it reads rows: without any, nothing is known of it.
    began: Option<Instant>,
    pause_ms: Option<u64>,
    /// Whether it has taken the place of the content before in its tasks.
    in_place: bool,
    /// When it began to run.
    since: Instant,
    /// How many rows sources had read before.
    read_before: u64,
}

impl Trial {
    /// Notes when the first row was read.
    fn look(&mut self, nodes: &[Arc<NodeProgress>]) {
        // In the tasks of another content, operators alone count only the rows of this one.
        let mut counting = nodes
            .iter()
            .filter(|node| !self.in_place || node.role == Role::Operator);
        if self.began.is_none() && counting.any(|node| node.own().rows_in > 0) {
            self.began = Some(Instant::now());
            if !self.in_place {
                let pause = self.next.asked.map(|asked| asked.elapsed());
                self.pause_ms = pause.map(|pause| pause.as_millis() as u64);
            }
        }
    }

    /// Whether rows were read, but none of them came to what has changed.
    fn has_passed_rows(&self, nodes: &[Arc<NodeProgress>]) -> bool {
        self.in_place && rows_read(nodes) > self.read_before
    }

    /// Whether there is something to go back to, and it is still to be decided.
    fn can_be_taken_back(&self) -> bool {
        self.is_open && self.on_probation
    }

    /// Whether nothing of it is committed yet, nor has to be.
    fn is_uncommitted(&self) -> bool {
        self.can_be_taken_back() && self.next.planned.plan.state.is_some()
    }
}

/// Waits until then, if that is known.
async fn until(then: Option<time::Instant>) {
    match then {
        Some(then) => time::sleep_until(then).await,
        None => pending().await,
    }
}

/// Drops a run, of which nothing is kept, and waits for its threads.
fn give_up(running: impl Future, requests: &Requests) {
    requests.stop().give_up();
    block_in_place(|| drop(running));
}

fn rows_read(nodes: &[Arc<NodeProgress>]) -> u64 {
    let sources = nodes.iter().filter(|node| node.role == Role::Source);
    sources.map(|node| node.snapshot().rows_in).sum()
}

/// How the plugins of a content compare with those that run, or have run last, by operator.
async fn tried(hosted: &Hosted, planned: &Arc<Planned>) -> HashMap<String, Comparison> {
    let (running, planned) = (hosted.shown().running, planned.clone());
    let Some(Running {
        planned: then,
        recent,
        ..
    }) = running
    else {
        return HashMap::new();
    };
    let tried = spawn_blocking(move || compare(&then.plan, &planned.plan, &recent)).await;
    tried.unwrap_or_else(|error| {
        tracing::warn!("its plugins were not tried: {error}");
        HashMap::new()
    })
}

async fn plan(
    hosted: &Arc<Hosted>,
    context: &Arc<Context>,
    content: Arc<Content>,
) -> Result<Arc<Planned>, Refusal> {
    let (hosted, context) = (hosted.clone(), context.clone());
    let planning = spawn_blocking(move || {
        let Context {
            store,
            loader,
            states,
            ..
        } = &*context;
        Planned::new(&hosted.name, &hosted.file, content, *states, store, loader)
    });
    let planned = match planning.await {
        Ok(planned) => planned.map_err(|mistakes| mistakes.to_string().trim().to_owned()),
        Err(error) => Err(format!("internal error, please report it: {error}")),
    };
    match planned {
        Ok(planned) => Ok(Arc::new(planned)),
        Err(why) => Err(Refusal { why, change: None }),
    }
}
