//! Enums without fields: texts that are one of a few.

/// An enum whose values are texts of a column.
///
/// Derive it. A value is written in snake case (`AddToCart` is `add_to_cart`),
/// or as its `#[symbol("…")]` says. A row with another text is rejected, with a
/// reason that names the field, the values and what was found.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Symbol, Debug, PartialEq)]
/// enum Action {
///     Add,
///     Remove,
///     #[symbol("check-out")]
///     Checkout,
/// }
///
/// assert_eq!(Action::Add.text(), "add");
/// assert_eq!(Action::from_text("check-out"), Some(Action::Checkout));
/// assert_eq!(Action::from_text("dance"), None);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a symbol",
    note = "enums without fields can have `#[derive(Symbol)]`"
)]
pub trait Symbol: Sized {
    /// All values, in the order of the enum.
    const TEXTS: &'static [&'static str];

    /// The value of this text, if there is one.
    fn from_text(text: &str) -> Option<Self>;

    /// The text of this value.
    fn text(&self) -> &'static str;
}
