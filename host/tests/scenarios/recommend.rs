//! Tests recommendations against naive computations.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{BURST, Day, decoded, example, folder_of, json_time, number, text, time_of};
use crate::everywhere::{collect_all, collect_all_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 5_000;
const SEEN: usize = 1_000;
const PROFILE_ITEMS: usize = 20;
const POPULAR_ITEMS: usize = 100;
const SESSION_GAP_MS: i64 = 1_800_000;
const SESSIONS: usize = 50;
const SESSION_ITEMS: usize = 20;

const SINKS: [&str; 3] = ["suggestions", "similar_items", "together"];

/// Users with a taste each, who look at things, and buy some.
fn events(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let user = (i / BURST / 3 + rng.i64(0..5)) % 15;
        let category = match rng.u8(0..10) {
            0..7 => user % 4,
            _ => rng.i64(0..4),
        };
        // Few items have most of the views.
        let nth = (24.0 * rng.f64() * rng.f64()) as i64;
        let action = match rng.u8(0..100) {
            0..70 => "view",
            70..85 => "cart",
            _ => "purchase",
        };
        let mut row = json!({
            "user_id": format!("user-{user}"),
            "item_id": format!("item-{category}-{nth}"),
            "action": action,
            // In whole seconds, so that many have the same time.
            "ts": time_of(rng, i, count, BOUND_MS) / 1_000 * 1_000,
        });
        if category > 0 {
            row["category"] = json!(format!("category-{category}"));
        }
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

/// The rows that are not late, in the order in which they are to be taken. Requests are
/// made of rows, so they are late together.
fn in_order(rows: &[Value]) -> Vec<Value> {
    let mut newest_ms = i64::MIN;
    let mut in_time: Vec<Value> = Vec::new();
    for row in rows {
        let ts = number(row, "ts");
        if ts >= newest_ms.saturating_sub(BOUND_MS) {
            in_time.push(row.clone());
        }
        newest_ms = newest_ms.max(ts);
    }
    let place = |row: &Value| {
        let field = |name: &str| row[name].as_str().map(str::to_owned);
        let fields = ["user_id", "item_id", "action", "category"].map(field);
        (number(row, "ts"), fields)
    };
    in_time.sort_by_cached_key(place);
    in_time
}

/// How a recommender is set up.
struct Setup {
    actions: &'static [&'static str],
    asks_on: &'static str,
    asks_item: bool,
    count: usize,
    repeats: bool,
}

impl Setup {
    fn learns(&self, row: &Value) -> bool {
        self.actions.is_empty() || self.actions.contains(&text(row, "action"))
    }
}

/// What goes with what.
trait Algorithm {
    /// Learns that a user has come to an item, after others, the latest first.
    fn learn(&mut self, user: &str, item: &str, popularity: f64, others: &[Other], ts: i64);

    /// What goes with an item.
    fn related(&self, item: &str) -> BTreeMap<String, f64>;
}

#[derive(Clone)]
struct Other {
    item: String,
    popularity: f64,
    ts: i64,
}

/// What is recommended on some rows, each before it is learnt from.
fn recommend(setup: &Setup, rows: &[Value], mut algorithm: impl Algorithm) -> Vec<Value> {
    let mut popularity: BTreeMap<String, f64> = BTreeMap::new();
    let mut profiles: BTreeMap<String, Vec<Other>> = BTreeMap::new();
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut lists: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let mut answers = Vec::new();
    // Of the same time and user, requests come first.
    let mut first = 0;
    while first < rows.len() {
        let place = |row: &Value| (number(row, "ts"), text(row, "user_id").to_owned());
        let rest = rows[first..].iter();
        let same = rest.take_while(|row| place(row) == place(&rows[first]));
        let group = &rows[first..first + same.count()];
        first += group.len();
        for row in group
            .iter()
            .filter(|row| text(row, "action") == setup.asks_on)
        {
            let (user, item) = (text(row, "user_id"), text(row, "item_id"));
            let asked: Vec<(String, f64)> = match setup.asks_item {
                true => vec![(item.to_owned(), 1.0)],
                false => {
                    let weights = std::iter::successors(Some(1.0), |weight| Some(weight * 0.85));
                    let recent = profiles.get(user).into_iter().flatten().rev();
                    let recent = recent.take(PROFILE_ITEMS).map(|other| other.item.clone());
                    recent.zip(weights).collect()
                }
            };
            let mut excluded = match setup.repeats {
                true => BTreeSet::new(),
                false => seen.get(user).cloned().unwrap_or_default(),
            };
            if setup.asks_item {
                excluded.insert(item.to_owned());
            }
            let mut shares: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
            for (asked, weight) in asked {
                for (found, score) in algorithm.related(&asked) {
                    let share = (asked.clone(), weight * score);
                    shares.entry(found).or_default().push(share);
                }
            }
            let sum = |shares: &Vec<(String, f64)>| shares.iter().fold(0.0, |sum, it| sum + it.1);
            let scores = shares
                .iter()
                .map(|(item, shares)| (item.clone(), sum(shares)));
            let mut found = best(scores.collect(), &excluded, setup.count, "related");
            for one in &mut found {
                let mut shares = shares[text(one, "item")].clone();
                shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                one["since"] = shares.into_iter().take(3).map(|(item, _)| item).collect();
            }
            let in_category = row["category"]
                .as_str()
                .map(|it| (it, "popular_in_category"));
            for (list, reason) in in_category.into_iter().chain([("", "popular")]) {
                excluded.extend(found.iter().map(|one| text(one, "item").to_owned()));
                let list = lists.get(list).cloned().unwrap_or_default();
                found.extend(best(list, &excluded, setup.count - found.len(), reason));
            }
            answers.push(json!({
                "user": user,
                "time": json_time(number(row, "ts")),
                "request": null,
                "item": setup.asks_item.then_some(item),
                "recommended": found,
            }));
        }
        for row in group.iter().filter(|row| setup.learns(row)) {
            let (user, item) = (text(row, "user_id"), text(row, "item_id"));
            let counted = popularity.entry(item.to_owned()).or_default();
            *counted += 1.0;
            let profile = profiles.entry(user.to_owned()).or_default();
            let mut others: Vec<Other> =
                profile.iter().rev().take(PROFILE_ITEMS).cloned().collect();
            others.retain(|other| other.item != item);
            algorithm.learn(user, item, *counted, &others, number(row, "ts"));
            profile.retain(|other| other.item != item);
            profile.push(Other {
                item: item.to_owned(),
                popularity: *counted,
                ts: number(row, "ts"),
            });
            seen.entry(user.to_owned())
                .or_default()
                .insert(item.to_owned());
            let in_category = row["category"].as_str();
            for list in in_category.into_iter().chain([""]) {
                let list = lists.entry(list.to_owned()).or_default();
                list.insert(item.to_owned(), *counted);
                assert!(
                    list.len() <= 2 * POPULAR_ITEMS,
                    "few enough for the test to see"
                );
            }
        }
    }
    assert!(
        seen.values().all(|items| items.len() < SEEN),
        "all are kept"
    );
    answers
}

/// The best of these items.
fn best(
    scores: BTreeMap<String, f64>,
    excluded: &BTreeSet<String>,
    count: usize,
    reason: &str,
) -> Vec<Value> {
    let scores = scores.into_iter();
    let mut scores: Vec<_> = scores
        .filter(|(item, _)| !excluded.contains(item))
        .collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rows = scores.into_iter().take(count).map(
        |(item, score)| json!({ "item": item, "score": score, "reason": reason, "since": [] }),
    );
    rows.collect()
}

/// Decayed co-occurrence.
struct ItemKnn {
    neighbours_max: usize,
    within_ms: i64,
    /// The power of a neighbour's popularity.
    is_cosine: bool,
    popularity: BTreeMap<String, f64>,
    /// Of each item, in the order in which they came: their names, how often they came
    /// together with it, and how popular they are.
    neighbours: BTreeMap<String, Vec<(String, f64, f64)>>,
}

impl ItemKnn {
    fn new(neighbours_max: usize, within_ms: i64, is_cosine: bool) -> Self {
        ItemKnn {
            neighbours_max,
            within_ms,
            is_cosine,
            popularity: BTreeMap::new(),
            neighbours: BTreeMap::new(),
        }
    }

    fn add(&mut self, item: &str, other: &str, weight: f64, popularity: f64) {
        let neighbours = self.neighbours.entry(item.to_owned()).or_default();
        if let Some(known) = neighbours.iter_mut().find(|known| known.0 == other) {
            known.1 += weight;
            known.2 = known.2.max(popularity);
            return;
        }
        let new = (other.to_owned(), weight, popularity);
        if neighbours.len() < self.neighbours_max {
            neighbours.push(new);
            return;
        }
        let least = neighbours
            .iter()
            .map(|known| known.1)
            .fold(f64::MAX, f64::min);
        let last = neighbours.iter().rposition(|known| known.1 == least);
        neighbours[last.expect("one is the least")] = new;
    }
}

impl Algorithm for ItemKnn {
    fn learn(&mut self, _user: &str, item: &str, popularity: f64, others: &[Other], ts: i64) {
        self.popularity.insert(item.to_owned(), popularity);
        let mut weight = 1.0;
        let near = others
            .iter()
            .filter(|other| ts - other.ts <= self.within_ms);
        for other in near.cloned().collect::<Vec<Other>>() {
            self.add(&other.item, item, weight, popularity);
            self.add(item, &other.item, weight, other.popularity);
            weight *= 0.9;
        }
    }

    fn related(&self, item: &str) -> BTreeMap<String, f64> {
        let Some(neighbours) = self.neighbours.get(item) else {
            return BTreeMap::new();
        };
        let own = self.popularity[item].sqrt();
        let score = |(name, weight, popularity): &(String, f64, f64)| {
            let root = match self.is_cosine {
                true => popularity.sqrt(),
                false => popularity.sqrt().sqrt(),
            };
            (name.clone(), weight / (own * root))
        };
        neighbours.iter().map(score).collect()
    }
}

/// The items of the latest sessions with an item.
#[derive(Default)]
struct SessionKnn {
    /// Of each user, when the session began, when its last row was, and its items.
    current: BTreeMap<String, (i64, i64, Vec<String>)>,
    /// Of each item, the latest sessions with it.
    sessions: BTreeMap<String, Vec<Session>>,
}

struct Session {
    /// Its user, and when it began.
    id: (String, i64),
    items: Vec<String>,
}

impl Algorithm for SessionKnn {
    fn learn(&mut self, user: &str, item: &str, _popularity: f64, _others: &[Other], ts: i64) {
        let fresh = || (ts, ts, Vec::new());
        let current = self.current.entry(user.to_owned()).or_insert_with(fresh);
        if ts - current.1 > SESSION_GAP_MS {
            *current = fresh();
        }
        current.1 = ts;
        current.2.retain(|other| other != item);
        current.2.push(item.to_owned());
        // A profile has no more.
        let excess = current.2.len().saturating_sub(PROFILE_ITEMS + 1);
        current.2.drain(..excess);
        let (began, _, items) = current.clone();
        for of in &items {
            let new: Vec<&String> = match of == item {
                true => items.iter().collect(),
                false => vec![of, items.last().expect("it has the item")],
            };
            let sessions = self.sessions.entry(of.clone()).or_default();
            let id = (user.to_owned(), began);
            let known = sessions.iter().position(|session| session.id == id);
            let fresh = Session {
                id,
                items: Vec::new(),
            };
            let mut session = known.map_or(fresh, |at| sessions.remove(at));
            for item in new {
                if !session.items.contains(item) {
                    session.items.push(item.clone());
                }
            }
            let excess = session.items.len().saturating_sub(SESSION_ITEMS);
            session.items.drain(..excess);
            sessions.push(session);
            let excess = sessions.len().saturating_sub(SESSIONS);
            sessions.drain(..excess);
        }
        let excess = current_excess(&items);
        if let Some(current) = self.current.get_mut(user) {
            current.2.drain(..excess);
        }
    }

    fn related(&self, item: &str) -> BTreeMap<String, f64> {
        let mut scores = BTreeMap::new();
        for Session { items, .. } in self.sessions.get(item).into_iter().flatten() {
            for item in items {
                *scores.entry(item.clone()).or_default() += 1.0 / (items.len() as f64).sqrt();
            }
        }
        scores
    }
}

/// How many items a profile forgets.
fn current_excess(items: &[String]) -> usize {
    items.len().saturating_sub(PROFILE_ITEMS)
}

/// Rows in an order of their own, with floats as sinks write them.
fn sorted(rows: &[Value]) -> Vec<Value> {
    crate::day::sorted(rows.to_vec())
}

#[test]
fn a_day_is_recommended_as_in_the_naive_computation() {
    let lines = events(&mut Rng::with_seed(11), 1_000);
    let folder = folder_of(&[("events.jsonl", &lines)]);
    let mut pipeline = example("recommend/pipeline.toml");
    // So few that some have to go.
    let suggested = &mut pipeline["operators"]["suggested"]["parameters"];
    suggested["neighbours"] = 12.into();
    let pipeline = pipeline.to_string();

    let rows = in_order(&decoded(&lines));
    let suggested = Setup {
        actions: &[],
        asks_on: "view",
        asks_item: false,
        count: 5,
        repeats: false,
    };
    let similar = Setup {
        actions: &["view"],
        asks_item: true,
        repeats: true,
        ..suggested
    };
    let together = Setup {
        actions: &["purchase"],
        asks_on: "cart",
        asks_item: true,
        count: 3,
        ..suggested
    };
    let expected = [
        recommend(&suggested, &rows, ItemKnn::new(12, i64::MAX, false)),
        recommend(&similar, &rows, SessionKnn::default()),
        recommend(&together, &rows, ItemKnn::new(100, 3_600_000, true)),
    ];
    let found = collect_all_everywhere(&pipeline, folder.path(), SINKS);
    for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
        assert!(expected.len() > 100, "{sink} has only {}", expected.len());
        assert_same(&sorted(expected), &sorted(found), sink);
    }

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), SINKS);
    let late: u64 = summary.nodes.iter().map(|node| node.late).sum();
    assert!(late > 0, "no row is late");
}
