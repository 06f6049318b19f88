//! Counts per user and per item.

use sluicebox_sdk::prelude::*;

/// How many of an item were put into a cart at once.
#[derive(Record)]
pub struct Addition {
    pub quantity: i64,
}

/// How often items were added, and how many in total.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Additions {
    /// Number of events.
    pub count: i64,
    /// Sum of their quantities.
    pub sum: i64,
}

/// What a user added to the cart. Takes the rows of `adds`, keyed by user.
#[operator]
pub struct Added;

impl Aggregate for Added {
    type Input<'a> = Addition;
    type State = Additions;
    type Output<'a> = Additions;

    fn accumulate(&self, added: &mut Additions, addition: Addition) -> Result<(), Reject> {
        added.count += 1;
        added.sum += addition.quantity;
        Ok(())
    }

    fn merge(&self, added: &mut Additions, later: Additions) {
        added.count += later.count;
        added.sum += later.sum;
    }

    fn finish(&self, added: &Additions, _window: Window) -> Additions {
        added.clone()
    }
}

/// A row with any fields.
#[derive(Record)]
pub struct Anything;

/// A number of rows.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Count {
    pub count: i64,
}

/// The number of rows for each item. Keyed by item.
#[operator]
pub struct ItemCounts;

impl Aggregate for ItemCounts {
    type Input<'a> = Anything;
    type State = Count;
    type Output<'a> = Count;

    fn accumulate(&self, rows: &mut Count, _row: Anything) -> Result<(), Reject> {
        rows.count += 1;
        Ok(())
    }

    fn merge(&self, rows: &mut Count, later: Count) {
        rows.count += later.count;
    }

    fn finish(&self, rows: &Count, _window: Window) -> Count {
        rows.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_counts_and_sums() {
        let mut added = Additions::default();
        for quantity in [2, 5] {
            Added.accumulate(&mut added, Addition { quantity }).unwrap();
        }
        Added.merge(&mut added, Additions { count: 1, sum: 4 });
        assert_eq!(
            Added.finish(&added, Window::ALL),
            Additions { count: 3, sum: 11 }
        );
    }

    #[test]
    fn item_counts_counts() {
        let mut rows = Count::default();
        ItemCounts.accumulate(&mut rows, Anything).unwrap();
        ItemCounts.accumulate(&mut rows, Anything).unwrap();
        ItemCounts.merge(&mut rows, Count { count: 5 });
        assert_eq!(ItemCounts.finish(&rows, Window::ALL), Count { count: 7 });
    }
}
