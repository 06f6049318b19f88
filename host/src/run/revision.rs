//! One revision of a pipeline's plan, with what a run needs of it.

use std::sync::Arc;

use super::wiring::chains;
use crate::checkpoint::replacement::Replacement;
use crate::element::NodeId;
use crate::plan::change::{self, NodeDescription};
use crate::plan::{NodeKind, OperatorPlan, Plan};
use crate::progress::{NodeProgress, Role};

pub(super) struct Revision {
    /// From 1 on.
    pub number: u32,
    pub plan: Arc<Plan>,
    /// How many tasks each node has.
    pub task_counts: Vec<usize>,
    pub nodes: Vec<Arc<NodeProgress>>,
    /// What a checkpoint's manifest records of the plan.
    pub description: Vec<NodeDescription>,
}

impl Revision {
    pub fn new(number: u32, plan: Arc<Plan>) -> Self {
        let task_counts = plan.tasks();
        let nodes = plan
            .nodes
            .iter()
            .zip(&task_counts)
            .map(|(node, &tasks)| {
                let role = match node.kind {
                    NodeKind::Source(_) => Role::Source,
                    NodeKind::Sink(_) => Role::Sink,
                    NodeKind::Transform(_)
                    | NodeKind::Aggregate(_)
                    | NodeKind::Process(_)
                    | NodeKind::Join(_) => Role::Operator,
                };
                let edges = node.inputs.iter().map(|input| input.edges.len());
                let progress = NodeProgress::new(&node.name, role, tasks);
                let edges: Vec<usize> = edges.collect();
                Arc::new(progress.connected(&edges, node.outputs.len()))
            })
            .collect();
        Revision {
            number,
            task_counts,
            nodes,
            description: change::describe(&plan),
            plan,
        }
    }

    /// The revision that has taken this one's place in its tasks.
    pub fn replaced(&self, number: u32, replacement: &Replacement) -> Self {
        Revision {
            number,
            plan: replacement.plan.clone(),
            task_counts: self.task_counts.clone(),
            nodes: replacement.nodes.clone(),
            description: replacement.description.clone(),
        }
    }

    /// How many tasks call plugins.
    pub fn plugin_tasks(&self) -> usize {
        let calls_plugin = |&id: &NodeId| {
            let operator = self.plan.nodes[id].kind.operator();
            operator.is_some_and(OperatorPlan::is_plugins)
        };
        let chains = chains(&self.plan, &self.task_counts);
        let with_plugin = chains.iter().filter(|chain| chain.iter().any(calls_plugin));
        with_plugin.map(|chain| self.task_counts[chain[0]]).sum()
    }
}
