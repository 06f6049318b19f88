//! Decides what a run goes on from: which checkpoint holds, whether it fits the
//! plan, and what each node gets of it.

use std::sync::Arc;

use super::{Durable, Job, RunError};
use crate::checkpoint::coordinator::Offload;
use crate::checkpoint::manifest::{AggregateManifest, Manifest, NodeManifestKind};
use crate::checkpoint::snapshot::{SinkSnapshot, SourceSnapshot};
use crate::checkpoint::storage::{CheckpointInfo, StorageError, find, not_found};
use crate::element::CheckpointId;
use crate::plan::{NodeKind, Plan};
use crate::state::stored::Restored;

/// What a run starts from, by node.
pub struct Start {
    /// The number of its first checkpoint.
    pub next: CheckpointId,
    /// That checkpoint comes before any row.
    pub is_fresh: bool,
    /// Of aggregates' rows.
    pub tables: Vec<Option<u32>>,
    pub sources: Vec<Arc<[SourceSnapshot]>>,
    pub aggregates: Vec<Option<Restored>>,
    pub sinks: Vec<Option<SinkSnapshot>>,
    pub dead_letter_bytes: Option<u64>,
}

impl Start {
    /// From nothing.
    pub fn fresh(plan: &Plan) -> Self {
        Start::from_manifest(plan, None, 1)
    }

    fn from_manifest(plan: &Plan, manifest: Option<&Manifest>, next: CheckpointId) -> Self {
        let kind_of = |name: &str| {
            let mut known = manifest.into_iter().flat_map(|manifest| &manifest.nodes);
            known.find(|node| node.name == name).map(|node| &node.kind)
        };
        let mut start = Start {
            next,
            is_fresh: manifest.is_none(),
            tables: Vec::new(),
            sources: Vec::new(),
            aggregates: Vec::new(),
            sinks: Vec::new(),
            dead_letter_bytes: manifest.and_then(|manifest| manifest.dead_letter_bytes),
        };
        let mut next_table = manifest.map_or(0, |manifest| {
            let tables = manifest.nodes.iter().filter_map(|node| match &node.kind {
                NodeManifestKind::Aggregate(aggregate) => Some(aggregate.table + 1),
                _ => None,
            });
            tables.max().unwrap_or(0)
        });
        for node in &plan.nodes {
            let mut table = None;
            let mut source: Arc<[SourceSnapshot]> = Arc::new([]);
            let mut aggregate = None;
            let mut sink = None;
            match (&node.kind, kind_of(&node.name)) {
                (NodeKind::Source(_), Some(NodeManifestKind::Source { tasks })) => {
                    source = tasks.as_slice().into();
                }
                (NodeKind::Aggregate(_), Some(NodeManifestKind::Aggregate(known))) => {
                    table = Some(known.table);
                    aggregate = Some(Restored {
                        time_ms: known.time_ms,
                    });
                }
                (NodeKind::Aggregate(_), _) => {
                    table = Some(next_table);
                    next_table += 1;
                }
                (NodeKind::Sink(_), Some(NodeManifestKind::Sink(known))) => {
                    sink = Some(known.clone());
                }
                _ => {}
            }
            start.tables.push(table);
            start.sources.push(source);
            start.aggregates.push(aggregate);
            start.sinks.push(sink);
        }
        start
    }
}

