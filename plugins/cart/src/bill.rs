use std::collections::BTreeMap;

use sluicebox_sdk::prelude::*;

/// An order. An item that is ordered twice is in it twice.
#[derive(Record, Clone, Debug)]
pub struct Order {
    pub order_id: String,
    pub user_id: String,
    pub items: Vec<String>,
}

/// The key of the list of prices.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub item_id: String,
}

/// What is read of the list of prices.
#[derive(Record, Clone, Debug)]
pub struct Price {
    pub price: Decimal<2>,
}

/// What an order costs.
#[derive(Record, Debug, PartialEq)]
pub struct Billed {
    pub order_id: String,
    pub user_id: String,
    /// How many items have a price.
    pub items: i64,
    pub goods: Decimal<2>,
    pub shipping: Decimal<2>,
    pub total: Decimal<2>,
    /// Those that had none when they were ordered; they are not billed.
    pub not_sold: Vec<String>,
}

/// What orders cost, by the prices at the time of each order.
#[operator(lookup)]
pub struct Bill {
    /// What it costs to ship an order.
    #[parameter(default = Decimal::from_units(490))]
    pub shipping: Decimal<2>,
    /// From which sum on shipping is free.
    #[parameter(default = Decimal::from_units(5_000))]
    pub free_from: Decimal<2>,
}

impl Lookup for Bill {
    type Row = Order;
    type Key = Item;
    type Found = Price;
    type Output = Billed;

    fn wanted(&self, order: &Order) -> Result<Vec<Item>, Reject> {
        if order.items.is_empty() {
            reject!("nothing is ordered");
        }
        Ok(different(order))
    }

    fn found(&self, order: Order, found: Vec<Option<Price>>) -> Result<Vec<Billed>, Reject> {
        let prices: BTreeMap<Item, Option<Price>> =
            different(&order).into_iter().zip(found).collect();
        let mut billed = Billed {
            order_id: order.order_id,
            user_id: order.user_id,
            items: 0,
            goods: Decimal::ZERO,
            shipping: Decimal::ZERO,
            total: Decimal::ZERO,
            not_sold: Vec::new(),
        };
        for item_id in order.items {
            let item = Item { item_id };
            match prices.get(&item) {
                Some(Some(price)) => {
                    billed.items += 1;
                    billed.goods += price.price;
                }
                _ => billed.not_sold.push(item.item_id),
            }
        }
        if billed.items > 0 && billed.goods < self.free_from {
            billed.shipping = self.shipping;
        }
        billed.total = billed.goods + billed.shipping;
        Ok(vec![billed])
    }
}

/// Each item of an order once, in order.
fn different(order: &Order) -> Vec<Item> {
    let items = order.items.iter().cloned().map(|item_id| Item { item_id });
    let mut items: Vec<Item> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill(items: &[&str]) -> Result<Vec<Billed>, Reject> {
        let shop = Bill {
            shipping: Decimal::from_units(490),
            free_from: Decimal::from_units(5_000),
        };
        let order = Order {
            order_id: "o1".to_owned(),
            user_id: "ann".to_owned(),
            items: items.iter().map(|item| (*item).to_owned()).collect(),
        };
        shop.look_up(order, |item| {
            let price = match item.item_id.as_str() {
                "tea" => "3.10",
                "pot" => "46.90",
                _ => return None,
            };
            let price = price.parse().expect("a price");
            Some(Price { price })
        })
    }

    /// Of the only bill: goods, shipping, total, items, and what is not sold.
    fn sums(items: &[&str]) -> String {
        let bills = bill(items).expect("it is billed");
        let [bill] = &bills[..] else {
            panic!("{bills:?}");
        };
        let Billed {
            items,
            goods,
            shipping,
            total,
            not_sold,
            ..
        } = bill;
        format!("{goods} + {shipping} = {total}, {items}, {not_sold:?}")
    }

    #[test]
    fn an_item_counts_as_often_as_it_is_ordered() {
        assert_eq!(sums(&["tea", "tea"]), "6.20 + 4.90 = 11.10, 2, []");
    }

    #[test]
    fn shipping_is_free_from_a_sum_on() {
        assert_eq!(sums(&["pot", "tea"]), "50.00 + 0.00 = 50.00, 2, []");
        assert_eq!(sums(&["pot"]), "46.90 + 4.90 = 51.80, 1, []");
    }

    #[test]
    fn what_has_no_price_is_not_billed() {
        assert_eq!(sums(&["cup", "tea"]), "3.10 + 4.90 = 8.00, 1, [\"cup\"]");
        assert_eq!(sums(&["cup"]), "0.00 + 0.00 = 0.00, 0, [\"cup\"]");
    }

    #[test]
    fn an_order_of_nothing_is_rejected() {
        assert!(bill(&[]).is_err());
    }
}
