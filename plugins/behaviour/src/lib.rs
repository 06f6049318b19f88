//! What the users of a shop do next, and who does something unusual.
//!
//! [`Steps`] follows each user from action to action. [`Model`] counts what follows what,
//! for all users together: it says how probable each next action is, and tells of actions
//! that were improbable. [`Usual`] knows how much each user does in a window, and tells
//! when it is far from that.

/// What users do.
mod action;
/// How probable actions are.
mod model;
/// From action to action.
mod steps;
/// How much users do.
mod usual;

use sluicebox_sdk::prelude::*;

pub use action::{Action, Next, Place, UserKey};
pub use model::{Counts, Improbable, Model, Prediction};
pub use steps::{Question, Step, Steps};
pub use usual::{Unusual, Usual};

export!(Steps, Model, Usual);
