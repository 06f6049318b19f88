//! Recommends the items of a shop to its users, of what they have done before.
//!
//! [`Items`] is a recommender with a choice of algorithms. [`item_requests`] and
//! [`user_requests`] make requests of events.

/// What happens, what is asked, and what is answered.
mod event;
/// The recommender.
mod items;
/// What is kept of an item.
mod model;
/// What is kept of a user.
mod profile;
/// Ranks candidates.
mod ranking;
/// Makes requests of events.
mod requests;
#[cfg(test)]
mod tests;

use sluicebox_sdk::prelude::*;

pub use event::{Interaction, Reason, Recommendations, Recommended, Request};
pub use items::{Algorithm, Items};
pub use model::{Damping, Model, Neighbour, Pair, Session};
pub use profile::{Profile, Recent};
pub use ranking::Query;
pub use requests::{item_requests, user_requests};

export!(Items, item_requests, user_requests);
