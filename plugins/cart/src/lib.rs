//! Shopping carts: what users do with items, cleaned, counted and ranked.
//!
//! The operators in the order in which a pipeline uses them: [`clean`], then
//! [`changes`] and [`RunningCart`], [`adds`] with [`Added`] or with
//! [`ItemCounts`] and [`Top`], and [`Session`].

/// Counts per user and per item.
mod counts;
/// What is kept of the events, and how they are checked.
mod events;
/// What is in each user's cart.
mod running;
/// What a user did in one visit.
mod session;
/// The best few of many.
mod top;

use sluicebox_sdk::prelude::*;

pub use counts::{Added, ItemCounts};
pub use events::{Action, adds, changes, clean};
pub use running::RunningCart;
pub use session::Session;
pub use top::Top;

export!(
    clean,
    changes,
    RunningCart,
    adds,
    Added,
    ItemCounts,
    Top,
    Session
);
