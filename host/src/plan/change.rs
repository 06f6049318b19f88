//! Compares two plans of a pipeline node by node, and decides whether each
//! node's state can be kept.
//!
//! Nodes are matched by name, and the tables of their state by role. The plans
//! are compared as descriptions, which checkpoints keep of the plan that made
//! them.

use serde::{Deserialize, Serialize};

use super::{
    AggregatePlan, Emit, EventTime, InputPort, JoinRule, Node, NodeKind, OperatorPlan, Plan,
    SourcePlan, Window,
};
use crate::connector::{Description, REPLAY};
use crate::logic::Factory;
use crate::process::tables as process_tables;
use crate::quantity::show_ms;
use crate::schema::Schema;
use crate::state::spec::{FieldChange, TableSpec, field_texts, listed};
use crate::window::tables::tables;

/// A node as data that can be stored and compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    pub name: String,
    pub class: NodeClass,
    /// The outputs that it reads, as inputs name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The port of each input, where the node has several ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The fields of its main output, or of a sink's input, as `name: type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorDescription>,
    /// Of a source or a sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorDescription>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinRule>,
    /// How long a running aggregate keeps a key's state, for people, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Whether its windows fire when they end, or when they are final.
    #[serde(default, skip_serializing_if = "Emit::is_change")]
    pub emit: Emit,
    /// The tables of its keyed state, each with its own role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableSpec>,
    /// The fields of the states of earlier versions that its plugin can migrate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeClass {
    Source,
    #[default]
    Transform,
    Aggregate,
    Process,
    Join,
    Sink,
}

/// A plugin's operator, with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorDescription {
    /// `plugin.operator`.
    pub name: String,
    /// The digest of the plugin's bytes.
    pub digest: String,
    /// Its arguments, as `name = value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

/// What a source reads, or a sink writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectorDescription {
    /// As in `type`.
    pub kind: String,
    /// As in `format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where a sink's rows are, if they are kept together from one run to the
    /// next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The columns of all rows there, as `name: type`, where it is a table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Of a source: how its rows get their event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
}

/// How a node and its state change.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChange {
    pub name: String,
    pub class: NodeClass,
    pub kind: ChangeKind,
    pub state: StateChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChangeKind {
    Kept,
    /// At least one thing differs.
    Changed(Vec<FieldChange>),
    Added,
    Removed,
}

/// What happens to a node's state: the keyed state of an operator, the offsets of
/// a source, the rows of a sink that keeps them together.
#[derive(Clone, Debug, PartialEq)]
pub enum StateChange {
    /// It has no state, before or after.
    Stateless,
    /// It starts without state.
    New,
    /// It keeps its state.
    Kept,
    /// Its plugin makes of its states those of now, for this reason.
    Migrated(String),
    /// It cannot keep its state, for this reason.
    Incompatible(String),
    /// The node that had the state is gone.
    Gone,
}

/// Describes the nodes of a plan, in its order.
pub fn describe(plan: &Plan) -> Vec<NodeDescription> {
    let describe = |node: &Node| {
        let mut described = NodeDescription {
            name: node.name.clone(),
            inputs: node.edges().map(|edge| plan.output_name(edge)).collect(),
            ports: ports(node),
            output: field_texts(node.schema()),
            ..NodeDescription::default()
        };
        match &node.kind {
            NodeKind::Source(source) => {
                described.class = NodeClass::Source;
                let mut connector = connector(source.connector.describe());
                connector.event_time = Some(event_time(plan, source, node.schema()));
                described.connector = Some(connector);
            }
            NodeKind::Sink(sink) => {
                described.class = NodeClass::Sink;
                let description = sink.connector.describe();
                let has_columns = description.has_columns;
                let mut connector = connector(description);
                if has_columns {
                    connector.columns.clone_from(&described.output);
                }
                described.connector = Some(connector);
            }
            NodeKind::Transform(transform) => {
                described.class = NodeClass::Transform;
                described.operator = Some(operator(&transform.operator));
            }
            NodeKind::Aggregate(aggregate) => describe_aggregate(aggregate, &mut described),
            NodeKind::Process(process) => {
                described.class = NodeClass::Process;
                described.operator = Some(operator(&process.operator));
                described.earlier = earlier(&process.operator);
                described.ttl = process.ttl_ms.map(show_ms);
                described.tables = process_tables::tables(process);
            }
            NodeKind::Join(join) => {
                described.class = NodeClass::Join;
                described.join = Some(join.rule);
                described.tables = crate::join::tables::tables(join);
            }
        }
        described
    };
    plan.nodes.iter().map(describe).collect()
}

