//! Decides which checkpoint a run starts from, whether the plan can restore it, and
//! what each node gets of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::dropped::Dropped;
use super::durable::Durable;
use super::error::RunError;
use super::migration::migrate;
use super::pipeline::{Pipeline, WantedStart};
use super::revision::Revision;
use crate::blame::Blame;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::manifest::{
    GivenUp, LettersAfter, Manifest, NodeManifest, ProgressManifest,
};
use crate::checkpoint::snapshot::{SinkSnapshot, SourceSnapshot};
use crate::checkpoint::storage::{CheckpointInfo, StorageError, find, is_given_up, not_found};
use crate::checkpoint::transaction::{Committed, Participants};
use crate::dead_letter::DeadLetter;
use crate::element::{CheckpointId, Purpose};
use crate::offload::Offload;
use crate::plan::change::{
    ChangeKind, NodeClass, NodeDescription, StateChange, changes, gone_outputs,
};
use crate::plan::{NodeKind, Plan};
use crate::source::LeftPartition;
use crate::state::stored::{Restored, delete_table};

/// What a run starts from, by node.
pub struct Start {
    /// The number of its first checkpoint.
    pub next: CheckpointId,
    /// Whether that checkpoint precedes the first row.
    pub checkpoints_first: bool,
    /// The numbers of the tables of each node's state.
    pub tables: Vec<Vec<u32>>,
    pub sources: Vec<Arc<[SourceSnapshot]>>,
    /// For each source, what others do not read any more.
    pub left_by_others: Vec<Arc<[LeftPartition]>>,
    pub operators: Vec<Option<Restored>>,
    pub sinks: Vec<Option<SinkSnapshot>>,
    /// The restored checkpoint, if there are, or were, later ones.
    pub goes_back_to: Option<CheckpointId>,
    /// The restored checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// The checkpoints that those of the run do not go on from.
    pub given_up: Vec<GivenUp>,
    /// What sinks that were dropped have left at the places of these.
    pub left_behind: Vec<Option<SinkSnapshot>>,
    /// When the pipeline started without a checkpoint, if it did not do so now.
    pub started_ms: Option<i64>,
    /// The dead letters that come again.
    pub letters: Vec<LettersAfter>,
    /// Those of states that could not be migrated.
    pub lost: Vec<DeadLetter>,
    /// Deletes the rows of operators that were dropped.
    pub obsolete: Changes,
    /// The checkpoints that a run deletes because it starts anew.
    pub forgotten: Option<Vec<CheckpointInfo>>,
}

impl Start {
    /// Without a checkpoint.
    pub fn fresh(revision: &Revision) -> Self {
        Start::from_manifest(revision, None, &Dropped::default(), 1)
    }

