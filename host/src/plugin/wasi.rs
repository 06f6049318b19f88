//! Provides what a plugin may import: its log, and the part of WASI 0.2 that a
//! program without any capability needs to start.
//!
//! There are no files, no network, no environment and no arguments. Nothing
//! here tells the time or waits: results may depend on rows alone, and a call
//! that waited in the host would outlive its deadline. So random numbers come
//! from a fixed seed, the monotonic clock advances only when it is read or
//! waited for, and the wall clock is refused. `wasmtime-wasi` is not used
//! because its synchronous functions block on their own runtime: a plugin could
//! stall a task with them, and within tokio they panic.

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{
    Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType, WasmList,
    WasmStr,
};
use wasmtime::{Engine, StoreContextMut};

use super::contract::{LOGGING, Level};
use super::engine::Deadline;
use super::limits::{MemoryLimit, Refused};
use super::printed::{CALL_BYTES_MAX, Printed, Stream};

/// How many random bytes a plugin may request at once.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// How far the monotonic clock advances each time it is read, in ns.
const CLOCK_STEP_NS: u64 = 1_000;
/// How many bytes a stream accepts at once.
const WRITE_BYTES_MAX: u64 = 2 * CALL_BYTES_MAX as u64;

/// The packages of WASI that are linked, and what to tell a plugin that calls a
/// refused function of one.
const PACKAGES: [(&str, &str); 6] = [
    ("wasi:cli/", "plugins have no process of their own"),
    (
        "wasi:clocks/",
        "plugins have no clock, so that results depend on rows alone: use the event time of the row",
    ),
    ("wasi:filesystem/", "plugins have no files"),
    ("wasi:io/", "plugins have no input and output but their log"),
    ("wasi:random/", "plugins have no other randomness"),
    ("wasi:sockets/", "plugins have no network"),
];

/// The host's data for an instance.
#[derive(Debug)]
pub struct World {
    pub memory: MemoryLimit,
    pub printed: Printed,
    pub deadline: Deadline,
    clock_ns: u64,
    random: fastrand::Rng,
}

impl World {
    pub fn new(memory: MemoryLimit, printed: Printed) -> Self {
        World {
            memory,
            printed,
            deadline: Deadline::default(),
            clock_ns: 0,
            random: fastrand::Rng::with_seed(0),
        }
    }
}

type Store<'a> = StoreContextMut<'a, World>;

/// A linker with everything that `component` imports, or the name of an import
/// that the host does not provide.
pub fn linker(component: &Component) -> wasmtime::Result<Result<Linker<World>, String>> {
    let engine = component.engine();
    let mut linker = Linker::<World>::new(engine);
    linker.allow_shadowing(true);
    for (name, item) in component.component_type().imports(engine) {
        if is_plain_type(&item.ty, engine) {
            continue;
        }
        let ComponentItem::ComponentInstance(interface) = &item.ty else {
            return Ok(Err(name.to_owned()));
        };
        if name == LOGGING {
            provide_logging(&mut linker.instance(name)?)?;
            continue;
        }
        let package = PACKAGES
            .iter()
            .find(|(package, _)| name.starts_with(package));
        let (Some((_, refusal)), Some((wasi, version))) = (package, name.split_once('@')) else {
            return Ok(Err(name.to_owned()));
        };
        if !version.starts_with("0.2.") {
            return Ok(Err(name.to_owned()));
        }
        let mut instance = linker.instance(name)?;
        refuse(&mut instance, wasi, interface, engine, refusal)?;
        provide(&mut instance, wasi)?;
    }
    Ok(Ok(linker))
}

/// Whether an import is only a type, or an interface of nothing but types, for
/// which nothing has to be provided.
pub fn is_plain_type(item: &ComponentItem, engine: &Engine) -> bool {
    match item {
        ComponentItem::Type(_) => true,
        ComponentItem::ComponentInstance(interface) => interface
            .exports(engine)
            .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))),
        _ => false,
    }
}

