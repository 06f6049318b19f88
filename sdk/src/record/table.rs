//! A batch as a table of records.

use super::columns::{Checked, Columns};
use super::mapping::Record;
use crate::bindings::sluicebox::plugin::columns::Batch;

/// A batch whose columns were checked, so that they can be read unchecked.
#[doc(hidden)]
pub struct Table<'a> {
    rows: usize,
    columns: Vec<Checked<'a>>,
}

impl<'a> Table<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        Table {
            rows: batch.rows as usize,
            columns: batch.columns.iter().map(Checked::new).collect(),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Makes a reader of whole rows.
    #[inline(always)]
    pub fn reader<'t, R: Record<'t>>(&'t self) -> R::Reader {
        assert_eq!(
            self.columns.len(),
            R::COLUMNS,
            "the host sent another number of columns than agreed"
        );
        let mut columns = Columns::new(&self.columns);
        R::reader(&mut columns, self.rows)
    }
}
