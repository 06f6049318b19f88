//! What the checks found out about a section of the config.

use std::sync::Arc;

use super::columns::Relation;
use crate::config::{OperatorConfig, Span, Spanned};
use crate::logic::{Factory, OperatorInfo, Port};
use crate::plan::{Arguments, Bounds, Emit, InputPort, Node, NodeKind, OperatorPlan, Window};

/// An operator's section with the description of what it runs.
pub(super) struct Resolved {
    /// `plugin.operator`, or what runs without a plugin.
    pub name: String,
    pub info: OperatorInfo,
    pub arguments: Arguments,
    /// `None` if the parameters have a mistake, and for a join, which runs no plugin.
    pub factory: Option<Arc<dyn Factory>>,
    /// As in [`OperatorPlan`].
    pub earlier: Vec<Arc<dyn Factory>>,
    /// For aggregates, `None` if it has a mistake.
    pub timing: Option<Timing>,
}

impl Resolved {
    /// The main output. A filter's has no fields, since it passes rows on unchanged.
    pub fn output(&self) -> &Port {
        &self.info.outputs[0]
    }
}

/// An aggregate's window and the settings that go with it.
pub(super) struct Timing {
    pub window: Window,
    pub allowed_lateness_ms: i64,
    pub emit: Emit,
    pub early_every_ms: Option<u64>,
    pub discards: bool,
    pub ttl_ms: Option<i64>,
    pub bounds: Option<Bounds>,
    /// The name of the column for the timing of results, and its place.
    pub column: Option<(String, Span)>,
    /// The place of `bounds`, or else of the window.
    pub bounds_place: Span,
}

/// A section that has been checked: its node, and its outputs.
pub(super) struct Planned {
    pub node: Option<Node>,
    /// The main output first; empty if the section's kind is unknown.
    pub outputs: Vec<PlannedOutput>,
}

pub(super) struct PlannedOutput {
    pub name: String,
    /// `None` after a mistake.
    pub relation: Option<Relation>,
}

pub(super) const UNPLANNED: Planned = Planned {
    node: None,
    outputs: Vec::new(),
};

impl PlannedOutput {
    pub fn new(name: &str, relation: Option<Relation>) -> Self {
        PlannedOutput {
            name: name.to_owned(),
            relation,
        }
    }
}

pub(super) fn operator_plan(
    operator: &OperatorConfig,
    resolved: &Resolved,
) -> Option<OperatorPlan> {
    Some(OperatorPlan {
        name: resolved.name.clone(),
        factory: resolved.factory.clone()?,
        earlier: resolved.earlier.clone(),
        arguments: resolved.arguments.clone(),
        limits: operator.runs.plugin().map(|_| operator.limits),
        on_error: operator.on_error.unwrap_or_default(),
        on_migration_error: operator
            .on_migration_error
            .as_ref()
            .map_or_else(Default::default, |setting| setting.value),
    })
}

/// Makes the section's node, if its inputs and all its outputs are known.
pub(super) fn planned(
    name: &Spanned<String>,
    kind: Option<NodeKind>,
    inputs: Option<Vec<InputPort>>,
    outputs: Vec<PlannedOutput>,
) -> Planned {
    let port = |output: &PlannedOutput| {
        Some(Port {
            name: output.name.clone(),
            schema: Arc::new(output.relation.as_ref()?.schema.clone()),
        })
    };
    let ports: Option<Vec<Port>> = outputs.iter().map(port).collect();
    let node = kind.zip(inputs).zip(ports);
    let node = node.map(|((kind, inputs), outputs)| Node {
        name: name.get_ref().clone(),
        kind,
        inputs,
        outputs,
    });
    Planned { node, outputs }
}

/// What messages call the operator that a section belongs to.
pub(super) fn title_of(operator: &OperatorConfig) -> String {
    format!("operator `{}`", whole_name(operator.name.get_ref()))
}

/// The name of an operator for that of one of its stages; other names have no `.`.
pub(super) fn whole_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(whole, _)| whole)
}
