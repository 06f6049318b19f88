//! `sluicebox dev`: runs a pipeline while it and its plugins are written. What is saved is
//! built, and takes over as in a service: planned first, in place where it can be, on
//! probation.

/// The crates of a pipeline's plugins, and their builds.
mod crates;
/// What is printed.
mod shown;
/// Which files have changed.
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinError, JoinHandle, block_in_place, spawn_blocking};
use tokio::time::MissedTickBehavior;

use self::crates::{Built, Crates};
use self::shown::{Effect, tell};
use self::watch::{Changed, Files, Watched};
use super::build::Cargo;
use super::serve::probation;
use super::signals::{self, Signals};
use super::{CliError, loader, print};
use crate::budget::HostMemory;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Diagnostics};
use crate::http::listener::Listener;
use crate::service::api;
use crate::service::api::access::Access;
use crate::service::content::{Content, folder_of, plugin_paths};
use crate::service::host::Host;
use crate::service::hosted::{Context, Hosted, News, Phase, ProbationTime};
use crate::service::revision::States;
use crate::service::store::{BY_FILES, ChangeOutcome, ChangeRecord, Store};

/// The module whose news this command prints itself.
pub const TOLD: &str = "sluicebox::service::course";

/// How often files are looked at. A change is taken when it has been the same twice.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looking takes no larger part of the time, however many files there are.
const LOOK_PART: u32 = 20;

/// Where the page is, if that is free.
const PORT: u16 = 7878;
/// The requests of one author.
const RATE: NonZeroU32 = NonZeroU32::new(1_000).expect("it is not 0");

#[derive(Args)]
pub struct DevArguments {
    /// The pipeline's TOML file
    pipeline: PathBuf,
    /// Where the page and the HTTP interface are: a port of this machine; by default 7878,
    /// or any that is free
    #[arg(long)]
    port: Option<u16>,
    /// Keep states in memory even if the pipeline's file names a place for them, which is then
    /// left as it is
    #[arg(long)]
    temporary: bool,
    /// How long a change has to hold; it is taken back otherwise
    #[arg(long, value_name = "DURATION", value_parser = probation, default_value = "3s")]
    probation: Duration,
}

pub fn dev(arguments: &DevArguments, signals: Signals) -> Result<(), CliError> {
    if !arguments.pipeline.is_file() {
        return Err(CliError::Usage(anyhow!(
            "there is no file {}: name a pipeline's file",
            arguments.pipeline.display()
        )));
    }
    let name = name_when_readable(&arguments.pipeline);
    let data = tempfile::tempdir().map_err(|error| CliError::Failed(error.into()))?;
    let store = Store::open(data.path()).context("the temporary folder cannot be used");
    let context = Context {
        store: store.map_err(CliError::Failed)?.without_uploads(),
        loader: loader()?,
        clock: Arc::new(SystemClock),
        memory: Arc::new(HostMemory::new(None)),
        threads: None,
        probation: ProbationTime::new(arguments.probation),
        states: match arguments.temporary {
            true => States::Temporary,
            false => States::Kept,
        },
    };
    let now_ms = SystemClock.now_ms();
    let pipeline = Hosted::new(&name, arguments.pipeline.clone(), false, now_ms);
    let pipeline = Arc::new(pipeline);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("dev")
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(error.into()))?;
    let host = Host::of_one(context, pipeline.clone());
    let ran = runtime.block_on(run(host, pipeline, arguments.port, &signals));
    ran.map_err(CliError::Failed)
}