/// The port of each input, where a node has several ports.
fn ports(node: &Node) -> Vec<String> {
    let of_port = |input: &InputPort| vec![input.name.clone(); input.edges.len()];
    match node.inputs.as_slice() {
        [] | [_] => Vec::new(),
        ports => ports.iter().flat_map(of_port).collect(),
    }
}

fn describe_aggregate(plan: &AggregatePlan, described: &mut NodeDescription) {
    described.class = NodeClass::Aggregate;
    described.operator = Some(operator(&plan.operator));
    described.earlier = earlier(&plan.operator);
    described.window = Some(plan.window);
    described.ttl = plan.ttl_ms.map(show_ms);
    described.emit = plan.emit;
    described.tables = tables(plan);
}

fn connector(description: Description) -> ConnectorDescription {
    ConnectorDescription {
        kind: description.connector.to_owned(),
        format: description.format.map(str::to_owned),
        place: description.place,
        columns: Vec::new(),
        event_time: None,
    }
}

/// How rows of a source get their event time, for people, too.
fn event_time(plan: &Plan, source: &SourcePlan, schema: &Schema) -> String {
    match &source.event_time {
        EventTime::Field(field) => format!("column {}", field.name(schema)),
        EventTime::Ingestion => "the time when a row is read".to_owned(),
        EventTime::Given(given) => given.what().to_owned(),
        EventTime::Operator(id) => {
            let operator = &plan.nodes[*id];
            let column = plan.operator_time(*id).unwrap_or_default();
            format!("column {column} of operator {}", operator.name)
        }
    }
}

fn operator(plan: &OperatorPlan) -> OperatorDescription {
    let arguments = plan.arguments.iter();
    OperatorDescription {
        name: plan.name.clone(),
        digest: plan.factory.digest().to_owned(),
        arguments: arguments
            .map(|(name, value)| format!("{name} = {value}"))
            .collect(),
    }
}

/// The fields of the states that a plugin can migrate.
fn earlier(plan: &OperatorPlan) -> Vec<Vec<String>> {
    let migrations = plan.earlier.iter();
    migrations
        .map(|migration| field_texts(earlier_state(&**migration)))
        .collect()
}

/// The state that a migration takes.
pub fn earlier_state(migration: &dyn Factory) -> &Schema {
    &migration.info().inputs[0].schema
}

/// An output that an operator does not have any more.
pub struct GoneOutput<'a> {
    pub operator: &'a str,
    pub output: &'a str,
    /// The nodes that read it.
    pub readers: Vec<&'a str>,
}

/// The outputs that were read then, of operators that are still there, without them.
pub fn gone_outputs<'a>(then: &'a [NodeDescription], now: &Plan) -> Vec<GoneOutput<'a>> {
    let mut gone: Vec<GoneOutput<'_>> = Vec::new();
    for reader in then {
        for input in &reader.inputs {
            let (operator, Some(output)) = node_and_output(input, |name| named(then, name)) else {
                continue;
            };
            if is_gone(operator, output, now) {
                note_gone(&mut gone, operator, output, &reader.name);
            }
        }
    }
    gone
}

