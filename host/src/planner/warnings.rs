//! Warns about plans that can run but are probably not meant.

use std::collections::{BTreeSet, HashSet};

use crate::config::{Config, Diagnostics, Mistake, Span, Spanned};
use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::logic::Kind;
use crate::plan::{Delivery, EventTime, Node, NodeKind, Plan, StateBackend};
use crate::schema::DataType;

/// Warnings about `plan`, which was built from `config`.
pub fn warnings(config: &Config, plan: &Plan) -> Diagnostics {
    let mut warnings = Diagnostics::new(config.origin.clone());
    let windows = plan.has_timed_windows();
    let edges = plan.nodes.iter().flat_map(Node::edges);
    let read: HashSet<NodeId> = edges.map(|edge| edge.from).collect();
    for (id, (node, table)) in plan.nodes.iter().zip(plan.tables_read()).enumerate() {
        if !read.contains(&id) {
            warn_unread(config, node, &mut warnings);
        }
        warn_of_input(config, node, &mut warnings);
        warn_of_lost_corrections(config, node, table.is_some(), &mut warnings);
        if windows {
            warn_of_ingestion_time(config, node, &mut warnings);
        }
    }
    for plugin in &config.plugins {
        let name = plugin.name.get_ref();
        let mut operators = config.operators.iter();
        if !operators.any(|operator| operator.runs.plugin() == Some(name)) {
            warnings.push(
                Mistake::warning(format!("plugin `{name}` is not used"))
                    .at(plugin.name.span(), "")
                    .help(format!(
                        "an operator runs it by `plugin = \"{name}.OPERATOR\"`"
                    )),
            );
        }
    }
    warn_of_lost_progress(config, plan, &mut warnings);
    if let Some(path) = &config.dead_letters
        && !plan
            .nodes
            .iter()
            .filter_map(Node::on_error)
            .any(OnError::makes_dead_letters)
    {
        warnings.push(
            Mistake::warning("nothing will be written to the dead letters")
                .at(path.span(), "")
                .help("no source or operator has `on_error = \"dead_letter\"`"),
        );
    }
    warnings.sorted()
}

fn warn_unread(config: &Config, node: &Node, warnings: &mut Diagnostics) {
    let role = match node.kind {
        NodeKind::Source(_) => "source",
        NodeKind::Transform(_)
        | NodeKind::Aggregate(_)
        | NodeKind::Process(_)
        | NodeKind::Join(_) => "operator",
        NodeKind::Sink(_) => return,
    };
    let name = &node.name;
    let mut warning = Mistake::warning(format!(
        "no input reads {role} `{name}`: its rows are dropped"
    ))
    .help(format!(
        "give a sink or an operator `input = \"{name}\"`, or remove it"
    ));
    if let Some(place) = place(config, name) {
        warning = warning.at(place, "");
    }
    warnings.push(warning);
}

/// Warns of what a source has noticed in what it will read.
fn warn_of_input(config: &Config, node: &Node, warnings: &mut Diagnostics) {
    let NodeKind::Source(source) = &node.kind else {
        return;
    };
    for noticed in source.connector.warnings() {
        let mut warning = Mistake::warning(format!("source `{}`: {noticed}", node.name)).help(
            "name the field as the header does, or give the header's name in `names`; if files \
             need not have the column, all is well",
        );
        if let Some(place) = place(config, &node.name) {
            warning = warning.at(place, "");
        }
        warnings.push(warning);
    }
}

/// Warns of results that replace others where that gets lost.
fn warn_of_lost_corrections(
    config: &Config,
    node: &Node,
    reads_table: bool,
    warnings: &mut Diagnostics,
) {
    let name = &node.name;
    let (what, help) = match &node.kind {
        NodeKind::Transform(transform)
            if transform.operator.factory.info().kind == Kind::Filter && reads_table =>
        {
            (
                format!(
                    "operator `{name}` filters results that are corrected: where it drops a \
                     correction, the result before it stands"
                ),
                "filter before the aggregate, or have the aggregate emit final results only \
                 (`emit = \"final\"`)",
            )
        }
        NodeKind::Aggregate(aggregate)
            if aggregate.corrects() && aggregate.result_key().is_none() =>
        {
            (
                format!(
                    "operator `{name}` corrects its results, and has no bounds that tell which one a \
                 later result replaces"
                ),
                "remove `bounds = false`, or write `emit = \"final\"`",
            )
        }
        _ => return,
    };
    let mut warning = Mistake::warning(what).help(help);
    if let Some(place) = place(config, name) {
        warning = warning.at(place, "");
    }
    warnings.push(warning);
}

/// Warns of a source that has a timestamp and does not use it: its windows
/// depend on when rows are read, so results differ from run to run.
fn warn_of_ingestion_time(config: &Config, node: &Node, warnings: &mut Diagnostics) {
    let NodeKind::Source(source) = &node.kind else {
        return;
    };
    let mut fields = node.schema().fields.iter();
    let time = fields.find(|field| field.data_type == DataType::Timestamp && !field.nullable);
    if let (EventTime::Ingestion, Some(time)) = (&source.event_time, time) {
        let name = &node.name;
        let mut warning = Mistake::warning(format!(
            "source `{name}` has no `event_time`: the event time of its rows is when they are read"
        ))
        .help(format!(
            "if `{}` is when they happened, add `event_time = \"{}\"`",
            time.name, time.name
        ));
        if let Some(place) = place(config, name) {
            warning = warning.at(place, "");
        }
        warnings.push(warning);
    }
}

/// Warns of checkpoints in memory with a Kafka transaction: after the process
/// ends, the topic has committed rows that no checkpoint knows of.
fn warn_of_lost_progress(config: &Config, plan: &Plan, warnings: &mut Diagnostics) {
    let Some(state) = &plan.state else { return };
    let sinks = config.sinks.iter();
    let transactions = sinks.filter_map(|sink| sink.settings.transaction());
    let systems: BTreeSet<&str> = transactions.map(|transaction| transaction.system).collect();
    if systems.is_empty() {
        return;
    }
    if state.delivery != Delivery::ExactlyOnce || !matches!(state.backend, StateBackend::Memory) {
        return;
    }
    let mut warning = Mistake::warning(format!(
        "the pipeline cannot be restored after its process has ended: its checkpoints are in memory, \
         and its {} sinks are committed with them",
        Vec::from_iter(systems).join(" and ")
    ))
    .help(
        "keep them in a folder (`backend = \"rocksdb\"`), or write `delivery = \
         \"at_least_once\"` in [checkpoints]",
    );
    let backend = config
        .state
        .as_ref()
        .and_then(|state| state.backend.as_ref());
    if let Some(backend) = backend {
        warning = warning.at(backend.span(), "");
    }
    warnings.push(warning);
}

fn place(config: &Config, name: &str) -> Option<Span> {
    let sources = config.sources.iter().map(|source| &source.name);
    let operators = config.operators.iter().map(|operator| &operator.name);
    let mut names = sources.chain(operators);
    names
        .find(|written| written.get_ref() == name)
        .map(Spanned::span)
}
