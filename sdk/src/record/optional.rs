//! Values that may be missing.

use super::{Bits, Columns, Field, Origin, Packing, Unreadable, Writer, bit};
use crate::bindings::sluicebox::plugin::columns::Column;
use crate::bindings::sluicebox::plugin::schemas;

/// A column with its validity.
#[doc(hidden)]
pub struct OptionReader<'a, R> {
    /// Absent when every row has a value.
    validity: Option<&'a [u8]>,
    values: R,
}

/// A column that notes which rows have a value.
#[doc(hidden)]
#[derive(Default)]
pub struct OptionWriter<W> {
    validity: Bits,
    missing: bool,
    values: W,
}

impl<W: Writer> Writer for OptionWriter<W> {
    fn reserve(&mut self, rows: usize) {
        self.validity.reserve(rows);
        self.values.reserve(rows);
    }

    fn finish(self, columns: &mut Vec<Column>) {
        let own = columns.len();
        self.values.finish(columns);
        if self.missing {
            columns[own].validity = Some(self.validity.into_bytes());
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    type Reader = OptionReader<'a, T::Reader>;
    type Writer = OptionWriter<T::Writer>;
    const COLUMNS: usize = T::COLUMNS;
    const NULLABLE: bool = true;
    const PASSES: Option<Packing> = T::PASSES;

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
    unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
        let present = match reader.validity {
            None => true,
            // SAFETY: there is a bit for every row.
            Some(bits) => unsafe { bit(bits, row) },
        };
        // SAFETY: as the caller says.
        unsafe {
            if present {
                T::read(&mut reader.values, row).map(Some)
            } else {
                T::skip(&mut reader.values, row);
                Ok(None)
            }
        }
    }

    #[inline(always)]
    unsafe fn skip(reader: &mut Self::Reader, row: usize) {
        // SAFETY: as the caller says.
        unsafe { T::skip(&mut reader.values, row) }
    }

    #[inline(always)]
    unsafe fn write(&self, writer: &mut Self::Writer, _origin: Origin<'a, '_>) {
        match self {
            Some(value) => {
                writer.validity.push(true);
                // SAFETY: as the caller says.
                unsafe { value.write(&mut writer.values, Origin::NOWHERE) }
            }
            // SAFETY: as the caller says.
            None => unsafe { Self::write_missing(writer) },
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer) {
        writer.validity.push(false);
        writer.missing = true;
        // SAFETY: as the caller says.
        unsafe { T::write_missing(&mut writer.values) }
    }
}
