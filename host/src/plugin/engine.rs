//! How plugins are compiled, and the clock that stops them.

use std::time::Duration;

use wasmtime::{Config, Engine};

/// Deadlines are kept to this.
const TICK: Duration = Duration::from_millis(10);

/// An engine whose epoch advances as long as it lives.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Calls are plain function calls in the task's own thread.
        .concurrency_support(false)
        // A plugin computes the same on every machine.
        .relaxed_simd_deterministic(true);
    let engine = Engine::new(&config)?;
    let ticked = engine.weak();
    std::thread::Builder::new()
        .name("plugin-deadlines".into())
        .spawn(move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })?;
    Ok(engine)
}

/// How many ticks a call may see that may take `ms`. The tick under way when
/// it starts does not count.
pub fn ticks(ms: u64) -> u64 {
    ms.div_ceil(TICK.as_millis() as u64).saturating_add(1)
}
