//! Ranks the best items.

use sluicebox_sdk::prelude::*;

/// How often an item occurred.
#[derive(Record)]
pub struct ItemCount<'a> {
    pub item_id: &'a str,
    pub count: i64,
}

/// The best items so far, best first.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    pub items: Vec<Item>,
}

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Item {
    pub item_id: String,
    pub count: i64,
}

/// An item and its rank, from 1.
#[derive(Record, Debug, PartialEq)]
pub struct Ranked<'a> {
    pub rank: i64,
    pub item_id: &'a str,
    pub count: i64,
}

/// The items with the highest counts; of equal ones, the first by `item_id`.
/// Takes one row an item, keyed by window bounds.
#[operator]
pub struct Top {
    /// How many items.
    #[parameter(default = 10)]
    pub n: usize,
}

impl Item {
    fn is_before(&self, item_id: &str, count: i64) -> bool {
        self.count > count || self.count == count && self.item_id.as_str() <= item_id
    }
}

impl Top {
    /// Whether an item is among the best so far; few of many are.
    fn takes(&self, ranking: &Ranking, item_id: &str, count: i64) -> bool {
        let items = &ranking.items;
        let last_is_before = |last: &Item| last.is_before(item_id, count);
        items.len() < self.n || !items.last().is_none_or(last_is_before)
    }

    #[cold]
    fn insert(&self, ranking: &mut Ranking, item: Item) {
        let items = &mut ranking.items;
        let place = items.partition_point(|other| other.is_before(&item.item_id, item.count));
        items.insert(place, item);
        items.truncate(self.n);
    }
}

impl Aggregate for Top {
    type Input<'a> = ItemCount<'a>;
    type State = Ranking;
    type Output<'a> = Vec<Ranked<'a>>;

    fn accumulate(&self, ranking: &mut Ranking, row: ItemCount<'_>) -> Result<(), Reject> {
        let ItemCount { item_id, count } = row;
        if self.takes(ranking, item_id, count) {
            let item_id = item_id.to_owned();
            self.insert(ranking, Item { item_id, count });
        }
        Ok(())
    }

    fn merge(&self, ranking: &mut Ranking, later: Ranking) {
        for item in later.items {
            if self.takes(ranking, &item.item_id, item.count) {
                self.insert(ranking, item);
            }
        }
    }

    fn finish<'a>(&'a self, ranking: &'a Ranking, _window: Window) -> Vec<Ranked<'a>> {
        let ranked = ranking.items.iter().zip(1..).map(|(item, rank)| Ranked {
            rank,
            item_id: &item.item_id,
            count: item.count,
        });
        ranked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(top: &Top, counts: &[(&str, i64)]) -> Ranking {
        let mut ranking = Ranking::default();
        for &(item_id, count) in counts {
            let row = ItemCount { item_id, count };
            top.accumulate(&mut ranking, row).unwrap();
        }
        ranking
    }

    fn check(top: &Top, ranking: &Ranking, expected: &[(&str, i64)]) {
        let ranked = top.finish(ranking, Window::ALL);
        let found: Vec<_> = ranked.iter().map(|r| (r.item_id, r.count)).collect();
        assert_eq!(found, expected);
        assert!(
            ranked
                .iter()
                .map(|ranked| ranked.rank)
                .eq(1..=expected.len() as i64)
        );
    }

    #[test]
    fn keeps_the_best_and_orders_ties_by_item() {
        let top = Top { n: 3 };
        let counts = [("d", 2), ("b", 2), ("z", 1), ("a", 5), ("c", 2), ("e", 0)];
        check(
            &top,
            &ranking(&top, &counts),
            &[("a", 5), ("b", 2), ("c", 2)],
        );
    }

    #[test]
    fn does_not_depend_on_order_or_cuts() {
        let top = Top { n: 2 };
        let mut counts = [("a", 1), ("b", 3), ("c", 3), ("d", 2)];
        for _ in 0..counts.len() {
            counts.rotate_left(1);
            for cut in 0..=counts.len() {
                let mut first = ranking(&top, &counts[..cut]);
                top.merge(&mut first, ranking(&top, &counts[cut..]));
                check(&top, &first, &[("b", 3), ("c", 3)]);
            }
        }
    }

    #[test]
    fn none_of_none() {
        let top = Top { n: 0 };
        check(&top, &ranking(&top, &[("a", 1)]), &[]);
        check(&Top { n: 10 }, &Ranking::default(), &[]);
    }
}
