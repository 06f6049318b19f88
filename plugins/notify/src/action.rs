//! What users do.

use sluicebox_sdk::prelude::*;

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Post,
    Like,
    Comment,
    Follow,
    Unfollow,
}

#[derive(Record)]
pub struct Action {
    pub kind: Kind,
}

/// Keeps what others may want to hear of.
#[operator]
pub fn done(action: Action) -> bool {
    !followed(action)
}

/// Keeps who begins or ends to follow someone.
#[operator]
pub fn followed(action: Action) -> bool {
    matches!(action.kind, Kind::Follow | Kind::Unfollow)
}

/// What others may want to hear of.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    Post,
    Like,
    Comment,
}

/// What operators by user read of their key.
#[derive(Record)]
pub struct UserKey<'a> {
    pub user_id: &'a str,
}
