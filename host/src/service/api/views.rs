//! What is shown of a pipeline.

use std::io;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::hosted::{Failure, Hosted, Phase, PhaseNow, Running};
use super::super::load::{Bottleneck, Shares};
use super::super::store::{ChangeRecord, Ledger};
use crate::checkpoint::coordinator::CompletedCheckpoint;
use crate::progress::{NodeStatus, Restarting, Role, SlowestPartition, StateStatus};

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
    /// How many rows were rejected or failed since it was started.
    bad_rows: u64,
    /// How many messages wait to be read by its sources, as far as they know.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<u64>,
    /// How far the lowest watermark of its nodes is behind the clock; absent where there is none
    /// or it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_ms: Option<i64>,
    /// What is too slow for its rows; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    bottleneck: Option<Bottleneck>,
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
    nodes: Vec<NodeView>,
    /// What is too slow for its rows; absent where nothing is, or that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    bottleneck: Option<Bottleneck>,
    /// Absent where it makes no checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateStatus>,
    /// Those since it was started, oldest first.
    checkpoints: Vec<CheckpointView>,
}

/// A node, and how it does.
#[derive(Serialize, ToSchema)]
struct NodeView {
    #[serde(flatten)]
    status: NodeStatus,
    /// In the last ten seconds; absent before it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<Shares>,
    /// The partition that holds back its watermark; absent before the first row.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back_by: Option<HeldBackBy>,
}

/// The partition that holds back a watermark.
#[derive(Clone, Serialize, ToSchema)]
struct HeldBackBy {
    source: String,
    /// As in dead letters.
    partition: String,
    /// Absent before its first row.
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark_ms: Option<i64>,
    /// When its last row came, or else when it was found.
    last_row_ms: i64,
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
    pub fn of(pipeline: &Hosted, now_ms: i64) -> PipelineLine {
        let shown = pipeline.shown();
        let nodes = shown.running.iter().flat_map(|running| &running.nodes);
        let nodes: Vec<NodeStatus> = nodes.map(|node| node.snapshot()).collect();
        let sources = nodes.iter().filter(|node| node.role == Role::Source);
        let watermarks = nodes.iter().filter_map(|node| node.watermark_ms);
        let loads = shown.running.as_ref();
        let loads = loads.map(|running| pipeline.loads(&running.planned.plan));
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
            rows_read: sources.map(|source| source.rows_in).sum(),
            bad_rows: nodes.iter().map(|node| node.rejected + node.failed).sum(),
            backlog: nodes
                .iter()
                .filter(|_| phase.reads_rows())
                .filter_map(|node| node.backlog)
                .reduce(u64::saturating_add),
            behind_ms: watermarks
                .min()
                .filter(|_| phase.reads_rows())
                .map(|watermark_ms| now_ms.saturating_sub(watermark_ms)),
            bottleneck: loads.and_then(|loads| loads.bottleneck),
            failure: shown.failure.map(|failure| failure.message),
            refusal: shown.refusal,
        }
    }
}

impl PipelineView {
    /// With what is remembered of it, if that can be read.
    pub fn of(pipeline: &Hosted, ledger: io::Result<Ledger>) -> PipelineView {
        let shown = pipeline.shown();
        let (changes, unreadable) = match ledger {
            Ok(ledger) => (ledger.changes, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let revision = shown.running.map(|running| {
            let loads = pipeline.loads(&running.planned.plan);
            RevisionView {
                digest: running.planned.content.digest.clone(),
                started_ms: running.started_ms,
                warnings: running.planned.warnings.clone(),
                nodes: nodes(&running, &loads.nodes),
                bottleneck: loads.bottleneck,
                state: running.state.map(|state| state.snapshot()),
                checkpoints: running
                    .pipeline
                    .history()
                    .iter()
                    .map(CheckpointView::of)
                    .collect(),
            }
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
            refusal: shown.refusal.or(unreadable),
            revision,
            changes,
        }
    }
}

fn nodes(running: &Running, loads: &[Shares]) -> Vec<NodeView> {
    let plan = &running.planned.plan;
    // By node, the slowest partition of the sources before it.
    let mut slowest: Vec<Option<(&str, SlowestPartition)>> = Vec::with_capacity(plan.nodes.len());
    for (node, progress) in plan.nodes.iter().zip(&running.nodes) {
        let own = progress.slowest().map(|own| (&*node.name, own));
        let before = node.edges().filter_map(|edge| slowest[edge.from].clone());
        let all = before.chain(own);
        slowest.push(all.min_by_key(|(_, it)| (it.watermark_ms, it.last_row_ms)));
    }
    let nodes = running.nodes.iter().zip(slowest).enumerate();
    let nodes = nodes.map(|(at, (node, slowest))| NodeView {
        status: node.snapshot(),
        load: loads.get(at).copied(),
        held_back_by: slowest.map(|(source, it)| HeldBackBy {
            source: source.to_owned(),
            partition: it.name.to_string(),
            watermark_ms: Some(it.watermark_ms).filter(|&ms| ms > i64::MIN),
            last_row_ms: it.last_row_ms,
        }),
    });
    nodes.collect()
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