/// Whether an operator is there without this output.
fn is_gone(operator: &str, output: &str, now: &Plan) -> bool {
    let node = |name: &str| now.nodes.iter().find(|node| node.name == name);
    // The output may be a node of its own now, as stages of an operator are.
    node(&format!("{operator}.{output}")).is_none()
        && node(operator).is_some_and(|node| node.outputs.iter().all(|port| port.name != output))
}

fn note_gone<'a>(
    gone: &mut Vec<GoneOutput<'a>>,
    operator: &'a str,
    output: &'a str,
    reader: &'a str,
) {
    let known = |gone: &&mut GoneOutput<'_>| (gone.operator, gone.output) == (operator, output);
    match gone.iter_mut().find(known) {
        Some(known) if known.readers.last() == Some(&reader) => {}
        Some(known) => known.readers.push(reader),
        None => gone.push(GoneOutput {
            operator,
            output,
            readers: vec![reader],
        }),
    }
}

/// Splits `node` or `node.output`, where names of nodes have dots as well: the node is the
/// one with the longest name. An input of no node that `find` knows is its name as a whole.
fn node_and_output<T>(input: &str, find: impl Fn(&str) -> Option<T>) -> (&str, Option<&str>) {
    if find(input).is_some() {
        return (input, None);
    }
    let mut dots = input.rmatch_indices('.').map(|(dot, _)| dot);
    match dots.find(|&dot| find(&input[..dot]).is_some()) {
        Some(dot) => (&input[..dot], Some(&input[dot + 1..])),
        None => (input, None),
    }
}

/// Compares plans: the nodes of `now` in its order, then those that only `then`
/// has.
pub fn changes(then: &[NodeDescription], now: &[NodeDescription]) -> Vec<NodeChange> {
    let mut changes = Vec::with_capacity(now.len());
    for node in now {
        let before = named(then, &node.name);
        changes.push(NodeChange {
            name: node.name.clone(),
            class: node.class,
            kind: match before {
                Some(before) => change_kind(before, node),
                None => ChangeKind::Added,
            },
            state: state(before, Some(node)),
        });
    }
    for node in then.iter().filter(|node| named(now, &node.name).is_none()) {
        changes.push(NodeChange {
            name: node.name.clone(),
            class: node.class,
            kind: ChangeKind::Removed,
            state: state(Some(node), None),
        });
    }
    changes
}

fn named<'a>(nodes: &'a [NodeDescription], name: &str) -> Option<&'a NodeDescription> {
    nodes.iter().find(|node| node.name == name)
}

fn change_kind(then: &NodeDescription, now: &NodeDescription) -> ChangeKind {
    let operator = |node: &NodeDescription| node.operator.clone().unwrap_or_default();
    let window = |node: &NodeDescription| {
        node.window
            .map(|window| window.to_string())
            .unwrap_or_default()
    };
    let join = |node: &NodeDescription| node.join.map(|join| join.to_string()).unwrap_or_default();
    let ttl = |node: &NodeDescription| node.ttl.clone().unwrap_or_else(|| "for ever".to_owned());
    let (operator_then, operator_now) = (operator(then), operator(now));
    let pairs = [
        (
            "class",
            then.class.name().to_owned(),
            now.class.name().to_owned(),
        ),
        (
            "input",
            listed(&then.named_inputs()),
            listed(&now.named_inputs()),
        ),
        ("output", listed(&then.output), listed(&now.output)),
        ("operator", operator_then.name, operator_now.name),
        (
            "plugin",
            short(&operator_then.digest),
            short(&operator_now.digest),
        ),
        (
            "parameters",
            listed(&operator_then.arguments),
            listed(&operator_now.arguments),
        ),
        ("window", window(then), window(now)),
        ("join", join(then), join(now)),
        ("ttl", ttl(then), ttl(now)),
    ];
    let changed: Vec<FieldChange> = pairs
        .into_iter()
        .filter_map(|(field, then, now)| FieldChange::between(field, then, now))
        .collect();
    match changed.is_empty() {
        true => ChangeKind::Kept,
        false => ChangeKind::Changed(changed),
    }
}

