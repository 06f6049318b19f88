//! Decides where calls run that block.

/// Where calls run that block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// On a thread of their own, while tasks go on.
    #[default]
    Threads,
    /// Where they are called: for runs whose order must be repeatable.
    Inline,
}

impl Offload {
    pub async fn run<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => call(),
            Offload::Threads => match tokio::task::spawn_blocking(call).await {
                Ok(answer) => answer,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}
