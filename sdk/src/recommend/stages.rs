//! The stages of a recommender, each a process that takes its rows in order of event time:
//!
//! ```text
//! interactions ─▶ counts ───▶ profiles ─▶ models ─▶ answers
//!                 by item   ╱ by user  ╲  by item ╱ by user
//! requests ─────▶ requests ╱            ╲────────╱
//!                 by user
//! ```

use super::rows::{
    Address, Asked, Came, Counted, Counting, Expected, ItemKey, Next, Numbered, Part, Pending,
    Popularity, Profiled, Rows, ToAnswer, ToModel, UserKey,
};
use super::{Answered, Ask, Asking, Event, Lesson, Question, Recommender, decayed};
use crate::bindings::sluicebox::plugin::description::{Kind, Port};
use crate::instance::Shape;
use crate::operator::{ListedOperator, Operator};
use crate::ports::port;
use crate::ports::two::{OneOf, Two};
use crate::process::stages::{stage, stages};
use crate::process::{Context, Process, Timer};
use crate::record::{And, Named};
use crate::{Reject, Text, Timestamp};

/// The operators that a recommender is described as: itself, and its stages.
#[doc(hidden)]
pub const fn listed<P: Recommender + Operator<Parameters = P>>() -> [ListedOperator; 7] {
    [
        ListedOperator::of::<P>(),
        stage::<P, Counts<P>>("counts"),
        stage::<P, Requests<P>>("requests"),
        stage::<P, Profiles<P>>("profiles"),
        stage::<P, ProfilesAsking<P>>("profiles_asking"),
        stage::<P, Models<P>>("models"),
        stage::<P, Answers<P>>("answers"),
    ]
}

#[doc(hidden)]
pub fn shape<P: Recommender>() -> Shape {
    let ports: Vec<Port> = vec![
        port::<P::Interaction<'_>>("interactions"),
        port::<P::Request<'_>>("requests"),
    ];
    Shape {
        kind: Kind::Recommend,
        inputs: ports,
        outputs: vec![port::<P::Answer>("main")],
        key: Vec::new(),
        state: Vec::new(),
        retracts: false,
    }
}

stages! {
    /// By item: adds to an interaction how popular its item is.
    Counts;
    /// By user: passes requests on. Which are late is decided here, as for interactions in
    /// [`Counts`]: where both meet, the watermark depends on the speed of either.
    Requests;
    /// By user: learns from interactions, and has models of items learn; makes questions of
    /// requests.
    Profiles;
    /// As [`Profiles`], where each interaction is a request.
    ProfilesAsking;
    /// By item: learns, and gives candidates.
    Models;
    /// By user: gathers the answers to a request, and ranks them.
    Answers;
}

impl<P: Recommender> Process for Counts<P> {
    type Input<'a> = Came<'a, P>;
    type Key<'a> = ItemKey<'a>;
    type State = Popularity;
    type Output<'a> = Counted<'a, P>;

    fn row<'a>(
        &self,
        popularity: &mut Option<Popularity>,
        And(of, interaction): Came<'a, P>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let time = context.time();
        let popularity = popularity.get_or_insert_default();
        let elapsed_ms = time.0.saturating_sub(popularity.time.0);
        let before = decayed(popularity.weight, elapsed_ms, self.0.half_life_ms());
        *popularity = Popularity {
            time,
            weight: before + self.0.weight(&interaction),
        };
        let counting = Counting {
            user: of.recommend_user,
            item: context.key().item,
            popularity: popularity.weight,
        };
        context.emit(And(counting, Named::new(interaction)));
        Ok(())
    }
}

impl<P: Recommender> Process for Requests<P> {
    type Input<'a> = P::Request<'a>;
    type Key<'a> = UserKey<'a>;
    type State = ();
    type Output<'a> = Asked<'a, P>;

    fn row<'a>(
        &self,
        _state: &mut Option<()>,
        request: P::Request<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let user = context.key().user;
        context.emit(And(UserKey { user }, Named::new(request)));
        Ok(())
    }
}

