//! Decides on which thread blocking calls run.

/// Where blocking calls run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// On a thread of their own, while tasks continue.
    #[default]
    Threads,
    /// On the caller's thread, for runs whose order must be repeatable.
    Inline,
}

impl Offload {
    pub async fn run<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => call(),
            Offload::Threads => match tokio::task::spawn_blocking(call).await {
                Ok(answer) => answer,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down, and drops the caller.
                    Err(_cancelled) => std::future::pending().await,
                },
            },
        }
    }
}

/// Runs blocking work; other tasks of a multi-threaded runtime move to other
/// threads.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
