//! Decides which nodes run in one task, and connects the tasks by channels.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::looks::Looks;
use crate::element::{Element, Inlet, NodeId};
use crate::gate::Gate;
use crate::logic::Port;
use crate::placement::Placement;
use crate::plan::{Edge, EventTime, Exchange, MAIN_OUTPUT, Node, NodeKind, Plan};
use crate::router::{Consumer, Router};

/// How many elements a channel between two tasks holds. Together with the batch
/// size this bounds the rows in flight.
pub(super) const CHANNEL_ELEMENTS: usize = 8;

/// A row passes the nodes of a chain by function calls inside one another, for which a
/// thread's stack has room.
const CHAIN_NODES_MAX: usize = 32;

/// Nodes that run in one task, in flow order: each reads the main output of the one
/// before and nothing else, gets its rows from the same task, and is the only reader and
/// among the first [`CHAIN_NODES_MAX`], or else gives rows their event time or is on their
/// way there.
pub(super) fn chains(plan: &Plan, task_counts: &[usize]) -> Vec<Vec<NodeId>> {
    let timed = untimed_readers(plan);
    let mut chains: Vec<Vec<NodeId>> = Vec::new();
    let mut chain_of: Vec<usize> = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let edges: Vec<&Edge> = node.edges().collect();
        let previous = match edges[..] {
            [edge] if edge.output == MAIN_OUTPUT => Some(edge).filter(|edge| {
                let same_task = match edge.exchange {
                    Exchange::Forward => task_counts[edge.from] == task_counts[id],
                    Exchange::Hash(_) => task_counts[edge.from] == 1 && task_counts[id] == 1,
                };
                let is_chained = readers(plan, edge.from) == 1
                    && chains[chain_of[edge.from]].len() < CHAIN_NODES_MAX;
                same_task && (is_chained || timed[id])
            }),
            _ => None,
        };
        match previous {
            Some(edge) => {
                let chain = chain_of[edge.from];
                chains[chain].push(id);
                chain_of.push(chain);
            }
            None => {
                chain_of.push(chains.len());
                chains.push(vec![id]);
            }
        }
    }
    chains
}

/// The nodes from the sources whose rows get their event time from an operator to that
/// operator, which has to be in the task of the source.
fn untimed_readers(plan: &Plan) -> Vec<bool> {
    let mut readers = vec![false; plan.nodes.len()];
    for node in &plan.nodes {
        let NodeKind::Source(source) = &node.kind else {
            continue;
        };
        let EventTime::Operator(mut at) = source.event_time else {
            continue;
        };
        while let Some(edge) = plan.nodes[at].edges().next() {
            readers[at] = true;
            at = edge.from;
        }
    }
    readers
}

/// How many edges come from the main output.
fn readers(plan: &Plan, id: NodeId) -> usize {
    let edges = plan.nodes.iter().flat_map(Node::edges);
    edges
        .filter(|edge| edge.from == id && edge.output == MAIN_OUTPUT)
        .count()
}

/// The edges into a node, each with its inlet.
fn inlets(node: &Node) -> impl Iterator<Item = (Inlet, &Edge)> {
    let ports = node.inputs.iter().enumerate();
    ports.flat_map(|(port, input)| {
        let edges = input.edges.iter().enumerate();
        edges.map(move |(edge, from)| (Inlet { port, edge }, from))
    })
}

/// The channels that a task's gate reads, each with its inlet.
type Inputs = Vec<(Inlet, mpsc::Receiver<Element>)>;

/// The channels between tasks.
pub(super) struct Wiring {
    /// By node, task, and output.
    routers: Vec<Vec<Vec<Router>>>,
    /// By node and task.
    gates: Vec<Vec<Inputs>>,
}

impl Wiring {
    pub fn new(plan: &Plan, task_counts: &[usize], chains: &[Vec<NodeId>], looks: &Looks) -> Self {
        let mut wiring = Wiring {
            routers: plan
                .nodes
                .iter()
                .zip(task_counts)
                .map(|(node, &tasks)| {
                    let router = |output: &Port| Router {
                        tap: looks.tap(&node.name, &output.name),
                        ..Router::default()
                    };
                    let of_task = |_| node.outputs.iter().map(router).collect();
                    (0..tasks).map(of_task).collect()
                })
                .collect(),
            gates: task_counts
                .iter()
                .map(|&tasks| (0..tasks).map(|_| Vec::new()).collect())
                .collect(),
        };
        for &id in chains.iter().map(|chain| &chain[0]) {
            for (inlet, edge) in inlets(&plan.nodes[id]) {
                for upstream in 0..task_counts[edge.from] {
                    let placement = Placement::on_one_host(upstream, task_counts[edge.from]);
                    let mut connect = |downstream: usize| {
                        let (sender, receiver) = mpsc::channel(CHANNEL_ELEMENTS);
                        wiring.gates[id][downstream].push((inlet, receiver));
                        sender
                    };
                    let consumer = match &edge.exchange {
                        Exchange::Forward => {
                            Consumer::One(connect(placement.forward_to(task_counts[id])))
                        }
                        Exchange::Hash(_) if task_counts[id] == 1 => Consumer::One(connect(0)),
                        Exchange::Hash(key) => Consumer::Sharded {
                            key: key.clone(),
                            tasks: (0..task_counts[id]).map(connect).collect(),
                        },
                    };
                    let routers = &mut wiring.routers[edge.from][upstream];
                    routers[edge.output].consumers.push(consumer);
                }
            }
        }
        wiring
    }

    /// The routers of a node's task, one for each output.
    pub fn routers(&mut self, id: NodeId, task: usize) -> Vec<Arc<Router>> {
        let routers = std::mem::take(&mut self.routers[id][task]);
        routers.into_iter().map(Arc::new).collect()
    }

    pub fn gate(&mut self, id: NodeId, task: usize) -> Gate {
        Gate::new(std::mem::take(&mut self.gates[id][task]))
    }
}
