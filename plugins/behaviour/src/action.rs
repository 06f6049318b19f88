//! What users do, where they are, and what they may do next.

use sluicebox_sdk::prelude::*;

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    View,
    /// Something is put into the cart.
    Add,
    Remove,
    Checkout,
}

/// What a user did last.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing in this visit.
    Start,
    View,
    Add,
    Remove,
    Checkout,
}

impl Place {
    pub const COUNT: usize = 5;
}

impl From<Action> for Place {
    fn from(action: Action) -> Place {
        match action {
            Action::View => Place::View,
            Action::Add => Place::Add,
            Action::Remove => Place::Remove,
            Action::Checkout => Place::Checkout,
        }
    }
}

/// What a user may do next.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    View,
    Add,
    Remove,
    Checkout,
    /// Nothing more in this visit.
    Leave,
}

impl Next {
    pub const COUNT: usize = 5;
}

impl From<Action> for Next {
    fn from(action: Action) -> Next {
        match action {
            Action::View => Next::View,
            Action::Add => Next::Add,
            Action::Remove => Next::Remove,
            Action::Checkout => Next::Checkout,
        }
    }
}

/// What operators by user read of their key.
#[derive(Record)]
pub struct UserKey<'a> {
    pub user_id: &'a str,
}
