//! The plan: a pipeline as a graph of typed nodes. Running a plan needs no
//! config.
//!
//! Nodes are in topological order, so an edge always comes from a node with a
//! smaller id. It connects an output port of that node to an input port of this
//! one.

/// Event times in the plan.
pub mod event_time;
/// A source in the plan.
pub mod source;
/// An operator in the plan.
pub mod operator;
/// A join in the plan.
pub mod join;
/// A sink in the plan.
pub mod sink;
/// State, checkpoints and restarts in the plan.
pub mod state;
/// Compares two plans, and decides whether state is kept.
pub mod change;
/// Where results depend on the speed of tasks.
mod order;
/// Draws a plan as text.
pub mod draw;
/// Writes a plan as JSON.
pub mod json;

use std::path::PathBuf;
use std::sync::Arc;

pub use event_time::{EventTime, FieldPath, GivenTime, OperatorTime};
pub use join::{
    JoinColumn, JoinKind, JoinPlan, JoinRule, JoinSide, LATE_SIDES, LEFT, Matching, RIGHT, SIDES,
    Version,
};
pub use operator::{
    AggregatePlan, Alignment, Arguments, Bounds, CHANGES, Emit, LATE, LATE_OUTPUT, OperatorPlan,
    PortPlan, ProcessPlan, RequestColumns, RowOrder, Ties, TimeDomain, Timing, TransformPlan,
    Window,
};
pub use sink::{ADDED, SinkPlan, TAKEN_BACK, change_field};
pub use source::{Algorithm, ChecksumPlan, SourcePlan};
pub use state::{Delivery, RemotePlan, RestartPlan, StateBackend, StatePlan};

use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::files::Shared;
use crate::logic::{Kind, Port};
use crate::paths::{identity, name_in};
use crate::schema::Schema;

pub struct Plan {
    pub name: String,
    /// The folder of the pipeline's file.
    pub folder: PathBuf,
    /// How many tasks a keyed node has, and a source at most.
    pub parallelism: usize,
    /// How many rows a batch has at most.
    pub batch_rows: usize,
    /// The pipeline's file of dead letters, if a node writes any.
    pub dead_letters: Option<PathBuf>,
    /// `None` for a pipeline without checkpoints.
    pub state: Option<StatePlan>,
    pub restart: RestartPlan,
    /// What no other pipeline may use while this one runs.
    pub files: Shared,
    pub nodes: Vec<Node>,
}

impl Plan {
    /// Whether an aggregate or a join waits for event time.
    pub fn has_timed_windows(&self) -> bool {
        self.nodes.iter().any(Node::has_timed_windows)
    }

    /// The name of the field that has the event time, if this operator gives it to its
    /// rows.
    pub fn operator_time(&self, id: NodeId) -> Option<String> {
        let node = &self.nodes[id];
        match &node.kind {
            NodeKind::Transform(transform) => {
                let time = transform.event_time.as_ref()?;
                Some(time.field.name(node.schema()))
            }
            _ => None,
        }
    }

    /// The name of the file of dead letters, as [`name_in`] gives it.
    pub fn dead_letter_place(&self) -> Option<String> {
        let path = self.dead_letters.as_ref()?;
        Some(name_in(&identity(&self.folder), path))
    }

    /// For each node, the key by which later rows that come to it replace earlier ones;
    /// `None` if all rows stand, or if it cannot be told.
    pub fn tables_read(&self) -> Vec<Option<TableKey>> {
        let mut read: Vec<Option<TableKey>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut keys = node.edges().map(|edge| match edge.output {
                // It is of a node before this one.
                MAIN_OUTPUT => self.nodes[edge.from].table(read[edge.from].as_ref()),
                _ => None,
            });
            let first = keys.next().flatten();
            let first = first.filter(|first| keys.all(|key| key.as_ref() == Some(first)));
            read.push(first);
        }
        read
    }

    /// How many tasks each node has. Rows without a key stay in their task; a
    /// sink has one task.
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
                NodeKind::Aggregate(AggregatePlan { key_schema, .. })
                | NodeKind::Process(ProcessPlan { key_schema, .. })
                | NodeKind::Join(JoinPlan { key_schema, .. }) => {
                    match key_schema.fields.is_empty() {
                        true => 1,
                        false => self.parallelism,
                    }
                }
                NodeKind::Sink(_) => 1,
            });
        }
        tasks
    }

    /// An edge's output as inputs name it: `node`, or `node.output` if it is
    /// not the main one.
    pub fn output_name(&self, edge: &Edge) -> String {
        let from = &self.nodes[edge.from];
        match edge.output {
            MAIN_OUTPUT => from.name.clone(),
            output => format!("{}.{}", from.name, from.outputs[output].name),
        }
    }
}

