//! Enums without fields: texts with a few possible values.

use super::columns::Columns;
use super::slice::TextReader;
use crate::text;

/// An enum whose values are texts of a column.
///
/// Derive it. A value's text is its name in snake case (`AddToCart` is
/// `add_to_cart`), or what its `#[symbol("…")]` says. A row with another text
/// is rejected, with a reason that names the field, the values and what was
/// found.
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

    /// The value with this text, if there is one.
    fn from_text(text: &str) -> Option<Self>;

    /// The text of this value.
    fn text(&self) -> &'static str;
}

/// Reads texts along with their first eight bytes as a number, which compares
/// fast.
#[doc(hidden)]
pub struct SymbolReader<'a> {
    texts: TextReader<'a>,
    /// Rows before this one have eight readable bytes from where they start.
    whole: usize,
}

impl<'a> SymbolReader<'a> {
    #[inline(always)]
    pub fn new(columns: &mut Columns<'a>, rows: usize) -> Self {
        let (data, offsets) = columns.packed(rows);
        let fits = |&start: &u32| start as usize + size_of::<u64>() <= data.len();
        SymbolReader {
            texts: TextReader::new((data, offsets)),
            whole: offsets.partition_point(fits),
        }
    }

    /// # Safety
    /// As [`Field::read`](super::mapping::Field::read).
    #[inline(always)]
    pub unsafe fn word(&self, row: usize) -> (u64, &'a [u8]) {
        // SAFETY: as the caller says.
        let slice = unsafe { self.texts.slice(row) };
        let word = if row < self.whole {
            // SAFETY: the column's data has eight bytes from here; those after
            // the slice's end are masked.
            let bytes = unsafe { slice.as_ptr().cast::<[u8; 8]>().read_unaligned() };
            text::cut(u64::from_le_bytes(bytes), slice.len())
        } else {
            text::word(slice)
        };
        (word, slice)
    }
}
