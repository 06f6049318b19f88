//! The host as a service: runs the pipelines of a folder, and changes them while they run.
//!
//! A pipeline's file and the plugins that it names are its *content*. When the content
//! changes, it is planned beside the revision that runs, and refused if it has mistakes
//! or does not fit the state. What is accepted takes over at a checkpoint, and is on
//! probation first: what it puts out is not committed until it has held. If it does not
//! hold, the pipeline goes back to that checkpoint, with the content from before.

/// Files that are replaced as a whole.
mod whole_files;
/// The plugins that were uploaded.
pub mod uploads;
/// Pipelines' files and the plugins that they name.
pub mod content;
/// What a change of the content does to each node.
pub mod change;
/// What the service remembers of each pipeline, and the contents that it needs.
pub mod store;
/// What became of a pipeline's dead letters.
pub mod letters;
/// Rows of dead letters, and the sources that read them again.
pub mod replay;
/// A content that is planned.
pub mod revision;
/// What is kept of its nodes.
pub mod kept;
/// Whether a new revision does well.
mod probation;
/// What pipelines have of files, so that no two write one.
mod claims;
/// Rows that plugins got lately.
pub mod recent;
/// Tries a plugin on them, beside the one that runs.
pub mod shadow;
/// What holds back others.
pub mod load;
/// One pipeline: what is wanted of it, and what can be seen of it.
pub mod hosted;
/// Runs what is wanted of a pipeline.
mod course;
/// All pipelines, and the folder of their files.
pub mod host;
/// What needs the plugins that were uploaded.
pub mod needs;
/// Who may use the HTTP interface.
pub mod tokens;
/// The HTTP interface.
pub mod api;
