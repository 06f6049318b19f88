//! Plans state, checkpoints and restarts.
//!
//! `[state]` or `[checkpoints]` alone enables checkpoints, with defaults for
//! the rest; without both, nothing is kept after the run.

use std::path::{Path, PathBuf};

use super::builder::Builder;
use crate::checkpoint::remote;
use crate::config::{Backend, Mistake, RESTART, StateConfig, UploadConfig};
use crate::files::FileUser;
use crate::paths::{identity, shown};
use crate::plan::state::{INTERVAL_MS, KEEP, MEMORY_BYTES_MAX};
use crate::plan::{RemotePlan, RestartPlan, StateBackend, StatePlan};

const ROCKSDB_MEMORY_BYTES_MAX: u64 = 128 << 20;

impl Builder<'_> {
    pub(super) fn plan_state(&mut self) -> Option<StatePlan> {
        let config = self.config;
        if !config.has_checkpoints() {
            return None;
        }
        let state = config.state.as_ref();
        let checkpoints = config.checkpoints.as_ref();
        let upload = checkpoints.and_then(|checkpoints| checkpoints.upload.as_ref());
        let (remote, copies) = upload.and_then(|upload| self.plan_remote(upload)).unzip();
        let backend = state.and_then(|state| state.backend.as_ref());
        let backend = match backend
            .map(|backend| *backend.get_ref())
            .unwrap_or_default()
        {
            Backend::RocksDb => {
                let (folder, backend) = self.plan_folder(state, remote);
                if let (Some(upload), Some(Some(copies))) = (upload, copies) {
                    self.check_copies(&copies, &folder, upload);
                }
                backend
            }
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
            memory_bytes_max: memory.map_or(MEMORY_BYTES_MAX, |bytes| bytes as usize),
            interval_ms: interval.map_or(INTERVAL_MS, |ms| ms as u64),
            keep: keep.unwrap_or(KEEP),
            delivery: delivery.unwrap_or_default(),
        })
    }

    fn plan_folder(
        &mut self,
        state: Option<&StateConfig>,
        remote: Option<RemotePlan>,
    ) -> (PathBuf, StateBackend) {
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
        let backend = StateBackend::RocksDb {
            folder: folder.clone(),
            memory_bytes_max: memory.unwrap_or(ROCKSDB_MEMORY_BYTES_MAX) as usize,
            remote,
        };
        (folder, backend)
    }

    /// Copies that are lost with the state, or that take its names, are of no use.
    fn check_copies(&mut self, copies: &Path, state: &Path, upload: &UploadConfig) {
        let (place, [own, state]) = (upload.url.span(), [copies, state].map(identity));
        if own.starts_with(&state) || state.starts_with(&own) {
            self.mistakes.push(
                Mistake::new(format!(
                    "checkpoints cannot be uploaded to {}: the state is kept in {}",
                    shown(&own),
                    shown(&state)
                ))
                .at(place, "")
                .help("give `url` a folder that has nothing to do with that of [state]"),
            );
            return;
        }
        let user = FileUser::new("copies of checkpoints are kept there", place);
        self.files.reserves(user, copies);
    }

    /// And the folder of the copies, if it is on this machine.
    fn plan_remote(&mut self, upload: &UploadConfig) -> Option<(RemotePlan, Option<PathBuf>)> {
        let plan = RemotePlan {
            url: upload.url.get_ref().clone(),
            options: upload.options.clone(),
        };
        match remote::check(&plan, self.config.name.get_ref()) {
            Ok(copies) => Some((plan, copies)),
            Err(problem) => {
                self.mistakes.push(
                    Mistake::new(format!("checkpoints cannot be uploaded there: {problem}"))
                        .at(upload.url.span(), "")
                        .help(
                            "give a URL such as \"file:///mnt/checkpoints\" or \
                             \"s3://bucket/prefix\"",
                        ),
                );
                None
            }
        }
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
