//! How columns are built.

use super::source::{Lineage, Source};
use crate::bindings::sluicebox::plugin::columns::{Column, Values};

/// Columns that are being built. Values are stored by row; how many rows there
/// are is known to whoever writes them, and told in the end.
#[doc(hidden)]
pub trait Writer<'a>: Default {
    /// Says, before any row, what rows are read from.
    #[inline(always)]
    fn offer<S: Source<'a>>(&mut self, name: &'static str, source: &S) {
        let _ = (name, source);
    }

    /// Makes room for `total` rows.
    ///
    /// # Safety
    /// The first `used` rows, and no others, were written.
    unsafe fn reserve(&mut self, used: usize, total: usize);

    /// Copies what is still borrowed.
    ///
    /// # Safety
    /// The first `rows` rows, and no others, were written.
    unsafe fn settle(&mut self, rows: usize);

    /// # Safety
    /// As [`Writer::settle`].
    unsafe fn finish(self, rows: usize, lineage: Lineage<'a, '_>, columns: &mut Vec<Column>);
}

/// The columns of a record inside of another: its own, then its members'.
#[doc(hidden)]
#[derive(Default)]
pub struct RecordWriter<W>(pub W);

impl<'a, W: Writer<'a>> Writer<'a> for RecordWriter<W> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: as the caller says.
        unsafe { self.0.reserve(used, total) }
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: as the caller says.
        unsafe { self.0.settle(rows) }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            values: Values::None,
        });
        // SAFETY: as the caller says.
        unsafe { self.0.finish(rows, Lineage::NONE, columns) }
    }
}
