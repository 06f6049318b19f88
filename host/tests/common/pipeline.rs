//! Runs a pipeline as a test: its file's text in, the rows of a sink out.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sluicebox::clock::SystemClock;
use sluicebox::config::Config;
use sluicebox::plan::{self, NodeKind, Plan, SinkConnector};
use sluicebox::run::{Job, RunError, Summary};
use sluicebox::sink::dead_letter::render_row;

use crate::common::LOADER;

/// Batch sizes and parallelisms at which every pipeline must give the same.
pub const VARIANTS: [(usize, usize); 9] = [
    (1, 1), (7, 1), (4096, 1), (1, 2), (7, 2), (4096, 2), (1, 4), (7, 4), (4096, 4),
];

/// The plan of a pipeline whose paths are relative to a folder.
pub fn plan_of(text: &str, folder: &Path) -> Plan {
    let config = Config::parse("pipeline.toml", text)
        .unwrap_or_else(|error| panic!("{error}"));
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

/// The rows that came to one sink, as JSON, in no particular order, and the summary.
pub fn collect(mut plan: Plan, sink: &str) -> (Vec<serde_json::Value>, Summary) {
    let batches = Arc::new(Mutex::new(Vec::new()));
    for node in plan.nodes.iter_mut().filter(|node| node.name == sink) {
        if let NodeKind::Sink(sink) = &mut node.kind {
            sink.connector = SinkConnector::Memory(batches.clone());
        }
    }
    let summary = run(plan).unwrap_or_else(|error| panic!("{error}"));
    let batches = batches.lock().expect("nobody panicked");
    let rows = batches.iter().flat_map(|batch| {
        (0..batch.rows()).map(|row| {
            let text = render_row(batch, row);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        })
    });
    (rows.collect(), summary)
}

/// The rows of a sink at every batch size and parallelism, which must be the
/// same each time; sorted by their text.
pub fn collect_everywhere(text: &str, folder: &Path, sink: &str) -> Vec<serde_json::Value> {
    let mut first: Option<Vec<serde_json::Value>> = None;
    for (batch_rows, parallelism) in VARIANTS {
        let mut plan = plan_of(text, folder);
        plan.batch_rows = batch_rows;
        plan.parallelism = parallelism;
        let mut rows = collect(plan, sink).0;
        rows.sort_by_cached_key(ToString::to_string);
        match &first {
            None => first = Some(rows),
            Some(first) => assert_same(first, &rows, &format!("batch_rows {batch_rows}, parallelism {parallelism}")),
        }
    }
    first.unwrap_or_default()
}

/// Both sorted alike. Shows the first few differences rather than all rows.
pub fn assert_same(expected: &[serde_json::Value], rows: &[serde_json::Value], when: &str) {
    if expected == rows {
        return;
    }
    let missing: Vec<_> = expected.iter().filter(|row| !rows.contains(row)).take(5).collect();
    let unexpected: Vec<_> = rows.iter().filter(|row| !expected.contains(row)).take(5).collect();
    panic!(
        "{when}: {} rows expected, {} came; missing {missing:#?}, unexpected {unexpected:#?}",
        expected.len(),
        rows.len(),
    );
}
