//! Every row is accounted for at every node, and a count that is wrong is found.

use std::sync::Arc;

use serde_json::json;
use sluicebox::clock::SystemClock;
use sluicebox::element::Inlet;
use sluicebox::operator::Counts;
use sluicebox::plan::Plan;
use sluicebox::progress::NodeProgress;
use sluicebox::run::{Imbalance, Job, Pipeline, reconcile};

use crate::pipeline::{plan_of, runtime};
use crate::{folder, sink, text_of};

/// Bad rows, filtered, rejected, late and held ones; several edges into one input, and
/// several readers of one output.
fn ran() -> (Arc<Plan>, Vec<Arc<NodeProgress>>) {
    let rows: Vec<_> = (0..400_i64)
        .map(|n| {
            let ts = match n % 9 {
                0 => 0,
                _ => n * 100,
            };
            match n % 11 {
                0 => json!({"line": 1}),
                1 => json!({"line": "no event"}),
                _ => {
                    let event =
                        json!({"key": format!("k{}", n % 3), "n": n, "letter": "a", "ts": ts});
                    json!({"line": event.to_string()})
                }
            }
        })
        .collect();
    let folder = folder(&[("in.jsonl", &rows)]);
    let operators = r#"
        [sources.lines]
        type = "file"
        path = "in.jsonl"
        fields = { line = "utf8" }

        [operators.events]
        plugin = "basics.parse"
        input = "lines"
        event_time = "ts"
        watermark = { out_of_orderness = "1s" }

        [operators.even]
        plugin = "basics.even"
        input = "events"

        [operators.small]
        filter = "n < 200"
        input = "events"

        [operators.sorted]
        order = "event_time"
        input = ["even", "small"]
        key = "key"

        [operators.result]
        plugin = "basics.stats"
        input = "sorted"
        key = "key"
        window = { sliding = "10s", every = "5s" }

        [operators.late]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = { tumbling = "5s" }

        [operators.pairs]
        join = { kind = "left", before = "2s", after = "1s" }
        input = { left = "even", right = "small" }
        key = "key"
        select = { key = "key.key", n = "left.n", m = "right.n" }
    "#;
    let sinks = [
        sink("sorted_late", "sorted.late"),
        sink("result_out", "result"),
        sink("late_out", "late"),
        sink("late_late", "late.late"),
        sink("pairs_out", "pairs"),
        sink("pairs_late", "pairs.late_left"),
    ];
    let mut plan = plan_of(&text_of(&[operators, &sinks.concat()]), folder.path());
    plan.parallelism = 2;
    plan.batch_rows = 16;
    let plan = Arc::new(plan);
    let pipeline = Pipeline::of(&plan, Arc::new(SystemClock));
    let job = Job::revision(&pipeline, plan.clone());
    let nodes = job.progress();
    let summary = runtime().block_on(job.run()).expect("it runs");
    assert_eq!(summary.imbalances, []);
    (plan, nodes)
}

#[test]
fn a_wrong_count_at_any_node_is_found() {
    let (plan, nodes) = ran();
    let imbalances = || reconcile(&plan, &nodes, true);
    let found = |node: &NodeProgress, what: &str| {
        let imbalances: Vec<Imbalance> = imbalances();
        assert!(!imbalances.is_empty(), "{what} of {}", node.name);
    };
    let none = Counts::default();
    let (one, back) = (1, 1_u64.wrapping_neg());
    let counts = |rows| {
        [
            (
                "taken",
                Counts {
                    taken: rows,
                    ..none
                },
            ),
            (
                "filtered",
                Counts {
                    filtered: rows,
                    ..none
                },
            ),
            (
                "too late",
                Counts {
                    too_late: rows,
                    ..none
                },
            ),
            ("lost", Counts { lost: rows, ..none }),
            ("put", Counts { put: rows, ..none }),
            (
                "held",
                Counts {
                    held: rows.cast_signed(),
                    ..none
                },
            ),
        ]
    };
    let mut seen = [0; 5];
    for (node, progress) in plan.nodes.iter().zip(&nodes) {
        let ledger = &progress.ledger;
        let entries = ledger.entries();
        for (port, of_port) in entries.came.iter().enumerate() {
            for edge in 0..of_port.len() {
                ledger.came(Inlet { port, edge }, 1);
                found(progress, "a row that came");
                ledger.came(Inlet { port, edge }, usize::MAX);
            }
        }
        for port in 0..entries.left.len() {
            ledger.left(port, 1);
            found(progress, "a row that left");
            ledger.left(port, usize::MAX);
        }
        let is_operator = !node.inputs.is_empty() && !node.outputs.is_empty();
        if is_operator {
            for ((what, more), (_, less)) in counts(one).into_iter().zip(counts(back)) {
                progress.add_counts(more);
                found(progress, what);
                progress.add_counts(less);
            }
        } else if node.inputs.is_empty() {
            ledger.read(1, 0);
            found(progress, "a row that was read");
            ledger.read(back, 0);
        } else {
            ledger.wrote(1);
            found(progress, "a row that was written");
            ledger.wrote(usize::MAX);
        }
        let of = [
            entries.taken,
            entries.filtered,
            entries.too_late,
            entries.lost,
            entries.put,
        ];
        for (seen, rows) in seen.iter_mut().zip(of) {
            *seen += rows;
        }
    }
    assert_eq!(imbalances(), []);
    assert!(seen.iter().all(|&rows| rows > 0), "{seen:?}");
}

#[test]
fn rows_that_wait_after_a_run_are_no_loss_if_it_was_stopped() {
    let (plan, nodes) = ran();
    let sorted = plan.nodes.iter().position(|node| node.name == "sorted");
    let sorted = &nodes[sorted.expect("a node")];
    // One of those that were taken waits instead.
    let waits = Counts {
        taken: 1_u64.wrapping_neg(),
        held: 1,
        ..Counts::default()
    };
    sorted.add_counts(waits);
    assert_eq!(reconcile(&plan, &nodes, false), []);
    let lost: Vec<String> = reconcile(&plan, &nodes, true)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = "sorted: wait for their time at the end: 1 rows, 0 are accounted for";
    assert_eq!(lost, [expected]);
}
