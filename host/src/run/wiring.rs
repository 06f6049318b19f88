//! Decides which nodes run in one task, and connects the tasks by channels.

use tokio::sync::mpsc;

use crate::element::Element;
use crate::element::NodeId;
use crate::gate::Gate;
use crate::placement::Placement;
use crate::plan::{Exchange, OutPort, Plan};
use crate::router::{Consumer, Router};

/// Elements that wait between two tasks, at most. Together with the batch
/// size this bounds what is under way.
pub(super) const CHANNEL_ELEMENTS: usize = 8;

/// Nodes that run in one task, in flow order: each is the only reader of the
/// one before, and gets its rows from the same task.
pub(super) fn chains(plan: &Plan, task_counts: &[usize]) -> Vec<Vec<NodeId>> {
    let mut chains: Vec<Vec<NodeId>> = Vec::new();
    let mut chain_of = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let previous = match node.inputs.as_slice() {
            [edge] if edge.port == OutPort::Main => Some(edge).filter(|edge| {
                let same_task = match edge.exchange {
                    Exchange::Forward => task_counts[edge.from] == task_counts[id],
                    Exchange::Hash(_) => task_counts[edge.from] == 1 && task_counts[id] == 1,
                };
                same_task && readers(plan, edge.from) == 1
            }),
            _ => None,
        };
        match previous {
            Some(edge) => {
                let chain: usize = chain_of[edge.from];
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

fn readers(plan: &Plan, id: NodeId) -> usize {
    let edges = plan.nodes.iter().flat_map(|node| &node.inputs);
    edges
        .filter(|edge| edge.from == id && edge.port == OutPort::Main)
        .count()
}

/// What a task's gate reads: channels, each with the index of its edge.
type Inputs = Vec<(usize, mpsc::Receiver<Element>)>;

/// The channels between tasks.
pub(super) struct Wiring {
    routers: Vec<Vec<[Router; 2]>>,
    gates: Vec<Vec<Inputs>>,
}

impl Wiring {
    pub fn new(plan: &Plan, task_counts: &[usize], chains: &[Vec<NodeId>]) -> Self {
        let mut wiring = Wiring {
            routers: task_counts
                .iter()
                .map(|&tasks| (0..tasks).map(|_| Default::default()).collect())
                .collect(),
            gates: task_counts
                .iter()
                .map(|&tasks| (0..tasks).map(|_| Vec::new()).collect())
                .collect(),
        };
        for &id in chains.iter().map(|chain| &chain[0]) {
            for (index, edge) in plan.nodes[id].inputs.iter().enumerate() {
                for upstream in 0..task_counts[edge.from] {
                    let placement = Placement::on_one_host(upstream, task_counts[edge.from]);
                    let mut connect = |downstream: usize| {
                        let (sender, receiver) = mpsc::channel(CHANNEL_ELEMENTS);
                        wiring.gates[id][downstream].push((index, receiver));
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
                    let router = &mut wiring.routers[edge.from][upstream];
                    router[edge.port as usize].consumers.push(consumer);
                }
            }
        }
        wiring
    }

    pub fn router(&mut self, id: NodeId, task: usize, port: OutPort) -> Router {
        std::mem::take(&mut self.routers[id][task][port as usize])
    }

    pub fn gate(&mut self, id: NodeId, task: usize) -> Gate {
        Gate::new(std::mem::take(&mut self.gates[id][task]))
    }
}
