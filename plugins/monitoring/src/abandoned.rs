//! Finds carts that nobody bought.

use sluicebox_sdk::prelude::*;

use crate::Action;

const ABANDONED: &str = "abandoned";

#[derive(Record)]
pub struct Step {
    pub action: Action,
}

#[derive(Record)]
pub struct UserKey<'a> {
    pub user_id: &'a str,
}

/// How far a user has come.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Visit {
    pub viewed: Timestamp,
    pub carted: Option<Timestamp>,
}

#[derive(Record, Debug, PartialEq)]
pub struct AbandonedCart<'a> {
    pub user_id: &'a str,
    /// The first view.
    pub viewed: Timestamp,
    /// The last time that something was put into the cart.
    pub carted: Timestamp,
    pub at: Timestamp,
}

/// Users who viewed something, then put something into their cart, and then did not buy
/// anything for some time. Keyed by user.
///
/// Users who only view are forgotten with the operator's `ttl`.
#[operator(process)]
pub struct Abandoned {
    #[parameter(default = 1_800_000)]
    pub after_ms: i64,
}

impl Process for Abandoned {
    type Input<'a> = Step;
    type Key<'a> = UserKey<'a>;
    type State = Visit;
    type Output<'a> = AbandonedCart<'a>;

    fn row<'a>(
        &self,
        visit: &mut Option<Visit>,
        step: Step,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let time = context.time();
        match (step.action, visit.as_mut()) {
            (Action::View, None) => {
                *visit = Some(Visit {
                    viewed: time,
                    carted: None,
                });
            }
            (Action::View, Some(visit)) => visit.viewed = visit.viewed.min(time),
            (Action::Cart, Some(visit)) => {
                let carted = visit.carted.max(Some(time)).unwrap_or(time);
                visit.carted = Some(carted);
                let due = Timestamp(carted.0.saturating_add(self.after_ms));
                context.set(ABANDONED, due);
            }
            (Action::Purchase, _) => {
                *visit = None;
                context.cancel(ABANDONED);
            }
            (Action::Cart, None) | (Action::Error, _) => {}
        }
        Ok(())
    }

    fn timer<'a>(
        &self,
        visit: &mut Option<Visit>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if let Some(Visit {
            viewed,
            carted: Some(carted),
        }) = visit.take()
        {
            context.emit(AbandonedCart {
                user_id: context.key().user_id,
                viewed,
                carted,
                at: timer.time,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    fn user() -> OneKey<Abandoned> {
        OneKey::new(Abandoned { after_ms: 30 }, UserKey { user_id: "ann" })
    }

    /// Takes steps at their times, then a time without rows, and returns the abandoned
    /// carts: when something was first viewed and last put into the cart, and when the
    /// cart was abandoned.
    fn run(steps: &[(i64, Action)], until: i64) -> Vec<(i64, i64, i64)> {
        let mut user = user();
        let mut abandoned = Vec::new();
        for &(time, action) in steps {
            let time = Timestamp(time);
            abandoned.extend(user.row(time, Step { action }).expect("not rejected"));
        }
        abandoned.extend(user.advance(Timestamp(until)).expect("not rejected"));
        let times = |cart: &AbandonedCart<'_>| (cart.viewed.0, cart.carted.0, cart.at.0);
        abandoned.iter().map(times).collect()
    }

    #[test]
    fn a_cart_is_abandoned_after_its_time() {
        let steps = [(0, Action::View), (5, Action::Cart)];
        assert_eq!(run(&steps, 34), []);
        assert_eq!(run(&steps, 35), [(0, 5, 35)]);
    }

    #[test]
    fn each_thing_in_the_cart_gives_it_more_time() {
        let steps = [
            (3, Action::View),
            (5, Action::Cart),
            (20, Action::Cart),
            (10, Action::Cart),
            (1, Action::View),
            (40, Action::Error),
        ];
        assert_eq!(run(&steps, 49), []);
        assert_eq!(run(&steps, 50), [(1, 20, 50)]);
    }

    #[test]
    fn a_purchase_or_a_missing_step_is_no_abandoned_cart() {
        let bought = [(0, Action::View), (5, Action::Cart), (35, Action::Purchase)];
        assert_eq!(run(&bought, 1_000), []);
        let not_viewed = [(5, Action::Cart), (6, Action::View)];
        assert_eq!(run(&not_viewed, 1_000), []);
        let again = [(36, Action::Cart)];
        assert_eq!(run(&[&bought[..], &again].concat(), 1_000), []);
    }

    #[test]
    fn the_sequence_begins_anew_after_it_was_told() {
        let mut user = user();
        for (time, action) in [(0, Action::View), (1, Action::Cart)] {
            user.row(Timestamp(time), Step { action }).expect("a step");
        }
        assert_eq!(user.advance(Timestamp(31)).expect("a timer").len(), 1);
        assert_eq!(user.state(), None);
    }
}
