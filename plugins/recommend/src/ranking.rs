use std::cmp::Ordering;
use std::collections::HashMap;

use foldhash::fast::FixedState;
use sluicebox_sdk::prelude::*;

use crate::event::{Reason, Recommendations, Recommended};

/// What is needed to rank the answers to a request.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Query {
    pub request: Option<String>,
    pub item: Option<String>,
    /// Items that are not recommended.
    pub excluded: Vec<Text>,
}

/// The model that has the items which are popular altogether; that of a category has its
/// name behind it.
pub const POPULAR: &str = "popular:";

/// How many items are named as the reason for one.
const SINCE_MAX: usize = 3;

/// An item that may be recommended.
struct Best<'a> {
    item: &'a Text,
    score: f64,
    reason: Reason,
    /// The items that contribute most to it.
    since: Vec<&'a Text>,
}

/// The best candidates that the user's items have answered, then popular items.
pub fn rank(
    query: Query,
    answered: &[Answered],
    asking: &Asking<'_>,
    count: usize,
) -> Recommendations {
    let mut excluded: Vec<&Text> = query.excluded.iter().collect();
    let (popular, related): (Vec<&Answered>, Vec<&Answered>) = answered
        .iter()
        .partition(|answered| answered.item.starts_with(POPULAR));
    let mut recommended = best(&related, &excluded, count, Reason::Related);
    for list in popular {
        if recommended.len() == count {
            break;
        }
        excluded.extend(recommended.iter().map(|best| best.item));
        let reason = match list.item.len() == POPULAR.len() {
            true => Reason::Popular,
            false => Reason::PopularInCategory,
        };
        let more = best(&[list], &excluded, count - recommended.len(), reason);
        recommended.extend(more);
    }
    let recommended = recommended.into_iter().map(|best| Recommended {
        item: best.item.as_str().to_owned(),
        score: best.score,
        reason: best.reason,
        since: best.since.iter().map(|it| it.as_str().to_owned()).collect(),
    });
    Recommendations {
        user: asking.user.to_owned(),
        time: asking.time,
        request: query.request,
        item: query.item,
        recommended: recommended.collect(),
    }
}

/// The place of candidates that are not recommended.
const EXCLUDED: usize = usize::MAX;

fn best<'a>(
    answered: &[&'a Answered],
    excluded: &[&'a Text],
    count: usize,
    reason: Reason,
) -> Vec<Best<'a>> {
    let candidates: usize = answered.iter().map(|it| it.candidates.len()).sum();
    let mut places: HashMap<&Text, usize, FixedState> = HashMap::default();
    places.reserve(excluded.len() + candidates);
    places.extend(excluded.iter().map(|item| (*item, EXCLUDED)));
    let mut scored: Vec<(&Text, f64)> = Vec::new();
    // How much an item contributes to which of them.
    let mut parts: Vec<(usize, &Text, f64)> = Vec::with_capacity(candidates);
    for answer in answered {
        for candidate in &answer.candidates {
            let place = *places.entry(&candidate.item).or_insert_with(|| {
                scored.push((&candidate.item, 0.0));
                scored.len() - 1
            });
            if place != EXCLUDED {
                let score = answer.weight * candidate.score;
                scored[place].1 += score;
                parts.push((place, &answer.item, score));
            }
        }
    }
    let mut order: Vec<usize> = (0..scored.len()).collect();
    let by_score = |one: &usize, two: &usize| {
        let (one, two) = (scored[*one], scored[*two]);
        descending(one.1, two.1).then_with(|| one.0.cmp(two.0))
    };
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_unstable_by(by_score);
    let mut since: Vec<Vec<(&Text, f64)>> = vec![Vec::new(); order.len()];
    if reason == Reason::Related {
        let mut ranks = vec![None; scored.len()];
        for (rank, &place) in order.iter().enumerate() {
            ranks[place] = Some(rank);
        }
        for (place, item, score) in parts {
            if let Some(rank) = ranks[place] {
                since[rank].push((item, score));
            }
        }
    }
    let best = order.iter().zip(since).map(|(&place, mut since)| {
        since.sort_by(|one, two| descending(one.1, two.1).then_with(|| one.0.cmp(two.0)));
        Best {
            item: scored[place].0,
            score: scored[place].1,
            reason,
            since: since
                .iter()
                .take(SINCE_MAX)
                .map(|(item, _)| *item)
                .collect(),
        }
    });
    best.collect()
}

fn descending(one: f64, two: f64) -> Ordering {
    two.total_cmp(&one)
}
