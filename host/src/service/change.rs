//! What a change of a pipeline's content does to each of its nodes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shadow::Comparison;
use crate::plan::change::{self, ChangeKind, NodeDescription, StateChange};

/// What a change does to each node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangePlan {
    pub nodes: Vec<NodePlan>,
    /// Whether it takes the place of what runs in its tasks: nothing but the logic of
    /// operators is another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
}

/// What a change does to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodePlan {
    pub name: String,
    /// `source`, `operator` or `sink`.
    pub role: String,
    pub change: NodeEffect,
    /// What differs, as `field: then -> now`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    pub state: StateEffect,
    /// Why the state cannot be kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where its plugin differs from the one that runs, tried on recent rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeEffect {
    Unchanged,
    Changed,
    Added,
    Removed,
}

/// What becomes of an operator's state, a source's offsets or a sink's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateEffect {
    Stateless,
    New,
    Kept,
    /// The plugin makes of it what it keeps now.
    Migrated,
    Incompatible,
    Gone,
    /// Somebody has agreed that it goes.
    Dropped,
}

impl NodePlan {
    /// Why its state would get lost, where it would.
    pub fn why_lost(&self) -> &str {
        match self.state {
            StateEffect::Incompatible => self.why.as_deref().unwrap_or("it does not fit"),
            _ => "it is not in the pipeline any more",
        }
    }
}

impl ChangePlan {
    /// What is done to the nodes of `then` when `now` takes over, if the state of the nodes
    /// `dropped` may go where it does not fit.
    pub fn between(
        then: &[NodeDescription],
        now: &[NodeDescription],
        dropped: &[String],
    ) -> ChangePlan {
        let changes = change::changes(then, now).into_iter();
        let nodes = changes.map(|change| {
            let (effect, fields) = match change.kind {
                ChangeKind::Kept => (NodeEffect::Unchanged, Vec::new()),
                ChangeKind::Changed(fields) => {
                    let fields = fields.iter().map(ToString::to_string).collect();
                    (NodeEffect::Changed, fields)
                }
                ChangeKind::Added => (NodeEffect::Added, Vec::new()),
                ChangeKind::Removed => (NodeEffect::Removed, Vec::new()),
            };
            let may_go = dropped.contains(&change.name);
            let (state, why) = match change.state {
                StateChange::Stateless => (StateEffect::Stateless, None),
                StateChange::New => (StateEffect::New, None),
                StateChange::Kept => (StateEffect::Kept, None),
                StateChange::Migrated(why) => (StateEffect::Migrated, Some(why)),
                _ if may_go => (StateEffect::Dropped, None),
                StateChange::Incompatible(why) => (StateEffect::Incompatible, Some(why)),
                StateChange::Gone => (StateEffect::Gone, None),
            };
            NodePlan {
                name: change.name,
                role: change.class.role().to_owned(),
                change: effect,
                fields,
                state,
                why,
                compared: None,
            }
        });
        ChangePlan {
            nodes: nodes.collect(),
            in_place: false,
        }
    }

    /// Adds how the plugins of nodes compare, by name.
    pub fn compare(&mut self, mut compared: HashMap<String, Comparison>) {
        for node in &mut self.nodes {
            node.compared = compared.remove(&node.name);
        }
    }

    /// The same change where what is kept of these goes in any case.
    pub fn dropping(mut self, dropped: &[String]) -> ChangePlan {
        for node in &mut self.nodes {
            if dropped.contains(&node.name) {
                (node.state, node.why) = (StateEffect::Dropped, None);
            }
        }
        self
    }

    /// The same change where it begins without a state.
    pub fn anew(mut self) -> ChangePlan {
        self.in_place = false;
        for node in &mut self.nodes {
            node.why = None;
            node.state = match node.state {
                StateEffect::Stateless | StateEffect::Gone => StateEffect::Stateless,
                _ => StateEffect::New,
            };
        }
        self
    }

    /// Whether a node keeps its state, as it is or migrated.
    pub fn keeps_any(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| matches!(node.state, StateEffect::Kept | StateEffect::Migrated))
    }

    /// The nodes whose state would get lost.
    pub fn lost(&self) -> impl Iterator<Item = &NodePlan> {
        let is_lost =
            |node: &&NodePlan| matches!(node.state, StateEffect::Incompatible | StateEffect::Gone);
        self.nodes.iter().filter(is_lost)
    }

    /// Why the change needs consent, if it does: state would get lost.
    pub fn loses(&self) -> Option<String> {
        let lost = self.lost().map(|node| {
            let why = node.why_lost();
            let what = match &*node.role {
                "source" => "offsets",
                "sink" => "rows",
                _ => "state",
            };
            format!(
                "{} `{}` cannot keep its {what}: {why}",
                node.role, node.name
            )
        });
        let lost: Vec<String> = lost.collect();
        (!lost.is_empty()).then(|| {
            format!(
                "{}; change it back, or agree that it goes by applying the change with these names \
                 in `drop`",
                lost.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::change::{ConnectorDescription, NodeClass};

    fn source(name: &str, kind: &str) -> NodeDescription {
        NodeDescription {
            name: name.to_owned(),
            class: NodeClass::Source,
            connector: Some(ConnectorDescription {
                kind: kind.to_owned(),
                ..ConnectorDescription::default()
            }),
            ..NodeDescription::default()
        }
    }

    #[test]
    fn what_would_get_lost_needs_consent() {
        let then = [source("a", "file"), source("b", "file")];
        let now = [source("a", "kafka")];
        let plan = ChangePlan::between(&then, &now, &[]);
        let why = plan.loses().expect("both are lost");
        assert!(
            why.contains("source `a` cannot keep its offsets: its type"),
            "{why}"
        );
        assert!(
            why.contains("source `b` cannot keep its offsets: it is not in"),
            "{why}"
        );
        let agreed = ["a".to_owned(), "b".to_owned()];
        let plan = ChangePlan::between(&then, &now, &agreed);
        assert_eq!(plan.loses(), None);
        assert_eq!(plan.nodes[0].state, StateEffect::Dropped);
        let same = ChangePlan::between(&then, &then, &[]);
        assert!(
            same.nodes
                .iter()
                .all(|node| node.state == StateEffect::Kept)
        );
    }
}
