//! Runs the examples' pipelines on a day of generated rows, with disorder, duplicates and
//! bad rows, and compares their results with naive computations.

/// Plugins, built once.
mod common;
/// Runs at every batch size and parallelism.
#[path = "common/everywhere.rs"]
mod everywhere;
/// Reads the examples' files.
#[path = "common/pages.rs"]
#[expect(dead_code, reason = "pipelines have no blocks")]
mod pages;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

/// Rows of a day.
#[path = "scenarios/day.rs"]
mod day;
/// What users do next, and what is unusual.
#[path = "scenarios/behaviour.rs"]
mod behaviour;
/// What campaigns bring.
#[path = "scenarios/campaign.rs"]
mod campaign;
/// Stock that is never oversold.
#[path = "scenarios/inventory.rs"]
mod inventory;
/// Rates, alarms and abandoned carts.
#[path = "scenarios/monitoring.rs"]
mod monitoring;
/// Notifications of what others do.
#[path = "scenarios/notify.rs"]
mod notify;
/// What goes with what.
#[path = "scenarios/recommend.rs"]
mod recommend;
/// Sums and words.
#[path = "scenarios/classics.rs"]
mod classics;