/// As much of a digest as tells it from others.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn state(then: Option<&NodeDescription>, now: Option<&NodeDescription>) -> StateChange {
    let stateful = |node: Option<&NodeDescription>| node.is_some_and(NodeDescription::is_stateful);
    match (then, now) {
        (Some(then), Some(now)) if then.is_stateful() && now.is_stateful() => {
            match difference(then, now) {
                Some(why) if difference(&then.migrated_for(now), now).is_none() => {
                    StateChange::Migrated(why)
                }
                Some(why) => StateChange::Incompatible(why),
                None => StateChange::Kept,
            }
        }
        _ if stateful(then) => StateChange::Gone,
        _ if stateful(now) => StateChange::New,
        _ => StateChange::Stateless,
    }
}

impl NodeClass {
    /// What a node is in the pipeline's file.
    pub fn role(self) -> &'static str {
        match self {
            NodeClass::Source => "source",
            NodeClass::Transform | NodeClass::Aggregate | NodeClass::Process | NodeClass::Join => {
                "operator"
            }
            NodeClass::Sink => "sink",
        }
    }
}

impl NodeDescription {
    /// The nodes that it reads, of those that `find` knows by their names.
    pub fn upstream<T>(&self, find: impl Fn(&str) -> Option<T>) -> impl Iterator<Item = T> {
        let node = move |input: &String| find(node_and_output(input, &find).0);
        self.inputs.iter().filter_map(node)
    }

    /// Its inputs for people: with the port, where there are several.
    fn named_inputs(&self) -> Vec<String> {
        let mut ports = self.ports.iter();
        let named = |input: &String| match ports.next() {
            Some(port) => format!("{port} from {input}"),
            None => input.clone(),
        };
        self.inputs.iter().map(named).collect()
    }

    /// The node as it is when the plugin of `now` has migrated the states that it can.
    fn migrated_for(&self, now: &NodeDescription) -> NodeDescription {
        let mut migrated = self.clone();
        for table in &mut migrated.tables {
            let other = now.tables.iter().find(|other| other.role == table.role);
            if let Some(other) = other
                && now.earlier.contains(&table.state)
            {
                table.state.clone_from(&other.state);
            }
        }
        migrated
    }

    /// Whether a checkpoint has something of the node that must not get lost.
    pub fn is_stateful(&self) -> bool {
        match self.class {
            // Where it has come to is known elsewhere when it is gone.
            NodeClass::Source => self.connector.as_ref().is_none_or(|it| it.kind != REPLAY),
            NodeClass::Sink => self.connector.as_ref().is_some_and(|it| it.place.is_some()),
            NodeClass::Transform | NodeClass::Aggregate | NodeClass::Process | NodeClass::Join => {
                !self.tables.is_empty()
            }
        }
    }
}

/// Why a source or sink cannot go on from what a checkpoint has of it, if it
/// cannot.
fn connector_difference(then: &NodeDescription, now: &NodeDescription) -> Option<String> {
    let (then, now) = (then.connector.as_ref()?, now.connector.as_ref()?);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    FieldChange::between("type", then.kind.clone(), now.kind.clone())
        .or_else(|| FieldChange::between("file", text(&then.place), text(&now.place)))
        .or_else(|| FieldChange::between("format", text(&then.format), text(&now.format)))
        .or_else(|| FieldChange::between("columns", listed(&then.columns), listed(&now.columns)))
        .or_else(|| {
            let time = |node: &ConnectorDescription| text(&node.event_time);
            FieldChange::between("event time", time(then), time(now))
        })
        .map(|change| change.to_string())
}

