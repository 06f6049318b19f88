//! One small pipeline, patched: each test changes lines of it and compares the
//! whole message or plan.

mod support;

mod flow;