    fn from_manifest(
        revision: &Revision,
        manifest: Option<&Manifest>,
        dropped: &Dropped,
        next: CheckpointId,
    ) -> Self {
        let all = manifest.map_or(&[][..], |manifest| &manifest.nodes);
        let is_dropped = |node: &&NodeManifest| dropped.has(node.name());
        let mut start = Start {
            next,
            checkpoints_first: manifest.is_none(),
            tables: Vec::new(),
            sources: Vec::new(),
            left_by_others: Vec::new(),
            operators: Vec::new(),
            sinks: Vec::new(),
            goes_back_to: manifest
                .map(|manifest| manifest.id)
                .filter(|id| id + 1 < next),
            checkpoint: manifest.map(|manifest| manifest.id),
            given_up: manifest.map_or_else(Vec::new, |manifest| manifest.given_up.clone()),
            left_behind: Vec::new(),
            started_ms: manifest
                .and_then(|manifest| Some(manifest.dead_letters.as_ref()?.started_ms)),
            letters: manifest.map_or_else(Vec::new, letters_after),
            obsolete: Changes::default(),
            forgotten: None,
            lost: Vec::new(),
        };
        for table in all.iter().filter(is_dropped).flat_map(tables_of) {
            delete_table(table, &mut start.obsolete);
        }
        let newest = newest_times(all);
        let mut next_table = all
            .iter()
            .flat_map(tables_of)
            .max()
            .map_or(0, |last| last + 1);
        for node in &revision.description {
            let mut known = all.iter().filter(|node| !is_dropped(node));
            let known = known.find(|known| known.name() == node.name);
            let tables = node.tables.iter().map(|table| {
                let known = known.and_then(|known| known.table(&table.role));
                known.unwrap_or_else(|| {
                    next_table += 1;
                    next_table - 1
                })
            });
            start.tables.push(tables.collect());
            let (mut source, mut operator, mut sink) = (None, None, None);
            match (node.class, known.map(|known| &known.progress)) {
                (NodeClass::Source, Some(ProgressManifest::Source(tasks))) => {
                    source = Some(tasks.as_slice().into());
                }
                (_, Some(ProgressManifest::Operator(progress))) => {
                    let read_ms = newest.get(node.name.as_str()).copied().flatten();
                    operator = Some(Restored {
                        time_ms: progress.time_ms,
                        read_ms,
                        newest_ms: progress.newest_ms.max(read_ms),
                        ended_ms: progress.ended_ms,
                    });
                }
                (NodeClass::Sink, Some(ProgressManifest::Sink(known))) => {
                    sink = Some(known.clone());
                }
                _ => {}
            }
            start.sources.push(source.unwrap_or_default());
            start.operators.push(operator);
            let left = sink.is_none().then(|| {
                let mut left = all.iter().filter(is_dropped);
                let left = left.find(|left| writes_the_same(&left.description, node));
                match &left?.progress {
                    ProgressManifest::Sink(known) => Some(known.clone()),
                    _ => None,
                }
            });
            start.left_behind.push(left.flatten());
            start.sinks.push(sink);
        }
        start.left_by_others = left_by_others(revision, &start.sources);
        start
    }
}

/// For each source, the partitions of a checkpoint that the others do not read any
/// more.
fn left_by_others(
    revision: &Revision,
    sources: &[Arc<[SourceSnapshot]>],
) -> Vec<Arc<[LeftPartition]>> {
    let nodes = revision.plan.nodes.iter().zip(sources);
    let left = nodes.enumerate().flat_map(|(id, (node, known))| {
        let left = match &node.kind {
            NodeKind::Source(source) if !known.is_empty() => source.connector.not_read(known),
            _ => Vec::new(),
        };
        let name: Arc<str> = node.name.as_str().into();
        left.into_iter().map(move |snapshot| {
            let source = name.clone();
            (id, LeftPartition { source, snapshot })
        })
    });
    let left: Vec<_> = left.collect();
    let by_others = |id: usize| {
        let others = left.iter().filter(move |(other, _)| *other != id);
        others.map(|(_, left)| left.clone()).collect()
    };
    (0..sources.len()).map(by_others).collect()
}

/// Whether two sinks write to one place in one way.
fn writes_the_same(one: &NodeDescription, other: &NodeDescription) -> bool {
    let connector = one.connector.as_ref();
    one.class == NodeClass::Sink
        && connector.is_some_and(|connector| connector.place.is_some())
        && connector == other.connector.as_ref()
}

/// For each node, the newest event time of the sources that lead to it. Nodes come
/// after those that they read.
fn newest_times(nodes: &[NodeManifest]) -> HashMap<&str, Option<i64>> {
    let mut newest = HashMap::with_capacity(nodes.len());
    for node in nodes {
        let newest_ms = match &node.progress {
            ProgressManifest::Source(tasks) => {
                let partitions = tasks.iter().flat_map(|task| &task.partitions);
                partitions.filter_map(|partition| partition.newest_ms).max()
            }
            _ => {
                let upstream = node.description.upstream(|name| newest.get(name).copied());
                upstream.flatten().max()
            }
        };
        newest.insert(node.name(), newest_ms);
    }
    newest
}

/// The dead letters after a checkpoint, and those that the run which made it has
/// perhaps not taken back yet.
fn letters_after(manifest: &Manifest) -> Vec<LettersAfter> {
    let Some(letters) = &manifest.dead_letters else {
        return Vec::new();
    };
    let mut after = letters.taken_back.clone();
    after.push(LettersAfter {
        pipeline: manifest.pipeline.clone(),
        checkpoint: manifest.id,
        place: letters.place.clone(),
    });
    after
}

