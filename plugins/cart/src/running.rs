//! Computes the content of each user's cart after each change.

use sluicebox_sdk::prelude::*;

use crate::Action;

/// An event of one user and one item.
#[derive(Record)]
pub struct CartEvent {
    pub action: Action,
    pub quantity: i64,
}

/// How many of the item are in the cart.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct InCart {
    pub quantity: i64,
}

/// How many of an item a user has in the cart: what was added, less what was
/// removed. Keyed by user and item.
#[operator]
pub struct RunningCart;

impl Aggregate for RunningCart {
    type Input<'a> = CartEvent;
    type State = InCart;
    type Output<'a> = InCart;

    fn accumulate(&self, cart: &mut InCart, event: CartEvent) -> Result<(), Reject> {
        cart.quantity += event.action.delta() * event.quantity;
        Ok(())
    }

    fn merge(&self, cart: &mut InCart, later: InCart) {
        cart.quantity += later.quantity;
    }

    fn finish(&self, cart: &InCart, _window: Window) -> InCart {
        cart.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_has_what_was_added_less_what_was_removed() {
        let mut cart = InCart::default();
        let steps = [
            (Action::Add, 3, 3),
            (Action::View, 1, 3),
            (Action::Remove, 2, 1),
            (Action::Checkout, 1, 1),
            (Action::Add, 1, 2),
        ];
        for (action, quantity, expected) in steps {
            let event = CartEvent { action, quantity };
            RunningCart.accumulate(&mut cart, event).unwrap();
            let quantity = RunningCart.finish(&cart, Window::ALL).quantity;
            assert_eq!(quantity, expected, "after {action:?}");
        }
    }

    #[test]
    fn merging_adds_up() {
        let mut cart = InCart { quantity: 3 };
        RunningCart.merge(&mut cart, InCart { quantity: -1 });
        assert_eq!(cart, InCart { quantity: 2 });
    }
}
