use super::rows::{Address, OfAnswer, OfPair, OfQuery, Part, ToAnswer, ToModel, UserKey};
use super::stages::{Answers, Models, Profiles};
use crate::ports::two::{OneOf, Two};
use crate::prelude::*;
use crate::record::{And, Named};
use crate::{OneKey, Record, Rehearsal};

#[derive(Record)]
struct View {
    seconds: u32,
}

#[derive(Record)]
struct Wish {
    count: u32,
}

#[derive(Record, Clone, Default)]
struct Viewed {
    items: Vec<Text>,
}

#[derive(Record, Clone, Default)]
struct After {
    items: Vec<Text>,
}

#[derive(Record, Clone)]
struct Then {
    item: Text,
}

#[derive(Record, Clone)]
struct Wanted {
    count: u32,
}

#[derive(Record, Debug, PartialEq)]
struct Shown {
    user: String,
    asked: Vec<Text>,
    items: Vec<Text>,
}

/// What was viewed after what a user has viewed.
#[operator(recommend)]
struct ViewedNext {}

impl Recommender for ViewedNext {
    type Interaction<'a> = View;
    type Request<'a> = Wish;
    type Profile = Viewed;
    type Model = After;
    type Pair = Then;
    type Query = Wanted;
    type Answer = Shown;

    fn interact(
        &self,
        profile: &mut Viewed,
        view: &View,
        event: &Event<'_>,
    ) -> Result<Vec<Lesson<Then>>, Reject> {
        if view.seconds == 0 {
            reject!("nobody looked");
        }
        let lesson = |item: &Text| Lesson {
            item: item.clone(),
            pair: Then {
                item: event.item.into(),
            },
        };
        let lessons = profile.items.iter().map(lesson).collect();
        profile.items.push(event.item.into());
        Ok(lessons)
    }

    fn learn(&self, model: &mut After, pair: Then, _time: Timestamp) {
        model.items.push(pair.item);
    }

    fn ask(&self, profile: &Viewed, wish: &Wish, _asking: &Asking<'_>) -> Question<Wanted> {
        let ask = |item: &Text| Ask {
            item: item.clone(),
            weight: 1.0,
        };
        Question {
            asks: profile.items.iter().map(ask).collect(),
            query: Wanted { count: wish.count },
        }
    }

    fn request_of(&self, _view: &View, _event: &Event<'_>) -> Wish {
        Wish { count: 2 }
    }

    fn candidates(&self, model: &After, _time: Timestamp) -> Vec<Candidate> {
        let candidate = |item: &Text| Candidate {
            item: item.clone(),
            score: 1.0,
        };
        model.items.iter().map(candidate).collect()
    }

    fn rank(&self, query: Wanted, answered: &[Answered], asking: &Asking<'_>) -> Shown {
        let items = answered.iter().flat_map(|answered| &answered.candidates);
        let items = items.take(query.count as usize);
        Shown {
            user: asking.user.to_owned(),
            asked: answered.iter().map(|it| it.item.clone()).collect(),
            items: items.map(|candidate| candidate.item.clone()).collect(),
        }
    }
}

#[test]
fn a_recommender_lists_itself_and_its_stages() {
    use crate::operator::{Operator, plugin};
    let plugin = plugin("test", "1.0.0", "", &[ViewedNext::LISTED]);
    let names: Vec<&str> = plugin.operators.iter().map(|o| o.name.as_str()).collect();
    let expected = [
        "viewed_next",
        "viewed_next.counts",
        "viewed_next.requests",
        "viewed_next.profiles",
        "viewed_next.profiles_asking",
        "viewed_next.models",
        "viewed_next.answers",
    ];
    assert_eq!(names, expected);
    assert_eq!(plugin.operators[1].key[0].name, "item");
    assert_eq!(
        plugin.operators[1].inputs[0].schema[0].name,
        "recommend_user"
    );
}

#[test]
fn an_interaction_is_answered_before_it_is_learnt() {
    let mut shop = Rehearsal::new(ViewedNext {});
    let mut view = |second, user, item| {
        let view = View { seconds: 1 };
        shop.ask_and_interact(Timestamp(second), user, item, view)
    };
    view(1, "ann", "tea").unwrap();
    view(2, "ann", "pot").unwrap();
    view(3, "bob", "tea").unwrap();
    let shown = view(4, "bob", "cup").unwrap();
    assert_eq!(shown.items, ["pot"]);
    assert!(
        shop.interact(Timestamp(5), "bob", "pot", View { seconds: 0 })
            .is_err()
    );
    assert_eq!(shop.profile("bob").map(|it| it.items.len()), Some(2));
    assert_eq!(
        shop.model("tea").map(|it| it.items.clone()),
        Some(vec!["pot".into(), "cup".into()])
    );
}