fn tables_of(node: &NodeManifest) -> Vec<u32> {
    match &node.progress {
        ProgressManifest::Operator(operator) => operator.tables.clone(),
        _ => Vec::new(),
    }
}

/// Fences any earlier run, chooses the checkpoint, and settles the commit.
pub async fn restore(
    pipeline: &Pipeline,
    revision: &Revision,
    durable: &Durable,
    offload: Offload,
) -> Result<Start, RunError> {
    let participants = durable.participants.clone();
    let (fenced, stop) = (participants.clone(), pipeline.requests.stop().clone());
    let committed = offload.run(move || fenced.fence(&stop)).await?;
    let WantedStart {
        from,
        dropped,
        if_needed,
        fresh,
        spared: _,
    } = pipeline.wanted_start().clone();
    let is_enough = |local: &[CheckpointInfo]| match &from {
        // What is forgotten is so in the store as well.
        _ if fresh => false,
        Some(wanted) => find(local, wanted).is_some_and(|found| found.damage.is_none()),
        None => {
            let mut candidates = candidates(durable, local, committed.newest());
            has_committed(local, committed.newest())
                && candidates.any(|known| known.damage.is_none())
        }
    };
    let known = durable.list(is_enough, offload).await?;
    let ids = known.iter().map(|known| known.id);
    let newest = ids.chain(committed.newest()).max();
    let next = newest.unwrap_or(0) + 1;
    let mut dropped = Dropped::parse(&dropped);
    if fresh {
        // What participants have committed stays: later checkpoints have later
        // numbers.
        begin(participants, committed, None, offload).await?;
        let mut start = Start::from_manifest(revision, None, &dropped, next);
        start.forgotten = Some(known);
        return Ok(start);
    }
    let mut manifest = match &from {
        Some(wanted) => {
            let manifest = restore_chosen(durable, &known, wanted, offload).await?;
            tell_of_repeated_rows(&revision.plan, &manifest);
            Some(manifest)
        }
        None => restore_latest(durable, &known, committed.newest(), offload).await?,
    };
    match &mut manifest {
        Some(manifest) => {
            if from.is_none() {
                check_name(pipeline.name(), manifest)?;
                warn_of_other_systems(durable, manifest);
            }
            if if_needed {
                dropped.keep_what_fits(manifest, &revision.description);
            }
            check_not_cut(&revision.plan, manifest, &known, &dropped).map_err(config_error)?;
            dropped.leave(manifest, &revision.description)?;
            check_plan(&revision.description, manifest, &dropped)?;
            warn_of_gone_outputs(&revision.plan, manifest);
            if manifest.purpose == Purpose::End {
                tracing::info!(
                    "the run before had read its inputs to their ends: this one reads what is \
                     new in them; windows that fired at the end stay closed"
                );
            }
        }
        None if if_needed => {}
        None => dropped.check_none()?,
    }
    // After a chosen checkpoint every row is written again, so participants need
    // not agree on it.
    let agreed = manifest.clone().filter(|_| from.is_none());
    if let Some(manifest) = &agreed
        && let Some(why) = participants.disagreement(&committed, manifest)
    {
        return Err(outside_error(why));
    }
    let restored = manifest.as_ref().map(|manifest| manifest.id);
    // Later checkpoints were not committed, or are damaged: delete them. Those
    // after a chosen one stay, until this run has made one of its own.
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
        durable.drop_copy_soon(later.id).await?;
    }
    begin(participants, committed, agreed, offload).await?;
    let lost = match &manifest {
        Some(manifest) => migrate(revision, manifest, &dropped, &durable.storage, offload).await?,
        None => Vec::new(),
    };
    let mut start = Start::from_manifest(revision, manifest.as_ref(), &dropped, next);
    start.lost = lost;
    if let Some(behind) = start.goes_back_to {
        let until = next - 1;
        start.given_up.push(GivenUp { behind, until });
    }
    // Nobody goes back to what is not there any more.
    let is_there = |given_up: &GivenUp| known.iter().any(|known| given_up.has(known.id));
    start.given_up.retain(is_there);
    // What was dropped, or skipped, is left behind by a checkpoint at once: unless the run may
    // be taken back to what there is before.
    let leaves = !dropped.is_empty() && !pipeline.requests.are_held_back();
    start.checkpoints_first |= from.is_some() || leaves;
    Ok(start)
}

