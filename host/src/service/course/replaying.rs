//! Replays dead letters: ends the run at a checkpoint, which has all that the letters came
//! of, goes on with a revision that reads their rows as well, and ends that at a checkpoint
//! when it has. Each step is noted before the next, so that a crash between them repeats or
//! loses none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use tokio::task::{JoinHandle, block_in_place, spawn_blocking};

use super::{Course, Next, Opened};
use crate::checkpoint::manifest::ProgressManifest;
use crate::checkpoint::storage::StorageError;
use crate::plan::Plan;
use crate::progress::{NodeProgress, Role};
use crate::service::hosted::{Context, Hosted, Phase, Wanted};
use crate::service::letters::{Letters, Replay};
use crate::service::replay::{is_replay, letters_read};
use crate::service::revision::Planned;
use crate::sink::dead_letter::kept;

impl Course {
    /// Plans the open replay beside the run, if there is one.
    pub(super) fn plan_replay(
        &self,
        planned: Arc<Planned>,
    ) -> JoinHandle<Option<Result<Planned, String>>> {
        let (hosted, context) = (self.hosted.clone(), self.context.clone());
        spawn_blocking(move || {
            let replay = match context.store.letters(&hosted.name) {
                Ok(letters) => letters.open?,
                Err(error) => return Some(Err(error.to_string())),
            };
            Some(of_replay(&hosted, &context, &planned, &replay))
        })
    }

    /// A checkpoint has all that the letters came of: their rows are read next, also after a
    /// crash.
    pub(super) fn begin_replay(&mut self, planned: Planned) {
        let Some(replay) = self.open_replay() else {
            return;
        };
        match block_in_place(|| all_there(&self.hosted, &planned.plan, &replay)) {
            Ok(()) if self.note(Letters::begin) => self.replayed = Some(Arc::new(planned)),
            Ok(()) => {}
            Err(why) => self.refuse_replay(why),
        }
    }

    pub(super) fn open_replay(&self) -> Option<Replay> {
        let letters = block_in_place(|| self.context.store.letters(&self.hosted.name));
        letters.map_err(|error| self.log(&error)).ok()?.open
    }

    /// Whether a replay may be open that it has not looked for.
    pub(super) fn waits_for_replay(&self, wanted: &Wanted) -> bool {
        self.looked_for_replays != Some(wanted.replays)
    }

    /// Has the open replay go on that has begun, or that begins since nothing runs. Returns
    /// how the pipeline rests if it cannot; `None` if there is no such replay.
    pub(super) async fn resume_replay(&mut self) -> Option<Option<Phase>> {
        let replay = self.open_replay()?;
        let has_ended = self.rests == Some(Phase::Ended);
        if !replay.is_begun && !has_ended {
            return None;
        }
        self.remember_held().await;
        let held = self.held.clone()?;
        let planned = match self.replayed.take() {
            Some(planned) => Ok(planned),
            None => {
                let (hosted, context) = (self.hosted.clone(), self.context.clone());
                let held = held.clone();
                let planning = spawn_blocking(move || of_replay(&hosted, &context, &held, &replay));
                let planned = planning.await;
                planned
                    .unwrap_or_else(|error| Err(error.to_string()))
                    .map(Arc::new)
            }
        };
        match planned {
            Ok(planned) => {
                if !self.note(Letters::begin) {
                    return None;
                }
                self.accept(Next {
                    is_replay: true,
                    ..Next::again(planned)
                });
                Some(None)
            }
            Err(why) if has_ended => {
                self.refuse_replay(why);
                None
            }
            // Some of its rows may have been read.
            Err(why) => {
                self.hosted.lock().refusal = Some(format!("its replay cannot go on: {why}"));
                self.next = None;
                Some(Some(Phase::Refused))
            }
        }
    }

    /// All rows were read, and a checkpoint has what they did.
    pub(super) fn end_replay(&mut self) {
        if self.note(|letters| {
            letters.done();
            true
        }) {
            tracing::info!("its dead letters were replayed");
            self.next = self.held.clone().map(Next::again);
        }
    }

    /// The open replay has ended its run, and the pipeline goes on without it: what the newest
    /// checkpoint has of it was replayed. Returns whether this was noted.
    pub(super) fn give_up_replay(&self, why: String) -> bool {
        let Some(replay) = self.open_replay() else {
            return false;
        };
        let read = match block_in_place(|| self.rows_read()) {
            Ok(read) => letters_read(&replay, &read),
            Err(error) => {
                self.log(&error);
                return false;
            }
        };
        tracing::error!("its dead letters cannot be replayed: {why}");
        self.note(|letters| {
            letters.given_up(&read, why);
            true
        })
    }

    /// How many rows of each source of a replay the newest checkpoint has. No run has the
    /// state open.
    fn rows_read(&self) -> Result<BTreeMap<String, u64>, StorageError> {
        let Some(Opened { durable, .. }) = &self.opened else {
            return Ok(BTreeMap::new());
        };
        let Some(newest) = durable.storage.list()?.pop() else {
            return Ok(BTreeMap::new());
        };
        let manifest = durable.storage.restore(newest.id)?;
        let sources = manifest.nodes.iter().filter(|node| is_replay(node.name()));
        let read = sources.map(|node| {
            let snapshots = match &node.progress {
                ProgressManifest::Source(snapshots) => snapshots.as_slice(),
                _ => &[],
            };
            let partitions = snapshots.iter().flat_map(|snapshot| &snapshot.partitions);
            let rows = partitions.map(|partition| partition.position.offset).sum();
            (node.name().to_owned(), rows)
        });
        Ok(read.collect())
    }

    pub(super) fn refuse_replay(&self, why: String) {
        tracing::error!("its dead letters cannot be replayed: {why}");
        self.note(|letters| {
            letters.failed(why);
            true
        });
    }

    /// Notes what becomes of the open replay, and returns what `change` does. Where it cannot
    /// be written, the replay is as it was before.
    fn note(&self, change: impl FnOnce(&mut Letters) -> bool) -> bool {
        let store = &self.context.store;
        let changed = block_in_place(|| {
            store.change_letters(&self.hosted.name, |letters| {
                Ok::<_, io::Error>(change(letters))
            })
        });
        changed.map_err(|error| self.log(&error)).unwrap_or(false)
    }
}

/// Whether the sources of a replay have read all of its rows.
pub(super) fn has_read_all(nodes: &[Arc<NodeProgress>]) -> bool {
    let mut sources = nodes
        .iter()
        .filter(|node| node.role == Role::Source && is_replay(&node.name));
    sources.all(|node| node.snapshot().read == Some(1.0))
}

fn of_replay(
    hosted: &Hosted,
    context: &Context,
    planned: &Planned,
    replay: &Replay,
) -> Result<Planned, String> {
    let Context {
        store,
        loader,
        states,
        ..
    } = context;
    planned.replaying(&hosted.name, &hosted.file, replay, *states, store, loader)
}

/// Whether all letters are still there, when a checkpoint has all that there are: a run that
/// was restarted meanwhile may have taken some back, and read their rows again.
fn all_there(hosted: &Hosted, plan: &Plan, replay: &Replay) -> Result<(), String> {
    let mut missing: BTreeSet<&str> = replay.rows.iter().map(|row| row.letter.as_str()).collect();
    if let Some(path) = &plan.dead_letters {
        let read = kept::read(path, &hosted.name, |id, _| {
            missing.remove(id.as_str());
        });
        read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    }
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(format!("letter {first} is not there any more")),
    }
}
