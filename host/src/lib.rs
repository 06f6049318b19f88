//! Sluicebox hosts streaming pipelines whose operators are WebAssembly plugins.
//!
//! The modules, in the order in which a pipeline and then a row meet them:

// The command line.
pub mod cli;
// The host as a service: many pipelines, which change while they run.
pub mod service;
// Reads a pipeline's file, and shows mistakes in it.
pub mod config;
// The plan: a graph of typed nodes.
pub mod plan;
// Makes a plan of a config, and finds every mistake.
pub mod planner;
// Durations and sizes as people write them.
pub(crate) mod quantity;
// The nearest name to a wrong one.
pub(crate) mod suggest;
// Checks that no file of a pipeline is used twice.
pub mod files;
// Paths of files, and what is done with files and folders.
mod paths;
// Types and names of columns.
pub mod schema;
// The traits by which the host calls operators, Wasm or native.
pub mod logic;
// Plugins: compiled, described, run within limits.
pub mod plugin;
// Operators that need no plugin.
pub mod builtin;
// Runs a plan: tasks, restarts, threads.
pub mod run;
// Who is to blame for an error, and whether trying again can help.
pub mod blame;
// The request to end a run early.
pub mod stop;
// On which thread blocking calls run.
mod offload;
// Which shard a key belongs to.
pub mod shard;
// Assigns partitions and shards to tasks.
pub mod placement;
// The memory of this process that is free.
mod heap;
// Calls of libraries that may panic.
mod guarded;
// Counters of a run.
pub mod progress;
// Processing time.
pub mod clock;
// Tells whether a file has changed.
pub(crate) mod file_stamp;
// How many files may be open, and which the process was started with.
mod descriptors;
// Opens devices and pipes.
mod devices;
// Whose a file is and who may use it.
mod access;
// Answers HTTP, within limits.
pub mod http;
// Batches of rows.
pub mod batch;
// Everything that travels between tasks.
pub mod element;
// Schemas of Avro.
pub mod avro;
// Schemas of Protobuf.
pub mod protobuf;
// Numbers of as many bytes as they need.
pub mod varint;
// The formats of rows in a stream of bytes.
pub mod format;
// Systems that rows come from and go to, a folder each.
pub mod connector;
// Where rows come from.
pub mod source;
// Decodes bytes to columns.
pub mod decode;
// Encodes columns as messages with a schema.
pub mod encode;
// Reads and writes decimals.
pub mod decimal;
// Reads and writes timestamps.
pub mod timestamp;
// Words for numbers that text does not have.
mod non_finite;
// Rows as JSON text.
pub mod json;
// What is secret in addresses.
pub(crate) mod credentials;
// Digests as text.
mod digest;
// Object stores: how they are reached.
mod store;
// Values as plain text.
pub(crate) mod text;
// Rows that could not be processed.
pub mod dead_letter;
// The loop that moves elements through a task.
pub mod task;
// Merges a task's inputs.
pub mod gate;
// Runs operators, and handles rows that they fail on.
pub mod operator;
// Which rows belong together, and when their result is due.
pub mod window;
// Rows and timers that change the states of keys.
pub mod process;
// Joins the rows of two inputs that have the same key.
pub mod join;
// Long lists that change in their middle.
mod chunked;
// Memory that states may take.
pub mod budget;
// Keyed state in typed tables.
pub mod state;
// Checkpoints: barriers, snapshots, storage, commit.
pub mod checkpoint;
// Shows rows that leave a node.
pub mod tap;
// Sends a task's output to other tasks.
pub mod router;
// A topic in memory.
pub mod topic;
/// Spans of what a host does, for OpenTelemetry.
mod traces;
// Where rows go.
pub mod sink;
// `sluicebox test`: runs a pipeline in many variants and compares rows.
pub mod testing;
