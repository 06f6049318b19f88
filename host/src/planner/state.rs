//! Plans state, checkpoints and restarts.
//!
//! `[state]` or `[checkpoints]` alone enables checkpoints, with defaults for
//! the rest; without both, nothing is kept after the run.

use super::builder::Builder;
use crate::checkpoint::remote;
use crate::config::{Backend, Mistake, RESTART, StateConfig, UploadConfig};
use crate::files::FileUser;
use crate::plan::state::{INTERVAL_MS, KEEP};
use crate::plan::{RemotePlan, RestartPlan, StateBackend, StatePlan};

const MEMORY_BYTES_MAX: u64 = 256 << 20;
const ROCKSDB_MEMORY_BYTES_MAX: u64 = 128 << 20;

impl Builder<'_> {
    pub(super) fn plan_state(&mut self) -> Option<StatePlan> {
        let config = self.config;
        if config.state.is_none() && config.checkpoints.is_none() {
            return None;
        }
        let state = config.state.as_ref();
        let checkpoints = config.checkpoints.as_ref();
        let upload = checkpoints.and_then(|checkpoints| checkpoints.upload.as_ref());
        let remote = upload.and_then(|upload| self.plan_remote(upload));
        let backend = state.and_then(|state| state.backend.as_ref());
        let backend = match backend
            .map(|backend| *backend.get_ref())
            .unwrap_or_default()
        {
            Backend::RocksDb => self.plan_folder(state, remote),
            Backend::Memory => {
                if let Some(upload) = upload {
                    self.mistakes.push(
                        Mistake::new("checkpoints in memory cannot be uploaded")
                            .at(upload.url.span(), "")
                            .help("remove `upload`, or `backend = \"memory\"` of [state]"),
                    );
                }
                StateBackend::Memory
            }
        };
        let memory = state.and_then(|state| state.memory_bytes_max);
        let interval = checkpoints.and_then(|checkpoints| checkpoints.interval_ms);
        let keep = checkpoints.and_then(|checkpoints| checkpoints.keep);
        let delivery = checkpoints.and_then(|checkpoints| checkpoints.delivery);
        Some(StatePlan {
            backend,
            memory_bytes_max: memory.unwrap_or(MEMORY_BYTES_MAX) as usize,
            interval_ms: interval.map_or(INTERVAL_MS, |ms| ms as u64),
            keep: keep.unwrap_or(KEEP),
            delivery: delivery.unwrap_or_default(),
        })
    }

    fn plan_folder(
        &mut self,
        state: Option<&StateConfig>,
        remote: Option<RemotePlan>,
    ) -> StateBackend {
        let name = &self.config.name;
        let path = state.and_then(|state| state.path.as_ref());
        let (folder, place) = match path {
            Some(path) => (self.folder.join(path.get_ref()), path.span()),
            None => {
                let folder = format!("{}.state", name.get_ref());
                (self.folder.join(folder), name.span())
            }
        };
        if folder.is_file() {
            self.mistakes.push(
                Mistake::new(format!(
                    "the state needs a folder, and {} is a file",
                    folder.display()
                ))
                .at(place.clone(), "")
                .help("give `path` of [state] a folder, which is created if needed"),
            );
        }
        self.files
            .reserves(FileUser::new("the state is kept there", place), &folder);
        let memory = state.and_then(|state| state.rocksdb_memory_bytes_max);
        StateBackend::RocksDb {
            folder,
            memory_bytes_max: memory.unwrap_or(ROCKSDB_MEMORY_BYTES_MAX) as usize,
            remote,
        }
    }

    fn plan_remote(&mut self, upload: &UploadConfig) -> Option<RemotePlan> {
        let plan = RemotePlan {
            url: upload.url.get_ref().clone(),
            options: upload.options.clone(),
        };
        if let Err(problem) = remote::check(&plan) {
            self.mistakes.push(
                Mistake::new(format!("checkpoints cannot be uploaded there: {problem}"))
                    .at(upload.url.span(), "")
                    .help(
                        "give a URL such as \"file:///mnt/checkpoints\" or \"s3://bucket/prefix\"",
                    ),
            );
            return None;
        }
        Some(plan)
    }

    pub(super) fn plan_restart(&mut self, has_checkpoints: bool) -> RestartPlan {
        let Some(restart) = &self.config.restart else {
            return match has_checkpoints {
                true => RESTART,
                false => RestartPlan::Never,
            };
        };
        if !has_checkpoints && restart.plan != RestartPlan::Never {
            self.mistakes.push(
                Mistake::new("[restart] needs checkpoints to restart from")
                    .at(restart.place.clone(), "")
                    .help("add `[checkpoints]`, or remove `[restart]`"),
            );
        }
        restart.plan
    }
}
