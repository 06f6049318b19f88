//! Tells the users of a social network what those do whom they follow, and not too often.
//!
//! [`Followers`] hands an action to all who follow its actor, [`Suggest`] says how much
//! it may interest them, and [`Notify`] tells each of them the best of it once an hour at
//! most.

/// What users do.
mod action;
/// Who hears of an action.
mod followers;
/// Not too often.
mod notify;
/// How much something may interest someone.
mod suggest;

use sluicebox_sdk::prelude::*;

pub use action::{Kind, News, UserKey, done, followed};
pub use followers::{Followers, Heard};
pub use notify::{Notification, Notify};
pub use suggest::{Suggest, Suggestion};

export!(done, followed, Followers, Suggest, Notify);
