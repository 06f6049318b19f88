//! Shopping carts: cleans, counts and ranks what users do with items.
//!
//! The operators in the order in which a pipeline uses them: [`clean`], then
//! [`changes`] and [`RunningCart`] or [`LeftCarts`], [`adds`] with [`Added`] or with
//! [`ItemCounts`] and [`Top`], and [`Session`]; [`Bill`] for orders.

/// What orders cost.
mod bill;
/// Counts by user and by item.
mod counts;
/// Events: cleaning, and changes of carts.
mod events;
/// Carts that were filled and left.
mod left;
/// The content of each user's cart.
mod running;
/// Visits of users.
mod session;
/// The best items.
mod top;

use sluicebox_sdk::prelude::*;

pub use bill::Bill;
pub use counts::{Added, ItemCounts};
pub use events::{Action, adds, changes, clean};
pub use left::LeftCarts;
pub use running::RunningCart;
pub use session::Session;
pub use top::Top;

export!(
    clean,
    changes,
    RunningCart,
    LeftCarts,
    adds,
    Added,
    ItemCounts,
    Top,
    Session,
    Bill
);
