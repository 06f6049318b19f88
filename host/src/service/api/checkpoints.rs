//! Lists the checkpoints of a pipeline, and decides whether it can go back to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::problem::Problem;
use super::{Named, blocking};
use crate::checkpoint::storage::folder::Archive;
use crate::checkpoint::storage::{CheckpointInfo, find, not_found};
use crate::plan::{Plan, StateBackend};
use crate::service::change::ChangePlan;
use crate::service::host::Host;
use crate::service::hosted::{Hosted, Phase};
use crate::service::revision::Planned;

/// The checkpoints that a pipeline can go back to, savepoints included, oldest first
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
        archive.list().map_err(|error| Problem::internal(&error))
    };
    Ok(Json(blocking(list).await?))
}

/// Decides whether a pipeline can go back to a checkpoint, if the states of `dropped` may go.
pub fn can_go_back(
    host: &Host,
    pipeline: &Hosted,
    from: &str,
    dropped: &[String],
) -> Result<(), Problem> {
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
    let list = archive.list().map_err(|error| Problem::internal(&error))?;
    let wanted = find(&list, from).ok_or_else(|| Problem::not_found(&not_found(&list, from)))?;
    if let Some(damage) = &wanted.damage {
        return Err(Problem::conflict(&format!(
            "checkpoint {} is damaged: {damage}",
            wanted.id
        )));
    }
    let manifest = archive.manifest(wanted.id);
    let manifest = manifest.map_err(|error| Problem::internal(&error))?;
    let then = manifest.nodes.into_iter().map(|node| node.description);
    let then: Vec<_> = then.collect();
    match ChangePlan::between(&then, &planned.description, dropped).loses() {
        Some(why) => Err(Problem::refused(&format!(
            "checkpoint {}: {why}",
            wanted.id
        ))),
        None => Ok(()),
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
