//! What needs the plugins that were uploaded. As long as anything does, they are not deleted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::content::{Content, folder_of};
use super::host::Host;
use super::hosted::{Hosted, Phase};
use super::store::Store;
use crate::checkpoint::storage::StorageError;
use crate::checkpoint::storage::folder::Archive;
use crate::config::Config;
use crate::element::CheckpointId;
use crate::plan::{StateBackend, StatePlan};
use crate::planner;

/// What a pipeline needs a plugin for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Need {
    pub pipeline: String,
    pub uses: Vec<Use>,
    /// The checkpoints that it can go back to, and that were made with the plugin.
    pub checkpoints: Vec<CheckpointId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Its file names it.
    Wanted,
    /// It runs with it.
    Running,
    /// What has held, and is gone back to, has it.
    Held,
}

/// By the digest of the plugin.
pub type Needs = BTreeMap<String, Vec<Need>>;

/// What the pipelines of a host need. One whose file is gone needs nothing: it keeps the
/// bytes of what has held, though not the name.
pub fn needs(host: &Host) -> Result<Needs, StorageError> {
    let mut all = Needs::new();
    for pipeline in host.pipelines() {
        for (digest, need) in of_pipeline(&host.context().store, &pipeline)? {
            all.entry(digest).or_default().push(need);
        }
    }
    Ok(all)
}

fn of_pipeline(store: &Store, pipeline: &Hosted) -> Result<BTreeMap<String, Need>, StorageError> {
    let shown = pipeline.shown();
    let runs = matches!(shown.phase, Phase::Running | Phase::Probation);
    let running = shown.running.as_ref();
    let runs_now = running.filter(|_| runs);
    let contents = [
        (Use::Wanted, pipeline.wanted_content()),
        (
            Use::Running,
            runs_now.map(|running| running.planned.content.clone()),
        ),
        (Use::Held, held(store, &pipeline.name)),
    ];
    let mut needs = BTreeMap::new();
    for (used, content) in &contents {
        for digest in content.iter().flat_map(|content| content.digests()) {
            let uses = &mut need(&mut needs, pipeline, digest).uses;
            if !uses.contains(used) {
                uses.push(*used);
            }
        }
    }
    let state = match running {
        Some(running) => running.planned.plan.state.clone(),
        // It has not run since the service was started.
        None => contents
            .iter()
            .find_map(|(_, content)| state_of(pipeline, content.as_deref()?)),
    };
    let Some(StateBackend::RocksDb { folder, .. }) = state.map(|state| state.backend) else {
        return Ok(needs);
    };
    let archive = Archive::of(&folder);
    for made in archive.list()? {
        // One that is deleted meanwhile, or damaged, is not gone back to.
        let Ok(manifest) = archive.manifest(made.id) else {
            continue;
        };
        let nodes = manifest.nodes.into_iter();
        for operator in nodes.filter_map(|node| node.description.operator) {
            let checkpoints = &mut need(&mut needs, pipeline, &operator.digest).checkpoints;
            if checkpoints.last() != Some(&made.id) {
                checkpoints.push(made.id);
            }
        }
    }
    Ok(needs)
}

fn need<'a>(
    needs: &'a mut BTreeMap<String, Need>,
    pipeline: &Hosted,
    digest: &str,
) -> &'a mut Need {
    needs.entry(digest.to_owned()).or_insert_with(|| Need {
        pipeline: pipeline.name.clone(),
        uses: Vec::new(),
        checkpoints: Vec::new(),
    })
}

/// What a pipeline goes back to.
fn held(store: &Store, pipeline: &str) -> Option<Arc<Content>> {
    let held = store.ledger(pipeline).ok()?.held?;
    store.content(pipeline, &held).ok().map(Arc::new)
}

fn state_of(pipeline: &Hosted, content: &Content) -> Option<StatePlan> {
    let config = Config::parse(&pipeline.file.display().to_string(), &content.text).ok()?;
    planner::build_state(&config, folder_of(&pipeline.file)).ok()?
}

/// "shop (running, held, checkpoint 7)"
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses = self.uses.iter().map(|used| match used {
            Use::Wanted => "in its file".to_owned(),
            Use::Running => "running".to_owned(),
            Use::Held => "to go back to".to_owned(),
        });
        let checkpoints = self.checkpoints.iter().map(|id| format!("checkpoint {id}"));
        let all: Vec<String> = uses.chain(checkpoints).collect();
        write!(f, "{} ({})", self.pipeline, all.join(", "))
    }
}
