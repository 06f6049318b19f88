//! The plan: what a pipeline's config means, as a graph of typed nodes. Nothing
//! that runs a plan looks at config again.
//!
//! Nodes are in topological order: an edge always comes from a smaller id. It
//! leads from an output port of that node to an input port of this one.

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
    AggregatePlan, Arguments, Bounds, LATE, LATE_OUTPUT, OperatorPlan, TimeDomain, TransformPlan,
    Window,
};
pub use sink::SinkPlan;
pub use source::{EventTime, SourcePlan};
pub use state::{Delivery, RemotePlan, RestartPlan, StateBackend, StatePlan};

use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::logic::Port;
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
            let upstream = node.edges().map(|edge| tasks[edge.from]).max();
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

    /// The output that an edge comes from, as an input names it: `node`, or
    /// `node.output` where it is not the main one.
    pub fn output_name(&self, edge: &Edge) -> String {
        let from = &self.nodes[edge.from];
        match edge.output {
            MAIN_OUTPUT => from.name.clone(),
            output => format!("{}.{}", from.name, from.outputs[output].name),
        }
    }
}

pub struct Node {
    /// As in the config: unique among sources, operators and sinks together.
    pub name: String,
    pub kind: NodeKind,
    /// Empty for sources.
    pub inputs: Vec<InputPort>,
    /// Empty for sinks. The others have their main output first.
    pub outputs: Vec<Port>,
}

/// Index of the output that a node's name alone stands for.
pub const MAIN_OUTPUT: usize = 0;

/// Where rows come into a node.
pub struct InputPort {
    pub name: String,
    /// What the node reads of each row. All that come have it, whatever else
    /// they have and in which order.
    pub schema: Arc<Schema>,
    /// What comes by them is merged.
    pub edges: Vec<Edge>,
}

/// From an output of one node to the input port that has the edge.
pub struct Edge {
    pub from: NodeId,
    /// Index of that node's output.
    pub output: usize,
    pub exchange: Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Task to task; to the one task where there are fewer on this side.
    Forward,
    /// By the hash of these columns of the output that the edge is from.
    Hash(Vec<usize>),
}

pub enum NodeKind {
    Source(SourcePlan),
    Transform(TransformPlan),
    Aggregate(AggregatePlan),
    Sink(SinkPlan),
}

impl Node {
    /// All edges that come into it, port by port.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.inputs.iter().flat_map(|input| &input.edges)
    }

    /// What leaves the main output. For a sink, what it takes.
    pub fn schema(&self) -> &Arc<Schema> {
        match &self.kind {
            NodeKind::Sink(_) => &self.inputs[0].schema,
            _ => &self.outputs[MAIN_OUTPUT].schema,
        }
    }

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
