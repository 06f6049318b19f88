//! One small pipeline, changed a little by each test.

/// The pipeline that tests start from.
mod support;

/// The page about the pipeline file.
mod documentation;
/// What good pipelines become.
mod flow;
/// Every mistake, and its message.
mod mistakes;
/// Files of any bytes.
mod random;
/// Files that are not a pipeline's text.
mod reading;
/// What outlives a failure.
mod state;
