//! Measures what the state of a key takes: the rows of a checkpoint, table by table, and the
//! memory of all of them together, as the host counts it. A run of generated events is
//! stopped while its windows are open, and keeps its state then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;
use sluicebox::checkpoint::manifest::ProgressManifest;
use sluicebox::checkpoint::storage::Storage;
use sluicebox::checkpoint::storage::memory::MemoryStorage;
use sluicebox::clock::SystemClock;
use sluicebox::plan::{Delivery, StateBackend, StatePlan};
use sluicebox::plugin::PluginLoader;
use sluicebox::run::{Durable, Job};

use crate::{Arguments, Variant, generated, plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    StateBytes,
}

const CASES: [crate::Case; 5] = [
    crate::Case::Process,
    crate::Case::IntervalJoin,
    crate::Case::AsOfJoin,
    crate::Case::Lookup,
    crate::Case::Recommend,
];

/// More than the state of any case.
const MEMORY_BYTES: usize = 8 << 30;

pub fn measure(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut results = Vec::new();
    for case in CASES {
        results.extend(of_case(arguments, case)?);
    }
    Ok(results)
}

fn of_case(arguments: &Arguments, case: crate::Case) -> anyhow::Result<Vec<serde_json::Value>> {
    let rows = case.rows(arguments.rows);
    let text = generated(arguments, case, Variant::Wasm, 1)?;
    let mut plan = plan(&text, &PluginLoader::new()?)?;
    plan.state = Some(StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max: MEMORY_BYTES,
        interval_ms: 3_600_000,
        keep: 1,
        delivery: Delivery::ExactlyOnce,
    });
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let job = Job::new(plan, Arc::new(SystemClock)).keeping(Durable::new(storage.clone()));
    let (progress, stop) = (job.progress(), job.stop());
    let runtime = tokio::runtime::Runtime::new()?;
    let summary = runtime.block_on(async {
        let read = async {
            while progress[0].snapshot().rows_out < rows {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.ask();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = read => unreachable!("it waits for ever"),
            ended = job.run() => ended,
        }
    })?;
    ensure!(summary.stopped, "the generator has an end");
    let memory_bytes = summary.state.context("a state")?.memory_bytes;
    let last = storage.list()?.pop().context("a checkpoint")?;
    let mut results = Vec::new();
    for node in storage.restore(last.id)?.nodes {
        let ProgressManifest::Operator(operator) = &node.progress else {
            continue;
        };
        for (table, number) in node.description.tables.iter().zip(&operator.tables) {
            let (mut keys, mut bytes) = (0_u64, 0_u64);
            let (from, to) = (number.to_be_bytes(), (number + 1).to_be_bytes());
            storage.scan(&from, &to, &mut |key, value| {
                keys += 1;
                bytes += (key.len() + value.len()) as u64;
                true
            })?;
            if keys == 0 {
                continue;
            }
            let result = json!({
                "case": "state_bytes",
                "of": case,
                "node": node.name(),
                "table": table.role,
                "rows": summary.nodes[0].rows_out,
                "state_keys": keys,
                "stored_bytes": bytes,
                "bytes_a_key": bytes as f64 / keys as f64,
                // Of all tables of the case.
                "memory_bytes": memory_bytes,
            });
            eprintln!(
                "state_bytes {case:?} {} {}: {keys} keys, {:.0} bytes each; {memory_bytes} in memory",
                node.name(),
                table.role,
                bytes as f64 / keys as f64
            );
            results.push(result);
        }
    }
    ensure!(!results.is_empty(), "{case:?} keeps no state");
    Ok(results)
}
