use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use sluicebox_sdk::prelude::*;

use crate::event::{Reason, Recommendations, Recommended};

/// What is needed to rank the answers to a request.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Query {
    pub request: Option<String>,
    pub item: Option<String>,
    /// Items that are not recommended.
    pub excluded: Vec<String>,
}

/// The model that has the items which are popular altogether; that of a category has its
/// name behind it.
pub const POPULAR: &str = "popular:";

/// How many items are named as the reason for one.
const SINCE_MAX: usize = 3;

/// A candidate, and what it is one for.
struct Scored<'a> {
    score: f64,
    /// How much each item contributes.
    since: Vec<(&'a str, f64)>,
}

/// The best candidates that the user's items have answered, then popular items.
pub fn rank(
    query: Query,
    answered: &[Answered],
    asking: &Asking<'_>,
    count: usize,
) -> Recommendations {
    let mut excluded: HashSet<&str> = query.excluded.iter().map(String::as_str).collect();
    let (popular, related): (Vec<&Answered>, Vec<&Answered>) = answered
        .iter()
        .partition(|answered| answered.item.starts_with(POPULAR));
    let mut recommended = best(&related, &excluded, count, Reason::Related);
    for list in popular {
        excluded.extend(answered_items(&recommended, answered));
        let reason = match list.item.len() == POPULAR.len() {
            true => Reason::Popular,
            false => Reason::PopularInCategory,
        };
        let more = best(&[list], &excluded, count - recommended.len(), reason);
        recommended.extend(more);
    }
    Recommendations {
        user: asking.user.to_owned(),
        time: asking.time,
        request: query.request,
        item: query.item,
        recommended,
    }
}

/// The names of recommended items, as the candidates have them.
fn answered_items<'a>(
    recommended: &[Recommended],
    answered: &'a [Answered],
) -> impl Iterator<Item = &'a str> {
    let names: HashSet<String> = recommended.iter().map(|it| it.item.clone()).collect();
    let candidates = answered.iter().flat_map(|it| &it.candidates);
    let items = candidates.map(|candidate| candidate.item.as_str());
    items.filter(move |item| names.contains(*item))
}

fn best(
    answered: &[&Answered],
    excluded: &HashSet<&str>,
    count: usize,
    reason: Reason,
) -> Vec<Recommended> {
    let mut scored: BTreeMap<&str, Scored<'_>> = BTreeMap::new();
    for answer in answered {
        for candidate in &answer.candidates {
            if excluded.contains(candidate.item.as_str()) {
                continue;
            }
            let scored = scored.entry(&candidate.item).or_insert(Scored {
                score: 0.0,
                since: Vec::new(),
            });
            let score = answer.weight * candidate.score;
            scored.score += score;
            scored.since.push((&answer.item, score));
        }
    }
    let mut scored: Vec<(&str, Scored<'_>)> = scored.into_iter().collect();
    let by_score = |one: &(&str, Scored<'_>), two: &(&str, Scored<'_>)| {
        descending(one.1.score, two.1.score).then_with(|| one.0.cmp(two.0))
    };
    if count < scored.len() {
        scored.select_nth_unstable_by(count, by_score);
        scored.truncate(count);
    }
    scored.sort_unstable_by(by_score);
    let recommended = scored.into_iter().map(|(item, mut scored)| {
        scored
            .since
            .sort_by(|one, two| descending(one.1, two.1).then_with(|| one.0.cmp(two.0)));
        let since = scored.since.iter().take(SINCE_MAX);
        let since = since.map(|(item, _)| (*item).to_owned());
        Recommended {
            item: item.to_owned(),
            score: scored.score,
            reason,
            since: match reason {
                Reason::Related => since.collect(),
                Reason::Popular | Reason::PopularInCategory => Vec::new(),
            },
        }
    });
    recommended.collect()
}

fn descending(one: f64, two: f64) -> Ordering {
    two.total_cmp(&one)
}
