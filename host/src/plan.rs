//! The plan: what a pipeline's config means, as a graph of typed nodes. Nothing
//! that runs a plan looks at config again.
//!
//! Nodes are in topological order: an edge always points to a smaller id.

/// Where rows come from.
pub mod source;
/// What is done with them.
pub mod operator;
/// Where they go.
pub mod sink;
/// What outlives a run.
pub mod state;
/// What differs between two plans.
pub mod change;
/// The plan as people read it.
pub mod draw;
/// The plan as programs read it.
pub mod json;

use std::path::PathBuf;
use std::sync::Arc;

pub use operator::{
    AggregatePlan, Arguments, Bounds, OperatorPlan, TimeDomain, TransformPlan, Window,
};
pub use sink::SinkPlan;
pub use source::{EventTime, SourcePlan};
pub use state::{Delivery, RemotePlan, RestartPlan, StateBackend, StatePlan};

use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::schema::Schema;

pub struct Plan {
    pub name: String,
    /// How many tasks a keyed node runs as, and at most a source.
    pub parallelism: usize,
    /// Rows a batch, at most.
    pub batch_rows: usize,
    /// Where rows go whose node says `dead_letter`. One file a pipeline.
    pub dead_letters: Option<PathBuf>,
    /// Without it nothing outlives the run.
    pub state: Option<StatePlan>,
    pub restart: RestartPlan,
    pub nodes: Vec<Node>,
}

impl Plan {
    /// As how many tasks each node runs. Rows that are not keyed stay in the
    /// task that they are in; a sink is one task.
    pub fn tasks(&self) -> Vec<usize> {
        let mut tasks: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let upstream = node.inputs.iter().map(|edge| tasks[edge.from]).max();
            tasks.push(match &node.kind {
                NodeKind::Source(source) => {
                    let partitions = source.connector.partitions().unwrap_or(1);
                    partitions.clamp(1, self.parallelism)
                }
                NodeKind::Transform(_) => upstream.unwrap_or(1),
                NodeKind::Aggregate(aggregate) if aggregate.key_schema.fields.is_empty() => 1,
                NodeKind::Aggregate(_) => self.parallelism,
                NodeKind::Sink(_) => 1,
            });
        }
        tasks
    }
}

pub struct Node {
    /// As in the config: unique among sources, operators and sinks together.
    pub name: String,
    pub kind: NodeKind,
    /// Empty for sources. Several are merged (all have what the node reads).
    pub inputs: Vec<Edge>,
    /// What leaves the main output. For a sink, what it takes.
    pub output: Arc<Schema>,
}

pub struct Edge {
    pub from: NodeId,
    pub port: OutPort,
    pub exchange: Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutPort {
    Main,
    /// Rows that came after their window had closed, as they came in.
    Late,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Task to task; to the one task where there are fewer on this side.
    Forward,
    /// By the hash of these columns of the upstream's output.
    Hash(Vec<usize>),
}

pub enum NodeKind {
    Source(SourcePlan),
    Transform(TransformPlan),
    Aggregate(AggregatePlan),
    Sink(SinkPlan),
}

impl Node {
    /// What becomes of its bad rows. Sinks have none.
    pub fn on_error(&self) -> Option<OnError> {
        match &self.kind {
            NodeKind::Source(source) => Some(source.on_error),
            NodeKind::Transform(transform) => Some(transform.operator.on_error),
            NodeKind::Aggregate(aggregate) => Some(aggregate.operator.on_error),
            NodeKind::Sink(_) => None,
        }
    }
}
