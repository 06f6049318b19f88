//! Recommends items to users: the host keeps a profile of each user and a model of each
//! item, and the author says how they learn and answer.
//!
//! A recommender is run as processes, its stages, between which rows are routed by user
//! and by item.

/// How a value loses weight with time.
mod decay;
/// A recommender in unit tests.
pub mod rehearsal;
/// The rows between stages.
mod rows;
/// The processes that a recommender is run as.
pub mod stages;
#[cfg(test)]
mod tests;

use crate::{Field, Owned, Parameters, Record, Reject, Text, Timestamp};
pub use decay::decayed;

/// Recommends items to users, of what they have done before.
///
/// The type that implements it carries `#[operator(recommend)]`, and its fields are the
/// operator's [`Parameters`]. The operator is named after it, in snake case.
///
/// A pipeline says which fields of its rows are the user and the item, which are texts:
/// `key = { user = "user_id", item = "item_id" }`. The host keeps a profile of each user
/// and a model of each item, and the value itself must keep nothing:
///
/// 1. [`interact`](Recommender::interact) takes what a user did: it changes the user's
///    profile, and says what the models of items are to learn of it.
/// 2. [`learn`](Recommender::learn) changes the model of an item.
/// 3. [`ask`](Recommender::ask) says of a request which items' models are to be asked, and
///    what of the profile is needed to rank what they answer.
/// 4. [`candidates`](Recommender::candidates) has the model of an item answer.
/// 5. [`rank`](Recommender::rank) makes the answer to the request.
///
/// Requests are rows of an input of their own, or each interaction is one: it is then
/// answered first, and learnt from afterwards.
///
/// All rows are taken in order of event time. Rows of the same time are taken in order of
/// user; of a user, requests before interactions; these in order of item, then of their
/// other fields. A request sees what was before it in this order, and nothing else, at any
/// parallelism and after every crash.
///
/// Profiles and models pass into the sandbox and back, so they should be bounded: a list
/// of the latest items, the strongest neighbours of an item.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Purchase {
///     quantity: u32,
/// }
///
/// #[derive(Record)]
/// struct Request {
///     count: u32,
/// }
///
/// /// The last thing that a user has bought.
/// #[derive(Record, Clone, Default)]
/// struct Last {
///     item: Option<Text>,
/// }
///
/// /// What users have bought after an item.
/// #[derive(Record, Clone, Default)]
/// struct Followers {
///     items: Vec<Follower>,
/// }
///
/// #[derive(Record, Clone)]
/// struct Follower {
///     item: Text,
///     times: u32,
/// }
///
/// #[derive(Record, Clone)]
/// struct Followed {
///     by: Text,
/// }
///
/// #[derive(Record, Clone)]
/// struct Query {
///     count: u32,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Next {
///     items: Vec<Text>,
/// }
///
/// /// What others have bought next.
/// #[operator(recommend)]
/// struct BoughtNext {
///     /// How many items are kept of those that follow one.
///     #[parameter(default = 50)]
///     followers_max: u32,
/// }
///
/// impl Recommender for BoughtNext {
///     type Interaction<'a> = Purchase;
///     type Request<'a> = Request;
///     type Profile = Last;
///     type Model = Followers;
///     type Pair = Followed;
///     type Query = Query;
///     type Answer = Next;
///
///     fn interact(
///         &self,
///         profile: &mut Last,
///         _purchase: &Purchase,
///         event: &Event<'_>,
///     ) -> Result<Vec<Lesson<Followed>>, Reject> {
///         let before = profile.item.replace(event.item.into());
///         let by = event.item.into();
///         Ok(before.map(|item| Lesson { item, pair: Followed { by } }).into_iter().collect())
///     }
///
///     fn learn(&self, model: &mut Followers, pair: Followed, _time: Timestamp) {
///         let has_room = model.items.len() < self.followers_max as usize;
///         let known = model.items.iter_mut().find(|follower| follower.item == pair.by);
///         match known {
///             Some(follower) => follower.times += 1,
///             None if has_room => model.items.push(Follower { item: pair.by, times: 1 }),
///             None => {}
///         }
///     }
///
///     fn ask(&self, last: &Last, request: &Request, _asking: &Asking<'_>) -> Question<Query> {
///         let asks = last.item.iter().map(|item| Ask { item: item.clone(), weight: 1.0 });
///         Question { asks: asks.collect(), query: Query { count: request.count } }
///     }
///
///     fn request_of(&self, _purchase: &Purchase, _event: &Event<'_>) -> Request {
///         Request { count: 3 }
///     }
///
///     fn candidates(&self, model: &Followers, _time: Timestamp) -> Vec<Candidate> {
///         let candidate = |follower: &Follower| Candidate {
///             item: follower.item.clone(),
///             score: f64::from(follower.times),
///         };
///         model.items.iter().map(candidate).collect()
///     }
///
///     fn rank(&self, query: Query, answered: &[Answered], _asking: &Asking<'_>) -> Next {
///         let mut candidates: Vec<&Candidate> =
///             answered.iter().flat_map(|answered| &answered.candidates).collect();
///         candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
///         let items = candidates.iter().take(query.count as usize);
///         Next { items: items.map(|candidate| candidate.item.clone()).collect() }
///     }
/// }
///
/// export!(BoughtNext);
///
/// let mut shop = sluicebox_sdk::Rehearsal::new(BoughtNext { followers_max: 50 });
/// for (second, user, item) in [(1, "ann", "tea"), (2, "ann", "pot"), (3, "bob", "tea")] {
///     let purchase = Purchase { quantity: 1 };
///     shop.interact(Timestamp(second * 1_000), user, item, purchase).unwrap();
/// }
/// let next = shop.request(Timestamp(4_000), "bob", Request { count: 3 });
/// assert_eq!(next.items, ["pot"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a recommender",
    label = "has `#[operator(recommend)]`, but no `impl Recommender`",
    note = "a struct with `#[operator(recommend)]` must implement `sluicebox_sdk::Recommender`"
)]
pub trait Recommender: Parameters {
    /// What a row tells of an interaction besides its user and its item.
    type Interaction<'a>: Record<'a> + Field<'a>;
    /// What a row tells of a request besides its user.
    type Request<'a>: Record<'a> + Field<'a>;
    /// What is kept of a user.
    type Profile: Owned + Default;
    /// What is kept of an item.
    type Model: Owned + Default;
    /// What an item's model learns from an interaction.
    type Pair: Owned;
    /// What is needed to rank the answers to a request.
    type Query: Owned;
    /// The rows that it makes, one for each request.
    type Answer: for<'a> Record<'a>;

