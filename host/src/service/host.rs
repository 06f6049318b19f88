//! All pipelines of the service. Looks after the folder of their files: a file that
//! appears is a pipeline, one that changes is a new content, one that goes away stops
//! its pipeline.
//!
//! The folder is looked at again and again, and files are compared by what the file
//! system tells of them: notifications do not tell that a link leads elsewhere now, nor
//! that another machine has written to a network's disk.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::MissedTickBehavior;

use super::change::ChangePlan;
use super::claims::Claims;
use super::content::{Content, Stamp, kept_plugins, plugin_paths};
use super::course;
use super::hosted::{Context, Hosted, Phase};
use super::kept::Kept;
use super::revision::Planned;
use super::shadow::compare;
use super::store::{BY_FILES, Store};
use super::uploads::Uploads;
use crate::config::{NAMES, is_name};
use crate::heap;
use crate::sink::dead_letter::kept::Index;
use crate::stop::Stop;

/// How often the folder is looked at. A change is taken when it has been the same twice.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A file that is away for so many looks is gone: some programs write a file by deleting
/// it first.
const AWAY_LOOKS: u32 = 10;
/// How many may listen to rows at a time.
const TAILS_MAX: usize = 64;
/// How often plugins that nothing needs are deleted, in looks.
const DROP_EVERY: u32 = 600;

/// The pipelines of a folder.
pub struct Host {
    context: Arc<Context>,
    /// The folder of the pipelines' files; absent where there is one pipeline, whose
    /// contents somebody else reads.
    folder: Option<PathBuf>,
    pipelines: Mutex<BTreeMap<String, Arc<Hosted>>>,
    /// Contents that somebody has written by HTTP, and that are to be found among the files.
    asked: Mutex<BTreeMap<String, Asked>>,
    /// Whether all files that were there at first were read.
    has_looked: AtomicBool,
    /// For those who listen to rows.
    tails: Arc<Semaphore>,
    /// For who uploads a plugin.
    upload: Arc<Semaphore>,
    /// Where the dead letters are that somebody has looked at last.
    letters: Mutex<Option<Index>>,
    /// What pipelines that run have of files.
    claims: Arc<Claims>,
    stop: Stop,
}

/// Who has asked for a content.
struct Asked {
    digest: String,
    by: String,
}

/// A content that is planned, and what it would change.
pub struct Proposal {
    pub planned: Planned,
    pub change: ChangePlan,
}

/// What is known of a pipeline's file.
#[derive(Default)]
struct Watched {
    plugins: Vec<PathBuf>,
    /// Whether it names plugins that are uploaded.
    has_uploads: bool,
    /// As it was at the last look.
    seen: Seen,
    /// As it was when its content was taken.
    taken: Option<Seen>,
    away: u32,
}

/// What tells whether a content has changed, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    files: Stamp,
    /// How often plugins were uploaded or deleted; 0 if that says nothing.
    uploads: u64,
}

impl Watched {
    fn look(&self, file: &Path, store: &Store) -> Seen {
        let uploads = store.uploads.as_ref().filter(|_| self.has_uploads);
        Seen {
            files: Stamp::of(file, &self.plugins),
            uploads: uploads.map_or(0, Uploads::changes),
        }
    }
}

impl Host {
    pub fn new(context: Context, folder: &Path) -> Arc<Host> {
        Arc::new(Host {
            context: Arc::new(context),
            folder: Some(folder.to_owned()),
            pipelines: Mutex::default(),
            asked: Mutex::default(),
            has_looked: AtomicBool::new(false),
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
            upload: Arc::new(Semaphore::new(1)),
            letters: Mutex::default(),
            claims: Arc::default(),
            stop: Stop::default(),
        })
    }

