//! One pipeline of the service: what is wanted of it, and what can be seen of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use utoipa::ToSchema;

use super::claims::Claims;
use super::content::Content;
use super::load::{LoadHistory, Loads};
use super::recent::Recent;
use super::revision::{Planned, States};
use super::store::{ChangeRecord, Store};
use crate::blame::Blame;
use crate::budget::HostMemory;
use crate::checkpoint::spared::{Spared, SparedCheckpoint};
use crate::clock::Clock;
use crate::plan::Plan;
use crate::plugin::PluginLoader;
use crate::progress::{NodeProgress, Restarting, Restarts, StateProgress};
use crate::run::Pipeline;

/// What all pipelines of the service share.
pub struct Context {
    pub store: Store,
    pub loader: PluginLoader,
    pub clock: Arc<dyn Clock>,
    /// The memory for states of all pipelines.
    pub memory: Arc<HostMemory>,
    /// How many threads of a pipeline work at a time; one for each core by default.
    pub threads: Option<usize>,
    pub probation: ProbationTime,
    /// Where states are kept. Where that is not where the pipeline's file says, a change
    /// begins anew after the inputs have ended.
    pub states: States,
}

/// How long a new revision has to hold before what it puts out is committed. It may be set
/// while pipelines run.
#[derive(Debug)]
pub struct ProbationTime(AtomicU64);

impl ProbationTime {
    pub fn new(time: Duration) -> Self {
        ProbationTime(AtomicU64::new(time.as_millis() as u64))
    }

    pub fn set(&self, time: Duration) {
        self.0.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A pipeline.
pub struct Hosted {
    pub name: String,
    /// The pipeline's file.
    pub file: PathBuf,
    wanted: watch::Sender<Wanted>,
    shown: Mutex<Shown>,
    /// Of all its runs.
    pub restarts: Arc<Restarts>,
    /// The checkpoints that it is to go back to.
    pub spared: Spared,
    /// How busy its nodes were lately.
    load: LoadHistory,
    /// What it and those beside it have of files.
    pub(super) claims: Arc<Claims>,
    news: broadcast::Sender<News>,
}

/// What happens to a pipeline.
#[derive(Clone, Debug)]
pub enum News {
    Phase(Phase),
    /// Something becomes of a content.
    Change(ChangeRecord),
}

/// So much is kept for those who are slow to listen.
const NEWS_MAX: usize = 256;

/// What is wanted of a pipeline.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// What it should run, or why that cannot be read.
    pub content: Option<Result<Arc<Content>, String>>,
    /// Who has asked for that.
    pub by: Option<String>,
    pub paused: bool,
    /// It stops for good.
    pub leaves: bool,
    /// How often somebody has asked to start it, whatever became of it before.
    pub starts: u64,
    /// Who was the last to ask.
    pub started_by: Option<String>,
    /// The nodes whose state may go with the last of them.
    pub dropped: Vec<String>,
    /// Whether it goes only where it does not fit.
    pub if_needed: bool,
    /// The checkpoint that the last of them goes back to.
    pub from: Option<Arc<SparedCheckpoint>>,
    /// How often a replay of dead letters was asked for.
    pub replays: u64,
}

/// What can be seen of a pipeline. Whether its run waits for a restart has
/// [`Hosted::phase`].
#[derive(Clone)]
pub struct Shown {
    pub phase: Phase,
    pub since_ms: i64,
    /// What runs, or has run last.
    pub running: Option<Running>,
    /// Why it has failed.
    pub failure: Option<Failure>,
    /// Why its newest content does not run.
    pub refusal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is read and planned.
    Planning,
    /// It opens its state.
    Starting,
    Running,
    /// It runs a new content, which may be taken back.
    Probation,
    /// It has failed, and waits before it is restarted.
    Restarting,
    /// Somebody has paused it.
    Paused,
    /// Its inputs have ended.
    Ended,
    /// It has failed, and is not restarted.
    Failed,
    /// Nothing can be run.
    Refused,
    /// The service has stopped it.
    Stopped,
}

impl Phase {
    pub const ALL: [Phase; 10] = [
        Phase::Planning,
        Phase::Starting,
        Phase::Running,
        Phase::Probation,
        Phase::Restarting,
        Phase::Paused,
        Phase::Ended,
        Phase::Failed,
        Phase::Refused,
        Phase::Stopped,
    ];

    /// Whether nothing runs until somebody or something asks for it.
    pub fn rests(self) -> bool {
        match self {
            Phase::Planning
            | Phase::Starting
            | Phase::Running
            | Phase::Probation
            | Phase::Restarting => false,
            Phase::Paused | Phase::Ended | Phase::Failed | Phase::Refused | Phase::Stopped => true,
        }
    }

    /// Whether a run reads rows, or would if there were any.
    pub fn reads_rows(self) -> bool {
        matches!(self, Phase::Running | Phase::Probation)
    }

    pub fn name(self) -> &'static str {
        match self {
            Phase::Planning => "planning",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Probation => "probation",
            Phase::Restarting => "restarting",
            Phase::Paused => "paused",
            Phase::Ended => "ended",
            Phase::Failed => "failed",
            Phase::Refused => "refused",
            Phase::Stopped => "stopped",
        }
    }
}

/// What a pipeline does.
pub struct PhaseNow {
    pub phase: Phase,
    pub since_ms: i64,
    pub restarting: Option<Restarting>,
}

/// A revision that runs.
#[derive(Clone)]
pub struct Running {
    pub planned: Arc<Planned>,
    pub pipeline: Pipeline,
    pub nodes: Vec<Arc<NodeProgress>>,
    pub state: Option<Arc<StateProgress>>,
    pub started_ms: i64,
    /// What new plugins are tried on.
    pub recent: Arc<Recent>,
}

