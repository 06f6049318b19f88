//! Item-kNN by decayed co-occurrence, as `recommend.items` computes it: of each interaction
//! it learns which items go together, and answers with the ten best for its user.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;

use super::{Event, Map, of_user};
use crate::OUT_OF_ORDERNESS_MS;

const PROFILE_ITEMS: usize = 20;
const SEEN_ITEMS: usize = 1_000;
const NEIGHBOURS: usize = 50;
const POPULAR_ITEMS: usize = 100;
const COUNT: usize = 10;
const LEARNING_DECAY: f64 = 0.9;
const ASKING_DECAY: f64 = 0.85;

#[derive(Default)]
pub(super) struct Recommend {
    users: Map<Box<str>, u32>,
    profiles: Vec<Profile>,
    items: Map<Box<str>, u32>,
    models: Vec<Model>,
    popular: Vec<(u32, f64)>,
    /// Rows that wait for the watermark.
    waiting: BTreeMap<i64, Vec<Interaction>>,
    newest: i64,
}

/// A user and an item.
type Interaction = (Box<str>, Box<str>);

#[derive(Default)]
struct Profile {
    /// The latest items, with how popular they were, oldest first.
    recent: VecDeque<(u32, f64)>,
    seen: VecDeque<u32>,
}

#[derive(Default)]
struct Model {
    popularity: f64,
    neighbours: Vec<Neighbour>,
}

struct Neighbour {
    item: u32,
    weight: f64,
    popularity: f64,
}

impl Model {
    fn add(&mut self, new: Neighbour) {
        let mut known = self.neighbours.iter_mut();
        if let Some(known) = known.find(|known| known.item == new.item) {
            known.weight += new.weight;
            known.popularity = known.popularity.max(new.popularity);
        } else if self.neighbours.len() < NEIGHBOURS {
            self.neighbours.push(new);
        } else {
            let weights = self.neighbours.iter_mut();
            let weakest = weights.min_by(|one, two| one.weight.total_cmp(&two.weight));
            if let Some(weakest) = weakest {
                *weakest = new;
            }
        }
    }
}

impl Recommend {
    pub(super) fn row(&mut self, event: Event<'_>) {
        let waiting = self.waiting.entry(event.ts).or_default();
        waiting.push((event.user_id.into(), event.item_id.into()));
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    pub(super) fn advance(&mut self, watermark: i64) {
        while let Some(due) = self.waiting.first_entry()
            && *due.key() < watermark
        {
            for (user, item) in due.remove() {
                self.interact(&user, &item);
            }
        }
    }

    fn interact(&mut self, user: &str, item: &str) {
        let (_, profile) = of_user(&mut self.users, &mut self.profiles, user);
        let (item, model) = of_user(&mut self.items, &mut self.models, item);
        model.popularity += 1.0;
        let popularity = model.popularity;
        let mut weight = 1.0;
        let others = profile.recent.iter().rev();
        for &(other, popularity_then) in others.filter(|(other, _)| *other != item) {
            self.models[item as usize].add(Neighbour {
                item: other,
                weight,
                popularity: popularity_then,
            });
            self.models[other as usize].add(Neighbour {
                item,
                weight,
                popularity,
            });
            weight *= LEARNING_DECAY;
        }
        let known = self.popular.iter().position(|(known, _)| *known == item);
        match known {
            Some(known) => self.popular[known].1 = popularity,
            None if self.popular.len() < POPULAR_ITEMS => self.popular.push((item, popularity)),
            None => {
                let weights = self.popular.iter_mut();
                if let Some(weakest) = weights.min_by(|one, two| one.1.total_cmp(&two.1)) {
                    *weakest = (item, popularity);
                }
            }
        }
        if !profile.seen.contains(&item) {
            push_bounded(&mut profile.seen, item, SEEN_ITEMS);
        }
        profile.recent.retain(|(other, _)| *other != item);
        push_bounded(&mut profile.recent, (item, popularity), PROFILE_ITEMS);
        black_box(best(profile, &self.models, &self.popular));
    }
}

/// The items with the highest scores, and popular ones where these are too few.
fn best(profile: &Profile, models: &[Model], popular: &[(u32, f64)]) -> Vec<(u32, f64)> {
    let mut scores: Map<u32, f64> = Map::default();
    let mut weight = 1.0;
    for &(item, _) in profile.recent.iter().rev() {
        let model = &models[item as usize];
        let own = model.popularity.sqrt();
        for neighbour in &model.neighbours {
            if !profile.seen.contains(&neighbour.item) {
                let score = neighbour.weight / (own * neighbour.popularity.sqrt().sqrt());
                *scores.entry(neighbour.item).or_default() += weight * score;
            }
        }
        weight *= ASKING_DECAY;
    }
    let mut best = highest(scores.into_iter().collect(), COUNT);
    if best.len() < COUNT {
        let is_new = |item: u32| {
            !profile.seen.contains(&item) && best.iter().all(|(known, _)| *known != item)
        };
        let more = popular.iter().copied().filter(|(item, _)| is_new(*item));
        let more = highest(more.collect(), COUNT - best.len());
        best.extend(more);
    }
    best
}

fn highest(mut scored: Vec<(u32, f64)>, count: usize) -> Vec<(u32, f64)> {
    let by_score =
        |one: &(u32, f64), two: &(u32, f64)| two.1.total_cmp(&one.1).then(one.0.cmp(&two.0));
    if count < scored.len() {
        scored.select_nth_unstable_by(count, by_score);
        scored.truncate(count);
    }
    scored.sort_unstable_by(by_score);
    scored
}

fn push_bounded<T>(values: &mut VecDeque<T>, value: T, values_max: usize) {
    values.push_back(value);
    if values.len() > values_max {
        values.pop_front();
    }
}
