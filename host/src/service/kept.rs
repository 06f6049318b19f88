//! What is kept of a pipeline's nodes, of which a part may be agreed to go: what its last
//! checkpoint has, whoever has made it, and what runs.

use std::cell::OnceCell;
use std::sync::Arc;

use super::hosted::{Phase, Shown};
use super::revision::Planned;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::storage::folder::Archive;
use crate::plan::change::NodeDescription;
use crate::plan::{Plan, StateBackend};
use crate::run::Dropped;
use crate::suggest;

pub struct Kept {
    archive: Option<Archive>,
    /// Read when it is asked for.
    last: OnceCell<Option<Manifest>>,
    running: Option<Arc<Planned>>,
}

impl Kept {
    /// Of the pipeline of which this runs, or has run, or which may run next. A checkpoint that
    /// cannot be read is told by who starts from it.
    pub fn of(running: Option<Arc<Planned>>, next: &Plan) -> Kept {
        let plan = running.as_ref().map_or(next, |running| &running.plan);
        let backend = plan.state.as_ref().map(|state| &state.backend);
        let archive = match backend {
            Some(StateBackend::RocksDb { folder, .. }) => Some(Archive::of(folder)),
            Some(StateBackend::Memory) | None => None,
        };
        Kept {
            archive,
            last: OnceCell::new(),
            running,
        }
    }

    /// Of a pipeline as it is shown. What has failed may never have run with its last
    /// checkpoint.
    pub fn of_shown(shown: Option<Shown>, next: &Plan) -> Kept {
        let has_failed = shown.as_ref().is_some_and(|it| it.phase == Phase::Failed);
        let running = shown.and_then(|shown| shown.running);
        let mut kept = Kept::of(running.map(|running| running.planned), next);
        if has_failed && kept.last().is_some() {
            kept.running = None;
        }
        kept
    }

    pub fn running(&self) -> Option<&Planned> {
        self.running.as_deref()
    }

    fn last(&self) -> Option<&Manifest> {
        let read = || {
            let archive = self.archive.as_ref()?;
            let list = archive.list().ok()?;
            let last = list.iter().rfind(|info| info.damage.is_none())?;
            archive.manifest(last.id).ok()
        };
        self.last.get_or_init(read).as_ref()
    }

    /// The nodes of the last checkpoint.
    pub fn nodes(&self) -> Vec<NodeDescription> {
        let nodes = self.last().into_iter().flat_map(|last| &last.nodes);
        nodes.map(|node| node.description.clone()).collect()
    }

    /// Why these cannot be dropped, if nothing is kept of one of them: nodes, and partitions
    /// of sources, as `source/partition`.
    pub fn lacks(&self, dropped: &[String]) -> Option<String> {
        let running = self.running.as_ref().map(|running| &*running.description);
        let running = running.unwrap_or_default();
        let runs = |name: &str| running.iter().any(|node| node.name == name);
        let mut others = dropped.to_vec();
        others.retain(|name| match (name.split_once('/'), self.last()) {
            (None, _) => !runs(name),
            // Its partitions are known from checkpoints alone.
            (Some((source, _)), None) => !runs(source),
            (Some(_), Some(_)) => true,
        });
        let unknown = others.first()?;
        match self.last() {
            Some(last) => {
                let checked = Dropped::parse(&others).check(last);
                checked.err().map(|error| error.to_string())
            }
            None => {
                let names = running.iter().map(|node| node.name.as_str());
                let help = suggest::help(unknown, "nodes", names);
                Some(format!("nothing is kept of `{unknown}` to drop: {help}"))
            }
        }
    }
}
