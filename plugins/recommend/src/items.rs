use std::time::Duration;

use sluicebox_sdk::prelude::*;

use crate::event::{Interaction, Recommendations, Request};
use crate::model::{Damping, Model, Neighbour, Pair, Session};
use crate::profile::{Profile, Recent};
use crate::ranking::{POPULAR, Query, rank};

/// Recommends items to users, of what they have done before: "since you bought …".
///
/// Of an interaction, it learns which items go together. A request is answered with what
/// goes with the latest items of its user, or with an item that it names; where there are
/// too few, with items that are popular in its category, then with those that are popular
/// altogether.
#[operator(recommend)]
pub struct Items {
    /// How it is found out what goes together.
    ///
    /// `item_knn`: items that the same users have interacted with, the more the closer
    /// together (decayed co-occurrence with incremental cosine: Huang et al., TencentRec,
    /// SIGMOD 2015). `session_knn`: items of the latest sessions with an item. `popular`:
    /// nothing does, only popularity counts.
    #[parameter(default = Algorithm::ItemKnn)]
    pub algorithm: Algorithm,
    /// How many items are recommended.
    #[parameter(default = 10)]
    pub count: u32,
    /// The actions that are learnt from; all if none is named.
    #[parameter(default = [])]
    pub actions: Vec<String>,
    /// Whether items are recommended that the user has had to do with.
    #[parameter(default = false)]
    pub repeats: bool,
    /// How many of the latest items of a user are asked what goes with them.
    #[parameter(default = 20)]
    pub profile_items: u32,
    /// How many items of a user are kept that are not recommended again.
    #[parameter(default = 1_000)]
    pub seen_items: u32,
    /// How many neighbours are kept of an item.
    #[parameter(default = 100)]
    pub neighbours: u32,
    /// How many items are kept that are popular altogether, and in each category.
    #[parameter(default = 100)]
    pub popular_items: u32,
    /// How many of the latest sessions are kept of an item, for `session_knn`.
    #[parameter(default = 50)]
    pub sessions: u32,
    /// How many items are kept of a session, for `session_knn`.
    #[parameter(default = 20)]
    pub session_items: u32,
    /// A session is over when its user has done nothing for so long.
    #[parameter(default = 1_800_000)]
    pub session_gap_ms: i64,
    /// Items go together if at most this is between them; without it, whenever they were.
    pub within_ms: Option<i64>,
    /// How much less each earlier item of a user counts when it is learnt what goes
    /// together.
    #[parameter(default = 0.9)]
    pub learning_decay: f64,
    /// How much less each earlier item of a user counts when a request is answered.
    #[parameter(default = 0.85)]
    pub asking_decay: f64,
    /// How much less popular items count: `full` is the cosine.
    #[parameter(default = Damping::Half)]
    pub damping: Damping,
    /// The time in which what was learnt falls to half; without it, it never does.
    pub half_life_ms: Option<i64>,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    ItemKnn,
    SessionKnn,
    Popular,
}

impl Items {
    fn teaches(&self, interaction: &Interaction<'_>) -> bool {
        let mut actions = self.actions.iter();
        self.actions.is_empty() || actions.any(|action| action == interaction.action)
    }

    /// What the item of an interaction and the user's other items learn of one another.
    fn together(&self, profile: &Profile, event: &Event<'_>, lessons: &mut Vec<Lesson<Pair>>) {
        let within_ms = self.within_ms.unwrap_or(i64::MAX);
        let is_near = |recent: &&Recent| event.time.0.saturating_sub(recent.time.0) <= within_ms;
        let mut weight = 1.0;
        let mut of_item = Vec::new();
        for other in profile.others(event.item).take_while(is_near) {
            let elapsed_ms = event.time.0.saturating_sub(other.time.0);
            of_item.push(Neighbour {
                item: other.item.clone(),
                weight,
                popularity: decayed(other.popularity, elapsed_ms, self.half_life_ms),
            });
            let of_other = Neighbour {
                item: event.item.into(),
                weight,
                popularity: event.popularity,
            };
            lessons.push(Lesson {
                item: other.item.clone(),
                pair: Pair {
                    together: vec![of_other],
                    ..Pair::default()
                },
            });
            weight *= self.learning_decay;
        }
        lessons.push(Lesson {
            item: event.item.into(),
            pair: Pair {
                popularity: Some(event.popularity),
                together: of_item,
                ..Pair::default()
            },
        });
    }

    /// What the items of a session learn of a new one.
    fn in_session(&self, profile: &Profile, event: &Event<'_>, lessons: &mut Vec<Lesson<Pair>>) {
        let session = |items: Vec<Text>| Pair {
            session: Some(Session {
                user: event.user.into(),
                began: profile.session,
                items,
            }),
            ..Pair::default()
        };
        let mut items = vec![Text::from(event.item)];
        let others = profile.others(event.item);
        for other in others.take_while(|other| other.time >= profile.session) {
            lessons.push(Lesson {
                item: other.item.clone(),
                pair: session(vec![other.item.clone(), event.item.into()]),
            });
            items.push(other.item.clone());
        }
        items.reverse();
        lessons.push(Lesson {
            item: event.item.into(),
            pair: session(items),
        });
    }
}

