//! Integers, floats and times: one value a row, as it lies in memory.

use super::{
    Columns, Field, Origin, Unreadable, Writer, push_reserved, schema_field, wrong_column,
};
use crate::Timestamp;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Values of one fixed-size type.
#[doc(hidden)]
pub struct NumberWriter<T>(Vec<T>);

impl<T> Default for NumberWriter<T> {
    fn default() -> Self {
        NumberWriter(Vec::new())
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

            fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
                match columns.next(rows) {
                    Values::$type(values) => &values[..rows],
                    other => wrong_column(stringify!($number), other),
                }
            }

            #[inline(always)]
            unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
                // SAFETY: the reader has as many values as there are rows.
                Ok(unsafe { *reader.get_unchecked(row) })
            }

            #[inline(always)]
            unsafe fn skip(_reader: &mut Self::Reader, _row: usize) {}

            #[inline(always)]
            unsafe fn write(&self, writer: &mut Self::Writer, _origin: Origin<'a, '_>) {
                // SAFETY: the caller has reserved the row.
                unsafe { push_reserved(&mut writer.0, *self) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer) {
                // SAFETY: the caller has reserved the row.
                unsafe { push_reserved(&mut writer.0, <$number>::default()) }
            }
        }

        impl Writer for NumberWriter<$number> {
            fn reserve(&mut self, rows: usize) {
                self.0.reserve(rows);
            }

            fn finish(self, columns: &mut Vec<Column>) {
                columns.push(Column {
                    validity: None,
                    values: Values::$type(self.0),
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

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        i64::reader(columns, rows)
    }

    #[inline(always)]
    unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        unsafe { i64::read(reader, row) }.map(Timestamp)
    }

    #[inline(always)]
    unsafe fn skip(_reader: &mut Self::Reader, _row: usize) {}

    #[inline(always)]
    unsafe fn write(&self, writer: &mut Self::Writer, origin: Origin<'a, '_>) {
        // SAFETY: as the caller says.
        unsafe { self.0.write(writer, origin) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer) {
        // SAFETY: as the caller says.
        unsafe { i64::write_missing(writer) }
    }
}