impl Job {
    /// Locks out whoever ran the pipeline before, and finds what holds.
    pub(super) async fn restore(&self, durable: &Durable) -> Result<Start, RunError> {
        let offload = self.offload;
        let committed = match durable.transaction.clone() {
            Some(transaction) => offload.run(move || transaction.fence()).await?,
            None => None,
        };
        let known = durable.list(offload).await?;
        let newest = known.iter().map(|known| known.id).chain(committed).max();
        let from = self.from().clone();
        let manifest = match &from {
            Some(wanted) => Some(chosen(durable, &known, wanted, offload).await?),
            None => choose(durable, &known, committed, offload).await?,
        };
        if let Some(manifest) = &manifest {
            fits(&self.plan, manifest)?;
        }
        let restored = manifest.as_ref().map(|manifest| manifest.id);
        // What is behind was not committed, or is damaged: it never happened.
        // Behind a chosen one it holds until the run has one of its own.
        let last = match from {
            Some(_) => newest,
            None => restored,
        };
        let storage = durable.storage.clone();
        let settled = offload.run(move || {
            if restored.is_none() {
                storage.reset()?;
            }
            let known = storage.list()?;
            for later in known.iter().filter(|known| Some(known.id) > last) {
                storage.delete(later.id)?;
            }
            Ok::<_, StorageError>(())
        });
        settled.await?;
        for later in known.iter().filter(|known| Some(known.id) > last) {
            durable.drop_copy(later.id).await?;
        }
        if let Some(transaction) = durable.transaction.clone() {
            offload.run(move || transaction.begin()).await?;
        }
        let next = newest.unwrap_or(0) + 1;
        let mut start = Start::from_manifest(&self.plan, manifest.as_ref(), next);
        start.is_fresh |= from.is_some();
        Ok(start)
    }
}

/// The checkpoint of this name or number.
async fn chosen(
    durable: &Durable,
    known: &[CheckpointInfo],
    wanted: &str,
    offload: Offload,
) -> Result<Manifest, RunError> {
    let Some(found) = find(known, wanted) else {
        return Err(RunError::Restore(not_found(known, wanted)));
    };
    match durable.restore(found.id, offload).await {
        Ok(manifest) => {
            tracing::warn!(
                "starting from checkpoint {}: rows that topics and folders have got since come \
                 again",
                found.id
            );
            Ok(manifest)
        }
        Err(error @ StorageError::Damaged { .. }) => Err(RunError::Restore(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// The checkpoint that holds: of those made within a transaction the one that it
/// says was committed, of others the newest that is not damaged.
async fn choose(
    durable: &Durable,
    known: &[CheckpointInfo],
    committed: Option<CheckpointId>,
    offload: Offload,
) -> Result<Option<Manifest>, RunError> {
    let holds = |known: &&CheckpointInfo| {
        durable.transaction.is_none() || !known.is_transactional || Some(known.id) == committed
    };
    if let Some(id) = committed
        && !known.iter().any(|known| known.id >= id)
    {
        return Err(RunError::Restore(format!(
            "checkpoint {id} was the last to be committed, and it is not here ({}): bring its \
             files back, or start anew under another name",
            match known.last() {
                Some(last) => format!("the newest is {}", last.id),
                None => "there is none".to_owned(),
            }
        )));
    }
    let mut damage = None;
    for candidate in known.iter().rev().filter(holds) {
        match durable.restore(candidate.id, offload).await {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error @ StorageError::Damaged { .. }) => {
                if Some(candidate.id) == committed {
                    return Err(RunError::Restore(format!(
                        "{error}; its rows are committed, so that an earlier one would put them \
                         out twice: bring its files back"
                    )));
                }
                tracing::error!("{error}; going on from the one before it");
                damage = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match damage {
        // To begin anew would lose everything, so it is not for us to decide.
        Some(error) => Err(RunError::Restore(format!(
            "{error}, and no earlier one is left: bring one back, or delete the folder to start anew"
        ))),
        None => Ok(None),
    }
}

/// Whether the plan can go on from what the checkpoint has.
fn fits(plan: &Plan, manifest: &Manifest) -> Result<(), RunError> {
    for known in &manifest.nodes {
        let NodeManifestKind::Aggregate(then) = &known.kind else {
            continue;
        };
        let node = plan.nodes.iter().find(|node| node.name == known.name);
        let difference = match node.map(|node| &node.kind) {
            Some(NodeKind::Aggregate(plan)) => {
                then.difference(&AggregateManifest::of(plan, then.table))
            }
            _ => Some("the pipeline has no such aggregate any more".to_owned()),
        };
        if let Some(difference) = difference {
            return Err(RunError::Restore(format!(
                "operator `{}` has state in checkpoint {}: {difference}",
                known.name, manifest.id
            )));
        }
    }
    Ok(())
}
