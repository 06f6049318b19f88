//! The stock of a shop's items, which is reserved for carts, sold, and never oversold.
//!
//! [`Inventory`] is one process, keyed by item: what goes into carts and out of them is
//! one of its inputs, what goes into the warehouse and out of it is the other.

/// What comes in and goes out.
mod events;
/// What is left of an item, and for whom it is reserved.
mod item;

use sluicebox_sdk::prelude::*;

pub use events::{
    Action, Input, LowStock, Output, Reason, Refused, Released, Request, Reserved, Sold,
    StockChange, Why,
};
pub use item::{Item, Reservation};

/// The time at which a watermark is when all inputs have ended.
const END: Timestamp = Timestamp(i64::MAX);
/// Of changes up to this, no number of rows makes a sum too large.
const LARGEST_CHANGE: u64 = 1_000_000_000;
/// The timer of an item's next reservation that nobody has bought or given up.
const ABANDONED: &str = "abandoned";

/// Reserves an item for those who add it to their carts, as long as there is stock.
/// Keyed by item.
///
/// What a user has reserved is released when they remove it, when their payment fails, or
/// some time after they last added the item, and is gone with a checkout. A request that
/// exceeds the stock left is refused as a whole.
#[operator(process)]
pub struct Inventory {
    /// How long a reservation waits for a checkout.
    #[parameter(default = 900_000)]
    pub hold_ms: i64,
    /// The stock left at which an item is low.
    #[parameter(default = 5)]
    pub low: i64,
    /// How many users can have reservations of an item at a time, since each takes
    /// memory.
    #[parameter(default = 10_000)]
    pub max_reservations: usize,
}

impl Process for Inventory {
    type Input<'a> = Input<'a>;
    type Key<'a> = ItemKey<'a>;
    type State = Item;
    type Output<'a> = Output<'a>;

    fn row<'a>(
        &self,
        item: &mut Option<Item>,
        row: Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        match row {
            Input::Requests(request) => self.request(item, request, context)?,
            Input::Stock(StockChange { change }) => {
                self.restock(item.get_or_insert_default(), change, context)?;
            }
        }
        if let Some(item) = item {
            self.watch(item, context);
        }
        Ok(())
    }

    /// Releases the reservations whose time has come.
    fn timer<'a>(
        &self,
        item: &mut Option<Item>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let Some(item) = item else { return Ok(()) };
        // When all inputs have ended, the timer fires only once more.
        let is_last = context.watermark() == END;
        let until = if is_last { END } else { timer.time };
        for reservation in item.release_until(until) {
            let at = reservation.expires;
            release(reservation, Why::Abandoned, at, context);
        }
        self.watch(item, context);
        Ok(())
    }
}

/// What [`Inventory`] reads of its key.
#[derive(Record)]
pub struct ItemKey<'a> {
    pub item_id: &'a str,
}

impl Inventory {
    fn request<'a>(
        &self,
        item: &mut Option<Item>,
        request: Request<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let Request {
            user_id,
            action,
            quantity,
        } = request;
        if action == Action::View {
            return Ok(());
        }
        if quantity < 1 {
            reject!("`quantity` is {quantity}, expected at least 1");
        }
        if action == Action::Return {
            return self.restock(item.get_or_insert_default(), quantity, context);
        }
        // An item of which no stock was ever told: nothing of it can be reserved, and
        // nothing is kept of it.
        let Some(item) = item else {
            if let Some(reason) = Reason::without_stock(action) {
                refuse(request, reason, 0, context);
            }
            return Ok(());
        };
        match action {
            Action::Add => match self.refusal(item, user_id, quantity) {
                Some(reason) => refuse(request, reason, item.left, context),
                None => self.reserve(item, user_id, quantity, context),
            },
            Action::Checkout => match item.take(user_id, quantity) {
                true => context.emit(Output::Sold(Sold {
                    item_id: context.key().item_id,
                    user_id,
                    quantity,
                    at: context.time(),
                })),
                false => refuse(request, Reason::NotReserved, item.left, context),
            },
            Action::Remove => give_back(item, user_id, quantity, Why::Removed, context),
            Action::Failed => give_back(item, user_id, quantity, Why::Failed, context),
            Action::View | Action::Return => {}
        }
        Ok(())
    }

    /// Why this cannot be reserved.
    fn refusal(&self, item: &Item, user_id: &str, quantity: i64) -> Option<Reason> {
        let is_full = item.reservations.len() >= self.max_reservations;
        if quantity > item.left {
            Some(Reason::SoldOut)
        } else if is_full && item.reserved(user_id) == 0 {
            Some(Reason::TooMany)
        } else {
            None
        }
    }

    fn reserve<'a>(
        &self,
        item: &mut Item,
        user_id: &'a str,
        quantity: i64,
        context: &mut Context<'a, Self>,
    ) {
        let expires = Timestamp(context.time().0.saturating_add(self.hold_ms));
        let expires = item.reserve(user_id, quantity, expires);
        context.emit(Output::Reserved(Reserved {
            item_id: context.key().item_id,
            user_id,
            quantity,
            left: item.left,
            expires,
        }));
    }

    /// Adds to the stock, or takes from it. What is not there any more cannot stay
    /// reserved.
    fn restock<'a>(
        &self,
        item: &mut Item,
        change: i64,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if change.unsigned_abs() > LARGEST_CHANGE {
            reject!("the stock changes by {change}, expected at most {LARGEST_CHANGE} either way");
        }
        item.left += change;
        while let Some(reservation) = item.release_uncovered() {
            release(reservation, Why::WrittenOff, context.time(), context);
        }
        Ok(())
    }

    /// Tells once that an item is low, and sets the timer of its next reservation.
    fn watch(&self, item: &mut Item, context: &mut Context<'_, Self>) {
        let was_low = std::mem::replace(&mut item.is_low, item.left <= self.low);
        if item.is_low && !was_low {
            context.emit(Output::Low(LowStock {
                item_id: context.key().item_id,
                left: item.left,
                at: context.time(),
            }));
        }
        match item.next_to_expire() {
            None => context.cancel(ABANDONED),
            next if next == context.timer(ABANDONED) => {}
            Some(next) => context.set(ABANDONED, next),
        }
    }
}

fn give_back(
    item: &mut Item,
    user_id: &str,
    quantity: i64,
    why: Why,
    context: &mut Context<'_, Inventory>,
) {
    // What was refused, or is abandoned, is not theirs to give back.
    let quantity = quantity.min(item.reserved(user_id));
    if quantity > 0 && item.take(user_id, quantity) {
        item.left += quantity;
        let given_back = Reservation {
            user_id: user_id.to_owned(),
            quantity,
            expires: context.time(),
        };
        release(given_back, why, context.time(), context);
    }
}

fn release(
    reservation: Reservation,
    why: Why,
    at: Timestamp,
    context: &mut Context<'_, Inventory>,
) {
    context.emit(Output::Released(Released {
        item_id: context.key().item_id,
        user_id: reservation.user_id,
        quantity: reservation.quantity,
        why,
        at,
    }));
}

fn refuse<'a>(
    request: Request<'a>,
    reason: Reason,
    left: i64,
    context: &mut Context<'a, Inventory>,
) {
    context.emit(Output::Refused(Refused {
        item_id: context.key().item_id,
        user_id: request.user_id,
        action: request.action,
        quantity: request.quantity,
        left,
        reason,
        at: context.time(),
    }));
}

export!(Inventory);

#[cfg(test)]
mod tests;
