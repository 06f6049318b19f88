use sluicebox_sdk::prelude::*;

/// What an event changes in a cart, as `changes` makes it.
#[derive(Record)]
pub struct Change {
    pub delta: i64,
}

#[derive(Record)]
pub struct User<'a> {
    pub user_id: &'a str,
}

/// What is in a cart.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Cart {
    pub items: i64,
    pub since: Timestamp,
}

/// A cart that was left.
#[derive(Record, Debug, PartialEq)]
pub struct LeftCart {
    pub user_id: String,
    pub items: i64,
    /// When something was put into it first.
    pub since: Timestamp,
}

/// Carts with something in them that nothing happens to for some time.
#[operator(process)]
pub struct LeftCarts {
    /// For how long, in ms.
    #[parameter(default = 60_000)]
    pub after_ms: i64,
}

const LEFT: &str = "left";

impl Process for LeftCarts {
    type Input<'a> = Change;
    type Key<'a> = User<'a>;
    type State = Cart;
    type Output<'a> = LeftCart;

    fn row<'a>(
        &self,
        cart: &mut Option<Cart>,
        change: Change,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let full = cart.get_or_insert_with(|| Cart {
            items: 0,
            since: context.time(),
        });
        full.items += change.delta;
        if full.items > 0 {
            let left = Timestamp(context.time().0 + self.after_ms);
            context.set(LEFT, left);
        } else {
            *cart = None;
            context.cancel(LEFT);
        }
        Ok(())
    }

    fn timer<'a>(
        &self,
        cart: &mut Option<Cart>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let user_id = context.key().user_id.to_owned();
        if let Some(Cart { items, since }) = cart.take() {
            context.emit(LeftCart {
                user_id,
                items,
                since,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::OneKey;

    #[test]
    fn a_cart_is_left_when_nothing_happens_to_it() {
        let user = User { user_id: "ann" };
        let mut cart = OneKey::new(LeftCarts { after_ms: 100 }, user);
        let change = |delta| Change { delta };
        assert_eq!(cart.row(Timestamp(0), change(2)), Ok(vec![]));
        assert_eq!(cart.row(Timestamp(50), change(1)), Ok(vec![]));
        assert_eq!(cart.advance(Timestamp(149)), Ok(vec![]));
        let left = LeftCart {
            user_id: "ann".to_owned(),
            items: 3,
            since: Timestamp(0),
        };
        assert_eq!(cart.advance(Timestamp(150)), Ok(vec![left]));
        assert_eq!(cart.state(), None);
    }

    #[test]
    fn an_empty_cart_is_not_left() {
        let user = User { user_id: "ann" };
        let mut cart = OneKey::new(LeftCarts { after_ms: 100 }, user);
        cart.row(Timestamp(0), Change { delta: 2 }).unwrap();
        cart.row(Timestamp(10), Change { delta: -2 }).unwrap();
        assert_eq!(cart.advance(Timestamp(500)), Ok(vec![]));
    }
}
