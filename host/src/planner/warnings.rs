//! Warns about plans that can run but are probably not meant.

use std::collections::{BTreeSet, HashSet};

use crate::config::{Config, Diagnostics, Mistake, Span, Spanned};
use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::format::Format;
use crate::logic::Kind;
use crate::plan::{Delivery, EventTime, Node, NodeKind, Plan, StateBackend};
use crate::schema::{DataType, Field};

/// Warnings about `plan`, which was built from `config`.
pub fn warnings(config: &Config, plan: &Plan) -> Diagnostics {
    let mut warnings = Diagnostics::new(config.origin.clone());
    let windowed = before_windows(plan);
    let edges = plan.nodes.iter().flat_map(Node::edges);
    let read: HashSet<NodeId> = edges.map(|edge| edge.from).collect();
    for (id, (node, table)) in plan.nodes.iter().zip(plan.tables_read()).enumerate() {
        if !read.contains(&id) {
            warn_unread(config, node, &mut warnings);
        }
        warn_of_input(config, node, &mut warnings);
        warn_of_rows_not_whole(config, node, &mut warnings);
        warn_of_lost_corrections(config, node, table.is_some(), &mut warnings);
        if windowed[id] {
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

/// By node, whether its rows come to windows of event time.
fn before_windows(plan: &Plan) -> Vec<bool> {
    let mut are_before = vec![false; plan.nodes.len()];
    // Nodes come after those that they read.
    for (id, node) in plan.nodes.iter().enumerate().rev() {
        if are_before[id] || node.has_timed_windows() {
            node.edges().for_each(|edge| are_before[edge.from] = true);
        }
    }
    are_before
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
        let what = format!("source `{}`: {}", node.name, noticed.what);
        let mut warning = Mistake::warning(what).help(noticed.help);
        if let Some(place) = place(config, &node.name) {
            warning = warning.at(place, "");
        }
        warnings.push(warning);
    }
}

/// Warns of a source that takes back rows as the database tells them: mostly it shows where
/// they are not whole, but not where PostgreSQL has the default of a column instead.
fn warn_of_rows_not_whole(config: &Config, node: &Node, warnings: &mut Diagnostics) {
    let NodeKind::Source(source) = &node.kind else {
        return;
    };
    let format = source.connector.row_format();
    match &format.format {
        Format::Debezium(debezium) if debezium.changes.key.is_none() => {}
        _ => return,
    }
    if format.tells_whole_rows {
        return;
    }
    let mut warning = Mistake::warning(format!(
        "source `{}` takes back what is gone as the database tells it, and PostgreSQL tells \
         whole rows only if it is asked to",
        node.name
    ))
    .help(
        "there, `ALTER TABLE … REPLICA IDENTITY FULL` asks for it; `debezium = { replica_identity \
         = \"full\" }` says that rows are whole, as those of MySQL and others are; or name the \
         table's key: `debezium = { key = … }`",
    );
    if let Some(place) = place(config, &node.name) {
        warning = warning.at(place, "");
    }
    warnings.push(warning);
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

/// Warns of a source that seems to have event times and does not use them: its windows
/// depend on when rows are read, so results differ from run to run. And of one that may be
/// quiet for as long as its senders like: meanwhile no window fires.
fn warn_of_ingestion_time(config: &Config, node: &Node, warnings: &mut Diagnostics) {
    let NodeKind::Source(source) = &node.kind else {
        return;
    };
    if !matches!(source.event_time, EventTime::Ingestion) {
        return;
    }
    let name = &node.name;
    let likely = likely_time(&node.schema().fields);
    let mut what = format!(
        "source `{name}` has no `event_time`: the event time of its rows is when they are read"
    );
    let is_live = source.connector.may_be_quiet();
    if is_live {
        what += ", so that a window fires when more rows come, and not while none do";
    }
    let by_clock = "for windows that go by the clock, add `time = \"processing\"` to the `window`";
    let help = match likely {
        None if is_live => by_clock.to_owned(),
        None => return,
        Some(Likely {
            name,
            field,
            is_optional,
        }) => {
            let declared = match (is_optional, &field.data_type) {
                (true, _) => format!(
                    ", and declare it without `?`{}",
                    match name.contains('.') {
                        true => ", with the records around it",
                        false => "",
                    }
                ),
                (false, DataType::Int64) => {
                    " (its numbers are taken for ms; `timestamp(s)` reads seconds)".to_owned()
                }
                (false, _) => String::new(),
            };
            let add = format!(
                "if `{name}` is when they happened, add `event_time = \"{name}\"`{declared}"
            );
            match is_live {
                true => format!("{add}; {by_clock}"),
                false => add,
            }
        }
    };
    let mut warning = Mistake::warning(what).help(help);
    if let Some(place) = place(config, name) {
        warning = warning.at(place, "");
    }
    warnings.push(warning);
}

/// A field that is probably the event time.
struct Likely<'a> {
    /// As `event_time` names it.
    name: String,
    field: &'a Field,
    /// Whether it, or a record around it, may be missing.
    is_optional: bool,
}

/// The likeliest event time: a timestamp that every row has, before one that a row may lack,
/// before a number that is called like a time.
fn likely_time(fields: &[Field]) -> Option<Likely<'_>> {
    let mut found = Vec::new();
    add_times(fields, "", false, &mut found);
    let rank = |likely: &Likely<'_>| {
        (
            likely.field.data_type != DataType::Timestamp,
            likely.is_optional,
        )
    };
    found.into_iter().min_by_key(rank)
}

