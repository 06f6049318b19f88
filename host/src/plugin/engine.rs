//! Configures how plugins are compiled, and interrupts calls that take too
//! long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Config, Engine, UpdateDeadline};

use crate::stop::Stop;

/// The precision of deadlines.
const TICK: Duration = Duration::from_millis(10);
/// The clock thread sleeps after this many ticks without a call.
const IDLE_TICKS_MAX: u32 = 10;

/// The engine that compiles plugins.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Calls are plain function calls in the task's own thread.
        .concurrency_support(false)
        // A plugin computes the same results on every machine.
        .relaxed_simd_deterministic(true);
    Engine::new(&config)
}

/// How long a call may go on after the run was asked to stop.
const STOP_MS_MAX: u64 = 1_000;

/// How long it may go on while something waits for a barrier to run instead. A call that is
/// only slow is over by then, and spares that a restart.
const HURRY_MS_MAX: u64 = 3_000;

/// How many ticks a call may last that may take `ms`. The tick during which it
/// starts does not count.
fn ticks(ms: u64) -> u64 {
    ms.div_ceil(TICK.as_millis() as u64).saturating_add(1)
}

/// When the current call of an instance has to end.
#[derive(Debug, Default)]
pub struct Deadline {
    stop: Stop,
    ticks_left: u64,
    /// While the run is to end, or to give way.
    patience_left: Option<u64>,
}

/// The run was asked to stop, or to give way, and the call did not end soon.
#[derive(Debug, thiserror::Error)]
#[error("did not end soon after the run was asked to stop, or to give way to a change")]
pub struct Stopped;

impl Deadline {
    pub fn obey(&mut self, stop: &Stop) {
        self.stop = stop.clone();
    }

    /// Begins a call that may take `ms`.
    pub fn begin(&mut self, ms: u64) {
        self.ticks_left = ticks(ms);
        self.patience_left = None;
    }

    /// What becomes of the call after another tick.
    pub fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.stop.is_given_up() {
            return Err(Stopped.into());
        }
        let patience_ms = match (self.stop.asked(), self.stop.is_hurried()) {
            (true, _) => Some(STOP_MS_MAX),
            (false, true) => Some(HURRY_MS_MAX),
            (false, false) => None,
        };
        let patience = patience_ms.map(ticks);
        let left = patience.map(|ticks| self.patience_left.map_or(ticks, |left| left.min(ticks)));
        self.patience_left = left.map(|left| left.saturating_sub(1));
        self.ticks_left = self.ticks_left.saturating_sub(1);
        match (self.ticks_left, self.patience_left) {
            (0, _) => Ok(UpdateDeadline::Interrupt),
            (_, Some(0)) => Err(Stopped.into()),
            _ => Ok(UpdateDeadline::Continue(1)),
        }
    }
}

/// A clock that advances the engine's epoch during calls. Between calls its
/// thread sleeps, so that an idle host does not wake up.
pub struct Deadlines {
    engine: Engine,
    calls: AtomicUsize,
    asleep: AtomicBool,
    clock: OnceLock<Thread>,
}

/// A call in progress, until this is dropped.
pub struct Call<'a>(&'a Deadlines);

impl Deadlines {
    pub fn start(engine: Engine) -> std::io::Result<Arc<Self>> {
        let deadlines = Arc::new(Deadlines {
            engine,
            calls: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            clock: OnceLock::new(),
        });
        let ticked = Arc::downgrade(&deadlines);
        let clock = std::thread::Builder::new()
            .name("plugin-deadlines".into())
            .spawn(move || {
                let mut idle_ticks = 0;
                // The thread holds no strong reference while it waits, so it
                // ends with the last plugin.
                while let Some(asleep) = ticked.upgrade().map(|it| it.tick(&mut idle_ticks)) {
                    if asleep {
                        std::thread::park();
                    } else {
                        std::thread::sleep(TICK);
                    }
                }
            })?;
        deadlines.clock.get_or_init(|| clock.thread().clone());
        Ok(deadlines)
    }

    /// Registers a call, so that its deadline is kept.
    pub fn call(&self) -> Call<'_> {
        // Sequentially consistent with `tick`: either it sees the call, or this
        // sees it asleep.
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Call(self)
    }

    /// Advances the epoch, or returns true if the thread may sleep until woken.
    fn tick(&self, idle_ticks: &mut u32) -> bool {
        if self.calls.load(Ordering::SeqCst) > 0 {
            *idle_ticks = 0;
        } else {
            *idle_ticks += 1;
        }
        if *idle_ticks > IDLE_TICKS_MAX {
            *idle_ticks = 0;
            self.asleep.store(true, Ordering::SeqCst);
            if self.calls.load(Ordering::SeqCst) == 0 {
                return true;
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
        self.engine.increment_epoch();
        false
    }

    fn wake(&self) {
        if let Some(clock) = self.clock.get() {
            clock.unpark();
        }
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn until(deadlines: &Deadlines, asleep: bool) {
        let since = Instant::now();
        while deadlines.asleep.load(Ordering::SeqCst) != asleep {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "asleep is not {asleep}"
            );
            std::thread::sleep(TICK);
        }
    }

    /// How many ticks a call of 10 s lasts, and whether its limit ends it.
    fn lasts(stop: &Stop, mut meanwhile: impl FnMut(u64)) -> (u64, bool) {
        let mut deadline = Deadline::default();
        deadline.obey(stop);
        deadline.begin(10_000);
        for tick in 1.. {
            meanwhile(tick);
            match deadline.tick() {
                Ok(UpdateDeadline::Continue(_)) => {}
                ended => return (tick, ended.is_ok()),
            }
        }
        unreachable!("it has a limit");
    }

    #[test]
    fn a_call_ends_sooner_while_the_run_is_to_stop_or_to_give_way() {
        let stop = Stop::default();
        assert_eq!(lasts(&stop, |_| {}), (ticks(10_000), true));
        stop.hurry(true);
        assert_eq!(lasts(&stop, |_| {}), (ticks(HURRY_MS_MAX), false));
        let withdrawn = |tick| stop.hurry(tick < 200);
        assert_eq!(lasts(&stop, withdrawn), (ticks(10_000), true));
        stop.hurry(true);
        let asked = |tick| {
            if tick == 100 {
                stop.ask();
            }
        };
        assert_eq!(lasts(&stop, asked), (99 + ticks(STOP_MS_MAX), false));
    }

    #[test]
    fn the_clock_sleeps_between_calls_and_not_during_one() {
        let deadlines = Deadlines::start(engine().expect("an engine")).expect("a thread");
        until(&deadlines, true);

        let call = deadlines.call();
        std::thread::sleep(TICK * (3 * IDLE_TICKS_MAX));
        assert!(!deadlines.asleep.load(Ordering::SeqCst));

        drop(call);
        until(&deadlines, true);
    }
}
