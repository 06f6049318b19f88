//! Records as whole columns: states and keys.

use super::columns::Columns;
use super::mapping::Record;
use super::slots::push_reserved;
use super::source::{Lineage, Nowhere, Origin, Source};
use super::table::Table;
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::{Batch, Column};
use crate::bindings::sluicebox::plugin::schemas;

/// The columns of these records.
pub fn columns<'a, S: Record<'a>>(records: &[S]) -> Batch {
    let mut writer = S::Writer::default();
    let mut columns = Vec::with_capacity(S::COLUMNS);
    // SAFETY: there is room for all records, and all are written.
    unsafe {
        writer.reserve(0, records.len());
        for (row, record) in records.iter().enumerate() {
            record.write(&mut writer, row, Origin::NOWHERE);
        }
        writer.finish(records.len(), Lineage::NONE, &mut columns);
    }
    Batch {
        rows: records.len() as u32,
        columns,
    }
}

/// All records of a batch that the host keeps, with capacity for some more.
pub fn read_all<S: for<'a> Record<'a>>(batch: &Batch, capacity: usize) -> Vec<S> {
    let table = Table::new(batch);
    let mut records = read_table(&table);
    records.reserve(capacity.saturating_sub(records.len()));
    records
}

/// All records of a table.
pub fn read_table<'t, S: Record<'t>>(table: &'t Table<'t>) -> Vec<S> {
    let mut records = Vec::with_capacity(table.rows());
    let reader = table.reader::<S>();
    for row in 0..table.rows() {
        // SAFETY: the table has this row.
        match unsafe { S::read(&reader, row) } {
            // SAFETY: there is room for all of them.
            Ok(record) => unsafe { push_reserved(&mut records, record) },
            Err(unreadable) => panic!("a stored state cannot be read: {unreadable}"),
        }
    }
    records
}

/// The fields of a record.
pub fn schema_of<'a, R: Record<'a>>() -> Vec<schemas::Field> {
    let mut fields = Vec::new();
    R::describe(&mut fields);
    fields
}

/// A record without fields.
impl<'a> Record<'a> for () {
    type Reader = Nowhere;
    type Writer = NoColumns;
    const COLUMNS: usize = 0;

    fn describe(_fields: &mut Vec<schemas::Field>) {}

    fn reader(_columns: &mut Columns<'a>, _rows: usize) -> Nowhere {
        Nowhere
    }

    unsafe fn read(_reader: &Nowhere, _row: usize) -> Result<Self, Unreadable> {
        Ok(())
    }

    unsafe fn write<S: Source<'a>>(
        &self,
        _writer: &mut NoColumns,
        _row: usize,
        _origin: Origin<'_, S>,
    ) {
    }

    unsafe fn write_missing(_writer: &mut NoColumns, _row: usize) {}
}

/// Writes nothing.
#[doc(hidden)]
#[derive(Default)]
pub struct NoColumns;

impl<'a> Writer<'a> for NoColumns {
    unsafe fn reserve(&mut self, _used: usize, _total: usize) {}

    unsafe fn settle(&mut self, _rows: usize) {}

    unsafe fn finish(self, _rows: usize, _lineage: Lineage<'a, '_>, _columns: &mut Vec<Column>) {}
}
