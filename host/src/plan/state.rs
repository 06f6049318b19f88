//! What outlives a run in the plan: where state and checkpoints are kept, what
//! a failure may do to the rows, and when a run is tried again.

use std::path::PathBuf;

/// Where state and checkpoints are kept, and how often they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatePlan {
    pub backend: StateBackend,
    /// Of all keys and states in memory.
    pub memory_bytes_max: usize,
    pub interval_ms: u64,
    /// Checkpoints to keep, savepoints aside; at least 2.
    pub keep: usize,
    pub delivery: Delivery,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StateBackend {
    /// Outlives restarts of the pipeline, but not of the process.
    Memory,
    RocksDb {
        folder: PathBuf,
        /// Of block cache and write buffers together.
        memory_bytes_max: usize,
        /// Checkpoints are copied there too.
        remote: Option<RemotePlan>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct RemotePlan {
    /// `file:///folder` or `s3://bucket/prefix`, as `object_store` takes it.
    pub url: String,
    pub options: Vec<(String, String)>,
}

/// What a failure may do to the rows that sinks with transactions get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Rows come out with the checkpoint that they belong to.
    #[default]
    ExactlyOnce,
    /// Rows come out at once, and again after a failure.
    AtLeastOnce,
}

/// What becomes of a pipeline that has failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RestartPlan {
    Never,
    /// Restarted after a delay that grows by `factor` with each failure in a
    /// row, up to `delay_ms_max`; given up after `failures_max` failures within
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
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
        }
    }
}
