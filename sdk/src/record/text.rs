//! Texts and bytes: read as slices of the column, written by copying, or passed
//! on without a copy.
//!
//! A writer watches whether every output row's slice is the very one (by place
//! and length) that some input field has at the row's parent. While it is,
//! nothing is written: the answer names the input. The first row that breaks
//! this has the rows before it copied after all.

use super::{
    Columns, Field, Input, Origin, Packing, Unreadable, Writer, assert_ends, push_reserved,
    schema_field, wrong_column,
};
use crate::bindings::sluicebox::plugin::columns::{Column, Packed, Values};
use crate::bindings::sluicebox::plugin::schemas;
use crate::text;

/// Slices of a column, in the order of its rows.
#[doc(hidden)]
pub struct TextReader<'a> {
    data: &'a [u8],
    ends: &'a [u32],
    /// Where the next row's slice starts.
    start: u32,
}

/// A column of slices.
#[doc(hidden)]
#[derive(Default)]
pub struct TextWriter<'a> {
    rows: Rows<'a>,
    /// Rows that there is room for.
    capacity: usize,
    ends: Vec<u32>,
    data: Vec<u8>,
}

#[derive(Default)]
enum Rows<'a> {
    #[default]
    None,
    /// All the rows so far are those of this input.
    Passed(Input<'a>),
    Copied,
}

impl<'a> TextReader<'a> {
    pub fn new(columns: &mut Columns<'a>, rows: usize) -> Self {
        match columns.next(rows) {
            Values::Packed(packed) => {
                assert_ends(&packed.ends, rows, Some(packed.data.len()));
                TextReader {
                    data: &packed.data,
                    ends: &packed.ends,
                    start: 0,
                }
            }
            other => wrong_column("text or bytes", other),
        }
    }

    /// # Safety
    /// As [`Field::read`].
    #[inline(always)]
    pub unsafe fn next(&mut self, row: usize) -> &'a [u8] {
        // SAFETY: ends ascend and lie in the data, as was checked for all rows;
        // `start` is the end of the row before.
        unsafe {
            let end = *self.ends.get_unchecked(row);
            let slice = self.data.get_unchecked(self.start as usize..end as usize);
            self.start = end;
            slice
        }
    }
}

impl<'a> TextWriter<'a> {
    /// # Safety
    /// The row has been reserved.
    #[inline(always)]
    pub unsafe fn push(&mut self, bytes: &[u8], packing: Packing, origin: Origin<'a, '_>) {
        match &self.rows {
            // SAFETY: `origin` is a row of the batch whose columns the inputs are.
            Rows::Passed(input) if std::ptr::eq(unsafe { input.at(origin.row) }, bytes) => return,
            Rows::Passed(_) => *self = std::mem::take(self).copied(origin.parents),
            Rows::Copied => {}
            Rows::None => {
                *self = std::mem::take(self).started(bytes, packing, origin);
                if let Rows::Passed(_) = self.rows {
                    return;
                }
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.copy(bytes) }
    }

    /// # Safety
    /// The row has been reserved, and no row was passed on.
    #[inline(always)]
    unsafe fn copy(&mut self, bytes: &[u8]) {
        let len = self.data.len();
        if self.data.capacity() - len < bytes.len() {
            self.data = grown(std::mem::take(&mut self.data), bytes.len());
        }
        // SAFETY: there is room for the bytes, and for one more end.
        unsafe {
            text::copy(bytes.as_ptr(), self.data.as_mut_ptr().add(len), bytes.len());
            self.data.set_len(len + bytes.len());
            push_reserved(&mut self.ends, (len + bytes.len()) as u32);
        }
    }

    /// Decides at the first row. Cold functions take and return the writer by
    /// value, so that the loop can keep it in registers.
    #[cold]
    fn started(mut self, bytes: &[u8], packing: Packing, origin: Origin<'a, '_>) -> Self {
        let input = origin.inputs.iter().find(|input| {
            // SAFETY: as in `push`.
            input.packing == packing && std::ptr::eq(unsafe { input.at(origin.row) }, bytes)
        });
        match input {
            Some(input) => self.rows = Rows::Passed(*input),
            None => {
                self.rows = Rows::Copied;
                self.ends.reserve_exact(self.capacity);
                self.data.reserve(self.capacity * bytes.len());
            }
        }
        self
    }

    #[cold]
    fn copied(mut self, parents: &[u32]) -> Self {
        let Rows::Passed(input) = std::mem::replace(&mut self.rows, Rows::Copied) else {
            return self;
        };
        self.ends.reserve_exact(self.capacity);
        for &parent in parents {
            // SAFETY: parents are rows of the batch whose columns the inputs
            // are, and all of these output rows were reserved.
            unsafe { self.copy(&*input.at(parent)) };
        }
        self
    }
}

#[cold]
fn grown(mut data: Vec<u8>, additional: usize) -> Vec<u8> {
    data.reserve(additional);
    assert!(
        u32::try_from(data.len() + additional).is_ok(),
        "a column of an answer has more than 4 GiB"
    );
    data
}

impl Writer for TextWriter<'_> {
    fn reserve(&mut self, rows: usize) {
        self.capacity += rows;
        if let Rows::Copied = self.rows {
            self.ends.reserve(self.capacity - self.ends.len());
        }
    }

    fn finish(self, columns: &mut Vec<Column>) {
        let values = match self.rows {
            Rows::Passed(input) => Values::Input(input.index),
            Rows::Copied | Rows::None => Values::Packed(Packed {
                ends: self.ends,
                data: self.data,
            }),
        };
        columns.push(Column {
            validity: None,
            values,
        });
    }
}

macro_rules! slices {
    ($($text:ty, $packing:ident, $type:ident, $passes:expr, $read:expr, $bytes:expr;)*) => {$(
        impl<'a> Field<'a> for $text {
            type Reader = TextReader<'a>;
            type Writer = TextWriter<'a>;
            const PASSES: Option<Packing> = $passes;

            fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
                fields.push(schema_field(name, doc, schemas::FieldType::$type));
            }

            fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
                TextReader::new(columns, rows)
            }

            #[inline(always)]
            unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
                // SAFETY: as the caller says.
                Ok($read(unsafe { reader.next(row) }))
            }

            #[inline(always)]
            unsafe fn skip(reader: &mut Self::Reader, row: usize) {
                // SAFETY: as the caller says.
                unsafe { reader.next(row) };
            }

            #[inline(always)]
            unsafe fn write(&self, writer: &mut Self::Writer, origin: Origin<'a, '_>) {
                // SAFETY: as the caller says.
                unsafe { writer.push($bytes(self), Packing::$packing, origin) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer) {
                // SAFETY: as the caller says.
                unsafe { writer.push(&[], Packing::$packing, Origin::NOWHERE) }
            }
        }
    )*};
}

slices! {
    &'a str, Text, Utf8, Some(Packing::Text), utf8, |text: &&'a str| text.as_bytes();
    String, Text, Utf8, None, |bytes| utf8(bytes).to_owned(), String::as_bytes;
    &'a [u8], Bytes, Bytes, Some(Packing::Bytes), |bytes| bytes, |bytes: &&'a [u8]| *bytes;
}

/// Text as the host sends it.
#[inline(always)]
fn utf8(bytes: &[u8]) -> &str {
    // SAFETY: the contract says that texts are UTF-8 and their ends lie between
    // characters; the host checks what it takes in.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
