//! What all operators know of events and alarms.

use sluicebox_sdk::prelude::*;

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    View,
    /// Something is put into the cart.
    Cart,
    Purchase,
    Error,
}

/// Where events come from: a key.
#[derive(Record)]
pub struct SourceKey<'a> {
    pub source: &'a str,
}

/// An alarm is said once when it begins, and once when it is over.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    Raised,
    Over,
}