/// What a stage by user makes.
type ToNext<P> = Two<Next, ToModel<P>, ToAnswer<P>>;

/// Fires when a user of whom nothing is known has asked.
const UNKNOWN: &str = "unknown";

impl<P: Recommender> Process for Profiles<P> {
    type Input<'a> = Two<Rows, Asked<'a, P>, Counted<'a, P>>;
    type Key<'a> = UserKey<'a>;
    type State = Profiled<P>;
    type Output<'a> = ToNext<P>;

    fn row<'a>(
        &self,
        state: &mut Option<Profiled<P>>,
        row: Self::Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let (user, time) = (context.key().user, context.time());
        match row.0 {
            OneOf::First(And(_, request)) => {
                let And(numbered, profile) = state.get_or_insert_default();
                let asking = Asking { user, time };
                let question = self.0.ask(&profile.value, &request.value, &asking);
                let number = next(numbered);
                if !numbered.is_known {
                    context.set(UNKNOWN, Timestamp(time.0.saturating_add(1)));
                }
                put::<P>(user, number, Some(question), Vec::new(), |row| {
                    context.emit(row);
                });
            }
            OneOf::Second(And(counting, interaction)) => {
                let event = event(&counting, time);
                let profiled = state.get_or_insert_default();
                let (number, lessons) = learn(&self.0, profiled, &interaction.value, &event)?;
                put::<P>(user, number, None, lessons, |row| context.emit(row));
            }
        }
        Ok(())
    }

    /// Nothing is kept of a user who has only asked, once no other request of the same time
    /// can come, which a number tells apart.
    fn timer<'a>(
        &self,
        state: &mut Option<Profiled<P>>,
        _timer: Timer<'_>,
        _context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if state
            .as_ref()
            .is_some_and(|And(numbered, _)| !numbered.is_known)
        {
            *state = None;
        }
        Ok(())
    }
}

impl<P: Recommender> Process for ProfilesAsking<P> {
    type Input<'a> = Counted<'a, P>;
    type Key<'a> = UserKey<'a>;
    type State = Profiled<P>;
    type Output<'a> = ToNext<P>;

    fn row<'a>(
        &self,
        state: &mut Option<Profiled<P>>,
        And(counting, interaction): Self::Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let (user, time) = (context.key().user, context.time());
        let profiled = state.get_or_insert_default();
        let event = event(&counting, time);
        let request = self.0.request_of(&interaction.value, &event);
        let asking = Asking { user, time };
        let question = self.0.ask(&profiled.1.value, &request, &asking);
        let (number, lessons) = learn(&self.0, profiled, &interaction.value, &event)?;
        put::<P>(user, number, Some(question), lessons, |row| {
            context.emit(row);
        });
        Ok(())
    }
}

fn event<'a>(counting: &Counting<'a>, time: Timestamp) -> Event<'a> {
    Event {
        user: counting.user,
        item: counting.item,
        time,
        popularity: counting.popularity,
    }
}

/// The number of a user's row, and what models learn from it.
type Taught<P> = (u64, Vec<Lesson<<P as Recommender>::Pair>>);

/// Has a profile learn from an interaction.
fn learn<P: Recommender>(
    recommender: &P,
    And(numbered, profile): &mut Profiled<P>,
    interaction: &P::Interaction<'_>,
    event: &Event<'_>,
) -> Result<Taught<P>, Reject> {
    let lessons = recommender.interact(&mut profile.value, interaction, event)?;
    numbered.is_known = true;
    Ok((next(numbered), lessons))
}

/// The number of a user's row.
fn next(numbered: &mut Numbered) -> u64 {
    let number = numbered.rows;
    numbered.rows += 1;
    number
}