/// Why a pipeline has failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    pub message: String,
    pub blame: Blame,
    /// Whether the same may go well at another time.
    pub can_pass: bool,
    /// What somebody has to do now.
    pub advice: &'static str,
    pub at_ms: i64,
}

impl Hosted {
    pub fn new(name: &str, file: PathBuf, paused: bool, now_ms: i64) -> Self {
        let wanted = Wanted {
            paused,
            ..Wanted::default()
        };
        Hosted {
            name: name.to_owned(),
            file,
            wanted: watch::Sender::new(wanted),
            shown: Mutex::new(Shown {
                phase: Phase::Planning,
                since_ms: now_ms,
                running: None,
                failure: None,
                refusal: None,
            }),
            restarts: Arc::default(),
            spared: Spared::default(),
            load: LoadHistory::default(),
            claims: Arc::default(),
            news: broadcast::Sender::new(NEWS_MAX),
        }
    }

    /// It runs beside others that have claims.
    pub(super) fn beside(self, claims: &Arc<Claims>) -> Self {
        Hosted {
            claims: claims.clone(),
            ..self
        }
    }

    /// What happens to it from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    pub(super) fn tell(&self, news: News) {
        // Nobody may listen.
        let _ = self.news.send(news);
    }

    /// Has it run this content, for whoever has asked for it, or tells why that cannot be
    /// read.
    pub fn want(&self, content: Result<Arc<Content>, String>, by: &str) {
        self.wanted.send_modify(|wanted| {
            let digest = |content: &Result<Arc<Content>, String>| {
                content.as_ref().ok().map(|content| content.digest.clone())
            };
            // A content that is found once more was asked for by whom it was before.
            if wanted.content.as_ref().and_then(digest) != digest(&content) {
                wanted.by = Some(by.to_owned());
            }
            wanted.content = Some(content);
        });
    }

    /// Stops it at a checkpoint until [`Hosted::start`]. Kept across restarts of the
    /// service.
    pub fn pause(&self) {
        self.wanted.send_modify(|wanted| wanted.paused = true);
    }

    /// Starts it again, also if it has failed or if its content was taken back. The states
    /// of `dropped` may go. It goes back to the checkpoint `from`, if there is one.
    pub fn start(&self, dropped: &[String], from: Option<Arc<SparedCheckpoint>>, by: &str) {
        self.wanted
            .send_modify(|wanted| wanted.start(dropped, from, by));
    }

    /// Has it run this content, for which the states of `dropped` may go that do not fit.
    pub fn agree(&self, content: Arc<Content>, dropped: &[String], by: &str) {
        // At once: a content without the consent would be refused.
        self.wanted.send_modify(|wanted| {
            wanted.content = Some(Ok(content));
            wanted.by = Some(by.to_owned());
            wanted.start(dropped, None, by);
            // Whoever asks again since the answer got lost means the same change.
            wanted.if_needed = true;
        });
    }

    /// Has it look for a replay of dead letters, which the store has.
    pub fn replay(&self) {
        self.wanted.send_modify(|wanted| wanted.replays += 1);
    }

    /// Stops it at a checkpoint for good.
    pub fn leave(&self) {
        self.wanted.send_modify(|wanted| wanted.leaves = true);
    }

    /// The content of its file.
    pub fn wanted_content(&self) -> Option<Arc<Content>> {
        self.wanted.borrow().content.clone()?.ok()
    }

    /// The contents that it wants and runs.
    pub fn contents(&self) -> Vec<Arc<Content>> {
        let running = self.lock().running.clone();
        let running = running.map(|running| running.planned.content.clone());
        self.wanted_content().into_iter().chain(running).collect()
    }

    pub fn shown(&self) -> Shown {
        self.lock().clone()
    }

    /// The phase that it is in, with what its run does by itself.
    pub fn phase(&self) -> PhaseNow {
        let (phase, since_ms) = {
            let shown = self.lock();
            (shown.phase, shown.since_ms)
        };
        match self.restarts.waiting() {
            Some(restarting) => PhaseNow {
                phase: Phase::Restarting,
                since_ms: restarting.failed_ms,
                restarting: Some(restarting),
            },
            None => PhaseNow {
                phase,
                since_ms,
                restarting: None,
            },
        }
    }

    /// Looks at how busy its nodes are.
    pub(super) fn look_at_load(&self) {
        let runs = self.phase().phase.reads_rows();
        let running = self.lock().running.clone().filter(|_| runs);
        let nodes = running.map_or_else(Vec::new, |running| running.nodes);
        self.load.look(nodes, Instant::now());
    }

    /// How busy the nodes of this plan were lately, if it runs.
    pub fn loads(&self, plan: &Plan) -> Loads {
        match self.phase().phase.reads_rows() {
            true => self.load.now(plan),
            false => Loads::default(),
        }
    }

    /// What is wanted of it, as that changes.
    pub(super) fn wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// What can be seen of it, to be changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shown> {
        // A panic elsewhere leaves no change half made.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn start(&mut self, dropped: &[String], from: Option<Arc<SparedCheckpoint>>, by: &str) {
        self.paused = false;
        self.starts += 1;
        self.started_by = Some(by.to_owned());
        self.dropped = dropped.to_vec();
        self.if_needed = false;
        self.from = from;
    }

    /// What is decided about as a whole: the content, and how often a start was asked for.
    pub(super) fn key(&self) -> (Option<String>, u64) {
        let content = self.content.as_ref();
        let digest = content.map(|content| match content {
            Ok(content) => content.digest.clone(),
            Err(why) => why.clone(),
        });
        (digest, self.starts)
    }
}