fn add_times<'a>(
    fields: &'a [Field],
    prefix: &str,
    is_optional: bool,
    found: &mut Vec<Likely<'a>>,
) {
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        let is_optional = is_optional || field.nullable;
        match &field.data_type {
            DataType::Record(members) => {
                add_times(members, &format!("{name}."), is_optional, found);
            }
            DataType::Timestamp => found.push(Likely {
                name,
                field,
                is_optional,
            }),
            DataType::Int64 if is_called_time(&field.name) => {
                found.push(Likely {
                    name,
                    field,
                    is_optional,
                });
            }
            _ => {}
        }
    }
}

/// Whether a number with this name is probably a time, and not how long something took.
fn is_called_time(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let names = [
        "ts",
        "time",
        "timestamp",
        "date",
        "datetime",
        "epoch",
        "when",
        "at",
    ];
    let last = name.rsplit(['_', '-']).next().unwrap_or_default();
    let unit = ["ms", "us", "ns", "s", "millis"].contains(&last);
    let before = name.rsplit(['_', '-']).nth(1).unwrap_or_default();
    names.contains(&last) || (unit && names[..3].contains(&before)) || name.ends_with("timestamp")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_time_is_found_wherever_it_is() {
        let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
        let likely =
            |fields: &[Field]| likely_time(fields).map(|likely| (likely.name, likely.is_optional));
        let n = field("n", DataType::Int64, false);
        let at = field("created_at", DataType::Int64, true);
        let found = |name: &str, is_optional| Some((name.to_owned(), is_optional));
        assert_eq!(likely(std::slice::from_ref(&n)), None);
        assert_eq!(likely(&[n.clone(), at.clone()]), found("created_at", true));
        let meta = |nullable| {
            let members = vec![field("seen", DataType::Timestamp, false)];
            field("meta", DataType::Record(members.into()), nullable)
        };
        assert_eq!(
            likely(&[at.clone(), meta(false)]),
            found("meta.seen", false)
        );
        assert_eq!(likely(&[meta(true), at]), found("meta.seen", true));
        let ts = field("ts", DataType::Timestamp, false);
        assert_eq!(likely(&[meta(true), n, ts]), found("ts", false));
    }

    #[test]
    fn numbers_are_called_times_or_not() {
        for name in [
            "ts",
            "Timestamp",
            "event_time",
            "created_at",
            "ts_ms",
            "time_s",
            "orderTimestamp",
        ] {
            assert!(is_called_time(name), "{name}");
        }
        for name in [
            "n",
            "cents",
            "duration_ms",
            "took_s",
            "format",
            "status",
            "runtime",
        ] {
            assert!(!is_called_time(name), "{name}");
        }
    }
}
