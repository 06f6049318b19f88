//! Integers, floats and times: one value a row.

use super::columns::{Columns, wrong};
use super::mapping::{Field, schema_field};
use super::slots::Slots;
use super::source::{Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::Timestamp;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Writes values of one fixed-size type.
#[doc(hidden)]
pub struct NumberWriter<T>(Slots<T>);

impl<T> Default for NumberWriter<T> {
    #[inline(always)]
    fn default() -> Self {
        NumberWriter(Slots::default())
    }
}

macro_rules! number {
    ($($number:ty, $type:ident;)*) => {$(
        impl<'a> Field<'a> for $number {
            type Reader = &'a [$number];
            type Writer = NumberWriter<$number>;

            fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
                fields.push(schema_field(name, doc, schemas::FieldType::$type));
            }

            #[inline(always)]
            fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
                match columns.values(rows) {
                    Values::$type(values) => &values[..rows],
                    other => wrong(stringify!($number), other),
                }
            }

            #[inline(always)]
            unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
                // SAFETY: the reader has as many values as there are rows.
                Ok(unsafe { *reader.get_unchecked(row) })
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
                unsafe { writer.0.put(row, *self) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                // SAFETY: as the caller says.
                unsafe { writer.0.put(row, <$number>::default()) }
            }
        }

        impl<'a> Writer<'a> for NumberWriter<$number> {
            #[inline(always)]
            unsafe fn reserve(&mut self, used: usize, total: usize) {
                self.0.reserve(used, total);
            }

            unsafe fn settle(&mut self, _rows: usize) {}

            #[inline(always)]
            unsafe fn finish(
                self,
                rows: usize,
                _lineage: Lineage<'a, '_>,
                columns: &mut Vec<Column>,
            ) {
                columns.push(Column {
                    validity: None,
                    // SAFETY: the caller says that all these rows were written.
                    values: Values::$type(unsafe { self.0.into_vec(rows) }),
                });
            }
        }
    )*};
}

number! {
    i8, Int8;
    i16, Int16;
    i32, Int32;
    i64, Int64;
    u8, Uint8;
    u16, Uint16;
    u32, Uint32;
    u64, Uint64;
    f32, Float32;
    f64, Float64;
}

impl<'a> Field<'a> for Timestamp {
    type Reader = &'a [i64];
    type Writer = NumberWriter<i64>;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        fields.push(schema_field(name, doc, schemas::FieldType::Timestamp));
    }

    #[inline(always)]
    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        i64::reader(columns, rows)
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        unsafe { i64::read(reader, row) }.map(Timestamp)
    }

    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        name: &'static str,
        origin: Origin<'_, S>,
        passed: bool,
    ) {
        // SAFETY: as the caller says.
        unsafe { self.0.write(writer, row, name, origin, passed) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { i64::write_missing(writer, row) }
    }
}
