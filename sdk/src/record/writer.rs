//! The trait that builds columns.

use super::source::{Lineage, Source};
use crate::bindings::sluicebox::plugin::columns::{Column, Values};

/// Builds columns. Values are stored by row; the caller counts the rows, and
/// gives their number at the end.
#[doc(hidden)]
pub trait Writer<'a>: Default {
    /// Announces the source of the rows, before the first one.
    #[inline(always)]
    fn offer<S: Source<'a>>(&mut self, name: &'static str, source: &S) {
        let _ = (name, source);
    }

    /// Reserves space for `total` rows.
    ///
    /// # Safety
    /// Exactly the first `used` rows were written.
    unsafe fn reserve(&mut self, used: usize, total: usize);

    /// Copies what is still borrowed.
    ///
    /// # Safety
    /// Exactly the first `rows` rows were written.
    unsafe fn settle(&mut self, rows: usize);

    /// # Safety
    /// As [`Writer::settle`].
    unsafe fn finish(self, rows: usize, lineage: Lineage<'a, '_>, columns: &mut Vec<Column>);
}

/// The columns of one writer, followed by those of another.
impl<'a, A: Writer<'a>, B: Writer<'a>> Writer<'a> for (A, B) {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: as the caller says.
        unsafe {
            self.0.reserve(used, total);
            self.1.reserve(used, total);
        }
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: as the caller says.
        unsafe {
            self.0.settle(rows);
            self.1.settle(rows);
        }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        // SAFETY: as the caller says.
        unsafe {
            self.0.finish(rows, Lineage::NONE, columns);
            self.1.finish(rows, Lineage::NONE, columns);
        }
    }
}

/// The columns of a nested record: its own, then its members'.
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