/// Has the participants settle the checkpoint that they have agreed on, if any, and
/// begin.
async fn begin(
    participants: Participants,
    committed: Committed,
    agreed: Option<Manifest>,
    offload: Offload,
) -> Result<(), RunError> {
    let begun = offload.run(move || {
        participants.settle(&committed, agreed.as_ref())?;
        participants.begin()
    });
    Ok(begun.await?)
}

/// Deletes the checkpoints that a run which starts anew forgets, with their copies,
/// the oldest first: if the process dies half-way, the newest is still there.
pub async fn forget(
    durable: &Durable,
    forgotten: &[CheckpointInfo],
    offload: Offload,
) -> Result<(), RunError> {
    if let Some(what) = described(forgotten) {
        tracing::warn!("starting anew: deleting {what}, with the state in it");
    }
    for checkpoint in forgotten {
        let (storage, id) = (durable.storage.clone(), checkpoint.id);
        match offload.run(move || storage.delete(id)).await {
            // There was only a copy of it.
            Err(StorageError::Missing { .. }) => {}
            deleted => deleted?,
        }
        durable.drop_copy(checkpoint.id).await?;
    }
    let storage = durable.storage.clone();
    Ok(offload.run(move || storage.reset()).await?)
}

/// "checkpoints 3, 4 and 5 (savepoint `before`)"; `None` if there are none.
fn described(checkpoints: &[CheckpointInfo]) -> Option<String> {
    let named = checkpoints.iter().map(|checkpoint| match &checkpoint.name {
        Some(name) => format!("{} (savepoint `{name}`)", checkpoint.id),
        None => checkpoint.id.to_string(),
    });
    let named: Vec<String> = named.collect();
    match named.as_slice() {
        [] => None,
        [only] => Some(format!("checkpoint {only}")),
        [before @ .., last] => Some(format!("checkpoints {} and {last}", before.join(", "))),
    }
}

/// Why a run cannot go back to a checkpoint, if one has gone back behind it since and has taken
/// back what sinks had written.
pub fn cut_since(
    plan: &Plan,
    manifest: &Manifest,
    known: &[CheckpointInfo],
    dropped: &Dropped,
) -> Option<String> {
    if !is_given_up(known, manifest.id) {
        return None;
    }
    let takes_back = |node: &&NodeManifest| {
        let connector = node.description.connector.as_ref();
        let now = plan.nodes.iter().find(|now| now.name == node.name());
        let has_place = connector.is_some_and(|connector| connector.place.is_some());
        has_place
            && now.is_some_and(|now| match &now.kind {
                NodeKind::Sink(sink) => sink.connector.takes_rows_back(),
                _ => false,
            })
    };
    let mut nodes = manifest.nodes.iter();
    let node = nodes.find(|node| takes_back(node) && !dropped.has(node.name()))?;
    let name = node.name();
    Some(format!(
        "the pipeline has gone back to an earlier one since, where what sink `{name}` had written \
         by then was taken back"
    ))
}

/// Refuses to go back to such a checkpoint.
pub fn check_not_cut(
    plan: &Plan,
    manifest: &Manifest,
    known: &[CheckpointInfo],
    dropped: &Dropped,
) -> Result<(), String> {
    match cut_since(plan, manifest, known, dropped) {
        None => Ok(()),
        Some(why) => Err(format!(
            "checkpoint {} cannot be gone back to: {why}; choose another one",
            manifest.id
        )),
    }
}

/// Says which sinks get rows twice, if any: those that take none back.
fn tell_of_repeated_rows(plan: &Plan, manifest: &Manifest) {
    let repeats = plan.nodes.iter().filter(|node| match &node.kind {
        NodeKind::Sink(sink) => !sink.connector.takes_rows_back(),
        _ => false,
    });
    let names: Vec<&str> = repeats.map(|node| &*node.name).collect();
    let id = manifest.id;
    match names.is_empty() {
        true => tracing::info!("starting from checkpoint {id}"),
        false => tracing::warn!(
            "starting from checkpoint {id}: what was written after it cannot be taken back, and \
             is written again, by `{}`",
            names.join("`, `")
        ),
    }
}

