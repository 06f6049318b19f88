use std::collections::HashMap;

use super::{Answered, Asking, Event, Lesson, Question, Recommender, decayed};
use crate::{Reject, Timestamp};

/// All users and items of a recommender, for unit tests: it keeps their profiles and models
/// as the host does. Rows are given to it in order of time.
///
/// ```
/// # use sluicebox_sdk::prelude::*;
/// use sluicebox_sdk::Rehearsal;
///
/// # #[derive(Record)]
/// # struct View { page: u32 }
/// # #[derive(Record, Clone, Default)]
/// # struct Seen { items: u32 }
/// # #[derive(Record, Clone, Debug, PartialEq)]
/// # struct Top { items: Vec<String> }
/// # #[operator(recommend)]
/// # struct Nothing {}
/// # impl Recommender for Nothing {
/// #     type Interaction<'a> = View;
/// #     type Request<'a> = View;
/// #     type Profile = Seen;
/// #     type Model = Seen;
/// #     type Pair = Seen;
/// #     type Query = Seen;
/// #     type Answer = Top;
/// #     fn interact(&self, _: &mut Seen, _: &View, _: &Event<'_>) -> Result<Vec<Lesson<Seen>>, Reject> {
/// #         Ok(Vec::new())
/// #     }
/// #     fn learn(&self, _: &mut Seen, _: Seen, _: Timestamp) {}
/// #     fn ask(&self, _: &Seen, _: &View, _: &Asking<'_>) -> Question<Seen> {
/// #         Question { asks: Vec::new(), query: Seen::default() }
/// #     }
/// #     fn request_of(&self, view: &View, _: &Event<'_>) -> View { View { page: view.page } }
/// #     fn candidates(&self, _: &Seen, _: Timestamp) -> Vec<Candidate> { Vec::new() }
/// #     fn rank(&self, _: Seen, _: &[Answered], _: &Asking<'_>) -> Top { Top { items: Vec::new() } }
/// # }
/// # export!(Nothing);
/// let mut shop = Rehearsal::new(Nothing {});
/// shop.interact(Timestamp(0), "ann", "tea", View { page: 1 }).unwrap();
/// let top = shop.request(Timestamp(5), "ann", View { page: 1 });
/// assert_eq!(top, Top { items: vec![] });
/// ```
pub struct Rehearsal<P: Recommender> {
    recommender: P,
    popularity: HashMap<String, (Timestamp, f64)>,
    profiles: HashMap<String, P::Profile>,
    models: HashMap<String, P::Model>,
}

impl<P: Recommender> Rehearsal<P> {
    /// Without users and items.
    pub fn new(recommender: P) -> Self {
        Rehearsal {
            recommender,
            popularity: HashMap::new(),
            profiles: HashMap::new(),
            models: HashMap::new(),
        }
    }

    /// Learns from an interaction.
    pub fn interact(
        &mut self,
        time: Timestamp,
        user: &str,
        item: &str,
        interaction: P::Interaction<'_>,
    ) -> Result<(), Reject> {
        let popularity = self.count(time, item, &interaction);
        let event = Event {
            user,
            item,
            time,
            popularity,
        };
        self.take(&interaction, &event)
    }

    /// Answers the request that an interaction makes, and then learns from it.
    pub fn ask_and_interact<'a>(
        &mut self,
        time: Timestamp,
        user: &'a str,
        item: &'a str,
        interaction: P::Interaction<'a>,
    ) -> Result<P::Answer, Reject> {
        let popularity = self.count(time, item, &interaction);
        let event = Event {
            user,
            item,
            time,
            popularity,
        };
        let request = self.recommender.request_of(&interaction, &event);
        let answer = self.request(time, user, request);
        self.take(&interaction, &event)?;
        Ok(answer)
    }

    /// Answers a request.
    pub fn request(&self, time: Timestamp, user: &str, request: P::Request<'_>) -> P::Answer {
        let asking = Asking { user, time };
        let unknown = P::Profile::default();
        let profile = self.profiles.get(user).unwrap_or(&unknown);
        let Question { asks, query } = self.recommender.ask(profile, &request, &asking);
        let answered = asks.into_iter().map(|ask| {
            let model = self.models.get(ask.item.as_str());
            Answered {
                candidates: model
                    .map_or(Vec::new(), |model| self.recommender.candidates(model, time)),
                item: ask.item,
                weight: ask.weight,
            }
        });
        let answered: Vec<Answered> = answered.collect();
        self.recommender.rank(query, &answered, &asking)
    }

    /// What is known of a user.
    pub fn profile(&self, user: &str) -> Option<&P::Profile> {
        self.profiles.get(user)
    }

    /// What is known of an item.
    pub fn model(&self, item: &str) -> Option<&P::Model> {
        self.models.get(item)
    }

    fn count(&mut self, time: Timestamp, item: &str, interaction: &P::Interaction<'_>) -> f64 {
        let counted = self.popularity.entry(item.to_owned()).or_default();
        let elapsed_ms = time.0.saturating_sub(counted.0.0);
        let before = decayed(counted.1, elapsed_ms, self.recommender.half_life_ms());
        *counted = (time, before + self.recommender.weight(interaction));
        counted.1
    }

    fn take(&mut self, interaction: &P::Interaction<'_>, event: &Event<'_>) -> Result<(), Reject> {
        let known = self.profiles.get(event.user);
        let mut profile = known.cloned().unwrap_or_default();
        let lessons = self
            .recommender
            .interact(&mut profile, interaction, event)?;
        self.profiles.insert(event.user.to_owned(), profile);
        for Lesson { item, pair } in lessons {
            let model = self.models.entry(item.into()).or_default();
            self.recommender.learn(model, pair, event.time);
        }
        Ok(())
    }
}
