//! Watches what the sources of a shop's events say: how much, how often, and whether at
//! all.
//!
//! [`Flow`] measures each source in windows, and [`Threshold`] watches the measures.
//! [`Silence`] tells of sources that say nothing any more, [`Abandoned`] of users who left
//! something in their cart.

/// Carts that nobody bought.
mod abandoned;
/// Events.
mod event;
/// Rates.
mod flow;
/// Sources that say nothing.
mod silence;
/// Measures that are too high or too low.
mod threshold;

use sluicebox_sdk::prelude::*;

pub use abandoned::{Abandoned, AbandonedCart};
pub use event::{Action, Alarm, SourceKey};
pub use flow::{Flow, Rates};
pub use silence::{Silence, Silent};
pub use threshold::{Alert, Measure, Threshold};

export!(Flow, Threshold, Silence, Abandoned);
