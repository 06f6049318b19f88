//! Refuses aggregates and joins over results that are corrected later: each correction
//! would count once more.

use super::section::whole_name;
use crate::config::{Config, Mistake};
use crate::plan::{AggregatePlan, MAIN_OUTPUT, Node, NodeKind, Window};

/// The operator by which rows are emitted again when they change.
#[derive(Clone, Copy)]
struct Correction<'a> {
    name: &'a str,
    /// The key that says so.
    key: &'static str,
    /// Whether it can tell changes instead.
    tells_changes: bool,
}

/// One mistake for each aggregate or join that reads such rows. Nodes come after those
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
                correcting_key(aggregate).map(|key| Correction {
                    name: &node.name,
                    key,
                    tells_changes: aggregate.early_every_ms.is_none()
                        && !matches!(aggregate.window, Window::Session { .. }),
                })
            }
            NodeKind::Process(_) => {
                mistakes.extend(of_input.map(|of_input| mistake(config, &node.name, of_input)));
                None
            }
            NodeKind::Join(_) => {
                let joined = |of_input| mistake_of(config, &node.name, ("join", "joins"), of_input);
                mistakes.extend(of_input.map(joined));
                None
            }
            NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => of_input,
        });
    }
    mistakes
}

fn correcting_key(aggregate: &AggregatePlan) -> Option<&'static str> {
    match aggregate.corrects() {
        false => None,
        true if aggregate.early_every_ms.is_some() => Some("emit"),
        true => Some("allowed_lateness"),
    }
}

/// What aggregates and processes do with rows.
const COUNTS: (&str, &str) = ("count", "counts");

fn mistake(config: &Config, reader: &str, correction: Correction<'_>) -> Mistake {
    mistake_of(config, reader, COUNTS, correction)
}

fn mistake_of(
    config: &Config,
    reader: &str,
    (verb, verbs): (&str, &str),
    correction: Correction<'_>,
) -> Mistake {
    let Correction { name, key, .. } = correction;
    // Of an operator that is run as several, its stage reads them.
    let reader = whole_name(reader);
    let changes = match correction.tells_changes && verb == COUNTS.0 {
        true => format!("; or read `{name}.changes`, which tells what becomes of results"),
        false => String::new(),
    };
    let mut mistake = Mistake::new(format!(
        "operator `{reader}` would {verb} results of operator `{name}` more than once: `{key}` \
         emits them again when they change"
    ))
    .help(match key {
        "allowed_lateness" => format!(
            "write `emit = \"final\"` for `{name}`, which then emits each result once, when no \
             row can change it any more{changes}; or have only sinks read its results"
        ),
        key => format!("remove `{key}` of `{name}`, or have only sinks read its results"),
    });
    let reads = format!("{verbs} them");
    for (name, label) in [(reader, reads.as_str()), (name, "emits them again")] {
        let mut operators = config.operators.iter();
        if let Some(operator) = operators.find(|operator| operator.name.get_ref() == name) {
            mistake = mistake.at(operator.name.span(), label);
        }
    }
    mistake
}
