//! What rows are read from, and which columns of it an answer passes on instead
//! of copying them.

use super::slice::TextReader;

/// What rows are read from, for answers that pass columns of it on.
#[doc(hidden)]
pub trait Source<'a> {
    /// The column of a field, if an answer can pass it on.
    fn input(&self, name: &str) -> Option<Input<'a>>;

    /// All of them.
    fn inputs(&self) -> Vec<Input<'a>>;
}

/// Where nothing is passed on from.
#[doc(hidden)]
pub struct Nowhere;

impl<'a> Source<'a> for Nowhere {
    #[inline(always)]
    fn input(&self, _name: &str) -> Option<Input<'a>> {
        None
    }

    fn inputs(&self) -> Vec<Input<'a>> {
        Vec::new()
    }
}

/// Which input row an output row is made from.
#[doc(hidden)]
pub struct Origin<'call, S> {
    pub source: &'call S,
    pub parent: u32,
    /// One for each output row before this one.
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

/// Which input rows all output rows are made from.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Lineage<'a, 'call> {
    pub inputs: &'call [Input<'a>],
    /// One a row, all of them rows of the table that the inputs are columns of.
    pub parents: &'call [u32],
}

impl Lineage<'_, '_> {
    /// For values that are not a whole column of an answer.
    pub const NONE: Self = Lineage {
        inputs: &[],
        parents: &[],
    };
}

/// What the bytes of a column are.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Text,
    Bytes,
}

/// A column of the input that an answer can pass on: every row has a value.
#[doc(hidden)]
pub struct Input<'a> {
    /// Counted in fields of the top level.
    pub index: u32,
    pub packing: Packing,
    pub texts: TextReader<'a>,
}

impl Input<'_> {
    /// Whether this slice is the very one of a row.
    ///
    /// # Safety
    /// `row` is a row of the table.
    #[inline(always)]
    pub unsafe fn is(&self, slice: &[u8], row: u32) -> bool {
        // SAFETY: as the caller says.
        std::ptr::eq(slice, unsafe { self.texts.slice(row as usize) })
    }
}
