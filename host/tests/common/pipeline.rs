//! Runs a pipeline as a test: its file's text in, the rows of a sink out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sluicebox::clock::SystemClock;
use sluicebox::config::Config;
use sluicebox::plan::{self, NodeKind, Plan, SinkConnector};
use sluicebox::run::{Job, RunError, Summary};
use sluicebox::sink::MemoryTopic;
use sluicebox::sink::dead_letter::render_row;

use crate::common::LOADER;

/// Batch sizes and parallelisms at which every pipeline must give the same.
pub const VARIANTS: [(usize, usize); 9] = [
    (1, 1),
    (7, 1),
    (4096, 1),
    (1, 2),
    (7, 2),
    (4096, 2),
    (1, 4),
    (7, 4),
    (4096, 4),
];

/// The plan of a pipeline whose paths are relative to a folder.
pub fn plan_of(text: &str, folder: &Path) -> Plan {
    let config = Config::parse("pipeline.toml", text).unwrap_or_else(|error| panic!("{error}"));
    plan::build(&config, folder, &*LOADER).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a plan to its end.
pub fn run(plan: Plan) -> Result<Summary, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(Job::new(plan, Arc::new(SystemClock)).run())
}

/// The rows that came to some sinks, as JSON, in no particular order, and the summary.
pub fn collect_all<const N: usize>(mut plan: Plan, sinks: [&str; N]) -> ([Vec<Value>; N], Summary) {
    let topics = sinks.map(|wanted| to_memory(&mut plan, wanted));
    let summary = run(plan).unwrap_or_else(|error| panic!("{error}"));
    (topics.map(|topic| rows_of(&topic)), summary)
}

/// Has a sink's rows go to memory.
pub fn to_memory(plan: &mut Plan, sink: &str) -> Arc<MemoryTopic> {
    let topic = Arc::new(MemoryTopic::default());
    for node in plan.nodes.iter_mut().filter(|node| node.name == sink) {
        if let NodeKind::Sink(sink) = &mut node.kind {
            sink.connector = SinkConnector::Memory(topic.clone());
        }
    }
    topic
}

/// The rows of a topic, as JSON.
pub fn rows_of(topic: &MemoryTopic) -> Vec<Value> {
    let batches = topic.rows();
    let rows = batches.iter().flat_map(|batch| {
        (0..batch.rows()).map(|row| {
            let text = render_row(batch, row);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        })
    });
    rows.collect()
}

/// The rows of a sink at every batch size and parallelism, which must be the
/// same each time; sorted by their text.
pub fn collect_everywhere(text: &str, folder: &Path, sink: &str) -> Vec<Value> {
    let [rows] = collect_all_everywhere(text, folder, [sink]);
    rows
}

/// The same for several sinks.
pub fn collect_all_everywhere<const N: usize>(
    text: &str,
    folder: &Path,
    sinks: [&str; N],
) -> [Vec<Value>; N] {
    let mut first: Option<[Vec<Value>; N]> = None;
    for (batch_rows, parallelism) in VARIANTS {
        let mut plan = plan_of(text, folder);
        plan.batch_rows = batch_rows;
        plan.parallelism = parallelism;
        let mut all_rows = collect_all(plan, sinks).0;
        for rows in &mut all_rows {
            rows.sort_by_cached_key(ToString::to_string);
        }
        let first = first.get_or_insert_with(|| all_rows.clone());
        for ((first, rows), sink) in first.iter().zip(&all_rows).zip(sinks) {
            let when = format!("{sink}, batch_rows {batch_rows}, parallelism {parallelism}");
            assert_same(first, rows, &when);
        }
    }
    first.unwrap_or([const { Vec::new() }; N])
}

/// Both sorted alike. Shows the first few differences rather than all rows.
pub fn assert_same(expected: &[Value], rows: &[Value], when: &str) {
    if expected == rows {
        return;
    }
    let only_in = |these: &[Value], others: &[Value]| -> Vec<Value> {
        let others: HashSet<String> = others.iter().map(Value::to_string).collect();
        let only = these
            .iter()
            .filter(|row| !others.contains(&row.to_string()));
        only.take(5).cloned().collect()
    };
    let (missing, unexpected) = (only_in(expected, rows), only_in(rows, expected));
    panic!(
        "{when}: {} rows expected, {} came; missing {missing:#?}, unexpected {unexpected:#?}",
        expected.len(),
        rows.len(),
    );
}
