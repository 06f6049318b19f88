//! Finds where results depend on the speed of tasks: rows come to an aggregate by
//! several ways, each of which is in order, but not all of them together.

use super::{Edge, LATE_OUTPUT, MAIN_OUTPUT, Matching, Node, NodeKind, Plan, RowOrder, Version};
use crate::schema::Schema;

/// By how many ways rows come.
#[derive(Clone, Copy, Default)]
struct Ways {
    /// Of rows that may be late.
    rows: usize,
    /// Of results of windows, and of processes in order of event time, which come before the
    /// watermark that makes them final.
    results: usize,
}

/// What of a node's results depends on the speed of tasks, as a sentence; `None` if nothing
/// does.
pub(super) fn depends_on_speed(plan: &Plan, node: &Node) -> Option<String> {
    let tasks = plan.tasks();
    let Ways { rows, results } = ways_into(plan, &tasks, node);
    if rows + results <= 1 {
        return None;
    }
    let of_key = |key| {
        let one_way = has_keys_from_one_task(plan, node, key);
        (!one_way).then_some("in which order the rows of a key come, and so its results, depends")
    };
    let of_late = |has_late_rows| {
        let may_be_late = has_late_rows && rows > 0;
        may_be_late.then_some("which rows are late depends")
    };
    let what = match &node.kind {
        NodeKind::Aggregate(aggregate) if aggregate.depends_on_order() => {
            of_key(&aggregate.key_schema)
        }
        NodeKind::Aggregate(aggregate) => of_late(aggregate.window.has_late_rows()),
        NodeKind::Process(process) => match process.order {
            RowOrder::Arrival => of_key(&process.key_schema),
            RowOrder::EventTime => of_late(true),
        },
        NodeKind::Join(join) if join.rule.matching.depends_on_arrival() => {
            Some("in which order rows come, and so which match, depends")
        }
        NodeKind::Join(join) => of_late(join.rule.matching.has_late_rows()),
        NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => None,
    }?;
    Some(format!(
        "its rows come by {} ways (tasks and inputs): {what} on their speed",
        rows + results
    ))
}

fn ways_into(plan: &Plan, tasks: &[usize], node: &Node) -> Ways {
    let ways = node.edges().map(|edge| ways_of(plan, tasks, edge));
    ways.fold(Ways::default(), |sum, ways| Ways {
        rows: sum.rows.saturating_add(ways.rows),
        results: sum.results.saturating_add(ways.results),
    })
}

fn ways_of(plan: &Plan, tasks: &[usize], edge: &Edge) -> Ways {
    let from = &plan.nodes[edge.from];
    let tasks_from = tasks[edge.from];
    match &from.kind {
        NodeKind::Aggregate(aggregate)
            if edge.output != LATE_OUTPUT && aggregate.window.has_late_rows() =>
        {
            Ways {
                rows: 0,
                results: tasks_from,
            }
        }
        NodeKind::Process(process)
            if process.order == RowOrder::EventTime && !process.is_late_output(edge.output) =>
        {
            Ways {
                rows: 0,
                results: tasks_from,
            }
        }
        // A row comes out before the watermark that it has waited for.
        NodeKind::Join(join)
            if edge.output == MAIN_OUTPUT
                && join.rule.matching == Matching::AsOf(Version::EventTime) =>
        {
            Ways {
                rows: 0,
                results: tasks_from,
            }
        }
        NodeKind::Transform(_) => ways_into(plan, tasks, from),
        _ => Ways {
            rows: tasks_from,
            results: 0,
        },
    }
}

/// Whether all rows of a key come from one task, since the aggregate before has a part of
/// the key as its own.
fn has_keys_from_one_task(plan: &Plan, node: &Node, key: &Schema) -> bool {
    let mut edges = node.edges();
    let (Some(edge), None) = (edges.next(), edges.next()) else {
        return false;
    };
    let NodeKind::Aggregate(from) = &plan.nodes[edge.from].kind else {
        return false;
    };
    let mut parts = from.key_schema.fields.iter();
    edge.output != LATE_OUTPUT
        && parts.all(|part| key.fields.iter().any(|field| field.name == part.name))
}
