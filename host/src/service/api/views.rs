//! What is shown of a pipeline.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::hosted::{Failure, Hosted, Phase, PhaseNow};
use super::super::store::{ChangeRecord, Ledger};
use crate::checkpoint::coordinator::CompletedCheckpoint;
use crate::progress::{NodeStatus, Restarting, Role, StateStatus};

/// A pipeline in a list.
#[derive(Serialize, ToSchema)]
pub struct PipelineLine {
    name: String,
    phase: Phase,
    /// Since when it is in this phase.
    since_ms: i64,
    /// How many rows its sources have read since it was started.
    rows_read: u64,
    /// How often it has failed and was restarted by itself since the service was started.
    restarts: u64,
    /// Only in the phase `restarting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    restarting: Option<Restarting>,
    /// When its last checkpoint was complete; absent where it has made none since it was
    /// started.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_ms: Option<i64>,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Why its newest content does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

/// A pipeline.
#[derive(Serialize, ToSchema)]
pub struct PipelineView {
    name: String,
    phase: Phase,
    since_ms: i64,
    /// The pipeline's file.
    file: String,
    /// How often it has failed and was restarted by itself since the service was started.
    restarts: u64,
    /// Only in the phase `restarting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    restarting: Option<Restarting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// What runs, or has run last since the host was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<RevisionView>,
    /// Oldest first.
    changes: Vec<ChangeRecord>,
}

/// A content that runs, or has run.
#[derive(Serialize, ToSchema)]
struct RevisionView {
    /// Of the pipeline's file and its plugins.
    digest: String,
    started_ms: i64,
    /// What the planner warns of.
    #[serde(skip_serializing_if = "String::is_empty")]
    warnings: String,
    nodes: Vec<NodeStatus>,
    /// Absent where it makes no checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateStatus>,
    /// Those since it was started, oldest first.
    checkpoints: Vec<CheckpointView>,
}

/// A complete checkpoint.
#[derive(Serialize, ToSchema)]
pub struct CheckpointView {
    id: u64,
    /// Why it was made.
    purpose: &'static str,
    /// A savepoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    bytes: u64,
    completed_ms: i64,
    milliseconds: u64,
}

impl PipelineLine {
    pub fn of(pipeline: &Hosted) -> PipelineLine {
        let shown = pipeline.shown();
        let nodes = shown.running.iter().flat_map(|running| &running.nodes);
        let sources = nodes.filter(|node| node.role == Role::Source);
        let state = shown.running.as_ref().and_then(|it| it.state.as_ref());
        let checkpoint = state.and_then(|state| state.snapshot().checkpoint);
        let PhaseNow {
            phase,
            since_ms,
            restarting,
        } = pipeline.phase();
        PipelineLine {
            name: pipeline.name.clone(),
            phase,
            since_ms,
            restarts: pipeline.restarts.count(),
            restarting,
            checkpoint_ms: checkpoint.map(|checkpoint| checkpoint.completed_ms),
            rows_read: sources.map(|source| source.snapshot().rows_in).sum(),
            failure: shown.failure.map(|failure| failure.message),
            refusal: shown.refusal,
        }
    }
}

impl PipelineView {
    pub fn of(pipeline: &Hosted, ledger: Ledger) -> PipelineView {
        let shown = pipeline.shown();
        let revision = shown.running.map(|running| RevisionView {
            digest: running.planned.content.digest.clone(),
            started_ms: running.started_ms,
            warnings: running.planned.warnings.clone(),
            nodes: running.nodes.iter().map(|node| node.snapshot()).collect(),
            state: running.state.map(|state| state.snapshot()),
            checkpoints: running
                .pipeline
                .history()
                .iter()
                .map(CheckpointView::of)
                .collect(),
        });
        let PhaseNow {
            phase,
            since_ms,
            restarting,
        } = pipeline.phase();
        PipelineView {
            name: pipeline.name.clone(),
            phase,
            since_ms,
            file: pipeline.file.display().to_string(),
            restarts: pipeline.restarts.count(),
            restarting,
            failure: shown.failure,
            refusal: shown.refusal,
            revision,
            changes: ledger.changes,
        }
    }
}

impl CheckpointView {
    pub fn of(done: &CompletedCheckpoint) -> CheckpointView {
        CheckpointView {
            id: done.id,
            purpose: done.purpose.name(),
            name: done.name.clone(),
            bytes: done.bytes,
            completed_ms: done.completed_ms,
            milliseconds: done.took.as_millis() as u64,
        }
    }
}