    /// Of one pipeline, for [`Host::run_one`].
    pub fn of_one(context: Context, pipeline: Arc<Hosted>) -> Arc<Host> {
        Arc::new(Host {
            context: Arc::new(context),
            folder: None,
            claims: pipeline.claims.clone(),
            pipelines: Mutex::new([(pipeline.name.clone(), pipeline)].into()),
            asked: Mutex::default(),
            has_looked: AtomicBool::new(true),
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
            upload: Arc::new(Semaphore::new(1)),
            letters: Mutex::default(),
            stop: Stop::default(),
        })
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The pipelines in order of their names.
    pub fn pipelines(&self) -> Vec<Arc<Hosted>> {
        self.lock().values().cloned().collect()
    }

    pub fn pipeline(&self, name: &str) -> Option<Arc<Hosted>> {
        self.lock().get(name).cloned()
    }

    /// The place of a pipeline's file, if there can be a pipeline of this name.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        match &self.folder {
            Some(folder) => Some(file_in(folder, name)),
            None => Some(self.pipeline(name)?.file.clone()),
        }
    }

    /// What this text would change as the file of a pipeline, or its mistakes. The states of
    /// `dropped` may go.
    pub fn propose(
        &self,
        name: &str,
        text: String,
        dropped: &[String],
    ) -> Result<Proposal, String> {
        let planned = self.planned(name, text)?;
        if let Some(why) = self.claims.conflict(name, &planned.plan.files) {
            return Err(why);
        }
        let shown = self.pipeline(name).map(|pipeline| pipeline.shown());
        let recent = shown
            .as_ref()
            .and_then(|shown| Some(shown.running.as_ref()?.recent.clone()));
        let kept = Kept::of_shown(shown, &planned.plan);
        if let Some(why) = kept.lacks(dropped) {
            return Err(why);
        }
        let change = match (kept.running(), recent) {
            (Some(running), Some(recent)) => {
                let mut change = planned.change_from(running, dropped);
                change.compare(compare(&running.plan, &planned.plan, &recent));
                change
            }
            _ => ChangePlan::between(&kept.nodes(), &planned.description, dropped),
        };
        Ok(Proposal { planned, change })
    }

    /// This text as the file of a pipeline, or its mistakes.
    pub fn planned(&self, name: &str, text: String) -> Result<Planned, String> {
        let Context {
            store,
            loader,
            states,
            ..
        } = &*self.context;
        let file = self.file_of(name)?;
        let _holding = store.holding_plugins();
        let content = Content::of(&file, text, store);
        let content = content.map_err(|error| error.to_string())?;
        let planned = Planned::new(name, &file, Arc::new(content), *states, store, loader);
        planned.map_err(|mistakes| mistakes.to_string())
    }

    /// A pipeline's file as it is now, or what is wrong with it.
    pub fn planned_now(&self, name: &str) -> Result<Planned, String> {
        let file = self.file_of(name)?;
        let text = fs::read_to_string(&file);
        let text = text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        self.planned(name, text)
    }

    fn file_of(&self, name: &str) -> Result<PathBuf, String> {
        let file = self.file(name);
        file.ok_or_else(|| format!("this host runs no pipeline `{name}`"))
    }

    /// Notes who has asked for a content, before its file is written.
    pub fn note_asked(&self, pipeline: &str, digest: &str, by: &str) {
        let asked = Asked {
            digest: digest.to_owned(),
            by: by.to_owned(),
        };
        self.lock_asked().insert(pipeline.to_owned(), asked);
    }

    /// Who has asked for a content that is found among the files.
    fn asked_by(&self, pipeline: &str, digest: &str) -> String {
        match self.lock_asked().entry(pipeline.to_owned()) {
            Entry::Occupied(asked) if asked.get().digest == digest => asked.remove().by,
            _ => BY_FILES.to_owned(),
        }
    }

    fn lock_asked(&self) -> MutexGuard<'_, BTreeMap<String, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all pipelines that were there at first have been started, or cannot be.
    pub fn is_ready(&self) -> bool {
        let begins = |pipeline: &Arc<Hosted>| {
            matches!(pipeline.shown().phase, Phase::Planning | Phase::Starting)
        };
        self.has_looked.load(Ordering::SeqCst)
            && !self.stop.asked()
            && !self.pipelines().iter().any(begins)
    }

    /// Permits for those who listen to rows.
    pub fn tails(&self) -> &Arc<Semaphore> {
        &self.tails
    }

    /// Waits until no other plugin is being taken. The permit ends the turn.
    pub async fn upload_turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.upload.clone().acquire_owned().await.ok()
    }

    /// Where the dead letters are that somebody has looked at last.
    pub fn letters(&self) -> MutexGuard<'_, Option<Index>> {
        // It is taken and given back as a whole.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks [`Host::run`] to stop all pipelines at a checkpoint.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Hosted>>> {
        // A panic elsewhere leaves no change half made.
        self.pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the only pipeline until it is asked to stop. What is wanted of it, others say.
    pub async fn run_one(&self) {
        let mut running = JoinSet::new();
        for pipeline in self.pipelines() {
            running.spawn(course::supervise(pipeline, self.context.clone()));
        }
        self.stop.wait().await;
        self.end(running).await;
    }

    /// Stops all pipelines at a checkpoint.
    async fn end(&self, mut running: JoinSet<()>) {
        for pipeline in self.pipelines() {
            pipeline.leave();
        }
        while running.join_next().await.is_some() {}
    }

    /// Runs the pipelines of the folder until it is asked to stop.
    pub async fn run(&self) {
        let Some(folder) = self.folder.clone() else {
            return;
        };
        let mut running = JoinSet::new();
        let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
        // Files that it was said of that they are no pipelines.
        let mut told = BTreeSet::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut can_look, mut count) = (true, 0);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.stop.wait() => break,
            }
            let looked =
                block_in_place(|| self.look(&folder, &mut told, &mut watched, &mut running));
            if let (Err(error), true) = (&looked, can_look) {
                let folder = folder.display();
                tracing::error!("pipelines run on as they are: {folder} cannot be read: {error}");
            }
            can_look = looked.is_ok();
            if watched.values().all(|file| file.taken.is_some()) {
                self.has_looked.store(true, Ordering::SeqCst);
            }
            while running.try_join_next().is_some() {}
            count += 1;
            if count % DROP_EVERY == 0 {
                block_in_place(|| {
                    self.drop_plugins();
                    heap::give_back();
                });
            }
        }
        self.end(running).await;
    }

    fn look(
        &self,
        folder: &Path,
        told: &mut BTreeSet<String>,
        watched: &mut BTreeMap<String, Watched>,
        running: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let Found {
            names: there,
            misnamed,
        } = found(folder)?;
        for file in misnamed.difference(told) {
            let file = folder.join(file);
            tracing::error!("{file:?} is no pipeline, for its name: {NAMES}; rename it");
        }
        *told = misnamed;
        for name in &there {
            let known = watched.entry(name.clone()).or_default();
            known.away = 0;
            let file = file_in(folder, name);
            let store = &self.context.store;
            let seen = known.look(&file, store);
            let is_steady = std::mem::replace(&mut known.seen, seen.clone()) == seen;
            if !is_steady || known.taken.as_ref() == Some(&seen) {
                continue;
            }
            let pipeline = self
                .pipeline(name)
                .unwrap_or_else(|| self.begin(name, &file, running));
            // Until the content is wanted, below.
            let _holding = store.holding_plugins();
            let uploads = store.uploads.as_ref().map_or(0, Uploads::changes);
            let content = Content::read(&file, store);
            if let Ok(content) = &content {
                known.plugins = plugin_paths(&content.text);
                known.has_uploads = !kept_plugins(&content.text).is_empty();
            }
            // Of the plugins that it names now. Whatever has changed since it was read, the
            // next look sees.
            let mut now = known.look(&file, store);
            now.uploads = now.uploads.min(uploads);
            known.seen = now.clone();
            known.taken = Some(now);
            let unreadable =
                |error: io::Error| format!("{} cannot be read: {error}", file.display());
            let by = match &content {
                Ok(content) => self.asked_by(name, &content.digest),
                Err(_) => BY_FILES.to_owned(),
            };
            pipeline.want(content.map(Arc::new).map_err(unreadable), &by);
        }
        for (name, known) in watched.iter_mut().filter(|(name, _)| !there.contains(name)) {
            known.away += 1;
            if known.away == AWAY_LOOKS
                && let Some(pipeline) = self.lock().remove(name)
            {
                tracing::info!(
                    pipeline = name,
                    "its file is gone: it stops, and keeps its state"
                );
                pipeline.leave();
            }
        }
        watched.retain(|_, known| known.away < AWAY_LOOKS);
        Ok(())
    }

    fn begin(&self, name: &str, file: &Path, running: &mut JoinSet<()>) -> Arc<Hosted> {
        let ledger = self.context.store.ledger(name);
        let paused = ledger.is_ok_and(|ledger| ledger.paused);
        let now_ms = self.context.clock.now_ms();
        let pipeline = Hosted::new(name, file.to_owned(), paused, now_ms);
        let pipeline = Arc::new(pipeline.beside(&self.claims));
        self.lock().insert(name.to_owned(), pipeline.clone());
        running.spawn(course::supervise(pipeline.clone(), self.context.clone()));
        pipeline
    }

    /// Deletes the plugins that nothing needs any more.
    pub fn drop_plugins(&self) {
        let needed = || {
            let pipelines = self.pipelines().into_iter();
            let contents = pipelines.flat_map(|pipeline| pipeline.contents());
            contents
                .flat_map(|content| content.digests().cloned().collect::<Vec<_>>())
                .collect()
        };
        if let Err(error) = self.context.store.drop_plugins(needed) {
            tracing::warn!("plugins that nothing needs cannot be deleted: {error}");
        }
    }
}

/// The place of a pipeline's file in the folder.
fn file_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.toml"))
}

/// The files of a folder.
#[derive(Default)]
struct Found {
    /// The names of the pipelines.
    names: Vec<String>,
    /// Those that would be pipelines under another name.
    misnamed: BTreeSet<String>,
}

/// What is in the folder.
fn found(folder: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for file in fs::read_dir(folder)? {
        let file = file?.file_name();
        let file = file.to_string_lossy();
        let name = file.strip_suffix(".toml");
        match name.filter(|name| !name.starts_with('.')) {
            Some(name) if is_name(name) => found.names.push(name.to_owned()),
            Some(_) => {
                found.misnamed.insert(file.into_owned());
            }
            None => {}
        }
    }
    found.names.sort_unstable();
    Ok(found)
}
