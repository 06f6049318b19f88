//! Sluicebox hosts streaming pipelines whose operators are WebAssembly plugins.
//!
//! The modules, in the order in which a pipeline and then a row meet them:

// The command line.
pub mod cli;
// What a pipeline's author wrote, with its places in the file.
pub mod config;
// What that means: a graph of typed nodes.
pub mod plan;
// From config to plan, and every mistake on the way.
pub mod planner;
// Durations and sizes as people write them.
pub(crate) mod quantity;
// The nearest name to a wrong one.
pub(crate) mod suggest;
// The files of a pipeline, each for one use.
pub mod files;
// Types and names of columns.
pub mod schema;
// What an operator of a plugin computes, as the host calls it.
pub mod logic;
// Plugins: compiled, described, run within limits.
pub mod plugin;
// A plan, made into tasks and run.
pub mod run;
// Whose an error is, and whether trying again can help.
pub mod blame;
// Asks a run to end early.
pub mod stop;
// Where calls run that block.
mod offload;
// Which task has which partitions and shards.
pub mod placement;
// How far a run has come.
pub mod progress;
// Processing time.
pub mod clock;
// Rows on their way.
pub mod batch;
// The one thing that travels between tasks.
pub mod element;
// How rows are written in a stream of bytes.
pub mod format;
// Systems that rows come from and go to: a folder each.
pub mod connector;
// Where rows come from.
pub mod source;
// Bytes into columns.
pub mod decode;
// Points in time as text, in and out.
pub mod timestamp;
// Rows as JSON text.
pub mod json;
// Values as plain text.
pub(crate) mod text;
// Rows that were given up, and what they are replayed by.
pub mod dead_letter;
// The loop that moves elements through a task.
pub mod task;
// The way into a task.
pub mod gate;
// Operators at work, and what becomes of a row that they fail on.
pub mod operator;
// Which rows belong together, and when their result is due.
pub mod window;
// Memory that states may take.
pub mod budget;
// Keyed state: typed tables.
pub mod state;
// What survives: barriers, checkpoints, the commit.
pub mod checkpoint;
// The way out of a task.
pub mod router;
// A topic in memory.
pub mod topic;
// Where rows go.
pub mod sink;
// Pipelines put to the test.
pub mod testing;
