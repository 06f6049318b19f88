//! Whether every row of an attempt is accounted for: compares the two sides of each
//! node's ledger, and the two ends of each edge.
//!
//! | of | the sums that must agree |
//! |---|---|
//! | an edge | rows that left by its output = rows that came by it |
//! | a source | rows read = rows that left + rows lost to errors |
//! | an operator | rows that came = taken + filtered + too late + lost to errors + held |
//! | its outputs | rows put out, late ones included = rows that left by all outputs |
//! | a filter, transform or process | rows of its answers = rows out + those without a valid event time |
//! | a sink | rows that came = rows written + lost to errors |
//!
//! Taken are the rows that are in a state or an answer: an aggregate's folded rows, both
//! sides of a join. Held are those that wait for the watermark, to be taken in order; once
//! all inputs have ended there are none. Ledgers begin anew with each attempt: a row that
//! was on its way when the one before failed comes again. After a restore, rows are taken
//! that the checkpoint held, so that how many are held is not known, only the difference.
//! Operators also begin anew at the barrier at which their logic is replaced, and sources and
//! sinks do not: the edges between them are not compared then.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::plan::{Node, NodeKind, Plan};
use crate::progress::NodeProgress;
use crate::progress::ledger::Entries;

/// Two sums that should agree, and do not: a bug of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imbalance {
    pub node: String,
    /// What is counted, on both sides.
    pub what: String,
    pub rows: i64,
    /// How many of them are accounted for.
    pub accounted: i64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Imbalance {
            node,
            what,
            rows,
            accounted,
        } = self;
        write!(
            f,
            "{node}: {what}: {rows} rows, {accounted} are accounted for"
        )
    }
}

/// Compares the sums of an attempt that has ended well. `is_complete` says that it has ended
/// with its inputs, and was not stopped before.
pub fn reconcile(plan: &Plan, nodes: &[Arc<NodeProgress>], is_complete: bool) -> Vec<Imbalance> {
    let entries: Vec<Entries> = nodes.iter().map(|node| node.ledger.entries()).collect();
    let mut imbalances = Vec::new();
    for (node, own) in plan.nodes.iter().zip(&entries) {
        let mut check = |what: String, rows: i64, accounted: i64| {
            if rows != accounted {
                imbalances.push(Imbalance {
                    node: node.name.clone(),
                    what,
                    rows,
                    accounted,
                });
            }
        };
        for (input, came) in node.inputs.iter().zip(&own.came) {
            for (edge, &came) in input.edges.iter().zip(came) {
                let from = &entries[edge.from];
                if from.is_later == own.is_later {
                    let what = format!("came from {}", plan.output_name(edge));
                    check(what, signed(from.left[edge.output]), signed(came));
                }
            }
        }
        check_node(node, own, is_complete, &mut check);
    }
    imbalances
}

fn check_node(
    node: &Node,
    own: &Entries,
    is_complete: bool,
    check: &mut dyn FnMut(String, i64, i64),
) {
    let came = signed(own.came.iter().flatten().sum());
    let left = signed(own.left.iter().sum());
    let [taken, lost, put] = [own.taken, own.lost, own.put].map(signed);
    let answers = match &node.kind {
        NodeKind::Source(_) => {
            return check("read".to_owned(), signed(own.read), left + lost);
        }
        NodeKind::Sink(_) => return check("written".to_owned(), came, taken + lost),
        NodeKind::Transform(_) | NodeKind::Process(_) => true,
        NodeKind::Aggregate(_) | NodeKind::Join(_) => false,
    };
    let elsewhere = signed(own.filtered + own.too_late) + lost + own.held;
    check("came in".to_owned(), came, taken + elsewhere);
    check("put out".to_owned(), put, left);
    if answers {
        let [made, unmade] = [own.made, own.unmade].map(signed);
        check("answered".to_owned(), made, signed(own.out) + unmade);
    }
    if is_complete && !own.is_restored {
        check("wait for their time at the end".to_owned(), own.held, 0);
    }
}

fn signed(rows: u64) -> i64 {
    rows.cast_signed()
}
