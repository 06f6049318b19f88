//! Lists the checkpoints of a pipeline, deletes savepoints, and decides whether the pipeline can
//! go back to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::problem::Problem;
use super::{Named, blocking};
use crate::checkpoint::spared::SparedCheckpoint;
use crate::checkpoint::storage::folder::Archive;
use crate::checkpoint::storage::{
    CheckpointInfo, StorageError, find, is_given_up, may_be_needed, not_found,
};
use crate::plan::{Plan, StateBackend};
use crate::run::{Dropped, check_not_cut, cut_since};
use crate::service::change::ChangePlan;
use crate::service::host::Host;
use crate::service::hosted::{Hosted, Phase};
use crate::service::revision::Planned;
use crate::suggest;

/// The checkpoints of a pipeline, savepoints included, oldest first
///
/// Those that have a `damage` cannot be gone back to.
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/checkpoints", params(("name" = String, Path)), responses(
    (status = 200, body = [CheckpointInfo]),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It makes none, or keeps them in memory"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn checkpoints(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
) -> Result<Json<Vec<CheckpointInfo>>, Problem> {
    let list = move || {
        let plan = plan(&host, &pipeline)?;
        let archive = archive(&plan)?;
        let mut list = archive.list().map_err(|error| Problem::internal(&error))?;
        let cut = |info: &CheckpointInfo| {
            let is_suspect = info.damage.is_none() && is_given_up(&list, info.id);
            // It may be deleted meanwhile.
            let manifest = is_suspect.then(|| archive.manifest(info.id).ok())??;
            cut_since(&plan, &manifest, &list, &Dropped::default())
        };
        let cut: Vec<Option<String>> = list.iter().map(cut).collect();
        for (info, cut) in list.iter_mut().zip(cut) {
            info.damage = info.damage.take().or(cut);
        }
        Ok(list)
    };
    Ok(Json(blocking(list).await?))
}

#[derive(Deserialize)]
pub struct Of {
    savepoint: String,
}

/// Deletes a savepoint
///
/// By its name or number; of several with one name, the newest.
#[utoipa::path(delete, path = "/api/v1/pipelines/{name}/savepoints/{savepoint}",
    params(("name" = String, Path), ("savepoint" = String, Path)), responses(
    (status = 204, description = "It is deleted"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The pipeline may need it, or keeps its checkpoints in memory, or makes none"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn delete_savepoint(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
    Path(Of { savepoint }): Path<Of>,
) -> Result<StatusCode, Problem> {
    let delete = move || {
        let plan = plan(&host, &pipeline)?;
        let archive = archive(&plan)?;
        let spared = pipeline.spared.lock();
        let list = archive.list().map_err(|error| Problem::internal(&error))?;
        let kept = find(&list, &savepoint).filter(|info| info.name.is_some());
        let kept = kept.ok_or_else(|| {
            let names = list.iter().filter_map(|info| info.name.as_deref());
            let help = suggest::help(&savepoint, "savepoints", names);
            Problem::not_found(&format!("there is no savepoint `{savepoint}`: {help}"))
        })?;
        if may_be_needed(&list, kept.id) {
            return Err(Problem::conflict(&format!(
                "checkpoint {} is one of the last two, from which the pipeline goes on when it is \
                 started: it can be deleted when there are two later ones",
                kept.id
            )));
        }
        if spared.contains(&kept.id) {
            return Err(Problem::conflict(&format!(
                "the pipeline is going back to checkpoint {}: wait until it has",
                kept.id
            )));
        }
        archive.delete(kept.id).map_err(|error| match error {
            StorageError::Missing { .. } => {
                Problem::not_found(&format!("savepoint `{savepoint}` is deleted already"))
            }
            error => Problem::internal(&error),
        })
    };
    blocking(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a checkpoint for a pipeline that can go back to it, if the states of `dropped` may go.
pub fn go_back(
    host: &Host,
    pipeline: &Hosted,
    from: &str,
    dropped: &[String],
) -> Result<SparedCheckpoint, Problem> {
    let phase = pipeline.shown().phase;
    if matches!(phase, Phase::Planning | Phase::Starting | Phase::Probation) {
        return Err(Problem::conflict(&format!(
            "the pipeline is in the phase `{}`: wait for its end, or pause it first",
            phase.name()
        )));
    }
    if host.context().store.letters(&pipeline.name)?.open.is_some() {
        return Err(Problem::conflict(
            "dead letters are being replayed: wait for their end",
        ));
    }
    let planned = planned(host, pipeline)?;
    let archive = archive(&planned.plan)?;
    let mut list = Vec::new();
    // What runs deletes its oldest checkpoints, until it has ended.
    let spared = pipeline.spared.spare(|| {
        list = archive.list().map_err(|error| Problem::internal(&error))?;
        let wanted = find(&list, from);
        let wanted = wanted.ok_or_else(|| Problem::not_found(&not_found(&list, from)))?;
        match &wanted.damage {
            None => Ok(wanted.id),
            Some(damage) => Err(Problem::conflict(&format!(
                "checkpoint {} is damaged: {damage}",
                wanted.id
            ))),
        }
    })?;
    let id = spared.id;
    let manifest = archive.manifest(id).map_err(|error| match error {
        StorageError::Missing { .. } => Problem::not_found(&not_found(&list, from)),
        error => Problem::internal(&error),
    })?;
    let parsed = Dropped::parse(dropped);
    let checked = parsed.check(&manifest);
    checked.map_err(|error| Problem::refused(&error.to_string()))?;
    let checked = check_not_cut(&planned.plan, &manifest, &list, &parsed);
    checked.map_err(|why| Problem::conflict(&why))?;
    let then = manifest.nodes.into_iter().map(|node| node.description);
    let then: Vec<_> = then.collect();
    match ChangePlan::between(&then, &planned.description, dropped).loses() {
        Some(why) => Err(Problem::refused(&format!("checkpoint {id}: {why}"))),
        None => Ok(spared),
    }
}

/// The plan that runs, or has run last; that of its file where it has not run since the
/// service was started.
pub fn plan(host: &Host, pipeline: &Hosted) -> Result<Arc<Plan>, Problem> {
    match pipeline.shown().running {
        Some(running) => Ok(running.planned.plan.clone()),
        None => Ok(planned(host, pipeline)?.plan),
    }
}

fn planned(host: &Host, pipeline: &Hosted) -> Result<Planned, Problem> {
    let planned = host.planned_now(&pipeline.name);
    planned.map_err(|why| Problem::conflict(&format!("its file has mistakes: {why}")))
}

/// Where its checkpoints are.
pub fn archive(plan: &Plan) -> Result<Archive, Problem> {
    match plan.state.as_ref().map(|state| &state.backend) {
        Some(StateBackend::RocksDb { folder, .. }) => Ok(Archive::of(folder)),
        Some(StateBackend::Memory) => Err(Problem::conflict(
            "the pipeline keeps its checkpoints in memory, where it goes on from the last one alone",
        )),
        None => Err(Problem::conflict(
            "the pipeline makes no checkpoints: add [checkpoints] to its file",
        )),
    }
}
