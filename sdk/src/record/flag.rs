//! Booleans, one bit a row.

use super::{
    Columns, Field, Origin, Unreadable, Writer, assert_length, bit, schema_field, wrong_column,
};
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Bits in the order of rows, least significant first.
#[doc(hidden)]
#[derive(Default)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    #[inline(always)]
    pub fn push(&mut self, bit: bool) {
        let (byte, shift) = (self.len / 8, self.len % 8);
        if byte == self.bytes.len() {
            self.bytes.push(0);
        }
        self.bytes[byte] |= u8::from(bit) << shift;
        self.len += 1;
    }

    pub fn reserve(&mut self, bits: usize) {
        let bytes = (self.len + bits).div_ceil(8);
        self.bytes.reserve(bytes - self.bytes.len());
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Writer for Bits {
    fn reserve(&mut self, rows: usize) {
        Bits::reserve(self, rows);
    }

    fn finish(self, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            values: Values::Bits(self.bytes),
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
        match columns.next(rows) {
            Values::Bits(bits) => {
                assert_length(bits.len(), rows.div_ceil(8));
                bits
            }
            other => wrong_column("bool", other),
        }
    }

    #[inline(always)]
    unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: the reader has a bit for every row.
        Ok(unsafe { bit(reader, row) })
    }

    #[inline(always)]
    unsafe fn skip(_reader: &mut Self::Reader, _row: usize) {}

    #[inline(always)]
    unsafe fn write(&self, writer: &mut Self::Writer, _origin: Origin<'a, '_>) {
        writer.push(*self);
    }

    unsafe fn write_missing(writer: &mut Self::Writer) {
        writer.push(false);
    }
}
