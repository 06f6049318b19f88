//! `sluicebox checkpoints`: lists, checks, saves and deletes a pipeline's
//! checkpoints. Reading needs no lock, so it works while a host runs the
//! pipeline.

/// Shows a manifest as text.
mod show;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::format::{ago, size, table};
use super::{CliError, print, print_json};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::remote::RemoteStore;
use crate::checkpoint::remote::waiting::ANSWER_MAX;
use crate::checkpoint::savepoint::{self, SavepointFolder};
use crate::checkpoint::storage::folder::{Archive, FolderLock};
use crate::checkpoint::storage::{self, CheckpointInfo, StorageError};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::element::CheckpointId;
use crate::plan::{RemotePlan, StateBackend};
use crate::planner;

#[derive(Subcommand)]
pub enum CheckpointsCommand {
    /// List checkpoints: number, name, age, size, damage
    List {
        #[command(flatten)]
        common: Common,
        /// List the copies in the object store that `upload` names
        #[arg(long)]
        copies: bool,
    },
    /// Show a checkpoint's positions of sources, state and plugins
    Show {
        #[command(flatten)]
        common: Common,
        /// Its number or name; the newest by default
        checkpoint: Option<String>,
    },
    /// Read all files and compare them with their checksums
    Verify {
        #[command(flatten)]
        common: Common,
        /// Its number or name; all by default
        checkpoint: Option<String>,
    },
    /// Have the host that runs the pipeline make a checkpoint now, and keep it
    /// under a name
    Save {
        #[command(flatten)]
        common: Common,
        /// Letters, digits, `-`, `_` and `.`
        name: String,
        /// How long to wait for the checkpoint
        #[arg(long, default_value = "60s", value_name = "TIME")]
        timeout: humantime::Duration,
    },
    /// Delete a checkpoint
    Delete {
        #[command(flatten)]
        common: Common,
        /// Its number or name
        checkpoint: String,
        /// Delete it even if it is the only one that can be restored
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct Common {
    /// The pipeline's TOML file
    pipeline: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub fn checkpoints(command: &CheckpointsCommand) -> Result<(), CliError> {
    match command {
        CheckpointsCommand::List { common, copies } => {
            let kept = PipelineCheckpoints::open(&common.pipeline)?;
            let (list, place) = match copies {
                true => kept.copies()?,
                false => (kept.list, kept.archive.folder().display().to_string()),
            };
            match common.json {
                true => print_json(&list),
                false => print(&to_text(&list, &place, SystemClock.now_ms())),
            }
        }
        CheckpointsCommand::Show { common, checkpoint } => {
            let kept = PipelineCheckpoints::open(&common.pipeline)?;
            let manifest = kept.manifest(checkpoint.as_deref())?;
            match common.json {
                true => print_json(&manifest),
                false => print(&show::to_text(&manifest, SystemClock.now_ms())),
            }
        }
        CheckpointsCommand::Verify { common, checkpoint } => {
            let kept = PipelineCheckpoints::open(&common.pipeline)?;
            verify(&kept, checkpoint.as_deref(), common.json)
        }
        CheckpointsCommand::Save {
            common,
            name,
            timeout,
        } => {
            let mut kept = PipelineCheckpoints::open(&common.pipeline)?;
            let id = kept.save(name, **timeout)?;
            match common.json {
                true => print_json(&json!({ "id": id, "name": name })),
                false => print(&format!("checkpoint {id} is saved as {name}\n")),
            }
        }
        CheckpointsCommand::Delete {
            common,
            checkpoint,
            force,
        } => {
            let kept = PipelineCheckpoints::open(&common.pipeline)?;
            let id = kept.delete(checkpoint, *force)?;
            match common.json {
                true => print_json(&json!({ "deleted": id })),
                false => print(&format!("checkpoint {id} is deleted\n")),
            }
        }
    }
}

fn verify(kept: &PipelineCheckpoints, wanted: Option<&str>, as_json: bool) -> Result<(), CliError> {
    let verified = kept.verify(wanted)?;
    if as_json {
        let one =
            |(id, damage): &(CheckpointId, Option<String>)| json!({ "id": id, "damage": damage });
        print_json(&verified.iter().map(one).collect::<Vec<_>>())?;
    } else {
        for (id, damage) in &verified {
            let found = damage.as_deref().unwrap_or("whole");
            print(&format!("checkpoint {id}: {found}\n"))?;
        }
    }
    match verified
        .iter()
        .filter(|(_, damage)| damage.is_some())
        .count()
    {
        0 => Ok(()),
        1 => Err(failed("1 checkpoint is damaged".to_owned())),
        count => Err(failed(format!("{count} checkpoints are damaged"))),
    }
}

/// The checkpoints of a pipeline.
struct PipelineCheckpoints {
    pipeline: String,
    folder: PathBuf,
    archive: Archive,
    remote: Option<RemotePlan>,
    /// Oldest first.
    list: Vec<CheckpointInfo>,
}

/// How often to look whether the savepoint is there.
const SAVED_EVERY: Duration = Duration::from_millis(50);

impl PipelineCheckpoints {
    fn open(pipeline: &Path) -> Result<PipelineCheckpoints, CliError> {
        let config = Config::read(pipeline).map_err(CliError::Config)?;
        let beside = pipeline.parent().unwrap_or(Path::new("."));
        let state = planner::build_state(&config, beside).map_err(CliError::Config)?;
        let name = config.name.get_ref();
        match state.map(|state| state.backend) {
            Some(StateBackend::RocksDb { folder, remote, .. }) => {
                let archive = Archive::of(&folder);
                let list = archive.list().map_err(fault)?;
                Ok(PipelineCheckpoints {
                    pipeline: name.clone(),
                    folder,
                    archive,
                    remote,
                    list,
                })
            }
            Some(StateBackend::Memory) => Err(usage(format!(
                "{name} keeps its checkpoints in memory, where only its host has them"
            ))),
            None => Err(usage(format!(
                "{name} has no checkpoints: add `[checkpoints]` to {}",
                pipeline.display()
            ))),
        }
    }

    /// The copies in the object store, and its URL.
    fn copies(&self) -> Result<(Vec<CheckpointInfo>, String), CliError> {
        let Some(plan) = &self.remote else {
            return Err(usage(
                "no copies are made of these checkpoints: add `upload` to [checkpoints]".to_owned(),
            ));
        };
        let remote = RemoteStore::new(plan, &self.pipeline).map_err(fault)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Failed(error.into()))?;
        let listed = remote.answer("for its checkpoints", Some(ANSWER_MAX), remote.list());
        let list = runtime.block_on(listed).map_err(fault)?;
        Ok((list, plan.url.clone()))
    }

    /// Finds a checkpoint by number or name; the newest if neither is given.
    fn find(&self, wanted: Option<&str>) -> Result<&CheckpointInfo, CliError> {
        let place = self.archive.folder().display();
        match wanted {
            None => {
                let newest = self.list.last();
                newest.ok_or_else(|| usage(format!("there are no checkpoints in {place}")))
            }
            Some(wanted) => storage::find(&self.list, wanted).ok_or_else(|| {
                usage(format!(
                    "{place}: {}",
                    storage::not_found(&self.list, wanted)
                ))
            }),
        }
    }

    fn manifest(&self, wanted: Option<&str>) -> Result<Manifest, CliError> {
        let info = self.find(wanted)?;
        self.archive.manifest(info.id).map_err(fault)
    }

    /// Compares each checkpoint with its checksums; with what is wrong, if
    /// anything.
    fn verify(
        &self,
        wanted: Option<&str>,
    ) -> Result<Vec<(CheckpointId, Option<String>)>, CliError> {
        let chosen: Vec<&CheckpointInfo> = match wanted {
            Some(_) => vec![self.find(wanted)?],
            None => self.list.iter().collect(),
        };
        let mut verified = Vec::with_capacity(chosen.len());
        for info in chosen {
            match self.archive.verify(info.id) {
                Ok(_) => verified.push((info.id, None)),
                Err(StorageError::Damaged { message, .. }) => {
                    verified.push((info.id, Some(message)));
                }
                // The host has deleted it meanwhile.
                Err(StorageError::Missing { .. }) if wanted.is_none() => {}
                Err(error) => return Err(fault(error)),
            }
        }
        Ok(verified)
    }

    /// Asks the running host for a savepoint and waits until it is there.
    fn save(&mut self, name: &str, at_most: Duration) -> Result<CheckpointId, CliError> {
        savepoint::check_name(name).map_err(usage)?;
        if let Some(known) = self
            .list
            .iter()
            .find(|info| info.name.as_deref() == Some(name))
        {
            return Err(usage(format!(
                "checkpoint {} has the name {name} already: choose another, or delete it with \
                 `sluicebox checkpoints delete`",
                known.id
            )));
        }
        let is_running = || FolderLock::owner(&self.folder).is_some();
        let not_running = format!(
            "no host runs {}, so no checkpoint can be made: start it first",
            self.pipeline
        );
        if !is_running() {
            return Err(failed(not_running));
        }
        let requests = SavepointFolder::of(&self.folder);
        let error = |cause: std::io::Error| {
            let place = self.folder.display();
            failed(format!("cannot ask for a savepoint in {place}: {cause}"))
        };
        requests.ask(name).map_err(error)?;
        let until = Instant::now() + at_most;
        while requests.is_waiting(name) {
            if !is_running() {
                requests.remove(name).map_err(error)?;
                return Err(failed(not_running));
            }
            if Instant::now() >= until {
                requests.remove(name).map_err(error)?;
                return Err(failed(format!(
                    "no checkpoint was made within {}; the request was withdrawn",
                    humantime::format_duration(at_most)
                )));
            }
            std::thread::sleep(SAVED_EVERY);
        }
        self.list = self.archive.list().map_err(fault)?;
        self.find(Some(name)).map(|info| info.id)
    }

    /// Deletes a checkpoint, unless a running host may need it.
    fn delete(&self, wanted: &str, force: bool) -> Result<CheckpointId, CliError> {
        let info = self.find(Some(wanted))?;
        let id = info.id;
        let is_needed = storage::may_be_needed(&self.list, id);
        let mut whole = self.list.iter().rev().filter(|info| info.damage.is_none());
        let is_only = whole.next().is_some_and(|info| info.id == id) && whole.next().is_none();
        // The lock keeps a host from starting meanwhile.
        let _lock = match FolderLock::take(&self.folder) {
            Ok(lock) => Some(lock),
            Err(_) if !is_needed => None,
            Err(error) => {
                let owner = FolderLock::owner(&self.folder);
                return Err(match owner {
                    Some(pid) => failed(format!(
                        "checkpoint {id} is one of the last {}, which the host \
                         (process {pid}) may need: stop it first",
                        storage::NEEDED_BY_HOST
                    )),
                    None => fault(error),
                });
            }
        };
        if is_only && !force {
            return Err(failed(format!(
                "checkpoint {id} is the only one that can be restored; `--force` deletes it \
                 anyway, and the pipeline starts again without state"
            )));
        }
        self.archive.delete(id).map_err(fault)?;
        Ok(id)
    }
}

/// A line for each checkpoint.
fn to_text(list: &[CheckpointInfo], place: &str, now_ms: i64) -> String {
    if list.is_empty() {
        return format!("no checkpoints in {place}\n");
    }
    let rows = list.iter().map(|info| {
        let made = match info.created_ms {
            0 => "-".to_owned(),
            created_ms => ago(created_ms, now_ms),
        };
        let found = info.damage.as_ref();
        vec![
            info.id.to_string(),
            info.name.clone().unwrap_or_else(|| "-".to_owned()),
            made,
            size(info.bytes),
            found.map_or_else(String::new, |damage| format!("damaged: {damage}")),
        ]
    });
    let table = table(&[">id", "name", "made", ">size", ""], rows);
    format!("{table}in {place}\n")
}

fn usage(message: String) -> CliError {
    CliError::Usage(anyhow::Error::msg(message))
}

fn failed(message: String) -> CliError {
    CliError::Failed(anyhow::Error::msg(message))
}

fn fault(error: StorageError) -> CliError {
    CliError::Failed(error.into())
}
