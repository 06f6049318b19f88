//! Decides what a run goes on from: which checkpoint holds, whether it fits the
//! plan, and what each node gets of it.

use std::sync::Arc;

use super::durable::Durable;
use super::error::RunError;
use super::pipeline::Pipeline;
use super::revision::Revision;
use crate::blame::Blame;
use crate::checkpoint::manifest::{Manifest, NodeManifest, ProgressManifest};
use crate::checkpoint::snapshot::{SinkSnapshot, SourceSnapshot};
use crate::checkpoint::storage::{CheckpointInfo, StorageError, find, not_found};
use crate::element::CheckpointId;
use crate::offload::Offload;
use crate::plan::change::{ChangeKind, NodeClass, NodeDescription, StateChange, changes};
use crate::state::stored::Restored;

/// What a run starts from, by node.
pub struct Start {
    /// The number of its first checkpoint.
    pub next: CheckpointId,
    /// That checkpoint comes before any row.
    pub is_fresh: bool,
    /// The numbers of the tables of each node's state.
    pub tables: Vec<Vec<u32>>,
    pub sources: Vec<Arc<[SourceSnapshot]>>,
    pub aggregates: Vec<Option<Restored>>,
    pub sinks: Vec<Option<SinkSnapshot>>,
    pub dead_letter_bytes: Option<u64>,
}

impl Start {
    /// From nothing.
    pub fn fresh(revision: &Revision) -> Self {
        Start::from_manifest(revision, None, 1)
    }

    fn from_manifest(revision: &Revision, manifest: Option<&Manifest>, next: CheckpointId) -> Self {
        let known = manifest.map_or(&[][..], |manifest| &manifest.nodes);
        let mut start = Start {
            next,
            is_fresh: manifest.is_none(),
            tables: Vec::new(),
            sources: Vec::new(),
            aggregates: Vec::new(),
            sinks: Vec::new(),
            dead_letter_bytes: manifest.and_then(|manifest| manifest.dead_letter_bytes),
        };
        let mut next_table = known
            .iter()
            .flat_map(tables_of)
            .max()
            .map_or(0, |last| last + 1);
        for node in &revision.description {
            let known = known.iter().find(|known| known.name() == node.name);
            let tables = node.tables.iter().map(|table| {
                let known = known.and_then(|known| known.table(&table.role));
                known.unwrap_or_else(|| {
                    next_table += 1;
                    next_table - 1
                })
            });
            start.tables.push(tables.collect());
            let (mut source, mut aggregate, mut sink) = (None, None, None);
            match (node.class, known.map(|known| &known.progress)) {
                (NodeClass::Source, Some(ProgressManifest::Source(tasks))) => {
                    source = Some(tasks.as_slice().into());
                }
                (NodeClass::Aggregate, Some(ProgressManifest::Operator(operator))) => {
                    aggregate = Some(Restored {
                        time_ms: operator.time_ms,
                    });
                }
                (NodeClass::Sink, Some(ProgressManifest::Sink(known))) => {
                    sink = Some(known.clone());
                }
                _ => {}
            }
            start.sources.push(source.unwrap_or_default());
            start.aggregates.push(aggregate);
            start.sinks.push(sink);
        }
        start
    }
}

fn tables_of(node: &NodeManifest) -> Vec<u32> {
    match &node.progress {
        ProgressManifest::Operator(operator) => operator.tables.clone(),
        _ => Vec::new(),
    }
}

/// Locks out whoever ran the pipeline before, and finds what holds.
pub async fn restore(
    pipeline: &Pipeline,
    revision: &Revision,
    durable: &Durable,
    offload: Offload,
) -> Result<Start, RunError> {
    let participants = durable.participants.clone();
    let fenced = participants.clone();
    let committed = offload.run(move || fenced.fence()).await?;
    let known = durable.list(offload).await?;
    let ids = known.iter().map(|known| known.id);
    let newest = ids.chain(committed.newest()).max();
    let from = pipeline.from();
    let manifest = match &from {
        Some(wanted) => Some(chosen(durable, &known, wanted, offload).await?),
        None => choose(durable, &known, committed.newest(), offload).await?,
    };
    if let Some(manifest) = &manifest {
        check(&revision.description, manifest)?;
    }
    // Behind a chosen checkpoint everything comes again, so nobody is behind.
    let agreed = manifest.clone().filter(|_| from.is_none());
    if let Some(manifest) = &agreed
        && let Some(why) = participants.disagreement(&committed, manifest)
    {
        return Err(outside(why));
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
    let begun = offload.run(move || {
        participants.settle(&committed, agreed.as_ref())?;
        participants.begin()
    });
    begun.await?;
    let next = newest.unwrap_or(0) + 1;
    let mut start = Start::from_manifest(revision, manifest.as_ref(), next);
    start.is_fresh |= from.is_some();
    Ok(start)
}

/// The checkpoint of this name or number.
async fn chosen(
    durable: &Durable,
    known: &[CheckpointInfo],
    wanted: &str,
    offload: Offload,
) -> Result<Manifest, RunError> {
    let Some(found) = find(known, wanted) else {
        return Err(config(not_found(known, wanted)));
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
        Err(error @ StorageError::Damaged { .. }) => Err(outside(error.to_string())),
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
        durable.participants.is_empty() || !known.is_transactional || Some(known.id) == committed
    };
    if let Some(id) = committed
        && !known.iter().any(|known| known.id >= id)
    {
        return Err(outside(format!(
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
                    return Err(outside(format!(
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
        Some(error) => Err(outside(format!(
            "{error}, and no earlier one is left: bring one back, or delete the folder to start anew"
        ))),
        None => Ok(None),
    }
}

/// Checks that the plan can go on from what the checkpoint has, and says what of
/// it is left behind.
fn check(now: &[NodeDescription], manifest: &Manifest) -> Result<(), RunError> {
    let then: Vec<NodeDescription> = manifest
        .nodes
        .iter()
        .map(|node| node.description.clone())
        .collect();
    let changes = changes(&then, now);
    for change in &changes {
        let why = match &change.state {
            StateChange::Incompatible(why) => why,
            StateChange::Gone => "the pipeline has no such aggregate any more",
            StateChange::Stateless | StateChange::New | StateChange::Kept => continue,
        };
        return Err(config(format!(
            "operator `{}` has state in checkpoint {}: {why}",
            change.name, manifest.id
        )));
    }
    for change in changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Removed)
    {
        tracing::warn!(
            "{} `{}` of checkpoint {} is not in the pipeline any more, and how far it had come \
             is forgotten",
            change.class.name(),
            change.name,
            manifest.id
        );
    }
    Ok(())
}

/// What the checkpoint lies in, or the other participants, do not let it go on.
fn outside(why: String) -> RunError {
    RunError::Restore {
        why,
        blame: Blame::Outside,
    }
}

/// What the pipeline's file or the command line asks for cannot be.
fn config(why: String) -> RunError {
    RunError::Restore {
        why,
        blame: Blame::Config,
    }
}
