//! Threads for connections of sinks. These are called on threads that must not wait within a
//! runtime; what they begin here goes on while they wait, or do something else.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// Runs the connections of all pipelines of the process.
static NETWORK: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("network")
        .enable_all()
        .build()
});

/// The error says why there are no threads.
pub fn runtime() -> Result<&'static Runtime, String> {
    NETWORK
        .as_ref()
        .map_err(|error| format!("no threads for connections: {error}"))
}
