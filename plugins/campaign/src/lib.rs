//! What the campaigns of a shop bring: who takes part in them and buys, which of them a
//! purchase is due to, and which of two variants is better.
//!
//! What happened while an item was promoted is found by joins of the pipeline, and sums
//! are functions of the host. What is left are functions of single rows ([`offered`],
//! [`taken`], [`clicked`], [`bought`], [`conversion`]) and two aggregates: [`Credit`],
//! which gives a purchase to one of the clicks before it, and [`Compare`].

/// Which variant is better.
mod compare;
/// Which click a purchase is due to.
mod credit;
/// Single rows.
mod rows;

use sluicebox_sdk::prelude::*;

pub use compare::{Compare, Compared};
pub use credit::{Credit, Credited, Touch};
pub use rows::{
    Action, Campaign, Promotion, Sums, Taken, Variant, bought, clicked, conversion, offered, taken,
};

export!(offered, taken, clicked, bought, conversion, Credit, Compare);
