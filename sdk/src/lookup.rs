//! Looks rows up in a table: the author says which keys a row wants, the host finds them,
//! and the author makes rows of what it has found.
//!
//! A look-up is run as processes, its stages, and a join between them.

/// Tells rows apart.
mod identity;
/// The rows between stages.
mod rows;
/// The processes that a look-up is run as.
pub mod stages;
#[cfg(test)]
mod tests;

use crate::{Owned, Parameters, Record, Reject};

/// Finds rows of a table by their keys, any number for each row.
///
/// The type that implements it carries `#[operator(lookup)]`, and its fields are the
/// operator's [`Parameters`]. The operator is named after it, in snake case.
///
/// It has two steps, since a plugin cannot wait for what it wants:
/// [`wanted`](Lookup::wanted) says which keys of the table a row wants, and
/// [`found`](Lookup::found) makes rows of what the table has for them. In between, the host
/// finds the keys of many rows at once. The value itself must keep nothing.
///
/// Which table it is, the pipeline says: `table = "prices"` names anything that has rows with
/// the fields of `Key` and `Found`, of which the last one of a key counts. A row sees the
/// table as of its own event time, so that it depends on nothing but the rows.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record, Clone)]
/// struct Cart {
///     cart: String,
///     items: Vec<String>,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Item {
///     item: String,
/// }
///
/// #[derive(Record, Clone)]
/// struct Price {
///     cents: i64,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Total {
///     cart: String,
///     cents: i64,
///     unknown: u32,
/// }
///
/// /// What the items of a cart cost.
/// #[operator(lookup)]
/// struct Totals {}
///
/// impl Lookup for Totals {
///     type Row = Cart;
///     type Key = Item;
///     type Found = Price;
///     type Output = Total;
///
///     fn wanted(&self, cart: &Cart) -> Result<Vec<Item>, Reject> {
///         let items = cart.items.iter();
///         Ok(items.map(|item| Item { item: item.clone() }).collect())
///     }
///
///     fn found(&self, cart: Cart, prices: Vec<Option<Price>>) -> Result<Vec<Total>, Reject> {
///         let cents = prices.iter().flatten().map(|price| price.cents).sum();
///         let unknown = prices.iter().filter(|price| price.is_none()).count() as u32;
///         Ok(vec![Total { cart: cart.cart, cents, unknown }])
///     }
/// }
///
/// export!(Totals);
///
/// let cart = Cart { cart: "c1".into(), items: vec!["tea".into(), "pot".into()] };
/// let totals = Totals {}.look_up(cart, |item| (item.item == "tea").then_some(Price { cents: 300 }));
/// assert_eq!(totals.unwrap(), [Total { cart: "c1".into(), cents: 300, unknown: 1 }]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a look-up",
    label = "has `#[operator(lookup)]`, but no `impl Lookup`",
    note = "a struct with `#[operator(lookup)]` must implement `sluicebox_sdk::Lookup`"
)]
pub trait Lookup: Parameters {
    /// The rows that come in. The host keeps them while they wait.
    type Row: Owned;
    /// The key of the table, by the names that its fields have there.
    type Key: for<'a> Record<'a>;
    /// What is read of the table's rows.
    type Found: Owned;
    /// The rows that it makes.
    type Output: for<'a> Record<'a>;

    /// The keys that a row wants. It may want a key twice, or none.
    fn wanted(&self, row: &Self::Row) -> Result<Vec<Self::Key>, Reject>;

    /// Makes rows of a row and of what the table has for each key that it
    /// [wanted](Lookup::wanted), in that order; `None` for a key that the table does not have.
    fn found(
        &self,
        row: Self::Row,
        found: Vec<Option<Self::Found>>,
    ) -> Result<Vec<Self::Output>, Reject>;

    /// Takes both steps, for unit tests: `table` is what the table has for a key.
    fn look_up(
        &self,
        row: Self::Row,
        table: impl Fn(&Self::Key) -> Option<Self::Found>,
    ) -> Result<Vec<Self::Output>, Reject> {
        let wanted = self.wanted(&row)?;
        self.found(row, wanted.iter().map(table).collect())
    }
}
