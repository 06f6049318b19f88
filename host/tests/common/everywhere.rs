//! Runs a pipeline at several batch sizes and parallelisms, and with kills, and checks
//! that the rows are the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluicebox::checkpoint::storage::Storage;
use sluicebox::checkpoint::storage::folder::FolderStorage;
use sluicebox::checkpoint::transaction::memory::MemoryTransaction;
use sluicebox::clock::SystemClock;
use sluicebox::plan::{Delivery, Plan, StateBackend, StatePlan};
use sluicebox::run::{Durable, Job, Summary};
use sluicebox::topic::MemoryTopic;

use crate::pipeline::{
    assert_accounted, assert_same, plan_of, rows_of, run, runtime, to_memory, to_topic,
};

/// Batch sizes and parallelisms at which every pipeline must have the same rows.
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

/// The rows that came to some sinks, as JSON, in no particular order, and the summary.
pub fn collect_all<const N: usize>(mut plan: Plan, sinks: [&str; N]) -> ([Vec<Value>; N], Summary) {
    let topics = sinks.map(|wanted| to_memory(&mut plan, wanted));
    let summary = run(plan).unwrap_or_else(|error| panic!("{error}"));
    (topics.map(|topic| rows_of(&topic)), summary)
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
    run_everywhere(text, folder, sinks, |when, mut all_rows| {
        for rows in &mut all_rows {
            rows.sort_by_cached_key(ToString::to_string);
        }
        let first = first.get_or_insert_with(|| all_rows.clone());
        for ((first, rows), sink) in first.iter().zip(&all_rows).zip(sinks) {
            assert_same(first, rows, &format!("{sink}, {when}"));
        }
    });
    first.unwrap_or([const { Vec::new() }; N])
}

/// Runs a pipeline at every batch size and parallelism, and shows which run it was with
/// the rows of its sinks, in no particular order.
pub fn run_everywhere<const N: usize>(
    text: &str,
    folder: &Path,
    sinks: [&str; N],
    mut show: impl FnMut(&str, [Vec<Value>; N]),
) {
    for (batch_rows, parallelism) in VARIANTS {
        let mut plan = plan_of(text, folder);
        plan.batch_rows = batch_rows;
        plan.parallelism = parallelism;
        let when = format!("batch_rows {batch_rows}, parallelism {parallelism}");
        show(&when, collect_all(plan, sinks).0);
    }
    for (batch_rows, parallelisms) in [(4096, [1, 4, 2]), (7, [2, 1, 4])] {
        let when = format!("batch_rows {batch_rows}, killed, parallelism {parallelisms:?}");
        let rows = collect_interrupted(text, folder, sinks, batch_rows, &parallelisms);
        show(&when, rows);
    }
}

/// The rows of a run that is killed after some checkpoints and restored at another
/// parallelism, again and again. Its state is in RocksDB, and memory has room for a
/// part of it.
pub fn collect_interrupted<const N: usize>(
    text: &str,
    folder: &Path,
    sinks: [&str; N],
    batch_rows: usize,
    parallelisms: &[usize],
) -> [Vec<Value>; N] {
    let data = tempfile::tempdir().expect("a temporary folder");
    let storage = FolderStorage::open(data.path(), 16 << 20).expect("a data folder");
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let topics = sinks.map(|_| Arc::new(MemoryTopic::default()));
    let transaction = Arc::new(MemoryTransaction::new(topics.to_vec()));
    for (round, &parallelism) in parallelisms.iter().enumerate() {
        let mut plan = plan_of(text, folder);
        plan.batch_rows = batch_rows;
        plan.parallelism = parallelism;
        plan.state = Some(StatePlan {
            backend: StateBackend::Memory,
            memory_bytes_max: 2 << 20,
            interval_ms: 20,
            keep: 2,
            delivery: Delivery::ExactlyOnce,
        });
        for (sink, topic) in sinks.iter().zip(&topics) {
            to_topic(&mut plan, sink, topic);
        }
        let durable = Durable::new(storage.clone()).committing(transaction.clone());
        let job = Job::new(plan, Arc::new(SystemClock)).keeping(durable);
        let runtime = runtime();
        let is_last = round + 1 == parallelisms.len();
        runtime.block_on(async {
            let killed = async {
                let last = || storage.list().expect("a list").last().map(|last| last.id);
                let before = last();
                while !is_last && last() < before.max(Some(0)).map(|id| id + 2) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                if is_last {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = killed => {}
                ended = job.run() => {
                    assert_accounted(&ended.unwrap_or_else(|error| panic!("{error}")));
                }
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    topics.map(|topic| rows_of(&topic))
}
