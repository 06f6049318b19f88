//! Runs a pipeline as a test: its file's text in, the rows of a sink out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sluicebox::clock::SystemClock;
use sluicebox::config::Config;
use sluicebox::connector::memory::sink::MemorySink;
use sluicebox::json::render_row;
use sluicebox::plan::{NodeKind, Plan};
use sluicebox::planner;
use sluicebox::run::{Job, RunError, Summary};
use sluicebox::topic::MemoryTopic;
use tokio::runtime::Runtime;

use crate::common::LOADER;

/// The plan of a pipeline whose paths are relative to a folder.
pub fn plan_of(text: &str, folder: &Path) -> Plan {
    let config = Config::parse("pipeline.toml", text).unwrap_or_else(|error| panic!("{error}"));
    planner::build(&config, folder, &*LOADER).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a plan to its end.
pub fn run(plan: Plan) -> Result<Summary, RunError> {
    runtime()
        .block_on(Job::new(plan, Arc::new(SystemClock)).run())
        .inspect(assert_accounted)
}

/// No row is lost uncounted.
pub fn assert_accounted(summary: &Summary) {
    assert_eq!(summary.imbalances, []);
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Has a sink's rows go to memory.
pub fn to_memory(plan: &mut Plan, sink: &str) -> Arc<MemoryTopic> {
    let topic = Arc::new(MemoryTopic::default());
    to_topic(plan, sink, &topic);
    topic
}

/// Has a sink's rows go to this topic.
pub fn to_topic(plan: &mut Plan, sink: &str, topic: &Arc<MemoryTopic>) {
    for node in plan.nodes.iter_mut().filter(|node| node.name == sink) {
        if let NodeKind::Sink(sink) = &mut node.kind {
            sink.connector = Box::new(MemorySink::new(topic.clone()));
        }
    }
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