/// Defines every function of an interface, so that it links, as one that fails.
fn refuse(
    linker: &mut LinkerInstance<'_, World>,
    interface: &str,
    ty: &ComponentInstance,
    engine: &Engine,
    why: &'static str,
) -> wasmtime::Result<()> {
    for (name, item) in ty.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let message = format!("called `{interface}#{name}`: {why}");
                linker.func_new(name, move |_, _, _, _| Err(Refused(message.clone()).into()))?;
            }
            ComponentItem::Resource(_) => {
                linker.resource(name, resource(name), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Replaces the functions of an interface that do work.
fn provide(linker: &mut LinkerInstance<'_, World>, interface: &str) -> wasmtime::Result<()> {
    match interface {
        "wasi:cli/environment" => {
            linker.func_wrap("get-environment", |_: Store<'_>, ()| {
                Ok((Vec::<(String, String)>::new(),))
            })?;
            linker.func_wrap("get-arguments", |_: Store<'_>, ()| {
                Ok((Vec::<String>::new(),))
            })?;
            linker.func_wrap("initial-cwd", |_: Store<'_>, ()| Ok((None::<String>,)))?;
        }
        "wasi:cli/stdin" => {
            linker.func_wrap("get-stdin", |_: Store<'_>, ()| {
                Ok((Resource::<InputStream>::new_own(0),))
            })?;
        }
        "wasi:cli/stdout" => {
            linker.func_wrap("get-stdout", |_: Store<'_>, ()| {
                Ok((Resource::<OutputStream>::new_own(STDOUT),))
            })?;
        }
        "wasi:cli/stderr" => {
            linker.func_wrap("get-stderr", |_: Store<'_>, ()| {
                Ok((Resource::<OutputStream>::new_own(STDERR),))
            })?;
        }
        "wasi:cli/terminal-stdin" => {
            linker.func_wrap("get-terminal-stdin", |_: Store<'_>, ()| {
                Ok((None::<Resource<TerminalInput>>,))
            })?;
        }
        "wasi:cli/terminal-stdout" => {
            linker.func_wrap("get-terminal-stdout", |_: Store<'_>, ()| {
                Ok((None::<Resource<TerminalOutput>>,))
            })?;
        }
        "wasi:cli/terminal-stderr" => {
            linker.func_wrap("get-terminal-stderr", |_: Store<'_>, ()| {
                Ok((None::<Resource<TerminalOutput>>,))
            })?;
        }
        "wasi:clocks/monotonic-clock" => {
            linker.func_wrap("now", |mut store: Store<'_>, ()| {
                let world = store.data_mut();
                world.clock_ns = world.clock_ns.saturating_add(CLOCK_STEP_NS);
                Ok((world.clock_ns,))
            })?;
            linker.func_wrap("resolution", |_: Store<'_>, ()| Ok((CLOCK_STEP_NS,)))?;
            // A subscriber is about to wait: the clock advances to that moment
            // at once.
            linker.func_wrap(
                "subscribe-instant",
                |mut store: Store<'_>, (at,): (u64,)| {
                    let world = store.data_mut();
                    world.clock_ns = world.clock_ns.max(at);
                    Ok((Resource::<Pollable>::new_own(0),))
                },
            )?;
            linker.func_wrap(
                "subscribe-duration",
                |mut store: Store<'_>, (ns,): (u64,)| {
                    let world = store.data_mut();
                    world.clock_ns = world.clock_ns.saturating_add(ns);
                    Ok((Resource::<Pollable>::new_own(0),))
                },
            )?;
        }
        "wasi:filesystem/preopens" => {
            linker.func_wrap("get-directories", |_: Store<'_>, ()| {
                Ok((Vec::<(Resource<Nothing>, String)>::new(),))
            })?;
        }
        "wasi:io/poll" => {
            linker.func_wrap(
                "[method]pollable.ready",
                |_: Store<'_>, _: (Resource<Pollable>,)| Ok((true,)),
            )?;
            linker.func_wrap(
                "[method]pollable.block",
                |_: Store<'_>, _: (Resource<Pollable>,)| Ok(()),
            )?;
            linker.func_wrap(
                "poll",
                |_: Store<'_>, (polled,): (Vec<Resource<Pollable>>,)| {
                    Ok(((0..polled.len() as u32).collect::<Vec<_>>(),))
                },
            )?;
        }
        "wasi:io/streams" => provide_streams(linker)?,
        "wasi:random/random" => {
            linker.func_wrap("get-random-bytes", random_bytes)?;
            linker.func_wrap("get-random-u64", random_u64)?;
        }
        "wasi:random/insecure" => {
            linker.func_wrap("get-insecure-random-bytes", random_bytes)?;
            linker.func_wrap("get-insecure-random-u64", random_u64)?;
        }
        "wasi:random/insecure-seed" => {
            linker.func_wrap("insecure-seed", |_: Store<'_>, ()| Ok(((0u64, 0u64),)))?;
        }
        _ => {}
    }
    Ok(())
}

