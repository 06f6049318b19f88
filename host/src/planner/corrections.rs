//! Refuses aggregates over results that are corrected later: each correction
//! would count once more.

use crate::config::{Config, Mistake};
use crate::plan::{AggregatePlan, MAIN_OUTPUT, Node, NodeKind};

/// The operator and its key by which rows are emitted again when they change.
type Correction<'a> = (&'a str, &'static str);

/// One mistake for each aggregate that reads such rows. Nodes come after those
/// that they read.
pub(super) fn counted_again(config: &Config, nodes: &[Node]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut corrections: Vec<Option<Correction<'_>>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut edges = node.edges().filter(|edge| edge.output == MAIN_OUTPUT);
        let of_input = edges.find_map(|edge| corrections[edge.from]);
        corrections.push(match &node.kind {
            NodeKind::Aggregate(aggregate) => {
                mistakes.extend(of_input.map(|of_input| mistake(config, &node.name, of_input)));
                correcting_key(aggregate).map(|key| (node.name.as_str(), key))
            }
            NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => of_input,
        });
    }
    mistakes
}

fn correcting_key(aggregate: &AggregatePlan) -> Option<&'static str> {
    if aggregate.allowed_lateness_ms > 0 {
        return Some("allowed_lateness");
    }
    aggregate.early_every_ms.map(|_| "early_every")
}

fn mistake(config: &Config, reader: &str, (name, key): Correction<'_>) -> Mistake {
    let mut mistake = Mistake::new(format!(
        "operator `{reader}` would count results of operator `{name}` more than once: `{key}` \
         emits them again when they change"
    ))
    .help(format!(
        "remove `{key}` of `{name}`, or have only sinks read its results"
    ));
    for (name, label) in [(reader, "counts them"), (name, "emits them again")] {
        let mut operators = config.operators.iter();
        if let Some(operator) = operators.find(|operator| operator.name.get_ref() == name) {
            mistake = mistake.at(operator.name.span(), label);
        }
    }
    mistake
}
