//! Follows a user from action to action.

use sluicebox_sdk::prelude::*;

use crate::{Action, Next, Place, UserKey};

/// The timer of the end of a visit.
const LEFT: &str = "left";

#[derive(Record)]
pub struct Act<'a> {
    pub item_id: &'a str,
    pub action: Action,
}

/// Where a user is in a visit.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Visit {
    pub before: Place,
    pub last: Place,
    /// When the user did something last, and what it was: the same once more is a
    /// duplicate.
    pub at: Timestamp,
    pub done: Vec<Done>,
}

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Done {
    pub item_id: String,
    pub action: Action,
}

/// The outputs of [`Steps`].
#[derive(Ports, Debug, PartialEq)]
pub enum Output<'a> {
    Steps(Step<'a>),
    Questions(Question<'a>),
}

/// What a user did after something.
#[derive(Record, Debug, PartialEq)]
pub struct Step<'a> {
    pub user_id: &'a str,
    pub before: Place,
    pub last: Place,
    pub next: Next,
}

/// What will a user do after something?
#[derive(Record, Debug, PartialEq)]
pub struct Question<'a> {
    pub user_id: &'a str,
    pub before: Place,
    pub last: Place,
}

/// The steps of each user, and after each the question what comes next. Keyed by user, in
/// order of event time.
///
/// A visit ends when a user has done nothing for some time: that is a step as well.
#[operator(process)]
pub struct Steps {
    /// How long a user does nothing until the visit is over.
    #[parameter(default = 1_800_000)]
    pub gap_ms: i64,
}

impl Process for Steps {
    type Input<'a> = Act<'a>;
    type Key<'a> = UserKey<'a>;
    type State = Visit;
    type Output<'a> = Output<'a>;

    fn row<'a>(
        &self,
        visit: &mut Option<Visit>,
        act: Act<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let user_id = context.key().user_id;
        if user_id.is_empty() || act.item_id.is_empty() {
            reject!("`user_id` or `item_id` is empty, expected both");
        }
        let at = context.time();
        let done = Done {
            item_id: act.item_id.to_owned(),
            action: act.action,
        };
        let visit = visit.get_or_insert_with(|| Visit {
            before: Place::Start,
            last: Place::Start,
            at,
            done: Vec::new(),
        });
        if visit.at != at {
            visit.at = at;
            visit.done.clear();
        }
        if visit.done.contains(&done) {
            return Ok(());
        }
        visit.done.push(done);
        context.emit(Output::Steps(Step {
            user_id,
            before: visit.before,
            last: visit.last,
            next: act.action.into(),
        }));
        (visit.before, visit.last) = (visit.last, act.action.into());
        context.emit(Output::Questions(Question {
            user_id,
            before: visit.before,
            last: visit.last,
        }));
        context.set(LEFT, Timestamp(at.0.saturating_add(self.gap_ms)));
        Ok(())
    }

    /// Ends a visit.
    fn timer<'a>(
        &self,
        visit: &mut Option<Visit>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if let Some(Visit { before, last, .. }) = visit.take() {
            context.emit(Output::Steps(Step {
                user_id: context.key().user_id,
                before,
                last,
                next: Next::Leave,
            }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    /// What actions of a user at these times put out, a line each.
    fn run(actions: &[(i64, &str, Action)], until: i64) -> Vec<String> {
        let mut user = OneKey::new(Steps { gap_ms: 30 }, UserKey { user_id: "ann" });
        let mut outputs = Vec::new();
        for &(time, item_id, action) in actions {
            outputs.extend(user.advance(Timestamp(time)).expect("not rejected"));
            let act = Act { item_id, action };
            outputs.extend(user.row(Timestamp(time), act).expect("not rejected"));
        }
        outputs.extend(user.advance(Timestamp(until)).expect("not rejected"));
        let show = |output: &Output<'_>| match output {
            Output::Steps(it) => format!("{:?}, {:?}: {:?}", it.before, it.last, it.next),
            Output::Questions(it) => format!("{:?}, {:?}?", it.before, it.last),
        };
        outputs.iter().map(show).collect()
    }

    #[test]
    fn each_action_is_a_step_and_a_question() {
        let actions = [(0, "tea", Action::View), (5, "tea", Action::Add)];
        assert_eq!(
            run(&actions, 34),
            [
                "Start, Start: View",
                "Start, View?",
                "Start, View: Add",
                "View, Add?"
            ]
        );
    }

    #[test]
    fn a_visit_ends_with_a_step() {
        let actions = [(0, "tea", Action::View), (30, "tea", Action::Checkout)];
        assert_eq!(
            run(&actions, 60),
            [
                "Start, Start: View",
                "Start, View?",
                "Start, View: Leave",
                "Start, Start: Checkout",
                "Start, Checkout?",
                "Start, Checkout: Leave"
            ]
        );
    }

    #[test]
    fn the_same_once_more_is_no_step() {
        let actions = [
            (0, "tea", Action::View),
            (0, "pot", Action::View),
            (0, "tea", Action::View),
            (1, "tea", Action::View),
        ];
        let steps = run(&actions, 1);
        let steps: Vec<&String> = steps.iter().filter(|line| line.contains(':')).collect();
        assert_eq!(
            steps,
            [
                "Start, Start: View",
                "Start, View: View",
                "View, View: View"
            ]
        );
    }

    #[test]
    fn nobody_does_nothing() {
        let act = Act {
            item_id: "tea",
            action: Action::View,
        };
        let mut nobody = OneKey::new(Steps { gap_ms: 30 }, UserKey { user_id: "" });
        assert!(nobody.row(Timestamp(0), act).is_err());
    }
}
