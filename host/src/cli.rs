//! What the command line's commands do, as plain functions. Parsing of
//! arguments, exit codes and Ctrl-C are the binary's.

/// `sluicebox build`: a crate made into a plugin.
pub mod build;
/// `sluicebox new`: plugins and pipelines to start from.
pub mod new;
