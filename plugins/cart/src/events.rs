//! Cleans events, and computes what each one changes in a cart.

use sluicebox_sdk::prelude::*;

/// Something that a user did with an item.
#[derive(Record, Clone, Debug)]
pub struct Event<'a> {
    pub user_id: &'a str,
    pub item_id: &'a str,
    pub action: Action,
    /// How many of the item.
    pub quantity: i64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Add,
    Remove,
    View,
    Checkout,
}

impl Action {
    /// How one item of this action changes the cart: 1, −1 or nothing.
    pub fn delta(self) -> i64 {
        i64::from(self == Action::Add) - i64::from(self == Action::Remove)
    }
}

/// How many of an item a cart gains or loses.
#[derive(Record, Debug, PartialEq)]
pub struct Change<'a> {
    pub user_id: &'a str,
    pub item_id: &'a str,
    /// Negative if removed.
    pub delta: i64,
}

/// The action of an event.
#[derive(Record)]
pub struct ActionOnly {
    pub action: Action,
}

/// Which events are plausible.
#[derive(Parameters)]
pub struct Plausible {
    /// The largest quantity of an event.
    #[parameter(default = 1000)]
    pub max_quantity: i64,
}

/// Rejects events that cannot be true: without a user or an item, with an
/// action that nobody knows, or about less than one or too many of an item.
#[operator]
pub fn clean(event: Event<'_>, plausible: &Plausible) -> Result<(), Reject> {
    let max = plausible.max_quantity;
    if event.user_id.is_empty() {
        reject!("`user_id` is empty");
    }
    if event.item_id.is_empty() {
        reject!("`item_id` is empty");
    }
    match event.quantity {
        quantity if quantity < 1 => reject!("`quantity` is {quantity}, expected at least 1"),
        quantity if quantity > max => reject!("`quantity` is {quantity}, expected at most {max}"),
        _ => Ok(()),
    }
}

/// The change of a cart by an event; views and checkouts change nothing.
#[operator]
pub fn changes(event: Event<'_>) -> Option<Change<'_>> {
    let each = event.action.delta();
    (each != 0).then(|| Change {
        user_id: event.user_id,
        item_id: event.item_id,
        delta: each * event.quantity,
    })
}

/// Keeps events that add to a cart.
#[operator]
pub fn adds(event: ActionOnly) -> bool {
    event.action == Action::Add
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: Action, quantity: i64) -> Event<'static> {
        Event {
            user_id: "user-1",
            item_id: "item-1",
            action,
            quantity,
        }
    }

    fn reason(event: Event<'_>) -> String {
        let plausible = Plausible { max_quantity: 10 };
        match clean(event, &plausible) {
            Ok(()) => "none".to_owned(),
            Err(reject) => reject.reason().to_owned(),
        }
    }

    #[test]
    fn clean_says_what_is_wrong() {
        let good = event(Action::View, 1);
        assert_eq!(reason(good.clone()), "none");
        assert_eq!(reason(event(Action::View, 10)), "none");
        assert_eq!(
            reason(event(Action::View, 11)),
            "`quantity` is 11, expected at most 10"
        );
        assert_eq!(
            reason(event(Action::View, 0)),
            "`quantity` is 0, expected at least 1"
        );
        let nobody = Event {
            user_id: "",
            ..good.clone()
        };
        assert_eq!(reason(nobody), "`user_id` is empty");
        let nothing = Event {
            item_id: "",
            ..good
        };
        assert_eq!(reason(nothing), "`item_id` is empty");
    }

    #[test]
    fn only_adding_and_removing_change_a_cart() {
        let delta = |action| changes(event(action, 3)).map(|change| change.delta);
        assert_eq!(delta(Action::Add), Some(3));
        assert_eq!(delta(Action::Remove), Some(-3));
        assert_eq!(delta(Action::View), None);
        assert_eq!(delta(Action::Checkout), None);
    }

    #[test]
    fn adds_keeps_adds() {
        assert!(adds(ActionOnly {
            action: Action::Add
        }));
        assert!(!adds(ActionOnly {
            action: Action::Remove
        }));
    }
}
