use sluicebox_sdk::prelude::*;

/// What a user did to an item.
#[derive(Record, Clone, Debug)]
pub struct Interaction<'a> {
    /// What it was: a view, a purchase.
    pub action: &'a str,
    /// What kind of item it is.
    pub category: Option<&'a str>,
}

/// Asks for recommendations.
#[derive(Record, Clone, Debug, Default)]
pub struct Request<'a> {
    /// Given back with the answer.
    pub request: Option<&'a str>,
    /// Asks what goes with this item, whatever the user has done. Without it, the user's
    /// own items are asked.
    pub item: Option<&'a str>,
    /// Where there is too little else, popular items of this category come first.
    pub category: Option<&'a str>,
}

/// The answer to a request.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Recommendations {
    pub user: String,
    /// When it was asked.
    pub time: Timestamp,
    /// The request's, or the item of the interaction that asked.
    pub request: Option<String>,
    /// The request's.
    pub item: Option<String>,
    /// The best first.
    pub recommended: Vec<Recommended>,
}

/// A recommended item, and why.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Recommended {
    pub item: String,
    /// Compares items of the same reason.
    pub score: f64,
    pub reason: Reason,
    /// The items of the user that count most for it: "since you bought …".
    pub since: Vec<String>,
}

/// Why an item is recommended.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It goes with items of the user, or with the item that was asked for.
    Related,
    /// It is popular in the category.
    PopularInCategory,
    Popular,
}
