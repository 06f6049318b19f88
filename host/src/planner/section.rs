//! What the checks have found out of a section of the config.

use std::sync::Arc;

use super::columns::Relation;
use crate::config::{Span, Spanned};
use crate::logic::{Factory, OperatorInfo, Port};
use crate::plan::{Arguments, Bounds, Edge, InputPort, Node, NodeKind, Window};
use crate::schema::Schema;

/// An operator's section with what its plugin says of it.
pub(super) struct Resolved {
    pub info: OperatorInfo,
    /// Its one input.
    pub input: Port,
    /// Its one output. A filter's has no fields: its rows go on as they came.
    pub output: Port,
    pub arguments: Arguments,
    /// Absent when there is a mistake in the parameters.
    pub factory: Option<Arc<dyn Factory>>,
    /// Aggregates only; absent when there is a mistake in it.
    pub timing: Option<Timing>,
}

/// An aggregate's window and what goes with it.
pub(super) struct Timing {
    pub window: Window,
    pub allowed_lateness_ms: i64,
    pub early_every_ms: Option<u64>,
    pub ttl_ms: Option<i64>,
    pub bounds: Option<Bounds>,
    /// Where the bounds are named, or the window that they are of.
    pub bounds_place: Span,
}

/// A planned section and what its outputs carry.
pub(super) struct Planned {
    pub node: Option<Node>,
    /// The main one first. None where it is not known what the section is.
    pub outputs: Vec<Output>,
}

pub(super) struct Output {
    pub name: String,
    /// Absent after a mistake.
    pub relation: Option<Relation>,
}

pub(super) const NOTHING: Planned = Planned {
    node: None,
    outputs: Vec::new(),
};

impl Output {
    pub fn new(name: &str, relation: Option<Relation>) -> Self {
        Output {
            name: name.to_owned(),
            relation,
        }
    }
}

/// A port that rows of this schema come into.
pub(super) fn input(name: &str, schema: &Schema, edges: Vec<Edge>) -> InputPort {
    InputPort {
        name: name.to_owned(),
        schema: Arc::new(schema.clone()),
        edges,
    }
}

/// The section's node, if what it needs and all that it puts out is known.
pub(super) fn planned(
    name: &Spanned<String>,
    kind: Option<NodeKind>,
    inputs: Option<Vec<InputPort>>,
    outputs: Vec<Output>,
) -> Planned {
    let port = |output: &Output| {
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