/// The name that the pipeline's file gives it. Where that has mistakes, waits until it has
/// none: nothing runs yet that could go on.
fn name_when_readable(file: &Path) -> String {
    let mut shown = None;
    loop {
        match Config::read(file) {
            Ok(config) => return config.name.into_inner(),
            Err(mistakes) => {
                let text = mistakes.to_string();
                if shown.as_ref() != Some(&text) {
                    print::diagnostics(&mistakes);
                    tell("waiting for a change");
                    shown = Some(text);
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

async fn run(
    host: Arc<Host>,
    pipeline: Arc<Hosted>,
    port: Option<u16>,
    signals: &Signals,
) -> anyhow::Result<()> {
    let listener = listen(port).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let listener = Listener::new(listener, None)?;
    stop_by(signals, host.clone());
    let answering = tokio::spawn(api::serve(
        host.clone(),
        listener,
        Arc::new(Access::new(None, false, RATE)),
    ));
    tell(format_args!("pipeline {}: {url}", pipeline.name));
    let running = {
        let host = host.clone();
        tokio::spawn(async move { host.run_one().await })
    };
    let mut author = Author {
        news: pipeline.news(),
        crates: Crates::default(),
        content: Watched::default(),
        cargo: Arc::new(Cargo::to_be_ended()),
        building: None,
        edit: Edit::default(),
        on_its_way: None,
        wanted: None,
        warnings: String::new(),
        host: host.clone(),
        pipeline,
        url,
    };
    author.follow().await;
    author.cargo.end();
    if let Some(building) = author.building.take() {
        building.await?;
    }
    running.await?;
    // What has happened last.
    while let Ok(news) = author.news.try_recv() {
        author.hear(&news);
    }
    answering.await??;
    Ok(())
}

async fn listen(port: Option<u16>) -> anyhow::Result<TcpListener> {
    let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let listening = match (TcpListener::bind(at(port.unwrap_or(PORT))).await, port) {
        (Err(_), None) => TcpListener::bind(at(0)).await,
        (listening, _) => listening,
    };
    listening.with_context(|| format!("cannot listen on port {}", port.unwrap_or_default()))
}

/// Stops by the first of these signals, and ends the process by the second.
fn stop_by(signals: &Signals, host: Arc<Host>) {
    signals.take(move |number| {
        let message = "stopping: the pipeline makes a checkpoint; a second signal quits at once";
        signals::stop_or_end(number, host.stop(), message);
    });
}

/// What somebody has saved.
#[derive(Default)]
struct Edit {
    changed: Changed,
    rebuild: Option<Duration>,
}

/// What the pipeline is to run, until it does.
struct OnItsWay {
    digest: String,
    edit: Edit,
    effect: Effect,
}

/// Follows what the author writes.
struct Author {
    host: Arc<Host>,
    pipeline: Arc<Hosted>,
    news: Receiver<News>,
    crates: Crates,
    /// The pipeline's file and its plugins.
    content: Watched,
    cargo: Arc<Cargo>,
    building: Option<JoinHandle<Vec<Built>>>,
    edit: Edit,
    on_its_way: Option<OnItsWay>,
    /// The content that was wanted last.
    wanted: Option<Arc<Content>>,
    /// Those that were shown last.
    warnings: String,
    url: String,
}

impl Author {
    async fn follow(&mut self) {
        let stop = self.host.stop().clone();
        self.name_crates();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => return,
                news = self.news.recv() => match news {
                    Ok(news) => self.hear(&news),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                built = finished(&mut self.building) => {
                    self.building = None;
                    match built {
                        Ok(built) => block_in_place(|| self.built(built)),
                        Err(error) => tell(format_args!("a build has failed: {error}")),
                    }
                }
                _ = ticks.tick() => {
                    let took = block_in_place(|| self.look());
                    if took * LOOK_PART > LOOK_EVERY {
                        ticks.reset_after(took * LOOK_PART);
                    }
                }
            }
        }
    }

    /// Looks at all files, and begins what is to be done. Returns how long looking took.
    fn look(&mut self) -> Duration {
        let began = tokio::time::Instant::now();
        let sources_have_changed = self.crates.look();
        let content_has_changed = self.content.look(self.content_files());
        let took = began.elapsed();
        if self.building.is_some() {
            return took;
        }
        if sources_have_changed {
            self.build();
        } else if content_has_changed {
            self.name_crates();
            // Those that are named now for the first time are built first.
            if !self.crates.have_changed() {
                self.read();
            }
        }
        took
    }

    /// The crates of the plugins that the pipeline's file names now.
    fn name_crates(&mut self) {
        let text = std::fs::read_to_string(&self.pipeline.file).unwrap_or_default();
        let folder = folder_of(&self.pipeline.file);
        let plugins = plugin_paths(&text).into_iter();
        self.crates
            .name(plugins.map(|plugin| folder.join(plugin)).collect());
    }

    /// Builds what has changed.
    fn build(&mut self) {
        let (changed, builds) = self.crates.take();
        if !changed.paths.is_empty() {
            tell(shown::saved(&changed.paths));
        }
        self.edit.changed.add(changed);
        let (host, cargo) = (self.host.clone(), self.cargo.clone());
        self.building = Some(spawn_blocking(move || {
            let loader = &host.context().loader;
            let builds = builds.into_iter();
            builds.map(|build| build.run(loader, &cargo)).collect()
        }));
    }

    fn built(&mut self, built: Vec<Built>) {
        let mut has_failed = false;
        for built in built {
            let done = self.crates.note(built);
            if self.host.stop().asked() {
                return;
            }
            match &done.error {
                None if done.artifact.is_some() => {
                    let rebuild = self.edit.rebuild.unwrap_or_default();
                    self.edit.rebuild = Some(rebuild + done.took);
                }
                None => {}
                Some(why) => {
                    has_failed = true;
                    let runs = match self.wanted {
                        Some(_) => "; what runs goes on",
                        None => "",
                    };
                    tell(format_args!("{why}{runs}"));
                }
            }
        }
        // The plugins that were put in their places just now are no change for the next look.
        self.content.look(self.content_files());
        if !has_failed {
            self.read();
            return;
        }
        self.edit = Edit::default();
        let is_there = self.crates.plugins().all(Path::is_file);
        if is_there && self.content.has_changed() {
            self.read();
        }
    }

    fn content_files(&self) -> Files {
        let mut files = Files::new();
        watch::add(&mut files, self.pipeline.file.clone());
        for plugin in self.crates.plugins() {
            watch::add(&mut files, plugin.to_owned());
        }
        files
    }

    /// Reads the pipeline's file and its plugins, and has the pipeline run them.
    fn read(&mut self) {
        let changed = self.content.take();
        let edited = changed.paths.iter();
        let edited = edited.filter(|path| !self.crates.has_built(path));
        let edited: Vec<_> = edited.cloned().collect();
        if !edited.is_empty() {
            tell(shown::saved(&edited));
            self.edit.changed.add(changed);
        }
        let store = &self.host.context().store;
        let file = &self.pipeline.file;
        let content = Content::read(file, store);
        match content {
            Err(error) => tell(format_args!("{} cannot be read: {error}", file.display())),
            Ok(content) => self.want(Arc::new(content)),
        }
    }

    fn want(&mut self, content: Arc<Content>) {
        let edit = std::mem::take(&mut self.edit);
        let is_same = |wanted: &Arc<Content>| wanted.digest == content.digest;
        if self.wanted.as_ref().is_some_and(is_same) {
            if !edit.changed.paths.is_empty() {
                tell("nothing of it changes what runs");
            }
            return;
        }
        match name_of(&self.pipeline.file, &content) {
            Ok(name) if name != self.pipeline.name => tell(format_args!(
                "the pipeline is called {name} now: start `sluicebox dev` again, or name it {} as \
                 before",
                self.pipeline.name
            )),
            Ok(_) => {
                if self.runs(&content.digest) {
                    tell("this is what runs");
                }
                self.on_its_way = Some(OnItsWay {
                    digest: content.digest.clone(),
                    edit,
                    effect: Effect::Begun,
                });
                self.wanted = Some(content.clone());
                self.pipeline.want(Ok(content), BY_FILES);
            }
            Err(mistakes) => {
                print::diagnostics(&mistakes);
                tell("what runs goes on");
            }
        }
    }

    /// Whether it runs this content, or has run it last.
    fn runs(&self, digest: &str) -> bool {
        let running = self.pipeline.shown().running;
        running.is_some_and(|running| running.planned.content.digest == digest)
    }

    fn hear(&mut self, news: &News) {
        match news {
            News::Change(change) => self.hear_change(change),
            News::Phase(phase) => self.hear_phase(*phase),
        }
    }

    fn hear_change(&mut self, change: &ChangeRecord) {
        match change.outcome {
            ChangeOutcome::Refused => {
                tell(shown::refused(change, &self.pipeline.name, &self.url));
                self.on_its_way = None;
            }
            ChangeOutcome::Waiting => {
                let why = change.why.as_deref().unwrap_or_default();
                tell(format_args!("waits: {why}"));
            }
            ChangeOutcome::Probation => self.hear_probation(change),
            ChangeOutcome::Held => {
                block_in_place(|| self.host.drop_plugins());
                if change.plan.is_some() {
                    tell(shown::held(change));
                }
            }
            ChangeOutcome::TakenBack => {
                let why = change.why.as_deref().unwrap_or_default();
                tell(format_args!("taken back: {why}"));
                self.on_its_way = None;
            }
            ChangeOutcome::Replaced => {}
        }
    }

    /// A content takes over, or has done so in place.
    fn hear_probation(&mut self, change: &ChangeRecord) {
        let Some(plan) = &change.plan else {
            return;
        };
        print::stderr(shown::compared(plan));
        let effect = match (change.in_place, plan.keeps_any()) {
            (true, _) => Effect::InPlace {
                pause_ms: change.pause_ms.unwrap_or_default(),
            },
            (false, true) => Effect::Restarted,
            (false, false) => Effect::Begun,
        };
        if let Some(on_its_way) = &mut self.on_its_way {
            on_its_way.effect = effect;
        }
        if change.in_place {
            self.tell_effect(&change.digest);
        }
    }

    fn hear_phase(&mut self, phase: Phase) {
        let shown = self.pipeline.shown();
        match (phase, &shown.running) {
            (Phase::Running | Phase::Probation, Some(running)) => {
                let warnings = &running.planned.warnings;
                if *warnings != self.warnings {
                    print::stderr(warnings);
                    self.warnings.clone_from(warnings);
                }
                let digest = running.planned.content.digest.clone();
                self.tell_effect(&digest);
            }
            (Phase::Ended, Some(running)) => tell(shown::ended(&running.nodes)),
            (Phase::Failed, _) => {
                if let Some(failure) = &shown.failure {
                    tell(format_args!(
                        "failed: {}\n  {}",
                        failure.message, failure.advice
                    ));
                }
            }
            (Phase::Paused, _) => tell("paused, until it is started on the page"),
            _ => {}
        }
    }

    /// What was saved is what runs, if it is this content.
    fn tell_effect(&mut self, digest: &str) {
        let is_it = |on_its_way: &mut OnItsWay| on_its_way.digest == digest;
        let Some(OnItsWay { edit, effect, .. }) = self.on_its_way.take_if(is_it) else {
            return;
        };
        if let Some(at_ms) = edit.changed.at_ms {
            let since_ms = SystemClock.now_ms().saturating_sub(at_ms);
            let since = Duration::from_millis(since_ms.unsigned_abs());
            tell(shown::effect(&effect, since, edit.rebuild));
        }
    }
}

/// Waits for a build, if one is made.
async fn finished(building: &mut Option<JoinHandle<Vec<Built>>>) -> Result<Vec<Built>, JoinError> {
    match building {
        Some(building) => building.await,
        None => std::future::pending().await,
    }
}

/// The name of a content, or its mistakes.
fn name_of(file: &Path, content: &Content) -> Result<String, Diagnostics> {
    let config = Config::parse(&file.display().to_string(), &content.text)?;
    Ok(config.name.into_inner())
}
