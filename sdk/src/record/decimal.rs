//! Decimals: 16 bytes a row.

use super::columns::{Columns, assert_length, wrong};
use super::list::Element;
use super::mapping::{Field, schema_field};
use super::slots::Slots;
use super::source::{Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::Decimal;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

type Bytes = [u8; 16];

/// Writes decimals.
#[doc(hidden)]
#[derive(Default)]
pub struct DecimalWriter(Slots<Bytes>);

impl<'a, const SCALE: u8> Field<'a> for Decimal<SCALE> {
    type Reader = &'a [Bytes];
    type Writer = DecimalWriter;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        let digits = schemas::Digits {
            precision: 38,
            scale: SCALE,
        };
        let field_type = schemas::FieldType::Decimal(digits);
        fields.push(schema_field(name, doc, field_type));
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        match columns.values(rows) {
            Values::Decimals(bytes) => {
                let (values, _) = bytes.as_chunks();
                assert_length(values.len(), rows);
                values
            }
            other => wrong("decimals", other),
        }
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: the reader has as many values as there are rows.
        let bytes = unsafe { *reader.get_unchecked(row) };
        Ok(Decimal::from_units(i128::from_le_bytes(bytes)))
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
        // SAFETY: the caller has reserved the row.
        unsafe { writer.0.put(row, self.units().to_le_bytes()) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { writer.0.put(row, Bytes::default()) }
    }
}

impl<const SCALE: u8> Element<'_> for Decimal<SCALE> {}

impl<'a> Writer<'a> for DecimalWriter {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        self.0.reserve(used, total);
    }

    unsafe fn settle(&mut self, _rows: usize) {}

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        // SAFETY: the caller says that all these rows were written.
        let values = unsafe { self.0.into_vec(rows) };
        columns.push(Column {
            validity: None,
            values: Values::Decimals(values.into_flattened()),
        });
    }
}
