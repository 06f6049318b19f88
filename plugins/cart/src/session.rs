//! Counts what a user does in a visit.

use sluicebox_sdk::prelude::*;

use crate::Action;

/// An event of one user.
#[derive(Record)]
pub struct UserEvent {
    pub action: Action,
    pub quantity: i64,
}

/// How often each action was done.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Events of any kind.
    pub events: i64,
    pub adds: i64,
    pub removes: i64,
    pub views: i64,
    pub checkouts: i64,
    /// Sum of the quantities of all events.
    pub sum: i64,
}

/// What a user did: keyed by user, in session windows.
#[operator]
pub struct Session;

impl Aggregate for Session {
    type Input<'a> = UserEvent;
    type State = Activity;
    type Output<'a> = Activity;

    fn accumulate(&self, activity: &mut Activity, event: UserEvent) -> Result<(), Reject> {
        activity.events += 1;
        activity.sum += event.quantity;
        activity.adds += i64::from(event.action == Action::Add);
        activity.removes += i64::from(event.action == Action::Remove);
        activity.views += i64::from(event.action == Action::View);
        activity.checkouts += i64::from(event.action == Action::Checkout);
        Ok(())
    }

    fn merge(&self, activity: &mut Activity, later: Activity) {
        activity.events += later.events;
        activity.adds += later.adds;
        activity.removes += later.removes;
        activity.views += later.views;
        activity.checkouts += later.checkouts;
        activity.sum += later.sum;
    }

    fn finish(&self, activity: &Activity, _window: Window) -> Activity {
        activity.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(events: &[(Action, i64)]) -> Activity {
        let mut activity = Activity::default();
        for &(action, quantity) in events {
            let event = UserEvent { action, quantity };
            Session.accumulate(&mut activity, event).unwrap();
        }
        Session.finish(&activity, Window::ALL)
    }

    #[test]
    fn counts_each_action_and_sums_all() {
        let events = [
            (Action::View, 1),
            (Action::Add, 4),
            (Action::Add, 2),
            (Action::Remove, 1),
            (Action::Checkout, 5),
        ];
        let expected = Activity {
            events: 5,
            adds: 2,
            removes: 1,
            views: 1,
            checkouts: 1,
            sum: 13,
        };
        assert_eq!(activity(&events), expected);
        for cut in 0..=events.len() {
            let mut first = activity(&events[..cut]);
            Session.merge(&mut first, activity(&events[cut..]));
            assert_eq!(first, expected);
        }
    }
}
