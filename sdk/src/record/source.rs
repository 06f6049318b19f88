//! The rows that are read, and the columns of them that an answer passes on
//! instead of copying.

use super::slice::TextReader;

/// Rows that are read, whose columns an answer can pass on.
#[doc(hidden)]
pub trait Source<'a> {
    /// The column of a field, if an answer can pass it on.
    fn input(&self, name: &str) -> Option<InputColumn<'a>>;

    /// All columns that an answer can pass on.
    fn inputs(&self) -> Vec<InputColumn<'a>>;
}

/// No source: nothing can be passed on.
#[doc(hidden)]
pub struct Nowhere;

impl<'a> Source<'a> for Nowhere {
    #[inline(always)]
    fn input(&self, _name: &str) -> Option<InputColumn<'a>> {
        None
    }

    fn inputs(&self) -> Vec<InputColumn<'a>> {
        Vec::new()
    }
}

/// The input row that an output row is made from.
#[doc(hidden)]
pub struct Origin<'call, S> {
    pub source: &'call S,
    pub parent: u32,
    /// The parents of all earlier output rows.
    pub parents: *const u32,
}

impl<S> Clone for Origin<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Origin<'_, S> {}

impl Origin<'_, Nowhere> {
    /// For values that are not a whole column of an answer.
    pub const NOWHERE: Self = Origin {
        source: &Nowhere,
        parent: 0,
        parents: std::ptr::null(),
    };
}

/// The input rows that all output rows are made from.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Lineage<'a, 'call> {
    pub inputs: &'call [InputColumn<'a>],
    /// For each output row, a row of the table that the inputs belong to.
    pub parents: &'call [u32],
}

impl Lineage<'_, '_> {
    /// For values that are not a whole column of an answer.
    pub const NONE: Self = Lineage {
        inputs: &[],
        parents: &[],
    };
}

/// Whether a column's bytes are text.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Text,
    Bytes,
}

/// A column of the input that an answer can pass on; it has a value in every
/// row.
#[doc(hidden)]
pub struct InputColumn<'a> {
    /// The field's index at the top level.
    pub index: u32,
    pub packing: Packing,
    pub texts: TextReader<'a>,
}

impl InputColumn<'_> {
    /// Whether a slice is that of a row: at the same place, not just equal.
    ///
    /// # Safety
    /// `row` is a row of the table.
    #[inline(always)]
    pub unsafe fn is(&self, slice: &[u8], row: u32) -> bool {
        // SAFETY: as the caller says.
        std::ptr::eq(slice, unsafe { self.texts.slice(row as usize) })
    }
}