/// Puts out what a user's row asks, and then what it teaches. Of the same item, what asks
/// and what teaches are one row.
fn put<P: Recommender>(
    user: &str,
    row: u64,
    question: Option<Question<P::Query>>,
    lessons: Vec<Lesson<P::Pair>>,
    mut emit: impl FnMut(ToNext<P>),
) {
    let mut parts = 1..;
    let of_user = Text::from(user);
    let mut to_model = |item: Text, ask: Option<f64>, pair: Option<P::Pair>| {
        let address = Address {
            item,
            user: of_user.clone(),
            row,
            part: parts.next().unwrap_or(u32::MAX),
            asks: ask.is_some(),
            weight: ask.unwrap_or_default(),
        };
        Two::first(And(address, Named::new(pair)))
    };
    let mut lessons: Vec<Option<Lesson<P::Pair>>> = lessons.into_iter().map(Some).collect();
    if let Some(Question { asks, query }) = question {
        let request = Part {
            user: user.into(),
            row,
            part: 0,
            answers: asks.len() as u32,
        };
        let rest = And(Named::new(Some(query)), Named::new(None));
        emit(Two::second(And(request, rest)));
        for Ask { item, weight } in asks {
            let mut of_item = lessons.iter_mut();
            let of_item = of_item.find(|lesson| matches!(lesson, Some(of) if of.item == item));
            let pair = of_item.and_then(Option::take).map(|lesson| lesson.pair);
            emit(to_model(item, Some(weight), pair));
        }
    }
    for Lesson { item, pair } in lessons.into_iter().flatten() {
        emit(to_model(item, None, Some(pair)));
    }
}

impl<P: Recommender> Process for Models<P> {
    type Input<'a> = ToModel<P>;
    type Key<'a> = ();
    type State = P::Model;
    type Output<'a> = ToAnswer<P>;

    fn row<'a>(
        &self,
        model: &mut Option<P::Model>,
        And(address, pair): ToModel<P>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let time = context.time();
        if address.asks {
            let candidates = match model {
                Some(model) => self.0.candidates(model, time),
                None => Vec::new(),
            };
            let answered = Answered {
                item: address.item,
                weight: address.weight,
                candidates,
            };
            let part = Part {
                user: address.user,
                row: address.row,
                part: address.part,
                answers: 0,
            };
            let rest = And(Named::new(None), Named::new(Some(answered)));
            context.emit(And(part, rest));
        }
        if let Some(pair) = pair.value {
            self.0.learn(model.get_or_insert_default(), pair, time);
        }
        Ok(())
    }
}

/// Fires when answers to a request can come no more.
const UNANSWERED: &str = "unanswered";

impl<P: Recommender> Process for Answers<P> {
    type Input<'a> = ToAnswer<P>;
    type Key<'a> = UserKey<'a>;
    type State = Pending<P>;
    type Output<'a> = P::Answer;

    fn row<'a>(
        &self,
        pending: &mut Option<Pending<P>>,
        And(part, And(query, answered)): ToAnswer<P>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if let Some(query) = query.value {
            self.finish(pending, context);
            let expected = Expected {
                time: context.time(),
                row: part.row,
                expected: part.answers,
            };
            let rest = And(Named::new(query), Named::new(Vec::new()));
            *pending = Some(And(expected, rest));
            context.set(UNANSWERED, Timestamp(context.time().0.saturating_add(1)));
        }
        if let Some(And(expected, And(_, answers))) = pending {
            // An answer to another request comes only if that has failed here.
            let is_due = expected.row == part.row;
            answers.value.extend(answered.value.filter(|_| is_due));
            if answers.value.len() >= expected.expected as usize {
                context.cancel(UNANSWERED);
                self.finish(pending, context);
            }
        }
        Ok(())
    }

    /// Some model has failed to answer.
    fn timer<'a>(
        &self,
        pending: &mut Option<Pending<P>>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        self.finish(pending, context);
        Ok(())
    }
}

impl<P: Recommender> Answers<P> {
    /// Answers a request with what has come.
    fn finish<'a>(&self, pending: &mut Option<Pending<P>>, context: &mut Context<'a, Self>) {
        let Some(And(expected, And(query, answers))) = pending.take() else {
            return;
        };
        let asking = Asking {
            user: context.key().user,
            time: expected.time,
        };
        let answer = self.0.rank(query.value, &answers.value, &asking);
        context.emit(answer);
    }
}