/// Why a node cannot keep its state, if it cannot.
fn difference(then: &NodeDescription, now: &NodeDescription) -> Option<String> {
    if then.class != now.class {
        return Some(format!(
            "it was a {} and is now a {}",
            then.class.name(),
            now.class.name()
        ));
    }
    if let Some(why) = connector_difference(then, now) {
        return Some(why);
    }
    let join = |join: Option<JoinRule>| join.map_or("none".to_owned(), |join| join.to_string());
    // The rule explains more than the tables that it needs.
    if let Some(why) = FieldChange::between("join", join(then.join), join(now.join)) {
        return Some(why.to_string());
    }
    for table in &then.tables {
        match now.tables.iter().find(|other| other.role == table.role) {
            Some(other) => {
                // The kind of window explains more than the row format.
                let mut other = other.clone();
                if then.window != now.window {
                    other.rows = table.rows.clone();
                }
                if let Some(why) = table.difference(&other) {
                    return Some(why);
                }
            }
            None => return Some(format!("it has no table `{}` any more", table.role)),
        }
    }
    let is_new = |table: &&TableSpec| !then.tables.iter().any(|known| known.role == table.role);
    if let Some(new) = now.tables.iter().find(is_new) {
        return Some(format!("its table `{}` is new", new.role));
    }
    let window =
        |window: Option<Window>| window.map_or("none".to_owned(), |window| window.to_string());
    let emit = |node: &NodeDescription| node.emit.name().to_owned();
    FieldChange::between("window", window(then.window), window(now.window))
        .or_else(|| FieldChange::between("emit", emit(then), emit(now)))
        .map(|change| change.to_string())
}

impl NodeClass {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            NodeClass::Source => "source",
            NodeClass::Transform => "transform",
            NodeClass::Aggregate => "aggregate",
            NodeClass::Process => "process",
            NodeClass::Join => "join",
            NodeClass::Sink => "sink",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::plan::{Alignment, JoinKind, Matching, TimeDomain};
    use crate::state::spec::RowKind;

    fn minutes(minutes: i64) -> Window {
        Window::Tumbling {
            size_ms: minutes * 60_000,
            time: TimeDomain::Event,
            alignment: Alignment::default(),
        }
    }

    fn aggregate() -> NodeDescription {
        NodeDescription {
            name: "added".to_owned(),
            class: NodeClass::Aggregate,
            inputs: vec!["actions".to_owned()],
            ports: Vec::new(),
            output: vec!["total: float64".to_owned()],
            operator: Some(OperatorDescription {
                name: "cart.added".to_owned(),
                digest: "sha256:1".to_owned(),
                arguments: Vec::new(),
            }),
            connector: None,
            window: Some(minutes(1)),
            join: None,
            ttl: None,
            emit: Emit::Change,
            tables: vec![TableSpec {
                role: "windows".to_owned(),
                key: vec!["user: utf8".to_owned()],
                state: vec!["sum: int64".to_owned()],
                rows: RowKind {
                    kind: "tumbling".to_owned(),
                    version: 1,
                },
            }],
            earlier: Vec::new(),
        }
    }

    fn stateless(name: &str, class: NodeClass) -> NodeDescription {
        NodeDescription {
            name: name.to_owned(),
            class,
            ..NodeDescription::default()
        }
    }

    /// Applies a change to the one node, and compares.
    fn change(change: impl FnOnce(&mut NodeDescription)) -> (ChangeKind, StateChange) {
        let mut now = aggregate();
        change(&mut now);
        let changes = changes(&[aggregate()], &[now]);
        assert_eq!(changes.len(), 1);
        (changes[0].kind.clone(), changes[0].state.clone())
    }

