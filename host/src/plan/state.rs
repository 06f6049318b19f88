//! State in the plan: where state and checkpoints are kept, what is delivered
//! after a failure, and when the pipeline is restarted.

use std::path::PathBuf;

/// Where state and checkpoints are kept, and how often they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatePlan {
    pub backend: StateBackend,
    /// For the keys and states of all operators in memory.
    pub memory_bytes_max: usize,
    pub interval_ms: u64,
    /// How many checkpoints are kept, not counting savepoints; at least 2.
    pub keep: usize,
    pub delivery: Delivery,
}

impl StatePlan {
    /// Of a pipeline whose file has none, and that keeps its states nevertheless until the
    /// process ends. Its sinks deliver as they do without.
    pub const TEMPORARY: StatePlan = StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max: MEMORY_BYTES_MAX,
        interval_ms: INTERVAL_MS,
        keep: KEEP,
        delivery: Delivery::AtLeastOnce,
    };
}

/// The memory for states if the config does not say.
pub const MEMORY_BYTES_MAX: usize = 256 << 20;

/// How often checkpoints are written if the config does not say.
pub const INTERVAL_MS: u64 = 10_000;

/// How many are kept if the config does not say.
pub const KEEP: usize = 3;

#[derive(Clone, Debug, PartialEq)]
pub enum StateBackend {
    /// Survives restarts of the pipeline, but not of the process.
    Memory,
    RocksDb {
        folder: PathBuf,
        /// For the block cache and write buffers together.
        memory_bytes_max: usize,
        /// Where checkpoints are copied to.
        remote: Option<RemotePlan>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct RemotePlan {
    /// `file:///folder` or `s3://bucket/prefix`, as `object_store` takes it.
    pub url: String,
    pub options: Vec<(String, String)>,
}

/// Whether a failure may repeat rows at sinks with transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Rows become visible with their checkpoint.
    #[default]
    ExactlyOnce,
    /// Rows become visible at once, and are repeated after a failure.
    AtLeastOnce,
}

/// Whether a failed pipeline is restarted, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RestartPlan {
    Never,
    /// After a delay that grows by `factor` with each failure in a row, up to
    /// `delay_ms_max`; given up after `failures_max` failures within
    /// `within_ms`.
    After {
        delay_ms: u64,
        delay_ms_max: u64,
        factor: f64,
        failures_max: u32,
        within_ms: u64,
    },
}

impl Delivery {
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
        }
    }
}
