//! Limits of memory, time and output, and the messages when one is exceeded.

use wasmtime::{ResourceLimiter, Trap, WasmBacktrace};

use super::engine::Stopped;
use crate::logic::{Failure, FailureKind, Limits};
use crate::quantity::ShownBytes;

/// The size of a table entry: a pointer to a function.
const TABLE_ENTRY_BYTES: usize = 8;

/// Limits the size of all memories and tables of an instance together.
#[derive(Debug)]
pub struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "needed {} of memory, and its `limits.memory` is {}",
    ShownBytes(*needed),
    ShownBytes(*limit)
)]
struct TooMuchMemory {
    needed: usize,
    limit: usize,
}

impl MemoryLimit {
    pub fn new(bytes_max: usize) -> Self {
        MemoryLimit {
            bytes_max,
            bytes: 0,
        }
    }

    /// Counts bytes, or ends the call with an error that says how many were
    /// needed; a refusal would only be seen by the plugin.
    fn grow(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        let needed = self.bytes.saturating_add(bytes);
        if needed > self.bytes_max {
            let limit = self.bytes_max;
            return Err(TooMuchMemory { needed, limit }.into());
        }
        self.bytes = needed;
        Ok(true)
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let entries = desired.saturating_sub(current);
        self.grow(entries.saturating_mul(TABLE_ENTRY_BYTES))
    }
}

/// The host refuses an imported function, which ends the plugin's call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Describes why a call into a plugin failed. `stderr` is what the plugin
/// printed during the call.
pub fn failure(error: &wasmtime::Error, limits: &Limits, stderr: Option<String>) -> Failure {
    let (kind, message) = if let Some(memory) = error.downcast_ref::<TooMuchMemory>() {
        (FailureKind::Memory, memory.to_string())
    } else if let Some(stopped) = error.downcast_ref::<Stopped>() {
        (FailureKind::Stopped, stopped.to_string())
    } else if let Some(refused) = error.downcast_ref::<Refused>() {
        (FailureKind::Trap, refused.to_string())
    } else {
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                let limit = ShownMilliseconds(limits.call_ms_max);
                (
                    FailureKind::Deadline,
                    format!("took longer than its limit of {limit}"),
                )
            }
            Some(Trap::StackOverflow) => {
                let at = place(error);
                (FailureKind::Trap, format!("overflowed its stack{at}"))
            }
            Some(trap) => {
                let message = match stderr.as_deref().and_then(panic_message) {
                    Some(panic) => panic,
                    None => format!("trapped: {}{}", what(*trap), place(error)),
                };
                (FailureKind::Trap, message)
            }
            None if is_too_large(error) => {
                let limit = ShownBytes(limits.output_bytes_max);
                (
                    FailureKind::OutputSize,
                    format!("answered with more than its limit of {limit}"),
                )
            }
            None => (
                FailureKind::Contract,
                format!(
                    "broke the component model's rules: {:#}",
                    error.root_cause()
                ),
            ),
        }
    };
    Failure {
        kind,
        message,
        panic: stderr,
    }
}

fn what(trap: Trap) -> String {
    match trap {
        // Rust puts the stack at the start of a plugin's memory.
        Trap::MemoryOutOfBounds => {
            "out of bounds memory access, as when the stack overflows".to_owned()
        }
        trap => trap.to_string().replace("wasm trap: ", ""),
    }
}

/// Wasmtime's error has no type of its own.
fn is_too_large(error: &wasmtime::Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("fuel allocated for hostcalls has been exhausted")
}

/// The innermost named function of the plugin.
fn place(error: &wasmtime::Error) -> String {
    error
        .downcast_ref::<WasmBacktrace>()
        .and_then(|trace| trace.frames().iter().find_map(|frame| frame.func_name()))
        .map_or_else(String::new, |name| {
            format!(" (in `{:#}`)", rustc_demangle::demangle(name))
        })
}

/// Extracts `panicked at src/lib.rs:5:9: message` from what Rust prints.
fn panic_message(stderr: &str) -> Option<String> {
    let (_, panic) = stderr.rsplit_once("panicked at ")?;
    let (place, message) = panic.split_once(":\n").unwrap_or((panic, ""));
    let message = message.split("\nnote: ").next().unwrap_or_default().trim();
    Some(if message.is_empty() {
        format!("panicked at {}", place.trim())
    } else {
        format!("panicked at {}: {message}", place.trim())
    })
}

struct ShownMilliseconds(u64);

impl std::fmt::Display for ShownMilliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ms if ms >= 1_000 && ms % 1_000 == 0 => write!(f, "{} s", ms / 1_000),
            ms => write!(f, "{ms} ms"),
        }
    }
}
