//! The rows that an inventory takes and makes.

use sluicebox_sdk::prelude::*;

/// The inputs of an [`Inventory`](crate::Inventory).
#[derive(Ports)]
pub enum Input<'a> {
    Requests(Request<'a>),
    Stock(StockChange),
}

/// Something that a user does with an item.
#[derive(Record, Clone, Copy)]
pub struct Request<'a> {
    pub user_id: &'a str,
    pub action: Action,
    /// How many of the item.
    pub quantity: i64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Into the cart.
    Add,
    /// Out of the cart.
    Remove,
    View,
    /// Bought and paid.
    Checkout,
    /// Not paid.
    Failed,
    /// Sent back after a checkout: it can be sold again.
    Return,
}

/// What comes into the warehouse or, if it is negative, is not there any more.
#[derive(Record)]
pub struct StockChange {
    pub change: i64,
}

/// The outputs of an [`Inventory`](crate::Inventory).
#[derive(Ports, Debug, PartialEq)]
pub enum Output<'a> {
    Reserved(Reserved<'a>),
    Refused(Refused<'a>),
    Released(Released<'a>),
    Sold(Sold<'a>),
    Low(LowStock<'a>),
}

/// A request that can be fulfilled.
#[derive(Record, Debug, PartialEq)]
pub struct Reserved<'a> {
    pub item_id: &'a str,
    pub user_id: &'a str,
    pub quantity: i64,
    /// The stock that others can still reserve.
    pub left: i64,
    /// When it is released, if the user does nothing.
    pub expires: Timestamp,
}

/// A request that cannot be fulfilled.
#[derive(Record, Debug, PartialEq)]
pub struct Refused<'a> {
    pub item_id: &'a str,
    pub user_id: &'a str,
    pub action: Action,
    pub quantity: i64,
    pub left: i64,
    pub reason: Reason,
    pub at: Timestamp,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is more than the stock left.
    SoldOut,
    /// A checkout of more than the user has reserved.
    NotReserved,
    /// Too many users have reservations.
    TooMany,
}

impl Reason {
    /// Why an action is refused for an item that has no stock at all. Nobody has to be
    /// told that there is nothing to give back.
    pub(crate) fn without_stock(action: Action) -> Option<Reason> {
        match action {
            Action::Add => Some(Reason::SoldOut),
            Action::Checkout => Some(Reason::NotReserved),
            Action::Remove | Action::View | Action::Failed | Action::Return => None,
        }
    }
}

/// What is not reserved any more, and can be reserved by others.
#[derive(Record, Debug, PartialEq)]
pub struct Released<'a> {
    pub item_id: &'a str,
    pub user_id: String,
    pub quantity: i64,
    pub why: Why,
    pub at: Timestamp,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Removed,
    /// The payment failed.
    Failed,
    /// The user did nothing for too long.
    Abandoned,
    /// The stock is gone, and nobody can reserve it.
    WrittenOff,
}

/// What has left the shop.
#[derive(Record, Debug, PartialEq)]
pub struct Sold<'a> {
    pub item_id: &'a str,
    pub user_id: &'a str,
    pub quantity: i64,
    pub at: Timestamp,
}

/// An item of which little is left; said once until there is more.
#[derive(Record, Debug, PartialEq)]
pub struct LowStock<'a> {
    pub item_id: &'a str,
    pub left: i64,
    pub at: Timestamp,
}
