//! Bills of five adds of a user, by the prices that the shop has shown of these items.

use std::collections::BTreeMap;
use std::hint::black_box;

use super::{Event, Map, of_user};
use crate::{ITEMS_OF_ORDER, OUT_OF_ORDERNESS_MS};

const SHIPPING_CENTS: i64 = 490;
const FREE_FROM_CENTS: i64 = 5_000;

#[derive(Default)]
pub(super) struct Bills {
    users: Map<Box<str>, u32>,
    /// The items of each user's next order.
    orders: Vec<Vec<Box<str>>>,
    prices: Map<Box<str>, i64>,
    /// Rows that wait for the watermark.
    waiting: BTreeMap<i64, Vec<Waiting>>,
    newest: i64,
}

enum Waiting {
    Price(Box<str>, i64),
    Order(Box<str>, Vec<Box<str>>),
}

impl Bills {
    pub(super) fn row(&mut self, event: Event<'_>) {
        let waiting = match event.action {
            "view" => Some(Waiting::Price(event.item_id.into(), event.price_cents)),
            "add" => {
                let (_, items) = of_user(&mut self.users, &mut self.orders, event.user_id);
                items.push(event.item_id.into());
                let is_full = items.len() == ITEMS_OF_ORDER;
                is_full.then(|| Waiting::Order(event.user_id.into(), std::mem::take(items)))
            }
            _ => None,
        };
        if let Some(waiting) = waiting {
            self.waiting.entry(event.ts).or_default().push(waiting);
        }
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    pub(super) fn advance(&mut self, watermark: i64) {
        while let Some(due) = self.waiting.first_entry()
            && *due.key() < watermark
        {
            let (prices, orders): (Vec<Waiting>, Vec<Waiting>) = due
                .remove()
                .into_iter()
                .partition(|waiting| matches!(waiting, Waiting::Price(..)));
            for waiting in prices.into_iter().chain(orders) {
                match waiting {
                    Waiting::Price(item, cents) => {
                        self.prices.insert(item, cents);
                    }
                    Waiting::Order(user, items) => self.bill(&user, &items),
                }
            }
        }
    }

    fn bill(&self, user: &str, items: &[Box<str>]) {
        let found = items.iter().map(|item| self.prices.get(item));
        let known: Vec<i64> = found.flatten().copied().collect();
        let goods: i64 = known.iter().sum();
        let shipping = match !known.is_empty() && goods < FREE_FROM_CENTS {
            true => SHIPPING_CENTS,
            false => 0,
        };
        black_box((user, known.len(), goods, shipping, goods + shipping));
    }
}
