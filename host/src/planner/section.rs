//! What the checks have found out of a section of the config.

use std::sync::Arc;

use super::columns::Relation;
use crate::config::Span;
use crate::logic::{Factory, OperatorInfo};
use crate::plan::{Arguments, Bounds, Edge, Node, NodeKind, Window};
use crate::schema::Schema;

/// An operator's section with what its plugin says of it.
pub(super) struct Resolved {
    pub info: OperatorInfo,
    /// Of its one input.
    pub input: Arc<Schema>,
    /// Of its one output. A filter's has no fields: its rows go on as they came.
    pub output: Arc<Schema>,
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
    pub main: Option<Relation>,
    pub late: Option<Relation>,
}

pub(super) const NOTHING: Planned = Planned {
    node: None,
    main: None,
    late: None,
};

pub(super) fn node(name: String, kind: NodeKind, inputs: Vec<Edge>, output: &Relation) -> Node {
    Node {
        name,
        kind,
        inputs,
        output: Arc::new(output.schema.clone()),
    }
}
