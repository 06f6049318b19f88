//! One small pipeline, patched: each test changes lines of it and compares the
//! whole message or plan.

pub(crate) mod support;

mod cycles;
mod documentation;
mod event_time;
mod files;
mod flow;
mod keys;
mod late;
mod names;
mod parameters;
mod plugins;
mod random;
mod together;
mod types;
mod warnings;
mod windows;
