use std::collections::BTreeMap;

use sluicebox_sdk::prelude::*;

use crate::profile::push_bounded;

/// What is kept of an item, or a list of popular items, which are its neighbours.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// When the weights were computed.
    pub time: Timestamp,
    pub is_list: bool,
    /// How popular the item is.
    pub popularity: f64,
    pub neighbours: Vec<Neighbour>,
    /// The latest sessions with the item, oldest first.
    pub sessions: Vec<Session>,
}

/// How much less popular items count.
#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damping {
    /// By the root of the popularity of both items.
    Full,
    /// By the root of that of the user's item, and the fourth root of the other's.
    Half,
    /// By the root of that of the user's item.
    None,
}

impl Damping {
    pub fn own(self, popularity: f64) -> f64 {
        popularity.sqrt()
    }

    pub fn of_other(self, popularity: f64) -> f64 {
        match self {
            Damping::Full => popularity.sqrt(),
            Damping::Half => popularity.sqrt().sqrt(),
            Damping::None => 1.0,
        }
    }
}

/// An item that goes with another.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Neighbour {
    pub item: Text,
    /// How often both came together, decayed.
    pub weight: f64,
    /// How popular it is, as far as the model knows.
    pub popularity: f64,
}

/// A part of a user's session.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Session {
    pub user: Text,
    pub began: Timestamp,
    pub items: Vec<Text>,
}

/// What a model learns. Only what the algorithm needs is there.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Pair {
    /// How popular the item itself is, if it was interacted with.
    pub popularity: Option<f64>,
    /// Items that came together with it.
    pub together: Vec<Neighbour>,
    /// Items that are popular now.
    pub popular: Vec<Neighbour>,
    /// A session in which it was, with what is new of it.
    pub session: Option<Session>,
}

impl Model {
    /// Lets weights decay up to a time.
    pub fn advance(&mut self, time: Timestamp, half_life_ms: Option<i64>) {
        let elapsed_ms = time.0.saturating_sub(self.time.0);
        self.time = time;
        if half_life_ms.is_none() || elapsed_ms <= 0 {
            return;
        }
        let left = decayed(1.0, elapsed_ms, half_life_ms);
        self.popularity *= left;
        for neighbour in &mut self.neighbours {
            neighbour.weight *= left;
            neighbour.popularity *= left;
        }
    }

    /// Adds the weight of a neighbour. Where there is no room for it, the weakest one goes;
    /// of the weakest, the last in the list.
    pub fn add(&mut self, new: Neighbour, neighbours_max: usize) {
        let mut known = self.neighbours.iter_mut();
        if let Some(known) = known.find(|known| known.item == new.item) {
            known.weight += new.weight;
            known.popularity = known.popularity.max(new.popularity);
        } else {
            self.insert(new, neighbours_max);
        }
    }

    /// Sets how popular an item of a list is.
    pub fn set(&mut self, new: Neighbour, neighbours_max: usize) {
        self.is_list = true;
        let mut known = self.neighbours.iter_mut();
        match known.find(|known| known.item == new.item) {
            Some(known) => *known = new,
            None => self.insert(new, neighbours_max),
        }
    }

    fn insert(&mut self, new: Neighbour, neighbours_max: usize) {
        if self.neighbours.len() < neighbours_max {
            self.neighbours.push(new);
            return;
        }
        let mut weakest: Option<&mut Neighbour> = None;
        for neighbour in &mut self.neighbours {
            if weakest
                .as_ref()
                .is_none_or(|weakest| neighbour.weight <= weakest.weight)
            {
                weakest = Some(neighbour);
            }
        }
        if let Some(weakest) = weakest {
            *weakest = new;
        }
    }

    /// Adds what is new of a session.
    pub fn add_session(&mut self, new: Session, sessions_max: usize, items_max: usize) {
        let is_same = |session: &Session| session.user == new.user && session.began == new.began;
        let mut session = match self.sessions.iter().position(is_same) {
            Some(at) => self.sessions.remove(at),
            None => Session {
                items: Vec::new(),
                ..new.clone()
            },
        };
        for item in new.items {
            if !session.items.contains(&item) {
                push_bounded(&mut session.items, item, items_max);
            }
        }
        push_bounded(&mut self.sessions, session, sessions_max);
    }

    /// The neighbours with the cosine of co-occurrence, or what is damped less.
    pub fn related(&self, damping: Damping) -> Vec<Candidate> {
        let own = damping.own(self.popularity);
        let related = self.neighbours.iter().map(|neighbour| Candidate {
            item: neighbour.item.clone(),
            score: neighbour.weight / (own * damping.of_other(neighbour.popularity)),
        });
        related.filter(|it| it.score.is_finite()).collect()
    }

    /// The neighbours by their weight at a time.
    pub fn popular(&self, time: Timestamp, half_life_ms: Option<i64>) -> Vec<Candidate> {
        let elapsed_ms = time.0.saturating_sub(self.time.0);
        let popular = self.neighbours.iter().map(|neighbour| Candidate {
            item: neighbour.item.clone(),
            score: decayed(neighbour.weight, elapsed_ms, half_life_ms),
        });
        popular.collect()
    }

    /// The items of the sessions; each session counts the less the longer it is.
    pub fn of_sessions(&self) -> Vec<Candidate> {
        let mut scores: BTreeMap<&str, f64> = BTreeMap::new();
        for session in &self.sessions {
            let share = 1.0 / (session.items.len() as f64).sqrt();
            for item in &session.items {
                *scores.entry(item).or_default() += share;
            }
        }
        let candidates = scores.into_iter().map(|(item, score)| Candidate {
            item: item.into(),
            score,
        });
        candidates.collect()
    }
}
