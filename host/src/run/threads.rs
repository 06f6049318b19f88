//! Runs a pipeline on threads of its own, so that the operating system shares the
//! cores fairly: a slow plugin delays neither another pipeline nor the caller.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::RunError;

/// How long the threads of a dropped run may take to end: calls to plugins and to
/// the storage end first.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// How far the threads of a run stand back, as by `nice`.
const NICENESS: libc::c_int = 5;

/// Runs a future on `threads` threads called `name`. If the caller drops the
/// returned future, `work` is dropped on its threads before the caller continues.
/// With `stands_back`, other threads of the process go before these: plugins may
/// keep all cores busy.
pub(super) async fn run<T: Send + 'static>(
    name: &str,
    threads: usize,
    stands_back: bool,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, RunError> {
    let (answer, answered) = oneshot::channel();
    let (dropped_sender, dropped) = oneshot::channel::<()>();
    let name = name.to_owned();
    let spawned = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            if stands_back {
                stand_back();
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                .enable_all()
                .build()?;
            let ended = runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = dropped => None,
                    ended = work => Some(ended),
                }
            });
            runtime.shutdown_timeout(SHUTDOWN_WAIT);
            if let Some(ended) = ended {
                // Nobody receives it if the caller drops the run at its end.
                let _ = answer.send(ended);
            }
            Ok(())
        });
    let mut thread = MainThread {
        dropped: Some(dropped_sender),
        thread: Some(spawned.map_err(RunError::Threads)?),
    };
    if let Ok(ended) = answered.await {
        return Ok(ended);
    }
    match thread.thread.take().map(JoinHandle::join) {
        Some(Ok(Err(error))) => Err(RunError::Threads(error)),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        Some(Ok(Ok(()))) | None => Err(RunError::Internal("the run has no end".to_owned())),
    }
}

/// Lowers the priority of the calling thread, and of those that it starts: Linux keeps
/// one for each thread. Where it cannot be lowered, they work all the same.
fn stand_back() {
    #[cfg(target_os = "linux")]
    // SAFETY: it neither reads nor writes memory of this process.
    unsafe {
        libc::nice(NICENESS)
    };
}

/// The thread that waits for the others. Dropping it ends them all.
struct MainThread {
    dropped: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Drop for MainThread {
    fn drop(&mut self) {
        drop(self.dropped.take());
        if let Some(thread) = self.thread.take() {
            // Whoever waited for the answer has seen a panic already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_is_done_on_threads_of_that_name() {
        let work = async {
            let task = tokio::spawn(async { std::thread::current().name().map(str::to_owned) });
            task.await.expect("it does not panic")
        };
        let ran = run("shop", 2, false, work).await.expect("it ends");
        assert_eq!(ran.as_deref(), Some("shop"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn threads_that_stand_back_do_so_together() {
        // SAFETY: it neither reads nor writes memory of this process.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        let work = async move {
            let worker = tokio::spawn(async move { niceness() });
            let blocking = tokio::task::spawn_blocking(niceness);
            (worker.await, blocking.await)
        };
        let (worker, blocking) = run("shop", 2, true, work).await.expect("it ends");
        let lowered = (before + NICENESS).min(19);
        assert_eq!(worker.expect("it does not panic"), lowered);
        assert_eq!(blocking.expect("it does not panic"), lowered);
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_dropped_run_ends_before_the_caller_continues() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let is_dropped = Arc::new(AtomicBool::new(false));
        let flag = Flag(is_dropped.clone());
        let work = async move {
            std::future::pending::<()>().await;
            drop(flag);
        };
        let given_up = tokio::time::timeout(Duration::from_millis(20), run("shop", 1, false, work));
        assert!(given_up.await.is_err());
        assert!(is_dropped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn a_panic_is_the_callers() {
        let _ = run("shop", 1, false, async { panic!("broken") }).await;
    }
}