/// Restores the checkpoint of this name or number.
async fn restore_chosen(
    durable: &Durable,
    known: &[CheckpointInfo],
    wanted: &str,
    offload: Offload,
) -> Result<Manifest, RunError> {
    let Some(found) = find(known, wanted) else {
        return Err(RunError::Usage(not_found(known, wanted)));
    };
    match durable.restore(found.id, offload).await {
        Ok(manifest) => Ok(manifest),
        Err(error @ StorageError::Damaged { .. }) => Err(outside_error(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Restores the checkpoint that the participants have committed; without
/// participants, the newest that is not damaged.
async fn restore_latest(
    durable: &Durable,
    known: &[CheckpointInfo],
    committed: Option<CheckpointId>,
    offload: Offload,
) -> Result<Option<Manifest>, RunError> {
    if let Some(id) = committed
        && !has_committed(known, committed)
    {
        return Err(outside_error(format!(
            "checkpoint {id} was the last to be committed, and it is not here ({}): bring its \
             files back, or start anew with `--fresh`, which writes all rows again",
            match known.last() {
                Some(last) => format!("the newest is {}", last.id),
                None => "there is none".to_owned(),
            }
        )));
    }
    if let Some(why) = forgotten_by_sinks(durable, known, committed) {
        return Err(outside_error(why));
    }
    let mut damage = None;
    for candidate in candidates(durable, known, committed) {
        match durable.restore(candidate.id, offload).await {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error @ StorageError::Damaged { .. }) => {
                if Some(candidate.id) == committed {
                    return Err(outside_error(format!(
                        "{error}; its rows are committed, and an earlier one would write them \
                         twice: bring its files back"
                    )));
                }
                tracing::error!("{error}; trying the one before it");
                damage = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match damage {
        // Starting without a checkpoint would lose everything: the user decides.
        Some(error) => Err(outside_error(format!(
            "{error}, and no earlier one is left: bring one back, or start anew with `--fresh`"
        ))),
        None => Ok(None),
    }
}

/// Why no checkpoint can be chosen, although there are some: where the rows of all of them are,
/// nobody knows of any. Only the newest one may never have been committed.
fn forgotten_by_sinks(
    durable: &Durable,
    known: &[CheckpointInfo],
    committed: Option<CheckpointId>,
) -> Option<String> {
    if known.iter().any(|known| Some(known.id) == committed) {
        return None;
    }
    let later = known.iter().rev();
    let later = later.filter(|known| is_committed_by(known, durable) && Some(known.id) > committed);
    let (newest, before) = (later.clone().next()?.id, later.clone().nth(1)?.id);
    let names = durable.participants.names().join(", ");
    let has = match committed {
        Some(id) => format!("checkpoint {id} is the last that it has"),
        None => "it has none".to_owned(),
    };
    Some(format!(
        "what was written up to checkpoint {before} was committed to {names}, where {has}: it is \
         another server, or was emptied or set back. Bring back what it had; or go on with \
         `--from {newest}`, if it does not matter that rows before that are missing there \
         (`--from {before}` if those of the last interval may come twice); or start anew with \
         `--fresh`, which writes all rows again"
    ))
}

/// Says that rows before a checkpoint are elsewhere, if all systems are others that it was
/// committed to.
fn warn_of_other_systems(durable: &Durable, manifest: &Manifest) {
    let (then, now) = (&manifest.participants, &durable.participants);
    if then.is_empty() || now.is_empty() || now.have_some(then) {
        return;
    }
    tracing::warn!(
        "checkpoint {} was committed to {}, and now rows go to {}: those before it are not there",
        manifest.id,
        then.join(", "),
        now.names().join(", ")
    );
}

/// The checkpoints that a run may go on from, the newest first.
fn candidates<'a>(
    durable: &Durable,
    known: &'a [CheckpointInfo],
    committed: Option<CheckpointId>,
) -> impl Iterator<Item = &'a CheckpointInfo> {
    let known = known.iter().rev();
    known.filter(move |known| !is_committed_by(known, durable) || Some(known.id) == committed)
}

/// Whether the sinks' systems have been told of a checkpoint. They know nothing of those that
/// were committed to others, before the pipeline got other sinks.
fn is_committed_by(known: &CheckpointInfo, durable: &Durable) -> bool {
    durable.participants.have_some(&known.participants)
}

/// Whether there is the checkpoint that was committed, or one after it.
fn has_committed(known: &[CheckpointInfo], committed: Option<CheckpointId>) -> bool {
    committed.is_none_or(|id| known.iter().any(|known| known.id >= id))
}

/// Checks that the checkpoint is this pipeline's: another one may have been given
/// the same folder.
fn check_name(name: &str, manifest: &Manifest) -> Result<(), RunError> {
    let (then, id) = (&manifest.pipeline, manifest.id);
    if then == name {
        return Ok(());
    }
    Err(config_error(format!(
        "checkpoint {id} is of pipeline `{then}`, and this is `{name}`: if it is another pipeline, \
         give it another `path` in [state]; if it has a new name, start it once with \
         `sluicebox run --from {id}`"
    )))
}

/// Checks that the plan can restore the checkpoint: nothing that it has may get
/// lost, or be given to another, unless the user says so.
fn check_plan(
    now: &[NodeDescription],
    manifest: &Manifest,
    dropped: &Dropped,
) -> Result<(), RunError> {
    let id = manifest.id;
    let then = manifest.nodes.iter();
    let then: Vec<NodeDescription> = then.map(|node| node.description.clone()).collect();
    let mut lost = Vec::new();
    for change in changes(&then, now) {
        let name = &change.name;
        if dropped.has(name) {
            continue;
        }
        let class = change.class.role();
        let what = match change.class {
            NodeClass::Source => "offsets",
            NodeClass::Transform | NodeClass::Aggregate | NodeClass::Process | NodeClass::Join => {
                "state"
            }
            NodeClass::Sink => "rows",
        };
        let why = match change.state {
            StateChange::Incompatible(why) => why,
            StateChange::Gone => format!("the pipeline has no such {class} any more"),
            StateChange::Kept => {
                let has_outcome = !matches!(change.class, NodeClass::Source | NodeClass::Transform);
                if let (true, ChangeKind::Changed(fields)) = (has_outcome, change.kind) {
                    let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
                    let fields = fields.join("; ");
                    tracing::info!(
                        "{class} `{name}` keeps its {what} from checkpoint {id}: {fields}"
                    );
                }
                continue;
            }
            StateChange::Stateless | StateChange::New | StateChange::Migrated(_) => continue,
        };
        let what = format!("{class} `{name}` has {what} in checkpoint {id}: {why}");
        lost.push((name.clone(), what));
    }
    let (names, lost): (Vec<String>, Vec<String>) = lost.into_iter().unzip();
    let drop = dropped.written().chain(names);
    let drop: Vec<String> = drop.map(|name| format!("--drop {name}")).collect();
    let (drop, them) = (drop.join(" "), if lost.len() > 1 { "them" } else { "it" });
    match lost.is_empty() {
        true => Ok(()),
        false => Err(config_error(format!(
            "{}; change {them} back, or drop what the checkpoint has of {them} (`sluicebox run \
             {drop} PIPELINE`)",
            lost.join("; ")
        ))),
    }
}

/// Rows that went there come no more, which may be a mistake of the plugin's author.
fn warn_of_gone_outputs(now: &Plan, manifest: &Manifest) {
    let then = manifest.nodes.iter();
    let then: Vec<NodeDescription> = then.map(|node| node.description.clone()).collect();
    for gone in gone_outputs(&then, now) {
        tracing::warn!(
            "output `{}` of `{}` is gone, which was read by `{}` at checkpoint {}",
            gone.output,
            gone.operator,
            gone.readers.join("`, `"),
            manifest.id
        );
    }
}

/// An error for which the storage or a participant is to blame.
fn outside_error(why: String) -> RunError {
    RunError::Restore {
        why,
        blame: Blame::Outside,
    }
}

/// An error for which the pipeline's file or the command line is to blame.
fn config_error(why: String) -> RunError {
    RunError::Restore {
        why,
        blame: Blame::Config,
    }
}