    /// Takes an interaction: changes the profile of its user, and returns what the models
    /// of items are to learn. An interaction that is rejected changes nothing, but counts
    /// for the [popularity](Event::popularity) of its item.
    fn interact(
        &self,
        profile: &mut Self::Profile,
        interaction: &Self::Interaction<'_>,
        event: &Event<'_>,
    ) -> Result<Vec<Lesson<Self::Pair>>, Reject>;

    /// Changes the model of an item.
    fn learn(&self, model: &mut Self::Model, pair: Self::Pair, time: Timestamp);

    /// Says which items' models are to be asked. A user of whom nothing is known has the
    /// default profile.
    fn ask(
        &self,
        profile: &Self::Profile,
        request: &Self::Request<'_>,
        asking: &Asking<'_>,
    ) -> Question<Self::Query>;

    /// The request that an interaction makes, where each interaction is one.
    fn request_of<'a>(
        &self,
        interaction: &Self::Interaction<'a>,
        event: &Event<'a>,
    ) -> Self::Request<'a>;

    /// The items that go with an item, by its model, with scores. An item without a model
    /// has none.
    fn candidates(&self, model: &Self::Model, time: Timestamp) -> Vec<Candidate>;

    /// Makes the answer to a request. `answered` are in the order in which they were
    /// [asked](Question::asks).
    fn rank(&self, query: Self::Query, answered: &[Answered], asking: &Asking<'_>) -> Self::Answer;

    /// How much an interaction counts for the [popularity](Event::popularity) of its item.
    fn weight(&self, interaction: &Self::Interaction<'_>) -> f64 {
        let _ = interaction;
        1.0
    }

    /// The time in which the [popularity](Event::popularity) of an item falls to half if
    /// nothing happens. Without one, it never falls.
    fn half_life_ms(&self) -> Option<i64> {
        None
    }
}

/// An interaction, as a [`Recommender`] sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// Who did it.
    pub user: &'a str,
    /// To which item.
    pub item: &'a str,
    /// When it happened.
    pub time: Timestamp,
    /// How often the item has been interacted with, this time included: the sum of
    /// [weights](Recommender::weight), which [decay](Recommender::half_life_ms).
    pub popularity: f64,
}

/// A request, as a [`Recommender`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking<'a> {
    /// Who asks.
    pub user: &'a str,
    /// When.
    pub time: Timestamp,
}

/// What the model of an item is to learn.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson<P> {
    /// The item whose model learns. It need not be one that users interact with: the model
    /// of `""`, say, may learn of all that happens.
    pub item: Text,
    /// What it learns.
    pub pair: P,
}

/// What a request is turned into.
#[derive(Clone, Debug, PartialEq)]
pub struct Question<Q> {
    /// The items whose models are asked.
    pub asks: Vec<Ask>,
    /// What is needed to rank what they answer.
    pub query: Q,
}

/// An item whose model is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The item.
    pub item: Text,
    /// Passed on to [`Recommender::rank`].
    pub weight: f64,
}

/// What the model of an item has answered.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Answered {
    /// The item that was asked.
    pub item: Text,
    /// Its weight in the question.
    pub weight: f64,
    /// What goes with it.
    pub candidates: Vec<Candidate>,
}

/// An item that goes with another.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The item.
    pub item: Text,
    /// How well it goes with the other.
    pub score: f64,
}
