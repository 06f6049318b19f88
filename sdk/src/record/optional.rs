//! Values that may be missing.

use super::columns::{Columns, bit};
use super::flag::Bits;
use super::mapping::Field;
use super::source::{InputColumn, Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::Column;
use crate::bindings::sluicebox::plugin::schemas;

/// A column with its validity.
#[doc(hidden)]
pub struct OptionReader<'a, R> {
    /// `None` if every row has a value.
    validity: Option<&'a [u8]>,
    values: R,
}

/// Writes a column that may lack values.
#[doc(hidden)]
#[derive(Default)]
pub struct OptionWriter<W> {
    validity: Bits,
    missing: bool,
    values: W,
}

impl<'a, W: Writer<'a>> Writer<'a> for OptionWriter<W> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        self.validity.reserve(total);
        // SAFETY: as the caller says.
        unsafe { self.values.reserve(used, total) }
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: as the caller says.
        unsafe { self.values.settle(rows) }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        let own = columns.len();
        // SAFETY: as the caller says.
        unsafe { self.values.finish(rows, Lineage::NONE, columns) };
        if self.missing {
            columns[own].validity = Some(self.validity.into_bytes(rows));
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    type Reader = OptionReader<'a, T::Reader>;
    type Writer = OptionWriter<T::Writer>;
    const COLUMNS: usize = T::COLUMNS;
    const NULLABLE: bool = true;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        const {
            assert!(
                !T::NULLABLE,
                "a field cannot be an `Option` of an `Option`: a value is missing or it is not"
            );
        }
        let own = fields.len();
        T::describe(name, doc, fields);
        fields[own].nullable = true;
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        let validity = columns.validity(rows);
        let gaps = std::mem::replace(&mut columns.gaps, true);
        let values = T::reader(columns, rows);
        columns.gaps = gaps;
        OptionReader { validity, values }
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        let present = match reader.validity {
            None => true,
            // SAFETY: there is a bit for every row.
            Some(bits) => unsafe { bit(bits, row) },
        };
        match present {
            // SAFETY: as the caller says.
            true => unsafe { T::read(&reader.values, row) }.map(Some),
            false => Ok(None),
        }
    }

    #[inline(always)]
    fn input(reader: &Self::Reader, index: u32) -> Option<InputColumn<'a>> {
        match reader.validity {
            None => T::input(&reader.values, index),
            Some(_) => None,
        }
    }

    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        name: &'static str,
        _origin: Origin<'_, S>,
        _passed: bool,
    ) {
        // SAFETY: as the caller says.
        unsafe {
            match self {
                Some(value) => {
                    writer.validity.set(row, true);
                    value.write(&mut writer.values, row, name, Origin::NOWHERE, false);
                }
                None => Self::write_missing(writer, row),
            }
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        writer.missing = true;
        // SAFETY: as the caller says.
        unsafe { T::write_missing(&mut writer.values, row) }
    }
}
