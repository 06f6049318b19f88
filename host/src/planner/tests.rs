//! Plans one small pipeline, which each test changes a little.

/// The pipeline that tests start from, and its plugin.
mod support;

/// `docs/config.md` agrees with the code.
mod documentation;
/// Plans of good pipelines.
mod flow;
/// Mistakes and their messages.
mod mistakes;
/// Random files.
mod random;
/// Files that are not a pipeline's text.
mod reading;
/// State, checkpoints and restarts.
mod state;