impl Recommender for Items {
    type Interaction<'a> = Interaction<'a>;
    type Request<'a> = Request<'a>;
    type Profile = Profile;
    type Model = Model;
    type Pair = Pair;
    type Query = Query;
    type Answer = Recommendations;

    fn interact(
        &self,
        profile: &mut Profile,
        interaction: &Interaction<'_>,
        event: &Event<'_>,
    ) -> Result<Vec<Lesson<Pair>>, Reject> {
        if event.item.starts_with(POPULAR) {
            reject!(
                "an item cannot be called `{}`: `{POPULAR}` is for lists",
                event.item
            );
        }
        if !self.teaches(interaction) {
            return Ok(Vec::new());
        }
        profile.begin_session(event.time, self.session_gap_ms);
        let mut lessons = Vec::new();
        match self.algorithm {
            Algorithm::ItemKnn => self.together(profile, event, &mut lessons),
            Algorithm::SessionKnn => self.in_session(profile, event, &mut lessons),
            Algorithm::Popular => {}
        }
        let popular = Pair {
            popular: vec![Neighbour {
                item: event.item.into(),
                weight: event.popularity,
                popularity: event.popularity,
            }],
            ..Pair::default()
        };
        for list in popular_lists(interaction.category) {
            lessons.push(Lesson {
                item: list,
                pair: popular.clone(),
            });
        }
        let recent = Recent {
            item: event.item.into(),
            time: event.time,
            popularity: event.popularity,
        };
        profile.note(
            recent,
            self.profile_items as usize,
            self.seen_items as usize,
        );
        Ok(lessons)
    }

    fn learn(&self, model: &mut Model, pair: Pair, time: Timestamp) {
        model.advance(time, self.half_life_ms);
        if let Some(popularity) = pair.popularity {
            model.popularity = popularity;
        }
        for neighbour in pair.together {
            model.add(neighbour, self.neighbours as usize);
        }
        for popular in pair.popular {
            model.set(popular, self.popular_items as usize);
        }
        if let Some(session) = pair.session {
            model.add_session(session, self.sessions as usize, self.session_items as usize);
        }
    }

    fn ask(
        &self,
        profile: &Profile,
        request: &Request<'_>,
        asking: &Asking<'_>,
    ) -> Question<Query> {
        let mut asks = Vec::new();
        let is_over = |recent: &&Recent| match self.algorithm {
            Algorithm::ItemKnn => false,
            // Only the session that goes on is asked.
            Algorithm::SessionKnn => {
                let gap = Duration::from_millis(self.session_gap_ms.unsigned_abs());
                recent.time < profile.session || profile.last + gap < asking.time
            }
            Algorithm::Popular => true,
        };
        if let Some(item) = request.item {
            asks.push(Ask {
                item: item.into(),
                weight: 1.0,
            });
        } else {
            let mut weight = 1.0;
            for recent in profile
                .recent
                .iter()
                .rev()
                .take_while(|recent| !is_over(recent))
            {
                asks.push(Ask {
                    item: recent.item.clone(),
                    weight,
                });
                weight *= self.asking_decay;
            }
        }
        let lists = popular_lists(request.category).into_iter();
        asks.extend(lists.map(|item| Ask { item, weight: 1.0 }));
        let mut excluded = match self.repeats {
            true => Vec::new(),
            false => profile.seen.clone(),
        };
        excluded.extend(request.item.map(Text::from));
        Question {
            asks,
            query: Query {
                request: request.request.map(str::to_owned),
                item: request.item.map(str::to_owned),
                excluded,
            },
        }
    }

    fn request_of<'a>(&self, interaction: &Interaction<'a>, event: &Event<'a>) -> Request<'a> {
        Request {
            request: Some(event.item),
            category: interaction.category,
            ..Request::default()
        }
    }

    fn candidates(&self, model: &Model, time: Timestamp) -> Vec<Candidate> {
        match self.algorithm {
            _ if model.is_list => model.popular(time, self.half_life_ms),
            Algorithm::ItemKnn => model.related(self.damping),
            Algorithm::SessionKnn => model.of_sessions(),
            Algorithm::Popular => Vec::new(),
        }
    }

    fn rank(&self, query: Query, answered: &[Answered], asking: &Asking<'_>) -> Recommendations {
        rank(query, answered, asking, self.count as usize)
    }

    fn weight(&self, interaction: &Interaction<'_>) -> f64 {
        f64::from(u8::from(self.teaches(interaction)))
    }

    fn half_life_ms(&self) -> Option<i64> {
        self.half_life_ms
    }
}

/// The models with the lists of popular items: that of the category first.
fn popular_lists(category: Option<&str>) -> Vec<Text> {
    let of_category = category.map(|category| format!("{POPULAR}{category}").into());
    let mut lists: Vec<Text> = of_category.into_iter().collect();
    lists.push(POPULAR.into());
    lists
}
