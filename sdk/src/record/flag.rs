//! Booleans, one bit a row.

use super::columns::{Columns, assert_length, bit, wrong};
use super::mapping::{Field, schema_field};
use super::source::{Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Bits in the order of rows, least significant first.
#[doc(hidden)]
#[derive(Default)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// # Safety
    /// The row must be reserved.
    #[inline(always)]
    pub unsafe fn set(&mut self, row: usize, bit: bool) {
        // SAFETY: reserved bytes exist and are zero.
        let byte = unsafe { self.0.get_unchecked_mut(row >> 3) };
        *byte |= u8::from(bit) << (row & 7);
    }

    pub fn reserve(&mut self, total: usize) {
        self.0.resize(total.div_ceil(8), 0);
    }

    pub fn into_bytes(mut self, rows: usize) -> Vec<u8> {
        self.0.truncate(rows.div_ceil(8));
        self.0
    }
}

impl<'a> Writer<'a> for Bits {
    unsafe fn reserve(&mut self, _used: usize, total: usize) {
        Bits::reserve(self, total);
    }

    unsafe fn settle(&mut self, _rows: usize) {}

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            values: Values::Bits(self.into_bytes(rows)),
        });
    }
}

impl<'a> Field<'a> for bool {
    type Reader = &'a [u8];
    type Writer = Bits;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        fields.push(schema_field(name, doc, schemas::FieldType::Boolean));
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        match columns.values(rows) {
            Values::Bits(bits) => {
                assert_length(bits.len(), rows.div_ceil(8));
                bits
            }
            other => wrong("bool", other),
        }
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: the reader has a bit for every row.
        Ok(unsafe { bit(reader, row) })
    }

    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        _name: &'static str,
        _origin: Origin<'_, S>,
        _passed: bool,
    ) {
        // SAFETY: as the caller says.
        unsafe { writer.set(row, *self) }
    }

    unsafe fn write_missing(_writer: &mut Self::Writer, _row: usize) {}
}
