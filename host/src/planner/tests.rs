//! One small pipeline, changed a little by each test.

mod support;

mod documentation;
mod flow;
mod mistakes;
mod random;
mod reading;
mod state;