    fn incompatible(edit: impl FnOnce(&mut NodeDescription)) -> String {
        match change(edit) {
            (_, StateChange::Incompatible(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_input_is_of_the_node_with_the_longest_name() {
        let nodes = ["suggested", "suggested.requests", "billed.wanted", "read"];
        let node = |input| node_and_output(input, |name| nodes.contains(&name).then_some(()));
        assert_eq!(node("read"), ("read", None));
        assert_eq!(node("read.late"), ("read", Some("late")));
        assert_eq!(node("suggested.requests"), ("suggested.requests", None));
        let late = ("suggested.requests", Some("late"));
        assert_eq!(node("suggested.requests.late"), late);
        assert_eq!(node("billed.wanted.keys"), ("billed.wanted", Some("keys")));
        assert_eq!(node("billed.other"), ("billed.other", None));
        let reader = NodeDescription {
            inputs: ["read.late", "suggested.requests", "gone"]
                .map(str::to_owned)
                .to_vec(),
            ..stateless("reader", NodeClass::Sink)
        };
        let place = |name: &str| nodes.iter().position(|node| *node == name);
        assert_eq!(reader.upstream(place).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn what_is_the_same_is_kept() {
        assert_eq!(change(|_| {}), (ChangeKind::Kept, StateChange::Kept));
    }

    #[test]
    fn another_plugin_or_argument_keeps_the_state() {
        let (kind, state) = change(|now| {
            let operator = now.operator.as_mut().expect("it has one");
            operator.digest = "sha256:2".to_owned();
            operator.arguments = vec!["least = 3".to_owned()];
        });
        let ChangeKind::Changed(fields) = kind else {
            panic!("{kind:?}");
        };
        let said: Vec<String> = fields.iter().map(FieldChange::to_string).collect();
        assert_eq!(
            said,
            [
                "its plugin was sha256:1 and is now sha256:2",
                "its parameters were empty and are now least = 3"
            ]
        );
        assert_eq!(state, StateChange::Kept);
    }

    #[test]
    fn another_key_state_or_window_is_incompatible_and_named() {
        assert_eq!(
            incompatible(|now| now.tables[0].key.clear()),
            "its key was user: utf8 and is now empty"
        );
        assert_eq!(
            incompatible(|now| now.tables[0].state = vec!["sum: float64".to_owned()]),
            "its state was sum: int64 and is now sum: float64"
        );
        let window = incompatible(|now| now.window = Some(minutes(2)));
        assert_eq!(
            window,
            format!("its window was {} and is now {}", minutes(1), minutes(2))
        );
        assert_eq!(
            incompatible(|now| now.tables[0].rows.version = 2),
            "its layout of rows was tumbling 1 and is now tumbling 2"
        );
        let running = incompatible(|now| {
            now.window = Some(Window::Running);
            now.tables[0].rows.kind = "running".to_owned();
        });
        assert!(running.starts_with("its window was tumbling"), "{running}");
    }

    #[test]
    fn a_state_that_the_plugin_can_migrate_is_migrated() {
        let total = |now: &mut NodeDescription| {
            now.tables[0].state = vec!["sum: int64".to_owned(), "highest: int64?".to_owned()];
            now.earlier = vec![
                vec!["count: int64".to_owned()],
                vec!["sum: int64".to_owned()],
            ];
        };
        let (_, state) = change(total);
        let why = "its state was sum: int64 and is now sum: int64, highest: int64?";
        assert_eq!(state, StateChange::Migrated(why.to_owned()));
        // Nothing else may differ.
        let why = incompatible(|now| {
            total(now);
            now.window = Some(minutes(2));
        });
        assert!(why.starts_with("its state was"), "{why}");
        let other = incompatible(|now| {
            total(now);
            now.earlier.pop();
        });
        assert!(other.starts_with("its state was"), "{other}");
    }

    #[test]
    fn another_rule_of_a_join_is_incompatible_and_named() {
        let interval = |kind, before_ms, after_ms| JoinRule {
            kind,
            matching: Matching::Interval {
                before_ms,
                after_ms,
            },
        };
        let join = |rule| NodeDescription {
            join: Some(rule),
            class: NodeClass::Join,
            operator: None,
            window: None,
            ..aggregate()
        };
        let then = join(interval(JoinKind::Inner, Some(300_000), Some(60_000)));
        let state = |now: JoinRule| {
            let changes = changes(slice::from_ref(&then), &[join(now)]);
            changes[0].state.clone()
        };
        let same = interval(JoinKind::Inner, Some(300_000), Some(60_000));
        assert_eq!(state(same), StateChange::Kept);
        let longer = interval(JoinKind::Inner, None, Some(60_000));
        let StateChange::Incompatible(why) = state(longer) else {
            panic!("rows that it needs are gone");
        };
        assert_eq!(
            why,
            "its join was inner join, right rows from 5m before to 1m after the left one and is \
             now inner join, right rows from any time before to 1m after the left one"
        );
        let outer = interval(JoinKind::Left, Some(300_000), Some(60_000));
        assert!(matches!(state(outer), StateChange::Incompatible(_)));
    }

    fn sink(kind: &str, format: &str, place: Option<&str>) -> NodeDescription {
        NodeDescription {
            connector: Some(ConnectorDescription {
                kind: kind.to_owned(),
                format: Some(format.to_owned()),
                place: place.map(str::to_owned),
                columns: Vec::new(),
                event_time: None,
            }),
            ..stateless("out", NodeClass::Sink)
        }
    }

    #[test]
    fn a_sink_that_keeps_rows_keeps_them_at_one_place_in_one_format() {
        let then = sink("file", "json", Some("out.jsonl"));
        let state =
            |now: &[NodeDescription]| changes(slice::from_ref(&then), now).pop().map(|c| c.state);
        let why = |now| match state(&[now]) {
            Some(StateChange::Incompatible(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(state(slice::from_ref(&then)), Some(StateChange::Kept));
        assert_eq!(
            why(sink("file", "json", Some("other.jsonl"))),
            "its file was out.jsonl and is now other.jsonl"
        );
        assert_eq!(
            why(sink("file", "csv", Some("out.jsonl"))),
            "its format was json and is now csv"
        );
        let topic = sink("kafka", "json", None);
        assert_eq!(state(slice::from_ref(&topic)), Some(StateChange::Gone));
        assert_eq!(state(&[]), Some(StateChange::Gone));
        let topics = changes(&[topic], &[sink("kafka", "json", None)]);
        assert_eq!(topics[0].state, StateChange::Stateless);
    }

    #[test]
    fn tables_are_found_by_role() {
        let second = |now: &mut NodeDescription| {
            let mut table = now.tables[0].clone();
            table.role = "timers".to_owned();
            now.tables.insert(0, table);
        };
        assert_eq!(incompatible(second), "its table `timers` is new");
        let renamed = incompatible(|now| now.tables[0].role = "left".to_owned());
        assert_eq!(renamed, "it has no table `windows` any more");
    }

    #[test]
    fn added_and_removed_nodes_are_reported() {
        let then = [
            stateless("old", NodeClass::Transform),
            stateless("read", NodeClass::Source),
            aggregate(),
        ];
        let mut renamed = aggregate();
        renamed.name = "summed".to_owned();
        let now = [stateless("new", NodeClass::Sink), renamed];
        let said: Vec<_> = changes(&then, &now)
            .into_iter()
            .map(|change| (change.name, change.kind, change.state))
            .collect();
        assert_eq!(
            said,
            [
                ("new".to_owned(), ChangeKind::Added, StateChange::Stateless),
                ("summed".to_owned(), ChangeKind::Added, StateChange::New),
                (
                    "old".to_owned(),
                    ChangeKind::Removed,
                    StateChange::Stateless
                ),
                ("read".to_owned(), ChangeKind::Removed, StateChange::Gone),
                ("added".to_owned(), ChangeKind::Removed, StateChange::Gone),
            ]
        );
    }

    #[test]
    fn a_node_that_lost_its_state_is_changed() {
        let then = [aggregate()];
        let now = [stateless("added", NodeClass::Transform)];
        let changes = changes(&then, &now);
        assert!(
            matches!(&changes[0].kind, ChangeKind::Changed(fields) if fields[0].field == "class")
        );
        assert_eq!(changes[0].state, StateChange::Gone);
    }
}