/// The key of a table: of several rows with the same key, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    pub columns: Vec<String>,
    /// The column that says which rows withdraw the one before, if there is one.
    pub timing: Option<String>,
}

pub struct Node {
    /// Its name in the config, unique among sources, operators and sinks.
    pub name: String,
    pub kind: NodeKind,
    /// Empty for sources.
    pub inputs: Vec<InputPort>,
    /// Empty for sinks. The main output comes first.
    pub outputs: Vec<Port>,
}

/// The index of the output that a node's name alone refers to.
pub const MAIN_OUTPUT: usize = 0;

/// A port that rows come in by.
pub struct InputPort {
    pub name: String,
    /// The fields that the node reads. Rows of every edge have them, perhaps in
    /// another order and with others.
    pub schema: Arc<Schema>,
    /// The outputs that feed the port; their rows are merged.
    pub edges: Vec<Edge>,
}

/// A connection from an output of another node.
pub struct Edge {
    pub from: NodeId,
    /// The index of the output at that node.
    pub output: usize,
    pub exchange: Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// From each task to the same one, or to the only one.
    Forward,
    /// By the hash of these columns of the output.
    Hash(Vec<usize>),
}

pub enum NodeKind {
    Source(SourcePlan),
    Transform(TransformPlan),
    Aggregate(AggregatePlan),
    Process(ProcessPlan),
    Join(JoinPlan),
    Sink(SinkPlan),
}

impl NodeKind {
    /// The operator whose logic it calls.
    pub fn operator(&self) -> Option<&OperatorPlan> {
        match self {
            NodeKind::Transform(transform) => Some(&transform.operator),
            NodeKind::Aggregate(aggregate) => Some(&aggregate.operator),
            NodeKind::Process(process) => Some(&process.operator),
            NodeKind::Source(_) | NodeKind::Join(_) | NodeKind::Sink(_) => None,
        }
    }

    /// Whether it keeps something for each key.
    pub fn has_state(&self) -> bool {
        matches!(
            self,
            NodeKind::Aggregate(_) | NodeKind::Process(_) | NodeKind::Join(_)
        )
    }
}

impl Node {
    /// The key by which later rows of its main output replace earlier ones, if it reads
    /// rows with this one.
    fn table(&self, read: Option<&TableKey>) -> Option<TableKey> {
        match &self.kind {
            NodeKind::Aggregate(aggregate) => Some(TableKey {
                columns: aggregate.result_key()?,
                timing: aggregate.timing.clone(),
            }),
            NodeKind::Transform(transform) => {
                let kind = transform.operator.factory.info().kind;
                read.filter(|_| kind == Kind::Filter).cloned()
            }
            _ => None,
        }
    }

    /// Whether it is an aggregate that waits for event time.
    pub fn has_timed_windows(&self) -> bool {
        match &self.kind {
            NodeKind::Aggregate(aggregate) => aggregate.window.has_late_rows(),
            NodeKind::Process(process) => process.order == RowOrder::EventTime,
            NodeKind::Join(join) => join.rule.matching.has_late_rows(),
            _ => false,
        }
    }

    /// The edges of all inputs, in the order of ports.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.inputs.iter().flat_map(|input| &input.edges)
    }

    /// The schema of the main output; for a sink, of its input.
    pub fn schema(&self) -> &Arc<Schema> {
        match &self.kind {
            NodeKind::Sink(_) => &self.inputs[0].schema,
            _ => &self.outputs[MAIN_OUTPUT].schema,
        }
    }

    /// What happens to bad rows; `None` for joins and most sinks, which have none.
    pub fn on_error(&self) -> Option<OnError> {
        match &self.kind {
            NodeKind::Source(source) => Some(source.on_error),
            NodeKind::Sink(sink) => sink.connector.on_error(),
            kind => kind.operator().map(|operator| operator.on_error),
        }
    }
}
