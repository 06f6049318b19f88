//! Sluicebox hosts streaming pipelines whose operators are WebAssembly plugins.
//!
//! The modules, in the order in which a pipeline and then a row meet them:

/// Rows on their way.
pub mod batch;
/// Processing time.
pub mod clock;
/// What a pipeline's author wrote, with its places in the file.
pub mod config;
/// Bytes into columns.
pub mod decode;
/// The one thing that travels between tasks.
pub mod element;
/// What an operator of a plugin computes, as the host calls it.
pub mod logic;
/// Operators at work, and what becomes of a row that they fail on.
pub mod operator;
/// What that means: a checked graph of typed nodes.
pub mod plan;
/// Plugins: compiled, described, run within limits.
pub mod plugin;
/// Types and names of columns.
pub mod schema;
/// Where rows go.
pub mod sink;
/// Where rows come from.
pub mod source;
/// Keyed state: typed tables.
pub mod state;
/// Points in time as text, in and out.
pub mod timestamp;
/// Which rows belong together, and when their result is due.
pub mod window;
