//! What takes the place of a running plan at a barrier, while its tasks, their states and
//! their connections stay.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::element::NodeId;
use crate::logic::Factory;
use crate::plan::Plan;
use crate::plan::change::{self, NodeDescription};
use crate::progress::{NodeProgress, Role};

/// A plan that differs from the running one in the logic of its operators alone. The rows
/// behind the barrier are the first that it sees.
pub struct Replacement {
    pub plan: Arc<Plan>,
    pub description: Vec<NodeDescription>,
    /// The counters of its nodes: operators have new ones, which count its rows alone.
    pub nodes: Vec<Arc<NodeProgress>>,
    /// The logic of the operators that change, by node.
    logic: Vec<Option<Arc<dyn Factory>>>,
    /// How long its barrier took to pass all tasks, once it has.
    passed: watch::Sender<Option<Duration>>,
}

impl Replacement {
    /// Of a plan whose nodes have the counters `nodes`. Both plans have the same nodes, which
    /// read the same, put out the same and keep the same state: only whoever compares what
    /// they are made of can tell.
    pub fn new(then: &Plan, nodes: &[Arc<NodeProgress>], now: Arc<Plan>) -> Replacement {
        let pairs = then.nodes.iter().zip(&now.nodes);
        let logic = pairs.map(|(then, now)| {
            let (then, now) = (then.kind.operator()?, now.kind.operator()?);
            (!now.calls_the_same(then)).then(|| now.factory.clone())
        });
        Replacement {
            description: change::describe(&now),
            nodes: nodes
                .iter()
                .map(|node| match node.role {
                    Role::Operator => Arc::new(node.anew()),
                    Role::Source | Role::Sink => node.clone(),
                })
                .collect(),
            logic: logic.collect(),
            passed: watch::Sender::new(None),
            plan: now,
        }
    }

    /// The logic that a node calls from the barrier on, if it is another one.
    pub fn logic(&self, node: NodeId) -> Option<&Arc<dyn Factory>> {
        self.logic.get(node)?.as_ref()
    }

    /// Its barrier has passed all tasks.
    pub(super) fn set_passed(&self, took: Duration) {
        self.passed.send_replace(Some(took));
    }

    /// Waits until its barrier has passed all tasks, and returns how long that took.
    pub async fn passed(&self) -> Duration {
        let mut passed = self.passed.subscribe();
        let waited = passed.wait_for(Option::is_some).await;
        // The sender lives as long as `self`.
        waited.map_or(Duration::ZERO, |took| took.unwrap_or_default())
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
}