fn provide_streams(linker: &mut LinkerInstance<'_, World>) -> wasmtime::Result<()> {
    for name in [
        "[method]input-stream.read",
        "[method]input-stream.blocking-read",
    ] {
        linker.func_wrap(name, |_: Store<'_>, _: (Resource<InputStream>, u64)| {
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        })?;
    }
    linker.func_wrap(
        "[method]output-stream.check-write",
        |_: Store<'_>, _: (Resource<OutputStream>,)| Ok((Ok::<_, StreamError>(WRITE_BYTES_MAX),)),
    )?;
    for name in [
        "[method]output-stream.write",
        "[method]output-stream.blocking-write-and-flush",
    ] {
        linker.func_wrap(
            name,
            |mut store: Store<'_>, (out, bytes): (Resource<OutputStream>, WasmList<u8>)| {
                let stream = if out.rep() == STDERR {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                // What exceeds the limit is dropped without being read.
                let bytes = bytes.as_le_slice(&store);
                let bytes = bytes[..bytes.len().min(WRITE_BYTES_MAX as usize)].to_vec();
                store.data_mut().printed.write(stream, &bytes);
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    for name in [
        "[method]output-stream.flush",
        "[method]output-stream.blocking-flush",
    ] {
        linker.func_wrap(name, |_: Store<'_>, _: (Resource<OutputStream>,)| {
            Ok((Ok::<(), StreamError>(()),))
        })?;
    }
    linker.func_wrap(
        "[method]output-stream.subscribe",
        |_: Store<'_>, _: (Resource<OutputStream>,)| Ok((Resource::<Pollable>::new_own(0),)),
    )
}

fn provide_logging(linker: &mut LinkerInstance<'_, World>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "log",
        |mut store: Store<'_>, (level, message): (Level, WasmStr)| {
            let message = message.to_str(&store)?;
            // Copies no more than can be logged, and one byte, to notice that
            // there was more.
            let cut = message.floor_char_boundary(CALL_BYTES_MAX + 1);
            let message = message[..cut].to_owned();
            let level = match level {
                Level::Trace => tracing::Level::TRACE,
                Level::Debug => tracing::Level::DEBUG,
                Level::Info => tracing::Level::INFO,
                Level::Warn => tracing::Level::WARN,
                Level::Error => tracing::Level::ERROR,
            };
            store.data_mut().printed.log(level, &message);
            Ok(())
        },
    )
}

/// A resource's type by its name: interfaces that use another's resource export
/// it as well, and it must be the same there.
fn resource(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "error" => ResourceType::host::<IoError>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        _ => ResourceType::host::<Nothing>(),
    }
}

fn random_bytes(mut store: Store<'_>, (len,): (u64,)) -> wasmtime::Result<(Vec<u8>,)> {
    if len > RANDOM_BYTES_MAX {
        let message = format!(
            "asked for {len} random bytes; at most {RANDOM_BYTES_MAX} are allowed at a time"
        );
        return Err(Refused(message).into());
    }
    let mut bytes = vec![0; len as usize];
    store.data_mut().random.fill(&mut bytes);
    Ok((bytes,))
}

fn random_u64(mut store: Store<'_>, (): ()) -> wasmtime::Result<(u64,)> {
    Ok((store.data_mut().random.u64(..),))
}

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

// The resources of WASI, all without data.
struct InputStream;
struct OutputStream;
struct Pollable;
struct IoError;
struct TerminalInput;
struct TerminalOutput;
/// Stands for the resources that no function returns.
struct Nothing;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "a case of WASI's type; nothing here fails")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}
