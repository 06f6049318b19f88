//! Sluicebox hosts streaming pipelines whose operators are WebAssembly plugins.
//!
//! The modules, in the order in which a pipeline and then a row meet them:

/// Types and names of columns.
pub mod schema;
/// What an operator of a plugin computes, as the host calls it.
pub mod logic;
/// What a pipeline's author wrote, with its places in the file.
pub mod config;
/// What that means: a checked graph of typed nodes.
pub mod plan;
/// Plugins: compiled, described, run within limits.
pub mod plugin;
/// Processing time.
pub mod clock;
/// Rows on their way.
pub mod batch;
/// The one thing that travels between tasks.
pub mod element;
/// Where rows come from.
pub mod source;
/// Bytes into columns.
pub mod decode;
/// Operators at work, and what becomes of a row that they fail on.
pub mod operator;
/// Which rows belong together, and when their result is due.
pub mod window;
/// Keyed state: typed tables.
pub mod state;
/// Where rows go.
pub mod sink;