#[test]
fn nothing_is_kept_of_a_user_who_only_asks() {
    let key = UserKey { user: "eve" };
    let mut profile = OneKey::new(Profiles(ViewedNext {}), key);
    for row in 0..2 {
        let wish = Named::new(Wish { count: 1 });
        let put = profile
            .row(Timestamp(7), Two::first(And(UserKey { user: "eve" }, wish)))
            .unwrap();
        let numbers: Vec<u64> = put.iter().map(number).collect();
        assert_eq!(numbers, [row], "requests of one time are told apart");
    }
    assert!(profile.state().is_some());
    profile.advance(Timestamp(8)).unwrap();
    assert!(profile.state().is_none());
}

/// The number of the row that something comes from.
fn number<N>(put: &Two<N, ToModel<ViewedNext>, ToAnswer<ViewedNext>>) -> u64 {
    match &put.0 {
        OneOf::First(And(address, _)) => address.row,
        OneOf::Second(And(part, _)) => part.row,
    }
}

#[test]
fn a_model_answers_before_it_learns() {
    let mut model = OneKey::new(Models(ViewedNext {}), ());
    let row = |item: &str| {
        let address = Address {
            item: "tea".into(),
            user: "ann".into(),
            row: 0,
            part: 1,
            asks: true,
            weight: 1.0,
        };
        let pair = Then { item: item.into() };
        And(address, Named::<OfPair, _>::new(Some(pair)))
    };
    let answers = |put: Vec<ToAnswer<ViewedNext>>| -> Vec<usize> {
        let answered = put
            .into_iter()
            .filter_map(|And(_, And(_, answered))| answered.value);
        answered.map(|answered| answered.candidates.len()).collect()
    };
    assert_eq!(answers(model.row(Timestamp(1), row("pot")).unwrap()), [0]);
    assert_eq!(answers(model.row(Timestamp(2), row("cup")).unwrap()), [1]);
}

fn part(row: u64, part: u32, answers: u32, rest: Option<Answered>) -> ToAnswer<ViewedNext> {
    let query = (part == 0).then_some(Wanted { count: 5 });
    let user = "ann".into();
    let part = Part {
        user,
        row,
        part,
        answers,
    };
    And(
        part,
        And(
            Named::<OfQuery, _>::new(query),
            Named::<OfAnswer, _>::new(rest),
        ),
    )
}

fn answered(item: &str) -> Option<Answered> {
    Some(Answered {
        item: item.into(),
        weight: 1.0,
        candidates: Vec::new(),
    })
}

fn asked(shown: Vec<Shown>) -> Vec<String> {
    shown
        .into_iter()
        .map(|shown| shown.asked.join("+"))
        .collect()
}

#[test]
fn a_request_is_answered_when_all_models_have() {
    let mut answers = OneKey::new(Answers(ViewedNext {}), UserKey { user: "ann" });
    let mut row = |row| asked(answers.row(Timestamp(5), row).unwrap());
    assert_eq!(row(part(0, 0, 0, None)), [""]);
    assert!(row(part(1, 0, 2, None)).is_empty());
    assert!(row(part(1, 1, 0, answered("tea"))).is_empty());
    assert_eq!(row(part(1, 2, 0, answered("pot"))), ["tea+pot"]);
    assert!(answers.state().is_none());
    assert!(
        answers.advance(Timestamp(6)).unwrap().is_empty(),
        "no timer is left"
    );
}

#[test]
fn a_request_is_answered_without_a_model_that_fails() {
    let mut answers = OneKey::new(Answers(ViewedNext {}), UserKey { user: "ann" });
    answers.row(Timestamp(5), part(0, 0, 2, None)).unwrap();
    answers
        .row(Timestamp(5), part(0, 2, 0, answered("pot")))
        .unwrap();
    // The next request of the same time.
    let shown = answers.row(Timestamp(5), part(1, 0, 1, None)).unwrap();
    assert_eq!(asked(shown), ["pot"]);
    assert_eq!(asked(answers.advance(Timestamp(6)).unwrap()), [""]);
    assert!(answers.state().is_none());
}
