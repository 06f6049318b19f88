//! The rows between the stages of a recommender, and their states.
//!
//! The host orders rows of a key and event time by their content, from the first column
//! on. So what says where a row belongs in the order of all comes first.

use super::{Answered, Recommender};
use crate::ports::two::PortNames;
use crate::record::{And, Named, field_names};
use crate::{Record, Text, Timestamp};

/// The key of stages by user, and what tells it to the next one.
#[derive(Record)]
pub struct UserKey<'a> {
    pub user: &'a str,
}

/// The key of stages by item.
#[derive(Record)]
pub struct ItemKey<'a> {
    pub item: &'a str,
}

/// What the host puts before an interaction. Its name differs from those of authors.
#[derive(Record)]
pub struct OfUser<'a> {
    pub recommend_user: &'a str,
}

/// An interaction as it comes.
pub type Came<'a, P> = And<OfUser<'a>, <P as Recommender>::Interaction<'a>>;

/// How popular an item is.
#[derive(Record, Clone, Default)]
pub struct Popularity {
    /// When `weight` was computed.
    pub time: Timestamp,
    pub weight: f64,
}

/// What is added to an interaction.
#[derive(Record)]
pub struct Counting<'a> {
    pub user: &'a str,
    pub item: &'a str,
    /// Of the item, this interaction included.
    pub popularity: f64,
}

/// An interaction with the popularity of its item.
pub type Counted<'a, P> =
    And<Counting<'a>, Named<OfInteraction, <P as Recommender>::Interaction<'a>>>;

/// A request with its user.
pub type Asked<'a, P> = And<UserKey<'a>, Named<OfRequest, <P as Recommender>::Request<'a>>>;

/// A user's profile.
pub type Profiled<P> = And<Numbered, Named<OfProfile, <P as Recommender>::Profile>>;

/// What numbers the rows of a user.
#[derive(Record, Clone, Default)]
pub struct Numbered {
    /// How many rows have been taken.
    pub rows: u64,
    /// Whether there was an interaction among them.
    pub is_known: bool,
}

/// Asks an item's model, tells it something, or both, in this order.
pub type ToModel<P> = And<Address, Named<OfPair, Option<<P as Recommender>::Pair>>>;

#[derive(Record)]
pub struct Address {
    pub item: Text,
    pub user: Text,
    /// The number of the user's row that this comes from.
    pub row: u64,
    /// The number of this one of all that come from it, from 1.
    pub part: u32,
    pub asks: bool,
    /// Of the ask.
    pub weight: f64,
}

/// A request, or the answer of an item's model to it.
pub type ToAnswer<P> = And<
    Part,
    And<Named<OfQuery, Option<<P as Recommender>::Query>>, Named<OfAnswer, Option<Answered>>>,
>;

#[derive(Record)]
pub struct Part {
    pub user: Text,
    /// The number of the user's row that asks.
    pub row: u64,
    /// 0 for the request; answers have the number of what asked for them.
    pub part: u32,
    /// How many answers will come, in a request.
    pub answers: u32,
}

/// A request whose answers have not all come.
pub type Pending<P> =
    And<Expected, And<Named<OfQuery, <P as Recommender>::Query>, Named<OfAnswers, Vec<Answered>>>>;

#[derive(Record, Clone)]
pub struct Expected {
    pub time: Timestamp,
    pub row: u64,
    /// How many answers will have come.
    pub expected: u32,
}

field_names! {
    OfInteraction: "interaction",
    OfRequest: "request",
    OfProfile: "profile",
    OfPair: "pair",
    OfQuery: "query",
    OfAnswer: "answer",
    OfAnswers: "answers",
}

/// The inputs of a stage that takes requests and interactions, of which requests come
/// first in the order of rows.
pub enum Rows {}

impl PortNames for Rows {
    const NAMES: [&'static str; 2] = ["requests", "interactions"];
}

/// The outputs of such a stage.
pub enum Next {}

impl PortNames for Next {
    const NAMES: [&'static str; 2] = ["models", "answers"];
}
